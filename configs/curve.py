"""One network that is told beta, beside a network for each beta: digits, 2 latents, 5 seeds, the betas of `ablations`.

python -m experiments.train --config=configs/curve.py

"""

from configs import base

SEEDS = range(5)
BETAS = (0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 4.0)


def get_config():
    config = base.get_config()
    config.name = "curve"
    config.eval.betas = BETAS
    return config


def sweep(add):
    """The conditioned network of each seed, which is evaluated at every beta, and the separate ones."""
    for seed in SEEDS:
        add(row("curve", seed, "beta", 1.0))
        for beta in BETAS:
            add(row("vae" if beta == 1 else "beta_vae", seed, "none", beta))


def row(name: str, seed: int, conditioning: str, beta: float) -> dict:
    return {"name": name, "seed": seed, "model.conditioning": conditioning, "objective.beta": beta}
