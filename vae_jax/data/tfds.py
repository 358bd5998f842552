"""Image sets of TensorFlow Datasets, read from their prepared files without TensorFlow."""

import json
import os
import pathlib
import re

import numpy as np
from jaxtyping import Int

from vae_jax.core import errors
from vae_jax.data.source import DataConfig, Loaded, Split

FEATURES = "tensorflow_datasets.core.features."


def load(config: DataConfig) -> Loaded:
    """The set `config.name` in `config.dir`; with `config.download` it is fetched and prepared where it is missing."""
    name = config.name
    try:
        import tensorflow_datasets
    except ImportError as error:
        raise errors.UserError(f"data.name={name!r} needs the package tensorflow-datasets ({error})") from error

    root = pathlib.Path(config.dir or os.environ.get("TFDS_DATA_DIR", "~/tensorflow_datasets")).expanduser()
    try:
        builder = _builder(tensorflow_datasets, name, root, config.download)
        image, label = _features(name, builder)
        if builder.info.file_format.name != "ARRAY_RECORD":
            raise errors.UserError(
                f"{name} in {root} is prepared as {builder.info.file_format.value}, which only TensorFlow reads; "
                'prepare it with file_format="array_record"'
            )
        splits = {key: _split(builder, key, image, label) for key in ("train", "test") if key in builder.info.splits}
    except errors.UserError:
        raise
    except Exception as error:  # whatever TFDS and its readers raise on a damaged file
        first = str(error).partition("\n")[0][:200]
        raise errors.UserError(f"{name} in {root} cannot be read ({type(error).__name__}: {first})") from error
    if "train" not in splits:
        raise errors.UserError(f"{name} has no split 'train', only {', '.join(builder.info.splits)}")
    return Loaded(splits["train"], splits.get("test"), 255)


def _builder(tfds, name: str, root: pathlib.Path, download: bool):
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
            if not str(node.get(key, FEATURES)).startswith(FEATURES):
                raise errors.UserError(f"{path}: names {node[key]!r}, which is no feature of TFDS; nothing else is imported")

    json.loads(path.read_text(), object_hook=check)


def _features(name: str, builder) -> tuple[str, str | None]:
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


def _split(builder, split: str, image: str, label: str | None) -> Split:
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
