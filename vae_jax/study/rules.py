"""What a single field's declaration cannot say: combinations of fields that mean nothing, or that the data rule out.

A rule is a function that raises `UserError` with one line: the value, and what would be right.
"""

import functools
import itertools
import math
from collections.abc import Callable, Collection, Sequence

from vae_jax.core import errors, schema
from vae_jax.data.dataset import Dataset, readers, source_of
from vae_jax.data.source import EVERYWHERE, DataConfig
from vae_jax.models import likelihoods, networks, priors, vae
from vae_jax.models.conv import of_layers
from vae_jax.study.config import FIELDS, Flat
from vae_jax.system.progress import counted
from vae_jax.training import objectives
from vae_jax.training.schedules import SCHEDULED, parse

CONSTANT: Flat = {f"schedule.{weight}": "constant" for weight in SCHEDULED}

CONVOLUTIONAL = ("conv", "resnet")  # networks whose hidden widths are channels, but for the last


def check(config: Flat) -> None:
    """Every rule that needs no data.

    Raises:
      UserError: a value that is out of range, or that does not go with another.
    """
    for key, field in FIELDS.items():
        field.check(config[key])
    for rule in RULES:
        rule(config)


def check_data(config: Flat, dataset: Dataset) -> None:
    """Every rule that needs the data.

    Raises:
      UserError: a run that cannot be built for data of this size, shape or range.
    """
    for rule in DATA_RULES:
        rule(config, dataset)


# Of the runs of a study together


def check_sources(configs: Sequence[Flat], set_by_grid: Collection[str]) -> None:
    """Refuse a place where no data set of the study is looked for; one that the grid sets is for its own run only."""
    names = {config["data.name"] for config in configs}
    for config, field in itertools.product(configs, schema.fields(DataConfig, "data")):
        concerned = {config["data.name"]} if field.key in set_by_grid else names
        used = [name for name in concerned if field.name in (*EVERYWHERE, *source_of(name).reads)]
        if config[field.key] != field.default and not used:
            raise errors.UserError(
                f"{field.key}={config[field.key]}: has no effect with data.name={config['data.name']}; "
                f"only {readers(field.name)}"
            )


def _model(config: Flat) -> Flat:
    return schema.group(config, "model")


def _shapes_a_network(name: str, config: Flat) -> bool:
    return name in networks.used(_model(config))


def _differs_from_the_encoder(name: str, config: Flat) -> bool:
    return config[f"model.decoder_{name}"] not in (FIELDS[f"model.decoder_{name}"].default, config[f"model.{name}"])


# Fields that not every run uses: who does, and the fields that decide it.
USERS: dict[str, tuple[Callable[[Flat], bool], tuple[str, ...]]] = {
    "model.sigma": (lambda config: bool(likelihoods.LIKELIHOODS[config["model.likelihood"]].sigmas), ("model.likelihood",)),
    **{
        f"model.{name}": (
            functools.partial(_shapes_a_network, name),
            ("model.encoder", "model.decoder", f"model.decoder_{name}"),
        )
        for name in ("hidden", "activation")
    },
    **{  # one of the decoder's own that is the encoder's says nothing
        f"model.decoder_{name}": (functools.partial(_differs_from_the_encoder, name), (f"model.{name}",))
        for name in networks.LAYERS
    },
    "model.prior_components": (
        lambda config: config["model.prior"] not in ("normal", "laplace", "student_t", "flow"),
        ("model.prior",),
    ),
}


def effective(config: Flat) -> Flat:
    """`config` without the fields that its run does not use: runs that agree in it have the same results."""
    return {key: value for key, value in config.items() if key not in USERS or USERS[key][0](config)}


def without_effect(first: Flat, second: Flat) -> str:
    """Why two runs with equal `effective` configs are equal, in words."""
    key = next(key for key in first if first[key] != second[key])
    return f"{key} has no effect with {', '.join(f'{field}={first[field]}' for field in USERS[key][1] if first[field])}"


def check_names(configs: Sequence[Flat]) -> None:
    """Refuse a run with the name of a baseline's row: tables and figures could not tell them apart."""
    baselines = {name for config in configs for name in config["baselines"]}
    for config in configs:
        if config["name"] in baselines:
            raise errors.UserError(f"name={config['name']}: is the name of a row of baselines; should be another")


# Without data


def has_a_name(config: Flat) -> None:
    """Tables and figures need one."""
    if not config["name"].strip():
        raise errors.UserError("name='': should be a text")


def valid_bounds_need_the_valid_split(config: Flat) -> None:
    """An importance bound of the validation split, where that is evaluated."""
    if "valid" in config["eval.importance_splits"] and not config["eval.valid"]:
        raise errors.UserError(f"eval.importance_splits={config['eval.importance_splits']}: valid needs eval.valid=true")


def ppca_is_the_optimum(config: Flat) -> None:
    """The row `ppca` stands only beside runs whose optimum it is."""
    if "ppca" not in config["baselines"]:
        return
    needed: Flat = {"model.likelihood": "gaussian", "model.prior": "normal", "objective.kind": "weighted"}
    if config["objective.beta"]:  # at 0 there is no such row
        needed |= {"objective.noise_scale": 1, "objective.distortion_weight": 1} | CONSTANT
    for key, value in needed.items():
        if config[key] != value:
            raise errors.UserError(f"baselines={config['baselines']}: ppca needs {key}={value}, not {config[key]}")
    if (kind := sigma(config)[0]) == "per_pixel":
        raise errors.UserError(f"baselines={config['baselines']}: ppca has one sigma for all pixels, not {kind}")


def deterministic_codes_have_no_rate(config: Flat) -> None:
    """Without noise the rate is infinite."""
    kind, beta = config["objective.kind"], config["objective.beta"]
    objective = objectives.OBJECTIVES[kind]
    if config["objective.noise_scale"] == 0 and objective.holds_to_prior(beta):
        has = f"objective.beta={beta:g}" if objective.rate_is_optional else f"objective.kind={kind}"
        raise errors.UserError(
            f"objective.noise_scale=0 with {has}: a deterministic code has infinite rate, so the loss should have none "
            "(objective.kind=weighted with objective.beta=0)"
        )


def rates_from_draws_need_full_noise(config: Flat) -> None:
    """A rate in closed form is of any noise; one that is estimated is of the draws."""
    prior = priors.PRIORS[config["model.prior"]].struct
    noise, schedule = config["objective.noise_scale"], config["schedule.noise_scale"]
    if (noise not in (0, 1) or schedule != "constant") and not prior.has_closed_rate:
        raise errors.UserError(
            f"objective.noise_scale={noise:g} ({schedule}) with model.prior={config['model.prior']}: should be 0 or 1 and "
            "constant, because this rate is estimated from the draws"
        )


def free_bits_need_independent_latents(config: Flat) -> None:
    """Each latent has nats of its own only where the prior takes the latents apart."""
    prior = priors.PRIORS[config["model.prior"]].struct
    if config["objective.kind"] == "free_bits" and not prior.has_independent_latents:
        raise errors.UserError(
            f"objective.kind=free_bits with model.prior={config['model.prior']}: should be a prior of independent latents"
        )


def constraint_needs_a_target(config: Flat) -> None:
    """The default says that none was set: no distortion of 0 nats is reached, and the multiplier would grow for ever."""
    field = FIELDS["objective.distortion_target"]
    if config["objective.kind"] == "geco" and config[field.key] == field.default:
        raise errors.UserError(
            f"{field.key}={field.default:g} with objective.kind=geco: is not set; should be the distortion to reach, in "
            "nats per image"
        )


def total_correlation_needs_full_noise(config: Flat) -> None:
    """Its densities are those of the posterior, so z has to be drawn from the posterior."""
    for key, only in {"objective.noise_scale": 1, "schedule.noise_scale": "constant"}.items():
        if config["objective.kind"] == "tc" and config[key] != only:
            raise errors.UserError(
                f"{key}={config[key]} with objective.kind=tc: should be {only}, because its densities are the posterior's"
            )


def weights_have_an_effect(config: Flat) -> None:
    """A weight that the objective does not use stands at its default."""
    kind = config["objective.kind"]
    objective = objectives.OBJECTIVES[kind]
    used = (*objective.uses, *(("importance_samples",) if objective.needs_draws else ()))
    for field in schema.fields(objectives.ObjectiveConfig, "objective"):
        value = config[field.key]
        if field.unused is not None and value != field.unused and field.name not in used:
            raise errors.UserError(
                f"{field.key}={value:g}: has no effect with objective.kind={kind}; should be {field.unused}"
            )


def layers_belong_to_a_network(config: Flat) -> None:
    """Fields that only some networks have stand at their defaults for others."""
    deciders: dict[str, tuple[str, ...]]
    deciders = {name: ("model.decoder", "model.encoder", f"model.decoder_{name}") for name in networks.OPTIONS}
    deciders |= {f"decoder_{name}": ("model.decoder",) for name in networks.LAYERS}
    used = networks.used(_model(config))
    for name, keys in deciders.items():
        field = FIELDS[f"model.{name}"]
        if config[field.key] != field.default and name not in used:
            chosen = " and ".join(f"{key}={config[key]}" for key in keys if config[key])
            raise errors.UserError(
                f"{field.key}={config[field.key]}: has no effect with {chosen}; should be {field.default or 'empty'}"
            )


def best_sigma_is_of_one_draw(config: Flat) -> None:
    """The sigma that is best for several draws has no closed form."""
    kind = config["objective.kind"]
    if sigma(config)[0] == "optimal" and objectives.OBJECTIVES[kind].needs_draws:
        raise errors.UserError(
            f"model.sigma=optimal with objective.kind={kind}: the best sigma of several draws has no closed form; "
            "should be learned"
        )


def conditioning_draws_beta(config: Flat) -> None:
    """A network that is told beta is trained for a range of beta, and for objectives whose beta weighs each image."""
    if config["model.conditioning"] == "none":
        return
    low, high, beta = (config[f"objective.{key}"] for key in ("beta_low", "beta_high", "beta"))
    kinds = [kind for kind, objective in objectives.OBJECTIVES.items() if objective.can_be_conditioned]
    if config["objective.kind"] not in kinds:
        raise errors.UserError(
            f"model.conditioning=beta with objective.kind={config['objective.kind']}: should be one of {', '.join(kinds)}"
        )
    if config["schedule.beta"] != "constant":
        raise errors.UserError(
            f"schedule.beta={config['schedule.beta']} with model.conditioning=beta: should be constant; beta is drawn in "
            "each step"
        )
    if low > high:
        raise errors.UserError(f"objective.beta_low={low:g}: should be at most objective.beta_high={high:g}")
    for key, values in {"objective.beta": (beta,), "eval.betas": config["eval.betas"]}.items():
        if outside := [value for value in values if not low <= value <= high]:
            raise errors.UserError(
                f"{key}={outside[0]:g} with model.conditioning=beta: it is evaluated there, so it should be from {low:g} to "
                f"{high:g} (objective.beta_low, objective.beta_high)"
            )


def other_betas(config: Flat) -> list[float]:
    """At which a run is evaluated beside `objective.beta`."""
    betas = config["eval.betas"] if config["model.conditioning"] == "beta" else ()
    return [beta for beta in dict.fromkeys(betas) if beta != config["objective.beta"]]


def cooling_needs_a_sigma(config: Flat) -> None:
    """What falls is a bound on sigma, from the scale of the data on."""
    schedule = config["schedule.sigma"]
    if schedule != "constant" and (sigma(config)[0] in ("", "optimal") or config["model.normalize"] == "none"):
        raise errors.UserError(
            f"schedule.sigma={schedule}: should be constant where sigma is none or optimal, or model.normalize is none: it "
            "holds sigma above a falling part of the data's scale"
        )


def schedules(config: Flat) -> dict[str, tuple[str, float]]:
    """Name and length in epochs of every schedule that is not constant, by weight, and of that of sigma."""
    found, kind = {}, config["objective.kind"]
    for weight in (*SCHEDULED, "sigma"):
        text = str(config[f"schedule.{weight}"])
        parsed = parse(f"schedule.{weight}", text)
        if parsed is None:
            continue
        if weight not in ("sigma", *objectives.OBJECTIVES[kind].uses):
            raise errors.UserError(f"schedule.{weight}={text}: has no effect with objective.kind={kind}; should be constant")
        found[weight] = parsed
    return found


def sigma(config: Flat) -> tuple[str, float]:
    """`model.sigma` as its kind and, where that is "fixed", its number (1 elsewhere: not used)."""
    kinds = likelihoods.LIKELIHOODS[config["model.likelihood"]].sigmas
    if not kinds:
        return "", 1.0
    text = str(config["model.sigma"])
    named = [kind for kind in vae.SIGMAS if kind in kinds]
    if text in named:
        return text, 1.0
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not likelihoods.SIGMA_FLOOR <= number <= 1e6:
        where = f" with model.likelihood={config['model.likelihood']}" if text in vae.SIGMAS else ""
        raise errors.UserError(
            f"model.sigma={text}{where}: should be {', '.join(named)} or a number from {likelihoods.SIGMA_FLOOR:g} to 1e+06"
        )
    return "fixed", number


RULES: tuple[Callable[[Flat], object], ...] = (
    valid_bounds_need_the_valid_split,
    sigma,
    ppca_is_the_optimum,
    deterministic_codes_have_no_rate,
    rates_from_draws_need_full_noise,
    free_bits_need_independent_latents,
    total_correlation_needs_full_noise,
    weights_have_an_effect,
    layers_belong_to_a_network,
    best_sigma_is_of_one_draw,
    schedules,
    cooling_needs_a_sigma,
    conditioning_draws_beta,
    constraint_needs_a_target,
    has_a_name,
)


# With data


def batch_size(config: Flat, dataset: Dataset) -> int:
    """Images in a step: at 0, and where more are asked for than there are, the whole training split."""
    count = len(dataset.splits["train"])
    return min(config["train.batch_size"] or count, count)


def batch_can_be_shared(config: Flat, dataset: Dataset) -> None:
    """A batch divides among its devices, and has what its objective and sigma need."""
    size, devices = config["train.batch_size"], config["train.data_devices"]
    batch = batch_size(config, dataset)
    if batch % devices:
        raise errors.UserError(f"train.data_devices={devices}: should divide the batch of {counted(batch, 'image')}")
    if batch == 1 and config["objective.kind"] == "mmd":
        raise errors.UserError(f"train.batch_size={size} with objective.kind=mmd: should be a batch of at least 2 images")
    if devices > 1 and sigma(config)[0] == "optimal":
        raise errors.UserError(
            f"train.data_devices={devices}: should be 1 with model.sigma=optimal, which is of the whole batch"
        )


def valid_split_exists(config: Flat, dataset: Dataset) -> None:
    """The validation split can be evaluated where there is one."""
    if config["eval.valid"] and "valid" not in dataset.splits:
        fraction = config["data.valid_fraction"]
        raise errors.UserError(f"eval.valid=True: data.valid_fraction={fraction:g} leaves no validation image")


def likelihood_takes_the_values(config: Flat, dataset: Dataset) -> None:
    """Whether a likelihood can be that of these pixels."""
    name = config["model.likelihood"]
    values = likelihoods.LIKELIHOODS[name].values
    for split, (low, high) in dataset.extent.items():
        if values != "any" and (low < 0 or high > 1):
            raise errors.UserError(
                f"model.likelihood={name} needs values in [0, 1]: {split} has [{low:g}, {high:g}]; "
                "scale them or use model.likelihood=gaussian"
            )
        if values == "levels" and not dataset.has_whole_levels(split):
            raise errors.UserError(
                f"model.likelihood={name} needs whole levels, as bytes have: {split} has other values; "
                "give them as uint8 or use model.likelihood=gaussian"
            )


def convolutions_fit_the_images(config: Flat, dataset: Dataset) -> None:
    """Images that can be made smaller as often as there are convolutions; a kernel and a stride for each of these."""
    model, shape = _model(config), dataset.spec.shape
    for part in ("encoder", "decoder"):
        if model[part] not in CONVOLUTIONAL:
            continue
        if len(shape) != 3 or min(shape[:2]) < 8:
            raise errors.UserError(f"model.{part}={model[part]} needs images from 8x8 up: these have shape {shape}")
        keys = {name: f"model.{networks.field_of(part, name, model)}" for name in networks.LAYERS}
        layers, is_conv = len(config[keys["hidden"]]) - 1, model[part] == "conv"
        for key in (keys["kernel"], keys["stride"]) if is_conv and layers > 0 else ():
            if len(config[key]) not in (1, layers):
                raise errors.UserError(
                    f"{key}={config[key]}: should be one number, or {layers}, one for each convolution of the {part}"
                )
        # No convolution but the last sees a single row of pixels.
        most, strides = 1, config[keys["stride"]] if is_conv else (2,)
        while most < 32 and math.prod(of_layers(strides, most)[:most]) < min(shape[:2]):
            most += 1
        if not 1 <= layers <= most:
            raise errors.UserError(
                f"{keys['hidden']}={config[keys['hidden']]}: {model[part]} takes channels of 1 to {most} convolutions, then "
                "the width of a dense layer"
            )


def free_sigma_needs_fewer_latents_than_pixels(config: Flat, dataset: Dataset) -> None:
    """Else the decoder is exact and sigma has no least value."""
    kind, count = sigma(config)[0], math.prod(dataset.spec.shape)
    if kind in vae.SIGMAS and config["model.latents"] >= count:
        raise errors.UserError(
            f"model.latents={config['model.latents']} with model.sigma={kind}: should be below {count}, the "
            "number of pixels; else sigma goes to 0 and the likelihood to infinity"
        )


def baselines_need_the_pixels_in_memory(config: Flat, dataset: Dataset) -> None:
    """A closed form is fitted to all pixels at a time."""
    if config["baselines"] and dataset.is_streamed:
        raise errors.UserError(
            f"baselines={config['baselines']}: needs all pixels in memory; leave it out, or use data.resident=true"
        )


DATA_RULES: tuple[Callable[[Flat, Dataset], None], ...] = (
    batch_can_be_shared,
    valid_split_exists,
    likelihood_takes_the_values,
    convolutions_fit_the_images,
    free_sigma_needs_fewer_latents_than_pixels,
    baselines_need_the_pixels_in_memory,
)
