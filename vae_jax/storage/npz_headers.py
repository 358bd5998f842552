"""Reads .npz archives that are not trusted: no pickled objects, and sizes are checked before anything is unpacked."""

import contextlib
import io
import math
import os
import pathlib
import zipfile
from collections.abc import Container, Iterable, Iterator
from typing import NamedTuple

import numpy as np

from vae_jax.core import errors

HEADER = 16_384  # bytes that are read of a header; NumPy accepts none longer than 10,000
SHARE = 0.5  # of the machine's memory that the arrays of one file may take


def read(
    path: str | pathlib.Path, where: str, names: Container[str] | None = None, required: Iterable[str] = ()
) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name.

    Args:
      path: the file.
      where: the beginning of error messages.
      names: the arrays to read; None: all.
      required: arrays that must be there.

    Raises:
      UserError: no such archive, a damaged one, pickled objects, a missing array, or arrays that according to their headers
        need more than half of the memory.
    """
    with _opened(path, where) as archive:
        members = {member.removesuffix(".npy"): member for member in archive.namelist()}
        for name in required:
            if name not in members:
                raise errors.UserError(f"{where}: no array {name!r}, only {', '.join(members)}")
        members = {name: member for name, member in members.items() if names is None or name in names}
        size, limit = sum(_declared(archive, member) for member in members.values()), SHARE * _memory()
        if size > limit:
            raise errors.UserError(
                f"{where}: its arrays take {size / 2**30:,.1f} GiB; should be at most {limit / 2**30:,.1f} GiB, half of "
                "this machine's memory"
            )
        return {name: _array(archive, member) for name, member in members.items()}


class Header(NamedTuple):
    """What an array's header says.

    Attributes:
      shape: of the array.
      dtype: of its values.
      offset: where in the file its values begin; None where they are compressed.
      is_fortran: whether the first axis changes fastest, and not the last.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int | None
    is_fortran: bool

    @property
    def has_rows(self) -> bool:
        """Whether each row of the array lies in the file in one piece, as it is."""
        return self.offset is not None and not self.is_fortran

    @property
    def nbytes(self) -> int:
        """Of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def headers(path: str | pathlib.Path, where: str, names: Container[str]) -> dict[str, Header]:
    """The headers of these arrays of an .npz file by name; `where` is what a message about it begins with.

    Raises:
      UserError: no such archive, a damaged one, or pickled objects.
    """
    with _opened(path, where) as archive, open(path, "rb") as file:
        found = {}
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name not in names:
                continue
            with archive.open(member) as opened:
                header, length = _header(io.BytesIO(opened.read(HEADER)))
            is_plain = member.compress_type == zipfile.ZIP_STORED and not member.flag_bits & 1
            found[name] = header._replace(offset=_begin(file, member.header_offset) + length if is_plain else None)
        return found


def bare_header(path: str | pathlib.Path, where: str) -> Header:
    """The header of an .npy file; `where` is what a message about it begins with.

    Raises:
      UserError: no such file, another format, or pickled objects.
    """
    try:
        with open(path, "rb") as file:
            header, length = _header(io.BytesIO(file.read(HEADER)))
    except (OSError, ValueError) as error:
        raise errors.UserError(f"{where}: not a readable .npy without pickled objects ({type(error).__name__})") from error
    return header._replace(offset=length)


def _begin(file: io.BufferedReader, start: int) -> int:
    """Where the bytes of a member begin: its local header, at `start`, may be longer than the archive's list says."""
    file.seek(start + 26)
    name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
    return start + 30 + name + extra


def names(path: str | pathlib.Path, where: str) -> list[str]:
    """The names of the arrays of an .npz file; `where` is what a message about it begins with.

    Raises:
      UserError: no such archive.
    """
    with _opened(path, where) as archive:
        return [member.removesuffix(".npy") for member in archive.namelist()]


@contextlib.contextmanager
def _opened(path: str | pathlib.Path, where: str) -> Iterator[zipfile.ZipFile]:
    """The archive; whatever cannot be read of it is one line."""
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except errors.UserError:
        raise
    except Exception as error:  # a damaged zip raises one of a dozen types
        raise errors.UserError(f"{where}: not a readable .npz without pickled objects ({type(error).__name__})") from error


def _declared(archive: zipfile.ZipFile, member: str) -> int:
    """The size of an array in bytes, according to its header."""
    with archive.open(member) as file:
        return _header(io.BytesIO(file.read(HEADER)))[0].nbytes  # not the length that the header claims, which may be wrong


def _header(head: io.BytesIO) -> tuple[Header, int]:
    """What the beginning of an .npy file says, and how long its header is."""
    version = np.lib.format.read_magic(head)
    read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, is_fortran, dtype = read_header(head)
    if dtype.hasobject:
        raise ValueError("pickled objects")
    return Header(shape, dtype, None, is_fortran), head.tell()


def _array(archive: zipfile.ZipFile, member: str) -> np.ndarray:
    with archive.open(member) as file:
        array = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):  # reading to the end also compares the checksum
            raise ValueError("bytes after the array")
    return array


def _memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
