"""A config's `data` group in, a `Dataset` out: loaded from its source, split, and binarised.

A data set of one's own is one line, also from a config file:

    DATASETS["rings"] = Source(lambda config: Loaded(Split(pixels)))
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np

from vae_jax.core import errors, keys, schema
from vae_jax.core.registry import Registry
from vae_jax.data import digits, folder, npz, rendered, tfds
from vae_jax.data.binarize import BLOCK, ImageSpec, binarized, draw_bits, prepare, to_unit
from vae_jax.data.labels import labelled
from vae_jax.data.shapes import Factor
from vae_jax.data.source import SPLITS, DataConfig, Loaded, Source, Split
from vae_jax.data.split import divided

__all__ = [
    "DATASETS", "SPLITS", "DataConfig", "Dataset", "ImageSpec", "Loaded", "Source", "Split", "batches", "load", "prepare",
    "readers", "source_of", "to_unit",
]  # fmt: skip

DATASETS: Registry[Source] = Registry(
    "data set",
    {
        "digits": Source(digits.load),
        "faces": Source(rendered.load_faces, ("size", "channels", "count", "gap", "label")),
        "sprites": Source(rendered.load_sprites, ("size", "label")),
        "npz": Source(npz.load, ("path", "label")),
        "folder": Source(folder.load, ("path", "size", "channels")),
    },
)
TFDS = Source(functools.partial(tfds.load, others=DATASETS), ("dir", "download", "size", "label"))  # every other name
TEST_FRACTION = 0.2  # of a data set that has no test split
# Whitening leaves out axes whose std is a smaller part of the largest. On MNIST, whose axes of smaller std are a few images
# each, test images then lie no further out than training images do.
UNSPANNED = 1e-3


def source_of(name: str) -> Source:
    """The source of the data set of that name: a line of `DATASETS`, or TFDS."""
    return DATASETS.get(name, TFDS)


def readers(field: str) -> str:
    """Who reads that field of `DataConfig`: "data.name=npz uses it"."""
    names = [f"data.name={name}" for name, source in DATASETS.items() if field in source.reads]
    verb = "use" if len(names) > 1 or field in TFDS.reads else "uses"
    return f"{' and '.join(names + ['image sets of TFDS'] * (field in TFDS.reads))} {verb} it"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Splits by name ("train", "valid", "test"; no "valid" where its fraction is 0) and their `ImageSpec`.

    `source` says what was found where it was looked for, as `Loaded.description` does; `factors` what each column of
    `Split.factors` means; `renderer` maps factors [n, factors] to images in [0, 1], where the data can be drawn.
    """

    splits: dict[str, Split]
    spec: ImageSpec
    seed: int
    source: dict[str, str] = dataclasses.field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    renderer: Callable | None = None
    _statistics: dict[str, dict] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _bits: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def images(self, split: str) -> np.ndarray:
        """[N, *shape] float32 in [0, 1], with bits that stay the same: for evaluation, of any split."""
        return np.concatenate(list(self.blocks(split)))

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """`images(split)`, some thousands at a time."""
        pixels, levels = self._stored(split)
        for start in range(0, len(pixels), BLOCK):
            yield to_unit(pixels[start : start + BLOCK], levels)

    def chosen(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of `images(split)`."""
        pixels, levels = self._stored(split)
        return to_unit(pixels[rows], levels)

    def _stored(self, split: str) -> tuple[np.ndarray, int]:
        """The pixels of a split with bits that stay the same, and what they are divided by."""
        return (self._drawn(split), 1) if self.spec.dynamic else (self.splits[split].pixels, self.spec.levels)

    def sample(self, count: int) -> np.ndarray:
        """[count, *shape] float32 in [0, 1]: training images from all over the split, which may be sorted."""
        pixels = self.splits["train"].pixels
        pixels = pixels[np.linspace(0, len(pixels) - 1, count).astype(int)]
        if self.spec.dynamic:
            return to_unit(draw_bits(keys.stream(self.seed, keys.DataStream.SAMPLE), pixels, self.spec.levels), 1)
        return to_unit(pixels, self.spec.levels)

    def _drawn(self, split: str) -> np.ndarray:
        """The bits of a split, drawn once."""
        if split not in self._bits:
            pixels, key = self.splits[split].pixels, keys.stream(self.seed, keys.DataStream[split.upper()])
            self._bits[split] = draw_bits(key, pixels, self.spec.levels)
        return self._bits[split]

    @property
    def factor_names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all splits as they are trained on: pixels, labels and factors, with their shapes and types."""
        sha = hashlib.sha256()
        for name, split in self.splits.items():
            for kind, array in (("pixels", split.pixels), ("labels", split.labels), ("factors", split.factors)):
                if array is not None:
                    sha.update(f"{name} {kind} {array.dtype.str} {array.shape};".encode())
                    sha.update(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
        return sha.hexdigest()

    @functools.cached_property
    def extent(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest pixel of each split, in units of 1."""
        levels = self.spec.levels
        return {name: (float(s.pixels.min()) / levels, float(s.pixels.max()) / levels) for name, s in self.splits.items()}

    def statistics(self, normalize: str) -> dict[str, np.ndarray]:
        """What `model.normalize` needs to know of the training pixels, in units of 1; computed once.

        Returns:
          {} for "none". Else `mean` [*shape] and `scale` [], the largest std of a pixel. "standardize": also `std` [*shape],
          where a pixel that never changes has the mean of all. "whiten": also `whiten` and `color` [pixels, pixels], to
          principal axes of variance 1 and back, without those that the training data do not span; `scale` is then the
          largest std of an axis.
        """
        if normalize not in self._statistics:
            images = to_unit(self.splits["train"].pixels, self.spec.levels)
            self._statistics[normalize] = {} if normalize == "none" else _statistics(images, normalize)
        return dict(self._statistics[normalize])


def load(name: str = "digits", **fields) -> Dataset:
    """Load, split and binarise a data set.

    Args:
      name: of `DATASETS`, or of an image set of TFDS.
      **fields: the other fields of `DataConfig`. `valid_fraction` of the training split is set aside, the same share of each
        class. `seed` is of every bit drawn here and of whatever the source draws; it does not move the split.

    Raises:
      UserError: an unknown set, a missing or damaged file, or values that cannot be pixels.
    """
    known = {field.name: field for field in schema.fields(DataConfig, "data")}
    config = DataConfig(**{key: known[key].typed(value) for key, value in {"name": name, **fields}.items()})
    for key, field in known.items():
        field.check(getattr(config, key))
    loaded = source_of(name).load(config)
    train, test, levels = loaded.train, loaded.test, loaded.levels
    if loaded.label:
        train = labelled(train, loaded.factors, loaded.label)
        test = labelled(test, loaded.factors, loaded.label) if test else None
    if test is None:
        train, test = divided(train, TEST_FRACTION, f"data.name={name}", "test")
    splits = {"train": train, "test": test}
    if config.valid_fraction:
        splits["train"], splits["valid"] = divided(
            train, config.valid_fraction, f"data.valid_fraction={config.valid_fraction:g}", "validation"
        )
    if config.binarize != "none":
        for key, split in splits.items():
            if split.pixels.min() < 0 or split.pixels.max() > levels:
                low, high = split.pixels.min() / levels, split.pixels.max() / levels
                raise errors.UserError(
                    f"data.binarize={config.binarize} needs pixels in [0, 1]: {key} has [{low:g}, {high:g}]"
                )
            bits = keys.stream(config.seed, keys.DataStream[key.upper()])
            splits[key] = binarized(split, levels, config.binarize, bits)
    if config.label:  # after the splits are made, which it does not move
        splits = {key: labelled(split, loaded.factors, config.label) for key, split in splits.items()}
    spec = ImageSpec(train.pixels.shape[1:], levels, config.binarize == "dynamic")
    return Dataset(splits, spec, config.seed, loaded.description, loaded.factors, loaded.renderer)


def batches(images: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, ...] as [ceil(N / size), size, ...], the last batch padded with zeros, and the mask [., size] of real rows."""
    count = -(-len(images) // size)
    padded = np.zeros((count * size, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    mask = np.arange(count * size) < len(images)
    return padded.reshape(count, size, *images.shape[1:]), mask.reshape(count, size)


def _statistics(images: np.ndarray, normalize: str) -> dict[str, np.ndarray]:
    """See `Dataset.statistics`."""
    std = images.std(axis=0, dtype=float)
    found = {"mean": images.mean(axis=0, dtype=float), "scale": std.max() or 1.0}
    if normalize == "standardize":
        found["std"] = np.where(std > 1e-6 * std.max(), std, std.mean() or 1.0)
    if normalize == "whiten":
        centred = (images - found["mean"]).reshape(len(images), -1)
        values, vectors = np.linalg.eigh(centred.T @ centred / len(images))
        std = np.sqrt(np.maximum(values, 0))
        # What training does not span says nothing: there an image would be divided by rounding errors.
        is_spanned = std > UNSPANNED * std[-1]
        inverse = np.where(is_spanned, 1 / np.where(is_spanned, std, 1), 0)
        color = vectors * np.where(is_spanned, std, 0)
        found |= {"scale": std[-1] or 1.0, "whiten": vectors * inverse, "color": color.T}
    return {name: np.asarray(array, np.float32) for name, array in found.items()}
