"""q(z | x), the draw from it, and what the VAE returns."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from jax import random
from support import small_model

from vae_jax.models import likelihoods, priors
from vae_jax.models.vae import NORMALIZE, VAE, ModelSpec, Posterior, reparameterize

EPS = np.finfo(np.float32).eps
RANDOM = np.random.default_rng(0)
SPEC = small_model()


def normals(*shape: int) -> jax.Array:
    return jnp.asarray(np.float32(RANDOM.normal(size=shape)))


POSTERIOR = Posterior(jnp.array([[0.5, -1.0, 3.0]]), jnp.array([[0.0, -2.0, 1.5]]))


def test_log_var_is_the_logarithm_of_the_variance():
    # Of the variance, not of the standard deviation: at log 9 the standard deviation is 3.
    posterior = Posterior(jnp.zeros((1, 1)), jnp.full((1, 1), np.log(9.0), jnp.float32))
    np.testing.assert_allclose(posterior.std, [[3]], rtol=4 * EPS)
    np.testing.assert_allclose(posterior.log_prob(jnp.ones((1, 1))), [scipy.stats.norm.logpdf(1, 0, 3)], rtol=8 * EPS)


def test_log_prob_against_scipy():
    mean, log_var, z = normals(6, 3), normals(6, 3), normals(6, 3)
    per_latent = scipy.stats.norm.logpdf(z, mean, np.exp(0.5 * np.asarray(log_var, float)))
    # Three terms of a few parts, each rounded a few times.
    bound = 8 * EPS * (1 + np.abs(per_latent)).sum(axis=1)
    assert np.all(np.abs(Posterior(mean, log_var).log_prob(z) - per_latent.sum(axis=1)) < bound)


@pytest.mark.parametrize("noise_scale", [1.0, 0.3])
def test_moments_of_the_draw(noise_scale):
    n = 50_000
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (n, 1)), POSTERIOR)
    z = np.asarray(reparameterize(random.key(0), many, noise_scale), float)
    std = noise_scale * np.exp(0.5 * np.asarray(POSTERIOR.log_var[0], float))
    assert np.all(np.abs(z.mean(axis=0) - np.asarray(POSTERIOR.mean[0])) < 5 * std / np.sqrt(n))
    # Relative standard error of a standard deviation of normals: 1 / sqrt(2 n).
    assert np.all(np.abs(z.std(axis=0) / std - 1) < 5 / np.sqrt(2 * n))
    correlation = np.corrcoef(z.T) - np.eye(3)
    assert np.abs(correlation).max() < 5 / np.sqrt(n)


def test_without_noise_the_draw_is_the_mean():
    np.testing.assert_array_equal(reparameterize(random.key(0), POSTERIOR, 0.0), POSTERIOR.mean)


def test_the_key_decides():
    first, again, other = (reparameterize(random.key(seed), POSTERIOR) for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.all(first != other)


@pytest.mark.parametrize("noise_scale", [0.0, 0.7, 1.0])
def test_gradient_of_the_draw(noise_scale):
    key = random.key(3)
    direction = jnp.array([[2.0, -1.0, 3.0]])

    def along(mean, log_var):
        return jnp.sum(direction * reparameterize(key, Posterior(mean, log_var), noise_scale))

    of_mean, of_log_var = jax.grad(along, argnums=(0, 1))(POSTERIOR.mean, POSTERIOR.log_var)
    np.testing.assert_array_equal(of_mean, direction)
    expected = direction * (0.5 * noise_scale * POSTERIOR.std * random.normal(key, (1, 3)))
    np.testing.assert_allclose(of_log_var, expected, rtol=4 * EPS)


@pytest.mark.parametrize("noise_scale", [0.3, 1.0, 2.0])
def test_scaled_is_the_distribution_of_the_draw(noise_scale):
    scaled = POSTERIOR.scaled(noise_scale)
    np.testing.assert_allclose(scaled.std, noise_scale * POSTERIOR.std, rtol=4 * EPS)
    draws = (reparameterize(random.key(0), *args) for args in ((scaled,), (POSTERIOR, noise_scale)))
    np.testing.assert_allclose(*draws, rtol=8 * EPS)


def test_scaled_to_a_point():
    point = POSTERIOR.scaled(0.0)
    np.testing.assert_array_equal(point.log_var, np.full((1, 3), -np.inf))
    np.testing.assert_array_equal(point.std, 0)
    np.testing.assert_array_equal(reparameterize(random.key(0), point), POSTERIOR.mean)


def filled(spec: ModelSpec, statistics: dict | None = None) -> dict:
    """Variables of a VAE without its `init`, whose draws take seconds to compile."""

    def init():
        x, key = jnp.zeros((1, *spec.shape)), random.key(0)
        return VAE(spec).apply({"statistics": statistics or {}}, x, rngs={"params": key}, mutable=["params"])[1]

    return jax.tree.map(lambda leaf: normals(*leaf.shape), jax.eval_shape(init)) | {"statistics": statistics or {}}


def test_encode_and_decode():
    vae, x = VAE(SPEC).bind(filled(SPEC)), normals(5, 2, 3, 1)
    posterior = vae.encode(x)
    assert isinstance(posterior, Posterior)
    assert posterior.mean.shape == posterior.log_var.shape == (5, 2)
    likelihood = vae.decode(posterior.mean)
    assert isinstance(likelihood, likelihoods.Gaussian)
    assert likelihood.mean.shape == x.shape
    assert vae.prior() == priors.Normal(2)
    np.testing.assert_array_equal(vae(x).mean, likelihood.mean)  # one pass, at the mean code


def test_nothing_is_drawn_inside():
    vae, x = VAE(SPEC).bind(filled(SPEC)), normals(5, 2, 3, 1)
    program = str(jax.make_jaxpr(lambda x: vae.decode(vae.encode(x).mean).mean)(x))
    assert "random" not in program
    assert "threefry" not in program


def test_hidden_widths_are_mirrored():
    spec = dataclasses.replace(SPEC, hidden=(7, 5))
    params = filled(spec)["params"]
    assert [params["encoder"][f"Dense_{i}"]["kernel"].shape for i in range(3)] == [(6, 7), (7, 5), (5, 4)]
    assert [params["decoder"][f"Dense_{i}"]["kernel"].shape for i in range(3)] == [(2, 5), (5, 7), (7, 6)]


def test_a_fixed_sigma_is_an_argument():
    variables = filled(SPEC)
    assert set(variables["params"]) == {"encoder", "decoder"}
    vae = VAE(SPEC).bind(variables)
    for sigma in (0.1, 2.0):
        np.testing.assert_allclose(vae.decode(jnp.zeros((1, 2)), sigma).log_sigma, np.log(sigma), rtol=2 * EPS)


def test_a_learned_sigma_is_a_parameter():
    spec = dataclasses.replace(SPEC, sigma="learned")
    variables = filled(spec)
    raw = variables["params"]["raw_log_sigma"]
    assert raw.shape == ()

    @jax.jit
    def log_sigma(params, sigma):
        return VAE(spec).bind(variables | {"params": params}).decode(jnp.zeros((1, 2)), sigma).log_sigma

    params = variables["params"]
    assert log_sigma(params, 0.1) == log_sigma(params, 7.0) == likelihoods.floored(raw)
    gradient = jax.jit(jax.grad(log_sigma))(params, 0.1)
    assert gradient["raw_log_sigma"] > 0
    assert not any(np.any(leaf) for leaf in jax.tree.leaves((gradient["encoder"], gradient["decoder"])))


@pytest.mark.parametrize("likelihood", ["gaussian", "discretized_logistic"])
def test_a_sigma_per_pixel_is_a_head_of_the_decoder(likelihood):
    spec = dataclasses.replace(SPEC, likelihood=likelihood, sigma="per_pixel", shape=(2, 3, 2))
    variables = filled(spec)
    assert "raw_log_sigma" not in variables["params"]
    z = normals(5, 2)
    found = jax.jit(lambda z: VAE(spec).bind(variables).decode(z, 0.1))(z)
    # The same network with twice the channels: the first half is the mean, the other the raw log sigma.
    wide = dataclasses.replace(SPEC, likelihood="bernoulli", sigma="", shape=(2, 3, 4))
    both = {"params": {key: variables["params"][key] for key in ("encoder", "decoder")}}
    output = jax.jit(lambda z: VAE(wide).bind(both).decode(z).logits)(z)
    np.testing.assert_allclose(jax.tree.leaves(found)[0], output[..., :2], rtol=20 * EPS, atol=20 * EPS)
    np.testing.assert_allclose(found.log_sigma, likelihoods.floored(output[..., 2:]), rtol=20 * EPS, atol=20 * EPS)


def test_an_optimal_sigma_is_of_the_batch_in_training_and_given_elsewhere():
    spec = dataclasses.replace(SPEC, sigma="optimal")
    variables, x, z = filled(spec), normals(5, 2, 3, 1), normals(5, 2)

    @jax.jit
    def of_both():
        vae, fixed = VAE(spec).bind(variables), VAE(SPEC).bind(variables)
        given = fixed.log_likelihood(x, z, 0.3), fixed.decode(z, 0.3).log_prob(x)
        return vae.decode(z).mean, vae.log_likelihood(x, z, 0.1), vae.decode(z, 0.3).log_sigma, given

    mean, of_batch, log_sigma, given = of_both()
    mse = np.mean(np.square(np.asarray(x, float) - np.asarray(mean, float)))
    closed = -3 * (np.log(2 * np.pi * mse) + 1)  # mean over the batch, 6 pixels
    np.testing.assert_allclose(np.mean(of_batch), closed, rtol=20 * EPS)
    np.testing.assert_allclose(log_sigma, np.log(0.3), rtol=4 * EPS)
    np.testing.assert_array_equal(*given)


@pytest.mark.parametrize("kind", ["fixed", "learned"])
def test_while_training_cools_sigma_has_a_bound(kind):
    spec = dataclasses.replace(SPEC, sigma=kind)
    for least, expected in ((-np.inf, None), (-100.0, None), (3.0, 3.0)):
        variables = filled(spec)
        own = VAE(spec).bind(variables).log_sigma(0.5)
        cooled = VAE(spec).bind(variables | {"statistics": {"least_log_sigma": jnp.float32(least)}})
        assert cooled.log_sigma(0.5) == (own if expected is None else expected)


MEAN, STD = np.full(SPEC.shape, 0.25, np.float32), np.linspace(0.5, 1, 6, dtype=np.float32).reshape(SPEC.shape)
WHITEN = RANDOM.normal(size=(6, 6)).astype(np.float32)
STATISTICS = {
    "none": {},
    "center": {"mean": MEAN, "scale": np.float32(2)},
    "standardize": {"mean": MEAN, "scale": np.float32(2), "std": STD},
    "whiten": {"mean": MEAN, "scale": np.float32(2), "whiten": WHITEN, "color": np.linalg.inv(WHITEN)},
}


@pytest.mark.parametrize("likelihood", likelihoods.LIKELIHOODS)
@pytest.mark.parametrize("normalize", NORMALIZE)
def test_normalised_networks_see_and_say_another_image(likelihood, normalize):
    plain = dataclasses.replace(SPEC, likelihood=likelihood, normalize="none")
    spec = dataclasses.replace(plain, normalize=normalize)
    statistics = STATISTICS[normalize]
    variables = filled(spec, jax.tree.map(jnp.asarray, statistics))
    x, z = normals(3, 2, 3, 1), normals(3, 2)

    @jax.jit
    def of_both(variables, seen):
        inner, vae = VAE(plain).bind({"params": variables["params"]}), VAE(spec).bind(variables)
        offset = likelihoods.LIKELIHOODS[likelihood].inverse_mean(jnp.asarray(MEAN))
        return inner.encode(seen), vae.encode(x), inner.decode(z), vae.decode(z), offset

    seen = (np.asarray(x, float) - statistics.get("mean", 0)) / statistics.get("std", 1)
    seen = (seen.reshape(3, 6) @ statistics.get("whiten", np.eye(6))).reshape(x.shape)
    expected, posterior, inner, decoded, offset = of_both(variables, np.float32(seen))
    # Products of six terms of size up to 5 in float32, then the network's own.
    np.testing.assert_allclose(posterior.mean, expected.mean, atol=100 * EPS)
    np.testing.assert_allclose(posterior.log_var, expected.log_var, atol=100 * EPS)

    def output(likelihood):
        return np.asarray(jax.tree.leaves(likelihood)[0], float)

    said = output(inner) * statistics.get("std", 1)
    said = (said.reshape(3, 6) @ statistics.get("color", np.eye(6))).reshape(x.shape)
    np.testing.assert_allclose(output(decoded), said + (np.asarray(offset) if statistics else 0), atol=100 * EPS)


def test_a_learned_sigma_starts_from_the_scale_of_the_data():
    spec = dataclasses.replace(SPEC, sigma="learned", normalize="center")
    statistics = jax.tree.map(jnp.asarray, STATISTICS["center"])
    variables = filled(spec, statistics)
    raw = variables["params"]["raw_log_sigma"]
    found = jax.jit(lambda z: VAE(spec).bind(variables).decode(z).log_sigma)(np.zeros((1, 2), np.float32))
    np.testing.assert_allclose(found, likelihoods.floored(raw + np.log(np.float32(2))), rtol=4 * EPS)
