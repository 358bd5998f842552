"""What the post says beside the main study: decoders with their own sigma, other priors, gradient variances.

    python -m experiments.train --config=configs/post.py

Digits, 8 latents, 3 seeds. Expect 3 sigma intervals to hold 97 to 99 % of the test pixels (nominal 99.73 %: half the pixels
are exactly 0, no Gaussian), importance bounds of all priors within 0.5 nats, and a gradient by reparameterisation with a
hundredth of the score function's variance. `python -m experiments.claims` reads it.
"""

from configs import base

PRIORS = ("normal", "laplace", "student_t", "mixture")


def get_config():
    config = base.get_config()
    config.name = "post"
    config.model.latents = 8
    config.train.epochs = 150
    config.eval.decoded = 0
    config.eval.aggregate_samples = 0
    config.eval.importance_samples = 100
    config.eval.gradient_samples = 100
    return config


def sweep(add):
    for seed in range(3):
        for sigma in ("learned", "per_pixel"):
            add({"name": sigma, "seed": seed, "model.likelihood": "gaussian", "model.sigma": sigma, "model.prior": "normal"})
        for prior in PRIORS:
            add({"name": prior, "seed": seed, "model.likelihood": "bernoulli", "model.sigma": "0.1", "model.prior": prior})
