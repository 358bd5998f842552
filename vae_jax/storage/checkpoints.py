"""Orbax checkpoints of host trees: written atomically, checked by a digest when they are read, the last two kept.

Orbax writes under a temporary name and renames, but it does not detect a flipped bit on reading. The digest over state
and metadata does.
"""

import contextlib
import dataclasses
import gc
import hashlib
import json
import logging
import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from vae_jax.core import errors
from vae_jax.system import multihost, progress

KEEP = 2
LEAVES = "leaves"  # in the metadata: the key path of each numbered leaf


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A saved `state` (NumPy leaves), its `step`, and the JSON metadata saved with it."""

    step: int
    state: Any
    metadata: dict


def digest(tree, metadata: dict) -> str:
    """SHA-256 over the metadata and the paths, dtypes, shapes and bytes of all leaves."""
    sha = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        sha.update(leaf.data)
    return sha.hexdigest()


def save(directory: pathlib.Path, step: int, state, metadata: dict) -> None:
    """Save `state` (NumPy arrays with a leading runs axis) as number `step`, and drop all but the last two."""
    from orbax.checkpoint import v1 as ocp

    tree, metadata = _numbered(state), metadata | {LEAVES: _paths(state)}
    # Overwrite: a run that resumes from before a damaged checkpoint reaches the step of the damaged one again.
    path, signed = directory.absolute() / str(step), metadata | {"digest": digest(tree, metadata)}
    try:
        with _silent():
            ocp.save(path, tree, custom_metadata=signed, overwrite=True)
    except Exception as error:  # whatever Orbax and its storage raise on a full disk
        raise OSError(0, f"could not be saved ({type(error).__name__}: {str(error)[:200]!r})", str(path)) from error
    if multihost.writes():
        _drop(directory, steps(directory)[KEEP:])


def clear(directory: pathlib.Path) -> None:
    """Remove every checkpoint in `directory`, and `directory` itself if nothing else is in it."""
    _drop(directory, steps(directory))
    with contextlib.suppress(OSError):
        directory.rmdir()


def _drop(directory: pathlib.Path, dropped: list[int]) -> None:
    """Remove the checkpoints of these steps, and what killed saves left."""
    for stale in [*(directory / str(step) for step in dropped), *directory.glob("*.orbax-checkpoint-tmp*")]:
        if not stale.is_symlink():
            shutil.rmtree(stale)


def load_latest(directory: pathlib.Path, like) -> Checkpoint | None:
    """The newest intact checkpoint, or None if none was saved; damaged ones are named on standard error.

    Args:
      directory: as given to `save`.
      like: a tree of arrays or shapes with the structure of the saved state.

    Raises:
      UserError: all of the checkpoints are damaged.
    """
    saved = steps(directory)
    for step in saved:
        try:
            state, metadata = _read(directory.absolute() / str(step), like)
        except Exception as error:  # whatever Orbax and its storage raise on a damaged file
            progress.say(f"{directory / str(step)}: damaged checkpoint ({type(error).__name__}: {str(error)[:80]!r})")
            continue
        return Checkpoint(step, state, metadata)
    if saved:
        raise errors.UserError(f"{directory}: no checkpoint is whole; start over by --restart")
    return None


def _read(path: pathlib.Path, like) -> tuple[Any, dict]:
    from orbax.checkpoint import v1 as ocp

    empty = dict(zip(_paths(like), (np.empty(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(like)), strict=True))
    with _silent():
        metadata = dict(ocp.metadata(path).custom_metadata)
        # Up to version 0.1.0 there are only the numbers: leaves are in the order of the state.
        saved = metadata.get(LEAVES, list(empty))
        if set(saved) != set(empty):
            raise ValueError("it is of another structure")
        wanted = _numbered([empty[name] for name in saved])
        tree = ocp.load(path, wanted)
    if metadata.pop("digest") != digest(tree, metadata):
        raise ValueError("its digest differs")
    # Orbax returns the saved shape, whatever shape it is given.
    if any(tree[number].shape != leaf.shape for number, leaf in wanted.items()):
        raise ValueError("it is of another structure")
    found = dict(zip(saved, (tree[number] for number in wanted), strict=True))
    metadata.pop(LEAVES, None)
    return jax.tree.unflatten(jax.tree.structure(like), [found[name] for name in empty]), metadata


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Suppress the pages that Orbax and its tasks print about a damaged file: we print one line."""
    disabled, hook = logging.root.manager.disable, sys.unraisablehook
    logging.disable(logging.CRITICAL)
    sys.unraisablehook = lambda _: None
    try:
        yield
    except Exception:
        gc.collect()  # failed tasks log when they are collected
        # Some end later. They log, or report to an event loop that is closed by then.
        logging.getLogger("asyncio").addFilter(_of_no_late_task)
        hook = _without_late_tasks(hook)
        raise
    finally:
        logging.disable(disabled)
        sys.unraisablehook = hook


def _of_no_late_task(record: logging.LogRecord) -> bool:
    """Whether a line of asyncio's log is about something else than a task that failed when nobody waited for it."""
    return "exception was never retrieved" not in record.getMessage()


def _without_late_tasks(hook):
    """`hook` for `sys.unraisablehook`, without what a task reports that ends after its event loop."""

    def report(unraisable) -> None:
        if str(unraisable.exc_value) != "Event loop is closed":
            hook(unraisable)

    return report


def steps(directory: pathlib.Path) -> list[int]:
    """The steps that were saved, newest first."""
    names = (path.name for path in directory.glob("*") if not path.is_symlink())
    return sorted((int(name) for name in names if name.isdecimal() and str(int(name)) == name), reverse=True)


def _numbered(state) -> dict:
    """A flat dict of numbered leaves: the files do not depend on the classes of the state."""
    return {f"{number:04d}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}


def _paths(state) -> list[str]:
    """The key path of each leaf, in order: what the numbers stand for."""
    return [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(state)]
