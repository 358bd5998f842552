"""The full protocol of Burda et al. 2016, one stochastic layer: 3280 epochs of batches of 20; for a GPU.

    python -m experiments.train --config=configs/burda_full.py

Published: 86.76 (k = 1), 85.54 (k = 5), 84.78 (k = 50), negative 5000-sample bound on the test split, dynamic
binarisation. The paper's learning rate falls from 1e-3 to 1e-4 in eight stages of 3^i epochs; here it falls along a
cosine. Three days or so on 2 cores, estimated from the seconds per epoch of configs/burda_iwae.py; not run.
"""

from configs import burda_iwae

sweep = burda_iwae.sweep


def get_config():
    config = burda_iwae.get_config()
    config.name = "burda_full"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.eps = 1e-4
    config.train.batch_size = 20
    config.train.epochs = 3280
    config.train.chunk_epochs = 20
    config.train.checkpoint_every = 100
    config.eval.importance_samples = 5000
    return config
