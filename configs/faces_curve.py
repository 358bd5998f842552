"""Faces over beta, from one network that is told it: midpoint_ratio, prior_to_nearest, and which factors are lost when.

    python -m experiments.train --config=configs/faces_curve.py

The data and the network of `faces`, ten latents, three seeds, at 13 betas from 0.1 to 8. Expect midpoint_ratio from 0.6 at
0.1 to 0.46 at 2 and 0.73 at 8, far apart between seeds, and the smile lost first, then skin and eyes, then glasses
(attribute_effect_*); figure: factors_over_beta. A minute and a half on 2 cores.
"""

from configs import faces

BETAS = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 1.5, 2.0, 3.0, 4.0, 5.5, 8.0)  # and 1, where it stands


def get_config():
    config = faces.get_config()
    config.name = "faces_curve"
    config.model.conditioning = "beta"
    config.objective.beta_high = 10.0
    config.train.epochs = 30  # one network for all of them: with the 10 of `faces` no smile was learned at any beta
    config.eval.betas = BETAS
    return config


def sweep(add):
    for seed in range(3):
        add({"seed": seed})
