"""Which runs share a program: what shapes it (`RunSpec`), what is traced (`Hyperparams`), and the groups that follow."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import ml_collections
import numpy as np

from vae_jax.data import dataset
from vae_jax.data.dataset import Dataset
from vae_jax.evaluation.columns import EvalConfig
from vae_jax.models.vae import ModelSpec
from vae_jax.study import grid, rules
from vae_jax.study.grid import Run
from vae_jax.system import runs
from vae_jax.system.progress import say
from vae_jax.training import objectives
from vae_jax.training.loop import Plan
from vae_jax.training.step import Hyperparams, RunSpec

Config = ml_collections.ConfigDict | Mapping


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that share data, program and plan: trained together, checkpointed together."""

    dataset: Dataset
    spec: RunSpec
    eval: EvalConfig
    plan: Plan
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
        Group(loaded(source), spec, eval_spec, plan, [number for number, _ in members], runs.stack([h for _, h in members]))
        for (source, spec, eval_spec, plan), members in group(planned, loaded).items()
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
    """Runs by what they share: {(data settings, spec, eval spec, plan): [(run number, hyperparams), ...]}."""
    groups: dict[tuple, list] = {}
    for number, run in enumerate(planned):
        source = source_of(run)
        spec, hyperparams = specify(run, loaded(source))
        plan = Plan(**{key: run.config[f"train.{key}"] for key in ("chunk_epochs", "checkpoint_every")})
        shared = (source, spec, EvalConfig(**run.group("eval")), plan)
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
    kind, number = rules.sigma(config)
    spec = RunSpec(
        model=ModelSpec(**run.group("model") | {"shape": dataset.spec.shape, "sigma": kind, "levels": dataset.spec.levels}),
        images=dataset.spec,
        train_size=len(dataset.splits["train"]),
        importance_samples=config["objective.importance_samples"],
        batch_size=rules.batch_size(config, dataset),
        data_devices=config["train.data_devices"],
        precision=config["train.precision"],
        epochs=config["train.epochs"],
        objective=config["objective.kind"],
        schedules=tuple((weight, name) for weight, (name, _) in rules.schedules(config).items()),
        **{key: config[f"optimizer.{key}"] for key in ("schedule", "b1", "b2", "eps", "cooling")},
    )
    used = ("noise_scale", "distortion_weight", *objectives.OBJECTIVES[spec.objective].uses)
    weights = objectives.Weights(**{key: np.float32(config[f"objective.{key}"]) for key in used})
    lengths = {weight: np.float32(epochs) for weight, (_, epochs) in rules.schedules(config).items()}
    rate = np.float32(config["optimizer.learning_rate"])
    return spec, Hyperparams(np.int32(run.seed), rate, np.float32(number), weights, lengths)
