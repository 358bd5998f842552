"""p(x | z) against SciPy, closed-form gradients, sampled moments, and at the extremes."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from jax.test_util import check_grads

from vae_jax.models import likelihoods

# What keeps numbers finite and exact has to hold after all of XLA's rewriting.
pytestmark = pytest.mark.compiled("fully")

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
    "continuous bernoulli": lambda: (likelihoods.ContinuousBernoulli(normals(3)), unit()),
    "logistic": lambda: (likelihoods.DiscretizedLogistic(unit(), jnp.float32(-1.5), 16), jnp.round(16 * unit()) / 16),
    "logistic per pixel": lambda: (
        likelihoods.DiscretizedLogistic(unit(), normals() - 2, 255),
        jnp.round(255 * unit()) / 255,
    ),
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
    draws, mean = (
        np.asarray(array, float) for array in jax.jit(lambda one: (one.sample(random.key(0)), one.mean))(likelihood)
    )
    assert draws.shape == (count, 24)
    if isinstance(likelihood, likelihoods.Bernoulli):
        assert set(np.unique(draws)) == {0, 1}
        sigma = np.sqrt(mean * (1 - mean))[0]
    elif isinstance(likelihood, likelihoods.DiscretizedLogistic):
        assert set(np.unique(np.round(draws * likelihood.levels))) <= set(range(likelihood.levels + 1))
        sigma = draws.std(axis=0)  # it has no other
    else:
        sigma = np.asarray(likelihood.std, float)[0]
        # Relative error of the variance of n normals: sqrt(2 / n), of bounded values less; 5 of them for the worst of 24.
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
    output, log_sigma, family = normals(), jnp.float32(-1), likelihoods.LIKELIHOODS[name]
    likelihood = family.build(output, log_sigma, 255)
    assert likelihood.log_prob(unit()).shape == (SHAPE[0],)
    assert likelihood.mean.shape == SHAPE
    assert family.is_graded == isinstance(likelihood, likelihoods.Graded)
    other = family.build(output, log_sigma * 2, 255)
    depends = not np.array_equal(likelihood.log_prob(unit() * 0), other.log_prob(unit() * 0))
    assert depends == bool(family.sigmas)


@pytest.mark.parametrize("name", likelihoods.LIKELIHOODS)
def test_the_inverse_of_the_mean(name):
    family = likelihoods.LIKELIHOODS[name]
    mean = jnp.round(jnp.asarray(np.random.default_rng(1).uniform(0.002, 0.998, SHAPE), jnp.float32) * 255) / 255
    # At the smallest sigma, where a logistic within a level is all in that level.
    log_sigma = jnp.float32(np.log(likelihoods.SIGMA_FLOOR))
    shown = jax.jit(lambda mean: family.build(family.inverse_mean(mean), log_sigma, 255).mean)(mean)
    # The logit of 0.998 is 6 (of a continuous Bernoulli 500) and rounded to eps of it, of which the slope of its mean lets
    # 1/4 (1/500^2) at most through. Twice the std of the logistic is half a level: exp(-2 pi / sqrt(3)) of it is outside.
    tails = 2 * np.exp(-np.pi / np.sqrt(3) * 0.5 / 255 / likelihoods.SIGMA_FLOOR) / 255
    np.testing.assert_allclose(shown, mean, rtol=0, atol=tails if name == "discretized_logistic" else 4 * EPS)
    assert np.all(np.isfinite(family.inverse_mean(jnp.array([0.0, 1.0]))))


# What every graded family has


def graded() -> dict[str, likelihoods.Graded]:
    """One of each kind, with all pixels different."""
    return {name: build()[0] for name, build in FAMILIES.items() if isinstance(build()[0], likelihoods.Graded)}


@pytest.fixture(params=graded())
def one(request):
    return graded()[request.param]


@pytest.mark.parametrize("level", [0.5, 0.9, 0.9973])
def test_interval_is_the_smallest_central_one(one, level):
    low, high = one.interval(level)
    assert low.shape == high.shape == SHAPE
    tail = (1 - level) / 2
    if isinstance(one, likelihoods.DiscretizedLogistic):
        step = 1 / one.levels
        for end, share in ((low, tail), (high, 1 - tail)):
            # The end reaches the share (but for the rounding of a cdf with slope up to 1), the level before it does not.
            assert np.all(one.cdf(end) >= share - 8 * EPS)
            assert np.all((one.cdf(end - step) < share + 8 * EPS) | (end < step / 2))
    else:
        # The ends are numbers of size up to 10 sigma, where the density is at most 0.4 per sigma; at the ends of [0, 1] the
        # density of a continuous Bernoulli with logits up to 9 is 9.
        np.testing.assert_allclose(one.cdf(low), tail, rtol=0, atol=40 * EPS)
        np.testing.assert_allclose(one.cdf(high), 1 - tail, rtol=0, atol=40 * EPS)


def test_pit_of_samples_is_uniform(one):
    count = 2000
    many = jax.tree.map(lambda leaf: jnp.tile(leaf[0].ravel(), (count, 1)) if leaf.ndim else leaf, one)

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
        values = [jnp.full(SHAPE, k / one.levels) for k in range(one.levels + 1)]
        below = [np.asarray(one.pit(value, jnp.zeros(SHAPE)), float) for value in values]
        upto = [np.asarray(one.cdf(value), float) for value in values]
        assert np.all(below[0] == 0) and np.all(upto[-1] == 1)
        np.testing.assert_allclose(below[1:], upto[:-1], rtol=0, atol=100 * EPS)  # an edge reached from either side
        return
    low, high = one.interval(0.999)
    points = [low + (high - low) * share for share in np.linspace(0, 1, 201, dtype=np.float32)]
    density = np.array([np.exp(np.asarray(per_pixel(one, point), float)) for point in points])
    cdf = np.array([np.asarray(one.cdf(point), float) for point in points])
    width = np.asarray(high - low, float) / 200
    simpson = width / 3 * (density[:-2:2] + 4 * density[1:-1:2] + density[2::2])
    np.testing.assert_allclose(np.diff(cdf[::2], axis=0), simpson, rtol=1e-4, atol=40 * EPS)


def per_pixel(likelihood, x):
    """log_prob of each pixel: pixels as so many images of one."""
    flat = jax.tree.map(lambda leaf: leaf.reshape(-1, 1) if leaf.ndim else leaf, likelihood)
    return flat.log_prob(x.reshape(-1, 1)).reshape(x.shape)


# Gaussian


def test_fitted_sigma_is_that_of_largest_likelihood():
    mean, x = normals(), normals()
    fitted = likelihoods.Gaussian(mean, jnp.float32(0)).fitted(x)
    np.testing.assert_allclose(jnp.mean(jnp.square(fitted.residual(x))), 1, rtol=20 * EPS)
    best = jnp.sum(fitted.log_prob(x))
    for factor in (0.99, 1.01):
        assert jnp.sum(likelihoods.Gaussian(mean, fitted.log_sigma + np.log(factor)).log_prob(x)) < best
    closed = -0.5 * x.size * (np.log(2 * np.pi * np.mean(np.square(np.asarray(x - mean, float)))) + 1)
    np.testing.assert_allclose(best, closed, rtol=20 * EPS)


def test_stopping_the_gradient_of_the_fitted_sigma_changes_nothing():
    """The paper's closed form differentiates the mean squared error; at the best sigma that is the same gradient."""
    mean, x = normals(), normals()
    stopped = jax.grad(lambda mean: jnp.sum(likelihoods.Gaussian(mean, jnp.float32(0)).fitted(x).log_prob(x)))(mean)
    closed = jax.grad(lambda mean: -0.5 * x.size * jnp.log(jnp.mean(jnp.square(x - mean))))(mean)
    np.testing.assert_allclose(stopped, closed, rtol=20 * EPS)


def test_a_perfect_batch_meets_the_floor():
    x = normals()
    fitted = likelihoods.Gaussian(x, jnp.float32(0)).fitted(x)
    np.testing.assert_allclose(jnp.exp(fitted.log_sigma), likelihoods.SIGMA_FLOOR, rtol=8 * EPS)


@jax.jit
@jax.value_and_grad
def with_gradients(likelihood, x):
    """log_prob of one image, and its gradient in everything that the likelihood holds."""
    return likelihood.log_prob(x)[0]


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


@pytest.mark.parametrize("output", [0.0, 1e-4, 0.5, -0.5, 3.0, -30.0, 400.0])
def test_continuous_bernoulli_integrates_to_1(output):
    nodes, weights = np.polynomial.legendre.leggauss(300)
    nodes, weights = 0.5 * (nodes + 1), 0.5 * weights
    likelihood = likelihoods.ContinuousBernoulli(jnp.full((300, 1), output, jnp.float32))
    density, mean = density_and_mean(likelihood, jnp.asarray(nodes[:, None], jnp.float32))
    density, mean = np.asarray(density, float), float(mean[0, 0])
    # x * logits is rounded to eps of its size before it is raised.
    error = 4 * EPS * max(1.0, abs(output))
    assert abs(weights @ density - 1) < error
    assert abs(weights @ (nodes * density) - mean) < error


def test_continuous_bernoulli_is_that_of_the_paper():
    """C(p) p^x (1 - p)^(1 - x) with C = 2 artanh(1 - 2p) / (1 - 2p) (Loaiza-Ganem & Cunningham 2019, eq. 7)."""
    logits, x = normals(3), unit()
    p, at = scipy.special.expit(np.asarray(logits, float)), np.asarray(x, float)
    constant = np.log(2 * np.arctanh(1 - 2 * p) / (1 - 2 * p))
    expected, error = summed(constant + at * np.log(p) + (1 - at) * np.log1p(-p))
    # The logits are held below 1000: 1000 tanh(l / 1000) is l (1 - l^2 / 3e6).
    held = np.sum(np.abs(np.asarray(logits, float)) ** 3, axis=(1, 2, 3)).max() * likelihoods.SIGMA_FLOOR**2 / 3
    np.testing.assert_allclose(likelihoods.ContinuousBernoulli(logits).log_prob(x), expected, rtol=0, atol=error + held)


@pytest.mark.parametrize("output", [1e30, 1e4, -1e4, -1e30])
@pytest.mark.parametrize("target", [0.0, 1.0, 0.3])
def test_a_constant_pixel_does_not_send_the_density_to_infinity(output, target):
    likelihood = likelihoods.ContinuousBernoulli(jnp.full((1, 1), output, jnp.float32))
    value, gradient = with_gradients(likelihood, jnp.full((1, 1), target))
    gradient = gradient.output
    assert np.isfinite(gradient).all()
    # A difference of two numbers of size 1000.
    limit = 1 / likelihoods.SIGMA_FLOOR
    assert -limit <= value <= np.log(limit) + 2 * EPS * limit
    std = jax.jit(lambda likelihood: likelihood.std)(likelihood)
    np.testing.assert_allclose(std, likelihoods.SIGMA_FLOOR, rtol=1e-3)


# Discretised logistic


def every_level(location, sigma, levels: int):
    """A pixel for each of n locations and sigmas, and all its levels: [levels + 1, n] images."""
    location, sigma = (jnp.asarray(np.tile(row, (levels + 1, 1)), jnp.float32) for row in (location, sigma))
    values = jnp.broadcast_to(jnp.arange(levels + 1, dtype=jnp.float32)[:, None] / levels, location.shape)
    return likelihoods.DiscretizedLogistic(location, jnp.log(sigma), levels), values


@pytest.mark.parametrize("levels", [1, 16, 255])
def test_probabilities_of_all_levels_sum_to_1(levels):
    locations, sigmas = (0.5, 0.1234, 0.0, 1.0, -3.0, 40.0, 1e4), (likelihoods.SIGMA_FLOOR, 0.05, 1.0, 1e4)
    location, sigma = np.array(list(itertools.product(locations, sigmas))).T
    likelihood, values = every_level(location, sigma, levels)
    probability = np.exp(np.asarray(per_pixel(likelihood, values), float))
    # An edge is rounded to eps of the location in units of the scale, where the density is at most 1/4.
    error = 8 * EPS * (1 + np.maximum(np.abs(location), 1) / sigma)
    assert np.all(np.abs(probability.sum(axis=0) - 1) < error)
    mean = (probability * np.asarray(values, float)).sum(axis=0)
    np.testing.assert_array_less(np.abs(mean - likelihood.mean[0]), 2 * error)


def test_logistic_against_differences_of_its_cdf():
    likelihood, values = every_level([0.4], [0.1], 16)
    law = scipy.stats.logistic(0.4, 0.1 * np.sqrt(3) / np.pi)
    assert law.std() == pytest.approx(0.1)
    edges = np.concatenate([[-np.inf], (np.arange(16) + 0.5) / 16, [np.inf]])
    expected = np.diff(law.cdf(edges))
    np.testing.assert_allclose(np.exp(likelihood.log_prob(values)), expected, rtol=100 * EPS)
    np.testing.assert_allclose(likelihood.cdf(values)[:, 0], law.cdf(edges[1:]), rtol=100 * EPS)


@pytest.mark.parametrize("location", [-1e6, -1.0, 0.5, 1e6])
@pytest.mark.parametrize("sigma", [likelihoods.SIGMA_FLOOR, 1e6])
@pytest.mark.parametrize("value", [0, 8, 16])
def test_logistic_at_the_extremes(location, sigma, value):
    likelihood = likelihoods.DiscretizedLogistic(jnp.full((1, 1), location, jnp.float32), jnp.float32(np.log(sigma)), 16)
    found, gradients = with_gradients(likelihood, jnp.full((1, 1), value / 16))
    assert np.isfinite(found) and found <= 0
    assert all(np.isfinite(gradient).all() for gradient in jax.tree.leaves(gradients))
    if abs(location) > 1 and sigma < 1 and value == 8:  # far from the bin the gradient still points to it
        assert np.sign(gradients.location.item()) == -np.sign(location)


@pytest.mark.parametrize("logit", [0.0, -0.0])
def test_the_gradient_of_bits_at_a_logit_of_0(logit):
    """x - 1/2, as on both sides of it: not that of a kink."""
    x = jnp.array([[0.0, 0.25, 1.0]])
    gradient = jax.grad(lambda logits: jnp.sum(likelihoods.Bernoulli(logits).log_prob(x)))(jnp.full((1, 3), logit))
    np.testing.assert_array_equal(gradient, x - 0.5)
