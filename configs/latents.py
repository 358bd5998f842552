"""PCA, a linear AE and a nonlinear AE over 1 to 32 latents: how much does the nonlinearity buy?

    python -m experiments.train --config=configs/latents.py

Expect the linear AE's test mse to be PCA's (0.0625 at 1 latent, 0.0531 at 2, 0.0026 at 32), and the nonlinear AE's far below
it where latents are scarce (0.046, 0.034), equal at 32. A program per network and number of latents, one to
two minutes on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "latents"
    config.baselines = ("pca",)
    config.model.likelihood = "gaussian"
    config.model.sigma = "0.1"
    config.objective.noise_scale = 0.0
    config.objective.beta = 0.0
    config.eval.samples = 1  # a deterministic code has nothing to draw, and no rate to take apart
    config.eval.aggregate_samples = 0
    config.eval.calibration_samples = 0
    return config


def sweep(add):
    """Each network with the learning rate and length at which its error has stopped falling."""
    for latents in (1, 2, 4, 8, 16, 32):
        for seed in range(3):
            add(row("linear_ae", "linear", latents, seed, learning_rate=2e-2, epochs=600))
            add(row("ae", "mlp", latents, seed, learning_rate=3e-3, epochs=300))


def row(name: str, network: str, latents: int, seed: int, learning_rate: float, epochs: int) -> dict:
    return {
        "name": name,
        "seed": seed,
        "model.latents": latents,
        "model.encoder": network,
        "model.decoder": network,
        "optimizer.learning_rate": learning_rate,
        "train.epochs": epochs,
    }
