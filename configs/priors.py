"""The Gaussian is a convenience: one network and one objective under six priors.

    python -m experiments.train --config=configs/priors.py
    python -m experiments.train --config=configs/priors.py --workdir=runs/priors_8 --config.model.latents=8

Digits, binarised afresh in each step, so that the bounds are likelihoods. Expect an importance bound of -23.2 to
-23.3 nats for all, and a smaller `aggregate_kl` and rate for the learned ones (`mixture`, `vamp`, `flow`). Three
minutes on 2 cores. On MNIST: configs/mnist_priors.py.
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
