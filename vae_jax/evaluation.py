"""What trained runs are worth: exact means over whole splits, Monte Carlo figures with errors, arrays for figures.

Two jitted programs over runs do the work: `measure` (encode every image, estimate its distortion) and `decode` (means
of any latents). Everything per image comes back to the host, where means are taken in float64.
"""

import dataclasses
import itertools
import math
import statistics

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Float, Int

from vae_jax import baselines, data, keys, objectives, runs
from vae_jax.model import VAE, ModelSpec, reparameterize

ACTIVE = 0.01  # variance of a mean code over the data from which a latent counts as used (Burda et al. 2016)
BLOCK = 16  # runs whose arrays are on the host at a time


@dataclasses.dataclass(frozen=True)
class EvalSpec:
    """The config's `eval` group: draws per image, images per batch, and decoded draws for the Frechet distances."""

    samples: int
    batch_size: int
    decoded: int


@dataclasses.dataclass(frozen=True)
class PerImage:
    """One run on one split, per image; nats, NumPy."""

    distortion: Float[np.ndarray, " n"]  # mean over the draws
    distortion_var: Float[np.ndarray, " n"]  # variance between the draws
    rate_per_latent: Float[np.ndarray, "n latents"]
    mse: Float[np.ndarray, " n"]
    mean: Float[np.ndarray, "n latents"]
    std: Float[np.ndarray, "n latents"]


def evaluate(
    model: ModelSpec, spec: EvalSpec, params, sigma: np.ndarray, weights: objectives.Weights,
    seeds: np.ndarray, dataset: data.Dataset,
):  # fmt: skip
    """Yield (metrics, arrays) for each run in order: a row of results.csv, and what its figures are drawn from.

    Args:
      model: the network; all runs share it.
      spec: how much to draw.
      params, sigma, weights, seeds: with a leading runs axis, on the host.
      dataset: test and train splits are evaluated, with bits that stay the same.
    """
    count = len(seeds)
    mesh = runs.mesh(min(count, BLOCK))
    measure = runs.over_runs(_measure(model, spec), mesh)
    decode = runs.over_runs(_decode(model), mesh)
    images = {split: dataset.images(split) for split in ("train", "test")}
    batched = {split: jax.device_put(data.batches(x, spec.batch_size)[0]) for split, x in images.items()}
    size = -(-min(count, BLOCK) // mesh.size) * mesh.size
    for start in range(0, count, BLOCK):
        block = runs.pad(runs.take((params, sigma, weights.noise_scale, seeds), slice(start, start + BLOCK)), size)
        measured, prior_samples = jax.device_get(measure(block, batched))
        per_run = []
        for offset in range(min(BLOCK, count - start)):
            mine = {
                split: PerImage(*(np.concatenate(leaf[offset])[: len(images[split])] for leaf in measured[split]))
                for split in images
            }
            seed, beta = int(seeds[start + offset]), float(weights.beta[start + offset])
            per_run.append((mine, _latents(mine["test"], prior_samples[offset], dataset, spec, seed, beta > 0)))
        stacked = runs.stack([data.batches(np.concatenate(list(z.values())), spec.batch_size)[0] for _, z in per_run])
        means = np.asarray(decode((*block[:2], runs.pad(stacked, size))))
        for (mine, queries), decoded in zip(per_run, means, strict=False):
            bounds = np.cumsum([len(z) for z in queries.values()])
            pictures = dict(zip(queries, np.split(np.concatenate(decoded), bounds)[:-1], strict=True))
            yield _metrics(mine, pictures, dataset, images["test"], spec), _arrays(mine, queries, pictures, dataset, images)


def _measure(model: ModelSpec, spec: EvalSpec):
    """(params, sigma, noise_scale, seed), batched splits -> per-image arrays of each split, and prior samples."""
    vae = VAE(model)

    def measure(run, splits):
        params, sigma, noise_scale, seed = run
        bound = vae.bind({"params": params})
        root = keys.stream(seed, keys.Stream.EVALUATION)
        prior = bound.prior()

        def batch_terms(args):
            x, key = args
            # The distribution z is really drawn from: for a deterministic code a point, whose rate is infinite.
            posterior = bound.encode(x).scaled(noise_scale)
            reconstruction = bound.decode(posterior.mean, sigma).mean

            def draw(carry, number):
                # Welford's update: the variance of numbers of size 100 that differ by 1, in float32.
                mean, squares = carry
                z = reparameterize(keys.at(key, number), posterior)
                distortion = -bound.decode(z, sigma).log_prob(x)
                delta = distortion - mean
                mean = mean + delta / (number + 1).astype(mean.dtype)
                return (mean, squares + delta * (distortion - mean)), None

            zero = jnp.zeros(x.shape[0])
            (distortion, squares), _ = lax.scan(draw, (zero, zero), jnp.arange(spec.samples))
            mse = jnp.mean(jnp.square(x - reconstruction), axis=tuple(range(1, x.ndim)))
            rates = prior.rate_per_latent(posterior.mean, posterior.log_var)
            return distortion, squares / max(spec.samples - 1, 1), rates, mse, posterior.mean, posterior.std

        heads = {name: keys.at(root, number) for number, name in enumerate(data.SPLITS)}
        each = [jax.vmap(keys.at, (None, 0))(heads[name], jnp.arange(len(x))) for name, x in splits.items()]
        # All splits in one loop: one body to compile.
        measured = lax.map(batch_terms, (jnp.concatenate(list(splits.values())), jnp.concatenate(each)))
        bounds = np.cumsum([len(x) for x in splits.values()])[:-1]
        parts = zip(*(jnp.split(leaf, bounds) for leaf in measured), strict=True)
        return dict(zip(splits, parts, strict=True)), prior.sample(keys.at(root, len(data.SPLITS)), spec.decoded)

    return measure


def _decode(model: ModelSpec):
    """(params, sigma, batches of latents [., batch, latents]) -> decoder means [., batch, *shape]."""
    vae = VAE(model)

    def decode(run):
        params, sigma, z = run
        bound = vae.bind({"params": params})
        return lax.map(lambda batch: bound.decode(batch, sigma).mean, z)

    return decode


def _latents(
    test: PerImage, prior_samples: np.ndarray, dataset: data.Dataset, spec: EvalSpec, seed: int, to_prior: bool
) -> dict[str, Float[np.ndarray, "n latents"]]:
    """Every latent that is to be decoded, by what it is for."""
    latents = test.mean.shape[1]
    low, high = np.percentile(test.mean, [0.5, 99.5], axis=0)
    queries = {"samples": prior_samples}
    if (pairs := _pairs(dataset.splits["test"].labels, spec.decoded, seed)) is not None:
        ends = test.mean[pairs]
        queries["midpoints"] = ends.mean(axis=1)
        steps = np.linspace(0, 1, 9, dtype=np.float32)[:, None]
        queries["interpolations"] = np.concatenate([a + steps * (b - a) for a, b in ends[:4]])
    if latents == 2:
        axes = [np.linspace(a, b, 20, dtype=np.float32) for a, b in zip(low, high, strict=True)]
        queries["plane"] = np.array(list(itertools.product(axes[1][::-1], axes[0])), np.float32)[:, ::-1]
        quantiles = _normal_quantiles(15)
        queries["manifold"] = np.array(list(itertools.product(quantiles[::-1], quantiles)), np.float32)[:, ::-1]
    # A latent that the objective holds to the prior is moved over the prior; a free one over where its codes lie.
    moves = np.tile(_normal_quantiles(9), (latents, 1)) if to_prior else np.linspace(low, high, 9).T
    most_used = np.argsort(-_finite_rate(test), kind="stable")[:8]
    rows = [np.tile(test.mean[0], (9, 1)) for _ in most_used]
    for row, latent in zip(rows, most_used, strict=True):
        row[:, latent] = moves[latent]
    queries["traversals"] = np.concatenate(rows)
    queries["reconstructions"] = test.mean[:16]
    return {name: z.astype(np.float32) for name, z in queries.items()}


def _normal_quantiles(count: int) -> np.ndarray:
    """`count` evenly spaced quantiles of N(0, 1), from 2 % to 98 %."""
    return np.array([statistics.NormalDist().inv_cdf(level) for level in np.linspace(0.02, 0.98, count)], np.float32)


def _finite_rate(test: PerImage) -> np.ndarray:
    """What a latent is used for, as a number to sort by: its mean rate, or the variance of its codes where infinite."""
    rate = test.rate_per_latent.mean(axis=0)
    return rate if np.isfinite(rate).all() else test.mean.var(axis=0)


def _pairs(labels: np.ndarray | None, count: int, seed: int) -> Int[np.ndarray, "count 2"] | None:
    """Random pairs of test images from different classes; None where there are no two classes."""
    if labels is None or len(np.unique(labels)) < 2:
        return None
    generator = np.random.default_rng([seed, int(keys.Stream.EVALUATION)])
    first = generator.permutation(np.resize(np.arange(len(labels)), count))
    # Drawn from the images sorted by class, leaving out the block of the first one's own class.
    order = np.argsort(labels, kind="stable")
    ranked = labels[order]
    begin, end = np.searchsorted(ranked, labels[first], "left"), np.searchsorted(ranked, labels[first], "right")
    draw = generator.integers(0, len(labels) - (end - begin))
    return np.stack([first, order[np.where(draw < begin, draw, draw + end - begin)]], axis=1)


def _metrics(mine: dict[str, PerImage], pictures: dict, dataset: data.Dataset, x: np.ndarray, spec: EvalSpec) -> dict:
    """The metric columns of one row: the test split plain, the training split as train_*."""
    test, train = mine["test"], mine["train"]
    row = {
        **_bound(test, spec),
        "mse": float(test.mse.mean(dtype=float)),
        "active_units": int(np.sum(test.mean.var(axis=0, dtype=float) > ACTIVE)),
        "mean_std": float(test.std.mean(dtype=float)),
    }
    labels = {split: dataset.splits[split].labels for split in mine}
    if labels["train"] is not None and labels["test"] is not None:
        row["knn_accuracy"] = knn_accuracy(train.mean, labels["train"], test.mean, labels["test"])
    for column, name in (("frechet_prior", "samples"), ("frechet_midpoint", "midpoints")):
        if name in pictures:
            row[column] = frechet_distance(pictures[name], x)
    train_row = {**_bound(train, spec), "mse": float(train.mse.mean(dtype=float))}
    return row | {f"train_{name}": value for name, value in train_row.items()}


def _bound(split: PerImage, spec: EvalSpec) -> dict[str, float | None]:
    """Distortion, rate and elbo of a split in nats per image, with the Monte Carlo error of the draws."""
    distortion = float(split.distortion.mean(dtype=float))
    rate = float(split.rate_per_latent.sum(axis=1, dtype=float).mean())
    error = math.sqrt(float(split.distortion_var.sum(dtype=float)) / spec.samples) / len(split.distortion)
    row = {"distortion": distortion, "distortion_se": error, "rate": rate, "elbo": -(distortion + rate)}
    # The closed-form rate has no Monte Carlo error; an infinite bound has none to state.
    return row | {"elbo_se": error if math.isfinite(rate) else None}


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test codes whose 5 nearest training codes vote for the right class."""
    from sklearn.neighbors import KNeighborsClassifier

    return float(KNeighborsClassifier(5).fit(train, train_labels).score(test, test_labels))


def frechet_distance(a: Float[np.ndarray, "n *shape"], b: Float[np.ndarray, "m *shape"]) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): squared distance of the two Gaussians (Dowson & Landau 1982).

    The FID of Heusel et al. (2017) with pixels for features.
    """
    a, b = (np.asarray(x, float).reshape(len(x), -1) for x in (a, b))
    mean = np.sum(np.square(a.mean(axis=0) - b.mean(axis=0)))
    cov_a, cov_b = (np.cov(x, rowvar=False, bias=True).reshape(x.shape[1], -1) for x in (a, b))
    values, vectors = np.linalg.eigh(cov_a)
    root = (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T
    # The eigenvalues of S_a S_b are those of the symmetric root S_b root.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ cov_b @ root), 0, None)).sum()
    return float(mean + np.trace(cov_a) + np.trace(cov_b) - 2 * cross)


def _arrays(mine: dict[str, PerImage], queries: dict, pictures: dict, dataset: data.Dataset, images: dict) -> dict:
    """What the figures need of one run."""
    test = mine["test"]
    arrays = {"codes_mean": test.mean, "codes_std": test.std, "images": images["test"][:16]}
    if dataset.splits["test"].labels is not None:
        arrays["labels"] = dataset.splits["test"].labels
    arrays |= {name: pictures[name][: 64 if name == "samples" else None] for name in pictures if name != "midpoints"}
    if "plane" in queries:
        arrays["plane_latents"] = queries["plane"]
    return arrays


def pca_metrics(dataset: data.Dataset, latents: int) -> dict[str, float]:
    """The columns of `_metrics` that mean something for PCA, fitted on the training split."""
    train, test = (
        dataset.images(split).reshape(len(dataset.splits[split]), -1).astype(float) for split in ("train", "test")
    )
    pca = baselines.pca(train, latents)
    codes = {"train": pca.encode(train), "test": pca.encode(test)}
    row = {"mse": float(np.mean(np.square(test - pca.decode(codes["test"]))))}
    labels = [dataset.splits[split].labels for split in ("train", "test")]
    if labels[0] is not None and labels[1] is not None:
        row["knn_accuracy"] = knn_accuracy(codes["train"], labels[0], codes["test"], labels[1])
    return row | {"train_mse": float(np.mean(np.square(train - pca.decode(codes["train"]))))}
