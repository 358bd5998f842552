"""Autoencoders, VAEs and beta-VAEs in JAX: one objective, many runs, one program.

The rooms, bottom up: `errors`, `keys`, `progress`, `processes`, `memory`, `interrupts`, `archives`, `data`,
`networks`, `likelihoods`, `priors`, `runs`, `baselines`, `checkpoints`, `results`, `model`, `objectives`, `training`,
`estimators`, `pictures`, `calibration`, `columns`, `evaluation`, `fit`, `grid`, `study`, `plotting`,
`image_figures`, `method_figures`, `calibration_figures`, `figures`. Imports run downwards only.
"""

__version__ = "0.1.0"
