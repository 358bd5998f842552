"""Image sets of TensorFlow Datasets, read from their prepared files without TensorFlow."""

import bisect
import contextlib
import dataclasses
import functools
import itertools
import json
import operator
import os
import pathlib
import re
from collections.abc import Collection, Iterator
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vae_jax.core import errors
from vae_jax.data import pictures, stored
from vae_jax.data.shapes import Factor
from vae_jax.data.source import DataConfig, Loaded, Split
from vae_jax.system.progress import Progress


class Crop(NamedTuple):
    """How the images of a set are usually made square."""

    side: int  # of the square in their middle
    size: int  # to which that is resized


CROPS = {"celeb_a": Crop(148, 64)}  # as Larsen et al. (2016) and most since

BLOCK = 4096  # rows that are read at a time
UNORDERED = ("shape", "category")  # labels of sets with factors whose values have no order
OWN_FEATURE = r"tensorflow_datasets\.core\.features(\.\w+)+"


def load(config: DataConfig, others: Collection[str] = ()) -> Loaded:
    """The set `config.name` in `config.dir`; with `config.download` it is fetched and prepared where it is missing.

    A name may go on with a config and a version ("emnist/balanced/3.0.0"). Without a config it is the set's default one,
    without a version the highest that is prepared; the description of what is loaded says which. `others` are the names
    that do not come here, for messages.
    """
    name = config.name
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise errors.UserError(f"data.name={name!r} needs the package tensorflow-datasets ({error})") from error

    root = pathlib.Path(config.dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    try:
        with _only_own_features(tensorflow_datasets, root):
            builder = _builder(tensorflow_datasets, name, root, config.download, others)
            columns = _columns(name, builder, config.size)
            if builder.info.file_format.name != "ARRAY_RECORD":
                raise errors.UserError(
                    f"{name} in {root} is prepared as {builder.info.file_format.value}, which only TensorFlow reads; "
                    'prepare it with file_format="array_record"'
                )
            keys = [key for key in ("train", "test") if key in builder.info.splits]
            count = sum(builder.info.splits[key].num_examples for key in keys)
            opened = _opened if config.streams(count * int(np.prod(columns.shape))) else _split
            splits = {key: opened(builder, key, columns) for key in keys}
    except errors.UserError:
        raise
    except Exception as error:  # whatever TFDS and its readers raise on a damaged file
        first = str(error).partition("\n")[0][:200]
        raise errors.UserError(f"{name} in {root} cannot be read ({type(error).__name__}: {first})") from error
    if "train" not in splits:
        raise errors.UserError(f"{name} has no split 'train', only {', '.join(builder.info.splits)}")
    is_bits = all(stored.extent(split.pixels)[1] <= 1 for split in splits.values())
    return Loaded(
        splits["train"],
        splits.get("test"),
        levels=1 if is_bits else 255,
        factors=columns.factors,
        # Of several factors, the one without an order is what the set is about.
        label="" if columns.label else next((f.name for f in columns.factors if f.categorical and f.levels > 2), ""),
        description={"tfds": builder.info.full_name},
    )


@contextlib.contextmanager
def _only_own_features(tfds, root: pathlib.Path) -> Iterator[None]:
    """While it lasts, TFDS imports no code for a feature but its own.

    TFDS imports the module of every class that a set's `features.json` names, in any of several spellings and nestings. All
    of them end in one method, which is where they are refused.
    """
    feature = tfds.features.FeatureConnector
    original = feature.__dict__["cls_from_name"]

    def checked(cls, python_class_name: str):
        if not re.fullmatch(OWN_FEATURE, python_class_name):
            raise errors.UserError(
                f"a features.json in {root} names {python_class_name!r}, which is no feature of TFDS; no other is imported"
            )
        return original.__get__(None, cls)(python_class_name)

    feature.cls_from_name = classmethod(checked)
    try:
        yield
    finally:
        feature.cls_from_name = original


def _builder(tfds, name: str, root: pathlib.Path, download: bool, others: Collection[str]):
    """The prepared set of that name, or one that is prepared now."""
    # A name, perhaps with a config and a version: nothing that a glob or the file system reads otherwise.
    if re.fullmatch(r"\w+(/\w[\w.+-]*)*", name) and (directory := _prepared(tfds, name, root)):
        return tfds.builder_from_directory(directory)
    if name not in (names := tfds.list_builders(with_community_datasets=False)):
        prepared = sorted({path.relative_to(root).parts[0] for path in root.glob("*/**/dataset_info.json")})
        near = str(errors.unknown("", name, [*others, *names])).partition(": ")[2]
        near = f" ({near})" if near.startswith("did") else ""
        raise errors.UserError(
            f"data.name={name!r} is not known{near}: known are {', '.join(others)}, and the image sets of TFDS; "
            f"prepared in {root}: {', '.join(prepared) or 'none'}"
        )
    if not download:
        raise errors.UserError(
            f"{name} is not prepared in {root}; nothing is downloaded unasked: pass --config.data.download=true "
            "(needs the network and tensorflow), or name the directory by --config.data.dir=DIR"
        )
    try:
        import tensorflow  # noqa: F401  (TFDS prepares with it)
    except ImportError as error:
        raise errors.UserError(
            f"data.download=true prepares {name} with tensorflow, which is missing: pip install tensorflow"
        ) from error
    builder = tfds.builder(name, data_dir=root, file_format="array_record")
    builder.download_and_prepare()
    return builder


def _prepared(tfds, name: str, root: pathlib.Path) -> pathlib.Path | None:
    """The directory of the highest version of the set's config; None where nothing of that name is prepared."""
    found = [path.parent for path in root.glob(f"{name}/**/dataset_info.json")]
    if not found:
        return None
    by_config: dict[str, list[pathlib.Path]] = {}
    for path in found:
        # NAME/VERSION or NAME/CONFIG/VERSION
        by_config.setdefault("/".join(path.relative_to(root).parts[1:-1]), []).append(path)
    config = next(iter(by_config)) if len(by_config) == 1 else _default_config(tfds, name.partition("/")[0], root)
    if config not in by_config:
        names = ", ".join(f"{name}/{config}" for config in sorted(by_config))
        raise errors.UserError(f"{name} is prepared in {root} as {names}: name one of them")
    return max(by_config[config], key=lambda path: _version(path.name))


def _default_config(tfds, name: str, root: pathlib.Path) -> str | None:
    """By what was written when the set was prepared, else by its code in TFDS."""
    written = root / name / ".config" / "metadata.json"
    if written.exists():
        return json.loads(written.read_text()).get("default_config_name")
    try:
        builder = tfds.builder_cls(name)
    except Exception:  # not a set of TFDS
        return None
    return builder.DEFAULT_BUILDER_CONFIG_NAME or next((config.name for config in builder.BUILDER_CONFIGS), None)


def _version(text: str) -> tuple[int, ...]:
    """ "3.0.1" as numbers, by which versions are ordered; what is no version comes first."""
    return tuple(map(int, text.split("."))) if re.fullmatch(r"\d+(\.\d+)*", text) else ()


class Columns(NamedTuple):
    """What is read of each row of a set."""

    image: str
    shape: tuple[int, int, int]
    size: int  # if not 0, the square in the middle of an image is resized to this
    side: int  # of that square; 0: as large as it can be
    label: str  # or ""
    factors: tuple[Factor, ...]
    keys: tuple[tuple[str, ...], ...]  # where each factor is found in a row


def _columns(name: str, builder, size: int) -> Columns:
    """The image feature, which must be uint8 of one shape or be resized, the label, and the factors, if there are any."""
    features = dict(sorted(builder.info.features.items()))  # TFDS has them in another order each time
    images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise errors.UserError(f"{name} has no image feature, only {', '.join(features)}")
    image = "image" if "image" in images else images[0]
    shape, crop = features[image].shape, CROPS.get(builder.info.name, Crop(0, 0))
    size = size or crop.size
    if (None in shape and not size) or features[image].np_dtype != np.uint8:
        raise errors.UserError(f"{name} has images of shape {shape}; should be uint8 of one size, or data.size be given")
    labels = [key for key, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    factors: dict[tuple[str, ...], Factor] = {}
    for key in (key for key in labels if key.startswith("label_")):
        count, factor = features[key].num_classes, key.removeprefix("label_")
        factors[key,] = Factor(factor, 0.0, float(count - 1), levels=count, categorical=factor in UNORDERED)
    attributes = features.get("attributes", {})
    for key in sorted(attributes) if hasattr(attributes, "items") else ():
        if attributes[key].np_dtype == np.bool_ and attributes[key].shape == ():
            factors["attributes", key] = Factor(key, levels=2, categorical=True)
    label = "label" if "label" in labels else "" if factors else next(iter(labels), "")
    shape = (size, size, shape[-1]) if size else shape
    return Columns(image, shape, size, crop.side, label, tuple(factors.values()), tuple(factors))


def _split(builder, split: str, columns: Columns) -> Split:
    """Every row of a split."""
    source = builder.as_data_source(split)
    pixels = np.empty((len(source), *columns.shape), np.uint8)
    known = _Known.of(len(source), columns)
    progress = Progress(f"reading {split}", len(source), "image")
    for start, rows in _in_bulk(source):
        for number, row in enumerate(rows, start):
            pixels[number] = _image(row, columns)
            known.add(number, row, columns)
        if columns.size:
            progress.update(start + len(rows))
    if columns.size:
        progress.finish()
    return known.split(pixels, columns)


def _opened(builder, split: str, columns: Columns) -> Split:
    """A split whose images stay in their files: what else is known of each is read."""
    import tensorflow_datasets

    # One that the images are left out of: they are most of the work.
    source = builder.as_data_source(split, decoders={columns.image: tensorflow_datasets.decode.SkipDecoding()})
    records = Records(builder.as_data_source(split), builder.info.splits[split].file_instructions, columns)
    known = _Known.of(len(source), columns)
    progress = Progress(f"reading labels of {split}", len(source), "image")
    if columns.label or columns.keys:
        for start, rows in _in_bulk(source):
            for number, row in enumerate(rows, start):
                known.add(number, row, columns)
            progress.update(start + len(rows))
    return known.split(stored.of_bytes(records, records.path), columns)


def _in_bulk(source) -> Iterator[tuple[int, list[dict]]]:
    """All rows, and where they begin: one by one takes three times as long; in blocks, because a row is a dict."""
    for start in range(0, len(source), BLOCK):
        yield start, source.__getitems__(range(start, min(start + BLOCK, len(source))))


def _image(row: dict, columns: Columns) -> np.ndarray:
    """The pixels of a row."""
    from PIL import Image

    image = row[columns.image]
    if columns.size:
        # Pillow knows no images of one channel in three dimensions.
        image = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        image = pictures.pixels(image, columns.shape[-1], columns.size, columns.side)
    return image


class _Known(NamedTuple):
    """Labels and factors of a split, filled row by row."""

    labels: Int[np.ndarray, " n"]
    factors: Float[np.ndarray, "n factors"]

    @staticmethod
    def of(count: int, columns: Columns) -> "_Known":
        """Of so many rows."""
        return _Known(np.zeros(count, np.int64), np.zeros((count, len(columns.keys)), np.float32))

    def add(self, number: int, row: dict, columns: Columns) -> None:
        """Fill a row."""
        if columns.label:
            self.labels[number] = row[columns.label]
        for column, keys in enumerate(columns.keys):
            self.factors[number, column] = functools.reduce(operator.getitem, keys, row)

    def split(self, pixels: stored.Pixels, columns: Columns) -> Split:
        """With these pixels; what the set does not have is None."""
        return Split(pixels, self.labels if columns.label else None, self.factors if columns.keys else None)


@dataclasses.dataclass(frozen=True, eq=False)
class Records:
    """Images of the shards of a split, decoded when they are asked for.

    Attributes:
      source: of TFDS.
      shards: their file names and sizes, in order.
      columns: what is read of a row.
    """

    source: Any
    shards: list
    columns: Columns
    dtype: ClassVar[np.dtype] = np.dtype(np.uint8)
    decodes: ClassVar[bool] = True

    @property
    def shape(self) -> tuple[int, ...]:
        """Of an image."""
        return self.columns.shape

    @property
    def path(self) -> str:
        """Of the first shard."""
        return str(self.shards[0].filename)

    def __len__(self) -> int:
        return len(self.source)

    def read(self, rows: Int[np.ndarray, " n"], told: stored.Told) -> np.ndarray:
        """See `stored.Origin`."""
        wanted = rows.tolist()
        if wanted:
            told(self._shard(wanted[0]))
        try:
            found = self.source.__getitems__(wanted)
        except Exception as error:  # whatever TFDS and its readers raise on a damaged file
            raise self._damaged(wanted, error) from error
        return np.stack([_image(row, self.columns) for row in found]) if wanted else np.empty((0, *self.shape), np.uint8)

    def _damaged(self, rows: list[int], error: Exception) -> errors.UserError:
        """The error that names the shard of the first row that cannot be read."""
        for row in rows:
            try:
                self.source.__getitems__([row])
            except Exception as caught:
                first = str(caught).partition("\n")[0][:200]
                return errors.UserError(f"{self._shard(row)} cannot be read ({type(caught).__name__}: {first})")
        return errors.UserError(f"{self.path} or another shard could not be read once ({type(error).__name__})")

    def _shard(self, row: int) -> str:
        """The file of a row."""
        ends = list(itertools.accumulate(shard.take for shard in self.shards))
        return str(self.shards[min(bisect.bisect_right(ends, row), len(ends) - 1)].filename)
