"""Training that is stopped anywhere and called again gives the same files, bit for bit, as training that was not."""

import json
import pathlib
import shutil

import pytest
from test_study import assert_same_numbers, compiled_once, tiny  # noqa: F401

from vae_jax import checkpoints, errors, results, study

CHUNKS = 4  # of one epoch; checkpoints after the second and the fourth
TWO_GROUPS = (("train.chunk_epochs", ("1", "2")),)  # one program, two plans: 4 chunks, then 2


def train(workdir: pathlib.Path, sweeps=()) -> pathlib.Path:
    study.run(tiny(), workdir, None, sweeps)
    return workdir


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """One run, never stopped; read only."""
    return train(tmp_path_factory.mktemp("fit") / "whole")


@pytest.fixture(scope="module")
def two_groups(tmp_path_factory):
    return train(tmp_path_factory.mktemp("fit") / "two", TWO_GROUPS)


@pytest.fixture
def copy(whole, tmp_path):
    """`whole` as it is between training and evaluation."""
    workdir = pathlib.Path(shutil.copytree(whole, tmp_path / "copy"))
    (workdir / "results.csv").unlink()
    return workdir


class Stop(Exception):
    """The end of the process, as far as the library can tell."""


def stop_after(monkeypatch, module, name: str, calls: int, before: bool = False, only=lambda *_: True):
    """Let function `name` of `module` stop the process in its call number `calls`, before or after its work."""
    function, count = getattr(module, name), [0]

    def counted(*args):
        count[0] += only(*args)
        last = only(*args) and count[0] == calls
        if last and before:
            raise Stop
        result = function(*args)
        if last:
            raise Stop
        return result

    monkeypatch.setattr(module, name, counted)


def is_metrics(path, *_) -> bool:
    return path.name == "metrics.jsonl"


def stopped(monkeypatch, workdir, sweeps=(), **where) -> None:
    with monkeypatch.context() as patch, pytest.raises(Stop):
        stop_after(patch, **where)
        train(workdir, sweeps)
    assert not (workdir / "results.csv").exists()


def signed(workdir: pathlib.Path, group: int = 0) -> dict:
    """What the last checkpoint signs: the digest of the final state of every run, and the length of metrics.jsonl."""
    path = workdir / "checkpoints" / f"group_{group:03d}" / str(CHUNKS) / "_CHECKPOINT_METADATA"
    return json.loads(path.read_text())["custom_metadata"]


def assert_same(ours: pathlib.Path, theirs: pathlib.Path, groups: int = 1) -> None:
    assert_same_numbers(ours, theirs)
    assert [signed(ours, group) for group in range(groups)] == [signed(theirs, group) for group in range(groups)]


@pytest.mark.parametrize("chunk", range(1, CHUNKS + 1))
def test_stopped_after_a_chunk(whole, tmp_path, monkeypatch, chunk):
    """Chunks 1 and 3 have no checkpoint after them: their lines are taken back and written again."""
    stopped(monkeypatch, tmp_path, module=results, name="append_jsonl", calls=chunk, only=is_metrics)
    assert len(results.read_jsonl(tmp_path / "metrics.jsonl")) == chunk
    assert_same(train(tmp_path), whole)


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize("save", [1, 2])
def test_stopped_at_a_checkpoint(whole, tmp_path, monkeypatch, save, before):
    stopped(monkeypatch, tmp_path, module=checkpoints, name="save", calls=save, before=before)
    assert_same(train(tmp_path), whole)


def test_stopped_again_and_again(whole, tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path, module=results, name="append_jsonl", calls=1, only=is_metrics)
    stopped(monkeypatch, tmp_path, module=results, name="append_jsonl", calls=3, only=is_metrics)
    stopped(monkeypatch, tmp_path, module=results, name="append_jsonl", calls=1, only=is_metrics)
    assert_same(train(tmp_path), whole)


def test_half_a_line_is_taken_back(whole, tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path, module=checkpoints, name="save", calls=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"run": 0, "na')
    assert_same(train(tmp_path), whole)


def test_going_on_trains_only_what_is_missing(tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, tmp_path, module=checkpoints, name="save", calls=1)
    capsys.readouterr()
    train(tmp_path)
    assert capsys.readouterr().err.splitlines()[0].startswith("vae (1 run): 20 steps in ")  # of 40


def test_a_trained_run_is_only_evaluated(whole, copy, capsys):
    assert_same(train(copy), whole)
    assert capsys.readouterr().err.startswith("evaluation: 1 runs in ")


@pytest.mark.parametrize("line", [1, 4, 5, 6])
def test_stopped_in_either_of_two_groups(two_groups, tmp_path, monkeypatch, line):
    stopped(monkeypatch, tmp_path, TWO_GROUPS, module=results, name="append_jsonl", calls=line, only=is_metrics)
    assert_same(train(tmp_path, TWO_GROUPS), two_groups, groups=2)


def test_lines_of_groups_follow_each_other(two_groups):
    rows = results.read_jsonl(two_groups / "metrics.jsonl")
    assert [(row["run"], row["epoch"]) for row in rows] == [(0, 1), (0, 2), (0, 3), (0, 4), (1, 2), (1, 4)]


def test_the_length_of_a_chunk_changes_no_number(two_groups):
    one, two = results.read_csv(two_groups / "results.csv")
    assert one == two | {"run": 0, "train.chunk_epochs": 1}
    lines = results.read_jsonl(two_groups / "metrics.jsonl")
    valid = [{key: value for key, value in row.items() if key.startswith("valid_")} for row in lines]
    assert (valid[1], valid[3]) == (valid[4], valid[5])
    mean = (lines[0]["train_distortion"] + lines[1]["train_distortion"]) / 2
    assert lines[4]["train_distortion"] == pytest.approx(mean, rel=1e-6)


def test_a_chunk_that_does_not_divide_the_epochs(whole, tmp_path):
    (row,) = study.run(tiny(train__chunk_epochs=3), tmp_path)
    assert [line["epoch"] for line in results.read_jsonl(tmp_path / "metrics.jsonl")] == [3, 4]
    assert row == results.read_csv(whole / "results.csv")[0]


@pytest.mark.parametrize(("every", "steps"), [(0, ["4"]), (1, ["3", "4"]), (3, ["3", "4"]), (100, ["4"])])
def test_checkpoints_fall_where_the_config_says(tmp_path, every, steps):
    train_with = tiny(train__checkpoint_every=every)
    study.run(train_with, tmp_path)
    assert sorted(path.name for path in (tmp_path / "checkpoints" / "group_000").iterdir()) == steps


def damage(workdir: pathlib.Path, step: str) -> None:
    path = workdir / "checkpoints" / "group_000" / step / "_CHECKPOINT_METADATA"
    path.write_text(path.read_text()[:-20])


def test_a_damaged_last_checkpoint_costs_only_what_came_after_the_one_before(whole, copy, capsys):
    damage(copy, "4")
    with pytest.raises(errors.UserError, match="its training has not finished"):
        study.evaluate(copy)
    capsys.readouterr()
    assert_same(train(copy), whole)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith(f"{copy}/checkpoints/group_000/4: damaged checkpoint (")
    assert said[1].startswith("vae (1 run): 20 steps in ")


def test_all_checkpoints_damaged(copy, whole):
    damage(copy, "2")
    damage(copy, "4")
    with pytest.raises(errors.UserError, match="no checkpoint is whole; remove that directory"):
        train(copy)
    shutil.rmtree(copy / "checkpoints" / "group_000")  # as it says
    assert_same(train(copy), whole)


def test_metrics_that_somebody_cut_are_not_filled_up(tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path, module=checkpoints, name="save", calls=1)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(errors.UserError, match=r"metrics\.jsonl: has 0 bytes where the checkpoint saw"):
        train(tmp_path)


def test_ctrl_c_frees_the_directory(whole, tmp_path, monkeypatch):
    def pressed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", pressed)
        train(tmp_path)
    assert_same(train(tmp_path), whole)
