"""Sums over batches against NumPy over all rows at once."""

import math

import numpy as np
import pytest

from vae_jax.evaluation import accumulate


def in_batches(values: np.ndarray, size: int) -> accumulate.Means:
    means = accumulate.Means()
    for start in range(0, len(values), size):
        means.add({"x": values[start : start + size]})
    return means


@pytest.mark.parametrize("size", [1, 7, 50, 100])
def test_means_and_variances_do_not_depend_on_the_batches(size):
    """Numbers of size 1e6 that differ by 1, as the sums of squares would not tell apart in float32."""
    values = (1e6 + np.random.default_rng(0).normal(size=(50, 3))).astype(np.float32)
    means = in_batches(values, size)
    np.testing.assert_allclose(means.means("x"), values.mean(axis=0, dtype=float), rtol=1e-14)
    np.testing.assert_allclose(means.variance("x"), values.var(axis=0, dtype=float), rtol=1e-6)
    expected = values.std(axis=0, dtype=float, ddof=1) / math.sqrt(50)
    np.testing.assert_allclose(means.errors("x"), expected, rtol=1e-6)


def test_an_infinite_number_gives_an_infinite_mean():
    with np.errstate(invalid="ignore"):
        assert in_batches(np.array([1.0, np.inf, np.inf]), 2).mean("x") == math.inf


def test_one_image_has_no_error():
    assert in_batches(np.ones(1), 1).error("x") is None
    assert in_batches(np.ones(1), 1).drawn_error("x", 5) == 1.0
    assert in_batches(np.ones(1), 1).drawn_error("x", 1) is None


def test_what_is_kept_is_in_order():
    kept = accumulate.Kept().add({"a": np.arange(3), "b": np.ones(3)}).add({"a": np.arange(3, 5), "b": np.ones(2)})
    assert kept.arrays()["a"].tolist() == [0, 1, 2, 3, 4]
    assert len(kept.arrays()["b"]) == 5
