"""Every way to choose the balance: weights, a capacity, free bits, a constraint on distortion, total correlation, MMD.

    python -m experiments.train --config=configs/steering.py

Digits, 8 latents, 3 seeds of each. Expect on the training split: `capacity` within 2 % of its C (measured: 0.1 %),
`geco` within 2 % of its target (0.1 %), `tc` at beta 1 equal to `beta_vae` at 1, and `cyclical` with more active
units than the constant betas of 3 and 4, which collapse. Best elbo -23.85 at beta 1. Figure: steering. About five
minutes on 2 cores.
"""

from configs import base


def get_config():
    config = base.get_config()
    config.name = "steering"
    config.model.latents = 8
    config.objective.capacity_weight = 20.0
    config.eval.importance_samples = 100
    return config


# Four cycles of beta, beside the constant ones of `beta_vae` (Fu et al. 2019).
CYCLES = [
    {"name": "cyclical", "seed": seed, "objective.beta": beta, "schedule.beta": "cyclical:75"}
    for beta in (1.0, 2.0, 3.0, 4.0)
    for seed in range(3)
]


def sweep(add):
    def method(name, key, values, **fixed):
        for value in values:
            for seed in range(3):
                add({"name": name, "seed": seed} | {f"objective.{field}": to for field, to in fixed.items()} | {key: value})

    method("beta_vae", "objective.beta", (0.1, 0.25, 0.5, 1.0, 2.0, 3.0, 4.0, 6.0), kind="weighted")
    method("capacity", "objective.capacity", (2.0, 4.0, 6.0, 8.0, 10.0, 12.0), kind="capacity")
    method("free_bits", "objective.free_bits", (0.1, 0.25, 0.5, 1.0, 2.0), kind="free_bits")
    method("geco", "objective.distortion_target", (18.5, 19.0, 20.0, 21.0, 22.0, 24.0), kind="geco")
    method("tc", "objective.beta", (1.0, 2.0, 4.0, 8.0), kind="tc")
    method("mmd", "objective.mmd_weight", (30.0, 100.0, 200.0, 400.0), kind="mmd", beta=0.0)
    for row in CYCLES:
        add(row)
