"""What lies between codes, in the prior and along latents, measured on images whose factors a renderer knows.

Every measure gives one value per pair, draw or image, so that means have standard errors. `encode` maps images to mean
codes, `decode` latents to images in [0, 1]; factors are read from images by `inverse_rendering`.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from vae_jax.core import errors
from vae_jax.data.shapes import Factor
from vae_jax.evaluation import inverse_rendering
from vae_jax.evaluation.inverse_rendering import Factors, Images, Nearest, PerImage, Render

Latents = Float[Array, "n latents"]
Encode = Callable[[Images], Latents]
Decode = Callable[[Latents], Images]

ENDS = (0.15, 0.85)  # of a factor's range: the two images of a pair


class Change(NamedTuple):
    """How far the factor that was meant moved, and the mean distance of the others; in units of their ranges."""

    effect: PerImage
    leak: PerImage


def pairs(factors: Factors, columns: Sequence[Factor], index: int) -> tuple[Factors, Factors]:
    """Factors of two images for each row, equal in all but column `index`: 15% and 85% of its range.

    Raises:
      UserError: a factor that has no values in between.
    """
    factor = columns[index]
    if factor.levels == 2 or factor.categorical:
        raise errors.UserError(f"eval.factor={factor.name}: has nothing between its values; should be a continuous one")
    first, second = np.array(factors), np.array(factors)
    first[:, index], second[:, index] = (factor.low + end * (factor.high - factor.low) for end in ENDS)
    return first, second


def line(
    encode: Encode, decode: Decode, first: Images, second: Images, steps: int
) -> Float[Array, "steps n height width channels"]:
    """Decoded points on the straight line between the codes of two images, `steps` of them, evenly spaced, ends included."""
    start, end = encode(first), encode(second)
    weights = jnp.linspace(0.0, 1.0, steps)
    return lax.map(lambda weight: decode((1 - weight) * start + weight * end), weights)


def midpoint_ratio(middle: Images, true_middle: Images, first: Images, second: Images) -> PerImage:
    """Squared error of the decoded middle of two codes, over that of the plain average of the two pictures.

    Above 1, the pixel average would have been the better guess.

    Args:
      middle: decoded at the mean of the codes of `first` and `second`.
      true_middle: rendered with the factor half way.
      first, second: the pairs, rendered.
    """
    return inverse_rendering.mse(middle, true_middle) / inverse_rendering.mse((first + second) / 2, true_middle)


def midpoint_factor_error(
    render: Render, middle: Images, true_factors: Factors, index: int, low: float = 0.0, high: float = 1.0
) -> PerImage:
    """Distance of the factor that is read from the decoded middle to the one half way, in units of its range.

    Args:
      middle: decoded at the mean of the codes of each pair.
      true_factors: of the true middle image.
    """
    true_factors = jnp.asarray(true_factors)
    read = inverse_rendering.read_factor(render, middle, true_factors, index, low, high)
    return jnp.abs(read - true_factors[:, index]) / (high - low)


def prior_to_nearest(decode: Decode, z: Latents, render: Render, columns: Sequence[Factor]) -> Nearest:
    """The nearest rendered picture of each decoded draw `z` from the prior; `mse` says how far the draw is from any."""
    return inverse_rendering.nearest(render, columns, decode(z))


def reconstruction_to_nearest(
    encode: Encode, decode: Decode, images: Images, render: Render, columns: Sequence[Factor], start: Factors | None = None
) -> Nearest:
    """The nearest rendered picture of each reconstruction: what `prior_to_nearest` is to be compared with.

    Args:
      start: the factors of `images`, where they are known.
    """
    return inverse_rendering.nearest(render, columns, decode(encode(images)), start)


def follows(codes: Latents, values: Float[Array, " n"]) -> tuple[Int[Array, ""], Float[Array, ""]]:
    """The latent that is most correlated with a factor, and the sign of that correlation."""
    centred = codes - jnp.mean(codes, axis=0, keepdims=True)
    std = jnp.sqrt(jnp.mean(centred**2, axis=0))
    covariance = jnp.mean(centred * (values - jnp.mean(values))[:, None], axis=0)
    correlation = jnp.where(std > 1e-6, covariance / jnp.maximum(std, 1e-6), 0)
    latent = jnp.argmax(jnp.abs(correlation))
    return latent, jnp.where(correlation[latent] < 0, -1.0, 1.0)


def traversal(
    decode: Decode, codes: Latents, latent: int | Int[Array, ""], ends: tuple[float, float] = (-2.0, 2.0)
) -> tuple[Images, Images]:
    """Each code decoded with one latent at either end."""
    low, high = (decode(codes.at[:, latent].set(end)) for end in ends)
    return low, high


def traversal_change(
    before: Float[Array, "n factors"], after: Float[Array, "n factors"], index: int, sign: float | Float[Array, ""] = 1.0
) -> Change:
    """`traversal_span` (the effect) and `traversal_leak` of one factor, from `read_factors` at both ends.

    Args:
      before, after: factors read at the low and the high end of the latent.
      index: the factor that the latent follows.
      sign: of their correlation: where the factor moves the other way, the span is negative.
    """
    change = after - before
    others = jnp.delete(change, index, axis=1, assume_unique_indices=True)
    return Change(sign * change[:, index], jnp.mean(jnp.abs(others), axis=1))


def attribute_vector(codes: Latents, values: Float[Array, " n"], middle: float) -> tuple[Float[Array, " latents"], Array]:
    """Mean code of images with an attribute minus without, and the difference of the factor's mean that it stands for.

    Args:
      codes: of many images.
      values: their factor; above `middle` an image has the attribute. All nan where all have it, or none.
    """
    has = (values > middle).astype(codes.dtype)
    weights = has / jnp.sum(has) - (1 - has) / jnp.sum(1 - has)
    return weights @ codes, weights @ values.astype(codes.dtype)


def attribute_change(
    before: Float[Array, "n factors"], after: Float[Array, "n factors"], index: int, amount: float | Float[Array, ""]
) -> Change:
    """`attribute_effect_<factor>` (1 is what was meant) and `attribute_leak_<factor>` of an attribute vector.

    Args:
      before, after: `read_factors` of reconstructions, and of what is decoded with the vector added to their codes; of
        images without the attribute.
      index: the factor.
      amount: by how much the vector should move it, in units of its range.
    """
    change = traversal_change(before, after, index)
    return Change(change.effect / amount, change.leak)
