"""p(z) as structs with `log_prob` and `sample`, and one table that builds them by name, learned parameters included.

What else a prior knows of itself is a method, and whoever needs it looks whether it is there:
  rate_per_latent(mean, log_var): the rate of a Gaussian posterior in closed form;
  log_prob_per_latent(z): the latents are independent, so a rate of each can be estimated by a draw;
  quantile(level): of one latent.
"""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import struct
from jax import random
from jax.scipy.special import erf, gammaln, logsumexp, ndtri
from jaxtyping import Array, Float, Key

Latents = Float[Array, "batch latents"]
PerImage = Float[Array, " batch"]

DEGREES = 5.0  # of freedom, of Student's t: heavy tails, finite variance
FLOW_LAYERS = 4
FLOW_WIDTH = 64


def _log_normal(z, mean, log_var):
    """log N(z; mean, exp(log_var)), elementwise."""
    return -0.5 * (jnp.square(z - mean) * jnp.exp(-log_var) + log_var) - 0.5 * jnp.log(2 * jnp.pi)


def _excess(v: Latents) -> Latents:
    """exp(v) - 1 - v, in full float32 precision also for a collapsed latent, where it is v^2 / 2."""
    # The difference of expm1(v) and v, each of size |v|, is wrong by some eps / |v| of itself. Below 0.2 the first term that
    # the series leaves out is eps of the sum. A branch sees nothing but what it is used for: its gradient stays finite.
    small = jnp.abs(v) < 0.2
    near, far = jnp.where(small, v, 0.0), jnp.where(small, 1.0, v)
    series = jnp.square(near) * (1 / 2 + near * (1 / 6 + near * (1 / 24 + near * (1 / 120 + near / 720))))
    return jnp.where(small, series, jnp.expm1(far) - far)


class Prior:
    """p(z), in nats."""

    log_prob: Callable[[Latents], PerImage]
    sample: Callable[[Key[Array, ""], int], Latents]  # (key, count)


class Independent(Prior):
    """A prior of independent, equal latents: log_prob is a sum."""

    log_prob_per_latent: Callable[[Latents], Latents]

    def log_prob(self, z: Latents) -> PerImage:
        return jnp.sum(self.log_prob_per_latent(z), axis=-1)


@struct.dataclass
class Normal(Independent):
    """N(0, I) over `latents` dimensions."""

    latents: int = struct.field(pytree_node=False)

    def log_prob_per_latent(self, z: Latents) -> Latents:
        return -0.5 * jnp.square(z) - 0.5 * jnp.log(2 * jnp.pi)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.normal(key, (count, self.latents))

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value below which one latent falls with probability `level`."""
        return ndtri(level)

    def rate_per_latent(self, mean: Latents, log_var: Latents) -> Latents:
        """KL(N(mean, exp(log_var)) || N(0, 1)) of each latent, in nats (Kingma & Welling 2014, appendix B)."""
        return 0.5 * (jnp.square(mean) + _excess(log_var))


@struct.dataclass
class Laplace(Independent):
    """Independent Laplace(0, 1): peaked at 0, tails that fall like exp(-|z|)."""

    latents: int = struct.field(pytree_node=False)

    def log_prob_per_latent(self, z: Latents) -> Latents:
        return -jnp.abs(z) - jnp.log(2.0)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        return random.laplace(key, (count, self.latents))

    def quantile(self, level: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value below which one latent falls with probability `level`."""
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
        each = jnp.sum(_log_normal(z[:, None], self.mean[None], self.log_var[None]), axis=-1)
        return logsumexp(each + self.log_weights[None], axis=-1)

    def sample(self, key: Key[Array, ""], count: int) -> Float[Array, "count latents"]:
        choose, draw = random.split(key)
        component = random.categorical(choose, self.log_weights, shape=(count,))
        mean, std = self.mean[component], jnp.exp(0.5 * self.log_var[component])
        return mean + std * random.normal(draw, mean.shape)


@struct.dataclass
class Coupling:
    """Half of the latents moved and scaled by a function of the other half (Dinh et al. 2017)."""

    kernel: Float[Array, "half width"]
    bias: Float[Array, " width"]
    kernel_out: Float[Array, "width twice"]
    bias_out: Float[Array, " twice"]

    def _affine(self, kept: Float[Array, "batch half"]) -> tuple[Float[Array, "batch rest"], Float[Array, "batch rest"]]:
        hidden = jnp.tanh(kept @ self.kernel + self.bias[None])
        shift, log_scale = jnp.split(hidden @ self.kernel_out + self.bias_out[None], 2, axis=-1)
        return shift, 2 * jnp.tanh(0.5 * log_scale)  # a scale between exp(-2) and exp(2): no layer can explode

    def forward(self, u: Latents) -> Latents:
        """From the base to the latents; the order is turned round, so that the next layer moves the other half."""
        kept, moved = jnp.split(u, [self.kernel.shape[0]], axis=-1)
        shift, log_scale = self._affine(kept)
        return jnp.concatenate([kept, moved * jnp.exp(log_scale) + shift], axis=-1)[:, ::-1]

    def inverse(self, z: Latents) -> tuple[Latents, PerImage]:
        """From the latents to the base, and log |d base / d latents|."""
        kept, moved = jnp.split(z[:, ::-1], [self.kernel.shape[0]], axis=-1)
        shift, log_scale = self._affine(kept)
        moved = (moved - shift) * jnp.exp(-log_scale)
        return jnp.concatenate([kept, moved], axis=-1), -jnp.sum(log_scale, axis=-1)


@struct.dataclass
class Flow(Prior):
    """N(0, I) carried through coupling layers: a density of any shape that can still be sampled in one pass."""

    layers: tuple[Coupling, ...]
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
        return PRIORS[self.kind](self, encoder)


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
    """Coupling layers that start as the identity."""
    half = network.latents // 2
    moved = 2 * (network.latents - half)
    small, zeros = nn.initializers.normal(0.1), nn.initializers.zeros_init()
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


# name -> (the module that holds its parameters, the encoder) -> struct.
PRIORS: dict[str, Callable[[PriorNetwork, Callable], Prior]] = {
    "normal": lambda network, encoder: Normal(network.latents),
    "laplace": lambda network, encoder: Laplace(network.latents),
    "student_t": lambda network, encoder: StudentT(network.latents),
    "mixture": mixture,
    "vamp": vamp,
    "flow": flow,
}


@functools.cache
def struct_of(kind: str) -> type[Prior]:
    """The struct that a name stands for: to see which methods it has before anything is built."""
    found = []

    def build():
        # Any function will do for the encoder: nothing is computed.
        prior = PriorNetwork(kind, 2, 2, (2,)).init_with_output(random.key(0), lambda inputs: (inputs, inputs))[0]
        found.append(type(prior))

    jax.eval_shape(build)
    return found[0]
