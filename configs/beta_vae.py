"""A beta-VAE: one point on the rate-distortion curve, where its slope dD/dR is -beta.

    python -m experiments.train --config=configs/beta_vae.py

NOTE_beta
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "beta_vae"
    config.objective.beta = 2.0
    return config
