"""What is minimised: per-example terms in nats, then one loss of a batch of those terms, by name.

    loss = distortion_weight * D + beta * R

with D = -log p(x | z) summed over pixels and R = KL(q(z | x) || p(z)) summed over latents. AE, VAE and beta-VAE differ
in three traced numbers (`Weights`) only. -loss of the VAE (1, 1, 1) is the ELBO. The other entries of `OBJECTIVES` choose
a point of the same trade-off in other ways.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct
from jax import lax
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from vae_jax.core import schema
from vae_jax.core.registry import Registry
from vae_jax.models.priors import Prior
from vae_jax.models.vae import VAE, Posterior, reparameterize
from vae_jax.training import discrepancies
from vae_jax.training.rows import WHOLE, Rows

# A number: inside a program traced, on the host a NumPy scalar, or an array with one for each run.
Number = Any


OBJECTIVES: Registry["Objective"] = Registry("objective")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """The loss: distortion_weight * D + beta * R in nats per image, or another objective."""

    kind: str = schema.field("weighted", "Which objective.", choices=OBJECTIVES, absent="weighted")
    noise_scale: float = schema.field(
        1.0, "s of z = mean + s * std * eps; 0: an AE.", low=0, high=1e6, traced=True, unused=1
    )
    distortion_weight: float = schema.field(1.0, "Weight of the distortion D.", low=0, high=1e6, traced=True, unused=1)
    beta: float = schema.field(
        1.0, "Weight of the rate R (tc: of the total correlation).", low=0, high=1e6, traced=True, unused=1
    )
    beta_low: float = schema.field(
        0.05, "model.conditioning=beta: smallest beta it is trained for.", low=1e-6, high=1e6, traced=True, absent=0.05
    )
    beta_high: float = schema.field(
        6.0, "model.conditioning=beta: largest beta it is trained for.", low=1e-6, high=1e6, traced=True, absent=6.0
    )
    importance_samples: int = schema.field(1, "importance: draws of z per image.", low=1, high=10_000, unused=1)
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


# A variable of its own, because a type checker takes no call for a base class.
_NUMBERS: Any = schema.numbers(ObjectiveConfig)


@struct.dataclass
class Weights(_NUMBERS):
    """The traced fields of `ObjectiveConfig`, each a number: what differs between the runs of one program."""


@struct.dataclass
class Terms:
    """Per-example terms of one batch, in nats."""

    distortion: Float[Array, " batch"]  # mean over the draws, where there are several
    rate_per_latent: Float[Array, "batch latents_or_1"]  # finite; [batch, 1] where the prior does not separate latents
    reported_rate: Float[Array, " batch"]  # KL of the distribution that z is drawn from: infinite without noise
    posterior: Posterior
    z: Float[Array, "batch latents"]  # the draw; the first, where there are several
    log_weights: Float[Array, "samples batch"] | None = None  # log p(x, z) - log q(z | x), where there are several

    @property
    def rate(self) -> Float[Array, " batch"]:
        """The finite KL of (mean, log_var), which the loss uses whatever noise_scale is."""
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
    samples: int = 0,
    rows: Rows = WHOLE,
) -> Terms:
    """Encode, draw z, decode.

    Args:
      vae: bound to its parameters.
      x: images.
      key: of the draws.
      noise_scale: s of z = mean + s * std * eps.
      sigma: of the decoder, where that is a number.
      samples: draws per image whose importance weights are wanted; 0: one draw, and no weights.
      rows: the part of the batch that `x` is.
    """
    posterior, prior = vae.encode(x), vae.prior()
    if samples:
        # All draws through the decoder in one batch [samples * batch].
        many, images = jax.tree.map(lambda leaf: jnp.tile(leaf, (samples, *(1,) * (leaf.ndim - 1))), (posterior, x))
        draws = reparameterize(key, many, noise_scale, rows.draw)
        log_likelihood = vae.log_likelihood(images, draws, sigma)
        log_weights = (log_likelihood + prior.log_prob(draws) - many.log_prob(draws)).reshape(samples, -1)
        z, distortion = draws[: len(x)], -jnp.mean(log_likelihood.reshape(samples, -1), axis=0)
    else:
        z, log_weights = reparameterize(key, posterior, noise_scale, rows.draw), None
        distortion = -vae.log_likelihood(x, z, sigma, rows.mean)
    rate = posterior.rate_per_latent(prior, z)
    return Terms(distortion, rate, reported_rate(prior, posterior, rate, noise_scale), posterior, z, log_weights)


def reported_rate(
    prior: Prior, posterior: Posterior, rate: Float[Array, "batch latents_or_1"], noise_scale: Number
) -> Float[Array, " batch"]:
    """KL of N(mean, (noise_scale * std)^2), that z is drawn from, to the prior, in nats: infinite where noise_scale is 0.

    `rate` is that of noise_scale 1; it is also used where the KL has no closed form, and noise_scale is 0 or 1 (a rule).
    """
    if prior.has_closed_rate:
        scaled = posterior.scaled(noise_scale)
        rate = prior.rate_per_latent(scaled.mean, scaled.log_var)
    return jnp.where(noise_scale > 0, jnp.sum(rate, axis=-1), jnp.inf)


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
    """distortion_weight * D + beta * R; over sqrt(max(beta, 1)) where each image has its own beta."""
    loss = weights.distortion_weight * terms.distortion + weights.beta * terms.rate
    return jnp.mean(_balanced(loss, weights)), {}


def _balanced(loss: Float[Array, " batch"], weights: Weights) -> Float[Array, " batch"]:
    """Where each image has a beta of its own, losses of about one size: a large beta must not outweigh the others.

    By the root: over beta itself, what the loss has to say of large betas is too little beside the small ones.
    """
    return loss / jnp.sqrt(jnp.maximum(weights.beta, 1)) if jnp.ndim(weights.beta) else loss


def importance(terms: Terms, weights: Weights, context: Context) -> Loss:
    """-importance_bound of `objective.importance_samples` draws (IWAE, Burda et al. 2016)."""
    assert terms.log_weights is not None  # `needs_draws`
    return -jnp.mean(importance_bound(terms.log_weights)), {}


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
LARGEST = 1e4  # the multiplier and its inverse stay below this, also where the target cannot be reached


def geco(terms: Terms, weights: Weights, context: Context) -> Loss:
    """The least rate at which the distortion is `distortion_target`, by a Lagrange multiplier (Rezende & Viola 2018).

    The multiplier of the distortion grows while the moving average of the batches lies above the target, and falls below.
    A target that cannot be reached leaves it at its bound: nearly an autoencoder, or nothing reconstructed.
    """
    constraint = jnp.mean(terms.distortion) - weights.distortion_target
    log_multiplier, average = context.carried["log_multiplier"], context.carried["constraint"]
    loss = jnp.mean(terms.rate) + jnp.exp(log_multiplier) * constraint
    average = AVERAGING * average + (1 - AVERAGING) * lax.stop_gradient(constraint)
    # Relative to a tenth of the target, so that images of any size take as long; to at least one nat, as it may be near 0.
    pace = average / (PATIENCE * jnp.maximum(0.1 * jnp.abs(weights.distortion_target), 1.0))
    after = jnp.clip(log_multiplier + jnp.clip(pace, -0.05, 0.05), -math.log(LARGEST), math.log(LARGEST))
    return loss, {"log_multiplier": after, "constraint": average}


def missed_by(weights: Weights, distortion: Number) -> Number:
    """Nats by which a distortion lies above the target of `geco`; 0 where it is met, to 1 % of the target or 0.1 nats.

    Args:
      weights: with `distortion_target`, which is sought on training batches.
      distortion: of the trained model, on the training split.
    """
    gap = np.subtract(distortion, weights.distortion_target, dtype=float)
    return np.where(gap > np.maximum(0.01 * np.abs(weights.distortion_target), 0.1), gap, 0.0)


def tc(terms: Terms, weights: Weights, context: Context) -> Loss:
    """beta weighs only the total correlation: D + I(x; z) + beta * TC + dimension-wise KL (Chen et al. 2018).

    Written as D + R + (beta - 1) * TC, which it is in expectation, so that at beta = 1 it is the ELBO itself.
    """
    each = discrepancies.total_correlation(terms.z, terms.posterior, context.train_size)
    if jnp.ndim(weights.beta):
        loss = weights.distortion_weight * terms.distortion + terms.rate + (weights.beta - 1) * each
        return jnp.mean(_balanced(loss, weights)), {}
    total = jnp.mean(each)
    return jnp.mean(weights.distortion_weight * terms.distortion + terms.rate) + (weights.beta - 1) * total, {}


def mmd(terms: Terms, weights: Weights, context: Context) -> Loss:
    """D + beta * R + mmd_weight * MMD(q(z), p(z)): InfoVAE; with noise_scale and beta 0 the WAE (Zhao, Tolstikhin 2018)."""
    distance = discrepancies.maximum_mean_discrepancy(terms.z, context.prior.sample(context.key, len(terms.z)))
    loss = jnp.mean(weights.distortion_weight * terms.distortion + weights.beta * terms.rate)
    return loss + weights.mmd_weight * distance, {}


@dataclasses.dataclass(frozen=True)
class Objective:
    """A loss and what it depends on.

    Attributes:
      loss: of the terms of a batch.
      uses: the fields of `Weights` that have an effect.
      carried: what it carries from step to step, as it starts.
      rate_is_optional: whether beta 0 removes the rate from the loss.
      can_be_conditioned: whether its beta may be one for each image.
      missed_by: for an objective with a target, how far above it a training distortion is; 0 where the target is met.
      needs_draws: whether it is of `objective.importance_samples` draws per image with their importance weights.
    """

    loss: Callable[[Terms, Weights, Context], Loss]
    uses: tuple[str, ...]
    carried: dict[str, float] = dataclasses.field(default_factory=dict)
    rate_is_optional: bool = False
    needs_draws: bool = False
    can_be_conditioned: bool = False
    missed_by: Callable[[Weights, Number], Number] | None = None

    def holds_to_prior(self, beta: Number, mmd_weight: Number = 0.0) -> bool:
        """Whether anything pulls the posterior towards the prior: the rate, or the discrepancy where its weight is given."""
        return not self.rate_is_optional or bool(beta) or bool(mmd_weight)


BOTH = ("noise_scale", "distortion_weight")
OBJECTIVES.update(
    {
        "weighted": Objective(weighted, (*BOTH, "beta"), rate_is_optional=True, can_be_conditioned=True),
        "importance": Objective(importance, (), needs_draws=True),
        "capacity": Objective(capacity, (*BOTH, "capacity", "capacity_weight")),
        "free_bits": Objective(free_bits, (*BOTH, "beta", "free_bits"), rate_is_optional=True),
        "geco": Objective(
            geco,
            ("noise_scale", "distortion_target"),
            {"log_multiplier": 0.0, "constraint": 0.0},
            missed_by=missed_by,
        ),
        "tc": Objective(tc, (*BOTH, "beta"), can_be_conditioned=True),
        "mmd": Objective(mmd, (*BOTH, "beta", "mmd_weight"), rate_is_optional=True),
    }
)
