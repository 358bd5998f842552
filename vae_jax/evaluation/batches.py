"""A split batch by batch, for evaluation: padded images for the device, and what else is known of the real ones."""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vae_jax.data.dataset import Dataset

PADDING = 0.0  # what the rows that fill the last batch hold; nobody sees it


class Batch(NamedTuple):
    """Images [batch, *shape], how many of them are real (the first), and the labels and factors of those."""

    images: Float[np.ndarray, "batch *shape"]
    real: int
    rows: dict[str, np.ndarray]


def blocks(dataset: Dataset, split: str) -> Iterator[Float[np.ndarray, "n *shape"]]:
    """The images of a split as they are evaluated, some thousands at a time."""
    return dataset.blocks(split)


def batches(dataset: Dataset, split: str, size: int) -> Iterator[Batch]:
    """Every image of a split once, in batches of one size."""
    known = dataset.splits[split]
    start, waiting = 0, np.empty((0, *dataset.spec.shape), np.float32)
    for block in blocks(dataset, split):
        waiting = np.concatenate([waiting, block])
        while len(waiting) >= size or (len(waiting) and start + len(waiting) == len(known)):
            real, waiting = waiting[:size], waiting[size:]
            padded = np.full((size, *real.shape[1:]), PADDING, np.float32)
            padded[: len(real)] = real
            arrays = {"labels": known.labels, "factors": known.factors}
            rows = {name: array[start : start + len(real)] for name, array in arrays.items() if array is not None}
            yield Batch(padded, len(real), rows)
            start += len(real)


def first(dataset: Dataset, split: str, count: int) -> Float[np.ndarray, "n *shape"]:
    """The first images of a split, at most `count`."""
    found: list[np.ndarray] = []
    for block in blocks(dataset, split):
        found.append(block[: count - sum(map(len, found))])
        if sum(map(len, found)) >= count:
            break
    return np.concatenate(found)
