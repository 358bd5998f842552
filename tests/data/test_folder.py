"""Folders of images: classes, splits, sizes, colours, and what is said of files that cannot be read."""

import itertools
import pathlib

import numpy as np
import pytest
from PIL import Image

from vae_jax.core import errors
from vae_jax.data import folder
from vae_jax.data.dataset import ImageSpec, load

RANDOM = np.random.default_rng(0)


def write(path: pathlib.Path, *shape: int, value: int | None = None) -> np.ndarray:
    """An image of these pixels, which are returned as [height, width, channels]."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = RANDOM.integers(0, 256, shape, np.uint8) if value is None else np.full(shape, value, np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels.reshape(*shape[:2], -1)


def read(root: pathlib.Path | str, **fields):
    return load("folder", path=str(root), valid_fraction=0, **fields)


def test_classes_are_sub_directories(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(folder, "BLOCK", 7)  # several processes, and a last block that is not full
    written = {
        (label, f"{number:02d}"): write(tmp_path / label / f"{number:02d}.png", 5, 6)
        for label in ("cat", "dog") for number in range(10)
    }  # fmt: skip
    dataset = read(tmp_path)
    assert dataset.spec == ImageSpec((5, 6, 1), 255, dynamic=False)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 16, "test": 4}
    np.testing.assert_array_equal(np.sort(dataset.splits["test"].labels), ["cat", "cat", "dog", "dog"])
    found = {
        (str(label), pixels.tobytes()) for split in dataset.splits.values()
        for label, pixels in zip(split.labels, split.pixels, strict=True)
    }  # fmt: skip
    assert found == {(label, pixels.tobytes()) for (label, _), pixels in written.items()}
    said = capsys.readouterr().err
    assert said.startswith(f"{tmp_path}: 20 images and there is no test split; a fifth of them becomes it\n")
    assert "reading images: 20 images in " in said


def test_train_and_test_are_splits(tmp_path, capsys):
    for split, count in (("train", 6), ("test", 3)):
        for number in range(count):
            write(tmp_path / split / "one" / f"{number}.png", 4, 4, 3)
    dataset = read(tmp_path)
    assert {name: split.pixels.shape for name, split in dataset.splits.items()} == {
        "train": (6, 4, 4, 3), "test": (3, 4, 4, 3)
    }  # fmt: skip
    assert list(dataset.splits["test"].labels) == ["one"] * 3
    assert capsys.readouterr().err == ""


def test_the_first_test_images_are_of_several_classes(tmp_path):
    for split, label, number in itertools.product(("train", "test"), "abc", range(8)):
        write(tmp_path / split / label / f"{number}.png", 4, 4, value=100 * "abc".index(label) + number)
    for resident in ("true", "false"):
        test = read(tmp_path, resident=resident).splits["test"]
        assert set(test.labels[:8]) == {"a", "b", "c"}
        pixels = np.asarray(test.pixels[np.arange(24)])
        assert [("abc".index(label) * 100 <= p.mean() < "abc".index(label) * 100 + 8) for label, p in zip(
            test.labels, pixels, strict=True)] == [True] * 24  # fmt: skip


def test_no_classes_and_names_in_order(tmp_path):
    for number in range(5):
        write(tmp_path / f"{number}.JPG", 8, 8, value=50 * number)
    write(tmp_path / ".hidden" / "0.png", 9, 9)
    (tmp_path / "notes.txt").write_text("not an image")
    dataset = read(tmp_path)
    assert dataset.splits["train"].labels is None
    means = [round(float(pixels.mean())) for pixels in dataset.splits["train"].pixels]
    assert means == sorted(means)
    assert dataset.splits["train"].pixels.shape == (4, 8, 8, 1)


def test_the_middle_is_cropped_and_resized(tmp_path):
    for number in range(3):
        pixels = np.zeros((20, 30, 3), np.uint8)
        pixels[:, 5:25] = (10, 20, 30)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    write(tmp_path / "tall.png", 40, 10, 3, value=70)
    dataset = read(tmp_path, size=16)
    rows = np.concatenate([split.pixels for split in dataset.splits.values()])
    assert rows.shape == (4, 16, 16, 3)
    assert {tuple(row[0, 0]) for row in rows} == {(10, 20, 30), (70, 70, 70)}
    assert all(np.all(row == row[:1, :1]) for row in rows)


def test_a_sum_of_all_pixels_is_kept_when_images_shrink(tmp_path):
    """Resizing averages; it does not pick pixels."""
    for number in range(3):
        checks = np.indices((64, 64)).sum(axis=0) % 2 * 255
        Image.fromarray(checks.astype(np.uint8)).save(tmp_path / f"{number}.png")
    pixels = read(tmp_path, size=8).splits["train"].pixels
    assert np.abs(pixels.astype(int) - 127).max() <= 2


@pytest.mark.parametrize(("channels", "found"), [(0, 3), (1, 1), (3, 3)])
def test_colour_where_any_file_has_it(tmp_path, channels, found):
    for number in range(4):
        write(tmp_path / f"{number}.png", 4, 4)
    write(tmp_path / "colour.png", 4, 4, 3)
    assert read(tmp_path, channels=channels).spec.shape == (4, 4, found)


def test_sixteen_bits_become_eight(tmp_path):
    for number in range(3):
        Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / f"{number}.png")
    assert np.all(read(tmp_path).splits["train"].pixels == 40_000 >> 8)


def refusal(root: pathlib.Path | str, **fields) -> str:
    with pytest.raises(errors.UserError) as caught:
        read(root, **fields)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_cannot_be_read(tmp_path):
    assert refusal("") == "data.name=folder needs data.path=DIRECTORY"
    assert refusal(tmp_path / "none") == f"data.path={tmp_path / 'none'}: no such directory"
    assert f"no image in {tmp_path}; should end in .png, .jpg, .jpeg" in refusal(tmp_path)
    for number in range(4):
        write(tmp_path / f"{number}.png", 6, 6)
    write(tmp_path / "wide.png", 6, 9)
    assert "images of 2 sizes (0.png 6x6, wide.png 9x6); give data.size to crop and resize them" in refusal(tmp_path)
    write(tmp_path / "cat" / "0.png", 6, 6)
    assert "has images both in" in refusal(tmp_path, size=8)
    (tmp_path / "cat" / "0.png").unlink()
    assert "data.channels=2: should be 1 (grey) or 3" in refusal(tmp_path, channels=2)
    (tmp_path / "5.png").write_bytes(b"not a png")
    assert f"{tmp_path / '5.png'} is no readable image (UnidentifiedImageError)" in refusal(tmp_path, size=8)


def test_a_truncated_image(tmp_path):
    """Its header is whole."""
    for number in range(4):
        write(tmp_path / f"{number}.png", 64, 64)
    whole = (tmp_path / "2.png").read_bytes()
    (tmp_path / "2.png").write_bytes(whole[: len(whole) // 2])
    assert f"an image cannot be read: {tmp_path / '2.png'} (OSError)" in refusal(tmp_path)


def test_images_that_do_not_fit(tmp_path, monkeypatch):
    write(tmp_path / "0.png", 64, 64)
    monkeypatch.setattr(folder.memory, "free", lambda: 4000)
    assert "1 images of shape (64, 64, 1) take 4.1 kB, and 4 kB are free" in refusal(tmp_path)
