"""Schedules: a factor on a weight of the objective, over the first epochs of training."""

import dataclasses
import math
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.core import errors, schema
from vae_jax.core.registry import Registry
from vae_jax.training.objectives import Number, ObjectiveConfig, Weights

# Factor on a weight, from the time in units of the schedule's length.
SCHEDULES: Registry[Callable[[Float[Array, ""]], Float[Array, ""]]] = Registry(
    "schedule",
    {
        "constant": jnp.ones_like,
        "linear": lambda time: jnp.minimum(time, 1.0),
        "cosine": lambda time: 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(time, 1.0)),
        # Each cycle rises over its first half and stays over its second (Fu et al. 2019).
        "cyclical": lambda time: jnp.minimum(2 * (time % 1.0), 1.0),
    },
)
SCHEDULED = tuple(field.name for field in schema.fields(ObjectiveConfig) if field.traced)

# One text for each weight: "constant", or "linear:EPOCHS", "cosine:EPOCHS" (from 0 up), "cyclical:EPOCHS".
ScheduleConfig = dataclasses.make_dataclass(
    "ScheduleConfig",
    [
        (weight, str, schema.field("constant", f"Factor on objective.{weight} over the first epochs.", absent="constant"))
        for weight in SCHEDULED
    ],
    frozen=True,
)


def parse(key: str, text: str) -> tuple[str, float] | None:
    """Name and length in epochs of the schedule that the field `key` says; None for "constant".

    Raises:
      UserError: no such schedule, or no such length.
    """
    if text == "constant":
        return None
    name, _, length = text.partition(":")
    try:
        epochs = float(length)
    except ValueError:
        epochs = math.nan
    if name not in SCHEDULES or name == "constant" or not 0 < epochs <= 1e7:
        kinds = ", ".join(f"{kind}:EPOCHS" for kind in SCHEDULES if kind != "constant")
        raise errors.UserError(f"{key}={text}: should be constant or one of {kinds}")
    return name, epochs


def scheduled(
    weights: Weights, schedules: tuple[tuple[str, str], ...], lengths: dict[str, Number], epoch: Float[Array, ""]
) -> Weights:
    """`weights` as they are at a time in epochs: schedules are (weight, name in SCHEDULES), lengths by weight in epochs."""
    factors = {weight: SCHEDULES[name](epoch / lengths[weight]) for weight, name in schedules}
    return dataclasses.replace(weights, **{name: getattr(weights, name) * factor for name, factor in factors.items()})
