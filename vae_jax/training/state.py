"""What a run is made of: static (`RunSpec`), traced (`Hyperparams`), carried (`TrainState`), reported (`Metrics`)."""

import dataclasses
import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jaxtyping import Array, Float

from vae_jax.core import schema
from vae_jax.data import dataset
from vae_jax.models.vae import ModelSpec
from vae_jax.training import objectives
from vae_jax.training.objectives import Number, ObjectiveConfig, Weights
from vae_jax.training.optimizers import OptimizerConfig, Rates

# Of one run inside a program, with a leading runs axis outside, and whatever tree transformations put there.
Leaf = Any

# What the networks compute in while training; parameters, moments, and everything after their outputs are float32 anyway.
PRECISIONS = {"float32": None, "bfloat16": jnp.bfloat16}


LINES = 50  # of metrics, for a run whose chunks have no length of their own


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long a run trains, on what batches, and when the host looks at it."""

    epochs: int = schema.field(300, "Passes over the training split.", low=1, high=10**7)
    batch_size: int = schema.field(128, "Images in a step; 0: the whole training split.", low=0, high=10**7)
    precision: str = schema.field(
        "float32",
        "Of the networks while training; parameters and losses stay float32.",
        choices=PRECISIONS,
        absent="float32",
    )
    data_devices: int = schema.field(
        1, "Devices that share the batch of each run, where a model is too large for one.", low=1, high=10**5, absent=1
    )
    chunk_epochs: int = schema.field(
        0, "Epochs between two lines of metrics; 0: as many as make about 50 lines.", low=0, high=10**7
    )
    checkpoint_every: int = schema.field(0, "Epochs between checkpoints; 0: at the end only.", low=0, high=10**7)
    checkpoint_steps: int = schema.field(
        0,
        "Steps between checkpoints within epochs, where data are read from a disk; 0: at the ends of epochs only.",
        low=0,
        high=10**9,
        absent=0,
    )


@dataclasses.dataclass(frozen=True)
class RunSpec:
    """Everything that shapes the program of a run: runs with equal specs share one compiled program.

    Attributes:
      model: the network.
      images: how stored pixels become images.
      train_size: images of the training split.
      order_seed: of the one order of images that all runs see; None: each has its own.
      objective: from `schema.static`.
      optimizer: from `optimizers.static`.
      train: batches and epochs.
      schedules: (weight or "sigma", name of its schedule) of those that have one.
    """

    model: ModelSpec
    images: dataset.ImageSpec
    train_size: int
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    schedules: tuple[tuple[str, str], ...] = ()
    order_seed: int | None = None

    @property
    def batch_size(self) -> int:
        """Images in a step."""
        return self.train.batch_size or self.train_size

    @property
    def chunk_epochs(self) -> int:
        """Epochs of a chunk: given, or a fiftieth of the training, rounded up."""
        return self.train.chunk_epochs or math.ceil(self.train.epochs / LINES)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches only: what is left over differs in every epoch, because the order does."""
        return self.train_size // self.batch_size


@struct.dataclass
class Hyperparams:
    """What may differ between runs that share a program: every leaf is a number, traced."""

    seed: Number
    sigma: Number = np.float32(1)  # of the decoder, where the model's is "fixed"
    objective: Weights = Weights()
    optimizer: Rates = Rates()
    schedule_epochs: dict[str, Number] = struct.field(default_factory=dict)  # by weight, or "sigma"


@struct.dataclass
class TrainState:
    """What is carried from step to step, and saved.

    `diverged_at` is the first step whose loss or gradient was not finite, -1 while there is none; from then on the state
    stays as it was before that step, and only `step` goes on.
    """

    step: Leaf  # int32 []
    params: dict
    statistics: dict  # of the training data, where the model normalises; constant
    opt_state: optax.OptState
    diverged_at: Leaf  # int32 []
    carried: dict = struct.field(default_factory=dict)  # by the objective, from step to step
    average: dict = struct.field(default_factory=dict)  # of the parameters, where optimizer.ema asks for one

    @property
    def variables(self) -> dict:
        """What `VAE.bind` takes, of the model that is evaluated."""
        return {"params": self.average or self.params, "statistics": self.statistics}


@struct.dataclass
class Metrics:
    """Means over images, in nats; what is reported and not carried."""

    loss: Leaf  # float32 [], as all of them
    distortion: Leaf
    rate: Leaf  # KL of the distribution that z is drawn from
    mean_std: Leaf  # of that distribution

    @classmethod
    def zero(cls) -> "Metrics":
        return cls(*(jnp.zeros(()) for _ in dataclasses.fields(cls)))

    @classmethod
    def of(cls, loss: Float[Array, ""], terms: objectives.Terms, noise_scale: Number) -> "Metrics":
        """What is reported of a batch."""
        std = noise_scale * jnp.mean(terms.posterior.std)
        return cls(loss, jnp.mean(terms.distortion), jnp.mean(terms.reported_rate), std)


@struct.dataclass
class Partway:
    """A run within a chunk of epochs, of data that come block by block.

    Attributes:
      state: where it is.
      epoch: sums of the metrics over the steps of this epoch.
      chunk: sums over the epochs of this chunk that have ended, of their means.
    """

    state: TrainState
    epoch: Metrics
    chunk: Metrics
