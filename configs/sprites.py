"""Disentanglement over beta, with every metric people use, on drawn shapes with a full grid of factors.

    python -m experiments.train --config=configs/sprites.py

16x16, ten latents, five seeds, AE and beta 0.25 to 16. Expect MIG, SAP and UDR to be highest at beta 8 (0.25, 0.35, 0.8),
where x and y have a latent each, and 0 at 16 (collapse); BetaVAE and FactorVAE scores do not rise. A quarter of
an hour on 2 cores that did other work.
"""

from configs import faces

BETAS = (0.25, 0.5, 2.0, 4.0, 8.0, 16.0)  # 1 is `vae`


def get_config():
    config = faces.get_config()
    config.name = "sprites"
    config.data.name = "sprites"
    config.model.hidden = (256,)
    config.train.epochs = 44
    config.train.chunk_epochs = 4
    return config


def sweep(add):
    for seed in range(5):
        add(faces.variant("ae", seed, noise_scale=0.0, beta=0.0))
        add(faces.variant("vae", seed))
        for beta in BETAS:
            add(faces.variant("beta_vae", seed, beta=beta))
