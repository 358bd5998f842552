"""A trained model as an object: it says what evaluation says, takes what the data set takes, refuses the rest."""

import json
import subprocess
import sys

import numpy as np
import pytest
from support import LINEAR, tiny

from vae_jax.api import trained
from vae_jax.core import errors
from vae_jax.data.dataset import load
from vae_jax.storage import run_directory, tables
from vae_jax.study import study

pytestmark = pytest.mark.usefixtures("one_run_at_a_time")
BOUNDS = {"eval__calibration_samples": 0, "eval__decoded": 0}  # what a model says of itself is evaluated, and no more
METRICS = {"distortion", "rate", "elbo", "mse", "active_units", "mean_std", "knn_accuracy", "frechet_prior"}
METRICS |= {"frechet_midpoint", "train_distortion", "train_rate", "train_elbo", "train_mse"}
RUNS = {"ae": (0.0, 0.0), "half": (0.5, 0.25), "vae": (1.0, 1.0), "beta_vae": (1.0, 4.0)}


def sweep(add):
    for name, (noise_scale, beta) in RUNS.items():
        for seed in (0, 1):
            add({"name": name, "seed": seed, "objective.noise_scale": noise_scale, "objective.beta": beta})


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("digits") / "run"
    study.run(tiny(eval__samples=32, eval__importance_samples=50, **BOUNDS, **LINEAR), workdir, sweep)
    return workdir


@pytest.fixture(scope="module")
def test_split():
    return load("digits")


@pytest.fixture(scope="module")
def rgb(tmp_path_factory):
    """Convolutions with a learned sigma on RGB bytes."""
    folder = tmp_path_factory.mktemp("rgb")
    pixels, labels = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 3), dtype=np.uint8), np.arange(60) % 4
    np.savez(folder / "rgb.npz", train=pixels[:48], test=pixels[48:], train_labels=labels[:48], test_labels=labels[48:])
    fields = {"data__name": "npz", "data__path": str(folder / "rgb.npz"), "train__batch_size": 16}
    model = {"model__encoder": "conv", "model__decoder": "conv", "model__hidden": (4, 8), "model__likelihood": "gaussian"}
    measured = {"eval__batch_size": 16, "eval__decoded": 20, "eval__calibration_samples": 0}  # a batch is filled up
    study.run(tiny(**fields, **model, model__sigma="learned", eval__samples=32, **measured), folder / "run")
    return folder / "run", pixels[48:]


# It says what evaluation says.


def test_codes_are_those_of_the_arrays(digits, test_split):
    model = trained.load(digits, name="vae", seed=1)
    codes = model.encode(test_split.splits["test"].pixels)
    arrays = run_directory.read_arrays(run_directory.arrays_path(digits, model.row["run"]))
    np.testing.assert_allclose(codes.mean, arrays["codes_mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(codes.std, arrays["codes_std"], rtol=1e-4, atol=1e-5)
    # The lines that evaluation decodes go from one of their images to the other.
    ends = model.decode(model.encode(arrays["interpolation_images"]).mean)
    lines = arrays["interpolations"].reshape(len(ends) // 2, -1, *ends.shape[1:])
    np.testing.assert_allclose(ends, lines[:, [0, -1]].reshape(ends.shape), rtol=1e-3, atol=1e-4)


def test_reconstructions_give_the_mse_of_the_row(digits, test_split):
    model = trained.load(digits, run=2)
    error = np.mean(np.square(model.reconstruct(test_split.splits["test"].pixels) - test_split.images("test")))
    assert error == pytest.approx(model.row["mse"], rel=1e-4)


@pytest.mark.parametrize("name", ["half", "vae", "beta_vae"])
def test_elbo_is_that_of_the_row_within_its_error(name, digits, test_split):
    model = trained.load(digits, name=name, seed=0)
    values = model.elbo(test_split.splits["test"].pixels, samples=32, seed=5)
    error = np.hypot(model.row["elbo_se"], model.row["elbo_se"])
    assert abs(values.mean(dtype=float) - model.row["elbo"]) < 5 * error


def test_importance_bound_is_above_the_elbo_and_that_of_the_row(digits, test_split):
    model, images = trained.load(digits, name="vae", seed=0), test_split.splits["test"].pixels
    bound = model.importance_bound(images, samples=50, seed=3)
    assert bound.mean() > model.elbo(images).mean()
    assert abs(bound.mean(dtype=float) - model.row["importance_bound"]) < 0.02


def test_an_ae_has_no_bound(digits, test_split):
    model, images = trained.load(digits, name="ae", seed=0), test_split.splits["test"].pixels[:3]
    assert (model.elbo(images) == -np.inf).all()
    assert (model.encode(images).std == 0).all()
    with pytest.raises(errors.UserError, match=r"run 0 is deterministic"):
        model.importance_bound(images)


def test_rgb_with_convolutions_and_a_learned_sigma(rgb):
    workdir, pixels = rgb
    model = trained.load(workdir, seed=0)
    assert model.reconstruct(pixels).shape == (12, 8, 8, 3)
    values = model.elbo(pixels, samples=32, seed=1)
    assert abs(values.mean(dtype=float) - model.row["elbo"]) < 5 * np.hypot(model.row["elbo_se"], model.row["elbo_se"])


def test_every_metric_of_rgb_is_finite(rgb):
    (row,) = tables.read_csv(rgb[0] / "results.csv")
    assert row.keys() >= METRICS
    assert np.isfinite([row[name] for name in METRICS]).all()


# What it takes.


def test_bytes_floats_and_single_images_are_the_same(digits, test_split):
    model, stored = trained.load(digits, run=4), test_split.splits["test"].pixels[:5]
    mean = model.encode(stored).mean
    for images in (stored / 16, stored.astype(np.int64), stored[..., 0], (stored / 16).tolist()):
        np.testing.assert_allclose(model.encode(images).mean, mean, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(model.encode(stored[0]).mean, mean[:1], rtol=1e-5, atol=1e-6)


def test_batches_do_not_show(digits, test_split, monkeypatch):
    model, images = trained.load(digits, run=4), test_split.splits["test"].pixels[:70]
    whole = model.reconstruct(images)
    monkeypatch.setattr(trained, "BATCH", 16)
    np.testing.assert_allclose(trained.load(digits, run=4).reconstruct(images), whole, rtol=1e-5, atol=1e-6)


def test_samples_and_lines(digits, test_split):
    model, images = trained.load(digits, name="vae", seed=0), test_split.splits["test"].pixels
    assert model.sample(6, seed=1).shape == (6, 8, 8, 1)
    assert (model.sample(6, seed=1) == model.sample(6, seed=1)).all()
    assert (model.sample(6, seed=1) != model.sample(6, seed=2)).any()
    line = model.interpolate(images[0], images[1], steps=5)
    ends = model.reconstruct(images[:2])
    np.testing.assert_allclose(line[[0, -1]], ends, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((2, 9, 9, 1)), r"images have shape \(2, 9, 9, 1\); should be \[8, 8, 1\] or \[n, 8, 8, 1\]"),
        (np.full((2, 8, 8, 1), 16.0), "images have values from 16 to 16; should be floats from 0 to 1, or whole numbers"),
        (np.full((2, 8, 8, 1), 17, np.uint8), "images have values from 17 to 17; should be whole numbers from 0 to 16"),
        (np.full((2, 8, 8, 1), np.nan), "not finite"),
        (np.full((2, 8, 8, 1), "a"), "images have dtype <U1; should be uint8 or float"),
        (np.zeros((0, 8, 8, 1)), r"images have shape \(0, 8, 8, 1\)"),
    ],
)
def test_wrong_images_are_refused(images, said, digits):
    with pytest.raises(errors.UserError, match=said):
        trained.load(digits, run=4).encode(images)


@pytest.mark.parametrize(
    ("z", "said"), [(np.zeros((2, 3)), r"latents have shape \(2, 3\); should be \[n, 2\]"), ([[np.inf, 0]], "not finite")]
)
def test_wrong_latents_are_refused(z, said, digits):
    with pytest.raises(errors.UserError, match=said):
        trained.load(digits, run=4).decode(z)


# Which run.


@pytest.mark.parametrize(
    ("wanted", "run"),
    [
        ({"run": 3}, 3),
        ({"name": "vae", "seed": 1}, 5),
        ({"beta": 4.0, "seed": 0}, 6),
        ({"objective__beta": 4.0, "seed": 1}, 7),
    ],
)
def test_a_run_is_found_by_its_settings(wanted, run, digits):
    model = trained.load(digits, **wanted)
    assert model.row["run"] == run
    assert model.row == next(row for row in tables.read_csv(digits / "results.csv") if row["run"] == run)
    assert model.config["objective.beta"] == model.row["objective.beta"]


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"name": "vae"}, "2 runs with name='vae'; choose by seed: 0, 1"),
        ({"name": "none"}, "no run with name='none'; choose by name: ae, half, vae, beta_vae; "),
        ({"gamma": 1}, "gamma=1: no column of that name; there are run, name, seed, objective.noise_scale, objective.beta"),
        ({}, "8 runs with nothing; choose by name"),
    ],
)
def test_an_unclear_selection_lists_what_there_is(wanted, said, digits):
    with pytest.raises(errors.UserError) as caught:
        trained.load(digits, **wanted)
    assert said in str(caught.value)


def test_no_directory_and_no_models(digits, tmp_path):
    with pytest.raises(errors.UserError, match="no such file"):
        trained.load(tmp_path, run=0)
    (tmp_path / "results.csv").write_text((digits / "results.csv").read_text())
    with pytest.raises(errors.UserError, match=r"experiments\.evaluate"):
        trained.load(tmp_path, run=0)


# Exported.

READER = """
import json, sys, zipfile
import jax, numpy
assert "vae_jax" not in sys.modules
for which in sys.argv[1:]:
    with zipfile.ZipFile(f"{which}.zip") as archive:
        programs = (jax.export.deserialize(bytearray(archive.read(f"{name}.bin"))) for name in ("encoder", "decoder"))
        encode, decode = (program.call for program in programs)
        card = json.loads(archive.read("card.json"))
    mean, std = encode(numpy.load(f"{which}.npy"))
    numpy.savez(f"{which}_out.npz", mean=mean, std=std, decoded=decode(mean), one=decode(mean[:1]))
    print(json.dumps(card))
"""


@pytest.fixture(scope="module")
def read_elsewhere(digits, rgb, test_split, tmp_path_factory):
    """By name: a model, images, and card and arrays that a process without this project got from its export."""
    folder = tmp_path_factory.mktemp("exports")
    models = {"digits": trained.load(digits, name="vae", seed=0), "rgb": trained.load(rgb[0], seed=0)}
    stored = {"digits": test_split.splits["test"].pixels[:7], "rgb": rgb[1]}
    for which, model in models.items():
        model.export(folder / f"{which}.zip")
        np.save(folder / f"{which}.npy", (stored[which] / model.images.levels).astype(np.float32))
    command = [sys.executable, "-I", "-c", READER, *models]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    cards = map(json.loads, done.stdout.splitlines())
    return {which: (models[which], stored[which], next(cards), folder / f"{which}_out.npz") for which in models}


@pytest.mark.parametrize("which", ["digits", "rgb"])
def test_an_export_is_read_without_this_project(which, read_elsewhere):
    model, stored, card, path = read_elsewhere[which]
    codes = model.encode(stored)
    with np.load(path) as out:
        np.testing.assert_allclose(out["mean"], codes.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["std"], codes.std, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(out["decoded"], model.decode(codes.mean), rtol=1e-4, atol=1e-5)
        assert len(out["one"]) == 1
    assert card["image_shape"] == list(model.image_shape)
    assert card["row"]["elbo"] == model.row["elbo"]
