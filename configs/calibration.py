"""Decoders that know how far they are off: sigma fixed, learned, per pixel or optimal, at several betas; and two others.

python -m experiments.train --config=configs/calibration.py
"""

from configs import base

GAUSSIAN = {"fixed": "0.1", "learned": "learned", "per_pixel": "per_pixel", "optimal": "optimal"}
OTHERS = {"logistic": "discretized_logistic", "continuous_bernoulli": "continuous_bernoulli"}


def get_config():
    config = base.get_config()
    config.name = "calibration"
    config.model.latents = 8
    config.model.likelihood = "gaussian"
    config.eval.aggregate_samples = 0
    return config


def sweep(add):
    """Names are those of the kinds of sigma, and of the other likelihoods."""
    for seed in range(3):
        for beta in (0.25, 1.0, 4.0):
            common = {"seed": seed, "objective.beta": beta}
            for name, sigma in GAUSSIAN.items():
                add(common | {"name": name, "model.likelihood": "gaussian", "model.sigma": sigma})
            for name, likelihood in OTHERS.items():
                add(common | {"name": name, "model.likelihood": likelihood, "model.sigma": "learned"})
