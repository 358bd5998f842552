"""The VAE: -loss is the ELBO.

    python -m experiments.train --config=configs/vae.py

NOTE_vae
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "vae"
    return config
