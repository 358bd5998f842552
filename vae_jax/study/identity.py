"""What `config.json` says of a study: written, read again, and compared with what is asked for."""

import dataclasses
import pathlib
from collections.abc import Mapping

import vae_jax
from vae_jax.core import errors, registry, schema
from vae_jax.core.schema import Value
from vae_jax.storage import run_directory, tables
from vae_jax.study import grid, older, planning, provenance
from vae_jax.study.config import ABSENT, FIELDS, Flat
from vae_jax.study.grid import Grid
from vae_jax.study.planning import Study
from vae_jax.system.progress import say

# When the host looks, and how the pixels are held: no number of a run depends on it, and the order is compared by itself.
PACE = ("train.chunk_epochs", "train.checkpoint_every", "train.checkpoint_steps", "data.resident", "data.order")


@dataclasses.dataclass(frozen=True)
class Saved:
    """`config.json` of a run directory, in the fields of this version.

    Attributes:
      raw: what the file says.
      config: every field by dotted name.
      grids: what each command swept, in order.
      evaluated: the `eval` fields that `results.csv` is of; None where it is not of the runs as they are.
    """

    raw: dict
    config: Flat
    grids: list[Grid]
    evaluated: dict[str, Value] | None


def describe(study: Study, evaluated: dict[str, Value] | None = None, there: Saved | None = None) -> dict:
    """What `config.json` says: the whole config and its sweeps, the data, and on what it ran.

    Args:
      study: what is to be in the directory.
      evaluated: the `eval` fields that its table is of, or None.
      there: what the file says already, where a study goes on.
    """
    now = provenance.described()
    begun = {key: there.raw[key] for key in now if key in there.raw} if there else now
    grown = there.raw.get("grown", []) if there else []
    later = [
        grown[place] if there and place < len(grown) and there.grids[place + 1] == each else _as_json(each) | now
        for place, each in enumerate(study.grids[1:])
    ]
    return {
        "format": run_directory.FORMAT,
        "config": nested(study.config),
        **_as_json(study.grids[0]),
        **({"grown": later} if later else {}),
        "data": provenance.data(study.sources()),
        "evaluated": evaluated,
        "parts": registry.added(),
        **begun,
    }


def _as_json(swept: Grid) -> dict:
    return {"sweep": swept.rows, "sweeps": swept.sweeps}


def nested(flat: Flat) -> dict:
    """The inverse of `grid.flatten`."""
    config: dict = {}
    for key, value in flat.items():
        group, _, name = key.rpartition(".")
        (config.setdefault(group, {}) if group else config)[name] = value
    return config


def saved(workdir: pathlib.Path) -> Saved:
    """What `config.json` of a run directory says.

    Raises:
      UserError: no run directory, a file that no study wrote, or one with a part that nobody has added here.
    """
    raw = run_directory.read_config(workdir)
    registry.check(raw.get("parts"), str(workdir))
    try:
        described = grid.flatten(raw["config"]), raw["sweep"], [(key, values) for key, values in raw["sweeps"]]
        flat, rows, sweeps = older.translated(*described) if raw.get("format") == 1 else described
        config, first = grid.resolve(ABSENT | flat, grid.adding(rows), sweeps)
        grids = [first, *(_resolved(config, each)[1] for each in raw.get("grown", []))]
        evaluated = raw.get("evaluated")
        if "evaluated" not in raw and (workdir / "results.csv").exists():  # format 1
            evaluated = schema.group(config, "eval")
        if evaluated is not None:
            evaluated = schema.group(ABSENT, "eval") | {
                key: FIELDS[f"eval.{key}"].typed(value) for key, value in evaluated.items() if f"eval.{key}" in FIELDS
            }
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, errors.UserError):
            raise
        raise errors.UserError(f"{workdir / 'config.json'}: not the description of a study") from error
    return Saved(raw, config, grids, evaluated)


def _resolved(config: Flat, described: Mapping) -> tuple[Flat, Grid]:
    return grid.resolve(config, grid.adding(described["sweep"]), [(key, values) for key, values in described["sweeps"]])


def read(workdir: pathlib.Path) -> Study:
    """The study that `workdir` holds, planned again from its `config.json`.

    Raises:
      UserError: no run directory, or a `config.json` that no study wrote.
    """
    there = saved(workdir)
    return planning.plan_grids(there.config, there.grids, planning.loader())


def known_rows(study: Study, there: Saved, workdir: pathlib.Path) -> dict[int, dict[str, str]]:
    """The rows of `results.csv` that hold for the study, by run, as texts: of the same evaluation of the same training."""
    path = workdir / "results.csv"
    longer = there.config["train.epochs"] != study.config["train.epochs"]
    if longer or there.evaluated != schema.group(study.config, "eval") or not path.exists():
        return {}
    rows = {int(row["run"]): row for row in tables.read_cells(path) if row["run"].isdecimal() and row.get("seed")}
    if len(study.rows) > len(study.runs) and len(rows) != len(study.rows):
        return {}  # rows of other betas come after all runs: where these are more, they have other numbers
    return {
        number: rows[number] for number, row in enumerate(study.rows) if rows.get(number, {}).get("name") == row.run.name
    }


def refuse_other(asked: Flat, there: Saved, workdir: pathlib.Path) -> None:
    """Refuse a directory whose config differs in what cannot change, with the first field that does.

    `eval` fields may change: the runs are evaluated anew. So may `train.epochs`, under conditions that `growth` checks.
    """
    for key, here in asked.items():
        before = there.config.get(key, "nothing")
        if here != before and not key.startswith("eval.") and key not in ("train.epochs", *PACE):
            raise belongs_to_another(there, workdir, f"{key} is {before} there and {here} here")


def belongs_to_another(there: Saved, workdir: pathlib.Path, differs: str) -> errors.UserError:
    """The error of a directory that another study is in."""
    older = (there.raw.get("versions") or {}).get("vae_jax", vae_jax.__version__)
    by = "" if older == vae_jax.__version__ else f" (of vae_jax {older}; this is {vae_jax.__version__})"
    choice = "choose another directory, or start over by --restart"
    return errors.UserError(f"--workdir={workdir} belongs to another config{by}: {differs}; {choice}")


def tell_other_code(there: Saved, workdir: pathlib.Path) -> None:
    """A line where the directory was begun with other versions, on another device, or with another commit of this code."""
    now = provenance.described()
    if any(now.get(key) != there.raw.get(key) for key in ("versions", "device")):
        say(f"{workdir}: begun with other versions or on another device; the numbers may differ in the last digits")
    elif (before := there.raw.get("commit")) != (commit := now.get("commit")) and before and commit:
        say(f"{workdir}: begun with commit {str(before)[:8]} of this code, and this is {commit[:8]}; the numbers may differ")


def tell_other_evaluation(study: Study, there: Saved, workdir: pathlib.Path) -> None:
    """A line where a table is there, and is to be of other `eval` fields."""
    for key, here in schema.group(study.config, "eval").items():
        if there.evaluated is not None and (before := there.evaluated.get(key)) != here:
            say(f"{workdir}: evaluated anew, eval.{key} is {before} there and {here} here")
            return
