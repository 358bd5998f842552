"""A study, from config to `results.csv`: planned, checked, trained, evaluated, written. What scripts and notebooks call.

rows = study.run(config, "runs/vae")
"""

import contextlib
import os
import pathlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from vae_jax.core import errors
from vae_jax.core.schema import Value
from vae_jax.evaluation import config as evaluation
from vae_jax.evaluation import metrics
from vae_jax.storage import checkpoints, run_directory, tables
from vae_jax.study import config, grid, growth, identity, planning, provenance, stages
from vae_jax.study.ahead import Ahead
from vae_jax.study.identity import Saved, read
from vae_jax.study.planning import Config, Group, Study, plan
from vae_jax.system import multihost
from vae_jax.system.progress import say
from vae_jax.training import loop

__all__ = ["Config", "Group", "Study", "best", "diverged", "evaluate", "execute", "plan", "read", "run", "summary"]

best, diverged = tables.best, tables.diverged


def summary(rows: Sequence[tables.Row], width: int | None = None) -> str:
    """The table that is printed of `results.csv`; see `tables.summary`."""
    return tables.summary(rows, metrics.decimals(), width)


def run(
    config: Config,
    workdir: str | os.PathLike,
    sweep: grid.Sweep | None = None,
    sweeps: grid.Sweeps = (),
    restart: bool = False,
    on_chunk: loop.OnChunk | None = None,
) -> list[tables.Row]:
    """Plan, train and evaluate a study in `workdir`; returns the rows of `results.csv`. See `plan` for the arguments.

    Called again with the same arguments it goes on where it stopped; a finished study is only read. With new seeds or sweep
    values the study grows by their runs; with other `eval` fields it is evaluated anew; with more epochs it goes on, where
    the learning rate is constant. With `restart` it removes what a study left in `workdir`, and nothing else, and starts
    over. `on_chunk` is called with the rows that each chunk adds to `metrics.jsonl`; after an interruption again with those
    since the last checkpoint.

    Raises:
      UserError: a mistake in the config, or a directory that belongs to another one.
      Stopped: SIGTERM or Ctrl-C while training; what was reached is saved.
    """
    return execute(plan(config, sweep, sweeps), pathlib.Path(workdir), restart, on_chunk)


def execute(
    asked: Study, workdir: pathlib.Path, restart: bool = False, on_chunk: loop.OnChunk | None = None
) -> list[tables.Row]:
    """Train and evaluate what `workdir` does not hold yet."""
    if workdir.exists() and not workdir.is_dir():
        raise errors.UserError(f"--workdir={workdir}: is a file; should be a directory, or a new name")
    multihost.agree(repr(identity.describe(asked)), "config, version or device")
    goes_on = not restart and (workdir / "config.json").exists()
    if not goes_on:
        _check_memory(asked, {})
    with _held(workdir):
        there = identity.saved(workdir) if goes_on else None
        study = growth.merged(asked, there, workdir) if there else asked
        known = identity.known_rows(study, there, workdir) if there else {}
        if there:
            identity.tell_other_code(there, workdir)
            identity.tell_other_evaluation(study, there, workdir)
            _check_memory(study, known)
        multihost.wait("read")
        if multihost.writes():
            _prepare(study, there, known, workdir, restart)
        multihost.wait("prepared")
        if len(known) == len(study.rows):
            count = len(study.runs)
            say(f"{workdir}: {'the run is' if count == 1 else f'all {count:,} runs are'} done")
            return tables.read_csv(workdir / "results.csv")
        with Ahead(study, workdir, known) as ahead:
            states = stages.train(study, workdir, known, on_chunk, ahead.train)
            return stages.measure(study, states, workdir, known, ahead.plan)


def _check_memory(study: Study, known: Collection[int]) -> None:
    """Refuse what could not be trained here, where it has to be."""
    for group in study.groups:
        if not set(study.rows_of(group)) <= set(known):
            loop.check(group.spec, group.hyperparams, group.dataset)


def _prepare(study: Study, there: Saved | None, known: Collection[int], workdir: pathlib.Path, restart: bool) -> None:
    """Make `workdir` the directory of this study, or refuse it."""
    names, own = stages.files(study), run_directory.recorded(workdir)
    run_directory.refuse_links(workdir, [*names, "figures"])
    present = [name for name in dict.fromkeys([*names, *own]) if _exists(workdir, name)]
    if foreign := [name for name in present if name not in own]:
        raise errors.UserError(
            f"--workdir={workdir}: has {foreign[0]}, which no study recorded writing; move it, or choose another directory"
        )
    if there:
        provenance.check_data(study.sources(), there.raw.get("data"), f"--workdir={workdir}")
    if restart:
        for name in own:
            if name.endswith("/"):
                checkpoints.clear(workdir / name)
        run_directory.clear(workdir)
    elif present and there is None:
        raise errors.UserError(f"--workdir={workdir}: has {present[0]} but no config.json; start over by --restart")
    run_directory.record(workdir, names)
    # Of a table that will be replaced nothing is said meanwhile.
    keeps_table = there is not None and (known or not (workdir / "results.csv").exists())
    described = identity.describe(study, there.evaluated if there and keeps_table else None, there)
    is_as_asked = there and (len(known), there.config, there.grids) == (len(study.rows), study.config, study.grids)
    if not is_as_asked and (there is None or run_directory.jsonable(described) != there.raw):
        run_directory.write_json(workdir / "config.json", described)


def _exists(workdir: pathlib.Path, name: str) -> bool:
    """Whether there is such a file, or a checkpoint in such a folder."""
    return bool(checkpoints.steps(workdir / name)) if name.endswith("/") else (workdir / name).exists()


@contextlib.contextmanager
def _held(workdir: pathlib.Path) -> Iterator[None]:
    """The directory, made and locked by the process that writes, until all have come to the end."""
    with contextlib.ExitStack() as stack:
        if multihost.writes():
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_directory.locked(workdir))
        multihost.wait("locked")
        yield
        multihost.wait("done")


def evaluate(
    workdir: str | os.PathLike,
    changes: Mapping[str, Value] | None = None,
    eval_set: str | None = None,
    full: Mapping[str, Value] | None = None,
) -> list[tables.Row]:
    """Evaluate the trained runs of `workdir` anew, from its checkpoints, and write `results.csv` and `arrays/`.

    Args:
      workdir: the directory of a trained study.
      changes: `eval` fields by dotted name that become other than they were.
      eval_set: "none", "quick" or "full", as `--eval`; fields that the sweep sets, or `changes`, are not the set's.
      full: config by dotted name to which "full" takes back what another set had changed; None: the defaults.

    Raises:
      UserError: no run directory, one whose training has not finished, or a field that cannot be changed here.
    """
    workdir = pathlib.Path(workdir)
    there = identity.saved(workdir)
    swept = {key for each in there.grids for key in each.keys}
    for key in changes or {}:
        if not config.find(key).key.startswith("eval."):
            raise errors.UserError(f"--config.{key}: is of the training; only eval fields can be changed here")
        if key in swept:
            raise errors.UserError(f"--config.{key} has no effect: the sweep of {workdir} sets it")
    defaults = {key: field.default for key, field in config.FIELDS.items()}
    by_set = evaluation.changed(eval_set, there.config, full or defaults) if eval_set else {}
    given = {key: value for key, value in by_set.items() if key not in swept} | dict(changes or {})
    now = there.config | {key: config.typed(key, value) for key, value in given.items()}
    study = planning.plan_grids(now, there.grids, planning.loader())
    provenance.check_data(study.sources(), there.raw.get("data"), f"--workdir={workdir}")
    identity.tell_other_evaluation(study, there, workdir)
    with _held(workdir):
        states = [
            stages.saved_state(group, stages.checkpoint_directory(workdir, index), workdir)
            for index, group in enumerate(study.groups)
        ]
        if multihost.writes():
            run_directory.record(workdir, stages.files(study))
            run_directory.write_json(workdir / "config.json", identity.describe(study, None, there))
        with Ahead(study, workdir) as ahead:
            return stages.measure(study, states, workdir, plan_of=ahead.plan)
