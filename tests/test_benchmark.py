"""The benchmark: how it measures, and that it runs, at sizes whose times say nothing."""

import json
import pathlib
import sys

import jax
import numpy as np
import pytest

from scripts import studies, timing, workloads
from vae_jax.models import conv
from vae_jax.storage import run_directory

ENTRIES = [
    pytest.param(name, marks=[] if name in ("mnist", "importance") else pytest.mark.stress) for name in workloads.ENTRIES
]


@pytest.mark.parametrize("name", ENTRIES)
def test_every_entry_runs(name, forks, tmp_path):
    output = tmp_path / "new" / "times.json"
    ran = forks.run("scripts.benchmark", [f"--only={name}", "--tiny", "--repeat=1", f"--output={output}"])
    assert ran.code == 0, ran.err
    rows = json.loads(output.read_text())["rows"]
    assert len(ran.out.splitlines()) == 1 + len(rows) > 1
    for row in rows:
        assert row["ours"] > 0
        assert row["theirs"] > 0
        assert row["ratio"] == row["ours"] / row["theirs"]


def test_a_peer_without_its_packages_is_left_out_alone(monkeypatch, capsys):
    monkeypatch.delitem(sys.modules, "scripts.peers.pytorch_loop", raising=False)
    monkeypatch.setitem(sys.modules, "torch", None)
    found = workloads.importable(workloads.PEERS)
    assert found == ("jit_epoch", "jit_step")
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("no rows of pytorch_loop: import of torch halted")
    settings = workloads.Settings(1, found, tiny=True)
    made = [settings.peer(name, "shown", lambda peer: peer.epoch, 2) for name in workloads.PEERS]
    assert [len(contestants) for contestants in made] == [0, 1, 1]
    assert (made[1][0].name, made[1][0].units) == ("shown", 2)


def test_evaluation_is_timed_beside_the_training_of_the_same_study(monkeypatch, tmp_path):
    """The first time is compilation; each later one has two groups, a full evaluation and a quick one."""
    seconds = iter([(4, 5, 9, 8), (1, 2, 2, 0.5), (1, 3, 1, 0.5), (2, 2, 3, 0.5)])

    def run(config, workdir, sweep):
        events = zip(("trained", "trained", "evaluated", "evaluated"), next(seconds), strict=True)
        run_directory.append_jsonl(pathlib.Path(workdir) / "log.jsonl", [{"event": e, "seconds": s} for e, s in events])

    monkeypatch.setattr(studies.study, "run", run)
    monkeypatch.setattr(studies.study, "evaluate", lambda workdir, changes, chosen: None)
    found = list(studies.measure(studies.Study("a study", {}), tmp_path, 3))
    assert found == [("full", timing.Timing(2, 7), 4), ("quick", timing.Timing(0.5, 7.5), 4)]


def test_an_unknown_entry_is_one_line_that_lists_all_of_them(forks):
    ran = forks.run("scripts.benchmark", ["--only=mist"])
    assert ran.code == 2
    assert len(ran.err.splitlines()) == 1
    assert "mist" in ran.err
    assert "|".join(workloads.ENTRIES) in ran.err


def test_contestants_take_turns_and_compilation_is_apart(monkeypatch):
    calls, clock = [], [0.0]
    # The first call of each takes 10 s more.
    costs = {"a": iter([12, 2, 5, 2]), "b": iter([14, 4, 4, 9])}
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def work(name):
        calls.append(name)
        clock[0] += next(costs[name])

    contestants = [timing.Contestant(name, lambda name=name: work(name), units) for name, units in (("a", 1), ("b", 2))]
    found = timing.measure(contestants, 3)
    assert calls == ["a", "b"] * 4
    assert found == {"a": timing.Timing(2, 10), "b": timing.Timing(2, 10)}


def test_products_of_a_training_step():
    layers = [(128, 784, 400), (128, 400, 40), (128, 20, 400), (128, 400, 784)]
    products = timing.training_products(layers)
    # By hand: three products per weight, but no gradient of the images: 197 GFLOP per epoch of 468 steps.
    weights = 784 * 400 + 400 * 40 + 20 * 400 + 400 * 784
    assert timing.floating_point_operations(products) == 2 * 128 * (3 * weights - 784 * 400)
    # Each is a product that has the shape of what it computes: outputs, weights, inputs.
    assert {(rows, outputs) for rows, _, outputs in products[4:8]} == {(a, b) for _, a, b in layers}
    assert {(rows, outputs) for rows, _, outputs in products[8:]} == {(128, 400), (128, 20), (128, 400)}


def test_the_floor_does_what_it_says(monkeypatch):
    shapes, copied = [], []
    matmul, copyto = np.matmul, np.copyto
    monkeypatch.setattr(np, "matmul", lambda a, b, out: (shapes.append((*a.shape, b.shape[1])), matmul(a, b, out=out)))
    monkeypatch.setattr(np, "copyto", lambda out, a: (copied.append(a.size), copyto(out, a)))
    timing.floor([(2, 3, 4), (5, 6, 7)], parameters=100, steps=2)()
    assert shapes == [(2, 3, 4), (5, 6, 7)] * 2
    assert 2 * sum(copied) == 2 * 7 * 100  # read and written, in both steps


def test_convolutions_as_products_have_the_networks_size():
    channels, dense, latents, size = (4, 6), 10, 3, 8
    encoder, decoder = (
        conv.ConvEncoder((*channels, dense), latents),
        conv.ConvDecoder((dense, 6, 4), (size, size, 1)),
    )
    x, z = np.zeros((1, size, size, 1), np.float32), np.zeros((1, latents), np.float32)
    shapes = [jax.eval_shape(module.init, jax.random.key(0), given) for module, given in ((encoder, x), (decoder, z))]
    kernels = sum(leaf.size for leaf in jax.tree.leaves(shapes) if leaf.ndim > 1)
    layers, parameters = workloads.conv_products(5, size, channels, dense, latents)
    assert parameters == kernels
    # A kernel of 4x4 meets every pixel of its output: 4x4 of them, then 2x2.
    assert layers[:2] == [(5 * 16, 16, 4), (5 * 4, 64, 6)]
