"""Which runs share a program: what shapes it (`RunSpec`), what is traced (`Hyperparams`), and the groups that follow."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from vae_jax.core import schema
from vae_jax.data import dataset
from vae_jax.data.dataset import Dataset
from vae_jax.evaluation.config import EvalConfig
from vae_jax.models.vae import ModelSpec
from vae_jax.study import grid, rules
from vae_jax.study.grid import Run
from vae_jax.system import runs
from vae_jax.system.progress import say
from vae_jax.training import optimizers
from vae_jax.training.objectives import ObjectiveConfig, Weights
from vae_jax.training.optimizers import OptimizerConfig, Rates
from vae_jax.training.state import Hyperparams, RunSpec, TrainConfig

Config = ml_collections.ConfigDict | Mapping


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that share data and program: trained together, checkpointed together."""

    dataset: Dataset
    spec: RunSpec
    eval: EvalConfig
    numbers: list[int]
    hyperparams: Hyperparams  # leading runs axis


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked grid: its runs in order, and the groups they are trained in."""

    config: dict
    rows: list[dict]
    sweeps: list[tuple[str, list]]
    runs: list[Run]
    groups: list[Group]


def plan(config: Config, sweep: grid.Sweep | None = None, sweeps: grid.Sweeps = ()) -> Study:
    """Check everything that can be wrong, load the data, and say which runs share a program.

    Args:
      config: a ConfigDict or nested dict with the fields of `configs/base.py`.
      sweep: the config's own `sweep(add)`, or None.
      sweeps: (dotted name, values) pairs; they multiply.

    Raises:
      UserError: with one line that names the value and what would be right.
    """
    config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    _, rows, typed = grid.resolve(config, sweep, sweeps)
    planned = grid.expand(config, grid.adding(rows), typed)
    loaded = functools.cache(lambda source: dataset.load(**dict(source)))
    groups = [
        Group(loaded(source), spec, eval_spec, [number for number, _ in members], runs.stack([h for _, h in members]))
        for (source, spec, eval_spec), members in group(planned, loaded).items()
    ]
    _tell_whole_batches(planned, loaded)
    return Study(config, rows, typed, planned, groups)


def _tell_whole_batches(planned: Sequence[Run], loaded: Callable[..., Dataset]) -> None:
    """A line where a batch is larger than the data, and becomes the data."""
    asked = {(run.config["train.batch_size"], len(loaded(source_of(run)).splits["train"])) for run in planned}
    for size, count in sorted(asked):
        if size > count:
            say(f"train.batch_size={size}: there are {count} training images; a batch is all of them")


def group(planned: Sequence[Run], loaded: Callable[..., Dataset]) -> dict[tuple, list[tuple[int, Hyperparams]]]:
    """Runs by what they share: {(data settings, spec, eval spec): [(run number, hyperparams), ...]}."""
    groups: dict[tuple, list] = {}
    for number, run in enumerate(planned):
        source = source_of(run)
        spec, hyperparams = specify(run, loaded(source))
        shared = (source, spec, EvalConfig(**run.group("eval")))
        groups.setdefault(shared, []).append((number, hyperparams))
    return groups


def source_of(run: Run) -> tuple:
    """The data settings of a run, as a key: runs that agree in them see the same data."""
    return tuple(run.group("data").items())


def specify(run: Run, dataset: Dataset) -> tuple[RunSpec, Hyperparams]:
    """The two halves of a run on this data: what shapes its program, and the numbers that are traced.

    Raises:
      UserError: a run that cannot be built for data of this size, shape or range.
    """
    config = run.config
    rules.check_data(config, dataset)
    (kind, number), curves = rules.sigma(config), rules.schedules(config)
    objective, optimizer = ObjectiveConfig(**run.group("objective")), OptimizerConfig(**run.group("optimizer"))
    spec = RunSpec(
        model=ModelSpec(**run.group("model") | {"shape": dataset.spec.shape, "sigma": kind, "levels": dataset.spec.levels}),
        images=dataset.spec,
        train_size=len(dataset.splits["train"]),
        objective=schema.static(objective),
        optimizer=optimizers.static(optimizer),
        train=TrainConfig(**run.group("train") | {"batch_size": rules.batch_size(config, dataset)}),
        schedules=tuple((weight, name) for weight, (name, _) in curves.items()),
    )
    hyperparams = Hyperparams(
        seed=np.int32(run.seed),
        sigma=np.float32(number),
        objective=Weights(**schema.traced(objective)),
        optimizer=Rates(**schema.traced(optimizer)),
        schedule_epochs={weight: np.float32(epochs) for weight, (_, epochs) in curves.items()},
    )
    return spec, hyperparams
