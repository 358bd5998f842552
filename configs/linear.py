r"""The oracle: a linear VAE with a Gaussian decoder and learned sigma is probabilistic PCA, whose optimum is known.

    python -m experiments.train --config=configs/linear.py
    python -m experiments.train --config=configs/linear.py --workdir=runs/mine --config.data.name=npz --config.data.path=FILE

Expect on digits, training split: the elbo of `linear` within 0.01 nats of the exact one in the row `ppca`, sigma^2 within
1 %, subspace_distance below 0.02, importance_bound equal to elbo. A minute and a half on 2 cores; a few hundred rows take
less than one. The widest data sets are the hardest: on scikit-learn's wine and breast cancer as they are, whose four largest
variances span a factor of 10^4, the elbo was 0.005 and 0.002 nats below the exact one.

With a number as sigma the same config trains a point of the reverse water-filling curve (configs/water_filling.py):

    python -m experiments.train --config=configs/linear.py --workdir=runs/curve --config.model.sigma=0.3 \
        --sweep=objective.beta=0.1,0.3,1,3,10

The networks work on whitened pixels and one step sees the whole split: neither changes the family of models or its optimum,
both shorten the way there. So does cooling: sigma is held above a bound that falls from the scale of the data, and latents
are won one by one, from the largest direction on; with a small sigma from the start, several share one direction for very
long. The learning rate falls by 10^4, because at the end the weights must be as exact as sigma is small.
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
    config.schedule.sigma = "cooling:8000"
    config.train.epochs = 20_000
    config.train.chunk_epochs = 1000
    config.eval.samples = 2000
    config.eval.draws = 0  # no limit: the elbo to a thousandth of a nat, beside its closed form
    config.eval.calibration_samples = 0
    config.eval.importance_samples = 100
    config.eval.importance_splits = ("train", "test")
    return config
