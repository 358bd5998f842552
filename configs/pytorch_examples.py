"""The VAE of pytorch/examples: 784-400-20, relu, grey MNIST under binary cross-entropy, Adam 1e-3, batch 128, 10 epochs.

    python -m experiments.train --config=configs/pytorch_examples.py

Published: test loss (negative ELBO, one draw) 105.56 to 105.61 after 10 epochs, three public logs; expected 105.6 +- 0.5.
Grey pixels: 45.53 of those nats are the entropy of the pixels themselves, which no model can go below.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "pytorch_examples"
    config.data.name = "mnist"
    config.data.valid_fraction = 0.0
    config.model.latents = 20
    config.model.hidden = (400,)
    config.model.activation = "relu"
    config.model.normalize = "none"
    config.optimizer.learning_rate = 1e-3
    config.optimizer.schedule = "constant"
    config.train.epochs = 10
    config.train.chunk_epochs = 1
    config.eval.samples = 16
    return config
