"""Stored pixels made into images in [0, 1], and grey pixels into bits: by a threshold, once, or afresh in each step."""

import dataclasses

import jax
import numpy as np
from jax import random
from jaxtyping import Array, Float, Key, Num

from vae_jax.core import keys
from vae_jax.data.source import Split

BLOCK = 4096  # images whose bits are drawn at a time


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How stored pixels become images: static, so that programs can be built from it.

    `levels` is the stored value that means 1 (255 for bytes); `dynamic` asks for fresh bits in every step.
    """

    shape: tuple[int, ...]
    levels: int
    dynamic: bool


def to_unit(pixels: Num[Array, "*shape"] | np.ndarray, levels: int):
    """Stored pixels as float32 in units of 1."""
    return pixels.astype(np.float32) / np.float32(levels)


def prepare(pixels: Num[Array, "batch *shape"], spec: ImageSpec, key: Key[Array, ""]) -> Float[Array, "batch *shape"]:
    """One training batch from stored pixels: scaled, and with fresh bits where the spec is dynamic."""
    x = to_unit(pixels, spec.levels)
    return _bits(key, x) if spec.dynamic else x


def binarized(split: Split, levels: int, how: str, key: Key[Array, ""]) -> Split:
    """`split` with bits for pixels: "threshold" at one half, or "static", x ~ Bernoulli(pixel); "dynamic" draws later."""
    pixels, bits = split.pixels, split.pixels
    if how == "threshold":
        bits = _thresholded(pixels, levels) if isinstance(pixels, np.ndarray) else pixels.then(_thresholded, levels)
    elif how == "static":
        assert isinstance(pixels, np.ndarray)  # see `DataConfig.streams`
        bits = (draw_bits(key, pixels, levels) * levels).astype(pixels.dtype)
    return dataclasses.replace(split, pixels=bits)


def _thresholded(pixels: np.ndarray, levels: int) -> np.ndarray:
    """Bits, as the smallest and the largest stored value."""
    return ((pixels >= levels / 2) * levels).astype(pixels.dtype)


def draw_bits(key: Key[Array, ""], pixels: np.ndarray, levels: int) -> np.ndarray:
    """x ~ Bernoulli(pixel) as bytes, in blocks of rows so that 60,000 images do not need their size in floats."""
    starts = range(0, len(pixels), BLOCK)
    return np.concatenate([bits_of_block(key, start, pixels[start : start + BLOCK], levels) for start in starts])


def bits_of_block(key: Key[Array, ""], start: int, pixels: np.ndarray, levels: int) -> np.ndarray:
    """The same for the block that begins at row `start`; the bits of a row do not depend on the other rows."""
    return np.asarray(jax.jit(_bits)(keys.at(key, start), to_unit(pixels, levels))).astype(np.uint8)


def _bits(key: Key[Array, ""], x: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """x ~ Bernoulli(x)."""
    # Drawn flat: these are the same bits, and XLA's CPU backend compiles a draw of shape [., 8, 8, 1] ten times slower.
    return random.bernoulli(key, x.reshape(-1)).reshape(x.shape).astype(x.dtype)
