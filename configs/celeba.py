"""The five models on photographs of faces: celeb_a at 64x64 in colour, 64 latents, convolutions; for a GPU.

    python -m experiments.train --config=configs/celeba.py --config.data.dir=DIR

DIR holds celeb_a as TensorFlow Datasets prepares it with file_format="array_record"; --config.data.download=True lets it be
fetched there (1.4 GB; needs the network and tensorflow). Images are cropped to 148x148 and resized, as by Larsen et al.
(2016) and most since; the 40 attributes are binary factors, and Smiling colours the figures. One network for AE, VAE without
KL, KL only, VAE and beta-VAE: 6 runs in one program, 20 epochs of 1,271 steps. Expect of it what configs/faces_rgb.py shows
on drawn faces. Not run on celeb_a itself, but from a small prepared set of the same format (tests/data/test_tfds.py).

Cost by counting, not measured: 0.34 GFLOP an image and step, 1.1 PFLOP a run, 6.5 in all. At the rate of the 64x64 step in
docs/performance.md that is a day on 2 cores; a GPU that reaches 10 TFLOP/s would take eleven minutes. The images of both
splits are 2.2 GB of bytes; --config.data.resident=false leaves them on the disk. --config.model.encoder=resnet
--config.model.decoder=resnet trains residual networks instead.
"""

from configs import ablations, base

BETAS = (4.0, 16.0)  # 1 is `vae`


def get_config():
    config = base.get_config()
    config.name = "celeba"
    config.data.name = "celeb_a"
    config.data.size = 64
    config.data.label = "Smiling"
    config.data.valid_fraction = 0.0
    config.model.encoder = config.model.decoder = "conv"
    config.model.hidden = (32, 64, 128, 256, 256)
    config.model.latents = 64
    config.model.activation = "relu"
    config.model.normalize = "none"
    config.optimizer.learning_rate = 1e-3
    config.train.epochs = 20
    config.train.chunk_epochs = 1
    config.train.checkpoint_every = 1
    config.eval.samples = 16
    config.eval.batch_size = 100
    config.eval.decoded = 1000
    config.eval.aggregate_samples = 0
    return config


def sweep(add):
    """Same start, same order, same noise for every model."""
    add(ablations.variant("ae", 0, noise_scale=0.0, beta=0.0))
    add(ablations.variant("vae_no_kl", 0, beta=0.0))
    add(ablations.variant("kl_only", 0, distortion_weight=0.0))
    add(ablations.variant("vae", 0))
    for beta in BETAS:
        add(ablations.variant("beta_vae", 0, beta=beta))
