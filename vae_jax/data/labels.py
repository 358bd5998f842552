"""Labels made of a factor: its values where it has levels, else five equal parts of its range."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from vae_jax.core import errors
from vae_jax.data.shapes import Factor, column
from vae_jax.data.source import Split

PARTS = 5  # of the range of a factor without levels


def labelled(split: Split, factors: Sequence[Factor], name: str) -> Split:
    """`split` with the factor of that name for labels.

    Raises:
      UserError: there is no such factor.
    """
    try:
        number = column(name, [factor.name for factor in factors])
    except errors.UserError as error:
        raise errors.UserError(f"data.label={name}: {error}") from error
    assert split.factors is not None
    return dataclasses.replace(split, labels=classes(split.factors[:, number], factors[number]))


def classes(values: Float[np.ndarray, " n"], factor: Factor) -> Int[np.ndarray, " n"]:
    """Classes from 0, in the order of the values."""
    share = (np.asarray(values, float) - factor.low) / ((factor.high - factor.low) or 1)
    if factor.levels:
        return np.rint(share * (factor.levels - 1)).astype(int)
    return np.clip(np.floor(share * PARTS), 0, PARTS - 1).astype(int)


def inferred(name: str, values: np.ndarray, categorical: bool = False) -> Factor:
    """A factor known by its values alone: with levels where all are whole numbers."""
    low, high = float(values.min()), float(values.max())
    is_whole = bool(np.equal(np.mod(values, 1), 0).all())
    return Factor(name, low, high, levels=round(high - low) + 1 if is_whole else 0, categorical=categorical)
