"""Every config builds, says how it is run, and takes a step; the studies of the project hold what they promise."""

import functools
import importlib
import pathlib

import jax
import numpy as np
import pytest
from support import random_state

from vae_jax.data.dataset import Dataset, ImageSpec, Split, load
from vae_jax.study import grid, planning, study
from vae_jax.training.state import RunSpec
from vae_jax.training.step import Program

ROOT = pathlib.Path(__file__).parents[1]
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__")
# name -> noise_scale, distortion_weight, beta; None where a study turns it.
FAMILY = {"ae": (0, 1, 0), "vae_no_kl": (1, 1, 0), "kl_only": (1, 0, 1), "vae": (1, 1, 1), "beta_vae": (1, 1, None)}
MAIN = (*FAMILY, "base", "ablations", "latents")  # compiled in every session; the others where there is time, else traced
CHANNELS = {"celeb_a": 3}  # of sets of TFDS, which say so themselves


def runs_of(name: str) -> list[grid.Run]:
    module = importlib.import_module(f"configs.{name}")
    return grid.expand(module.get_config().to_dict(), getattr(module, "sweep", None))


def weights(run: grid.Run) -> tuple:
    return tuple(run.config[f"objective.{key}"] for key in ("noise_scale", "distortion_weight", "beta"))


@functools.cache
def digits(**fields) -> Dataset:
    return load(**fields)


def dataset_of(run: grid.Run) -> Dataset:
    """Digits, whatever the data set of a run is; random pictures where it asks for larger ones."""
    size, channels = run.config["data.size"], CHANNELS.get(run.config["data.name"], run.config["data.channels"] or 1)
    return noise(size, channels) if size else digits(**run.group("data") | {"name": "digits"})


@functools.cache
def noise(size: int, channels: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, (200, size, size, channels), np.uint8)
    return Dataset({"train": Split(pixels), "test": Split(pixels)}, ImageSpec(pixels.shape[1:], 255, dynamic=False), 0)


@functools.cache
def step(spec: RunSpec):
    return jax.jit(Program(spec).step)


def differ(before, after) -> bool:
    leaves = zip(jax.tree.leaves(before), jax.tree.leaves(after), strict=True)
    return any((np.asarray(a) != np.asarray(b)).any() for a, b in leaves)


def a_step(name: str):
    """The first run of a study as it is: its step, a state before it, hyperparams and a batch."""
    run = runs_of(name)[0]
    dataset = dataset_of(run)
    spec, hyperparams = planning.specify(run, dataset)
    before = random_state(spec, hyperparams, dataset.statistics(spec.model.normalize))
    return step(spec), before, hyperparams, dataset.images("train")[: spec.batch_size]


def assert_alike(after, before, metrics) -> None:
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, before)
    assert metrics.loss.shape == ()


@pytest.mark.parametrize("name", [name for name in NAMES if name not in MAIN])
def test_a_step_of_it_can_be_built(name):
    function, before, *rest = a_step(name)
    after, metrics = jax.eval_shape(function, before, *rest)
    assert_alike(after, before, metrics)


@pytest.mark.parametrize("name", [name if name in MAIN else pytest.param(name, marks=pytest.mark.stress) for name in NAMES])
def test_it_takes_a_step(name):
    function, before, *rest = a_step(name)
    after, metrics = function(before, *rest)
    assert_alike(after, before, metrics)
    assert np.isfinite(metrics.loss)
    assert int(after.step) == 1
    assert differ(before.params, after.params)


@pytest.mark.parametrize("name", NAMES)
def test_its_note_says_how_it_is_run(name):
    note = importlib.import_module(f"configs.{name}").__doc__
    assert note.splitlines()[0].endswith((".", "?"))
    assert f"python -m experiments.train --config=configs/{name}.py" in note


@pytest.mark.parametrize("name", [*FAMILY, "ablations", "latents"])
def test_a_config_is_named_after_its_file(name):
    assert importlib.import_module(f"configs.{name}").get_config().name == name


def test_every_get_config_is_new():
    from configs import base

    base.get_config().objective.beta = 7.0
    assert base.get_config().objective.beta == 1.0


@pytest.mark.parametrize("name", FAMILY)
def test_the_family_differs_in_three_numbers(name):
    (run,) = runs_of(name)
    expected = FAMILY[name]
    assert weights(run)[:2] == expected[:2]
    if expected[2] is not None:
        assert weights(run)[2] == expected[2]
    (vae,) = runs_of("vae")
    changed = {key for key in vae.config if vae.config[key] != run.config[key]}
    assert changed <= {"name", "objective.noise_scale", "objective.distortion_weight", "objective.beta"}


def test_ablations_hold_the_family_with_five_seeds_each():
    runs = runs_of("ablations")
    assert {run.name for run in runs} == FAMILY.keys()
    for name, expected in FAMILY.items():
        mine = [run for run in runs if run.name == name]
        for beta in {run.config["objective.beta"] for run in mine}:
            seeds = [run.config["seed"] for run in mine if run.config["objective.beta"] == beta]
            assert sorted(seeds) == [0, 1, 2, 3, 4]
        assert {weights(run)[:2] for run in mine} == {expected[:2]}
        if expected[2] is not None:
            assert {weights(run)[2] for run in mine} == {expected[2]}


def test_ablations_run_beta_from_nearly_an_ae_to_collapse_and_leave_1_to_the_vae():
    betas = {run.config["objective.beta"] for run in runs_of("ablations") if run.name == "beta_vae"}
    assert len(betas) >= 8
    assert min(betas) == 0.1
    assert max(betas) >= 4
    assert 1 not in betas


def test_ablations_are_one_program_with_pca_beside_it():
    planned = study.plan(*config_and_sweep("ablations"))
    assert len(planned.groups) == 1
    (spec,) = {group.spec for group in planned.groups}
    assert (spec.model.encoder, spec.model.decoder, spec.model.likelihood) == ("mlp", "mlp", "bernoulli")
    assert spec.model.latents == 2
    assert len(spec.model.hidden) == 2
    assert planned.config["data.name"] == "digits"
    assert planned.config["data.binarize"] == "none"
    assert all("pca" in run.config["baselines"] for run in planned.runs)


def test_mnist_is_the_family_with_two_seeds_each():
    runs = runs_of("mnist")
    assert [weights(run) for run in runs if run.name == "beta_vae"] == [(1, 1, 0.25), (1, 1, 4)] * 2
    for name in FAMILY.keys() - {"beta_vae"}:
        assert [weights(run) for run in runs if run.name == name] == [FAMILY[name]] * 2
    (fields,) = {tuple(run.config[key] for key in ("data.name", "model.latents", "train.batch_size")) for run in runs}
    assert fields == ("mnist", 20, 128)


def config_and_sweep(name: str) -> tuple:
    module = importlib.import_module(f"configs.{name}")
    return module.get_config(), module.sweep


def test_latents_compare_three_models_from_1_to_32():
    runs = runs_of("latents")
    for name, network in (("linear_ae", "linear"), ("ae", "mlp")):
        mine = [run for run in runs if run.name == name]
        assert {run.config["model.latents"] for run in mine} == {1, 2, 4, 8, 16, 32}
        assert {(run.config["model.encoder"], run.config["model.decoder"]) for run in mine} == {(network, network)}
    assert {weights(run) for run in runs} == {(0, 1, 0)}
    assert {run.config["model.likelihood"] for run in runs} == {"gaussian"}
    assert all("pca" in run.config["baselines"] for run in runs)


def test_latents_are_one_program_per_number_of_latents_and_network():
    assert len(study.plan(*config_and_sweep("latents")).groups) == 12
