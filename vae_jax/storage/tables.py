"""The tables of a study: `results.csv` written and read, means over seeds, and the summary that is printed.

An infinite number is `inf` or `-inf`; an empty cell means "does not apply".
"""

import contextlib
import csv
import math
import pathlib
import shutil
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from vae_jax.core import errors
from vae_jax.storage.run_directory import Row, atomic_write
from vae_jax.system.progress import counted

WHOLE = ("run", "seed", "diverged")  # columns of whole numbers


def write_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """One line per row; the columns are the keys of all rows, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    with atomic_write(path, newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(row[key]) for key in columns if key in row} for row in rows)


def _cell(value) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return "(" + ",".join(map(str, value)) + ")"
    return "" if value is None else str(value)


def read_csv(path: pathlib.Path) -> list[Row]:
    """Rows without the cells that do not apply: metrics are numbers, names are texts, settings are either.

    Raises:
      UserError: no such file, or not such a table.
    """
    return [{key: _parsed(path, key, cell) for key, cell in row.items()} for row in read_cells(path)]


def read_cells(path: pathlib.Path) -> list[dict[str, str]]:
    """Rows as the texts that are written, without the cells that do not apply; see `read_csv`."""
    try:
        with path.open(newline="") as file:
            reader = csv.DictReader(file, strict=True)
            rows, columns = list(reader), reader.fieldnames or []
    except FileNotFoundError as error:
        raise errors.UserError(f"{path}: no such file; is this the directory of a finished study?") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.UserError(f"{path}: not a readable table ({error})") from error
    if not {"run", "name"} <= set(columns) or len(set(columns)) < len(columns):
        raise errors.UserError(f"{path}: its header should have run, name, and each column once")
    if any(None in row or None in row.values() for row in rows):
        raise errors.UserError(f"{path}: a line has more or fewer cells than the header")
    if not all(row["run"] and row["name"] for row in rows):
        raise errors.UserError(f"{path}: a line has no run or no name")
    return [{key: cell for key, cell in row.items() if cell} for row in rows]


def _parsed(path: pathlib.Path, column: str, cell: str):
    """A cell as what was written: a setting that is no number as we write one is a text."""
    if column == "name":
        return cell
    for kind in (int,) if column in WHOLE else (int, float):
        with contextlib.suppress(ValueError):
            value = kind(cell)
            if (kind is int and not -(2**63) <= value < 2**63) or (column == "run" and value < 0):
                continue
            if "." not in column or str(value) == cell:
                return value
    if "." in column:
        return cell
    raise errors.UserError(f"{path}: {column}={cell[:200]}: should be a {'whole ' if column in WHOLE else ''}number")


def mean_and_stderr(values: Sequence[float | int]) -> tuple[float, float]:
    """Mean and standard error over seeds; the error is nan for a single value."""
    array = np.asarray(values, float)
    if len(array) < 2 or not np.isfinite(array).all():
        return float(array.mean()), math.nan
    return float(array.mean()), float(array.std(ddof=1) / math.sqrt(len(array)))


def grouped(rows: Sequence[Row], keys: Sequence[str]) -> dict[tuple, list[Row]]:
    """Rows that agree in `keys` (runs that differ in their seed), in order of first appearance."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row.get(key) for key in keys), []).append(row)
    return groups


def grid_keys(rows: Sequence[Row]) -> list[str]:
    """The columns that the grid set: dotted config names."""
    return list(dict.fromkeys(key for row in rows for key in row if "." in key))


def varying_keys(rows: Sequence[Row]) -> list[str]:
    """The grid's columns that tell rows of the same name apart."""
    names = grouped(rows, ["name"]).values()
    return [key for key in grid_keys(rows) if any(len({row.get(key) for row in members}) > 1 for members in names)]


EXACT = ("train_elbo", "sigma")  # of the columns of the summary, what is shown only beside the closed form, the row `ppca`
SHOWN = 6  # columns of metrics; the rest is in `results.csv`
NAMED = 5  # diverged runs in one line


def summary(rows: Sequence[Row], decimals: Mapping[str, int], width: int | None = None) -> str:
    """The table that is printed: mean and standard error over the seeds that did not diverge, a line for each setting.

    Args:
      rows: of `results.csv`.
      decimals: to how many each column is shown, what matters most first (`metrics.decimals`).
      width: of the table in characters: columns that do not fit are left out, from the last. None: that of the terminal,
        where standard output is one.

    Returns:
      The table, and a line that says how many more columns of it `results.csv` has.
    """
    keys = ["name", *varying_keys(rows)]
    left_out = () if any(row["name"] == "ppca" for row in rows) else EXACT
    candidates = [column for column in decimals if column not in left_out and any(column in row for row in rows)]
    shown = {column: decimals[column] for column in candidates[:SHOWN]}
    groups = grouped(rows, keys)
    table = [
        [*keys, "seeds", *shown],
        *(_cells(group, members, shown) for group, members in groups.items()),
    ]
    notes = ["", *(_divergences(members) for members in groups.values())]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    width = shutil.get_terminal_size((sys.maxsize, 1)).columns if width is None else width
    columns = len(widths)
    while columns > len(keys) + 2 and sum(widths[:columns]) + 2 * (columns - 1) > width:
        columns -= 1
    lines = [
        "  ".join([*(cell.ljust(size) for cell, size in zip(line[:columns], widths[:columns], strict=True)), note]).rstrip()
        for line, note in zip(table, notes, strict=True)
    ]
    more = len(candidates) - (columns - len(keys) - 1)
    return "\n".join([*lines, *([f"{counted(more, 'more column')} in results.csv"] if more > 0 else [])])


def _cells(group: tuple, members: Sequence[Row], decimals: Mapping[str, int]) -> list[str]:
    """A line of the summary: the setting, the number of its seeds that did not diverge, and means over them."""
    whole = [row for row in members if "diverged" not in row]
    seeds = str(len({row["seed"] for row in whole if "seed" in row})) if "seed" in members[0] else ""
    cells = ["" if value is None else _text(value) for value in group] + [seeds]
    for column, digits in decimals.items():
        values = [row[column] for row in whole if column in row]
        cells.append(_plus_minus(*mean_and_stderr(values), digits) if values else "")
    return cells


def best(rows: Sequence[Row]) -> str:
    """The best setting of each name that has several: its bounds and active units on the test split, as text; or "".

    It is chosen by the elbo of the validation split where that was evaluated for all of them, else of the test split.
    """
    keys = varying_keys(rows)
    lines: dict[str, list[str]] = {"validation": [], "test": []}
    for (name,), members in grouped(rows, ["name"]).items():
        whole = [row for row in members if "diverged" not in row]
        split, column = ("validation", "valid_elbo") if all("valid_elbo" in row for row in whole) else ("test", "elbo")
        whole = [row for row in whole if math.isfinite(row.get(column, math.nan))]
        settings = list(grouped(whole, keys).items())
        if len(settings) < 2:
            continue
        values, chosen = max(settings, key=lambda setting: mean_and_stderr([row[column] for row in setting[1]])[0])
        setting = [
            f"{key}={_text(value)}"
            for key, value in zip(keys, values, strict=True)
            if len({row.get(key) for row in members}) > 1
        ]
        columns = [column for column in ("elbo", "importance_bound", "active_units") if column in chosen[0]]
        bounds = [f"{column} {_plus_minus(*mean_and_stderr([row[column] for row in chosen]), 2)}" for column in columns]
        lines[split].append(f"  {name:12s} {', '.join(setting):36s} {'  '.join(bounds)}")
    titles = {split: f"best setting of each name by {split} elbo, its test split:" for split in lines}
    return "\n".join(line for split, chosen in lines.items() if chosen for line in [titles[split], *chosen])


def _divergences(rows: Sequence[Row]) -> str:
    """Which of the rows diverged, and when."""
    seeds = [f"seed {row['seed']} " if len(rows) > 1 else "" for row in rows]
    return ", ".join(
        f"{seed}diverged at step {row['diverged']}" for seed, row in zip(seeds, rows, strict=True) if "diverged" in row
    )


def diverged(rows: Sequence[Row]) -> str:
    """The runs that diverged, in words; "" where none did."""
    stopped = [row for row in rows if "diverged" in row]
    named = []
    for row in stopped[:NAMED]:
        setting = ", ".join([str(row["name"]), *(f"{key}={row[key]}" for key in grid_keys([row]))])
        named.append(f"run {row['run']} ({setting}) at step {row['diverged']}")
    named += [f"{len(stopped) - NAMED} more"] if len(stopped) > NAMED else []
    return f"{len(stopped)} of {counted(len(rows), 'run')} diverged: {'; '.join(named)}" if stopped else ""


def _text(value) -> str:
    """A setting as text; numbers short."""
    return f"{value:g}" if isinstance(value, float) else str(value)


def _plus_minus(mean: float, error: float, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if math.isnan(error) else f" ±{error:.{decimals}f}")
