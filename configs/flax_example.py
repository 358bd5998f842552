"""Flax's VAE example: 784-500-20, relu, binarised MNIST, Adam 1e-3, batch 128, 10 epochs.

    python -m experiments.train --config=configs/flax_example.py

Published (google/flax, examples/vae/README.md): about 104 after 10 epochs, on the fixed binarisation of Larochelle. Ours is
also drawn once (`static`), from the same grey levels but with other bits; 50,000 of the training images, as there.
"""

from configs import pytorch_examples


def get_config():
    config = pytorch_examples.get_config()
    config.name = "flax_example"
    config.data.binarize = "static"
    config.data.valid_fraction = 1 / 6
    config.model.hidden = (500,)
    return config
