"""Drawn faces with known factors: hair length, smile, face width, eye size, skin brightness, glasses."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float, UInt8

from vae_jax.core import errors, keys
from vae_jax.data import shapes
from vae_jax.data.shapes import Factor, Pixels

# Each goes from 0 to 1. Glasses are there or not; values in between draw them half transparent.
FACTORS = (
    Factor("hair"),  # from the temples (0) to the lower edge of the picture (1)
    Factor("smile"),  # corners of the mouth down (0), straight (0.5), up (1)
    Factor("width"),  # of the face
    Factor("eyes"),  # their size
    Factor("skin"),  # its brightness
    Factor("glasses", levels=2, categorical=True),
)
GREY = (0.299, 0.587, 0.114)  # of red, green and blue: ITU-R BT.601

# Bright hair on black: what never changes costs a decoder nothing, so that a line between two codes shows the hair.
BACKGROUND = (0.0, 0.0, 0.0)
HAIR = (1.0, 0.78, 0.38)
SKIN = (1.0, 0.76, 0.60)  # at brightness 1
WHITE = (1.0, 1.0, 1.0)
DARK = (0.05, 0.05, 0.10)
LIPS = (0.55, 0.08, 0.12)


@functools.partial(jax.jit, static_argnames=("size", "channels"))
def render(factors: Float[Array, "n 6"], size: int = 32, channels: int = 1) -> Float[Array, "n {size} {size} {channels}"]:
    """Pictures of faces, in [0, 1], antialiased; differentiable in the factors.

    Args:
      factors: columns as in `FACTORS`, each in [0, 1].
      size: height and width.
      channels: 1 for grey, 3 for red, green and blue.
    """
    return jax.vmap(lambda row: _face(row, size, channels))(factors)


def draw(
    count: int, size: int = 32, channels: int = 1, seed: int = 0, gap: tuple[float, float] | None = None
) -> tuple[UInt8[np.ndarray, "count size size channels"], Float[np.ndarray, "count 6"]]:
    """Random faces and their factors, each uniform on its values; the first ones do not depend on `count`.

    Args:
      count: how many.
      size: height and width, from 16 to 128.
      channels: 1 for grey, 3 for red, green and blue.
      seed: of the factors.
      gap: no hair length lies between these two.

    Raises:
      UserError: a size, number of channels, count or gap that cannot be.
    """
    shapes.checked_size(size)
    if channels not in (1, 3):
        raise errors.UserError(f"data.channels={channels}: should be 1 (grey) or 3")
    if count < 1:
        raise errors.UserError(f"data.count={count}: should be at least 1")
    low, high = gap or (0.0, 0.0)
    if not 0 <= low <= high <= 1 or high - low == 1:
        raise errors.UserError(f"data.gap={gap}: should be two rising hair lengths from 0 to 1, with others left")
    factors = np.array(random.uniform(keys.stream(seed, keys.DataStream.FACES), (count, len(FACTORS))))
    factors[:, -1] = factors[:, -1] >= 0.5
    if gap is not None:
        hair = factors[:, 0] * np.float32(1 - (high - low))
        factors[:, 0] = np.where(hair < low, hair, hair + np.float32(high - low))
    return shapes.draw_all(render, factors, size, channels), factors


def _face(factors: Float[Array, " 6"], size: int, channels: int) -> Float[Array, "size size channels"]:
    hair, smile, width, eyes, skin, glasses = factors
    x, y = shapes.coordinates(size)
    x = jnp.abs(x)  # a face is symmetric: one eye is drawn for both
    half = 0.40 + 0.16 * width  # half the width of the face
    head = shapes.ellipse(x, y - 0.10, half, 0.70)
    dome = shapes.ellipse(x, y + 0.10, half + 0.19, 0.80)
    sides = jnp.maximum(jnp.abs(x - half - 0.12) - 0.07, jnp.abs(y + 0.35) - (0.23 + 1.07 * hair))
    hair_behind = jnp.minimum(jnp.maximum(dome, y + 0.12), jnp.maximum(sides, -0.35 - y))
    eye_x, eye_y = x - 0.23, y - 0.04
    eye = 0.085 + 0.085 * eyes
    lens = jnp.abs(shapes.ellipse(eye_x, eye_y, 0.19, 0.19)) - 0.035
    bridge = shapes.box(x, eye_y, 0.06, 0.035)
    layers = (
        (HAIR, hair_behind, 1.0),
        (SKIN, head, 0.42 + 0.36 * skin),
        (HAIR, jnp.maximum(dome, y - (-0.36 + 0.5 * x**2)), 1.0),
        (WHITE, shapes.ellipse(eye_x, eye_y, eye, eye), 1.0),
        (DARK, shapes.ellipse(eye_x, eye_y, 0.6 * eye, 0.6 * eye), 1.0),
        (LIPS, _mouth(x, y - 0.47, 0.24, 0.34 * (smile - 0.5)), 1.0),
    )
    covers = [(colour, shapes.coverage(distance, size), brightness) for colour, distance, brightness in layers]
    covers.append((DARK, glasses * shapes.coverage(jnp.minimum(lens, bridge), size), 1.0))
    # Each channel by itself, as one flat axis of pixels: with a last axis of three it takes several times as long on a CPU.
    painted = [_painted(covers, channel, channels) for channel in range(channels)]
    return jnp.stack(painted, axis=-1).reshape(size, size, channels)


def _painted(covers, channel: int, channels: int) -> Pixels:
    """One channel of a picture: each layer covers what is under it."""
    picture = jnp.full_like(covers[0][1], _colour(BACKGROUND, channels)[channel])
    for colour, cover, brightness in covers:
        picture = picture + cover * (brightness * _colour(colour, channels)[channel] - picture)
    return picture


def _mouth(x, y, half, bend):
    """Distance to a thick line whose corners lie `bend` higher than its middle."""
    inside = jnp.minimum(x, half)
    up = y + bend * ((inside / half) ** 2 - 0.5)
    slope = 2 * bend * inside / half**2
    return jnp.sqrt((x - inside) ** 2 + up**2 / (1 + slope**2) + 1e-12) - 0.05


def _colour(rgb: tuple[float, float, float], channels: int) -> Float[np.ndarray, " channels"]:
    return np.array(rgb if channels == 3 else [np.dot(GREY, rgb)], np.float32)
