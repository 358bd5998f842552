"""One array of images of one's own in an .npy file, and perhaps another one for the test split."""

import pathlib

import numpy as np

from vae_jax.core import errors
from vae_jax.data import npz
from vae_jax.data.source import DataConfig, Loaded, Split
from vae_jax.data.stored import ArrayFile
from vae_jax.storage import npz_headers
from vae_jax.storage.npz_headers import Header
from vae_jax.system import memory
from vae_jax.system.progress import counted, say


def load(config: DataConfig) -> Loaded:
    """The arrays [N, D], [N, height, width] or [N, height, width, channels] of `config.path` and `config.test_path`.

    Values are as in an .npz: whole numbers, divided by the largest value of as many bits as they need, or floats as they
    are. Without a test file a fifth is set aside, and a line says so.
    """
    if not config.path:
        raise errors.UserError("data.name=npy needs data.path=FILE.npy")
    paths = {"train": config.path} | ({"test": config.test_path} if config.test_path else {})
    headers = {role: _header("path" if role == "train" else "test_path", path) for role, path in paths.items()}
    size = sum(header.nbytes for header in headers.values())
    has_rows = all(header.has_rows for header in headers.values())
    where = f"data.path={config.path}"
    if not has_rows and config.resident == "false":
        raise errors.UserError(f"{where}: is in Fortran's order; with data.resident=false it should be saved in C order")
    if has_rows and config.streams(size):
        pixels, levels = npz.opened(where, {role: (paths[role], header) for role, header in headers.items()})
    else:
        if size > (room := memory.free()):
            raise errors.UserError(
                f"{where}: takes {memory.text(size)}, and {memory.text(room)} are free; use data.resident=false"
            )
        pixels, levels = npz.checked(where, {role: _whole(paths[role], header) for role, header in headers.items()})
    if "test" not in pixels:
        say(f"{config.path}: no test split; a fifth of {counted(len(pixels['train']), 'image')} becomes it")
    return Loaded(Split(pixels["train"]), Split(pixels["test"]) if "test" in pixels else None, levels)


def _header(field: str, path: str) -> Header:
    where = f"data.{field}={path}"
    if not pathlib.Path(path).is_file():
        raise errors.UserError(f"{where}: no such file")
    header = npz_headers.bare_header(path, where)
    npz.check_shape(where, header)
    return header


def _whole(path: str, header: Header) -> np.ndarray:
    """All of an array."""
    assert header.offset is not None
    count, *shape = header.shape[::-1] if header.is_fortran else header.shape
    file = ArrayFile(path, header.offset, count, tuple(shape), header.dtype)
    array = file.read(np.arange(count), lambda path: None)
    return array.T if header.is_fortran else array
