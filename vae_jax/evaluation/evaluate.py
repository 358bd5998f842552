"""What trained runs are worth: exact means over whole splits, Monte Carlo figures with errors, arrays for figures.

Two jitted programs over runs do the work: `measure` (encode every image and estimate what it costs) and `decode` (means
of any latents). What is per image comes back to the host, where means are taken in float64. The estimators themselves
are in `estimators`; here each gets its images, its key and its columns.
"""

import dataclasses
import enum
import functools
import math
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax, random
from jaxtyping import Array, Float, Key

from vae_jax.core import keys
from vae_jax.data import dataset as data
from vae_jax.evaluation import calibration, columns, estimators
from vae_jax.evaluation import queries as pictures
from vae_jax.evaluation.columns import EvalConfig
from vae_jax.models import likelihoods
from vae_jax.models.vae import VAE, ModelSpec, Posterior, reparameterize
from vae_jax.system import memory, runs
from vae_jax.training import objectives

TWICE = 256  # images of which the rate is taken apart a second time
BLOCK = 16  # runs whose arrays are on the host at a time


class Purpose(enum.IntEnum):
    """Counters below a run's evaluation stream. Append, never renumber."""

    TRAIN = 0
    VALID = 1
    TEST = 2
    PRIOR = 3
    IMPORTANCE = 4
    AGGREGATE = 5
    AIS = 6
    GRADIENTS = 7
    SIGMA = 8
    CALIBRATION = 9
    SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Trained:
    """One run inside a program: its bound network, its traced numbers, the head of its evaluation stream."""

    vae: VAE
    sigma: Float[Array, ""]
    noise_scale: Float[Array, ""]
    root: Key[Array, ""]

    def posterior(self, x: Float[Array, "batch *shape"]) -> Posterior:
        """The distribution z is really drawn from: for a deterministic code a point, whose rate is infinite."""
        return self.vae.encode(x).scaled(self.noise_scale)

    def key(self, *counters: int) -> Key[Array, ""]:
        return functools.reduce(keys.at, map(int, counters), self.root)

    def batch_keys(self, batches: Array, *counters: int) -> Key[Array, " batches"]:
        """A key for each batch; those of one split do not depend on which others are evaluated."""
        return jax.vmap(keys.at, (None, 0))(self.key(*counters), jnp.arange(len(batches)))


def evaluate(
    model: ModelSpec,
    spec: EvalConfig,
    variables: dict,
    sigma: np.ndarray,
    weights: objectives.Weights,
    seeds: np.ndarray,
    dataset: data.Dataset,
    kind: str = "weighted",
) -> Iterator[tuple[dict, dict]]:
    """Yield (metrics, arrays) for each run in order: a row of results.csv, and what its figures are drawn from.

    Args:
      model: the network; all runs share it.
      spec: how much to draw.
      variables, sigma, weights, seeds: with a leading runs axis, on the host.
      dataset: train and test splits are evaluated, and valid where the spec says so, with bits that stay the same.
      kind: of the objective that the runs were trained with.
    """
    images = {split: dataset.images(split) for split in ("train", "test", *(["valid"] if spec.valid else []))}
    count, start, together = len(seeds), 0, _together(model, spec, images, len(seeds))
    known = columns.reference(dataset, images, model, spec)
    objective = objectives.OBJECTIVES[kind]
    program = functools.lru_cache(maxsize=1)(functools.partial(_programs, model, spec, dataset, images, objective))

    def attempt(start: int, together: int) -> tuple:
        block = runs.take((variables, sigma, weights, seeds), slice(start, start + together))
        with memory.watched(together):
            return block, program(together)(block)

    while start < count:
        (block, measured), together = memory.halving(
            functools.partial(attempt, start), together, release=program.cache_clear
        )
        for run, (found, queries, shown) in enumerate(measured):
            row = columns.of_run(model, spec, found, shown, runs.take(block[2], run), known, kind)
            yield row, _arrays(found, queries, shown, images["test"], known)
        start += together


def _together(model: ModelSpec, spec: EvalConfig, images: dict[str, np.ndarray], count: int) -> int:
    """How many runs at a time: their arrays come to the host."""
    decoded = (2 * spec.decoded + 1000) * math.prod(model.shape)
    each = sum(len(x) for x in images.values()) * 4 * (model.latents + len(calibration.EDGES))
    return max(1, min(count, BLOCK, memory.free() // (4 * (4 * decoded + each))))  # a copy of each, and room for the rest


def _programs(
    model: ModelSpec,
    spec: EvalConfig,
    dataset: data.Dataset,
    images: dict[str, np.ndarray],
    objective: objectives.Objective,
    together: int,
) -> Callable[[tuple], list[tuple[dict, dict, dict]]]:
    """A function of `together` runs or fewer: of each, what was measured, which latents were decoded, and their means."""
    mesh = runs.mesh(together)
    size = -(-together // mesh.size) * mesh.size
    batched = runs.put({split: data.batches(x, spec.batch_size)[0] for split, x in images.items()}, mesh, shared=True)
    sizes = {split: len(x) for split, x in images.items()}
    measure = runs.over_runs(functools.partial(_measure, model, spec, sizes), mesh)
    decode = runs.over_runs(functools.partial(_decode, model), mesh)

    def measured(block: tuple) -> list[tuple[dict, dict, dict]]:
        padded = runs.put(runs.pad(block, size), mesh)
        found = runs.fetch(measure(padded, batched))
        each = [runs.take(found, run) for run in range(len(block[-1]))]
        for run, of_run in enumerate(each):
            weights = runs.take(block[2], run)
            of_run["held_to_prior"] = np.array(objective.holds_to_prior(weights.beta, weights.mmd_weight))
        asked = [_queries(model, found, spec, dataset, int(seed)) for found, seed in zip(each, block[3], strict=True)]
        flat = [data.batches(np.concatenate(list(queries.values())), spec.batch_size)[0] for queries in asked]
        means = runs.fetch(decode((*padded[:2], runs.put(runs.pad(runs.stack(flat), size), mesh))))
        shown = []
        for queries, batches in zip(asked, means, strict=False):
            ends = np.cumsum([len(z) for z in queries.values()])
            shown.append(dict(zip(queries, np.split(np.concatenate(batches), ends)[:-1], strict=True)))
        return list(zip(each, asked, shown, strict=True))

    return measured


# Programs: what is computed where the images are.


def _measure(model: ModelSpec, spec: EvalConfig, sizes: dict[str, int], run, splits: dict) -> dict:
    """Every figure of one run that is asked for: per image of each split, and per draw."""
    variables, sigma, weights, seed = run
    trained = Trained(VAE(model).bind(variables), sigma, weights.noise_scale, keys.stream(seed, keys.Stream.EVALUATION))
    if model.sigma == "optimal":
        sigma = _optimal_sigma(trained, spec, sizes["train"], splits["train"])
        trained = dataclasses.replace(trained, sigma=sigma)
    found: dict = _per_image(trained, spec, sizes, splits)
    prior = trained.vae.prior()
    found["prior_samples"] = prior.sample(trained.key(Purpose.PRIOR), spec.decoded or pictures.SAMPLES)
    if prior.has_quantile:
        levels = prior.quantile(jnp.asarray(pictures.LEVELS, jnp.float32))
        found["quantiles"] = jnp.tile(levels[:, None], (1, model.latents))
    else:
        found["quantiles"] = jnp.quantile(found["prior_samples"], jnp.asarray(pictures.LEVELS, jnp.float32), axis=0)
    if model.sigma not in ("", "per_pixel"):
        found["sigma"] = jnp.exp(trained.vae.log_sigma(sigma))
    if spec.importance_samples:
        found["importance"] = _importance(trained, spec, sizes, splits)
    if spec.aggregate_samples:
        found["rate_parts"], found["rate_parts_again"] = _rate_parts(trained, spec, found["test"])
    if spec.ais_temperatures:
        found["ais"] = _ais(trained, spec, _flat(splits["test"], min(sizes["test"], spec.ais_images)))
    if spec.gradient_samples:
        x = splits["test"][0][: sizes["test"]]
        key = trained.key(Purpose.GRADIENTS)
        moments = estimators.gradient_moments(trained.vae, x, trained.posterior(x), key, sigma, spec.gradient_samples)
        found["gradients"] = {name: {"variance": each.variance, "error": each.error} for name, each in moments.items()}
    if is_calibrated(model, spec):
        for split, checked in _calibration(trained, spec, sizes, splits).items():
            found[split]["calibration"] = checked
        posterior = trained.posterior(_flat(splits["test"], min(sizes["test"], pictures.SHOWN)))
        key = trained.key(Purpose.SHOWN)
        found["intervals"] = calibration.shown(trained.vae, posterior, key, sigma, spec.calibration_samples)
    return found


def is_calibrated(model: ModelSpec, spec: EvalConfig) -> bool:
    """Whether the decoder's intervals are checked: asked for, and of a likelihood that has any."""
    return bool(spec.calibration_samples) and likelihoods.LIKELIHOODS[model.likelihood].is_graded


def _optimal_sigma(trained: Trained, spec: EvalConfig, size: int, batches: Float[Array, "batches batch *shape"]):
    """The root of the mean squared error of the training split, z drawn; what training used for its batches."""

    def squared_error(args):
        x, key = args
        return calibration.squared_error(trained.vae, x, trained.posterior(x), key, trained.sigma, spec.samples)

    squared = _flat(lax.map(squared_error, (batches, trained.batch_keys(batches, Purpose.SIGMA))), size)
    return jnp.maximum(jnp.sqrt(jnp.mean(squared)), likelihoods.SIGMA_FLOOR)


def _calibration(trained: Trained, spec: EvalConfig, sizes: dict[str, int], splits: dict) -> dict[str, dict]:
    """Per split and image, how pixels lie in their intervals."""

    def measure(args):
        x, key = args
        posterior = trained.posterior(x)
        return calibration.measure(trained.vae, x, posterior, key, trained.sigma, spec.calibration_samples)

    each = {name: trained.batch_keys(x, Purpose.CALIBRATION, Purpose[name.upper()]) for name, x in splits.items()}
    return _over_splits(measure, splits, each, sizes)


def _per_image(trained: Trained, spec: EvalConfig, sizes: dict[str, int], splits: dict) -> dict[str, dict]:
    """Per split and image: distortion (mean and variance of the draws), rate per latent, mse, mean and std."""
    prior = trained.vae.prior()

    def batch_terms(args):
        x, key = args
        posterior = trained.posterior(x)
        found, variance = estimators.costs(trained.vae, x, posterior, key, trained.sigma, spec.samples)
        if "rate_per_latent" not in found:
            found["rate_per_latent"] = prior.rate_per_latent(posterior.mean, posterior.log_var)
        # No draw can show that a point has infinite rate.
        found["rate_per_latent"] = jnp.where(trained.noise_scale > 0, found["rate_per_latent"], jnp.inf)
        reconstruction = trained.vae.decode(posterior.mean, trained.sigma).mean
        return {
            **found,
            **{f"{name}_variance": value for name, value in variance.items() if name != "rate_per_latent"},
            "mse": jnp.mean(jnp.square(x - reconstruction), axis=tuple(range(1, x.ndim))),
            "mean": posterior.mean,
            "log_var": posterior.log_var,
        }

    each = {name: trained.batch_keys(x, Purpose[name.upper()]) for name, x in splits.items()}
    return _over_splits(batch_terms, splits, each, sizes)


def _over_splits(function: Callable, splits: dict, each: dict[str, Key[Array, " batches"]], sizes: dict[str, int]) -> dict:
    """`function` of (batch, its key) over the batches of every split, without the padding: {split: {name: [n, ...]}}."""
    # All splits in one loop: one body to compile.
    terms = lax.map(function, (jnp.concatenate(list(splits.values())), jnp.concatenate(list(each.values()))))
    ends = np.cumsum([len(x) for x in splits.values()])
    parts = {name: (end - len(splits[name]), end) for name, end in zip(splits, ends, strict=True)}
    return {
        name: {key: _flat(leaf[start:end], sizes[name]) for key, leaf in terms.items()}
        for name, (start, end) in parts.items()
    }


def _flat(batches: Float[Array, "batches batch *rest"], count: int) -> Float[Array, "n *rest"]:
    """One row per image, without the padding of the last batch."""
    return batches.reshape(-1, *batches.shape[2:])[:count]


def _importance(trained: Trained, spec: EvalConfig, sizes: dict[str, int], splits: dict) -> dict[str, estimators.Estimate]:
    def batch_bound(args):
        x, key = args
        return estimators.importance_bound(trained.vae, x, trained.posterior(x), key, trained.sigma, spec.importance_samples)

    found = {}
    for name in spec.importance_splits:
        each = trained.batch_keys(splits[name], Purpose.IMPORTANCE, Purpose[name.upper()])
        batches = lax.map(batch_bound, (splits[name], each))
        found[name] = jax.tree.map(lambda leaf, size=sizes[name]: _flat(leaf, size), batches)
    return found


def _rate_parts(trained: Trained, spec: EvalConfig, test: dict) -> tuple[dict, dict]:
    """The rate of a draw from each of some images taken apart; and of a second draw, for the error."""
    posterior = Posterior(test["mean"], test["log_var"])
    order = random.permutation(trained.key(Purpose.AGGREGATE, 0), len(test["mean"]))[: spec.aggregate_samples]
    prior = trained.vae.prior()

    def of(order, draw):
        own = Posterior(posterior.mean[order], posterior.log_var[order])
        z = reparameterize(trained.key(Purpose.AGGREGATE, draw), own)
        parts = estimators.rate_parts(posterior, own, z, prior)._asdict()
        parts["aggregate_kl"] = parts["total_correlation"] + parts["dimension_wise_kl"]  # KL(q(z) || p(z))
        if not prior.has_independent_latents:
            del parts["dimension_wise_kl"]  # latents that are not independent under the prior have no KL each
        return parts

    return of(order, 1), of(order[:TWICE], 2)


def _ais(trained: Trained, spec: EvalConfig, test: Float[Array, "n *shape"]) -> dict:
    """AIS on test images; on as many simulated ones AIS and reverse AIS, which bracket log p of those."""
    settings = (trained.sigma, spec.ais_temperatures, spec.ais_chains)
    simulated, z = estimators.simulate(trained.vae, trained.key(Purpose.AIS, 0), len(test), trained.sigma)
    return {
        "test": estimators.ais(trained.vae, test, trained.key(Purpose.AIS, 1), *settings)._asdict(),
        "lower": estimators.ais(trained.vae, simulated, trained.key(Purpose.AIS, 2), *settings)._asdict(),
        "upper": estimators.reverse_ais(trained.vae, simulated, z, trained.key(Purpose.AIS, 3), *settings)._asdict(),
    }


def _decode(model: ModelSpec, run) -> Float[Array, "batches batch *shape"]:
    """(variables, sigma, batches of latents [., batch, latents]) -> decoder means."""
    variables, sigma, z = run
    bound = VAE(model).bind(variables)
    return lax.map(lambda batch: bound.decode(batch, sigma).mean, z)


# Pictures: what the figures need.


@columns.overflowing
def _queries(model: ModelSpec, found: dict, spec: EvalConfig, dataset: data.Dataset, seed: int) -> dict:
    test = found["test"]
    generator = np.random.default_rng([seed, int(keys.Stream.EVALUATION)])
    pairs = pictures.pairs(dataset.splits["test"].labels, spec.decoded or pictures.SAMPLES, generator)
    rate = test["rate_per_latent"].mean(axis=0)
    by_rate = np.isfinite(rate).all() and len(rate) == model.latents
    importance = rate if by_rate else test["mean"].var(axis=0)
    to_prior = bool(found["held_to_prior"])
    queries = pictures.queries(test["mean"], importance, found["prior_samples"], found["quantiles"], pairs, to_prior)
    if model.decoder == "linear":
        # Unit vectors and the origin: their differences are the columns of the decoder.
        queries["axes"] = np.eye(model.latents + 1, model.latents, dtype=np.float32)
    return queries


@columns.overflowing
def _arrays(found: dict, queries: dict, shown: dict, x: np.ndarray, known: columns.Reference) -> dict:
    """What the figures need of one run."""
    test = found["test"]
    arrays = {
        "codes_mean": test["mean"],
        "codes_std": np.exp(0.5 * test["log_var"]),
        "rate_per_latent": test["rate_per_latent"].mean(axis=0, dtype=float),
        "held_to_prior": found["held_to_prior"],
        "images": x[: pictures.SHOWN],
    }
    if known.labels["test"] is not None:
        arrays["labels"] = known.labels["test"]
    if known.spectrum is not None:
        arrays["spectrum"] = known.spectrum
    shown = shown | {"samples": shown["samples"][: pictures.SAMPLES]}
    arrays |= {name: means for name, means in shown.items() if name not in ("midpoints", "axes")}
    if "plane" in queries:
        arrays["plane_latents"] = queries["plane"]
    if "intervals" in found:
        arrays |= calibration.arrays(test["calibration"]) | found["intervals"]
    return arrays
