"""Only the KL term: the posterior equals the prior, all codes are mixed, nothing is reconstructed.

    python -m experiments.train --config=configs/kl_only.py

NOTE_klonly
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "kl_only"
    config.objective.distortion_weight = 0.0
    return config
