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


@pytest.mark.parametrize("text", ["", "{", '{"a": 1', "\xff\xfe", 100_000 * "[", '{"a": ' + 5000 * "9" + "}"])
def test_damaged_json_is_one_line(tmp_path, text):
    path = tmp_path / "config.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(errors.UserError, match="not valid JSON") as caught:
        run_directory.read_json(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("line", ['{"a"', "[1]", "3", "null", 100_000 * "[", '{"a": ' + 5000 * "9" + "}"])
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


LINE = {"run": 0, "name": "vae", "seed": 0, "epoch": 1, "step": 3, "train_loss": 2.5}


def test_metrics_come_back(tmp_path):
    assert run_directory.read_metrics(tmp_path) == []
    rows = [LINE, LINE | {"train_loss": math.inf}]
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", rows)
    assert run_directory.read_metrics(tmp_path) == rows


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"run": None}, "run should be a whole number"),
        ({"run": "0"}, "run should be a whole number"),
        ({"run": True}, "run should be a whole number"),
        ({"run": -1}, "run should be a whole number"),
        ({"epoch": 1.5}, "epoch should be a whole number"),
        ({"epoch": 10**400}, "epoch should be a whole number"),
        ({"name": 3}, "name should be a text"),
        ({"train_loss": "high"}, "train_loss should be a number"),
        ({"train_loss": None}, "train_loss should be a number"),
        ({"train_loss": [1]}, "train_loss should be a number"),
        ({"train_loss": 10**400}, "train_loss should be a number"),
    ],
)
def test_edited_metrics_are_one_line(tmp_path, cells, message):
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", [LINE, LINE | cells])
    with pytest.raises(errors.UserError) as caught:
        run_directory.read_metrics(tmp_path)
    assert str(caught.value) == f"{tmp_path / 'metrics.jsonl'}, line 2: {message}"


@pytest.mark.parametrize("key", ["run", "epoch"])
def test_metrics_of_no_run_are_one_line(tmp_path, key):
    run_directory.append_jsonl(tmp_path / "metrics.jsonl", [{name: cell for name, cell in LINE.items() if name != key}])
    with pytest.raises(errors.UserError, match=f"line 1: {key} should be a whole number"):
        run_directory.read_metrics(tmp_path)


@pytest.mark.parametrize("described", [3, [], {}, {"config": 3}, {"config": {}, "versions": 3}])
def test_a_config_that_describes_no_study_is_one_line(tmp_path, described):
    run_directory.write_json(tmp_path / "config.json", described)
    with pytest.raises(errors.UserError, match=r"config\.json: not the description of a study"):
        run_directory.read_config(tmp_path)


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


ARRAYS = {"plane": np.zeros((4, 2)), "samples": np.ones((4, 2)), "labels": np.arange(4)}


@pytest.mark.parametrize(
    "edited",
    [
        ARRAYS | {"plane": ARRAYS["samples"], "samples": ARRAYS["plane"]},
        {"plane": ARRAYS["plane"], "labels": ARRAYS["labels"]},
        ARRAYS | {"more": np.zeros(1)},
        ARRAYS | {"plane": np.zeros((2, 4))},
        ARRAYS | {"plane": np.zeros((4, 2), np.float32)},
    ],
    ids=["swapped", "one less", "one more", "another shape", "another dtype"],
)
def test_arrays_that_somebody_edited_are_one_line(tmp_path, edited):
    path = run_directory.arrays_path(tmp_path, 0)
    run_directory.write_arrays(path, ARRAYS)
    with np.load(path) as archive:
        digest = archive["digest"]
    np.savez(path, **edited, digest=digest)
    with pytest.raises(errors.UserError, match=r"run_0000\.npz: its arrays are not those that were written"):
        run_directory.read_arrays(path)


def test_arrays_of_another_run_are_one_line(tmp_path):
    path = run_directory.arrays_path(tmp_path, 0)
    run_directory.write_arrays(path, ARRAYS)
    other = path.rename(run_directory.arrays_path(tmp_path, 1))
    with pytest.raises(errors.UserError, match=r"run_0001\.npz: its arrays are not those that were written"):
        run_directory.read_arrays(other)


def test_arrays_of_versions_without_a_digest_are_read(tmp_path):
    np.savez(tmp_path / "run_0000.npz", **ARRAYS)
    assert run_directory.read_arrays(tmp_path / "run_0000.npz").keys() == ARRAYS.keys()


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


# What the study wrote


def tree(folder) -> dict:
    """Every file below a folder with its content; links as what they are."""
    return {
        str(path.relative_to(folder)): path.readlink() if path.is_symlink() else path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_symlink() or path.is_file()
    }


def test_the_record_is_kept_once_and_in_order(tmp_path):
    assert run_directory.recorded(tmp_path) == []
    run_directory.record(tmp_path, ["config.json", "checkpoints/group_000/"])
    run_directory.record(tmp_path, ["figures/latents.png", "config.json"])
    assert run_directory.recorded(tmp_path) == ["config.json", "checkpoints/group_000/", "figures/latents.png"]


def test_clear_removes_what_was_recorded_and_no_other(tmp_path):
    own = ["config.json", "arrays/run_0000.npz", "figures/latents.png", "metrics.jsonl.part"]
    foreign = ["results.csv", "arrays/run_0001.npz", "arrays/mine.npz", "figures/mine.png", "log.jsonl.part", "group/5"]
    for name in [*own, *foreign]:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    run_directory.record(tmp_path, ["config.json", "arrays/run_0000.npz", "figures/latents.png", "metrics.jsonl", "group/"])
    run_directory.clear(tmp_path)
    assert tree(tmp_path) == {name: name.encode() for name in sorted(foreign)}


def test_clear_ends_with_the_config_and_the_record(tmp_path, monkeypatch):
    """So that what an interrupted removal leaves is still known as the study's."""
    names = ["config.json", "metrics.jsonl", "results.csv"]
    for name in names:
        (tmp_path / name).write_text("")
    run_directory.record(tmp_path, names)
    removed, unlink = [], run_directory.pathlib.Path.unlink
    monkeypatch.setattr(run_directory.pathlib.Path, "unlink", lambda path: removed.append(path.name) or unlink(path))
    run_directory.clear(tmp_path)
    assert removed == ["metrics.jsonl", "results.csv", "config.json", ".written"]


def test_a_directory_without_a_record_is_known_by_its_config(tmp_path):
    """As versions without a record left it."""
    names = ["metrics.jsonl", "results.csv", "arrays/run_0000.npz", "arrays/run_10000.npz"]
    foreign = ["arrays/run_1.npz", "arrays/run_0000.npz.bak", "arrays/mine.npz", "checkpoints/group_mine/5", "notes.txt"]
    for name in [*names, *foreign, "checkpoints/group_000/5"]:
        (tmp_path / name).parent.mkdir(exist_ok=True, parents=True)
        (tmp_path / name).write_text(name)
    assert run_directory.recorded(tmp_path) == []
    run_directory.write_json(tmp_path / "config.json", {"config": {}, "versions": {}})
    assert set(run_directory.recorded(tmp_path)) == {*run_directory.FILES, *names, "checkpoints/group_000/"}
    run_directory.clear(tmp_path)
    assert tree(tmp_path).keys() == {*foreign, "checkpoints/group_000/5"}


def test_a_record_that_names_other_folders_removes_nothing_there(tmp_path):
    workdir, outside = tmp_path / "workdir", tmp_path / "outside.txt"
    workdir.mkdir()
    outside.write_text("mine")
    (workdir / ".written").write_text(f"../outside.txt\n{outside}\n\n.\n\0\n")
    run_directory.clear(workdir)
    assert outside.read_text() == "mine"


LINKS = ["results.csv", "results.csv.part", "config.json.part", "arrays", "checkpoints", "checkpoints/group_000", "figures"]


@pytest.mark.parametrize("name", LINKS)
def test_a_link_where_a_file_of_the_study_belongs_is_refused(tmp_path, name):
    workdir, elsewhere = tmp_path / "workdir", tmp_path / "elsewhere"
    (elsewhere / "5").mkdir(parents=True)
    (elsewhere / "run_0000.npz").write_text("mine")
    names = [*run_directory.FILES, "arrays/run_0000.npz", "checkpoints/group_000/", "figures/latents.png"]
    workdir.mkdir()
    run_directory.record(workdir, names)
    (workdir / name).parent.mkdir(exist_ok=True)
    (workdir / name).symlink_to(elsewhere / "run_0000.npz" if "." in name else elsewhere)
    before = tree(tmp_path)
    for act in (run_directory.clear, lambda workdir: run_directory.record(workdir, names)):
        with pytest.raises(errors.UserError, match=f"{workdir / name}: is a link"):
            act(workdir)
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("config.json.part", lambda workdir: run_directory.write_json(workdir / "config.json", {})),
        ("r.csv.part", lambda workdir: tables.write_csv(workdir / "r.csv", [])),
        ("a.npz.part", lambda workdir: run_directory.write_arrays(workdir / "a.npz", {})),
        ("log.jsonl", lambda workdir: run_directory.append_jsonl(workdir / "log.jsonl", [{}])),
        (".lock", lambda workdir: run_directory.locked(workdir).__enter__()),
    ],
)
def test_nothing_is_written_through_a_link(tmp_path, name, write):
    (tmp_path / "workdir").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "workdir" / name).symlink_to(tmp_path / "mine")
    with pytest.raises(errors.UserError, match=f"{name}: is a link"):
        write(tmp_path / "workdir")
    assert (tmp_path / "mine").read_text() == "mine"


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
