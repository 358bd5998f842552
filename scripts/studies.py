"""Whole studies that the benchmark times: how long their evaluation takes beside their training."""

import os
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from configs import ablations, base, pytorch_examples
from scripts import timing
from vae_jax.storage import run_directory
from vae_jax.study import study


class Study(NamedTuple):
    """A config with its sweep."""

    what: str
    config: ml_collections.ConfigDict
    sweep: Callable | None = None


SETS = ("full", "quick")  # that each is evaluated by, in that order
TINY = {"train.epochs": 1, "model.hidden": (4, 6), "model.latents": 2, "eval.samples": 2, "eval.decoded": 20}
CONV = {
    "model.encoder": "conv",
    "model.decoder": "conv",
    "model.hidden": (32, 32, 64, 64, 256),
    "model.activation": "relu",
    "model.latents": 10,
    "model.normalize": "none",
    "data.valid_fraction": 0.0,
    "train.batch_size": 64,
    "train.epochs": 10,
}


def evaluated(folder: pathlib.Path, is_tiny: bool) -> list[Study]:
    """Digits (65 runs), MNIST at 10 epochs, 64x64 grey images at 2,000 steps; random images are written to `folder`."""
    studies = [
        Study("digits, 65 runs", ablations.get_config(), ablations.sweep),
        Study("mnist 784-400-20, 10 epochs", pytorch_examples.get_config()),
        Study("conv 64x64, 2,000 steps", base.get_config()),
    ]
    digits, mnist, conv = (each.config for each in studies)
    mnist.train.batch_size = 128
    if "TFDS_DATA_DIR" not in os.environ or is_tiny:
        studies[1] = studies[1]._replace(what="random 28x28 784-400-20, 10 epochs")
        mnist.update_from_flattened_dict(_noise(folder, 28, (40, 20) if is_tiny else (60_000, 10_000)))
    conv.update_from_flattened_dict(CONV | _noise(folder, 8 if is_tiny else 64, (40, 20) if is_tiny else (12_800, 2_560)))
    if is_tiny:
        for config in (digits, mnist, conv):
            config.update_from_flattened_dict(TINY)
        studies[0] = studies[0]._replace(sweep=None)
    return studies


def _noise(folder: pathlib.Path, side: int, counts: tuple[int, int]) -> dict[str, Any]:
    """Random bytes with random classes as an `.npz` file: the settings that read it."""
    generator = np.random.default_rng(0)
    arrays: dict[str, Any] = {}
    for name, count in zip(("train", "test"), counts, strict=True):
        lit = generator.random((count, side, side)) < 0.2
        arrays[name] = (generator.integers(0, 256, lit.shape) * lit).astype(np.uint8)
        arrays[f"{name}_labels"] = np.arange(count) % 10
    path = folder / f"noise_{side}.npz"
    np.savez(path, **arrays)
    return {"data.name": "npz", "data.path": str(path)}


def measure(each: Study, folder: pathlib.Path, repeat: int) -> Iterator[tuple[str, timing.Timing, float]]:
    """The seconds of each set of evaluation, and of training: medians, once everything was compiled."""
    first = _seconds(each, folder)
    times = [_seconds(each, folder) for _ in range(repeat)]
    medians = {name: statistics.median(found[name] for found in times) for name in first}
    for name in SETS:
        yield name, timing.Timing(medians[name], max(first[name] - medians[name], 0)), medians["trained"]


def _seconds(each: Study, folder: pathlib.Path) -> dict[str, float]:
    """As `log.jsonl` says: of training, and of each evaluation."""
    with tempfile.TemporaryDirectory(dir=folder) as workdir:
        study.run(each.config, workdir, each.sweep)
        study.evaluate(workdir, None, "quick")
        events = run_directory.read_jsonl(pathlib.Path(workdir) / "log.jsonl")
    trained = sum(event["seconds"] for event in events if event["event"] == "trained")
    evaluations = [event["seconds"] for event in events if event["event"] == "evaluated"]
    return {"trained": trained} | dict(zip(SETS, evaluations, strict=True))
