"""Pixels that stay on the disk are those that would be in memory, and what is wrong with a file is said in one line."""

import os
import pathlib
import re
import time

import numpy as np
import pytest
from PIL import Image

from vae_jax.core import errors
from vae_jax.data import binarize, dataset, stored
from vae_jax.data.dataset import DATASETS, Loaded, Source, Split, load
from vae_jax.system import memory

RANDOM = np.random.default_rng(0)
BYTES = RANDOM.integers(0, 256, (50, 4, 3, 1), np.uint8)
FLOATS = RANDOM.normal(size=(50, 7)).astype(np.float32)


def npy(path: pathlib.Path, array: np.ndarray) -> str:
    np.save(path, array)
    return str(path)


def both(name: str, **fields):
    """The data set in memory and on the disk."""
    resident, streamed = (load(name, resident=how, **fields) for how in ("true", "false"))
    assert (resident.is_streamed, streamed.is_streamed) == (False, True)
    return resident, streamed


def assert_same(resident, streamed) -> None:
    assert (resident.spec, resident.digest) == (streamed.spec, streamed.digest_like(resident.digest))
    assert resident.digest_like(streamed.digest) == streamed.digest
    assert list(resident.splits) == list(streamed.splits)
    for name, split in resident.splits.items():
        ours, theirs = split.pixels, streamed.splits[name].pixels
        assert (ours.shape, ours.dtype, ours.nbytes) == (theirs.shape, theirs.dtype, theirs.nbytes)
        np.testing.assert_array_equal(ours, theirs[:])
        rows = RANDOM.integers(0, len(ours), 20)
        np.testing.assert_array_equal(ours[rows], theirs[rows])
        np.testing.assert_array_equal(resident.images(name), streamed.images(name))
        np.testing.assert_array_equal(resident.chosen(name, rows), streamed.chosen(name, rows))
        low, high = streamed.extent[name]
        assert low <= resident.extent[name][0] <= resident.extent[name][1] <= high
    np.testing.assert_array_equal(resident.sample(9), streamed.sample(9))
    for normalize in ("none", "center", "standardize"):
        ours, theirs = resident.statistics(normalize), streamed.statistics(normalize)
        assert list(ours) == list(theirs)
        for key in ours:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-6)


@pytest.mark.parametrize(
    "array",
    [BYTES, BYTES[..., 0], BYTES // 128, BYTES.astype(np.int64), BYTES.astype(">i2") * 16, FLOATS, FLOATS.astype(">f8"),
     FLOATS > 0],
    ids=["bytes", "without channels", "bits", "int64", "12 bits", "float32", "float64", "bool"],
)  # fmt: skip
def test_npy(tmp_path, array):
    resident, streamed = both("npy", path=npy(tmp_path / "mine.npy", array))
    assert_same(resident, streamed)
    assert {name: len(split) for name, split in streamed.splits.items()} == {"train": 36, "test": 10, "valid": 4}


def test_npy_with_a_test_file(tmp_path, capsys):
    path, test_path = npy(tmp_path / "mine.npy", BYTES[:40]), npy(tmp_path / "test.npy", BYTES[40:])
    resident, streamed = both("npy", path=path, test_path=test_path, valid_fraction=0)
    assert_same(resident, streamed)
    np.testing.assert_array_equal(streamed.splits["test"].pixels[:], BYTES[40:])
    assert "no test split" not in capsys.readouterr().err


def test_an_npy_in_fortrans_order_is_read_whole(tmp_path):
    path = npy(tmp_path / "mine.npy", np.asfortranarray(BYTES))
    assert_same(load("npy", path=path), both("npy", path=npy(tmp_path / "c.npy", BYTES))[1])
    with pytest.raises(errors.UserError, match=r"is in Fortran's order; with data.resident=false it should be saved in C"):
        load("npy", path=path, resident="false")


def test_npz(npz):
    path = npz(train=BYTES[:40], test=BYTES[40:], train_labels=np.arange(40) % 3, test_labels=np.arange(10) % 3)
    resident, streamed = both("npz", path=path)
    assert_same(resident, streamed)
    np.testing.assert_array_equal(resident.splits["valid"].labels, streamed.splits["valid"].labels)


def test_a_compressed_npz_is_read_whole(tmp_path):
    np.savez_compressed(tmp_path / "mine.npz", train=BYTES)
    with pytest.raises(errors.UserError, match=r"train is compressed, or in Fortran's order; with data\.resident"):
        load("npz", path=str(tmp_path / "mine.npz"), resident="false")
    assert not load("npz", path=str(tmp_path / "mine.npz"), resident="auto").is_streamed


@pytest.fixture
def folder(tmp_path) -> pathlib.Path:
    for number, pixels in enumerate(RANDOM.integers(0, 256, (20, 6, 5, 3), np.uint8)):
        path = tmp_path / "images" / "ab"[number % 2] / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "images"


@pytest.mark.parametrize("fields", [{}, {"size": 4, "channels": 1}], ids=["as they are", "resized"])
def test_folder(folder, fields):
    assert_same(*both("folder", path=str(folder), **fields))


@pytest.mark.parametrize("how", ["threshold", "dynamic"])
def test_bits(tmp_path, monkeypatch, how):
    """Also those of evaluation, which are drawn block by block."""
    monkeypatch.setattr(binarize, "BLOCK", 7)
    monkeypatch.setattr(dataset, "BLOCK", 7)
    assert_same(*both("npy", path=npy(tmp_path / "mine.npy", BYTES), binarize=how, seed=3))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"binarize": "static"}, "data.binarize=static with data.resident=false: needs all pixels in memory"),
        ({"order": "run"}, "data.order=run with data.resident=false: runs that are trained on data from the disk have one"),
        ({"resident": "maybe"}, "data.resident=maybe: should be one of auto, true, false"),
    ],
)
@pytest.mark.parametrize("name", ["digits", "npy"])
def test_what_does_not_go_together(tmp_path, name, fields, message):
    path = {"path": npy(tmp_path / "mine.npy", BYTES)} if name == "npy" else {}
    with pytest.raises(errors.UserError, match=message):
        load(name, **{"resident": "false"} | path | fields)


def test_whitening_needs_all_pixels():
    with pytest.raises(errors.UserError, match=r"model\.normalize=whiten: needs all pixels in memory"):
        load("digits", resident="false").statistics("whiten")


def test_what_does_not_fit_stays_on_the_disk(tmp_path, monkeypatch):
    """Also by its size: twice the data, on the host and on each of eight devices."""
    path = npy(tmp_path / "mine.npy", BYTES)
    asked = []
    monkeypatch.setattr(memory, "fits", lambda size: asked.append(size) or False)
    assert load("npy", path=path).is_streamed
    assert not load("npy", path=path, binarize="static").is_streamed
    assert not load("npy", path=path, order="run").is_streamed
    assert not load("digits").is_streamed  # which has no file to stay in
    assert asked == [BYTES.nbytes]


def test_an_order_for_all_runs_is_of_the_data():
    assert not load("digits").has_one_order
    assert load("digits", order="shared").has_one_order
    assert load("digits", resident="false").has_one_order


def test_some_images_of_each_split_are_evaluated(monkeypatch):
    whole = load("digits")
    assert whole.evaluated(0) is whole
    assert whole.evaluated(5000) is whole
    fewer = whole.evaluated(200)
    assert {name: len(split) for name, split in fewer.splits.items()} == {"train": 200, "test": 200, "valid": 143}
    test, kept = whole.splits["test"], fewer.splits["test"]
    np.testing.assert_array_equal(kept.pixels[[0, -1]], test.pixels[[0, -1]])
    np.testing.assert_array_equal(kept.labels, test.labels[np.linspace(0, 358, 200).astype(int)])
    monkeypatch.setattr(dataset, "EVALUATED", 100)
    assert len(load("digits", resident="false").evaluated(0).splits["test"]) == 100
    assert len(load("digits", resident="false").evaluated(10**9).splits["test"]) == 359


def test_another_digest_where_some_row_that_is_looked_at_differs(tmp_path):
    path = tmp_path / "mine.npy"
    before = load("npy", path=npy(path, BYTES), resident="false").digest
    changed = BYTES.copy()
    changed[0] += 1
    assert load("npy", path=npy(path, changed), resident="false").digest != before
    assert load("npy", path=npy(path, BYTES[:49]), resident="false").digest != before


# What goes wrong


def test_a_file_that_is_cut_short(tmp_path):
    path = npy(tmp_path / "mine.npy", BYTES)
    streamed = load("npy", path=path, resident="false", valid_fraction=0)
    os.truncate(path, os.path.getsize(path) - 20 * 12)
    assert len(streamed.splits["train"].pixels[:10]) == 10  # what is there is read
    with pytest.raises(errors.UserError, match=f"^{path}: ends before image 30, or in it; it was cut short$"):
        streamed.splits["train"].pixels[:]
    with pytest.raises(errors.UserError, match=f"^{path}: has [\\d,]+ bytes where its header says [\\d,]+; it was cut"):
        load("npy", path=path, resident="false")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a readable .npy without pickled objects"),
        (b"PK\x03\x04" + bytes(100), "not a readable .npy without pickled objects"),
        (np.array([{}]), "not a readable .npy without pickled objects"),
        (np.zeros((5, 2), complex), "has dtype complex128; should be whole numbers or float"),
        (np.zeros(5), "has shape (5,); should be [N, D], [N, height, width] or with channels"),
        (np.full((9, 2), np.nan), "is not finite in 18 values"),
    ],
    ids=["missing", "empty", "an archive", "objects", "complex", "one axis", "not finite"],
)
@pytest.mark.parametrize("how", ["true", "false"])
def test_an_npy_of_something_else(tmp_path, how, content, message):
    path = tmp_path / "mine.npy"
    if isinstance(content, np.ndarray):
        np.save(path, content, allow_pickle=True)
    elif content is not None:
        path.write_bytes(content)
    with pytest.raises(errors.UserError, match=re.escape(message)) as caught:
        load("npy", path=str(path), resident=how)
    assert str(path) in str(caught.value)


def test_an_image_that_is_replaced(folder):
    streamed = load("folder", path=str(folder), resident="false")
    bad = folder / "a" / "06.png"
    bad.write_bytes(b"garbage")
    with pytest.raises(errors.UserError, match=f"^data.path={folder}: {bad} cannot be read \\(UnidentifiedImageError\\)$"):
        for split in streamed.splits.values():
            split.pixels[:]


class Sleepy:
    """Rows that take a while; the third never comes."""

    path, shape, dtype, decodes = "disk/0", (2,), np.dtype(np.uint8), False

    def __len__(self) -> int:
        return 8

    def read(self, rows, told):
        for row in rows:
            told(f"disk/{row}")
            time.sleep(60 if row == 3 else 0.05)
        return np.zeros((len(rows), 2), np.uint8)


def test_a_read_that_stalls_is_said_and_given_up(monkeypatch, capsys):
    """With its path; many short waits one after another are none."""
    monkeypatch.setattr(stored, "SLOW", 0.2)
    monkeypatch.setattr(stored, "LIMIT", 0.6)
    pixels = stored.Stored(Sleepy(), np.arange(8), (0.0, 255.0), np.dtype(np.uint8))
    assert len(pixels[np.repeat([0, 1], 8)]) == 16
    assert capsys.readouterr().err == ""
    start = time.monotonic()
    with pytest.raises(errors.UserError, match=r"^reading disk/3 has taken \d s and is given up; what was saved is kept"):
        pixels[:]
    assert time.monotonic() - start < 5
    assert capsys.readouterr().err == "reading disk/3 has taken 0 s\n"


def test_a_source_of_ones_own_may_leave_pixels_where_they_are():
    origin = stored.ArrayInMemory(BYTES)
    DATASETS["mine"] = Source(lambda config: Loaded(Split(stored.of_bytes(origin, "mine")), levels=255))
    try:
        assert_same(load_of(BYTES), load("mine"))
    finally:
        del DATASETS["mine"]


def load_of(pixels: np.ndarray):
    DATASETS["in_memory"] = Source(lambda config: Loaded(Split(pixels), levels=255))
    try:
        return load("in_memory")
    finally:
        del DATASETS["in_memory"]
