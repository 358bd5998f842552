"""Run directories as pandas frames: every cell what was written, in the order of the files."""

import math

import pandas as pd
import pytest

from vae_jax.api import frames
from vae_jax.core import errors
from vae_jax.storage import run_directory, tables

ROWS = [
    {"run": 0, "name": "vae", "seed": 3, "objective.beta": 0.5, "model.hidden": (8, 4), "rate": 2.5, "elbo": -1e-300},
    {"run": 1, "name": "1", "seed": 4, "objective.beta": 0.0, "diverged": 7, "rate": math.inf, "elbo": -math.inf},
    {"run": 2, "name": "pca", "rate": 3},
]
LINES = [
    {"run": run, "name": name, "seed": run + 3, "epoch": epoch, "step": 10 * epoch, "train_rate": rate}
    for epoch, rate in ((1, 4.0), (2, math.inf))
    for run, name in ((0, "vae"), (1, "1"))
]


@pytest.fixture
def workdir(tmp_path):
    tables.write_csv(tmp_path / "results.csv", ROWS)
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", LINES)
    return tmp_path


def test_a_row_for_each_run(workdir):
    frame = frames.frame(workdir)
    columns = ["run", "name", "seed", "objective.beta", "model.hidden", "rate", "elbo", "diverged"]
    assert list(frame.columns) == columns
    assert frame["run"].tolist() == [0, 1, 2]
    assert frame["name"].tolist() == ["vae", "1", "pca"]
    assert frame["seed"].tolist() == [3, 4, pd.NA]
    assert frame["rate"].tolist() == [2.5, math.inf, 3.0]
    assert frame["elbo"].tolist()[:2] == [-1e-300, -math.inf]
    assert frame["objective.beta"].tolist()[:2] == [0.5, 0.0]
    assert frame["model.hidden"].tolist()[0] == "(8,4)"
    assert frame.isna().sum().to_dict() == dict.fromkeys(columns, 0) | {
        "seed": 1, "objective.beta": 1, "model.hidden": 2, "elbo": 1, "diverged": 2,
    }  # fmt: skip
    assert [str(frame[column].dtype) for column in ("run", "seed", "diverged", "rate", "elbo", "objective.beta")] == [
        *3 * ["Int64"],
        *3 * ["float64"],
    ]


def test_a_row_for_each_chunk_and_run_with_its_settings(workdir):
    curves = frames.curves(workdir)
    assert list(curves.columns) == ["run", "name", "seed", "epoch", "step", "objective.beta", "model.hidden", "train_rate"]
    assert curves["epoch"].tolist() == [1, 1, 2, 2]
    assert curves["run"].tolist() == [0, 1, 0, 1]
    assert curves["objective.beta"].tolist() == [0.5, 0.0, 0.5, 0.0]
    assert curves["train_rate"].tolist() == [4.0, 4.0, math.inf, math.inf]
    assert str(curves["train_rate"].dtype) == "float64"
    assert str(curves["step"].dtype) == "Int64"


def test_curves_of_a_study_that_is_not_finished_have_no_settings(workdir):
    (workdir / "results.csv").unlink()
    assert list(frames.curves(workdir).columns) == ["run", "name", "seed", "epoch", "step", "train_rate"]
    with pytest.raises(errors.UserError, match=r"results\.csv: no such file"):
        frames.frame(workdir)


@pytest.mark.parametrize("content", [None, ""])
def test_no_metrics_are_told(tmp_path, content):
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(errors.UserError, match=r"metrics\.jsonl: no such file, or an empty one"):
        frames.curves(tmp_path)
