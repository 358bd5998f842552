"""What a compiled program needs of a device's memory, what there is, and a device that has no more."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax

from vae_jax.system import multihost

SHARE = 0.9  # of what is free: allocators leave gaps, and others on the machine go on living
CGROUP = pathlib.Path("/sys/fs/cgroup")  # version 2: what a container, or a batch system's job, may use


class OutOfMemoryError(Exception):
    """A device had no memory for what it was asked to do with `runs` runs at a time."""

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
    """Bytes of the host's memory that may still be used, on the process that has least."""
    try:
        lines = pathlib.Path("/proc/meminfo").read_text().splitlines()
        found = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration):
        found = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, ValueError):  # "max" is no number
        limit, used = (int((CGROUP / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (CGROUP / "memory.stat").read_text().splitlines())
        found = min(found, limit - used + int(stat.get("inactive_file", 0)))  # the cache of files gives way
    return multihost.least(int(SHARE * max(found, 0)))


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


def text(count: int) -> str:
    """A number of bytes as people read it."""
    value, unit = float(count), 0
    while value >= 1000 and unit < 4:
        value, unit = value / 1000, unit + 1
    return f"{value:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[unit]}"
