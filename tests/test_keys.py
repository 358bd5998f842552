"""Every key comes from a seed, a named stream and a counter, and no two draws of a run share one."""

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import random

from vae_jax import data, evaluation, keys, objectives, runs, training
from vae_jax.model import ModelSpec

SAMPLERS = ("normal", "uniform", "bernoulli", "permutation", "truncated_normal", "randint", "bits", "choice", "categorical")
SEED, DATA_SEED = 3, 11
TRAIN, VALID, TEST, BATCH, EPOCHS = 9, 3, 5, 4, 2
DRAWS = 2  # per image in the evaluation


def as_tuple(key) -> tuple[int, ...]:
    return tuple(np.asarray(random.key_data(key)).ravel().tolist())


@pytest.mark.parametrize("names", [keys.Stream, keys.DataStream])
def test_streams_differ(names):
    heads = {as_tuple(keys.stream(seed, name)) for seed in range(4) for name in names}
    assert len(heads) == 4 * len(names)


def test_counters_differ():
    head = keys.stream(0, keys.Stream.NOISE)
    below = {as_tuple(keys.at(head, counter)) for counter in range(64)}
    assert len(below | {as_tuple(head)}) == 65


def test_same_seed_same_key_also_when_traced():
    direct = keys.at(keys.stream(5, keys.Stream.ORDER), 2)
    traced = jax.jit(lambda seed, counter: keys.at(keys.stream(seed, keys.Stream.ORDER), counter))(np.int32(5), np.int32(2))
    assert as_tuple(direct) == as_tuple(traced)
    assert jax.dtypes.issubdtype(direct.dtype, jax.dtypes.prng_key)


def test_numbers_are_never_changed():
    # They are part of every published result.
    assert [name.value for name in keys.Stream] == list(range(len(keys.Stream)))
    expected = ["INIT", "ORDER", "NOISE", "BITS", "VALID", "EVALUATION"]
    assert [name.name for name in keys.Stream][: len(expected)] == expected


@pytest.fixture
def used(monkeypatch):
    """The keys that samplers get, in a list, also inside compiled loops; of Linen, the key that `init` gets."""
    found = []

    def record(key):
        jax.debug.callback(lambda raw: found.append(tuple(np.asarray(raw).ravel().tolist())), random.key_data(key))

    def recording(sampler):
        def wrapper(key, *args, **kwargs):
            record(key)
            return sampler(key, *args, **kwargs)

        return wrapper

    def init(module, rngs, *args, init=nn.Module.init, **kwargs):
        record(rngs)
        return init(module, rngs, *args, **kwargs)

    for name in SAMPLERS:
        monkeypatch.setattr(random, name, recording(getattr(random, name)))
    monkeypatch.setattr(nn.Module, "init", init)
    return found


def tiny_dataset() -> data.Dataset:
    generator = np.random.default_rng(0)
    sizes = {"train": TRAIN, "valid": VALID, "test": TEST}
    splits = {name: data.Split(generator.integers(0, 256, (n, 2, 2, 1), np.uint8)) for name, n in sizes.items()}
    return data.Dataset(splits, data.ImageSpec((2, 2, 1), 255, dynamic=True), DATA_SEED)


def train_and_evaluate(dataset: data.Dataset, seed: int):
    model = ModelSpec((2, 2, 1), 2, "mlp", "mlp", (3,), "relu", "bernoulli", "", "normal")
    spec = training.RunSpec(model, dataset.spec, TRAIN, BATCH, EPOCHS, "constant", 0.9, 0.999, 1e-8)
    weights = objectives.Weights(np.ones(1, np.float32), np.ones(1, np.float32), np.ones(1, np.float32))
    rate, sigma = np.full(1, 1e-3, np.float32), np.ones(1, np.float32)
    hyperparams = training.Hyperparams(np.array([seed], np.int32), rate, sigma, weights)
    mesh, program = runs.mesh(1), training.make_program(spec)
    state = runs.over_runs(program.init, mesh)(hyperparams)
    splits = {"train": dataset.splits["train"].pixels, "valid": dataset.images("valid")}
    state, _ = runs.over_runs(program.advance, mesh)((state, hyperparams), splits, np.int32(EPOCHS))
    plan = evaluation.EvalSpec(samples=DRAWS, batch_size=BATCH, decoded=4)
    list(evaluation.evaluate(model, plan, state.params, sigma, weights, hyperparams.seed, dataset))
    jax.effects_barrier()


def test_no_key_is_used_twice(used):
    train_and_evaluate(tiny_dataset(), SEED)
    steps = EPOCHS * (TRAIN // BATCH)
    in_training = 1 + EPOCHS + 2 * steps + 1  # init, orders, noise and bits, validation
    in_evaluation = DRAWS * (-(-TRAIN // BATCH) + -(-TEST // BATCH)) + 1  # per batch, and the prior's samples
    of_data = 1 + 2  # fixed bits: of the validation split above, of train and test inside evaluate
    assert len(used) == in_training + in_evaluation + of_data
    assert len(set(used)) == len(used)


def test_no_key_is_drawn_from_and_folded(used):
    train_and_evaluate(tiny_dataset(), SEED)
    heads = {as_tuple(keys.stream(SEED, name)) for name in keys.Stream if name is not keys.Stream.INIT}
    assert not heads & set(used)
    assert as_tuple(keys.stream(SEED, keys.Stream.INIT)) in used
