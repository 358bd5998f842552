"""Whose a directory is: what `config.json` says of a study, read again and compared."""

import contextlib
import pathlib
from collections.abc import Iterator

import vae_jax
from vae_jax.core import errors, registry
from vae_jax.storage import run_directory
from vae_jax.study import grid, older, planning, provenance
from vae_jax.study.config import Flat
from vae_jax.study.grid import Run
from vae_jax.study.planning import Study
from vae_jax.system.progress import say

PACE = ("train.chunk_epochs", "train.checkpoint_every")  # when the host looks: no number of a run depends on it


def describe(study: Study) -> dict:
    """What `config.json` says: the whole config and its sweep, and on what it ran."""
    described = {
        "format": run_directory.FORMAT,
        "config": study.config,
        "sweep": study.rows,
        "sweeps": study.sweeps,
        "parts": registry.added(),
    }
    return described | provenance.described()


def read(workdir: pathlib.Path) -> Study:
    """The study that `workdir` was made for, planned again from its `config.json`.

    Raises:
      UserError: no run directory, a `config.json` that no study wrote, or one with a part that nobody has added here.
    """
    described = run_directory.read_config(workdir)
    registry.check(described.get("parts"), str(workdir))
    with _described(workdir, described) as (config, rows, sweeps):
        return planning.plan(config, grid.adding(rows), sweeps)


@contextlib.contextmanager
def _described(workdir: pathlib.Path, described: dict) -> Iterator[tuple[dict, list, list]]:
    """The config, the rows and the sweeps of a `config.json`; what cannot be used inside is told as its fault."""
    try:
        sweeps = [(key, values) for key, values in described["sweeps"]]
        yield older.translated(grid.flatten(described["config"]), described["sweep"], sweeps)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, errors.UserError):
            raise
        raise errors.UserError(f"{workdir / 'config.json'}: not the description of a study") from error


def check_same(study: Study, described: dict, theirs: dict, workdir: pathlib.Path) -> None:
    """Refuse a directory of another study, naming what differs first; another version, device or commit is only told.

    Args:
      study: what was asked for.
      described: its description, from `describe`.
      theirs: the `config.json` of the directory.
      workdir: the directory, for messages.
    """
    ours, other = ({key: side.get(key) for key in ("versions", "device")} for side in (described, theirs))
    with _described(workdir, theirs) as (config, rows, sweeps):
        if differs := _difference(grid.flatten(study.config), config):
            older = (other["versions"] or {}).get("vae_jax", vae_jax.__version__)
            by = "" if older == vae_jax.__version__ else f" (of vae_jax {older}; this is {vae_jax.__version__})"
        else:
            planned, by = grid.expand(config, grid.adding(rows), sweeps), ""
            differs = _other_grid(study.runs, planned)
    if differs:
        raise errors.UserError(
            f"--workdir={workdir} belongs to another config{by}: {differs}; choose another directory, "
            "or start over by --restart"
        )
    if ours != other:
        say(f"{workdir}: begun with other versions or on another device; the numbers may differ in the last digits")
    elif (before := theirs.get("commit")) != (now := described.get("commit")) and before and now:
        say(f"{workdir}: begun with commit {str(before)[:8]} of this code, and this is {now[:8]}; the numbers may differ")


def _difference(ours: Flat, theirs: Flat) -> str:
    """The first field that differs, or ""."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        here, there = (side.get(key, "nothing") for side in (ours, theirs))
        if here != there and key not in PACE:
            return f"{key} is {there} there and {here} here"
    return ""


def _other_grid(ours: list[Run], theirs: list[Run]) -> str:
    """What the sweeps make of one config differs in, or ""."""
    here, there = (", ".join(planned[0].settings) or "nothing" for planned in (ours, theirs))
    if here != there:
        return f"its sweep sets {there} there and {here} here"
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if differs := _difference(mine.config, other.config):
            return f"in run {number} {differs}"
    return f"it has {len(theirs)} runs there and {len(ours)} here" if len(ours) != len(theirs) else ""
