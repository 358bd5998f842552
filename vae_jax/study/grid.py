"""A config and its sweeps made into checked runs: what is static (`RunSpec`), what is traced (`Hyperparams`).

Everything a user can get wrong in a config is found here, before anything is trained or written.
"""

import dataclasses
import itertools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from vae_jax.core import errors, schema
from vae_jax.core.schema import Value
from vae_jax.data import dataset as data
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.models import likelihoods, priors
from vae_jax.models import vae as model
from vae_jax.study.config import FIELDS, Flat, typed
from vae_jax.training import loop as fit
from vae_jax.training import objectives
from vae_jax.training import step as training
from vae_jax.training.schedules import SCHEDULED, parse

MOST = 100_000  # runs of a study
CONSTANT: Flat = {key: field.default for key, field in FIELDS.items() if key.startswith("schedule.")}
# Where data lie, and the data sets that are looked for there: by their name, and in words.
SOURCES: dict[str, tuple[Callable[[str], bool], str]] = {
    "data.path": (lambda name: name == "npz", "data.name=npz uses it"),
    "data.dir": (lambda name: name not in ("npz", "digits"), "image sets of TFDS use it"),
    "data.download": (lambda name: name not in ("npz", "digits"), "image sets of TFDS use it"),
}


@dataclasses.dataclass(frozen=True)
class Run:
    """One row of the grid: the whole config by dotted names, and the part of it that the grid set."""

    config: Flat
    settings: Flat

    @property
    def name(self) -> str:
        return self.config["name"]

    def group(self, name: str) -> dict[str, Value]:
        """The fields of one group of the config, as keyword arguments."""
        return schema.group(self.config, name)


def flatten(config: Mapping) -> Flat:
    """A nested config as one dict by dotted names."""
    flat: Flat = {}
    for key, value in config.items():
        if isinstance(value, Mapping):
            flat |= {f"{key}.{inner}": leaf for inner, leaf in flatten(value).items()}
        else:
            flat[key] = tuple(value) if isinstance(value, list) else value
    return flat


def expand(config: Mapping, sweep: Callable | None = None, sweeps: Sequence[tuple[str, Sequence]] = ()) -> list[Run]:
    """Every run of a study, checked.

    Args:
      config: nested, with every field (`configs/base.py` has them).
      sweep: the config's own `sweep(add)`: it calls `add` with a dict of dotted names for each row.
      sweeps: (dotted name, values) pairs that multiply with each other and with those rows; a text is read by the type
        of its field.

    Raises:
      UserError: an unknown name, a value of the wrong type or range, a name given twice, two equal runs.
    """
    flat, rows, sweeps = resolve(config, sweep, sweeps)
    keys = list(dict.fromkeys(key for row in (*rows, dict(sweeps)) for key in row))
    axes = [[{key: value} for value in values] for key, values in sweeps]
    if (count := math.prod(map(len, (rows or [{}], *axes)))) > MOST:
        raise errors.UserError(f"the sweeps make {count:,} runs; should be at most {MOST:,}")
    products = [dict(itertools.chain(*map(dict.items, parts))) for parts in itertools.product(rows or [{}], *axes)]
    runs = []
    for row in products:
        run = Run(flat | row, {key: (flat | row)[key] for key in keys if key not in ("name", "seed")})
        _check(run.config)
        runs.append(run)
    _check_sources(runs)
    seen: dict[tuple, Run] = {}
    for run in runs:
        identity = tuple(run.config.items())
        if identity in seen:
            raise errors.UserError(f"two runs are equal: {describe(products[runs.index(run)])}; give each value once")
        seen[identity] = run
    return runs


def describe(row: Mapping) -> str:
    return ", ".join(f"{key}={value}" for key, value in row.items()) or "the config alone"


def resolve(
    config: Mapping, sweep: Callable | None = None, sweeps: Sequence[tuple[str, Sequence]] = ()
) -> tuple[Flat, list[Flat], list[tuple[str, list[Value]]]]:
    """What `expand` takes, with every value as the type of its field: the config, the rows of `sweep`, and `sweeps`."""
    flat = flatten(config)
    _check_names(flat)
    flat = {key: typed(key, value) for key, value in flat.items()}
    rows: list[dict] = []
    if sweep:
        sweep(rows.append)
    for row in rows:
        if not isinstance(row, Mapping):
            raise errors.UserError(f"the sweep's add({row!r}): should be add({{NAME: VALUE, ...}})")
    keys = {key for row in rows for key in row}
    for key, values in sweeps:
        if key in keys:
            raise errors.UserError(f"--sweep={key}: {key} is given twice; a study sets each name once")
        if not len(values):
            raise errors.UserError(f"--sweep={key}: no values; should be {key}=V1,V2,...")
        keys.add(key)
    typed_rows = [{key: typed(key, value) for key, value in row.items()} for row in rows]
    return flat, typed_rows, [(key, [typed(key, value) for value in values]) for key, values in sweeps]


def split_values(text: str) -> list[str]:
    """Split at the commas outside brackets: "(64,32),(256,256)" has two values."""
    values, depth = [""], 0
    for character in text:
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            values.append("")
        else:
            values[-1] += character
    return [value for value in values if value.strip()]


def _check_names(flat: Flat) -> None:
    """A config that was written by hand has exactly the fields that there are."""
    for key in flat:
        if key not in FIELDS:
            raise errors.unknown("config name", key, FIELDS)
    for key in FIELDS:
        if key not in flat:
            raise errors.UserError(f"the config has no {key}: start from get_config() of configs/base.py")


def _check(config: Flat) -> None:
    """Every rule that needs no data."""
    for key, field in FIELDS.items():
        field.check(config[key])
    if "valid" in config["eval.importance_splits"] and not config["eval.valid"]:
        raise errors.UserError(f"eval.importance_splits={config['eval.importance_splits']}: valid needs eval.valid=true")
    kind, _ = sigma(config)
    if "ppca" in config["baselines"]:
        needed: Flat = {"model.likelihood": "gaussian", "model.prior": "normal", "objective.kind": "weighted"}
        if config["objective.beta"]:  # at 0 there is no such row
            needed |= {"objective.noise_scale": 1, "objective.distortion_weight": 1} | CONSTANT
        for key, value in needed.items():
            if config[key] != value:
                raise errors.UserError(f"baselines={config['baselines']}: ppca needs {key}={value}, not {config[key]}")
        if kind == "per_pixel":
            raise errors.UserError(f"baselines={config['baselines']}: ppca has one sigma for all pixels, not {kind}")
    _check_objective(config)
    schedules(config)
    if config["optimizer.cooling"] and (sigma(config)[0] in ("", "optimal") or config["model.normalize"] == "none"):
        raise errors.UserError(
            f"optimizer.cooling={config['optimizer.cooling']:g}: should be 0 where sigma is none or optimal, or "
            "model.normalize is none: it holds sigma above a falling part of the data's scale"
        )
    if not config["name"].strip():
        raise errors.UserError("name='': should be a text")
    if kind == "optimal" and config["objective.importance_samples"] > 1:
        raise errors.UserError(
            f"model.sigma=optimal with objective.importance_samples={config['objective.importance_samples']}: the best "
            "sigma of several draws has no closed form; should be learned"
        )


def _check_sources(runs: Sequence[Run]) -> None:
    """A place where no data set of the study is looked for; one that is of the grid is for its own run only."""
    names = {run.config["data.name"] for run in runs}
    for run, (key, (reads, used)) in itertools.product(runs, SOURCES.items()):
        concerned = {run.config["data.name"]} if key in run.settings else names
        if run.config[key] and not any(map(reads, concerned)):
            raise errors.UserError(
                f"{key}={run.config[key]}: has no effect with data.name={run.config['data.name']}; only {used}"
            )


def _check_objective(config: Flat) -> None:
    """Combinations of the objective that mean nothing."""
    kind, noise, beta = (config[f"objective.{key}"] for key in ("kind", "noise_scale", "beta"))
    objective, prior = objectives.OBJECTIVES[kind], priors.struct_of(config["model.prior"])
    if noise == 0 and objective.holds_to_prior(beta):
        has = f"objective.beta={beta:g}" if objective.rate_is_optional else f"objective.kind={kind}"
        raise errors.UserError(
            f"objective.noise_scale=0 with {has}: a deterministic code has infinite rate, so the loss should have none "
            "(objective.kind=weighted with objective.beta=0)"
        )
    schedule = config["schedule.noise_scale"]
    if (noise not in (0, 1) or schedule != "constant") and not hasattr(prior, "rate_per_latent"):
        raise errors.UserError(
            f"objective.noise_scale={noise:g} ({schedule}) with model.prior={config['model.prior']}: should be 0 or 1 and "
            "constant, because this rate is estimated from the draws"
        )
    if kind == "free_bits" and not hasattr(prior, "log_prob_per_latent"):
        raise errors.UserError(
            f"objective.kind=free_bits with model.prior={config['model.prior']}: should be a prior of independent latents"
        )
    for key, only in {"objective.noise_scale": 1, "schedule.noise_scale": "constant"}.items():
        if kind == "tc" and config[key] != only:
            raise errors.UserError(
                f"{key}={config[key]} with objective.kind=tc: should be {only}, because its densities are the posterior's"
            )
    for field in schema.fields(objectives.ObjectiveConfig):
        key, default, value = field.name, field.unused, config[f"objective.{field.name}"]
        if default is not None and value != default and key not in objective.moved_by:
            raise errors.UserError(
                f"objective.{key}={value:g}: has no effect with objective.kind={kind}; should be {default}"
            )
    samples = config["objective.importance_samples"]
    weights = [config[f"objective.{key}"] for key in ("noise_scale", "distortion_weight", "beta")]
    constant = CONSTANT.items() <= config.items()
    if samples > 1 and not (kind == "weighted" and weights == [1, 1, 1] and constant):
        raise errors.UserError(
            f"objective.importance_samples={samples}: the importance-weighted bound has no weights; objective.kind should "
            "be weighted, and noise_scale, distortion_weight and beta constant 1"
        )


def schedules(config: Flat) -> dict[str, tuple[str, float]]:
    """Name and length in epochs of every schedule that is not constant, by weight."""
    found = {}
    used = objectives.OBJECTIVES[config["objective.kind"]].moved_by
    for weight in SCHEDULED:
        text = str(config[f"schedule.{weight}"])
        parsed = parse(f"schedule.{weight}", text)
        if parsed is None:
            continue
        if weight not in used:
            raise errors.UserError(
                f"schedule.{weight}={text}: has no effect with objective.kind={config['objective.kind']}; should be constant"
            )
        found[weight] = parsed
    return found


def sigma(config: Flat) -> tuple[str, float]:
    """`model.sigma` as its kind and, where that is "fixed", its number (1 elsewhere: not used)."""
    kinds = likelihoods.LIKELIHOODS[config["model.likelihood"]].sigmas
    if not kinds:
        return "", 1.0
    text = str(config["model.sigma"])
    named = [kind for kind in model.SIGMAS if kind in kinds]
    if text in named:
        return text, 1.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not likelihoods.SIGMA_FLOOR <= number <= 1e6:
        where = f" with model.likelihood={config['model.likelihood']}" if text in model.SIGMAS else ""
        raise errors.UserError(
            f"model.sigma={text}{where}: should be {', '.join(named)} or a number from {likelihoods.SIGMA_FLOOR:g} to 1e+06"
        )
    return "fixed", number


def specify(run: Run, dataset: data.Dataset) -> tuple[training.RunSpec, training.Hyperparams]:
    """The two halves of a run on this data: what shapes its program, and the numbers that are traced.

    Raises:
      UserError: a run that cannot be built for data of this size, shape or range.
    """
    config = run.config
    kind, number = sigma(config)
    shape, train = dataset.spec.shape, dataset.splits["train"]
    _check_against(config, shape, dataset, kind)
    spec = training.RunSpec(
        model=model.ModelSpec(**run.group("model") | {"shape": shape, "sigma": kind, "levels": dataset.spec.levels}),
        images=dataset.spec,
        train_size=len(train),
        importance_samples=config["objective.importance_samples"],
        batch_size=config["train.batch_size"] or len(train),
        data_devices=config["train.data_devices"],
        precision=config["train.precision"],
        epochs=config["train.epochs"],
        objective=config["objective.kind"],
        schedules=tuple((weight, name) for weight, (name, _) in schedules(config).items()),
        **{key: config[f"optimizer.{key}"] for key in ("schedule", "b1", "b2", "eps", "cooling")},
    )
    used = ("noise_scale", "distortion_weight", *objectives.OBJECTIVES[spec.objective].uses)
    weights = objectives.Weights(**{key: np.float32(config[f"objective.{key}"]) for key in used})
    lengths = {weight: np.float32(epochs) for weight, (_, epochs) in schedules(config).items()}
    rate = np.float32(config["optimizer.learning_rate"])
    return spec, training.Hyperparams(np.int32(config["seed"]), rate, np.float32(number), weights, lengths)


def _check_against(config: Flat, shape: tuple[int, ...], dataset: data.Dataset, kind: str) -> None:
    """Every rule that needs the data."""
    train = dataset.splits["train"]
    if config["train.batch_size"] > len(train):
        raise errors.UserError(
            f"train.batch_size={config['train.batch_size']}: should be at most {len(train)}, the number of training images"
        )
    batch, devices = config["train.batch_size"] or len(train), config["train.data_devices"]
    if batch % devices:
        raise errors.UserError(f"train.data_devices={devices}: should divide the batch of {batch} images")
    if batch == 1 and config["objective.kind"] == "mmd":
        raise errors.UserError(
            f"train.batch_size={config['train.batch_size']} with objective.kind=mmd: should be a batch of at least 2 images"
        )
    if devices > 1 and kind == "optimal":
        raise errors.UserError(
            f"train.data_devices={devices}: should be 1 with model.sigma=optimal, which is of the whole batch"
        )
    if config["eval.valid"] and "valid" not in dataset.splits:
        fraction = config["data.valid_fraction"]
        raise errors.UserError(f"eval.valid=True: data.valid_fraction={fraction:g} leaves no validation image")
    _check_values(config["model.likelihood"], dataset)
    if "conv" in (config["model.encoder"], config["model.decoder"]):
        if len(shape) != 3 or shape[0] != shape[1] or shape[0] < 8:
            raise errors.UserError(f"model.encoder=conv needs square images from 8x8 up: these have shape {shape}")
        if not 2 <= len(config["model.hidden"]) <= 1 + math.ceil(math.log2(shape[0])):
            raise errors.UserError(
                f"model.hidden={config['model.hidden']}: conv takes channels of 1 to {math.ceil(math.log2(shape[0]))} "
                "convolutions, then the width of a dense layer"
            )
    if kind in model.SIGMAS and config["model.latents"] >= math.prod(shape):
        raise errors.UserError(
            f"model.latents={config['model.latents']} with model.sigma={kind}: should be below {math.prod(shape)}, the "
            "number of pixels; else sigma goes to 0 and the likelihood to infinity"
        )


def _check_values(name: str, dataset: data.Dataset) -> None:
    """Whether a likelihood can be that of these pixels."""
    values, levels = likelihoods.LIKELIHOODS[name].values, dataset.spec.levels
    for split, pixels in ((split, dataset.splits[split].pixels) for split in dataset.splits):
        low, high = float(pixels.min()) / levels, float(pixels.max()) / levels
        if values != "any" and (low < 0 or high > 1):
            raise errors.UserError(
                f"model.likelihood={name} needs values in [0, 1]: {split} has [{low:g}, {high:g}]; "
                "scale them or use model.likelihood=gaussian"
            )
        if values == "levels" and not np.equal(np.mod(pixels, 1), 0).all():
            raise errors.UserError(
                f"model.likelihood={name} needs whole levels, as bytes have: {split} has other values; "
                "give them as uint8 or use model.likelihood=gaussian"
            )


def group(runs: Sequence[Run], loaded: Callable[..., data.Dataset]) -> dict[tuple, list[tuple[int, training.Hyperparams]]]:
    """Runs by what they share: {(data settings, spec, eval spec, plan): [(run number, hyperparams), ...]}."""
    groups: dict[tuple, list] = {}
    for number, run in enumerate(runs):
        source = tuple(run.group("data").items())
        spec, hyperparams = specify(run, loaded(source))
        plan = fit.Plan(**{key: run.config[f"train.{key}"] for key in ("chunk_epochs", "checkpoint_every")})
        shared = (source, spec, evaluation.EvalConfig(**run.group("eval")), plan)
        groups.setdefault(shared, []).append((number, hyperparams))
    return groups
