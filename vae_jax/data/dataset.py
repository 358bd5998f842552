"""Images in, a `Dataset` out: scikit-learn's digits, any prepared TFDS image set, or your own .npz arrays."""

import dataclasses
import importlib.util
import json
import os
import pathlib
import re

import jax
import numpy as np
from jax import random
from jaxtyping import Array, Float, Int, Key, Num

from vae_jax.core import errors, keys, schema
from vae_jax.storage import npz_headers

BINARIZE = ("none", "threshold", "static", "dynamic")
SPLITS = ("train", "valid", "test")
TFDS_FEATURES = "tensorflow_datasets.core.features."


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set and how it is split and binarised."""

    name: str = schema.field("digits", "digits, npz, or an image set of TensorFlow Datasets such as mnist.")
    path: str = schema.field("", "The .npz file of data.name=npz.")
    dir: str = schema.field("", "Where TFDS keeps prepared sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.")
    download: bool = schema.field(False, "Let TFDS fetch and prepare a set that is missing.")
    binarize: str = schema.field("none", "How grey pixels become bits.", choices=BINARIZE)
    valid_fraction: float = schema.field(0.1, "Part of the training split set aside for validation.", low=0, high=0.99)
    seed: int = schema.field(0, "Of the bits drawn once: static binarisation and evaluation.", low=0, high=2**31 - 1)


@dataclasses.dataclass(frozen=True)
class Split:
    """`pixels` [N, *shape], in levels as stored; `labels` and `factors` [N, ...], or None."""

    pixels: np.ndarray
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> "Split":
        """The rows `indices` of every array."""
        labels, factors = (None if array is None else array[indices] for array in (self.labels, self.factors))
        return Split(self.pixels[indices], labels, factors)


@dataclasses.dataclass(frozen=True)
class ImageSpec:
    """How stored pixels become images: static, so that programs can be built from it.

    `levels` is the stored value that means 1 (255 for bytes); `dynamic` asks for fresh bits in every step.
    """

    shape: tuple[int, ...]
    levels: int
    dynamic: bool


@dataclasses.dataclass(frozen=True)
class Dataset:
    """Splits by name ("train", "valid", "test"; no "valid" where its fraction is 0) and their `ImageSpec`."""

    splits: dict[str, Split]
    spec: ImageSpec
    seed: int

    def images(self, split: str) -> np.ndarray:
        """[N, *shape] float32 in [0, 1], with bits that stay the same: for evaluation, of any split."""
        pixels = self.splits[split].pixels
        if self.spec.dynamic:
            key = keys.stream(self.seed, keys.DataStream[split.upper()])
            return _draw_bits(key, to_unit(pixels, self.spec.levels))
        return to_unit(pixels, self.spec.levels)

    def statistics(self, normalize: str) -> dict[str, np.ndarray]:
        """What `model.normalize` needs to know of the training pixels, in units of 1.

        Returns:
          {} for "none". Else `mean` [*shape] and `scale` [], the largest std of a pixel. "standardize": also `std` [*shape],
          where a pixel that never changes has the mean of all. "whiten": also `whiten` and `color` [pixels, pixels], to
          principal axes of variance 1 and back; `scale` is then the largest std of an axis.
        """
        if normalize == "none":
            return {}
        x = to_unit(self.splits["train"].pixels, self.spec.levels)
        std = x.std(axis=0, dtype=float)
        found = {"mean": x.mean(axis=0, dtype=float), "scale": std.max() or 1.0}
        if normalize == "standardize":
            found["std"] = np.where(std > 1e-6 * std.max(), std, std.mean() or 1.0)
        if normalize == "whiten":
            centred = (x - found["mean"]).reshape(len(x), -1)
            values, vectors = np.linalg.eigh(centred.T @ centred / len(x))
            # An axis without variance is scaled like the smallest that still matters.
            std = np.sqrt(np.maximum(values, max(values[-1], 1e-30) * 1e-8))
            found |= {"scale": std[-1], "whiten": vectors / std, "color": (vectors * std).T}
        return {name: np.asarray(array, np.float32) for name, array in found.items()}


def load(
    name: str,
    path: str = "",
    dir: str = "",
    download: bool = False,
    binarize: str = "none",
    valid_fraction: float | int = 0.1,
    seed: int = 0,
) -> Dataset:
    """Load, split and binarise a data set.

    Args:
      name: "digits", "npz", or the name of an image set of TFDS.
      path: the .npz file: arrays `train`, `test` ([N, ...], uint8 or float), optional `train_labels`, `test_labels`,
        `train_factors`, `test_factors`. Labels are integers, bools or strings. Bytes are scaled by 255, except where none
        exceeds 1: those are bits.
      dir: where TFDS keeps its prepared sets; "" means $TFDS_DATA_DIR, else ~/tensorflow_datasets.
      download: let TFDS fetch and prepare a set that is missing (needs the network and `tensorflow`).
      binarize: "none"; "threshold" at one half; "static": x ~ Bernoulli(pixel), drawn once; "dynamic": drawn afresh in
        each training step, and once for evaluation.
      valid_fraction: part of the training split that is set aside, the same share of each class; may be 0.
      seed: of every bit drawn here. It does not move the split.

    Raises:
      UserError: an unknown set, a missing or damaged file, or values that cannot be pixels.
    """
    if binarize not in BINARIZE:
        raise errors.UserError(f"data.binarize={binarize!r}: should be one of {', '.join(BINARIZE)}")
    if name == "digits":
        train, test, levels = _digits()
    elif name == "npz":
        train, test, levels = _npz(path)
    else:
        train, test, levels = _tfds(name, dir, download)
    splits = {"train": train, "test": test}
    held = _stratified(train, valid_fraction)
    if held.all():
        raise errors.UserError(
            f"data.valid_fraction={valid_fraction:g}: leaves no training image of {len(train)}; should be smaller"
        )
    if held.any():
        splits |= {"train": train.take(np.flatnonzero(~held)), "valid": train.take(np.flatnonzero(held))}
    if binarize != "none":
        for key, split in splits.items():
            if split.pixels.min() < 0 or split.pixels.max() > levels:
                low, high = split.pixels.min() / levels, split.pixels.max() / levels
                raise errors.UserError(f"data.binarize={binarize!r} needs pixels in [0, 1]: {key} has [{low:g}, {high:g}]")
            splits[key] = _binarized(split, levels, binarize, keys.stream(seed, keys.DataStream[key.upper()]))
    return Dataset(splits, ImageSpec(train.pixels.shape[1:], levels, binarize == "dynamic"), seed)


def to_unit(pixels: Num[Array, "*shape"] | np.ndarray, levels: int):
    """Stored pixels as float32 in units of 1."""
    return pixels.astype(np.float32) / np.float32(levels)


def prepare(pixels: Num[Array, "batch *shape"], spec: ImageSpec, key: Key[Array, ""]) -> Float[Array, "batch *shape"]:
    """One training batch from stored pixels: scaled, and with fresh bits where the spec is dynamic."""
    x = to_unit(pixels, spec.levels)
    return _bits(key, x) if spec.dynamic else x


def batches(images: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, ...] as [ceil(N / size), size, ...], the last batch padded with zeros, and the mask [., size] of real rows."""
    count = -(-len(images) // size)
    padded = np.zeros((count * size, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    mask = np.arange(count * size) < len(images)
    return padded.reshape(count, size, *images.shape[1:]), mask.reshape(count, size)


def _bits(key: Key[Array, ""], x: Float[Array, "batch *shape"]) -> Float[Array, "batch *shape"]:
    """x ~ Bernoulli(x)."""
    # Drawn flat: these are the same bits, and XLA's CPU backend compiles a draw of shape [., 8, 8, 1] ten times slower.
    return random.bernoulli(key, x.reshape(-1)).reshape(x.shape).astype(x.dtype)


def _draw_bits(key: Key[Array, ""], x: np.ndarray) -> np.ndarray:
    """x ~ Bernoulli(x), a block of rows at a time so that 60,000 images do not need a second copy as floats."""
    blocks = [jax.jit(_bits)(keys.at(key, start), x[start : start + 4096]) for start in range(0, len(x), 4096)]
    return np.concatenate([np.asarray(block) for block in blocks])


def _binarized(split: Split, levels: int, how: str, key: Key[Array, ""]) -> Split:
    if how == "threshold":
        bits = split.pixels >= levels / 2
    elif how == "static":
        bits = _draw_bits(key, to_unit(split.pixels, levels))
    else:
        return split  # dynamic: the grey levels are kept, `prepare` draws
    return dataclasses.replace(split, pixels=(bits * levels).astype(split.pixels.dtype))


def _stratified(split: Split, fraction: float | int) -> np.ndarray:
    """A mask of `fraction` of the rows, the same share of each class; a fixed choice."""
    if not 0 <= fraction < 1:
        raise errors.UserError(f"data.valid_fraction={fraction:g}: should be at least 0 and below 1")
    labels = np.zeros(len(split), int) if split.labels is None else split.labels
    random_state = np.random.default_rng(0)
    mask = np.zeros(len(split), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[random_state.permutation(members)[: round(fraction * len(members))]] = True
    return mask


def _digits() -> tuple[Split, Split, int]:
    """The 1,797 8x8 digits inside scikit-learn: a fixed, stratified fifth of them is the test split."""
    # The file that its load_digits() reads: importing scikit-learn takes longer than training on it.
    spec = importlib.util.find_spec("sklearn")
    if spec is None or spec.origin is None:
        raise errors.UserError("data.name=digits needs scikit-learn: pip install scikit-learn")
    rows = np.loadtxt(pathlib.Path(spec.origin).parent / "datasets/data/digits.csv.gz", np.uint8, delimiter=",")
    split = Split(rows[:, :-1].reshape(-1, 8, 8, 1), rows[:, -1].astype(int))
    test = _stratified(split, 0.2)
    return split.take(np.flatnonzero(~test)), split.take(np.flatnonzero(test)), 16


def _npz(path: str) -> tuple[Split, Split, int]:
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
    return train, test, levels


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


def _tfds(name: str, dir: str, download: bool) -> tuple[Split, Split, int]:
    """An image set of TFDS, read from its prepared files without TensorFlow."""
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise errors.UserError(f"data.name={name!r} needs the package tensorflow-datasets ({error})") from error

    root = pathlib.Path(dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    try:
        builder = _tfds_builder(tfds, name, root, download)
        image, label = _tfds_features(name, builder)
        if builder.info.file_format.name != "ARRAY_RECORD":
            raise errors.UserError(
                f"{name} in {root} is prepared as {builder.info.file_format.value}, which only TensorFlow reads; "
                'prepare it with file_format="array_record"'
            )
        splits = {key: _tfds_split(builder, key, image, label) for key in ("train", "test") if key in builder.info.splits}
    except errors.UserError:
        raise
    except Exception as error:  # whatever TFDS and its readers raise on a damaged file
        first = str(error).partition("\n")[0][:200]
        raise errors.UserError(f"{name} in {root} cannot be read ({type(error).__name__}: {first})") from error
    if "train" not in splits:
        raise errors.UserError(f"{name} has no split 'train', only {', '.join(builder.info.splits)}")
    if "test" not in splits:
        held = _stratified(splits["train"], 0.2)
        whole = splits["train"]
        splits = {"train": whole.take(np.flatnonzero(~held)), "test": whole.take(np.flatnonzero(held))}
    return splits["train"], splits["test"], 255


def _tfds_builder(tfds, name: str, root: pathlib.Path, download: bool):
    # A name, perhaps with a config and a version: nothing that a glob or the file system reads otherwise.
    named = re.fullmatch(r"\w+(/\w[\w.+-]*)*", name)
    versions = sorted(path.parent for path in root.glob(f"{name}/**/dataset_info.json")) if named else []
    if versions:
        _refuse_code(versions[-1] / "features.json")
        return tfds.builder_from_directory(versions[-1])
    if name not in (names := tfds.list_builders(with_community_datasets=False)):
        prepared = sorted({path.relative_to(root).parts[0] for path in root.glob("*/**/dataset_info.json")})
        near = str(errors.unknown("", name, names)).partition(": ")[2]
        near = f" ({near})" if near.startswith("did") else ""
        raise errors.UserError(
            f"data.name={name!r} is not known{near}: known are digits, npz, and the image sets of TFDS; "
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


def _refuse_code(path: pathlib.Path) -> None:
    """TFDS imports the module of every class that a set's features name: only its own may be."""

    def check(node: dict) -> None:
        for key in ("pythonClassName", "python_class_name"):
            if not str(node.get(key, TFDS_FEATURES)).startswith(TFDS_FEATURES):
                raise errors.UserError(f"{path}: names {node[key]!r}, which is no feature of TFDS; nothing else is imported")

    json.loads(path.read_text(), object_hook=check)


def _tfds_features(name: str, builder) -> tuple[str, str | None]:
    """Names of the image feature, which must be uint8 of one shape, and of the label, if there is one."""
    features = builder.info.features
    images = [key for key, feature in features.items() if type(feature).__name__ == "Image"]
    if not images:
        raise errors.UserError(f"{name} has no image feature, only {', '.join(features)}")
    image = "image" if "image" in images else images[0]
    if None in features[image].shape or features[image].np_dtype != np.uint8:
        raise errors.UserError(f"{name} has images of shape {features[image].shape}; should be uint8 of one size")
    labels = [key for key, feature in features.items() if type(feature).__name__ == "ClassLabel"]
    return image, ("label" if "label" in labels else labels[0]) if labels else None


def _tfds_split(builder, split: str, image: str, label: str | None) -> Split:
    source = builder.as_data_source(split)
    pixels = np.empty((len(source), *builder.info.features[image].shape), np.uint8)
    labels: Int[np.ndarray, " n"] = np.zeros(len(source), np.int64)
    # In bulk, because one by one takes three times as long; in blocks, because a row is a dict.
    for start in range(0, len(source), 4096):
        for offset, row in enumerate(source.__getitems__(range(start, min(start + 4096, len(source))))):
            pixels[start + offset] = row[image]
            if label:
                labels[start + offset] = row[label]
    return Split(pixels, labels if label else None)
