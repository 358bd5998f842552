"""Data sets that are drawn on the spot, from factors that are exactly known: `faces` and `sprites`."""

import functools

import numpy as np

from vae_jax.core import errors
from vae_jax.data import faces, shapes, sprites
from vae_jax.data.source import DataConfig, Loaded, Split

CLASSES = 5  # a continuous factor is cut into so many, to colour by
COUNT = 12_500  # faces: 10,000 for training and validation, 2,500 for the test split


def load_faces(config: DataConfig) -> Loaded:
    """Faces with random factors; `data.label` names the factor that labels are of (default: hair)."""
    gap = tuple(config.gap) or None
    if gap is not None and len(gap) != 2:
        raise errors.UserError(f"data.gap={config.gap}: should be two hair lengths like (0.3,0.7)")
    size, count = config.size or 32, config.count or COUNT
    pixels, factors = faces.draw(count, size, config.channels, config.seed, gap)
    split = Split(pixels, labels(factors, faces.FACTORS, config.label or "hair"), factors)
    renderer = functools.partial(faces.render, size=size, channels=config.channels)
    return Loaded(split, levels=255, factors=faces.FACTORS, renderer=renderer)


def load_sprites(config: DataConfig) -> Loaded:
    """Every combination of shape, scale, orientation and place once; labels are of the shape, or of `data.label`."""
    size = config.size or 16
    pixels, factors = sprites.grid(size)
    split = Split(pixels, labels(factors, sprites.FACTORS, config.label or "shape"), factors)
    renderer = functools.partial(sprites.render, size=size)
    return Loaded(split, levels=255, factors=sprites.FACTORS, renderer=renderer)


def labels(factors: np.ndarray, columns: tuple[shapes.Factor, ...], name: str) -> np.ndarray:
    """One factor as classes: its levels, or equal parts of its range.

    Raises:
      UserError: no factor of that name.
    """
    index = shapes.column(name, [column.name for column in columns])
    column = columns[index]
    share = (factors[:, index] - column.low) / (column.high - column.low)
    count = column.levels or CLASSES
    cut = np.round(share * (count - 1)) if column.levels else np.minimum(np.floor(share * count), count - 1)
    return cut.astype(np.int64)
