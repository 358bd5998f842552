"""The autoencoder: no noise, no rate. The best reconstruction, from latents of unknown distribution.

    python -m experiments.train --config=configs/ae.py

NOTE_ae
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "ae"
    config.objective.noise_scale = 0.0
    config.objective.beta = 0.0
    return config
