"""The study of faces, wider and twice as long: the error of hair length separates AE and VAE too.

    python -m experiments.train --config=configs/faces_long.py

Three seeds, beta 16 beside the others. Expect the error of hair length at the midpoint to fall from `ae` to beta 4, and
midpoint_ratio to rise again at 16, where the glasses are lost as well. 14 minutes on 2 cores that did other work.
"""

from configs import faces


def get_config():
    config = faces.get_config()
    config.name = "faces_long"
    config.model.hidden = (256,)
    config.train.epochs = 20
    return config


def sweep(add):
    for seed in range(3):
        add(faces.variant("ae", seed, noise_scale=0.0, beta=0.0))
        add(faces.variant("vae", seed))
        for beta in (0.25, 4.0, 8.0, 16.0):
            add(faces.variant("beta_vae", seed, beta=beta))
