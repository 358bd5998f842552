"""Which runs share a program: what shapes it (`RunSpec`), what is traced (`Hyperparams`), and the groups that follow."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from vae_jax.core import schema
from vae_jax.data import dataset
from vae_jax.data.dataset import Dataset
from vae_jax.evaluation.config import EvalConfig
from vae_jax.models.vae import ModelSpec
from vae_jax.study import grid, rules
from vae_jax.study.config import Flat
from vae_jax.study.grid import Grid, Run
from vae_jax.system import runs
from vae_jax.system.progress import counted, say
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


class Evaluated(NamedTuple):
    """A row of results: the number of the run that was trained, and its settings with the beta it is evaluated at."""

    trained: int
    run: Run


@dataclasses.dataclass(frozen=True)
class Study:
    """The checked runs of all commands that were given to one directory, and the groups they are trained in.

    Attributes:
      config: every field by dotted name; what the commands share.
      grids: what each command swept, in order; one where the study has not grown.
      runs: those of the first grid, then those that each later one added: a run keeps its number.
      groups: in the same order; runs that a later grid added are in groups of their own.
      load: data settings, as `source_of` gives them, to the data set; each is loaded once.
    """

    config: Flat
    grids: list[Grid]
    runs: list[Run]
    groups: list[Group]
    load: Callable[[tuple], Dataset]

    def sources(self) -> dict[tuple, Dataset]:
        """The data sets of the runs by their settings."""
        return {source: self.load(source) for source in dict.fromkeys(map(source_of, self.runs))}

    @functools.cached_property
    def rows(self) -> list[Evaluated]:
        """What `results.csv` has a row of, by its number: every run, and then what is told beta at its other betas."""
        others = [(number, run, beta) for number, run in enumerate(self.runs) for beta in rules.other_betas(run.config)]
        if not others:
            return [Evaluated(number, run) for number, run in enumerate(self.runs)]
        own = [(number, run, run.config["objective.beta"]) for number, run in enumerate(self.runs)]
        return [Evaluated(number, run.at(beta)) for number, run, beta in own + others]

    def rows_of(self, group: Group) -> list[int]:
        """The numbers of the rows of a group's runs."""
        members = set(group.numbers)
        return [number for number, row in enumerate(self.rows) if row.trained in members]


def loader() -> Callable[[tuple], Dataset]:
    """Loads the data of `source_of` settings, each once."""
    return functools.cache(lambda source: dataset.load(**dict(source)))


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
    flat, asked = grid.resolve(config, sweep, sweeps)
    study = plan_grids(flat, [asked], loader())
    _tell_whole_batches(study.runs, study.load)
    return study


def plan_grids(config: Flat, grids: list[Grid], load: Callable[[tuple], Dataset]) -> Study:
    """The study that these grids make of `config` one after another; see `Study` for the arguments."""
    planned: list[Run] = []
    groups: list[Group] = []
    for added in grid.expand_grids(config, *grids):
        for (source, spec, eval_spec), members in group(added, load).items():
            numbers = [len(planned) + place for place, _ in members]
            hyperparams = runs.stack([each for _, each in members])
            groups.append(Group(load(source), spec, eval_spec, numbers, hyperparams))
        planned += added
    return Study(config, grids, planned, groups, load)


def _tell_whole_batches(planned: Sequence[Run], loaded: Callable[..., Dataset]) -> None:
    """A line where a batch is larger than the data, and becomes the data."""
    asked = {(run.config["train.batch_size"], len(loaded(source_of(run)).splits["train"])) for run in planned}
    for size, count in sorted(asked):
        if size > count:
            say(f"train.batch_size={size}: a batch is all of the training split, {counted(count, 'image')}")


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
    return source_key(run.group("data"))


def source_key(fields: Mapping[str, schema.Value]) -> tuple:
    """Data settings in the order of their names."""
    return tuple(sorted(fields.items()))


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
        order_seed=dataset.seed if dataset.has_one_order else None,
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
