"""Dense encoders and decoders, and the activations of all networks.

An encoder maps images [batch, *shape] to (mean, log_var), each [batch, latents]; a decoder maps latents to one output
per pixel, [batch, *shape]. `hidden` lists widths from the image inwards for an encoder, outwards for a decoder.
"""

import math
from collections.abc import Callable

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.core.registry import Registry

ACTIVATIONS: Registry[Callable[[Array], Array]] = Registry(
    "activation", {"relu": nn.relu, "tanh": nn.tanh, "softplus": nn.softplus, "gelu": nn.gelu, "elu": nn.elu}
)

Images = Float[Array, "batch *shape"]
Latents = Float[Array, "batch latents"]


class MLPEncoder(nn.Module):
    """Dense layers of the widths `hidden`, then mean and log_var."""

    hidden: tuple[int, ...]
    latents: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Images) -> tuple[Latents, Latents]:
        hidden = x.reshape(x.shape[0], -1)
        for width in self.hidden:
            hidden = ACTIVATIONS[self.activation](nn.Dense(width)(hidden))
        # One product for both heads.
        mean, log_var = jnp.split(nn.Dense(2 * self.latents)(hidden), 2, axis=-1)
        return mean, log_var


class MLPDecoder(nn.Module):
    """Dense layers of the widths `hidden`, then one output per pixel."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        hidden = z
        for width in self.hidden:
            hidden = ACTIVATIONS[self.activation](nn.Dense(width)(hidden))
        return nn.Dense(math.prod(self.shape))(hidden).reshape(-1, *self.shape)


class LinearEncoder(nn.Module):
    """mean = V x + c; log_var is one learned number per latent: the family of the exact pPCA posterior.

    `hidden` and `activation` are there so that every encoder is built alike; they are not used.
    """

    hidden: tuple[int, ...]
    latents: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Images) -> tuple[Latents, Latents]:
        mean = nn.Dense(self.latents)(x.reshape(x.shape[0], -1))
        # Ten times, because Adam moves all parameters alike, and a log variance has further to go than a weight.
        log_var = 10 * self.param("log_var", nn.initializers.zeros_init(), (self.latents,))
        return mean, jnp.broadcast_to(log_var[None], mean.shape)


class LinearDecoder(nn.Module):
    """W z + b; `hidden` and `activation` are not used."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        return nn.Dense(math.prod(self.shape))(z).reshape(-1, *self.shape)
