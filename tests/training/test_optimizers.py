"""Optimizers against optax's own, decays and warm-up by hand, clipping, weight decay and the average of parameters."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from vae_jax.training import optimizers
from vae_jax.training.optimizers import OptimizerConfig, Rates

EPS = np.finfo(np.float32).eps
PARAMS = {"kernel": jnp.linspace(-1, 1, 12).reshape(3, 4), "bias": jnp.array([0.5, -2.0, 0.0, 1.0])}
ALIVE = jnp.array(True)
# The same settings in optax's words.
THEIRS = {
    "adam": lambda rate: optax.adam(rate, 0.8, 0.99, 1e-6),
    "adamw": lambda rate: optax.adamw(rate, 0.8, 0.99, 1e-6, weight_decay=0.1),
    "sgd": lambda rate: optax.sgd(rate, 0.7),
    "rmsprop": lambda rate: optax.rmsprop(rate, 0.99, 1e-6),
    "adamax": lambda rate: optax.adamax(rate, 0.8, 0.99, 1e-6),
    "lion": lambda rate: optax.lion(rate, 0.8, 0.99, weight_decay=0.1),
    "muon": lambda rate: optax.contrib.muon(
        rate, beta=0.7, eps=1e-6, weight_decay=0.1, adam_b1=0.8, adam_b2=0.99, adam_weight_decay=0.1
    ),
}


def config_of(name: str, **fields) -> OptimizerConfig:
    return optimizers.static(OptimizerConfig(name=name, b1=0.8, b2=0.99, eps=1e-6, momentum=0.7, **fields))


def gradients(count: int) -> list[dict]:
    """Of sizes from 1e-6 to 1e3."""
    generator = np.random.default_rng(0)
    scales = 10 ** generator.uniform(-6, 3, count)
    return [
        jax.tree.map(lambda leaf, scale=scale: jnp.float32(scale * generator.normal(size=leaf.shape)), PARAMS)
        for scale in scales
    ]


@pytest.mark.parametrize("name", THEIRS)
def test_it_is_optaxs(name):
    decay, rate = 0.1 if optimizers.OPTIMIZERS[name].decoupled else 0.0, 0.03
    config, rates, theirs = config_of(name, weight_decay=decay), Rates(weight_decay=np.float32(decay)), THEIRS[name](rate)

    @jax.jit
    def both(grads, mine, params, other, expected):
        updates, mine = optimizers.updates(config, rates, grads, mine, params, ALIVE)
        with jax.numpy_dtype_promotion("standard"):
            found, other = theirs.update(grads, other, expected)
        params = jax.tree.map(lambda param, update: param + jnp.float32(rate) * update, params, updates)
        return mine, params, other, optax.apply_updates(expected, found)

    params = expected = PARAMS
    mine, other = optimizers.OPTIMIZERS[name].build(config).init(params), theirs.init(params)
    for grads in gradients(20):
        mine, params, other, expected = both(grads, mine, params, other, expected)
    for ours, reference in zip(*map(jax.tree.leaves, ((params, mine), (expected, other))), strict=True):
        np.testing.assert_allclose(ours, reference, rtol=1e-4, atol=1e-6)  # moments cancel, and so does 1 - b2^t


def test_every_optimizer_is_held_against_optax():
    assert set(THEIRS) == set(optimizers.OPTIMIZERS)


def test_adam_stays_where_a_step_does_not_count():
    config, (grads,) = config_of("adam"), gradients(1)
    state = optimizers.adam(config).init(PARAMS)
    _, state = optimizers.updates(config, Rates(), grads, state, PARAMS, ALIVE)
    bad = jax.tree.map(lambda leaf: np.nan * leaf, grads)
    _, after = optimizers.updates(config, Rates(), bad, state, PARAMS, ~ALIVE)
    jax.tree.map(np.testing.assert_array_equal, after, state)


@pytest.mark.parametrize("norm", [1e-3, 1.0, 1e6])
def test_clipping_is_optaxs(norm):
    config, rates, grads = config_of("sgd", clip_norm=norm), Rates(clip_norm=np.float32(norm)), gradients(3)[2]
    config = dataclasses.replace(config, momentum=0.0)
    found, _ = optimizers.updates(
        config, rates, grads, optimizers.OPTIMIZERS["sgd"].build(config).init(PARAMS), PARAMS, ALIVE
    )
    clip = optax.clip_by_global_norm(norm)
    expected, _ = clip.update(grads, clip.init(PARAMS))
    for ours, reference in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, -reference, rtol=8 * EPS)


def test_a_gradient_of_zero_is_not_clipped_to_nan():
    config = config_of("adam", clip_norm=1.0)
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    found, _ = optimizers.updates(
        config, Rates(clip_norm=np.float32(1)), zero, optimizers.adam(config).init(PARAMS), PARAMS, ALIVE
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(found))


def test_weight_decay_is_of_the_gradient_or_of_the_update():
    zero = jax.tree.map(jnp.zeros_like, PARAMS)
    for name, expected in {"sgd": -0.25, "adamw": -0.25}.items():
        config, rates = config_of(name, weight_decay=0.25), Rates(weight_decay=np.float32(0.25))
        state = optimizers.OPTIMIZERS[name].build(config).init(PARAMS)
        found, _ = optimizers.updates(config, rates, zero, state, PARAMS, ALIVE)
        jax.tree.map(lambda update, param, e=expected: np.testing.assert_allclose(update, e * param), found, PARAMS)
    # Of the gradient: Adam divides by its size, so every update has size one.
    config, rates = config_of("adam", weight_decay=0.25), Rates(weight_decay=np.float32(0.25))
    found, _ = optimizers.updates(config, rates, zero, optimizers.adam(config).init(PARAMS), PARAMS, ALIVE)
    np.testing.assert_allclose(found["kernel"], -np.sign(PARAMS["kernel"]), rtol=1e-4)


@pytest.mark.parametrize(
    ("schedule", "factor"),
    [("linear", lambda t: 1 - t), ("cosine", lambda t: (1 + np.cos(np.pi * t)) / 2), ("constant", lambda t: 1.0)],
)
def test_learning_rate_decays(schedule, factor):
    progress = np.linspace(0, 1, 9, dtype=np.float32)
    found = optimizers.DECAYS[schedule](jnp.asarray(progress))
    np.testing.assert_allclose(found, [factor(float(t)) for t in progress], atol=2 * EPS)


def test_warm_up_rises_from_the_first_step_to_its_end():
    config = OptimizerConfig(schedule="linear", warmup_epochs=2.0)
    steps = jnp.arange(10, dtype=jnp.float32)  # two an epoch, five epochs
    found = [optimizers.learning_rate(config, Rates(np.float32(3)), step, 2, 5) for step in steps]
    expected = 3 * (1 - np.arange(10) / 10) * np.minimum(1, (np.arange(10) + 1) / 4)
    np.testing.assert_allclose(found, expected, rtol=8 * EPS)


def test_the_average_of_a_walk_is_optaxs_but_in_its_first_steps():
    config = OptimizerConfig(ema=0.5)
    average = expected = {"w": jnp.float32(1)}
    for step in range(6):
        params = {"w": jnp.float32(step**2)}
        average = optimizers.averaged(config, average, params, jnp.float32(step))
        decay = min(0.5, (1 + step) / (10 + step))
        expected = {"w": decay * expected["w"] + (1 - decay) * params["w"]}
    np.testing.assert_allclose(average["w"], expected["w"], rtol=8 * EPS)
    assert 1 < average["w"] < 25
