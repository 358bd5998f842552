"""One trained network in one file, `models/run_NNNN.npz`: its parameters, and a card that says how they are used.

Written when a run is evaluated, so that a model can be used without its checkpoint, its data set or its study.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from vae_jax.core import errors
from vae_jax.storage import npz_headers, run_directory

CARD = "card.json"


def path(workdir: pathlib.Path, run: int) -> pathlib.Path:
    """Where the model of run number `run` lies."""
    return workdir / "models" / f"run_{run:04d}.npz"


def write(file: pathlib.Path, variables: Mapping, card: Mapping[str, Any]) -> None:
    """Write a nested dict of arrays and a card of JSON values."""
    file.parent.mkdir(exist_ok=True)
    text = json.dumps(run_directory.jsonable(dict(card)), allow_nan=False)
    arrays = flatten(variables) | {CARD: np.frombuffer(text.encode(), np.uint8)}
    with run_directory.atomic_write(file, "wb") as opened:
        np.savez(opened, allow_pickle=False, **arrays)


def read(file: pathlib.Path) -> tuple[dict, dict[str, Any]]:
    """The nested dict of arrays and the card.

    Raises:
      UserError: no such file, or a damaged one.
    """
    if not file.is_file():
        raise errors.UserError(
            f"{file}: no such file; python -m experiments.evaluate --workdir={file.parents[1]} writes the models of a study"
        )
    arrays = npz_headers.read(file, str(file), required=(CARD,))
    try:
        card = json.loads(arrays.pop(CARD).tobytes())
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise errors.UserError(f"{file}: its card is not valid JSON ({error})") from error
    return nested(arrays), card


def flatten(tree: Mapping, prefix: str = "") -> dict[str, np.ndarray]:
    """A nested dict of arrays as one dict, by paths like "params/encoder/Dense_0/kernel"."""
    found: dict[str, np.ndarray] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        found |= flatten(value, f"{name}/") if isinstance(value, Mapping) else {name: np.asarray(value)}
    return found


def nested(arrays: Mapping[str, np.ndarray]) -> dict:
    """The inverse of `flatten`."""
    tree: dict = {}
    for name, array in arrays.items():
        *folders, last = name.split("/")
        inner = tree
        for folder in folders:
            inner = inner.setdefault(folder, {})
        inner[last] = array
    return tree
