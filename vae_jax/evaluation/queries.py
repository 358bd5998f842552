"""Which latents are decoded for the figures and the Frechet distances of a run: samples, midpoints, grids, traversals."""

import itertools

import numpy as np
from jaxtyping import Float, Int

Latents = Float[np.ndarray, "n latents"]
LEVELS = np.linspace(0.02, 0.98, 17)  # of the prior, along each side of a manifold
TRAVERSED = slice(None, None, 2)  # of those, along a traversal
SAMPLES = 64  # of the prior, whose decoder means are shown, and test images beside them
PRIOR_SAMPLES = 1000  # of a prior that is not N(0, I), which figures draw as points, at most
STEPS = len(LEVELS[TRAVERSED])  # of a traversal or an interpolation
LINES = 4  # interpolations
SHOWN = 16  # test images that are shown beside their reconstructions


def queries(
    mean: Latents,
    importance: Float[np.ndarray, " latents"],
    prior_samples: Float[np.ndarray, "samples latents"],
    quantiles: Float[np.ndarray, "levels latents"],
    pairs: Int[np.ndarray, "pairs 2"] | None,
    to_prior: bool,
) -> dict[str, Float[np.ndarray, "_ latents"]]:
    """Every latent that is to be decoded, by what it is for.

    Args:
      mean: mean codes of the test images.
      importance: by which latents are sorted for traversals.
      prior_samples: draws from the prior.
      quantiles: of each latent under the prior, at `LEVELS`.
      pairs: test images from different classes, or None.
      to_prior: whether the objective holds the latents to the prior; else their own range is where they live.
    """
    latents = mean.shape[1]
    low, high = np.percentile(mean, [0.5, 99.5], axis=0)
    found = {"samples": prior_samples, "reconstructions": mean[:SHOWN]}
    if pairs is not None:
        ends = mean[pairs]
        found["midpoints"] = ends.mean(axis=1)
        found["interpolations"] = np.concatenate([a + np.linspace(0, 1, STEPS)[:, None] * (b - a) for a, b in ends[:LINES]])
    if latents == 2:
        found["plane"] = _grid(*(np.linspace(*ends, 20) for ends in zip(low, high, strict=True)))
        found["manifold"] = _grid(quantiles[:, 0], quantiles[:, 1])
    # A latent that the objective holds to the prior is moved over the prior; a free one over where its codes lie.
    moves = quantiles[TRAVERSED].T if to_prior else np.linspace(low, high, STEPS).T
    rows = []
    for latent in np.argsort(-importance, kind="stable")[:8]:
        row = np.tile(mean[0], (STEPS, 1))
        row[:, latent] = moves[latent]
        rows.append(row)
    found["traversals"] = np.concatenate(rows)
    return {name: z.astype(np.float32) for name, z in found.items()}


def _grid(across: np.ndarray, down: np.ndarray) -> Latents:
    """Points row by row from the top left: the first latent grows to the right, the second upwards."""
    return np.array([(x, y) for y, x in itertools.product(down[::-1], across)])


def pairs(labels: np.ndarray | None, count: int, generator: np.random.Generator) -> Int[np.ndarray, "count 2"] | None:
    """Random pairs of images from different classes; None where there are no two classes."""
    if labels is None or len(np.unique(labels)) < 2:
        return None
    first = generator.permutation(np.resize(np.arange(len(labels)), count))
    # Drawn from the images sorted by class, leaving out the block of the first one's own class.
    order = np.argsort(labels, kind="stable")
    begin, end = (np.searchsorted(labels[order], labels[first], side) for side in ("left", "right"))
    draw = generator.integers(0, len(labels) - (end - begin))
    return np.stack([first, order[np.where(draw < begin, draw, draw + end - begin)]], axis=1)
