"""The loss and its terms: by hand, by their gradients, and by what does not depend on the batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random

from vae_jax import objectives, priors
from vae_jax.model import VAE, ModelSpec, Posterior, reparameterize

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
SPEC = ModelSpec(
    shape=(2, 3, 1),
    latents=2,
    encoder="mlp",
    decoder="mlp",
    hidden=(4,),
    activation="tanh",
    likelihood="gaussian",
    sigma="fixed",
    prior="normal",
    normalize="none",
)
SIGMA = 0.5
WEIGHTS = {  # noise_scale, distortion_weight, beta
    "ae": (0.0, 1.0, 0.0),
    "vae_no_kl": (1.0, 1.0, 0.0),
    "kl_only": (1.0, 0.0, 1.0),
    "vae": (1.0, 1.0, 1.0),
    "beta_vae": (1.0, 1.0, 4.0),
}


def normals(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def variables() -> dict:
    shapes = jax.eval_shape(VAE(SPEC).init, random.key(0), jnp.zeros((1, *SPEC.shape)))
    return jax.tree.map(lambda leaf: normals(*leaf.shape), shapes)


@pytest.fixture(scope="module")
def x() -> jax.Array:
    return normals(5, *SPEC.shape)


def by_hand() -> objectives.Terms:
    """Two images of distortion 3 and 5 and rate 1 + 2 and 3 + 4."""
    posterior = Posterior(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
    return objectives.Terms(jnp.array([3.0, 5.0]), jnp.array([[1.0, 2.0], [3.0, 4.0]]), posterior, jnp.zeros((2, 2)))


def loss(terms: objectives.Terms, weights: objectives.Weights, kind: str = "weighted", **context) -> jax.Array:
    """The loss of a batch, as if in the first step."""
    objective = objectives.OBJECTIVES[kind]
    given = {"prior": priors.Normal(2), "key": random.key(9), "train_size": 100, "carried": objective.carried}
    return objective.loss(terms, weights, objectives.Context(**given | context))[0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ae", 4.0), ("vae_no_kl", 4.0), ("kl_only", 5.0), ("vae", 9.0), ("beta_vae", 24.0)],
)
def test_loss_by_hand(name, expected):
    assert loss(by_hand(), objectives.Weights(*WEIGHTS[name])) == expected


def test_rate_is_summed_over_latents():
    np.testing.assert_array_equal(by_hand().rate, [3, 7])


@pytest.mark.parametrize("name", WEIGHTS)
def test_weight_of_each_term(name):
    _, distortion_weight, beta = WEIGHTS[name]
    gradient = jax.grad(loss)(by_hand(), objectives.Weights(*WEIGHTS[name]))
    # The mean over two images; a beta of 0 lets nothing of the rate through.
    np.testing.assert_array_equal(gradient.distortion, [distortion_weight / 2] * 2)
    np.testing.assert_array_equal(gradient.rate_per_latent, [[beta / 2] * 2] * 2)


@jax.jit
def terms_of(variables, x, key, noise_scale) -> objectives.Terms:
    return objectives.terms(VAE(SPEC).bind(variables), x, key, noise_scale, SIGMA)


@jax.jit
def decoded(variables, z) -> jax.Array:
    return VAE(SPEC).bind(variables).decode(z, SIGMA).mean


@pytest.mark.parametrize("noise_scale", [0.0, 1.0])
def test_terms_against_scipy(variables, x, noise_scale):
    key = random.key(1)
    terms = terms_of(variables, x, key, noise_scale)
    mean, log_var = np.asarray(terms.posterior.mean, float), np.asarray(terms.posterior.log_var, float)
    z = mean + noise_scale * np.exp(0.5 * log_var) * np.asarray(random.normal(key, (5, 2)), float)
    shown = np.asarray(decoded(variables, jnp.asarray(z, jnp.float32)), float)
    per_pixel = scipy.stats.norm.logpdf(np.asarray(x, float), shown, SIGMA)
    # z is rounded to eps of itself, which the decoder and 1 / sigma^2 make some 100 eps of a distortion of size 100.
    np.testing.assert_allclose(terms.distortion, -per_pixel.sum(axis=(1, 2, 3)), rtol=200 * EPS)
    # The rate is the finite one of (mean, log_var) whatever the noise.
    np.testing.assert_allclose(terms.rate_per_latent, 0.5 * (mean**2 + np.expm1(log_var) - log_var), rtol=20 * EPS)


@jax.jit
def gradient_of(variables, x, weights: objectives.Weights) -> dict:
    def total(variables):
        return loss(terms_of(variables, x, random.key(1), weights.noise_scale), weights)

    return jax.grad(total)(variables)["params"]


def test_gradient_is_the_weighted_sum_of_two(variables, x):
    of_distortion, of_rate, both = (
        gradient_of(variables, x, objectives.Weights(0.7, *weights)) for weights in ((1.0, 0.0), (0.0, 1.0), (0.3, 4.0))
    )
    for a, b, c in zip(*map(jax.tree.leaves, (of_distortion, of_rate, both)), strict=True):
        a, b = np.asarray(a, float), np.asarray(b, float)
        # Sums of 10 to 30 terms that partly cancel, in another order: relative to the largest entry.
        np.testing.assert_allclose(c, 0.3 * a + 4 * b, atol=30 * EPS * np.max(0.3 * np.abs(a) + 4 * np.abs(b)))
    # Only the encoder has a rate.
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(of_rate["decoder"]))
    assert all(np.any(leaf) for leaf in jax.tree.leaves(of_rate["encoder"]))


def test_an_autoencoder_does_not_learn_log_var(variables, x):
    head = np.asarray(gradient_of(variables, x, objectives.Weights(*WEIGHTS["ae"]))["encoder"]["Dense_1"]["kernel"])
    assert np.all(head[:, SPEC.latents :] == 0)
    assert np.any(head[:, : SPEC.latents] != 0)


def test_loss_is_a_mean_over_images(variables, x):
    weights, key = objectives.Weights(0.0, 1.0, 2.0), random.key(0)
    alone = loss(terms_of(variables, x[:1], key, 0.0), weights)
    copies = loss(terms_of(variables, jnp.tile(x[:1], (5, 1, 1, 1)), key, 0.0), weights)
    np.testing.assert_allclose(copies, alone, rtol=8 * EPS)
    terms = terms_of(variables, x, key, 0.0)
    expected = np.mean(np.asarray(terms.distortion, float) + 2 * np.asarray(terms.rate, float))
    np.testing.assert_allclose(loss(terms, weights), expected, rtol=8 * EPS)


def test_each_image_has_its_own_noise(variables, x):
    terms = terms_of(variables, jnp.tile(x[:1], (5, 1, 1, 1)), random.key(0), 1.0)
    assert len(np.unique(terms.distortion)) == 5
    assert len(np.unique(terms.rate)) == 1


def test_importance_bound_against_scipy():
    log_weights = np.asarray(normals(7, 5)) * 3 - 1000  # far below where exp(log_weights) is 0
    expected = scipy.special.logsumexp(np.asarray(log_weights, float), axis=0) - np.log(7)
    bound = jax.jit(objectives.importance_bound)
    found = np.asarray(bound(log_weights))
    np.testing.assert_allclose(found, expected, rtol=4 * EPS)
    np.testing.assert_array_equal(bound(log_weights[:1]), log_weights[0])
    # Jensen: never below the mean of the log weights, which is the ELBO.
    assert np.all(found > log_weights.mean(axis=0))


def test_terms_of_several_draws(variables, x):
    count, key = 2000, random.key(2)

    @jax.jit
    def both(variables):
        """The terms, and the parts of the same draws: log p(x | z), and log q(z | x) - log p(z)."""
        vae = VAE(SPEC).bind(variables)
        many = jax.tree.map(lambda leaf: jnp.tile(leaf, (count, 1)), vae.encode(x))
        z = reparameterize(key, many)
        log_likelihood = vae.decode(z, SIGMA).log_prob(jnp.tile(x, (count, 1, 1, 1)))
        return objectives.terms(vae, x, key, 1.0, SIGMA, count), log_likelihood, many.log_prob(z) - vae.prior().log_prob(z)

    terms, *parts = both(variables)
    log_likelihood, log_ratio = (np.asarray(part, float).reshape(count, 5) for part in parts)
    assert terms.log_weights.shape == (count, 5)
    # Each weight is p(x, z) / q(z | x). A sum of three numbers of up to this size, rounded a few times.
    np.testing.assert_allclose(terms.log_weights, log_likelihood - log_ratio, atol=8 * EPS * np.abs(log_likelihood).max())
    np.testing.assert_allclose(terms.distortion, -log_likelihood.mean(axis=0), rtol=20 * EPS)
    error = log_ratio.std(axis=0) / np.sqrt(count)
    assert np.all(np.abs(log_ratio.mean(axis=0) - terms.rate) < 5 * error)
    expected = -np.mean(scipy.special.logsumexp(np.asarray(terms.log_weights, float), axis=0) - np.log(count))
    np.testing.assert_allclose(loss(terms, objectives.Weights(*WEIGHTS["vae"])), expected, rtol=8 * EPS)
