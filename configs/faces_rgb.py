"""The five models on drawn faces in colour at 64x64: what configs/celeba.py does, on data that needs no download.

    python -m experiments.train --config=configs/faces_rgb.py

2,000 faces, ten latents, fewer channels, 12 epochs of 62 steps, 6 runs in one program. Expect draws from the prior to be
faces for `vae` and larger betas, fog for `ae` (prior_to_nearest 0.07 against 0.007 to 0.004), and hair to follow a latent
only where there is a KL; the decoded middle is no better than that of `ae` (docs/results.md). Twelve minutes of CPU time.
"""

from configs import celeba


def get_config():
    config = celeba.get_config()
    config.name = "faces_rgb"
    config.data.name = "faces"
    config.data.channels = 3
    config.data.count = 2500
    config.data.label = ""
    config.model.hidden = (16, 32, 64, 64, 128)
    config.model.latents = 10
    config.optimizer.learning_rate = 2e-3
    config.train.batch_size = 32
    config.train.epochs = 12
    config.eval.samples = 4
    config.eval.decoded = 0  # distances to true faces say more, and cost less
    return config


sweep = celeba.sweep
