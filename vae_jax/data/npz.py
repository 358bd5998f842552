"""Arrays of one's own from an .npz file: images, and labels and factors of them, under any of the usual names."""

import dataclasses
import pathlib
from collections.abc import Mapping

import numpy as np

from vae_jax.core import errors
from vae_jax.data import stored
from vae_jax.data.labels import inferred
from vae_jax.data.shapes import Factor
from vae_jax.data.source import DataConfig, Loaded, Split
from vae_jax.data.stored import Pixels, Stored
from vae_jax.storage import npz_headers
from vae_jax.system.progress import counted, say

# What an array is, and the names it may have: the first always counts, of the others there should be one.
NAMES = {
    "train": ("train", "x_train", "X_train", "train_x", "train_images", "X", "x", "images", "imgs", "data", "arr_0"),
    "test": ("test", "x_test", "X_test", "test_x", "test_images"),
    "train_labels": ("train_labels", "y_train", "train_y", "labels", "label", "y", "Y", "target", "targets"),
    "test_labels": ("test_labels", "y_test", "test_y"),
    "train_factors": ("train_factors", "factors"),
    "test_factors": ("test_factors",),
    "factor_names": ("factor_names",),
    "factor_categorical": ("factor_categorical",),
}
LEVELS = (1, 255, 4095, 65535)  # largest values of pixels of 1, 8, 12 and 16 bits


def load(config: DataConfig) -> Loaded:
    """The arrays of `config.path`; without a test split a fifth is set aside, and a line says so.

    `train` and `test` are [N, D], [N, height, width] or [N, height, width, channels]: whole numbers, divided by the largest
    value of as many bits as they need, or floats as they are. Labels are integers, bools or strings. `train_factors` are
    [N, factors] numbers; `factor_names` and `factor_categorical` (bools) say what they are.
    """
    path, where = config.path, f"data.path={config.path}"
    if not path:
        raise errors.UserError("data.name=npz needs data.path=FILE.npz")
    if not pathlib.Path(path).is_file():
        raise errors.UserError(f"{where}: no such file")
    with open(path, "rb") as file:
        if file.read(6) == b"\x93NUMPY":
            raise errors.UserError(f"{where}: one bare array; should be an .npz with train and test")
    chosen = _chosen(where, npz_headers.names(path, where))
    headers = npz_headers.headers(path, where, {chosen[role] for role in ("train", "test") if role in chosen})
    is_streamed = _streams(where, config, headers)
    read = npz_headers.read(path, where, set(chosen.values()) - (set(headers) if is_streamed else set()))
    arrays = {role: read[name] for role, name in chosen.items() if name in read}
    if is_streamed:
        pixels, levels = opened(where, {name: (path, header) for name, header in headers.items()})
    else:
        pixels, levels = checked(where, {name: read[name] for name in headers})
    for role in ("train", "test"):
        for kind in ("_labels", "_factors"):
            if role + kind in arrays:
                of_images = len(pixels[chosen[role]]) if role in chosen else 0
                arrays[role + kind] = _rows(f"{where}: {chosen[role + kind]}", kind, arrays[role + kind], of_images)
    _check_labels(where, {chosen[key]: arrays[key].dtype for key in ("train_labels", "test_labels") if key in arrays})
    splits = [
        Split(pixels[chosen[role]], arrays.get(f"{role}_labels"), arrays.get(f"{role}_factors"))
        for role in ("train", "test")
        if role in chosen
    ]
    if len(splits) == 1:
        say(f"{path}: no test split; a fifth of the {counted(len(splits[0]), 'image')} in {chosen['train']} becomes it")
    return Loaded(splits[0], splits[1] if len(splits) > 1 else None, levels, factors=_factors(where, arrays))


def _chosen(where: str, names: list[str]) -> dict[str, str]:
    """Which array is what."""
    chosen = {}
    for role, known in NAMES.items():
        found = [name for name in known if name in names]
        if len(found) > 1 and found[0] != role:
            raise errors.UserError(f"{where}: has {' and '.join(found)}; name the one that is meant {role}")
        if found:
            chosen[role] = found[0]
    if "train" not in chosen:
        raise errors.UserError(f"{where}: no array 'train', only {', '.join(names) or 'nothing'}")
    return chosen


def _streams(where: str, config: DataConfig, headers: Mapping[str, npz_headers.Header]) -> bool:
    """Whether the pixels stay in the file; asked for where they cannot, that is a mistake."""
    packed = next((name for name, header in headers.items() if not header.has_rows), "")
    if packed and config.resident == "false":
        raise errors.UserError(
            f"{where}: {packed} is compressed, or in Fortran's order; with data.resident=false it should be in C order, as "
            "np.savez writes it"
        )
    return not packed and config.streams(sum(header.nbytes for header in headers.values()))


def checked(where: str, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Pixels], int]:
    """By name uint8, uint16 or float32 [N, D] or [N, height, width, channels], and the value that means 1."""
    for name, array in arrays.items():
        check_shape(f"{where}: {name}", array)
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            odd = int((~np.isfinite(array)).sum())
            raise errors.UserError(f"{where}: {name} is not finite in {counted(odd, 'value')}")
    _check_alike(where, arrays)
    low = min(float(array.min()) for array in arrays.values())
    high = max(float(array.max()) for array in arrays.values())
    levels, kind = _levels(where, {array.dtype.kind for array in arrays.values()}, low, high)
    return {name: _shaped(array.astype(kind, copy=False)) for name, array in arrays.items()}, levels


def opened(where: str, arrays: Mapping[str, tuple[str, npz_headers.Header]]) -> tuple[dict[str, Pixels], int]:
    """The same of arrays that stay in their files: (path, header) by name."""
    headers = {name: header for name, (_, header) in arrays.items()}
    for name, header in headers.items():
        check_shape(f"{where}: {name}", header)
    _check_alike(where, headers)
    found: dict[str, Stored] = {}
    for name, (path, header) in arrays.items():
        assert header.offset is not None
        origin = stored.ArrayFile(path, header.offset, header.shape[0], header.shape[1:], header.dtype)
        if header.dtype == np.uint8:
            found[name] = stored.of_bytes(origin, path)
        else:
            whole = Stored(origin, np.arange(len(origin)), (0.0, 0.0), header.dtype)
            found[name] = dataclasses.replace(whole, extent=stored.measured_extent(whole, path))
    low, high = min(each.extent[0] for each in found.values()), max(each.extent[1] for each in found.values())
    levels, kind = _levels(where, {header.dtype.kind for header in headers.values()}, low, high)
    shape = _shaped(np.empty((0, *next(iter(headers.values())).shape[1:]))).shape[1:]
    return {name: dataclasses.replace(each, dtype=np.dtype(kind), form=shape) for name, each in found.items()}, levels


def _check_alike(where: str, arrays: Mapping[str, np.ndarray | npz_headers.Header]) -> None:
    """Train and test have images of one shape and kind."""
    kinds = {array.dtype.kind for array in arrays.values()}
    shapes = {array.shape[1:] for array in arrays.values()}
    if len(shapes) > 1 or ("f" in kinds and len(kinds) > 1):
        told = " and ".join(f"{name} {array.shape} {array.dtype}" for name, array in arrays.items())
        raise errors.UserError(f"{where}: {told}; train and test should differ in length only")


def _levels(where: str, kinds: set[str], low: float, high: float) -> tuple[int, str]:
    """The value that means 1, and the type of the pixels, by the kinds of the arrays and their range."""
    levels, kind = 1, "float32"
    if "f" not in kinds and low >= 0 and high <= LEVELS[-1]:
        levels = next(level for level in LEVELS if high <= level)
        kind = "uint8" if levels <= LEVELS[1] else "uint16"
        if levels > LEVELS[1]:
            say(f"{where}: whole numbers up to {int(high):,}; {levels:,} is taken for white")
    return levels, kind


def check_shape(where: str, array: np.ndarray | npz_headers.Header) -> None:
    """Numbers, of a shape that images or vectors have."""
    if array.dtype.kind not in "buif":
        raise errors.UserError(f"{where} has dtype {array.dtype}; should be whole numbers or float")
    if len(array.shape) not in (2, 3, 4) or 0 in array.shape:
        raise errors.UserError(f"{where} has shape {array.shape}; should be [N, D], [N, height, width] or with channels")
    if len(array.shape) == 4 and array.shape[1] in (1, 3) and array.shape[3] > 4:
        raise errors.UserError(
            f"{where} has shape {array.shape}: channels come last here; save images.transpose(0, 2, 3, 1) in its place"
        )


def _shaped(array: np.ndarray) -> np.ndarray:
    return array[..., None] if array.ndim == 3 else array


def _rows(where: str, kind: str, rows: np.ndarray, count: int) -> np.ndarray:
    """Labels [N] or factors [N, factors] of as many images."""
    if kind == "_labels" and rows.shape == (count, 1):
        rows = rows[:, 0]  # as CIFAR's are
    if kind == "_factors" and rows.ndim == 1:
        rows = rows[:, None]
    if rows.shape[:1] != (count,) or rows.ndim != (1 if kind == "_labels" else 2):
        raise errors.UserError(f"{where} has shape {rows.shape} for {count} images")
    if kind == "_labels":
        return rows
    if rows.dtype.kind not in "buif" or not np.isfinite(rows).all():
        raise errors.UserError(f"{where} has dtype {rows.dtype}; should be finite numbers")
    return rows.astype(np.float32)


def _check_labels(where: str, types: dict[str, np.dtype]) -> None:
    """Classes, of which both splits have the same kind."""
    kinds = {"i": "integer", "u": "integer", "b": "bool", "U": "string"}
    for name, dtype in types.items():
        if dtype.kind not in kinds:
            raise errors.UserError(f"{where}: {name} has dtype {dtype}; should be integer, bool or string")
    if len({kinds[dtype.kind] for dtype in types.values()}) > 1:
        told = " and ".join(f"{name} {dtype}" for name, dtype in types.items())
        raise errors.UserError(f"{where}: {told}; should be of the same kind")


def _factors(where: str, arrays: dict[str, np.ndarray]) -> tuple[Factor, ...]:
    """What the columns of the factors mean."""
    rows = [arrays[role] for role in ("train_factors", "test_factors") if role in arrays]
    columns = {part.shape[1] for part in rows}
    if len(columns) > 1:
        raise errors.UserError(f"{where}: train_factors and test_factors should have as many columns")
    if not rows:
        return ()
    (count,) = columns
    names = [str(name) for name in arrays.get("factor_names", [f"factor_{column}" for column in range(count)])]
    categorical = arrays.get("factor_categorical", np.zeros(count, bool))
    if len(names) != count or len(set(names)) != count or not all(name.isidentifier() for name in names):
        raise errors.UserError(f"{where}: factor_names {', '.join(names)[:200]}: should be {count} names like hair")
    if categorical.shape != (count,) or categorical.dtype != bool:
        raise errors.UserError(f"{where}: factor_categorical should be {count} bools")
    values = np.concatenate(rows)
    return tuple(inferred(name, values[:, column], bool(categorical[column])) for column, name in enumerate(names))
