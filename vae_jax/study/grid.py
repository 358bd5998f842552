"""A config and its sweeps made into runs, each with the whole config by dotted names; checked by the rules."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from vae_jax.core import errors, schema
from vae_jax.core.schema import Value
from vae_jax.study import rules
from vae_jax.study.config import FIELDS, Flat, typed

MOST = 100_000  # runs of a study
Sweep = Callable  # a config's own `sweep(add)`
Sweeps = Sequence[tuple[str, Sequence]]  # (dotted name, values) pairs that multiply


@dataclasses.dataclass(frozen=True)
class Grid:
    """What one command sweeps: the rows of the config's own sweep, and the values of each `--sweep`, as their types."""

    rows: list[Flat]
    sweeps: list[tuple[str, list[Value]]]

    @property
    def keys(self) -> list[str]:
        """Every field that it sets, in order."""
        return list(dict.fromkeys(key for row in (*self.rows, dict(self.sweeps)) for key in row))


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of the grid: the whole config by dotted names, and the part of it that the grid set."""

    config: Flat
    settings: Flat

    @property
    def name(self) -> str:
        """What the run is called in tables and figures."""
        return self.config["name"]

    @property
    def seed(self) -> int:
        """Of every random number of the run."""
        return self.config["seed"]

    def group(self, name: str) -> dict[str, Value]:
        """The fields of one group of the config, as keyword arguments."""
        return schema.group(self.config, name)

    def at(self, beta: float) -> "Run":
        """The run at this beta, as if the grid had set it."""
        told = {"objective.beta": beta}
        return Run(self.config | told, self.settings | told)


def flatten(config: Mapping) -> Flat:
    """A nested config as one dict by dotted names."""
    flat: Flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = tuple(value) if isinstance(value, list) else value
    return flat


def expand(config: Mapping, sweep: Sweep | None = None, sweeps: Sweeps = ()) -> list[Run]:
    """Every run of a study, checked.

    Args:
      config: nested, with every field (`configs/base.py` has them).
      sweep: the config's own `sweep(add)`: it calls `add` with a dict of dotted names for each row.
      sweeps: (dotted name, values) pairs that multiply with each other and with those rows; a text is read by the type
        of its field.

    Raises:
      UserError: an unknown name, a value of the wrong type or range, a name given twice, two equal runs.
    """
    (runs,) = expand_grids(*resolve(config, sweep, sweeps))
    return runs


def expand_grids(config: Flat, *grids: Grid) -> list[list[Run]]:
    """The runs that each grid adds to those of the grids before it; a run is known by its settings, not by its place.

    Args:
      config: every field by dotted name, as the type of the field.
      grids: of one study, in the order in which it was given them.

    Raises:
      UserError: a value out of range, two runs that are equal, or that differ only in what they do not use.
    """
    keys = list(dict.fromkeys(key for grid in grids for key in grid.keys if key not in ("name", "seed")))
    known: dict[tuple, Flat] = {}  # what the grid sets for it, by the whole config
    added: list[list[Run]] = []
    for grid in grids:
        product = _product(grid)
        configs = [config | row for row in product]
        for one in configs:
            rules.check(one)
        rules.check_sources(configs, grid.keys)
        _check_distinct(configs, product)
        new = [(one, row) for one, row in zip(configs, product, strict=True) if tuple(one.items()) not in known]
        known |= {tuple(one.items()): row for one, row in new}
        added.append([Run(one, {key: one[key] for key in keys}) for one, _ in new])
    every = [run.config for runs in added for run in runs]
    rules.check_names(every)
    if len(grids) > 1:
        _check_distinct(every, list(known.values()))
    return added


def _product(grid: Grid) -> list[Flat]:
    """What each run sets: every row of the config's sweep with every combination of the values; the last turns fastest."""
    rows, axes = grid.rows or [{}], [[{key: value} for value in values] for key, values in grid.sweeps]
    if (count := math.prod(map(len, (rows, *axes)))) > MOST:
        raise errors.UserError(f"the sweeps make {count:,} runs; should be at most {MOST:,}")
    return [dict(itertools.chain(*map(dict.items, parts))) for parts in itertools.product(rows, *axes)]


def _check_distinct(configs: Sequence[Flat], product: Sequence[Flat]) -> None:
    """No two runs with the same settings, or that differ only in what they do not use: they would have the same results."""
    seen: dict[tuple, int] = {}
    for number, config in enumerate(configs):
        first = seen.setdefault(tuple(rules.effective(config).items()), number)
        if first == number:
            continue
        settings = ", ".join(f"{key}={value}" for key, value in product[first].items()) or "the config alone"
        if config == configs[first]:
            raise errors.UserError(f"two runs are equal: {settings}; give each value once")
        why = rules.without_effect(configs[first], config)
        raise errors.UserError(f"two runs are equal ({settings}): {why}; should have one value")


def resolve(config: Mapping, sweep: Sweep | None = None, sweeps: Sweeps = ()) -> tuple[Flat, Grid]:
    """What `expand` takes, with every value as the type of its field: the config by dotted names, and the grid."""
    flat = flatten(config)
    _check_names(flat)
    flat = {key: typed(key, value) for key, value in flat.items()}
    rows = _rows(sweep)
    keys = {key for row in rows for key in row}
    for key, values in sweeps:
        if key in keys:
            raise errors.UserError(f"--sweep={key}: {key} is given twice; a study sets each name once")
        if not len(values):
            raise errors.UserError(f"--sweep={key}: no values; should be {key}=V1,V2,...")
        keys.add(key)
    typed_rows = [{key: typed(key, value) for key, value in row.items()} for row in rows]
    return flat, Grid(typed_rows, [(key, [typed(key, value) for value in values]) for key, values in sweeps])


def _rows(sweep: Sweep | None) -> list[Mapping]:
    """What a config's `sweep(add)` adds."""
    rows: list = []
    if sweep:
        sweep(rows.append)
    for row in rows:
        if not isinstance(row, Mapping):
            raise errors.UserError(f"the sweep's add({row!r}): should be add({{NAME: VALUE, ...}})")
    return rows


def adding(rows: Sequence[Mapping]) -> Sweep:
    """A `sweep(add)` of these rows."""
    return lambda add: [add(row) for row in rows]


def split_values(text: str) -> list[str]:
    """Split at the commas outside brackets: "(64,32),(256,256)" has two values."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return [value for value in values if value.strip()]


def _check_names(flat: Flat) -> None:
    """A config that was written by hand has exactly the fields that there are."""
    for key in flat:
        if key not in FIELDS:
            raise errors.unknown("config name", key, FIELDS)
    for key in FIELDS:
        if key not in flat:
            raise errors.UserError(f"the config has no {key}: start from get_config() of configs/base.py")
