"""p(z) as structs with `log_prob` and `sample`, and one table that builds them by name, learned parameters included."""

import dataclasses
from collections.abc import Callable
from typing import ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import random
from jax.scipy.special import erf, gammaln, logsumexp, ndtri
from jaxtyping import Array, Float, Key

from vae_jax.core.registry import Registry
from vae_jax.models import gaussian
from vae_jax.models.flows import BINS, Coupling, Spline

Latents = Float[Array, "batch latents"]
PerImage = Float[Array, " batch"]

DEGREES = 5.0  # of freedom, of Student's t: heavy tails, finite variance
FLOW_LAYERS = 4
FLOW_WIDTH = 64


def _excess(v: Latents) -> Latents:
    """exp(v) - 1 - v, in full float32 precision also for a collapsed latent, where it is v^2 / 2."""
    # The difference of expm1(v) and v, each of size |v|, is wrong by some eps / |v| of itself. Below 0.2 the first term that
    # the series leaves out is eps of the sum. A branch sees nothing but what it is used for: its gradient stays finite.
    small = jnp.abs(v) < 0.2
    near, far = jnp.where(small, v, 0.0), jnp.where(small, 1.0, v)
    series = jnp.square(near) * (1 / 2 + near * (1 / 6 + near * (1 / 24 + near * (1 / 120 + near / 720))))
    return jnp.where(small, series, jnp.expm1(far) - far)


class Prior:
    """p(z), in nats; the flags say which of the other methods a prior has."""

    has_independent_latents: ClassVar[bool] = False  # log_prob_per_latent: so each has a rate of its own
    has_closed_rate: ClassVar[bool] = False  # rate_per_latent; else the rate is estimated from draws
    has_quantile: ClassVar[bool] = False  # quantile

    def log_prob(self, z: Latents) -> PerImage:
        raise NotImplementedError

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        raise NotImplementedError

    def log_prob_per_latent(self, z: Latents) -> Latents:
        """log p(z_i) of each latent."""
        raise NotImplementedError

    def rate_per_latent(self, mean: Latents, log_var: Latents) -> Latents:
        """KL(N(mean, exp(log_var)) || p(z_i)) of each latent, in closed form."""
        raise NotImplementedError

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value below which one latent falls with probability `level`."""
        raise NotImplementedError


class Independent(Prior):
    """A prior of independent, equal latents: log_prob is a sum."""

    has_independent_latents = True

    def log_prob(self, z: Latents) -> PerImage:
        return jnp.sum(self.log_prob_per_latent(z), axis=-1)


@struct.dataclass
class Normal(Independent):
    """N(0, I) over `latents` dimensions."""

    has_closed_rate: ClassVar[bool] = True
    has_quantile: ClassVar[bool] = True
    latents: int = struct.field(pytree_node=False)

    def log_prob_per_latent(self, z: Latents) -> Latents:
        return gaussian.log_density(jnp.square(z), 0.0)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.normal(key, (count, self.latents))

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        return ndtri(level)

    def rate_per_latent(self, mean: Latents, log_var: Latents) -> Latents:
        """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent, in nats (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (jnp.square(mean) + _excess(log_var))


@struct.dataclass
class Laplace(Independent):
    """Independent Laplace(0, 1): peaked at 0, tails that fall like exp(-|z|)."""

    has_closed_rate: ClassVar[bool] = True
    has_quantile: ClassVar[bool] = True
    latents: int = struct.field(pytree_node=False)

    def log_prob_per_latent(self, z: Latents) -> Latents:
        return -jnp.abs(z) - jnp.log(2.0)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.laplace(key, (count, self.latents))

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        return -jnp.sign(level - 0.5) * jnp.log1p(-2 * jnp.abs(level - 0.5))

    def rate_per_latent(self, mean: Latents, log_var: Latents) -> Latents:
        """KL(N(mean, exp(log_var)) || Laplace(0, 1)) of each latent, in nats: log 2 + E|z| - entropy.

        E|z| of a Gaussian is the mean of the folded normal (Leone et al. 1961).
        """
        std = jnp.exp(0.5 * log_var)
        # Held where exp(-u^2 / 2) and 1 - erf are 0 in float32 anyway, so that no gradient is 0 * inf.
        ratio = jnp.clip(mean / std, -15.0, 15.0)
        folded = std * jnp.sqrt(2 / jnp.pi) * jnp.exp(-0.5 * jnp.square(ratio)) + mean * erf(ratio / jnp.sqrt(2.0))
        return jnp.log(2.0) + folded - 0.5 * (jnp.log(2 * jnp.pi) + 1 + log_var)


@struct.dataclass
class StudentT(Independent):
    """Independent Student's t with 5 degrees of freedom and scale 1."""

    latents: int = struct.field(pytree_node=False)

    def log_prob_per_latent(self, z: Latents) -> Latents:
        normaliser = gammaln((DEGREES + 1) / 2) - gammaln(DEGREES / 2) - 0.5 * jnp.log(DEGREES * jnp.pi)
        return normaliser - (DEGREES + 1) / 2 * jnp.log1p(jnp.square(z) / DEGREES)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.t(key, DEGREES, (count, self.latents))


@struct.dataclass
class Mixture(Prior):
    """Gaussians with diagonal covariances and weights exp(log_weights), which sum to 1."""

    log_weights: Float[Array, " components"]
    mean: Float[Array, "components latents"]
    log_var: Float[Array, "components latents"]

    def log_prob(self, z: Latents) -> PerImage:
        squared = jnp.square(z[:, None] - self.mean[None]) * jnp.exp(-self.log_var[None])
        each = jnp.sum(gaussian.log_density(squared, self.log_var[None]), axis=-1)
        return logsumexp(each + self.log_weights[None], axis=-1)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        choose, draw = random.split(key)
        component = random.categorical(choose, self.log_weights, shape=(count,))
        mean, std = self.mean[component], jnp.exp(0.5 * self.log_var[component])
        return mean + std * random.normal(draw, mean.shape)


@struct.dataclass
class Flow(Prior):
    """N(0, I) carried through invertible layers: a density of any shape that can still be sampled in one pass."""

    layers: tuple[Coupling | Spline, ...]
    base: Normal

    def log_prob(self, z: Latents) -> PerImage:
        log_det = jnp.zeros(z.shape[0])
        for layer in reversed(self.layers):
            z, change = layer.inverse(z)
            log_det = log_det + change
        return self.base.log_prob(z) + log_det

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        z = self.base.sample(key, count)
        for layer in self.layers:
            z = layer.forward(z)
        return z


class PriorNetwork(nn.Module):
    """The parameters of p(z), where it has any: `PRIORS[kind]` asks this module for them.

    Fields: the prior's name, how many `latents`, how many `components` a mixture has, and the shape of what the encoder
    sees. Called with the encoder, because the prior of Tomczak & Welling (2018) is made by it.
    """

    kind: str
    latents: int
    components: int
    shape: tuple[int, ...]

    @nn.compact
    def __call__(self, encoder: Callable) -> Prior:
        return PRIORS[self.kind].build(self, encoder)


def mixture(network: PriorNetwork, encoder: Callable) -> Mixture:
    """Learned Gaussians and weights, spread over N(0, I) at the start."""
    size = (network.components, network.latents)
    log_weights = jax.nn.log_softmax(network.param("logits", nn.initializers.zeros_init(), size[:1]))
    # One component starts, and for all it is worth stays, as N(0, I).
    spread = nn.initializers.normal(1.0 if network.components > 1 else 0.0)
    return Mixture(
        log_weights, network.param("mean", spread, size), network.param("log_var", nn.initializers.zeros_init(), size)
    )


def vamp(network: PriorNetwork, encoder: Callable) -> Mixture:
    """The mean of the posteriors of learned pseudo-inputs, in the units that the encoder sees (Tomczak & Welling 2018)."""
    inputs = network.param("pseudo_inputs", nn.initializers.normal(0.5), (network.components, *network.shape))
    mean, log_var = encoder(inputs)
    return Mixture(jnp.full((network.components,), -jnp.log(float(network.components))), mean, log_var)


def flow(network: PriorNetwork, encoder: Callable) -> Flow:
    """Coupling layers that start as the identity; of one latent, which has no other half, a spline."""
    small, zeros = nn.initializers.normal(0.1), nn.initializers.zeros_init()
    if network.latents == 1:
        sizes = {"widths": BINS, "heights": BINS, "slopes": BINS - 1}
        return Flow((Spline(**{name: network.param(name, zeros, (size,)) for name, size in sizes.items()}),), Normal(1))
    half = network.latents // 2
    moved = 2 * (network.latents - half)
    shapes = {
        "kernel": (small, (half, FLOW_WIDTH)),
        "bias": (small, (FLOW_WIDTH,)),
        "kernel_out": (zeros, (FLOW_WIDTH, moved)),
        "bias_out": (zeros, (moved,)),
    }
    layers = [
        Coupling(**{name: network.param(f"{name}_{layer}", *made) for name, made in shapes.items()})
        for layer in range(FLOW_LAYERS)
    ]
    return Flow(tuple(layers), Normal(network.latents))


@dataclasses.dataclass(frozen=True)
class PriorFamily:
    """What `model.prior` names.

    Attributes:
      struct: the class of the prior, whose flags say what it can do; a data class with the number of `latents` alone, where
        it is not built otherwise.
      learned: makes it from the module that holds its parameters, and from the encoder; None: there are no parameters.
    """

    struct: type[Prior]
    learned: Callable[[PriorNetwork, Callable], Prior] | None = None

    def build(self, network: PriorNetwork, encoder: Callable) -> Prior:
        return self.learned(network, encoder) if self.learned else self.struct(network.latents)  # type: ignore[call-arg]


PRIORS: Registry[PriorFamily] = Registry(
    "prior",
    {
        "normal": PriorFamily(Normal),
        "laplace": PriorFamily(Laplace),
        "student_t": PriorFamily(StudentT),
        "mixture": PriorFamily(Mixture, mixture),
        "vamp": PriorFamily(Mixture, vamp),
        "flow": PriorFamily(Flow, flow),
    },
)
