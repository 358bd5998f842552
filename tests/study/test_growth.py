"""A study that grows: what was there stays bit for bit, what is new is as if it had been there from the start."""

import pathlib
import shutil

import jax
import numpy as np
import pytest
from support import LINEAR, ROOT, SMALL, tiny

from vae_jax.api import pages
from vae_jax.core import errors
from vae_jax.evaluation import config as sets
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.figures import draw
from vae_jax.storage import run_directory, tables
from vae_jax.study import grid, study
from vae_jax.system import memory
from vae_jax.training import loop

pytestmark = pytest.mark.usefixtures("one_run_at_a_time")
BETAS = ("objective.beta", ("0.5", "1"))
ALL_TOGETHER = memory.halving


def small(**fields):
    """Two epochs on small vectors, with checkpoints and a constant learning rate; hardly evaluated."""
    config = tiny(name="vae", baselines=("pca",), **LINEAR)
    kept = {key: value for key, value in SMALL.items() if key not in ("model.hidden",)}
    config.update_from_flattened_dict(
        kept
        | {
            "train.epochs": 2,
            "optimizer.schedule": "constant",
            "eval.calibration_samples": 0,
            "eval.aggregate_samples": 0,
            "eval.decoded": 0,
        }
    )
    config.update_from_flattened_dict({key.replace("__", "."): value for key, value in fields.items()})
    return config


def seeds(count: int) -> tuple[str, list[str]]:
    return "seed", [str(seed) for seed in range(count)]


@pytest.fixture(scope="module", autouse=True)
def in_the_checkout():
    """Where the data lie."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        yield


@pytest.fixture(scope="module")
def begun(in_the_checkout, tmp_path_factory):
    """Two seeds at one beta; read only."""
    workdir = tmp_path_factory.mktemp("growth") / "begun"
    study.run(small(), workdir, None, [seeds(2), ("objective.beta", ["1"])])
    return workdir


@pytest.fixture
def workdir(begun, tmp_path):
    return pathlib.Path(shutil.copytree(begun, tmp_path / "grown"))


def cells(workdir) -> dict[tuple, dict[str, str]]:
    """The rows of the trained runs as they are written, by name, beta and seed, without their number."""
    rows = [row for row in tables.read_cells(workdir / "results.csv") if "seed" in row]
    return {(row["name"], row["objective.beta"], row["seed"]): row | {"run": ""} for row in rows}


def files(workdir) -> dict[str, bytes]:
    """Checkpoints, arrays and models."""
    below = [path for name in ("checkpoints", "arrays", "models") for path in (workdir / name).rglob("*")]
    return {str(path.relative_to(workdir)): path.read_bytes() for path in below if path.is_file()}


def lines(workdir) -> dict[tuple, dict]:
    return {
        (row["run"], row["epoch"]): {key: value for key, value in row.items() if key != "run"}
        for row in run_directory.read_metrics(workdir)
    }


def params(workdir, planned, number: int):
    """The final state of a run, from the checkpoint of its group."""
    index, group = next((index, group) for index, group in enumerate(planned.groups) if number in group.numbers)
    directory = workdir / "checkpoints" / f"group_{index:03d}"
    saved = loop.load(group.spec, group.hyperparams, group.dataset, directory)
    return [np.asarray(leaf)[group.numbers.index(number)].tobytes() for leaf in jax.tree.leaves(saved.state)]


def test_a_study_without_metrics_is_drawn_and_told_and_its_table_can_be_filled_later(begun, workdir, capsys):
    sweeps = [seeds(2), ("objective.beta", ["1"])]
    config = small(**sets.overrides("none"))
    rows = study.run(config, workdir, None, sweeps)
    assert capsys.readouterr().err.splitlines()[-1].startswith("evaluation: 2 runs in ")
    metrics = {"mse", "train_mse"}  # of the closed form
    assert [{key for key in row if "." not in key} for row in rows] == [{"run", "name", "seed"}] * 2 + [
        {"run", "name"} | metrics
    ]
    assert study.summary(rows).splitlines()[1].split() == ["vae", "2"]
    assert study.best(rows) == ""
    assert {path.stem for path in draw.draw(workdir)} == {"learning_curves", "posterior_std"}
    assert "vae" in pages.report(workdir).read_text()
    study.run(small(), workdir, None, sweeps)
    assert cells(workdir) == cells(begun)
    assert files(workdir) == files(begun)


# New seeds and values


def test_new_seeds_and_values_are_appended_and_nothing_else_changes(begun, workdir, tmp_path, monkeypatch, capsys):
    with monkeypatch.context() as patch:
        # As many runs in a program as are new, here alone: their bits do not depend on that.
        patch.setattr(memory, "halving", ALL_TOGETHER)
        rows = study.run(small(), workdir, None, [seeds(3), BETAS])
    assert capsys.readouterr().err.splitlines()[0] == f"{workdir}: 2 runs are there, 4 are new"
    # What was there: rows, arrays, parameters, lines.
    before = files(begun)
    assert {name: content for name, content in files(workdir).items() if name in before} == before
    assert cells(begun).items() <= cells(workdir).items()
    assert lines(begun).items() <= lines(workdir).items()
    assert (workdir / "metrics.jsonl").read_bytes().startswith((begun / "metrics.jsonl").read_bytes())
    # What is new is what it is in a study that had it from the start.
    study.run(small(), tmp_path / "whole", None, [seeds(3), BETAS])
    assert cells(workdir) == cells(tmp_path / "whole")
    assert [row["run"] for row in rows] == list(range(7))
    assert [(row["seed"], row["objective.beta"]) for row in rows[:6]] == [
        (0, 1),
        (1, 1),
        (0, 0.5),
        (1, 0.5),
        (2, 0.5),
        (2, 1),
    ]
    whole, grown = study.read(tmp_path / "whole"), study.read(workdir)
    for number, run in enumerate(grown.runs):
        there = next(place for place, other in enumerate(whole.runs) if other.config == run.config)
        assert params(workdir, grown, number) == params(tmp_path / "whole", whole, there)
        ours, theirs = (
            run_directory.read_arrays(run_directory.arrays_path(*of))
            for of in ((workdir, number), (tmp_path / "whole", there))
        )
        assert {key: array.tobytes() for key, array in ours.items()} == {
            key: array.tobytes() for key, array in theirs.items()
        }
    # The closed form stands after all of them, as in the other table.
    pca = [
        [row | {"run": 0} for row in tables.read_cells(where / "results.csv") if row["name"] == "pca"]
        for where in (workdir, tmp_path / "whole")
    ]
    assert pca[0] == pca[1]
    assert len(pca[0]) == 1


def test_a_field_that_the_first_command_did_not_sweep(begun, workdir):
    """The run that is there is the one with the config's value; its row gets the new column."""
    study.run(small(), workdir, None, [seeds(2), ("objective.beta", ["1"]), ("model.latents", ["3", "2"])])
    rows = tables.read_csv(workdir / "results.csv")
    places = [(3, 0), (3, 1), (2, 0), (2, 1), (3, None), (2, None)]
    assert [(row["model.latents"], row.get("seed")) for row in rows] == places
    assert files(begun).items() <= files(workdir).items()
    before = [row for row in tables.read_cells(begun / "results.csv") if "seed" in row]
    after = tables.read_cells(workdir / "results.csv")
    assert all(row.items() <= same.items() for row, same in zip(before, after, strict=False))


def test_a_value_that_is_no_longer_in_the_sweep_stays(begun, workdir, capsys):
    study.run(small(), workdir, None, [("seed", ["1", "2"]), ("objective.beta", ["1"])])
    said = capsys.readouterr().err.splitlines()
    assert said[:2] == [f"{workdir}: 2 runs are there, 1 is new", f"{workdir}: 1 run no longer in the sweep stays"]
    assert [row.get("seed") for row in tables.read_csv(workdir / "results.csv")] == [0, 1, 2, None]
    study.run(small(), workdir, None, [("seed", ["2"]), ("objective.beta", ["1"])])
    said = capsys.readouterr().err.splitlines()
    assert said == [f"{workdir}: 2 runs no longer in the sweep stay", f"{workdir}: all 3 runs are done"]


def test_a_command_that_saved_nothing_leaves_nothing(begun, workdir, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(loop, "fit", interrupted)
        study.run(small(), workdir, None, [seeds(9), ("objective.beta", ["1"])])
    assert len(study.read(workdir).runs) == 9
    assert cells(workdir) == cells(begun)
    study.run(small(), workdir, None, [seeds(2), ("objective.beta", ["1"])])
    assert len(study.run(small(), workdir, None, [seeds(3), ("objective.beta", ["1"])])) == 4
    assert len(study.read(workdir).runs) == 3


def interrupted(*_, **__):
    raise KeyboardInterrupt


@pytest.fixture(scope="module")
def grown_by_two(begun, tmp_path_factory):
    """`begun` with two seeds more, never interrupted; read only."""
    whole = pathlib.Path(shutil.copytree(begun, tmp_path_factory.mktemp("growth") / "whole"))
    study.run(small(), whole, None, [seeds(4), ("objective.beta", ["1"])])
    return whole


@pytest.mark.parametrize("where", ["training", "evaluation", "table"])
def test_interrupted_while_growing(grown_by_two, workdir, monkeypatch, where):
    """The same command again ends in the same bits as one that was not interrupted."""
    sweeps, whole = [seeds(4), ("objective.beta", ["1"])], grown_by_two
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        module, name = {
            "training": (loop.checkpoints, "save"),
            "evaluation": (run_directory, "write_arrays"),
            "table": (tables, "write_csv"),
        }[where]
        patch.setattr(module, name, interrupted)
        study.run(small(), workdir, None, sweeps)
    study.run(small(), workdir, None, sweeps)
    for name in ("results.csv", "metrics.jsonl", "config.json"):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name
    digests = [{key: value for key, value in files(each).items() if "checkpoints" not in key} for each in (workdir, whole)]
    assert digests[0] == digests[1]
    planned = study.read(workdir)
    assert all(params(workdir, planned, number) == params(whole, planned, number) for number in range(4))


def test_it_grows_only_on_the_data_it_began_with(tmp_path):
    arrays = dict(np.load("tests/data/vectors.npz"))
    np.savez(tmp_path / "mine.npz", **arrays)
    mine = {"data__path": str(tmp_path / "mine.npz")}
    study.run(small(**mine), tmp_path / "run")
    np.savez(tmp_path / "mine.npz", **arrays | {"test": arrays["test"] + 1})
    before = (tmp_path / "run" / "config.json").read_bytes()
    said = (
        rf"--workdir={tmp_path}/run: the data of data.name=npz, data.path={tmp_path}/mine.npz are not those that the study"
    )
    for again in (
        lambda: study.run(small(**mine), tmp_path / "run", None, [seeds(2)]),
        lambda: study.evaluate(tmp_path / "run"),
    ):
        with pytest.raises(errors.UserError, match=said):
            again()
    with pytest.raises(errors.UserError, match=said):
        study.run(small(**mine), tmp_path / "run")
    assert (tmp_path / "run" / "config.json").read_bytes() == before


# Evaluated anew


@pytest.fixture(scope="module")
def with_three_samples(in_the_checkout, tmp_path_factory):
    """The table of a study like `begun` that was evaluated otherwise from the start."""
    whole = tmp_path_factory.mktemp("growth") / "three"
    study.run(small(eval__samples=3), whole, None, [seeds(2), ("objective.beta", ["1"])])
    return (whole / "results.csv").read_bytes()


@pytest.mark.parametrize("command", ["evaluate", "train"])
def test_other_evaluation_settings(begun, workdir, with_three_samples, command, capsys):
    sweeps = [seeds(2), ("objective.beta", ["1"])]
    if command == "evaluate":
        study.evaluate(workdir, {"eval.samples": "3"})
    else:
        study.run(small(eval__samples=3), workdir, None, sweeps)
    assert (workdir / "results.csv").read_bytes() == with_three_samples
    described = run_directory.read_json(workdir / "config.json")
    assert described["evaluated"]["samples"] == described["config"]["eval"]["samples"] == 3
    assert "eval.samples is 2 there and 3 here" in capsys.readouterr().err
    assert {name: content for name, content in files(workdir).items() if "checkpoints" in name} == {
        name: content for name, content in files(begun).items() if "checkpoints" in name
    }


def test_a_set_of_evaluation_and_back(begun, workdir):
    """Columns that a set leaves out are empty, and come back as they were; what is typed wins."""
    bare = study.evaluate(workdir, None, "none")
    assert [set(row) for row in bare[:2]] == [{"run", "name", "seed", "objective.beta"}] * 2
    full = grid.flatten(small().to_dict())
    study.evaluate(workdir, {"eval.without": ()}, "full", full)
    assert cells(workdir) == cells(begun)
    assert files(workdir) == files(begun)


@pytest.mark.parametrize("name", ["none", "quick"])
def test_full_takes_back_what_a_set_changed_and_nothing_else(name):
    before = grid.flatten(small(eval__samples=3, eval__ais_images=7).to_dict())
    after = before | sets.overrides(name)
    assert sets.changed(name, before, before) == sets.overrides(name)
    assert after | sets.changed("full", after, before) == before
    mine = after | {"eval.samples": 5, "eval.batch_size": 6}
    assert mine | sets.changed("full", mine, before) == before | {"eval.samples": 5, "eval.batch_size": 6}


def test_a_new_evaluation_that_is_interrupted_is_done_again(begun, workdir, monkeypatch):
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(tables, "write_csv", interrupted)
        study.evaluate(workdir, {"eval.samples": 3})
    assert run_directory.read_json(workdir / "config.json")["evaluated"] is None
    study.run(small(), workdir, None, [seeds(2), ("objective.beta", ["1"])])
    assert cells(workdir) == cells(begun)
    assert files(workdir) == files(begun)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seed": 1}, "--config.seed: is of the training; only eval fields can be changed here"),
        ({"eval.sample": 1}, "unknown config name 'eval.sample': did you mean eval.samples"),
        ({"eval.samples": 0}, "eval.samples=0: should be from 1"),
        ({"eval.samples": "x"}, "eval.samples=x: should be a whole number"),
    ],
)
def test_what_cannot_be_evaluated(begun, changes, said):
    before = (begun / "config.json").read_bytes()
    with pytest.raises(errors.UserError, match=said.replace("(", r"\(")):
        study.evaluate(begun, changes)
    assert (begun / "config.json").read_bytes() == before


# More epochs


def test_more_epochs_end_in_the_bits_of_a_longer_run(workdir, tmp_path, capsys):
    sweeps = [seeds(3), BETAS]
    study.run(small(train__epochs=4), workdir, None, sweeps)
    assert "vae (2 runs): goes on from epoch 2 of 4" in capsys.readouterr().err
    study.run(small(train__epochs=4), tmp_path / "whole", None, sweeps)
    assert cells(workdir) == cells(tmp_path / "whole")
    grown, whole = study.read(workdir), study.read(tmp_path / "whole")
    for number, run in enumerate(grown.runs):
        there = next(place for place, other in enumerate(whole.runs) if other.config == run.config)
        assert params(workdir, grown, number) == params(tmp_path / "whole", whole, there)
    by_settings = [
        sorted(
            ((planned.runs[run].seed, planned.runs[run].config["objective.beta"]), epoch, line)
            for (run, epoch), line in lines(where).items()
        )
        for where, planned in ((workdir, grown), (tmp_path / "whole", whole))
    ]
    assert str(by_settings[0]) == str(by_settings[1])


def test_longer_and_interrupted(workdir, tmp_path, monkeypatch):
    """Of two groups, at any save: no line is lost, none is there twice."""
    study.run(small(), workdir, None, [seeds(2), BETAS])
    whole = pathlib.Path(shutil.copytree(workdir, tmp_path / "whole"))
    study.run(small(train__epochs=4), whole, None, [seeds(2), BETAS])
    save, count = loop.checkpoints.save, [0]

    def every_other(*arguments):
        count[0] += 1
        if count[0] % 2:
            raise KeyboardInterrupt
        save(*arguments)

    while True:
        with monkeypatch.context() as patch:
            patch.setattr(loop.checkpoints, "save", every_other)
            try:
                study.run(small(train__epochs=4), workdir, None, [seeds(2), BETAS])
                break
            except KeyboardInterrupt:
                assert count[0] < 20
    for name in ("results.csv", "metrics.jsonl", "config.json"):
        assert (workdir / name).read_bytes() == (whole / name).read_bytes(), name


@pytest.mark.parametrize(
    ("fields", "longer", "said"),
    [
        ({"optimizer__schedule": "cosine"}, 4, "optimizer.schedule=cosine makes each step depend on how many there are"),
        ({}, 1, "train.epochs is 2 there and 1 here, and what was trained cannot be shortened"),
    ],
)
def test_epochs_that_are_refused(tmp_path, fields, longer, said):
    study.run(small(**fields), tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(errors.UserError, match=said):
        study.run(small(**fields, train__epochs=longer), tmp_path / "run")
    assert files(tmp_path / "run") == before


def test_epochs_that_the_grid_sets_are_runs_of_their_own(tmp_path):
    study.run(small(), tmp_path / "run", None, [("train.epochs", ["1", "2"])])
    rows = study.run(small(), tmp_path / "run", None, [("train.epochs", ["1", "2", "3"])])
    assert [row.get("train.epochs") for row in rows] == [1, 2, 3, None]
    # The config's own number is hidden by the sweep: it may be another.
    study.run(small(train__epochs=7), tmp_path / "run", None, [("train.epochs", ["1", "2", "3"])])


def test_runs_that_more_epochs_would_make_equal(tmp_path):
    study.run(small(), tmp_path / "run")
    study.run(small(), tmp_path / "run", None, [("train.epochs", ["2", "4"])])
    with pytest.raises(errors.UserError, match=r"with train\.epochs=4 some of its runs would be others, or equal"):
        study.run(small(train__epochs=4), tmp_path / "run")


# The directory of another study


@pytest.mark.parametrize(("fields", "said"), [({"objective__beta": 2.0}, "objective.beta is 1.0 there and 2.0 here")])
def test_what_the_sweep_does_not_set_cannot_change(begun, fields, said):
    with pytest.raises(errors.UserError, match=said):
        study.run(small(**fields), begun, None, [seeds(3)])


def test_a_finished_study_is_not_evaluated_again(begun, monkeypatch):
    monkeypatch.setattr(evaluation, "evaluate", interrupted)
    monkeypatch.setattr(loop, "load", interrupted)
    study.run(small(), begun, None, [seeds(2), ("objective.beta", ["1"])])


# Seen from Python


def test_a_callback_gets_what_metrics_jsonl_gets(tmp_path):
    seen = []
    study.run(small(), tmp_path / "run", None, [seeds(2)], on_chunk=seen.extend)
    assert seen == run_directory.read_metrics(tmp_path / "run")
