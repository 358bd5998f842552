"""Data that are read for each batch give the bits of data in memory, also after any interruption."""

import dataclasses
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support import LINEAR, NOT_EVALUATED, ROOT, assert_same_numbers, signed, tiny

import vae_jax
from vae_jax.core import errors
from vae_jax.data import dataset, stored
from vae_jax.storage import checkpoints, run_directory
from vae_jax.study import planning, provenance, study
from vae_jax.system import runs, signals
from vae_jax.training import loop, session, streamed

OWN = {**LINEAR, **NOT_EVALUATED}
SHARED = {"data__order": "shared", **OWN}
STREAMED = {"data__resident": "false", **OWN}
THREE = (("seed", ("0", "1", "2")),)
BATCH = 128 * 64  # bytes; ten of them are an epoch


@pytest.fixture(autouse=True)
def three_batches_a_block(monkeypatch):
    """Blocks of 3, 3, 3 and 1 batches."""
    monkeypatch.setattr(session, "BLOCK", 3 * BATCH)


@pytest.fixture(scope="module")
def resident(tmp_path_factory):
    """Three runs on data in memory, in the shared order; read only."""
    workdir = tmp_path_factory.mktemp("resident") / "whole"
    study.run(tiny(**SHARED), workdir, None, THREE)
    return workdir


def assert_same(ours: pathlib.Path, theirs: pathlib.Path) -> None:
    """Metrics, results, arrays, and the digest of all states."""
    assert_same_numbers(ours, theirs)
    assert signed(ours) == signed(theirs)


def test_the_same_bits_as_in_memory(resident, tmp_path, capsys):
    study.run(tiny(**STREAMED), tmp_path / "streamed", None, THREE)
    assert_same(tmp_path / "streamed", resident)
    said = capsys.readouterr().err
    assert "data.name=digits: 1,797 images, read for each batch; all runs see them in the order of data.seed=0" in said
    assert [entry["order"] for entry in run_directory.read_json(tmp_path / "streamed" / "config.json")["data"]] == ["shared"]


@pytest.mark.parametrize(
    "fields",
    [
        {"train__data_devices": 2, "data__binarize": "dynamic", "model__normalize": "standardize", "train__chunk_epochs": 3},
        {"train__batch_size": 0, "data__valid_fraction": 0.0, "data__seed": 3},
    ],
    ids=["bits on two devices", "whole batches"],
)
def test_the_same_bits_in_other_settings(tmp_path, fields):
    for name, how in (("resident", SHARED), ("streamed", STREAMED)):
        study.run(tiny(**how, **fields), tmp_path / name)
    assert_same(tmp_path / "streamed", tmp_path / "resident")


def test_runs_that_take_turns_all_see_each_block(resident, one_run_at_a_time, tmp_path):
    study.run(tiny(**STREAMED), tmp_path / "streamed", None, THREE)
    assert_same(tmp_path / "streamed", resident)


def test_the_order_is_of_the_data_and_not_of_the_run():
    (group,) = planning.plan(tiny(**STREAMED), sweeps=THREE).groups
    mesh = runs.mesh(1)
    reader = streamed.Reader(group.spec, group.dataset.splits["train"].pixels, mesh)
    blocks = list(reader.blocks(0))
    assert [count for _, count in blocks[:8]] == [3, 3, 3, 1, 3, 3, 3, 1]
    epochs = [np.concatenate([np.asarray(block)[:count] for block, count in blocks[at : at + 4]]) for at in (0, 4)]
    rows = [{row.tobytes() for row in epoch.reshape(-1, 64)} for epoch in epochs]
    pixels = group.dataset.splits["train"].pixels[:]
    assert not np.array_equal(*epochs)
    assert all(each <= {row.tobytes() for row in pixels} for each in rows)
    # From the middle of an epoch on, the same.
    (block, count), *_ = reader.blocks(15)
    np.testing.assert_array_equal(np.asarray(block)[:count], epochs[1][5:8])


# Interrupted

FIELDS = {**STREAMED, "train__checkpoint_steps": 3}


@pytest.mark.parametrize("saves", [1, 2, 4, 8])
def test_stopped_within_an_epoch(resident, tmp_path, monkeypatch, capsys, saves):
    """After so many saves, of which some are within an epoch; the files end as if nothing had been."""
    save, count = checkpoints.save, [0]

    def stopping(*args):
        save(*args)
        count[0] += 1
        if count[0] == saves:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", stopping)
        study.run(tiny(**FIELDS), tmp_path / "here", None, THREE)
    capsys.readouterr()
    study.run(tiny(**FIELDS), tmp_path / "here", None, THREE)
    assert_same(tmp_path / "here", resident)
    said = next(line for line in capsys.readouterr().err.splitlines() if "goes on from" in line)
    steps = {1: "step 3 of 40", 2: "step 6 of 40", 4: "step 13 of 40", 8: "step 23 of 40"}[saves]
    assert said == f"vae (3 runs): goes on from {steps}"
    assert not [*(tmp_path / "here" / "checkpoints" / "group_000_steps").glob("*")]


def test_a_signal_stops_after_the_present_block(resident, tmp_path):
    """And not only at the end of the chunk."""
    config = tiny(**STREAMED)
    (group,) = planning.plan(config, sweeps=THREE).groups
    labels = [{"run": run, "name": "vae", "seed": run} for run in range(3)]
    job = loop.Job(group.spec, group.hyperparams, group.dataset, labels, tmp_path / "group_000", tmp_path / "metrics.jsonl")
    for step in (3, 6, 9):
        with pytest.raises(signals.Stopped, match=f"saved after step {step} of 40"):
            loop.fit(job, stop=[signal.SIGTERM])
    with pytest.raises(signals.Stopped, match="saved after epoch 1 of 4"):
        loop.fit(job, stop=[signal.SIGTERM])
    loop.fit(job)
    assert (tmp_path / "metrics.jsonl").read_bytes() == (resident / "metrics.jsonl").read_bytes()


def test_a_damaged_checkpoint_within_an_epoch_costs_what_came_after_the_one_before(resident, tmp_path, monkeypatch, capsys):
    save, count = checkpoints.save, [0]

    def stopping(*args):
        save(*args)
        count[0] += 1
        if count[0] == 6:  # step 20 is saved too, at the end of a chunk
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(checkpoints, "save", stopping)
        study.run(tiny(**FIELDS, train__checkpoint_every=1), tmp_path / "here", None, THREE)
    for path in (tmp_path / "here" / "checkpoints" / "group_000_steps").glob("*/_CHECKPOINT_METADATA"):
        path.write_text(path.read_text()[:-20])
    capsys.readouterr()
    study.run(tiny(**FIELDS, train__checkpoint_every=1), tmp_path / "here", None, THREE)
    assert_same(tmp_path / "here", resident)
    said = capsys.readouterr().err
    assert "group_000_steps/16: damaged checkpoint (" in said
    assert "vae (3 runs): goes on from epoch 1 of 4" in said


def test_a_directory_goes_on_with_data_held_in_another_way(resident, tmp_path):
    """Streamed to the second checkpoint, then in memory in the same order; in another order it is refused."""
    here = pathlib.Path(shutil.copytree(resident, tmp_path / "here"))
    (here / "results.csv").unlink()
    shutil.rmtree(here / "checkpoints" / "group_000" / "4")
    with pytest.raises(errors.UserError, match=r"see the images in one order; to go on, give data\.order=shared"):
        study.run(tiny(**OWN), here, None, THREE)
    study.run(tiny(**STREAMED), here, None, THREE)
    assert_same(here, resident)


def test_another_order_is_refused_and_another_way_to_hold_the_data_is_not():
    own, shared, streamed = (planning.plan(tiny(**fields)).sources() for fields in ({}, SHARED, STREAMED))
    for here, there in ((streamed, shared), (shared, streamed), (own, own)):
        provenance.check_data(here, provenance.data(there), "here")
    for here, there, message in (
        (streamed, own, "its runs has an order of the images of its own; to go on, give data.resident=true"),
        (own, streamed, "all its runs see the images in one order; to go on, give data.order=shared"),
    ):
        with pytest.raises(errors.UserError, match=re.escape(message)):
            provenance.check_data(here, provenance.data(there), "here")
    changed = dataclasses.replace(next(iter(streamed.values())), splits={})
    with pytest.raises(errors.UserError, match="are not those that the study began with"):
        provenance.check_data(dict.fromkeys(streamed, changed), provenance.data(shared), "here")


# Memory


def test_nothing_reads_a_whole_split(tmp_path, monkeypatch, capsys):
    """Neither training, nor evaluation, whose images are some of each split, nor the page."""
    read, sizes = stored.ArrayInMemory.read, []
    monkeypatch.setattr(
        stored.ArrayInMemory, "read", lambda self, rows, told: sizes.append(len(rows)) or read(self, rows, told)
    )
    for module, name, value in ((stored, "FEW", 100), (stored, "SAMPLE", 50), (dataset, "EVALUATED", 120)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(session, "VALID", 4 * 64 * 90)  # images as floats
    rows = study.run(tiny(data__resident="false", train__epochs=2, eval__batch_size=64), tmp_path / "here")
    vae_jax.report(tmp_path / "here")
    assert max(sizes) == 128  # a batch
    assert "evaluation: 120 of 1,295 train images, 120 of 359 test images, evenly from all of them (eval.images)" in (
        capsys.readouterr().err
    )
    arrays = run_directory.read_arrays(tmp_path / "here" / "arrays" / "run_0000.npz")
    assert len(arrays["codes_mean"]) == len(arrays["labels"]) == 120
    assert 0 < rows[0]["knn_accuracy"] <= 1


def peak_private(process: int) -> int:
    """RssAnon of a process and its children, in bytes, at most while it runs."""
    most = 0
    while True:
        found, waiting = 0, [process]
        while waiting:
            folder = pathlib.Path(f"/proc/{waiting.pop()}")
            try:
                status = (folder / "status").read_text()
                waiting += [int(child) for task in folder.glob("task/*/children") for child in task.read_text().split()]
            except OSError:
                continue
            found += sum(1024 * int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon"))
        if not found:
            return most
        most = max(most, found)
        time.sleep(0.02)


@pytest.mark.stress
@pytest.mark.parametrize("count", [100_000, 2_000_000])
def test_memory_does_not_grow_with_the_data(tmp_path, count):
    """Training and evaluation of so many images of 32x32x3 bytes: below 2 GB, and as much for half of them."""
    block, most = np.random.default_rng(0).integers(0, 256, (10_000, 32, 32, 3), np.uint8), []
    for number in (count // 2, count):
        path = tmp_path / "images.npy"
        file = np.lib.format.open_memmap(path, "w+", np.uint8, (number, 32, 32, 3))
        for start in range(0, number, len(block)):
            file[start : start + len(block)] = block
        del file
        fields = {
            "data.name": "npy",
            "data.path": path,
            "data.resident": "false",
            "train.epochs": 1,
            "train.batch_size": 256,
        }
        fields |= {"model.hidden": "(64,)", "model.latents": 8, "eval.samples": 2, "train.checkpoint_steps": 1000}
        command = [
            sys.executable,
            "-m",
            "experiments.train",
            "--config=configs/vae.py",
            f"--workdir={tmp_path / str(number)}",
        ]
        command += [f"--config.{key}={value}" for key, value in fields.items()]
        start = time.monotonic()
        process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        most.append(peak_private(process.pid))
        _, err = process.communicate()
        assert process.returncode == 0, err
        print(f"{number:,} images: {most[-1] / 1e6:.0f} MB private at most, {time.monotonic() - start:.0f} s")
    assert max(most) < 2e9
    assert most[1] < 1.1 * most[0] + 5e7
