"""PCA, AE and VAE on MNIST with 2 and 20 latents: pixel errors beside the exact ones of PCA.

    python -m experiments.train --config=configs/mnist_latents.py

Exact for PCA (per pixel, test): 0.0557 and 0.0235. Expect the AE below both.
Outcome (docs/results.md): 0.0373 and 0.0080, in 4 minutes on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "mnist_latents"
    config.baselines = ("pca",)
    config.data.name = "mnist"
    config.data.valid_fraction = 0.0
    config.model.hidden = (400, 400)
    config.optimizer.learning_rate = 1e-3
    config.train.epochs = 10
    config.train.chunk_epochs = 1
    config.eval.samples = 4
    return config


def sweep(add):
    for latents in (2, 20):
        add({"name": "ae", "model.latents": latents, "objective.noise_scale": 0.0, "objective.beta": 0.0})
        add({"name": "vae", "model.latents": latents, "objective.noise_scale": 1.0, "objective.beta": 1.0})
