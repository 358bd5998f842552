"""Why reparameterise: the variance of the gradient by reparameterisation and by the score function, over the latents.

    python -m experiments.train --config=configs/gradients.py

Expect the score function's variance to be larger by orders of magnitude, the more so the more latents. A minute on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "gradients"
    config.train.epochs = 100
    config.eval.gradient_samples = 2000
    return config


def sweep(add):
    for latents in (2, 4, 8, 16):
        for seed in range(3):
            add({"name": "vae", "seed": seed, "model.latents": latents})
