"""p(x | z) against SciPy, closed-form gradients and sampled moments; for the extremes see test_extremes.py."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from jax.test_util import check_grads

from vae_jax.models import likelihoods

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
SHAPE = (5, 2, 4, 3)  # batch, and 24 pixels


def normals(scale: float = 1.0, shift: float = 0.0) -> jax.Array:
    return jnp.asarray(np.float32(scale * RANDOM.normal(size=SHAPE) + shift))


def unit() -> jax.Array:
    return jnp.asarray(np.float32(RANDOM.random(SHAPE)))


def levels(count: int) -> jax.Array:
    return jnp.asarray(np.float32(np.round(count * RANDOM.random(SHAPE)) / count))


def bits() -> jax.Array:
    return jnp.asarray(np.float32(RANDOM.integers(0, 2, SHAPE)))


@jax.jit
def log_prob(likelihood, x):
    """One program for all images of a shape under likelihoods of a kind."""
    return likelihood.log_prob(x)


def summed(per_pixel: np.ndarray) -> tuple[np.ndarray, float]:
    """Sums over the pixels, and what float32 may be off: each of 24 terms and partial sums rounded a few times."""
    return per_pixel.reshape(len(per_pixel), -1).sum(axis=1), 4 * EPS * np.abs(per_pixel).sum(axis=(1, 2, 3)).max()


def test_bernoulli_against_scipy():
    logits, x = normals(4), bits()
    expected, error = summed(scipy.stats.bernoulli.logpmf(x, scipy.special.expit(np.asarray(logits, float))))
    np.testing.assert_allclose(log_prob(likelihoods.Bernoulli(logits), x), expected, rtol=0, atol=error)


def test_grey_pixels_are_negative_cross_entropy():
    logits, x = normals(4), unit()
    p, grey = scipy.special.expit(np.asarray(logits, float)), np.asarray(x, float)
    expected, error = summed(grey * np.log(p) + (1 - grey) * np.log1p(-p))
    np.testing.assert_allclose(log_prob(likelihoods.Bernoulli(logits), x), expected, rtol=0, atol=error)


@pytest.mark.parametrize("sigma", [0.1, 1.0, 3.0, "per pixel"])
def test_gaussian_against_scipy(sigma):
    mean, x = normals(), normals()
    log_sigma = normals() if sigma == "per pixel" else jnp.float32(np.log(sigma))
    scale = np.exp(np.asarray(log_sigma, float))
    expected, error = summed(scipy.stats.norm.logpdf(x, mean, scale))
    found = log_prob(likelihoods.Gaussian(mean, log_sigma), x)
    # The residual in units of sigma is rounded before it is squared: two more roundings.
    np.testing.assert_allclose(found, expected, rtol=0, atol=2 * error)


FAMILIES = {
    "bernoulli": lambda: (likelihoods.Bernoulli(normals()), bits()),
    "continuous bernoulli": lambda: (likelihoods.ContinuousBernoulli(normals(3)), unit()),
    "logistic": lambda: (likelihoods.DiscretizedLogistic(unit(), jnp.float32(-1.5), 16), levels(16)),
    "logistic per pixel": lambda: (likelihoods.DiscretizedLogistic(unit(), normals(shift=-2), 255), levels(255)),
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
        return jnp.asarray(np.concatenate([leaf, leaf], axis=2)) if leaf.ndim else leaf

    twice = log_prob(jax.tree.map(doubled, likelihood), doubled(x))
    once = log_prob(likelihood, x)
    assert once.shape == (SHAPE[0],)
    np.testing.assert_allclose(twice, 2 * once, rtol=20 * EPS)  # sums of 24 and 48 terms of size 1 to 10


def test_vectors_do_as_well_as_images(family):
    likelihood, x = family

    def flat(leaf):
        return leaf.reshape(SHAPE[0], -1) if leaf.ndim else leaf

    found = log_prob(jax.tree.map(flat, likelihood), flat(x))
    np.testing.assert_allclose(found, log_prob(likelihood, x), rtol=20 * EPS)


def test_bernoulli_gradient():
    logits, x = normals(4), unit()
    gradient = jax.jit(jax.grad(lambda logits: jnp.sum(likelihoods.Bernoulli(logits).log_prob(x))))(logits)
    expected = np.asarray(x, float) - scipy.special.expit(np.asarray(logits, float))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=4 * EPS)


def test_gaussian_gradient():
    mean, log_sigma, x = normals(), normals(0.5), normals()

    def total(mean, log_sigma):
        return jnp.sum(likelihoods.Gaussian(mean, log_sigma).log_prob(x))

    of_mean, of_log_sigma = jax.jit(jax.grad(total, argnums=(0, 1)))(mean, log_sigma)
    residual = (np.asarray(x, float) - mean) / np.exp(np.asarray(log_sigma, float))
    np.testing.assert_allclose(of_mean, residual / np.exp(np.asarray(log_sigma, float)), rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_allclose(of_log_sigma, residual**2 - 1, rtol=20 * EPS, atol=20 * EPS)


def test_gradients_against_finite_differences(family):
    likelihood, x = family
    # check_grads' own bounds for float32; one small image, whose sum is not so large that differences drown.
    leaves, structure = jax.tree.flatten(jax.tree.map(lambda leaf: leaf[:1, :1, :2] if leaf.ndim else leaf, likelihood))

    def of_leaves(*leaves):
        return jax.tree.unflatten(structure, leaves).log_prob(x[:1, :1, :2])

    check_grads(jax.jit(of_leaves), leaves, order=1, modes=["rev"], eps=1e-2)


LEVELS = (0.5, 0.9, 0.9973)


@jax.jit
def intervals(likelihood):
    """(low, high) at each level."""
    return {level: likelihood.interval(level) for level in LEVELS}


@jax.jit
def cdf(likelihood, x):
    return likelihood.cdf(x)


def test_gaussian_interval_has_its_probability():
    mean, log_sigma = normals(), normals(0.5)
    scale = np.exp(np.asarray(log_sigma, float))
    for level, (low, high) in intervals(likelihoods.Gaussian(mean, log_sigma)).items():
        below = scipy.stats.norm.cdf(np.asarray(low, float), mean, scale)
        above = scipy.stats.norm.sf(np.asarray(high, float), mean, scale)
        # An end is off by a few eps of numbers of size 10 in units of sigma >= 0.2, where the density is at most 0.4.
        np.testing.assert_allclose(below, (1 - level) / 2, atol=20 * EPS)
        np.testing.assert_allclose(above, (1 - level) / 2, atol=20 * EPS)


def test_interval_of_a_shared_sigma_has_the_shape_of_the_image():
    found = jax.eval_shape(intervals, likelihoods.Gaussian(normals(), jnp.float32(0)))
    assert {end.shape for ends in found.values() for end in ends} == {SHAPE}


def test_bernoulli_interval_is_the_smallest_central_one():
    p = np.array([[0.0, 1e-4, 0.01, 0.04, 0.06, 0.2, 0.3, 0.5, 0.7, 0.8, 0.94, 0.96, 0.99, 0.9999, 1.0]])
    with np.errstate(divide="ignore"):
        logits = jnp.asarray(np.float32(scipy.special.logit(p)))
    for level, (low, high) in intervals(likelihoods.Bernoulli(logits)).items():
        tail = (1 - level) / 2
        probability = np.where(low == 0, 1 - p, 0) + np.where(high == 1, p, 0)
        assert np.all(probability >= level)
        np.testing.assert_array_equal(low, p > 1 - tail)
        np.testing.assert_array_equal(high, p >= tail)


def alike(likelihood, count: int):
    """As many images like the first, in one batch of vectors."""

    def of_first(leaf):
        return jnp.asarray(np.tile(np.ravel(leaf)[:24], (count, 1))) if leaf.ndim else leaf

    return jax.tree.map(of_first, likelihood)


def test_samples_have_the_moments_that_are_said(family):
    count = 4000
    likelihood = alike(family[0], count)
    std, *rest = jax.jit(lambda one: (getattr(one, "std", None), one.sample(random.key(0)), one.mean))(likelihood)
    draws, mean = (np.asarray(array, float) for array in rest)
    assert draws.shape == (count, 24)
    if isinstance(likelihood, likelihoods.Bernoulli):
        assert set(np.unique(draws)) == {0, 1}
        sigma = np.sqrt(mean * (1 - mean))[0]
    elif isinstance(likelihood, likelihoods.DiscretizedLogistic):
        assert set(np.unique(np.round(draws * likelihood.levels))) <= set(range(likelihood.levels + 1))
        sigma = draws.std(axis=0)  # it has no other
    else:
        sigma = np.asarray(std, float)[0]
        # Relative error of the variance of n normals: sqrt(2 / n), of bounded values less; 5 of them for the worst of 24.
        np.testing.assert_allclose(draws.var(axis=0), sigma**2, rtol=5 * np.sqrt(2 / count))
    assert np.all(np.abs(draws.mean(axis=0) - mean[0]) < 5 * sigma / np.sqrt(count))
    # Pixels and images are drawn one by one: the correlation of two that are independent has standard error 1 / sqrt(n).
    for a, b in ((draws[:, 0], draws[:, 1]), (draws[1:, 0], draws[:-1, 0])):
        assert abs(np.corrcoef(a, b)[0, 1]) < 5 / np.sqrt(count - 1)


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_table_builds_each_family(name):
    output, log_sigma, family = normals(), jnp.float32(-1), likelihoods.LIKELIHOODS[name]
    likelihood = family.build(output, log_sigma, 255)
    assert log_prob(likelihood, unit()).shape == (SHAPE[0],)
    assert jax.eval_shape(lambda likelihood: likelihood.mean, likelihood).shape == SHAPE
    assert family.is_graded == isinstance(likelihood, likelihoods.Graded)
    other, black = family.build(output, jnp.float32(-2), 255), jnp.zeros(SHAPE)
    depends = not np.array_equal(log_prob(likelihood, black), log_prob(other, black))
    assert depends == bool(family.sigmas)


# What every graded family has


def graded() -> dict[str, likelihoods.Graded]:
    """One of each kind, with all pixels different."""
    return {name: build()[0] for name, build in FAMILIES.items() if isinstance(build()[0], likelihoods.Graded)}


@pytest.fixture(params=graded())
def one(request):
    return graded()[request.param]


def test_interval_is_the_smallest_central_one(one):
    for level, (low, high) in jax.device_get(intervals(one)).items():
        assert low.shape == high.shape == SHAPE
        tail = (1 - level) / 2
        if isinstance(one, likelihoods.DiscretizedLogistic):
            step = np.float32(1 / one.levels)
            for end, share in ((low, tail), (high, 1 - tail)):
                # It reaches the share (but for the rounding of a cdf with slope up to 1), the level before it does not.
                assert np.all(cdf(one, end) >= share - 8 * EPS)
                assert np.all((cdf(one, end - step) < share + 8 * EPS) | (end < step / 2))
        else:
            # The ends are numbers of size up to 10 sigma, where the density is at most 0.4 per sigma; at the ends of [0, 1]
            # the density of a continuous Bernoulli with logits up to 9 is 9.
            np.testing.assert_allclose(cdf(one, low), tail, rtol=0, atol=40 * EPS)
            np.testing.assert_allclose(cdf(one, high), 1 - tail, rtol=0, atol=40 * EPS)


def test_pit_of_samples_is_uniform(one):
    count = 2000
    many = alike(one, count)

    @jax.jit
    def pit_of_samples(many):
        draws = many.sample(random.key(1))
        return many.pit(draws, random.uniform(random.key(2), draws.shape))

    values = np.asarray(pit_of_samples(many), float)
    assert values.min() >= 0 and values.max() <= 1
    # 24 pixels by 6 families: one in a thousand suites would fail with another key.
    assert min(scipy.stats.kstest(pixel, "uniform").pvalue for pixel in values.T) > 1e-3 / (24 * 6)


def test_cdf_is_the_integral_of_the_density(one):
    """By differences on a fine grid: the share between two points is exp(log_prob) times their distance."""
    if isinstance(one, likelihoods.DiscretizedLogistic):
        values = [np.full(SHAPE, k / one.levels, np.float32) for k in range(one.levels + 1)]
        pit = jax.jit(lambda one, x: one.pit(x, jnp.zeros(SHAPE)))
        below = [np.asarray(pit(one, value), float) for value in values]
        upto = [np.asarray(cdf(one, value), float) for value in values]
        assert np.all(below[0] == 0) and np.all(upto[-1] == 1)
        np.testing.assert_allclose(below[1:], upto[:-1], rtol=0, atol=100 * EPS)  # an edge reached from either side
        return
    low, high = jax.device_get(jax.jit(lambda one: one.interval(0.999))(one))
    points = [low + (high - low) * share for share in np.linspace(0, 1, 201, dtype=np.float32)]
    per_pixel = jax.jit(lambda one, x: one.log_prob_per_pixel(x))
    density = np.array([np.exp(np.asarray(per_pixel(one, point), float)) for point in points])
    distribution = np.array([np.asarray(cdf(one, point), float) for point in points])
    width = np.asarray(high - low, float) / 200
    simpson = width / 3 * (density[:-2:2] + 4 * density[1:-1:2] + density[2::2])
    np.testing.assert_allclose(np.diff(distribution[::2], axis=0), simpson, rtol=1e-4, atol=40 * EPS)


# Gaussian


def test_fitted_sigma_is_that_of_largest_likelihood():
    mean, x = normals(), normals()
    fitted = jax.jit(lambda mean, x: likelihoods.Gaussian(mean, jnp.float32(0)).fitted(x))(mean, x)
    residual = np.asarray(jax.jit(lambda likelihood, x: likelihood.residual(x))(fitted, x), float)
    np.testing.assert_allclose(np.mean(np.square(residual)), 1, rtol=20 * EPS)
    best = np.sum(log_prob(fitted, x))
    for factor in (0.99, 1.01):
        other = likelihoods.Gaussian(mean, jnp.float32(float(fitted.log_sigma) + np.log(factor)))
        assert np.sum(log_prob(other, x)) < best
    closed = -0.5 * x.size * (np.log(2 * np.pi * np.mean(np.square(np.asarray(x - mean, float)))) + 1)
    np.testing.assert_allclose(best, closed, rtol=20 * EPS)


def test_stopping_the_gradient_of_the_fitted_sigma_changes_nothing():
    """The paper's closed form differentiates the mean squared error; at the best sigma that is the same gradient."""
    mean, x = normals(), normals()

    def stopped(mean):
        return jnp.sum(likelihoods.Gaussian(mean, jnp.float32(0)).fitted(x).log_prob(x))

    def closed(mean):
        return -0.5 * x.size * jnp.log(jnp.mean(jnp.square(x - mean)))

    np.testing.assert_allclose(jax.jit(jax.grad(stopped))(mean), jax.jit(jax.grad(closed))(mean), rtol=20 * EPS)


# Continuous Bernoulli


def test_continuous_bernoulli_is_that_of_the_paper():
    """C(p) p^x (1 - p)^(1 - x) with C = 2 artanh(1 - 2p) / (1 - 2p) (Loaiza-Ganem & Cunningham 2019, eq. 7)."""
    logits, x = normals(3), unit()
    p, at = scipy.special.expit(np.asarray(logits, float)), np.asarray(x, float)
    constant = np.log(2 * np.arctanh(1 - 2 * p) / (1 - 2 * p))
    expected, error = summed(constant + at * np.log(p) + (1 - at) * np.log1p(-p))
    # The logits are held below 1000: 1000 tanh(l / 1000) is l (1 - l^2 / 3e6).
    held = np.sum(np.abs(np.asarray(logits, float)) ** 3, axis=(1, 2, 3)).max() * likelihoods.SIGMA_FLOOR**2 / 3
    np.testing.assert_allclose(log_prob(likelihoods.ContinuousBernoulli(logits), x), expected, rtol=0, atol=error + held)


# Discretised logistic


def test_logistic_against_differences_of_its_cdf():
    values = np.arange(17, dtype=np.float32)[:, None] / np.float32(16)
    likelihood = likelihoods.DiscretizedLogistic(jnp.full((17, 1), 0.4), jnp.float32(np.log(0.1)), 16)
    law = scipy.stats.logistic(0.4, 0.1 * np.sqrt(3) / np.pi)
    assert law.std() == pytest.approx(0.1)
    edges = np.concatenate([[-np.inf], (np.arange(16) + 0.5) / 16, [np.inf]])
    expected = np.diff(law.cdf(edges))
    np.testing.assert_allclose(np.exp(log_prob(likelihood, values)), expected, rtol=100 * EPS)
    np.testing.assert_allclose(cdf(likelihood, values)[:, 0], law.cdf(edges[1:]), rtol=100 * EPS)
