"""Nothing lost: processes that are killed, stopped or starved of disk, bad directories, and what is in them then."""

import contextlib
import itertools
import os
import pathlib
import random
import re
import shlex
import shutil
import signal
import sys
import time

import numpy as np
import pytest
from support import ROOT, SMALL, is_there, signed, wait_for

from experiments import command_line
from vae_jax.core import errors
from vae_jax.figures import draw as figures
from vae_jax.storage import run_directory, tables
from vae_jax.study import study
from vae_jax.system import signals

SEEDS, MORE = "--sweep=seed=0,1", "--sweep=seed=0,1,2,3"
EPOCHS = 4
LITTLE = {"eval__train": "false", "eval__aggregate_samples": 0, "eval__calibration_samples": 0, "eval__decoded": 0}


def arguments(workdir: pathlib.Path, *more: str, **fields) -> list[str]:
    """What is typed for the small study in `workdir`; two underscores for a dot.

    All studies have groups of two runs, and a learning rate by which the number of epochs is not a part of the programs: as
    few as can be are compiled for this file.
    """
    settings = SMALL | {"train.epochs": EPOCHS, "optimizer.schedule": "constant"}
    settings |= {name.replace("__", "."): value for name, value in fields.items()}
    typed = [f"--config.{key}={value}" for key, value in settings.items()]
    return ["--config=configs/vae.py", *typed, f"--workdir={workdir}", *more]


@pytest.fixture(scope="module")
def whole(forks, tmp_path_factory):
    """The small study of two runs, never stopped; read only. And how long it took, once compiled."""
    folder = tmp_path_factory.mktemp("reliability")
    assert forks.run("train", arguments(folder / "compiled", SEEDS), drawn=True).code == 0
    start = time.monotonic()
    assert forks.run("train", arguments(folder / "whole", SEEDS), drawn=True).code == 0
    return folder / "whole", time.monotonic() - start


@pytest.fixture(scope="module")
def plain(forks, tmp_path_factory):
    """The same study, of which little is evaluated; read only. For what happens in training, or to any of its files."""
    workdir = tmp_path_factory.mktemp("plain") / "plain"
    assert forks.run("train", arguments(workdir, SEEDS, **LITTLE)).code == 0
    return workdir


@pytest.fixture(scope="module")
def grown(forks, plain, tmp_path_factory):
    """That study, grown by two runs; read only."""
    workdir = tmp_path_factory.mktemp("grown") / "grown"
    shutil.copytree(plain, workdir)
    assert forks.run("train", arguments(workdir, MORE, **LITTLE)).code == 0
    return workdir


def assert_same(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    for name in ("results.csv", "metrics.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    assert signed(ours) == signed(theirs)
    assert not [*ours.rglob("*tmp*"), *ours.rglob("*.part")]


def said_in_one_line(ended) -> str:
    """What is said where a command cannot go on."""
    lines = [line for line in ended.err.splitlines() if not line.startswith(("vae (", "evaluation: "))]
    assert (ended.code, ended.out, len(lines)) == (2, "", 1), ended
    assert lines[0].startswith("error: ")
    return lines[0]


# Killed and stopped


def streamed(folder: pathlib.Path) -> dict:
    """Settings of data that are read for each batch: two blocks of which are an epoch, with a checkpoint after each.

    Little is evaluated, which is the same on all data.
    """
    np.save(folder / "images.npy", np.random.default_rng(0).normal(size=(60, 8)).astype(np.float32))
    fields = {"data__name": "npy", "data__path": str(folder / "images.npy"), "data__resident": "false"}
    fields["optimizer__schedule"] = "cosine"
    return fields | {"train__batch_size": 8, "train__checkpoint_steps": 3} | LITTLE


@pytest.fixture(scope="module")
def whole_streamed(forks, whole, tmp_path_factory):
    """The small study on such data, never stopped; how long the one in memory was trained and evaluated; its settings."""
    folder = tmp_path_factory.mktemp("streamed")
    fields = streamed(folder)
    assert forks.run("train", arguments(folder / "whole", SEEDS, **fields)).code == 0
    seconds = sum(line["seconds"] for line in run_directory.read_jsonl(whole[0] / "log.jsonl"))
    return folder / "whole", seconds, fields


@pytest.mark.parametrize("kills", [3, pytest.param(30, marks=pytest.mark.stress)])
def test_killed_at_any_moment(forks, whole, tmp_path, kills):
    """SIGKILL, every other time in the middle of a save: the same command again ends as if nothing had been."""
    assert killed(forks, whole, tmp_path, kills, drawn=True) >= max(1, kills // 6), "not in the middle of saves"


@pytest.mark.parametrize("kills", [2, pytest.param(20, marks=pytest.mark.stress)])
def test_killed_at_any_moment_on_streamed_data(forks, whole_streamed, tmp_path, kills):
    killed(forks, whole_streamed, tmp_path, kills, **whole_streamed[2])


SAVE = "checkpoints/*/*tmp*"  # the temporary directory of one


def saves(workdir: pathlib.Path, since: float) -> bool:
    """Whether a save was begun since then, and has not ended; what a process left that was killed before does not count."""
    with contextlib.suppress(FileNotFoundError):  # of a folder that is removed while it is read
        return any(path.stat().st_ctime >= since for path in workdir.glob(SAVE))
    return False


def killed(forks, whole, tmp_path, kills: int, drawn: bool = False, **fields) -> int:
    """Kill the study so often, and compare what it ends in; returns how often it was in the middle of a save."""
    moments, seconds, cut, number = random.Random(kills), whole[1], 0, 0
    workdirs = (tmp_path / str(place) for place in itertools.count())
    workdir = next(workdirs)
    while number < kills:
        start = time.monotonic()
        process = forks.start("train", arguments(workdir, SEEDS, **fields), drawn=drawn)
        time.sleep(moments.uniform(0, seconds) if number else 0)  # the first time in the first save
        begun = time.time()
        try:
            if number % 2 == 0:  # in the next save, if there is one
                wait_for(lambda: saves(workdir, begun) or time.time() > begun + seconds)  # noqa: B023
            os.kill(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
        if forks.end().code == 0:  # it was done before: compared, and another one is begun
            assert_same(workdir, whole[0])
            workdir, seconds = next(workdirs), min(seconds, time.monotonic() - start)
        else:
            number += 1
            cut += saves(workdir, begun)
    assert forks.run("train", arguments(workdir, SEEDS, **fields), drawn=drawn).code == 0
    assert_same(workdir, whole[0])
    return cut


def test_killed_while_growing(forks, plain, grown, tmp_path):
    """SIGKILL in the first save of the new runs, and when they are evaluated: in the end what it is without any."""
    workdir = pathlib.Path(shutil.copytree(plain, tmp_path / "killed"))
    for moment in ("checkpoints/group_001/*", "arrays/run_0002*"):
        process = forks.start("train", arguments(workdir, MORE, **LITTLE))
        wait_for(lambda: is_there(workdir, moment))  # noqa: B023
        os.kill(process, signal.SIGKILL)
        assert forks.end().code == -signal.SIGKILL
        # The old table or the new one, whole.
        assert (workdir / "results.csv").read_bytes() in [(each / "results.csv").read_bytes() for each in (plain, grown)]
    ended = forks.run("train", arguments(workdir, MORE, **LITTLE))
    assert ended.code == 0, ended
    assert_same(workdir, grown)
    assert (workdir / "config.json").read_bytes() == (grown / "config.json").read_bytes()
    assert (workdir / "metrics.jsonl").read_bytes().startswith((plain / "metrics.jsonl").read_bytes())
    assert signed(workdir)[:1] == signed(plain)
    for name in ("arrays/run_0000.npz", "arrays/run_0001.npz", "models/run_0001.npz"):
        assert (workdir / name).read_bytes() == (plain / name).read_bytes(), name


LONG = {"train__epochs": 150}  # so that it is still training when something happens


def test_stopped_by_signals(forks, tmp_path):
    """SIGTERM, then Ctrl-C: each saves at the end of the chunk, says how to go on, and exits with its code."""
    fields = LONG | {"train__checkpoint_every": 0}
    whole, workdir = tmp_path / "whole", tmp_path / "stopped"
    assert forks.run("train", arguments(whole, SEEDS, "--eval=none", **fields)).code == 0
    command = arguments(workdir, SEEDS, "--eval=none", **fields)
    metrics = workdir / "metrics.jsonl"
    for number, more in ((signal.SIGTERM, ["--restart"]), (signal.SIGINT, [])):
        size = metrics.stat().st_size if metrics.exists() else 0
        process = forks.start("train", command + more)
        wait_for(lambda: metrics.exists() and metrics.stat().st_size > size)  # noqa: B023
        os.kill(process, number)
        ended = forks.end()
        assert (ended.code, ended.out) == (128 + number, ""), ended
        epoch = max(int(path.name) for path in (workdir / "checkpoints" / "group_000").iterdir())
        assert epoch + 1 == len(run_directory.read_jsonl(metrics)) / 2 < 150  # one before the first step
        typed = shlex.join([sys.executable, "-m", "experiments.train", *command])
        assert ended.err.splitlines()[-1] == (
            f"stopped by {number.name}, saved after epoch {epoch} of 150; to go on: {typed}"
        )
    assert forks.run("train", command).code == 0
    assert_same(workdir, whole)


@pytest.mark.parametrize("word", ["--restart", "-restart", "--restart=true", "--restart=1", "-restart=True"])
def test_the_command_that_goes_on_does_not_start_over(monkeypatch, word):
    kept = ["python", "-m", "experiments.train", "--workdir=runs/--restart", "--norestart"]
    monkeypatch.setattr(sys, "orig_argv", [*kept, word])
    assert shlex.split(command_line._going_on()) == kept


def test_the_second_signal_stops_at_once(capfd):
    before = [signal.getsignal(number) for number in signals.SIGNALS]
    with pytest.raises(signals.Stopped) as caught, signals.held() as received:
        os.kill(os.getpid(), signal.SIGTERM)
        assert received == [signal.SIGTERM]
        os.kill(os.getpid(), signal.SIGINT)
    assert caught.value.signal == signal.SIGINT
    assert [signal.getsignal(number) for number in signals.SIGNALS] == before
    assert capfd.readouterr().err == "stopping with a checkpoint at the end of this chunk; again: stop at once\n"


def test_a_file_that_is_cut_short_under_a_run(forks, whole_streamed, tmp_path):
    """One line that names it, code 2; with the file whole again the same command ends as if nothing had been."""
    command, path = arguments(tmp_path, SEEDS, **whole_streamed[2]), pathlib.Path(whole_streamed[2]["data__path"])
    content, within = path.read_bytes(), tmp_path / "checkpoints" / "group_000_steps"
    forks.start("train", command)
    wait_for(lambda: is_there(within, "[0-9]*"))
    os.truncate(path, len(content) // 2)
    ended = forks.end()
    path.write_bytes(content)
    assert (ended.code, ended.out) == (2, ""), ended
    assert re.search(rf"^error: {path}: ends before image \d+, or in it; it was cut short$", ended.err.splitlines()[-1])
    ended = forks.run("train", command)
    assert ended.code == 0, ended
    assert re.search(r"goes on from (step|epoch) [1-9]", ended.err)
    assert_same(tmp_path, whole_streamed[0])


# The disk


@pytest.fixture
def begun(plain, tmp_path):
    """The small study up to its last checkpoint but one."""
    workdir = tmp_path / "begun"
    shutil.copytree(plain, workdir)
    (workdir / "results.csv").unlink()
    shutil.rmtree(workdir / "checkpoints" / "group_000" / str(EPOCHS))
    shutil.rmtree(workdir / "arrays")
    (workdir / "metrics.jsonl").write_text("".join((plain / "metrics.jsonl").read_text().splitlines(True)[: 2 * EPOCHS]))
    return workdir


def largest(folder: pathlib.Path) -> int:
    return max(path.stat().st_size for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize("where", ["checkpoints", "metrics.jsonl", "arrays"])
def test_a_full_disk(forks, plain, begun, where):
    """No byte too many in the file that grows: one line that names it, and what was there goes on later."""
    metrics = (begun / "metrics.jsonl").stat().st_size
    saved = largest(plain / "checkpoints")
    limit = {"checkpoints": saved // 2, "metrics.jsonl": metrics + 10, "arrays": largest(plain / "arrays") - 10}[where]
    if where == "checkpoints":  # whose files are smaller than metrics.jsonl is in the end: from the beginning
        (begun / "metrics.jsonl").unlink()
        shutil.rmtree(begun / "checkpoints")
    elif where == "arrays":  # trained, and not evaluated
        begun = pathlib.Path(shutil.copytree(plain, begun.parent / "trained"))
        (begun / "results.csv").unlink()
    settings = arguments(begun, SEEDS, **LITTLE)
    if where == "metrics.jsonl":  # with no programs compiled before: that those cannot be kept is not worth a line
        settings.append(f"--compilation_cache={begun.parent / 'programs'}")
    said = said_in_one_line(forks.run("train", settings, limit=limit))
    assert str(begun / where) in said
    assert not (begun / "results.csv").exists()
    assert forks.run("train", arguments(begun, SEEDS, **LITTLE)).code == 0
    assert_same(begun, plain)


def test_a_directory_that_is_taken_away(forks, tmp_path):
    workdir, away = tmp_path / "workdir", tmp_path / "away"
    forks.start("train", arguments(workdir, SEEDS, **LONG, **LITTLE))
    wait_for(lambda: is_there(workdir, "checkpoints/*/2"))
    workdir.rename(away)
    said = said_in_one_line(forks.end())
    assert str(workdir) in said
    assert not (workdir / "results.csv").exists()
    assert [*away.glob("checkpoints/group_000/[0-9]*")]


# Damaged and foreign directories


def test_a_directory_without_its_config_is_not_gone_on_with(forks, begun):
    (begun / "config.json").unlink()
    said = said_in_one_line(forks.run("train", arguments(begun, SEEDS, **LITTLE)))
    assert said.endswith("has metrics.jsonl but no config.json; start over by --restart")


def test_restart_removes_its_own_files_only(forks, grown, tmp_path):
    workdir = tmp_path / "again"
    shutil.copytree(grown, workdir)
    foreign = ["notes.txt", "arrays/mine.npz", "arrays/run_1.txt", "checkpoints/mine", "checkpoints/group_000/mine"]
    foreign += ["figures/mine.png", "checkpoints/group_mine/2024/mine", "results.csv.bak", "arrays/run_0007.npz"]
    for name in foreign:
        (workdir / name).parent.mkdir(exist_ok=True, parents=True)
        (workdir / name).write_text(name)
    for epoch in (EPOCHS, EPOCHS - 1):
        (workdir / "checkpoints" / "group_000" / str(epoch) / "_CHECKPOINT_METADATA").write_text("")
    (workdir / "results.csv").unlink()
    ended = forks.run("train", arguments(workdir, MORE, **LITTLE))
    assert "no checkpoint is whole; start over by --restart" in ended.err
    assert ended.code == 2
    # A mistake removes nothing.
    before = sorted(workdir.rglob("*"))
    said_in_one_line(forks.run("train", arguments(workdir, "--restart", train__epochs=-1)))
    assert sorted(workdir.rglob("*")) == before
    # Drawn by the study, and not of this one.
    run_directory.record(workdir, ["figures/old.png"])
    (workdir / "figures" / "old.png").write_text("old")
    ended = forks.run("train", arguments(workdir, "--restart", "--sweep=seed=1,2", **LITTLE))
    assert ended.code == 0, ended
    assert not (workdir / "figures" / "old.png").exists()
    rows = tables.read_csv(grown / "results.csv")[1:3]
    assert tables.read_csv(workdir / "results.csv") == [row | {"run": number} for number, row in enumerate(rows)]
    assert not [*workdir.glob("arrays/run_000[23]*"), *workdir.glob("checkpoints/group_001/*")]
    assert [(workdir / name).read_text() for name in foreign] == foreign


def contents(folder: pathlib.Path) -> dict:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


@pytest.mark.parametrize("name", ["results.csv", "config.json", "arrays/run_0001.npz", "checkpoints/group_000/3/mine"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
def test_files_that_no_study_wrote_are_not_overwritten(whole, tmp_path, monkeypatch, name, restart):
    monkeypatch.chdir(ROOT)
    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / name).write_text("mine")
    before = contents(tmp_path)
    message = r"config\.json: not valid JSON" if name == "config.json" and not restart else "which no study recorded writing"
    with pytest.raises(errors.UserError, match=message):
        study.run(study.read(whole[0]).config, tmp_path, None, [("seed", ("0", "1"))], restart)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["checkpoints/group_000", "arrays", "figures", "metrics.jsonl", "config.json.part"])
@pytest.mark.parametrize("restart", [False, True], ids=["", "restart"])
def test_nothing_happens_where_a_link_points_to(whole, tmp_path, monkeypatch, name, restart):
    monkeypatch.chdir(ROOT)
    workdir, elsewhere = tmp_path / "workdir", tmp_path / "elsewhere"
    shutil.copytree(whole[0], workdir)
    shutil.copytree(whole[0], elsewhere)
    if (workdir / name).is_dir():
        shutil.rmtree(workdir / name)
    (workdir / name).unlink(missing_ok=True)
    (workdir / name).symlink_to(elsewhere / name.removesuffix(".part"))
    before = contents(elsewhere)
    with pytest.raises(errors.UserError, match=f"{workdir / name}: is a link"):
        study.run(study.read(whole[0]).config, workdir, None, [("seed", ("0", "1"))], restart)
    assert contents(elsewhere) == before
    assert (workdir / "results.csv").exists()


LINE = '{"run": 0, "name": "vae", "seed": 0, "epoch": 1, "step": 3, "train_mean_std": '
DAMAGES = {
    "config.json": [
        "",
        "[]",
        "3",
        '{"config": 3}',
        '{"format": 1, "config": {}, "sweep": 3, "sweeps": 3}',
        '{"format": ' + 5000 * "9" + "}",
    ],
    "results.csv": ["", "run,name\n", "run,name,elbo\n0,vae,high\n", "run\n0\n", "run,name,objective.beta\n0,vae,big\n"],
    "metrics.jsonl": [
        "{",
        "[1]\n",
        "3\n",
        LINE + '"high"}\n',
        LINE + 5000 * "9" + "}\n",
        LINE.replace('"run"', '"runs"') + "1}\n",
    ],
}


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in DAMAGES.items() for text in texts])
def test_files_that_somebody_edited(whole, tmp_path, name, text, monkeypatch):
    """Drawn or evaluated, or one line."""
    monkeypatch.chdir(ROOT)
    workdir = pathlib.Path(shutil.copytree(whole[0], tmp_path / "edited"))
    (workdir / name).write_text(text)
    if name == "config.json":
        with pytest.raises(errors.UserError, match=r"config\.json: "):
            study.evaluate(workdir)
    elif text == "run,name\n":
        assert figures.draw(workdir) == []
    else:
        with pytest.raises(errors.UserError, match=name) as caught:
            figures.draw(workdir)
        assert "\n" not in str(caught.value)


def test_arrays_that_somebody_swapped(whole, tmp_path):
    """Not drawn as what they are not."""
    workdir = pathlib.Path(shutil.copytree(whole[0], tmp_path / "edited"))
    path = run_directory.arrays_path(workdir, 0)
    with np.load(path) as archive:
        arrays = dict(archive)
    np.savez(path, **arrays | {"codes_mean": arrays["codes_std"], "codes_std": arrays["codes_mean"]})
    with pytest.raises(errors.UserError, match=r"run_0000\.npz: its arrays are not those that were written"):
        figures.draw(workdir)


# Diverged


def test_a_diverged_run_harms_no_other(forks, plain, tmp_path):
    command = arguments(tmp_path / "grid", "--sweep=optimizer.learning_rate=3e-3,1e6", **LITTLE)
    ended = forks.run("train", command)
    assert ended.code == 3, ended
    rows = tables.read_csv(tmp_path / "grid" / "results.csv")
    assert "diverged" not in rows[0]
    step = rows[1]["diverged"]
    assert 0 <= step < EPOCHS * 3
    last = ended.err.splitlines()[-1]
    assert last.startswith(f"error: 1 of 2 runs diverged: run 1 (vae, optimizer.learning_rate=1000000.0) at step {step};")
    assert f"  diverged at step {step}\n" in ended.out
    # The other, bit for bit.
    assert rows[0] == tables.read_csv(plain / "results.csv")[0] | {"optimizer.learning_rate": 0.003}
    lines = run_directory.read_jsonl(tmp_path / "grid" / "metrics.jsonl")
    assert lines[::2] == run_directory.read_jsonl(plain / "metrics.jsonl")[::2]
    # Frozen: what depends on the state alone stays as it is.
    late = [line["valid_mean_std"] for line in lines[1::2] if line["step"] > step]
    assert len(late) > 2
    np.testing.assert_array_equal(late, late[0])
    # Again in the finished directory.
    again = forks.run("train", command)
    assert (again.code, again.out, again.err.splitlines()[-1]) == (3, ended.out, last)
    allowed = forks.run("train", [*command, "--allow_diverged"])
    assert (allowed.code, allowed.out) == (0, ended.out)
    assert "runs diverged" not in allowed.err


# Older formats


@pytest.mark.parametrize("name", ["format_1"])
def test_a_directory_of_a_released_format_is_read(tmp_path, name, monkeypatch):
    """Drawn, evaluated anew from its checkpoint, and gone on with.

    Made by: python -m experiments.train --config=configs/vae.py --workdir=tests/data/format_1 and `SMALL`, with 2 epochs.
    """
    monkeypatch.chdir(ROOT)
    workdir = pathlib.Path(shutil.copytree(ROOT / "tests" / "data" / name, tmp_path / name))
    (before,) = tables.read_csv(workdir / "results.csv")
    assert [path.name for path in figures.draw(workdir)] == [
        "learning_curves.png",
        "rates.png",
        "densities.png",
        "posterior_std.png",
    ]
    (evaluated,) = study.evaluate(workdir)
    # Standard errors are estimated otherwise since then.
    numbers = {key: value for key, value in before.items() if isinstance(value, float) and not key.endswith("_se")}
    # Made on another machine: a bound for rounding, not for other numbers.
    assert {key: evaluated[key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-5)
    config = study.read(workdir).config
    (workdir / "results.csv").unlink()
    shutil.rmtree(workdir / "checkpoints" / "group_000" / "2")
    (again,) = study.run(config, workdir)
    assert {key: again[key] for key in numbers} == pytest.approx(numbers, rel=1e-3, abs=1e-5)


def test_a_directory_of_a_released_format_grows(tmp_path, monkeypatch):
    """Its row, lines, arrays and parameters stay as they are; the new run is what it is in a study of today."""
    monkeypatch.chdir(ROOT)
    workdir = pathlib.Path(shutil.copytree(ROOT / "tests" / "data" / "format_1", tmp_path / "format_1"))
    before = contents(workdir)
    (row,) = tables.read_cells(workdir / "results.csv")
    config = study.read(workdir).config
    study.run(config, workdir, None, [("seed", ("0", "1"))])
    rewritten = {workdir / name for name in ("results.csv", "metrics.jsonl", "config.json")}
    assert {path: content for path, content in contents(workdir).items() if path in before and path not in rewritten} == {
        path: content for path, content in before.items() if path not in rewritten
    }
    assert (workdir / "metrics.jsonl").read_bytes().startswith(before[workdir / "metrics.jsonl"])
    same, new = tables.read_cells(workdir / "results.csv")
    assert row.items() <= same.items()
    assert {key for key, cell in same.items() if cell} <= set(row)
    assert run_directory.read_json(workdir / "config.json")["format"] == run_directory.FORMAT
    study.run(config | {"seed": 1}, tmp_path / "today")
    (today,) = tables.read_cells(tmp_path / "today" / "results.csv")
    assert today.items() <= (new | {"run": "0"}).items()


def test_a_directory_of_a_format_to_come_is_refused(whole, tmp_path):
    workdir = pathlib.Path(shutil.copytree(whole[0], tmp_path / "new"))
    described = run_directory.read_json(workdir / "config.json")
    described |= {"format": 99, "versions": {"vae_jax": "7.0.0"}}
    run_directory.write_json(workdir / "config.json", described)
    for read in (figures.draw, study.evaluate):
        with pytest.raises(errors.UserError, match=r"written by vae_jax 7\.0\.0 in format 99; this is vae_jax \d"):
            read(workdir)


# The same command


def test_the_same_command_twice_and_the_grid_the_other_way_round(forks, whole, plain, tmp_path):
    compiled = whole[0].parent / "compiled"
    names = {str(path.relative_to(compiled)) for path in compiled.rglob("*") if path.is_file()}
    names -= {"log.jsonl", "report.html"}  # which name the command, and with it the directory
    for name in names:
        if "checkpoints" not in name:  # Orbax names its files by chance; what they hold is signed
            assert (compiled / name).read_bytes() == (whole[0] / name).read_bytes(), name
    assert_same(compiled, whole[0])
    assert forks.run("train", arguments(tmp_path / "turned", "--sweep=seed=1,0", **LITTLE)).code == 0
    turned = tables.read_csv(tmp_path / "turned" / "results.csv")
    assert [row | {"run": 1 - row["run"]} for row in turned[::-1]] == tables.read_csv(plain / "results.csv")
