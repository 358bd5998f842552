"""What is minimised: per-example terms in nats, then one batch-level loss of those terms.

    loss = distortion_weight * D + beta * R

with D = -log p(x | z) summed over pixels and R = KL(q(z | x) || p(z)) summed over latents. AE, VAE and beta-VAE differ
in three traced numbers (`Weights`) only. -loss of the VAE (1, 1, 1) is the ELBO.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from vae_jax.model import VAE, Posterior, reparameterize

# A number: inside a program traced, on the host a NumPy scalar, or an array with one for each run.
Number = Any


@struct.dataclass
class Weights:
    """The traced numbers of the objective; the fields are those of the config's `objective` group."""

    noise_scale: Number
    distortion_weight: Number
    beta: Number


@struct.dataclass
class Terms:
    """Per-example terms of one batch, in nats."""

    distortion: Float[Array, " batch"]  # mean over the draws, where there are several
    rate_per_latent: Float[Array, "batch latents"]
    posterior: Posterior
    log_weights: Float[Array, "samples batch"] | None = None  # log p(x, z) - log q(z | x), where there are several draws

    @property
    def rate(self) -> Float[Array, " batch"]:
        return jnp.sum(self.rate_per_latent, axis=-1)


def terms(
    vae: VAE,
    x: Float[Array, "batch *pixels"],
    key: Key[Array, ""],
    noise_scale: Number,
    sigma: Number,
    samples: int = 1,
) -> Terms:
    """Encode, draw z per image (once, or `samples` times for the importance-weighted bound), decode; `vae` is bound.

    The rate is the finite KL of (mean, log_var), whatever noise_scale is: a deterministic code has infinite rate, and
    says so where it is reported (`evaluation`), not where a gradient is taken.
    """
    posterior = vae.encode(x)
    prior = vae.prior()
    rate_per_latent = prior.rate_per_latent(posterior.mean, posterior.log_var)
    if samples == 1:
        z = reparameterize(key, posterior, noise_scale)
        return Terms(-vae.decode(z, sigma).log_prob(x), rate_per_latent, posterior)
    # All draws through the decoder in one batch [samples * batch].
    many, images = (jax.tree.map(lambda leaf: jnp.tile(leaf, (samples, *(1,) * (leaf.ndim - 1))), t) for t in (posterior, x))
    z = reparameterize(key, many, noise_scale)
    log_likelihood = vae.decode(z, sigma).log_prob(images)
    log_weights = (log_likelihood + prior.log_prob(z) - many.log_prob(z)).reshape(samples, -1)
    return Terms(-jnp.mean(log_likelihood.reshape(samples, -1), axis=0), rate_per_latent, posterior, log_weights)


def importance_bound(log_weights: Float[Array, "samples batch"]) -> Float[Array, " batch"]:
    """log mean exp of k importance weights, in nats: at k = 1 the ELBO, rising to log p(x) (Burda et al. 2016)."""
    return logsumexp(log_weights, axis=0) - jnp.log(log_weights.shape[0])


def loss(terms: Terms, weights: Weights) -> Float[Array, ""]:
    """distortion_weight * D + beta * R, mean over the batch, in nats per image; of several draws -importance_bound."""
    if terms.log_weights is not None:
        return -jnp.mean(importance_bound(terms.log_weights))
    return jnp.mean(weights.distortion_weight * terms.distortion + weights.beta * terms.rate)
