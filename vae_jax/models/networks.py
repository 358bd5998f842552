"""Encoders and decoders by name: deterministic Linen modules, one table each.

    ENCODERS["residual"] = ResidualEncoder

An encoder is built as `module(hidden, latents, activation)` and maps images [batch, *shape] to (mean, log_var), each
[batch, latents]; a decoder is built as `module(hidden, shape, activation)` and maps latents to one output per pixel,
[batch, *shape]. `hidden` lists widths from the image inwards for an encoder, outwards for a decoder. A module with fields
named in `OPTIONS` gets them from the config too.
"""

from collections.abc import Callable, Mapping
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
# Fields of that group that the decoder may have of its own: `decoder_hidden`, ...
LAYERS = ("hidden", "activation", *OPTIONS)


def takes(network: Callable[..., nn.Module], option: str) -> bool:
    """Whether a network has that field."""
    return option in getattr(network, "__dataclass_fields__", {})


def field_of(part: str, name: str, model: Mapping[str, Any]) -> str:
    """Which field of the `model` group holds one of `LAYERS` for "encoder" or "decoder": `hidden` or `decoder_hidden`."""
    own = f"decoder_{name}"
    return own if part == "decoder" and model[own] else name


def layers(part: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """`LAYERS` of "encoder" or "decoder", those of numbers listed from the image inwards."""
    return {name: model[field_of(part, name, model)] for name in LAYERS}


def used(model: Mapping[str, Any]) -> set[str]:
    """The fields of the `model` group that hold `LAYERS` of its encoder or its decoder."""
    tables: dict[str, Registry] = {"encoder": ENCODERS, "decoder": DECODERS}
    return {
        field_of(part, name, model)
        for part, table in tables.items()
        for name in LAYERS
        if (takes(table[model[part]], name) if name in OPTIONS else model[part] != "linear")
    }


def encoder(model: Mapping[str, Any]) -> nn.Module:
    """The encoder of a `model` group (`vars` of a spec)."""
    network, of = ENCODERS[model["encoder"]], layers("encoder", model)
    return network(of["hidden"], model["latents"], of["activation"], **_options(network, of))


def decoder(model: Mapping[str, Any], shape: tuple[int, ...]) -> nn.Module:
    """The decoder of a `model` group, with outputs of this shape."""
    network, of = DECODERS[model["decoder"]], layers("decoder", model)
    return network(of["hidden"][::-1], shape, of["activation"], **_options(network, of))


def _options(network: Callable[..., nn.Module], of: Mapping[str, Any]) -> dict[str, Any]:
    return {name: of[name] for name in OPTIONS if takes(network, name)}
