"""The run directory's files: what is written is read back, and nothing is ever half there."""

import json
import math
import subprocess
import sys

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.storage import run_directory, tables


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
    run_directory.write_json(path, value)
    parsed = json.loads(path.read_text(), parse_constant=no_constants)
    assert parsed == {"a": ["inf", "-inf", "nan", 0.1], "b": {"c": [1, True, None, "x"]}, "d": 0.5, "e": 3}
    assert run_directory.read_json(path) == parsed


def test_json_lines_are_appended_and_read_back(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = run_directory.append_jsonl(path, [{"run": 0, "loss": 0.1}, {"run": 1, "loss": math.inf}])
    assert size == path.stat().st_size
    assert run_directory.append_jsonl(path, [{"run": 0, "loss": -math.inf, "name": "ä"}]) == path.stat().st_size > size
    for line in path.read_text().splitlines():
        json.loads(line, parse_constant=no_constants)
    assert run_directory.read_jsonl(path) == [
        {"run": 0, "loss": 0.1},
        {"run": 1, "loss": math.inf},
        {"run": 0, "loss": -math.inf, "name": "ä"},
    ]


def test_nan_comes_back_from_json_lines(tmp_path):
    run_directory.append_jsonl(tmp_path / "m.jsonl", [{"loss": np.float32("nan")}])
    (row,) = run_directory.read_jsonl(tmp_path / "m.jsonl")
    assert math.isnan(row["loss"])


def test_truncate_forgets_the_rest(tmp_path):
    path = tmp_path / "metrics.jsonl"
    size = run_directory.append_jsonl(path, [{"run": 0}])
    run_directory.append_jsonl(path, [{"run": 1}, {"run": 2}])
    run_directory.truncate(path, size)
    assert run_directory.read_jsonl(path) == [{"run": 0}]
    run_directory.truncate(path, 0)
    assert path.read_bytes() == b""


def test_truncate_of_a_file_that_never_was(tmp_path):
    run_directory.truncate(tmp_path / "metrics.jsonl", 0)
    assert not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("content", [None, "", '{"run": 0}\n'])
def test_truncate_fills_nothing_up(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    if content is not None:
        path.write_text(content)
    with pytest.raises(errors.UserError, match="where the checkpoint saw 100"):
        run_directory.truncate(path, 100)
    assert (path.read_text() if path.exists() else None) == content


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\xff\xfe", 100_000 * "["])
def test_damaged_json_is_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError, match="not valid JSON") as caught:
        run_directory.read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"a"', "[1]", "3", "null", 100_000 * "["])
def test_damaged_json_lines_are_one_line(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"a": 1}\n' + line)
    with pytest.raises(errors.UserError, match="not valid JSON lines"):
        run_directory.read_jsonl(path)


def test_missing_files_ask_whether_this_is_a_run_directory(tmp_path):
    with pytest.raises(errors.UserError, match="no such file; is this a run directory"):
        run_directory.read_json(tmp_path / "config.json")
    with pytest.raises(errors.UserError, match="no such file; is this the directory of a finished study"):
        tables.read_csv(tmp_path / "results.csv")


# Arrays


def test_arrays_come_back(tmp_path):
    path = run_directory.arrays_path(tmp_path, 7)
    assert path == tmp_path / "arrays" / "run_0007.npz"
    arrays = {"codes_mean": np.array([[0.1, -np.inf], [np.nan, 1e-40]], np.float32), "labels": np.arange(3)}
    run_directory.write_arrays(path, arrays)
    read = run_directory.read_arrays(path)
    assert read.keys() == arrays.keys()
    for name, array in arrays.items():
        assert read[name].dtype == array.dtype
        assert read[name].tobytes() == array.tobytes()


@pytest.mark.parametrize("keep", [0, 10, -30])
def test_damaged_arrays_are_one_line(tmp_path, keep):
    path = run_directory.arrays_path(tmp_path, 0)
    run_directory.write_arrays(path, {"a": np.arange(100)})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(errors.UserError, match=r"not a readable \.npz"):
        run_directory.read_arrays(path)


def test_pickles_are_neither_written_nor_read(tmp_path):
    path = run_directory.arrays_path(tmp_path, 0)
    with pytest.raises(ValueError, match="pickle"):
        run_directory.write_arrays(path, {"a": np.array([{}], object)})
    np.savez(path, a=np.array([{}], object))
    with pytest.raises(errors.UserError):
        run_directory.read_arrays(path)


# Never half there

WRITERS = {
    "config.json": (run_directory.write_json, {"a": 1}, {"a": object()}),
    "results.csv": (tables.write_csv, [{"a": 1}], [{"a": 1}, {"a": "\ud800"}]),
    "arrays.npz": (run_directory.write_arrays, {"a": np.arange(3)}, {"a": np.arange(3), "b": np.array([{}], object)}),
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

    monkeypatch.setattr(run_directory.os, "replace", replace)
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
from vae_jax.storage import run_directory, tables
with run_directory.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_the_lock_refuses_a_second_holder_and_is_released(tmp_path):
    with run_directory.locked(tmp_path), pytest.raises(errors.UserError, match="another process is working there"):
        run_directory.locked(tmp_path).__enter__()
    with run_directory.locked(tmp_path):
        pass


def test_the_lock_is_released_by_an_error(tmp_path):
    with pytest.raises(KeyboardInterrupt), run_directory.locked(tmp_path):
        raise KeyboardInterrupt
    with run_directory.locked(tmp_path):
        pass


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    command = [sys.executable, "-c", HOLD, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(errors.UserError, match="another process"), run_directory.locked(tmp_path):
            pass
        process.kill()
    with run_directory.locked(tmp_path):
        pass
