"""The optimizer: its settings, and how the learning rate decays."""

import dataclasses

import jax.numpy as jnp

from vae_jax.core import schema
from vae_jax.core.registry import Registry

# Factor on the learning rate, from progress in [0, 1] through training.
DECAYS = Registry(
    "decay of the learning rate",
    {
        "constant": jnp.ones_like,
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 + 0.5 * jnp.cos(jnp.pi * progress),
        "exponential": lambda progress: jnp.exp(-jnp.log(1e4) * progress),  # to 1e-4: as long at every scale
    },
)


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """Adam and the decay of its learning rate."""

    learning_rate: float = schema.field(3e-3, "Step size.", low=schema.POSITIVE, high=1e6, traced=True)
    schedule: str = schema.field("cosine", "Decay of the learning rate over training.", choices=DECAYS)
    b1: float = schema.field(0.9, "Decay of the first moment.", low=0, high=1 - 1e-7)
    b2: float = schema.field(0.999, "Decay of the second moment.", low=0, high=1 - 1e-7)
    eps: float = schema.field(1e-8, "Added to the root of the second moment.", low=schema.POSITIVE, high=1.0)
    cooling: float = schema.field(
        0.0, "First part of training in which sigma falls from the data's scale.", low=0, high=1.0, absent=0.0
    )
