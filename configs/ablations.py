"""The main study: AE, VAE without KL, KL only, VAE and beta-VAE on grey digits, 2 latents, 5 seeds each; PCA beside them.

    python -m experiments.train --config=configs/ablations.py

Expect on the test split (nats per image, grey pixels, so up to a normaliser): elbo -24.0 for `vae`, -28.0 for `kl_only`,
-50 for `vae_no_kl`; from `ae` to collapse the distortion goes from 20.3 to 27.1, and the rate from 6.4 (beta 0.1) to 0.
One program, 65 runs, about a minute and a half on 2 cores.
"""

from configs import base

BETAS = (0.1, 0.25, 0.5, 0.75, 1.5, 2.0, 2.5, 4.0, 8.0)  # 1 is `vae`; at 4 and 8 everything has collapsed


def get_config():
    config = base.get_config()
    config.name = "ablations"
    config.baselines = ("pca",)
    return config


def sweep(add):
    """Every variant with every seed; same start, same order, same noise for the same seed."""
    for seed in range(5):
        add(variant("ae", seed, noise_scale=0.0, beta=0.0))
        add(variant("vae_no_kl", seed, beta=0.0))
        add(variant("kl_only", seed, distortion_weight=0.0))
        add(variant("vae", seed))
        for beta in BETAS:
            add(variant("beta_vae", seed, beta=beta))


def variant(name: str, seed: int, noise_scale: float = 1.0, distortion_weight: float = 1.0, beta: float = 1.0) -> dict:
    return {
        "name": name,
        "seed": seed,
        "objective.noise_scale": noise_scale,
        "objective.distortion_weight": distortion_weight,
        "objective.beta": beta,
    }
