"""The run directory: its files written and read, which of them a study wrote, and its lock.

`config.json`, `metrics.jsonl`, `log.jsonl` and `arrays/` are read and written here, `results.csv` in `tables`. A file that
is read as a whole is written under another name and renamed: it holds the old content or the new, never a part. Nothing is
written or removed through a symbolic link. Infinite numbers are the strings "inf" and "-inf", because JSON has none.
"""

import contextlib
import errno
import fcntl
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import IO, Any

import numpy as np

from vae_jax import __version__
from vae_jax.core import errors
from vae_jax.storage import npz_headers

Row = dict[str, Any]

# Of a run directory: goes up when an older version could not read what is written.
FORMAT = 2
READ_FORMATS = (1, 2)

RECORD = ".written"  # the names of what the study wrote, one a line
LOCK = ".lock"
DIGEST = "digest"  # the array that signs the others of a file


def jsonable(value):
    """`value` with every float that JSON cannot write as the string "inf", "-inf" or "nan"."""
    if isinstance(value, dict):
        return {key: jsonable(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(inner) for inner in value]
    if isinstance(value, np.generic):
        value = value.item()
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _no_link(path: str, flags: int) -> int:
    """An opener for `open` that refuses a symbolic link."""
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def _named(path: pathlib.Path) -> Iterator[None]:
    """Name the file in an OSError: a write to a full disk does not know it."""
    try:
        yield
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise _is_link(pathlib.Path(error.filename or path)) from error
        raise OSError(error.errno or 0, error.strerror or str(error), str(path)) from error


def _is_link(path: pathlib.Path) -> errors.UserError:
    return errors.UserError(f"{path}: is a link; should be a file or folder of the run directory itself")


@contextlib.contextmanager
def atomic_write(path: pathlib.Path, mode: str = "w", **options) -> Iterator[IO]:
    """A file to write that becomes `path` when it is whole: `path` holds the old content or the new, never a part."""
    part = path.with_name(path.name + ".part")
    with _named(path):
        with open(part, mode, opener=_no_link, **options) as file:
            yield file
        os.replace(part, path)


def write_json(path: pathlib.Path, value) -> None:
    """Write `value` as strictly valid JSON."""
    with atomic_write(path) as file:
        file.write(json.dumps(jsonable(value), indent=2, allow_nan=False) + "\n")


def read_json(path: pathlib.Path):
    """The content of a JSON file.

    Raises:
      UserError: no such file, or it is not valid JSON.
    """
    try:
        return json.loads(path.read_text())
    except (ValueError, RecursionError) as error:  # no text, no JSON, or an integer of thousands of digits
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
    parts = (described.get("config"), described.get("versions", {})) if isinstance(described, dict) else (None,)
    if not all(isinstance(part, dict) for part in parts):
        raise errors.UserError(f"{path}: not the description of a study")
    if (theirs := described.get("format", FORMAT)) not in READ_FORMATS:
        writer = described.get("versions", {}).get("vae_jax", "?")
        raise errors.UserError(
            f"{path}: written by vae_jax {writer} in format {theirs}; this is vae_jax {__version__}, which reads "
            f"{' and '.join(map(str, READ_FORMATS))}"
        )
    return described


def append_jsonl(path: pathlib.Path, rows: Sequence[Row]) -> int:
    """Add one line per row; returns how long the file is then, in bytes."""
    with _named(path), open(path, "a", opener=_no_link) as file:
        file.writelines(json.dumps(jsonable(row), allow_nan=False) + "\n" for row in rows)
    return path.stat().st_size


def read_jsonl(path: pathlib.Path) -> list[Row]:
    """All rows of a file of JSON lines; "inf", "-inf" and "nan" come back as floats.

    Raises:
      UserError: a line that is no JSON object.
    """
    try:
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return [{key: float(cell) if cell in ("inf", "-inf", "nan") else cell for key, cell in row.items()} for row in lines]
    except (ValueError, RecursionError, AttributeError) as error:
        raise errors.UserError(f"{path}: not valid JSON lines ({error})") from error


def read_metrics(workdir: pathlib.Path) -> list[Row]:
    """The lines of `metrics.jsonl` in order, or none where there is no such file: one per chunk and run.

    Each has `run` and `epoch` (whole numbers) and `name` (a text); everything else is a number.

    Raises:
      UserError: a line that is not like that.
    """
    path = workdir / "metrics.jsonl"
    rows = read_jsonl(path) if path.exists() else []
    for number, row in enumerate(rows, start=1):
        for key in ("run", "epoch"):
            if type(row.get(key)) is not int or not 0 <= row[key] < 2**63:
                raise errors.UserError(f"{path}, line {number}: {key} should be a whole number")
        for key, cell in row.items():
            if key == "name" and not isinstance(cell, str):
                raise errors.UserError(f"{path}, line {number}: name should be a text")
            if key != "name" and not (type(cell) is float or (type(cell) is int and abs(cell) < 2**63)):
                raise errors.UserError(f"{path}, line {number}: {key} should be a number")
    return rows


def forget(path: pathlib.Path, runs: Collection[int], epoch: int) -> int:
    """Remove the lines of `metrics.jsonl` that these runs wrote after `epoch`, and a last line that was cut short.

    Returns:
      How long the file is then, in bytes; 0 where there is none.

    Raises:
      UserError: a line that is no JSON object.
    """
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    whole = lines if not lines or lines[-1].endswith(b"\n") else lines[:-1]
    try:
        kept = [line for line in whole if not ((row := json.loads(line))["run"] in runs and row["epoch"] > epoch)]
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise errors.UserError(f"{path}: not valid JSON lines ({error})") from error
    if len(kept) < len(lines):
        with atomic_write(path, "wb") as file:
            file.writelines(kept)
    return sum(map(len, kept))


def truncate(path: pathlib.Path, size: int) -> None:
    """Remove what was appended after the first `size` bytes.

    Raises:
      UserError: the file is shorter than that: somebody else changed it.
    """
    length = path.stat().st_size if path.exists() else 0
    if length < size:
        raise shortened(path, length, size)
    if length:
        os.truncate(path, size)


def shortened(path: pathlib.Path, length: int, size: int) -> errors.UserError:
    """The error of a file of `length` bytes that had `size` of them when a checkpoint was saved."""
    return errors.UserError(f"{path}: has {length} bytes where the checkpoint saw {size}; start over by --restart")


def arrays_path(workdir: pathlib.Path, run: int) -> pathlib.Path:
    """Where the arrays of run number `run` are."""
    return workdir / "arrays" / f"run_{run:04d}.npz"


def write_arrays(path: pathlib.Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays with a digest over them and the file's name, which `read_arrays` compares."""
    path.parent.mkdir(exist_ok=True)
    with atomic_write(path, "wb") as file:
        np.savez(file, allow_pickle=False, **arrays, **{DIGEST: _digest(path.name, arrays)})


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """The arrays that were written; those of versions that wrote no digest are taken as they are.

    Raises:
      UserError: no such file, a damaged one, or one whose arrays are not those that were written.
    """
    arrays = npz_headers.read(path, str(path))
    digest = arrays.pop(DIGEST, None)
    if digest is not None and not np.array_equal(digest, _digest(path.name, arrays)):
        raise errors.UserError(f"{path}: its arrays are not those that were written; run experiments.evaluate again")
    return arrays


def _digest(name: str, arrays: dict[str, np.ndarray]) -> np.ndarray:
    """SHA-256 over a file's name, and the names, dtypes, shapes and bytes of its arrays."""
    sha = hashlib.sha256(name.encode())
    for key, array in sorted(arrays.items()):
        sha.update(f" {key} {array.dtype.str} {array.shape} ".encode())
        sha.update(array.tobytes())
    return np.frombuffer(sha.digest(), np.uint8)


# What a study writes beside arrays, checkpoints and figures.
FILES = ("config.json", "metrics.jsonl", "log.jsonl", "results.csv")

# What versions without a record wrote below the run directory.
_OLDER = re.compile(r"arrays/run_\d{4,}\.npz|checkpoints/group_\d{3,}/")


def recorded(workdir: pathlib.Path) -> list[str]:
    """What the study of this directory wrote, as names relative to it; a folder of checkpoints ends with a slash.

    A directory of a version that kept no record is known by its `config.json`, and its files by their names.
    """
    with contextlib.suppress(FileNotFoundError):
        names = (workdir / RECORD).read_text(errors="replace").splitlines()
        return [name for name in names if not (name.startswith("/") or ".." in pathlib.PurePath(name).parts)]
    with contextlib.suppress(errors.UserError):
        if "versions" in read_config(workdir):
            below = [path.relative_to(workdir).as_posix() + "/" * path.is_dir() for path in workdir.glob("*/*")]
            return [*FILES, *sorted(name for name in below if _OLDER.fullmatch(name))]
    return []


def record(workdir: pathlib.Path, names: Iterable[str]) -> None:
    """Remember that the study writes what has these names (see `recorded`), before it does.

    Raises:
      UserError: one of them, or a folder that it is in, is a link.
    """
    names = list(names)
    refuse_links(workdir, names)
    before = recorded(workdir)
    lines = list(dict.fromkeys([*before, *names]))
    if lines != before or not (workdir / RECORD).exists():
        with atomic_write(workdir / RECORD) as file:
            file.writelines(name + "\n" for name in lines)


def refuse_links(workdir: pathlib.Path, names: Iterable[str]) -> None:
    """Refuse a link where a file or a folder of the study belongs, or where it is written before it is renamed.

    Raises:
      UserError: it names the link.
    """
    for path in dict.fromkeys(path for name in names for path in _with_parents(workdir, name)):
        for written in (path, path.with_name(path.name + ".part")):
            if written.is_symlink():
                raise _is_link(written)


def _with_parents(workdir: pathlib.Path, name: str) -> list[pathlib.Path]:
    """The path of `name`, after the folders below `workdir` that it is in."""
    parts = pathlib.PurePath(name).parts
    return [workdir.joinpath(*parts[:depth]) for depth in range(1, len(parts) + 1)]


def clear(workdir: pathlib.Path) -> None:
    """Remove the files that the study recorded as its own, and no other; folders of checkpoints stay.

    `config.json` and the record go last: what is left of a removal that was interrupted is still known as the study's.
    """
    names = recorded(workdir)
    refuse_links(workdir, names)
    files = [name for name in names if not name.endswith("/")]
    for name in [*sorted(files, key="config.json".__eq__), RECORD]:
        path = workdir / name
        for written in (path.with_name(path.name + ".part"), path):
            if written.is_file():
                written.unlink()


@contextlib.contextmanager
def locked(workdir: pathlib.Path) -> Iterator[None]:
    """Hold the directory for this process; the lock ends with the process, however it ends.

    Raises:
      UserError: another process holds it.
    """
    with _named(workdir / LOCK):
        file = open(workdir / LOCK, "a", opener=_no_link)  # noqa: SIM115 (closed below, whatever happens inside)
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise errors.UserError(
                f"--workdir={workdir}: another process is working there; wait, or choose another"
            ) from error
        yield
