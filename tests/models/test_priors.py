"""p(z) and the rate against SciPy, closed forms and Monte Carlo; for the extremes see test_extremes.py."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import scipy.special
import scipy.stats
from jax import random
from support import small_model

from vae_jax.models import priors
from vae_jax.models.vae import VAE, Posterior, reparameterize

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)


def row(*values: float) -> jax.Array:
    return jnp.asarray(np.float32([values]))


@jax.jit
def rate(mean, log_var) -> jax.Array:
    return priors.Normal(mean.shape[1]).rate_per_latent(mean, log_var)


def test_log_prob_against_scipy():
    z = jnp.asarray(np.float32(RANDOM.normal(size=(6, 3))))
    expected = scipy.stats.norm.logpdf(np.asarray(z, float)).sum(axis=1)
    np.testing.assert_allclose(jax.jit(priors.Normal(3).log_prob)(z), expected, rtol=8 * EPS)


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


def test_gradient_by_hand():
    mean, log_var = (jnp.asarray(np.float32(RANDOM.normal(size=(4, 3)))) for _ in range(2))
    of_mean, of_log_var = jax.jit(jax.grad(lambda m, v: jnp.sum(rate(m, v)), argnums=(0, 1)))(mean, log_var)
    np.testing.assert_allclose(of_mean, mean, rtol=2 * EPS)
    np.testing.assert_allclose(of_log_var, 0.5 * np.expm1(np.asarray(log_var, float)), atol=8 * EPS)


# Every prior of the table.

LATENTS = 2


@functools.cache
def built(kind: str, latents: int = LATENTS):
    """A prior by its name, with parameters moved away from where they start."""
    network = priors.PriorNetwork(kind, latents, components=3, shape=(4,))
    encode = lambda inputs: (2 * inputs[:, :latents], inputs[:, :latents] - 1)  # noqa: E731
    variables, generator = jax.jit(network.init, static_argnums=1)(random.key(0), encode), np.random.default_rng(1)
    moved = jax.tree.map(lambda leaf: np.float32(leaf + 0.1 * generator.normal(size=leaf.shape)), jax.device_get(variables))
    return jax.jit(network.apply, static_argnums=1)(moved, encode)


@functools.cache
def program(kind: str, latents: int):
    """log p(z) of points [n, latents], compiled."""
    return jax.jit(built(kind, latents).log_prob)


BLOCK = 20_000


def density(kind: str, points: np.ndarray) -> np.ndarray:
    """log p(z) of any number of points [n, latents] by one program, which takes a block of them."""
    count = -(-len(points) // BLOCK)
    filled_up = np.resize(np.float32(points), (count, BLOCK, points.shape[1]))
    return np.concatenate([np.asarray(program(kind, points.shape[1])(block), float) for block in filled_up])[: len(points)]


def cells(width: float, count: int) -> tuple[np.ndarray, float]:
    """Midpoints and size of equal cells over [-width, width]."""
    edges = np.linspace(-width, width, count + 1)
    return (edges[1:] + edges[:-1]) / 2, 2 * width / count


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_density_of_one_latent_integrates_to_one(kind):
    points, size = cells(60.0, 60_000)
    mass = np.exp(density(kind, points[:, None])).sum() * size
    # Student's t has 1e-7 outside; float32 rounds each density to a few eps.
    assert abs(mass - 1) < 1e-5


CELLS = 25.0, 800


@functools.cache
def mass_of_two(kind: str) -> np.ndarray:
    """What lies in each cell of a plane of latents."""
    points, size = cells(*CELLS)
    grid = np.stack(np.meshgrid(points, points, indexing="ij"), axis=-1).reshape(-1, 2)
    return np.exp(density(kind, grid)).reshape(len(points), -1) * size**2


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_density_of_two_latents_integrates_to_one(kind):
    # 1 - 2e-5 of Student's t lies inside; the midpoint rule with h = 1/16 misses h^2 / 24 = 1.6e-4 of each Laplace.
    assert abs(mass_of_two(kind).sum() - 1) < 3.6e-4


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_samples_follow_the_density(kind):
    samples = np.asarray(jax.jit(built(kind).sample, static_argnums=1)(random.key(1), 20_000), float)
    assert samples.shape == (20_000, LATENTS)
    (points, size), mass = cells(*CELLS), mass_of_two(kind)
    for latent in range(LATENTS):
        below = np.cumsum(mass.sum(axis=1 - latent))
        # A Kolmogorov-Smirnov test against the marginal of log_prob; p below 1e-6 once in a million seeds.
        edges = points + size / 2
        test = scipy.stats.kstest(samples[:, latent], lambda z, edges=edges, below=below: np.interp(z, edges, below))
        assert test.pvalue > 1e-6
    # And jointly: the mean log density of the samples is minus the entropy.
    log_mass = np.log(np.maximum(mass, 1e-300) / size**2)
    log_prob = density(kind, samples)
    assert abs(log_prob.mean() - np.sum(mass * log_mass)) < 5 * log_prob.std() / np.sqrt(len(samples)) + 1e-3


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_marginal_densities_and_quantiles_are_those_of_scipy(kind):
    known = {"normal": scipy.stats.norm, "laplace": scipy.stats.laplace, "student_t": scipy.stats.t(5)}
    prior = built(kind)
    assert prior.has_independent_latents == (kind in known)
    if kind not in known:
        return
    z = np.linspace(-6, 6, 40).reshape(20, 2)
    found = jax.jit(prior.log_prob_per_latent)(jnp.asarray(np.float32(z)))
    np.testing.assert_allclose(found, known[kind].logpdf(z), rtol=20 * EPS, atol=20 * EPS)
    if prior.has_quantile:
        level = np.array([0.01, 0.3, 0.5, 0.9, 0.999])
        np.testing.assert_allclose(
            jax.jit(prior.quantile)(jnp.asarray(np.float32(level))), known[kind].ppf(level), rtol=1e-4, atol=1e-6
        )


NODES = np.polynomial.hermite_e.hermegauss(101)
MEAN, LOG_VAR = np.array([0.7, -1.2]), np.array([-1.0, 0.3])


@functools.cache
def draws() -> tuple[Posterior, jax.Array]:
    """Many times one posterior, and a draw from each."""
    many = Posterior(*(jnp.asarray(np.tile(np.float32(each), (4000, 1))) for each in (MEAN, LOG_VAR)))
    return many, jax.jit(reparameterize)(random.key(2), many)


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_rate_of_draws_meets_the_closed_form_or_quadrature(kind):
    """Of one posterior: E_q[log q - log p] by quadrature of the prior's log_prob in float64."""
    mean, std = MEAN, np.exp(0.5 * LOG_VAR)
    nodes, weights = NODES
    grid = np.stack(np.meshgrid(nodes, nodes, indexing="ij"), axis=-1).reshape(-1, 2)
    weight = np.outer(weights, weights).ravel() / weights.sum() ** 2
    z = mean + std * grid
    log_ratio = scipy.stats.norm.logpdf(z, mean, std).sum(axis=1) - density(kind, z)
    exact_rate = np.sum(weight * log_ratio)
    prior = built(kind)
    rate = np.asarray(jax.jit(lambda many, z: many.rate_per_latent(prior, z))(*draws()), float).sum(axis=1)
    closed = prior.has_closed_rate
    assert closed == (kind in ("normal", "laplace"))
    # Laplace's kink at 0 is what Gauss-Hermite misses most; a draw has its own error.
    assert abs(rate.mean() - exact_rate) < (3e-3 if closed else 5 * rate.std() / np.sqrt(len(rate)) + 1e-3)


def test_a_flow_starts_as_the_base_and_its_two_directions_agree():
    network = priors.PriorNetwork("flow", 3, components=1, shape=(4,))
    prior = network.apply(jax.jit(network.init, static_argnums=1)(random.key(0), abs), abs)
    z = jnp.asarray(np.float32(RANDOM.normal(size=(50, 3))))
    # The order of the latents may be turned round, and the sum with it.
    np.testing.assert_allclose(jax.jit(prior.log_prob)(z), jax.jit(priors.Normal(3).log_prob)(z), rtol=4 * EPS)

    @jax.jit
    def forth_and_back(layer):
        moved = layer.forward(z)
        jacobian = jax.vmap(jax.jacfwd(lambda u: layer.inverse(u[None])[0][0]))(moved)
        return *layer.inverse(moved), jacobian

    layers = built("flow", 3).layers
    assert len(layers) > 1
    for layer in layers:
        back, log_det, jacobian = forth_and_back(layer)
        np.testing.assert_allclose(back, z, atol=1e-5)
        np.testing.assert_allclose(log_det, np.linalg.slogdet(np.asarray(jacobian, float))[1], atol=1e-5)


def test_vamp_is_the_mean_of_the_posteriors_of_its_inputs():
    spec = small_model(shape=(4,), hidden=(3,), prior="vamp", prior_components=5)
    variables = jax.jit(VAE(spec).init)(random.key(0), jnp.zeros((1, 4)))
    vae = VAE(spec).bind(variables)
    inputs = variables["params"]["prior_network"]["pseudo_inputs"]
    assert inputs.shape == (5, 4)
    posterior = jax.jit(vae.encode)(inputs)
    z = jnp.asarray(np.float32(RANDOM.normal(size=(7, 2))))
    mean, std = np.asarray(posterior.mean, float), np.asarray(posterior.std, float)
    each = scipy.stats.norm.logpdf(np.asarray(z, float)[:, None], mean, std).sum(axis=-1)
    log_prob = jax.jit(lambda z: vae.prior().log_prob(z))(z)
    np.testing.assert_allclose(log_prob, scipy.special.logsumexp(each, axis=1) - np.log(5), rtol=1e-5)


METHODS = {
    "has_independent_latents": "log_prob_per_latent",
    "has_closed_rate": "rate_per_latent",
    "has_quantile": "quantile",
}


@pytest.mark.parametrize("kind", priors.PRIORS)
def test_a_prior_says_what_it_can_do(kind):
    family = priors.PRIORS[kind]
    assert family.struct is type(built(kind))
    for flag, method in METHODS.items():
        assert getattr(family.struct, flag) == (getattr(family.struct, method) is not getattr(priors.Prior, method))
    network = priors.PriorNetwork(kind, 2, components=3, shape=(4,))
    parameters = jax.eval_shape(lambda key: network.init(key, lambda inputs: (inputs[:, :2], inputs[:, :2])), random.key(0))
    assert bool(jax.tree.leaves(parameters)) == (family.learned is not None)


def test_a_flow_of_one_latent_has_any_shape():
    """By maximum likelihood on draws of two narrow peaks: to within 0.02 nats of their entropy, a Gaussian 0.9 above it."""
    network = priors.PriorNetwork("flow", 1, components=1, shape=(4,))
    generator = np.random.default_rng(0)
    z = generator.choice([-1.5, 1.5], size=(4000, 1)) + 0.3 * generator.normal(size=(4000, 1))
    z, peaks = jnp.asarray(np.float32(z)), [scipy.stats.norm(centre, 0.3) for centre in (-1.5, 1.5)]
    variables, optimizer = jax.jit(network.init, static_argnums=1)(random.key(0), abs), optax.adam(0.05)

    @jax.jit
    def loss(variables):
        return -jnp.mean(network.apply(variables, abs).log_prob(z))

    np.testing.assert_allclose(loss(variables), -scipy.stats.norm.logpdf(np.asarray(z, float)).mean(), rtol=1e-5)

    def step(carry, _):
        variables, state = carry
        updates, state = optimizer.update(jax.grad(loss)(variables), state)
        return (optax.apply_updates(variables, updates), state), None

    @jax.jit
    def fit(variables):
        return jax.lax.scan(step, (variables, optimizer.init(variables)), length=300)[0][0]

    with jax.numpy_dtype_promotion("standard"):
        fitted = fit(variables)
    prior = network.apply(fitted, abs)
    best = -np.log(np.mean([peak.pdf(np.asarray(z, float)) for peak in peaks], axis=0)).mean()
    assert abs(float(loss(fitted)) - best) < 0.02
    assert -scipy.stats.norm(0, np.asarray(z).std()).logpdf(np.asarray(z, float)).mean() > best + 0.9
    # And draws are of that density: half of them in each peak, few between.
    samples = np.asarray(jax.jit(prior.sample, static_argnums=1)(random.key(1), 20_000))
    assert abs(np.mean(samples > 0) - 0.5) < 0.03
    assert np.mean(np.abs(samples) < 0.5) < 0.01


def test_a_spline_is_inverted_and_its_slope_is_right():
    (layer,) = built("flow", 1).layers
    z = np.linspace(-6, 6, 401, dtype=np.float32)[:, None]

    @jax.jit
    def back_and_forth(z):
        base, log_slope = layer.inverse(z)
        slope = jax.vmap(jax.grad(lambda value: layer.inverse(value[None, None])[0][0, 0]))(z[:, 0])
        return base, log_slope, slope, layer.forward(base)

    base, log_slope, slope, again = map(np.asarray, back_and_forth(z))
    np.testing.assert_allclose(again, z, atol=2e-5)
    np.testing.assert_allclose(np.exp(log_slope), slope, rtol=1e-4)
    assert np.all(np.diff(base[:, 0]) > 0)
    np.testing.assert_array_equal(base[np.abs(z[:, 0]) > 5], z[np.abs(z[:, 0]) > 5])
