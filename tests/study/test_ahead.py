"""Programs are compiled in threads before they are called, once, and nothing else changes."""

import shutil
import threading
import time

import jax
import pytest
from jax._src import compiler
from support import LINEAR, NOT_EVALUATED, assert_same_numbers, tiny

from vae_jax.core import errors, registry
from vae_jax.evaluation import evaluate
from vae_jax.storage import run_directory, tables
from vae_jax.study import ahead, study
from vae_jax.system import signals, traced
from vae_jax.training import loop, step

SEEDS = ("seed", ("0", "1"))
GROUPS = (("model.latents", ("2", "1")), SEEDS)  # four runs, two programs of each kind
THREE_GROUPS = (("model.latents", ("1", "2", "3")), SEEDS)


def noting(patch) -> list[str]:
    """The names of the threads in which programs of many runs will be compiled."""
    found, real = [], compiler.compile_or_get_cached

    def noted(backend, module, *args, **kwargs):
        if "sharded" in str(module.operation.attributes["sym_name"]):
            found.append(threading.current_thread().name)
        return real(backend, module, *args, **kwargs)

    patch.setattr(compiler, "compile_or_get_cached", noted)
    return found


@pytest.fixture
def compiled(monkeypatch):
    """The names of the threads in which programs of many runs were compiled in a test."""
    return noting(monkeypatch)


@pytest.fixture
def not_ahead(monkeypatch):
    """Everything is compiled where it is called."""

    def off():
        monkeypatch.setattr(ahead.Ahead, "train", lambda *_: None)
        monkeypatch.setattr(ahead.Ahead, "plan", lambda *_: None)

    return off


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Two groups, compiled ahead, and the names of the threads that compiled; read only."""
    workdir = tmp_path_factory.mktemp("ahead") / "run"
    with pytest.MonkeyPatch.context() as patch:
        found = noting(patch)
        study.run(tiny(**LINEAR), workdir, None, GROUPS)
    return workdir, found


def test_what_is_wrong_in_a_thread_is_told_where_it_is_needed(trained, tmp_path, monkeypatch):
    """Training, by the programs of `trained`, is done by then, and saved."""

    def of(setting):
        raise errors.UserError("eval.factor=hair: not there")

    monkeypatch.setattr(ahead.evaluate.Plan, "of", staticmethod(of))
    with pytest.raises(errors.UserError, match=r"eval\.factor=hair: not there"):
        study.run(tiny(**LINEAR), tmp_path / "run", None, (SEEDS,))
    assert (tmp_path / "run" / "checkpoints" / "group_000" / "4").is_dir()


def test_every_program_is_compiled_once_and_in_a_thread(trained, tmp_path, compiled, not_ahead):
    """As many as where they are called, and the same bits."""
    workdir, in_threads = trained
    assert in_threads and all(name.startswith("compiler") for name in in_threads)
    forget_programs()
    not_ahead()
    study.run(tiny(**LINEAR), tmp_path / "called", None, GROUPS)
    assert len(compiled) == len(in_threads)
    assert set(compiled) == {"MainThread"}
    assert_same_numbers(workdir, tmp_path / "called")


def forget_programs():
    """As in a new process."""
    jax.clear_caches()
    step._program.cache_clear()
    evaluate._over_runs.cache_clear()


def numbers(workdir) -> tuple:
    """Rows, lines and arrays of the first two runs, without the setting that makes groups."""
    rows = [row | {"model.latents": ""} for row in tables.read_cells(workdir / "results.csv")[:2]]
    lines = [row for row in run_directory.read_metrics(workdir) if row["run"] < 2]
    arrays = [run_directory.read_arrays(run_directory.arrays_path(workdir, run)) for run in range(2)]
    return rows, lines, [{name: array.tobytes() for name, array in each.items()} for each in arrays]


def test_programs_that_were_kept_are_not_traced_and_give_the_same_bits(trained, tmp_path, compiled, monkeypatch):
    """The bits of the first group of `trained`, of whose settings the study is."""
    traced_each_time = numbers(trained[0])
    monkeypatch.setattr(traced, "_directory", tmp_path / "programs")
    monkeypatch.setattr(traced, "_BEGUN", time.time() + 10**6)  # as if this checkout were old
    monkeypatch.setattr(registry, "added", dict)
    for name in ("first", "again"):
        forget_programs()
        study.run(tiny(**LINEAR), tmp_path / name, None, (SEEDS,))
        assert numbers(tmp_path / name) == traced_each_time
        monkeypatch.setattr(traced, "_traced", None)
    forget_programs()
    study.evaluate(tmp_path / "again")  # by the same programs
    assert_same_numbers(tmp_path / "first", tmp_path / "again")
    assert not compiled


def test_an_evaluation_anew_is_compiled_ahead_and_no_training(trained, tmp_path, compiled):
    workdir = shutil.copytree(trained[0], tmp_path / "run")
    forget_programs()
    study.run(tiny(**LINEAR, **NOT_EVALUATED), workdir, None, GROUPS)
    assert not compiled
    study.evaluate(workdir, {"eval.samples": 2, "eval.without": ()})
    assert 0 < len(compiled) < len(trained[1]) and all(name.startswith("compiler") for name in compiled)


def test_where_it_is_stopped_nothing_more_is_compiled(tmp_path, compiled, monkeypatch):
    """Of three groups, whose programs would all be compiled by the end."""

    def stopped(*_):
        raise signals.Stopped(15)

    monkeypatch.setattr(loop, "fit", stopped)
    with pytest.raises(signals.Stopped):
        study.run(tiny(**LINEAR), tmp_path / "run", None, THREE_GROUPS)
    assert len(compiled) <= ahead.THREADS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("compiler")]


def test_a_group_is_compiled_some_groups_before_its_turn(tmp_path, monkeypatch):
    """And not before that: programs take memory."""
    begun = []
    monkeypatch.setattr(ahead, "GROUPS", 1)
    monkeypatch.setattr(ahead.Ahead, "_train", lambda self, index: begun.append(index))
    planned = study.plan(tiny(**LINEAR), None, THREE_GROUPS)
    with ahead.Ahead(planned, tmp_path) as compiling:
        for index in range(2):
            compiling.train(index)
            compiling._begun[-1].result()
            assert begun == list(range(index + 2))
