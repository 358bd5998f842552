"""A study of networks that are told beta: a row, arrays and a model for each beta, and the curve they lie on."""

import json
import pathlib
import shutil
import zipfile

import jax
import numpy as np
import pytest
from support import ROOT, SMALL, assert_same_numbers, tiny

from vae_jax.api import frames, trained
from vae_jax.core import errors
from vae_jax.data.dataset import load
from vae_jax.evaluation import closed_form, evaluate
from vae_jax.storage import run_directory, tables, trained_models
from vae_jax.study import study

SIGMA = 0.5
BETAS = tuple(np.geomspace(0.06, 12.0, 29).round(4).tolist())  # from both directions of the data alive to none


def config(**fields):
    """Linear networks on the vectors, in a second or two; conditioned, one seed."""
    made = tiny(name="curve", baselines=("ppca",))
    made.update_from_flattened_dict({key: value for key, value in SMALL.items() if key != "model.hidden"})
    small = {"model.encoder": "linear", "model.decoder": "linear", "model.latents": 2, "model.normalize": "whiten"}
    small |= {
        "model.sigma": str(SIGMA),
        "model.conditioning": "beta",
        "objective.beta_low": 0.04,
        "objective.beta_high": 15.0,
    }
    small |= {"train.batch_size": 0, "train.epochs": 3000, "train.chunk_epochs": 1500, "train.checkpoint_every": 1500}
    small |= {"optimizer.learning_rate": 3e-2, "data.valid_fraction": 0.0}
    small |= {"eval.samples": 200, "eval.decoded": 0, "eval.aggregate_samples": 0, "eval.betas": BETAS}
    small |= {"eval.calibration_samples": 0, "eval.without": ("frechet", "subspace_distance", "deviations")}
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
def directory(tmp_path_factory, in_the_checkout):
    """Both; read only."""
    workdir = tmp_path_factory.mktemp("conditioned") / "run"
    study.run(config(), workdir, sweep)
    return workdir


def rows_of(workdir, name="curve") -> list[dict]:
    """By beta."""
    rows = [row for row in tables.read_csv(workdir / "results.csv") if row["name"] == name]
    return sorted(rows, key=lambda row: row.get("objective.beta", 0.0))


def test_every_beta_has_a_row_with_the_columns_of_any_run(directory):
    rows = tables.read_csv(directory / "results.csv")
    assert [row["run"] for row in rows] == list(range(len(rows)))
    assert [(row["name"], row["objective.beta"]) for row in rows[:2]] == [("curve", 1.0), ("alone", 1.0)]
    assert [row["objective.beta"] for row in rows[2 : 2 + len(BETAS)]] == list(BETAS)
    curve = rows_of(directory)
    assert len(curve) == 1 + len(BETAS) and {tuple(row) for row in curve} == {tuple(rows[1])}
    for row in curve:
        assert row["theta"] == pytest.approx(row["objective.beta"] * SIGMA**2, rel=1e-6)
        assert run_directory.read_arrays(run_directory.arrays_path(directory, row["run"]))["codes_mean"].shape == (16, 2)
        variables, card = trained_models.read(trained_models.path(directory, row["run"]))
        assert card["config"]["objective.beta"] == row["objective.beta"]
        assert variables["statistics"]["log_beta"] == np.log(np.float32(row["objective.beta"]))
    assert {row["run"] for row in run_directory.read_metrics(directory)} == {0, 1}


def test_the_curve_is_monotone(directory):
    """At 30 betas: the rate falls and the distortion of the training split rises."""
    rows = rows_of(directory)
    rate, distortion = (np.array([row[f"train_{name}"] for row in rows]) for name in ("rate", "distortion"))
    assert len(rows) == 30 and rate[0] > 4 and rate[-1] < 0.03
    assert (np.diff(rate) < 1e-3).all() and (np.diff(distortion) > -1e-3).all()


def test_one_linear_network_lies_on_the_curve_of_reverse_water_filling(directory):
    """Its loss is the least there is at every beta, to a hundredth of what it is weighted by in training."""
    x = load("npz", path=SMALL["data.path"], valid_fraction=0.0).images("train").reshape(64, -1).astype(float)
    rows = rows_of(directory)
    beta = np.array([row["objective.beta"] for row in rows])
    rate, squared = closed_form.water_filling(closed_form.spectrum(x)[0], 2, beta * SIGMA**2)
    least = squared / (2 * SIGMA**2) + 3 * np.log(2 * np.pi * SIGMA**2) + beta * rate
    ours = np.array([row["train_distortion"] + row["objective.beta"] * row["train_rate"] for row in rows])
    np.testing.assert_allclose((ours - least) / np.maximum(beta, 1), 0, atol=0.012)


def test_a_network_that_is_not_told_beta_has_its_row_alone_and_the_bits_it_has_without(directory, tmp_path):
    """`eval.betas` and the range of beta are not used by it."""
    plain = config(model__conditioning="none", name="alone", eval__betas=(), objective__beta_low=0.5)
    study.run(plain, tmp_path / "run")
    (row,) = rows_of(tmp_path / "run", "alone")
    (other,) = rows_of(directory, "alone")
    ignored = {"run", "objective.beta", "model.conditioning"}
    assert {key: value for key, value in other.items() if key not in ignored} == {k: row[k] for k in row if k != "run"}


def test_trained_for_one_beta_it_reaches_what_the_plain_network_does(directory, tmp_path):
    study.run(config(objective__beta_low=1.0, objective__beta_high=1.0, eval__betas=()), tmp_path / "run")
    (row,) = rows_of(tmp_path / "run")
    (alone,) = rows_of(directory, "alone")
    assert row["train_elbo"] == pytest.approx(alone["train_elbo"], abs=0.01)


# Going on.


def quick():
    """Four epochs of a step, with a checkpoint after each."""
    fields = {"train__epochs": 4, "train__chunk_epochs": 1, "train__checkpoint_every": 1}
    return config(**fields, optimizer__schedule="constant", baselines=(), eval__betas=(0.5, 2.0))


@pytest.fixture(scope="module")
def short(in_the_checkout, one_run_at_a_time, tmp_path_factory):
    """One seed; read only."""
    workdir = tmp_path_factory.mktemp("short") / "run"
    study.run(quick(), workdir, None, [("seed", [0])])
    return workdir


@pytest.fixture
def begun(short, tmp_path):
    return pathlib.Path(shutil.copytree(short, tmp_path / "begun"))


def test_the_same_command_again_only_reads(begun):
    written = (begun / "results.csv").read_bytes()
    rows = study.run(quick(), begun, None, [("seed", [0])])
    assert [(row["run"], row["objective.beta"]) for row in rows] == [(0, 1.0), (1, 0.5), (2, 2.0)]
    assert (begun / "results.csv").read_bytes() == written


def test_with_another_seed_the_rows_that_are_there_keep_their_numbers(begun):
    before = tables.read_csv(begun / "results.csv")
    grown = study.run(quick(), begun, None, [("seed", [0, 1])])
    assert [(row["run"], row["seed"]) for row in grown] == [(0, 0), (1, 1), (2, 0), (3, 0), (4, 1), (5, 1)]
    assert [row | {"run": None} for row in grown if row["seed"] == 0] == [row | {"run": None} for row in before]
    for row in grown:
        arrays = run_directory.read_arrays(run_directory.arrays_path(begun, row["run"]))
        assert row["mean_std"] == pytest.approx(arrays["codes_std"].mean(), rel=1e-5)


def test_evaluated_at_fewer_betas_the_files_of_the_others_are_removed(begun):
    before = evaluate._over_runs.cache_info().misses
    rows = study.evaluate(begun, {"eval.betas": (2.0,)})
    assert evaluate._over_runs.cache_info().misses == before  # by the same programs
    assert [(row["run"], row["objective.beta"]) for row in rows] == [(0, 1.0), (1, 2.0)]
    for folder in ("arrays", "models"):
        assert sorted(path.name for path in (begun / folder).iterdir()) == ["run_0000.npz", "run_0001.npz"]


def test_an_interrupted_run_goes_on_to_the_same_bits(short, tmp_path):
    """The draws of beta come from the seed and the step alone."""

    class KilledError(Exception):
        pass

    def die(rows):
        if rows[0]["epoch"] == 3:
            raise KilledError

    with pytest.raises(KilledError):
        study.run(quick(), tmp_path / "cut", None, [("seed", [0])], on_chunk=die)
    study.run(quick(), tmp_path / "cut", None, [("seed", [0])])
    assert_same_numbers(short, tmp_path / "cut")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"eval__betas": (0.5, 99.0)}, "eval.betas=99 with model.conditioning=beta: it is evaluated there, so it should be"),
        ({"objective__beta": 0.01}, "objective.beta=0.01 with model.conditioning=beta"),
        ({"eval__betas": (0.0,)}, r"eval.betas=\(0.0,\): each should be from 1e-06 to 1e"),
    ],
)
def test_a_beta_that_it_was_not_trained_for_is_refused(fields, said):
    with pytest.raises(errors.UserError, match=said):
        study.plan(config(**fields))


# As an object, and exported.


def test_at_any_beta_it_is_a_model_like_any_other(directory):
    x = load("npz", path=SMALL["data.path"], valid_fraction=0.0).splits["test"].pixels
    model = trained.load(directory, name="curve")  # one network: beta is left open
    assert model.row["run"] == 0 and model.config["objective.beta"] == 1.0
    row = rows_of(directory)[3]
    told, stored = model.at(beta=row["objective.beta"]), trained.load(directory, run=row["run"])
    np.testing.assert_array_equal(told.encode(x).mean, stored.encode(x).mean)
    assert np.mean(told.elbo(x, 500)) == pytest.approx(row["elbo"], abs=5 * row["elbo_se"] + 0.01)
    between = model.at(beta=0.7)
    assert between.row == {"run": 0, "name": "curve", "seed": 0, "model.conditioning": "beta", "objective.beta": 0.7}
    assert between.config["objective.beta"] == 0.7
    assert (between.encode(x).std > model.at(beta=0.6).encode(x).std).any()
    np.testing.assert_array_equal(model.at(beta=0.6).at(beta=0.7).reconstruct(x), between.reconstruct(x))


def test_at_refuses_what_it_was_not_trained_for(directory):
    with pytest.raises(errors.UserError, match=r"beta=99: should be from 0\.\d+ to 15, for which the network was trained"):
        trained.load(directory, name="curve").at(beta=99.0)
    with pytest.raises(errors.UserError, match="run 1 was trained for one beta"):
        trained.load(directory, name="alone").at(beta=1.0)


def test_an_export_has_beta_as_an_argument(directory, tmp_path):
    model = trained.load(directory, name="curve")
    x = load("npz", path=SMALL["data.path"], valid_fraction=0.0).images("test")
    model.export(tmp_path / "model.zip")
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        card = json.loads(archive.read("card.json"))
        encode, decode = (
            jax.export.deserialize(bytearray(archive.read(f"{name}.bin"))).call for name in ("encoder", "decoder")
        )
    assert card["betas"] == [model.config["objective.beta_low"], model.config["objective.beta_high"]]
    for beta in (0.3, 0.7):
        mean, std = encode(x, np.float32(beta))
        codes = model.at(beta).encode(x)
        np.testing.assert_allclose(mean, codes.mean, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(std, codes.std, rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(decode(mean, np.float32(beta)), model.at(beta).decode(codes.mean), rtol=1e-4, atol=1e-5)


def test_curves_of_metrics_have_the_settings_of_their_run(directory):
    pytest.importorskip("pandas")
    assert set(frames.curves(directory)["objective.beta"]) == {1.0}
    assert len(frames.frame(directory)) == len(tables.read_csv(directory / "results.csv"))
