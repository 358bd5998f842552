"""p(x | z): what a decoder's output says about an image, as structs with one interface.

Every struct has `log_prob(x)` in nats per example (summed over pixels, constants included), `mean` (the reconstruction
that is shown), `sample(key)` and `interval(level)`. `LIKELIHOODS` builds one by name from the decoder's output.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import struct
from jax import random
from jax.scipy.special import logit, ndtri
from jaxtyping import Array, Float, Key

# Below this a learned sigma is held: a pixel that never changes would otherwise send the likelihood to infinity.
SIGMA_FLOOR = 1e-3


def sum_pixels(values: Float[Array, "batch *pixels"]) -> Float[Array, " batch"]:
    """Sum over everything but the batch."""
    return jnp.sum(values, axis=tuple(range(1, values.ndim)))


@struct.dataclass
class Bernoulli:
    """Independent bits with logits [batch, *pixels].

    On grey pixels in [0, 1] `log_prob` is the negative cross-entropy: a bound only up to a normaliser.
    """

    logits: Float[Array, "batch *pixels"]

    def log_prob(self, x: Float[Array, "batch *pixels"]) -> Float[Array, " batch"]:
        """x log p + (1 - x) log(1 - p), in nats, from the logits: finite, with finite gradients, at any logit."""
        return sum_pixels(x * self.logits - jax.nn.softplus(self.logits))

    @property
    def mean(self) -> Float[Array, "batch *pixels"]:
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: Key[Array, ""]) -> Float[Array, "batch *pixels"]:
        return random.bernoulli(key, self.mean).astype(self.logits.dtype)

    def interval(self, level: float) -> tuple[Float[Array, "batch *pixels"], Float[Array, "batch *pixels"]]:
        """The central interval of probability at least `level`: of a bit, {0}, {1} or both."""
        tail = (1 - level) / 2
        return (self.mean > 1 - tail).astype(self.logits.dtype), (self.mean >= tail).astype(self.logits.dtype)


@struct.dataclass
class Gaussian:
    """Independent N(mean, exp(log_sigma)^2); log_sigma is a scalar or [batch, *pixels]."""

    mean: Float[Array, "batch *pixels"]
    log_sigma: Float[Array, "..."]

    def log_prob(self, x: Float[Array, "batch *pixels"]) -> Float[Array, " batch"]:
        log_sigma = jnp.broadcast_to(self.log_sigma, x.shape)
        residual = (x - self.mean) * jnp.exp(-log_sigma)
        return sum_pixels(-0.5 * jnp.square(residual) - log_sigma - 0.5 * jnp.log(2 * jnp.pi))

    def sample(self, key: Key[Array, ""]) -> Float[Array, "batch *pixels"]:
        sigma = jnp.broadcast_to(jnp.exp(self.log_sigma), self.mean.shape)
        return self.mean + sigma * random.normal(key, self.mean.shape, self.mean.dtype)

    def interval(self, level: float) -> tuple[Float[Array, "batch *pixels"], Float[Array, "batch *pixels"]]:
        """mean -+ q sigma with q the normal quantile: central, of probability `level`."""
        half = jnp.broadcast_to(ndtri((1 + level) / 2) * jnp.exp(self.log_sigma), self.mean.shape)
        return self.mean - half, self.mean + half


Likelihood = Bernoulli | Gaussian

# name -> (decoder output [batch, *pixels], log_sigma) -> struct. A family without a scale ignores log_sigma.
LIKELIHOODS: dict[str, Callable[..., Likelihood]] = {
    "bernoulli": lambda output, log_sigma: Bernoulli(output),
    "gaussian": Gaussian,
}
# name -> mean image -> the decoder output whose mean it is.
OFFSETS: dict[str, Callable[[Array], Array]] = {
    "bernoulli": lambda mean: logit(jnp.clip(mean, 1e-3, 1 - 1e-3)),
    "gaussian": lambda mean: mean,
}
# The families in which `model.sigma` means something.
WITH_SIGMA = ("gaussian",)


def floored(raw: Float[Array, "..."]) -> Float[Array, "..."]:
    """log sigma from an unconstrained number: smooth, increasing, never below log(SIGMA_FLOOR)."""
    floor = jnp.log(SIGMA_FLOOR)
    return floor + jax.nn.softplus(raw - floor)
