"""What there is of memory, what programs need, and an error of a device told apart from others."""

import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.system import memory, runs


def test_a_program_needs_its_arguments_and_results_and_what_is_between():
    # 1 MB in; 4 MB that no fusion can avoid, because it is sorted; 4 bytes out.
    x = np.zeros(250_000, np.float32)
    compiled = jax.jit(lambda x: jnp.sort(jnp.concatenate([x, x + 1, x + 2, x + 3]))[7]).lower(x).compile()
    assert 5e6 <= memory.needed(compiled) < 20e6


def test_what_is_donated_is_counted_once():
    x = jnp.zeros(250_000)
    needs = [memory.needed(jax.jit(lambda x: x + 1, donate_argnums=donated).lower(x).compile()) for donated in ((), 0)]
    assert needs[0] - needs[1] == 1_000_000


def test_what_a_grid_needs_grows_with_its_runs_and_no_faster():
    """Of four, eight and twelve runs on one device: the same more each time."""
    mesh, x = runs.mesh(1), jnp.ones((100, 30))

    def train(weights, x):
        return weights - 0.1 * jax.grad(lambda weights: jnp.sum(jnp.square(jnp.tanh(x @ weights))))(weights)

    mapped = runs.over_runs(train, mesh, mapped=1)
    four, eight, twelve = (memory.needed(mapped.lower(jnp.ones((n, 30, 20)), x).compile()) for n in (4, 8, 12))
    assert twelve - eight == eight - four >= 2 * 4 * 30 * 20 * 4


def test_size_of_arrays_and_shapes():
    shape = jax.ShapeDtypeStruct((2, 5), np.dtype(np.int8))
    assert memory.size({"a": np.zeros((3, 4), np.float32), "b": (shape, jnp.zeros(()))}) == 48 + 10 + 4


def test_free_memory_is_some_of_what_the_machine_has():
    whole = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1e8 < memory.free() < whole


@pytest.mark.parametrize(("limit", "found"), [("1000000000\n", 0.9 * 700e6), ("max\n", None)])
def test_a_container_has_no_more_than_it_may_use(tmp_path, monkeypatch, limit, found):
    before = memory.free()
    for name, text in {"max": limit, "current": "400000000\n", "stat": "anon 5\ninactive_file 100000000\n"}.items():
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(memory, "CGROUP", pathlib.Path(tmp_path))
    if found:
        assert memory.free() == int(found)
    else:
        assert memory.free() > 0.2 * before


def test_devices_of_a_cpu_share_what_the_host_leaves(monkeypatch):
    monkeypatch.setattr(memory, "free", lambda: 1000)
    assert memory.per_device(200) == 100  # of eight
    assert memory.per_device(2000) == 0


class Device:
    def memory_stats(self):
        return {"bytes_limit": 1000, "bytes_in_use": 10}


def test_a_gpu_has_its_own(monkeypatch):
    monkeypatch.setattr(jax, "local_devices", lambda: [Device(), Device()])
    assert memory.per_device(200) == 900


@pytest.mark.parametrize(("number", "text"), [(0, "0 bytes"), (999, "999 bytes"), (12345, "12.3 kB"), (2.5e10, "25 GB")])
def test_numbers_of_bytes_as_people_read_them(number, text):
    assert memory.text(int(number)) == text


def exhausted_above(limit: int, tried: list[int]):
    """A function of a number of runs, for which a device has memory up to `limit`."""

    def attempt(runs: int) -> str:
        tried.append(runs)
        with memory.watched(runs):
            if runs > limit:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
        return f"done with {runs}"

    return attempt


def test_half_as_many_runs_after_an_exhausted_device(capsys):
    tried, released = [], []
    result = memory.halving(exhausted_above(2, tried), 9, release=lambda: released.append(len(tried)))
    assert result == ("done with 2", 2)
    assert tried == [9, 5, 3, 2]
    assert released == [1, 2, 3]  # between the attempts
    assert capsys.readouterr().err.splitlines()[-1] == "out of memory on a device: continuing with 2 runs at a time"


def test_no_memory_for_a_single_run_ends_in_one_line():
    tried = []
    with pytest.raises(errors.UserError, match="out of memory on a device with 1 run at a time: RESOURCE_EXHAUSTED"):
        memory.halving(exhausted_above(0, tried), 3)
    assert tried == [3, 2, 1]


def test_other_errors_are_not_tried_again():
    def attempt(runs: int):
        with memory.watched(runs):
            raise jax.errors.JaxRuntimeError("INTERNAL: something else")

    with pytest.raises(jax.errors.JaxRuntimeError, match="something else"):
        memory.halving(attempt, 4)
