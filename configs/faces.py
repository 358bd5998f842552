"""What lies between two codes: AE, VAE and beta-VAE on drawn faces whose hair length, smile and glasses are known exactly.

    python -m experiments.train --config=configs/faces.py

Ten latents, 32x32 grey, five seeds. Expect midpoint_ratio about 2 for `ae` and `vae_no_kl`, 0.8 for `vae` and 0.75 at
beta 4: the decoded middle between short and long hair against the average of the two pictures. Draws from the prior lie
three to four times as near to true faces for `vae` as for `ae`; from beta 1 on the smile is lost (docs/results.md). It
depends on the drawing. Two and a half minutes on 2 cores.
"""

from configs import base

SEEDS = range(5)
BETAS = (0.25, 4.0, 8.0)  # 1 is `vae`


def get_config():
    config = base.get_config()
    config.name = "faces"
    config.data.name = "faces"
    config.data.valid_fraction = 0.0
    config.model.latents = 10
    config.model.hidden = (128,)
    config.model.activation = "relu"
    config.optimizer.learning_rate = 2e-3
    config.train.epochs = 10
    config.train.batch_size = 64
    config.train.chunk_epochs = 1
    config.eval.decoded = 0  # a Frechet distance of 1,024 pixels costs more than training; distances to true faces say more
    config.eval.samples = 16
    config.eval.aggregate_samples = 0
    return config


def sweep(add):
    for seed in SEEDS:
        add(variant("ae", seed, noise_scale=0.0, beta=0.0))
        add(variant("vae_no_kl", seed, beta=0.0))
        add(variant("vae", seed))
        for beta in BETAS:
            add(variant("beta_vae", seed, beta=beta))


def variant(name: str, seed: int, noise_scale: float = 1.0, beta: float = 1.0) -> dict:
    return {
        "name": name,
        "seed": seed,
        "objective.noise_scale": noise_scale,
        "objective.distortion_weight": 1.0,
        "objective.beta": beta,
    }
