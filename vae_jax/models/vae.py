"""The VAE: an encoder, a decoder and a prior, which return distributions and draw nothing.

vae = VAE(spec).bind({"params": params})
vae.decode(vae.encode(x).mean).mean  # the reconstruction of x
"""

import contextlib
import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import random
from jaxtyping import Array, Float, Key

from vae_jax.core import schema
from vae_jax.models import dense, gaussian, likelihoods, networks, priors
from vae_jax.models.conditioning import CONDITIONING, Gate, gated


@struct.dataclass
class Posterior:
    """q(z | x) = N(mean, exp(log_var)), independent latents."""

    mean: Float[Array, "batch latents"]
    log_var: Float[Array, "batch latents"]

    @property
    def std(self) -> Float[Array, "batch latents"]:
        return jnp.exp(0.5 * self.log_var)

    def scaled(self, noise_scale: float | Float[Array, ""]) -> "Posterior":
        """The distribution that z = mean + noise_scale * std * eps really has: at 0 a point, with log_var -inf."""
        return Posterior(self.mean, self.log_var + 2 * jnp.log(noise_scale))

    def log_prob_per_latent(self, z: Float[Array, "batch latents"]) -> Float[Array, "batch latents"]:
        """log q(z_i | x) of each latent, in nats."""
        residual = (z - self.mean) * jnp.exp(-0.5 * self.log_var)
        return gaussian.log_density(jnp.square(residual), self.log_var)

    def log_prob(self, z: Float[Array, "batch latents"]) -> Float[Array, " batch"]:
        return jnp.sum(self.log_prob_per_latent(z), axis=-1)

    def rate_per_latent(self, prior: priors.Prior, z: Float[Array, "batch latents"]) -> Float[Array, "batch latents_or_1"]:
        """KL(q(z | x) || p(z)) in nats: in closed form where the prior has one, else log q(z | x) - log p(z) of `z`.

        [batch, 1] where the prior does not take the latents apart.
        """
        if prior.has_closed_rate:
            return prior.rate_per_latent(self.mean, self.log_var)
        if prior.has_independent_latents:
            return self.log_prob_per_latent(z) - prior.log_prob_per_latent(z)
        return (self.log_prob(z) - prior.log_prob(z))[:, None]


def reparameterize(
    key: Key[Array, ""],
    posterior: Posterior,
    noise_scale: float | Float[Array, ""] = 1.0,
    draw: Callable | None = None,
) -> Float[Array, "batch latents"]:
    """z = mean + noise_scale * std * eps, eps ~ N(0, I), differentiable in mean and log_var.

    `draw(key, shape, dtype)` stands in for `random.normal` where a device has a part of the batch.
    """
    eps = (draw or random.normal)(key, posterior.mean.shape, posterior.mean.dtype)
    return posterior.mean + noise_scale * posterior.std * eps


# The kinds of decoder scale beside a fixed number: one shared parameter, a head of the decoder for every image and pixel,
# and the one that is best for the batch (in evaluation: for the training split).
SIGMAS = ("learned", "per_pixel", "optimal")
# What the networks see, and undo: pixels as they are, less their mean, also in units of their std, or on principal axes in
# units of theirs. All are affine: a linear network stays linear, its models are the same, only Adam's path is shorter.
NORMALIZE = ("none", "center", "standardize", "whiten")
NETWORKS = ("encoder", "decoder")  # the parts of `VAE` that may compute in another dtype


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The network and what its output means."""

    latents: int = schema.field(2, "Number of latents.", low=1, high=100_000)
    encoder: str = schema.field("mlp", "Network of the encoder.", choices=networks.ENCODERS)
    decoder: str = schema.field("mlp", "Network of the decoder.", choices=networks.DECODERS)
    hidden: tuple[int, ...] = schema.field(
        (64, 64),
        "Widths from the image inwards; conv, resnet: channels of each layer, then a dense width.",
        low=1,
        high=100_000,
    )
    kernel: tuple[int, ...] = schema.field(
        (4,), "conv: height and width of the kernels, one for all layers or one for each.", low=1, high=31, absent=(4,)
    )
    stride: tuple[int, ...] = schema.field(
        (2,), "conv: strides, one for all layers or one for each.", low=1, high=8, absent=(2,)
    )
    activation: str = schema.field("tanh", "Of the hidden layers.", choices=dense.ACTIVATIONS)
    decoder_hidden: tuple[int, ...] = schema.field(
        (),
        "Widths of the decoder, from the image inwards as those of hidden; empty: hidden.",
        low=1,
        high=100_000,
        absent=(),
    )
    decoder_kernel: tuple[int, ...] = schema.field(
        (), "conv: kernels of the decoder, from the image inwards; empty: kernel.", low=1, high=31, absent=()
    )
    decoder_stride: tuple[int, ...] = schema.field(
        (), "conv: strides of the decoder, from the image inwards; empty: stride.", low=1, high=8, absent=()
    )
    decoder_activation: str = schema.field(
        "", "Of the hidden layers of the decoder; empty: activation.", choices=dense.ACTIVATIONS, absent=""
    )
    likelihood: str = schema.field("bernoulli", "p(x | z).", choices=likelihoods.LIKELIHOODS)
    sigma: str = schema.field(
        "0.1", "Std of the likelihoods that have one: a number, learned, per_pixel or optimal (gaussian alone)."
    )
    prior: str = schema.field("normal", "p(z).", choices=priors.PRIORS)
    prior_components: int = schema.field(
        10, "Gaussians of the prior mixture, pseudo-inputs of vamp.", low=1, high=10_000, absent=10
    )
    normalize: str = schema.field("center", "Affine map of the pixels that the networks see.", choices=NORMALIZE)
    conditioning: str = schema.field(
        "none",
        "beta: the networks are told beta, drawn for each image, and one network has the whole trade-off.",
        choices=CONDITIONING,
        absent="none",
    )


@dataclasses.dataclass(frozen=True)
class ModelSpec(ModelConfig):
    """What shapes the network: the config's `model` group, and what the data add.

    `sigma` is the *kind* of the decoder's scale: "fixed" (a traced number), one of `SIGMAS`, or "" where the likelihood
    has none. `shape` is that of an image, `levels` the stored value that means 1, for a likelihood of discrete values.
    """

    shape: tuple[int, ...] = ()
    levels: int = 1


class VAE(nn.Module):
    """Deterministic network of a `ModelSpec`; bound to its parameters, `encode`, `decode` and `prior` can be called.

    With a `dtype`, encoder and decoder compute in it, with parameters bound in it (see `cast`); all else is as given.
    """

    spec: ModelSpec
    dtype: Any = None

    def setup(self) -> None:
        spec = self.spec
        self.encoder = networks.encoder(vars(spec))
        # Two outputs per pixel where one of them is its sigma.
        shape = (*spec.shape[:-1], 2 * spec.shape[-1]) if spec.sigma == "per_pixel" else spec.shape
        self.decoder = networks.decoder(vars(spec), shape)
        self.prior_network = priors.PriorNetwork(spec.prior, spec.latents, spec.prior_components, spec.shape)
        if spec.conditioning == "beta":
            # Of what is no output of a layer: a linear encoder's log_var, and the latents that a decoder gets.
            self.log_var_gate, self.latents_gate = Gate(spec.latents), Gate(spec.latents)
        if spec.sigma == "learned":
            self.raw_log_sigma = self.param("raw_log_sigma", nn.initializers.zeros_init(), ())

    @nn.nowrap
    def cast(self, params: dict) -> dict:
        """`params` with those of the two networks in `dtype`."""
        if self.dtype is None:
            return params
        return params | {name: jax.tree.map(lambda leaf: leaf.astype(self.dtype), params[name]) for name in NETWORKS}

    def _through(self, network: nn.Module, x: Float[Array, "batch *shape"], log_beta: Float[Array, "..."] | None = None):
        """network(x), computed in `dtype`; where the model is conditioned, for the statistic log beta or the one given."""
        with contextlib.ExitStack() as stack:
            if self.spec.conditioning == "beta":
                told = self._statistic("log_beta") if log_beta is None else log_beta
                stack.enter_context(nn.intercept_methods(gated(told, self._statistic("lowest_log_beta"))))
            if self.dtype is None:
                return network(x)
            return jax.tree.map(lambda output: output.astype(x.dtype), network(x.astype(self.dtype)))

    def encode(self, x: Float[Array, "batch *pixels"]) -> Posterior:
        """q(z | x) for images in [0, 1] (or any vectors)."""
        if self.spec.normalize != "none":
            pixels = likelihoods.flat(x) - self._of_pixels("mean")
            if self.spec.normalize == "standardize":
                pixels = pixels / self._of_pixels("std")
            if self.spec.normalize == "whiten":
                pixels = pixels @ self._statistic("whiten")
            x = pixels.reshape(x.shape)
        mean, log_var = self._through(self.encoder, x)
        if self.spec.conditioning == "beta":
            log_var = self.log_var_gate(log_var, self._statistic("log_beta"), self._statistic("lowest_log_beta"))
        return Posterior(mean, log_var)

    def _statistic(self, name: str) -> Float[Array, "..."]:
        """Of the training data (`data.Dataset.statistics`); constant, and in the state so that it is saved with it."""
        return self.get_variable("statistics", name)

    def _of_pixels(self, name: str) -> Float[Array, "1 pixels"]:
        """A statistic of each pixel, for a batch of flat images."""
        return likelihoods.flat(self._statistic(name)[None])

    def log_sigma(self, sigma: float | Float[Array, ""] = 1.0) -> Float[Array, ""]:
        """log of the decoder's shared scale: learned, or the number that is given; never below what cooling allows."""
        return self._from_raw(self.raw_log_sigma) if self.spec.sigma == "learned" else self._cooled(jnp.log(sigma))

    def _cooled(self, log_sigma: Float[Array, "..."]) -> Float[Array, "..."]:
        """While training cools, sigma is no less than it says."""
        if self.has_variable("statistics", "least_log_sigma"):
            log_sigma = jnp.maximum(log_sigma, self._statistic("least_log_sigma"))
        return log_sigma

    def _from_raw(self, raw: Float[Array, "..."]) -> Float[Array, "..."]:
        # Starts at the scale of the data and falls: latents are then won one by one, from the largest direction on.
        scale = jnp.log(self._statistic("scale")) if self.spec.normalize != "none" else 0.0
        return self._cooled(likelihoods.floored(scale + raw))

    def decode(self, z: Float[Array, "batch latents"], sigma: float | Float[Array, ""] = 1.0) -> likelihoods.Likelihood:
        """p(x | z); `sigma` is used where the spec says "fixed" or "optimal"."""
        if self.spec.conditioning == "beta":
            z = self.latents_gate(z, self._statistic("log_beta"), self._statistic("lowest_log_beta"))
        output, family = self._through(self.decoder, z), likelihoods.LIKELIHOODS[self.spec.likelihood]
        if self.spec.sigma == "per_pixel":
            output, raw = jnp.split(output, 2, axis=-1)
            log_sigma = self._from_raw(likelihoods.flat(raw)).reshape(raw.shape)
        else:
            log_sigma = self.log_sigma(sigma)
        if self.spec.normalize != "none":
            pixels = likelihoods.flat(output)
            if self.spec.normalize == "standardize":
                pixels = pixels * self._of_pixels("std")
            if self.spec.normalize == "whiten":
                pixels = pixels @ self._statistic("color")
            # The decoder that says nothing says the mean of the training data.
            output = (pixels + family.inverse_mean(self._of_pixels("mean"))).reshape(output.shape)
        return family.build(output, log_sigma, self.spec.levels)

    def log_likelihood(
        self,
        x: Float[Array, "batch *pixels"],
        z: Float[Array, "batch latents"],
        sigma: float | Float[Array, ""] = 1.0,
        mean: Callable[[Array], Array] = lambda value: value,
    ) -> Float[Array, " batch"]:
        """log p(x | z) as it is trained: an "optimal" sigma is that of this batch, and `sigma` not used.

        `mean` is over the devices that have equal parts of the batch.
        """
        likelihood = self.decode(z, sigma)
        return (likelihood.fitted(x, mean) if self.spec.sigma == "optimal" else likelihood).log_prob(x)

    def prior(self) -> priors.Prior:
        """p(z)."""
        # The prior is one for all beta: pseudo-inputs are encoded at beta 1.
        return self.prior_network(functools.partial(self._through, self.encoder, log_beta=jnp.zeros(())))

    def __call__(self, x: Float[Array, "batch *pixels"]) -> likelihoods.Likelihood:
        """One pass through both networks: what `init` needs to make every parameter."""
        self.prior()
        return self.decode(self.encode(x).mean)
