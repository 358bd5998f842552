"""Sums over batches, on the host in float64: means, variances over images, and what has to be kept whole."""

import math
from collections.abc import Mapping

import numpy as np


class Means:
    """Mean and variance of named numbers over images [n, ...], batch by batch.

    Batches are merged by the formula of Chan et al. (1983): the variance of numbers that are large and close together.
    """

    def __init__(self) -> None:
        self.count: dict[str, int] = {}
        self._sum: dict[str, np.ndarray] = {}
        self._squares: dict[str, np.ndarray] = {}

    def add(self, rows: Mapping[str, np.ndarray]) -> "Means":
        """Take in a batch; returns this object."""
        for name, values in rows.items():
            values = np.asarray(values, float)
            total = np.asarray(values.sum(axis=0))
            squares = np.square(values - total / len(values)).sum(axis=0)
            if before := self.count.get(name, 0):
                delta = total / len(values) - self._sum[name] / before
                squares = squares + self._squares[name] + np.square(delta) * (before * len(values) / (before + len(values)))
                total = total + self._sum[name]
            self.count[name], self._sum[name], self._squares[name] = before + len(values), total, squares
        return self

    def __contains__(self, name: str) -> bool:
        return name in self.count

    def means(self, name: str) -> np.ndarray:
        """Over the images; the shape of one image's values."""
        return np.asarray(self._sum[name] / self.count[name])

    def mean(self, name: str) -> float:
        """Of one number per image."""
        return float(self.means(name))

    def variance(self, name: str) -> np.ndarray:
        """Over the images, by 1 / n."""
        return np.asarray(self._squares[name] / self.count[name])

    def errors(self, name: str) -> np.ndarray:
        """Standard errors over images of the means; nan for a single image."""
        count = self.count[name]
        return (
            np.asarray(np.sqrt(self.variance(name) / (count - 1)))
            if count > 1
            else np.full_like(self.variance(name), np.nan)
        )

    def error(self, name: str) -> float | None:
        """That of one number per image; None for a single image."""
        return float(self.errors(name)) if self.count[name] > 1 else None

    def drawn_error(self, name: str, draws: int) -> float | None:
        """Standard error over draws of a mean over images, from the variance of each image's estimate; of one draw None."""
        # Rounded, the variance of weights that are all equal may lie just below 0.
        return math.sqrt(max(self.mean(name), 0.0) / self.count[name]) if draws > 1 else None


class Kept:
    """Whole arrays by name, for what needs all images at once: codes, which are small."""

    def __init__(self) -> None:
        self._parts: dict[str, list[np.ndarray]] = {}

    def add(self, rows: Mapping[str, np.ndarray]) -> "Kept":
        """Take in a batch; returns this object."""
        for name, values in rows.items():
            self._parts.setdefault(name, []).append(values)
        return self

    def arrays(self) -> dict[str, np.ndarray]:
        """Everything that was added."""
        return {name: np.concatenate(parts) for name, parts in self._parts.items()}
