"""Schedules: a factor on a weight of the objective over the first epochs of training, and a lower bound of sigma."""

import dataclasses
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.core import errors, schema
from vae_jax.core.registry import Registry
from vae_jax.training.objectives import Number, ObjectiveConfig, Weights

Curve = Callable[[Float[Array, ""]], Float[Array, ""]]

# Factor on a weight, from the time in units of the schedule's length.
SCHEDULES: Registry[Curve] = Registry(
    "schedule",
    {
        "constant": jnp.ones_like,
        "linear": lambda time: jnp.minimum(time, 1.0),
        "cosine": lambda time: 0.5 - 0.5 * jnp.cos(jnp.pi * jnp.minimum(time, 1.0)),
        # Each cycle rises over its first half and stays over its second (Fu et al. 2019).
        "cyclical": lambda time: jnp.minimum(2 * (time % 1.0), 1.0),
    },
)
COLDEST = 1e-3  # of the data's scale: the lower bound of sigma at the end of cooling
# Log of the lower bound of sigma in units of the data's scale, from the time in units of the schedule's length.
BOUNDS: Registry[Curve] = Registry(
    "schedule of sigma",
    {
        # From the data's scale down, then no bound. Latents are then learned one by one, from the direction of largest
        # variance on; with a small sigma from the start several of them share one direction, and separating them is slow
        # (deterministic annealing, Rose 1998).
        "cooling": lambda time: jnp.where(time < 1, time * jnp.log(COLDEST), -jnp.inf),
    },
)
RANGE = ("beta_low", "beta_high")  # of a draw, not weights
SCHEDULED = tuple(field.name for field in schema.fields(ObjectiveConfig) if field.traced and field.name not in RANGE)

# One text for each weight: "constant", or "linear:EPOCHS", "cosine:EPOCHS" (from 0 up), "cyclical:EPOCHS".
ScheduleConfig = dataclasses.make_dataclass(
    "ScheduleConfig",
    [
        *(
            (
                weight,
                str,
                schema.field("constant", f"Factor on objective.{weight} over the first epochs.", absent="constant"),
            )
            for weight in SCHEDULED
        ),
        (
            "sigma",
            str,
            schema.field(
                "constant", "cooling:EPOCHS holds sigma above a bound that falls from the data's scale.", absent="constant"
            ),
        ),
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
    table = BOUNDS if key == "schedule.sigma" else SCHEDULES
    name, _, length = text.partition(":")
    try:
        epochs = float(length)
    except ValueError:
        epochs = math.nan
    if name not in table or name == "constant" or not 0 < epochs <= 1e7:
        kinds = ", ".join(f"{kind}:EPOCHS" for kind in table if kind != "constant")
        raise errors.UserError(f"{key}={text}: should be constant or one of {kinds}")
    return name, epochs


def scheduled(weights: Weights, names: dict[str, str], lengths: dict[str, Number], epoch: Float[Array, ""]) -> Weights:
    """`weights` as they are at a time in epochs.

    Args:
      weights: at their full size.
      names: schedules by weight; that of sigma is not for here.
      lengths: in epochs, by weight.
      epoch: the time.
    """
    factors = {weight: SCHEDULES[name](epoch / lengths[weight]) for weight, name in names.items() if weight != "sigma"}
    return dataclasses.replace(weights, **{name: getattr(weights, name) * factor for name, factor in factors.items()})


def ended(weights: Weights, names: dict[str, str], lengths: dict[str, Number], epochs: np.ndarray) -> Weights:
    """`weights` of many runs, on the host, as they were when training ended.

    Args:
      weights, names, lengths: see `scheduled`.
      epochs: how long each run trained.
    """
    # A cycle that ends with training is over only in the next step: the limit from before the end is what was trained with.
    last = np.nextafter(np.asarray(epochs, np.float32), np.float32(0))
    each = jax.vmap(lambda weights, lengths, epoch: scheduled(weights, names, lengths, epoch))(weights, lengths, last)
    return jax.tree.map(np.asarray, each)


def least_log_sigma(
    names: dict[str, str], lengths: dict[str, Number], epoch: Float[Array, ""], scale: Float[Array, ""]
) -> Float[Array, ""]:
    """Log of the lower bound of sigma at a time in epochs, by the schedule of sigma in `names`; `scale` is the data's."""
    return jnp.log(scale) + BOUNDS[names["sigma"]](epoch / lengths["sigma"])
