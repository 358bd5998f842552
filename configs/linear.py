"""The oracle: a linear VAE with a Gaussian decoder and learned sigma is probabilistic PCA, whose optimum is known.

    python -m experiments.train --config=configs/linear.py
    python -m experiments.train --config=configs/linear.py --workdir=runs/mine --config.data.name=npz --config.data.path=FILE

Expect on digits, training split: the elbo of `linear` within 0.01 nats of the exact one in the row `ppca`, sigma^2 within
1 %, subspace_distance below 0.02, importance_bound equal to elbo. Three minutes on 2 cores; a few hundred rows take well
under one.

The networks work on whitened pixels and one step sees the whole split: neither changes the family of models or its optimum,
both shorten the way there. Sigma starts at the scale of the data and falls, so that latents are won from the largest
direction on; started below it, several latents share one direction for very long.
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
    config.optimizer.learning_rate = 3e-2
    config.optimizer.schedule = "exponential"
    config.train.batch_size = 0
    config.optimizer.cooling = 0.4
    config.train.epochs = 20_000
    config.train.chunk_epochs = 1000
    config.eval.samples = 2000
    config.eval.importance_samples = 100
    config.eval.importance_splits = ("train", "test")
    return config
