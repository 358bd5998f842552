"""Data sets: sizes, bits, statistics, exact batches, a digest, and data sets of one's own by name."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from vae_jax.core import errors
from vae_jax.data.dataset import (
    DATASETS,
    SPLITS,
    Dataset,
    ImageSpec,
    Loaded,
    Source,
    Split,
    batches,
    load,
    prepare,
    readers,
    source_of,
    to_unit,
)

RANDOM = np.random.default_rng(0)


def rows_of(dataset: Dataset) -> list[bytes]:
    return [row.tobytes() for split in dataset.splits.values() for row in split.pixels]


def test_digits():
    from sklearn.datasets import load_digits

    dataset = load("digits")
    assert dataset.spec == ImageSpec((8, 8, 1), 16, dynamic=False)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 1295, "test": 359, "valid": 143}
    # Together they are all 1,797 images, each once, with their labels.
    whole = load_digits()
    expected = sorted((row.astype(np.uint8).tobytes(), label) for row, label in zip(whole.images, whole.target, strict=True))
    found = [(row.tobytes(), label) for s in dataset.splits.values() for row, label in zip(s.pixels, s.labels, strict=True)]
    assert sorted(found) == expected
    images = dataset.images("train")
    assert images.dtype == np.float32
    assert (images.min(), images.max()) == (0, 1)
    np.testing.assert_array_equal(images * 16, dataset.splits["train"].pixels)  # exact: 16 is a power of two


def test_the_seed_moves_no_split():
    one, other = load("digits", seed=0), load("digits", seed=5)
    assert rows_of(one) == rows_of(other)


def test_threshold():
    grey, bits = load("digits"), load("digits", binarize="threshold")
    np.testing.assert_array_equal(bits.images("test"), grey.images("test") >= 0.5)
    assert not bits.spec.dynamic


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("split", SPLITS)
def test_bits_of_evaluation_stay_the_same(how, split):
    grey = load("digits").images(split)
    first, again, other = (load("digits", binarize=how, seed=seed).images(split) for seed in (0, 0, 1))
    assert set(np.unique(first)) == {0, 1}
    np.testing.assert_array_equal(first, again)
    assert np.mean(first != other) > 0.05
    # A bit is Bernoulli(pixel): the mean of all has this standard error; 5 of them.
    error = np.sqrt(np.sum(grey * (1 - grey))) / grey.size
    assert abs(first.mean() - grey.mean()) < 5 * error
    # Pixels that are 0 or 1 have nothing to draw.
    np.testing.assert_array_equal(first[(grey == 0) | (grey == 1)], grey[(grey == 0) | (grey == 1)])
    # And it is each pixel's own probability, not the mean's: bits and pixels are as correlated as the draw makes them.
    sure, unsure = first[grey > 0.85].mean(), first[(grey > 0.4) & (grey < 0.6)].mean()
    assert sure > 0.85
    assert 0.4 < unsure < 0.6


def test_static_bits_are_the_pixels_that_are_trained_on():
    dataset = load("digits", binarize="static")
    assert not dataset.spec.dynamic
    assert set(np.unique(dataset.splits["train"].pixels)) == {0, 16}
    prepared = prepare(jnp.asarray(dataset.splits["train"].pixels[:5]), dataset.spec, random.key(0))
    np.testing.assert_array_equal(prepared, dataset.images("train")[:5])


def test_dynamic_bits_are_fresh_for_each_key():
    dataset = load("digits", binarize="dynamic")
    pixels = dataset.splits["train"].pixels
    assert len(np.unique(pixels)) == 17  # the grey levels are kept
    draws = np.stack([prepare(jnp.asarray(pixels[:100]), dataset.spec, random.key(seed)) for seed in range(200)])
    assert set(np.unique(draws)) == {0, 1}
    np.testing.assert_array_equal(draws[0], prepare(jnp.asarray(pixels[:100]), dataset.spec, random.key(0)))
    grey = to_unit(pixels[:100], 16)
    # 6,400 pixels, each the mean of 200 bits: the worst of so many normal deviates stays within 5.5 standard errors.
    error = np.sqrt(grey * (1 - grey) / len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - grey) <= 5.5 * error)


def test_grey_pixels_are_prepared_without_a_draw():
    spec = ImageSpec((2,), 255, dynamic=False)
    prepared = jax.jit(lambda pixels: prepare(pixels, spec, random.key(0)))(np.array([[0, 51], [255, 1]], np.uint8))
    assert prepared.dtype == np.float32
    # XLA multiplies by 1 / 255: two roundings.
    np.testing.assert_allclose(prepared, np.array([[0, 51], [255, 1]]) / 255, rtol=2 * np.finfo(np.float32).eps)


def of_vectors(pixels) -> Dataset:
    splits = {"train": Split(np.asarray(pixels)), "test": Split(np.full((2, 3), 7, np.uint8))}
    return Dataset(splits, ImageSpec((3,), 255, dynamic=False), 0)


def test_statistics_are_of_the_training_split():
    dataset = of_vectors(np.array([[0, 0, 255], [51, 0, 255], [255, 0, 255]], np.uint8))
    assert dataset.statistics("none") == {}
    assert set(dataset.statistics("center")) == {"mean", "scale"}
    found = dataset.statistics("standardize")
    # Pixels and results are rounded to float32; a constant pixel takes the mean of all three standard deviations.
    std = np.array([0, 0.2, 1]).std()
    np.testing.assert_allclose(found["mean"], [0.4, 0, 1], rtol=2 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(found["std"], [std, std / 3, std / 3], rtol=2 * np.finfo(np.float32).eps)
    np.testing.assert_allclose(found["scale"], std, rtol=2 * np.finfo(np.float32).eps)
    assert {leaf.dtype for leaf in found.values()} == {np.dtype(np.float32)}
    np.testing.assert_array_equal(of_vectors(np.full((4, 3), 9, np.uint8)).statistics("standardize")["std"], 1)


def test_whitening():
    pixels = RANDOM.integers(0, 256, (500, 3), np.uint8)
    pixels[:, 2] = pixels[:, 0] // 2 + pixels[:, 1] // 2
    dataset = of_vectors(pixels)
    found = dataset.statistics("whiten")
    white = (dataset.images("train").astype(float) - found["mean"]) @ found["whiten"]
    # Stored in float32; the smallest variance is that of halves rounded down, 1e-6 of a unit, and x has eps of 1: 1e-4.
    np.testing.assert_allclose(white.T @ white / 500, np.eye(3), atol=1e-3)
    np.testing.assert_allclose(found["whiten"].astype(float) @ found["color"], np.eye(3), atol=1e-4)
    largest = np.linalg.eigvalsh(np.cov(dataset.images("train").astype(float), rowvar=False, bias=True))[-1]
    np.testing.assert_allclose(found["scale"], np.sqrt(largest), rtol=4 * np.finfo(np.float32).eps)
    flat = of_vectors(np.full((4, 3), 9, np.uint8)).statistics("whiten")
    assert all(np.isfinite(leaf).all() for leaf in flat.values())
    assert flat["scale"] > 0


def test_whitening_leaves_out_what_training_does_not_span():
    """40 vectors of 64 numbers: 39 axes. What lies beside them changes neither the codes nor what is decoded."""
    generator = np.random.default_rng(3)
    train, test = (generator.normal(size=(count, 64)).astype(np.float32) for count in (40, 100))
    splits = {"train": Split(train), "test": Split(test)}
    dataset = Dataset(splits, ImageSpec((64,), 1, dynamic=False), 0)
    found = dataset.statistics("whiten")
    white = (train - found["mean"]) @ found["whiten"]
    values = np.linalg.eigvalsh(white.astype(float).T @ white / 40)
    np.testing.assert_allclose(values, [0] * 25 + [1] * 39, atol=1e-4)
    _, _, axes = np.linalg.svd((train - train.mean(axis=0)).astype(float))
    beside = (generator.normal(size=(100, 25)) @ axes[39:]).astype(np.float32)
    np.testing.assert_allclose(beside @ found["whiten"], 0, atol=1e-4)
    np.testing.assert_allclose(found["color"] @ axes[39:].T, 0, atol=1e-4)
    # A test vector is as far from the mean as the training data are wide.
    assert np.abs((test - found["mean"]) @ found["whiten"]).max() < 100


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 4), (1, 1), (5, 100)])
def test_batches_pad_with_zeros_and_mask_them(count, size):
    images = RANDOM.random((count, 2, 3)).astype(np.float32) + 1
    batched, mask = batches(images, size)
    assert batched.shape == (-(-count // size), size, 2, 3)
    assert mask.shape == batched.shape[:2]
    assert mask.sum() == count
    assert batched.dtype == images.dtype
    np.testing.assert_array_equal(batched[mask], images)
    np.testing.assert_array_equal(batched[~mask], 0)


def test_an_unknown_way_to_binarize():
    with pytest.raises(errors.UserError, match=r"data\.binarize=coin: should be one of none, threshold, static, dynamic"):
        load("digits", binarize="coin")


def test_statistics_are_computed_once(monkeypatch):
    dataset = load("digits")
    first = dataset.statistics("whiten")
    monkeypatch.setattr(np.linalg, "eigh", None)
    again = dataset.statistics("whiten")
    assert again.keys() == first.keys()
    assert all(again[name] is first[name] for name in first)


def test_the_extent_of_pixels():
    assert load("digits").extent == dict.fromkeys(("train", "test", "valid"), (0.0, 1.0))


def changed(dataset: Dataset, kind: str) -> Dataset:
    """One entry of one array of the test split is another."""
    split = dataset.splits["test"]
    array = getattr(split, kind).copy()
    array.flat[-1] += 1
    return dataclasses.replace(dataset, splits=dataset.splits | {"test": dataclasses.replace(split, **{kind: array})})


def test_the_digest_is_of_pixels_labels_and_factors():
    pixels = RANDOM.integers(0, 255, (20, 3), np.uint8)
    split = Split(pixels, np.arange(20), np.arange(40.0).reshape(20, 2))
    dataset = Dataset({"train": split, "test": split.take(np.arange(7))}, ImageSpec((3,), 255, False), 0)
    same = Dataset({"train": split, "test": split.take(np.arange(7))}, ImageSpec((3,), 255, False), 0)
    assert same.digest == dataset.digest
    assert len(dataset.digest) == 64
    digests = {dataset.digest, *(changed(dataset, kind).digest for kind in ("pixels", "labels", "factors"))}
    assert len(digests) == 4
    reshaped = dataclasses.replace(split, pixels=pixels.reshape(20, 3, 1))
    assert dataclasses.replace(dataset, splits=dataset.splits | {"train": reshaped}).digest not in digests


def test_the_digest_tells_strings_apart():
    labels = np.array(["a", "b", "c", "d"])
    one, other = (
        Dataset({"train": Split(np.zeros((4, 3), np.uint8), names)}, ImageSpec((3,), 255, False), 0)
        for names in (labels, labels[::-1])
    )
    assert one.digest != other.digest


def rows(config) -> Loaded:
    """As many rows as a seed says."""
    return Loaded(Split(np.zeros((config.seed + 40, 6), np.uint8)), levels=255)


def test_a_data_set_of_ones_own(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setitem(DATASETS, "rows", Source(rows, ("path",)))
        dataset = load("rows", seed=10)
        assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 36, "test": 10, "valid": 4}
        assert readers("path").endswith("data.name=rows use it")
        assert source_of("rows").reads == ("path",)
    assert source_of("rows") is source_of("mnist")
    assert readers("dir") == "image sets of TFDS use it"
