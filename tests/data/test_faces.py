"""Drawn faces: antialiasing, factors that are seen, draws from a seed, and the refusals."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data import faces, shapes

NAMES = ["hair", "smile", "width", "eyes", "skin", "glasses"]


def test_names_and_ranges_of_the_factors():
    assert [factor.name for factor in faces.FACTORS] == NAMES
    assert all((factor.low, factor.high) == (0, 1) for factor in faces.FACTORS)
    assert [factor.name for factor in faces.FACTORS if factor.categorical] == ["glasses"]
    np.testing.assert_array_equal(faces.FACTORS[-1].values(), [0, 1])


@pytest.mark.parametrize("channels", [1, 3])
def test_small_pictures_are_averages_of_large_ones(channels):
    _, factors = faces.draw(32, 16, 1, seed=1)
    small = np.asarray(faces.render(factors, 32, channels))
    large = np.asarray(faces.render(factors, 128, channels))
    averaged = large.reshape(32, 32, 4, 32, 4, channels).mean(axis=(2, 4))
    assert small.shape == averaged.shape == (32, 32, 32, channels)
    assert small.min() >= 0 and small.max() <= 1
    # Corners and lines of about a pixel are what is not exact.
    assert np.abs(small - averaged).mean() < 0.006
    # Drawn without antialiasing, the same pictures differ by far more.
    assert np.abs(large[:, 2::4, 2::4] - averaged).mean() > 0.012


def test_grey_pictures_have_the_brightness_of_coloured_ones():
    _, factors = faces.draw(32, 16)
    grey, coloured = faces.render(factors, 32, 1), faces.render(factors, 32, 3)
    np.testing.assert_allclose(np.asarray(coloured) @ np.array(faces.GREY)[:, None], grey, atol=1e-6)


def test_every_factor_is_seen_at_32_pixels():
    base = np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.0], np.float32)
    rows = np.tile(base, (32, 1))  # of which twelve are looked at: other tests draw as many
    for column in range(6):
        rows[2 * column : 2 * column + 2, column] = 0, 1
    pictures = np.asarray(faces.render(rows, 32))
    for column, least in zip(range(6), (100, 15, 80, 10, 200, 40), strict=True):
        low, high = pictures[2 * column : 2 * column + 2]
        # Pixels that change by more than a tenth of the whole scale.
        assert np.count_nonzero(np.abs(high - low) > 0.1) >= least, NAMES[column]


def test_hair_grows_evenly_and_smiles_turn_upside_down():
    rows = np.tile(np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.0], np.float32), (5, 1))
    rows[:, 0] = np.linspace(0.1, 0.9, 5)
    smiles = np.array([[0.2, s, 0.5, 0.5, 0.9, 0.0] for s in (0.0, 1.0)], np.float32)
    pictures = np.asarray(faces.render(np.concatenate([rows, smiles]), 64))
    amount, pictures = pictures[:5].mean(axis=(1, 2, 3)), pictures[5:]
    np.testing.assert_allclose(np.diff(amount) / np.diff(amount).mean(), 1, atol=0.05)
    assert amount[-1] > amount[0]  # hair is bright on black
    corners, middle = pictures[:, :, 25, 0], pictures[:, :, 31, 0]
    lips = slice(40, 56)
    assert corners[0, lips].argmin() > middle[0, lips].argmin()  # down
    assert corners[1, lips].argmin() < middle[1, lips].argmin()  # up


def test_no_seam_inside_the_hair():
    rows = np.full((32, 6), 0.5, np.float32)
    rows[0, 0] = 1
    picture = np.asarray(faces.render(rows, 128))[0, :, :, 0]
    column = picture[:, 25]  # through the dome and the side that hangs from it
    bright = np.flatnonzero(column > column.max() - 0.01)
    np.testing.assert_array_equal(bright, np.arange(bright[0], bright[-1] + 1))
    assert len(bright) > 80


def test_draws_repeat_and_do_not_depend_on_the_number():
    pixels, factors = faces.draw(600, 16, seed=3)
    assert pixels.dtype == np.uint8 and pixels.shape == (600, 16, 16, 1) and factors.dtype == np.float32
    fewer, their_factors = faces.draw(7, 16, seed=3)
    np.testing.assert_array_equal(fewer, pixels[:7])
    np.testing.assert_array_equal(their_factors, factors[:7])
    assert not np.array_equal(faces.draw(7, 16, seed=4)[1], factors[:7])
    np.testing.assert_array_equal(pixels[:5], np.round(255 * np.asarray(faces.render(factors[:5], 16))))


def test_factors_are_uniform_and_glasses_are_there_or_not():
    _, factors = faces.draw(4000, 16, seed=0)
    assert set(np.unique(factors[:, -1])) == {0, 1}
    # Five standard errors of a uniform's mean and of its variance.
    assert np.abs(factors.mean(axis=0) - 0.5).max() < 5 * 0.5 / 4000**0.5
    assert np.abs(factors[:, :-1].var(axis=0) - 1 / 12).max() < 5 * 0.0745 / 4000**0.5
    assert np.abs(np.corrcoef(factors.T) - np.eye(6)).max() < 5 / 4000**0.5


def test_a_gap_leaves_hair_lengths_out_and_nothing_else():
    factors = faces.draw(2000, 16, seed=2, gap=(0.3, 0.7))[1]
    hair = factors[:, 0]
    assert not np.any((hair >= 0.3) & (hair < 0.7))
    assert abs(np.mean(hair < 0.3) - 0.5) < 5 * 0.5 / 2000**0.5 and hair.max() > 0.99
    np.testing.assert_array_equal(factors[:, 1:], faces.draw(2000, 16, seed=2)[1][:, 1:])


def test_the_picture_can_be_differentiated_everywhere():
    _, factors = faces.draw(20, 16, seed=5)
    slopes = jax.jit(jax.vmap(jax.jacfwd(lambda row: faces.render(row[None], 16)[0])))(jnp.asarray(factors))
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"size": 8}, "data.size=8: should be from 16 to 128"),
        ({"channels": 2}, "data.channels=2: should be 1"),
        ({"count": 0}, "data.count=0"),
        ({"gap": (0.7, 0.3)}, "data.gap="),
        ({"gap": (0.0, 1.0)}, "data.gap="),
    ],
)
def test_what_cannot_be_drawn_is_one_line(arguments, message):
    with pytest.raises(errors.UserError, match=message) as raised:
        faces.draw(**{"count": 3, "size": 16, **arguments})
    assert "\n" not in str(raised.value)


def test_a_column_is_found_by_name():
    assert shapes.column("smile", NAMES) == 1
    with pytest.raises(errors.UserError, match="unknown factor 'smiles': did you mean smile"):
        shapes.column("smiles", NAMES)
    with pytest.raises(errors.UserError, match="has no factors"):
        shapes.column("smile", ())
