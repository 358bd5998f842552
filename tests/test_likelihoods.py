"""p(x | z) against SciPy, closed-form gradients, sampled moments, and at the extremes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from jax.test_util import check_grads

from vae_jax import likelihoods

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
SHAPE = (5, 2, 4, 3)  # batch, and 24 pixels


def normals(scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * RANDOM.normal(size=SHAPE), jnp.float32)


def unit() -> jax.Array:
    return jnp.asarray(RANDOM.random(SHAPE), jnp.float32)


def bits() -> jax.Array:
    return jnp.asarray(RANDOM.integers(0, 2, SHAPE), jnp.float32)


def summed(per_pixel: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums over the pixels, and what float32 may be off: each of 24 terms and partial sums rounded a few times."""
    return per_pixel.reshape(len(per_pixel), -1).sum(axis=1), 4 * EPS * np.abs(per_pixel).sum(axis=(1, 2, 3)).max()


def test_bernoulli_against_scipy():
    logits, x = normals(4), bits()
    expected, error = summed(scipy.stats.bernoulli.logpmf(x, scipy.special.expit(np.asarray(logits, float))))
    np.testing.assert_allclose(likelihoods.Bernoulli(logits).log_prob(x), expected, rtol=0, atol=error)


def test_grey_pixels_are_negative_cross_entropy():
    logits, x = normals(4), unit()
    p, grey = scipy.special.expit(np.asarray(logits, float)), np.asarray(x, float)
    expected, error = summed(grey * np.log(p) + (1 - grey) * np.log1p(-p))
    np.testing.assert_allclose(likelihoods.Bernoulli(logits).log_prob(x), expected, rtol=0, atol=error)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0, "per pixel"])
def test_gaussian_against_scipy(sigma):
    mean, x = normals(), normals()
    log_sigma = normals() if sigma == "per pixel" else jnp.float32(np.log(sigma))
    scale = np.exp(np.asarray(log_sigma, float))
    expected, error = summed(scipy.stats.norm.logpdf(x, mean, scale))
    found = likelihoods.Gaussian(mean, jnp.asarray(log_sigma)).log_prob(x)
    # The residual in units of sigma is rounded before it is squared: two more roundings.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * error)


FAMILIES = {
    "bernoulli": lambda: (likelihoods.Bernoulli(normals()), bits()),
    "gaussian": lambda: (likelihoods.Gaussian(normals(), jnp.float32(-0.5)), normals()),
    "gaussian per pixel": lambda: (likelihoods.Gaussian(normals(), normals()), normals()),
}


@pytest.fixture(params=FAMILIES)
def family(request):
    """One likelihood of each kind, and an image."""
    return FAMILIES[request.param]()


def test_pixels_are_summed_not_averaged(family):
    likelihood, x = family

    def doubled(leaf):
        return jnp.concatenate([leaf, leaf], axis=2) if leaf.ndim else leaf

    twice = jax.tree.map(doubled, likelihood).log_prob(doubled(x))
    once = likelihood.log_prob(x)
    assert once.shape == (SHAPE[0],)
    np.testing.assert_allclose(twice, 2 * once, rtol=20 * EPS)  # sums of 24 and 48 terms of size 1 to 10


def test_vectors_do_as_well_as_images(family):
    likelihood, x = family

    def flat(leaf):
        return leaf.reshape(SHAPE[0], -1) if leaf.ndim else leaf

    found = jax.tree.map(flat, likelihood).log_prob(flat(x))
    np.testing.assert_allclose(found, likelihood.log_prob(x), rtol=20 * EPS)


def test_bernoulli_gradient():
    logits, x = normals(4), unit()
    gradient = jax.grad(lambda logits: jnp.sum(likelihoods.Bernoulli(logits).log_prob(x)))(logits)
    expected = np.asarray(x, float) - scipy.special.expit(np.asarray(logits, float))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=4 * EPS)


def test_gaussian_gradient():
    mean, log_sigma, x = normals(), normals(0.5), normals()

    def total(mean, log_sigma):
        return jnp.sum(likelihoods.Gaussian(mean, log_sigma).log_prob(x))

    of_mean, of_log_sigma = jax.grad(total, argnums=(0, 1))(mean, log_sigma)
    residual = (np.asarray(x, float) - mean) / np.exp(np.asarray(log_sigma, float))
    np.testing.assert_allclose(of_mean, residual / np.exp(np.asarray(log_sigma, float)), rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_allclose(of_log_sigma, residual**2 - 1, rtol=20 * EPS, atol=20 * EPS)


def test_gradients_against_finite_differences(family):
    likelihood, x = family
    # check_grads' own bounds for float32; one small image, whose sum is not so large that differences drown.
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: leaf[:1, :1, :2] if leaf.ndim else leaf, likelihood))

    def log_prob(*leaves):
        return jax.tree.unflatten(structure, map(jnp.asarray, leaves)).log_prob(x[:1, :1, :2])

    check_grads(jax.jit(log_prob), leaves, order=1, modes=["rev"], eps=1e-2)


@jax.jit
@jax.value_and_grad
def extreme(logits, x):
    return likelihoods.Bernoulli(logits).log_prob(x)[0]


@pytest.mark.parametrize("logit", [1e4, -1e4, 100.0, -100.0, 88.8, -88.8])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.25])
def test_bernoulli_at_the_extremes(logit, target):
    value, gradient = extreme(jnp.full((1, 1), logit), jnp.full((1, 1), target))
    # log p(1) = -max(-logit, 0) and log p(0) = -max(logit, 0), up to e^-88; a product and a difference of size |logit|.
    expected = -target * max(-logit, 0) - (1 - target) * max(logit, 0)
    assert abs(value - expected) <= 2 * EPS * abs(logit)
    assert abs(gradient.item() - (target - (logit > 0))) <= EPS


@pytest.mark.parametrize("log_sigma", [np.log(likelihoods.SIGMA_FLOOR), 10.0])
def test_gaussian_at_the_extremes(log_sigma):
    @jax.jit
    def log_prob(mean, log_sigma):
        return likelihoods.Gaussian(mean, log_sigma).log_prob(jnp.full((1, 1), 1e3))[0]

    value, gradients = jax.value_and_grad(log_prob, argnums=(0, 1))(jnp.zeros((1, 1)), jnp.float32(log_sigma))
    sigma = np.exp(np.float64(np.float32(log_sigma)))
    # The residual 1e3 / sigma is rounded with exp(-log_sigma), whose exponent is good to eps of 10; then it is squared.
    np.testing.assert_allclose(value, scipy.stats.norm.logpdf(1e3, 0, sigma), rtol=40 * EPS)
    np.testing.assert_allclose(gradients[0], [[1e3 / sigma**2]], rtol=40 * EPS)
    np.testing.assert_allclose(gradients[1], (1e3 / sigma) ** 2 - 1, rtol=40 * EPS)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.9973])
def test_gaussian_interval_has_its_probability(level):
    mean, log_sigma = normals(), normals(0.5)
    low, high = likelihoods.Gaussian(mean, log_sigma).interval(level)
    scale = np.exp(np.asarray(log_sigma, float))
    below = scipy.stats.norm.cdf(np.asarray(low, float), mean, scale)
    above = scipy.stats.norm.sf(np.asarray(high, float), mean, scale)
    # An end is off by a few eps of numbers of size 10 in units of sigma >= 0.2, where the density is at most 0.4.
    np.testing.assert_allclose(below, (1 - level) / 2, atol=20 * EPS)
    np.testing.assert_allclose(above, (1 - level) / 2, atol=20 * EPS)


def test_interval_of_a_shared_sigma_has_the_shape_of_the_image():
    low, high = likelihoods.Gaussian(normals(), jnp.float32(0)).interval(0.9)
    assert low.shape == high.shape == SHAPE


@pytest.mark.parametrize("level", [0.5, 0.9, 0.9973])
def test_bernoulli_interval_is_the_smallest_central_one(level):
    p = np.array([[0.0, 1e-4, 0.01, 0.04, 0.06, 0.2, 0.3, 0.5, 0.7, 0.8, 0.94, 0.96, 0.99, 0.9999, 1.0]])
    with np.errstate(divide="ignore"):
        low, high = likelihoods.Bernoulli(jnp.asarray(scipy.special.logit(p), jnp.float32)).interval(level)
    tail = (1 - level) / 2
    probability = np.where(low == 0, 1 - p, 0) + np.where(high == 1, p, 0)
    assert np.all(probability >= level)
    np.testing.assert_array_equal(low, p > 1 - tail)
    np.testing.assert_array_equal(high, p >= tail)


def test_samples_have_the_moments_that_are_said(family):
    count = 4000
    # All images are alike, in one batch.
    likelihood = jax.tree.map(lambda leaf: jnp.tile(leaf[0].ravel(), (count, 1)) if leaf.ndim else leaf, family[0])
    draws, mean = (np.asarray(array, float) for array in (likelihood.sample(random.key(0)), likelihood.mean))
    assert draws.shape == (count, 24)
    if isinstance(likelihood, likelihoods.Bernoulli):
        assert set(np.unique(draws)) == {0, 1}
        sigma = np.sqrt(mean * (1 - mean))[0]
    else:
        sigma = np.broadcast_to(np.exp(np.asarray(likelihood.log_sigma, float)), draws.shape)[0]
        # Relative error of the variance of n normals: sqrt(2 / n); 5 of them for the worst of 24 pixels.
        np.testing.assert_allclose(draws.var(axis=0), sigma**2, rtol=5 * np.sqrt(2 / count))
    assert np.all(np.abs(draws.mean(axis=0) - mean[0]) < 5 * sigma / np.sqrt(count))
    # Pixels and images are drawn one by one: the correlation of two that are independent has standard error 1 / sqrt(n).
    for a, b in ((draws[:, 0], draws[:, 1]), (draws[1:, 0], draws[:-1, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(count - 1)


def test_floored_is_increasing_and_never_below_the_floor():
    raw = np.array([-1e30, -1e4, -100, *np.linspace(-20, 20, 2001), 1e4, 1e30], np.float32)
    log_sigma, gradient = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(likelihoods.floored)))(raw))
    assert np.all(log_sigma >= np.float32(np.log(likelihoods.SIGMA_FLOOR)))
    assert np.all(np.diff(log_sigma) >= 0)
    inside = np.abs(raw) <= 15
    assert np.all(np.diff(log_sigma[inside]) > 0)
    # Far above the floor it changes nothing: log(1 + e^-7.6) at sigma 2 is 5e-4.
    assert abs(likelihoods.floored(jnp.log(2.0)) - np.log(2.0)) < 6e-4
    assert np.all(np.isfinite(gradient) & (gradient >= 0))


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_table_builds_each_family(name):
    output, log_sigma = normals(), jnp.float32(-1)
    likelihood = likelihoods.LIKELIHOODS[name](output, log_sigma)
    assert likelihood.log_prob(unit()).shape == (SHAPE[0],)
    depends = not np.array_equal(
        likelihood.log_prob(unit() * 0), likelihoods.LIKELIHOODS[name](output, log_sigma * 2).log_prob(unit() * 0)
    )
    assert depends == (name in likelihoods.WITH_SIGMA)


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_offset_is_the_output_whose_mean_it_is(name):
    mean = jnp.asarray(np.random.default_rng(1).uniform(0.001, 0.999, SHAPE), jnp.float32)
    shown = likelihoods.LIKELIHOODS[name](likelihoods.OFFSETS[name](mean), jnp.float32(0)).mean
    # The logit of 0.999 is 7 and rounded to eps of it, of which the sigmoid's slope lets 1/4 at most through.
    np.testing.assert_allclose(shown, mean, atol=4 * EPS)
    assert np.all(np.isfinite(likelihoods.OFFSETS[name](jnp.array([0.0, 1.0]))))
