"""What is set aside: the right total, classes as even as they can be, and the splits of before."""

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data.dataset import load
from vae_jax.data.split import allotted, stratified

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 256, (20, 4), np.uint8)


def rows_of(dataset) -> list[bytes]:
    return [row.tobytes() for split in dataset.splits.values() for row in split.pixels]


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.5, 0.9])
def test_each_class_has_its_share_of_the_validation_split(fraction):
    whole, held = load("digits", valid_fraction=0.0), load("digits", valid_fraction=fraction)
    for label in range(10):
        there = np.sum(whole.splits["train"].labels == label)
        assert abs(np.sum(held.splits["valid"].labels == label) - fraction * there) < 1
    assert sorted(rows_of(whole)) == sorted(rows_of(held))


def test_each_class_has_its_share_of_the_test_split():
    dataset = load("digits", valid_fraction=0.0)
    assert set(dataset.splits) == {"train", "test"}
    for label in range(10):
        train, test = (np.sum(dataset.splits[split].labels == label) for split in ("train", "test"))
        assert abs(test - 0.2 * (train + test)) < 1


def test_a_fraction_may_be_a_whole_number():
    assert set(load("digits", valid_fraction=0).splits) == {"train", "test"}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_is_below_one(fraction):
    with pytest.raises(errors.UserError, match=r"data\.valid_fraction="):
        load("digits", valid_fraction=fraction)


def test_a_fraction_that_leaves_nothing(npz):
    path = npz(train=PIXELS, test=PIXELS)
    with pytest.raises(errors.UserError, match=r"^data\.valid_fraction=0\.99: leaves no training image of 20; should be"):
        load("npz", path=path, valid_fraction=0.99)
    assert len(load("npz", path=path, valid_fraction=0.95).splits["train"]) == 1


def rounded_in_each_class(labels: np.ndarray, fraction: float) -> np.ndarray:
    """The splits that the results of digits and MNIST are of."""
    random_state = np.random.default_rng(0)
    mask = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        mask[random_state.permutation(members)[: round(fraction * len(members))]] = True
    return mask


MNIST = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)  # training images of each class
DIGITS = (178, 182, 177, 183, 181, 182, 181, 179, 174, 180)


@pytest.mark.parametrize(("sizes", "fraction"), [(MNIST, 0.1), (DIGITS, 0.2), (DIGITS, 0.1)])
def test_large_sets_are_split_as_before(sizes, fraction):
    labels = RANDOM.permutation(np.repeat(np.arange(10), sizes))
    np.testing.assert_array_equal(stratified(len(labels), labels, fraction), rounded_in_each_class(labels, fraction))


def test_digits_are_split_as_before():
    whole = load("digits", valid_fraction=0)
    held = load("digits", valid_fraction=0.1)
    mask = rounded_in_each_class(whole.splits["train"].labels, 0.1)
    np.testing.assert_array_equal(held.splits["valid"].pixels, whole.splits["train"].pixels[mask])


@pytest.mark.parametrize(
    ("sizes", "fraction", "total"),
    [
        ([4] * 10, 0.1, 4),
        ([5] * 10, 0.1, 5),
        ([15] * 10, 0.1, 15),
        ([2] * 10, 0.2, 4),
        ([4, 4], 0.1, 1),
        ([1] * 30, 0.1, 3),
        ([100, 1, 1, 1], 0.1, 10),
        ([7], 0.5, 4),
    ],
)
def test_the_total_is_right_and_classes_are_even(sizes, fraction, total):
    numbers = allotted(np.array(sizes), fraction)
    assert numbers.sum() == total
    assert np.all(np.abs(numbers - fraction * np.array(sizes)) < 1)
    assert np.all(numbers < sizes) or min(sizes) == 1


def test_no_class_is_preferred():
    """Of classes with equal shares, any may give one image more; not the first ones alone."""
    assert not np.array_equal(np.flatnonzero(allotted(np.full(30, 4), 0.1)), np.arange(12))


@pytest.mark.parametrize("count", [3, 7, 40, 1000])
def test_without_labels_the_total_is_rounded(count):
    assert stratified(count, None, 0.2).sum() == round(0.2 * count)


def test_an_empty_part_is_refused(npz):
    path = npz(train=PIXELS, test=PIXELS)
    with pytest.raises(
        errors.UserError, match=r"^data\.valid_fraction=0\.02: 0\.02 of 20 images leaves no validation image; "
    ):
        load("npz", path=path, valid_fraction=0.02)
    assert len(load("npz", path=path, valid_fraction=0.03).splits["valid"]) == 1
