"""The Gaussian is a convenience: one network and one objective under six priors.

python -m experiments.train --config=configs/priors.py
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "priors"
    config.data.binarize = "dynamic"
    config.model.latents = 2
    config.eval.importance_samples = 1000
    return config


def sweep(add):
    for prior in ("normal", "laplace", "student_t", "mixture", "vamp", "flow"):
        for seed in range(3):
            add({"name": prior, "seed": seed, "model.prior": prior})
