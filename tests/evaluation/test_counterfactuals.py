"""Factors read by the renderer, and measures of what lies between codes, on models whose answers are known."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data import faces, sprites
from vae_jax.evaluation import counterfactuals, inverse_rendering

# A picture is drawn a hundred thousand times: compiled quickly, that takes longer than compiling it fully.
pytestmark = pytest.mark.compiled_fully

RENDER = functools.partial(faces.render, size=32)
HAIR, SMILE, GLASSES = 0, 1, 5


@pytest.fixture(scope="module")
def drawn():
    pixels, factors = faces.draw(64, 32, seed=11)
    return jnp.asarray(pixels / np.float32(255)), factors


def flat(images):
    return images.reshape(len(images), -1)


def unflat(codes):
    return codes.reshape(-1, 32, 32, 1)


@functools.partial(jax.jit, static_argnames="steps")
def line(first, second, steps):
    """Of a model whose codes are pixels."""
    return counterfactuals.line(flat, unflat, first, second, steps)


def test_each_factor_is_read_from_rendered_images(drawn):
    images, factors = drawn
    rendered = RENDER(factors)
    for index, factor in enumerate(faces.FACTORS):
        # What is given in the column to be read does not matter.
        known = np.array(factors)
        known[:, index] = 0.33
        read = inverse_rendering.read_factor(RENDER, rendered, known, index, 0.0, 1.0)
        assert np.abs(np.asarray(read) - factors[:, index]).max() <= 0.0005, factor.name
    read = inverse_rendering.read_factor(RENDER, images, factors, HAIR, 0.0, 1.0)  # images rounded to bytes
    assert np.abs(np.asarray(read) - factors[:, HAIR]).max() <= 0.005


def test_ghost_hair_is_not_read_as_medium_hair(drawn):
    _, factors = drawn
    first, second = counterfactuals.pairs(factors, faces.FACTORS, HAIR)
    np.testing.assert_array_equal(np.delete(first, HAIR, axis=1), np.delete(second, HAIR, axis=1))
    np.testing.assert_allclose(first[:, HAIR], 0.15, rtol=1e-6)
    np.testing.assert_allclose(second[:, HAIR], 0.85, rtol=1e-6)
    ends = RENDER(first), RENDER(second)
    middle_factors = (first + second) / 2
    true_middle = RENDER(middle_factors)
    # Where codes are pixels, the decoded middle is the average of the two pictures.
    middle = jnp.asarray(np.asarray(line(*ends, steps=3))[1])
    ratio = jax.jit(counterfactuals.midpoint_ratio)
    np.testing.assert_allclose(ratio(middle, true_middle, *ends), 1, rtol=1e-5)
    error = np.asarray(counterfactuals.midpoint_factor_error(RENDER, middle, middle_factors, HAIR))
    assert error.min() > 0.05
    # A model whose codes are the factors is right.
    np.testing.assert_array_equal(ratio(true_middle, true_middle, *ends), 0)
    assert counterfactuals.midpoint_factor_error(RENDER, true_middle, middle_factors, HAIR).max() < 0.005


def test_a_line_has_its_ends_and_even_steps(drawn):
    images = np.asarray(drawn[0])[:4]
    points = np.asarray(line(images[:2], images[2:], steps=5))
    assert points.shape == (5, 2, 32, 32, 1)
    np.testing.assert_allclose(points[0], images[:2], atol=1e-6)
    np.testing.assert_allclose(points[-1], images[2:], atol=1e-6)
    np.testing.assert_allclose(np.diff(points, axis=0), np.tile((images[2:] - images[:2]) / 4, (4, 1, 1, 1, 1)), atol=1e-6)


def test_a_pair_needs_values_in_between(drawn):
    with pytest.raises(errors.UserError, match="factor=glasses: has nothing between its values"):
        counterfactuals.pairs(drawn[1], faces.FACTORS, GLASSES)


def test_the_nearest_render_of_a_render_is_itself(drawn):
    images, factors = drawn
    found = jax.device_get(inverse_rendering.nearest(RENDER, faces.FACTORS, images))
    assert found.mse.max() < 5e-5
    assert np.abs(found.factors - factors).max() < 0.01
    assert set(np.unique(found.factors[:, GLASSES])) <= {0, 1}


def test_nothing_nearer_is_missed_where_the_image_is_no_render(drawn):
    images, factors = drawn
    noise = np.random.default_rng(0).normal(0, 0.2, images.shape).astype(np.float32)
    found = jax.device_get(inverse_rendering.nearest(RENDER, faces.FACTORS, images + noise))
    truth = inverse_rendering.mse(RENDER(factors), images + noise)
    assert np.all(found.mse <= truth + 1e-4)
    np.testing.assert_allclose(found.mse, inverse_rendering.mse(RENDER(found.factors), images + noise), rtol=1e-5)


def test_a_start_is_taken_where_it_is_better(drawn):
    factors = drawn[1]
    found = jax.device_get(inverse_rendering.nearest(RENDER, faces.FACTORS, RENDER(factors), start=factors))
    np.testing.assert_allclose(found.factors, factors, atol=1e-6)


@pytest.mark.usefixtures("compiled_quickly")  # of three images
def test_factors_with_levels_are_searched_among_their_levels():
    factors = np.array([(0, 1, 2, 3, 4), (1, 5, 7, 0, 7), (2, 0, 0, 7, 1)], np.float32)
    render = functools.partial(sprites.render, size=16)
    found = jax.device_get(inverse_rendering.nearest(render, sprites.FACTORS, render(factors)))
    np.testing.assert_array_equal(found.factors, factors)


def test_faint_glasses_are_read_as_a_part_of_glasses(drawn):
    factors = np.array(drawn[1])
    factors[:, GLASSES] = 0.4
    start = factors.copy()
    start[:, GLASSES] = 0
    read = inverse_rendering.read_factors(RENDER, faces.FACTORS, RENDER(factors), start)
    assert np.abs(np.asarray(read)[:, GLASSES] - 0.4).max() < 0.02
    # The nearest face, however, wears glasses or not.
    found = jax.device_get(counterfactuals.prior_to_nearest(RENDER, jnp.asarray(factors), RENDER, faces.FACTORS))
    assert set(np.unique(found.factors[:, GLASSES])) <= {0, 1} and found.mse.min() > 1e-4


def test_reconstructions_of_a_perfect_model_are_renders(drawn):
    images, factors = drawn
    found = jax.device_get(counterfactuals.reconstruction_to_nearest(flat, unflat, images, RENDER, faces.FACTORS, factors))
    assert found.mse.max() < 5e-6  # of rounding to bytes
    grey = jnp.asarray((np.asarray(images) + np.float32(0.5)) / 2)
    blurred = counterfactuals.reconstruction_to_nearest(lambda _: flat(grey), unflat, images, RENDER, faces.FACTORS)
    assert np.min(jax.device_get(blurred.mse)) > 1e-3


def test_the_latent_that_follows_a_factor_is_found_with_its_sign():
    generator = np.random.default_rng(0)
    values = generator.uniform(size=500).astype(np.float32)
    codes = generator.normal(size=(500, 4)).astype(np.float32)
    codes[:, 1] = 7.0  # dead
    codes[:, 2] -= 3 * values
    follows = jax.jit(counterfactuals.follows)
    assert [float(found) for found in follows(codes, values)] == [2, -1]
    assert [float(found) for found in follows(np.zeros_like(codes), values)] == [0, 1]


def test_traversals_move_one_latent_from_end_to_end():
    codes = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    traversal = jax.jit(lambda codes: counterfactuals.traversal(lambda z: z[:, None, None], codes, 1))
    low, high = map(np.asarray, traversal(codes))
    np.testing.assert_array_equal(low[:, 0, 0, 1], -2)
    np.testing.assert_array_equal(high[:, 0, 0, 1], 2)
    np.testing.assert_array_equal(np.delete(low[:, 0, 0], 1, axis=1), np.delete(codes, 1, axis=1))


attribute_change = jax.jit(counterfactuals.attribute_change, static_argnums=2)


def test_spans_and_leaks_of_known_changes():
    before = np.zeros((2, 3), np.float32)
    after = np.array([[-0.5, 0.1, -0.3], [0.25, 0.0, 0.2]], np.float32)
    change = jax.jit(counterfactuals.traversal_change, static_argnums=2)(before, after, 0, sign=-1.0)
    np.testing.assert_allclose(change.effect, [0.5, -0.25])
    np.testing.assert_allclose(change.leak, [0.2, 0.1])
    change = attribute_change(before, after, 0, 0.5)
    np.testing.assert_allclose(change.effect, [-1, 0.5])
    np.testing.assert_allclose(change.leak, [0.2, 0.1])


def test_an_attribute_vector_of_codes_that_are_the_factors_has_effect_one(drawn):
    _, factors = drawn
    attribute_vector = jax.jit(counterfactuals.attribute_vector, static_argnums=2)
    for index, amount in ((SMILE, None), (GLASSES, 1.0)):
        vector, moved = map(np.asarray, attribute_vector(factors, factors[:, index], 0.5))
        has = factors[:, index] > 0.5
        np.testing.assert_allclose(vector, factors[has].mean(axis=0) - factors[~has].mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(moved, vector[index], atol=1e-6)
        assert amount is None or moved == pytest.approx(amount)
        change = attribute_change(factors, factors + vector[None], index, moved)
        np.testing.assert_allclose(change.effect, 1, rtol=1e-4)
        np.testing.assert_allclose(change.leak, np.abs(np.delete(vector, index)).mean(), rtol=1e-4)
