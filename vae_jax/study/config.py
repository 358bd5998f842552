"""Every config field there is, composed from the groups that declare them, and the default config."""

import dataclasses

import ml_collections

from vae_jax.core import errors, schema
from vae_jax.core.schema import Value
from vae_jax.data.dataset import DataConfig
from vae_jax.evaluation.config import EvalConfig
from vae_jax.models.vae import ModelConfig
from vae_jax.training.objectives import ObjectiveConfig
from vae_jax.training.optimizers import OptimizerConfig
from vae_jax.training.schedules import ScheduleConfig
from vae_jax.training.state import TrainConfig

Flat = dict[str, Value]  # a config by dotted names

BASELINES = ("pca", "ppca")


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """What a run is called, its seed, and the closed forms beside it."""

    name: str = schema.field("vae", "Name of the run in tables and figures.")
    seed: int = schema.field(0, "Of every random number of a run.", low=0, high=2**31 - 1)
    baselines: tuple[str, ...] = schema.field((), "Closed-form rows beside the trained ones.", choices=BASELINES)


GROUPS: dict[str, type] = {
    "": StudyConfig,
    "data": DataConfig,
    "model": ModelConfig,
    "objective": ObjectiveConfig,
    "schedule": ScheduleConfig,
    "optimizer": OptimizerConfig,
    "train": TrainConfig,
    "eval": EvalConfig,
}
FIELDS = {field.key: field for group, config in GROUPS.items() for field in schema.fields(config, group)}
# What a run directory means by the absence of a field that younger versions have.
ABSENT: Flat = {key: field.absent for key, field in FIELDS.items() if field.absent is not None}


def default_config() -> ml_collections.ConfigDict:
    """Every field at its default: the type of a field is the type of its default."""
    config = ml_collections.ConfigDict()
    for group, declared in GROUPS.items():
        here = config if not group else ml_collections.ConfigDict()
        for field in schema.fields(declared, group):
            here[field.name] = field.default
        if group:
            config[group] = here
    return config


def find(key: str) -> schema.Field:
    """The field of that dotted name.

    Raises:
      UserError: no such field; the line names the nearest.
    """
    if key not in FIELDS:
        raise errors.unknown("config name", str(key), FIELDS)
    return FIELDS[key]


def typed(key: str, value) -> Value:
    """`value` (a text from the command line, or a Python value) as the type of the field `key`.

    Raises:
      UserError: no such field, or no such value.
    """
    return find(key).typed(value)
