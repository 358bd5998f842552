"""Signed distances of shapes in the plane, and how much of each pixel a shape covers.

The picture is [-1, 1] x [-1, 1]: x grows to the right, y downwards; its pixels are one flat axis, row by row. A signed
distance is negative inside. Distances need to be right only near the outline, where they decide how much of a pixel is
covered. The union of two shapes is the smaller distance; two that merely touch leave a seam, so let them overlap.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from vae_jax.core import errors

Pixels = Float[Array, " pixels"]
BLOCK = 512  # images that are drawn at a time


@dataclasses.dataclass(frozen=True)
class Factor:
    """What one column of `factors` means.

    `levels` is the number of values that the data has between `low` and `high`, evenly spaced, or 0 where any value occurs.
    The values of a `categorical` factor have no order.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    levels: int = 0
    categorical: bool = False

    def values(self) -> Float[np.ndarray, " levels"]:
        """Every value that the data has, of a factor with levels."""
        return np.linspace(self.low, self.high, self.levels)


def column(name: str, names: Sequence[str]) -> int:
    """The column of factors with this name.

    Raises:
      UserError: no factors, or none of this name.
    """
    if not names:
        raise errors.UserError(f"factor {name!r}: this data has no factors")
    if name not in names:
        raise errors.unknown("factor", name, names)
    return list(names).index(name)


def coordinates(size: int) -> tuple[Pixels, Pixels]:
    """x and y at the centre of each pixel of a picture of `size` by `size`."""
    centres = (2 * np.arange(size, dtype=np.float32) + 1) / np.float32(size) - 1
    y, x = np.meshgrid(centres, centres, indexing="ij")
    # Constants in one flat axis: what is computed from rows and columns on the way cannot be vectorised on a CPU.
    return jnp.asarray(x.reshape(-1)), jnp.asarray(y.reshape(-1))


def coverage(distance: Pixels, size: int) -> Pixels:
    """The share of each pixel that lies inside: exact where a straight outline runs along the pixels."""
    return jnp.clip(0.5 - distance * (size / 2), 0, 1)


def ellipse(x: Pixels, y: Pixels, width: Float[Array, ""] | float, height: Float[Array, ""] | float) -> Pixels:
    """Distance to an ellipse with these half axes around 0: exact for a circle, to first order near the outline else."""
    scaled = jnp.sqrt((x / width) ** 2 + (y / height) ** 2 + 1e-12)
    slope = jnp.sqrt((x / width**2) ** 2 + (y / height**2) ** 2 + 1e-12)
    return scaled * (scaled - 1) / slope


def box(x: Pixels, y: Pixels, width: Float[Array, ""] | float, height: Float[Array, ""] | float) -> Pixels:
    """Distance to a rectangle with these half sides around 0."""
    dx, dy = jnp.abs(x) - width, jnp.abs(y) - height
    outside = jnp.sqrt(jnp.maximum(dx, 0) ** 2 + jnp.maximum(dy, 0) ** 2 + 1e-12)
    return outside + jnp.minimum(jnp.maximum(dx, dy), 0)


def heart(x: Pixels, y: Pixels) -> Pixels:
    """Distance to a heart with its tip at (0, 0), its top at y = -1.1 (Quilez, Distance functions in 2D)."""
    x, y = jnp.abs(x), -y
    lobe = jnp.sqrt((x - 0.25) ** 2 + (y - 0.75) ** 2 + 1e-12) - 2**0.5 / 4
    along = jnp.maximum(x + y, 0) / 2
    side = jnp.minimum(x**2 + (y - 1) ** 2, (x - along) ** 2 + (y - along) ** 2)
    return jnp.where(x + y > 1, lobe, jnp.sqrt(side + 1e-12) * jnp.sign(x - y))


def checked_size(size: int) -> int:
    """`size`, if pictures can be drawn at it."""
    if not 16 <= size <= 128:
        raise errors.UserError(f"data.size={size}: should be from 16 to 128")
    return size


def draw_all(
    render: Callable[..., Float[Array, "n height width channels"]], factors: Float[np.ndarray, "n factors"], *settings: int
) -> UInt8[np.ndarray, "n height width channels"]:
    """`render(factors, *settings)` in bytes, drawn in blocks so that memory holds no second copy in floats."""
    blocks = []
    for start in range(0, len(factors), BLOCK):
        rows = factors[start : start + BLOCK]
        # The last block is filled up, so that one program draws all of them.
        blocks.append(np.asarray(_bytes(render, np.resize(rows, (BLOCK, rows.shape[1])), settings))[: len(rows)])
    return np.concatenate(blocks)


@functools.partial(jax.jit, static_argnames=("render", "settings"))
def _bytes(render, factors, settings: tuple[int, ...]):
    return jnp.round(255 * render(factors, *settings)).astype(jnp.uint8)
