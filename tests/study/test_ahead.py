"""Programs are compiled in threads before they are called, once, and nothing else changes."""

import threading
import time

import jax
import pytest
from jax._src import compiler
from support import NOT_EVALUATED, assert_same_numbers, tiny

from vae_jax.core import errors, registry
from vae_jax.evaluation import evaluate
from vae_jax.study import ahead, study
from vae_jax.system import signals, traced
from vae_jax.training import loop, step

GROUPS = (("model.latents", ("1", "2", "3")), ("seed", ("0", "1")))  # six runs, three programs of each kind


@pytest.fixture
def compiled(monkeypatch):
    """The names of the threads in which programs of many runs were compiled."""
    found, real = [], compiler.compile_or_get_cached

    def noted(backend, module, *args, **kwargs):
        if "sharded" in str(module.operation.attributes["sym_name"]):
            found.append(threading.current_thread().name)
        return real(backend, module, *args, **kwargs)

    monkeypatch.setattr(compiler, "compile_or_get_cached", noted)
    return found


@pytest.fixture
def not_ahead(monkeypatch):
    """Everything is compiled where it is called."""

    def off():
        monkeypatch.setattr(ahead.Ahead, "train", lambda *_: None)
        monkeypatch.setattr(ahead.Ahead, "plan", lambda *_: None)

    return off


def test_every_program_is_compiled_once_and_in_a_thread(tmp_path, compiled, not_ahead):
    """As many as where they are called, and the same bits."""
    study.run(tiny(), tmp_path / "ahead", None, GROUPS)
    in_threads = len(compiled)
    assert in_threads and all(name.startswith("compiler") for name in compiled)
    forget_programs()
    not_ahead()
    study.run(tiny(), tmp_path / "called", None, GROUPS)
    assert len(compiled) == 2 * in_threads
    assert set(compiled[in_threads:]) == {"MainThread"}
    assert_same_numbers(tmp_path / "ahead", tmp_path / "called")


def forget_programs():
    """As in a new process."""
    jax.clear_caches()
    step._program.cache_clear()
    evaluate._over_runs.cache_clear()


def test_programs_that_were_kept_are_not_traced_and_give_the_same_bits(tmp_path, compiled, monkeypatch):
    seeds = GROUPS[1:]
    forget_programs()
    study.run(tiny(), tmp_path / "traced", None, seeds)
    assert compiled
    monkeypatch.setattr(traced, "_directory", tmp_path / "programs")
    monkeypatch.setattr(traced, "_BEGUN", time.time() + 10**6)  # as if this checkout were old
    monkeypatch.setattr(registry, "added", dict)
    for name in ("first", "again"):
        forget_programs()
        study.run(tiny(), tmp_path / name, None, seeds)
        assert_same_numbers(tmp_path / "traced", tmp_path / name)
        del compiled[:]
        monkeypatch.setattr(traced, "_traced", None)
    forget_programs()
    study.evaluate(tmp_path / "again")  # by the same programs
    assert_same_numbers(tmp_path / "traced", tmp_path / "again")
    assert not compiled


def test_an_evaluation_anew_is_compiled_ahead_and_no_training(tmp_path, compiled):
    study.run(tiny(**NOT_EVALUATED), tmp_path / "run", None, GROUPS)
    del compiled[:]
    (tmp_path / "run" / "results.csv").unlink()
    study.run(tiny(**NOT_EVALUATED), tmp_path / "run", None, GROUPS)
    assert not compiled
    study.evaluate(tmp_path / "run", {"eval.samples": 3, "eval.without": ()})
    assert compiled and all(name.startswith("compiler") for name in compiled)


def test_what_is_wrong_in_a_thread_is_told_where_it_is_needed(tmp_path, monkeypatch):
    """Training is done by then, and saved."""

    def of(setting):
        raise errors.UserError("eval.factor=hair: not there")

    monkeypatch.setattr(ahead.evaluate.Plan, "of", staticmethod(of))
    with pytest.raises(errors.UserError, match=r"eval\.factor=hair: not there"):
        study.run(tiny(), tmp_path / "run")
    assert (tmp_path / "run" / "checkpoints" / "group_000" / "4").is_dir()


def test_where_it_is_stopped_nothing_more_is_compiled(tmp_path, compiled, monkeypatch):
    """Of three groups, whose programs would all be compiled by the end."""

    def stopped(*_):
        raise signals.Stopped(15)

    monkeypatch.setattr(loop, "fit", stopped)
    with pytest.raises(signals.Stopped):
        study.run(tiny(), tmp_path / "run", None, GROUPS)
    assert len(compiled) <= ahead.THREADS
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("compiler")]


def test_a_group_is_compiled_some_groups_before_its_turn(tmp_path, monkeypatch):
    """And not before that: programs take memory."""
    begun = []
    monkeypatch.setattr(ahead, "GROUPS", 1)
    monkeypatch.setattr(ahead.Ahead, "_train", lambda self, index: begun.append(index))
    planned = study.plan(tiny(), None, GROUPS)
    with ahead.Ahead(planned, tmp_path) as compiling:
        for index in range(2):
            compiling.train(index)
            compiling._begun[-1].result()
            assert begun == list(range(index + 2))
