"""Networks that are told beta: gates that start as the identity, finite gradients, and the loss of a beta for each image."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from vae_jax.data.dataset import ImageSpec
from vae_jax.models.conditioning import Gate
from vae_jax.models.priors import Normal
from vae_jax.models.vae import VAE, ModelSpec, Posterior
from vae_jax.training import objectives
from vae_jax.training.objectives import ObjectiveConfig, Weights
from vae_jax.training.state import Hyperparams, RunSpec, TrainConfig
from vae_jax.training.step import Program

PLAIN = ModelSpec(shape=(8, 8, 1), hidden=(4, 5), sigma="", normalize="none")
X = jnp.asarray(np.float32(np.random.default_rng(0).random((6, 8, 8, 1))))
NETWORKS = ("mlp", "conv", "linear")


def conditioned(network: str, **fields) -> tuple[VAE, VAE]:
    """The plain model, and the same that is told beta."""
    spec = dataclasses.replace(PLAIN, encoder=network, decoder=network, **fields)
    return VAE(spec), VAE(dataclasses.replace(spec, conditioning="beta"))


def told(log_beta) -> dict:
    return {"log_beta": jnp.asarray(np.float32(log_beta)), "lowest_log_beta": jnp.float32(-3)}


@functools.cache
def params_of(vae: VAE) -> dict:
    @jax.jit
    def init():
        return vae.apply({"statistics": told(0)}, X, rngs={"params": random.key(1)}, mutable=["params"])[1]["params"]

    return init()


@functools.partial(jax.jit, static_argnums=0)
def codes_and_means(vae: VAE, variables: dict):
    """q(z | x) of the images, and what its means are decoded to."""
    bound = vae.bind(variables)
    posterior = bound.encode(X)
    return posterior, bound.decode(posterior.mean).mean


def without_gates(tree):
    if not isinstance(tree, dict):
        return tree
    return {name: without_gates(leaf) for name, leaf in tree.items() if "gate" not in name}


def gates_of(tree, path=()) -> list[tuple]:
    """The paths of the gates."""
    if not isinstance(tree, dict):
        return []
    here = [path] if path and "gate" in path[-1] else []
    return here + [found for name, leaf in tree.items() for found in gates_of(leaf, (*path, name))]


@pytest.mark.parametrize("network", NETWORKS)
def test_gates_start_as_the_identity_behind_every_layer(network):
    """The other parameters are those of the plain network, and so is what it computes, whatever beta is."""
    plain, vae = conditioned(network)
    params = params_of(vae)
    layers = {"mlp": 6, "conv": 6, "linear": 2}[network]
    assert len(gates_of(params)) == layers + 2  # and of log_var, and of the latents
    jax.tree.map(np.testing.assert_array_equal, without_gates(params), params_of(plain))
    mine = codes_and_means(vae, {"params": params, "statistics": told(np.linspace(-3, 2, 6))})
    theirs = codes_and_means(plain, {"params": without_gates(params)})
    for ours, plainly in zip(*map(jax.tree.leaves, (mine, theirs)), strict=True):
        np.testing.assert_array_equal(ours, plainly)


@pytest.mark.parametrize("network", NETWORKS)
def test_beta_matters_once_gates_have_moved_and_each_image_has_its_own(network):
    _, vae = conditioned(network)
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + np.float32(0.1), params_of(vae))

    def mean(*log_beta):
        return np.asarray(codes_and_means(vae, {"params": params, "statistics": told(log_beta)})[1])

    low, high, both = mean(*[-3.0] * 6), mean(*[2.0] * 6), mean(*[-3.0] * 3, *[2.0] * 3)
    assert np.abs(low - high).max() > 1e-3
    np.testing.assert_allclose(both[:3], low[:3], rtol=1e-5)
    np.testing.assert_allclose(both[3:], high[3:], rtol=1e-5)


def test_at_the_smallest_beta_a_gate_is_the_identity_whatever_it_has_learned():
    """So that gates close at the betas at which a latent should be off, and not at all of them at once."""
    gate, lowest = Gate(3), jnp.float32(-3)
    x = jnp.asarray(np.float32(np.random.default_rng(1).normal(size=(2, 3))))
    params = jax.tree.map(lambda leaf: np.asarray(leaf) + 1, jax.jit(gate.init)(random.key(0), x, lowest, lowest))
    apply = jax.jit(gate.apply)
    np.testing.assert_allclose(apply(params, x, lowest, lowest), x, rtol=1e-5)
    assert np.abs(np.asarray(apply(params, x, jnp.float32(0), lowest)) - x).max() > 0.1


ENDS = ((0.05, 6.0), (6.0, 6.0), (1e-6, 1e6))


def program(kind: str) -> Program:
    model = dataclasses.replace(PLAIN, conditioning="beta", hidden=(4,))
    settings = {"objective": ObjectiveConfig(kind=kind), "train": TrainConfig(epochs=2, batch_size=6)}
    return Program(RunSpec(model=model, images=ImageSpec((8, 8, 1), 16, False), train_size=6, **settings))


@pytest.fixture(scope="module")
def init():
    """The start of a run: the same for objectives that carry nothing."""
    return jax.jit(program("weighted").init)


@pytest.mark.parametrize("kind", [kind for kind, each in objectives.OBJECTIVES.items() if each.can_be_conditioned])
def test_a_step_is_finite_at_both_ends_and_moves_the_gates(init, kind):
    step = jax.jit(program(kind).step)
    for low, high in ENDS:
        given = Hyperparams(np.int32(0), objective=Weights(beta_low=np.float32(low), beta_high=np.float32(high)))
        state = init(given, {})
        assert state.statistics["log_beta"] == 0  # evaluated at objective.beta, which is 1
        after, metrics = step(state, given, X)
        assert np.isfinite(metrics.loss) and after.diverged_at == -1
        moved = low < high  # a gate at the smallest beta is the identity
        assert np.any(after.params["decoder"]["Dense_0"]["gate"]["gain"]) == moved
        assert np.any(after.params["encoder"]["Dense_0"]["gate"]["shift"]) == moved


def test_the_loss_of_a_beta_for_each_image_by_hand():

    @jax.jit
    def losses():
        posterior = Posterior(jnp.zeros((2, 2)), jnp.zeros((2, 2)))
        rate = jnp.array([[1.0, 2.0], [3.0, 4.0]])
        terms = objectives.Terms(jnp.array([3.0, 5.0]), rate, jnp.sum(rate, axis=1), posterior, jnp.zeros((2, 2)))
        context = objectives.Context(Normal(2), random.key(0), 100, {})
        weighted, _ = objectives.weighted(terms, Weights(beta=jnp.array([0.5, 4.0])), context)
        tc, _ = objectives.tc(terms, Weights(beta=jnp.ones(2)), context)
        return weighted, tc

    weighted, tc = losses()
    assert weighted == ((3 + 0.5 * 3) / 1 + (5 + 4 * 7) / 2) / 2
    # tc at a beta of 1 for each image is the ELBO.
    assert tc == (3 + 3 + 5 + 7) / 2
