"""The run directory's files: what is written is read back, nothing is ever half there, and the summary's arithmetic."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.storage import results

ROWS = [
    {"run": 0, "name": "vae", "objective.beta": 0.1, "rate": 2.5, "elbo": -1e-300, "knn_accuracy": 1 / 3},
    {"run": 1, "name": "ae", "objective.beta": 0.0, "rate": math.inf, "elbo": -math.inf, "elbo_se": None, "late": 7},
    {"run": 2, "name": "pca"},
]


def no_constants(name):
    raise AssertionError(f"{name} is not JSON")


# JSON


def test_json_is_strict_and_infinities_are_strings(tmp_path):
    path = tmp_path / "config.json"
    value = {
        "a": [math.inf, -math.inf, math.nan, 0.1],
        "b": {"c": (1, True, None, "x")},
        "d": np.float32(0.5),
        "e": np.int64(3),
    }
    results.write_json(path, value)
    parsed = json.loads(path.read_text(), parse_constant=no_constants)
    assert parsed == {"a": ["inf", "-inf", "nan", 0.1], "b": {"c": [1, True, None, "x"]}, "d": 0.5, "e": 3}
    assert results.read_json(path) == parsed


def test_json_lines_are_appended_and_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = results.append_jsonl(path, [{"run": 0, "loss": 0.1}, {"run": 1, "loss": math.inf}])
    assert size == path.stat().st_size
    assert results.append_jsonl(path, [{"run": 0, "loss": -math.inf, "name": "ä"}]) == path.stat().st_size > size
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=no_constants)
    assert results.read_jsonl(path) == [
        {"run": 0, "loss": 0.1},
        {"run": 1, "loss": math.inf},
        {"run": 0, "loss": -math.inf, "name": "ä"},
    ]


def test_nan_comes_back_from_json_lines(tmp_path):
    results.append_jsonl(tmp_path / "m.jsonl", [{"loss": np.float32("nan")}])
    (row,) = results.read_jsonl(tmp_path / "m.jsonl")
    assert math.isnan(row["loss"])


def test_truncate_forgets_the_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = results.append_jsonl(path, [{"run": 0}])
    results.append_jsonl(path, [{"run": 1}, {"run": 2}])
    results.truncate(path, size)
    assert results.read_jsonl(path) == [{"run": 0}]
    results.truncate(path, 0)
    assert path.read_bytes() == b""


def test_truncate_of_a_file_that_never_was(tmp_path):
    results.truncate(tmp_path / "metrics.jsonl", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("content", [None, "", '{"run": 0}\n'])
def test_truncate_fills_nothing_up(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.UserError, match="where the checkpoint saw 100"):
        results.truncate(path, 100)
    assert (path.read_text() if path.exists() else None) == content


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\xff\xfe", 100_000 * "["])
def test_damaged_json_is_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError, match="not valid JSON") as caught:
        results.read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"a"', "[1]", "3", "null", 100_000 * "["])
def test_damaged_json_lines_are_one_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n' + line)
    with pytest.raises(errors.UserError, match="not valid JSON lines"):
        results.read_jsonl(path)


def test_missing_files_ask_whether_this_is_a_run_directory(tmp_path):
    with pytest.raises(errors.UserError, match="no such file; is this a run directory"):
        results.read_json(tmp_path / "config.json")
    with pytest.raises(errors.UserError, match="no such file; is this the directory of a finished study"):
        results.read_csv(tmp_path / "results.csv")


# CSV


def test_csv_is_written_as_the_contract_says(tmp_path):
    path = tmp_path / "results.csv"
    results.write_csv(path, ROWS)
    assert path.read_bytes().decode() == (
        "run,name,objective.beta,rate,elbo,knn_accuracy,elbo_se,late\n"
        f"0,vae,0.1,2.5,-1e-300,{1 / 3!r},,\n"
        "1,ae,0.0,inf,-inf,,,7\n"
        "2,pca,,,,,,\n"
    )


def test_csv_comes_back_bit_for_bit_without_what_does_not_apply(tmp_path):
    path = tmp_path / "results.csv"
    results.write_csv(path, ROWS)
    read = results.read_csv(path)
    assert read == [{key: value for key, value in row.items() if value is not None} for row in ROWS]
    assert [type(read[0][key]) for key in ("run", "name", "rate")] == [int, str, float]
    results.write_csv(tmp_path / "again.csv", read)
    assert (tmp_path / "again.csv").read_text().splitlines()[1] == path.read_text().splitlines()[1].removesuffix(",")


@pytest.mark.parametrize("value", [0.1, 1e-45, 123456789.123456789, float(np.float32(0.1)), -0.0])
def test_csv_keeps_every_bit_of_a_float(tmp_path, value):
    results.write_csv(tmp_path / "r.csv", [{"run": 0, "name": "vae", "x": value}])
    (row,) = results.read_csv(tmp_path / "r.csv")
    assert np.float64(row["x"]).tobytes() == np.float64(value).tobytes()


def test_csv_keeps_commas_and_quotes(tmp_path):
    row = {"run": 0, "model.hidden": (64, 32), "name": 'a "b", c', "x": np.float32(0.5)}
    results.write_csv(tmp_path / "r.csv", [row])
    assert results.read_csv(tmp_path / "r.csv") == [row | {"model.hidden": "(64,32)"}]


@pytest.mark.parametrize("text", ["nan", "inf", "1_000", "12", "1e3", "0.10", " 1", "+1", "01", "1.", "\u0663"])
def test_a_name_is_never_a_number_and_a_setting_only_as_we_write_one(tmp_path, text):
    results.write_csv(tmp_path / "r.csv", [{"run": 0, "name": text, "data.path": text}])
    (row,) = results.read_csv(tmp_path / "r.csv")
    assert row["name"] == text
    assert str(row["data.path"]) == text  # written again it is the same


@pytest.mark.parametrize(
    "text",
    [
        "run,name\n1\n",
        "run,name\n1,2,3\n",
        'run,name\n1,"2',
        "run,name\n1,\xff\n",
        "",
        "name,elbo\nvae,1\n",
        "run,elbo\n0,1\n",
        "run,name,elbo,elbo\n0,vae,1,2\n",
        "run,name\n,vae\n",
        "run,name\n0,\n",
        "run,name\n0.5,vae\n",
        "run,name\none,vae\n",
        "run,name,seed\n0,vae,x\n",
        "run,name,elbo\n0,vae,n/a\n",
        "run,name,diverged\n0,vae,yes\n",
    ],
)
def test_damaged_csv_is_one_line(tmp_path, text):
    path = tmp_path / "results.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError) as caught:
        results.read_csv(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


# Arrays


def test_arrays_come_back(tmp_path):
    path = results.arrays_path(tmp_path, 7)
    assert path == tmp_path / "arrays" / "run_0007.npz"
    arrays = {"codes_mean": np.array([[0.1, -np.inf], [np.nan, 1e-40]], np.float32), "labels": np.arange(3)}
    results.write_arrays(path, arrays)
    read = results.read_arrays(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_damaged_arrays_are_one_line(tmp_path, keep):
    path = results.arrays_path(tmp_path, 0)
    results.write_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(errors.UserError, match=r"not a readable \.npz"):
        results.read_arrays(path)


def test_pickles_are_neither_written_nor_read(tmp_path):
    path = results.arrays_path(tmp_path, 0)
    with pytest.raises(ValueError, match="pickle"):
        results.write_arrays(path, {"a": np.array([{}], object)})
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(errors.UserError):
        results.read_arrays(path)


# Never half there

WRITERS = {
    "config.json": (results.write_json, {"a": 1}, {"a": object()}),
    "results.csv": (results.write_csv, [{"a": 1}], [{"a": 1}, {"a": "\ud800"}]),
    "arrays.npz": (results.write_arrays, {"a": np.arange(3)}, {"a": np.arange(3), "b": np.array([{}], object)}),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_write_that_fails_leaves_the_old_file(tmp_path, name):
    write, good, bad = WRITERS[name]
    path = tmp_path / name
    write(path, good)
    before = path.read_bytes()
    with pytest.raises((TypeError, ValueError)):
        write(path, bad)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", WRITERS)
def test_a_file_is_never_seen_half_written(tmp_path, name, monkeypatch):
    write, good, _ = WRITERS[name]
    path = tmp_path / name
    path.write_bytes(b"old")
    renamed = []

    def replace(source, target):
        assert path.read_bytes() == b"old"
        renamed.append((source.read_bytes(), target))

    monkeypatch.setattr(results.os, "replace", replace)
    write(path, good)
    ((content, target),) = renamed
    assert target == path
    assert content
    monkeypatch.undo()
    write(path, good)
    assert path.read_bytes() == content
    assert [found.name for found in tmp_path.iterdir()] == [name]


# The lock

HOLD = """
import sys, pathlib
from vae_jax.storage import results
with results.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_lock_refuses_a_second_holder_and_is_released(tmp_path):
    with results.locked(tmp_path), pytest.raises(errors.UserError, match="another process is working there"):
        results.locked(tmp_path).__enter__()
    with results.locked(tmp_path):
        pass


def test_the_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), results.locked(tmp_path):
        raise KeyboardInterrupt
    with results.locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(errors.UserError, match="another process"), results.locked(tmp_path):
            pass
        process.kill()
    with results.locked(tmp_path):
        pass


# Means over seeds

STUDY = [
    {"run": 0, "name": "vae", "seed": 0, "objective.beta": 1.0, "rate": 1.0, "mse": 0.1},
    {"run": 1, "name": "vae", "seed": 1, "objective.beta": 1.0, "rate": 2.0, "mse": 0.3},
    {"run": 2, "name": "vae", "seed": 2, "objective.beta": 1.0, "rate": 6.0, "mse": 0.2},
    {"run": 3, "name": "ae", "seed": 0, "objective.beta": 0.0, "rate": math.inf, "mse": 0.05},
    {"run": 4, "name": "ae", "seed": 1, "objective.beta": 0.0, "rate": math.inf, "mse": 0.05},
    {"run": 5, "name": "pca", "mse": 0.5},
]


def test_spread_by_hand():
    mean, error = results.spread([1.0, 2.0, 6.0])
    assert mean == 3.0
    assert error == pytest.approx(math.sqrt((4 + 1 + 9) / 2 / 3))


def test_spread_of_one_or_of_infinities_has_no_error():
    assert results.spread([2.0])[0] == 2.0
    assert math.isnan(results.spread([2.0])[1])
    mean, error = results.spread([math.inf, math.inf])
    assert mean == math.inf
    assert math.isnan(error)


def test_varying_keys_tell_rows_of_one_name_apart():
    assert results.grid_keys(STUDY) == ["objective.beta"]
    assert results.varying_keys(STUDY) == []  # the name tells
    grid = [row | {"name": "vae", "model.latents": 2} for row in STUDY]
    assert results.varying_keys(grid) == ["objective.beta"]
    assert results.grid_keys(grid) == ["objective.beta", "model.latents"]


def test_grouped_keeps_order():
    groups = results.grouped(STUDY, ["name"])
    assert [(key, [row["run"] for row in rows]) for key, rows in groups.items()] == [
        (("vae",), [0, 1, 2]),
        (("ae",), [3, 4]),
        (("pca",), [5]),
    ]


def test_the_summary_by_hand():
    assert [line.split() for line in results.summary(STUDY).splitlines()] == [
        ["name", "seeds", "rate", "mse"],
        ["vae", "3", "3.000", "±1.528", "0.2000", "±0.0577"],
        ["ae", "2", "inf", "0.0500", "±0.0000"],
        ["pca", "0.5000"],
    ]


def test_the_summary_shows_what_varies():
    rows = [
        {"run": run, "name": "b", "seed": 0, "objective.beta": beta, "model.latents": 2, "rate": beta}
        for run, beta in enumerate([0.5, 2.0])
    ]
    lines = [line.split() for line in results.summary(rows).splitlines()]
    assert lines == [["name", "objective.beta", "seeds", "rate"], ["b", "0.5", "1", "0.500"], ["b", "2", "1", "2.000"]]


def test_the_summary_has_the_exact_values_where_there_is_a_closed_form():
    rows = [
        {"run": 0, "name": "linear", "seed": 0, "elbo": 6.5, "importance_bound": 6.75, "sigma": 0.25, "train_elbo": 6.84294},
        {"run": 1, "name": "ppca", "elbo": 6.5, "importance_bound": 6.5, "sigma": 0.25, "train_elbo": 6.84354},
    ]
    assert [line.split() for line in results.summary(rows).splitlines()] == [
        ["name", "seeds", "elbo", "importance_bound", "train_elbo", "sigma"],
        ["linear", "1", "6.50", "6.75", "6.8429", "0.2500"],
        ["ppca", "6.50", "6.50", "6.8435", "0.2500"],
    ]
    assert results.summary(rows[:1]).split() == ["name", "seeds", "elbo", "importance_bound", "linear", "1", "6.50", "6.75"]


def test_a_diverged_run_is_in_no_mean():
    rows = [row | ({"diverged": 40, "rate": math.nan} if row["run"] in (2, 3, 4) else {}) for row in STUDY]
    assert [" ".join(line.split()) for line in results.summary(rows).splitlines()[1:3]] == [
        "vae 2 1.500 ±0.500 0.2000 ±0.1000 seed 2 diverged at step 40",
        "ae 0 seed 0 diverged at step 40, seed 1 diverged at step 40",
    ]
    assert results.summary(rows[3:4]).endswith("  diverged at step 40")
    assert results.diverged(STUDY) == ""
    assert results.diverged(rows) == (
        "3 of 6 runs diverged: run 2 (vae, objective.beta=1.0) at step 40; run 3 (ae, objective.beta=0.0) at step 40; "
        "run 4 (ae, objective.beta=0.0) at step 40"
    )
    many = [rows[2] | {"run": run} for run in range(9)]
    assert results.diverged(many).endswith("; run 4 (vae, objective.beta=1.0) at step 40; 4 more")


def test_the_columns_of_the_summary_stand_under_each_other():
    lines = results.summary(STUDY).splitlines()
    assert [line.find(cell) for line, cell in zip(lines, ("mse", "0.2000", "0.0500", "0.5000"), strict=True)] == [
        lines[0].index("mse")
    ] * 4
