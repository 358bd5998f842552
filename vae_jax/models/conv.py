"""Convolutional encoder and decoder. Convolutions are matrix products, which on a CPU is faster than XLA's own."""

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from vae_jax.models.dense import ACTIVATIONS, Images, Latents, MLPDecoder, MLPEncoder

# The 2x2 neighbourhood of blocks that a 4x4 kernel of stride 2 meets.
NEIGHBOURS = ((0, 0), (0, 1), (1, 0), (1, 1))


def _neighbourhood_product(
    x: Float[Array, "batch height width inputs"], weights: Float[Array, "4 inputs outputs"]
) -> Float[Array, "batch h w outputs"]:
    """sum_n shift_n(x) @ weights[n] over the four `NEIGHBOURS`, one row and one column smaller than x: a 2x2 convolution.

    One matrix product: of the four shifts side by side, or with the four weights side by side, whose outputs are shifted
    and added. The same numbers; whichever needs less memory takes less time. Not written as a convolution because inside
    a scan XLA's CPU backend runs its own 30 times slower.
    """
    rows, columns, (inputs, outputs) = x.shape[1] - 1, x.shape[2] - 1, weights.shape[1:]
    if inputs < outputs:
        shifts = [x[:, i : i + rows, j : j + columns] for i, j in NEIGHBOURS]
        product = jnp.concatenate(shifts, axis=-1).reshape(-1, 4 * inputs) @ weights.reshape(4 * inputs, outputs)
        return product.reshape(-1, rows, columns, outputs)
    product = x.reshape(-1, inputs) @ weights.transpose(1, 0, 2).reshape(inputs, 4 * outputs)
    product = product.reshape(*x.shape[:3], 4, outputs)
    shifted = [product[:, i : i + rows, j : j + columns, n] for n, (i, j) in enumerate(NEIGHBOURS)]
    return shifted[0] + shifted[1] + shifted[2] + shifted[3]


class Conv(nn.Module):
    """4x4 convolution of stride 2, padding SAME: the function and parameters of `nn.Conv(features, (4, 4), 2)`.

    As space-to-depth: every 2x2 block of pixels is one pixel of four times the channels, and the kernel meets 2x2 of them.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        batch, height, width, channels = x.shape
        rows, columns = -(-height // 2), -(-width // 2)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x = jnp.pad(x, ((0, 0), (1, 2 * rows + 1 - height), (1, 2 * columns + 1 - width), (0, 0)))
        x = x.reshape(batch, rows + 1, 2, columns + 1, 2, channels).transpose(0, 1, 3, 2, 4, 5)
        x = x.reshape(batch, rows + 1, columns + 1, 4 * channels)
        # Block row, block column, then as in x: row in block, column in block, channel.
        weights = kernel.reshape(2, 2, 2, 2, channels, self.features).transpose(0, 2, 1, 3, 4, 5)
        return _neighbourhood_product(x, weights.reshape(4, 4 * channels, self.features)) + bias[None, None, None]


class ConvTranspose(nn.Module):
    """4x4 transposed convolution of stride 2: the function and parameters of `nn.ConvTranspose(features, (4, 4), (2, 2))`.

    The mirror of `Conv`: the 2x2 neighbourhood that reaches it gives each 2x2 block of the output at once.
    """

    features: int

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        batch, height, width, channels = x.shape
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (4, 4, channels, self.features))
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        # [block row, row in block, block column, column in block, ...] -> blocks, channels, (place in block, feature).
        # Backwards within a block: its first place meets the second row of the kernel.
        weights = kernel.reshape(2, 2, 2, 2, channels, self.features)[:, ::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
        blocks = _neighbourhood_product(x, weights.reshape(4, channels, 4 * self.features))
        blocks = blocks.reshape(batch, height + 1, width + 1, 2, 2, self.features).transpose(0, 1, 3, 2, 4, 5)
        output = blocks.reshape(batch, 2 * height + 2, 2 * width + 2, self.features)
        return output[:, 1:-1, 1:-1] + bias[None, None, None]


class ConvEncoder(nn.Module):
    """Convolutions that halve the image, with `hidden[:-1]` channels, then a dense layer of `hidden[-1]`."""

    hidden: tuple[int, ...]
    latents: int
    activation: str = "relu"

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> tuple[Latents, Latents]:
        for channels in self.hidden[:-1]:
            x = ACTIVATIONS[self.activation](Conv(channels)(x))
        return MLPEncoder(self.hidden[-1:], self.latents, self.activation)(x)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: a dense layer of `hidden[0]`, then transposed convolutions to `shape`."""

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        height, width, colours = self.shape
        channels = self.hidden[1:]
        # Sizes from the image inwards; an odd size is rounded up on the way in and cropped on the way out.
        sizes = [(height, width)]
        for _ in channels:
            sizes.append((-(-sizes[-1][0] // 2), -(-sizes[-1][1] // 2)))
        x = MLPDecoder(self.hidden[:1], (*sizes[-1], channels[0]), self.activation)(z)
        for (rows, columns), features in zip(sizes[-2::-1], (*channels[1:], colours), strict=True):
            x = ConvTranspose(features)(ACTIVATIONS[self.activation](x))[:, :rows, :columns]
        return x
