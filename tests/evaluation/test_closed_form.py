"""PCA against scikit-learn and against what its eigenvalues say."""

import math

import numpy as np
import pytest
import scipy.stats

from vae_jax.evaluation import closed_form

# 200 rows of dimension 7, with variances apart and correlated columns, away from 0.
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 7)) * [5, 4, 3, 2, 1, 0.5, 0.1] @ RANDOM.normal(size=(7, 7)) + 3
NEW = RANDOM.normal(size=(50, 7)) + 3


@pytest.mark.parametrize("latents", [1, 3, 7])
def test_against_scikit_learn(latents):
    from sklearn.decomposition import PCA

    mine, theirs = closed_form.pca(X, latents), PCA(latents, svd_solver="full").fit(X)
    assert mine.components.shape == (latents, 7)
    # float64; the covariance squares the condition number of the data, 1e3.
    np.testing.assert_allclose(mine.components @ mine.components.T, np.eye(latents), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(mine.components * theirs.components_, axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(mine.decode(mine.encode(NEW)), theirs.inverse_transform(theirs.transform(NEW)), atol=1e-8)


@pytest.mark.parametrize("latents", range(8))
def test_the_error_is_the_sum_of_the_eigenvalues_left_out(latents):
    pca = closed_form.pca(X, latents)
    error = np.mean(np.sum(np.square(X - pca.decode(pca.encode(X))), axis=1))
    left_out = np.linalg.eigvalsh(np.cov(X, rowvar=False, bias=True))[: 7 - latents].sum()
    # float64 sums of 200 squares of a data set whose total variance is some 100.
    assert abs(error - left_out) < 1e-10


def test_all_directions_there_are():
    pca = closed_form.pca(X, 100)
    assert pca.components.shape == (7, 7)
    np.testing.assert_allclose(pca.decode(pca.encode(NEW)), NEW, atol=1e-11)


def test_fewer_rows_than_dimensions():
    pca = closed_form.pca(X[:3], 5)
    np.testing.assert_allclose(pca.decode(pca.encode(X[:3])), X[:3], atol=1e-11)


def test_codes_of_the_training_data_are_centred_and_uncorrelated():
    codes = closed_form.pca(X, 3).encode(X)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-12)
    covariance = np.cov(codes.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-10)
    assert np.all(np.diff(np.diag(covariance)) < 0)  # the largest first


# The linear VAE. X has the eigenvalues EIGENVALUES, all apart.

EIGENVALUES = np.linalg.eigvalsh(np.cov(X, rowvar=False, bias=True))[::-1]


def gaussian(model: closed_form.LinearVAE) -> scipy.stats._multivariate.multivariate_normal_frozen:
    covariance = model.weights @ model.weights.T + model.sigma2 * np.eye(len(model.mean))
    return scipy.stats.multivariate_normal(model.mean, covariance)


@pytest.mark.parametrize("latents", range(7))
def test_ppca_is_the_maximum_likelihood(latents):
    model = closed_form.linear_vae(X, latents)
    assert model.sigma2 == pytest.approx(EIGENVALUES[latents:].mean())
    log_prob = model.log_prob(X)
    np.testing.assert_allclose(log_prob, gaussian(model).logpdf(X), rtol=1e-9)
    # Tipping & Bishop 1999, eq. 8 with the optimum put in.
    logs = np.log(EIGENVALUES[:latents]).sum() + (7 - latents) * np.log(model.sigma2)
    assert log_prob.mean() == pytest.approx(-0.5 * (logs + 7 + 7 * np.log(2 * np.pi)))


@pytest.mark.parametrize("latents", range(7))
def test_the_elbo_of_ppca_is_log_p_of_every_row(latents):
    model = closed_form.linear_vae(X, latents)
    for x in (X, NEW):
        np.testing.assert_allclose(-(model.distortion(x) + model.rate(x)), model.log_prob(x), rtol=1e-9)


def test_another_beta_has_a_gap_and_a_smaller_one_near_it():
    model = closed_form.linear_vae(X, 3, beta=2.0, sigma2=1.0)
    assert np.all(model.log_prob(X).mean() > -(model.distortion(X) + model.rate(X)).mean() + 0.1)


def test_the_rate_of_a_known_gaussian():
    one = np.ones((1, 1))
    model = closed_form.LinearVAE(np.zeros(1), one, one, np.array([4.0]), 1.0)
    assert model.rate(one).item() == pytest.approx(1.3068528194400547)  # KL(N(1, 4) || N(0, 1))


@pytest.mark.parametrize(("beta", "sigma2"), [(0.01, 0.5), (1.0, 0.5), (4.0, 0.3), (1.0, 1.2), (50.0, 0.1), (1e4, 1.0)])
def test_reverse_water_filling(beta, sigma2):
    """ANCHORS: D_i = min(theta, lambda_i), R_i = max(0, log(lambda_i / theta) / 2)."""
    latents, theta = 4, beta * sigma2
    model, top = closed_form.linear_vae(X, latents, beta, sigma2), EIGENVALUES[:latents]
    noise = np.sum(np.square(model.weights).sum(axis=0) * model.variances)
    error = np.minimum(theta, top).sum() + EIGENVALUES[latents:].sum()
    rate = np.maximum(0, 0.5 * np.log(top / theta)).sum()
    assert (model.squared_error(X) + noise).mean() == pytest.approx(error)
    assert model.rate(X).mean() == pytest.approx(rate, abs=1e-12)
    assert model.distortion(X).mean() == pytest.approx(0.5 * error / sigma2 + 3.5 * np.log(2 * np.pi * sigma2))
    found = closed_form.water_filling(EIGENVALUES, latents, np.array([theta]))
    np.testing.assert_allclose(found, [[rate], [error]], atol=1e-12)
    # At the mean code an active direction leaves theta^2 / lambda_i.
    at_mean = np.where(top > theta, theta**2 / top, top).sum() + EIGENVALUES[latents:].sum()
    assert model.squared_error(X).mean() == pytest.approx(at_mean)


def test_slope_of_the_curve():
    """dR / d(squared error) = -1 / (2 theta) wherever a latent is active."""
    theta = np.geomspace(EIGENVALUES[5], EIGENVALUES[0] * 0.9, 50)
    for level in theta:
        (low, high), (less, more) = closed_form.water_filling(EIGENVALUES, 6, level * np.array([0.9999, 1.0001]))
        assert (high - low) / (more - less) == pytest.approx(-1 / (2 * level), rel=1e-3)


def test_only_theta_matters():
    a, b = (closed_form.linear_vae(X, 3, beta, sigma2) for beta, sigma2 in ((4.0, 0.3), (1.0, 1.2)))
    for name in ("weights", "gain", "variances"):
        np.testing.assert_allclose(getattr(a, name), getattr(b, name))


@pytest.mark.parametrize("beta", [0.5, 1.0, 1.3, 1.9])
def test_learned_sigma_with_any_beta_is_the_best_of_all(beta):
    """sigma^2 = sum of the unused eigenvalues / (d - beta q), against a search over sigma^2."""
    latents = 3

    def objective(sigma2: float) -> float:
        model = closed_form.linear_vae(X, latents, beta, sigma2)
        return float((model.distortion(X) + beta * model.rate(X)).mean())

    model = closed_form.linear_vae(X, latents, beta)
    found = objective(model.sigma2)
    q = int(np.sum(EIGENVALUES[:latents] > beta * model.sigma2))
    assert model.sigma2 == pytest.approx(EIGENVALUES[q:].sum() / (7 - beta * q))
    scale = beta * model.sigma2
    closed = 3.5 * np.log(2 * np.pi * np.e * model.sigma2) + beta / 2 * np.log(EIGENVALUES[:q] / scale).sum()
    assert found == pytest.approx(closed)
    assert all(objective(sigma2) >= found for sigma2 in model.sigma2 * np.geomspace(0.2, 5, 200))


@pytest.mark.parametrize(("latents", "beta"), [(7, 0.5), (8, 0.9)])
def test_no_sigma_is_optimal_with_as_many_latents_as_dimensions(latents, beta):
    with pytest.raises(ValueError, match="no learned sigma is optimal"):
        closed_form.linear_vae(X, latents, beta)


def test_no_sigma_is_optimal_without_noise():
    """Two columns that vary, exactly: two latents leave nothing."""
    x = np.array([[1, 1, 0, 0], [1, -1, 0, 0], [-1, 1, 0, 0], [-1, -1, 0, 0]]) * np.array([4.0, 2, 1, 1])
    assert closed_form.linear_vae(x, 1).sigma2 == 4 / 3
    with pytest.raises(ValueError, match="no learned sigma is optimal"):
        closed_form.linear_vae(x, 2)


def test_moments_of_bits_are_those_of_many_draws():
    generator = np.random.default_rng(0)
    p = generator.uniform(size=(20, 5))
    bits = (generator.uniform(size=(20_000, 20, 5)) < p).reshape(-1, 5).astype(float)
    drawn, expected = closed_form.moments(bits), closed_form.bit_moments(p)
    # 400,000 rows of variance at most 1/4.
    np.testing.assert_allclose(drawn.mean, expected.mean, atol=5 * 0.5 / math.sqrt(400_000))
    np.testing.assert_allclose(drawn.covariance, expected.covariance, atol=5 * 0.25 / math.sqrt(400_000))
