"""Burda et al. 2016, one stochastic layer: 784-200-200-50, tanh, dynamic binarisation.

    python -m experiments.train --config=configs/burda.py

Published: 86.76 nats (negative 5000-sample bound, 3280 epochs); here 420 epochs along a cosine. Expect at most 87.3 (seed 0:
87.22), rate 22 to 28 (25.8), 18 to 25 active units (22), and distortion + rate above 78 (91.4). 24 minutes on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "burda"
    config.data.name = "mnist"
    config.data.binarize = "dynamic"
    config.data.valid_fraction = 0.0
    config.model.latents = 50
    config.model.hidden = (200, 200)
    config.optimizer.learning_rate = 3e-3
    config.train.batch_size = 100
    config.train.epochs = 420
    config.train.chunk_epochs = 10
    config.train.checkpoint_every = 50
    config.eval.samples = 16
    config.eval.importance_samples = 5000
    return config
