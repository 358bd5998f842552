"""What a row of `results.csv` says of a run, or of a closed form: means, errors, distances; on the host, in float64."""

import dataclasses
import functools
import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from vae_jax.core import schema
from vae_jax.data import dataset as data
from vae_jax.evaluation import calibration, closed_form, estimators
from vae_jax.models import likelihoods
from vae_jax.models.vae import ModelSpec
from vae_jax.training import objectives

ACTIVE = 0.01  # variance of a mean code over the data from which a latent counts as used (Burda et al. 2016)


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """How much is drawn in evaluation; 0 leaves an estimate out."""

    samples: int = schema.field(128, "Draws of z per image.", low=1, high=10**7)
    batch_size: int = schema.field(500, "Images at a time.", low=1, high=10**7)
    valid: bool = schema.field(False, "Evaluate the validation split too: columns valid_*.", absent=False)
    decoded: int = schema.field(5000, "Decoder means behind each Frechet distance.", low=0, high=10**7)
    importance_samples: int = schema.field(0, "k of the importance bound.", low=0, high=10**7)
    importance_splits: tuple[str, ...] = schema.field(
        ("test",), "Splits whose importance bound is estimated.", choices=data.SPLITS
    )
    aggregate_samples: int = schema.field(
        1000, "Draws from the aggregate posterior by which the rate is decomposed.", low=0, high=10**7
    )
    ais_temperatures: int = schema.field(
        0, "Steps of annealed importance sampling, and of its bracket on simulated images.", low=0, high=10**6
    )
    ais_chains: int = schema.field(16, "Chains for each image of annealed importance sampling.", low=1, high=10**5)
    ais_images: int = schema.field(100, "The first images of the test split, and as many simulated ones.", low=1, high=10**6)
    gradient_samples: int = schema.field(
        0, "Draws of each gradient estimator (reparameterisation, score function).", low=0, high=10**7
    )
    calibration_samples: int = schema.field(
        32, "Draws per image by which the decoder's intervals are checked, where it has any.", low=0, high=10**7, absent=0
    )


# A run that diverged may stand where its numbers overflow; it is evaluated all the same.
overflowing = np.errstate(over="ignore", invalid="ignore")


@dataclasses.dataclass(frozen=True)
class Moments:
    """Of a set of images as flat vectors."""

    mean: Float[np.ndarray, " pixels"]
    covariance: Float[np.ndarray, "pixels pixels"]

    @functools.cached_property
    def root(self) -> Float[np.ndarray, "pixels pixels"]:
        """The symmetric root of the covariance."""
        values, vectors = np.linalg.eigh(self.covariance)
        return (vectors * np.sqrt(np.clip(values, 0, None))) @ vectors.T


def moments(images: Float[np.ndarray, "n *shape"]) -> Moments:
    """Mean and covariance (by 1 / n), in float64."""
    flat = np.asarray(images, float).reshape(len(images), -1)
    return Moments(flat.mean(axis=0), np.cov(flat, rowvar=False, bias=True).reshape(flat.shape[1], -1))


def frechet_distance(a: Moments, b: Moments) -> float:
    """|m_a - m_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)): squared distance of the two Gaussians (Dowson & Landau 1982).

    The FID of Heusel et al. (2017) with pixels for features.
    """
    if not np.isfinite(a.covariance).all():
        return math.nan
    # The eigenvalues of S_a S_b are those of the symmetric root S_a root, with the root of S_b.
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(b.root @ a.covariance @ b.root), 0, None)).sum()
    mean = np.sum(np.square(a.mean - b.mean))
    return float(mean + np.trace(a.covariance) + np.trace(b.covariance) - 2 * cross)


class Reference(NamedTuple):
    """What the rows of all runs need of the data."""

    labels: dict[str, np.ndarray | None]  # of "train" and "test"
    test: Moments | None  # where Frechet distances are asked for
    # Variances of the training split along its principal axes, and the first of these, where the decoder is linear.
    spectrum: Float[np.ndarray, " pixels"] | None
    principal: Float[np.ndarray, "directions pixels"] | None


def reference(dataset: data.Dataset, images: dict[str, np.ndarray], model: ModelSpec, spec: EvalConfig) -> Reference:
    """Of `dataset` and its images by split."""
    test = moments(images["test"]) if spec.decoded else None
    spectrum = principal = None
    if model.decoder == "linear":
        spectrum, axes = closed_form.spectrum(training_moments(dataset))
        principal = axes[:, : model.latents].T
    return Reference({split: dataset.splits[split].labels for split in ("train", "test")}, test, spectrum, principal)


@overflowing
def of_run(model: ModelSpec, spec: EvalConfig, found: dict, shown: dict, weights, known: Reference, kind: str) -> dict:
    """The metric columns of one row: the test split plain, then what else was estimated, then train_* and valid_*.

    Args:
      model, spec: of the run.
      found: what `evaluation` measured, by split and by estimate.
      shown: decoder means, by what they are for.
      weights: of the run's objective, whose name is `kind`.
      known: of the data.
    """
    test, train = found["test"], found["train"]
    row: dict = _of_split(test, model, spec) | {
        "active_units": int(np.sum(test["mean"].var(axis=0, dtype=float) > ACTIVE)),
        "mean_std": _mean(np.exp(0.5 * test["log_var"])),
    }
    labels = known.labels
    if labels["train"] is not None and labels["test"] is not None:
        row["knn_accuracy"] = knn_accuracy(train["mean"], labels["train"], test["mean"], labels["test"])
    for column, name in (("frechet_prior", "samples"), ("frechet_midpoint", "midpoints")):
        if known.test is not None and name in shown:
            row[column] = frechet_distance(moments(shown[name]), known.test)
    row |= _scale_columns(found, weights, kind)
    is_random = bool(weights.noise_scale > 0)
    for name in ("importance", "rate_parts", "ais", "gradients"):
        if name in found:
            columns = COLUMNS[name](found, spec)
            # What needs the density of the code does not apply to a point.
            row |= columns if is_random else dict.fromkeys(columns)
    if known.principal is not None:
        row["subspace_distance"] = _subspace_distance(shown["axes"], train["mean"], known.principal)
    for split in ("train", "valid"):
        if split in found:
            row |= {f"{split}_{name}": value for name, value in _of_split(found[split], model, spec).items()}
    if model.prior == "normal" and is_random:
        second = np.square(train["mean"], dtype=float) + np.exp(train["log_var"], dtype=float)
        # 0 at a stationary point of any beta > 0, because the decoder can absorb a shift and a scale of the latents.
        row["train_mean_deviation"] = float(np.abs(train["mean"].mean(axis=0, dtype=float)).max())
        row["train_moment_deviation"] = float(np.abs(second.mean(axis=0) - 1).max())
    return dict(sorted(row.items(), key=lambda item: item[0].startswith(("train_", "valid_"))))


def _of_split(split: dict, model: ModelSpec, spec: EvalConfig) -> dict:
    """The columns that every split has."""
    row: dict = _bound_columns(split, spec) | {"mse": _mean(split["mse"])}
    if likelihoods.LIKELIHOODS[model.likelihood].values == "levels":
        # Only the probability of a discrete value is a number of bits; a density has units.
        row["bits_per_pixel"] = -row["elbo"] / (math.prod(model.shape) * math.log(2))
    return row | (calibration.columns(split["calibration"]) if "calibration" in split else {})


def _mean(values: np.ndarray) -> float:
    return float(values.mean(dtype=float))


def _standard_error(values: np.ndarray) -> float | None:
    """Of the mean of `values`; None for one alone, which says nothing of its error."""
    return float(values.std(dtype=float) / math.sqrt(len(values) - 1)) if len(values) > 1 else None


def _drawn_error(variance: np.ndarray, draws: int) -> float | None:
    """Standard error of a mean over images, each estimated by `draws` draws: from the variance of each image's estimate."""
    # Rounded, the variance of weights that are all equal may lie just below 0.
    return math.sqrt(float(np.maximum(variance, 0).sum(dtype=float))) / len(variance) if draws > 1 else None


def _bound_columns(split: dict, spec: EvalConfig) -> dict[str, float | None]:
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


ENOUGH = 50  # draws from which on the error of an importance bound and of a gradient variance can be told


def _importance_columns(found: dict, spec: EvalConfig) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for split, bound in found["importance"].items():
        name = f"{'' if split == 'test' else split + '_'}importance_bound"
        error = estimators.extrapolated_error(bound) if spec.importance_samples >= ENOUGH else None
        row |= {name: _mean(bound.value), f"{name}_se": error}
    return row


def _rate_columns(found: dict, spec: EvalConfig) -> dict[str, float | None]:
    """The rate taken apart. Its mutual information cannot pass log(aggregate_images)."""
    parts, again, images = found["rate_parts"], found["rate_parts_again"], len(found["test"]["mean"])
    row: dict[str, float | None] = {}
    for name, values in parts.items():
        column = "sampled_rate" if name == "rate" else name
        row |= {column: _mean(values), f"{column}_se": _sampled_error(values, again[name], images)}
    return row | {"aggregate_images": images}


def _sampled_error(values: np.ndarray, again: np.ndarray, images: int) -> float | None:
    """Standard error of the mean of one draw each of n random images out of N, from second draws of some of them.

    The images that are drawn are without replacement: of all N, nothing but the draws of z varies.
    """
    count = len(values)
    if count < 2:
        return None
    within = float(np.square(values[: len(again)].astype(float) - again).mean()) / 2
    return math.sqrt(max(values.var(dtype=float, ddof=1), within) * (1 / count - 1 / images) + within / images)


def _ais_columns(found: dict, spec: EvalConfig) -> dict[str, float | None]:
    ais = found["ais"]
    bounds = {name: ais[name]["bound"].value for name in ais}
    row = {
        "ais_bound": _mean(bounds["test"]),
        "ais_bound_se": estimators.extrapolated_error(ais["test"]["bound"]),
        "ais_bound_image_se": _standard_error(bounds["test"]),
    }
    # Their images are drawn as well: the error over images is that over draws.
    simulated = {"bdmc_lower": bounds["lower"], "bdmc_upper": bounds["upper"], "bdmc_gap": bounds["upper"] - bounds["lower"]}
    for name, values in simulated.items():
        row |= {name: _mean(values), f"{name}_se": _standard_error(values)}
    return row | {f"ais_{name}": _mean(ais["test"][name]) for name in ("effective_samples", "acceptance")}


def _gradient_columns(found: dict, spec: EvalConfig) -> dict[str, float | None]:
    row: dict[str, float | None] = {}
    for name, moment in found["gradients"].items():
        column, samples = f"gradient_variance_{name}", spec.gradient_samples
        row |= {
            column: _mean(moment["variance"]) if samples > 1 else None,
            f"{column}_se": _drawn_error(moment["error"], samples) if samples >= ENOUGH else None,
        }
    return row


COLUMNS = {
    "importance": _importance_columns,
    "rate_parts": _rate_columns,
    "ais": _ais_columns,
    "gradients": _gradient_columns,
}


def _subspace_distance(axes: np.ndarray, train_mean: np.ndarray, principal: np.ndarray) -> float | None:
    """Spectral distance between the projectors on a linear decoder's used columns and on as many principal directions."""
    columns = (axes[:-1] - axes[-1]).reshape(len(axes) - 1, -1).astype(float)
    if not np.isfinite(columns).all():
        return math.nan
    used = columns[train_mean.var(axis=0, dtype=float) > ACTIVE]
    if not len(used):
        return None
    basis = np.linalg.qr(used.T)[0]
    # sin of the largest principal angle.
    return float(np.sqrt(np.clip(1 - np.linalg.svd(principal[: len(used)] @ basis)[1].min() ** 2, 0, None)))


def knn_accuracy(train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray) -> float:
    """Share of test codes [n, latents] whose 5 nearest training codes vote for the right class; of equal votes the first."""
    from sklearn.neighbors import KNeighborsClassifier

    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return math.nan
    return float(KNeighborsClassifier(min(5, len(train))).fit(train, train_labels).score(test, test_labels))


def training_moments(dataset: data.Dataset) -> closed_form.Moments:
    """Of what is trained on: where bits are drawn afresh in each step, their expectation over the draws."""
    split = dataset.splits["train"]
    if dataset.spec.dynamic:
        return closed_form.bit_moments(data.to_unit(split.pixels, dataset.spec.levels).reshape(len(split), -1).astype(float))
    return closed_form.moments(dataset.images("train").reshape(len(split), -1).astype(float))


def of_baseline(name: str, dataset: data.Dataset, latents: int, beta: float, sigma: float | None) -> dict | None:
    """The columns of `of_run` that a closed form has, fitted on the training split; None where it has no optimum.

    Args:
      name: "pca", or "ppca" (the linear beta-VAE at its optimum).
      dataset: any.
      latents: how many.
      beta: of "ppca".
      sigma: of "ppca"; None is learned.
    """
    x = {split: dataset.images(split).reshape(len(dataset.splits[split]), -1).astype(float) for split in ("train", "test")}
    fitted_to = training_moments(dataset)
    if name == "ppca":
        try:
            fitted = closed_form.linear_vae(fitted_to, latents, beta, None if sigma is None else sigma**2)
        except ValueError:
            return None
        if sigma is None and fitted.sigma2 < likelihoods.SIGMA_FLOOR**2:
            return None  # a decoder's sigma cannot go there
        test, train = (_linear_columns(fitted, x[split], beta) for split in ("test", "train"))
    else:
        pca = closed_form.pca(fitted_to, latents)
        test, train = ({"mse": float(np.mean(np.square(x[s] - pca.decode(pca.encode(x[s])))))} for s in ("test", "train"))
        labels = {split: dataset.splits[split].labels for split in ("train", "test")}
        if labels["train"] is not None and labels["test"] is not None:
            codes = {split: pca.encode(x[split]) for split in x}
            test["knn_accuracy"] = knn_accuracy(codes["train"], labels["train"], codes["test"], labels["test"])
    return test | {f"train_{key}": value for key, value in train.items() if key in TRAIN_COLUMNS}


TRAIN_COLUMNS = ("distortion", "rate", "elbo", "mse", "importance_bound")


def _linear_columns(fitted: closed_form.LinearVAE, x: Float[np.ndarray, "n d"], beta: float) -> dict:
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
