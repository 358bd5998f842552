"""Pixels that stay where they lie, mostly on a disk, and are read when they are asked for: an array in a file, or others.

`Stored` stands where an array of pixels [N, *shape] stands otherwise. `pixels[rows]` of both are the pixels of these rows;
`take(pixels, rows)` reads nothing.
"""

import dataclasses
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from typing import Any, ClassVar, Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Int

from vae_jax.core import errors
from vae_jax.system.progress import Progress, counted, say

Result = TypeVar("Result")
Told = Callable[[str], None]  # is called with the path that is read next

SLOW = 60.0  # seconds without anything read after which a line says so
LIMIT = 600.0  # and after which it is given up
BYTES = 64 * 2**20  # that are read at a time, where all are read
FEW = 4096  # rows at a time, at most
MANY = 100_000  # images of which reading all is shown
SAMPLE = 2048  # rows, evenly spaced, that stand for all where reading all takes too long


@runtime_checkable
class Origin(Protocol):
    """Where rows of pixels come from."""

    @property
    def path(self) -> str:
        """For messages."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""

    @property
    def dtype(self) -> np.dtype:
        """Of its values."""

    @property
    def decodes(self) -> bool:
        """Whether reading is work that several threads share; copying, they only take the interpreter from each other."""

    def __len__(self) -> int: ...

    def read(self, rows: Int[np.ndarray, " n"], told: Told) -> np.ndarray:
        """Pixels [n, *shape]; `told` is called before whatever may take long, with the path. Called by several threads."""


@dataclasses.dataclass(frozen=True, eq=False)
class Stored:
    """Some rows of an origin, in an order of their own.

    Attributes:
      origin: where they are read.
      rows: their numbers there.
      extent: a value that none is below, and one that none is above.
      dtype: they are given in.
      form: the shape of a row they are given in; None: the origin's.
      after: what is done with the pixels that were read.
    """

    origin: Origin
    rows: Int[np.ndarray, " n"]
    extent: tuple[float, float]
    dtype: np.dtype
    form: tuple[int, ...] | None = None
    after: Callable[[np.ndarray], np.ndarray] | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        """[N, *shape], as an array has it."""
        return len(self.rows), *(self.origin.shape if self.form is None else self.form)

    @property
    def nbytes(self) -> int:
        """Of all of them together."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        """The pixels of these rows, read now.

        Raises:
          UserError: a file that is damaged, cut short or gone, or a read that takes too long; the line names it.
        """
        wanted = self.rows[rows]
        found = patiently(lambda told: self.origin.read(wanted, told), self.origin.path)
        found = found.astype(self.dtype, copy=False).reshape(len(wanted), *self.shape[1:])
        return found if self.after is None else self.after(found)

    def take(self, rows: np.ndarray) -> "Stored":
        """Of these rows; nothing is read."""
        return dataclasses.replace(self, rows=self.rows[rows])

    def then(self, function: Callable[..., np.ndarray], *settings) -> "Stored":
        """With `function(pixels, *settings)` done to whatever is read."""
        assert self.after is None
        return dataclasses.replace(self, after=lambda found: function(found, *settings))


Pixels = np.ndarray | Stored


def take(pixels: Pixels, rows: np.ndarray) -> Pixels:
    """The rows of an array, or of what is stored without reading it."""
    return pixels.take(rows) if isinstance(pixels, Stored) else pixels[rows]


def evenly(count: int, most: int) -> Int[np.ndarray, " n"]:
    """At most `most` of `count` rows, evenly from the first to the last."""
    return np.linspace(0, count - 1, min(count, most)).astype(int)


def blocks(pixels: Pixels, what: str = "") -> Iterator[np.ndarray]:
    """All pixels in order, some at a time; of many the progress is shown under the name `what`, where there is one."""
    size = int(np.clip(BYTES // max(int(np.prod(pixels.shape[1:])) * 4, 1), 1, FEW))
    is_shown = bool(what) and len(pixels) > MANY
    progress = Progress(what, len(pixels), "image")
    for start in range(0, len(pixels), size):
        yield pixels[start : start + size]
        if is_shown:
            progress.update(min(start + size, len(pixels)))
    if is_shown:
        progress.finish()


def extent(pixels: Pixels) -> tuple[float, float]:
    """The smallest and the largest value; of what is stored, values that none is below and above."""
    return pixels.extent if isinstance(pixels, Stored) else (float(pixels.min()), float(pixels.max()))


def measured_extent(pixels: Pixels, where: str) -> tuple[float, float]:
    """The smallest and the largest value of pixels whose type does not say it, from all of them.

    Raises:
      UserError: one that is not finite; the line begins with `where`.
    """
    low, high, odd = np.inf, -np.inf, 0
    for block in blocks(pixels, f"{where}: reading the range"):
        odd += int((~np.isfinite(block)).sum()) if block.dtype.kind == "f" else 0
        low, high = min(low, float(block.min())), max(high, float(block.max()))
    if odd:
        raise errors.UserError(f"{where} is not finite in {counted(odd, 'value')}")
    return low, high


def of_bytes(origin: Origin, where: str) -> Stored:
    """All rows of an origin of bytes. Where a sample has bits only, all are looked at to be sure."""
    stored = Stored(origin, np.arange(len(origin)), (0.0, 255.0), np.dtype(np.uint8))
    if stored[evenly(len(stored), SAMPLE)].max() <= 1:
        stored = dataclasses.replace(stored, extent=measured_extent(stored, where))
    return stored


def patiently(read: Callable[[Told], Result], path: str) -> Result:
    """What `read` returns. Where it gets nothing for `SLOW` seconds a line says so; after `LIMIT` it is given up.

    It runs in a thread of its own: one that hangs in the system can neither be interrupted nor waited for.

    Args:
      read: is given a function that it calls with the path that it reads next.
      path: that it begins with.

    Raises:
      UserError: nothing came for `LIMIT` seconds.
    """
    at: list[Any] = [path, time.monotonic()]
    ended: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()

    def told(path: str) -> None:
        at[:] = path, time.monotonic()

    def work() -> None:
        try:
            ended.put((True, read(told)))
        except BaseException as error:  # raised again where it is waited for
            ended.put((False, error))

    threading.Thread(target=work, daemon=True).start()
    said = None
    while True:
        try:
            is_read, found = ended.get(timeout=min(SLOW, LIMIT) / 4)
        except queue.Empty:
            path, since = at
            if (seconds := time.monotonic() - since) > LIMIT:
                raise errors.UserError(
                    f"reading {path} has taken {seconds:.0f} s and is given up; what was saved is kept, and the same "
                    "command goes on from there"
                ) from None
            if seconds > SLOW and said != at:
                say(f"reading {path} has taken {seconds:.0f} s")
                said = list(at)
            continue
        if is_read:
            return found
        raise found


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayFile:
    """Rows of an array in C order that begins at a place of a file.

    Read by position and not mapped into memory: where a mapped file is cut short the process is ended by a signal.

    Attributes:
      path: of the file.
      offset: where the array begins, in bytes.
      count: of its rows.
      shape: of a row.
      dtype: of the values as they lie there.
    """

    path: str
    offset: int
    count: int
    shape: tuple[int, ...]
    dtype: np.dtype
    decodes: ClassVar[bool] = False
    _file: list[int] = dataclasses.field(default_factory=list, init=False, repr=False)

    def __post_init__(self) -> None:
        try:
            number = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise errors.UserError(f"{self.path}: cannot be read ({error.strerror})") from error
        self._file.append(number)
        weakref.finalize(self, os.close, number)
        size, needed = os.fstat(number).st_size, self.offset + self.count * self._bytes
        if size < needed:
            raise errors.UserError(f"{self.path}: has {size:,} bytes where its header says {needed:,}; it was cut short")

    @property
    def _bytes(self) -> int:
        """Of a row."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    def __len__(self) -> int:
        return self.count

    def read(self, rows: Int[np.ndarray, " n"], told: Told) -> np.ndarray:
        """See `Origin`."""
        found = np.empty((len(rows), *self.shape), self.dtype)
        view, size = found.reshape(-1).view(np.uint8).data, self._bytes
        # Rows that follow each other are read together.
        ends = [*(np.flatnonzero(np.diff(rows) != 1) + 1).tolist(), len(rows)] if len(rows) else []
        start = 0
        for end in ends:
            told(self.path)
            self._fill(view[start * size : end * size], self.offset + int(rows[start]) * size)
            start = end
        return found

    def _fill(self, view: memoryview, position: int) -> None:
        """Read from `position` on until `view` is full."""
        while view:
            try:
                count = os.preadv(self._file[0], [view], position)
            except OSError as error:
                raise errors.UserError(f"{self.path}: cannot be read ({error.strerror})") from error
            if not count:
                row = (position - self.offset) // self._bytes
                raise errors.UserError(f"{self.path}: ends before image {row:,}, or in it; it was cut short")
            view, position = view[count:], position + count


@dataclasses.dataclass(frozen=True, eq=False)
class ArrayInMemory:
    """Rows of an array that is in memory anyway."""

    array: np.ndarray
    path: str = "memory"
    decodes: ClassVar[bool] = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row."""
        return self.array.shape[1:]

    @property
    def dtype(self) -> np.dtype:
        """Of its values."""
        return self.array.dtype

    def __len__(self) -> int:
        return len(self.array)

    def read(self, rows: Int[np.ndarray, " n"], told: Told) -> np.ndarray:
        """See `Origin`."""
        return self.array[rows]


def in_memory(array: np.ndarray) -> Stored:
    """An array as if it were stored."""
    return Stored(ArrayInMemory(array), np.arange(len(array)), extent(array), array.dtype)
