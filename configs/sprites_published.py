"""Disentanglement by the published protocol (Locatello et al. 2019): 64x64, 300,000 steps, six betas, 50 seeds; for a GPU.

    python -m experiments.train --config=configs/sprites_published.py

The published networks layer by layer (their kernels, widths and strides; weights start as Flax starts them, not as
TensorFlow), on rendered sprites, which need no download. On dSprites itself (737,280 images, fetched when asked to):
--config.data.name=dsprites --config.data.download=True --config.train.epochs=33, which is 300,000 steps there. Not run at
its full length: 300 runs of 300,000 steps, at 0.45 s a step on 2 cores that did other work, would take more than a year;
the paper's 12,600 models took 2.52 years of a P100, 1.75 hours each.
"""

from configs import faces

BETAS = (1.0, 2.0, 4.0, 6.0, 8.0, 16.0)
SEEDS = range(50)
STEPS_PER_EPOCH = 7373 // 64  # of four fifths of the 9,216 sprites


def get_config():
    config = faces.get_config()
    config.name = "sprites_published"
    config.data.name = "sprites"
    config.data.size = 64
    config.model.encoder = config.model.decoder = "conv"
    config.model.hidden = (32, 32, 64, 64, 256)  # the decoder mirrors them: 256, 4 x 4 x 64, then 64, 32, 32, 1 channels
    config.model.kernel = (4, 4, 2, 2)
    config.model.decoder_kernel = (4,)
    config.model.normalize = "none"
    config.optimizer.learning_rate = 1e-4
    config.optimizer.schedule = "constant"
    config.train.batch_size = 64
    config.train.epochs = -(-300_000 // STEPS_PER_EPOCH)
    config.train.chunk_epochs = 50
    config.train.checkpoint_every = 100
    config.eval.without = ("counterfactuals", "knn_accuracy")
    return config


def sweep(add):
    for seed in SEEDS:
        for beta in BETAS:
            add(faces.variant("vae" if beta == 1 else "beta_vae", seed, beta=beta))
