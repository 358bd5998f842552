"""Disentanglement metrics: exact answers on a full grid, plain implementations beside them, and the known traps."""

import collections
import itertools
import math

import numpy as np
import pytest
from scipy import stats

from vae_jax.core import errors
from vae_jax.evaluation import disentanglement

# The sprites' grid: shape, scale, orientation, x, y.
GRID = np.array(list(itertools.product(range(3), range(6), range(8), range(8), range(8))))
SHAPE, SCALE, ORIENTATION, X, Y = GRID.T
SMALL = np.array(list(itertools.product(range(3), range(4), range(5), range(2))))


def ten(*columns):
    """These latents, and constant ones: ten together."""
    return np.column_stack([*columns, *[np.zeros(len(columns[0]))] * (10 - len(columns))]).astype(float)


PERMUTED = ten(0.5 * X, -2 * SHAPE, 3 * Y, 7 + ORIENTATION, 0.7 * SCALE)
TURNED = ten(SHAPE, SCALE, ORIENTATION, X + Y, X - Y)
TWICE = ten(SHAPE, SCALE, ORIENTATION, X, Y, X)
CONSTANT = ten(*np.ones((5, len(GRID))))
ALL = {
    "mig": disentanglement.mig,
    "sap": disentanglement.sap,
    "modularity": disentanglement.modularity,
    "dci": lambda codes, factors: disentanglement.dci(codes, factors).disentanglement,
    "completeness": lambda codes, factors: disentanglement.dci(codes, factors).completeness,
    "beta_vae_score": disentanglement.beta_vae_score,
    "factor_vae_score": disentanglement.factor_vae_score,
}


def mixed(factors, latents=6, seed=0):
    """Codes that no model made: noisy, nonlinear mixtures of the factors, some entangled, some not."""
    generator = np.random.default_rng(seed)
    scaled = (factors - factors.mean(axis=0)) / factors.std(axis=0)
    weights = generator.normal(size=(factors.shape[1], latents)) * (
        generator.uniform(size=(factors.shape[1], latents)) < 0.5
    )
    return np.tanh(scaled @ weights) + 0.3 * generator.normal(size=(len(factors), latents))


def test_permuted_and_rescaled_factors_are_perfect():
    assert disentanglement.mig(PERMUTED, GRID) == pytest.approx(1, abs=1e-12)
    assert disentanglement.mig(PERMUTED, GRID, binning="uniform") == pytest.approx(1, abs=1e-12)
    assert disentanglement.sap(PERMUTED, GRID, categorical=(0,)) == pytest.approx(14 / 15, abs=1e-12)
    assert disentanglement.modularity(PERMUTED, GRID) == pytest.approx(1, abs=1e-12)
    dci = disentanglement.dci(PERMUTED, GRID)
    np.testing.assert_allclose(dci[:3], 1, atol=1e-6)
    assert dci.importances.shape == (10, 5)
    assert disentanglement.beta_vae_score(PERMUTED, GRID) > 0.999
    assert disentanglement.factor_vae_score(PERMUTED, GRID) > 0.999


def test_x_and_y_turned_by_45_degrees():
    mig = disentanglement.mig(TURNED, GRID)
    assert mig == pytest.approx(0.6, abs=1e-12)
    np.testing.assert_allclose(mig.values, [1, 1, 1, 0, 0], atol=1e-12)
    dci = disentanglement.dci(TURNED, GRID)
    assert dci.disentanglement == pytest.approx(0.8277, abs=0.002)
    assert dci.completeness == pytest.approx(0.8796, abs=0.002)
    np.testing.assert_allclose(dci.completeness.values, [1, 1, 1, 0.699, 0.699], atol=0.005)
    score = disentanglement.factor_vae_score(TURNED, GRID)
    # Two factors out of five are told from each other by chance: five standard errors.
    assert score == pytest.approx(0.8, abs=5 * 0.4 * (0.5 / 2000**0.5))


def test_x_twice_costs_its_gap():
    mig = disentanglement.mig(TWICE, GRID)
    assert mig == pytest.approx(0.8, abs=1e-12)
    np.testing.assert_allclose(mig.values, [1, 1, 1, 0, 1], atol=1e-12)
    dci = disentanglement.dci(TWICE, GRID)
    assert dci.disentanglement == pytest.approx(1, abs=1e-6)
    assert dci.completeness == pytest.approx(1 - math.log10(2) / 5, abs=0.002)
    assert disentanglement.sap(TWICE, GRID, categorical=(0,)) == pytest.approx(14 / 15 - 1 / 5, abs=1e-12)


def test_dci_scores_of_importances_that_are_known():
    importances = np.zeros((10, 5))
    importances[[0, 1, 2], [0, 1, 2]] = 1
    importances[3:5, 3:5] = 0.5
    disentangled, complete = disentanglement.dci_scores(importances)
    assert disentangled == pytest.approx(1 - 2 / 5 * math.log(2) / math.log(5), abs=1e-12)
    assert complete == pytest.approx(1 - 2 / 5 * math.log10(2), abs=1e-12)
    np.testing.assert_allclose(disentangled.values[5:], 0)
    assert disentanglement.dci_scores(np.zeros((10, 5))) == (0, 0)
    np.testing.assert_allclose(disentanglement.dci_scores(np.full((4, 3), 0.25)), 0, atol=1e-12)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "codes", [CONSTANT, CONSTANT[:, :0], 0.1 * np.ones((len(GRID), 3))], ids=["constant", "none", "tenths"]
)
def test_codes_that_say_nothing_score_nothing(name, codes):
    assert ALL[name](codes, GRID) == 0


@pytest.mark.parametrize("name", ALL)
def test_a_collapsed_model_scores_nothing_although_its_means_tell_the_factors(name):
    collapsed = 0.001 * PERMUTED
    if name != "factor_vae_score":  # which leaves out such latents itself
        assert ALL[name](collapsed, GRID) > 0.7
    assert ALL[name](disentanglement.active(collapsed), GRID) == 0
    assert ALL[name](disentanglement.active(collapsed, rates=np.full(10, 0.009)), GRID) == 0


def test_which_latents_are_active():
    codes = np.random.default_rng(0).normal(size=(1000, 3)) * [1, 0.04, 0.06]
    np.testing.assert_array_equal(disentanglement.active(codes), codes[:, [0, 2]])
    np.testing.assert_array_equal(disentanglement.active(codes, np.array([0.01, 0.5, 0.0099])), codes[:, :2])


def test_noise_scores_about_nothing():
    codes = np.random.default_rng(0).normal(size=(len(GRID), 10))
    assert disentanglement.mig(codes, GRID) < 0.002
    assert disentanglement.sap(codes, GRID) < 0.002
    assert disentanglement.modularity(codes, GRID) == 0  # not the half that chance would give
    dci = disentanglement.dci(codes, GRID)
    assert max(dci.disentanglement, dci.completeness) < 0.01
    # Guessing: 1 of the number of values, five standard errors.
    assert dci.informativeness == pytest.approx(np.mean([1 / 3, 1 / 6, 1 / 8, 1 / 8, 1 / 8]), abs=5 * 0.37 / 15000**0.5)
    for score in (disentanglement.beta_vae_score(codes, GRID), disentanglement.factor_vae_score(codes, GRID)):
        assert score == pytest.approx(0.2, abs=5 * 0.4 / 5000**0.5)


def test_a_monotone_map_of_a_latent_changes_nothing_but_with_bins_of_equal_width():
    cubed = PERMUTED**3
    assert disentanglement.mig(cubed, GRID) == pytest.approx(1, abs=1e-12)
    assert 0.8 < disentanglement.mig(cubed, GRID, binning="uniform") < 0.95
    codes = mixed(GRID)
    assert disentanglement.mig(np.exp(3 * codes), GRID) == pytest.approx(disentanglement.mig(codes, GRID), abs=1e-12)


def plain_information(binned, values):
    joint = collections.Counter(zip(binned.tolist(), values.tolist(), strict=True))
    left, right = collections.Counter(binned.tolist()), collections.Counter(values.tolist())
    n = len(binned)
    return sum(count / n * math.log(count * n / (left[a] * right[b])) for (a, b), count in joint.items())


def plain_bins(column, bins, binning):
    low, high = min(column), max(column)
    if binning == "uniform":
        edges = [low + (high - low) * k / bins for k in range(1, bins)]
    else:
        edges = [float(np.quantile(column, k / bins)) for k in range(1, bins)]
    return np.array([sum(value >= edge for edge in edges) for value in column])


@pytest.mark.parametrize("binning", ["quantile", "uniform"])
def test_information_mig_and_modularity_agree_with_plain_loops(binning):
    codes, factors = mixed(GRID)[::7], GRID[::7]
    expected = np.array(
        [[plain_information(plain_bins(z, 10, binning), v) for v in factors.T] for z in codes.T]
    )  # [latents, factors]
    found = disentanglement.mutual_information(codes, factors, 10, binning)
    np.testing.assert_allclose(found, expected, atol=1e-10)
    gaps = []
    for column, values in zip(expected.T, factors.T, strict=True):
        best, second = sorted(column)[::-1][:2]
        gaps.append((best - second) / plain_information(values, values))
    mig = disentanglement.mig(codes, factors, 10, binning)
    np.testing.assert_allclose(mig.values, gaps, atol=1e-10)
    assert float(mig) == pytest.approx(np.mean(gaps), abs=1e-12)
    modular = []
    for row in expected:
        best = max(row)
        modular.append(1 - sum(other**2 for other in np.delete(row, row.argmax())) / (best**2 * 4))
    modularity = disentanglement.modularity(codes, factors, 10, binning)
    told = ~np.isnan(modularity.values)
    assert told.sum() >= 4
    np.testing.assert_allclose(modularity.values[told], np.array(modular)[told], atol=1e-10)
    assert float(modularity) == pytest.approx(np.array(modular)[told].mean(), abs=1e-12)


def test_sap_agrees_with_correlations_and_a_search_for_thresholds():
    generator = np.random.default_rng(1)
    codes, factors = mixed(GRID)[::5], GRID[::5].copy()
    codes[:, 0] = 0.6 * factors[:, 4] + generator.normal(size=len(codes))
    factors = np.column_stack([factors, codes[:, 0] + 0.7 * generator.normal(size=len(codes)) > 2])  # a class
    found = disentanglement.sap(codes, factors, categorical=[5])
    for column in range(5):
        squared = sorted(stats.pearsonr(z, factors[:, column]).statistic ** 2 for z in codes.T)
        assert found.values[column] == pytest.approx(squared[-1] - squared[-2], abs=1e-10)
    # Of two classes along a line, a linear classifier is a threshold.
    has = factors[:, 5] == 1
    accuracies = sorted(
        max(max(np.mean((z > t) == has), np.mean((z <= t) == has)) for t in np.quantile(z, np.linspace(0, 1, 400)))
        for z in codes.T
    )
    assert found.values[5] == pytest.approx(accuracies[-1] - accuracies[-2], abs=0.02)


def test_dci_scores_agree_with_entropies_of_scipy():
    importances = np.random.default_rng(2).gamma(0.3, size=(6, 4))
    disentangled, complete = disentanglement.dci_scores(importances)
    rows = [1 - stats.entropy(row, base=4) for row in importances]
    columns = [1 - stats.entropy(column, base=6) for column in importances.T]
    np.testing.assert_allclose(disentangled.values, rows, atol=1e-10)
    np.testing.assert_allclose(complete.values, columns, atol=1e-10)
    assert disentangled == pytest.approx(np.average(rows, weights=importances.sum(axis=1)))
    assert complete == pytest.approx(np.average(columns, weights=importances.sum(axis=0)))


def test_boosted_trees_order_models_as_extra_trees_do():
    factors = SMALL[np.random.default_rng(0).integers(0, len(SMALL), 400)][:, [1, 3]]
    clean, entangled = factors + np.zeros((1, 2)), factors @ np.array([[1.0, 1.0], [1.0, -1.0]])
    for trees in ("extra", "boosted"):
        scores = [disentanglement.dci(codes, factors, trees) for codes in (clean, entangled)]
        assert scores[0].disentanglement > 0.99 > 0.6 > scores[1].disentanglement
        assert all(score.informativeness > 0.95 for score in scores)


def test_the_factor_vae_score_agrees_with_plain_loops():
    codes, factors = mixed(SMALL), SMALL
    generator = np.random.default_rng(9)
    variance = codes.var(axis=0)
    points = collections.defaultdict(list)
    for k in range(4):
        for _ in range(500):
            rows = np.flatnonzero(factors[:, k] == factors[generator.integers(len(factors)), k])
            group = codes[generator.choice(rows, 64)]
            points[k].append(int(np.argmin(group.var(axis=0) / variance)))
    votes = {latent: collections.Counter(k for k in points for z in points[k][:250] if z == latent) for latent in range(6)}
    stands_for = {latent: count.most_common(1)[0][0] if count else 0 for latent, count in votes.items()}
    expected = [np.mean([stands_for[z] == k for z in points[k][250:]]) for k in range(4)]
    found = disentanglement.factor_vae_score(codes, factors, seed=1)
    assert float(found) == pytest.approx(np.mean(expected), abs=5 * 0.5 / 1000**0.5)
    assert found.values.shape == (4,)


def test_the_beta_vae_score_agrees_with_plain_loops():
    from sklearn.linear_model import LogisticRegression

    codes, factors = mixed(SMALL), SMALL
    generator = np.random.default_rng(9)
    points, labels = [], []
    sharing = {(k, value): np.flatnonzero(factors[:, k] == value) for k in range(4) for value in range(5)}
    for index in range(2000):
        k = index % 4
        first = generator.integers(len(factors), size=64)
        alike = [sharing[k, value] for value in factors[first, k]]
        second = [rows[int(share * len(rows))] for rows, share in zip(alike, generator.random(64), strict=True)]
        # About as spread as the other classifier's inputs.
        points.append(np.abs(codes[first] - codes[second]).mean(axis=0) / 0.1)
        labels.append(k)
    classifier = LogisticRegression(max_iter=2000).fit(points[:1000], labels[:1000])
    expected = classifier.score(points[1000:], labels[1000:])
    assert float(disentanglement.beta_vae_score(codes, factors)) == pytest.approx(expected, abs=5 * 0.5 / 1000**0.5)


def test_scores_repeat_with_their_seed():
    codes = mixed(SMALL)
    for score in (disentanglement.beta_vae_score, disentanglement.factor_vae_score):
        assert score(codes, SMALL, seed=3) == score(codes, SMALL, seed=3)
    assert disentanglement.dci(codes, SMALL, seed=3)[:3] == disentanglement.dci(codes, SMALL, seed=3)[:3]


def test_udr_of_permuted_and_of_unrelated_models():
    generator = np.random.default_rng(0)
    codes = generator.normal(size=(3000, 4))
    alike = disentanglement.udr([codes, np.exp(codes[:, ::-1]), -codes])
    assert alike > 0.94  # what is missing are correlations by chance, in the denominators
    assert alike.values.shape == (3,)
    assert disentanglement.udr([generator.normal(size=(3000, 4)) for _ in range(3)]) < 0.03
    turned = codes @ stats.ortho_group.rvs(4, random_state=1)
    assert disentanglement.udr([codes, turned]) < 0.7
    assert disentanglement.udr([codes, codes[:, :0]]) == 0


def test_udr_agrees_with_plain_loops():
    models = [mixed(GRID, latents, seed)[::9] for latents, seed in ((4, 1), (3, 2), (5, 3))]
    pair = {}
    for i, j in itertools.permutations(range(3), 2):
        strengths = [[abs(stats.spearmanr(a, b).statistic) for b in models[j].T] for a in models[i].T]
        best = [max(row) ** 2 / sum(row) for row in strengths]
        best += [max(column) ** 2 / sum(column) for column in zip(*strengths, strict=True)]
        pair[i, j] = sum(best) / len(best)
    expected = [np.median([pair[i, j] for j in range(3) if j != i]) for i in range(3)]
    np.testing.assert_allclose(disentanglement.udr(models).values, expected, atol=1e-10)


BAD = {
    "no factors": (PERMUTED, None, "this data has none"),
    "no columns": (PERMUTED, GRID[:, :0], "this data has none"),
    "one value": (PERMUTED, GRID * [1, 1, 0, 1, 1], "factor 2 has only the value 0"),
    "too few codes": (PERMUTED[:10], GRID[:10], "from 10 codes; should be at least 20"),
    "other rows": (PERMUTED[:50], GRID[:60], "50 codes for 60 rows of factors"),
    "fractions": (PERMUTED, GRID + 0.5, "factor 0 has the value 0.5; should be integers"),
    "not finite": (np.where(PERMUTED == 1, np.nan, PERMUTED), GRID, "codes are not finite in"),
}


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("mistake", BAD)
def test_what_cannot_be_measured_is_one_line(name, mistake):
    codes, factors, message = BAD[mistake]
    with pytest.raises(errors.UserError, match=message) as raised:
        ALL[name](codes, factors)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: disentanglement.check(PERMUTED, GRID, "abcdef"), "6 factor names for 5 columns"),
        (lambda: disentanglement.check(PERMUTED, 0 * GRID, ["shape", "b", "c", "d", "e"]), "factor shape has only"),
        (
            lambda: disentanglement.sap(PERMUTED, GRID, categorical=(5,)),
            "categorical factor 5: should be a column from 0 to 4",
        ),
        (
            lambda: disentanglement.mig(PERMUTED, GRID, binning="equal"),
            "binning='equal': should be one of quantile, uniform",
        ),
        (lambda: disentanglement.mig(PERMUTED[:30], GRID[:30] + np.arange(30)[:, None], bins=40), "bins=40"),
        (lambda: disentanglement.dci(PERMUTED, GRID, trees="oak"), "trees='oak': should be extra or boosted"),
        (lambda: disentanglement.beta_vae_score(PERMUTED, GRID[:, :1]), "needs two or more, this data has one"),
        (lambda: disentanglement.udr([PERMUTED]), "udr of 1 model"),
        (lambda: disentanglement.udr([PERMUTED, PERMUTED[1:]]), "should be the same images"),
    ],
)
def test_wrong_arguments_are_one_line(call, message):
    with pytest.raises(errors.UserError, match=message):
        call()
