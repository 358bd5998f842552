"""Where every random key comes from: a run's seed, a named stream, a counter.

Nothing else is needed to continue a run exactly, so no key is ever stored. Each key that these functions return is
used once.
"""

import enum

import jax
from jax import random
from jaxtyping import Array, Int, Key


class Stream(enum.IntEnum):
    """The streams of one run. The numbers are part of every result: append, never renumber."""

    INIT = 0  # parameters
    ORDER = 1  # permutation of an epoch
    NOISE = 2  # epsilon of the reparameterisation, per step
    BITS = 3  # dynamic binarisation, per step
    VALID = 4  # epsilon on the validation split, per chunk
    EVALUATION = 5  # every draw of the evaluation
    PRIOR = 6  # draws from the prior that an objective needs, per step
    START = 7  # epsilon on training images before the first step
    BETA = 8  # beta of each image, per step, where the networks are told beta


class DataStream(enum.IntEnum):
    """The streams of a data set's own seed: bits that stay the same for every run that looks at them."""

    TRAIN = 100  # far from the streams of a run, whose seed may be the same number
    VALID = 101
    TEST = 102
    SAMPLE = 103  # training images that are measured before the first step
    ORDER = 104  # permutation of an epoch, where all runs have one order
    FACES = 200  # the factors of drawn faces


def stream(seed: int | Int[Array, ""], name: enum.IntEnum | Int[Array, ""]) -> Key[Array, ""]:
    """The key at the head of stream `name` (or its number) of the run (or data set) with this seed."""
    return random.fold_in(random.key(seed), int(name) if isinstance(name, enum.IntEnum) else name)


def at(key: Key[Array, ""], counter: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key number `counter` below `key`."""
    return jax.random.fold_in(key, counter)
