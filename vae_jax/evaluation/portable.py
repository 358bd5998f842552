"""A trained VAE as plain NumPy: layers, statistics, likelihood and prior, for programs that evaluate it without JAX.

A description is a dict:
  latents, shape, noise_scale: of the model;
  encoder: layers from the normalised image to mean and log variance, side by side;
  decoder: layers from the latents to the output per pixel, on the normalised scale;
  statistics: `mean` and, where the model has them, `std`, `whiten`, `color` of flat pixels, and the `offset` that the
    decoder's output gets; {} without normalisation;
  likelihood: kind, levels, and one of log_sigma (a number) and log_scale (where the decoder has a sigma for each pixel);
  prior: kind, and the arrays that it has.
A layer is a dict with `kind` ("dense", "conv" or "conv_transpose"), `kernel`, `bias` and `activation` ("" for none);
convolutions also have `stride` and `shape`, the (height, width, channels) that they read, and transposed ones `size`, the
(height, width) to which their output is cropped. Kernels are stored as in Flax: [inputs, outputs], [side, side, inputs,
outputs]. A network that is told beta is described as it is at the beta of its variables.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.models import flows, likelihoods, networks, priors
from vae_jax.models.conditioning import Gate
from vae_jax.models.conv import of_layers
from vae_jax.models.vae import VAE, ModelSpec

Layer = dict[str, Any]
NETWORKS = ("mlp", "linear", "conv")  # the ones that can be described


def describe(spec: ModelSpec, variables: Mapping, sigma: float, noise_scale: float) -> dict[str, Any] | None:
    """The description of one run's model, or None where its networks are of a kind that has none.

    Args:
      spec: of the model.
      variables: its parameters and statistics, without a runs axis.
      sigma: the likelihood's scale where the spec says "fixed" or "optimal".
      noise_scale: of the objective; 0 is a deterministic code.
    """
    if spec.encoder not in NETWORKS or spec.decoder not in NETWORKS:
        return None
    params = _told(spec, variables)
    bound = VAE(spec).bind(jax.tree.map(jnp.asarray, dict(variables)))
    return {
        "latents": spec.latents,
        "shape": spec.shape,
        "noise_scale": float(noise_scale),
        "encoder": _encoder(spec, params["encoder"]),
        "decoder": _decoder(spec, params["decoder"]),
        "statistics": _statistics(spec, variables.get("statistics", {})),
        "likelihood": _likelihood(spec, bound, variables.get("statistics", {}), sigma),
        "prior": _prior(bound.prior()),
    }


def _told(spec: ModelSpec, variables: Mapping) -> dict:
    """The parameters; of a network that is told beta with its gates, which are affine at one beta, multiplied in."""
    params = jax.tree.map(np.asarray, dict(variables["params"]))
    if spec.conditioning != "beta":
        return params
    log_beta = jnp.asarray(variables["statistics"]["log_beta"])
    folded = _folded(params, log_beta)
    scale, shift = _gate(params["log_var_gate"], log_beta)
    last = folded["encoder"]["MLPEncoder_0"] if spec.encoder == "conv" else folded["encoder"]
    if spec.encoder == "linear":  # log_var is a tenth of a parameter here, as in `_encoder`
        last["log_var"] = last["log_var"] * scale + shift / 10
    else:
        heads, same = last[f"Dense_{len(last) - 1}"], np.zeros_like(shift)
        scale, shift = np.concatenate([same + 1, scale]), np.concatenate([same, shift])
        heads |= {"kernel": heads["kernel"] * scale, "bias": heads["bias"] * scale + shift}
    scale, shift = _gate(params["latents_gate"], log_beta)
    first = (folded["decoder"]["MLPDecoder_0"] if spec.decoder == "conv" else folded["decoder"])["Dense_0"]
    first |= {"kernel": scale[:, None] * first["kernel"], "bias": first["bias"] + shift @ first["kernel"]}
    return folded


def _folded(params: Mapping, log_beta: jax.Array) -> dict:
    """Layers with the gate behind them as layers without."""
    if "gate" in params:
        scale, shift = _gate(params["gate"], log_beta)
        return {"kernel": params["kernel"] * scale, "bias": params["bias"] * scale + shift}
    return {name: _folded(leaf, log_beta) if isinstance(leaf, Mapping) else leaf for name, leaf in params.items()}


def _gate(params: Mapping, log_beta: jax.Array) -> tuple[np.ndarray, np.ndarray]:
    """What a gate multiplies each channel by, and what it adds."""
    channels = params["gain"].shape[-1]
    ends = jnp.stack([jnp.zeros(channels), jnp.ones(channels)])
    shift, both = np.asarray(Gate(channels).apply({"params": dict(params)}, ends, log_beta))
    return both - shift, shift


def _dense(params: Mapping, activation: str = "") -> Layer:
    return {"kind": "dense", "kernel": params["kernel"], "bias": params["bias"], "activation": activation}


def _mlp(params: Mapping, activation: str) -> list[Layer]:
    """Dense layers in order, all but the last with the activation."""
    count = len(params)
    return [_dense(params[f"Dense_{i}"], activation if i < count - 1 else "") for i in range(count)]


def _encoder(spec: ModelSpec, params: Mapping) -> list[Layer]:
    of = networks.layers("encoder", vars(spec))
    if spec.encoder == "linear":
        kernel, bias = params["Dense_0"]["kernel"], params["Dense_0"]["bias"]
        # log_var does not depend on the image; its parameter is a tenth of it.
        both = np.concatenate([kernel, np.zeros_like(kernel)], axis=1), np.concatenate([bias, 10 * params["log_var"]])
        return [_dense({"kernel": both[0], "bias": both[1]})]
    if spec.encoder == "mlp":
        return _mlp(params, of["activation"])
    layers, shape = [], spec.shape
    for number, stride in enumerate(of_layers(of["stride"], len(of["hidden"]) - 1)):
        layer = params[f"Conv_{number}"]
        layers.append({"kind": "conv", **layer, "activation": of["activation"], "shape": shape, "stride": stride})
        shape = (-(-shape[0] // stride), -(-shape[1] // stride), len(layer["bias"]))
    return layers + _mlp(params["MLPEncoder_0"], of["activation"])


def _decoder(spec: ModelSpec, params: Mapping) -> list[Layer]:
    activation = networks.layers("decoder", vars(spec))["activation"]
    if spec.decoder in ("linear", "mlp"):
        return _mlp(params, activation)
    layers = _mlp(params["MLPDecoder_0"], activation)
    layers[-1]["activation"] = activation  # what the first transposed convolution reads
    kernels = [params[f"ConvTranspose_{number}"] for number in range(len(params) - 1)]
    strides = of_layers(networks.layers("decoder", vars(spec))["stride"], len(kernels))
    sizes = [tuple(spec.shape[:2])]
    for stride in strides:
        sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
    outwards = zip(sizes[:0:-1], sizes[-2::-1], kernels, strides[::-1], strict=True)
    for number, (read, size, kernel, stride) in enumerate(outwards):
        layer = {"kind": "conv_transpose", **kernel, "activation": activation if number < len(kernels) - 1 else ""}
        layers.append(layer | {"shape": (*read, kernel["kernel"].shape[2]), "size": size, "stride": stride})
    return layers


def _statistics(spec: ModelSpec, statistics: Mapping) -> dict[str, np.ndarray]:
    if spec.normalize == "none":
        return {}
    found = {"mean": np.ravel(statistics["mean"])}
    if spec.normalize == "standardize":
        found["std"] = np.ravel(statistics["std"])
    if spec.normalize == "whiten":
        found |= {name: np.asarray(statistics[name]) for name in ("whiten", "color")}
    offset = likelihoods.LIKELIHOODS[spec.likelihood].inverse_mean(jnp.asarray(found["mean"]))
    return found | {"offset": np.asarray(offset)}


def _likelihood(spec: ModelSpec, bound: VAE, statistics: Mapping, sigma: float) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": spec.likelihood, "levels": spec.levels}
    if spec.sigma == "per_pixel":
        scale = float(np.log(statistics["scale"])) if spec.normalize != "none" else 0.0
        found |= {"log_scale": scale, "least_log_sigma": float(statistics.get("least_log_sigma", -np.inf))}
    elif spec.sigma:
        found["log_sigma"] = float(bound.log_sigma(jnp.float32(sigma)))
    return found


def _prior(prior: priors.Prior) -> dict[str, Any]:
    """By its struct: a mixture's components, the layers of a flow of several latents, of the others the name or "other"."""
    if isinstance(prior, priors.Mixture):
        return {"kind": "mixture", **_arrays(prior, ("log_weights", "mean", "log_var"))}
    if isinstance(prior, priors.Flow) and all(isinstance(layer, flows.Coupling) for layer in prior.layers):
        names = ("kernel", "bias", "kernel_out", "bias_out")
        return {"kind": "flow", "layers": [_arrays(layer, names) for layer in prior.layers]}
    kinds: dict[type, str] = {priors.Normal: "normal", priors.Laplace: "laplace", priors.StudentT: "student_t"}
    return {"kind": kinds.get(type(prior), "other")}


def _arrays(struct: Any, names: Sequence[str]) -> dict[str, np.ndarray]:
    return {name: np.asarray(getattr(struct, name)) for name in names}
