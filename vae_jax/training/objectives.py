"""What is minimised: per-example terms in nats, then one batch-level loss of those terms, by name.

    loss = distortion_weight * D + beta * R

with D = -log p(x | z) summed over pixels and R = KL(q(z | x) || p(z)) summed over latents. AE, VAE and beta-VAE differ
in three traced numbers (`Weights`) only. -loss of the VAE (1, 1, 1) is the ELBO. The other rows of `OBJECTIVES` are other
ways to choose a point of the same trade-off.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from vae_jax.core import schema
from vae_jax.core.registry import Registry
from vae_jax.models.priors import Prior
from vae_jax.models.vae import VAE, Posterior, reparameterize

# A number: inside a program traced, on the host a NumPy scalar, or an array with one for each run.
Number = Any


OBJECTIVES: Registry["Objective"] = Registry("objective")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The loss: distortion_weight * D + beta * R in nats per image, or another objective."""

    kind: str = schema.field("weighted", "Which objective.", choices=OBJECTIVES, absent="weighted")
    noise_scale: float = schema.field(1.0, "s of z = mean + s * std * eps; 0: an AE.", low=0, high=1e6, traced=True)
    distortion_weight: float = schema.field(1.0, "Weight of the distortion D.", low=0, high=1e6, traced=True, unused=1)
    beta: float = schema.field(
        1.0, "Weight of the rate R (tc: of the total correlation).", low=0, high=1e6, traced=True, unused=1
    )
    importance_samples: int = schema.field(
        1, "Above 1: the importance-weighted bound (IWAE) of so many draws.", low=1, high=10_000
    )
    capacity: float = schema.field(
        0.0, "capacity: the rate that the batch is pulled to, in nats.", low=0, high=1e6, traced=True, unused=0, absent=0.0
    )
    capacity_weight: float = schema.field(10.0, "capacity: gamma.", low=0, high=1e6, traced=True, absent=10.0)
    free_bits: float = schema.field(
        0.0, "free_bits: nats per latent that cost nothing.", low=0, high=1e6, traced=True, unused=0, absent=0.0
    )
    distortion_target: float = schema.field(
        0.0, "geco: the distortion to reach, in nats.", low=-1e9, high=1e9, traced=True, unused=0, absent=0.0
    )
    mmd_weight: float = schema.field(
        0.0, "mmd: weight of the discrepancy between q(z) and p(z).", low=0, high=1e9, traced=True, unused=0, absent=0.0
    )


@struct.dataclass
class Weights:
    """The traced numbers of the config's `objective` group; None where the kind has no use for one."""

    noise_scale: Number
    distortion_weight: Number
    beta: Number = None
    capacity: Number = None  # nats
    capacity_weight: Number = None
    free_bits: Number = None  # nats per latent
    distortion_target: Number = None  # nats
    mmd_weight: Number = None


@struct.dataclass
class Terms:
    """Per-example terms of one batch, in nats."""

    distortion: Float[Array, " batch"]  # mean over the draws, where there are several
    rate_per_latent: Float[Array, "batch latents_or_1"]  # [batch, 1] where the prior does not take the latents apart
    posterior: Posterior
    z: Float[Array, "batch latents"]  # the draw; the first, where there are several
    log_weights: Float[Array, "samples batch"] | None = None  # log p(x, z) - log q(z | x), where there are several

    @property
    def rate(self) -> Float[Array, " batch"]:
        return jnp.sum(self.rate_per_latent, axis=-1)

    def gathered(self, axis_name: str) -> "Terms":
        """The terms of the whole batch, of which each device along a mesh's axis has the rows of one part."""
        rows = dataclasses.replace(self, log_weights=None)
        rows = jax.tree.map(lambda leaf: lax.all_gather(leaf, axis_name, tiled=True), rows)
        if self.log_weights is None:
            return rows
        return dataclasses.replace(rows, log_weights=lax.all_gather(self.log_weights, axis_name, axis=1, tiled=True))


def terms(
    vae: VAE,
    x: Float[Array, "batch *pixels"],
    key: Key[Array, ""],
    noise_scale: Number,
    sigma: Number,
    samples: int = 1,
    draw: Callable | None = None,
    mean: Callable = lambda value: value,
) -> Terms:
    """Encode, draw z per image (once, or `samples` times for the importance-weighted bound), decode; `vae` is bound.

    The rate is the finite KL of (mean, log_var), whatever noise_scale is: a deterministic code has infinite rate, and
    says so where it is reported (`evaluation`), not where a gradient is taken.
    """
    posterior = vae.encode(x)
    prior = vae.prior()
    if samples == 1:
        z = reparameterize(key, posterior, noise_scale, draw)
        return Terms(-vae.log_likelihood(x, z, sigma, mean), posterior.rate_per_latent(prior, z), posterior, z)
    # All draws through the decoder in one batch [samples * batch].
    many, images = (jax.tree.map(lambda leaf: jnp.tile(leaf, (samples, *(1,) * (leaf.ndim - 1))), t) for t in (posterior, x))
    z = reparameterize(key, many, noise_scale, draw)
    log_likelihood = vae.log_likelihood(images, z, sigma)
    log_weights = (log_likelihood + prior.log_prob(z) - many.log_prob(z)).reshape(samples, -1)
    first = z[: len(x)]
    distortion = -jnp.mean(log_likelihood.reshape(samples, -1), axis=0)
    return Terms(distortion, posterior.rate_per_latent(prior, first), posterior, first, log_weights)


def importance_bound(log_weights: Float[Array, "samples batch"]) -> Float[Array, " batch"]:
    """log mean exp of k importance weights, in nats: at k = 1 the ELBO, rising to log p(x) (Burda et al. 2016)."""
    return logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])


@struct.dataclass
class Context:
    """What a loss may need beside the terms of its batch."""

    prior: Prior
    key: Key[Array, ""]  # of draws from the prior
    train_size: int = struct.field(pytree_node=False)
    carried: dict  # what it left behind in the step before


# The loss in nats per image, and what is carried to the next step.
Loss = tuple[Float[Array, ""], dict]


def weighted(terms: Terms, weights: Weights, context: Context) -> Loss:
    """distortion_weight * D + beta * R; of several draws -importance_bound."""
    if terms.log_weights is not None:
        return -jnp.mean(importance_bound(terms.log_weights)), {}
    return jnp.mean(weights.distortion_weight * terms.distortion + weights.beta * terms.rate), {}


def capacity(terms: Terms, weights: Weights, context: Context) -> Loss:
    """The rate of the batch is pulled to a given number of nats (Burgess et al. 2018)."""
    gap = jnp.abs(jnp.mean(terms.rate) - weights.capacity)
    return weights.distortion_weight * jnp.mean(terms.distortion) + weights.capacity_weight * gap, {}


def free_bits(terms: Terms, weights: Weights, context: Context) -> Loss:
    """A latent pays only for what its mean rate over the batch has above `free_bits` (Kingma et al. 2016, C.8)."""
    paid = jnp.maximum(jnp.mean(terms.rate_per_latent, axis=0), weights.free_bits)
    return weights.distortion_weight * jnp.mean(terms.distortion) + weights.beta * jnp.sum(paid), {}


AVERAGING = 0.9  # of the constraint, over steps
# Steps in which a constraint missed by a tenth of the target, or by one nat if that is more, multiplies the multiplier by e.
PATIENCE = 100.0


def geco(terms: Terms, weights: Weights, context: Context) -> Loss:
    """The least rate at which the distortion is `distortion_target`, by a Lagrange multiplier (Rezende & Viola 2018).

    The multiplier of the distortion grows while the moving average of the batches lies above the target, and falls below.
    """
    constraint = jnp.mean(terms.distortion) - weights.distortion_target
    log_multiplier, average = context.carried["log_multiplier"], context.carried["constraint"]
    loss = jnp.mean(terms.rate) + jnp.exp(log_multiplier) * constraint
    average = AVERAGING * average + (1 - AVERAGING) * lax.stop_gradient(constraint)
    # Relative to a tenth of the target, so that images of any size take as long; to at least one nat, as it may be near 0.
    pace = average / (PATIENCE * jnp.maximum(0.1 * jnp.abs(weights.distortion_target), 1.0))
    return loss, {"log_multiplier": log_multiplier + jnp.clip(pace, -0.05, 0.05), "constraint": average}


def tc(terms: Terms, weights: Weights, context: Context) -> Loss:
    """beta weighs only the total correlation: D + I(x; z) + beta * TC + dimension-wise KL (Chen et al. 2018).

    Written as D + R + (beta - 1) * TC, which it is in expectation, so that at beta = 1 it is the ELBO itself.
    """
    total = jnp.mean(total_correlation(terms.z, terms.posterior, context.train_size))
    return jnp.mean(weights.distortion_weight * terms.distortion + terms.rate) + (weights.beta - 1) * total, {}


def total_correlation(z: Float[Array, "batch latents"], posterior: Posterior, train_size: int) -> Float[Array, " batch"]:
    """log q(z) - sum_i log q(z_i) of each draw, with q(z) estimated from the batch, in nats.

    q(z) is the mean of q(z | x_n) over all N images: the image that z was drawn from weighs 1 / N, and the B - 1 others
    of the batch stand for the N - 1 others. So each estimate of a density (not of its logarithm) is unbiased.
    """
    batch = len(z)
    own = jnp.eye(batch, dtype=bool)
    # With a single image there are no others, and this weight is not used.
    others = math.log(max(train_size - 1, 1) / (train_size * max(batch - 1, 1)))
    log_weight = jnp.where(own, -math.log(train_size), others)
    each = jax.vmap(lambda mean, log_var: Posterior(mean[None], log_var[None]).log_prob_per_latent(z))
    log_density = each(posterior.mean, posterior.log_var)  # [image, draw, latent]
    joint = logsumexp(jnp.sum(log_density, axis=-1) + log_weight, axis=0)
    return joint - jnp.sum(logsumexp(log_density + log_weight[..., None], axis=0), axis=-1)


def mmd(terms: Terms, weights: Weights, context: Context) -> Loss:
    """D + beta * R + mmd_weight * MMD(q(z), p(z)): InfoVAE; with noise_scale and beta 0 the WAE (Zhao, Tolstikhin 2018)."""
    distance = maximum_mean_discrepancy(terms.z, context.prior.sample(context.key, len(terms.z)))
    loss = jnp.mean(weights.distortion_weight * terms.distortion + weights.beta * terms.rate)
    return loss + weights.mmd_weight * distance, {}


SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def maximum_mean_discrepancy(z: Float[Array, "n latents"], w: Float[Array, "n latents"]) -> Float[Array, ""]:
    """Squared MMD of two samples of one size, unbiased, under a sum of inverse multiquadratic kernels (Gretton et al. 2012).

    The scales are those of Tolstikhin et al. (2018), for a prior of variance 1.
    """
    count, latents = z.shape

    def kernel(a, b):
        squared = jnp.sum(jnp.square(a[:, None] - b[None]), axis=-1)
        return sum(2 * latents * scale / (2 * latents * scale + squared) for scale in SCALES)

    apart = 1 - jnp.eye(count)
    within = jnp.sum((kernel(z, z) + kernel(w, w)) * apart) / (count * (count - 1))
    return within - 2 * jnp.mean(kernel(z, w))


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and what it is about: the fields of `Weights` it uses, what it carries, and whether beta 0 removes the rate."""

    loss: Callable[[Terms, Weights, Context], Loss]
    uses: tuple[str, ...]  # beside noise_scale and distortion_weight
    carried: dict[str, float] = dataclasses.field(default_factory=dict)  # from step to step, as it starts
    rate_is_optional: bool = False
    weighs_distortion: bool = True  # if not, distortion_weight has no effect

    @property
    def moved_by(self) -> tuple[str, ...]:
        """Every field of `Weights` that has an effect."""
        return ("noise_scale", *(("distortion_weight",) if self.weighs_distortion else ()), *self.uses)

    def holds_to_prior(self, beta: Number, mmd_weight: Number = None) -> bool:
        """Whether anything pulls the posterior towards the prior: the rate, or the discrepancy where its weight is given."""
        return not self.rate_is_optional or bool(beta) or bool(mmd_weight)


OBJECTIVES.update(
    {
        "weighted": Objective(weighted, ("beta",), rate_is_optional=True),
        "capacity": Objective(capacity, ("capacity", "capacity_weight")),
        "free_bits": Objective(free_bits, ("beta", "free_bits"), rate_is_optional=True),
        "geco": Objective(geco, ("distortion_target",), {"log_multiplier": 0.0, "constraint": 0.0}, weighs_distortion=False),
        "tc": Objective(tc, ("beta",)),
        "mmd": Objective(mmd, ("beta", "mmd_weight"), rate_is_optional=True),
    }
)
