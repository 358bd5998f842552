"""What is minimised: per-example terms in nats, then one batch-level loss of those terms.

    loss = distortion_weight * D + beta * R

with D = -log p(x | z) summed over pixels and R = KL(q(z | x) || p(z)) summed over latents. AE, VAE and beta-VAE differ
in three traced numbers (`Weights`) only. -loss of the VAE (1, 1, 1) is the ELBO.
"""

from typing import Any

import jax.numpy as jnp
from flax import struct
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

    distortion: Float[Array, " batch"]
    rate_per_latent: Float[Array, "batch latents"]
    posterior: Posterior

    @property
    def rate(self) -> Float[Array, " batch"]:
        return jnp.sum(self.rate_per_latent, axis=-1)


def terms(
    vae: VAE,
    x: Float[Array, "batch *pixels"],
    key: Key[Array, ""],
    noise_scale: Number,
    sigma: Number,
) -> Terms:
    """Encode, draw one z per image, decode; `vae` is bound to its parameters.

    The rate is the finite KL of (mean, log_var), whatever noise_scale is: a deterministic code has infinite rate, and
    says so where it is reported (`evaluation`), not where a gradient is taken.
    """
    posterior = vae.encode(x)
    z = reparameterize(key, posterior, noise_scale)
    return Terms(
        distortion=-vae.decode(z, sigma).log_prob(x),
        rate_per_latent=vae.prior().rate_per_latent(posterior.mean, posterior.log_var),
        posterior=posterior,
    )


def loss(terms: Terms, weights: Weights) -> Float[Array, ""]:
    """distortion_weight * D + beta * R, mean over the batch, in nats per image."""
    return jnp.mean(weights.distortion_weight * terms.distortion + weights.beta * terms.rate)
