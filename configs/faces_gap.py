"""Faces without medium hair: what was never seen is not invented.

    python -m experiments.train --config=configs/faces_gap.py

No training or test face has a hair length between 0.3 and 0.7. Expect the same error of hair length half-way for every
model (a prototype had 0.22): the VAE's midpoints are no medium hair either, they fade. Two minutes on 2 cores.
"""

from configs import faces


def get_config():
    config = faces.get_config()
    config.name = "faces_gap"
    config.data.gap = (0.3, 0.7)
    return config


def sweep(add):
    faces.sweep(add)
