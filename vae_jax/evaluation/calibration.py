"""How far a decoder's intervals can be trusted: coverage, residuals in units of sigma, and the PIT of every pixel.

Three predictions of a pixel are kept apart. Plain names are of p(x | z) with z drawn from the posterior, one draw at a
time: what the likelihood is trained on. `predictive` is the mixture of those over the draws, which also knows that z is
uncertain; `mean_code` is p(x | mean of z).
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key

from vae_jax.core import keys
from vae_jax.models import likelihoods
from vae_jax.models.vae import VAE, Posterior, reparameterize

Images = Float[Array, "batch *pixels"]
Scalar = float | Float[Array, ""]

LEVELS = np.arange(1, 20) / 20  # of the reliability curve: nominal coverage of central intervals
SIGMAS = {f"coverage_{k}sigma": math.erf(k / math.sqrt(2)) for k in (1, 2, 3)}  # 68.27, 95.45 and 99.73 %
THREE_SIGMA = SIGMAS["coverage_3sigma"]
# Where the distribution function of the PIT is measured: at the ends of all those intervals, and of 20 bins.
TWENTIETHS = np.arange(41) / 40
EDGES = np.concatenate([TWENTIETHS, *[[(1 - level) / 2, (1 + level) / 2] for level in SIGMAS.values()]])
RESAMPLES = 200  # of the bootstrap
BISECTIONS = 30


def measure(vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int) -> dict[str, Array]:
    """Of every image, over its pixels and `samples` draws of z.

    Returns:
      `pit`, `predictive_pit`, `mean_code_pit` [batch, edges]: the share of pixels whose PIT is at most each of `EDGES`;
      `mean_sigma` [batch], and of a density `residual_mean_square` [batch].
    """
    # The same for every draw of z, so that the mean over draws is the PIT of the mixture also where values are discrete.
    uniform = random.uniform(keys.at(key, 0), x.shape)

    def draw(carry, number):
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
        return jax.tree.map(lambda total, value: total + value / samples, carry, found), None

    batch = jnp.zeros(x.shape[0])
    zero = {"pit": jnp.zeros((len(x), len(EDGES))), "mean_sigma": batch, "predictive": 0 * x}
    if likelihoods.LIKELIHOODS[vae.spec.likelihood].values != "levels":
        zero["residual_mean_square"] = batch
    found, _ = lax.scan(draw, zero, jnp.arange(samples))
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


def squared_error(vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int):
    """Mean over pixels and draws of z of (x - mean)^2, [batch]: the square of the optimal sigma, where all images agree."""

    def draw(total, number):
        z = reparameterize(keys.at(key, number), posterior)
        return total + _pixel_mean(jnp.square(x - vae.decode(z, sigma).mean)) / samples, None

    return lax.scan(draw, jnp.zeros(x.shape[0]), jnp.arange(samples))[0]


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


def bootstrap(values: np.ndarray) -> np.ndarray:
    """Standard error of the mean over images [n, m] -> [m], by drawing images anew: pixels of an image are correlated."""
    generator, count = np.random.default_rng(0), len(values)
    weights = np.stack([np.bincount(generator.integers(count, size=count), minlength=count) for _ in range(RESAMPLES)])
    return (weights / count @ values.astype(float)).std(axis=0, ddof=1)


def columns(found: dict[str, np.ndarray]) -> dict[str, float]:
    """The columns of one split, with standard errors over images."""
    others = [name for name in ("residual_mean_square", "mean_sigma") if name in found]
    numbers = np.column_stack([coverage(found["pit"])[:, len(LEVELS) :], *(found[name] for name in others)])
    names = [*SIGMAS, *others]
    row: dict[str, float] = {}
    for name, mean, error in zip(names, numbers.mean(axis=0, dtype=float), bootstrap(numbers), strict=True):
        row |= {name: float(mean), f"{name}_image_se": float(error)}
    reliability = coverage(found["pit"])[:, : len(LEVELS)].mean(axis=0, dtype=float)
    row["calibration_error"] = float(np.abs(reliability - LEVELS).mean())
    for way in ("predictive", "mean_code"):
        inside = coverage(found[f"{way}_pit"])[:, len(LEVELS) :]
        for name, mean, error in zip(SIGMAS, inside.mean(axis=0, dtype=float), bootstrap(inside), strict=True):
            row |= {f"{way}_{name}": float(mean), f"{way}_{name}_image_se": float(error)}
    return row


def arrays(found: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the figures need: the reliability curve and the PIT histogram, means over images with their standard errors."""
    reliability = coverage(found["pit"])[:, : len(LEVELS)]
    bins = np.diff(found["pit"][:, : len(TWENTIETHS) : 2])
    # An image may lie at 0 exactly, which is at most the first edge.
    bins[:, 0] += found["pit"][:, 0]
    result = {"coverage_levels": LEVELS}
    for name, values in (("coverage", reliability), ("pit_histogram", bins)):
        result |= {name: values.mean(axis=0, dtype=float), f"{name}_se": bootstrap(values)}
    for way in ("predictive", "mean_code"):
        inside = coverage(found[f"{way}_pit"])[:, : len(LEVELS)]
        result[f"{way}_coverage"] = inside.mean(axis=0, dtype=float)
    return result
