"""Arrays and pictures as the page holds them: base64 text, each array once, in no more bytes than the page has room for."""

import base64
import hashlib
import io
import itertools
import math
import pathlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

PRECISE = 500_000  # weights that a page holds as float32; more are stored in 16 bits
TEXT = 4 / 3  # bytes of base64 for each byte
PICTURE_BYTES = 1_800_000  # of all pictures of a study together, as text


def text(content: bytes) -> str:
    """Base64."""
    return base64.b64encode(content).decode("ascii")


def float32(array: np.ndarray) -> str:
    """Base64 of little-endian float32, row by row."""
    return text(np.ascontiguousarray(array, "<f4").tobytes())


class Store:
    """The arrays of a page, each once: what is put in comes back as its number.

    Args:
      precise: whether matrices are kept as float32. Otherwise they are whole numbers of 16 bits with a scale for each
        column, wrong by at most 1 / 65534 of the column's largest number.
    """

    def __init__(self, precise: bool):
        self.precise = precise
        self.arrays: list[dict[str, str]] = []
        self._numbers: dict[str, int] = {}

    def put(self, array: np.ndarray) -> dict[str, int]:
        """{"array": number}, which the page reads back."""
        array = np.asarray(array, np.float32)
        key = digest(array)
        if key not in self._numbers:
            self._numbers[key] = len(self.arrays)
            precise = self.precise or array.ndim < 2 or not np.isfinite(array).all()
            self.arrays.append({"data": float32(array)} if precise else _in_16_bits(array))
        return {"array": self._numbers[key]}

    def tree(self, value: Any) -> Any:
        """A description with its arrays put into the store, and numbers that JSON has."""
        if isinstance(value, Mapping):
            return {key: self.tree(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self.tree(inner) for inner in value]
        if isinstance(value, np.ndarray) and value.ndim:
            return self.put(value)
        return number(value)


def digest(*arrays: np.ndarray) -> str:
    """Of arrays with their shapes."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(repr(array.shape).encode() + np.ascontiguousarray(array, np.float32).tobytes())
    return found.hexdigest()


def _in_16_bits(array: np.ndarray) -> dict[str, str]:
    columns = array.reshape(-1, array.shape[-1])
    scale = np.abs(columns).max(axis=0) / 32767
    whole = np.round(columns / np.where(scale > 0, scale, 1))
    return {"data": text(whole.astype("<i2").tobytes()), "scale": float32(scale)}


def number(value: Any) -> Any:
    """A NumPy scalar as Python's, and what is not finite as None."""
    value = value.item() if isinstance(value, np.generic | np.ndarray) else value
    return None if isinstance(value, float) and not math.isfinite(value) else value


def count(value: Any) -> int:
    """Numbers in the arrays of a description."""
    if isinstance(value, Mapping):
        return sum(map(count, value.values()))
    if isinstance(value, list | tuple):
        return sum(map(count, value))
    return value.size if isinstance(value, np.ndarray) else 0


def images(pixels: np.ndarray) -> dict[str, Any]:
    """[n, *shape] as bytes where every pixel is k / levels for a level of one byte, else as float32."""
    if not (most := levels(pixels)):
        return {"data": float32(pixels)}
    return {"data": text(np.round(pixels * np.float32(most)).astype(np.uint8).tobytes()), "levels": most}


def levels(pixels: np.ndarray) -> int:
    """Of how many grey levels beside 0 the pixels are, where one byte holds them; else 0."""
    for most in (1, 16, 255):
        scaled = pixels * np.float32(most)
        whole = np.round(scaled)
        if np.abs(scaled - whole).max(initial=0) < 1e-4 and whole.min(initial=0) >= 0 and whole.max(initial=0) <= most:
            return most
    return 0


def pictures(paths: list[pathlib.Path]) -> list[str]:
    """PNG and GIF files as data URLs: drawings in at most 256 colours, smaller where all of them would not fit."""
    with ThreadPoolExecutor() as threads:  # Pillow computes without Python's lock
        scale, found = 1.0, list(threads.map(_picture, paths, itertools.repeat(1.0)))
    while sum(map(len, found)) > PICTURE_BYTES and scale > 0.3:
        scale *= 0.75
        large = sorted(range(len(paths)), key=lambda i: -len(found[i]))[: -(-len(paths) // 2)]
        for place in large:
            found[place] = _picture(paths[place], scale)
    return found


def _picture(path: pathlib.Path, scale: float) -> str:
    from PIL import Image

    if path.suffix == ".gif":
        return "data:image/gif;base64," + text(path.read_bytes())
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    if scale < 1:
        image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.LANCZOS)
    image = image.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small = io.BytesIO()
    image.save(small, "png", compress_level=7)  # 9: three times as long, a fifteenth smaller
    return "data:image/png;base64," + text(small.getvalue())
