"""White shapes on black with known factors, on a full grid, after dSprites (Matthey et al. 2017)."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vae_jax.data import shapes
from vae_jax.data.shapes import Factor

SHAPES = ("ellipse", "square", "heart")
# Factors count from 0. Orientations are an eighth of a quarter turn apart: a full turn would repeat squares and ellipses.
FACTORS = (
    Factor("shape", 0.0, 2.0, levels=3, categorical=True),
    Factor("scale", 0.0, 5.0, levels=6),
    Factor("orientation", 0.0, 7.0, levels=8),
    Factor("x", 0.0, 7.0, levels=8),  # from left to right
    Factor("y", 0.0, 7.0, levels=8),  # from top to bottom
)


@functools.partial(jax.jit, static_argnames="size")
def render(factors: Float[Array, "n 5"], size: int = 16) -> Float[Array, "n {size} {size} 1"]:
    """Pictures of one shape each, in [0, 1], antialiased.

    Args:
      factors: columns as in `FACTORS`; all but the shape may lie between levels.
      size: height and width.
    """
    return jax.vmap(lambda row: _sprite(row, size))(factors)


def grid(size: int = 16) -> tuple[UInt8[np.ndarray, "9216 size size 1"], Float[np.ndarray, "9216 5"]]:
    """Every combination of factors once, the last factor changing fastest, and its picture.

    Raises:
      UserError: a size that cannot be.
    """
    shapes.checked_size(size)
    factors = np.array(list(itertools.product(*(factor.values() for factor in FACTORS))), np.float32)
    return shapes.draw_all(render, factors, size), factors


def _sprite(factors: Float[Array, " 5"], size: int) -> Float[Array, "size size 1"]:
    shape, scale, orientation, across, down = factors
    x, y = shapes.coordinates(size)
    x, y = x - (across / 7 - 0.5), y - (down / 7 - 0.5)
    radius = 0.22 + 0.22 * scale / 5
    angle = orientation * (jnp.pi / 16)
    x, y = (jnp.cos(angle) * x + jnp.sin(angle) * y) / radius, (jnp.cos(angle) * y - jnp.sin(angle) * x) / radius
    # In units of the radius: about the same area for each shape.
    distances = jnp.stack(
        [
            shapes.ellipse(x, y, 1.0, 0.55),
            shapes.box(x, y, 0.66, 0.66),
            1.4 * shapes.heart(x / 1.4, (y - 0.75) / 1.4),
        ]
    )
    chosen = distances[jnp.round(shape).astype(jnp.int32)]
    return shapes.coverage(radius * chosen, size).reshape(size, size, 1)
