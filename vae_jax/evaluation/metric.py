"""What a metric is: the columns it fills, what it needs, and how it is computed over batches, programs and decoded images.

A mean over test images of anything that a trained model says of an image is a few lines, also in a config file:

    def contrast(model, x, key):
        return {"contrast": jnp.std(model.vae.decode(model.vae.encode(x).mean).mean, axis=(1, 2, 3))}

    METRICS["contrast"] = mean_over_images(contrast, Column("contrast", "std over the pixels of a reconstruction"))

and so is a function of all mean codes of the test split and their labels or factors:

    METRICS["spread"] = of_codes(lambda codes, split: {"spread": codes.std()}, Column("spread", "std of all mean codes"))
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from vae_jax.core.registry import Registry
from vae_jax.data.dataset import SPLITS, Dataset
from vae_jax.evaluation import accumulate
from vae_jax.models.vae import ModelSpec

Rows = Mapping[str, np.ndarray]  # by name, one entry for each image of a batch
Values = dict[str, float | int | None]  # by column; None is an empty cell


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of `results.csv`.

    Attributes:
      name: of the test split; `<factor>` and `<split>` stand for any.
      doc: what it is, in a line.
      unit: "nats", "bits", ...; "" for a pure number.
      better: "higher", "lower", or "" where neither is.
      decimals: of the printed summary; None leaves it out there.
      source: a link to the paper that defines it.
      error: what the column NAME_se says: "draws"; or NAME_image_se: "images"; "" where there is no such column.
      splits: others that it is evaluated on: the columns train_NAME and, with `eval.valid`, valid_NAME.
    """

    name: str
    doc: str
    unit: str = ""
    better: str = ""
    decimals: int | None = None
    source: str = ""
    error: str = ""
    splits: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Setting:
    """What all runs of a program share: the network, how much is drawn, the data, the kind of objective."""

    model: ModelSpec
    spec: Any  # EvalConfig, which names the metrics
    dataset: Dataset
    objective: str = "weighted"


@dataclasses.dataclass
class Run:
    """What is known of one run when its metrics are finished.

    Attributes:
      setting: shared with others.
      weights: of its objective at the end of training, as numbers.
      codes: `mean`, `log_var` [n, latents] and `rate_per_latent` of the test split.
      programs: what the `program` of each metric found, by the metric's name.
      model: what the program of the model itself found: `prior_samples`, `quantiles`, `sigma` where there is one.
    """

    setting: Setting
    weights: Any
    codes: dict[str, np.ndarray]
    programs: dict[str, Any]
    model: dict[str, np.ndarray]

    @property
    def is_random(self) -> bool:
        """Whether z is drawn; without noise the code of an image is a point, which has no density."""
        return bool(self.weights.noise_scale > 0)


def _all_factors(setting: Setting, holds: Callable) -> bool:
    """Whether there are factors, and `holds` is true of each."""
    return bool(setting.dataset.factors) and all(map(holds, setting.dataset.factors))


# What a metric may need, by name: a function of the setting. A registry, so that a need of one's own can be added.
NEEDS: Registry[Callable[[Setting], bool]] = Registry(
    "need of a metric",
    {
        "labels": lambda setting: all(setting.dataset.splits[split].labels is not None for split in ("train", "test")),
        "factors": lambda setting: setting.dataset.splits["test"].factors is not None,
        "whole factors": lambda setting: _all_factors(setting, lambda factor: bool(factor.levels)),
        "renderer and a continuous factor": lambda setting: (
            setting.dataset.renderer is not None
            and not _all_factors(setting, lambda factor: factor.levels == 2 or factor.categorical)
        ),
        "linear decoder": lambda setting: setting.model.decoder == "linear",
        "normal prior": lambda setting: setting.model.prior == "normal",
    },
)


def nothing(*_) -> None:
    """The state or reference of a metric that has none."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """One way to say what runs are worth; everything but `columns` is optional.

    Attributes:
      columns: what it fills, for the documentation and the printed summary.
      finish: (state, run) -> values by column.
      needs: names in `NEEDS`; where one is not met the columns do not exist.
      density: whether it needs the density of the code: its cells are empty where a run draws no noise.
      asked: of the EvalConfig: whether it is wanted.
      splits: of the EvalConfig: those whose batches it sees, "train", "valid" and "test"; and by name the decoded queries
        (`queries`): "samples" of the prior, "midpoints".
      measure: on the device, (trained, images [batch, ...], key, spec, limit) -> {name: [batch, ...]}, each name of its own;
        `limit` is how many draws an image of this split may have.
      counters: of the keys of `measure`, below the run's evaluation stream.
      program: on the device, once for each run, (trained, inputs, setting) -> tree; see `evaluate.Inputs`.
      reference: (setting) -> what does not depend on the run, computed once.
      init: (reference, setting) -> state of one run.
      update: (state, source, rows) -> state, on the host. Rows are of one batch of a split, without padding: what every
        `measure` gave, `labels` and `factors`; of decoded queries `images`.
      arrays: (state, run) -> arrays for figures.
      across: (rows, arrays of figures) of runs that differ in their seed only -> values by column of each, on the host when
        all of them are evaluated. Rows that a study had before it grew keep their cells.
    """

    columns: tuple[Column, ...]
    finish: Callable = lambda state, run: {}
    needs: tuple[str, ...] = ()
    density: bool = False
    asked: Callable = lambda spec: True
    splits: Callable = lambda spec: ()
    measure: Callable | None = None
    counters: tuple[int, ...] | None = None
    program: Callable | None = None
    reference: Callable = nothing
    init: Callable = nothing
    update: Callable = lambda state, source, rows: state
    arrays: Callable | None = None
    across: Callable | None = None

    def applies(self, setting: Setting) -> bool:
        """Whether runs of this setting have it."""
        return self.asked(setting.spec) and all(NEEDS[need](setting) for need in self.needs)


METRICS: Registry[Metric] = Registry("metric")


def evaluated_splits(spec: Any) -> tuple[str, ...]:
    """Those that an EvalConfig asks for; the test split always."""
    return tuple(split for split in SPLITS if split == "test" or getattr(spec, split))


def split_columns(split: str, values: Values) -> Values:
    """`values` under the names of their split: those of the test split are plain."""
    return values if split == "test" else {f"{split}_{name}": value for name, value in values.items()}


def mean_over_images(measure: Callable, *columns: Column) -> Metric:
    """The means over the test split of what `measure(trained, x, key)` gives for each image, with errors over images."""

    def finish(state: accumulate.Means, run: Run) -> Values:
        found: Values = {}
        for column in columns:
            found |= {column.name: state.mean(column.name), f"{column.name}_image_se": state.error(column.name)}
        return found

    names = tuple(column.name for column in columns)
    return Metric(
        columns=tuple(dataclasses.replace(column, error="images") for column in columns),
        finish=finish,
        splits=lambda spec: ("test",),
        measure=lambda trained, x, key, spec, limit: measure(trained, x, key),
        init=lambda reference, setting: accumulate.Means(),
        update=lambda state, source, rows: state.add({name: rows[name] for name in names}),
    )


def of_codes(function: Callable, *columns: Column, needs: tuple[str, ...] = ()) -> Metric:
    """function(mean codes [n, latents], test split with its labels and factors) -> {column: number}."""

    def finish(state: None, run: Run) -> Values:
        codes: Float[np.ndarray, "n latents"] = run.codes["mean"]
        return function(codes, run.setting.dataset.splits["test"])

    return Metric(columns, finish, needs=needs)
