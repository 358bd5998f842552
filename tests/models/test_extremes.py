"""Likelihoods and priors at the extremes: finite and precise, also after all of XLA's rewriting, as outside the tests."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import random

from vae_jax.models import flows, likelihoods, priors

pytestmark = pytest.mark.compiled_fully

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)


def one_pixel(value: float) -> jax.Array:
    """An image of one pixel."""
    return jnp.asarray(np.float32([[value]]))


@jax.jit
@jax.value_and_grad
def with_gradients(likelihood, x):
    """log_prob of one image, and its gradient in everything that the likelihood holds."""
    return likelihood.log_prob(x)[0]


# Bernoulli


@pytest.mark.parametrize("logit", [1e4, -1e4, 100.0, -100.0, 88.8, -88.8])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_bernoulli_at_the_extremes(logit, target):
    value, gradient = with_gradients(likelihoods.Bernoulli(one_pixel(logit)), one_pixel(target))
    # log p(1) = -max(-logit, 0) and log p(0) = -max(logit, 0), up to e^-88; a product and a difference of size |logit|.
    expected = -target * max(-logit, 0) - (1 - target) * max(logit, 0)
    assert abs(value - expected) <= 2 * EPS * abs(logit)
    assert abs(gradient.logits.item() - (target - (logit > 0))) <= EPS


@pytest.mark.parametrize("logit", [0.0, -0.0])
@pytest.mark.parametrize("target", [0.0, 0.25, 1.0])
def test_the_gradient_of_bits_at_a_logit_of_0(logit, target):
    """x - 1/2, as on both sides of it: not that of a kink."""
    _, gradient = with_gradients(likelihoods.Bernoulli(one_pixel(logit)), one_pixel(target))
    assert gradient.logits.item() == target - 0.5


# Gaussian


@pytest.mark.parametrize("log_sigma", [np.log(likelihoods.SIGMA_FLOOR), 10.0])
def test_gaussian_at_the_extremes(log_sigma):
    value, gradients = with_gradients(likelihoods.Gaussian(one_pixel(0), jnp.float32(log_sigma)), one_pixel(1e3))
    sigma = np.exp(np.float64(np.float32(log_sigma)))
    # The residual 1e3 / sigma is rounded with exp(-log_sigma), whose exponent is good to eps of 10; then it is squared.
    np.testing.assert_allclose(value, scipy.stats.norm.logpdf(1e3, 0, sigma), rtol=40 * EPS)
    np.testing.assert_allclose(gradients.mean, [[1e3 / sigma**2]], rtol=40 * EPS)
    np.testing.assert_allclose(gradients.log_sigma, (1e3 / sigma) ** 2 - 1, rtol=40 * EPS)


def test_a_perfect_batch_meets_the_floor():
    x = jnp.asarray(np.float32(RANDOM.normal(size=(5, 24))))
    fitted = jax.jit(lambda x: jnp.exp(likelihoods.Gaussian(x, jnp.float32(0)).fitted(x).log_sigma))
    np.testing.assert_allclose(fitted(x), likelihoods.SIGMA_FLOOR, rtol=8 * EPS)


def test_floored_is_increasing_and_never_below_the_floor():
    raw = np.array([-1e30, -1e4, -100, *np.linspace(-20, 20, 2001), 1e4, 1e30, np.log(2)], np.float32)
    found = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(likelihoods.floored)))(raw))
    (*log_sigma, of_log_2), gradient = found
    assert np.all(log_sigma >= np.float32(np.log(likelihoods.SIGMA_FLOOR)))
    assert np.all(np.diff(log_sigma) >= 0)
    inside = np.abs(raw[:-1]) <= 15
    assert np.all(np.diff(np.array(log_sigma)[inside]) > 0)
    # Far above the floor it changes nothing: log(1 + e^-7.6) at sigma 2 is 5e-4.
    assert abs(of_log_2 - np.log(2.0)) < 6e-4
    assert np.all(np.isfinite(gradient) & (gradient >= 0))


# Continuous Bernoulli


def exact_normalizer(logits: np.ndarray) -> np.ndarray:
    """log((e^l - 1) / l) by expm1 in float64, from its mirror image where that would overflow."""
    safe = np.where(logits == 0, 1.0, logits)
    value = np.log(-np.expm1(-np.abs(safe)) / np.abs(safe)) + np.maximum(safe, 0)
    return np.where(logits == 0, 0.0, value)


NEAR_HALF = np.array([0, 1e-30, 1e-7, 1e-4, 1e-2, 0.1, 0.5, 0.999, 1.0, 1.001, 2, 5, 20, 100, 900])
NEAR_HALF = np.concatenate([-NEAR_HALF, NEAR_HALF]).astype(np.float32)


def test_normaliser_is_precise_near_a_half_and_far_from_it():
    found = jax.jit(likelihoods.log_normalizer)(NEAR_HALF)
    expected = exact_normalizer(NEAR_HALF.astype(float))
    np.testing.assert_allclose(found, expected, rtol=4 * EPS, atol=1e-16)  # the second is the expected number's own


def test_gradient_of_the_normaliser_is_the_mean():
    """1/2 + (coth(l/2) - 2/l) / 2, by its series l/12 where the difference would cancel."""
    logits = NEAR_HALF.astype(float)
    safe = np.where(np.abs(logits) < 1e-3, 1.0, logits)
    expected = 0.5 + np.where(np.abs(logits) < 1e-3, logits / 12, (1 / np.tanh(safe / 2) - 2 / safe) / 2)
    gradient = jax.vmap(jax.grad(likelihoods.log_normalizer))
    for found in (jax.jit(gradient)(NEAR_HALF), jax.jit(likelihoods.truncated_mean)(NEAR_HALF)):
        np.testing.assert_allclose(found, expected, rtol=0, atol=4 * EPS)


def test_variance_near_a_half_is_that_of_a_uniform():
    found = jax.jit(likelihoods.truncated_variance)(NEAR_HALF)
    np.testing.assert_allclose(found[np.abs(NEAR_HALF) < 1e-3], 1 / 12, rtol=20 * EPS)
    logits = NEAR_HALF[np.abs(NEAR_HALF) >= 1].astype(float)
    expected = 1 / logits**2 - 0.25 / np.sinh(np.clip(logits / 2, -300, 300)) ** 2
    # Differences of numbers of size 1 to 4 in float32, relative to the square of the logits.
    np.testing.assert_allclose(found[np.abs(NEAR_HALF) >= 1], expected, rtol=40 * EPS)


@jax.jit
def density_and_mean(likelihood, x):
    return jnp.exp(likelihood.log_prob(x)), likelihood.mean


@jax.jit
def std(likelihood):
    return likelihood.std


@functools.cache
def quadrature() -> tuple[np.ndarray, np.ndarray]:
    """Nodes in [0, 1] and their weights (Gauss-Legendre): finding them takes a second."""
    nodes, weights = np.polynomial.legendre.leggauss(300)
    return 0.5 * (nodes + 1), 0.5 * weights


@pytest.mark.parametrize("output", [0.0, 1e-4, 0.5, -0.5, 3.0, -30.0, 400.0])
def test_continuous_bernoulli_integrates_to_1(output):
    nodes, weights = quadrature()
    likelihood = likelihoods.ContinuousBernoulli(jnp.asarray(np.float32(np.full((300, 1), output))))
    density, mean = density_and_mean(likelihood, jnp.asarray(np.float32(nodes[:, None])))
    density, mean = np.asarray(density, float), float(mean[0, 0])
    # x * logits is rounded to eps of its size before it is raised.
    error = 4 * EPS * max(1.0, abs(output))
    assert abs(weights @ density - 1) < error
    assert abs(weights @ (nodes * density) - mean) < error


@pytest.mark.parametrize("output", [1e30, 1e4, -1e4, -1e30])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_a_constant_pixel_does_not_send_the_density_to_infinity(output, target):
    likelihood = likelihoods.ContinuousBernoulli(one_pixel(output))
    value, gradient = with_gradients(likelihood, one_pixel(target))
    assert np.isfinite(gradient.output).all()
    # A difference of two numbers of size 1000.
    limit = 1 / likelihoods.SIGMA_FLOOR
    assert -limit <= value <= np.log(limit) + 2 * EPS * limit
    np.testing.assert_allclose(std(likelihood), likelihoods.SIGMA_FLOOR, rtol=1e-3)


# Discretised logistic


@jax.jit
def log_prob_and_mean(likelihood, x):
    return likelihood.log_prob_per_pixel(x), likelihood.mean[0]


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_probabilities_of_all_levels_sum_to_1(levels):
    locations, sigmas = (0.5, 0.1234, 0.0, 1.0, -3.0, 40.0, 1e4), (likelihoods.SIGMA_FLOOR, 0.05, 1.0, 1e4)
    location, sigma = np.array(list(itertools.product(locations, sigmas))).T
    # An image for each level, with a pixel for each location and sigma.
    every = (np.tile(each, (levels + 1, 1)) for each in (location, np.log(sigma)))
    likelihood = likelihoods.DiscretizedLogistic(*(jnp.asarray(np.float32(each)) for each in every), levels)
    values = np.tile(np.arange(levels + 1)[:, None] / levels, (1, len(sigma)))
    log_prob, mean_of_all = log_prob_and_mean(likelihood, jnp.asarray(np.float32(values)))
    probability = np.exp(np.asarray(log_prob, float))
    # An edge is rounded to eps of the location in units of the scale, where the density is at most 1/4.
    error = 8 * EPS * (1 + np.maximum(np.abs(location), 1) / sigma)
    assert np.all(np.abs(probability.sum(axis=0) - 1) < error)
    mean = (probability * values).sum(axis=0)
    np.testing.assert_array_less(np.abs(mean - mean_of_all), 2 * error)


@pytest.mark.parametrize("location", [-1e6, -1.0, 0.5, 1e6])
@pytest.mark.parametrize("sigma", [likelihoods.SIGMA_FLOOR, 1e6])
@pytest.mark.parametrize("value", [0, 8, 16])
def test_logistic_at_the_extremes(location, sigma, value):
    likelihood = likelihoods.DiscretizedLogistic(one_pixel(location), jnp.float32(np.log(sigma)), 16)
    found, gradients = with_gradients(likelihood, one_pixel(value / 16))
    assert np.isfinite(found) and found <= 0
    assert all(np.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))
    if abs(location) > 1 and sigma < 1 and value == 8:  # far from the bin the gradient still points to it
        assert np.sign(gradients.location.item()) == -np.sign(location)


# All of the table


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_inverse_of_the_mean(name):
    family = likelihoods.LIKELIHOODS[name]
    mean = jnp.asarray(np.float32(np.round(np.random.default_rng(1).uniform(0.002, 0.998, (5, 24)) * 255) / 255))
    # At the smallest sigma, where a logistic within a level is all in that level.
    log_sigma = jnp.float32(np.log(likelihoods.SIGMA_FLOOR))

    @jax.jit
    def shown_and_at_the_ends(mean):
        return family.build(family.inverse_mean(mean), log_sigma, 255).mean, family.inverse_mean(jnp.array([0.0, 1.0]))

    shown, at_the_ends = shown_and_at_the_ends(mean)
    # The logit of 0.998 is 6 (of a continuous Bernoulli 500) and rounded to eps of it, of which the slope of its mean lets
    # 1/4 (1/500^2) at most through. Twice the std of the logistic is half a level: exp(-2 pi / sqrt(3)) of it is outside.
    tails = 2 * np.exp(-np.pi / np.sqrt(3) * 0.5 / 255 / likelihoods.SIGMA_FLOOR) / 255
    np.testing.assert_allclose(shown, mean, rtol=0, atol=tails if name == "discretized_logistic" else 4 * EPS)
    assert np.all(np.isfinite(at_the_ends))


# Priors


def row(*values: float) -> jax.Array:
    return jnp.asarray(np.float32([values]))


@jax.jit
def rate(mean, log_var) -> jax.Array:
    return priors.Normal(mean.shape[1]).rate_per_latent(mean, log_var)


@jax.jit
def rate_and_gradients(prior, mean, log_var):
    """The sum over all latents, and its gradients in mean and log_var."""
    return jax.value_and_grad(lambda m, v: jnp.sum(prior.rate_per_latent(m, v)), argnums=(0, 1))(mean, log_var)


def series(v) -> np.ndarray:
    """exp(v) - 1 - v of float64 numbers below 0.2, to 1e-13 of itself."""
    v = np.asarray(v, float)
    return v**2 * sum(v**n / math.factorial(n + 2) for n in range(12))


@pytest.mark.parametrize("size", [1e-1, 1e-2, 1e-3, 1e-4, 1e-6])
def test_rate_of_collapsed_latents(size):
    """exp(v) - 1 - v is of size v^2 there: a difference of two float32 of size v has nothing of it left."""
    log_var = size * RANDOM.uniform(0.5, 2, size=(1, 500)) * RANDOM.choice([-1, 1], size=(1, 500))
    log_var = jnp.asarray(np.float32(log_var))
    # From 0.2 on exp(v) - 1 and v are subtracted: rounded to a few eps of themselves, which are 2 / 0.2 times the result.
    np.testing.assert_allclose(rate(jnp.zeros((1, 500)), log_var), 0.5 * series(log_var), rtol=40 * EPS)
    # Where the mean says something, it counts as much as it does.
    mean = jnp.full((1, 500), size)
    np.testing.assert_allclose(rate(mean, log_var), 0.5 * (np.float64(mean) ** 2 + series(log_var)), rtol=40 * EPS)


def test_gradients_of_collapsed_latents():
    log_var = jnp.asarray(np.float32([[*np.geomspace(1e-7, 0.5, 60), *-np.geomspace(1e-7, 0.5, 60), 0, 0.2, -0.2]]))
    mean = 0.5 * log_var
    _, (of_mean, of_log_var) = rate_and_gradients(priors.Normal(mean.shape[1]), mean, log_var)
    np.testing.assert_array_equal(of_mean, mean)
    np.testing.assert_allclose(of_log_var, 0.5 * np.expm1(np.asarray(log_var, float)), rtol=40 * EPS)


def test_the_two_branches_meet():
    around = np.float32(0.2) * (1 + np.arange(-50, 51, dtype=np.float32) * EPS)
    for side in (around, -around[::-1]):
        found = np.asarray(rate(jnp.zeros((1, 101)), jnp.asarray(side[None])), float)[0]
        np.testing.assert_allclose(found, 0.5 * series(side), rtol=40 * EPS)


@pytest.mark.parametrize("log_var", [-20.0, 20.0])
def test_finite_at_the_extremes(log_var):
    value, (_, gradient) = rate_and_gradients(priors.Normal(1), row(3), row(log_var))
    np.testing.assert_allclose(value, 0.5 * (9 + np.expm1(log_var) - log_var), rtol=4 * EPS)
    np.testing.assert_allclose(gradient, [[0.5 * np.expm1(log_var)]], rtol=4 * EPS)


def test_a_deterministic_code_has_infinite_rate():
    assert rate(row(0.5), row(-np.inf)).item() == np.inf


def test_laplace_rate_and_its_gradient_are_finite_at_the_extremes():
    for mean, log_var in [(0.0, -40.0), (5.0, -40.0), (-50.0, 20.0), (0.0, 20.0)]:
        value, gradients = rate_and_gradients(priors.Laplace(1), row(mean), row(log_var))
        std = np.exp(log_var / 2)
        # Far from 0 nothing is folded.
        folded = abs(mean) if abs(mean) > 30 * std else scipy.stats.foldnorm.mean(abs(mean) / std, scale=std)
        np.testing.assert_allclose(value, np.log(2) + folded - 0.5 * (np.log(2 * np.pi) + 1 + log_var), rtol=1e-5)
        assert all(np.isfinite(gradient).all() for gradient in gradients)


def test_quantile_is_the_inverse_of_the_distribution_function():
    level = jnp.asarray(np.float32([1e-4, 0.01, 0.1, 0.5, 0.7, 0.99, 0.9999]))
    found = scipy.stats.norm.cdf(np.asarray(jax.jit(priors.Normal(1).quantile)(level), float))
    # The level itself is rounded, and the quantile q to a few eps of |q| <= 4 where the density is at most 0.4.
    np.testing.assert_allclose(found, np.asarray(level, float), atol=4 * EPS)


def test_a_mixture_of_one_is_the_gaussian_exactly():
    network = priors.PriorNetwork("mixture", 3, components=1, shape=(4,))
    encode = lambda inputs: (inputs, inputs)  # noqa: E731
    prior = network.apply(jax.jit(network.init, static_argnums=1)(random.key(3), encode), encode)
    z = jnp.asarray(np.float32(RANDOM.normal(size=(50, 3)) * 3))
    np.testing.assert_array_equal(jax.jit(prior.log_prob)(z), jax.jit(priors.Normal(3).log_prob)(z))


def test_gradients_of_a_spline_are_finite():
    """Also at its ends and beyond."""
    sizes = (flows.BINS, flows.BINS, flows.BINS - 1)
    layer = flows.Spline(*(jnp.asarray(np.float32(0.1 * RANDOM.normal(size=size))) for size in sizes))
    z = jnp.asarray(np.float32(np.linspace(-6, 6, 401)[:, None]))
    gradients = jax.jit(jax.grad(lambda layer: jnp.sum(layer.forward(z))))(layer)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
