"""Frechet distance of decoded images to the test split: exact up to 1,024 pixels, of 1,024 images beyond.

Its cost is known beforehand: that of eigenvalues, or singular values, of a matrix of 1,024 rows at most. Beyond 1,024
pixels it is the exact distance of the first 1,024 images of each set. Fewer images than pixels do not span them, and the
distance is then larger than that of the whole sets: such numbers compare with those of as many images only.
"""

import math

import numpy as np
from jaxtyping import Float

from vae_jax.evaluation.batches import blocks
from vae_jax.evaluation.metric import Column, Metric, Rows, Run, Setting, Values

# Above so many pixels no more than so many images of each set are compared: the cost of a distance is that of one singular
# value decomposition of this size.
SIDE = 1024
NAMES = {"samples": "frechet_prior", "midpoints": "frechet_midpoint"}


def images_of(decoded: int, pixels: int) -> int:
    """How many of `decoded` images are compared."""
    return decoded if pixels <= SIDE else min(decoded, SIDE)


class Spread:
    """Mean and covariance of images, batch by batch: as sums over pixels, or, of many pixels, as the first images."""

    def __init__(self, pixels: int) -> None:
        self.count, self.pixels = 0, pixels
        self._rows: list[np.ndarray] = []
        if pixels <= SIDE:
            self._shift = np.zeros(pixels)
            self._sum, self._products = np.zeros(pixels), np.zeros((pixels, pixels))

    def add(self, images: Float[np.ndarray, "n *shape"]) -> "Spread":
        """Take in a batch; returns this object."""
        if self.pixels > SIDE:
            images = images[: SIDE - self.count]  # first: a view of some rows of a copy keeps all of the copy
        flat = np.array(images, float).reshape(len(images), -1)
        if self.pixels > SIDE:
            self._rows.append(flat)
        else:
            if not self.count:
                # Sums about a mean lose no digits.
                self._shift = flat.mean(axis=0)
            flat = flat - self._shift
            self._sum += flat.sum(axis=0)
            self._products += flat.T @ flat
        self.count += len(flat)
        return self

    @property
    def is_full(self) -> bool:
        """Whether further images would change nothing."""
        return self.pixels > SIDE and self.count == SIDE

    @property
    def mean(self) -> Float[np.ndarray, " pixels"]:
        """Over the images."""
        if self.pixels > SIDE:
            return np.concatenate(self._rows).mean(axis=0)
        return self._shift + self._sum / self.count

    @property
    def covariance(self) -> Float[np.ndarray, "pixels pixels"]:
        """By 1 / n; for few pixels only."""
        mean = self._sum / self.count
        return self._products / self.count - np.outer(mean, mean)

    def factor(self) -> Float[np.ndarray, "rank pixels"]:
        """F with F' F = covariance, of as many rows as there are images, or pixels."""
        if self.pixels > SIDE:
            return (np.concatenate(self._rows) - self.mean) / math.sqrt(self.count)
        values, vectors = np.linalg.eigh(self.covariance)
        return np.sqrt(np.clip(values, 0, None))[:, None] * vectors.T


class Target:
    """The set that others are compared with, and what of it is computed once."""

    def __init__(self, spread: Spread) -> None:
        self.mean, self.factor = spread.mean, spread.factor()

    def distance(self, other: Spread) -> float:
        """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): squared distance of two Gaussians (Dowson & Landau 1982).

        The trace of the root is the sum of the singular values of F_a F_b', or of the roots of the eigenvalues of
        F_b S_a F_b'. The FID of Heusel et al. (2017) with pixels for features.
        """
        if other.pixels > SIDE:
            factor = other.factor()
            if not np.isfinite(factor).all():
                return math.nan
            cross, trace = np.linalg.svd(factor @ self.factor.T, compute_uv=False).sum(), np.square(factor).sum()
        else:
            covariance = other.covariance
            if not np.isfinite(covariance).all():
                return math.nan
            values = np.linalg.eigvalsh(self.factor @ covariance @ self.factor.T)
            cross, trace = np.sqrt(np.clip(values, 0, None)).sum(), np.trace(covariance)
        mean = np.sum(np.square(self.mean - other.mean))
        return float(mean + trace + np.square(self.factor).sum() - 2 * cross)


def _reference(setting: Setting) -> Target:
    """Of the test split."""
    spread = Spread(math.prod(setting.model.shape))
    for images in blocks(setting.dataset, "test"):
        spread.add(images)
        if spread.is_full:
            break
    return Target(spread)


def _init(reference: Target, setting: Setting) -> tuple[Target, dict[str, Spread]]:
    return reference, {}


def _update(state: tuple[Target, dict[str, Spread]], source: str, rows: Rows) -> tuple[Target, dict[str, Spread]]:
    images = rows["images"]
    state[1].setdefault(source, Spread(math.prod(images.shape[1:]))).add(images)
    return state


def _finish(state: tuple[Target, dict[str, Spread]], run: Run) -> Values:
    target, spreads = state
    return {column: target.distance(spreads[source]) for source, column in NAMES.items() if source in spreads}


HEUSEL = "https://arxiv.org/abs/1706.08500"
FRECHET = Metric(
    columns=(
        Column(
            "frechet_prior",
            "Frechet distance, on pixels, of decoded prior samples to the test split; "
            f"exact up to {SIDE:,} pixels; beyond, of at most the first {SIDE:,} images of each, which makes it larger: "
            "compare only with numbers of as many images",
            "", "lower", 3, HEUSEL,
        ),
        Column(
            "frechet_midpoint", "the same of decoded midpoints between the codes of two classes", "", "lower", 3, HEUSEL
        ),
    ),
    finish=_finish,
    asked=lambda spec: bool(spec.decoded),
    splits=lambda spec: tuple(NAMES),
    reference=_reference,
    init=_init,
    update=_update,
)  # fmt: skip
