"""Data sets that are drawn on the spot, from factors that are exactly known: `faces` and `sprites`."""

import functools

from vae_jax.core import errors
from vae_jax.data import faces, sprites
from vae_jax.data.source import DataConfig, Loaded, Split

COUNT = 12_500  # faces: 10,000 for training and validation, 2,500 for the test split


def load_faces(config: DataConfig) -> Loaded:
    """Faces with random factors; without another label, hair colours them."""
    gap = tuple(config.gap) or None
    if gap is not None and len(gap) != 2:
        raise errors.UserError(f"data.gap={config.gap}: should be two hair lengths like (0.3,0.7)")
    size, channels, count = config.size or 32, config.channels or 1, config.count or COUNT
    pixels, factors = faces.draw(count, size, channels, config.seed, gap)
    renderer = functools.partial(faces.render, size=size, channels=channels)
    return Loaded(Split(pixels, None, factors), levels=255, factors=faces.FACTORS, renderer=renderer, label="hair")


def load_sprites(config: DataConfig) -> Loaded:
    """Every combination of shape, scale, orientation and place once; without another label, shapes colour it."""
    size = config.size or 16
    pixels, factors = sprites.grid(size)
    renderer = functools.partial(sprites.render, size=size)
    split = Split(pixels, None, factors)
    return Loaded(split, levels=255, factors=sprites.FACTORS, renderer=renderer, label="shape", is_sorted=True)
