"""What a run does with factors that a renderer knows: values in between, draws from the prior, traversals, attributes.

The measures are those of `counterfactuals`; here each gets its images. Every one is per pair, draw or image, so that the
means have errors, and the number of images is fixed, which bounds the cost: reading all factors of one takes 300 renders.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from vae_jax.data.shapes import Factor
from vae_jax.evaluation import counterfactuals, inverse_rendering

PAIRS = 64  # images that are equal in all but one factor
STEPS = 9  # along the line between their codes; odd, so that the middle is one of them
DRAWS = 64  # from the prior
READ = 32  # images whose factors are read, for a traversal and for each attribute
SHOWN = 8  # of all these, kept for figures
SPAN = (-2.0, 2.0)  # of a latent that is moved

Images = Float[Array, "n *shape"]
Latents = Float[Array, "n latents"]


class Model(NamedTuple):
    """A trained network as functions: images to mean codes, latents to mean images."""

    encode: Callable[[Images], Latents]
    decode: Callable[[Latents], Images]


@dataclasses.dataclass(frozen=True)
class Known:
    """The data that the measures are taken on.

    Attributes:
      images, factors: of the test split, [n, *shape] and [n, factors] (host).
      render: factors to images in [0, 1].
      columns: what the factors mean.
      index: of the factor that pairs differ in, and that a traversal follows.
    """

    images: np.ndarray
    factors: np.ndarray
    render: Callable
    columns: Sequence[Factor]
    index: int

    @property
    def factor(self) -> Factor:
        """The one at `index`."""
        return self.columns[self.index]


def between(model: Model, known: Known) -> dict[str, Array]:
    """The line between the codes of two images that differ in one factor.

    Returns:
      `ratio`, `error` [pairs] (`counterfactuals.midpoint_ratio`, `midpoint_factor_error`); `read` [steps, pairs], the factor
      read along the line; for figures `line`, `true_line`, `average_line` [shown, steps, *shape].
    """
    first, second = counterfactuals.pairs(known.factors[:PAIRS], known.columns, known.index)
    ends = known.render(first), known.render(second)
    weights = np.linspace(0, 1, STEPS, dtype=np.float32)
    line = counterfactuals.line(model.encode, model.decode, *ends, STEPS)
    true = first + weights[:, None, None] * (second - first)  # [steps, pairs, factors]
    count = len(first)
    flat = line.reshape(STEPS * count, *line.shape[2:])
    low, high = known.factor.low, known.factor.high
    read = inverse_rendering.read_factor(known.render, flat, true.reshape(STEPS * count, -1), known.index, low, high)
    middle = STEPS // 2
    shown = [jnp.swapaxes(line[:, :SHOWN], 0, 1)]
    shown.append(jnp.stack([known.render(rows[:SHOWN]) for rows in true], axis=1))
    shown.append(jnp.stack([(1 - weight) * ends[0][:SHOWN] + weight * ends[1][:SHOWN] for weight in weights], axis=1))
    read = read.reshape(STEPS, count)
    return {
        "ratio": counterfactuals.midpoint_ratio(line[middle], known.render(true[middle]), *ends),
        "error": jnp.abs(read[middle] - true[middle][:, known.index]) / (high - low),
        "read": (read - low) / (high - low),
        **dict(zip(("line", "true_line", "average_line"), shown, strict=True)),
    }


def draws(model: Model, known: Known, z: Latents) -> dict[str, Array]:
    """How far decoded draws `z` from the prior are from any image that can be rendered, and reconstructions beside them.

    Returns:
      `prior`, `reconstruction` [n], mean squared errors of a pixel; for figures `drawn`, `drawn_nearest` [shown, *shape].
    """
    images, factors = jnp.asarray(known.images[: len(z)]), jnp.asarray(known.factors[: len(z)])
    decoded = model.decode(jnp.concatenate([z, model.encode(images)]))
    # One search for both: compiling it takes longer than running it. A draw's guess is as good as any.
    guess = jnp.concatenate([factors[jnp.arange(len(z)) % len(factors)], factors])
    found = inverse_rendering.nearest(known.render, known.columns, decoded, guess)
    return {
        "prior": found.mse[: len(z)],
        "reconstruction": found.mse[len(z) :],
        "drawn": decoded[:SHOWN],
        "drawn_nearest": known.render(found.factors[:SHOWN]),
    }


def changes(model: Model, known: Known, codes: Latents) -> dict[str, dict[str, Array]]:
    """What moves with a latent, and with an attribute vector.

    The latent that follows the factor goes from -2 to 2. An attribute vector is the mean code of images with an attribute
    (a factor above the middle of its range) less that of images without, and is added to codes of images without. A factor
    that all test images have, or none, has no vector, and neither has one whose values have no order.

    Args:
      model, known: see there.
      codes: mean codes of all of `known.images`.

    Returns:
      "traversal" and each factor's name: `effect` (of a vector, 1 is what was meant) and `leak` [images], as
      `counterfactuals.Change`, and decoded images for figures: `before`, `after` [shown, *shape].
    """
    factors = jnp.asarray(known.factors)
    latent, sign = counterfactuals.follows(codes, factors[:, known.index])
    ends = counterfactuals.traversal(model.decode, codes[:READ], latent, SPAN)
    asked = {"traversal": (known.index, np.arange(min(READ, len(factors))), *ends, sign)}
    for index, column in enumerate(known.columns):
        middle = 0.5 * (column.low + column.high)
        lacks = known.factors[:, index] <= middle
        if (column.categorical and column.levels > 2) or lacks.all() or not lacks.any():
            continue
        rows = np.flatnonzero(lacks)[:READ]
        vector, amount = counterfactuals.attribute_vector(codes, factors[:, index], middle)
        pictures = model.decode(codes[rows]), model.decode(codes[rows] + vector[None])
        asked[column.name] = (index, rows, *pictures, (column.high - column.low) / amount)
    # All are read at once: compiling the search takes longer than running it.
    images = jnp.concatenate([picture for _, _, before, after, _ in asked.values() for picture in (before, after)])
    start = jnp.concatenate([factors[rows] for _, rows, _, _, _ in asked.values() for _ in range(2)])
    read = inverse_rendering.read_factors(known.render, known.columns, images, start)
    found, first = {}, 0
    for name, (index, rows, before, after, scale) in asked.items():
        last = first + 2 * len(rows)
        before_read, after_read = jnp.split(read[first:last], 2)
        change = counterfactuals.traversal_change(before_read, after_read, index, scale)
        found[name] = {"effect": change.effect, "leak": change.leak, "before": before[:SHOWN], "after": after[:SHOWN]}
        first = last
    return found


def traversals(model: Model, known: Known, codes: Latents) -> Float[Array, "factors steps *shape"]:
    """One image with the latent that follows each factor moved from -2 to 2, in the direction in which the factor grows."""
    rows = []
    for index in range(len(known.columns)):
        latent, sign = counterfactuals.follows(codes, jnp.asarray(known.factors)[:, index])
        rows.append(jnp.tile(codes[:1], (STEPS, 1)).at[:, latent].set(sign * jnp.linspace(*SPAN, STEPS)))
    decoded = model.decode(jnp.concatenate(rows))
    return decoded.reshape(len(rows), STEPS, *decoded.shape[1:])
