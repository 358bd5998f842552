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

# What a directory with runs in it holds, whoever's they are.
RUNS = ("results.csv", "metrics.jsonl", "checkpoints/group_*/[0-9]*")


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
    if restart:
        for group in workdir.glob("checkpoints/group_*"):
            checkpoints.clear(group)
        run_directory.clear(workdir)
    if (workdir / "config.json").exists():
        return identity.check_same(study, run_directory.read_config(workdir), workdir)
    if left := [path for pattern in RUNS for path in workdir.glob(pattern)]:
        raise errors.UserError(f"--workdir={workdir}: has {left[0].name} but no config.json; start over by --restart")
    run_directory.write_json(workdir / "config.json", described)


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
        directories = [stages.checkpoint_directory(workdir, index) for index in range(len(study.groups))]
        pairs = zip(study.groups, directories, strict=True)
        states = [stages.saved_state(group, directory, workdir) for group, directory in pairs]
        return stages.measure(study, states, workdir)
