"""Networks that are told beta: what every layer gives is multiplied and shifted by a small function of log beta.

One wrapper for every network: it acts on each layer (a module with `features`) by intercepting its call, so that no
network is written twice. As in the multi-rate VAE (Bae et al. 2022), one network then has the whole trade-off.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

CONDITIONING = ("none", "beta")
WIDTH = 16  # of the hidden layer of each function of log beta
# Of that layer's outputs: a gate then moves about as fast as other parameters do under Adam. A faster one closes while
# nothing is learned yet, and what has closed on both sides of a latent hardly opens again.
SCALE = 0.2


class Gate(nn.Module):
    """x * (1 + tanh(gain)) + shift, where gain and shift of each channel (the last axis) are functions of log beta.

    Starts as the identity; the factor stays between 0, which switches a channel off, and 2.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest"], log_beta: Float[Array, "..."]) -> Float[Array, "batch *rest"]:
        """`log_beta` is one number, or one for each of the batch."""
        time = jnp.broadcast_to(log_beta.astype(x.dtype), x.shape[:1])[:, None]
        # Steps of a width of about 1 in log beta, at places over a range of several.
        slope = self.param("slope", nn.initializers.normal(2.0), (WIDTH,))
        offset = self.param("offset", nn.initializers.normal(4.0), (WIDTH,))
        hidden = SCALE * jnp.tanh(time * slope[None] + offset[None])
        shape = (x.shape[0], *(1,) * (x.ndim - 2), self.channels)
        gain, shift = (
            (hidden @ self.param(name, nn.initializers.zeros_init(), (WIDTH, self.channels))).reshape(shape)
            for name in ("gain", "shift")
        )
        return x * (1 + jnp.tanh(gain)) + shift


def at(variables: Mapping, log_beta: Float[Array | np.ndarray, "..."]) -> dict:
    """The variables of a network that is told beta (or of many, with a leading axis), with this beta for theirs."""
    return {**variables, "statistics": {**variables["statistics"], "log_beta": log_beta}}


def gated(log_beta: Float[Array, "..."]) -> Callable:
    """An interceptor of Linen methods (`nn.intercept_methods`) that puts a gate behind every layer."""

    def interceptor(following, args, kwargs, context):
        output = following(*args, **kwargs)
        features = getattr(context.module, "features", None)
        if context.method_name != "__call__" or not isinstance(features, int):
            return output
        return Gate(features, name="gate")(output, log_beta)

    return interceptor
