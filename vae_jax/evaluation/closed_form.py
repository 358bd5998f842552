"""What can be had in closed form: PCA, the linear VAE (pPCA) and its rate-distortion curve. NumPy, float64."""

import dataclasses

import numpy as np
from jaxtyping import Float

Vectors = Float[np.ndarray, "n d"]


@dataclasses.dataclass(frozen=True)
class Moments:
    """First and second moments of vectors: all that the optima here depend on."""

    mean: Float[np.ndarray, " d"]
    covariance: Float[np.ndarray, "d d"]


def moments(x: Vectors) -> Moments:
    """Of the rows of `x`, with the covariance of N, not N - 1."""
    centred = x - x.mean(axis=0)
    return Moments(x.mean(axis=0), centred.T @ centred / len(x))


def bit_moments(p: Vectors) -> Moments:
    """Of bits drawn afresh again and again with the probabilities in the rows of `p`: E[x x'] = p p' + diag(p (1 - p))."""
    fixed = moments(p)
    return Moments(fixed.mean, fixed.covariance + np.diag((p * (1 - p)).mean(axis=0)))


@dataclasses.dataclass(frozen=True)
class PCA:
    """The `latents` directions of largest variance: `mean` [d], orthonormal `components` [latents, d]."""

    mean: Float[np.ndarray, " d"]
    components: Float[np.ndarray, "latents d"]

    def encode(self, x: Vectors) -> Float[np.ndarray, "n latents"]:
        return (x - self.mean) @ self.components.T

    def decode(self, z: Float[np.ndarray, "n latents"]) -> Vectors:
        return self.mean + z @ self.components


def pca(x: Vectors | Moments, latents: int) -> PCA:
    """PCA of the rows of `x`, or of their moments; with `latents` above the dimension, all directions there are."""
    data = _moments(x)
    return PCA(data.mean, spectrum(data)[1][:, :latents].T)


@dataclasses.dataclass(frozen=True)
class LinearVAE:
    """The exact optimum of a linear beta-VAE: p(x | z) = N(mean + weights z, sigma2 I), q(z | x) = N(gain (x - mean), diag).

    At beta = 1 with the best sigma2 it is probabilistic PCA (Tipping & Bishop 1999; Lucas et al. 2019).
    """

    mean: Float[np.ndarray, " d"]
    weights: Float[np.ndarray, "d latents"]
    gain: Float[np.ndarray, "latents d"]
    variances: Float[np.ndarray, " latents"]
    sigma2: float

    def encode(self, x: Vectors) -> Float[np.ndarray, "n latents"]:
        return (x - self.mean) @ self.gain.T

    def distortion(self, x: Vectors) -> Float[np.ndarray, " n"]:
        """E_q[-log p(x | z)] of each row, in nats."""
        squared = self.squared_error(x) + np.sum(np.square(self.weights).sum(axis=0) * self.variances)
        return 0.5 * squared / self.sigma2 + 0.5 * x.shape[1] * np.log(2 * np.pi * self.sigma2)

    def squared_error(self, x: Vectors) -> Float[np.ndarray, " n"]:
        """|x - reconstruction at the mean code|^2 of each row."""
        return np.square(x - self.mean - self.encode(x) @ self.weights.T).sum(axis=1)

    def rate(self, x: Vectors) -> Float[np.ndarray, " n"]:
        """KL(q(z | x) || N(0, I)) of each row, in nats."""
        return 0.5 * (np.square(self.encode(x)) + self.variances - 1 - np.log(self.variances)).sum(axis=1)

    def log_prob(self, x: Vectors) -> Float[np.ndarray, " n"]:
        """log N(x; mean, weights weights' + sigma2 I) of each row, in nats."""
        centred, d = x - self.mean, x.shape[1]
        inner = self.weights.T @ self.weights + self.sigma2 * np.eye(self.weights.shape[1])
        projected = centred @ self.weights
        quadratic = np.square(centred).sum(axis=1) - (projected * np.linalg.solve(inner, projected.T).T).sum(axis=1)
        log_det = np.linalg.slogdet(inner)[1] + (d - len(inner)) * np.log(self.sigma2)
        return -0.5 * (d * np.log(2 * np.pi) + log_det + quadratic / self.sigma2)


def _moments(x: Vectors | Moments) -> Moments:
    return x if isinstance(x, Moments) else moments(x)


def spectrum(x: Vectors | Moments) -> tuple[Float[np.ndarray, " d"], Float[np.ndarray, "d d"]]:
    """Eigenvalues of the covariance (of N, not N - 1), largest first, and its eigenvectors as columns."""
    values, vectors = np.linalg.eigh(_moments(x).covariance)
    return np.clip(values[::-1], 0, None), vectors[:, ::-1]


def linear_vae(x: Vectors | Moments, latents: int, beta: float = 1.0, sigma2: float | None = None) -> LinearVAE:
    """What a linear beta-VAE trained on `x` (rows, or their moments) converges to; with `sigma2` None, the learned one.

    Direction i is used where lambda_i > theta = beta * sigma2, with |w_i|^2 = lambda_i - theta, posterior variance
    theta / lambda_i, squared error theta and rate log(lambda_i / theta) / 2: Gaussian reverse water-filling.

    Raises:
      ValueError: no sigma2 is optimal (as many latents as dimensions, or beta too large for a learned one).
    """
    data = _moments(x)
    values, vectors = spectrum(data)
    if sigma2 is None:
        sigma2 = _learned_sigma2(values, latents, beta)
    theta = beta * sigma2
    used = np.maximum(values[:latents] - theta, 0)
    kept = np.maximum(values[:latents], theta)
    directions = vectors[:, :latents]
    return LinearVAE(data.mean, directions * np.sqrt(used), (directions * np.sqrt(used) / kept).T, theta / kept, sigma2)


def _learned_sigma2(values: Float[np.ndarray, " d"], latents: int, beta: float) -> float:
    """sigma2 = sum of the unused eigenvalues / (d - beta q), with the q that agrees with itself."""
    most = min(latents, len(values))
    for q in range(most, -1, -1):
        if len(values) > beta * q:
            sigma2 = values[q:].sum() / (len(values) - beta * q)
            theta = beta * sigma2
            if (q == 0 or values[q - 1] > theta) and (q == most or values[q] <= theta) and sigma2 > 0:
                return float(sigma2)
    raise ValueError(f"no learned sigma is optimal with {latents} latents of {len(values)} dimensions at beta {beta:g}")


def water_filling(
    values: Float[np.ndarray, " d"], latents: int, theta: Float[np.ndarray, " m"]
) -> tuple[Float[np.ndarray, " m"], Float[np.ndarray, " m"]]:
    """(rate in nats, squared error) of the linear optimum at each water level theta, from the eigenvalues of the data."""
    level, top = theta[:, None], values[None, :latents]
    rate = np.maximum(0.5 * np.log(np.maximum(top, 1e-300) / level), 0).sum(axis=1)
    return rate, np.minimum(level, top).sum(axis=1) + values[latents:].sum()
