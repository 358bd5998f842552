"""Sprites: a full grid of distinct pictures, exact to antialiasing, whose factors do what they say."""

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data import sprites


@pytest.fixture(scope="module")
def grid():
    return sprites.grid(16)


def test_the_grid_is_full_and_every_picture_is_another(grid):
    pixels, factors = grid
    assert pixels.shape == (9216, 16, 16, 1) and pixels.dtype == np.uint8
    assert factors.shape == (9216, 5) and factors.dtype == np.float32
    assert [factor.levels for factor in sprites.FACTORS] == [3, 6, 8, 8, 8]
    for column, factor in zip(factors.T, sprites.FACTORS, strict=True):
        np.testing.assert_array_equal(np.unique(column), np.arange(factor.levels))
    assert len(np.unique(factors, axis=0)) == 9216
    assert len(np.unique(pixels.reshape(9216, -1), axis=0)) == 9216


def test_nothing_is_cut_off_at_the_border():
    corners = ((0, 0), (0, 7), (7, 0), (7, 7), (3.5, 3.5))
    factors = np.array([(s, 5, o, x, y) for s in range(3) for o in range(8) for x, y in corners], np.float32)
    area = np.asarray(sprites.render(factors, 64)).sum(axis=(1, 2, 3)).reshape(24, 5)
    np.testing.assert_allclose(area[:, :4], np.tile(area[:, 4:], 4), rtol=0.005)


def test_positions_and_scales_are_what_they_say(grid):
    pixels, factors = grid
    weight = pixels[..., 0].astype(float)
    area = weight.sum(axis=(1, 2))
    centres = (2 * np.arange(16) + 1) / 16 - 1
    across, down = (weight.sum(axis=1) @ centres / area), (weight.sum(axis=2) @ centres / area)
    for found, column in ((across, 3), (down, 4)):
        means = np.array([found[factors[:, column] == level].mean() for level in range(8)])
        np.testing.assert_allclose(means, np.linspace(-0.5, 0.5, 8), atol=0.02)
    for shape in range(3):
        means = [area[(factors[:, 0] == shape) & (factors[:, 1] == scale)].mean() for scale in range(6)]
        # Areas grow with the square of the scale, which doubles.
        assert np.all(np.diff(means) > 0) and means[-1] / means[0] == pytest.approx(4, rel=0.05)


def test_small_pictures_are_averages_of_large_ones():
    factors = np.array([(s, r, o, 3, 5) for s in range(3) for r in range(6) for o in range(8)], np.float32)
    small, large = (np.asarray(sprites.render(factors, size))[..., 0] for size in (16, 128))
    averaged = large.reshape(-1, 16, 8, 16, 8).mean(axis=(2, 4))
    assert np.abs(small - averaged).max() < 0.35  # at corners
    assert np.abs(small - averaged).mean() < 0.002
    np.testing.assert_allclose(small.sum(axis=(1, 2)), averaged.sum(axis=(1, 2)), rtol=0.12)


def test_a_quarter_turn_brings_the_square_back_and_no_other_shape():
    pictures = np.asarray(sprites.render(np.array([(s, 5, o, 3.5, 3.5) for s in range(3) for o in (0, 8)], np.float32), 64))
    differences = np.abs(pictures[0::2] - pictures[1::2]).mean(axis=(1, 2, 3))
    assert differences[1] < 1e-4 and min(differences[0], differences[2]) > 0.01


def test_a_size_that_cannot_be_is_one_line():
    with pytest.raises(errors.UserError, match="size=200: should be from 16"):
        sprites.grid(200)
