"""Image sets of TFDS: what is read, what is refused, and that nothing is downloaded or imported unasked."""

import os
import pathlib
import shutil
import socket
import sys
import time

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.data.dataset import ImageSpec, load


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
        load("mnits", dir=str(tmp_path))
    message = str(caught.value)
    assert "\n" not in message
    assert "data.name='mnits' is not known (did you mean mnist" in message
    assert "known are digits, npz, and the image sets of TFDS" in message
    assert message.endswith(f"prepared in {tmp_path}: mine")


@pytest.mark.parametrize("name", ["", "*", "**", "..", ".", "/", "/etc", "mine/", "m*ne", "../mine", "two\nlines"])
def test_a_name_is_no_path_or_pattern(tmp_path, name):
    prepared(tmp_path / "root", "mine")
    prepared(tmp_path, "outside")
    with pytest.raises(errors.UserError, match=r"is not known|data\.name='two\\nlines': should be a printable") as caught:
        load(name, dir=str(tmp_path / "root"))
    assert "\n" not in str(caught.value)


def test_nothing_is_downloaded_unasked(tmp_path, no_network):
    start = time.monotonic()
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path}; nothing is downloaded unasked"):
        load("cifar10", dir=str(tmp_path))
    assert time.monotonic() - start < 5
    assert list(tmp_path.iterdir()) == []


def test_tfds_data_dir_is_the_default(tmp_path, monkeypatch, no_network):
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path / "set"))
    with pytest.raises(errors.UserError, match=f"cifar10 is not prepared in {tmp_path / 'set'};"):
        load("cifar10")


def test_downloading_needs_tensorflow(tmp_path, monkeypatch, no_network):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # missing also where it is installed
    with pytest.raises(errors.UserError, match="prepares cifar10 with tensorflow, which is missing: pip install tensorflow"):
        load("cifar10", dir=str(tmp_path), download=True)
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
        load("mnist", dir=str(tmp_path))
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
        load("mnist", dir=str(tmp_path))
    assert not (tmp_path / "sprung").exists()


@pytest.mark.usefixtures("mnist")
def test_mnist():
    dataset = load("mnist", valid_fraction=0.0)
    assert {name: len(split) for name, split in dataset.splits.items()} == {"train": 60_000, "test": 10_000}
    train = dataset.splits["train"]
    assert dataset.spec == ImageSpec((28, 28, 1), 255, dynamic=False)
    assert train.pixels.dtype == np.uint8
    # The published mean of the training pixels is 0.1307, to four digits.
    assert abs(train.pixels.mean() / 255 - 0.1307) < 1e-4
    np.testing.assert_array_equal(np.bincount(train.labels), [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949])
