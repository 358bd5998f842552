"""A study, from config to `results.csv`: planned, checked, trained, evaluated, written. What scripts and notebooks call.

rows = study.run(config, "runs/vae")
"""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from vae_jax.core import errors
from vae_jax.storage import checkpoints, run_directory, tables
from vae_jax.study import grid, identity, stages
from vae_jax.study.identity import read
from vae_jax.study.planning import Config, Group, Study, plan
from vae_jax.system import multihost
from vae_jax.system.progress import say
from vae_jax.training import loop

__all__ = ["Config", "Group", "Study", "best", "diverged", "evaluate", "execute", "plan", "read", "run", "summary"]

summary, best, diverged = tables.summary, tables.best, tables.diverged


def run(
    config: Config,
    workdir: str | os.PathLike,
    sweep: grid.Sweep | None = None,
    sweeps: grid.Sweeps = (),
    restart: bool = False,
) -> list[tables.Row]:
    """Plan, train and evaluate a study in `workdir`; returns the rows of `results.csv`. See `plan` for the arguments.

    Called again with the same arguments it goes on where it stopped; a finished study is only read. With `restart` it
    removes what a study left in `workdir`, and nothing else, and starts over.

    Raises:
      UserError: a mistake in the config, or a directory that belongs to another one.
      Stopped: SIGTERM or Ctrl-C while training; what was reached is saved.
    """
    return execute(plan(config, sweep, sweeps), pathlib.Path(workdir), restart)


def execute(study: Study, workdir: pathlib.Path, restart: bool = False) -> list[tables.Row]:
    """Train and evaluate what `workdir` does not hold yet."""
    if workdir.exists() and not workdir.is_dir():
        raise errors.UserError(f"--workdir={workdir}: is a file; should be a directory, or a new name")
    described = identity.describe(study)
    multihost.agree(repr(described), "config, version or device")
    if restart or not (workdir / "results.csv").exists():
        for group in study.groups:
            loop.check(group.spec, group.hyperparams, group.dataset)
    with _held(workdir):
        if multihost.writes():
            _prepare(study, described, workdir, restart)
        multihost.wait("prepared")
        if (workdir / "results.csv").exists():
            say(f"{workdir}: all {len(study.runs)} runs are done")
            return tables.read_csv(workdir / "results.csv")
        return stages.measure(study, stages.train(study, workdir), workdir)


def _prepare(study: Study, described: dict, workdir: pathlib.Path, restart: bool) -> None:
    """Make `workdir` the directory of this study, or refuse it."""
    theirs = None
    if (workdir / "config.json").exists() and not restart:
        theirs = run_directory.read_config(workdir)
    names, own = stages.files(study), run_directory.recorded(workdir)
    run_directory.refuse_links(workdir, [*names, "figures"])
    present = [name for name in dict.fromkeys([*names, *own]) if _exists(workdir, name)]
    if foreign := [name for name in present if name not in own]:
        raise errors.UserError(
            f"--workdir={workdir}: has {foreign[0]}, which no study recorded writing; move it, or choose another directory"
        )
    if restart:
        for name in own:
            if name.endswith("/"):
                checkpoints.clear(workdir / name)
        run_directory.clear(workdir)
    elif theirs is not None:
        identity.check_same(study, described, theirs, workdir)
    elif present:
        raise errors.UserError(f"--workdir={workdir}: has {present[0]} but no config.json; start over by --restart")
    run_directory.record(workdir, names)
    if not (workdir / "config.json").exists():
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


def evaluate(workdir: str | os.PathLike) -> list[tables.Row]:
    """Evaluate the trained runs of `workdir` anew, from its checkpoints, and write `results.csv` and `arrays/`.

    Raises:
      UserError: no run directory, or one whose training has not finished.
    """
    workdir = pathlib.Path(workdir)
    study = read(workdir)
    with _held(workdir):
        if multihost.writes():
            run_directory.record(workdir, stages.files(study))
        directories = [stages.checkpoint_directory(workdir, index) for index in range(len(study.groups))]
        pairs = zip(study.groups, directories, strict=True)
        states = [stages.saved_state(group, directory, workdir) for group, directory in pairs]
        return stages.measure(study, states, workdir)
