"""A function over one run, made a function over many: the same bits on any number of devices, and no talk between runs."""

import contextlib
import threading
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from support import COLLECTIVES, replica_groups, with_settings

from vae_jax.system import runs

pytestmark = pytest.mark.compiled_fully

SHARED = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)


def train(run, x):
    """A few steps on parameters that are made inside: from the run's key, and from constants, which no run is part of."""
    params = {"drawn": random.normal(random.key(run["seed"]), (3,)), "constant": jnp.zeros(3), "bias": jnp.zeros(())}

    def loss(params):
        hidden = jnp.tanh(x * params["drawn"][None]) @ params["constant"] + params["bias"]
        return jnp.mean(jnp.square(hidden - run["target"]))

    def step(_, params):
        return jax.tree.map(lambda param, grad: param - 0.1 * grad, params, jax.grad(loss)(params))

    params = jax.lax.fori_loop(0, 3, step, params)
    return {"params": params, "loss": loss(params)}


def grid(count: int) -> dict:
    return {"seed": np.arange(count, dtype=np.int32), "target": np.linspace(-1, 2, count, dtype=np.float32)}


def assert_same(actual, expected):
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(actual), jax.device_get(expected))


@pytest.fixture(scope="module")
def alone():
    """Each of five runs as a grid of one."""
    program = runs.over_runs(train, runs.mesh(1))
    return [runs.take(jax.device_get(program(runs.take(grid(5), slice(i, i + 1)), SHARED)), 0) for i in range(5)]


def test_a_grid_of_one_is_the_function(alone):
    run = runs.take(grid(5), 3)
    # Compiled apart from the loop over runs: other fusions, so float32 accuracy only, of numbers of size 1 to 5.
    for mine, direct in zip(*map(jax.tree.leaves, (alone[3], jax.jit(train)(run, SHARED))), strict=True):
        np.testing.assert_allclose(mine, direct, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("devices", [1, 2, 4, 8])
def test_the_same_bits_on_any_devices(alone, devices):
    mesh = runs.mesh(devices)
    many = runs.over_runs(train, mesh)(runs.pad(grid(5), mesh.size), SHARED)
    assert_same(runs.take(many, slice(5)), runs.stack(alone))
    assert len(many["loss"].sharding.device_set) == devices
    # Padding is the last run again.
    for index in range(5, len(many["loss"])):
        assert_same(runs.take(many, index), alone[4])


def test_compiled_briefly_it_is_the_same_to_rounding(alone):
    found = runs.over_runs(train, runs.mesh(1), briefly=True)(grid(5), SHARED)
    for mine, one in zip(jax.tree.leaves(found), jax.tree.leaves(runs.stack(alone)), strict=True):
        np.testing.assert_allclose(mine, one, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("few", [False, True])
def test_briefly_is_never_longer(few):
    """Where JAX is told to optimise nothing, that stays."""
    with contextlib.contextmanager(with_settings)(jax_disable_most_optimizations=few):
        assert (runs._options(runs.mesh(1)) is None) == few


def test_no_collective_in_the_compiled_program():
    compiled = runs.over_runs(train, runs.mesh(8)).lower(grid(8), SHARED).compile()
    assert "fusion" in compiled.as_text()
    assert not COLLECTIVES.findall(compiled.as_text())


def test_a_collective_would_be_seen():
    mesh = runs.mesh(8)
    talking = runs.over_runs(lambda run: jax.lax.psum(run["target"], "runs"), mesh)
    assert COLLECTIVES.findall(talking.lower(grid(8)).compile().as_text())


def test_several_arguments_of_one_run_and_several_shared():
    def function(a, b, shared, factor):
        return a + shared * factor, b["c"] - a

    program = runs.over_runs(function, runs.mesh(2), mapped=2)
    a, c = np.arange(4, dtype=np.float32), np.full(4, 10, np.float32)
    first, second = program(a, {"c": c}, np.float32(2), np.float32(3))
    np.testing.assert_array_equal(first, a + 6)
    np.testing.assert_array_equal(second, 10 - a)


def test_donation_changes_no_number():
    program = runs.over_runs(lambda state, x: state + x, runs.mesh(2), donate=True)
    state = program(np.arange(4, dtype=np.float32), np.float32(1))
    after = program(state, np.float32(1))
    np.testing.assert_array_equal(after, np.arange(4) + 2)
    assert state.is_deleted()


@pytest.mark.parametrize(("count", "size"), [(1, 1), (2, 2), (7, 7), (8, 8), (9, 8), (1000, 8)])
def test_mesh_takes_as_many_devices_as_there_are_runs(count, size):
    mesh = runs.mesh(count)
    assert mesh.axis_names == ("runs", "data")
    assert list(mesh.devices[:, 0]) == jax.devices()[:size]
    assert mesh.size == size


def test_the_devices_of_a_run_are_neighbours():
    assert runs.mesh(100, data=2).devices.tolist() == np.reshape(jax.devices(), (4, 2)).tolist()
    assert runs.mesh(1, data=4).devices.tolist() == [jax.devices()[:4]]


# A run over several devices


def speaking(run, x, axis_name="data"):
    """The mean of something over the rows of `x`, of which each device along the axis looks at its own."""
    devices = jax.lax.axis_size(axis_name)
    rows = len(x) // devices
    mine = jax.lax.dynamic_slice_in_dim(x, jax.lax.axis_index(axis_name) * rows, rows)
    return jax.lax.pmean(jnp.mean(jnp.square(mine - run["target"])), axis_name)


def test_collectives_stay_within_the_devices_of_a_run():
    mesh, x = runs.mesh(4, data=2), SHARED[:4]
    program = runs.over_runs(speaking, mesh)
    groups = replica_groups(program.lower(grid(8), x).compile().as_text())
    assert groups
    assert all(group in ({0, 1}, {2, 3}, {4, 5}, {6, 7}) for group in groups)
    np.testing.assert_allclose(program(grid(8), x), [np.mean((x - t) ** 2) for t in grid(8)["target"]], rtol=1e-6)


def test_a_collective_between_runs_would_be_seen():
    program = runs.over_runs(lambda run, x: speaking(run, x, "runs"), runs.mesh(4, data=2))
    assert {0, 2, 4, 6} in replica_groups(program.lower(grid(8), SHARED[:4]).compile().as_text())


def test_options_that_xla_does_not_know_are_left_out(monkeypatch):
    assert runs._options(runs.mesh(1)) == runs._BRIEFLY
    monkeypatch.setattr(runs, "_BRIEFLY", runs._BRIEFLY | {"xla_cpu_of_another_version": 1})
    assert "xla_cpu_of_another_version" not in runs._options(runs.mesh(1))


@pytest.mark.parametrize("data", [2, 4])
def test_the_devices_of_a_run_that_need_not_speak_all_compute_it(alone, data):
    mesh = runs.mesh(3, data=data)
    many = runs.over_runs(train, mesh)(runs.pad(grid(5), mesh.shape["runs"]), SHARED)
    assert_same(runs.take(many, slice(5)), runs.stack(alone))


# Blocks


@pytest.mark.parametrize("size", [2, 4, 6])
def test_the_same_bits_in_blocks(alone, size):
    mesh = runs.mesh(2)
    program = runs.over_runs(train, mesh)
    blocks = runs.Blocks(mesh, 5, size)
    shared = runs.put(SHARED, mesh, shared=True)
    found = blocks.call(program, (blocks.hold(grid(5)),), shared)
    assert_same(blocks.fetch(found), runs.stack(alone))
    assert blocks.whole == (size == 6)
    # Whole, they stay on the devices; cut, they wait on the host.
    assert all(isinstance(leaf, jax.Array if size == 6 else np.ndarray) for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize(("size", "held"), [(6, [7, 7, 7, 7, 7, 0]), (2, [7] * 5)])
def test_what_only_fills_up_the_devices_gets_no_number(size, held):
    assert np.asarray(runs.Blocks(runs.mesh(2), 5, size).hold_number(7)).tolist() == held


@pytest.mark.usefixtures("compiled_quickly")
def test_runs_of_a_device_together_are_the_same_to_rounding(alone):
    """As a GPU has them: one vectorised program, also where the last of them are fewer."""
    together = runs.over_runs(train, runs.mesh(1), together=2)(grid(5), SHARED)
    for mine, theirs in zip(*map(jax.tree.leaves, (together, runs.stack(alone))), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_put_and_fetch_change_no_number():
    mesh = runs.mesh(2)
    assert_same(runs.fetch(runs.put(grid(6), mesh)), grid(6))
    whole = runs.put(grid(5), mesh, shared=True)
    assert_same(runs.fetch(whole), grid(5))
    assert all(leaf.sharding.is_fully_replicated for leaf in jax.tree.leaves(whole))


@pytest.mark.parametrize(
    ("count", "multiple", "padded"), [(5, 1, 5), (5, 2, 6), (5, 8, 8), (8, 8, 8), (9, 8, 16), (1, 3, 3)]
)
def test_pad_repeats_the_last_run(count, multiple, padded):
    tree = {"a": np.arange(count), "b": (np.arange(2.0 * count).reshape(count, 2),)}
    found = runs.pad(tree, multiple)
    index = np.minimum(np.arange(padded), count - 1)
    assert_same(found, {"a": tree["a"][index], "b": (tree["b"][0][index],)})
    assert found["a"].dtype == tree["a"].dtype


def test_take_undoes_stack():
    trees = [{"a": np.float32(i), "b": np.full(2, i)} for i in range(3)]
    stacked = runs.stack(trees)
    assert stacked["a"].shape == (3,)
    assert stacked["a"].dtype == np.float32
    for index, tree in enumerate(trees):
        assert_same(runs.take(stacked, index), tree)
    assert_same(runs.take(stacked, slice(1, None)), runs.stack(trees[1:]))


def test_what_threads_compile_is_not_traced_or_compiled_again(alone):
    """By the shapes that `put` gives the arguments."""
    traces, mesh = [], runs.mesh(2)
    program = runs.over_runs(lambda run, x: traces.append(run) or train(run, x), mesh)
    with ThreadPoolExecutor(2) as threads:
        for _ in range(2):
            program.compile_ahead(threads, runs.shaped(grid(1), mesh, 4), runs.shaped(SHARED, mesh))
    found = program(runs.put(runs.take(grid(5), slice(4)), mesh), runs.put(SHARED, mesh, shared=True))
    assert len(traces) == 1 and [jitted._cache_size() for jitted in program._known.values()] == [1]
    assert_same(found, runs.stack(alone[:4]))


def test_what_fails_in_a_thread_fails_where_it_is_called():
    mesh, x = runs.mesh(1), np.zeros(3, np.float32)
    program = runs.over_runs(lambda x: x + SHARED[:, :2] @ SHARED, mesh)
    with ThreadPoolExecutor(1) as threads:
        program.compile_ahead(threads, runs.shaped(x, mesh, 3))
    with pytest.raises((TypeError, ValueError), match=r"contracting|dot_general|matmul"):
        program(x)


def test_what_no_thread_came_to_is_compiled_where_it_is_called():
    mesh, x = runs.mesh(1), np.zeros(3, np.float32)
    program, may_end = runs.over_runs(lambda x: x + 1, mesh), threading.Event()
    threads = ThreadPoolExecutor(1)
    threads.submit(may_end.wait)
    program.compile_ahead(threads, runs.shaped(x, mesh, 3))
    threads.shutdown(wait=False, cancel_futures=True)
    may_end.set()
    assert_same(program(x), x + 1)
