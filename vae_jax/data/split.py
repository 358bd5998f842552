"""A fixed part of a split set aside, the same share of each class."""

import math

import numpy as np

from vae_jax.core import errors
from vae_jax.data.source import Split
from vae_jax.system.progress import counted


def divided(split: Split, fraction: float, where: str, part: str) -> tuple[Split, Split]:
    """What stays and what is set aside, of which neither is empty.

    Args:
      split: with or without labels.
      fraction: what is set aside.
      where: what a message begins with.
      part: what that becomes: "test" or "validation".

    Raises:
      UserError: too few images for one in each part.
    """
    mask = stratified(len(split), split.labels, fraction)
    if mask.all():
        raise errors.UserError(f"{where}: leaves no training image of {len(split)}; should be smaller")
    if not mask.any():
        least = f"0, or at least {0.5 / len(split):.2g}" if part == "validation" else "at least 3 images"
        raise errors.UserError(
            f"{where}: {fraction:g} of {counted(len(split), 'image')} leaves no {part} image; should be {least}"
        )
    return split.take(np.flatnonzero(~mask)), split.take(np.flatnonzero(mask))


def stratified(count: int, labels: np.ndarray | None, fraction: float) -> np.ndarray:
    """A mask of `fraction` of `count` rows, the same share of each class as far as whole images allow; a fixed choice."""
    labels = np.zeros(count, int) if labels is None else labels
    classes, sizes = np.unique(labels, return_counts=True)
    random_state = np.random.default_rng(0)
    mask = np.zeros(count, bool)
    for label, number in zip(classes, allotted(sizes, fraction), strict=True):
        mask[random_state.permutation(np.flatnonzero(labels == label))[:number]] = True
    return mask


def allotted(sizes: np.ndarray, fraction: float) -> np.ndarray:
    """How many of each class are set aside: all within one of their share, and in total the share of all, rounded."""
    shares = fraction * sizes
    rounded = np.array([round(share) for share in shares], int)
    # One image more or less among a hundred is left as it is: the splits of digits and MNIST were made so.
    if abs(rounded.sum() - shares.sum()) <= min(1, 0.01 * shares.sum()):
        return rounded
    numbers = np.floor(shares).astype(int)
    missing = math.floor(shares.sum() + 0.5) - numbers.sum()
    # To the largest remainders; of equal ones to any, and not to the first classes always.
    order = np.lexsort((np.random.default_rng(1).permutation(len(sizes)), -np.round(shares - numbers, 9)))
    numbers[order[:missing]] += 1
    return numbers
