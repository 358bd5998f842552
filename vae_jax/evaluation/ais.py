"""Annealed importance sampling of log p(x), and the bracket on images that the model simulated (BDMC)."""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jax.scipy.special import logsumexp
from jaxtyping import Array, Float, Key

from vae_jax.core import keys
from vae_jax.evaluation.estimators import GROUPS, Estimate, Images, Latents, PerImage, Scalar, estimate, extrapolated_error
from vae_jax.evaluation.metric import Column, Metric, Run, Values
from vae_jax.evaluation.trained import Purpose, Trained
from vae_jax.models.vae import VAE

TARGET_ACCEPTANCE = 0.65  # of HMC (Neal 2011)
LEAPFROGS = 10


class Annealed(NamedTuple):
    """What an annealed chain found, per image [batch]."""

    bound: Estimate  # over the chains; AIS: lower in expectation; reversed from exact posterior samples: upper
    effective_samples: PerImage  # (sum w)^2 / sum w^2 over the chains
    acceptance: PerImage  # of HMC, mean over the path


def ais(vae: VAE, x: Images, key: Key[Array, ""], sigma: Scalar, temperatures: int, chains: int) -> Annealed:
    """log p(x) by annealed importance sampling from the prior to the posterior with HMC (Neal 2001; Wu et al. 2017)."""
    start = vae.prior().sample(keys.at(key, 0), chains * x.shape[0]).reshape(chains, x.shape[0], -1)
    log_weights, acceptance = _anneal(vae, x, start, keys.at(key, 1), sigma, _path(temperatures))
    return _combine(log_weights, acceptance, sign=1)


def reverse_ais(
    vae: VAE, x: Images, z: Latents, key: Key[Array, ""], sigma: Scalar, temperatures: int, chains: int
) -> Annealed:
    """An upper bound of log p(x) in expectation, from an exact posterior sample `z` of each image (Grosse et al. 2015).

    Such samples are there for data that the model itself simulated; with `ais` they bracket log p(x) (BDMC).
    """
    start = jnp.tile(z[None], (chains, 1, 1))
    log_weights, acceptance = _anneal(vae, x, start, key, sigma, _path(temperatures)[::-1])
    return _combine(log_weights, acceptance, sign=-1)


def simulate(vae: VAE, key: Key[Array, ""], count: int, sigma: Scalar) -> tuple[Float[Array, "count *pixels"], Latents]:
    """`count` images from the model, and the latents they were made from: exact posterior samples."""
    z = vae.prior().sample(keys.at(key, 0), count)
    return vae.decode(z, sigma).sample(keys.at(key, 1)), z


def _path(temperatures: int) -> Float[Array, " steps"]:
    """Inverse temperatures from 0 to 1, dense at both ends (the sigmoidal schedule of Grosse et al. 2015)."""
    sigmoid = jax.nn.sigmoid(jnp.linspace(-4.0, 4.0, temperatures + 1))
    return (sigmoid - sigmoid[0]) / (sigmoid[-1] - sigmoid[0])


def _combine(log_weights: Float[Array, "chains batch"], acceptance: PerImage, sign: int) -> Annealed:
    def log_mean(weights):
        return sign * (logsumexp(weights, axis=0) - jnp.log(float(len(weights))))

    groups = [log_mean(log_weights[group::GROUPS]) for group in range(GROUPS) if group < len(log_weights)]
    unknown = jnp.full_like(acceptance, jnp.nan)
    value = log_mean(log_weights)
    bound = estimate(jnp.stack(groups), value) if len(groups) == GROUPS else Estimate(value, unknown, unknown)
    effective = jnp.exp(2 * logsumexp(log_weights, axis=0) - logsumexp(2 * log_weights, axis=0))
    return Annealed(bound, effective, acceptance)


def _anneal(vae: VAE, x: Images, z: Float[Array, "chains batch latents"], key: Key[Array, ""], sigma: Scalar, path):
    """Log weights [chains, batch] of the chains from `z` along `path`, and the mean acceptance [batch].

    The step size of each image follows the acceptance of its chains, so it adapts along the path.
    """
    prior = vae.prior()
    chains, batch = z.shape[:2]

    def terms(z):
        flat = z.reshape(chains * batch, -1)
        images = jnp.tile(x, (chains, *(1,) * (x.ndim - 1)))
        log_likelihood = vae.decode(flat, sigma).log_prob(images)
        return prior.log_prob(flat).reshape(chains, batch), log_likelihood.reshape(chains, batch)

    def move(carry, step):
        z, log_weights, size = carry
        number, before, after = step
        log_weights = log_weights + (after - before) * terms(z)[1]

        def log_density(z):
            log_prior, log_likelihood = terms(z)
            return log_prior + after * log_likelihood

        z, acceptance = hmc(log_density, z, keys.at(key, number), jnp.broadcast_to(size[None], (chains, batch)))
        acceptance = jnp.mean(acceptance, axis=0)
        size = jnp.clip(size * jnp.where(acceptance > TARGET_ACCEPTANCE, 1.02, 0.98), 1e-4, 1.0)
        return (z, log_weights, size), acceptance

    steps = (jnp.arange(len(path) - 1), path[:-1], path[1:])
    start = (z, jnp.zeros((chains, batch)), jnp.full((batch,), 0.1))
    (_, log_weights, _), acceptance = lax.scan(move, start, steps)
    return log_weights, jnp.mean(acceptance, axis=0)


def hmc(
    log_density: Callable, z: Float[Array, "chains batch latents"], key: Key[Array, ""], size: Float[Array, "chains batch"]
):
    """One Hamiltonian Monte Carlo transition of every chain: the new z, and its probability of acceptance."""
    value_and_grad = jax.value_and_grad(lambda z: (lambda value: (jnp.sum(value), value))(log_density(z)), has_aux=True)
    step = size[..., None]
    momentum = random.normal(keys.at(key, 0), z.shape)
    (_, before), gradient = value_and_grad(z)

    def leapfrog(carry, _):
        z, momentum, gradient, _ = carry
        momentum = momentum + 0.5 * step * gradient
        z = z + step * momentum
        (_, value), gradient = value_and_grad(z)
        return (z, momentum + 0.5 * step * gradient, gradient, value), None

    (proposal, end, _, after), _ = lax.scan(leapfrog, (z, momentum, gradient, before), length=LEAPFROGS)
    kinetic = 0.5 * (jnp.sum(jnp.square(momentum), axis=-1) - jnp.sum(jnp.square(end), axis=-1))
    # A trajectory that left the finite numbers is rejected.
    log_ratio = jnp.nan_to_num(after - before + kinetic, nan=-jnp.inf)
    accepted = jnp.log(random.uniform(keys.at(key, 1), log_ratio.shape)) < log_ratio
    return jnp.where(accepted[..., None], proposal, z), jnp.exp(jnp.minimum(log_ratio, 0.0))


def _program(trained: Trained, inputs, setting) -> dict[str, Annealed]:
    """AIS on test images; on as many simulated ones AIS and reverse AIS, which bracket log p of those."""
    test = inputs.images[: setting.spec.ais_images]
    settings = (trained.sigma, setting.spec.ais_temperatures, setting.spec.ais_chains)
    simulated, z = simulate(trained.vae, trained.key(Purpose.AIS, 0), len(test), trained.sigma)
    return {
        "test": ais(trained.vae, test, trained.key(Purpose.AIS, 1), *settings),
        "lower": ais(trained.vae, simulated, trained.key(Purpose.AIS, 2), *settings),
        "upper": reverse_ais(trained.vae, simulated, z, trained.key(Purpose.AIS, 3), *settings),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))


def _over_images(values: np.ndarray) -> float | None:
    return float(values.std(dtype=float) / math.sqrt(len(values) - 1)) if len(values) > 1 else None


def _finish(state: None, run: Run) -> Values:
    found = run.programs["ais"]
    test = found["test"]
    values: Values = {
        "ais_bound": _mean(test.bound.value),
        "ais_bound_se": extrapolated_error(_mean(test.bound.quarter), _mean(test.bound.half), len(test.bound.value)),
        "ais_bound_image_se": _over_images(test.bound.value),
    }
    lower, upper = found["lower"].bound.value, found["upper"].bound.value
    for name, bounds in (("bdmc_lower", lower), ("bdmc_upper", upper), ("bdmc_gap", upper - lower)):
        # The images are drawn as well: their error over images is that over draws.
        values |= {name: _mean(bounds), f"{name}_se": _over_images(bounds)}
    return values | {"ais_effective_samples": _mean(test.effective_samples), "ais_acceptance": _mean(test.acceptance)}


GROSSE = "https://arxiv.org/abs/1511.02543"
AIS = Metric(
    columns=(
        Column(
            "ais_bound", "log p(x) from below by annealed importance sampling, first `eval.ais_images` test images",
            "nats per image", "higher", None, "https://arxiv.org/abs/1611.04273", "draws, images",
        ),
        Column("bdmc_lower", "the same on images that the model simulated", "nats per image", "", None, GROSSE, "draws"),
        Column("bdmc_upper", "their log p(x) from above, by reverse annealing", "nats per image", "", None, GROSSE, "draws"),
        Column("bdmc_gap", "upper - lower: how far AIS can be off", "nats per image", "lower", None, GROSSE, "draws"),
        Column("ais_effective_samples", "(sum w)^2 / sum w^2 of the chains, of `eval.ais_chains`", "chains", "higher"),
        Column("ais_acceptance", "of Hamiltonian Monte Carlo, mean over the path"),
    ),
    finish=_finish,
    density=True,
    asked=lambda spec: bool(spec.ais_temperatures),
    program=_program,
)  # fmt: skip
