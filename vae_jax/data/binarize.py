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
    if how == "threshold":
        bits = split.pixels >= levels / 2
    elif how == "static":
        bits = draw_bits(key, split.pixels, levels)
    else:
        return split
    return dataclasses.replace(split, pixels=(bits * levels).astype(split.pixels.dtype))


def draw_bits(key: Key[Array, ""], pixels: np.ndarray, levels: int) -> np.ndarray:
    """x ~ Bernoulli(pixel) as bytes, in blocks of rows so that 60,000 images do not need their size in floats."""
    blocks = []
    for start in range(0, len(pixels), BLOCK):
        x = to_unit(pixels[start : start + BLOCK], levels)
        blocks.append(np.asarray(jax.jit(_bits)(keys.at(key, start), x)).astype(np.uint8))
    return np.concatenate(blocks)


def _bits(key: Key[Array, ""], x: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """x ~ Bernoulli(x)."""
    # Drawn flat: these are the same bits, and XLA's CPU backend compiles a draw of shape [., 8, 8, 1] ten times slower.
    return random.bernoulli(key, x.reshape(-1)).reshape(x.shape).astype(x.dtype)
