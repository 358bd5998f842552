"""Faces without medium hair: what was never seen is not invented.

    python -m experiments.train --config=configs/faces_gap.py

No training or test face has a hair length between 0.3 and 0.7. Expect the error of hair length half-way to be 0.22 to 0.27
for every model, also at beta 4, where it is 0.07 with medium hair in the data: the midpoints fade. About as long as `faces`.
"""

from configs import faces


def get_config():
    config = faces.get_config()
    config.name = "faces_gap"
    config.data.gap = (0.3, 0.7)
    return config


def sweep(add):
    faces.sweep(add)
