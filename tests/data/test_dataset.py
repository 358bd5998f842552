"""Data sets: sizes, fixed splits, bits, exact batches, and what is said about files that cannot be read."""

import os
import pathlib
import pickle
import shutil
import socket
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random

from vae_jax.core import errors
from vae_jax.data import dataset as data

RANDOM = np.random.default_rng(0)


def rows_of(dataset: data.Dataset) -> list[bytes]:
    return [row.tobytes() for split in dataset.splits.values() for row in split.pixels]


def test_digits():
    from sklearn.datasets import load_digits

    dataset = data.load("digits")
    assert dataset.spec == data.ImageSpec((8, 8, 1), 16, dynamic=False)
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


@pytest.mark.parametrize("fraction", [0.03, 0.1, 0.5, 0.9])
def test_each_class_has_its_share_of_the_validation_split(fraction):
    whole, held = data.load("digits", valid_fraction=0.0), data.load("digits", valid_fraction=fraction)
    for label in range(10):
        there = np.sum(whole.splits["train"].labels == label)
        assert abs(np.sum(held.splits["valid"].labels == label) - fraction * there) < 1
    assert sorted(rows_of(whole)) == sorted(rows_of(held))


def test_each_class_has_its_share_of_the_test_split():
    dataset = data.load("digits", valid_fraction=0.0)
    assert set(dataset.splits) == {"train", "test"}
    for label in range(10):
        train, test = (np.sum(dataset.splits[split].labels == label) for split in ("train", "test"))
        assert abs(test - 0.2 * (train + test)) < 1


def test_the_seed_moves_no_split():
    one, other = data.load("digits", seed=0), data.load("digits", seed=5)
    assert rows_of(one) == rows_of(other)


def test_a_fraction_may_be_a_whole_number():
    assert set(data.load("digits", valid_fraction=0).splits) == {"train", "test"}


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_a_fraction_is_below_one(fraction):
    with pytest.raises(errors.UserError, match=r"data\.valid_fraction="):
        data.load("digits", valid_fraction=fraction)


def test_a_fraction_that_leaves_nothing(npz):
    path = npz(train=IMAGES, test=IMAGES)
    with pytest.raises(errors.UserError, match=r"^data\.valid_fraction=0\.99: leaves no training image of 20; should be"):
        data.load("npz", path=path, valid_fraction=0.99)
    assert len(data.load("npz", path=path, valid_fraction=0.95).splits["train"]) == 1


def test_threshold():
    grey, bits = data.load("digits"), data.load("digits", binarize="threshold")
    np.testing.assert_array_equal(bits.images("test"), grey.images("test") >= 0.5)
    assert not bits.spec.dynamic


@pytest.mark.parametrize("how", ["static", "dynamic"])
@pytest.mark.parametrize("split", data.SPLITS)
def test_bits_of_evaluation_stay_the_same(how, split):
    grey = data.load("digits").images(split)
    first, again, other = (data.load("digits", binarize=how, seed=seed).images(split) for seed in (0, 0, 1))
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
    dataset = data.load("digits", binarize="static")
    assert not dataset.spec.dynamic
    assert set(np.unique(dataset.splits["train"].pixels)) == {0, 16}
    prepared = data.prepare(jnp.asarray(dataset.splits["train"].pixels[:5]), dataset.spec, random.key(0))
    np.testing.assert_array_equal(prepared, dataset.images("train")[:5])


def test_dynamic_bits_are_fresh_for_each_key():
    dataset = data.load("digits", binarize="dynamic")
    pixels = dataset.splits["train"].pixels
    assert len(np.unique(pixels)) == 17  # the grey levels are kept
    draws = np.stack([data.prepare(jnp.asarray(pixels[:100]), dataset.spec, random.key(seed)) for seed in range(200)])
    assert set(np.unique(draws)) == {0, 1}
    np.testing.assert_array_equal(draws[0], data.prepare(jnp.asarray(pixels[:100]), dataset.spec, random.key(0)))
    grey = data.to_unit(pixels[:100], 16)
    # 6,400 pixels, each the mean of 200 bits: the worst of so many normal deviates stays within 5.5 standard errors.
    error = np.sqrt(grey * (1 - grey) / len(draws))
    assert np.all(np.abs(draws.mean(axis=0) - grey) <= 5.5 * error)


def test_grey_pixels_are_prepared_without_a_draw():
    spec = data.ImageSpec((2,), 255, dynamic=False)
    prepared = jax.jit(lambda pixels: data.prepare(pixels, spec, random.key(0)))(np.array([[0, 51], [255, 1]], np.uint8))
    assert prepared.dtype == np.float32
    # XLA multiplies by 1 / 255: two roundings.
    np.testing.assert_allclose(prepared, np.array([[0, 51], [255, 1]]) / 255, rtol=2 * np.finfo(np.float32).eps)


def of_vectors(pixels) -> data.Dataset:
    splits = {"train": data.Split(np.asarray(pixels)), "test": data.Split(np.full((2, 3), 7, np.uint8))}
    return data.Dataset(splits, data.ImageSpec((3,), 255, dynamic=False), 0)


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


@pytest.mark.parametrize(("count", "size"), [(10, 4), (8, 4), (3, 4), (1, 1), (5, 100)])
def test_batches_pad_with_zeros_and_mask_them(count, size):
    images = RANDOM.random((count, 2, 3)).astype(np.float32) + 1
    batched, mask = data.batches(images, size)
    assert batched.shape == (-(-count // size), size, 2, 3)
    assert mask.shape == batched.shape[:2]
    assert mask.sum() == count
    assert batched.dtype == images.dtype
    np.testing.assert_array_equal(batched[mask], images)
    np.testing.assert_array_equal(batched[~mask], 0)


def test_an_unknown_way_to_binarize():
    with pytest.raises(errors.UserError, match=r"data\.binarize='coin': should be one of none, threshold, static, dynamic"):
        data.load("digits", binarize="coin")


@pytest.fixture
def npz(tmp_path):
    def write(**arrays) -> str:
        path = tmp_path / "mine.npz"
        np.savez(path, **arrays)
        return str(path)

    return write


def bytes_of(*shape: int, high: int = 256) -> np.ndarray:
    return RANDOM.integers(0, high, shape, np.uint8)


FLOATS = RANDOM.normal(size=(40, 5))


@pytest.mark.parametrize(
    ("stored", "shape", "levels", "unit"),
    [
        (bytes_of(40, 6, 7, 3), (6, 7, 3), 255, lambda a: a / 255),
        (bytes_of(40, 6, 7), (6, 7, 1), 255, lambda a: a[..., None] / 255),
        (bytes_of(40, 9), (9,), 255, lambda a: a / 255),
        (bytes_of(40, 9, high=2), (9,), 1, lambda a: a),  # bytes that are bits
        (bytes_of(40, 9, high=2).astype(bool), (9,), 1, lambda a: a),
        (FLOATS, (5,), 1, lambda a: a),
        (FLOATS.astype(np.float32), (5,), 1, lambda a: a),
        (FLOATS.astype(np.float16), (5,), 1, lambda a: a),
    ],
    ids=["colour", "grey", "vectors", "bits", "bool", "float64", "float32", "float16"],
)
def test_npz_pixels(npz, stored, shape, levels, unit):
    dataset = data.load("npz", path=npz(train=stored, test=stored[:10]), valid_fraction=0.25)
    assert dataset.spec == data.ImageSpec(shape, levels, dynamic=False)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 30, "valid": 10, "test": 10}
    # One rounding of the stored number, one of the quotient.
    np.testing.assert_allclose(dataset.images("test"), unit(stored[:10].astype(float)), rtol=2 * np.finfo(np.float32).eps)


def test_npz_bits_in_one_split_and_bytes_in_the_other(npz):
    dataset = data.load("npz", path=npz(train=bytes_of(40, 9), test=bytes_of(10, 9, high=2)))
    assert dataset.spec.levels == 255


def test_npz_labels_and_factors_stay_with_their_rows(npz):
    number = np.arange(40)
    arrays = {
        "train": number[:, None].astype(np.uint8) * 5,
        "train_labels": number % 4,
        "train_factors": np.stack([number] * 3, 1),
    }
    path = npz(**arrays, test=bytes_of(6, 1), test_labels=np.arange(6))
    dataset = data.load("npz", path=path, valid_fraction=0.5)
    assert len(dataset.splits["valid"]) == 20
    for name in ("train", "valid"):
        split = dataset.splits[name]
        row = split.pixels[:, 0] // 5
        np.testing.assert_array_equal(split.labels, row % 4)
        np.testing.assert_array_equal(split.factors, np.stack([row] * 3, 1))
    np.testing.assert_array_equal(dataset.splits["test"].labels, np.arange(6))
    assert dataset.splits["test"].factors is None


@pytest.mark.parametrize("kinds", [(np.uint8, np.int64), (bool, bool), (str, "<U3")])
def test_npz_labels_of_one_kind(npz, kinds):
    labels = {
        f"{split}_labels": (np.arange(20) % 2).astype(kind) for split, kind in zip(("train", "test"), kinds, strict=True)
    }
    dataset = data.load("npz", path=npz(train=IMAGES, test=IMAGES, **labels), valid_fraction=0.0)
    for split in ("train", "test"):
        np.testing.assert_array_equal(dataset.splits[split].labels, labels[f"{split}_labels"])


def message_of(path, **settings) -> str:
    """What is said about a file: one line that names it."""
    with pytest.raises(errors.UserError) as caught:
        data.load("npz", path=str(path), **settings)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path) in message
    return message


IMAGES = bytes_of(20, 4, 4)


def with_nan() -> np.ndarray:
    array = RANDOM.random((20, 4))
    array[3, 2], array[5, 0] = np.nan, np.inf
    return array


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"train": IMAGES}, "no array 'test', only train"),
        ({"images": IMAGES, "test": IMAGES}, "no array 'train', only images, test"),
        ({"train": IMAGES.astype(int), "test": IMAGES}, "train has dtype int64; should be uint8 or float"),
        ({"train": IMAGES, "test": IMAGES.astype(str)}, "test has dtype <U"),
        ({"train": IMAGES + 1j, "test": IMAGES}, "train has dtype complex128"),
        ({"train": with_nan(), "test": with_nan()}, "train has 2 values that are not finite"),
        ({"train": IMAGES, "test": bytes_of(20, 4, 5)}, "train and test should differ in length only"),
        ({"train": IMAGES, "test": IMAGES / 255}, "train and test should differ in length only"),
        ({"train": IMAGES[:0], "test": IMAGES}, "train has shape (0, 4, 4)"),
        ({"train": IMAGES[:, 0, 0], "test": IMAGES}, "train has shape (20,)"),
        ({"train": np.uint8(3), "test": IMAGES}, "train has shape ()"),
        ({"train": IMAGES, "test": IMAGES, "train_labels": np.arange(19)}, "train_labels has shape (19,) for 20 images"),
        ({"train": IMAGES, "test": IMAGES, "test_labels": np.int64(1)}, "test_labels has shape () for 20 images"),
        ({"train": IMAGES, "test": IMAGES, "train_labels": np.eye(20)}, "train_labels has shape (20, 20) for 20 images"),
        (
            {"train": IMAGES, "test": IMAGES, "test_factors": np.ones((21, 2))},
            "test_factors has shape (21, 2) for 20 images",
        ),
        (
            {"train": IMAGES, "test": IMAGES, "test_labels": np.arange(20) / 2},
            "test_labels has dtype float64; should be integer, bool or string",
        ),
        ({"train": IMAGES, "test": IMAGES, "train_labels": np.full(20, b"a")}, "train_labels has dtype |S1"),
        (
            {"train": IMAGES, "test": IMAGES, "train_labels": np.arange(20), "test_labels": np.full(20, "a")},
            "train_labels int64 and test_labels <U1; should be of the same kind",
        ),
    ],
)
def test_npz_that_holds_something_else(npz, arrays, said):
    assert said in message_of(npz(**arrays))


@pytest.mark.parametrize("how", ["threshold", "static", "dynamic"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_only_probabilities_are_binarized(npz, how, split):
    arrays = {"train": RANDOM.random((20, 4)), "test": RANDOM.random((20, 4))}
    arrays[split][0] = [-0.5, 0, 1, 2.25]
    with pytest.raises(
        errors.UserError, match=rf"data\.binarize='{how}' needs pixels in \[0, 1\]: {split} has \[-0.5, 2.25\]"
    ):
        data.load("npz", path=npz(**arrays), binarize=how, valid_fraction=0.0)


def test_npz_without_a_path():
    with pytest.raises(errors.UserError, match=r"data\.name=npz needs data\.path=FILE\.npz"):
        data.load("npz")


def test_npz_that_is_not_there(tmp_path):
    assert "no such file" in message_of(tmp_path / "none.npz")
    assert "no such file" in message_of(tmp_path)  # a directory


def test_a_bare_array(tmp_path):
    path = tmp_path / "mine.npz"
    with path.open("wb") as file:
        np.save(file, IMAGES)
    assert "one bare array" in message_of(path)


class Trap:
    """Something whose unpickling leaves a trace."""

    def __init__(self, trace: pathlib.Path):
        self.trace = trace

    def __reduce__(self):
        return (pathlib.Path.touch, (self.trace,))


@pytest.mark.parametrize("name", ["train", "test_labels"])
def test_nothing_is_unpickled(npz, tmp_path, name):
    trap = np.full(20, Trap(tmp_path / "trace"), object)
    assert "without pickled objects" in message_of(npz(**{"train": IMAGES, "test": IMAGES} | {name: trap}))
    whole = tmp_path / "whole.npz"
    whole.write_bytes(pickle.dumps(Trap(tmp_path / "trace")))
    assert "without pickled objects" in message_of(whole)
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("kept", [0.0, 0.001, 0.3, 0.6, 0.99])
def test_a_truncated_file(npz, kept):
    path = pathlib.Path(npz(train=IMAGES, test=IMAGES))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole))])
    assert "not a readable .npz" in message_of(path)


def test_a_damaged_file(tmp_path):
    """Any flipped byte of the compressed pixels is either seen by the archive's checksum or breaks the decoder."""
    path = tmp_path / "mine.npz"
    np.savez_compressed(path, train=bytes_of(200, 8, 8, high=3), test=IMAGES[:, :1])
    whole = path.read_bytes()
    for position in range(200, whole.index(b"test.npy") - 40, 97):
        damaged = bytearray(whole)
        damaged[position] ^= 0xFF
        path.write_bytes(damaged)
        assert "not a readable .npz" in message_of(path)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def prepared(root: pathlib.Path, name: str) -> None:
    (root / name / "1.0.0").mkdir(parents=True)
    (root / name / "1.0.0" / "dataset_info.json").write_text("{}")


def test_an_unknown_name(tmp_path, no_network):
    prepared(tmp_path, "mine")
    with pytest.raises(errors.UserError) as caught:
        data.load("mnits", dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "data.name='mnits' is not known (did you mean mnist" in message
    assert "known are digits, npz, and the image sets of TFDS" in message
    assert message.endswith(f"prepared in {tmp_path}: mine")


@pytest.mark.parametrize("name", ["", "*", "**", "..", ".", "/", "/etc", "mine/", "m*ne", "../mine", "two\nlines"])
def test_a_name_is_no_path_or_pattern(tmp_path, name):
    prepared(tmp_path / "root", "mine")
    prepared(tmp_path, "outside")
    with pytest.raises(errors.UserError, match="is not known") as caught:
        data.load(name, dir=str(tmp_path / "root"))
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_unasked(tmp_path, no_network):
    start = time.monotonic()
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path}; nothing is downloaded unasked"):
        data.load("cifar10", dir=str(tmp_path))
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_tfds_data_dir_is_the_default(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "set"))
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path / 'set'};"):
        data.load("cifar10")


def test_downloading_needs_tensorflow(tmp_path, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # missing also where it is installed
    with pytest.raises(errors.UserError, match="prepares cifar10 with tensorflow, which is missing: pip install tensorflow"):
        data.load("cifar10", dir=str(tmp_path), download=True)
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def mnist() -> pathlib.Path:
    directory = pathlib.Path(os.environ.get("TFDS_DATA_DIR", ""), "mnist")
    if not directory.is_dir():
        pytest.skip("needs a prepared mnist in $TFDS_DATA_DIR")
    return directory


def damaged_shard(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


DAMAGES = {  # what is damaged, how, and what is said
    "a flipped bit": ("*test*", damaged_shard, "RuntimeError: Corrupted"),
    "half a shard": ("*test*", lambda path: os.truncate(path, path.stat().st_size // 2), "RuntimeError: "),
    "no shard": ("*test*", pathlib.Path.unlink, "RuntimeError: open"),
    "no features": ("features.json", pathlib.Path.unlink, "FileNotFoundError: "),
    "half the features": ("features.json", lambda path: os.truncate(path, 100), "JSONDecodeError: "),
    "half the description": ("dataset_info.json", lambda path: os.truncate(path, 100), "ParseError: "),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_set(mnist, tmp_path, damage):
    pattern, do, said = DAMAGES[damage]
    shutil.copytree(mnist, tmp_path / "mnist", ignore=shutil.ignore_patterns("*train*"))
    for shard in mnist.rglob("*train*"):  # which is not touched
        (tmp_path / "mnist" / shard.relative_to(mnist)).symlink_to(shard.resolve())
    (path,) = tmp_path.rglob(pattern)
    do(path)
    with pytest.raises(errors.UserError, match=f"^mnist in {tmp_path} cannot be read \\({said}") as caught:
        data.load("mnist", dir=str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("key", ["pythonClassName", "python_class_name", "python\\u0043lassName"])
def test_features_that_name_code_of_ours(tmp_path, monkeypatch, key):
    """TFDS would import the module, and the working directory is on the path of `python -m`."""
    prepared(tmp_path, "mnist")
    (tmp_path / "trap.py").write_text("import pathlib; pathlib.Path('sprung').touch()")
    features = f'{{"featuresDict": {{"features": {{"image": {{"{key}": "trap.Image"}}}}}}}}'
    (tmp_path / "mnist" / "1.0.0" / "features.json").write_text(features)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.UserError, match=r"features\.json: names 'trap\.Image', which is no feature of TFDS"):
        data.load("mnist", dir=str(tmp_path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("mnist")
def test_mnist():
    dataset = data.load("mnist", valid_fraction=0.0)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 60_000, "test": 10_000}
    train = dataset.splits["train"]
    assert dataset.spec == data.ImageSpec((28, 28, 1), 255, dynamic=False)
    assert train.pixels.dtype == np.uint8
    # The published mean of the training pixels is 0.1307, to four digits.
    assert abs(train.pixels.mean() / 255 - 0.1307) < 1e-4
    np.testing.assert_array_equal(np.bincount(train.labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
