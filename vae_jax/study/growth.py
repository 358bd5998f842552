"""How a study grows in its directory: which of the runs that are asked for are there, and which are new.

A directory keeps what each command swept, in order (`config.json`: `sweep` and `sweeps`, then those in `grown`). The runs of
the first come first, then those that each later command added. A run is known by its settings and keeps its number; what
was trained together stays together, and new runs are trained in groups of their own.
"""

import itertools
import pathlib

from vae_jax.storage import checkpoints
from vae_jax.study import grid, identity, planning
from vae_jax.study.config import Flat
from vae_jax.study.grid import Grid, Run
from vae_jax.study.identity import Saved
from vae_jax.study.planning import Study
from vae_jax.study.stages import checkpoint_directory
from vae_jax.system.progress import counted, say
from vae_jax.training import session


def merged(asked: Study, there: Saved, workdir: pathlib.Path) -> Study:
    """What is in `workdir` together with what is asked for.

    Raises:
      UserError: the directory is of another config, or what is asked for cannot be had by going on.
    """
    identity.refuse_other(asked.config, there, workdir)
    _check_epochs(asked.config, there, workdir)
    _check_runs(asked.config, there, workdir)
    wanted = {tuple(run.config.items()) for run in asked.runs}
    study = planning.plan_grids(asked.config, _begun(asked, there, wanted, workdir), asked.load)
    count = len(study.runs)
    if missing := wanted - {tuple(run.config.items()) for run in study.runs}:
        study = planning.plan_grids(asked.config, [*study.grids, *asked.grids], asked.load)
        if count:
            new = f"{len(missing):,} {'is' if len(missing) == 1 else 'are'} new"
            say(f"{workdir}: {counted(count, 'run')} {'is' if count == 1 else 'are'} there, {new}")
    if others := sum(tuple(run.config.items()) not in wanted for run in study.runs):
        say(f"{workdir}: {counted(others, 'run')} no longer in the sweep {'stays' if others == 1 else 'stay'}")
    return study


def _begun(asked: Study, there: Saved, wanted: set[tuple], workdir: pathlib.Path) -> list[Grid]:
    """The grids of the directory, without the last where none of its runs has a checkpoint and it is not asked for again."""
    grids = list(there.grids)
    while grids:
        study = planning.plan_grids(asked.config, grids, asked.load)
        first = sum(map(len, grid.expand_grids(asked.config, *grids)[:-1]))
        added = {tuple(run.config.items()) for run in study.runs[first:]}
        last = [index for index, group in enumerate(study.groups) if group.numbers[0] >= first]
        directories = [checkpoint_directory(workdir, index) for index in last]
        if added <= wanted or any(map(checkpoints.steps, [*directories, *map(session.within, directories)])):
            break
        grids.pop()
    return grids


def _check_epochs(config: Flat, there: Saved, workdir: pathlib.Path) -> None:
    """Refuse another number of epochs where a run that was longer from the start would have taken other steps."""
    before, now = there.config["train.epochs"], config["train.epochs"]
    if before == now:
        return
    differs = f"train.epochs is {before} there and {now} here"
    grids = grid.expand_grids(there.config, *there.grids)
    for runs, of in zip(grids, there.grids, strict=True):
        # A row that sets the number of epochs itself does not follow the config's.
        rows = [row for row in of.rows if "train.epochs" in row]
        if "train.epochs" in dict(of.sweeps) or (rows and len(rows) == len(of.rows)):
            continue
        if now < before:
            raise identity.belongs_to_another(there, workdir, f"{differs}, and what was trained cannot be shortened")
        for run in runs:
            if (decay := run.config["optimizer.schedule"]) != "constant":
                why = f"optimizer.schedule={decay} makes each step depend on how many there are"
                raise identity.belongs_to_another(there, workdir, f"{differs}, and {why}")


def _check_runs(config: Flat, there: Saved, workdir: pathlib.Path) -> None:
    """Refuse a change of the config that would make a run of the directory another one, or equal to another."""
    changed = {key: value for key, value in config.items() if value != there.config[key]}

    def is_the_same(old: Run, new: Run) -> bool:
        values = ((key, old.config[key], new.config[key]) for key in config)
        return all(a == b or (a == there.config[key] and b == changed.get(key)) for key, a, b in values)

    before, after = (list(itertools.chain(*grid.expand_grids(flat, *there.grids))) for flat in (there.config, config))
    if len(before) != len(after) or not all(map(is_the_same, before, after)):
        settings = ", ".join(f"{key}={value}" for key, value in changed.items())
        raise identity.belongs_to_another(there, workdir, f"with {settings} some of its runs would be others, or equal")
