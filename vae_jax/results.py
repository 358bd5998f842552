"""The run directory: `config.json`, `metrics.jsonl`, `results.csv`, `log.jsonl` and `arrays/`, written and read.

Files that are read as a whole are written under another name and renamed, so that none is ever half there. Infinite
numbers are "inf" and "-inf" (strings in JSON, which has no such numbers); an empty CSV cell means "does not apply".
"""

import contextlib
import csv
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from vae_jax import archives, errors

Row = dict[str, Any]


def strict(value):
    """`value` with every float that JSON cannot write as the string "inf", "-inf" or "nan"."""
    if isinstance(value, dict):
        return {key: strict(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [strict(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def write_text(path: pathlib.Path, text: str) -> None:
    """Write and rename: `path` holds the old text or the new, never a part."""
    part = path.with_name(path.name + ".part")
    part.write_text(text)
    os.replace(part, path)


def write_json(path: pathlib.Path, value) -> None:
    write_text(path, json.dumps(strict(value), indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path):
    try:
        return json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise errors.UserError(f"{path}: not valid JSON ({error})") from error
    except FileNotFoundError as error:
        raise errors.UserError(f"{path}: no such file; is this a run directory?") from error


def append_jsonl(path: pathlib.Path, rows: Sequence[Row]) -> int:
    """Add one line per row and return how long the file is then, in bytes."""
    with path.open("a") as file:
        file.writelines(json.dumps(strict(row), allow_nan=False) + "\n" for row in rows)
    return path.stat().st_size


def read_jsonl(path: pathlib.Path) -> list[Row]:
    """All rows; "inf", "-inf" and "nan" come back as floats."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise errors.UserError(f"{path}: not valid JSON lines ({error})") from error
    return [{key: float(cell) if cell in ("inf", "-inf", "nan") else cell for key, cell in row.items()} for row in lines]


def truncate(path: pathlib.Path, size: int) -> None:
    """Forget what was appended after the first `size` bytes.

    Raises:
      UserError: the file is shorter than that: somebody else changed it.
    """
    length = path.stat().st_size if path.exists() else 0
    if length < size:
        raise errors.UserError(f"{path}: has {length} bytes where the checkpoint saw {size}; start in another directory")
    if length:
        os.truncate(path, size)


def write_csv(path: pathlib.Path, rows: Sequence[Row]) -> None:
    """One line per row; the columns are the keys of all rows, in order of first appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    part = path.with_name(path.name + ".part")
    with part.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows({key: _cell(row[key]) for key in columns if key in row} for row in rows)
    os.replace(part, path)


def _cell(value) -> str:
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, tuple):
        return "(" + ",".join(map(str, value)) + ")"
    return "" if value is None else str(value)


def read_csv(path: pathlib.Path) -> list[Row]:
    """Rows with numbers as int or float where they read as such, and without the cells that do not apply."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except FileNotFoundError as error:
        raise errors.UserError(f"{path}: no such file; is this the directory of a finished study?") from error
    except (UnicodeDecodeError, csv.Error) as error:
        raise errors.UserError(f"{path}: not a readable table ({error})") from error
    if any(None in row or None in row.values() for row in rows):
        raise errors.UserError(f"{path}: a line has more or fewer cells than the header")
    return [{key: _number(cell) for key, cell in row.items() if cell} for row in rows]


def _number(cell: str):
    for kind in (int, float):
        with contextlib.suppress(ValueError):
            return kind(cell)
    return cell


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)
    os.replace(part, path)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    return archives.read(path, str(path))


def arrays_path(workdir: pathlib.Path, run: int) -> pathlib.Path:
    """Where the arrays of run number `run` lie."""
    return workdir / "arrays" / f"run_{run:04d}.npz"


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Hold the directory for this process; the lock ends with the process, however it ends."""
    with (workdir / ".lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.UserError(
                f"--workdir={workdir}: another process is working there; wait, or choose another"
            ) from error
        yield


def spread(values: Sequence[float | int]) -> tuple[float, float]:
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


# What the printed summary shows, where the table has it: (column, decimals).
SUMMARY = {
    "distortion": 2,
    "rate": 3,
    "elbo": 2,
    "mse": 4,
    "active_units": 1,
    "mean_std": 3,
    "knn_accuracy": 3,
    "frechet_prior": 3,
    "frechet_midpoint": 3,
}


def summary(rows: Sequence[Row]) -> str:
    """The table of mean +- standard error over seeds, as text."""
    keys = ["name", *varying_keys(rows)]
    columns = [column for column in SUMMARY if any(column in row for row in rows)]
    table = [[*keys, "seeds", *columns]]
    for group, members in grouped(rows, keys).items():
        cells = ["" if value is None else f"{value:g}" if isinstance(value, float) else str(value) for value in group]
        seeds = len({row["seed"] for row in members if "seed" in row})
        cells.append(str(seeds) if seeds else "")
        for column in columns:
            values = [row[column] for row in members if column in row]
            cells.append(_plus_minus(*spread(values), SUMMARY[column]) if values else "")
        table.append(cells)
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in table
    )


def best(rows: Sequence[Row]) -> str:
    """For each name with several settings, the one of best elbo: its bounds and active units, as text; "" where none has."""
    keys = varying_keys(rows)
    lines = []
    for (name,), members in grouped(rows, ["name"]).items():
        settings = list(grouped([row for row in members if math.isfinite(row.get("elbo", math.nan))], keys).items())
        if len(settings) < 2:
            continue
        values, chosen = max(settings, key=lambda setting: spread([row["elbo"] for row in setting[1]])[0])
        told = [
            f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
            for key, value in zip(keys, values, strict=True)
            if len({row.get(key) for row in members}) > 1
        ]
        columns = [column for column in ("elbo", "importance_bound", "active_units") if column in chosen[0]]
        shown = [f"{column} {_plus_minus(*spread([row[column] for row in chosen]), 2)}" for column in columns]
        lines.append(f"  {name:12s} {', '.join(told):36s} {'  '.join(shown)}")
    return "\n".join(["best elbo of each name, test split:", *lines]) if lines else ""


def _plus_minus(mean: float, error: float, decimals: int) -> str:
    return f"{mean:.{decimals}f}" + ("" if math.isnan(error) else f" ±{error:.{decimals}f}")
