"""What delivers a data set: the config's `data` group, rows of pixels with what is known of each, and the loader's type."""

import dataclasses
from collections.abc import Callable

import numpy as np

from vae_jax.core import errors, schema
from vae_jax.data import stored
from vae_jax.data.shapes import Factor
from vae_jax.data.stored import Pixels
from vae_jax.system import memory

BINARIZE = ("none", "threshold", "static", "dynamic")
SPLITS = ("train", "valid", "test")
# Fields of `DataConfig` that every data set has.
EVERYWHERE = ("name", "binarize", "valid_fraction", "seed", "resident", "order")


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The data set and how it is split and binarised."""

    name: str = schema.field("digits", "digits, faces, sprites, npy, npz, folder, or an image set of TFDS such as mnist.")
    path: str = schema.field("", "npy, npz: the file; folder: the directory of images.")
    test_path: str = schema.field("", "npy: the file of the test split; empty: a fifth of data.path.", absent="")
    dir: str = schema.field("", "Where TFDS keeps prepared sets; empty: $TFDS_DATA_DIR, else ~/tensorflow_datasets.")
    download: bool = schema.field(False, "Let TFDS fetch and prepare a set that is missing.")
    binarize: str = schema.field("none", "How grey pixels become bits.", choices=BINARIZE)
    valid_fraction: float = schema.field(0.1, "Part of the training split set aside for validation.", low=0, high=0.99)
    seed: int = schema.field(
        0, "Of what is drawn once: bits (static binarisation, evaluation) and the factors of faces.", low=0, high=2**31 - 1
    )
    size: int = schema.field(
        0,
        "Height and width of images that are rendered, or cropped and resized; 0: faces 32, sprites 16, others their own.",
        low=0,
        high=4096,
        absent=0,
    )
    channels: int = schema.field(0, "1 for grey, 3 for RGB; 0: faces 1, folder its own.", low=0, high=3, absent=0)
    count: int = schema.field(
        0, "faces: how many, of which a fifth is the test split; 0: 12,500.", low=0, high=10**7, absent=0
    )
    gap: tuple[float, ...] = schema.field((), "faces: two hair lengths between which none lies.", low=0, high=1, absent=())
    label: str = schema.field("", "The factor that labels are of, for colours; empty: the set's own choice.", absent="")
    resident: str = schema.field(
        "auto",
        "true: all pixels in memory; false: they stay on the disk and are read for each batch (npy, npz, folder, TFDS); "
        "auto: so where twice what they take, on the host and on each device, is more than the memory.",
        choices=("auto", "true", "false"),
        absent="true",
    )
    order: str = schema.field(
        "auto",
        "run: each run has its own order of the images; shared: all have that of data.seed, as they always have where "
        "pixels are read for each batch; auto: run where they are in memory.",
        choices=("auto", "run", "shared"),
        absent="run",
    )

    def streams(self, size: int) -> bool:
        """Whether pixels that take `size` bytes, and can stay on the disk, do so.

        Raises:
          UserError: they should, and something else is asked for that needs them in memory.
        """
        if self.resident != "auto":
            is_streamed = self.resident == "false"
        else:
            is_streamed = self.order != "run" and self.binarize != "static" and not memory.fits(size)
        if is_streamed and self.binarize == "static":
            raise errors.UserError(
                "data.binarize=static with data.resident=false: needs all pixels in memory; use dynamic or threshold"
            )
        if is_streamed and self.order == "run":
            raise errors.UserError(
                "data.order=run with data.resident=false: runs that are trained on data from the disk have one order; use "
                "data.order=shared"
            )
        return is_streamed


@dataclasses.dataclass(frozen=True)
class Split:
    """`pixels` [N, *shape], in levels as stored; `labels` [N] and `factors` [N, factors], or None."""

    pixels: Pixels
    labels: np.ndarray | None = None
    factors: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pixels)

    def take(self, indices: np.ndarray) -> "Split":
        """The rows `indices` of every array."""
        labels, factors = (None if array is None else array[indices] for array in (self.labels, self.factors))
        return Split(stored.take(self.pixels, indices), labels, factors)


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What a source delivers.

    Attributes:
      train: the training split; a part of it is set aside for validation later.
      test: the test split; None: a fifth of `train` becomes it, the same share of each class.
      levels: the stored value that means 1 (255 for bytes).
      description: what was found, for `config.json`: the version of a set, say.
      factors: what each column of `Split.factors` means; () where there are none.
      renderer: factors [n, factors] to images in [0, 1], where the data can be drawn.
      label: the factor whose values are the labels, where there are no others.
      is_sorted: images that follow each other are alike. The test split is then put in a fixed random order, because
        figures and some metrics take its first images for all of it.
    """

    train: Split
    test: Split | None = None
    levels: int = 1
    description: dict[str, str] = dataclasses.field(default_factory=dict)
    factors: tuple[Factor, ...] = ()
    renderer: Callable | None = None
    label: str = ""
    is_sorted: bool = False


@dataclasses.dataclass(frozen=True)
class Source:
    """A line of `dataset.DATASETS`.

    Attributes:
      load: reads or makes the data set.
      reads: the fields of `DataConfig` that it looks at beside `EVERYWHERE`; others have no effect.
    """

    load: Callable[[DataConfig], Loaded]
    reads: tuple[str, ...] = ()
