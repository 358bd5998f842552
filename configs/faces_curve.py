"""Faces over beta, from one network that is told it: midpoint_ratio, prior_to_nearest, and which factors are lost when.

    python -m experiments.train --config=configs/faces_curve.py

The data and the network of `faces`, ten latents, three seeds, at 13 betas from 0.1 to 8. Expect midpoint_ratio from 1.0 at
0.1 to 0.60 at 2 and 0.78 at 8, no smile at any beta, and skin, eyes and then glasses lost (attribute_effect_*); figure:
factors_over_beta. Less than a minute of training and six of evaluation on 2 cores that did other work too.
"""

from configs import faces

BETAS = (0.1, 0.15, 0.25, 0.35, 0.5, 0.7, 1.5, 2.0, 3.0, 4.0, 5.5, 8.0)  # and 1, where it stands


def get_config():
    config = faces.get_config()
    config.name = "faces_curve"
    config.model.conditioning = "beta"
    config.objective.beta_high = 10.0
    config.eval.betas = BETAS
    return config


def sweep(add):
    for seed in range(3):
        add({"seed": seed})
