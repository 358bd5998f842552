"""A directory of PNG or JPEG images: sub-directories are classes, and `train` and `test` are splits."""

import concurrent.futures
import dataclasses
import os
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from vae_jax.core import errors
from vae_jax.data import pictures, stored
from vae_jax.data.source import DataConfig, Loaded, Split
from vae_jax.data.stored import Pixels
from vae_jax.system import memory
from vae_jax.system.progress import Progress, counted, say

ENDINGS = (".png", ".jpg", ".jpeg")
BLOCK = 500  # images that a process decodes
GREY = ("1", "L", "LA", "I;16", "I;16B")  # modes of Pillow


def load(config: DataConfig) -> Loaded:
    """The images below `config.path`, in the order of their names; with classes the test split is in a random one.

    All have one size, or are cropped to the square in their middle and resized to `config.size`. They are grey where all
    files are, or where `config.channels` is 1.
    """
    where = f"data.path={config.path}"
    if not config.path:
        raise errors.UserError("data.name=folder needs data.path=DIRECTORY")
    root = pathlib.Path(config.path)
    if not root.is_dir():
        raise errors.UserError(f"{where}: no such directory")
    parts = [root / "train", root / "test"]
    if all(part.is_dir() for part in parts):
        found = [_files(where, part) for part in parts]
    else:
        found = [_files(where, root)]
        say(f"{root}: {counted(len(found[0]), 'image')} and there is no test split; a fifth of them becomes it")
    paths = [path for part in found for path in part]
    shape = _shape(where, paths, config)
    pixels, first = _pixels(where, paths, shape, config), len(found[0])
    labels = [_classes(where, part, files) for part, files in zip(parts if len(found) > 1 else [root], found, strict=True)]
    splits = [np.arange(first), np.arange(first, len(paths))]
    train, test = (stored.take(pixels, rows) if len(found) > 1 else pixels for rows in splits)
    has_classes = any(names is not None for names in labels)
    test_split = Split(test, labels[1]) if len(found) > 1 else None
    return Loaded(Split(train, labels[0]), test_split, 255, is_sorted=has_classes)


def _pixels(where: str, paths: Sequence[pathlib.Path], shape: tuple[int, int, int], config: DataConfig) -> Pixels:
    """Of all files, read now or when they are asked for."""
    needed, room = len(paths) * int(np.prod(shape)), memory.free()
    if config.streams(needed):
        files = ImageFiles(where, [str(path) for path in paths], shape, config.size)
        return stored.Stored(files, np.arange(len(files)), (0.0, 255.0), files.dtype)
    if needed > room:
        raise errors.UserError(
            f"{where}: {len(paths):,} images of shape {shape} take {memory.text(needed)}, and {memory.text(room)} are free; "
            "give a smaller data.size, or data.resident=false"
        )
    return _decoded(where, paths, shape, config.size)


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files that are decoded when they are asked for.

    Attributes:
      where: heads messages.
      paths: of the files.
      shape: of each image, decoded.
      size: as `DataConfig.size`.
    """

    where: str
    paths: list[str]
    shape: tuple[int, int, int]
    size: int
    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    decodes: ClassVar[bool] = True

    @property
    def path(self) -> str:
        """Of the first one."""
        return self.paths[0]

    def __len__(self) -> int:
        return len(self.paths)

    def read(self, rows: Int[np.ndarray, " n"], told: stored.Told) -> np.ndarray:
        """See `stored.Origin`."""
        from PIL import Image

        found = np.empty((len(rows), *self.shape), np.uint8)
        for number, row in enumerate(rows):
            told(path := self.paths[row])
            try:
                with Image.open(path) as image:
                    decoded = pictures.pixels(image, self.shape[2], self.size)
            except Exception as error:  # Pillow raises a dozen types for what it cannot read
                raise errors.UserError(f"{self.where}: {path} cannot be read ({type(error).__name__})") from error
            if decoded.shape != self.shape:
                raise errors.UserError(f"{self.where}: {path} has become {decoded.shape} and was {self.shape}")
            found[number] = decoded
        return found


def _files(where: str, root: pathlib.Path) -> list[pathlib.Path]:
    found = sorted(path for path in root.rglob("*") if path.suffix.lower() in ENDINGS and path.is_file())
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    if not found:
        raise errors.UserError(f"{where}: no image in {root}; should end in {', '.join(ENDINGS)}")
    return found


def _classes(where: str, root: pathlib.Path, paths: Sequence[pathlib.Path]) -> np.ndarray | None:
    """Names of the sub-directories that the files are in."""
    names = [path.relative_to(root).parts[0] for path in paths if path.parent != root]
    if names and len(names) < len(paths):
        raise errors.UserError(f"{where}: has images both in {root} itself and in sub-directories; should be one of the two")
    return np.array(names) if names else None


def _shape(where: str, paths: Sequence[pathlib.Path], config: DataConfig) -> tuple[int, int, int]:
    """Height, width and channels of all images, by their headers."""
    from PIL import Image

    if config.channels not in (0, 1, 3):
        raise errors.UserError(f"data.channels={config.channels}: should be 1 (grey) or 3")
    sizes: dict[tuple[int, int], pathlib.Path] = {}
    is_grey = True
    for path in paths:
        try:
            with Image.open(path) as image:
                sizes.setdefault(image.size, path)
                is_grey = is_grey and image.mode in GREY
        except Exception as error:  # Pillow raises a dozen types for what it cannot read
            raise errors.UserError(f"{where}: {path} is no readable image ({type(error).__name__})") from error
    channels = config.channels or (1 if is_grey else 3)
    if config.size:
        return config.size, config.size, channels
    if len(sizes) > 1:
        told = ", ".join(f"{path.name} {width}x{height}" for (width, height), path in list(sizes.items())[:3])
        raise errors.UserError(f"{where}: images of {len(sizes)} sizes ({told}); give data.size to crop and resize them")
    ((width, height),) = sizes
    return height, width, channels


def _decoded(where: str, paths: Sequence[pathlib.Path], shape: tuple[int, int, int], size: int) -> np.ndarray:
    """Pixels [N, *shape] of all files, decoded by as many processes as there are cores."""
    pixels = np.empty((len(paths), *shape), np.uint8)
    progress = Progress("reading images", len(paths), "image")
    done = 0

    def block(start: int) -> int:
        part = paths[start : start + BLOCK]
        command = [sys.executable, str(pathlib.Path(__file__).with_name("pictures.py")), str(shape[2]), str(size)]
        ended = subprocess.run(command, input=b"\0".join(map(os.fsencode, part)), capture_output=True)
        if ended.returncode or len(ended.stdout) != len(part) * int(np.prod(shape)):
            said = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
            raise errors.UserError(f"{where}: an image cannot be read: {said[:300]}")
        pixels[start : start + len(part)] = np.frombuffer(ended.stdout, np.uint8).reshape(-1, *shape)
        return len(part)

    # A thread for each process: it waits, and copies what comes.
    with concurrent.futures.ThreadPoolExecutor(len(os.sched_getaffinity(0))) as threads:
        for future in concurrent.futures.as_completed(threads.submit(block, at) for at in range(0, len(paths), BLOCK)):
            try:
                done += future.result()
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
            progress.update(done)
    if len(paths) > BLOCK:
        progress.finish()
    return pixels
