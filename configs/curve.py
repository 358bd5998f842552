"""One network that is told beta, beside a network for each beta: digits, 2 latents, 5 seeds, the betas of `ablations`.

    python -m experiments.train --config=configs/curve.py

The name `curve` is the one network of a seed, evaluated at every beta; `vae` and `beta_vae` are trained for one beta each,
with the same network, seeds and data. The loss of the conditioned one is (D + beta R) / max(beta, 1), beta log-uniform from
0.05 to 6. Its epochs were chosen by the validation split, mean of D + beta R over the betas, 3 seeds: 24.63 after 150
epochs, 24.59 after 200, 24.64 after 300, 24.66 after 400. docs/results.md has the loss at each beta.
"""

from configs import base

SEEDS = range(5)
BETAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 4.0)
EPOCHS = 200  # of the conditioned networks


def get_config():
    config = base.get_config()
    config.name = "curve"
    config.eval.betas = BETAS
    return config


def sweep(add):
    """The conditioned network of each seed, which is evaluated at every beta, and the separate ones."""
    for seed in SEEDS:
        add(variant("curve", seed, "beta", 1.0, EPOCHS))
        for beta in BETAS:
            add(variant("vae" if beta == 1 else "beta_vae", seed, "none", beta, 300))


def variant(name: str, seed: int, conditioning: str, beta: float, epochs: int) -> dict:
    return {
        "name": name,
        "seed": seed,
        "model.conditioning": conditioning,
        "objective.beta": beta,
        "train.epochs": epochs,
    }
