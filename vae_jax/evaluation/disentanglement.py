"""Disentanglement: how single latents relate to single known factors, by the metrics that papers report.

Definitions are those of Locatello et al. 2019, "Challenging common assumptions" (appendix C), if not said otherwise.
`codes` are mean codes [n, latents], `factors` [n, factors] are integers. Latents that say nothing are left out first, by
`active`: a collapsed latent still has a tiny mean that tells its factor. Codes without columns score 0.
"""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Num

from vae_jax.core import errors
from vae_jax.system import progress

Codes = Num[np.ndarray, "n latents"]
Factors = Num[np.ndarray, "rows factors"] | None  # as many rows as codes, or `check` says so
Matrix = Float[np.ndarray, "latents factors"]

RATE = 0.01  # nats: a latent below this says nothing
STD = 0.05  # of a latent's codes, where there is no rate
BINNINGS = ("quantile", "uniform")
FEWEST = 20  # codes for which any of this is computed
GROUP = 64  # pairs or images that share a factor, in the BetaVAE and FactorVAE scores
POINTS = (10_000, 5_000)  # from which these two learn, and on which their accuracy is measured
ROWS = 3000  # on which trees are grown, and as many for their accuracy


class Score(float):
    """A mean, and the values that it is the mean of."""

    values: Float[np.ndarray, "..."]

    def __new__(cls, values: Float[np.ndarray, "..."], mean: float | None = None):
        """The plain mean of `values`, or their weighted `mean`."""
        score = super().__new__(cls, (values.mean() if values.size else 0.0) if mean is None else mean)
        score.values = values
        return score


class DCI(NamedTuple):
    """Means with `values`: disentanglement per latent, completeness and informativeness per factor."""

    disentanglement: Score
    completeness: Score
    informativeness: Score
    importances: Matrix


def check(codes: Codes, factors: Factors, names: Sequence[str] = ()) -> Int[np.ndarray, "rows factors"]:
    """The factors, each counted from 0, if metrics can be computed from them.

    Args:
      codes: mean codes.
      factors: integers, of any type.
      names: of the factors, for messages.

    Raises:
      UserError: no factors; other rows or columns than codes and names have; too few codes; values that are not finite
        or not whole; a factor of one value.
    """
    if factors is None or factors.ndim != 2 or not factors.shape[1]:
        raise errors.UserError("disentanglement needs known factors: this data has none")
    if names and len(names) != factors.shape[1]:
        raise errors.UserError(f"{len(names)} factor names for {factors.shape[1]} columns of factors")
    if len(codes) != len(factors):
        raise errors.UserError(f"{len(codes)} codes for {len(factors)} rows of factors; should be as many")
    if len(codes) < FEWEST:
        raise errors.UserError(f"disentanglement from {progress.counted(len(codes), 'code')}; should be at least {FEWEST}")
    if not np.isfinite(codes).all():
        raise errors.UserError(f"codes are not finite in {progress.counted(int((~np.isfinite(codes)).sum()), 'value')}")
    counted = np.empty(factors.shape, np.int64)
    for column, values in enumerate(factors.T):
        name = names[column] if names else column
        broken = values[values != np.round(values)]
        if broken.size:
            raise errors.UserError(f"factor {name} has the value {broken[0]:g}; should be integers")
        found, counted[:, column] = np.unique(values, return_inverse=True)
        if len(found) == 1:
            raise errors.UserError(f"factor {name} has only the value {found[0]:g}; should have two or more")
    return counted


def active(codes: Codes, rates: Float[np.ndarray, " latents"] | None = None) -> Num[np.ndarray, "n active"]:
    """The columns of latents that say something: of rate at least 0.01 nats or, without rates, of std at least 0.05."""
    is_active = codes.std(axis=0) >= STD if rates is None else rates >= RATE
    return codes[:, is_active]


def mutual_information(codes: Codes, factors: Factors, bins: int = 20, binning: str = "quantile") -> Matrix:
    """Mutual information of each binned latent and each factor, in nats.

    Args:
      codes: mean codes.
      factors: integers.
      bins: of each latent.
      binning: "quantile", about equally many codes in a bin, which no monotone map of a latent changes; "uniform", of equal
        width, as in disentanglement_lib.

    Raises:
      UserError: as `check`; bins or a binning that cannot be.
    """
    counted = check(codes, factors)
    if binning not in BINNINGS:
        raise errors.UserError(f"binning={binning!r}: should be one of {', '.join(BINNINGS)}")
    if not 2 <= bins <= len(codes):
        raise errors.UserError(f"bins={bins}: should be from 2 to the number of codes, {len(codes)}")
    binned = [_binned(column, bins, binning) for column in codes.T]
    return np.array([[_information(b, v) for v in counted.T] for b in binned]).reshape(len(binned), counted.shape[1])


def _binned(column: Num[np.ndarray, " n"], bins: int, binning: str) -> Int[np.ndarray, " n"]:
    if binning == "uniform":
        return np.digitize(column, np.histogram(column, bins)[1][:-1]) - 1
    values, inverse = np.unique(column, return_inverse=True)
    if len(values) <= bins:
        return inverse
    return np.searchsorted(np.quantile(column, np.arange(1, bins) / bins), column, side="right")


def _information(a: Int[np.ndarray, " n"], b: Int[np.ndarray, " n"]) -> float:
    """Of two discrete variables, in nats."""
    width = b.max() + 1
    joint = np.bincount(a * width + b, minlength=(a.max() + 1) * width).reshape(-1, width) / len(a)
    independent = joint.sum(axis=1, keepdims=True) * joint.sum(axis=0)
    positive = joint > 0
    return max(0.0, float(np.sum(joint[positive] * np.log(joint[positive] / independent[positive]))))


def mig(codes: Codes, factors: Factors, bins: int = 20, binning: str = "quantile") -> Score:
    """The mutual information gap (Chen et al. 2018): (best latent's - second best's) / entropy of the factor.

    Returns:
      The mean over factors; `values` [factors].
    """
    counted = check(codes, factors)
    information = mutual_information(codes, factors, bins, binning)
    entropy = np.array([_information(column, column) for column in counted.T])
    return Score(_gap(information) / entropy)


def _gap(scores: Matrix) -> Float[np.ndarray, " factors"]:
    """The best latent's score minus the second best's, 0 standing for latents that are not there."""
    padded = np.sort(np.vstack([np.zeros((2, scores.shape[1])), scores]), axis=0)
    return padded[-1] - padded[-2]


def sap(codes: Codes, factors: Factors, categorical: Sequence[int] = ()) -> Score:
    """The separated attribute predictability (Kumar et al. 2018): the best latent's score minus the second best's.

    A latent's score is its squared correlation with the factor, or for a categorical factor the accuracy of a linear support
    vector classifier on the latent alone.

    Args:
      codes: mean codes.
      factors: integers.
      categorical: columns of factors whose values have no order.

    Returns:
      The mean over factors; `values` [factors].

    Raises:
      UserError: as `check`; a categorical column that is not there.
    """
    counted = check(codes, factors)
    for column in categorical:
        if not 0 <= column < counted.shape[1]:
            raise errors.UserError(f"categorical factor {column}: should be a column from 0 to {counted.shape[1] - 1}")
    wanted = np.asarray(factors, float)
    wanted = (wanted - wanted.mean(axis=0)) / wanted.std(axis=0)
    codes, moves = np.asarray(codes, float), _moves(codes)
    scaled = np.where(moves, (codes - codes.mean(axis=0)) / np.where(moves, codes.std(axis=0), 1), 0)
    scores = (scaled.T @ wanted / len(codes)) ** 2
    for column in categorical:
        scores[:, column] = [_linear_accuracy(code, counted[:, column]) for code in scaled.T]
    return Score(_gap(scores))


def _linear_accuracy(code: Float[np.ndarray, " n"], values: Int[np.ndarray, " n"]) -> float:
    """Accuracy of a linear support vector classifier of one variable, one class against another at a time."""
    from sklearn.multiclass import OneVsOneClassifier
    from sklearn.svm import LinearSVC

    # One class against all others could not tell the middle one of three along a line.
    chosen = np.random.default_rng(0).permutation(len(code))[:ROWS]
    if len(np.unique(values[chosen])) < 2:
        return float(np.bincount(values).max() / len(values))
    classifier = OneVsOneClassifier(LinearSVC(dual=False)).fit(code[chosen, None], values[chosen])
    return float(np.mean(classifier.predict(code[:, None]) == values))


def modularity(codes: Codes, factors: Factors, bins: int = 20, binning: str = "quantile") -> Score:
    """Modularity (Ridgeway and Mozer 2018): 1 minus what a latent says of other factors than its best, squared and scaled.

    Latents that say no more of any factor than chance does are left out: their value would be arbitrary. What is left of
    chance still gives noise up to 0.5, so this is no headline.

    Returns:
      The mean over latents that say something; `values` [latents], nan for those that do not.
    """
    counted = check(codes, factors)
    information = mutual_information(codes, factors, bins, binning)
    # What independent variables have on average (Miller 1955), at least twice of which is asked for.
    chance = (bins - 1) * counted.max(axis=0) / (2 * len(codes))
    says_something = (information > RATE + 2 * chance).any(axis=1)
    values = np.full(len(information), np.nan)
    squared = information[says_something] ** 2
    best = squared.max(axis=1, initial=0.0)
    values[says_something] = 1 - (squared.sum(axis=1) - best) / (np.maximum(best, 1e-300) * max(counted.shape[1] - 1, 1))
    return Score(values, float(values[says_something].mean()) if says_something.any() else 0.0)


def dci_scores(importances: Num[np.ndarray, "latents factors"]) -> tuple[Score, Score]:
    """Disentanglement and completeness (Eastwood and Williams 2018) of how important each latent is for each factor.

    Returns:
      Disentanglement: 1 - entropy over factors, weighted by the latents' share of all importance; `values` [latents].
      Completeness: 1 - entropy over latents, weighted by the factors' share; `values` [factors].
    """
    return _concentration(np.asarray(importances, float)), _concentration(np.asarray(importances, float).T)


def _concentration(importances: Float[np.ndarray, "rows columns"]) -> Score:
    """Per row, 1 - entropy over columns in units of its largest value; the mean is weighted by the rows' sums."""
    totals = importances.sum(axis=1)
    shares = importances / np.where(totals > 0, totals, 1)[:, None]
    logs = np.log(shares, where=shares > 0, out=np.zeros_like(shares))
    entropy = -np.sum(shares * logs, axis=1) / max(np.log(importances.shape[1]), 1e-300) if importances.size else totals
    values = np.where(totals > 0, 1 - entropy, 0.0)
    return Score(values, float(totals @ values / totals.sum()) if totals.sum() > 0 else 0.0)


def dci(codes: Codes, factors: Factors, trees: str = "extra", seed: int = 0) -> DCI:
    """Disentanglement, completeness and informativeness, by trees that predict each factor from all latents.

    Args:
      codes: mean codes.
      factors: integers.
      trees: "extra": 30 extremely randomised trees, a second for 10,000 codes; "boosted": 100 gradient boosted ones as
        published, a hundred times slower.
      seed: of the trees and of the rows, at most 3,000, on which they are grown. Informativeness is the accuracy on others.

    Raises:
      UserError: as `check`; another kind of trees.
    """
    counted = check(codes, factors)
    if trees not in ("extra", "boosted"):
        raise errors.UserError(f"trees={trees!r}: should be extra or boosted")
    order = np.random.default_rng(seed).permutation(len(codes))
    size = min(ROWS, len(codes) // 2)
    train, test = order[:size], order[size : 2 * size]
    importances, accuracy = np.zeros((codes.shape[1], counted.shape[1])), np.zeros(counted.shape[1])
    for column, values in enumerate(counted.T):
        if not codes.shape[1] or len(np.unique(values[train])) < 2:
            accuracy[column] = np.mean(values[test] == np.bincount(values[train]).argmax())
            continue
        fitted = _trees(trees, seed).fit(codes[train], values[train])
        importances[:, column] = fitted.feature_importances_
        accuracy[column] = np.mean(fitted.predict(codes[test]) == values[test])
    return DCI(*dci_scores(importances), Score(accuracy), importances)


def _trees(kind: str, seed: int):
    from sklearn import ensemble

    if kind == "boosted":
        return ensemble.GradientBoostingClassifier(random_state=seed)
    return ensemble.ExtraTreesClassifier(30, min_samples_leaf=5, max_features=None, random_state=seed)


def beta_vae_score(codes: Codes, factors: Factors, seed: int = 0) -> Score:
    """The BetaVAE score (Higgins et al. 2017): which factor do two groups of images share, told by a linear classifier.

    A point is the mean of |z - z'| over 64 pairs that share one factor, codes in units of their std; its label is that
    factor. A logistic regression learns from 10,000 points.

    Args:
      codes: mean codes of a grid of factors, or of any images of which many share each value.
      factors: integers.
      seed: of the pairs.

    Returns:
      The accuracy on 5,000 other points; `values` [factors] of those of each factor.

    Raises:
      UserError: as `check`; a single factor.
    """
    from sklearn.linear_model import LogisticRegression

    counted = check(codes, factors)
    if counted.shape[1] < 2:
        raise errors.UserError("the BetaVAE score tells factors apart: needs two or more, this data has one")
    scaled = _scaled(codes[:, _moves(codes)])
    if not scaled.shape[1]:
        return Score(np.zeros(counted.shape[1]))
    generator = np.random.default_rng(seed)
    points, labels = [], []
    for column, values in enumerate(counted.T):
        first, second = _sharing(values, -(-sum(POINTS) // counted.shape[1]), 2, GROUP, generator)
        points.append(np.abs(scaled[first] - scaled[second]).mean(axis=1))
        labels.append(np.full(len(first), column))
    train, test = _divided(len(labels[0]))
    learnt = np.concatenate([x[train] for x in points])
    mean, std = learnt.mean(axis=0), np.maximum(learnt.std(axis=0), 1e-12)
    classifier = LogisticRegression(max_iter=1000).fit((learnt - mean) / std, np.concatenate([y[train] for y in labels]))
    guesses = [classifier.predict((x[test] - mean) / std) for x in points]
    return Score(np.array([np.mean(guess == column) for column, guess in enumerate(guesses)]))


def factor_vae_score(codes: Codes, factors: Factors, seed: int = 0) -> Score:
    """The FactorVAE score (Kim and Mnih 2018): which latent varies least among images that share one factor.

    A point is the latent of least variance, in units of its variance over all codes, among 64 images that share a factor.
    Each latent stands for the factor that most of 10,000 points give it. Latents with a std below 0.05 take no part.

    Args:
      codes: mean codes of a grid of factors, or of any images of which many share each value.
      factors: integers.
      seed: of the groups.

    Returns:
      The share of 5,000 other points whose latent stands for their factor; `values` [factors] of those of each factor.
    """
    counted = check(codes, factors)
    scaled = _scaled(active(codes))
    if not scaled.shape[1]:
        return Score(np.zeros(counted.shape[1]))
    generator = np.random.default_rng(seed)
    least = []
    for values in counted.T:
        groups = _sharing(values, -(-sum(POINTS) // counted.shape[1]), GROUP, 1, generator)[..., 0]
        least.append(scaled[groups].var(axis=0).argmin(axis=1))
    train, test = _divided(len(least[0]))
    votes = np.stack([np.bincount(latents[train], minlength=scaled.shape[1]) for latents in least])
    stands_for = votes.argmax(axis=0)
    return Score(np.array([np.mean(stands_for[latents[test]] == column) for column, latents in enumerate(least)]))


def _moves(codes: Codes) -> Bool[np.ndarray, " latents"]:
    """Which latents are not constant; beyond rounding, which gives equal numbers a std."""
    return codes.std(axis=0, dtype=float) > 1e-12 * np.abs(codes).max(axis=0)


def _scaled(codes: Codes) -> Float[np.ndarray, "n latents"]:
    return ((codes - codes.mean(axis=0)) / codes.std(axis=0)).astype(np.float32)


def _divided(count: int) -> tuple[slice, slice]:
    """Points of one factor to learn from, and the others."""
    learnt = round(count * POINTS[0] / sum(POINTS))
    return slice(learnt), slice(learnt, None)


def _sharing(
    values: Int[np.ndarray, " n"], points: int, members: int, groups: int, generator: np.random.Generator
) -> Int[np.ndarray, "members points groups"]:
    """Random rows, `members` of which share a value: that of a random row."""
    order = np.argsort(values, kind="stable")
    shared = values[generator.integers(0, len(values), (points, groups))]
    begin, end = (np.searchsorted(values[order], shared, side) for side in ("left", "right"))
    return order[generator.integers(begin, end, (members, points, groups))]


def udr(codes: Sequence[Num[np.ndarray, "_ _"]]) -> Score:
    """Unsupervised disentanglement ranking (Duan et al. 2020): how alike are the latents of one setting's seeds.

    Of two models, each latent's largest rank correlation with a latent of the other, squared, over the sum of all of them;
    the mean over the latents of both. It ranks settings, not seeds within a setting.

    Args:
      codes: of each seed, mean codes [n, latents] of the same images; `active` latents only.

    Returns:
      The mean over models; `values` [models], the median over their partners.

    Raises:
      UserError: fewer than two models, or codes of different images.
    """
    if len(codes) < 2:
        raise errors.UserError(f"udr of {progress.counted(len(codes), 'model')}; should be at least 2, seeds of one setting")
    if len({len(z) for z in codes}) > 1:
        raise errors.UserError(
            f"udr of codes of {' and '.join(str(len(z)) for z in codes)} images; should be the same images"
        )
    ranks = [_ranked(z) for z in codes]
    scores = np.full((len(codes), len(codes)), np.nan)
    for i, j in itertools.combinations(range(len(codes)), 2):
        scores[i, j] = scores[j, i] = _alike(np.abs(ranks[i].T @ ranks[j]) / len(codes[0]))
    return Score(np.nanmedian(scores, axis=1))


def _ranked(codes: Codes) -> Float[np.ndarray, "n latents"]:
    """Ranks, of mean 0 and variance 1, of the latents that are not constant."""
    from scipy import stats

    ranks = stats.rankdata(codes, axis=0)
    ranks = ranks[:, ranks.std(axis=0) > 0]
    return (ranks - ranks.mean(axis=0)) / ranks.std(axis=0)


def _alike(correlations: Matrix) -> float:
    if not correlations.size:
        return 0.0
    parts = [np.max(correlations, axis) ** 2 / np.maximum(np.sum(correlations, axis), 1e-300) for axis in (0, 1)]
    return float(np.concatenate(parts).mean())
