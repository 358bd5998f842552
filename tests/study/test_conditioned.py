"""A study of networks that are told beta: a row, arrays and a model for each beta, and the curve they lie on."""

import pathlib
import shutil

import numpy as np
import pytest
from support import ROOT, SMALL, assert_same_numbers, tiny

from vae_jax.api import frames
from vae_jax.core import errors
from vae_jax.data import dataset as data
from vae_jax.evaluation import closed_form
from vae_jax.figures import draw
from vae_jax.storage import run_directory, tables, trained_models
from vae_jax.study import study

SIGMA = 0.5
BETAS = tuple(np.geomspace(0.02, 12.0, 29).round(4).tolist())  # from both directions of the data alive to none


def config(**fields):
    """Linear networks on the vectors, in a second or two; conditioned, one seed."""
    made = tiny(name="curve", baselines=("ppca",))
    made.update_from_flattened_dict({key: value for key, value in SMALL.items() if key != "model.hidden"})
    small = {"model.encoder": "linear", "model.decoder": "linear", "model.latents": 2, "model.normalize": "whiten"}
    small |= {"model.sigma": str(SIGMA), "model.conditioning": "beta", "objective.beta_low": 0.015, "objective.beta_high": 15.0}
    small |= {"train.batch_size": 0, "train.epochs": 6000, "train.chunk_epochs": 3000, "train.checkpoint_every": 3000}
    small |= {"optimizer.learning_rate": 2e-2, "optimizer.schedule": "exponential", "data.valid_fraction": 0.0}
    small |= {"eval.samples": 500, "eval.decoded": 0, "eval.aggregate_samples": 0, "eval.betas": BETAS}
    made.update_from_flattened_dict(small | {key.replace("__", "."): value for key, value in fields.items()})
    return made


@pytest.fixture(scope="module", autouse=True)
def in_the_checkout():
    """Where the data lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


def sweep(add):
    """The conditioned network, and a separate one at beta 1."""
    add({"model.conditioning": "beta"})
    add({"name": "alone", "model.conditioning": "none"})


@pytest.fixture(scope="module")
def trained(tmp_path_factory, in_the_checkout):
    """Both; read only."""
    workdir = tmp_path_factory.mktemp("conditioned") / "run"
    study.run(config(), workdir, sweep)
    return workdir


def rows_of(workdir, name="curve") -> list[dict]:
    """By beta."""
    rows = [row for row in tables.read_csv(workdir / "results.csv") if row["name"] == name]
    return sorted(rows, key=lambda row: row["objective.beta"])


def test_every_beta_has_a_row_with_the_columns_of_any_run(trained):
    rows = tables.read_csv(trained / "results.csv")
    assert [row["run"] for row in rows] == list(range(len(rows)))
    assert [(row["name"], row["objective.beta"]) for row in rows[:2]] == [("curve", 1.0), ("alone", 1.0)]
    assert [row["objective.beta"] for row in rows[2 : 2 + len(BETAS)]] == list(BETAS)
    curve = rows_of(trained)
    assert len(curve) == 1 + len(BETAS) and {tuple(row) for row in curve} == {tuple(rows[1])}
    for row in curve:
        assert row["theta"] == pytest.approx(row["objective.beta"] * SIGMA**2, rel=1e-6)
        assert run_directory.read_arrays(run_directory.arrays_path(trained, row["run"]))["codes_mean"].shape == (16, 2)
        variables, card = trained_models.read(trained_models.path(trained, row["run"]))
        assert card["config"]["objective.beta"] == row["objective.beta"]
        assert variables["statistics"]["log_beta"] == np.log(np.float32(row["objective.beta"]))
    assert {row["run"] for row in run_directory.read_metrics(trained)} == {0, 1}


def test_the_curve_is_monotone(trained):
    """At 30 betas: the rate falls and the distortion of the training split rises."""
    rows = rows_of(trained)
    rate, distortion = (np.array([row[f"train_{name}"] for row in rows]) for name in ("rate", "distortion"))
    print(rate, distortion)
    assert len(rows) == 30 and rate[0] > 3 and rate[-1] < 0.01
    assert (np.diff(rate) < 1e-3).all() and (np.diff(distortion) > -1e-3).all()


def test_one_linear_network_lies_on_the_curve_of_reverse_water_filling(trained):
    x = data.load("npz", path=SMALL["data.path"], valid_fraction=0.0).images("train").reshape(64, -1).astype(float)
    rows = rows_of(trained)
    theta = np.array([row["theta"] for row in rows])
    rate, squared = closed_form.water_filling(closed_form.spectrum(x)[0], 2, theta)
    ours = 2 * SIGMA**2 * (np.array([row["train_distortion"] for row in rows]) - 3 * np.log(2 * np.pi * SIGMA**2))
    print(np.abs(np.array([row["train_rate"] for row in rows]) - rate), ours / squared - 1)
    np.testing.assert_allclose([row["train_rate"] for row in rows], rate, atol=0.05)
    np.testing.assert_allclose(ours, squared, rtol=0.005)
