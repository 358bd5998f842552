"""What can be had in closed form: PCA. NumPy, float64."""

import dataclasses

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "n d"]


@dataclasses.dataclass(frozen=True)
class PCA:
    """The `latents` directions of largest variance: `mean` [d], orthonormal `components` [latents, d]."""

    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "latents d"]

    def encode(self, x: Vectors) -> Float[np.ndarray, "n latents"]:
        return (x - self.mean) @ self.components.T

    def decode(self, z: Float[np.ndarray, "n latents"]) -> Vectors:
        return self.mean + z @ self.components


def pca(x: Vectors, latents: int) -> PCA:
    """PCA of the rows of `x`; with `latents` above the dimension, all directions there are."""
    mean = x.mean(axis=0)
    # The covariance rather than the data: 60,000 rows have no larger a problem than 600.
    _, vectors = np.linalg.eigh((x - mean).T @ (x - mean) / len(x))
    return PCA(mean, vectors[:, ::-1][:, :latents].T)
