"""Priors on MNIST: 300-300, 40 latents, dynamic binarisation, as Tomczak & Welling (2018) and those after them.

    python -m experiments.train --config=configs/mnist_priors.py

Published for dynamic MNIST (Exemplar VAE paper, up to 2000 epochs, gated layers): -84.45 with a standard normal prior and
-82.43 with VampPrior, a gap of about 2 nats. Here plain layers and 20 epochs: the order is the point, vamp and flow
above normal. Outcome (docs/results.md): -92.7, -90.0 (vamp), -89.5 (flow), in half an hour on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "mnist_priors"
    config.data.name = "mnist"
    config.data.binarize = "dynamic"
    config.data.valid_fraction = 0.0
    config.model.latents = 40
    config.model.hidden = (300, 300)
    config.model.prior_components = 100
    config.optimizer.learning_rate = 2e-3
    config.train.epochs = 20
    config.train.chunk_epochs = 5
    config.train.checkpoint_every = 5
    config.eval.samples = 4
    config.eval.importance_samples = 200
    return config


def sweep(add):
    for prior in ("normal", "vamp", "flow"):
        for seed in range(2):
            add({"name": prior, "seed": seed, "model.prior": prior})
