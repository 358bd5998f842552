"""A config's `data` group in, a `Dataset` out: loaded from its source, split, and binarised.

A data set of one's own is one line, also from a config file:

    DATASETS["rings"] = Source(lambda config: Loaded(Split(pixels)))
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Iterator

import numpy as np
from jaxtyping import Array, Key

from vae_jax.core import errors, keys, schema
from vae_jax.core.registry import Registry
from vae_jax.data import digits, folder, npy, npz, rendered, statistics, stored, tfds
from vae_jax.data.binarize import BLOCK, ImageSpec, binarized, bits_of_block, draw_bits, prepare, to_unit
from vae_jax.data.labels import labelled
from vae_jax.data.shapes import Factor
from vae_jax.data.source import SPLITS, DataConfig, Loaded, Source, Split
from vae_jax.data.split import divided
from vae_jax.data.stored import Stored
from vae_jax.system.progress import counted, say

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
        "npy": Source(npy.load, ("path", "test_path")),
        "npz": Source(npz.load, ("path", "label")),
        "folder": Source(folder.load, ("path", "size", "channels")),
    },
)
TFDS = Source(functools.partial(tfds.load, others=DATASETS), ("dir", "download", "size", "label"))  # every other name
TEST_FRACTION = 0.2  # of a data set that has no test split
EVALUATED = 50_000  # images of a split that are evaluated, where they are read from a disk and the config does not say
STREAMED = "rows "  # heads a digest that is of some rows only


def source_of(name: str) -> Source:
    """The source of the data set of that name: a line of `DATASETS`, or TFDS."""
    return DATASETS.get(name, TFDS)


def readers(field: str) -> str:
    """Who reads that field of `DataConfig`: "data.name=npz uses it"."""
    names = [f"data.name={name}" for name, source in DATASETS.items() if field in source.reads]
    names += ["image sets of TFDS"] * (field in TFDS.reads)
    verb = "use" if len(names) > 1 or field in TFDS.reads else "uses"
    return f"{' and '.join([', '.join(names[:-1])] * (len(names) > 1) + names[-1:])} {verb} it"


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """Splits by name ("train", "valid", "test"; no "valid" where its fraction is 0) and their `ImageSpec`.

    `source` says what was found where it was looked for, as `Loaded.description` does; `factors` what each column of
    `Split.factors` means; `renderer` maps factors [n, factors] to images in [0, 1], where the data can be drawn.
    `has_one_order` says whether all runs that are trained on it see its images in one order.
    """

    splits: dict[str, Split]
    spec: ImageSpec
    seed: int
    source: dict[str, str] = dataclasses.field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    renderer: Callable | None = None
    has_one_order: bool = False
    _statistics: dict[str, dict] = dataclasses.field(default_factory=dict, init=False, repr=False)
    _bits: dict[str, np.ndarray] = dataclasses.field(default_factory=dict, init=False, repr=False)

    def images(self, split: str) -> np.ndarray:
        """[N, *shape] float32 in [0, 1], with bits that stay the same: for evaluation, of any split."""
        return np.concatenate(list(self.blocks(split)))

    def blocks(self, split: str) -> Iterator[np.ndarray]:
        """`images(split)`, at most some thousands at a time."""
        pixels, levels = self.splits[split].pixels, self.spec.levels
        if not self.spec.dynamic:
            yield from (to_unit(block, levels) for block in stored.blocks(pixels))
            return
        if not isinstance(pixels, Stored):
            yield from (to_unit(block, 1) for block in stored.blocks(self._drawn(split)))
            return
        for start in range(0, len(pixels), BLOCK):
            yield to_unit(bits_of_block(self._key(split), start, pixels[start : start + BLOCK], levels), 1)

    def chosen(self, split: str, rows: np.ndarray) -> np.ndarray:
        """Some rows of `images(split)`."""
        pixels, levels = self.splits[split].pixels, self.spec.levels
        if not self.spec.dynamic:
            return to_unit(pixels[rows], levels)
        if not isinstance(pixels, Stored):
            return to_unit(self._drawn(split)[rows], 1)
        found = pixels[rows]
        # The bits of a row are drawn with those of its block, whose other pixels need not be read for that.
        for start in np.unique(rows // BLOCK * BLOCK):
            (members,) = np.nonzero(rows // BLOCK * BLOCK == start)
            block = np.zeros((min(BLOCK, len(pixels) - start), *found.shape[1:]), found.dtype)
            block[rows[members] - start] = found[members]
            found[members] = bits_of_block(self._key(split), int(start), block, levels)[rows[members] - start]
        return to_unit(found, 1)

    def sample(self, count: int) -> np.ndarray:
        """[count, *shape] float32 in [0, 1]: training images from all over the split, which may be sorted."""
        pixels = self.splits["train"].pixels
        found = pixels[np.linspace(0, len(pixels) - 1, count).astype(int)]
        if self.spec.dynamic:
            return to_unit(draw_bits(keys.stream(self.seed, keys.DataStream.SAMPLE), found, self.spec.levels), 1)
        return to_unit(found, self.spec.levels)

    def _drawn(self, split: str) -> np.ndarray:
        """The bits of a split, drawn once."""
        if split not in self._bits:
            pixels = self.splits[split].pixels
            assert not isinstance(pixels, Stored)
            self._bits[split] = draw_bits(self._key(split), pixels, self.spec.levels)
        return self._bits[split]

    def _key(self, split: str) -> Key[Array, ""]:
        """Of the bits of a split that stay the same."""
        return keys.stream(self.seed, keys.DataStream[split.upper()])

    @property
    def name_of_content(self) -> tuple | None:
        """Its part of the key of a program (see `traced`): differs where the data do; None where pixels stay on a disk."""
        if self.is_streamed:
            return None
        return self.digest, self.spec, self.seed, self.factors, self.renderer, self.has_one_order

    @property
    def is_streamed(self) -> bool:
        """Whether the pixels stay on a disk."""
        return any(isinstance(split.pixels, Stored) for split in self.splits.values())

    def evaluated(self, images: int) -> "Dataset":
        """The data set with so many images of each split, evenly spaced; 0: all, or 50,000 where they are on a disk."""
        most = images or (EVALUATED if self.is_streamed else 0)
        if not most or all(len(split) <= most for split in self.splits.values()):
            return self
        splits = {
            name: split.take(stored.evenly(len(split), most)) if len(split) > most else split
            for name, split in self.splits.items()
        }
        return dataclasses.replace(self, splits=splits)

    @property
    def factor_names(self) -> tuple[str, ...]:
        return tuple(factor.name for factor in self.factors)

    @functools.cached_property
    def digest(self) -> str:
        """SHA-256 of all splits as they are trained on: pixels, labels and factors, with their shapes and types.

        Of pixels on a disk, the first and the last and some thousands of rows evenly between them; it begins with "rows ".
        """
        return self._hashed(self.is_streamed)

    def digest_like(self, other: str) -> str:
        """The digest of the kind that `other` is: of some rows or of all."""
        of_some = other.startswith(STREAMED)
        return self.digest if of_some == self.is_streamed else self._hashed(of_some)

    def _hashed(self, of_some: bool) -> str:
        """See `digest`."""
        sha = hashlib.sha256()
        for name, split in self.splits.items():
            for kind, array in (("pixels", split.pixels), ("labels", split.labels), ("factors", split.factors)):
                if array is None:
                    continue
                sha.update(f"{name} {kind} {array.dtype.str} {array.shape};".encode())
                is_sampled = of_some and kind == "pixels"
                for block in [array[stored.evenly(len(array), stored.SAMPLE)]] if is_sampled else stored.blocks(array):
                    sha.update(np.ascontiguousarray(block).data.cast("B") if block.size else b"")
        return (STREAMED if of_some else "") + sha.hexdigest()

    @functools.cached_property
    def extent(self) -> dict[str, tuple[float, float]]:
        """The smallest and the largest pixel of each split, in units of 1; on a disk, what none is below and above."""
        levels, extents = self.spec.levels, {name: stored.extent(split.pixels) for name, split in self.splits.items()}
        return {name: (low / levels, high / levels) for name, (low, high) in extents.items()}

    def has_whole_levels(self, split: str) -> bool:
        """Whether all pixels of a split are whole numbers, as stored."""
        pixels = self.splits[split].pixels
        return pixels.dtype.kind in "bui" or all(bool(np.equal(np.mod(b, 1), 0).all()) for b in stored.blocks(pixels))

    def statistics(self, normalize: str) -> dict[str, np.ndarray]:
        """What `model.normalize` needs to know of the training pixels, in units of 1; computed once.

        Returns:
          {} for "none". Else `mean` [*shape] and `scale` [], the largest std of a pixel. "standardize": also `std` [*shape],
          where a pixel that never changes has the mean of all. "whiten": also `whiten` and `color` [pixels, pixels], to
          principal axes of variance 1 and back, without those that the training data do not span; `scale` is then the
          largest std of an axis.
        """
        if normalize not in self._statistics:
            self._statistics[normalize] = statistics.of(self.splits["train"].pixels, self.spec.levels, normalize)
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
    if loaded.is_sorted:
        test = test.take(np.random.default_rng(0).permutation(len(test)))
    splits = {"train": train, "test": test}
    if config.resident == "false":
        splits = {key: _stored(split, config) for key, split in splits.items()}
    if config.valid_fraction:
        splits["train"], splits["valid"] = divided(
            splits["train"], config.valid_fraction, f"data.valid_fraction={config.valid_fraction:g}", "validation"
        )
    if config.binarize != "none":
        for key, split in splits.items():
            low, high = stored.extent(split.pixels)
            if low < 0 or high > levels:
                low, high = low / levels, high / levels
                raise errors.UserError(
                    f"data.binarize={config.binarize} needs pixels in [0, 1]: {key} has [{low:g}, {high:g}]"
                )
            bits = keys.stream(config.seed, keys.DataStream[key.upper()])
            splits[key] = binarized(split, levels, config.binarize, bits)
    if config.label:  # after the splits are made, which it does not move
        splits = {key: labelled(split, loaded.factors, config.label) for key, split in splits.items()}
    spec = ImageSpec(train.pixels.shape[1:], levels, config.binarize == "dynamic")
    found = Dataset(splits, spec, config.seed, loaded.description, loaded.factors, loaded.renderer)
    if found.is_streamed:
        count = counted(sum(map(len, splits.values())), "image")
        say(f"data.name={name}: {count}, read for each batch; all runs see them in the order of data.seed={config.seed}")
    return dataclasses.replace(found, has_one_order=config.order == "shared" or found.is_streamed)


def _stored(split: Split, config: DataConfig) -> Split:
    """A split of a source that has no file to leave pixels in: they are read from memory, in the same way."""
    if isinstance(split.pixels, Stored):
        return split
    config.streams(0)  # refuses what cannot be had with it
    return dataclasses.replace(split, pixels=stored.in_memory(split.pixels))


def batches(images: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """[N, ...] as [ceil(N / size), size, ...], the last batch padded with zeros, and the mask [., size] of real rows."""
    count = -(-len(images) // size)
    padded = np.zeros((count * size, *images.shape[1:]), images.dtype)
    padded[: len(images)] = images
    mask = np.arange(count * size) < len(images)
    return padded.reshape(count, size, *images.shape[1:]), mask.reshape(count, size)
