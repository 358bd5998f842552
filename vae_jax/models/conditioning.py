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
WIDTH = 8  # of the hidden layer of each function of log beta


class Gate(nn.Module):
    """x * (1 + gain) + shift, where gain and shift of each channel (the last axis) are functions of log beta.

    Starts as the identity.
    """

    channels: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch *rest"], log_beta: Float[Array, "..."]) -> Float[Array, "batch *rest"]:
        """`log_beta` is one number, or one for each of the batch."""
        time = jnp.broadcast_to(log_beta.astype(x.dtype), x.shape[:1])[:, None]
        slope, offset = (self.param(name, nn.initializers.normal(1.0), (WIDTH,)) for name in ("slope", "offset"))
        hidden = jnp.tanh(time * slope[None] + offset[None])
        shape = (x.shape[0], *(1,) * (x.ndim - 2), self.channels)
        gain, shift = (
            (hidden @ self.param(name, nn.initializers.zeros_init(), (WIDTH, self.channels))).reshape(shape)
            for name in ("gain", "shift")
        )
        return x * (1 + gain) + shift


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
