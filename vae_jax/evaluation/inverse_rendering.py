"""Factors of images, read by the renderer that draws such images: those of the nearest picture that it can draw.

A regressor fitted to pixels or codes would take faint long hair for medium hair. `render` maps factors [n, factors] to
images [n, height, width, channels] in [0, 1]; it is static, so keep one function (or `functools.partial`) for all calls.
"""

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vae_jax.data.shapes import Factor

Images = Float[Array, "n height width channels"]
Factors = Float[Array, "n factors"] | Float[np.ndarray, "n factors"]
PerImage = Float[Array, " n"]
Scalar = Float[Array, ""]
Index = Int[Array, ""]
Render = Callable[[Factors], Images]

SCAN = 33  # values that are compared where one factor is read
COARSE = 17  # and in each scan of a search over all
CANDIDATES = 2048  # random pictures that a search over all factors begins with
BLOCK = 64  # images that are searched, or candidates that are drawn, at a time
DAMPING = (1e-4, 1e-2, 1.0)  # of the steps that a refinement compares


class Nearest(NamedTuple):
    """Factors of the nearest rendered picture of each image, and the mean squared error of its pixels."""

    factors: Float[Array, "n factors"]
    mse: PerImage


class Ranges(NamedTuple):
    """Of every factor; `levels` is 0 where it takes any value."""

    low: Float[Array, " factors"]
    high: Float[Array, " factors"]
    levels: Int[Array, " factors"]


@functools.partial(jax.jit, static_argnames="render")
def read_factor(
    render: Render, images: Images, known: Factors, index: int | Index, low: float | Scalar = 0.0, high: float | Scalar = 1.0
) -> PerImage:
    """One factor of each image, read from the nearest of the renders that are equal in all other factors.

    The whole range is scanned, then twice what lies around the best value: 67 renders an image, to 0.05% of the range.

    Args:
      render: factors [n, factors] to images.
      images: [n, height, width, channels].
      known: [n, factors], of which column `index` is not looked at.
      index: the column to read.
      low, high: the range in which it is sought.
    """
    spacing = (high - low) / (SCAN - 1)

    def scanned(image, row, values):
        rows = jnp.tile(row[None], (len(values), 1)).at[:, index].set(values)
        return values[jnp.argmin(mse(render(rows), image[None]))]

    def read(image_and_row):
        value = scanned(*image_and_row, jnp.linspace(low, high, SCAN))
        for width in (spacing, spacing / 8):
            value = scanned(*image_and_row, jnp.clip(value + width * jnp.linspace(-1, 1, COARSE), low, high))
        return value

    return lax.map(read, (images, jnp.asarray(known)), batch_size=BLOCK)


def nearest(render: Render, columns: Sequence[Factor], images: Images, start: Factors | None = None) -> Nearest:
    """The nearest picture that `render` can draw, sought over all factors.

    The search begins at the best of `CANDIDATES` random pictures (of all, where there are not many) and of `start`. Twice,
    it scans one factor after the other, first the whole range, then what lies around, and takes damped Gauss-Newton steps
    in those without levels. Its cost is fixed: about 300 renders an image, and the candidates once.

    Args:
      render: factors [n, factors] to images, differentiable in factors without levels.
      columns: what the columns of factors mean. Factors with levels take no other values.
      images: [n, height, width, channels].
      start: [n, factors], a guess for each image, if there is one.
    """
    candidates = _candidates(columns)
    if start is None:
        start = np.tile(candidates[:1], (len(images), 1))
    return _nearest(render, images, candidates, start, _ranges(columns), max(COARSE, *(factor.levels for factor in columns)))


def read_factors(render: Render, columns: Sequence[Factor], images: Images, start: Factors) -> Float[Array, "n factors"]:
    """All factors of each image, in units of their ranges: those of the nearest render.

    Levels are ignored where the factor has an order or two values, so that faint glasses are read as a part of glasses.

    Args:
      start: the factors of the images that the decoded ones came from.
    """
    free = tuple(f if f.categorical and f.levels > 2 else Factor(f.name, f.low, f.high) for f in columns)
    low, high, _ = _ranges(columns)
    return (nearest(render, free, images, start).factors - low[None]) / (high - low)[None]


def mse(images: Images, others: Float[Array, "#n height width channels"]) -> PerImage:
    """Mean over pixels of the squared difference."""
    return _squares(images - others) / images[0].size


@functools.partial(jax.jit, static_argnames=("render", "count"))
def _nearest(render: Render, images: Images, candidates, start, ranges: Ranges, count: int) -> Nearest:
    rows = _best_candidate(render, images, candidates)
    start_is_better = mse(render(start), images) < mse(render(rows), images)
    rows = jnp.where(start_is_better[:, None], start, rows)

    def search(image_and_row):
        image, row = image_and_row

        def scan_and_step(is_fine, row):
            row = lax.fori_loop(0, len(row), lambda i, row: _scan(render, image, row, i, ranges, is_fine, count), row)
            return lax.fori_loop(0, 4, lambda _, row: _step(render, image, row, ranges), row)

        # The second time because a step sees nothing where an outline lies on the edge of a pixel.
        return lax.fori_loop(0, 2, scan_and_step, row)

    rows = lax.map(search, (images, rows), batch_size=BLOCK)
    return Nearest(rows, mse(render(rows), images))


def _candidates(columns: Sequence[Factor]) -> Float[np.ndarray, "candidates factors"]:
    levels = [factor.levels for factor in columns]
    if 0 < np.prod(levels) <= 2**14:
        return np.array(list(itertools.product(*(factor.values() for factor in columns))), np.float32)
    generator = np.random.default_rng(0)
    values = [
        generator.choice(factor.values(), CANDIDATES)
        if factor.levels
        else generator.uniform(factor.low, factor.high, CANDIDATES)
        for factor in columns
    ]
    return np.stack(values, axis=1).astype(np.float32)


def _best_candidate(render: Render, images: Images, candidates) -> Float[Array, "n factors"]:
    """The nearest candidate of each image; a block of candidates is drawn at a time."""
    count = -(-len(candidates) // BLOCK)
    blocks = jnp.resize(candidates, (count, BLOCK, candidates.shape[1]))
    flat = images.reshape(len(images), -1)

    def compare(best, block):
        pictures = render(block)
        # |picture - image|^2 without what all candidates share
        distance = _squares(pictures)[None] - 2 * flat @ pictures.reshape(BLOCK, -1).T
        closest = jnp.argmin(distance, axis=1)
        least = jnp.min(distance, axis=1)
        is_better = least < best[0]
        return (jnp.minimum(best[0], least), jnp.where(is_better[:, None], block[closest], best[1])), None

    start = jnp.full(len(images), jnp.inf), jnp.zeros((len(images), candidates.shape[1]))
    return lax.scan(compare, start, blocks)[0][1]


def _scan(render: Render, image, row, index: Index, ranges: Ranges, is_fine: Index, count: int):
    """`row` with the best of `count` values of one factor, or its own: over the whole range, or nearby."""
    low, high, levels = (end[index] for end in ranges)
    fraction = jnp.linspace(0, 1, count)
    nearby = jnp.clip(row[index] + (high - low) / (COARSE - 1) * (2 * fraction - 1), low, high)
    level = jnp.minimum(jnp.arange(count), levels - 1) / jnp.maximum(levels - 1, 1)
    values = low + (high - low) * jnp.where(levels > 0, level, fraction)
    values = jnp.append(jnp.where((is_fine > 0) & (levels == 0), nearby, values), row[index])
    rows = jnp.tile(row[None], (len(values), 1)).at[:, index].set(values)
    return rows[jnp.argmin(mse(render(rows), image[None]))]


def _step(render: Render, image, row, ranges: Ranges):
    """The best of a few damped Gauss-Newton steps (Levenberg-Marquardt), or `row` where none helps."""
    low, high, levels = ranges
    residual, change = jax.linearize(lambda row: (render(row[None])[0] - image).reshape(-1), row)
    slopes = jax.vmap(change)(jnp.diag((levels == 0).astype(row.dtype)))
    curvature, gradient = slopes @ slopes.T, slopes @ residual
    scale = jnp.diag(curvature) + 1e-6 * len(gradient)
    damped = curvature[None] + jnp.array(DAMPING)[:, None, None] * jnp.diag(scale)[None]
    steps = jnp.linalg.solve(damped, jnp.tile(gradient[None, :, None], (len(DAMPING), 1, 1)))[..., 0]
    rows = jnp.concatenate([row[None], jnp.clip(row[None] - steps, low[None], high[None])])
    return rows[jnp.argmin(mse(render(rows), image[None]))]


def _ranges(columns: Sequence[Factor]) -> Ranges:
    low, high = (np.array([getattr(factor, end) for factor in columns], np.float32) for end in ("low", "high"))
    return Ranges(jnp.asarray(low), jnp.asarray(high), jnp.array([factor.levels for factor in columns], jnp.int32))


def _squares(images: Images) -> PerImage:
    """The sum of squares of each image's pixels."""
    # By a product with ones: on a CPU a plain sum would be fused with the drawing of the pixels and slow it down 20 times.
    flat = images.reshape(len(images), -1)
    return flat**2 @ jnp.ones(flat.shape[1])
