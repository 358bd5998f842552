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

from vae_jax import baselines, calibration, data, estimators, keys, likelihoods, objectives, pictures, runs
from vae_jax.model import VAE, ModelSpec, Posterior, reparameterize

ACTIVE = 0.01  # variance of a mean code over the data from which a latent counts as used (Burda et al. 2016)
BLOCK = 16  # runs whose arrays are on the host at a time


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """The config's `eval` group: how much is drawn; 0 leaves an estimate out."""

    samples: int  # draws per image
    batch_size: int  # images at a time
    decoded: int  # decoder means behind each Frechet distance
    importance_samples: int  # of the importance bound
    importance_splits: tuple[str, ...]
    aggregate_samples: int  # draws from the aggregate posterior by which the rate is taken apart
    ais_temperatures: int  # of AIS, and of the bracket on simulated images
    ais_chains: int
    ais_images: int  # the first of the test split, and as many simulated ones
    gradient_samples: int  # draws of each gradient estimator
    calibration_samples: int  # draws per image by which the decoder's intervals are checked


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
    spec: EvalSpec,
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
      dataset: train and test splits are evaluated, with bits that stay the same.
      kind: of the objective that the runs were trained with.
    """
    count, objective = len(seeds), objectives.OBJECTIVES[kind]
    mesh = runs.mesh(min(count, BLOCK))
    size = -(-min(count, BLOCK) // mesh.size) * mesh.size
    images = {split: dataset.images(split) for split in ("train", "test")}
    batched = runs.put({split: data.batches(x, spec.batch_size)[0] for split, x in images.items()}, mesh, shared=True)
    sizes = {split: len(x) for split, x in images.items()}
    # From the eigenvalues of its data the optimum of a linear decoder is known.
    pixels = images["train"].reshape(sizes["train"], -1) if model.decoder == "linear" else None
    known = {} if pixels is None else {"spectrum": baselines.spectrum(pixels.astype(float))[0]}
    measure = runs.over_runs(functools.partial(_measure, model, spec, sizes), mesh)
    decode = runs.over_runs(functools.partial(_decode, model), mesh)
    for start in range(0, count, BLOCK):
        block = runs.take((variables, sigma, weights, seeds), slice(start, start + BLOCK))
        padded = runs.put(runs.pad(block, size), mesh)
        measured = runs.fetch(measure(padded, batched))
        each = [runs.take(measured, run) for run in range(len(block[-1]))]
        held = [
            objective.holds_to_prior(w.beta, w.mmd_weight) for w in (runs.take(block[2], run) for run in range(len(each)))
        ]
        asked = [
            _queries(model, found, spec, dataset, to_prior, int(seed))
            for found, seed, to_prior in zip(each, block[3], held, strict=True)
        ]
        flat = [data.batches(np.concatenate(list(queries.values())), spec.batch_size)[0] for queries in asked]
        decoded = runs.fetch(decode((*padded[:2], runs.put(runs.pad(runs.stack(flat), size), mesh))))
        for run, (found, queries) in enumerate(zip(each, asked, strict=True)):
            bounds = np.cumsum([len(z) for z in queries.values()])
            shown = dict(zip(queries, np.split(np.concatenate(decoded[run]), bounds)[:-1], strict=True))
            row = _columns(model, spec, found, shown, runs.take(block[2], run), dataset, images, kind)
            arrays = _arrays(found["test"], queries, shown, dataset, images["test"])
            arrays |= known | {"held_to_prior": np.array(held[run])}
            if "calibration" in found:
                arrays |= calibration.arrays(found["calibration"]["test"]) | found["intervals"]
            yield row, arrays


# A run that diverged may stand where its numbers overflow; it is evaluated all the same.
_overflowing = np.errstate(over="ignore", invalid="ignore")


# Programs: what is computed where the images are.


def _measure(model: ModelSpec, spec: EvalSpec, sizes: dict[str, int], run, splits: dict) -> dict:
    """Every figure of one run that is asked for: per image of each split, and per draw."""
    variables, sigma, weights, seed = run
    trained = Trained(VAE(model).bind(variables), sigma, weights.noise_scale, keys.stream(seed, keys.Stream.EVALUATION))
    if model.sigma == "optimal":
        sigma = _optimal_sigma(trained, spec, sizes["train"], splits["train"])
        trained = dataclasses.replace(trained, sigma=sigma)
    found: dict = _per_image(trained, spec, sizes, splits)
    prior = trained.vae.prior()
    found["prior_samples"] = prior.sample(trained.key(Purpose.PRIOR), spec.decoded)
    if hasattr(prior, "quantile"):
        levels = prior.quantile(jnp.asarray(pictures.LEVELS, jnp.float32))
        found["quantiles"] = jnp.tile(levels[:, None], (1, model.latents))
    else:
        found["quantiles"] = jnp.quantile(found["prior_samples"], jnp.asarray(pictures.LEVELS, jnp.float32), axis=0)
    if model.sigma not in ("", "per_pixel"):
        found["sigma"] = jnp.exp(trained.vae.log_sigma(sigma))
    if spec.importance_samples:
        found["importance"] = _importance(trained, spec, sizes, splits)
    if spec.aggregate_samples:
        found["rate_parts"] = _rate_parts(trained, spec, found["test"])
    if spec.ais_temperatures:
        found["ais"] = _ais(trained, spec, splits["test"])
    if spec.gradient_samples:
        x = splits["test"][0][: sizes["test"]]
        key = trained.key(Purpose.GRADIENTS)
        moments = estimators.gradient_moments(trained.vae, x, trained.posterior(x), key, sigma, spec.gradient_samples)
        found["gradients"] = {name: moment.variance for name, moment in moments.items()}
    if is_calibrated(model, spec):
        found |= _calibration(trained, spec, sizes, splits)
    return found


def is_calibrated(model: ModelSpec, spec: EvalSpec) -> bool:
    """Whether the decoder's intervals are checked: asked for, and of a likelihood that has any."""
    return bool(spec.calibration_samples) and likelihoods.LIKELIHOODS[model.likelihood].is_graded


def _optimal_sigma(trained: Trained, spec: EvalSpec, size: int, batches: Float[Array, "batches batch *shape"]):
    """The root of the mean squared error of the training split, z drawn; what training used for its batches."""

    def squared_error(args):
        x, key = args
        return calibration.squared_error(trained.vae, x, trained.posterior(x), key, trained.sigma, spec.samples)

    squared = _flat(lax.map(squared_error, (batches, trained.batch_keys(batches, Purpose.SIGMA))), size)
    return jnp.maximum(jnp.sqrt(jnp.mean(squared)), likelihoods.SIGMA_FLOOR)


def _calibration(trained: Trained, spec: EvalSpec, sizes: dict[str, int], splits: dict) -> dict[str, dict]:
    """Per split and image, how pixels lie in their intervals; and the intervals of the images that are shown."""

    def measure(args):
        x, key = args
        posterior = trained.posterior(x)
        return calibration.measure(trained.vae, x, posterior, key, trained.sigma, spec.calibration_samples)

    each = {name: trained.batch_keys(x, Purpose.CALIBRATION, Purpose[name.upper()]) for name, x in splits.items()}
    posterior = trained.posterior(_flat(splits["test"], min(sizes["test"], pictures.SHOWN)))
    settings = (trained.key(Purpose.SHOWN), trained.sigma, spec.calibration_samples)
    return {
        "calibration": _over_splits(measure, splits, each, sizes),
        "intervals": calibration.shown(trained.vae, posterior, *settings),
    }


def _per_image(trained: Trained, spec: EvalSpec, sizes: dict[str, int], splits: dict) -> dict[str, dict]:
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


def _importance(trained: Trained, spec: EvalSpec, sizes: dict[str, int], splits: dict) -> dict[str, tuple]:
    def batch_bound(args):
        x, key = args
        return estimators.importance_bound(trained.vae, x, trained.posterior(x), key, trained.sigma, spec.importance_samples)

    found = {}
    for name in spec.importance_splits:
        each = trained.batch_keys(splits[name], Purpose.IMPORTANCE, Purpose[name.upper()])
        found[name] = tuple(_flat(leaf, sizes[name]) for leaf in lax.map(batch_bound, (splits[name], each)))
    return found


def _rate_parts(trained: Trained, spec: EvalSpec, test: dict) -> dict:
    posterior = Posterior(test["mean"], test["log_var"])
    order = random.permutation(trained.key(Purpose.AGGREGATE, 0), len(test["mean"]))[: spec.aggregate_samples]
    own = Posterior(posterior.mean[order], posterior.log_var[order])
    z = reparameterize(trained.key(Purpose.AGGREGATE, 1), own)
    prior = trained.vae.prior()
    parts = estimators.rate_parts(posterior, own, z, prior)._asdict()
    parts["aggregate_kl"] = parts["total_correlation"] + parts["dimension_wise_kl"]  # KL(q(z) || p(z))
    if not hasattr(prior, "log_prob_per_latent"):
        del parts["dimension_wise_kl"]  # latents that are not independent under the prior have no KL each
    return parts


def _ais(trained: Trained, spec: EvalSpec, test: Float[Array, "batches batch *shape"]) -> dict:
    """AIS on test images; on as many simulated ones AIS and reverse AIS, which bracket log p of those."""
    x = test.reshape(-1, *test.shape[2:])[: spec.ais_images]
    settings = (trained.sigma, spec.ais_temperatures, spec.ais_chains)
    simulated, z = estimators.simulate(trained.vae, trained.key(Purpose.AIS, 0), spec.ais_images, trained.sigma)
    return {
        "test": estimators.ais(trained.vae, x, trained.key(Purpose.AIS, 1), *settings)._asdict(),
        "lower": estimators.ais(trained.vae, simulated, trained.key(Purpose.AIS, 2), *settings)._asdict(),
        "upper": estimators.reverse_ais(trained.vae, simulated, z, trained.key(Purpose.AIS, 3), *settings)._asdict(),
    }


def _decode(model: ModelSpec, run) -> Float[Array, "batches batch *shape"]:
    """(variables, sigma, batches of latents [., batch, latents]) -> decoder means."""
    variables, sigma, z = run
    bound = VAE(model).bind(variables)
    return lax.map(lambda batch: bound.decode(batch, sigma).mean, z)


# Columns: what a row of results.csv says of it.


@_overflowing
def _columns(
    model: ModelSpec, spec: EvalSpec, found: dict, shown: dict, weights, dataset: data.Dataset, images: dict, kind: str
) -> dict:
    """The metric columns of one row: the test split plain, then what else was estimated, then train_*."""
    test, train = found["test"], found["train"]
    row: dict = _bound_columns(test, spec) | {
        "mse": _mean(test["mse"]),
        "active_units": int(np.sum(test["mean"].var(axis=0, dtype=float) > ACTIVE)),
        "mean_std": _mean(np.exp(0.5 * test["log_var"])),
    }
    labels = {split: dataset.splits[split].labels for split in ("train", "test")}
    if labels["train"] is not None and labels["test"] is not None:
        row["knn_accuracy"] = knn_accuracy(train["mean"], labels["train"], test["mean"], labels["test"])
    for column, name in (("frechet_prior", "samples"), ("frechet_midpoint", "midpoints")):
        if name in shown:
            row[column] = frechet_distance(shown[name], images["test"])
    row |= _scale_columns(found, weights, kind)
    is_random = bool(weights.noise_scale > 0)
    for name in ("importance", "rate_parts", "ais", "gradients"):
        if name in found:
            columns = COLUMNS[name](found, spec)
            # What needs the density of the code does not apply to a point.
            row |= columns if is_random else dict.fromkeys(columns)
    if "axes" in shown:
        row["subspace_distance"] = _subspace_distance(shown["axes"], train["mean"], images["train"])
    also: dict = _bound_columns(train, spec) | {"mse": _mean(train["mse"])}
    for of_split, split in ((row, "test"), (also, "train")):
        if likelihoods.LIKELIHOODS[model.likelihood].values == "levels":
            # Only the probability of a discrete value is a number of bits; a density has units.
            of_split["bits_per_pixel"] = -of_split["elbo"] / (math.prod(model.shape) * math.log(2))
        if "calibration" in found:
            of_split |= calibration.columns(found["calibration"][split])
    row |= {f"train_{name}": value for name, value in also.items()}
    if model.prior == "normal" and is_random:
        second = np.square(train["mean"], dtype=float) + np.exp(train["log_var"], dtype=float)
        # 0 at a stationary point of any beta > 0, because the decoder can absorb a shift and a scale of the latents.
        row["train_mean_deviation"] = float(np.abs(train["mean"].mean(axis=0, dtype=float)).max())
        row["train_moment_deviation"] = float(np.abs(second.mean(axis=0) - 1).max())
    return dict(sorted(row.items(), key=lambda item: item[0].startswith("train_")))


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))


def _standard_error(values: np.ndarray) -> float | None:
    """Of the mean of `values`; None for one alone, which says nothing of its error."""
    return float(values.std(dtype=float) / math.sqrt(len(values) - 1)) if len(values) > 1 else None


def _drawn_error(variance: np.ndarray, draws: int) -> float | None:
    """Standard error of a mean over images, each estimated by `draws` draws: from the variance of each image's estimate."""
    # Rounded, the variance of weights that are all equal may lie just below 0.
    return math.sqrt(float(np.maximum(variance, 0).sum(dtype=float))) / len(variance) if draws > 1 else None


def _bound_columns(split: dict, spec: EvalSpec) -> dict[str, float | None]:
    """Distortion, rate and elbo of a split in nats per image, with the Monte Carlo error of the draws."""
    distortion = _mean(split["distortion"])
    rate = float(split["rate_per_latent"].sum(axis=1, dtype=float).mean())

    def error(name: str) -> float | None:
        return _drawn_error(split[f"{name}_variance"] / spec.samples, spec.samples)

    row: dict[str, float | None] = {"distortion": distortion, "distortion_se": error("distortion"), "rate": rate}
    # A closed-form rate has no Monte Carlo error; an infinite bound has none to state.
    drawn = "rate_variance" in split and math.isfinite(rate)
    row |= {"rate_se": error("rate")} if drawn else {}
    row["elbo"] = -(distortion + rate)
    return row | {"elbo_se": error("cost" if drawn else "distortion") if math.isfinite(rate) else None}


def _scale_columns(found: dict, weights: objectives.Weights, kind: str) -> dict[str, float]:
    """sigma, effective beta and theta = beta * sigma^2: the axes on which runs of any scale of likelihood compare."""
    row = {"sigma": float(found["sigma"])} if "sigma" in found else {}
    if kind == "weighted" and weights.distortion_weight > 0:
        row["effective_beta"] = float(weights.beta / weights.distortion_weight)
        if "sigma" in row:
            row["theta"] = row["effective_beta"] * row["sigma"] ** 2
    return row


def _importance_columns(found: dict, spec: EvalSpec) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for split, (bound, variance) in found["importance"].items():
        name = f"{'' if split == 'test' else split + '_'}importance_bound"
        row |= {name: _mean(bound), f"{name}_se": _drawn_error(variance, spec.importance_samples)}
    return row


def _rate_columns(found: dict, spec: EvalSpec) -> dict[str, float | None]:
    """The rate taken apart. Its mutual information cannot pass log(aggregate_images)."""
    parts = found["rate_parts"]
    means = {f"sampled_{name}" if name == "rate" else name: _mean(values) for name, values in parts.items()}
    return means | {"sampled_rate_se": _standard_error(parts["rate"]), "aggregate_images": len(found["test"]["mean"])}


def _ais_columns(found: dict, spec: EvalSpec) -> dict[str, float | None]:
    ais = found["ais"]
    row = {
        "ais_bound": _mean(ais["test"]["bound"]),
        "ais_bound_se": _standard_error(ais["test"]["bound"]),
        "ais_effective_samples": _mean(ais["test"]["effective_samples"]),
        "ais_acceptance": _mean(ais["test"]["acceptance"]),
    }
    for side in ("lower", "upper"):
        row |= {f"bdmc_{side}": _mean(ais[side]["bound"])}
    gap = ais["upper"]["bound"] - ais["lower"]["bound"]
    return row | {"bdmc_gap": _mean(gap), "bdmc_gap_se": _standard_error(gap)}


def _gradient_columns(found: dict, spec: EvalSpec) -> dict[str, float | None]:
    known = spec.gradient_samples > 1
    return {f"gradient_variance_{name}": _mean(value) if known else None for name, value in found["gradients"].items()}


COLUMNS = {
    "importance": _importance_columns,
    "rate_parts": _rate_columns,
    "ais": _ais_columns,
    "gradients": _gradient_columns,
}


def _subspace_distance(axes: np.ndarray, train_mean: np.ndarray, x: np.ndarray) -> float | None:
    """Spectral distance between the projectors on a linear decoder's used columns and on as many principal directions."""
    columns = (axes[:-1] - axes[-1]).reshape(len(axes) - 1, -1).astype(float)
    if not np.isfinite(columns).all():
        return math.nan
    used = columns[train_mean.var(axis=0, dtype=float) > ACTIVE]
    if not len(used):
        return None
    basis = np.linalg.qr(used.T)[0]
    principal = baselines.pca(x.reshape(len(x), -1).astype(float), len(used)).components
    # sin of the largest principal angle.
    return float(np.sqrt(np.clip(1 - np.linalg.svd(principal @ basis)[1].min() ** 2, 0, None)))


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test codes whose 5 nearest training codes vote for the right class."""
    from sklearn.neighbors import KNeighborsClassifier

    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return math.nan
    return float(KNeighborsClassifier(min(5, len(train))).fit(train, train_labels).score(test, test_labels))


def frechet_distance(a: Float[np.ndarray, "n *shape"], b: Float[np.ndarray, "m *shape"]) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): squared distance of the two Gaussians (Dowson & Landau 1982).

    The FID of Heusel et al. (2017) with pixels for features.
    """
    if not np.isfinite(a).all():
        return math.nan
    flat_a, flat_b = (np.asarray(x, float).reshape(len(x), -1) for x in (a, b))
    mean = np.sum(np.square(flat_a.mean(axis=0) - flat_b.mean(axis=0)))
    cov_a, cov_b = (np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], -1) for x in (flat_a, flat_b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # The eigenvalues of S_a S_b are those of the symmetric root S_b root.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return float(mean + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def baseline_columns(name: str, dataset: data.Dataset, latents: int, beta: float, sigma: float | None) -> dict | None:
    """The columns of `_columns` that a closed form has, fitted on the training split; None where it has no optimum.

    Args:
      name: "pca", or "ppca" (the linear beta-VAE at its optimum).
      dataset: any.
      latents: how many.
      beta: of "ppca".
      sigma: of "ppca"; None is learned.
    """
    x = {split: dataset.images(split).reshape(len(dataset.splits[split]), -1).astype(float) for split in ("train", "test")}
    if name == "ppca":
        try:
            fitted = baselines.linear_vae(x["train"], latents, beta, None if sigma is None else sigma**2)
        except ValueError:
            return None
        if sigma is None and fitted.sigma2 < likelihoods.SIGMA_FLOOR**2:
            return None  # a decoder's sigma cannot go there
        test, train = (_linear_columns(fitted, x[split], beta) for split in ("test", "train"))
    else:
        pca = baselines.pca(x["train"], latents)
        test, train = ({"mse": float(np.mean(np.square(x[s] - pca.decode(pca.encode(x[s])))))} for s in ("test", "train"))
        labels = {split: dataset.splits[split].labels for split in ("train", "test")}
        if labels["train"] is not None and labels["test"] is not None:
            codes = {split: pca.encode(x[split]) for split in x}
            test["knn_accuracy"] = knn_accuracy(codes["train"], labels["train"], codes["test"], labels["test"])
    return test | {f"train_{key}": value for key, value in train.items() if key in TRAIN_COLUMNS}


TRAIN_COLUMNS = ("distortion", "rate", "elbo", "mse", "importance_bound")


def _linear_columns(fitted: baselines.LinearVAE, x: Float[np.ndarray, "n d"], beta: float) -> dict:
    distortion, rate = float(fitted.distortion(x).mean()), float(fitted.rate(x).mean())
    return {
        "distortion": distortion,
        "rate": rate,
        "elbo": -(distortion + rate),
        "mse": float(fitted.squared_error(x).mean() / x.shape[1]),
        "active_units": int(np.sum(fitted.encode(x).var(axis=0) > ACTIVE)),
        "mean_std": float(np.sqrt(fitted.variances).mean()),
        "effective_beta": beta,
        "sigma": math.sqrt(fitted.sigma2),
        "theta": beta * fitted.sigma2,
        "importance_bound": float(fitted.log_prob(x).mean()),
    }


# Pictures: what the figures need.


@_overflowing
def _queries(model: ModelSpec, found: dict, spec: EvalSpec, dataset: data.Dataset, to_prior: bool, seed: int) -> dict:
    test = found["test"]
    pairs = pictures.pairs(
        dataset.splits["test"].labels, spec.decoded, np.random.default_rng([seed, int(keys.Stream.EVALUATION)])
    )
    rate = test["rate_per_latent"].mean(axis=0)
    by_rate = np.isfinite(rate).all() and len(rate) == model.latents
    importance = rate if by_rate else test["mean"].var(axis=0)
    queries = pictures.queries(test["mean"], importance, found["prior_samples"], found["quantiles"], pairs, to_prior)
    if model.decoder == "linear":
        # Unit vectors and the origin: their differences are the columns of the decoder.
        queries["axes"] = np.eye(model.latents + 1, model.latents, dtype=np.float32)
    return queries


@_overflowing
def _arrays(test: dict, queries: dict, shown: dict, dataset: data.Dataset, x: np.ndarray) -> dict:
    """What the figures need of one run."""
    arrays = {
        "codes_mean": test["mean"],
        "codes_std": np.exp(0.5 * test["log_var"]),
        "rate_per_latent": test["rate_per_latent"].mean(axis=0, dtype=float),
        "images": x[: pictures.SHOWN],
    }
    if dataset.splits["test"].labels is not None:
        arrays["labels"] = dataset.splits["test"].labels
    arrays |= {name: shown[name][: 64 if name == "samples" else None] for name in shown if name not in ("midpoints", "axes")}
    if "plane" in queries:
        arrays["plane_latents"] = queries["plane"]
    return arrays
