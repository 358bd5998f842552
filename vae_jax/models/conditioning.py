"""Networks that are told beta: what every layer gives is multiplied and shifted by a small function of log beta.

One wrapper for every network: it acts on each layer (a module with `features`) by intercepting its call, so that no
network is written twice. As in the multi-rate VAE (Bae et al. 2022), one network then has the whole trade-off.
"""

from collections.abc import Callable, Mapping

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import random
from jaxtyping import Array, Float

CONDITIONING = ("none", "beta")
WIDTH = 16  # steps of each function of log beta
SCALE = 0.25  # half the height of a step: how fast gates move under Adam, beside other parameters
FLATTEST, STEEPEST = 1.0, 12.0  # slopes at the start; a latent switches off at one beta, where the exact curve has a corner
SPREAD = 2.0  # std of the places of the steps, around beta 1


class Gate(nn.Module):
    """x * (1 + tanh(gain)) + shift, where gain and shift of each channel (the last axis) are functions of log beta.

    Both are sums of smooth steps that are 0 at the smallest beta it is trained for. So a gate starts as the identity, and at
    that beta it remains the identity: what all betas share is left to the layer itself. Gates that could move at every beta
    at once close while nothing is learned yet, and what has closed on both sides of a latent hardly opens again. The factor
    stays between 0, which switches a channel off, and 2.
    """

    channels: int

    @nn.compact
    def __call__(
        self, x: Float[Array, "batch *rest"], log_beta: Float[Array, "..."], lowest: Float[Array, ""]
    ) -> Float[Array, "batch *rest"]:
        """`log_beta` is one number, or one for each of the batch; `lowest` that of the smallest beta."""
        told = jnp.broadcast_to(log_beta.astype(x.dtype), x.shape[:1])[:, None]
        slope = self.param("slope", lambda key: random.uniform(key, (WIDTH,), minval=FLATTEST, maxval=STEEPEST))
        place = self.param("place", nn.initializers.normal(SPREAD), (WIDTH,))
        steps = SCALE * (jnp.tanh(slope[None] * (told - place[None])) - jnp.tanh(slope * (lowest - place))[None])
        shape = (x.shape[0], *(1,) * (x.ndim - 2), self.channels)
        gain, shift = (
            (steps @ self.param(name, nn.initializers.zeros_init(), (WIDTH, self.channels))).reshape(shape)
            for name in ("gain", "shift")
        )
        return x * (1 + jnp.tanh(gain)) + shift


def at(variables: Mapping, log_beta: Float[Array | np.ndarray, "..."]) -> dict:
    """The variables of a network that is told beta (or of many, with a leading axis), with this beta for theirs."""
    return {**variables, "statistics": {**variables["statistics"], "log_beta": log_beta}}


def gated(log_beta: Float[Array, "..."], lowest: Float[Array, ""]) -> Callable:
    """An interceptor of Linen methods (`nn.intercept_methods`) that puts a gate behind every layer."""

    def interceptor(following, args, kwargs, context):
        output = following(*args, **kwargs)
        features = getattr(context.module, "features", None)
        if context.method_name != "__call__" or not isinstance(features, int):
            return output
        return Gate(features, name="gate")(output, log_beta, lowest)

    return interceptor
