"""Encoders and decoders by name: deterministic Linen modules, one table each.

    ENCODERS["residual"] = ResidualEncoder

An encoder is built as `module(hidden, latents, activation)` and maps images [batch, *shape] to (mean, log_var), each
[batch, latents]; a decoder is built as `module(hidden, shape, activation)` and maps latents to one output per pixel,
[batch, *shape]. `hidden` lists widths from the image inwards for an encoder, outwards for a decoder. A module with fields
named in `OPTIONS` gets them from the config too.
"""

from collections.abc import Callable
from typing import Any

import flax.linen as nn

from vae_jax.core.registry import Registry
from vae_jax.models.conv import ConvDecoder, ConvEncoder
from vae_jax.models.dense import LinearDecoder, LinearEncoder, MLPDecoder, MLPEncoder
from vae_jax.models.resnet import ResNetDecoder, ResNetEncoder

ENCODERS: Registry[Callable[..., nn.Module]] = Registry(
    "encoder", {"mlp": MLPEncoder, "conv": ConvEncoder, "linear": LinearEncoder, "resnet": ResNetEncoder}
)
DECODERS: Registry[Callable[..., nn.Module]] = Registry(
    "decoder", {"mlp": MLPDecoder, "conv": ConvDecoder, "linear": LinearDecoder, "resnet": ResNetDecoder}
)
OPTIONS = ("kernel", "stride")  # fields of the config's `model` group that only some networks have


def takes(network: Callable[..., nn.Module], option: str) -> bool:
    """Whether a network has that field."""
    return option in getattr(network, "__dataclass_fields__", {})


def options(network: Callable[..., nn.Module], spec: Any) -> dict[str, Any]:
    """Those of `OPTIONS` that a network takes, as a spec has them."""
    return {name: getattr(spec, name) for name in OPTIONS if takes(network, name)}
