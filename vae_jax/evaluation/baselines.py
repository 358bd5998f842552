"""Closed-form rows of `results.csv`: PCA and the linear VAE, fitted to the training split."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from vae_jax.data.dataset import Dataset, to_unit
from vae_jax.evaluation import closed_form
from vae_jax.evaluation.codes import ACTIVE, knn_accuracy
from vae_jax.evaluation.metric import Values
from vae_jax.models import likelihoods

TRAIN_COLUMNS = ("distortion", "rate", "elbo", "mse", "importance_bound")


def training_moments(dataset: Dataset) -> closed_form.Moments:
    """Of what is trained on: where bits are drawn afresh in each step, their expectation over the draws."""
    split = dataset.splits["train"]
    if dataset.spec.dynamic:
        grey = to_unit(split.pixels[:], dataset.spec.levels)
        return closed_form.bit_moments(grey.reshape(len(split), -1).astype(float))
    return closed_form.moments(dataset.images("train").reshape(len(split), -1).astype(float))


def row(
    name: str, dataset: Dataset, latents: int, beta: float, sigma: float | None, without: Sequence[str] = ()
) -> Values | None:
    """The columns that a closed form has, fitted to the training split; None where it has no optimum.

    Args:
      name: "pca", or "ppca" (the linear beta-VAE at its optimum).
      dataset: any.
      latents: how many.
      beta: of "ppca".
      sigma: of "ppca"; None is learned.
      without: metrics that are left out; the nearest neighbours are the only ones that cost anything here.
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
        test, train = (_pca_columns(pca, x[split]) for split in ("test", "train"))
        labels = {split: dataset.splits[split].labels for split in ("train", "test")}
        if labels["train"] is not None and labels["test"] is not None and "knn_accuracy" not in without:
            codes = {split: pca.encode(x[split]) for split in x}
            test["knn_accuracy"] = knn_accuracy(codes["train"], labels["train"], codes["test"], labels["test"])
    return test | {f"train_{key}": value for key, value in train.items() if key in TRAIN_COLUMNS}


def _pca_columns(pca: closed_form.PCA, x: Float[np.ndarray, "n d"]) -> Values:
    return {"mse": float(np.mean(np.square(x - pca.decode(pca.encode(x)))))}


def _linear_columns(fitted: closed_form.LinearVAE, x: Float[np.ndarray, "n d"], beta: float) -> Values:
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
