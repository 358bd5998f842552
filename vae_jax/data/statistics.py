"""Mean, std and principal axes of the training pixels, for `model.normalize`."""

from typing import Any

import numpy as np

from vae_jax.core import errors
from vae_jax.data import stored
from vae_jax.data.binarize import to_unit
from vae_jax.data.stored import Pixels, Stored

# Whitening leaves out axes whose std is a smaller part of the largest. On MNIST, whose axes of smaller std are a few images
# each, test images then lie no further out than training images do.
UNSPANNED = 1e-3


def of(pixels: Pixels, levels: int, normalize: str) -> dict[str, np.ndarray]:
    """See `Dataset.statistics`."""
    if normalize == "none":
        return {}
    if isinstance(pixels, Stored):
        found = _of_blocks(pixels, levels, normalize)
    else:
        found = _of_images(to_unit(pixels, levels), normalize)
    return {name: np.asarray(array, np.float32) for name, array in found.items()}


def _of_images(images: np.ndarray, normalize: str) -> dict[str, Any]:
    """Of images in memory, in units of 1."""
    std = images.std(axis=0, dtype=float)
    found = _of_moments(images.mean(axis=0, dtype=float), std, normalize)
    if normalize == "whiten":
        centred = (images - found["mean"]).reshape(len(images), -1)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(images))
        std = np.sqrt(np.maximum(values, 0))
        # What training does not span says nothing: there an image would be divided by rounding errors.
        is_spanned = std > UNSPANNED * std[-1]
        inverse = np.where(is_spanned, 1 / np.where(is_spanned, std, 1), 0)
        color = vectors * np.where(is_spanned, std, 0)
        found |= {"scale": std[-1] or 1.0, "whiten": vectors * inverse, "color": color.T}
    return found


def _of_moments(mean: np.ndarray, std: np.ndarray, normalize: str) -> dict[str, Any]:
    """What follows from mean and std of each pixel, in float64."""
    found = {"mean": mean, "scale": std.max() or 1.0}
    if normalize == "standardize":
        found["std"] = np.where(std > 1e-6 * std.max(), std, std.mean() or 1.0)
    return found


def _of_blocks(pixels: Stored, levels: int, normalize: str) -> dict[str, Any]:
    """The same, reading the pixels once; blocks are merged by the formula of Chan et al. (1983), in float64."""
    if normalize == "whiten":
        raise errors.UserError(
            "model.normalize=whiten: needs all pixels in memory; use center or standardize, or data.resident=true"
        )
    count, mean, squares = 0, np.zeros(pixels.shape[1:]), np.zeros(pixels.shape[1:])
    for block in stored.blocks(pixels, "mean and std of the training split"):
        images = to_unit(block, levels)
        here, total = images.mean(axis=0, dtype=float), count + len(images)
        squares += images.var(axis=0, dtype=float) * len(images)
        squares += np.square(here - mean) * (count * len(images) / total)
        mean += (here - mean) * (len(images) / total)
        count = total
    return _of_moments(mean, np.sqrt(squares / count), normalize)
