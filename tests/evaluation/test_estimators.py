"""Every estimator against a linear model, of which everything is known in closed form."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from support import small_model

from vae_jax.core import keys
from vae_jax.evaluation import aggregate, ais, closed_form, estimators, gradients
from vae_jax.models.priors import Normal
from vae_jax.models.vae import VAE, Posterior, reparameterize

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
# 300 rows of dimension 6 with three directions above the noise, away from 0.
DATA = (
    RANDOM.normal(size=(300, 3)) * [3.0, 2.0, 1.0] @ RANDOM.normal(size=(3, 6)) / 2 + 0.5 * RANDOM.normal(size=(300, 6)) + 1
)
LATENTS = 3
OPTIMUM = closed_form.linear_vae(DATA, LATENTS)
SIGMA = math.sqrt(OPTIMUM.sigma2)
X = jnp.asarray(np.float32(DATA))


def linear(weights, mean, gain, variances) -> VAE:
    """The linear VAE p(x | z) = N(mean + weights z, sigma^2), q(z | x) = N(gain (x - mean), diag variances)."""
    pixels, latents = np.shape(weights)
    spec = small_model(shape=(pixels,), latents=latents, encoder="linear", decoder="linear", hidden=())
    params = {
        "encoder": {
            "Dense_0": {"kernel": np.transpose(gain), "bias": -np.dot(gain, mean)},
            "log_var": np.log(variances) / 10,  # the network's own factor
        },
        "decoder": {"Dense_0": {"kernel": np.transpose(weights), "bias": mean}},
    }
    return VAE(spec).bind({"params": jax.tree.map(lambda leaf: jnp.asarray(np.float32(leaf)), params)})


@functools.cache
def optimum() -> VAE:
    return linear(OPTIMUM.weights, OPTIMUM.mean, OPTIMUM.gain, OPTIMUM.variances)


@functools.cache
def off() -> VAE:
    """The same model with a posterior that is wrong in mean and variance."""
    return linear(OPTIMUM.weights, OPTIMUM.mean, 0.95 * OPTIMUM.gain, 1.5 * OPTIMUM.variances)


@functools.partial(jax.jit, static_argnums=0)
def encoded(model: VAE, variables: dict, x) -> Posterior:
    return model.bind(variables).encode(x)


def posterior_of(vae: VAE, x) -> Posterior:
    """q(z | x), by one program for models of a size."""
    return encoded(*vae.unbind(), x)


@functools.partial(jax.jit, static_argnames=("model", "samples"))
def importance_bound(model: VAE, variables: dict, x, key, sigma, samples: int) -> estimators.Estimate:
    vae = model.bind(variables)
    return estimators.importance_bound(vae, x, vae.encode(x), key, sigma, samples)


def bound(vae: VAE, x, seed: int, samples: int, sigma: float = SIGMA) -> estimators.Estimate:
    """The importance bound of each image, and how it varies with fewer draws, in float64."""
    found = importance_bound(*vae.unbind(), x, random.key(seed), sigma, samples)
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), found)


def error(found: estimators.Estimate) -> float | None:
    return estimators.extrapolated_error(found.quarter.mean(), found.half.mean(), len(found.value))


# Importance bound

COPIES = 20_000


@functools.cache
def one_dimensional(samples: int) -> estimators.Estimate:
    """Many estimates for x = 1 under p(z) = N(0, 1), p(x | z) = N(z, 1), with the prior for a posterior."""
    toy = linear(np.ones((1, 1)), np.zeros(1), np.zeros((1, 1)), np.ones(1))
    return bound(toy, jnp.ones((COPIES, 1)), 0, samples, 1.0)


# log p = -log(2 sqrt(pi)) - 1/4, and by quadrature; rounded to 1e-4, known to 2e-4.
KNOWN = {1: -1.918939, 2: -1.6533, 5: -1.5574, 10: -1.5349, 50: -1.5191}


@pytest.mark.parametrize("samples", KNOWN)
def test_importance_bound_of_the_one_dimensional_model(samples):
    values = one_dimensional(samples).value
    assert abs(values.mean() - KNOWN[samples]) < 4 * values.std() / math.sqrt(COPIES) + 2.5e-4


def test_importance_bound_rises_with_the_samples_towards_log_p():
    log_p = scipy.stats.norm.logpdf(1, 0, math.sqrt(2))
    means = [one_dimensional(samples).value.mean() for samples in KNOWN]
    error = one_dimensional(50).value.std() / math.sqrt(COPIES)
    assert np.all(np.diff(means) > 5e-3)  # the least true step is 0.0158, of an error below 0.002
    assert means[-1] < log_p
    # log p - L_k is Var(w / p) / (2 k) up to O(1 / k^2); Var(w / p) is 0.364118 here.
    assert abs(log_p - means[-1] - 0.364118 / 100) < 4 * error + 2e-4


def test_stated_variance_of_the_importance_bound():
    found = one_dimensional(50)
    variance = error(found) ** 2 * COPIES
    # The variance at a quarter of 50 draws is 10 % above four times that at all; the sample variance of 20000 within 1 %.
    assert variance == pytest.approx(found.value.var(), rel=0.06)
    assert variance == pytest.approx(0.364118 / 50, rel=0.06)


def test_a_quarter_and_a_half_of_the_draws_vary_as_estimates_of_so_many():
    """20 draws in quarters of 5 and halves of 10."""
    found, quarter, half = (one_dimensional(samples) for samples in (20, 5, 10))
    assert found.quarter.mean() == pytest.approx(quarter.value.var(), rel=0.04)
    assert found.half.mean() == pytest.approx(half.value.var(), rel=0.04)


@pytest.mark.parametrize("samples", [1, 2, 300])
def test_the_exact_posterior_has_no_spread(samples):
    found = bound(optimum(), X, 1, samples)
    # Sums of a dozen float32 of size 10, each rounded a few times.
    np.testing.assert_allclose(found.value, OPTIMUM.log_prob(np.asarray(X, float)), atol=200 * EPS * 10)
    assert samples < 4 or (np.all(found.quarter < 1e-5) and np.all(found.half < 1e-5))


@functools.partial(jax.jit, static_argnames=("model", "count"))
def weights_of_draws(model: VAE, variables: dict, x, key, count: int):
    """log p(x, z) / q(z | x) of each draw, one after the other."""
    vae = model.bind(variables)
    posterior = vae.encode(x)

    def log_weight(number):
        z = reparameterize(keys.at(key, number), posterior)
        return vae.decode(z, SIGMA).log_prob(x) + vae.prior().log_prob(z) - posterior.log_prob(z)

    return jax.lax.map(log_weight, jnp.arange(count))


@pytest.mark.parametrize("shift", [0.0, 1e3])
def test_streaming_equals_the_sum_of_all_weights(shift):
    """Draw by draw, in float64, also where every weight is exp(-1e5) and more and would be 0."""
    vae, x, count = off(), jnp.asarray(np.float32(DATA[:20] + shift)), 37
    log_weights = np.asarray(weights_of_draws(*vae.unbind(), x, random.key(2), count), float)
    assert shift == 0 or log_weights.max() < -1e4
    found = bound(vae, x, 2, count)
    error = 10 * EPS * np.abs(log_weights).max()

    def expected(weights):
        return scipy.special.logsumexp(weights, axis=0) - math.log(len(weights))

    np.testing.assert_allclose(found.value, expected(log_weights), atol=error)
    a, b, c, d = (expected(log_weights[group::4]) for group in range(4))
    quarter = np.mean([np.square(x - y) for x, y in ((a, b), (a, c), (a, d), (b, c), (b, d), (c, d))], axis=0) / 2
    np.testing.assert_allclose(found.quarter, quarter, rtol=10 * error + 1e-4, atol=10 * error**2 + 1e-6)
    pairs = [
        np.square(np.logaddexp(*x) - np.logaddexp(*y)) for x, y in (((a, b), (c, d)), ((a, c), (b, d)), ((a, d), (b, c)))
    ]
    np.testing.assert_allclose(found.half, np.mean(pairs, axis=0) / 2, rtol=10 * error + 1e-4, atol=10 * error**2 + 1e-6)


def test_an_inexact_posterior_needs_samples():
    exact = OPTIMUM.log_prob(np.asarray(X, float)).mean()
    found = {samples: bound(off(), X, 3, samples) for samples in (1, 10, 300)}
    one, ten, many = (exact - each.value.mean() for each in found.values())
    # KL(q || p(z | x)) is the gap of one draw; at k it falls like 1 / k.
    assert one > 0.2
    assert one > 2 * ten > 0
    assert abs(many) < 4 * error(found[300]) + ten / 10


# Costs


def test_costs_are_unbiased_and_state_their_error():
    vae, count = off(), 500
    posterior = posterior_of(vae, X)
    mean, variance = jax.jit(lambda key: estimators.costs(vae, X, posterior, key, SIGMA, count))(random.key(4))
    code, kernel = np.asarray(posterior.mean, float), OPTIMUM.weights
    squares = np.square(DATA - OPTIMUM.mean - code @ kernel.T).sum(axis=1)
    spread = (np.exp(np.asarray(posterior.log_var, float)) * np.square(kernel).sum(axis=0)).sum(axis=1)
    known = 0.5 * (squares + spread) / SIGMA**2 + 3 * math.log(2 * math.pi * SIGMA**2)
    scores = (np.asarray(mean["distortion"], float) - known) / np.sqrt(np.asarray(variance["distortion"], float) / count)
    # 300 scores of unit variance: their mean square within 5 standard errors of 1, their mean of 0.
    assert abs(np.mean(np.square(scores)) - 1) < 5 * math.sqrt(2 / 300)
    assert abs(np.mean(scores)) < 5 / math.sqrt(300)


# Annealing


@functools.cache
def bracket() -> tuple[np.ndarray, ais.Annealed, ais.Annealed]:
    """Exact log p of simulated images, AIS, and reverse AIS."""
    vae = optimum()
    x, z = jax.jit(lambda key: ais.simulate(vae, key, 400, SIGMA))(random.key(5))
    forward = jax.jit(lambda key: ais.ais(vae, x, key, SIGMA, 600, 4))(random.key(6))
    backward = jax.jit(lambda key: ais.reverse_ais(vae, x, z, key, SIGMA, 600, 4))(random.key(7))
    return OPTIMUM.log_prob(np.asarray(x, float)), forward, backward


def test_annealing_brackets_log_p():
    exact, forward, backward = bracket()
    low, high = (np.asarray(each.bound.value, float) - exact for each in (forward, backward))
    # Within 0.05 nats on average; each side on its own but for its error.
    for gap in (low, -high):
        assert gap.mean() < 4 * gap.std() / math.sqrt(len(gap))
    assert abs(low.mean()) < 0.05
    assert abs(high.mean()) < 0.05
    assert np.all((np.asarray(forward.acceptance) > 0.3) & (np.asarray(forward.acceptance) <= 1))


def test_effective_samples_of_annealing():
    effective = np.asarray(bracket()[1].effective_samples)
    assert np.all((effective >= 1 - 1e-3) & (effective <= 4 + 1e-3))
    assert effective.mean() > 2.5  # of 4 chains, whose weights hardly differ
    # By hand: equal weights count fully, one that outweighs the others counts alone.
    weights = np.log(np.array([[1.0, 1e-20], [1.0, 1.0], [2.0, 1e-20]], np.float32))
    combine = jax.jit(ais._combine, static_argnames="sign")
    found = combine(weights, np.zeros(2, np.float32), sign=1)
    np.testing.assert_allclose(found.effective_samples, [16 / 6, 1], rtol=1e-5)
    np.testing.assert_allclose(found.bound.value, np.log([4 / 3, 1 / 3]), rtol=1e-5)
    np.testing.assert_allclose(combine(weights, np.zeros(2, np.float32), sign=-1).bound.value, -found.bound.value)


def test_simulated_images_have_the_models_moments():
    x, z = jax.jit(lambda key: ais.simulate(optimum(), key, 20_000, SIGMA))(random.key(8))
    covariance = OPTIMUM.weights @ OPTIMUM.weights.T + OPTIMUM.sigma2 * np.eye(6)
    # An entry of a sample covariance of n rows errs by sqrt((c_ii c_jj + c_ij^2) / n).
    found, scale = np.cov(np.asarray(x, float).T), np.sqrt(np.diag(covariance))
    assert np.all(np.abs(found - covariance) < 5 * math.sqrt(2 / 20_000) * np.outer(scale, scale))
    assert np.all(np.abs(np.asarray(x, float).mean(axis=0) - OPTIMUM.mean) < 5 * scale / math.sqrt(20_000))
    residual = (np.asarray(x, float) - OPTIMUM.mean - np.asarray(z, float) @ OPTIMUM.weights.T) / SIGMA
    assert np.mean(np.square(residual)) == pytest.approx(1, abs=5 * math.sqrt(2 / (6 * 20_000)))


def test_hmc_leaves_a_gaussian_as_it_is():
    scales, chains = np.array([0.5, 1.0, 2.0], np.float32), 20_000

    def log_density(z):
        return -0.5 * jnp.sum(jnp.square(z / scales[None, None]), axis=-1)

    @jax.jit
    def moved(key):
        z = start = scales[None, None] * random.normal(key, (chains, 1, 3))
        for step in range(3):
            z, acceptance = ais.hmc(log_density, z, keys.at(random.key(10), step), jnp.full((chains, 1), 0.9))
        return start, z, acceptance

    z, after, acceptance = map(np.asarray, moved(random.key(9)))
    # Steps near the longest that are stable, 2 * 0.5: without the test of acceptance the variance would grow.
    assert 0.3 < acceptance.mean(dtype=float) < 0.95
    for old, new, scale in zip(z[:, 0].T, after[:, 0].T, scales, strict=True):
        assert scipy.stats.kstest(new / scale, "norm").pvalue > 1e-5
        assert abs(np.corrcoef(old, new)[0, 1]) < 0.9  # it has moved


def test_hmc_rejects_what_is_not_finite():
    def log_density(z):
        return jnp.where(jnp.abs(z[..., 0]) < 1, 0.0, jnp.nan)

    z = jnp.zeros((50, 1, 1))
    after, acceptance = jax.jit(lambda z: ais.hmc(log_density, z, random.key(0), jnp.full((50, 1), 10.0)))(z)
    np.testing.assert_array_equal(after, z)
    np.testing.assert_array_equal(acceptance, jnp.zeros((50, 1)))


# The rate taken apart


def parts(posterior: Posterior, seed: int, draws: int) -> aggregate.RateParts:
    own = Posterior(posterior.mean[:draws], posterior.log_var[:draws])
    z = jax.jit(reparameterize)(random.key(seed), own)
    found = jax.jit(aggregate.rate_parts)(posterior, own, z, Normal(z.shape[1]))
    return jax.tree.map(lambda leaf: np.asarray(leaf, float), found)


def test_parts_of_the_rate_add_up_and_meet_the_closed_form():
    posterior = posterior_of(off(), X)
    found = parts(posterior, 11, 300)
    total = found.mutual_information + found.total_correlation + found.dimension_wise_kl
    np.testing.assert_allclose(total, found.rate, atol=40 * EPS * 20)  # of sums of size 20
    closed = jax.jit(Normal(LATENTS).rate_per_latent)(posterior.mean, posterior.log_var)
    closed = np.asarray(closed, float).sum(axis=1)
    error = (found.rate - closed).std() / math.sqrt(300)
    assert abs((found.rate - closed).mean()) < 5 * error


def test_at_the_linear_optimum_the_rate_is_mutual_information():
    """There q(z) is N(0, I), so nothing but mutual information is left; on a Gaussian data set of 5000."""
    generator = np.random.default_rng(1)
    x = generator.multivariate_normal(OPTIMUM.mean, OPTIMUM.weights @ OPTIMUM.weights.T + OPTIMUM.sigma2 * np.eye(6), 5000)
    found = parts(posterior_of(optimum(), jnp.asarray(np.float32(x))), 12, 1500)
    assert abs(found.total_correlation.mean()) < 0.1
    assert abs(found.dimension_wise_kl.mean()) < 0.05
    assert found.mutual_information.mean() == pytest.approx(found.rate.mean(), abs=0.15)
    assert found.rate.mean() > 3


def test_mutual_information_saturates_at_log_n():
    """40 posteriors so narrow that they do not overlap: the rate is large, what can be told of 40 images is log 40."""
    mean = jax.jit(random.normal, static_argnums=1)(random.key(13), (40, LATENTS))
    found = parts(Posterior(mean, jnp.full_like(mean, -20.0)), 14, 40)
    assert np.all(found.mutual_information <= math.log(40) + 1e-4)
    assert found.mutual_information.mean() == pytest.approx(math.log(40), abs=1e-3)
    assert found.rate.mean() > 20


# Gradients


GRADIENTS = 20_000


@functools.cache
def gradient_moments():
    """q(z | x) of thirty images, and both estimators of the gradient."""

    @jax.jit
    def found(x, key):
        posterior = off().encode(x)
        return posterior, gradients.gradient_moments(off(), x, posterior, key, SIGMA, GRADIENTS)

    return found(X[:30], random.key(15))


def test_gradient_estimators_are_unbiased_and_their_variance_is_what_it_says():
    count = GRADIENTS
    posterior, moments = gradient_moments()
    # E log p(x | z) = -(|x - b - W m|^2 + sum_i |W_i|^2 v_i) / (2 sigma^2) + constant.
    code, variance = np.asarray(posterior.mean, float), np.exp(np.asarray(posterior.log_var, float))
    residual = DATA[:30] - OPTIMUM.mean - code @ OPTIMUM.weights.T
    of_mean = residual @ OPTIMUM.weights / SIGMA**2
    of_log_var = -0.5 * np.square(OPTIMUM.weights).sum(axis=0) * variance / SIGMA**2
    known = np.concatenate([of_mean, of_log_var], axis=1)
    for moment in moments.values():
        error = np.sqrt(np.asarray(moment.variance, float) / count)  # of the whole vector
        distance = np.linalg.norm(np.asarray(moment.mean, float) - known, axis=1)
        # E distance^2 = error^2: its mean over 30 images within a factor that 30 times 6 entries can have.
        assert 0.5 < np.mean(np.square(distance / error)) < 1.7
    ratio = np.asarray(moments["score"].variance) / np.asarray(moments["reparameterized"].variance)
    assert np.all(ratio > 3)


def test_variance_of_the_reparameterised_gradient_in_closed_form():
    """d/dm = W'(r - W s eps) / sigma^2 is linear in eps: its covariance is W'W diag(v) W'W / sigma^4."""
    posterior, moments = gradient_moments()
    gram, variance = OPTIMUM.weights.T @ OPTIMUM.weights / SIGMA**2, 1.5 * OPTIMUM.variances
    residual = DATA[:5] - OPTIMUM.mean - np.asarray(posterior.mean, float)[:5] @ OPTIMUM.weights.T
    pull = residual @ OPTIMUM.weights / SIGMA**2
    std = np.sqrt(variance)
    # d/dlog_var_i = (pull - gram s eps)_i s_i eps_i / 2, whose second moment is of fourth order in eps (Isserlis).
    scaled = gram * std[:, None] * std
    of_mean = np.trace(gram @ np.diag(variance) @ gram)
    of_log_var = np.square(pull * std).sum(axis=1) / 4 + (np.square(scaled).sum() + np.square(np.diag(scaled)).sum()) / 4
    np.testing.assert_allclose(moments["reparameterized"].variance[:5], of_mean + of_log_var, rtol=0.05)
