"""A checkpoint comes back bit for bit or not at all: every damage is noticed, and the one before is used."""

import gc
import logging
import pathlib
import shutil
import sys
import types
from typing import NamedTuple

import jax
import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.storage import checkpoints

# Where one read fails, Orbax drops the others; one that is late reports to a loop that is closed.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

KERNEL = np.linspace(-1, 1, 6000, dtype=np.float32).reshape(3, 20, 100)
STATE = {
    "params": {"kernel": KERNEL, "bias": np.zeros((3, 4), np.float32)},
    "odd": (np.array([np.nan, np.inf, -0.0, 1e-45], np.float32), np.array([1, -1], np.int32)),
}


def shifted(by: float):
    return STATE | {"odd": (STATE["odd"][0] + np.float32(by), STATE["odd"][1])}


def bits(tree) -> list[tuple]:
    return [(leaf.dtype, leaf.shape, leaf.tobytes()) for leaf in jax.tree.leaves(tree)]


@pytest.fixture(scope="module", autouse=True)
def little_garbage():
    """A save or a load that failed is followed by a collection, which need not go through the objects of all imports."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Steps 1, 2, 3 were saved, of which 2 and 3 are left."""
    directory = tmp_path_factory.mktemp("saved") / "group_000"
    for step in (1, 2, 3):
        checkpoints.save(directory, step, shifted(step), {"metrics_bytes": 100 * step})
    return directory


@pytest.fixture
def copy(saved, tmp_path):
    return pathlib.Path(shutil.copytree(saved, tmp_path / "group_000"))


def files_of(directory: pathlib.Path, step: int) -> list[pathlib.Path]:
    return sorted(path for path in (directory / str(step)).rglob("*") if path.is_file() and path.stat().st_size)


def flip(path: pathlib.Path, at: int) -> None:
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(bytes(content))


def test_round_trip_bit_for_bit(saved):
    loaded = checkpoints.load_latest(saved, STATE)
    assert loaded.step == 3
    assert loaded.metadata == {"metrics_bytes": 300}
    assert bits(loaded.state) == bits(shifted(3))
    assert isinstance(loaded.state["params"]["kernel"], np.ndarray)


def test_the_last_two_are_kept(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["2", "3"]


def test_none_was_saved(tmp_path):
    assert checkpoints.load_latest(tmp_path / "nothing", STATE) is None
    (tmp_path / "empty").mkdir()
    assert checkpoints.load_latest(tmp_path / "empty", STATE) is None


def test_what_a_killed_save_left_is_no_checkpoint_and_goes(copy):
    left = copy / "4.orbax-checkpoint-tmp"
    shutil.copytree(copy / "3", left)
    assert checkpoints.load_latest(copy, STATE).step == 3
    checkpoints.save(copy, 4, STATE, {})
    assert sorted(path.name for path in copy.iterdir()) == ["3", "4"]


def test_a_flipped_bit_in_any_file_is_noticed_or_does_no_harm(copy, capfd):
    """Files that Orbax does not read back may change; nothing may come back that was not saved."""
    noticed = set()
    for path in files_of(copy, 3):
        content = path.read_bytes()
        for at in (0, len(content) // 2, len(content) - 2):
            flip(path, at)
            loaded = checkpoints.load_latest(copy, STATE)
            assert bits(loaded.state) == bits(shifted(loaded.step))
            assert loaded.metadata == {"metrics_bytes": 100 * loaded.step}
            if loaded.step == 2:
                noticed.add(path)
            path.write_bytes(content)
    largest = max(files_of(copy, 3), key=lambda path: path.stat().st_size)
    assert {largest, copy / "3" / "_CHECKPOINT_METADATA"} <= noticed
    lines = capfd.readouterr().err.splitlines()
    assert lines
    assert all(line.startswith(f"{copy / '3'}: damaged checkpoint (") for line in lines)


def test_other_numbers_under_the_same_digest_are_noticed(copy, capfd):
    """What a digest is for: files that are each whole, and not those that were saved."""
    shutil.rmtree(copy / "3" / "state")
    shutil.copytree(copy / "2" / "state", copy / "3" / "state")
    assert checkpoints.load_latest(copy, STATE).step == 2
    assert capfd.readouterr().err == f"{copy / '3'}: damaged checkpoint (ValueError: 'its digest differs')\n"


def test_the_metadata_is_under_the_digest(copy):
    path = copy / "3" / "_CHECKPOINT_METADATA"
    assert '"metrics_bytes": 300' in path.read_text()
    path.write_text(path.read_text().replace('"metrics_bytes": 300', '"metrics_bytes": 200'))
    assert checkpoints.load_latest(copy, STATE).step == 2


@pytest.mark.parametrize("damage", ["truncate", "remove"])
def test_truncated_and_missing_files(copy, damage):
    loaded = set()
    for path in files_of(copy, 3):
        content = path.read_bytes()
        path.unlink()
        if damage == "truncate":
            path.write_bytes(content[: len(content) // 2])
        latest = checkpoints.load_latest(copy, STATE)
        assert bits(latest.state) == bits(shifted(latest.step))
        loaded.add((path.name, latest.step))
        path.write_bytes(content)
    assert ("_CHECKPOINT_METADATA", 2) in loaded
    assert sum(step == 2 for _, step in loaded) >= 3


def test_training_goes_on_over_a_damaged_step(copy):
    """The run that goes on from step 2 saves step 3 again, and then that one is the newest."""
    (copy / "3" / "_CHECKPOINT_METADATA").write_text("{")
    assert checkpoints.load_latest(copy, STATE).step == 2
    checkpoints.save(copy, 3, shifted(30), {"metrics_bytes": 1})
    loaded = checkpoints.load_latest(copy, STATE)
    assert (loaded.step, loaded.metadata) == (3, {"metrics_bytes": 1})
    assert bits(loaded.state) == bits(shifted(30))


def test_all_damaged(copy):
    for step in (2, 3):
        (copy / str(step) / "_CHECKPOINT_METADATA").write_text("")
    with pytest.raises(errors.UserError, match="no checkpoint is whole; start over by --restart"):
        checkpoints.load_latest(copy, STATE)


@pytest.mark.parametrize(
    "other",
    [
        STATE | {"more": np.zeros(2, np.float32)},
        STATE | {"odd": (STATE["odd"][0],)},
        STATE | {"odd": (STATE["odd"][0][:2], STATE["odd"][1])},
        STATE | {"odd": (STATE["odd"][0].astype(np.float64), STATE["odd"][1])},
    ],
    ids=["a leaf more", "a leaf less", "another shape", "another dtype"],
)
def test_a_state_of_another_structure_is_not_loaded(saved, other):
    with pytest.raises(errors.UserError, match="no checkpoint is whole"):
        checkpoints.load_latest(saved, other)


def test_what_is_silenced_speaks_again(copy, monkeypatch, caplog):
    """But for what tasks of Orbax that were cancelled report after its loop of events was closed."""
    reported, disabled = [], logging.root.manager.disable
    monkeypatch.setattr(sys, "unraisablehook", lambda unraisable: reported.append(str(unraisable.exc_value)))
    for path in files_of(copy, 3):
        path.unlink()
    checkpoints.load_latest(copy, STATE)
    assert logging.root.manager.disable == disabled
    for said in ("Event loop is closed", "something else"):
        sys.unraisablehook(types.SimpleNamespace(exc_value=RuntimeError(said)))
    for said in ("Future exception was never retrieved\nfuture: <Future>", "something else"):
        logging.getLogger("asyncio").error(said)
    assert reported == caplog.messages == ["something else"]


def test_links_are_no_checkpoints_and_stay(copy, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(copy / "3", elsewhere / "2024")
    for name in ("2024", "9.orbax-checkpoint-tmp"):
        (copy / name).symlink_to(elsewhere / "2024")
    assert checkpoints.load_latest(copy, STATE).step == 3
    checkpoints.save(copy, 4, STATE, {})
    assert checkpoints.steps(copy) == [4, 3]
    checkpoints.clear(copy)
    assert sorted(path.name for path in copy.iterdir()) == ["2024", "9.orbax-checkpoint-tmp"]
    assert (elsewhere / "2024" / "_CHECKPOINT_METADATA").exists()


def test_the_digest_tells_trees_apart():
    base = checkpoints.digest({"a": np.zeros(4, np.float32)}, {"n": 1})
    others = [
        ({"b": np.zeros(4, np.float32)}, {"n": 1}),
        ({"a": np.zeros((2, 2), np.float32)}, {"n": 1}),
        ({"a": np.zeros(4, np.int32)}, {"n": 1}),
        ({"a": np.array([0, 0, 0, -0.0], np.float32)}, {"n": 1}),
        ({"a": np.zeros(4, np.float32)}, {"n": 2}),
    ]
    assert base not in {checkpoints.digest(*other) for other in others}
    assert base == checkpoints.digest({"a": np.zeros((2, 4), np.float32)[0]}, {"n": 1})


def test_leaves_are_known_by_their_paths(tmp_path):
    """Two leaves of one shape come back under their names, whatever the order of the fields; other names are refused."""
    one, two = np.ones((3, 2), np.float32), np.full((3, 2), 2, np.float32)
    first, swapped = ({"m": {name: np.zeros((3, 2), np.float32) for name in names}} for names in ("ab", "ac"))
    checkpoints.save(tmp_path, 1, {"m": {"a": one, "b": two}}, {})
    loaded = checkpoints.load_latest(tmp_path, first).state
    np.testing.assert_array_equal(loaded["m"]["b"], two)
    with pytest.raises(errors.UserError, match="no checkpoint is whole"):
        checkpoints.load_latest(tmp_path, swapped)

    class Ordered(NamedTuple):
        b: np.ndarray
        a: np.ndarray

    class Before(NamedTuple):
        a: np.ndarray
        b: np.ndarray

    checkpoints.save(tmp_path, 2, Before(one, two), {})
    loaded = checkpoints.load_latest(tmp_path, Ordered(one, one)).state
    np.testing.assert_array_equal((loaded.a, loaded.b), (one, two))


def test_checkpoints_without_paths_are_read_in_order(tmp_path):
    """What versions up to 0.1.0 wrote: numbered leaves alone."""
    from orbax.checkpoint import v1 as ocp

    tree = {f"{number:04d}": leaf for number, leaf in enumerate(jax.tree.leaves(shifted(1)))}
    metadata = {"metrics_bytes": 3}
    ocp.save(tmp_path / "1", tree, custom_metadata=metadata | {"digest": checkpoints.digest(tree, metadata)})
    loaded = checkpoints.load_latest(tmp_path, STATE)
    assert bits(loaded.state) == bits(shifted(1))
    assert loaded.metadata == metadata
