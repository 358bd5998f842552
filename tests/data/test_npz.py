"""Arrays of one's own: what is understood, and what is said about files that hold something else."""

import pathlib
import pickle

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data.dataset import Factor, ImageSpec, load

RANDOM = np.random.default_rng(0)


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
    dataset = load("npz", path=npz(train=stored, test=stored[:10]), valid_fraction=0.25)
    assert dataset.spec == ImageSpec(shape, levels, dynamic=False)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 30, "valid": 10, "test": 10}
    # One rounding of the stored number, one of the quotient.
    np.testing.assert_allclose(dataset.images("test"), unit(stored[:10].astype(float)), rtol=2 * np.finfo(np.float32).eps)


@pytest.mark.parametrize(
    ("low", "high", "levels", "stored"),
    [(0, 1, 1, np.uint8), (0, 255, 255, np.uint8), (0, 3000, 4095, np.uint16), (0, 60_000, 65535, np.uint16),
     (-3, 200, 1, np.float32), (0, 70_000, 1, np.float32)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint32])
def test_npz_whole_numbers_of_any_width(npz, low, high, levels, stored, dtype):
    if low < 0 and dtype == np.uint32:
        return
    pixels = RANDOM.integers(low, high + 1, (20, 9)).astype(dtype)
    pixels[0, :2] = low, high
    dataset = load("npz", path=npz(train=pixels, test=pixels[::-1]), valid_fraction=0)
    assert dataset.splits["train"].pixels.dtype == stored
    assert dataset.spec.levels == levels
    # One rounding of the stored number, one of the quotient.
    np.testing.assert_allclose(dataset.images("train"), pixels / levels, rtol=2 * np.finfo(np.float32).eps)


def test_npz_without_a_test_split(npz, capsys):
    labels = np.arange(50) % 5
    path = npz(X=bytes_of(50, 4, 4), y=labels)
    dataset = load("npz", path=path, valid_fraction=0)
    assert capsys.readouterr().err == f"{path}: no test split; a fifth of the 50 images in X becomes it\n"
    np.testing.assert_array_equal(np.bincount(dataset.splits["test"].labels), [2] * 5)
    load("npz", path=npz(train=IMAGES, test=IMAGES), valid_fraction=0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("images", "labels", "test", "test_labels"),
    [
        ("x_train", "y_train", "x_test", "y_test"),
        ("X_train", "y_train", "X_test", "y_test"),
        ("train_images", "train_labels", "test_images", "test_labels"),
        ("images", "labels", None, None),
        ("X", "y", None, None),
        ("arr_0", None, None, None),
    ],
)
def test_npz_names_that_people_use(npz, images, labels, test, test_labels):
    pixels = bytes_of(40, 4, 4)
    arrays = {images: pixels, labels: np.arange(40)[:, None] % 4, test: pixels[:10], test_labels: np.arange(10) % 4}
    dataset = load("npz", path=npz(**{name: array for name, array in arrays.items() if name}), valid_fraction=0)
    assert dataset.spec.shape == (4, 4, 1)
    rows = {name: len(split) for name, split in dataset.splits.items()}
    assert rows == ({"train": 40, "test": 10} if test else {"train": 32, "test": 8})
    assert (dataset.splits["train"].labels is not None) == bool(labels)


def test_npz_the_name_train_counts_where_there_are_others(npz):
    dataset = load("npz", path=npz(train=IMAGES, x=bytes_of(7, 3), test=IMAGES), valid_fraction=0)
    np.testing.assert_array_equal(dataset.splits["train"].pixels[..., 0], IMAGES)


def test_npz_factors_and_their_names(npz):
    factors = np.stack([np.arange(20) % 3, np.linspace(0.5, 2, 20)], axis=1)
    arrays = {"train": IMAGES, "test": IMAGES, "train_factors": factors, "test_factors": factors[::-1]}
    path = npz(**arrays, factor_names=np.array(["shape", "hair"]), factor_categorical=np.array([True, False]))
    dataset = load("npz", path=path, valid_fraction=0)
    assert dataset.factors == (
        Factor("shape", 0.0, 2.0, levels=3, categorical=True), Factor("hair", 0.5, 2.0, levels=0, categorical=False)
    )  # fmt: skip
    np.testing.assert_array_equal(dataset.splits["test"].factors, factors[::-1].astype(np.float32))
    by_hair = load("npz", path=path, valid_fraction=0, label="hair")
    np.testing.assert_array_equal(by_hair.splits["train"].labels, np.arange(20) // 4)  # five parts of the range
    assert load("npz", path=npz(**arrays), valid_fraction=0).factor_names == ("factor_0", "factor_1")
    with pytest.raises(errors.UserError, match=r"data\.label=hair: factor 'hair': this data has no factors"):
        load("npz", path=npz(train=IMAGES, test=IMAGES), label="hair")


def test_npz_bits_in_one_split_and_bytes_in_the_other(npz):
    dataset = load("npz", path=npz(train=bytes_of(40, 9), test=bytes_of(10, 9, high=2)))
    assert dataset.spec.levels == 255


def test_npz_labels_and_factors_stay_with_their_rows(npz):
    number = np.arange(40)
    arrays = {
        "train": number[:, None].astype(np.uint8) * 5,
        "train_labels": number % 4,
        "train_factors": np.stack([number] * 3, 1),
    }
    path = npz(**arrays, test=bytes_of(6, 1), test_labels=np.arange(6))
    dataset = load("npz", path=path, valid_fraction=0.5)
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
    dataset = load("npz", path=npz(train=IMAGES, test=IMAGES, **labels), valid_fraction=0.0)
    for split in ("train", "test"):
        np.testing.assert_array_equal(dataset.splits[split].labels, labels[f"{split}_labels"])


def message_of(path, **settings) -> str:
    """What is said about a file: one line that names it."""
    with pytest.raises(errors.UserError) as caught:
        load("npz", path=str(path), **settings)
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
        ({"test": IMAGES, "mine": IMAGES}, "no array 'train', only test, mine"),
        ({"x_train": IMAGES, "images": IMAGES}, "has x_train and images; name the one that is meant train"),
        ({"x_train": IMAGES, "y_train": np.arange(20), "labels": np.arange(20)}, "has y_train and labels; name the one"),
        ({"train": IMAGES, "y_test": np.arange(20)}, "y_test has shape (20,) for 0 images"),
        (
            {"x_train": bytes_of(20, 3, 8, 9)},
            "x_train has shape (20, 3, 8, 9): channels come last here",
        ),
        ({"train": bytes_of(20, 1, 8, 8)}, "channels come last here; save images.transpose(0, 2, 3, 1) in its place"),
        ({"train": IMAGES, "test": IMAGES.astype(str)}, "test has dtype <U"),
        ({"train": IMAGES + 1j, "test": IMAGES}, "train has dtype complex128"),
        ({"train": with_nan(), "test": with_nan()}, "train is not finite in 2 values"),
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
        ({"train": IMAGES, "train_factors": np.full((20, 2), np.nan)}, "train_factors has dtype float64; should be finite"),
        ({"train": IMAGES, "train_factors": np.full((20, 2), "a")}, "train_factors has dtype <U1; should be finite numbers"),
        (
            {"train": IMAGES, "train_factors": np.ones((20, 2)), "factor_names": np.array(["hair"])},
            "factor_names hair: should be 2 names like hair",
        ),
        (
            {"train": IMAGES, "train_factors": np.ones((20, 2)), "factor_names": np.array(["hair", "hair"])},
            "factor_names hair, hair: should be 2 names like hair",
        ),
        (
            {"train": IMAGES, "train_factors": np.ones((20, 2)), "factor_categorical": np.array([1, 0])},
            "factor_categorical should be 2 bools",
        ),
        (
            {"train": IMAGES, "test": IMAGES, "train_factors": np.ones((20, 2)), "test_factors": np.ones((20, 3))},
            "train_factors and test_factors should have as many columns",
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
        errors.UserError, match=rf"data\.binarize={how} needs pixels in \[0, 1\]: {split} has \[-0.5, 2.25\]"
    ):
        load("npz", path=npz(**arrays), binarize=how, valid_fraction=0.0)


def test_npz_without_a_path():
    with pytest.raises(errors.UserError, match=r"data\.name=npz needs data\.path=FILE\.npz"):
        load("npz")


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
