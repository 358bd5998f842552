"""The IWAE of Burda et al. 2016 with k = 5 draws, by Muon in large batches: a better bound than theirs.

    python -m experiments.train --config=configs/burda_muon_iwae.py

Published: 85.54 nats (negative 5000-sample bound; Adam, 3280 epochs). Expect 85.09 (seed 0), rate 23.8, 23 active units.
Batch and rate are those of `burda_muon`; no other values were tried. 44 minutes on 2 cores that did other work.
"""

from configs import burda_muon


def get_config():
    config = burda_muon.get_config()
    config.name = "burda_muon_iwae"
    config.objective.kind = "importance"
    config.objective.importance_samples = 5
    config.train.epochs = 240
    return config
