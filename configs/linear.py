"""The oracle: a linear VAE with a Gaussian decoder and learned sigma is probabilistic PCA, whose optimum is known.

    python -m experiments.train --config=configs/linear.py
    python -m experiments.train --config=configs/linear.py --workdir=runs/mine --config.data.name=npz --config.data.path=FILE

NOTE_linear
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "linear"
    config.baselines = ("pca", "ppca")
    config.data.valid_fraction = 0.0
    config.model.latents = 4
    config.model.encoder = "linear"
    config.model.decoder = "linear"
    config.model.normalize = "whiten"
    config.model.likelihood = "gaussian"
    config.model.sigma = "learned"
    config.optimizer.learning_rate = 4e-3
    config.optimizer.schedule = "exponential"
    config.train.batch_size = 0
    config.train.epochs = 40_000
    config.train.chunk_epochs = 1000
    config.eval.samples = 2000
    config.eval.importance_samples = 100
    config.eval.importance_splits = ("train", "test")
    return config
