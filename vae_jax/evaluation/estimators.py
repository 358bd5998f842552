"""Estimates by draws of z, per image: distortion and rate with their variance, and the importance bound.

Pure functions of a bound `VAE`, images in [0, 1] and a key, in nats. Each is tested against a model whose answer is known.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from vae_jax.core import keys
from vae_jax.models.vae import VAE, Posterior, reparameterize

PerImage = Float[Array, " batch"]
Images = Float[Array, "batch *pixels"]
Latents = Float[Array, "batch latents"]
Scalar = float | Float[Array, ""]
Count = int | Int[Array, ""]  # also traced


def costs(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: Count
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What `samples` draws of z per image cost: mean over the draws and variance between them, by name, in nats.

    "distortion" [batch]; where the rate has no closed form also "rate_per_latent" (`Posterior.rate_per_latent`), their sum
    "rate" [batch], and "cost" [batch], distortion and rate together.
    """
    prior = vae.prior()

    def one(z: Latents) -> dict[str, Array]:
        distortion = -vae.decode(z, sigma).log_prob(x)
        if prior.has_closed_rate:
            return {"distortion": distortion}
        per_latent = posterior.rate_per_latent(prior, z)
        rate = jnp.sum(per_latent, axis=-1)
        return {"distortion": distortion, "rate_per_latent": per_latent, "rate": rate, "cost": distortion + rate}

    mean, squares = moments(lambda number: one(reparameterize(keys.at(key, number), posterior)), samples)
    others = jnp.maximum(samples - 1, 1)
    return mean, jax.tree.map(lambda value: value / others.astype(value.dtype), squares)


def moments(draw: Callable, count: Count) -> tuple:
    """Mean of draw(number) over the numbers below `count`, and the sum of squared deviations; a draw is a tree of arrays.

    By Welford's update: the variance of numbers of size 100 that differ by 1, in float32.
    """

    def update(number, carry):
        mean, squares = carry
        value = draw(number)
        delta = jax.tree.map(jnp.subtract, value, mean)
        mean = jax.tree.map(lambda old, new: old + new / (number + 1).astype(old.dtype), mean, delta)
        squares = jax.tree.map(lambda old, new, v, m: old + new * (v - m), squares, delta, value, mean)
        return mean, squares

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(draw, jnp.int32(0)))
    return lax.fori_loop(0, count, update, (zero, zero))


class Estimate(NamedTuple):
    """The logarithm of a mean over draws, per image [batch], and how much it varies where it is made of fewer draws."""

    value: PerImage
    quarter: PerImage  # variance among estimates from a quarter of the draws each
    half: PerImage  # variance among estimates from half of them


GROUPS = 4  # of the draws, kept apart to see how the estimate varies


def estimate(groups: Float[Array, "groups batch"], value: PerImage) -> Estimate:
    """`value`, the estimate of all draws, beside those of each quarter of them.

    The variance at all draws is extrapolated from that at a quarter and at half of them (`extrapolated_error`). That of the
    delta method, Var(w) / (k E[w]^2) from the same weights, cannot pass 1 - 1/k for an image, and misses heavy tails.
    """
    first, second = jnp.asarray([0, 0, 0, 1, 1, 2]), jnp.asarray([1, 2, 3, 2, 3, 3])
    pairs = jnp.logaddexp(groups[first], groups[second]) - jnp.log(2.0)
    halves = pairs - pairs[::-1]  # each pair and the pair of the other two, both ways round
    quarter = jnp.mean(jnp.square(groups[first] - groups[second]), axis=0) / 2
    return Estimate(value, quarter, jnp.mean(jnp.square(halves), axis=0) / 2)


def extrapolated_error(quarter: float, half: float, images: int) -> float | None:
    """Standard error over draws of the mean over images of a logarithm of a mean; None where too little was drawn.

    The variance falls by r <= 1 from a quarter to a half of the draws, and by as much again to all of them. 1/2 is the r of
    finite variance and many draws; with heavy tails it lies between 1/2 and 1.

    Args:
      quarter, half: means over images of those of `Estimate`.
      images: how many.
    """
    if not (math.isfinite(quarter) and math.isfinite(half)):
        return None
    falls = min(max(half / quarter, 0.5), 1.0) if quarter > 0 else 0.5
    return math.sqrt(falls * half / images)


def importance_bound(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int
) -> Estimate:
    """log mean exp of `samples` weights p(x, z) / q(z | x), per image.

    The weights are streamed: memory does not grow with `samples`. A lower bound of log p(x) in expectation, rising with
    `samples` (Burda et al. 2016).
    """
    prior = vae.prior()

    def log_weight(number):
        z = reparameterize(keys.at(key, number), posterior)
        return vae.decode(z, sigma).log_prob(x) + prior.log_prob(z) - posterior.log_prob(z)

    def draw(carry, numbers):
        peak, total = carry
        log_weights = jnp.where((numbers < samples)[:, None], jax.vmap(log_weight)(numbers), -jnp.inf)
        higher = jnp.maximum(peak, log_weights)
        # Where nothing was drawn yet both are -inf, and their difference is not a number.
        shrink = jnp.where(jnp.isneginf(higher), 1.0, jnp.exp(peak - higher))
        grown = jnp.where(jnp.isneginf(log_weights), 0.0, jnp.exp(log_weights - higher))
        return (higher, total * shrink + grown), None

    zero = jnp.zeros((GROUPS, x.shape[0]))
    # One draw of each group at a time: larger products, and the loop around them costs less.
    numbers = jnp.arange(-(-samples // GROUPS) * GROUPS).reshape(-1, GROUPS)
    (peak, total), _ = lax.scan(draw, (zero - jnp.inf, zero), numbers)
    counts = jnp.sum(numbers < samples, axis=0).astype(total.dtype)
    sums = peak + jnp.log(total)
    return estimate(sums - jnp.log(counts)[:, None], logsumexp(sums, axis=0) - jnp.log(float(samples)))
