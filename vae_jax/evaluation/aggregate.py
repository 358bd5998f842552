"""The rate taken apart on the aggregate posterior: mutual information, total correlation, what is left of each latent."""

import math
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.scipy.special import logsumexp

from vae_jax.evaluation.estimators import Latents, PerImage
from vae_jax.evaluation.metric import Column, Metric, Run, Values
from vae_jax.evaluation.trained import Purpose, Trained
from vae_jax.models.priors import Prior
from vae_jax.models.vae import Posterior, reparameterize

TWICE = 256  # images that have a second draw, for the error


class RateParts(NamedTuple):
    """The rate of each draw taken apart; mutual_information + total_correlation + dimension_wise_kl is the rate."""

    rate: PerImage  # log q(z | x) - log p(z)
    mutual_information: PerImage  # log q(z | x) - log q(z)
    total_correlation: PerImage  # log q(z) - sum_i log q(z_i)
    dimension_wise_kl: PerImage  # sum_i log q(z_i) - log p(z): a KL for each latent where p(z) = prod_i p(z_i)


def rate_parts(posterior: Posterior, own: Posterior, z: Latents, prior: Prior) -> RateParts:
    """E KL(q(z | x) || p) = I(x; z) + TC(z) + sum_i KL(q(z_i) || p_i), one draw at a time (Chen et al. 2018, eq. 2).

    Args:
      posterior: q(z | x_n) of all N images: q(z) is their full mixture, so the mutual information cannot pass log N.
      own: q(z | x) of the images that `z` was drawn from.
      z: one draw per image of `own`.
      prior: p(z).
    """
    count = jnp.log(float(len(posterior.mean)))

    def mixture(z):
        residual = (z[None] - posterior.mean) * jnp.exp(-0.5 * posterior.log_var)
        each = -0.5 * (jnp.square(residual) + posterior.log_var + jnp.log(2 * jnp.pi))
        return logsumexp(jnp.sum(each, axis=1)) - count, jnp.sum(logsumexp(each, axis=0) - count)

    joint, marginals = lax.map(mixture, z)
    conditional, log_prior = own.log_prob(z), prior.log_prob(z)
    return RateParts(conditional - log_prior, conditional - joint, joint - marginals, marginals - log_prior)


def _program(trained: Trained, inputs, setting) -> tuple[dict, dict]:
    """The parts for a draw from each of some images, and for a second draw; one loop, which is compiled once."""
    prior = trained.vae.prior()
    order = random.permutation(trained.key(Purpose.AGGREGATE, 0), len(inputs.mean))[: setting.spec.aggregate_samples]

    def of(images) -> Posterior:
        return Posterior(inputs.mean[images], inputs.log_var[images])

    drawn = order, order[:TWICE]
    z = [reparameterize(trained.key(Purpose.AGGREGATE, draw), of(images)) for draw, images in enumerate(drawn, 1)]
    everything = Posterior(inputs.mean, inputs.log_var)
    parts = rate_parts(everything, of(jnp.concatenate(drawn)), jnp.concatenate(z), prior)._asdict()
    parts["aggregate_kl"] = parts["total_correlation"] + parts["dimension_wise_kl"]  # KL(q(z) || p(z))
    if not prior.has_independent_latents:
        del parts["dimension_wise_kl"]  # latents that are not independent under the prior have no KL each

    def of_draw(place: slice) -> dict:
        return {name: values[place] for name, values in parts.items()}

    return of_draw(slice(len(order))), of_draw(slice(len(order), None))


def _finish(state: None, run: Run) -> Values:
    (parts, again), images = run.programs["rate_parts"], len(run.codes["mean"])
    found: Values = {}
    for name, values in parts.items():
        column = "sampled_rate" if name == "rate" else name
        found |= {column: float(values.mean(dtype=float)), f"{column}_se": sampled_error(values, again[name], images)}
    return found | {"aggregate_images": images}


def sampled_error(values: np.ndarray, again: np.ndarray, images: int) -> float | None:
    """Standard error of the mean of one draw each of n random images out of N, from second draws of some of them.

    The images are drawn without replacement: of all N, nothing but the draws of z varies.
    """
    count = len(values)
    if count < 2:
        return None
    within = float(np.square(values[: len(again)].astype(float) - again).mean()) / 2
    return math.sqrt(max(values.var(dtype=float, ddof=1), within) * (1 / count - 1 / images) + within / images)


CHEN = "https://arxiv.org/abs/1802.04942"
RATE_PARTS = Metric(
    columns=(
        Column(
            "sampled_rate", "the rate, of the draws that it is taken apart for", "nats per image", "", None, CHEN, "draws"
        ),
        Column(
            "mutual_information", "I(x; z); cannot pass log(aggregate_images)", "nats per image", "", None, CHEN, "draws"
        ),
        Column("total_correlation", "KL(q(z) || prod_i q(z_i))", "nats", "lower", None, CHEN, "draws"),
        Column(
            "dimension_wise_kl", "sum_i KL(q(z_i) || p(z_i)), of priors with independent latents", "nats", "lower", None,
            CHEN, "draws",
        ),
        Column("aggregate_kl", "KL(q(z) || p(z))", "nats", "lower", None, CHEN, "draws"),
        Column("aggregate_images", "images whose posteriors are mixed to q(z)", "images"),
    ),
    finish=_finish,
    density=True,
    asked=lambda spec: bool(spec.aggregate_samples),
    program=_program,
)  # fmt: skip
