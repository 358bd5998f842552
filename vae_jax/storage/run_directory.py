"""The run directory: `config.json`, `metrics.jsonl`, `log.jsonl` and `arrays/`, written and read; its lock.

Files that are read as a whole are written under another name and renamed, so that none is ever half there. Infinite
numbers are the strings "inf" and "-inf", because JSON has no such numbers.
"""

import contextlib
import fcntl
import json
import math
import os
import pathlib
from collections.abc import Iterator, Sequence
from typing import IO, Any

import numpy as np

from vae_jax import __version__
from vae_jax.core import errors
from vae_jax.storage import npz_headers

Row = dict[str, Any]

# Of a run directory: goes up when an older version could not read what is written.
FORMAT = 1


def jsonable(value):
    """`value` with every float that JSON cannot write as the string "inf", "-inf" or "nan"."""
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """A full disk is told by a write, which does not know the file's name."""
    try:
        yield
    except OSError as error:
        raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, mode: str = "w", **how) -> Iterator[IO]:
    """A file to write that becomes `path` when it is whole: `path` holds the old content or the new, never a part."""
    part = path.with_name(path.name + ".part")
    with _named(path):
        with part.open(mode, **how) as file:
            yield file
        os.replace(part, path)


def write_json(path: pathlib.Path, value) -> None:
    with atomic_write(path) as file:
        file.write(json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path):
    try:
        return json.loads(path.read_text())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise errors.UserError(f"{path}: not valid JSON ({error})") from error
    except FileNotFoundError as error:
        raise errors.UserError(f"{path}: no such file; is this a run directory?") from error


def read_config(workdir: pathlib.Path) -> dict:
    """`config.json` of a run directory.

    Raises:
      UserError: none, a damaged one, or one of a format that this version does not read.
    """
    path = workdir / "config.json"
    described = read_json(path)
    if not isinstance(described, dict) or not isinstance(described.get("versions", {}), dict):
        raise errors.UserError(f"{path}: not the description of a study")
    if (theirs := described.get("format", FORMAT)) != FORMAT:
        writer = described.get("versions", {}).get("vae_jax", "?")
        raise errors.UserError(
            f"{path}: written by vae_jax {writer} in format {theirs}; this is vae_jax {__version__}, which reads {FORMAT}"
        )
    return described


def append_jsonl(path: pathlib.Path, rows: Sequence[Row]) -> int:
    """Add one line per row and return how long the file is then, in bytes."""
    with _named(path), path.open("a") as file:
        file.writelines(json.dumps(jsonable(row), allow_nan=False) + "\n" for row in rows)
    return path.stat().st_size


def read_jsonl(path: pathlib.Path) -> list[Row]:
    """All rows; "inf", "-inf" and "nan" come back as floats."""
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: float(cell) if cell in ("inf", "-inf", "nan") else cell for key, cell in row.items()} for row in lines]
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError, AttributeError) as error:
        raise errors.UserError(f"{path}: not valid JSON lines ({error})") from error


def truncate(path: pathlib.Path, size: int) -> None:
    """Forget what was appended after the first `size` bytes.

    Raises:
      UserError: the file is shorter than that: somebody else changed it.
    """
    length = path.stat().st_size if path.exists() else 0
    if length < size:
        raise errors.UserError(f"{path}: has {length} bytes where the checkpoint saw {size}; start over by --restart")
    if length:
        os.truncate(path, size)


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    return npz_headers.read(path, str(path))


def arrays_path(workdir: pathlib.Path, run: int) -> pathlib.Path:
    """Where the arrays of run number `run` lie."""
    return workdir / "arrays" / f"run_{run:04d}.npz"


# What a study writes beside checkpoints and figures, in the order of removal: what is left of it stays its own to the end.
OWN = ("results.csv", "arrays/run_*.npz", "models/run_*.npz", "metrics.jsonl", "log.jsonl", "config.json")


def clear(workdir: pathlib.Path) -> None:
    """Remove the files that a study wrote, and no other."""
    for pattern in OWN:
        for path in [*workdir.glob(pattern + ".part"), *workdir.glob(pattern)]:
            path.unlink()


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
