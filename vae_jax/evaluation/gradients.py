"""Two estimators of the gradient through a sampled latent, and how much they vary."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from vae_jax.core import keys
from vae_jax.evaluation.estimators import Images, PerImage, Scalar, moments
from vae_jax.evaluation.metric import Column, Metric, Run, Values
from vae_jax.evaluation.trained import Purpose, Trained
from vae_jax.models.vae import VAE, Posterior, reparameterize

ENOUGH = 50  # draws from which on the error of a variance can be told


class GradientMoments(NamedTuple):
    """Mean [batch, 2 * latents] and total variance [batch] of one-draw estimates of a gradient."""

    mean: Float[Array, "batch parameters"]
    variance: PerImage
    error: PerImage  # squared standard error of `variance`, by how two halves of the draws differ


def gradient_moments(
    vae: VAE, x: Images, posterior: Posterior, key: Key[Array, ""], sigma: Scalar, samples: int
) -> dict[str, GradientMoments]:
    """Two estimators of the gradient of E_q[log p(x | z)] in (mean, log_var), over `samples` draws each.

    `reparameterized` differentiates through z = mean + std * eps (Kingma & Welling 2014); `score` multiplies log p(x | z)
    by the gradient of log q(z | x) (Williams 1992). Both are unbiased.
    """

    def reparameterized(key):
        def total(posterior):
            return jnp.sum(vae.decode(reparameterize(key, posterior), sigma).log_prob(x))

        gradient = jax.grad(total)(posterior)
        return jnp.concatenate([gradient.mean, gradient.log_var], axis=-1)

    def score(key):
        z = reparameterize(key, posterior)
        gradient = jax.grad(lambda posterior: jnp.sum(posterior.log_prob(z)))(posterior)
        value = vae.decode(z, sigma).log_prob(x)[:, None]
        return value * jnp.concatenate([gradient.mean, gradient.log_var], axis=-1)

    return {
        "reparameterized": _gradient_moments(reparameterized, keys.at(key, 0), samples),
        "score": _gradient_moments(score, keys.at(key, 1), samples),
    }


def _gradient_moments(gradient: Callable, key: Key[Array, ""], samples: int) -> GradientMoments:
    """Of gradient(key of a draw), in two halves of the draws, which then are merged (Chan et al. 1983)."""
    counts = -(-samples // 2), samples // 2
    halves = [
        moments(lambda number, start=start: gradient(keys.at(key, 2 * number + start)), count)
        for start, count in enumerate(counts)
    ]
    (mean, squares), (other, others) = halves
    delta = other - mean
    whole = squares + others + jnp.square(delta) * (counts[0] * counts[1] / samples)
    apart = [jnp.sum(part, axis=-1) / max(count - 1, 1) for part, count in zip((squares, others), counts, strict=True)]
    variance = jnp.sum(whole, axis=-1) / max(samples - 1, 1)
    return GradientMoments(mean + delta * (counts[1] / samples), variance, jnp.square(apart[0] - apart[1]) / 4)


def _program(trained: Trained, inputs, setting) -> dict[str, dict[str, Array]]:
    x = inputs.images[: setting.spec.batch_size]
    key = trained.key(Purpose.GRADIENTS)
    found = gradient_moments(trained.vae, x, trained.posterior(x), key, trained.sigma, setting.spec.gradient_samples)
    return {name: {"variance": each.variance, "error": each.error} for name, each in found.items()}


def _finish(state: None, run: Run) -> Values:
    values: Values = {}
    samples = run.setting.spec.gradient_samples
    for name, found in run.programs["gradients"].items():
        column = f"gradient_variance_{name}"
        error = math.sqrt(float(found["error"].sum(dtype=float))) / len(found["error"])
        values |= {
            column: float(found["variance"].mean(dtype=float)) if samples > 1 else None,
            f"{column}_se": error if samples >= ENOUGH else None,
        }
    return values


GRADIENTS = Metric(
    columns=tuple(
        Column(
            f"gradient_variance_{name}",
            f"variance of one draw's gradient of E log p(x given z) in (mean, log_var), {what}, "
            "summed over parameters; first batch of the test split",
            "nats^2", "lower", None, source, "draws",
        )
        for name, what, source in (
            ("reparameterized", "through z = mean + std * eps", "https://arxiv.org/abs/1312.6114"),
            ("score", "by the score function", "https://doi.org/10.1007/BF00992696"),
        )
    ),
    finish=_finish,
    density=True,
    asked=lambda spec: bool(spec.gradient_samples),
    program=_program,
)  # fmt: skip
