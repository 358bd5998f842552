"""Estimates from one batch of how far the aggregate posterior is from the prior, or from independent latents."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float

from vae_jax.models.vae import Posterior

SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)  # of the kernels of the MMD


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
