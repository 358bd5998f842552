"""Training that is stopped anywhere and called again gives the same files, bit for bit, as training that was not."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest
from support import LINEAR, NOT_EVALUATED, assert_same_numbers, tiny

from vae_jax.core import errors
from vae_jax.storage import checkpoints, run_directory
from vae_jax.study import planning, study
from vae_jax.system import memory, runs
from vae_jax.training import loop

CHUNKS = 4  # of one epoch; checkpoints after the second and the fourth
TWO_GROUPS = (("train.chunk_epochs", ("1", "3")),)  # one program, two plans: 4 chunks, then 2 of 3 and 1 epochs


def config():
    """Of studies of which states and metrics.jsonl are looked at; what is evaluated depends on the states alone."""
    return tiny(**LINEAR, **NOT_EVALUATED)


def train(workdir: pathlib.Path, sweeps=()) -> pathlib.Path:
    study.run(config(), workdir, None, sweeps)
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


def is_metrics(path, *_) -> bool:
    return path.name == "metrics.jsonl"


def is_chunk(path, rows=()) -> bool:
    """Not of the lines before the first step."""
    return is_metrics(path) and all(row["epoch"] for row in rows)


def stopped(
    monkeypatch, workdir, module, name: str, calls: int, before: bool = False, sweeps=(), only=lambda *_: True
) -> None:
    """Train, with the process stopped in call number `calls` of a function, before or after that has done its work."""
    function, count = getattr(module, name), [0]

    def counted(*args):
        count[0] += only(*args)
        last = only(*args) and count[0] == calls
        if last and before:
            raise KeyboardInterrupt
        result = function(*args)
        if last:
            raise KeyboardInterrupt
        return result

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(module, name, counted)
        train(workdir, sweeps)
    assert not (workdir / "results.csv").exists()


def stopped_after_chunk(monkeypatch, workdir, chunk: int, sweeps=()) -> None:
    """Stop when the lines of a chunk have been written, and nothing after them."""
    stopped(monkeypatch, workdir, run_directory, "append_jsonl", chunk, sweeps=sweeps, only=is_chunk)


def signed(workdir: pathlib.Path, group: int = 0) -> dict:
    """What the last checkpoint signs: the digest of the final state of every run, and the length of metrics.jsonl."""
    path = workdir / "checkpoints" / f"group_{group:03d}" / str(CHUNKS) / "_CHECKPOINT_METADATA"
    return json.loads(path.read_text())["custom_metadata"]


def assert_same(ours: pathlib.Path, theirs: pathlib.Path, groups: int = 1) -> None:
    assert_same_numbers(ours, theirs)
    assert [signed(ours, group) for group in range(groups)] == [signed(theirs, group) for group in range(groups)]


def test_stopped_before_the_last_checkpoint(whole, tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path, checkpoints, "save", calls=2, before=True)
    assert len(run_directory.read_jsonl(tmp_path / "metrics.jsonl")) == 1 + CHUNKS
    assert_same(train(tmp_path), whole)


def test_stopped_again_and_again_where_no_checkpoint_is(whole, tmp_path, monkeypatch):
    """The lines after the last checkpoint are taken back and written again."""
    for chunk, lines in ((1, 1), (3, 3), (1, 3)):  # the last from the checkpoint after the second
        stopped_after_chunk(monkeypatch, tmp_path, chunk)
        assert len(run_directory.read_jsonl(tmp_path / "metrics.jsonl")) == 1 + lines
    assert_same(train(tmp_path), whole)


def test_going_on_trains_only_what_is_missing_and_takes_back_half_a_line(whole, tmp_path, monkeypatch, capsys):
    stopped(monkeypatch, tmp_path, checkpoints, "save", calls=1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"run": 0, "na')
    capsys.readouterr()
    assert_same(train(tmp_path), whole)
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "vae (1 run): goes on from epoch 2 of 4"
    assert any(line.startswith("vae (1 run): 20 steps in ") for line in said)  # of 40


def test_a_trained_run_is_only_evaluated(whole, copy, capsys):
    assert_same(train(copy), whole)
    assert capsys.readouterr().err.startswith("evaluation: 1 run in ")


def test_stopped_in_the_second_of_two_groups(two_groups, tmp_path, monkeypatch):
    stopped_after_chunk(monkeypatch, tmp_path, CHUNKS + 1, TWO_GROUPS)
    assert_same(train(tmp_path, TWO_GROUPS), two_groups, groups=2)


def test_lines_of_groups_follow_each_other(two_groups):
    rows = run_directory.read_jsonl(two_groups / "metrics.jsonl")
    assert [(row["run"], row["epoch"]) for row in rows] == [(0, 0), (0, 1), (0, 2), (0, 3), (0, 4), (1, 0), (1, 3), (1, 4)]


def test_the_length_of_a_chunk_changes_no_number(two_groups):
    """Also where it does not divide the epochs."""
    states = [
        loop.load(group.spec, group.hyperparams, group.dataset, two_groups / "checkpoints" / f"group_{index:03d}").state
        for index, group in enumerate(planning.plan(config(), sweeps=TWO_GROUPS).groups)
    ]
    jax.tree.map(np.testing.assert_array_equal, *states)
    lines = [row for row in run_directory.read_jsonl(two_groups / "metrics.jsonl") if row["epoch"]]
    valid = [{key: value for key, value in row.items() if key.startswith("valid_")} for row in lines]
    assert (valid[2], valid[3]) == (valid[4], valid[5])
    mean = sum(line["train_distortion"] for line in lines[:3]) / 3
    assert lines[4]["train_distortion"] == pytest.approx(mean, rel=1e-6)
    assert lines[5]["train_distortion"] == lines[3]["train_distortion"]


def test_checkpoints_fall_on_the_ends_of_chunks(two_groups):
    """Every 2 epochs or at the first end of a chunk after them, and at the end."""
    steps = [sorted(path.name for path in group.iterdir()) for group in sorted((two_groups / "checkpoints").iterdir())]
    assert steps == [["2", "4"], ["3", "4"]]


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
    assert said[1] == "vae (1 run): goes on from epoch 2 of 4"
    assert any(line.startswith("vae (1 run): 20 steps in ") for line in said)


def test_all_checkpoints_damaged(copy, whole):
    damage(copy, "2")
    damage(copy, "4")
    with pytest.raises(errors.UserError, match="no checkpoint is whole; start over by --restart"):
        train(copy)
    study.run(config(), copy, restart=True)  # as it says
    assert_same(copy, whole)


def test_metrics_that_somebody_cut_are_not_filled_up(tmp_path, monkeypatch):
    stopped(monkeypatch, tmp_path, checkpoints, "save", calls=1)
    (tmp_path / "metrics.jsonl").unlink()
    with pytest.raises(errors.UserError, match=r"metrics\.jsonl: has 0 bytes where the checkpoint saw"):
        train(tmp_path)


def test_metrics_that_are_taken_away_are_not_begun_anew(tmp_path, monkeypatch):
    append = run_directory.append_jsonl

    def taken_away(path, rows):
        size = append(path, rows)
        if is_metrics(path):
            path.unlink()
        return size

    monkeypatch.setattr(run_directory, "append_jsonl", taken_away)
    with pytest.raises(errors.UserError, match=r"metrics\.jsonl: has 0 bytes where the checkpoint saw"):
        train(tmp_path)


def test_metrics_before_the_first_step_and_what_a_callback_gets(tmp_path):
    (run,) = planning.plan(config()).groups
    labels, seen = [{"run": 0, "name": "vae", "seed": 0}], []
    job = loop.Job(run.spec, run.hyperparams, run.dataset, labels, tmp_path / "checkpoints", tmp_path / "metrics.jsonl")
    loop.fit(job, on_chunk=lambda rows: seen.append(list(rows)))
    lines = run_directory.read_jsonl(tmp_path / "metrics.jsonl")
    assert [row for rows in seen for row in rows] == lines
    assert [(row["epoch"], row["step"]) for row in lines] == [(0, 0), (1, 10), (2, 20), (3, 30), (4, 40)]
    # Nothing is learned yet: 64 pixels, nearly the mean of the data; and that is before anything else.
    assert lines[0]["train_loss"] > lines[1]["train_loss"] > lines[4]["train_loss"]
    assert lines[0]["train_distortion"] == pytest.approx(lines[0]["valid_distortion"], rel=0.05)


def test_about_fifty_lines_where_the_config_says_nothing():
    (group,) = planning.plan(tiny(train__chunk_epochs=0, train__epochs=300)).groups
    assert group.spec.chunk_epochs == 6
    (group,) = planning.plan(tiny(train__chunk_epochs=0, train__epochs=20)).groups
    assert group.spec.chunk_epochs == 1


def test_what_is_shown_of_many_runs():
    rows = [{"train_loss": loss, "train_distortion": 20.0, "train_rate": np.inf} for loss in (30.0, 10.0, 20.0)]
    assert loop._summary(rows[:1]) == "loss 30, distortion 20, rate inf"
    assert loop._summary(rows) == "loss 20 (10 to 30), distortion 20 (20 to 20), rate inf (inf to inf)"


def test_a_target_that_cannot_be_reached_is_said(tmp_path, capsys):
    fields = {"objective__kind": "geco", "train__chunk_epochs": 4, "name": "steered"} | LINEAR | NOT_EVALUATED
    study.run(tiny(objective__distortion_target=-50.0, **fields), tmp_path / "missed")
    assert "steered (1 run): the target of the distortion was not met by 1 of them; run 0 is " in capsys.readouterr().err
    study.run(tiny(objective__distortion_target=1000.0, **fields), tmp_path / "met")
    assert "target" not in capsys.readouterr().err


# Memory

FIVE = (("seed", ("0", "1", "2", "3", "4")),)
EXHAUSTED = "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes."


@pytest.fixture
def two_devices(monkeypatch):
    mesh = runs.mesh
    monkeypatch.setattr(runs, "mesh", lambda count, data=1: mesh(min(count, 2), data))


@pytest.fixture
def sizes(monkeypatch):
    """How many runs were on the devices at a time, in each call."""
    found, call = [], runs.Blocks.call
    monkeypatch.setattr(runs.Blocks, "call", lambda self, *args: found.append(self.size) or call(self, *args))
    return found


@pytest.fixture(scope="module")
def five(tmp_path_factory):
    """Five runs in one block, on any devices, and what the program needed on each of two."""
    with pytest.MonkeyPatch.context() as patch:
        mesh, needed, seen = runs.mesh, memory.needed, []
        patch.setattr(runs, "mesh", lambda count, data=1: mesh(min(count, 2), data))
        patch.setattr(memory, "needed", lambda compiled: seen.append(needed(compiled)) or seen[-1])
        return train(tmp_path_factory.mktemp("fit") / "five", FIVE), seen


def test_what_a_program_needs_is_asked_once(five):
    assert len(five[1]) == 1  # one program was compiled to know
    assert 100_000 < five[1][0] < 10_000_000  # 1,200 images of 64 bytes and a valid split as floats; tiny networks


def too_small(monkeypatch, room: int) -> None:
    """So many bytes on a device, of which more would be needed by three runs for each, and then by fewer."""
    needs = iter((10_000_000, 0.9 * room))  # beside validation images
    monkeypatch.setattr(memory, "per_device", lambda host: room)
    monkeypatch.setattr(memory, "needed", lambda compiled: next(needs))


def test_runs_that_do_not_fit_take_turns(five, two_devices, sizes, tmp_path, monkeypatch):
    """Bit for bit what all at a time leave, in every file."""
    too_small(monkeypatch, 9_900_000)
    assert_same(train(tmp_path, FIVE), five[0])
    assert set(sizes) == {4}


def test_as_few_runs_take_turns_as_fit(five, two_devices, tmp_path, monkeypatch):
    """One for each device here; the first block is not computed."""
    too_small(monkeypatch, 1_000_000)
    found = []

    def first(self, *_):
        found.append(self.size)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs.Blocks, "call", first)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, FIVE)
    assert found == [2]


def exhausted_in(monkeypatch, call: int, at_least: int = 3):
    """Let a device run out of memory in call number `call` with so many runs at a time (0 makes the states)."""
    real, calls = runs.Blocks.call, [0]

    def failing(self, *args):
        calls[0] += 1
        if calls[0] > call and self.size >= at_least:
            raise jax.errors.JaxRuntimeError(EXHAUSTED)
        return real(self, *args)

    monkeypatch.setattr(runs.Blocks, "call", failing)


# Two calls measure before the first step; each chunk is trained in one call and validated in another.
@pytest.mark.parametrize("call", [0, 3, 7], ids=["first states", "first chunk", "after a checkpoint"])
def test_out_of_memory_on_a_device_halves_the_block(five, two_devices, sizes, tmp_path, monkeypatch, capsys, call):
    exhausted_in(monkeypatch, call, at_least=6)
    assert_same(train(tmp_path, FIVE), five[0])
    assert "out of memory on a device: continuing with 3 runs at a time" in capsys.readouterr().err
    assert sizes[-1] == 4  # three, and one that fills the second device


def test_out_of_memory_with_one_run_is_told(two_devices, tmp_path, monkeypatch, capsys):
    exhausted_in(monkeypatch, 0, at_least=1)
    with pytest.raises(errors.UserError, match="out of memory on a device with 1 run at a time: RESOURCE_EXHAUSTED"):
        train(tmp_path, FIVE)
    lines = [line.partition(" with ")[2] for line in capsys.readouterr().err.splitlines()]
    assert lines == ["3 runs at a time", "2 runs at a time", "1 run at a time"]


def test_other_failures_of_a_device_are_no_lack_of_memory(tmp_path, monkeypatch):
    def failing(*_):
        raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    monkeypatch.setattr(runs.Blocks, "call", failing)
    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        train(tmp_path)


@pytest.mark.parametrize(
    ("function", "has", "message"),
    [
        (
            "free",
            1000,
            r"5 runs would take [\d.]+ kB of the host's memory, twice [\d.]+ kB while they are saved, and 1 kB are free",
        ),
        ("per_device", 1000, r"one run needs [\d.]+ kB on its device, [\d.]+ kB of it for the data, and there are 1 kB"),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_written(tmp_path, monkeypatch, function, has, message):
    monkeypatch.setattr(memory, function, lambda *_: has)
    with pytest.raises(errors.UserError, match=message):
        train(tmp_path / "workdir", FIVE)
    assert not (tmp_path / "workdir").exists()


def test_a_program_that_cannot_fit_is_refused(five, two_devices, tmp_path, monkeypatch):
    """What only the compiled program knows: its temporaries."""
    monkeypatch.setattr(memory, "per_device", lambda host: five[1][0] // 2)
    with pytest.raises(errors.UserError, match=r"one run needs .* on its device"):
        train(tmp_path, FIVE)
    assert not (tmp_path / "metrics.jsonl").exists()


def test_more_devices_for_a_run_than_there_are(tmp_path):
    with pytest.raises(errors.UserError, match=r"train\.data_devices=16: should be at most 8, the number of devices"):
        study.run(tiny(train__data_devices=16), tmp_path / "workdir")
    with pytest.raises(errors.UserError, match=r"train\.data_devices=3: should divide the batch of 128 images"):
        study.run(tiny(train__data_devices=3), tmp_path / "workdir")
    assert not (tmp_path / "workdir").exists()
