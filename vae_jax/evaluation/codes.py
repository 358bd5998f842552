"""What the mean codes and their spread say: used latents, stationarity, nearest neighbours by class."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from vae_jax.evaluation import accumulate
from vae_jax.evaluation.metric import Column, Metric, Rows, Run, Setting, Values

ACTIVE = 0.01  # variance of a mean code over the data from which a latent counts as used (Burda et al. 2016)
BURDA = "https://arxiv.org/abs/1509.00519"
NEIGHBOURS = 5
TREE_LATENTS = 15  # beyond them a tree is slower than all distances
# Codes that the search for neighbours looks at: of larger splits every so-manieth, which bounds its time.
TRAIN_CODES, TEST_CODES = 20_000, 10_000


def _update_test(state: accumulate.Means, split: str, rows: Rows) -> accumulate.Means:
    return state.add({"mean": rows["mean"], "std": np.exp(0.5 * rows["log_var"])})


ACTIVE_UNITS = Metric(
    columns=(
        Column(
            "active_units", f"latents whose mean code varies over the test split by more than {ACTIVE} (variance)",
            "", "", 1, BURDA,
        ),
        Column("mean_std", "std of the posterior, mean over images and latents", "", "", 3),
    ),
    finish=lambda state, run: {
        "active_units": int(np.sum(state.variance("mean") > ACTIVE)), "mean_std": float(state.means("std").mean())
    },
    splits=lambda spec: ("test",),
    init=lambda reference, setting: accumulate.Means(),
    update=_update_test,
)  # fmt: skip


def _update_deviations(state: accumulate.Means, split: str, rows: Rows) -> accumulate.Means:
    second = np.square(rows["mean"], dtype=float) + np.exp(rows["log_var"], dtype=float)
    return state.add({"mean": rows["mean"], "second": second})


def _finish_deviations(state: accumulate.Means, run: Run) -> Values:
    if not run.is_random:
        return {}
    return {
        "train_mean_deviation": float(np.abs(state.means("mean")).max()),
        "train_moment_deviation": float(np.abs(state.means("second") - 1).max()),
    }


# 0 at a stationary point of any beta > 0, because the decoder can absorb a shift and a scale of the latents.
DEVIATIONS = Metric(
    columns=(
        Column("train_mean_deviation", "largest |E[mean]| of a latent; 0 at any stationary point", "", "lower"),
        Column(
            "train_moment_deviation", "largest |E[mean^2 + std^2] - 1| of a latent; 0 at any stationary point", "", "lower"
        ),
    ),
    finish=_finish_deviations,
    needs=("normal prior",),
    asked=lambda spec: spec.train,
    splits=lambda spec: ("train",),
    init=lambda reference, setting: accumulate.Means(),
    update=_update_deviations,
)


class _Codes(NamedTuple):
    """Every `stride`-th code of the training split with its label."""

    kept: accumulate.Kept
    stride: int
    seen: list[int]  # how many images, as one number that can be changed


def _init_neighbours(reference: None, setting: Setting) -> _Codes:
    return _Codes(accumulate.Kept(), -(-len(setting.dataset.splits["train"]) // TRAIN_CODES), [0])


def _update_neighbours(state: _Codes, split: str, rows: Rows) -> _Codes:
    first = -state.seen[0] % state.stride
    state.kept.add({name: rows[name][first :: state.stride] for name in ("mean", "labels")})
    state.seen[0] += len(rows["mean"])
    return state


def _finish_neighbours(state: _Codes, run: Run) -> Values:
    train, codes = state.kept.arrays(), run.codes["mean"]
    stride = -(-len(codes) // TEST_CODES)
    labels = np.asarray(run.setting.dataset.splits["test"].labels)
    return {"knn_accuracy": knn_accuracy(train["mean"], train["labels"], codes[::stride], labels[::stride])}


def knn_accuracy(
    train: Float[np.ndarray, "n latents"],
    train_labels: np.ndarray,
    test: Float[np.ndarray, "m latents"],
    test_labels: np.ndarray,
) -> float:
    """Share of test codes whose 5 nearest training codes vote for the right class; of equal votes the first."""
    if not (np.isfinite(train).all() and np.isfinite(test).all()):
        return math.nan
    classes, index = np.unique(train_labels, return_inverse=True)
    voters = index[_nearest(train, test, min(NEIGHBOURS, len(train)))]
    votes = np.stack([np.sum(voters == each, axis=1) for each in range(len(classes))])
    return float(np.mean(classes[np.argmax(votes, axis=0)] == test_labels))


def _nearest(
    train: Float[np.ndarray, "n latents"], test: Float[np.ndarray, "m latents"], count: int
) -> Int[np.ndarray, "m count"]:
    """The `count` nearest rows of `train` to each row of `test`."""
    if train.shape[1] > TREE_LATENTS:
        from sklearn.neighbors import NearestNeighbors

        return NearestNeighbors(n_neighbors=count, algorithm="brute").fit(train).kneighbors(test, return_distance=False)
    # SciPy's, because importing scikit-learn takes a second and a half, which is a part of each start.
    from scipy.spatial import KDTree

    return KDTree(train).query(test, k=range(1, count + 1))[1]


KNN = Metric(
    columns=(
        Column(
            "knn_accuracy",
            f"share of test codes whose {NEIGHBOURS} nearest training codes vote for their class; at most {TEST_CODES:,} "
            f"of {TRAIN_CODES:,}, evenly from larger splits",
            "", "higher", 3,
        ),
    ),
    finish=_finish_neighbours,
    needs=("labels",),
    asked=lambda spec: spec.train,
    splits=lambda spec: ("train",),
    init=_init_neighbours,
    update=_update_neighbours,
)  # fmt: skip
