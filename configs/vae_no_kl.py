"""A VAE without its KL term: the posterior's std shrinks to 0 and it turns into the AE.

    python -m experiments.train --config=configs/vae_no_kl.py

NOTE_nokl
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "vae_no_kl"
    config.objective.beta = 0.0
    return config
