"""How much memory a compiled program needs, how much is free, and what to do when a device runs out of it."""

import contextlib
import gc
import os
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import jax

from vae_jax.core import errors
from vae_jax.system import multihost, progress

Result = TypeVar("Result")

SHARE = 0.9  # of what is free: allocators leave gaps, and other processes grow
CGROUP = pathlib.Path("/sys/fs/cgroup")  # version 2: what a container, or a batch system's job, may use


class OutOfMemoryError(Exception):
    """A device had not enough memory for `runs` runs at a time."""

    def __init__(self, runs: int, message: str):
        super().__init__(message)
        self.runs = runs


def size(tree) -> int:
    """Bytes of all leaves, arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def needed(compiled: jax.stages.Compiled) -> int:
    """Bytes on each device while a program runs: arguments, results and temporaries; 0 where XLA does not say."""
    stats = compiled.memory_analysis()
    if stats is None:
        return 0
    # An aliased result lies in a donated argument.
    results = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return stats.argument_size_in_bytes + results + stats.temp_size_in_bytes


def free() -> int:
    """Bytes of the host's memory that may still be used; of several processes, the smallest number."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        available = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        available = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        available = min(available, limit - used + int(stat.get("inactive_file", 0)))  # the cache of files gives way
    return multihost.least(int(SHARE * max(available, 0)))


def fits(data: int) -> bool:
    """Whether so many bytes of data can be on the host and on each device, and half of the memory is left for the rest.

    Of the memory that there is, used or not: the same command has the same answer each time on a machine.
    """
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        total = min(total, int((CGROUP / "memory.max").read_text()))
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return bool(multihost.least(2 * data <= min(total, stats["bytes_limit"])))
    return bool(multihost.least(2 * data * (1 + len(devices)) <= total))  # a CPU's devices share the memory of the host


def per_device(host: int) -> int:
    """Bytes that a program may use on each device, while the host keeps `host` bytes for itself."""
    devices = jax.local_devices()
    stats = devices[0].memory_stats()
    if stats and "bytes_limit" in stats:
        return multihost.least(int(SHARE * stats["bytes_limit"]))
    return max(free() - host, 0) // len(devices)  # a CPU's devices share the memory of the host


@contextlib.contextmanager
def watched(runs: int) -> Iterator[None]:
    """Raise OutOfMemoryError for what JAX raises when a device's memory is exhausted."""
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" in str(error):
            raise OutOfMemoryError(runs, str(error)) from error
        raise


def halving(attempt: Callable[[int], Result], runs: int, release: Callable[[], object] = lambda: None) -> tuple[Result, int]:
    """`attempt(runs)`; with half as many runs at a time, again and again, if a device has not enough memory for so many.

    Args:
      attempt: a function of how many runs are on the devices at a time; raises OutOfMemoryError (see `watched`).
      runs: how many are tried first.
      release: called before a retry; drops what the caller still holds on the devices.

    Returns:
      The result, and the number of runs at a time that it was got with.

    Raises:
      UserError: not enough memory for a single run, or too little on one of several processes.
    """
    while True:
        try:
            return attempt(runs), runs
        except OutOfMemoryError as error:
            # Other processes would not hear of it, and go on with programs of another size.
            if error.runs == 1 or jax.process_count() > 1:
                at_a_time = progress.counted(error.runs, "run")
                raise errors.UserError(f"out of memory on a device with {at_a_time} at a time: {error}") from error
            runs = -(-error.runs // 2)
        # After the except clause: the exception holds the frames, and they hold the arrays.
        release()
        gc.collect()
        progress.say(f"out of memory on a device: continuing with {progress.counted(runs, 'run')} at a time")


def text(count: int) -> str:
    """A number of bytes as people read it."""
    value, unit = float(count), 0
    while value >= 1000 and unit < 4:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
