"""Arrays of one's own, from an .npz file: `train`, `test`, and labels and factors of their rows."""

import pathlib

import numpy as np

from vae_jax.core import errors
from vae_jax.data.source import DataConfig, Loaded, Split
from vae_jax.storage import npz_headers


def load(config: DataConfig) -> Loaded:
    """The arrays of `config.path`.

    `train` and `test` are [N, ...], uint8 or float; `train_labels`, `test_labels` are integers, bools or strings;
    `train_factors`, `test_factors` have a row for each image. Bytes are scaled by 255, except where none exceeds 1: those
    are bits.
    """
    path = config.path
    if not path:
        raise errors.UserError("data.name=npz needs data.path=FILE.npz")
    if not pathlib.Path(path).is_file():
        raise errors.UserError(f"data.path={path}: no such file")
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise errors.UserError(f"data.path={path}: one bare array; should be an .npz with train and test")
    wanted = [split + kind for split in ("train", "test") for kind in ("", "_labels", "_factors")]
    arrays = npz_headers.read(path, f"data.path={path}", wanted, required=("train", "test"))
    for key in ("train", "test"):
        arrays[key] = _checked_pixels(path, key, arrays[key])
        for kind in ("_labels", "_factors"):
            rows = arrays.get(key + kind)
            if rows is not None and (rows.shape[:1] != arrays[key].shape[:1] or (kind == "_labels" and rows.ndim > 1)):
                raise errors.UserError(
                    f"data.path={path}: {key + kind} has shape {rows.shape} for {len(arrays[key])} images"
                )
    _check_labels(path, {key: arrays[key].dtype for key in ("train_labels", "test_labels") if key in arrays})
    if arrays["train"].shape[1:] != arrays["test"].shape[1:] or arrays["train"].dtype != arrays["test"].dtype:
        shapes = " and ".join(f"{key} {arrays[key].shape} {arrays[key].dtype}" for key in ("train", "test"))
        raise errors.UserError(f"data.path={path}: {shapes}; train and test should differ in length only")
    train, test = (Split(arrays[s], arrays.get(f"{s}_labels"), arrays.get(f"{s}_factors")) for s in ("train", "test"))
    is_bytes = train.pixels.dtype == np.uint8
    levels = 255 if is_bytes and max(train.pixels.max(), test.pixels.max()) > 1 else 1
    return Loaded(train, test, levels)


def _check_labels(path: str, types: dict[str, np.dtype]) -> None:
    """Classes, of which both splits have the same kind."""
    kinds = {"i": "integer", "u": "integer", "b": "bool", "U": "string"}
    for key, dtype in types.items():
        if dtype.kind not in kinds:
            raise errors.UserError(f"data.path={path}: {key} has dtype {dtype}; should be integer, bool or string")
    if len({kinds[dtype.kind] for dtype in types.values()}) > 1:
        told = " and ".join(f"{key} {dtype}" for key, dtype in types.items())
        raise errors.UserError(f"data.path={path}: {told}; should be of the same kind")


def _checked_pixels(path: str, key: str, array: np.ndarray) -> np.ndarray:
    """uint8 or float32 [N, D] or [N, height, width, channels]."""
    where = f"data.path={path}: {key}"
    if array.dtype == bool:
        array = array.astype(np.uint8)
    if array.dtype != np.uint8 and array.dtype.kind != "f":
        raise errors.UserError(f"{where} has dtype {array.dtype}; should be uint8 or float")
    if array.ndim not in (2, 3, 4) or array.size == 0:
        raise errors.UserError(f"{where} has shape {array.shape}; should be [N, D], [N, height, width] or with channels")
    if array.dtype.kind == "f":
        array = array.astype(np.float32)
        if not np.isfinite(array).all():
            raise errors.UserError(f"{where} has {np.count_nonzero(~np.isfinite(array))} values that are not finite")
    return array[..., None] if array.ndim == 3 else array
