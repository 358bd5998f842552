"""The tables of a run directory as pandas frames, for notebooks: numbers are numbers, infinities are infinities."""

import csv
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from vae_jax.core import errors
from vae_jax.storage import run_directory, tables

if TYPE_CHECKING:
    import pandas as pd

WHOLE = ("run", "seed", "diverged", "epoch", "step")  # columns of whole numbers, also where some cells are empty


def frame(workdir: str | os.PathLike) -> "pd.DataFrame":
    """`results.csv`: one row a run, with the columns in the order of the file; what does not apply is missing.

    Raises:
      UserError: no table there, or a damaged one.
    """
    path = pathlib.Path(workdir) / "results.csv"
    rows = tables.read_csv(path)
    with path.open(newline="") as file:
        return _frame(rows, next(csv.reader(file)))


def curves(workdir: str | os.PathLike) -> "pd.DataFrame":
    """`metrics.jsonl`: one row a chunk and run, in order of time, with the settings of its run beside its metrics.

    The settings are those of `results.csv`: of a study that is not finished there are none.

    Raises:
      UserError: no metrics there, or damaged files.
    """
    workdir = pathlib.Path(workdir)
    lines = run_directory.read_metrics(workdir)
    if not lines:
        raise errors.UserError(f"{workdir / 'metrics.jsonl'}: no such file, or an empty one; is this a run directory?")
    rows = tables.read_csv(workdir / "results.csv") if (workdir / "results.csv").exists() else []
    keys = tables.grid_keys(rows)
    settings = {row["run"]: {key: row[key] for key in keys if key in row} for row in rows}
    heads = [key for key in ("run", "name", "seed", "epoch", "step") if any(key in line for line in lines)]
    return _frame([settings.get(line["run"], {}) | line for line in lines], [*heads, *keys, *lines[-1]])


def _frame(rows: Sequence[tables.Row], columns: Iterable[str]) -> "pd.DataFrame":
    import pandas as pd

    table = pd.DataFrame(rows, columns=list(dict.fromkeys(columns)))
    whole = [column for column in WHOLE if column in table.columns]
    return table.astype(dict.fromkeys(whole, "Int64"))
