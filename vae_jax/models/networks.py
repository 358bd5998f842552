"""Encoders and decoders by name: deterministic Linen modules, one table each.

    ENCODERS["residual"] = ResidualEncoder

An encoder is built as `module(hidden, latents, activation)` and maps images [batch, *shape] to (mean, log_var), each
[batch, latents]; a decoder is built as `module(hidden, shape, activation)` and maps latents to one output per pixel,
[batch, *shape]. `hidden` lists widths from the image inwards for an encoder, outwards for a decoder.
"""

from collections.abc import Callable

import flax.linen as nn

from vae_jax.core.registry import Registry
from vae_jax.models.conv import ConvDecoder, ConvEncoder
from vae_jax.models.dense import LinearDecoder, LinearEncoder, MLPDecoder, MLPEncoder

ENCODERS: Registry[Callable[..., nn.Module]] = Registry(
    "encoder", {"mlp": MLPEncoder, "conv": ConvEncoder, "linear": LinearEncoder}
)
DECODERS: Registry[Callable[..., nn.Module]] = Registry(
    "decoder", {"mlp": MLPDecoder, "conv": ConvDecoder, "linear": LinearDecoder}
)
