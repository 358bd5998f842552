"""PCA against scikit-learn and against what its eigenvalues say."""

import numpy as np
import pytest

from vae_jax import baselines

# 200 rows of dimension 7, with variances apart and correlated columns, away from 0.
RANDOM = np.random.default_rng(0)
X = RANDOM.normal(size=(200, 7)) * [5, 4, 3, 2, 1, 0.5, 0.1] @ RANDOM.normal(size=(7, 7)) + 3
NEW = RANDOM.normal(size=(50, 7)) + 3


@pytest.mark.parametrize("latents", [1, 3, 7])
def test_against_scikit_learn(latents):
    from sklearn.decomposition import PCA

    mine, theirs = baselines.pca(X, latents), PCA(latents, svd_solver="full").fit(X)
    assert mine.components.shape == (latents, 7)
    # float64; the covariance squares the condition number of the data, 1e3.
    np.testing.assert_allclose(mine.components @ mine.components.T, np.eye(latents), atol=1e-12)
    np.testing.assert_allclose(np.abs(np.sum(mine.components * theirs.components_, axis=1)), 1, atol=1e-9)
    np.testing.assert_allclose(mine.decode(mine.encode(NEW)), theirs.inverse_transform(theirs.transform(NEW)), atol=1e-8)


@pytest.mark.parametrize("latents", range(8))
def test_the_error_is_the_sum_of_the_eigenvalues_left_out(latents):
    pca = baselines.pca(X, latents)
    error = np.mean(np.sum(np.square(X - pca.decode(pca.encode(X))), axis=1))
    left_out = np.linalg.eigvalsh(np.cov(X, rowvar=False, bias=True))[: 7 - latents].sum()
    # float64 sums of 200 squares of a data set whose total variance is some 100.
    assert abs(error - left_out) < 1e-10


def test_all_directions_there_are():
    pca = baselines.pca(X, 100)
    assert pca.components.shape == (7, 7)
    np.testing.assert_allclose(pca.decode(pca.encode(NEW)), NEW, atol=1e-11)


def test_fewer_rows_than_dimensions():
    pca = baselines.pca(X[:3], 5)
    np.testing.assert_allclose(pca.decode(pca.encode(X[:3])), X[:3], atol=1e-11)


def test_codes_of_the_training_data_are_centred_and_uncorrelated():
    codes = baselines.pca(X, 3).encode(X)
    np.testing.assert_allclose(codes.mean(axis=0), 0, atol=1e-12)
    covariance = np.cov(codes.T, bias=True)
    np.testing.assert_allclose(covariance, np.diag(np.diag(covariance)), atol=1e-10)
    assert np.all(np.diff(np.diag(covariance)) < 0)  # the largest first
