"""Measures on known factors, of models whose answers are known: codes that are pixels, and codes that are the factors."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.data import faces
from vae_jax.evaluation import known_factors

SIZE = 16
RENDER = functools.partial(faces.render, size=SIZE)
PIXELS = known_factors.Model(lambda x: x.reshape(len(x), -1), lambda z: z.reshape(-1, SIZE, SIZE, 1))


@pytest.fixture(scope="module")
def known():
    pixels, factors = faces.draw(80, SIZE, seed=5)
    return known_factors.Known(pixels / np.float32(255), factors, RENDER, faces.FACTORS, 0)


def test_codes_that_are_pixels_average_the_two_pictures():
    size = 32  # at 16 a strand of hair is one pixel wide, and half of it reads as half its length
    pixels, factors = faces.draw(80, size, seed=5)
    render = functools.partial(faces.render, size=size)
    known = known_factors.Known(pixels / np.float32(255), factors, render, faces.FACTORS, 0)
    model = known_factors.Model(PIXELS.encode, lambda z: z.reshape(-1, size, size, 1))
    found = jax.device_get(known_factors.between(model, known))
    np.testing.assert_allclose(found["ratio"], 1, rtol=1e-4)
    np.testing.assert_allclose(found["line"], found["average_line"], atol=1e-6)
    np.testing.assert_allclose(found["true_line"][:, 0], found["average_line"][:, 0], atol=1e-6)
    assert np.abs(found["read"][0] - 0.15).max() < 0.005 and np.abs(found["read"][-1] - 0.85).max() < 0.005
    assert found["error"].min() > 0.02  # half-faded hair is no hair of half the length


def test_reconstructions_of_pixels_are_faces_and_noise_is_none(known):
    z = np.random.default_rng(0).normal(size=(6, SIZE * SIZE)).astype(np.float32)
    found = jax.device_get(jax.jit(functools.partial(known_factors.draws, PIXELS, known))(z))
    assert found["reconstruction"].max() < 5e-5
    assert found["prior"].min() > 0.5


def test_codes_that_are_the_factors(known):
    """One latent follows hair alone, and an attribute vector moves its own factor alone."""
    model = known_factors.Model(lambda x: pytest.fail("not needed"), lambda z: RENDER(0.5 + z / 4))
    codes = 4 * known.factors - 2  # the span of a traversal is the range of a factor
    found = jax.device_get(jax.jit(functools.partial(known_factors.changes, model, known))(codes))
    assert found.keys() == {"traversal", *(factor.name for factor in faces.FACTORS)}
    assert np.abs(found["traversal"]["effect"] - 1).max() < 0.02
    assert np.mean(found["traversal"]["leak"]) < 0.02
    for name in ("hair", "skin", "width"):
        # From the lower half by half a range: nothing is cut off.
        assert np.abs(np.mean(found[name]["effect"]) - 1) < 0.05, name
    rows = jax.jit(functools.partial(known_factors.traversals, model, known))(codes)
    assert rows.shape == (len(faces.FACTORS), known_factors.STEPS, SIZE, SIZE, 1)


def test_a_factor_that_all_images_have_has_no_vector(known):
    factors = known.factors.copy()
    factors[:, 5] = 1
    all_glasses = known_factors.Known(known.images, factors, RENDER, faces.FACTORS, 0)
    model = known_factors.Model(lambda x: x, RENDER)
    found = jax.eval_shape(lambda: known_factors.changes(model, all_glasses, jnp.asarray(factors)))
    assert "glasses" not in found and "hair" in found
