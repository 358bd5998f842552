r"""The oracle of a network that is told beta: one linear network on the whole curve of reverse water-filling.

    python -m experiments.train --config=configs/linear_curve.py
    python -m experiments.train --config=configs/linear_curve.py --workdir=runs/mine --config.data.name=npz \
        --config.data.path=FILE

On digits with sigma 0.2 all four latents are alive at beta 0.3 and none at 20. Compare train_rate and train_distortion of
each row `linear` with those of the row `ppca` of its beta; the figure water_filling draws both. With data of one's own,
choose sigma so that theta = beta sigma^2 passes the variances along the principal axes.
"""

import math

from configs import linear

LOW, HIGH, COUNT = 0.3, 20.0, 20


def get_config():
    config = linear.get_config()
    config.name = "linear"
    config.model.sigma = "0.2"
    config.model.conditioning = "beta"
    config.objective.beta_low = 0.2
    config.objective.beta_high = 30.0
    config.optimizer.learning_rate = 1e-2
    config.optimizer.schedule = "cosine"
    config.schedule.sigma = "constant"
    config.train.epochs = 20_000
    config.eval.betas = tuple(round(LOW * math.exp(at * math.log(HIGH / LOW) / (COUNT - 1)), 4) for at in range(COUNT))
    config.eval.samples = 500
    config.eval.importance_samples = 0
    config.eval.decoded = 0
    config.eval.aggregate_samples = 0
    return config
