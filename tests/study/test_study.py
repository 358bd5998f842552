"""A study end to end: what its directory holds, the same bits wherever it runs, and what is refused."""

import csv
import json
import pathlib
import platform
import shlex
import shutil
import sys

import numpy as np
import pytest
from support import LINEAR, assert_same_numbers, tiny

from vae_jax.core import errors
from vae_jax.evaluation import disentanglement
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.storage import run_directory, tables
from vae_jax.study import ahead, grid, study
from vae_jax.system import runs
from vae_jax.training import loop as fit
from vae_jax.training.state import TrainState

SEEDS = ("0", "1", "2")
SWEEPS = (("seed", SEEDS), ("optimizer.learning_rate", ("0.01",)))
GRID_KEYS = ["objective.noise_scale", "objective.beta", "optimizer.learning_rate"]
METRICS = ["distortion", "rate", "elbo", "mse", "active_units", "mean_std", "knn_accuracy", "frechet_prior"]
METRICS += ["frechet_midpoint", "train_distortion", "train_rate", "train_elbo", "train_mse"]


def sweep(add):
    """An AE, something between, and a VAE."""
    add({"name": "ae", "objective.noise_scale": 0.0, "objective.beta": 0.0})
    add({"name": "half", "objective.noise_scale": 0.5, "objective.beta": 0.25})
    add({"name": "vae", "objective.noise_scale": 1.0, "objective.beta": 1.0})


def config(**fields):
    return tiny(baselines=("pca",), **LINEAR, **fields)


def train(workdir: pathlib.Path) -> pathlib.Path:
    study.run(config(), workdir, sweep, SWEEPS)
    return workdir


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The directory of nine runs and PCA; read only."""
    return train(tmp_path_factory.mktemp("study") / "grid")


@pytest.fixture
def copy(trained, tmp_path):
    return pathlib.Path(shutil.copytree(trained, tmp_path / "copy"))


def table(workdir) -> list[dict[str, str]]:
    """results.csv as texts."""
    with (workdir / "results.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def contents(workdir) -> dict[str, bytes]:
    return {str(path.relative_to(workdir)): path.read_bytes() for path in sorted(workdir.rglob("*")) if path.is_file()}


# What lies in the directory


def test_columns_stand_in_the_order_of_the_contract(trained):
    columns = list(table(trained)[0])
    assert columns[:7] == ["run", "name", "seed", *GRID_KEYS, "diverged"]
    metrics = columns[7:]
    assert set(METRICS) <= set(metrics)
    assert metrics[:3] == ["distortion", "distortion_se", "rate"]
    first = next(number for number, column in enumerate(metrics) if column.startswith("train_"))
    assert all(column.startswith("train_") == (number >= first) for number, column in enumerate(metrics))


def test_rows_stand_in_the_order_of_the_grid_and_baselines_after_them(trained):
    rows = tables.read_csv(trained / "results.csv")
    assert [row["run"] for row in rows] == list(range(10))
    assert [(row["name"], row.get("seed")) for row in rows] == [
        *((name, int(seed)) for name in ("ae", "half", "vae") for seed in SEEDS),
        ("pca", None),
    ]
    assert [row["objective.beta"] for row in rows[:9]] == [0.0] * 3 + [0.25] * 3 + [1.0] * 3
    assert {row["optimizer.learning_rate"] for row in rows[:9]} == {0.01}


def test_a_baseline_leaves_empty_what_does_not_apply(trained):
    pca = table(trained)[-1]
    assert {column for column, cell in pca.items() if cell} == {"run", "name", "mse", "knn_accuracy", "train_mse"}


def test_a_deterministic_code_has_no_made_up_numbers(trained):
    for row in table(trained)[:3]:
        assert (row["rate"], row["elbo"], row["train_rate"], row["train_elbo"]) == ("inf", "-inf", "inf", "-inf")
        assert float(row["mean_std"]) == 0
        assert row["elbo_se"] == row["train_elbo_se"] == ""
        assert float(row["distortion_se"]) == 0


def test_the_elbo_is_minus_distortion_and_rate(trained):
    for row in tables.read_csv(trained / "results.csv")[:9]:
        for prefix in ("", "train_"):
            assert row[f"{prefix}elbo"] == -(row[f"{prefix}distortion"] + row[f"{prefix}rate"])


def test_run_returns_the_rows_of_the_table(trained):
    assert study.run(config(), trained, sweep, SWEEPS) == tables.read_csv(trained / "results.csv")


def test_config_json_says_everything_in_strict_json(trained):
    text = (trained / "config.json").read_text()
    described = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert grid.flatten(described["config"]) == grid.flatten(config().to_dict())
    assert [row["name"] for row in described["sweep"]] == ["ae", "half", "vae"]
    assert described["sweeps"] == [["seed", [0, 1, 2]], ["optimizer.learning_rate", [0.01]]]
    assert described["format"] == run_directory.FORMAT
    assert {"jax", "flax", "optax", "numpy", "vae_jax", "python"} <= described["versions"].keys()
    assert described["device"]


def test_metrics_have_one_line_per_chunk_and_run(trained):
    rows = run_directory.read_jsonl(trained / "metrics.jsonl")
    assert [(row["epoch"], row["run"]) for row in rows] == [(epoch, run) for epoch in (0, 1, 2, 3, 4) for run in range(9)]
    for row in rows:
        columns = [f"{split}_{name}" for split in ("train", "valid") for name in ("loss", "distortion", "rate", "mean_std")]
        assert list(row)[:5] == ["run", "name", "seed", "epoch", "step"]
        assert set(columns) <= row.keys()
        assert row["step"] == row["epoch"] * 10  # 1295 images in batches of 128
        infinite = [column for column in columns if not np.isfinite(row[column])]
        assert infinite == (["train_rate", "valid_rate"] if row["name"] == "ae" else [])


def test_metrics_tell_a_point_from_a_distribution(trained):
    """As in results.csv: the std that is really drawn with, and the rate that goes with it."""
    for row in run_directory.read_jsonl(trained / "metrics.jsonl"):
        if row["name"] == "ae":
            assert (row["train_rate"], row["valid_rate"]) == (np.inf, np.inf)
            assert row["train_mean_std"] == row["valid_mean_std"] == 0
        else:
            assert row["valid_mean_std"] > 0


def test_training_does_something(trained):
    rows = run_directory.read_jsonl(trained / "metrics.jsonl")
    assert all(last["train_loss"] < first["train_loss"] for first, last in zip(rows[:9], rows[-9:], strict=True))


def test_runs_differ_from_each_other(trained):
    rows = tables.read_csv(trained / "results.csv")
    assert len({row["distortion"] for row in rows[:9]}) == 9


def test_no_clock_host_or_path_where_numbers_are(trained):
    for name in ("results.csv", "metrics.jsonl"):
        text = (trained / name).read_text()
        assert platform.node() not in text
        assert str(trained) not in text
        assert "time" not in text
        assert "seconds" not in text
    events = run_directory.read_jsonl(trained / "log.jsonl")
    assert [event["event"] for event in events[:2]] == ["trained", "evaluated"]
    assert all({"time", "host", "seconds"} <= event.keys() for event in events)
    assert {event["command"] for event in events} == {shlex.join(sys.orig_argv)}  # with its flags


def test_every_run_has_its_arrays(trained):
    for row in tables.read_csv(trained / "results.csv")[:9]:
        arrays = run_directory.read_arrays(run_directory.arrays_path(trained, row["run"]))
        assert arrays["codes_mean"].shape == arrays["codes_std"].shape == (359, 2)
        assert arrays["labels"].shape == (359,)
        assert arrays["codes_std"].mean(dtype=float) == pytest.approx(row["mean_std"], rel=1e-6)
    assert not run_directory.arrays_path(trained, 9).exists()


def test_nothing_half_written_is_left(trained):
    assert not list(trained.rglob("*.part"))


# The same bits


def test_one_device(trained, tmp_path, monkeypatch):
    mesh, asked = runs.mesh, []
    monkeypatch.setattr(runs, "mesh", lambda count, data=1: asked.append(count) or mesh(1, data))
    assert mesh(9).size == 8  # what `trained` ran on
    assert_same_numbers(train(tmp_path / "one"), trained)
    assert asked


def test_a_run_alone(trained, tmp_path):
    """Run 7 of the grid, `vae` with seed 1, by itself: the same row, the same lines."""
    fields = {"name": "vae", "seed": 1, "optimizer__learning_rate": 0.01, "train__checkpoint_every": 0}
    (alone,) = study.run(tiny(**LINEAR, **fields), tmp_path / "alone")
    inside = tables.read_csv(trained / "results.csv")[7]
    assert list(alone) == [key for key in inside if key not in GRID_KEYS]
    assert alone == {key: inside[key] for key in alone} | {"run": 0}
    lines = [row for row in run_directory.read_jsonl(trained / "metrics.jsonl") if row["run"] == 7]
    assert run_directory.read_jsonl(tmp_path / "alone" / "metrics.jsonl") == [row | {"run": 0} for row in lines]
    (group,) = (tmp_path / "alone" / "checkpoints").iterdir()
    assert [path.name for path in group.iterdir()] == ["4"]  # at the end only


# Again in the same directory


def forbidden(*_, **__):
    raise AssertionError("a finished study is only read")


def test_a_finished_directory_is_only_read(trained, monkeypatch, capsys):
    monkeypatch.setattr(fit, "fit", forbidden)
    monkeypatch.setattr(evaluation, "evaluate", forbidden)
    before = contents(trained)
    study.run(config(), trained, sweep, SWEEPS)
    assert contents(trained) == before
    assert capsys.readouterr() == ("", f"{trained}: all 9 runs are done\n")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"objective__distortion_weight": 2.0}, "objective.distortion_weight is 1.0 there and 2.0 here"),
        # The first key that differs, in the order of the config.
        ({"train__batch_size": 5, "model__latents": 3}, "model.latents is 2 there and 3 here"),
        ({"name": "other"}, "name is vae there and other here"),
    ],
)
def test_a_directory_of_another_config_is_refused(trained, fields, said):
    before = contents(trained)
    with pytest.raises(errors.UserError) as caught:
        study.run(config(**fields), trained, sweep, SWEEPS)
    choice = "choose another directory, or start over by --restart"
    assert str(caught.value) == f"--workdir={trained} belongs to another config: {said}; {choice}"
    assert contents(trained) == before


RATE = "optimizer.learning_rate"


@pytest.mark.parametrize("sweeps", [(("seed", [0, 1, 2]), (RATE, ["1e-2"])), ((RATE, (0.01,)), ("seed", range(3)))])
def test_the_same_runs_told_otherwise_are_the_same(trained, sweeps, monkeypatch):
    """A text or a number, and in whatever order, as long as the runs and their columns are the same."""
    monkeypatch.setattr(fit, "fit", forbidden)
    study.run(config(), trained, sweep, sweeps)


def test_other_versions_get_a_word_only(copy, capsys):
    described = run_directory.read_json(copy / "config.json")
    run_directory.write_json(copy / "config.json", described | {"versions": {"jax": "0.0.1"}})
    study.run(config(), copy, sweep, SWEEPS)
    said, done = capsys.readouterr().err.splitlines()
    assert "other versions" in said
    assert done.endswith("all 9 runs are done")


def test_another_commit_of_the_same_version_is_said(copy, capsys):
    described = run_directory.read_json(copy / "config.json")
    if "commit" not in described:
        pytest.skip("not a checkout")
    run_directory.write_json(copy / "config.json", described | {"commit": "0123456789abcdef"})
    study.run(config(), copy, sweep, SWEEPS)
    said, _ = capsys.readouterr().err.splitlines()
    now = described["commit"][:8]
    assert said == f"{copy}: begun with commit 01234567 of this code, and this is {now}; the numbers may differ"


@pytest.mark.parametrize("text", ["{}", "[]", "3", '{"config": 3}', "{"])
def test_a_damaged_config_json_is_refused(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(errors.UserError):
        study.run(tiny(), tmp_path)
    with pytest.raises(errors.UserError):
        study.evaluate(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "config.json"]


def test_two_processes_do_not_work_in_one_directory(trained):
    with run_directory.locked(trained):
        with pytest.raises(errors.UserError, match="another process"):
            study.run(config(), trained, sweep, SWEEPS)
        with pytest.raises(errors.UserError, match="another process"):
            study.evaluate(trained)


def test_a_mistake_writes_nothing(tmp_path):
    with pytest.raises(errors.UserError):
        study.run(tiny(train__epochs=0), tmp_path / "none")
    assert not (tmp_path / "none").exists()


# Evaluated anew


def test_evaluate_gives_the_same_table(trained, copy):
    (copy / "results.csv").unlink()
    shutil.rmtree(copy / "arrays")
    rows = study.evaluate(copy)
    assert rows == tables.read_csv(trained / "results.csv")
    assert_same_numbers(copy, trained)


def test_an_interrupted_evaluation_is_done_again(trained, copy, monkeypatch):
    (copy / "results.csv").unlink()
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tables, "write_csv", interrupted)
        study.run(config(), copy, sweep, SWEEPS)
    assert not (copy / "results.csv").exists()
    study.run(config(), copy, sweep, SWEEPS)
    assert_same_numbers(copy, trained)


def interrupted(*_):
    raise KeyboardInterrupt


@pytest.mark.parametrize("left", ["2", None])
def test_an_unfinished_directory_is_not_evaluated(copy, left):
    (group,) = (copy / "checkpoints").iterdir()
    shutil.rmtree(group / "4")
    if left is None:
        shutil.rmtree(group)
    before = (copy / "results.csv").read_bytes()
    with pytest.raises(errors.UserError, match=r"its training has not finished; run the same experiments\.train command"):
        study.evaluate(copy)
    assert (copy / "results.csv").read_bytes() == before


def test_no_directory_is_not_evaluated(tmp_path):
    with pytest.raises(errors.UserError, match="no such file; is this a run directory"):
        study.evaluate(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


# Several groups


def test_rows_keep_the_order_of_the_grid_where_groups_take_turns(tmp_path, monkeypatch):
    """Latents turn fastest, and each number of them is a group: rows, lines and arrays must find their run."""

    def trained_by(job, *_):
        return TrainState(0, {}, {}, (), diverged_at=np.full(len(job.labels), -1))

    def evaluated(trained, spec, dataset, progress, plan):
        for seed in trained.seeds:
            yield {"latents": trained.model.latents, "own_seed": int(seed)}, {"seed": np.array(seed)}

    monkeypatch.setattr(fit, "fit", trained_by)
    monkeypatch.setattr(evaluation, "evaluate", evaluated)
    for turn in ("train", "plan"):  # nothing is compiled
        monkeypatch.setattr(ahead.Ahead, turn, lambda *_: None)
    rows = study.run(tiny(), tmp_path, None, [("seed", ["5", "6"]), ("model.latents", ["2", "3"])])
    assert [(row["run"], row["seed"], row["own_seed"], row["model.latents"], row["latents"]) for row in rows] == [
        (0, 5, 5, 2, 2), (1, 5, 5, 3, 3), (2, 6, 6, 2, 2), (3, 6, 6, 3, 3),
    ]  # fmt: skip
    arrays = [run_directory.read_arrays(run_directory.arrays_path(tmp_path, run)) for run in range(4)]
    assert [int(each["seed"]) for each in arrays] == [5, 5, 6, 6]


# Other data


@pytest.fixture(scope="module")
def of_vectors(tmp_path_factory):
    """Seven runs on vectors with factors, without labels and without a validation split, and PCA; read only."""
    folder, generator = tmp_path_factory.mktemp("vectors"), np.random.default_rng(0)
    factors = generator.integers(0, 3, (200, 2))
    vectors = factors / 2 + generator.normal(0, 0.01, (200, 2))
    np.savez(folder / "mine.npz", train=vectors, train_factors=factors, factor_names=["a", "b"])
    wanted = ("bounds", "active_units", "knn_accuracy", "frechet", "udr")
    others = tuple(name for name in evaluation.METRICS if name not in wanted)
    fields = {"data__name": "npz", "data__path": str(folder / "mine.npz"), "data__valid_fraction": 0.0}
    fields |= {"model__likelihood": "gaussian", "optimizer__learning_rate": 0.03, "train__epochs": 20}

    def three_and_one(add):
        """Three seeds of an AE and of a VAE, and one of what is between."""
        for seed in range(3):
            add({"name": "ae", "objective.noise_scale": 0.0, "objective.beta": 0.0, "seed": seed})
            add({"name": "vae", "objective.noise_scale": 1.0, "objective.beta": 1.0, "seed": seed})
        add({"name": "half", "objective.noise_scale": 0.5, "objective.beta": 0.25, "seed": 0})

    return folder / "study", study.run(config(eval__without=others, **fields), folder / "study", three_and_one)


def test_vectors_without_labels_and_without_a_validation_split(of_vectors):
    workdir, rows = of_vectors
    vae, pca = rows[1], rows[-1]
    assert not {"knn_accuracy", "frechet_midpoint"} & vae.keys()
    assert set(METRICS) - vae.keys() == {"knn_accuracy", "frechet_midpoint"}
    assert pca.keys() == {"run", "name", "mse", "train_mse"}
    lines = run_directory.read_jsonl(workdir / "metrics.jsonl")
    assert len(lines) == 7 * 21
    assert not [key for line in lines for key in line if key.startswith("valid_")]
    assert "labels" not in run_directory.read_arrays(run_directory.arrays_path(workdir, 0))


def test_seeds_of_a_setting_are_compared_when_all_are_evaluated(of_vectors):
    workdir, rows = of_vectors
    arrays = [run_directory.read_arrays(run_directory.arrays_path(workdir, row["run"])) for row in rows[:7]]
    for name in ("ae", "vae"):
        members = [number for number, row in enumerate(rows) if row["name"] == name]
        rates = [arrays[number]["rate_per_latent"] if name == "vae" else None for number in members]
        codes = [disentanglement.active(arrays[n]["codes_mean"], rate) for n, rate in zip(members, rates, strict=True)]
        expected = disentanglement.udr(codes).values
        assert len(members) == 3 and max(expected) > 0
        np.testing.assert_allclose([rows[number]["udr"] for number in members], expected, rtol=1e-12)
    assert rows[6]["name"] == "half" and rows[6].get("udr") is None
