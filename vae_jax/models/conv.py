"""Convolutional encoder and decoder. On a CPU convolutions are matrix products, which are faster than XLA's own there."""

import functools
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax.numpy as jnp
from jax import lax
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


def _patch_product(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "k k channels features"], stride: int
) -> Float[Array, "batch h w features"]:
    """A convolution without padding: the shifts that the kernel meets side by side, and one matrix product."""
    size, _, channels, features = kernel.shape
    rows, columns = ((length - size) // stride + 1 for length in x.shape[1:3])
    shifts = [
        x[:, i : i + (rows - 1) * stride + 1 : stride, j : j + (columns - 1) * stride + 1 : stride]
        for i in range(size)
        for j in range(size)
    ]
    product = jnp.concatenate(shifts, axis=-1).reshape(-1, size * size * channels) @ kernel.reshape(-1, features)
    return product.reshape(len(x), rows, columns, features)


def _halved(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "4 4 channels features"]
) -> Float[Array, "batch h w features"]:
    """4x4 of stride 2, as space-to-depth: a 2x2 block is one pixel of four times the channels; the kernel meets 2x2."""
    (batch, height, width, channels), features = x.shape, kernel.shape[-1]
    rows, columns = -(-height // 2), -(-width // 2)
    x = jnp.pad(x, ((0, 0), (1, 2 * rows + 1 - height), (1, 2 * columns + 1 - width), (0, 0)))
    x = x.reshape(batch, rows + 1, 2, columns + 1, 2, channels).transpose(0, 1, 3, 2, 4, 5)
    x = x.reshape(batch, rows + 1, columns + 1, 4 * channels)
    # Block row, block column, then as in x: row in block, column in block, channel.
    weights = kernel.reshape(2, 2, 2, 2, channels, features).transpose(0, 2, 1, 3, 4, 5)
    return _neighbourhood_product(x, weights.reshape(4, 4 * channels, features))


def _doubled(
    x: Float[Array, "batch height width channels"], kernel: Float[Array, "4 4 channels features"]
) -> Float[Array, "batch h w features"]:
    """The mirror of `_halved`: the 2x2 neighbourhood that reaches it gives each 2x2 block of the output at once."""
    (batch, height, width, channels), features = x.shape, kernel.shape[-1]
    x = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # [block row, row in block, block column, column in block, ...] -> blocks, channels, (place in block, feature).
    # Backwards within a block: its first place meets the second row of the kernel.
    weights = kernel.reshape(2, 2, 2, 2, channels, features)[:, ::-1, :, ::-1].transpose(0, 2, 4, 1, 3, 5)
    blocks = _neighbourhood_product(x, weights.reshape(4, channels, 4 * features))
    blocks = blocks.reshape(batch, height + 1, width + 1, 2, 2, features).transpose(0, 1, 3, 2, 4, 5)
    return blocks.reshape(batch, 2 * height + 2, 2 * width + 2, features)[:, 1:-1, 1:-1]


def _products(x, kernel, stride: int):
    """`lax.conv_general_dilated` with padding SAME, as matrix products."""
    if (kernel.shape[0], stride) == (4, 2):
        return _halved(x, kernel)
    pads = [max((-(-length // stride) - 1) * stride + kernel.shape[0] - length, 0) for length in x.shape[1:3]]
    x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
    return _patch_product(x, kernel, stride)


def _transposed_products(x, kernel, stride: int):
    """`lax.conv_transpose` with padding SAME, as matrix products."""
    size = kernel.shape[0]
    if (size, stride) == (4, 2):
        return _doubled(x, kernel)
    both = size + stride - 2
    before = size - 1 if stride > size - 1 else -(-both // 2)
    pad = (before, both - before, stride - 1)
    x = lax.pad(x, jnp.zeros((), x.dtype), ((0, 0, 0), pad, pad, (0, 0, 0)))
    return _patch_product(x, kernel, 1)


def _xla(x, kernel, stride: int):
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT)


def _transposed_xla(x, kernel, stride: int):
    return lax.conv_transpose(x, kernel, (stride, stride), "SAME", dimension_numbers=LAYOUT)


LAYOUT = ("NHWC", "HWIO", "NHWC")


class Conv(nn.Module):
    """A convolution with padding SAME: the function and parameters of `nn.Conv(features, (kernel, kernel), stride)`.

    On a CPU matrix products, elsewhere XLA's own: chosen when the program is lowered, on the same parameters.
    """

    features: int
    kernel: int = 4
    stride: int = 2
    on_cpu: ClassVar[Callable] = staticmethod(_products)
    elsewhere: ClassVar[Callable] = staticmethod(_xla)

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> Float[Array, "batch h w features"]:
        shape = (self.kernel, self.kernel, x.shape[-1], self.features)
        kernel = self.param("kernel", nn.initializers.lecun_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros_init(), (self.features,))
        on_cpu, elsewhere = (functools.partial(way, stride=self.stride) for way in (self.on_cpu, self.elsewhere))
        return lax.platform_dependent(x, kernel, cpu=on_cpu, default=elsewhere) + bias[None, None, None]


class ConvTranspose(Conv):
    """A transposed convolution: the function and parameters of `nn.ConvTranspose(features, (kernel, kernel), strides)`."""

    on_cpu: ClassVar[Callable] = staticmethod(_transposed_products)
    elsewhere: ClassVar[Callable] = staticmethod(_transposed_xla)


def of_layers(numbers: tuple[int, ...], count: int) -> tuple[int, ...]:
    """One number for each of `count` layers, where one may be given for all."""
    return numbers * count if len(numbers) == 1 else numbers


class ConvEncoder(nn.Module):
    """Convolutions with `hidden[:-1]` channels, then a dense layer of `hidden[-1]`.

    `kernel` and `stride` have a number for each convolution, or one for all.
    """

    hidden: tuple[int, ...]
    latents: int
    activation: str = "relu"
    kernel: tuple[int, ...] = (4,)
    stride: tuple[int, ...] = (2,)

    @nn.compact
    def __call__(self, x: Float[Array, "batch height width channels"]) -> tuple[Latents, Latents]:
        channels = self.hidden[:-1]
        sizes = of_layers(self.kernel, len(channels)), of_layers(self.stride, len(channels))
        for features, kernel, stride in zip(channels, *sizes, strict=True):
            x = ACTIVATIONS[self.activation](Conv(features, kernel, stride)(x))
        return MLPEncoder(self.hidden[-1:], self.latents, self.activation)(x)


class ConvDecoder(nn.Module):
    """The mirror of `ConvEncoder`: a dense layer of `hidden[0]`, then transposed convolutions to `shape`.

    `kernel` and `stride` are listed from the image inwards, as those of the encoder.
    """

    hidden: tuple[int, ...]
    shape: tuple[int, ...]
    activation: str = "relu"
    kernel: tuple[int, ...] = (4,)
    stride: tuple[int, ...] = (2,)

    @nn.compact
    def __call__(self, z: Latents) -> Images:
        height, width, colours = self.shape
        channels = self.hidden[1:]
        kernels, strides = of_layers(self.kernel, len(channels)), of_layers(self.stride, len(channels))
        # Sizes from the image inwards; what does not divide is rounded up on the way in and cropped on the way out.
        sizes = [(height, width)]
        for stride in strides:
            sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
        x = MLPDecoder(self.hidden[:1], (*sizes[-1], channels[0]), self.activation)(z)
        layers = zip(sizes[-2::-1], (*channels[1:], colours), kernels[::-1], strides[::-1], strict=True)
        for (rows, columns), features, kernel, stride in layers:
            x = ConvTranspose(features, kernel, stride)(ACTIVATIONS[self.activation](x))[:, :rows, :columns]
        return x
