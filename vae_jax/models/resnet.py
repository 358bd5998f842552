"""Residual encoder and decoder: pre-activation blocks with group normalisation (He et al. 2016; Wu & He 2018)."""

import math

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from vae_jax.models.conv import Conv
from vae_jax.models.dense import ACTIVATIONS, Images, Latents, MLPDecoder, MLPEncoder

GROUPS = 8  # of channels, or as many as divide them
EPS = 1e-6  # added to a variance

Maps = Float[Array, "batch height width channels"]


class GroupNorm(nn.Module):
    """Mean 0 and variance 1 over the pixels and channels of each group, then a scale and a bias for each channel.

    The function and parameters of `nn.GroupNorm`, computed in float32 whatever the dtype of the input.
    """

    @nn.compact
    def __call__(self, x: Maps) -> Maps:
        channels = x.shape[-1]
        groups = math.gcd(GROUPS, channels)
        scale = self.param("scale", nn.initializers.ones_init(), (channels,))
        bias = self.param("bias", nn.initializers.zeros_init(), (channels,))
        grouped = x.astype(jnp.float32).reshape(len(x), -1, groups, channels // groups)
        centred = grouped - jnp.mean(grouped, axis=(1, 3), keepdims=True)
        variance = jnp.mean(jnp.square(centred), axis=(1, 3), keepdims=True)
        normal = (centred * lax.rsqrt(variance + EPS)).reshape(x.shape).astype(x.dtype)
        return normal * scale[None, None, None] + bias[None, None, None]


class Block(nn.Module):
    """Normalise, activate, convolve, twice, beside a shortcut that is a 1x1 convolution where the shape changes."""

    features: int
    activation: str
    stride: int = 1

    @nn.compact
    def __call__(self, x: Maps) -> Float[Array, "batch h w features"]:
        activate = ACTIVATIONS[self.activation]
        hidden = activate(GroupNorm()(x))
        shortcut = x
        if self.stride > 1 or x.shape[-1] != self.features:
            shortcut = Conv(self.features, 1, self.stride)(hidden)
        hidden = Conv(self.features, 3, self.stride)(hidden)
        return shortcut + Conv(self.features, 3, 1)(activate(GroupNorm()(hidden)))


class ResNetEncoder(nn.Module):
    """A 3x3 convolution, a block that halves the image for each of `hidden[:-1]`, then a dense layer of `hidden[-1]`."""

    hidden: tuple[int, ...]
    latents: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Maps) -> tuple[Latents, Latents]:
        x = Conv(self.hidden[0], 3, 1)(x)
        for features in self.hidden[:-1]:
            x = Block(features, self.activation, stride=2)(x)
        x = ACTIVATIONS[self.activation](GroupNorm()(x))
        return MLPEncoder(self.hidden[-1:], self.latents, self.activation)(x)


class ResNetDecoder(nn.Module):
    """The mirror of `ResNetEncoder`: a dense layer, then for each of `hidden[1:]` a block and twice as many pixels a side.

    Pixels are doubled by copying the nearest, which leaves no checkerboard (Odena et al. 2016).
    """

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        height, width, colours = self.shape
        # Sizes from the image inwards; an odd size is rounded up on the way in and cropped on the way out.
        sizes = [(height, width)]
        for _ in self.hidden[1:]:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        x = MLPDecoder(self.hidden[:1], (*sizes[-1], self.hidden[1]), self.activation)(z)
        for (rows, columns), features in zip(sizes[-2::-1], self.hidden[1:], strict=True):
            x = Block(features, self.activation)(x)
            x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)[:, :rows, :columns]
        x = ACTIVATIONS[self.activation](GroupNorm()(x))
        return Conv(colours, 3, 1)(x)
