"""p(x | z): what a decoder's output says about an image, as structs with one interface.

Every struct has `log_prob_per_pixel(x)` in nats, constants included (`log_prob` is its sum), `mean` (the reconstruction
that is shown), `sample(key)` and `interval(level)`; a `Graded` one gets the last two from `cdf` and `quantile`, and its
calibration can be measured. `LIKELIHOODS` has one line for each.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct
from jax import lax, random
from jax.scipy.special import logit, ndtr, ndtri
from jaxtyping import Array, Float, Key

from vae_jax.core.registry import Registry
from vae_jax.models import gaussian

# A learned sigma is held above this, and so is the std of a continuous Bernoulli: a pixel that never changes would
# otherwise send the likelihood to infinity.
SIGMA_FLOOR = 1e-3

Images = Float[Array, "batch *pixels"]


def flat(values: Images) -> Float[Array, "batch n"]:
    """One axis of pixels. XLA's CPU backend takes three to twelve times as long over [28, 28, 1] as over [784]."""
    return values.reshape(values.shape[0], -1)  # not len: a symbolic size has none


class Likelihood:
    """What every struct has, and what some add to it."""

    mean: Any  # the reconstruction that is shown

    def log_prob_per_pixel(self, x: Images) -> Images:
        """In nats, constants included."""
        raise NotImplementedError

    def log_prob(self, x: Images) -> Float[Array, " batch"]:
        """In nats per image: the sum over its pixels."""
        pixels = jax.tree.map(lambda leaf: flat(leaf) if jnp.ndim(leaf) else leaf, self)
        return jnp.sum(pixels.log_prob_per_pixel(flat(x)), axis=1)

    def sample(self, key: Key[Array, ""]) -> Images:
        raise NotImplementedError

    def interval(self, level: float) -> tuple[Images, Images]:
        """(low, high) of every pixel."""
        raise NotImplementedError

    def fitted(self, x: Images, mean: Callable[[Array], Array] = lambda value: value) -> "Likelihood":
        """With the shared sigma that is best for the images `x`: of families that take the sigma "optimal"."""
        raise NotImplementedError


@struct.dataclass
class Bernoulli(Likelihood):
    """Independent bits with logits [batch, *pixels].

    On grey pixels in [0, 1] `log_prob` is the negative cross-entropy: a bound only up to a normaliser.
    """

    logits: Images

    def log_prob_per_pixel(self, x: Images) -> Images:
        """x log p + (1 - x) log(1 - p), in nats, from the logits: finite, with finite gradients, at any logit."""
        # softplus by its two stable parts: jax.nn.softplus also looks for infinities, in passes of their own. Both are
        # maxima, so that their gradients at 0 are means of both sides and add up to 1/2; with jnp.abs they would not.
        softplus = jnp.maximum(self.logits, 0) + jnp.log1p(jnp.exp(-jnp.maximum(self.logits, -self.logits)))
        return x * self.logits - softplus

    @property
    def mean(self) -> Images:
        return jax.nn.sigmoid(self.logits)

    def sample(self, key: Key[Array, ""]) -> Images:
        return random.bernoulli(key, self.mean).astype(self.logits.dtype)

    def interval(self, level: float) -> tuple[Images, Images]:
        """The central interval of probability at least `level`: of a bit, {0}, {1} or both."""
        tail = (1 - level) / 2
        return (self.mean > 1 - tail).astype(self.logits.dtype), (self.mean >= tail).astype(self.logits.dtype)


class Graded(Likelihood):
    """Pixels with a scale, and what follows from `cdf(x)` and `quantile(level)`."""

    log_sigma: Any

    @property
    def std(self) -> Images:
        """sigma, for every pixel."""
        return jnp.broadcast_to(jnp.exp(self.log_sigma), self.mean.shape)

    def cdf(self, x: Images) -> Images:
        """P(X <= x) of each pixel."""
        raise NotImplementedError

    def quantile(self, level: float | Images) -> Images:
        """The smallest value with P(X <= value) >= level, of each pixel."""
        raise NotImplementedError

    def sample(self, key: Key[Array, ""]) -> Images:
        """By the inverse of the cdf."""
        # Not below eps: a quantile of 0 may be infinite.
        return self.quantile(random.uniform(key, self.mean.shape, minval=jnp.finfo(jnp.float32).eps))

    def interval(self, level: float) -> tuple[Images, Images]:
        """Central, of probability `level` (of discrete values: at least)."""
        return self.quantile((1 - level) / 2), self.quantile((1 + level) / 2)

    def residual(self, x: Images) -> Images:
        """(x - mean) / std: its mean square is 1 where the decoder knows how far it is off."""
        return (x - self.mean) / self.std

    def pit(self, x: Images, uniform: Images) -> Images:
        """The probability integral transform: uniform on [0, 1] where x comes from this distribution.

        `uniform` is a draw in [0, 1) per pixel, by which discrete values are spread over their probability.
        """
        return self.cdf(x)


@struct.dataclass
class Gaussian(Graded):
    """Independent N(mean, exp(log_sigma)^2); log_sigma is a scalar or [batch, *pixels]."""

    mean: Images
    log_sigma: Float[Array, "..."]

    def log_prob_per_pixel(self, x: Images) -> Images:
        return gaussian.log_density(jnp.square(self.residual(x)), 2 * jnp.broadcast_to(self.log_sigma, x.shape))

    def residual(self, x: Images) -> Images:
        return (x - self.mean) * jnp.exp(-jnp.broadcast_to(self.log_sigma, x.shape))

    def cdf(self, x: Images) -> Images:
        return ndtr(self.residual(x))

    def quantile(self, level: float | Images) -> Images:
        return self.mean + ndtri(level) * self.std

    def sample(self, key: Key[Array, ""]) -> Images:
        return self.mean + self.std * random.normal(key, self.mean.shape, self.mean.dtype)

    def fitted(self, x: Images, mean: Callable[[Array], Array] = lambda value: value) -> "Gaussian":
        """With the shared sigma of largest likelihood: sigma^2 = mean squared error of the batch (Rybkin et al. 2021).

        `mean` is over the devices that have equal parts of the batch.
        The gradient is stopped: at the best sigma the batch's log-likelihood is stationary in it, so that the gradient of
        the paper's closed form -D/2 (log(2 pi MSE) + 1), which differentiates the MSE, is the same.
        """
        squared = mean(lax.stop_gradient(jnp.mean(jnp.square(x - self.mean))))
        return Gaussian(self.mean, 0.5 * jnp.log(jnp.maximum(squared, SIGMA_FLOOR**2)))


@struct.dataclass
class DiscretizedLogistic(Graded):
    """A logistic distribution of std exp(log_sigma), cut into bins around 0, 1/levels, ..., 1; the end bins are open.

    PixelCNN++'s (Salimans et al. 2017, eq. 2) with one component. `log_prob` is that of the bins: of 8-bit pixels
    (levels 255) in nats per image, and with log 2 and the number of pixels in bits per pixel.
    """

    location: Images  # of the logistic: the mean, but for rounding and the ends
    log_sigma: Float[Array, "..."]
    levels: int = struct.field(pytree_node=False)

    @property
    def _inverse(self) -> Images:
        """1 / scale; the logistic of scale s has std s pi / sqrt(3)."""
        return jnp.broadcast_to(jnp.exp(-self.log_sigma) * (math.pi / math.sqrt(3)), self.location.shape)

    def _edge(self, x: Images, side: int) -> Images:
        """The lower (-1) or upper (1) edge of the bin of x, in units of the scale from the location."""
        return (x + side * 0.5 / self.levels - self.location) * self._inverse

    def log_prob_per_pixel(self, x: Images) -> Images:
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - e^(b - a)), and each factor has a stable logarithm.
        above, below = jax.nn.softplus(-self._edge(x, 1)), jax.nn.softplus(self._edge(x, -1))
        width = jnp.log(-jnp.expm1(-self._inverse / self.levels))
        first, last = x < 0.5 / self.levels, x > 1 - 0.5 / self.levels
        return jnp.where(first | last, 0, width) - jnp.where(last, 0, above) - jnp.where(first, 0, below)

    @property
    def mean(self) -> Images:
        """sum_k P(X >= k / levels) / levels, exactly."""

        def add(k, total):
            edge = (k.astype(jnp.float32) + 0.5) / self.levels
            return total + jax.nn.sigmoid((self.location - edge) * self._inverse)

        return lax.fori_loop(0, self.levels, add, jnp.zeros_like(self.location)) / self.levels

    @property
    def std(self) -> Images:
        """Of the logistic, before it is cut."""
        return jnp.broadcast_to(jnp.exp(self.log_sigma), self.location.shape)

    def cdf(self, x: Images) -> Images:
        value = jnp.floor(x * self.levels + 1e-4) / self.levels  # x of the grid may be an eps below it
        return jnp.where(value > 1 - 0.5 / self.levels, 1, jax.nn.sigmoid(self._edge(value, 1)))

    def quantile(self, level: float | Images) -> Images:
        value = self.location + logit(level) / self._inverse
        return jnp.clip(jnp.ceil(value * self.levels - 0.5), 0, self.levels) / self.levels

    def pit(self, x: Images, uniform: Images) -> Images:
        below = jnp.where(x < 0.5 / self.levels, 0, jax.nn.sigmoid(self._edge(x, -1)))
        return below + uniform * (self.cdf(x) - below)


def log_normalizer(logits: Float[Array, "..."]) -> Float[Array, "..."]:
    """log of the integral of exp(logits x) over [0, 1], (e^l - 1) / l: precise, as its derivatives are, also near l = 0."""
    is_small = jnp.abs(logits) < 1
    # Near 0 l/2 and the series of log(sinh(l/2) / (l/2)), elsewhere directly; each branch is given numbers at which it and
    # its derivatives are finite.
    square = jnp.where(is_small, jnp.square(0.5 * logits), 0)
    near = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square * (1 / 37800 - square / 467775))))
    size = jnp.where(is_small, 1, jnp.abs(logits))
    far = jnp.maximum(logits, 0) + jnp.log1p(-jnp.exp(-size)) - jnp.log(size)
    return jnp.where(is_small, 0.5 * logits + near, far)


def derivative(function: Callable[[Array], Array]) -> Callable[[Array], Array]:
    """Of a function that acts on each element alone."""
    return lambda x: jax.jvp(function, (x,), (jnp.ones_like(x),))[1]


truncated_mean = derivative(log_normalizer)
truncated_variance = derivative(truncated_mean)


@struct.dataclass
class ContinuousBernoulli(Graded):
    """A density on [0, 1] proportional to p^x (1 - p)^(1 - x), that is to exp(logits x) (Loaiza-Ganem & Cunningham 2019).

    |logits| is held smoothly below 1 / SIGMA_FLOOR, because the std of a pixel is 1 / |logits| at large ones.
    """

    output: Images

    @property
    def logits(self) -> Images:
        return jnp.tanh(self.output * SIGMA_FLOOR) / SIGMA_FLOOR

    def log_prob_per_pixel(self, x: Images) -> Images:
        logits = self.logits
        return x * logits - log_normalizer(logits)

    @property
    def mean(self) -> Images:
        return truncated_mean(self.logits)

    @property
    def std(self) -> Images:
        return jnp.sqrt(truncated_variance(self.logits))

    def _negative(self) -> tuple[Images, Array]:
        """-|logits|, and where the logits were positive; for those the pixel is mirrored, which never overflows."""
        logits = self.logits
        return jnp.minimum(-jnp.abs(logits), -1e-6), logits > 0  # at 0 the formulas are 0 / 0; their limit is as good here

    def cdf(self, x: Images) -> Images:
        logits, is_mirrored = self._negative()
        share = jnp.expm1(logits * jnp.where(is_mirrored, 1 - x, x)) / jnp.expm1(logits)
        return jnp.where(is_mirrored, 1 - share, share)

    def quantile(self, level: float | Images) -> Images:
        logits, is_mirrored = self._negative()
        value = jnp.log1p(jnp.where(is_mirrored, 1 - level, level) * jnp.expm1(logits)) / logits
        return jnp.where(is_mirrored, 1 - value, value)

    @staticmethod
    def inverse_mean(mean: Array) -> Array:
        """The output whose mean is `mean`, by Newton's method from Cohen's (1991) inverse of coth h - 1 / h."""
        mean = jnp.clip(mean, 2e-3, 1 - 2e-3)
        y = 2 * mean - 1
        logits = 2 * y * (3 - jnp.square(y)) / (1 - jnp.square(y))

        def step(_, logits):
            return logits - (truncated_mean(logits) - mean) / truncated_variance(logits)

        logits = lax.fori_loop(0, 4, step, logits)
        return jnp.arctanh(logits * SIGMA_FLOOR) / SIGMA_FLOOR


def _logit(mean: Array) -> Array:
    return logit(jnp.clip(mean, 1e-3, 1 - 1e-3))


@dataclasses.dataclass(frozen=True)
class Family:
    """What `model.likelihood` names.

    Attributes:
      struct: built from the decoder's output [batch, *pixels], then log_sigma where it has one, then the levels where its
        values are "levels".
      sigmas: the kinds of `model.sigma` that it takes.
      values: what pixels may be: "any", "unit" (in [0, 1]) or "levels" (0, 1 / levels, ..., 1).
      inverse_mean: the decoder's output whose mean is this image.
    """

    struct: Callable[..., Likelihood]
    sigmas: tuple[str, ...] = ()
    values: str = "any"
    inverse_mean: Callable[[Array], Array] = lambda mean: mean

    @property
    def is_graded(self) -> bool:
        return isinstance(self.struct, type) and issubclass(self.struct, Graded)

    def build(self, output: Images, log_sigma: Float[Array, "..."], levels: int) -> Likelihood:
        sigma = (log_sigma,) if self.sigmas else ()
        return self.struct(output, *sigma, *((levels,) if self.values == "levels" else ()))


FREE = ("fixed", "learned", "per_pixel")
LIKELIHOODS: Registry[Family] = Registry(
    "likelihood",
    {
        "bernoulli": Family(Bernoulli, values="unit", inverse_mean=_logit),
        "continuous_bernoulli": Family(ContinuousBernoulli, values="unit", inverse_mean=ContinuousBernoulli.inverse_mean),
        "gaussian": Family(Gaussian, sigmas=(*FREE, "optimal")),
        "discretized_logistic": Family(DiscretizedLogistic, sigmas=FREE, values="levels"),
    },
)


def floored(raw: Float[Array, "..."]) -> Float[Array, "..."]:
    """log sigma from an unconstrained number: smooth, increasing, never below log(SIGMA_FLOOR)."""
    floor = jnp.log(SIGMA_FLOOR)
    return floor + jax.nn.softplus(raw - floor)
