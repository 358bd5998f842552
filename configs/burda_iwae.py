"""VAE against IWAE at equal epochs: Burda et al. 2016, one stochastic layer, k = 1, 5 and 50 draws in the objective.

    python -m experiments.train --config=configs/burda_iwae.py

Published: 86.76, 85.54 and 84.78 nats after 3280 epochs; here the order at 6 equal epochs is the point.
Outcome (docs/results.md): 98.66, 97.20 and 96.43, in 27 minutes on 2 cores that did other work.
"""

from configs import burda


def get_config():
    config = burda.get_config()
    config.name = "burda_iwae"
    config.train.epochs = 6
    config.train.chunk_epochs = 1
    config.train.checkpoint_every = 1
    config.eval.importance_samples = 500
    return config


def sweep(add):
    for samples in (1, 5, 50):
        name, kind = ("vae", "weighted") if samples == 1 else (f"iwae_{samples}", "importance")
        add({"name": name, "objective.kind": kind, "objective.importance_samples": samples})
