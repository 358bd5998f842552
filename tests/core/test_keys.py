"""Every key comes from a seed, a named stream and a counter, and no two draws of a run share one."""

import dataclasses

import flax.linen as nn
import jax
import numpy as np
import pytest
from jax import random
from support import small_model

from vae_jax.core import keys
from vae_jax.data.dataset import Dataset, ImageSpec, Split
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.system import runs
from vae_jax.training.state import Hyperparams, RunSpec, TrainConfig
from vae_jax.training.step import Program

SAMPLERS = ("normal", "uniform", "bernoulli", "permutation", "truncated_normal", "randint", "bits", "choice", "categorical")
SEED, DATA_SEED = 3, 11
TRAIN, VALID, TEST, BATCH, EPOCHS = 9, 3, 5, 4, 2
# Per image two draws; or also every estimator there is.
SMALL = evaluation.EvalConfig(
    samples=2,
    batch_size=BATCH,
    decoded=4,
    importance_samples=0,
    importance_splits=(),
    aggregate_samples=0,
    ais_temperatures=0,
    ais_chains=0,
    ais_images=0,
    gradient_samples=0,
    calibration_samples=0,
)
WHOLE = dataclasses.replace(
    SMALL,
    importance_samples=3,
    importance_splits=("test", "train"),
    aggregate_samples=7,
    ais_temperatures=5,
    ais_chains=2,
    ais_images=3,
    gradient_samples=3,
)


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


class Recorder:
    """Keeps the keys that samplers get, also inside compiled loops; of Linen, the key that parameters are made from."""

    def __init__(self, patch: pytest.MonkeyPatch):
        self.found: list[tuple[int, ...]] = []
        for name in SAMPLERS:
            patch.setattr(random, name, self.recording(getattr(random, name)))
        apply = nn.Module.apply

        def recording_apply(module, variables, *args, rngs=None, **kwargs):
            for key in (rngs or {}).values():
                self.record(key)
            return apply(module, variables, *args, rngs=rngs, **kwargs)

        patch.setattr(nn.Module, "apply", recording_apply)

    def record(self, key) -> None:
        jax.debug.callback(lambda raw: self.found.append(tuple(raw.ravel().tolist())), random.key_data(key))

    def recording(self, sampler):
        def wrapper(key, *args, **kwargs):
            self.record(key)
            return sampler(key, *args, **kwargs)

        return wrapper

    def taken(self) -> list[tuple[int, ...]]:
        """What was found since the last time."""
        jax.effects_barrier()
        found, self.found = self.found, []
        return found


def tiny_dataset(width: int) -> Dataset:
    generator = np.random.default_rng(0)
    sizes = {"train": TRAIN, "valid": VALID, "test": TEST}
    splits = {name: Split(generator.integers(0, 256, (n, width), np.uint8)) for name, n in sizes.items()}
    return Dataset(splits, ImageSpec((width,), 255, dynamic=True), DATA_SEED)


def tiny_spec(images: ImageSpec) -> RunSpec:
    model = small_model(shape=images.shape, hidden=(), activation="relu", likelihood="bernoulli", sigma="")
    return RunSpec(
        model=model,
        images=images,
        train_size=TRAIN,
        train=TrainConfig(epochs=EPOCHS, batch_size=BATCH),
    )


# Images of another width each, because a program that is compiled already would be recorded by the first recorder.
@pytest.fixture(
    scope="module", params=[(SMALL, 6), pytest.param((WHOLE, 7), marks=pytest.mark.stress)], ids=["small", "whole"]
)
def used(request):
    """The keys of the draws of one run, by what they were for."""
    plan, width = request.param
    dataset = tiny_dataset(width)
    spec = tiny_spec(dataset.spec)
    hyperparams = runs.stack([Hyperparams(np.int32(SEED))])
    mesh, program, found = runs.mesh(1), Program(spec), {}
    with pytest.MonkeyPatch.context() as patch:
        recorder = Recorder(patch)
        pixels, valid, sample = dataset.splits["train"].pixels, dataset.images("valid"), dataset.sample(5)
        found["bits"] = recorder.taken()
        state = runs.over_runs(program.init, mesh)(hyperparams, {})
        found["init"] = recorder.taken()
        advance = runs.over_runs(program.advance, mesh, mapped=3)
        measure = runs.over_runs(program.measure, mesh, mapped=2)
        measure(state, hyperparams, sample, np.int32(keys.Stream.START))
        measure(state, hyperparams, valid, np.int32(keys.Stream.VALID))
        for _ in range(EPOCHS):
            state, _ = advance(state, hyperparams, np.int32([1]), pixels)
            measure(state, hyperparams, valid, np.int32(keys.Stream.VALID))
        found["training"] = recorder.taken()
        given = hyperparams.sigma, hyperparams.objective, hyperparams.seed
        trained = evaluation.TrainedRuns(spec.model, jax.device_get(state.variables), *given)
        list(evaluation.evaluate(trained, plan, dataset))
        found["evaluation"] = recorder.taken()
    return found


def test_no_key_is_used_twice(used):
    steps = EPOCHS * (TRAIN // BATCH)
    assert {name: len(found) for name, found in used.items() if name != "evaluation"} == {
        "bits": 2,  # of the validation split, and of training images before the first step
        "init": 1,  # below which Linen folds in the path of each parameter
        "training": EPOCHS + 2 * steps + 2 + EPOCHS,  # orders; noise and bits of each step; before the first; validations
    }
    # Bits of train and test, then for each batch each draw, and the prior's samples: with more estimators, more.
    batches = -(-TRAIN // BATCH) + -(-TEST // BATCH)
    assert len(used["evaluation"]) >= 2 + batches * SMALL.samples + 1
    together = [key for found in used.values() for key in found]
    assert len(set(together)) == len(together)


def test_no_key_is_both_drawn_from_and_folded(used):
    heads = {as_tuple(keys.stream(SEED, name)): name for name in keys.Stream}
    assert [heads[key] for found in used.values() for key in found if key in heads] == [keys.Stream.INIT]


def test_a_run_and_its_data_set_share_no_key():
    def heads(names):
        return {tuple(jax.random.key_data(keys.stream(0, name)).tolist()) for name in names}

    assert not heads(keys.Stream) & heads(keys.DataStream)
