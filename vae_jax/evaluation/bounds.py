"""Distortion, rate and elbo of every split, the importance bound, and the axes on which runs of any scale compare."""

import math

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from vae_jax.evaluation import accumulate, estimators
from vae_jax.evaluation.metric import Column, Metric, Rows, Run, Values, evaluated_splits, split_columns
from vae_jax.evaluation.trained import Purpose, Trained
from vae_jax.models import likelihoods
from vae_jax.training import objectives

ENOUGH = 50  # draws from which on the error of an importance bound can be told
MORE = ("train", "valid")  # splits beside test
ELBO = "https://arxiv.org/abs/1312.6114"


def measure(
    trained: Trained, x: Float[Array, "batch *shape"], key: Key[Array, ""], spec, limit: Int[Array, ""]
) -> dict[str, Array]:
    """What every metric sees of an image: distortion and its variance, rate per latent, mse, and its code."""
    posterior, samples = trained.posterior(x), jnp.minimum(spec.samples, limit)
    mean, variance = estimators.costs(trained.vae, x, posterior, key, trained.sigma, samples)
    rate = mean.get("rate_per_latent")
    if rate is None:
        rate = trained.vae.prior().rate_per_latent(posterior.mean, posterior.log_var)
    reconstruction = trained.vae.decode(posterior.mean, trained.sigma).mean
    variance = {f"{name}_variance": value / samples.astype(value.dtype) for name, value in variance.items()}
    return {
        **{name: value for name, value in variance.items() if name != "rate_per_latent_variance"},
        "distortion": mean["distortion"],
        # No draw can show that a point has infinite rate.
        "rate_per_latent": jnp.where(trained.noise_scale > 0, rate, jnp.inf),
        "mse": jnp.mean(jnp.square(x - reconstruction), axis=tuple(range(1, x.ndim))),
        "mean": posterior.mean,
        "log_var": posterior.log_var,
    }


def _update(state: dict[str, accumulate.Means], split: str, rows: Rows) -> dict[str, accumulate.Means]:
    names = ("distortion", "mse", "distortion_variance", "rate_variance", "cost_variance")
    rate = rows["rate_per_latent"].sum(axis=1, dtype=float)
    state.setdefault(split, accumulate.Means()).add({"rate": rate} | {name: rows[name] for name in names if name in rows})
    return state


def _finish(state: dict[str, accumulate.Means], run: Run) -> Values:
    found: Values = {}
    for split, means in state.items():
        values: Values = _bound(means, run.setting.spec.samples) | {"mse": means.mean("mse")}
        if likelihoods.LIKELIHOODS[run.setting.model.likelihood].values == "levels":
            # Only the probability of a discrete value is a number of bits; a density has units.
            nats = means.mean("distortion") + means.mean("rate")
            values["bits_per_pixel"] = nats / (math.prod(run.setting.model.shape) * math.log(2))
        found |= split_columns(split, values)
    return found


def _bound(means: accumulate.Means, samples: int) -> Values:
    """Distortion, rate and elbo of a split, with the Monte Carlo error of the draws."""
    distortion, rate = means.mean("distortion"), means.mean("rate")
    found: Values = {
        "distortion": distortion,
        "distortion_se": means.drawn_error("distortion_variance", samples),
        "rate": rate,
    }
    # A closed-form rate has no Monte Carlo error; an infinite bound has none to state.
    is_drawn = "rate_variance" in means and math.isfinite(rate)
    found |= {"rate_se": means.drawn_error("rate_variance", samples)} if is_drawn else {}
    found["elbo"] = -(distortion + rate)
    of = "cost_variance" if is_drawn else "distortion_variance"
    return found | {"elbo_se": means.drawn_error(of, samples) if math.isfinite(rate) else None}


BOUNDS = Metric(
    columns=(
        Column(
            "distortion", "-E log p(x given z), z drawn from the posterior", "nats per image", "lower", 2, ELBO, "draws",
            MORE,
        ),
        Column(
            "rate", "KL(q(z given x) || p(z)); inf without noise; its error where the prior has no closed form",
            "nats per image", "", 3, ELBO, "draws", MORE,
        ),
        Column("elbo", "-(distortion + rate)", "nats per image", "higher", 2, ELBO, "draws", MORE),
        Column("mse", "(x - decoder mean at the mean code)^2, mean over pixels", "", "lower", 4, "", "", MORE),
        Column(
            "bits_per_pixel", "-elbo in bits over the number of pixels; likelihoods of discrete values", "bits", "lower", 3,
            "https://arxiv.org/abs/1701.05517", "", MORE,
        ),
    ),
    finish=_finish,
    splits=evaluated_splits,
    init=lambda reference, setting: {},
    update=_update,
)  # fmt: skip


def _measure_importance(trained: Trained, x, key, spec, limit) -> dict[str, Array]:
    samples = spec.importance_samples
    found = estimators.importance_bound(trained.vae, x, trained.posterior(x), key, trained.sigma, samples)
    return {"importance_bound": found.value, "importance_quarter": found.quarter, "importance_half": found.half}


def _update_importance(state: dict[str, accumulate.Means], split: str, rows: Rows) -> dict[str, accumulate.Means]:
    names = ("importance_bound", "importance_quarter", "importance_half")
    state.setdefault(split, accumulate.Means()).add({name: rows[name] for name in names})
    return state


def _finish_importance(state: dict[str, accumulate.Means], run: Run) -> Values:
    found: Values = {}
    for split, means in state.items():
        variances = means.mean("importance_quarter"), means.mean("importance_half")
        error = estimators.extrapolated_error(*variances, means.count["importance_bound"])
        is_enough = run.setting.spec.importance_samples >= ENOUGH
        values = {"importance_bound": means.mean("importance_bound"), "importance_bound_se": error if is_enough else None}
        found |= split_columns(split, values)
    return found


IMPORTANCE = Metric(
    columns=(
        Column(
            "importance_bound",
            f"log mean exp of k importance weights (`eval.importance_samples`); its error from k = {ENOUGH} on",
            "nats per image", "higher", 2, "https://arxiv.org/abs/1509.00519", "draws", MORE,
        ),
    ),
    finish=_finish_importance,
    density=True,
    asked=lambda spec: bool(spec.importance_samples),
    splits=lambda spec: spec.importance_splits,
    measure=_measure_importance,
    counters=(Purpose.IMPORTANCE,),
    init=lambda reference, setting: {},
    update=_update_importance,
)  # fmt: skip


def _finish_scale(state: accumulate.Means, run: Run) -> Values:
    sigma = float(run.model["sigma"]) if "sigma" in run.model else None
    found: Values = {} if sigma is None else {"sigma": sigma}
    weights, kind = run.weights, run.setting.objective
    if kind in ("weighted", "importance") and weights.distortion_weight > 0:
        beta = float(np.float32(weights.beta) / np.float32(weights.distortion_weight))
        found["effective_beta"] = beta
        if sigma is not None:
            found["theta"] = beta * sigma**2
    missed_by = objectives.OBJECTIVES[kind].missed_by
    if missed_by is not None and "distortion" in state:
        found["target_met"] = int(missed_by(weights, state.mean("distortion")) <= 0)
    return found


SCALE = Metric(
    columns=(
        Column("sigma", "shared std of the decoder, where it has one", "", "", 4),
        Column("effective_beta", "beta / distortion_weight at the end of training, of `objective.kind=weighted`"),
        Column("theta", "effective_beta * sigma^2: the water level", "", "", None, "https://arxiv.org/abs/1911.02469"),
        Column(
            "target_met",
            "geco: 1 where the distortion of the training split reaches `objective.distortion_target`, up to what the "
            "objective tolerates, else 0",
            "", "higher", None, "https://arxiv.org/abs/1810.00597",
        ),
    ),
    finish=_finish_scale,
    splits=lambda spec: ("train",) if spec.train else (),
    init=lambda reference, setting: accumulate.Means(),
    update=lambda state, split, rows: state.add({"distortion": rows["distortion"]}),
)  # fmt: skip
