"""Likelihood estimates and decompositions of one batch: importance bound, AIS and BDMC, the rate's parts, gradients.

Pure functions of a bound `VAE`, images in [0, 1] and a key; everything is per image and in nats. Each is tested against
a model whose answer is known.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Int, Key

from vae_jax.core import keys
from vae_jax.models.priors import Prior
from vae_jax.models.vae import VAE, Posterior, reparameterize

PerImage = Float[Array, " batch"]
Images = Float[Array, "batch *pixels"]
Latents = Float[Array, "batch latents"]
Scalar = float | Float[Array, ""]

TARGET_ACCEPTANCE = 0.65  # of HMC (Neal 2011)
LEAPFROGS = 10


def costs(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int
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

    mean, squares = moments(lambda number: one(reparameterize(keys.at(key, number), posterior)), jnp.arange(samples))
    return mean, jax.tree.map(lambda value: value / max(samples - 1, 1), squares)


def moments(draw: Callable, numbers: Int[Array, " n"]) -> tuple:
    """Mean of draw(number) over `numbers`, and the sum of squared deviations from it; a draw is a tree of arrays.

    By Welford's update: the variance of numbers of size 100 that differ by 1, in float32.
    """

    def update(carry, step):
        mean, squares = carry
        index, number = step
        value = draw(number)
        delta = jax.tree.map(jnp.subtract, value, mean)
        mean = jax.tree.map(lambda old, new: old + new / (index + 1).astype(old.dtype), mean, delta)
        squares = jax.tree.map(lambda old, new, v, m: old + new * (v - m), squares, delta, value, mean)
        return (mean, squares), None

    zero = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), jax.eval_shape(draw, numbers[0] if len(numbers) else 0))
    return lax.scan(update, (zero, zero), (jnp.arange(len(numbers)), numbers))[0]


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


def extrapolated_error(found: Estimate) -> float | None:
    """Standard error over draws of the mean over images of a logarithm of a mean; None where too little was drawn.

    The variance falls by r <= 1 from a quarter to a half of the draws, and by as much again to all of them. 1/2 is the r of
    finite variance and many draws; with heavy tails it lies between 1/2 and 1.
    """
    quarter, half = (float(np.mean(variance, dtype=float)) for variance in (found.quarter, found.half))
    if not (math.isfinite(quarter) and math.isfinite(half)):
        return None
    falls = min(max(half / quarter, 0.5), 1.0) if quarter > 0 else 0.5
    return math.sqrt(falls * half / len(found.value))


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


class Annealed(NamedTuple):
    """What an annealed chain found, per image [batch]."""

    bound: Estimate  # over the chains; AIS: lower in expectation; reversed from exact posterior samples: upper
    effective_samples: PerImage  # (sum w)^2 / sum w^2 over the chains
    acceptance: PerImage  # of HMC, mean over the path


def ais(vae: VAE, x: Images, key: Key[Array, ""], sigma: Scalar, temperatures: int, chains: int) -> Annealed:
    """log p(x) by annealed importance sampling from the prior to the posterior with HMC (Neal 2001; Wu et al. 2017)."""
    start = vae.prior().sample(keys.at(key, 0), chains * x.shape[0]).reshape(chains, x.shape[0], -1)
    log_weights, acceptance = _anneal(vae, x, start, keys.at(key, 1), sigma, _path(temperatures))
    return _combine(log_weights, acceptance, sign=1)


def reverse_ais(
    vae: VAE, x: Images, z: Latents, key: Key[Array, ""], sigma: Scalar, temperatures: int, chains: int
) -> Annealed:
    """An upper bound of log p(x) in expectation, from an exact posterior sample `z` of each image (Grosse et al. 2015).

    Such samples are there for data that the model itself simulated; with `ais` they bracket log p(x) (BDMC).
    """
    start = jnp.tile(z[None], (chains, 1, 1))
    log_weights, acceptance = _anneal(vae, x, start, key, sigma, _path(temperatures)[::-1])
    return _combine(log_weights, acceptance, sign=-1)


def simulate(vae: VAE, key: Key[Array, ""], count: int, sigma: Scalar) -> tuple[Float[Array, "count *pixels"], Latents]:
    """`count` images from the model, and the latents they were made from: exact posterior samples."""
    z = vae.prior().sample(keys.at(key, 0), count)
    return vae.decode(z, sigma).sample(keys.at(key, 1)), z


def _path(temperatures: int) -> Float[Array, " steps"]:
    """Inverse temperatures from 0 to 1, dense at both ends (the sigmoidal schedule of Grosse et al. 2015)."""
    sigmoid = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, temperatures + 1))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def _combine(log_weights: Float[Array, "chains batch"], acceptance: PerImage, sign: int) -> Annealed:
    def log_mean(weights):
        return sign * (logsumexp(weights, axis=0) - jnp.log(float(len(weights))))

    groups = [log_mean(log_weights[group::GROUPS]) for group in range(GROUPS) if group < len(log_weights)]
    unknown = jnp.full_like(acceptance, jnp.nan)
    value = log_mean(log_weights)
    bound = estimate(jnp.stack(groups), value) if len(groups) == GROUPS else Estimate(value, unknown, unknown)
    effective = jnp.exp(2 * logsumexp(log_weights, axis=0) - logsumexp(2 * log_weights, axis=0))
    return Annealed(bound, effective, acceptance)


def _anneal(vae: VAE, x: Images, z: Float[Array, "chains batch latents"], key: Key[Array, ""], sigma: Scalar, path):
    """Log weights [chains, batch] of the chains from `z` along `path`, and the mean acceptance [batch].

    The step size of each image follows the acceptance of its chains, so it adapts along the path.
    """
    prior = vae.prior()
    chains, batch = z.shape[:2]

    def terms(z):
        flat = z.reshape(chains * batch, -1)
        images = jnp.tile(x, (chains, *(1,) * (x.ndim - 1)))
        log_likelihood = vae.decode(flat, sigma).log_prob(images)
        return prior.log_prob(flat).reshape(chains, batch), log_likelihood.reshape(chains, batch)

    def move(carry, step):
        z, log_weights, size = carry
        number, before, after = step
        log_weights = log_weights + (after - before) * terms(z)[1]

        def log_density(z):
            log_prior, log_likelihood = terms(z)
            return log_prior + after * log_likelihood

        z, acceptance = hmc(log_density, z, keys.at(key, number), jnp.broadcast_to(size[None], (chains, batch)))
        acceptance = jnp.mean(acceptance, axis=0)
        size = jnp.clip(size * jnp.where(acceptance > TARGET_ACCEPTANCE, 1.02, 0.98), 1e-4, 1.0)
        return (z, log_weights, size), acceptance

    steps = (jnp.arange(len(path) - 1), path[:-1], path[1:])
    start = (z, jnp.zeros((chains, batch)), jnp.full((batch,), 0.1))
    (_, log_weights, _), acceptance = lax.scan(move, start, steps)
    return log_weights, jnp.mean(acceptance, axis=0)


def hmc(
    log_density: Callable, z: Float[Array, "chains batch latents"], key: Key[Array, ""], size: Float[Array, "chains batch"]
):
    """One Hamiltonian Monte Carlo transition of every chain: the new z, and its probability of acceptance."""
    value_and_grad = jax.value_and_grad(lambda z: (lambda value: (jnp.sum(value), value))(log_density(z)), has_aux=True)
    step = size[..., None]
    momentum = random.normal(keys.at(key, 0), z.shape)
    (_, before), gradient = value_and_grad(z)

    def leapfrog(carry, _):
        z, momentum, gradient, _ = carry
        momentum = momentum + 0.5 * step * gradient
        z = z + step * momentum
        (_, value), gradient = value_and_grad(z)
        return (z, momentum + 0.5 * step * gradient, gradient, value), None

    (proposal, end, _, after), _ = lax.scan(leapfrog, (z, momentum, gradient, before), length=LEAPFROGS)
    kinetic = 0.5 * (jnp.sum(jnp.square(momentum), axis=-1) - jnp.sum(jnp.square(end), axis=-1))
    # A trajectory that left the finite numbers is rejected.
    log_ratio = jnp.nan_to_num(after - before + kinetic, nan=-jnp.inf)
    accepted = jnp.log(random.uniform(keys.at(key, 1), log_ratio.shape)) < log_ratio
    return jnp.where(accepted[..., None], proposal, z), jnp.exp(jnp.minimum(log_ratio, 0.0))


class RateParts(NamedTuple):
    """The rate of each draw taken apart; mutual_information + total_correlation + dimension_wise_kl is the rate."""

    rate: PerImage  # log q(z | x) - log p(z)
    mutual_information: PerImage  # log q(z | x) - log q(z)
    total_correlation: PerImage  # log q(z) - sum_i log q(z_i)
    dimension_wise_kl: PerImage  # sum_i log q(z_i) - log p(z): a KL for each latent where p(z) = prod_i p(z_i)


def rate_parts(posterior: Posterior, own: Posterior, z: Latents, prior: Prior) -> RateParts:
    """E KL(q(z | x) || p) = I(x; z) + TC(z) + sum_i KL(q(z_i) || p_i), one draw at a time (Chen et al. 2018, eq. 2).

    Args:
      posterior: q(z | x_n) of all N images: q(z) is their full mixture, so the mutual information cannot pass log N.
      own: q(z | x) of the images that `z` was drawn from.
      z: one draw per image of `own`.
      prior: p(z).
    """
    count = jnp.log(float(len(posterior.mean)))

    def mixture(z):
        residual = (z[None] - posterior.mean) * jnp.exp(-0.5 * posterior.log_var)
        each = -0.5 * (jnp.square(residual) + posterior.log_var + jnp.log(2 * jnp.pi))
        return logsumexp(jnp.sum(each, axis=1)) - count, jnp.sum(logsumexp(each, axis=0) - count)

    joint, marginals = lax.map(mixture, z)
    conditional, log_prior = own.log_prob(z), prior.log_prob(z)
    return RateParts(conditional - log_prior, conditional - joint, joint - marginals, marginals - log_prior)


class GradientMoments(NamedTuple):
    """Mean [batch, 2 * latents] and total variance [batch] of one-draw estimates of a gradient."""

    mean: Float[Array, "batch parameters"]
    variance: PerImage
    error: PerImage  # squared standard error of `variance`, by how two halves of the draws differ


def gradient_moments(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int
) -> dict[str, GradientMoments]:
    """Two estimators of the gradient of E_q[log p(x | z)] in (mean, log_var), over `samples` draws each.

    `reparameterized` differentiates through z = mean + std * eps (Kingma & Welling 2014); `score` multiplies log p(x | z)
    by the gradient of log q(z | x) (Williams 1992). Both are unbiased.
    """

    def reparameterized(key):
        def total(posterior):
            return jnp.sum(vae.decode(reparameterize(key, posterior), sigma).log_prob(x))

        gradient = jax.grad(total)(posterior)
        return jnp.concatenate([gradient.mean, gradient.log_var], axis=-1)

    def score(key):
        z = reparameterize(key, posterior)
        gradient = jax.grad(lambda posterior: jnp.sum(posterior.log_prob(z)))(posterior)
        value = vae.decode(z, sigma).log_prob(x)[:, None]
        return value * jnp.concatenate([gradient.mean, gradient.log_var], axis=-1)

    return {
        "reparameterized": _gradient_moments(reparameterized, keys.at(key, 0), samples),
        "score": _gradient_moments(score, keys.at(key, 1), samples),
    }


def _gradient_moments(gradient: Callable, key: Key[Array, ""], samples: int) -> GradientMoments:
    """Of gradient(key of a draw), in two halves of the draws, which then are merged (Chan et al. 1983)."""
    numbers = jnp.arange(samples)
    halves = [moments(lambda number: gradient(keys.at(key, number)), numbers[start::2]) for start in (0, 1)]
    (mean, squares), (other, others) = halves
    counts = -(-samples // 2), samples // 2
    delta = other - mean
    whole = squares + others + jnp.square(delta) * (counts[0] * counts[1] / samples)
    apart = [jnp.sum(part, axis=-1) / max(count - 1, 1) for part, count in zip((squares, others), counts, strict=True)]
    variance = jnp.sum(whole, axis=-1) / max(samples - 1, 1)
    return GradientMoments(mean + delta * (counts[1] / samples), variance, jnp.square(apart[0] - apart[1]) / 4)
