"""The rate-distortion curve that is known: a linear beta-VAE with fixed sigma over two decades of beta.

    python -m experiments.train --config=configs/water_filling.py

Expect train_rate and train_distortion of each row `linear` on those of the row `ppca` with its beta and sigma, and the last
two settings (theta 0.09) with equal rate. Two minutes on 2 cores.
"""

from configs import linear


def get_config():
    config = linear.get_config()
    config.name = "water_filling"
    config.model.latents = 8
    config.model.sigma = "0.3"
    config.eval.importance_samples = 0
    config.eval.samples = 500
    config.optimizer.learning_rate = 4e-2
    config.schedule.sigma = "cooling:4000"
    config.train.epochs = 10_000
    return config


def sweep(add):
    """Latents switch off at beta = lambda_i / sigma^2; the last row has the theta = beta sigma^2 of another row."""
    for beta in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0):
        add({"name": "linear", "objective.beta": beta, "model.sigma": "0.3"})
    add({"name": "linear", "objective.beta": 4.0, "model.sigma": "0.15"})
