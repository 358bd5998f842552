"""p(z) and the rate against SciPy, closed forms, Monte Carlo and float64, also where the posterior has collapsed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from vae_jax import priors

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)


def row(*values: float) -> jax.Array:
    return jnp.asarray([values], jnp.float32)


@jax.jit
def rate(mean, log_var) -> jax.Array:
    return priors.Normal(mean.shape[1]).rate_per_latent(mean, log_var)


def exact(mean, log_var) -> np.ndarray:
    """KL(N(mean, exp(log_var)) || N(0, 1)) of the same numbers in float64, by its series where it cancels."""
    mean, v = np.asarray(mean, float), np.asarray(log_var, float)
    series = v**2 / 2 * (1 + v / 3 * (1 + v / 4 * (1 + v / 5)))
    return 0.5 * (mean**2 + np.where(np.abs(v) < 1e-2, series, np.expm1(v) - v))


def test_log_prob_against_scipy():
    z = jnp.asarray(RANDOM.normal(size=(6, 3)), jnp.float32)
    expected = scipy.stats.norm.logpdf(np.asarray(z, float)).sum(axis=1)
    np.testing.assert_allclose(priors.Normal(3).log_prob(z), expected, rtol=8 * EPS)


def test_quantile_is_the_inverse_of_the_distribution_function():
    level = jnp.asarray([1e-4, 0.01, 0.1, 0.5, 0.7, 0.99, 0.9999], jnp.float32)
    found = scipy.stats.norm.cdf(np.asarray(priors.Normal(1).quantile(level), float))
    # The level itself is rounded, and the quantile q to a few eps of |q| <= 4 where the density is at most 0.4.
    np.testing.assert_allclose(found, np.asarray(level, float), atol=4 * EPS)


def test_rate_by_hand():
    # KL(N(1, 4) || N(0, 1)) = (1 + 4 - 1 - log 4) / 2, and nothing where the posterior is the prior.
    found = rate(row(1, 0, -1), row(np.log(4), 0, np.log(4)))
    np.testing.assert_allclose(found, [[1.3068528194400547, 0, 1.3068528194400547]], rtol=4 * EPS)


def test_rate_against_monte_carlo():
    mean, log_var, n = np.array([0.5, -2.0, 0.0]), np.array([-3.0, 1.0, 0.2]), 100_000
    std = np.exp(log_var / 2)
    z = mean + std * np.random.default_rng(1).normal(size=(n, 3))
    log_ratio = scipy.stats.norm.logpdf(z, mean, std) - scipy.stats.norm.logpdf(z)
    error = log_ratio.std(axis=0) / np.sqrt(n)
    assert np.all(np.abs(rate(row(*mean), row(*log_var))[0] - log_ratio.mean(axis=0)) < 5 * error)


@pytest.mark.parametrize("size", [0.3, 1e-2, 1e-3])
def test_rate_of_collapsed_latents(size):
    log_var = size * RANDOM.uniform(1, 2, size=(1, 500)) * RANDOM.choice([-1, 1], size=(1, 500))
    log_var = jnp.asarray(log_var, jnp.float32)
    np.testing.assert_allclose(rate(0 * log_var, log_var), exact(0 * log_var, log_var), rtol=1e-3)


def test_rate_of_latents_that_are_collapsed_to_float32():
    log_var = jnp.asarray(1e-6 * RANDOM.uniform(-2, 2, size=(1, 500)), jnp.float32)
    # expm1 is rounded to eps of a number of size |log_var|, and the subtraction is exact: 1e-13 nats here.
    assert np.all(np.abs(rate(0 * log_var, log_var) - exact(0 * log_var, log_var)) <= EPS * np.abs(log_var))
    # Where the mean says something, that decides, and it is exact to float32.
    mean = jnp.full_like(log_var, 1e-3)
    np.testing.assert_allclose(rate(mean, log_var), exact(mean, log_var), rtol=4 * EPS)


def test_gradient_by_hand():
    mean, log_var = (jnp.asarray(RANDOM.normal(size=(4, 3)), jnp.float32) for _ in range(2))
    of_mean, of_log_var = jax.jit(jax.grad(lambda m, v: jnp.sum(rate(m, v)), argnums=(0, 1)))(mean, log_var)
    np.testing.assert_allclose(of_mean, mean, rtol=2 * EPS)
    np.testing.assert_allclose(of_log_var, 0.5 * np.expm1(np.asarray(log_var, float)), atol=8 * EPS)


@pytest.mark.parametrize("log_var", [-20.0, 20.0])
def test_finite_at_the_extremes(log_var):
    values, gradients = jax.jit(jax.value_and_grad(lambda v: jnp.sum(rate(row(3), v))))(row(log_var))
    np.testing.assert_allclose(values, exact(row(3), row(log_var)).item(), rtol=4 * EPS)
    np.testing.assert_allclose(gradients, [[0.5 * np.expm1(log_var)]], rtol=4 * EPS)


def test_a_deterministic_code_has_infinite_rate():
    assert rate(row(0.5), row(-np.inf)).item() == np.inf
