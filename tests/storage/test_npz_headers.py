"""An .npz file from anybody costs no more than it should, and runs nothing."""

import re
import resource
import struct
import zipfile

import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.storage import npz_headers, run_directory


def bomb(path, shape: str, dtype: str = "|u1", content: bytes = b"", version: bytes = b"\x01\x00", length: int = 0) -> None:
    """An archive whose array `train` says that it has this shape."""
    header = f"{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    count = struct.pack("<H" if version == b"\x01\x00" else "<I", length or len(header))
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("train.npy", b"\x93NUMPY" + version + count + header + content)


@pytest.mark.parametrize(
    ("shape", "dtype"), [("(1000000000000,)", "|u1"), ("(1000000, 1000000, 1000000)", "<f4"), ("(100000,)", "<U400000000")]
)
def test_what_would_not_fit_is_refused_by_its_header(tmp_path, shape, dtype):
    path = tmp_path / "bomb.npz"
    bomb(path, shape, dtype, content=1000 * bytes(10_000))
    assert path.stat().st_size < 20_000
    with pytest.raises(errors.UserError, match=r"its arrays take [\d,.]+ GiB; should be at most [\d,.]+ GiB"):
        npz_headers.read(path, "it")


def test_arrays_that_fit_one_by_one_and_not_together(tmp_path, monkeypatch):
    path = tmp_path / "two.npz"
    np.savez(path, a=np.zeros(600, np.uint8), b=np.zeros(600, np.uint8))
    monkeypatch.setattr(npz_headers, "_memory", lambda: 2000)
    assert npz_headers.read(path, "it", names=["a"]).keys() == {"a"}
    with pytest.raises(errors.UserError, match="half of this machine's memory"):
        npz_headers.read(path, "it")


def test_more_is_unpacked_than_said_is_damage(tmp_path):
    """256 MiB of zeros in one of 260 kB, behind a header that says ten bytes: it is never unpacked."""
    path = tmp_path / "bomb.npz"
    bomb(path, "(10,)")
    with zipfile.ZipFile(path) as archive:
        head = archive.read("train.npy")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("train.npy", "w") as file:
        file.write(head)
        for _ in range(16):
            file.write(bytes(2**24))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(errors.UserError, match="not a readable"):
        npz_headers.read(path, "it")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB


@pytest.mark.parametrize(
    "how",
    [
        {"shape": "(-5,)"},
        {"shape": "(3,)"},  # and no content
        {"shape": "3"},
        {"shape": "(True,)", "content": b"1"},
        {"shape": "__import__('os').mkdir('made')"},
        {"shape": "(1,)", "dtype": "|O", "content": b"cos\nsystem\n(S'touch made'\ntR."},
        {"shape": "(1,)", "version": b"\x02\x00", "length": 2**32 - 1},
        {"shape": "(1,)", "version": b"\x09\x00"},
        {"shape": "(" + 20_000 * "1, " + ")"},
    ],
)
def test_hostile_headers(tmp_path, monkeypatch, how):
    monkeypatch.chdir(tmp_path)
    bomb(tmp_path / "bomb.npz", **how)
    with pytest.raises(errors.UserError, match=r"^it: not a readable \.npz without pickled objects \(\w+\)$"):
        npz_headers.read("bomb.npz", "it")
    assert [path.name for path in tmp_path.iterdir()] == ["bomb.npz"]


@pytest.mark.parametrize("content", [b"", b"PK", b"hello"])
def test_no_archive(tmp_path, content):
    path = tmp_path / "file.npz"
    path.write_bytes(content)
    for read in (
        lambda: npz_headers.read(path, "it"),
        lambda: run_directory.read_arrays(path),
        lambda: npz_headers.read(tmp_path, "it"),
    ):
        with pytest.raises(errors.UserError, match="not a readable"):
            read()


def test_missing_names_are_told(tmp_path):
    np.savez(tmp_path / "a.npz", one=1, two=2)
    with pytest.raises(errors.UserError, match=re.escape("it: no array 'three', only one, two")):
        npz_headers.read(tmp_path / "a.npz", "it", required=("one", "three"))


def test_a_member_with_a_wrong_checksum(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, a=np.arange(1000))
    content = bytearray(path.read_bytes())
    content[2000] ^= 1
    path.write_bytes(content)
    with pytest.raises(errors.UserError, match="not a readable"):
        npz_headers.read(path, "it")
