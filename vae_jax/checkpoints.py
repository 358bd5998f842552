"""Orbax checkpoints of host trees, with a digest over all leaves: atomic, the last two kept.

Orbax writes under a temporary name and renames, but it does not notice a flipped bit when it reads; the digest does.
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

import jax
import numpy as np

from vae_jax import errors, progress

KEEP = 2


@dataclasses.dataclass(frozen=True)
class Checkpoint:
    """A saved `state` (NumPy leaves), how far it is (`step`), and the JSON that was saved with it."""

    step: int
    state: Any
    metadata: dict


def digest(tree) -> str:
    """SHA-256 over the paths, dtypes, shapes and bytes of all leaves."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        leaf = np.ascontiguousarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {leaf.dtype} {leaf.shape}".encode())
        sha.update(leaf.data)
    return sha.hexdigest()


def save(directory: pathlib.Path, step: int, state, metadata: dict) -> None:
    """Save `state` (NumPy arrays with a leading runs axis) as number `step`, and drop all but the last two."""
    with _checkpointer(directory) as checkpointer:
        checkpointer.save(step, _as_dict(state), custom_metadata=metadata | {"digest": digest(_as_dict(state))}, force=True)


def load_latest(directory: pathlib.Path, like) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None where none was saved; damaged ones are named on standard error.

    Args:
      directory: as given to `save`.
      like: a tree of arrays or shapes with the structure of the saved state.

    Raises:
      UserError: there are checkpoints, and all of them are damaged.
    """
    if not directory.is_dir():
        return None
    with _checkpointer(directory) as checkpointer:
        steps = sorted((found.step for found in checkpointer.checkpoints), reverse=True)
        for step in steps:
            try:
                metadata = checkpointer.metadata(step).custom_metadata
                state = checkpointer.load(step, jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), _as_dict(like)))
                if digest(state) != metadata["digest"]:
                    raise ValueError("its digest differs")
            except Exception as error:  # whatever Orbax and its storage raise on a damaged file
                progress.say(f"{directory / str(step)}: damaged checkpoint ({type(error).__name__}: {str(error)[:80]!r})")
                continue
            leaves = jax.tree.leaves(state)
            return Checkpoint(step, jax.tree.unflatten(jax.tree.structure(like), leaves), metadata)
    if steps:
        raise errors.UserError(f"{directory}: no checkpoint is whole; --restart trains the study anew")
    return None


def _as_dict(state) -> dict:
    """A flat dict of numbered leaves: what is on disk does not depend on the classes of the state."""
    return {f"{number:04d}": leaf for number, leaf in enumerate(jax.tree.leaves(state))}


def _checkpointer(directory: pathlib.Path):
    from orbax.checkpoint import v1 as ocp

    policy = ocp.training.preservation_policies.LatestN(KEEP)
    return ocp.training.Checkpointer(directory.absolute(), preservation_policy=policy, cleanup_tmp_directories=True)
