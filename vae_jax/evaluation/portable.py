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
outputs].

A network that is told beta also has `log_beta`, the one of its variables, `log_var_gate`, of the encoder's log variance,
`latents_gate`, of what the decoder gets, and in each layer a `gate` between kernel and activation. A gate is a dict of
`slope`, `place` and `lowest` [width], `gain` and `shift` [width, channels]: with h = tanh(slope * (log_beta - place))
- lowest it makes x * (1 + tanh(h @ gain)) + h @ shift of x.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vae_jax.models import flows, likelihoods, networks, priors
from vae_jax.models.conditioning import SCALE
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
    params = jax.tree.map(np.asarray, dict(variables["params"]))
    statistics = variables.get("statistics", {})
    if spec.conditioning == "beta":
        params = _from_lowest(params, np.asarray(statistics["lowest_log_beta"]))
    bound = VAE(spec).bind(jax.tree.map(jnp.asarray, dict(variables)))
    described = {
        "latents": spec.latents,
        "shape": spec.shape,
        "noise_scale": float(noise_scale),
        "encoder": _encoder(spec, params["encoder"]),
        "decoder": _decoder(spec, params["decoder"]),
        "statistics": _statistics(spec, statistics),
        "likelihood": _likelihood(spec, bound, statistics, sigma),
        "prior": _prior(bound.prior()),
    }
    if spec.conditioning == "beta":
        described |= {name: _gate(params[name]) for name in ("log_var_gate", "latents_gate")}
        described["log_beta"] = float(statistics["log_beta"])
    return described


def _from_lowest(params: Mapping, lowest: np.ndarray) -> dict:
    """The parameters, those of each gate with what its steps are counted from: their value at the smallest beta."""
    if {"slope", "place"} <= params.keys():
        return {**params, "lowest": np.tanh(params["slope"] * (lowest - params["place"]))}
    return {name: _from_lowest(leaf, lowest) if isinstance(leaf, Mapping) else leaf for name, leaf in params.items()}


def _gate(params: Mapping) -> dict[str, np.ndarray]:
    """A gate, with the scale of its steps multiplied into what reads them."""
    scaled = {name: np.float32(SCALE) * params[name] for name in ("gain", "shift")}
    return {name: params[name] for name in ("slope", "place", "lowest")} | scaled


def _layer(kind: str, params: Mapping, activation: str, **more: Any) -> Layer:
    """A layer of a network from its parameters, with the gate behind it where it has one."""
    layer = {"kind": kind, "kernel": params["kernel"], "bias": params["bias"], "activation": activation, **more}
    return layer | ({"gate": _gate(params["gate"])} if "gate" in params else {})


def _mlp(params: Mapping, activation: str) -> list[Layer]:
    """Dense layers in order, all but the last with the activation."""
    count = len(params)
    return [_layer("dense", params[f"Dense_{i}"], activation if i < count - 1 else "") for i in range(count)]


def _encoder(spec: ModelSpec, params: Mapping) -> list[Layer]:
    of = networks.layers("encoder", vars(spec))
    if spec.encoder == "linear":
        return [_linear(params)]
    if spec.encoder == "mlp":
        return _mlp(params, of["activation"])
    layers, shape = [], spec.shape
    for number, stride in enumerate(of_layers(of["stride"], len(of["hidden"]) - 1)):
        layers.append(_layer("conv", params[f"Conv_{number}"], of["activation"], shape=shape, stride=stride))
        shape = (-(-shape[0] // stride), -(-shape[1] // stride), len(layers[-1]["bias"]))
    return layers + _mlp(params["MLPEncoder_0"], of["activation"])


def _linear(params: Mapping) -> Layer:
    """Mean and log variance of a linear encoder as one layer: log_var does not depend on the image."""
    mean = _layer("dense", params["Dense_0"], "")
    # The parameter is a tenth of log_var.
    bias = np.concatenate([mean["bias"], 10 * params["log_var"]])
    layer = mean | {"kernel": np.concatenate([mean["kernel"], np.zeros_like(mean["kernel"])], axis=1), "bias": bias}
    if "gate" in mean:  # of the mean alone
        both = {name: np.concatenate([mean["gate"][name], 0 * mean["gate"][name]], axis=1) for name in ("gain", "shift")}
        layer["gate"] = mean["gate"] | both
    return layer


def _decoder(spec: ModelSpec, params: Mapping) -> list[Layer]:
    activation = networks.layers("decoder", vars(spec))["activation"]
    if spec.decoder in ("linear", "mlp"):
        return _mlp(params, activation)
    layers = _mlp(params["MLPDecoder_0"], activation)
    layers[-1]["activation"] = activation  # what the first transposed convolution reads
    convolutions = [params[f"ConvTranspose_{number}"] for number in range(len(params) - 1)]
    strides = of_layers(networks.layers("decoder", vars(spec))["stride"], len(convolutions))
    sizes = [tuple(spec.shape[:2])]
    for stride in strides:
        sizes.append((-(-sizes[-1][0] // stride), -(-sizes[-1][1] // stride)))
    outwards = zip(sizes[:0:-1], sizes[-2::-1], convolutions, strides[::-1], strict=True)
    for number, (read, size, each, stride) in enumerate(outwards):
        more = {"shape": (*read, each["kernel"].shape[2]), "size": size, "stride": stride}
        layers.append(_layer("conv_transpose", each, activation if number < len(convolutions) - 1 else "", **more))
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
