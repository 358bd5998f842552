"""One network that is told beta, beside a network for each beta: digits, 2 latents, 5 seeds, the betas of `ablations`.

    python -m experiments.train --config=configs/curve.py

The name `curve` is the one network of a seed, evaluated at every beta; `vae` and `beta_vae` are trained for one beta each,
with the same network, seeds and data. The loss of the conditioned one is (D + beta R) / sqrt(max(beta, 1)), beta log-uniform
from 0.05 to 6. Its optimizer was chosen on the validation split (mean of D + beta R over the betas, 10 seeds); the separate
ones have that of `ablations`. docs/results.md has the loss at each beta.
"""

from configs import base

SEEDS = range(5)
BETAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 4.0)
ALONE = {"train.epochs": 300, "optimizer.name": "adam", "optimizer.weight_decay": 0.0, "optimizer.learning_rate": 3e-3}
# One network for all betas is as free as the least regularised of the separate ones: around beta 1 it overfits.
TOLD = {"train.epochs": 200, "optimizer.name": "adamw", "optimizer.weight_decay": 0.1, "optimizer.learning_rate": 0.01}


def get_config():
    config = base.get_config()
    config.name = "curve"
    config.eval.betas = BETAS
    return config


def sweep(add):
    """The conditioned network of each seed, which is evaluated at every beta, and the separate ones."""
    for seed in SEEDS:
        add(variant("curve", seed, "beta", 1.0, TOLD))
        for beta in BETAS:
            add(variant("vae" if beta == 1 else "beta_vae", seed, "none", beta, ALONE))


def variant(name: str, seed: int, conditioning: str, beta: float, training: dict) -> dict:
    return {"name": name, "seed": seed, "model.conditioning": conditioning, "objective.beta": beta, **training}
