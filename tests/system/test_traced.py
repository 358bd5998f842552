"""Traced programs that are kept: the same bits, found again only where all is the same that tracing depends on."""

import contextlib
import dataclasses
import functools
import os
import pathlib
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import struct
from support import compiled

from vae_jax.core import registry
from vae_jax.system import runs, traced

TRACES = []


class Pair(NamedTuple):
    first: object
    second: object


@struct.dataclass
class State:
    weight: object
    more: dict


@dataclasses.dataclass(frozen=True)
class Settings:
    power: int = 2
    names: tuple = ("a",)
    scale: float | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class File:
    path: str = "images.npy"


def program(settings, run, x):
    """Of one run: a result of nested trees."""
    TRACES.append(settings)
    weight = run["w"] ** getattr(settings, "power", 2) + jnp.sum(x.astype(jnp.float32))
    return State(weight, {"pair": Pair(weight + 1, (weight, [weight * 2, None]))}), {"loss": jnp.tanh(weight)}


def other(settings, run, x):
    return program(settings, run, -x)


RUNS, SHARED = {"w": np.float32([1, 2, 3, 4])}, np.float32([[0.5, 1, 2]])


@pytest.fixture(autouse=True)
def keeping(tmp_path, monkeypatch):
    """Programs are kept below `tmp_path`, as if the files of this checkout were old."""
    monkeypatch.setattr(traced, "_directory", tmp_path / "traced")
    monkeypatch.setattr(traced, "_files", set())
    monkeypatch.setattr(traced, "_BEGUN", time.time() + 10**6)
    monkeypatch.setattr(registry, "added", dict)
    TRACES.clear()
    return tmp_path / "traced"


def computed(function=program, settings=Settings(), devices=2, shared=SHARED, **options):
    """As a process that has traced nothing would compute it, and how often it traced."""
    before, mesh = len(TRACES), runs.mesh(devices)
    mapped = runs.over_runs(functools.partial(function, settings), mesh, **options)
    result = mapped(runs.put(RUNS, mesh), runs.put(shared, mesh, shared=True))
    return jax.device_get(result), len(TRACES) - before


def files(directory: pathlib.Path) -> list[pathlib.Path]:
    return sorted(path for path in directory.glob("*/*") if path.is_file())


@pytest.mark.parametrize("options", [{}, {"donate": True}, {"together": 2}], ids=str)
def test_traced_once_and_the_same_bits_in_the_same_tree(keeping, monkeypatch, options):
    (first, one), (second, none) = computed(**options), computed(**options)
    assert (one > 0, none, len(files(keeping))) == (True, 0, 1)
    monkeypatch.setattr(traced, "_directory", None)
    never, again = computed(**options)
    assert again > 0
    for found in (first, second):
        assert jax.tree.structure(found) == jax.tree.structure(never)
        assert [leaf.tobytes() for leaf in jax.tree.leaves(found)] == [leaf.tobytes() for leaf in jax.tree.leaves(never)]


def test_programs_that_are_compiled_briefly_are_kept_too(keeping):
    """With options for the compiler, which there are where JAX optimizes all it can."""
    with contextlib.contextmanager(compiled)(fully=True):
        (first, one), (second, none) = computed(briefly=True), computed(briefly=True)
    assert (one > 0, none, len(files(keeping))) == (True, 0, 1)
    assert [leaf.tobytes() for leaf in jax.tree.leaves(first)] == [leaf.tobytes() for leaf in jax.tree.leaves(second)]


def test_shapes_of_the_result(keeping):
    mesh = runs.mesh(2)
    args = runs.shaped(RUNS, mesh, 6), runs.shaped(SHARED, mesh)
    for traces in (True, False):
        TRACES.clear()
        state, metrics = runs.over_runs(functools.partial(program, Settings()), mesh).shapes(*args)
        assert (state.weight.shape, metrics["loss"].dtype, bool(TRACES)) == ((6,), np.float32, traces)


@pytest.mark.parametrize(
    "change",
    [
        {"function": other},
        {"settings": Settings(power=3)},
        {"settings": Settings(scale=0.0)},
        {"settings": Settings(names=("a", "b"))},
        {"devices": 1},
        {"shared": np.float32([[0.5, 1]])},
        {"shared": np.int32([[1, 2, 3]])},
        {"together": 2},
    ],
    ids=["function", "power", "scale", "names", "devices", "shape", "type", "together"],
)
def test_what_differs_is_traced(change):
    computed()
    _, traces = computed(**change)
    assert traces > 0


def setting(_, monkeypatch):
    monkeypatch.setattr(type(jax.config), "values", property(lambda _, values=jax.config.values: values | {"new": 1}))


def version(_, monkeypatch):
    monkeypatch.setattr(traced, "_versions", lambda: ["jax 99"])


def source(file, _):
    file.write_text("another")


def one_more_source(file, _):
    (file.parent / "more.py").write_text("")
    traced.depends_on(str(file.parent / "more.py"))


@pytest.mark.parametrize("change", [setting, version, source, one_more_source])
def test_where_the_process_differs_it_is_traced(tmp_path, monkeypatch, change):
    file = tmp_path / "mine.py"
    file.write_text("one")
    traced.depends_on(str(file))
    assert [computed()[1] > 0 for _ in range(2)] == [True, False]
    change(file, monkeypatch)
    assert [computed()[1] > 0 for _ in range(2)] == [True, False]


def test_all_of_the_package_is_a_source():
    """Also what is loaded later."""
    assert {str(path) for path in registry.PACKAGE.rglob("*.py")} <= traced._package()
    assert __file__ not in traced._package()


def changed_lately(monkeypatch):
    monkeypatch.setattr(traced, "_BEGUN", os.stat(traced.__file__).st_ctime + traced.AGE - 1)


def added(monkeypatch):
    monkeypatch.setattr(registry, "added", lambda: {"likelihood": {"mine": "mine.py"}})


def source_is_gone(_):
    traced.depends_on("gone.py")


@pytest.mark.parametrize("why", [changed_lately, added, source_is_gone])
def test_not_kept_where_a_file_may_have_changed_or_a_part_was_added(keeping, monkeypatch, why):
    computed()
    why(monkeypatch)
    assert computed()[1] > 0
    assert len(files(keeping)) == 1


def within():
    return lambda settings, run, x: program(settings, run, x)


@pytest.mark.parametrize(
    ("function", "settings"),
    [
        (lambda settings, run, x: program(settings, run, x), Settings()),
        (within(), Settings()),
        (program, np.zeros(2)),
        (program, File()),
        (program, Settings(names=(File(),))),
        (program, object()),
    ],
    ids=["lambda", "closure", "array", "file", "file within", "object"],
)
def test_what_has_no_name_is_not_kept(keeping, function, settings):
    """It could be another in the next process."""
    assert computed(function, settings)[1] > 0
    assert computed(function, settings)[1] > 0
    assert not files(keeping)


def named_by_bytes(settings, run, x):
    return {b"loss": program(settings, run, x)[1]["loss"]}


def test_a_result_that_cannot_be_described_is_not_kept(keeping):
    for _ in range(2):
        found, traces = computed(named_by_bytes)
        assert found.keys() == {b"loss"} and traces > 0
    assert not files(keeping)


class Data:
    def __init__(self, digest):
        self.name_of_content = None if digest is None else (digest,)


def test_data_are_named_by_their_content(keeping):
    assert [computed(program, Data(digest))[1] > 0 for digest in ("a", "a", "b")] == [True, False, True]
    assert computed(program, Data(None))[1] > 0
    assert len(files(keeping)) == 2


@pytest.mark.parametrize("damage", [lambda text: b"", lambda text: text[:-1], lambda text: text[:-9] + b"?" + text[-8:]])
def test_a_damaged_file_is_not_used(keeping, damage):
    expected, _ = computed()
    (file,) = files(keeping)
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    found, traces = computed()
    assert traces > 0
    assert [leaf.tobytes() for leaf in jax.tree.leaves(found)] == [leaf.tobytes() for leaf in jax.tree.leaves(expected)]
    assert computed()[1] == 0


def test_where_nothing_can_be_written_it_is_traced(keeping):
    keeping.write_text("a file")
    assert computed()[1] > 0
    assert keeping.read_text() == "a file"


def test_of_a_full_disk_nothing_is_left(keeping, monkeypatch):
    def full(path, content):
        with path.open("wb") as file:
            file.write(content[:9])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pathlib.Path, "write_bytes", full)
    assert computed()[1] > 0
    assert not [*keeping.glob("*/*")]


def test_versions_that_were_not_used_lately_are_removed(keeping):
    for number in range(traced.VERSIONS + 2):
        folder = keeping / str(number)
        folder.mkdir(parents=True)
        os.utime(folder, (number, number))
    computed()
    kept = {path.name for path in keeping.iterdir()}
    assert len(kept) == traced.VERSIONS
    assert {path.parent.name for path in files(keeping)} <= kept
    assert {"0", "1", "2"}.isdisjoint(kept)


def test_a_mistake_in_the_function_is_told_as_without():
    with pytest.raises((TypeError, ValueError), match="contracting"):
        computed(wrong)


def wrong(settings, run, x):
    return run["w"] + jnp.ones((2, 3)) @ jnp.ones((4, 5))
