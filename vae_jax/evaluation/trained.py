"""A trained run inside a program: its bound network, its numbers and its keys."""

import dataclasses
import enum
import functools
import zlib
from typing import Any

from jaxtyping import Array, Float, Key

from vae_jax.core import keys
from vae_jax.models.vae import VAE, ModelSpec, Posterior


class Purpose(enum.IntEnum):
    """Counters below a run's evaluation stream. Append, never renumber."""

    TRAIN = 0
    VALID = 1
    TEST = 2
    PRIOR = 3
    IMPORTANCE = 4
    AGGREGATE = 5
    AIS = 6
    GRADIENTS = 7
    SIGMA = 8
    CALIBRATION = 9
    SHOWN = 10
    OWN = 11  # below it a number for each metric by its name: see `own`


def own(name: str) -> tuple[int, int]:
    """The counters of a metric that has no number of its own: from its name."""
    return Purpose.OWN, zlib.crc32(name.encode()) & 0x7FFFFFFF


@dataclasses.dataclass(frozen=True)
class Trained:
    """One run inside a program: its bound network, its traced numbers, the root of its evaluation stream."""

    vae: VAE
    sigma: Float[Array, ""]
    noise_scale: Float[Array, ""]
    root: Key[Array, ""]

    def posterior(self, x: Float[Array, "batch *shape"]) -> Posterior:
        """The distribution z is really drawn from: for a deterministic code a point, whose rate is infinite."""
        return self.vae.encode(x).scaled(self.noise_scale)

    def key(self, *counters: Any) -> Key[Array, ""]:
        """The key below the run's evaluation stream at these counters, one after another."""
        return functools.reduce(keys.at, counters, self.root)


def bind(model: ModelSpec, run: tuple) -> Trained:
    """Of the leaves of one run: (variables, sigma, noise_scale, seed)."""
    variables, sigma, noise_scale, seed = run
    return Trained(VAE(model).bind(variables), sigma, noise_scale, keys.stream(seed, keys.Stream.EVALUATION))
