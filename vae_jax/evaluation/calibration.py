"""How far a decoder's intervals can be trusted: coverage, residuals in units of sigma, and the PIT of every pixel.

Three predictions of a pixel are kept apart. Plain names are of p(x | z) with z drawn from the posterior, one draw at a
time: what the likelihood is trained on. `predictive` is the mixture of those over the draws, which also knows that z is
uncertain; `mean_code` is p(x | mean of z).
"""

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Int, Key

from vae_jax.core import keys
from vae_jax.evaluation import accumulate, queries
from vae_jax.evaluation.metric import NEEDS, Column, Metric, Run, Values, evaluated_splits, split_columns
from vae_jax.evaluation.trained import Purpose, Trained
from vae_jax.models import likelihoods
from vae_jax.models.vae import VAE, Posterior, reparameterize

Images = Float[Array, "batch *pixels"]
Scalar = float | Float[Array, ""]
Count = int | Int[Array, ""]  # also traced

LEVELS = np.arange(1, 20) / 20  # of the reliability curve: nominal coverage of central intervals
SIGMAS = {f"coverage_{k}sigma": math.erf(k / math.sqrt(2)) for k in (1, 2, 3)}  # 68.27, 95.45 and 99.73 %
THREE_SIGMA = SIGMAS["coverage_3sigma"]
# Where the distribution function of the PIT is measured: at the ends of all those intervals, and of 20 bins.
TWENTIETHS = np.arange(41) / 40
EDGES = np.concatenate([TWENTIETHS, *[[(1 - level) / 2, (1 + level) / 2] for level in SIGMAS.values()]])
WAYS = ("", "predictive", "mean_code")  # in which a pixel is predicted, as its columns begin
BISECTIONS = 30


def measure(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: Count
) -> dict[str, Array]:
    """Of every image, over its pixels and `samples` draws of z.

    Returns:
      `pit`, `predictive_pit`, `mean_code_pit` [batch, edges]: the share of pixels whose PIT is at most each of `EDGES`;
      `mean_sigma` [batch], and of a density `residual_mean_square` [batch].
    """
    # The same for every draw of z, so that the mean over draws is the PIT of the mixture also where values are discrete.
    uniform = random.uniform(keys.at(key, 0), x.shape)

    def draw(number, carry):
        z = reparameterize(keys.at(keys.at(key, 1), number), posterior)
        likelihood: Any = vae.decode(z, sigma)
        pit = likelihood.pit(x, uniform)
        found = {
            "pit": distribution(pit),
            "mean_sigma": _pixel_mean(likelihood.std),
            "predictive": pit,
        }
        if "residual_mean_square" in carry:
            found["residual_mean_square"] = _pixel_mean(jnp.square(likelihood.residual(x)))
        return jax.tree.map(lambda total, value: total + value / share, carry, found)

    share = jnp.asarray(samples, jnp.float32)

    batch = jnp.zeros(x.shape[0])
    zero = {"pit": jnp.zeros((len(x), len(EDGES))), "mean_sigma": batch, "predictive": 0 * x}
    if likelihoods.LIKELIHOODS[vae.spec.likelihood].values != "levels":
        zero["residual_mean_square"] = batch
    found = lax.fori_loop(0, samples, draw, zero)
    mean_code: Any = vae.decode(posterior.mean, sigma)
    return found | {
        "predictive_pit": distribution(found.pop("predictive")),
        "mean_code_pit": distribution(mean_code.pit(x, uniform)),
    }


def distribution(pit: Images) -> Float[Array, "batch edges"]:
    """The share of pixels at or below each of `EDGES`; nan where a pixel is."""
    pit = lax.optimization_barrier(pit)  # computed once, not once for each edge
    flat = pit.reshape(len(pit), -1)
    share = lax.map(lambda edge: jnp.mean((flat <= edge).astype(jnp.float32), axis=1), jnp.asarray(EDGES, jnp.float32))
    return share.T + 0 * jnp.mean(flat, axis=1)[:, None]


def _pixel_mean(values: Images) -> Float[Array, " batch"]:
    return jnp.mean(values, axis=tuple(range(1, values.ndim)))


def squared_error(vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: Count):
    """Mean over pixels and draws of z of (x - mean)^2, [batch]: the square of the optimal sigma, where all images agree."""

    def draw(number, total):
        z = reparameterize(keys.at(key, number), posterior)
        return total + _pixel_mean(jnp.square(x - vae.decode(z, sigma).mean)) / jnp.asarray(samples, jnp.float32)

    return lax.fori_loop(0, samples, draw, jnp.zeros(x.shape[0]))


def shown(vae: VAE, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int) -> dict[str, Images]:
    """Mean, sigma and the 3-sigma interval (99.73 %, central) of every pixel, through the posterior and the mean code."""
    count = len(posterior.mean)
    many = jax.tree.map(lambda leaf: jnp.tile(leaf, (samples, 1)), posterior)
    mixture: Any = vae.decode(reparameterize(key, many), sigma)

    def split(values):
        return values.reshape(samples, count, *values.shape[1:])

    def quantile(level):
        """Of the mixture, between those of its parts, by bisection."""
        parts = split(mixture.quantile(level))

        def halve(_, ends):
            low, high = ends
            middle = 0.5 * (low + high)
            tiled = jnp.tile(middle, (samples, *(1,) * (middle.ndim - 1)))
            is_above = jnp.mean(split(mixture.cdf(tiled)), axis=0) >= level
            return jnp.where(is_above, low, middle), jnp.where(is_above, middle, high)

        return lax.fori_loop(0, BISECTIONS, halve, (jnp.min(parts, axis=0), jnp.max(parts, axis=0)))[1]

    means = split(mixture.mean)
    variance = jnp.mean(jnp.square(split(mixture.std)), axis=0) + jnp.var(means, axis=0)
    mean_code: Any = vae.decode(posterior.mean, sigma)
    low, high = mean_code.interval(THREE_SIGMA)
    return {
        "predictive_mean": jnp.mean(means, axis=0),
        "predictive_sigma": jnp.sqrt(variance),
        "predictive_low": quantile((1 - THREE_SIGMA) / 2),
        "predictive_high": quantile((1 + THREE_SIGMA) / 2),
        "mean_code_mean": mean_code.mean,
        "mean_code_sigma": mean_code.std,
        "mean_code_low": low,
        "mean_code_high": high,
    }


# On the host: columns and arrays.


def coverage(pit: np.ndarray) -> np.ndarray:
    """[..., edges] -> share of pixels inside the central intervals of `LEVELS`, then of 1, 2 and 3 sigma."""
    twentieths, ends = pit[..., : len(TWENTIETHS)], pit[..., len(TWENTIETHS) :]
    middle, reach = len(TWENTIETHS) // 2, np.arange(1, 20)
    return np.concatenate(
        [twentieths[..., middle + reach] - twentieths[..., middle - reach], np.diff(ends)[..., ::2]], axis=-1
    )


def _measure(trained: Trained, x: Images, key: Key[Array, ""], spec, limit: Int[Array, ""]) -> dict[str, Array]:
    samples = jnp.minimum(spec.calibration_samples, limit)
    return measure(trained.vae, x, trained.posterior(x), key, trained.sigma, samples)


def summed(rows: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the means over images are taken of, from what `measure` gave."""
    bins = np.diff(rows["pit"][:, : len(TWENTIETHS) : 2])
    # An image may lie at 0 exactly, which is at most the first edge.
    bins[:, 0] += rows["pit"][:, 0]
    of = {way: coverage(rows[f"{way}_pit" if way else "pit"]) for way in ("", "predictive", "mean_code")}
    others = {name: rows[name] for name in ("residual_mean_square", "mean_sigma") if name in rows}
    return of | others | {"pit_histogram": bins}


def _update(state: dict[str, accumulate.Means], split: str, rows: Mapping[str, np.ndarray]) -> dict[str, accumulate.Means]:
    state.setdefault(split, accumulate.Means()).add(summed(rows))
    return state


def columns(means: accumulate.Means) -> Values:
    """The columns of one split, with standard errors over images: pixels of an image are correlated."""
    values: Values = {}
    inside = {way: zip(SIGMAS, *_parts(means, way, slice(len(LEVELS), None)), strict=True) for way in WAYS}
    for name, mean, error in inside[""]:
        values |= {name: mean, f"{name}_image_se": error}
    for name in ("residual_mean_square", "mean_sigma"):
        if name in means:
            values |= {name: means.mean(name), f"{name}_image_se": means.error(name)}
    values["calibration_error"] = float(np.abs(means.means("")[: len(LEVELS)] - LEVELS).mean())
    for way in WAYS[1:]:
        for name, mean, error in inside[way]:
            values |= {f"{way}_{name}": mean, f"{way}_{name}_image_se": error}
    return values


def _parts(means: accumulate.Means, name: str, which: slice) -> tuple[list[float], list[float | None]]:
    """Means over images of some of an image's numbers, and their standard errors."""
    errors = means.errors(name)[which]
    return means.means(name)[which].tolist(), [None if np.isnan(error) else float(error) for error in errors]


def arrays(means: accumulate.Means) -> dict[str, np.ndarray]:
    """What the figures need: the reliability curve and the PIT histogram, means over images with their standard errors."""
    reliability = slice(len(LEVELS))
    result = {"coverage_levels": LEVELS}
    result |= {"coverage": means.means("")[reliability], "coverage_se": means.errors("")[reliability]}
    result |= {"pit_histogram": means.means("pit_histogram"), "pit_histogram_se": means.errors("pit_histogram")}
    return result | {f"{way}_coverage": means.means(way)[reliability] for way in WAYS[1:]}


def _program(trained: Trained, inputs, setting) -> dict[str, Array]:
    """The intervals of the test images that are shown."""
    posterior = trained.posterior(inputs.images[: queries.SHOWN])
    return shown(trained.vae, posterior, trained.key(Purpose.SHOWN), trained.sigma, setting.spec.calibration_samples)


def _finish(state: dict[str, accumulate.Means], run: Run) -> Values:
    values: Values = {}
    for split, means in state.items():
        values |= split_columns(split, columns(means))
    return values


NEEDS["intervals"] = lambda setting: likelihoods.LIKELIHOODS[setting.model.likelihood].is_graded
KULESHOV = "https://arxiv.org/abs/1807.00263"


def _coverages(way: str, of: str) -> tuple[Column, ...]:
    return tuple(
        Column(
            f"{way}coverage_{k}sigma", f"share of pixels in the central {SIGMAS[f'coverage_{k}sigma']:.2%} interval of {of}",
            "", "", {1: 3, 3: 4}.get(k) if not way else None, KULESHOV, "images", ("train", "valid"),
        )
        for k in (1, 2, 3)
    )  # fmt: skip


CALIBRATION = Metric(
    columns=(
        *_coverages("", "p(x given z), z drawn"),
        Column(
            "residual_mean_square", "E[((x - mean) / sigma)^2], z drawn, of densities: 1 where sigma is right", "", "", 3,
            "", "images", ("train", "valid"),
        ),
        Column("mean_sigma", "std of the decoder, mean over pixels and images", "", "", 4, "", "images", ("train", "valid")),
        Column(
            "calibration_error", "mean over 19 levels of |coverage - level|", "", "lower", None, KULESHOV, "",
            ("train", "valid"),
        ),
        *_coverages("predictive_", "the mixture over draws of z"),
        *_coverages("mean_code_", "p(x given the mean of z)"),
    ),
    finish=_finish,
    needs=("intervals",),
    asked=lambda spec: bool(spec.calibration_samples),
    splits=evaluated_splits,
    measure=_measure,
    counters=(Purpose.CALIBRATION,),
    program=_program,
    init=lambda reference, setting: {},
    update=_update,
    arrays=lambda state, run: arrays(state["test"]) | run.programs["calibration"],
)  # fmt: skip
