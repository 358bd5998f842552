"""What the benchmark times: each entry yields rows of one table, measured together."""

import dataclasses
import functools
import importlib
import itertools
import math
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import optax

from configs import base
from configs import curve as curve_study
from scripts import studies, timing
from scripts.timing import Contestant, Timing
from vae_jax.core import keys
from vae_jax.data.dataset import Dataset, ImageSpec, Split, load
from vae_jax.evaluation import estimators
from vae_jax.models.vae import VAE, ModelSpec
from vae_jax.study import grid, planning
from vae_jax.system import runs
from vae_jax.system.progress import counted
from vae_jax.training.optimizers import OPTIMIZERS, Optimizer
from vae_jax.training.session import Job, Session
from vae_jax.training.step import Program
from vae_jax.training.streamed import StreamedSession


@dataclasses.dataclass(frozen=True)
class Row:
    """One comparison: seconds per `unit`, ours over theirs, and what it should be at most."""

    what: str
    unit: str
    ours: float
    against: str
    theirs: float
    goal: float | None = None
    floor: float | None = None
    compile: float | None = None  # of ours, seconds

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs


PEERS = ("pytorch_loop", "jit_epoch", "jit_step")  # modules of scripts/peers


def importable(peers: Sequence[str]) -> tuple[str, ...]:
    """Those of `peers` whose packages are there, and a word about each of the others."""
    found = []
    for name in peers:
        try:
            importlib.import_module(f"scripts.peers.{name}")
            found.append(name)
        except ImportError as error:
            print(f"no rows of {name}: {error}; python -m pip install -r scripts/peers/requirements.txt")
    return tuple(found)


@dataclasses.dataclass(frozen=True)
class Settings:
    """How much is done: `tiny` sizes only show that everything runs."""

    repeat: int
    peers: tuple[str, ...] = ()  # of PEERS
    tiny: bool = False

    def size(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full

    def peer(self, name: str, shown: str, epoch: Callable[[Any], timing.Work], units: float = 1.0) -> list[Contestant]:
        """A peer as a contestant, where it is to be timed: what `epoch` makes of its module."""
        if name not in self.peers:
            return []
        return [Contestant(shown, epoch(importlib.import_module(f"scripts.peers.{name}")), units)]


def rows(
    what: str, unit: str, times: Mapping[str, Timing], goals: Mapping[str, float | None], floor: str | None = None
) -> Iterator[Row]:
    """A row for each of `goals`: "ours" against that contestant."""
    ours = times["ours"]
    for against, goal in goals.items():
        if against in times:
            lowest = times[floor].seconds if floor else None
            yield Row(what, unit, ours.seconds, against, times[against].seconds, goal, lowest, ours.compile)


# What is timed of ours.


def run_together(dataset: Dataset, settings: Mapping[str, Any], count: int, epochs: int) -> timing.Work:
    """`epochs` epochs of `count` runs that differ in their seed: the program of a chunk, as `fit` calls it."""
    config = base.get_config().to_dict()
    for key, value in settings.items():
        group, _, field = key.partition(".")
        config[group][field] = value
    planned = [planning.specify(run, dataset) for run in grid.expand(config, None, [("seed", range(count))])]
    spec, mesh = planned[0][0], runs.mesh(count)
    hyperparams = runs.put(runs.pad(runs.stack([traced for _, traced in planned]), mesh.size), mesh)
    shared = dataset.statistics(spec.model.normalize), dataset.splits["train"].pixels
    statistics, pixels = runs.put(shared, mesh, shared=True)
    program = Program(spec)
    state = runs.over_runs(program.init, mesh)(hyperparams, statistics)
    traces = 0

    def counted(*args):
        nonlocal traces
        traces += 1
        return program.advance(*args)

    advance = runs.over_runs(counted, mesh, mapped=3, donate=True)
    numbers = runs.Blocks(mesh, count, len(hyperparams.seed)).hold_number(epochs)

    def work() -> None:
        nonlocal state
        state, _ = advance(state, hyperparams, numbers, pixels)
        jax.block_until_ready(state)
        # A second program for the same spec would make every other time of this table worthless.
        if traces != 1:
            raise AssertionError(f"{traces} programs for one spec")

    return work


def noise(count: int, shape: tuple[int, ...], levels: int) -> Dataset:
    """Random bytes, dark in four pixels of five, as a data set: the time of a step does not depend on what it sees."""
    generator = np.random.default_rng(0)
    lit = generator.random((count, *shape)) < 0.2
    pixels = (generator.integers(0, levels + 1, (count, *shape)) * lit).astype(np.uint8)
    return Dataset({"train": Split(pixels)}, ImageSpec(shape, levels, False), 0)


def mnist_images(settings: Settings) -> tuple[str, Dataset]:
    if "TFDS_DATA_DIR" in os.environ and not settings.tiny:
        return "mnist", load("mnist", valid_fraction=0.0)
    return "random 28x28", noise(settings.size(60_000, 512), (28, 28, 1), 255)


def unit_images(dataset: Dataset) -> np.ndarray:
    """Flat images in [0, 1], as the peers take them."""
    return dataset.images("train").reshape(len(dataset.splits["train"]), -1)


# Entries.


def mnist(settings: Settings) -> Iterator[Row]:
    """784-400-20, batch 128, Adam: one epoch."""
    name, dataset = mnist_images(settings)
    batch, hidden, latents = 128, settings.size(400, 16), 20
    pixels, count = math.prod(dataset.spec.shape), len(dataset.splits["train"])
    layers = [(batch, pixels, hidden), (batch, hidden, 2 * latents), (batch, latents, hidden), (batch, hidden, pixels)]
    products, parameters = timing.training_products(layers), sum((a + 1) * b for _, a, b in layers)
    fields = {"model.latents": latents, "model.hidden": (hidden,), "model.activation": "relu", "model.normalize": "none"}
    fields |= {"optimizer.schedule": "constant", "optimizer.learning_rate": 1e-3, "train.batch_size": batch}
    OPTIMIZERS["adam_of_optax"] = Optimizer(lambda config: optax.adam(1.0, config.b1, config.b2, config.eps))
    contestants = [
        Contestant("ours", run_together(dataset, fields, 1, 1)),
        Contestant("floor", timing.floor(products, parameters, count // batch)),
        Contestant("Adam of optax", run_together(dataset, fields | {"optimizer.name": "adam_of_optax"}, 1, 1)),
    ]
    x, sizes = unit_images(dataset) if settings.peers else None, (hidden, latents, batch)
    contestants += [
        *settings.peer("pytorch_loop", "PyTorch loop", lambda m: m.epoch(m.mlp(pixels, (hidden,), latents), x, batch)),
        *settings.peer("jit_epoch", "numpyro's way", lambda m: m.epoch(x, *sizes, binarize=False)),
        *settings.peer("jit_step", "flax's way", lambda m: m.epoch(x, *sizes)),
    ]
    times = timing.measure(contestants, settings.repeat)
    # Our own Adam is kept while it saves a twentieth of an epoch.
    goals = {"floor": 1.05, "Adam of optax": 0.95, "PyTorch loop": 0.5, "numpyro's way": 0.8, "flax's way": None}
    yield from rows(f"{name} 784-400-20", "epoch", times, goals, "floor")


def digits(settings: Settings) -> Iterator[Row]:
    """64-128-2, batch 64: 64 runs together, one alone, 256 together."""
    dataset = load("digits", valid_fraction=0.0)
    epochs, hidden, count = settings.size(20, 1), settings.size(128, 4), settings.size(64, 2)
    fields = {"model.hidden": (hidden,), "model.activation": "relu", "train.batch_size": 64, "model.normalize": "none"}
    contestants = [
        Contestant("ours", run_together(dataset, fields, count, epochs), count * epochs),
        Contestant("a run alone", run_together(dataset, fields, 1, epochs), epochs),
        Contestant("four times the runs", run_together(dataset, fields, 4 * count, epochs), count * epochs),
    ]
    contestants += settings.peer(
        "pytorch_loop", "PyTorch loop", lambda m: m.epoch(m.mlp(64, (hidden,), 2), unit_images(dataset), 64)
    )
    times = timing.measure(contestants, settings.repeat)
    name = f"digits 64-{hidden}-2, {count} runs"
    yield from rows(name, "run-epoch", times, {"a run alone": 0.35, "PyTorch loop": 0.08})
    fewer, more = count * times["ours"].seconds, count * times["four times the runs"].seconds
    yield Row(f"digits, {4 * count} runs", "epoch", more, f"{count} runs", fewer, 4.2)


def conv(settings: Settings) -> Iterator[Row]:
    """The 64x64 convolutional VAE of disentanglement_lib, batch 64: one step, inside the scanned chunk."""
    size, batch, steps = settings.size(64, 8), settings.size(64, 4), settings.size(10, 1)
    channels, dense, latents = ((32, 32, 64, 64), 256, 10) if not settings.tiny else ((4, 6), 8, 2)
    dataset = noise(steps * batch, (size, size, 1), 255)
    fields: dict[str, Any] = {
        "model.encoder": "conv",
        "model.decoder": "conv",
        "model.hidden": (*channels, dense),
        "model.activation": "relu",
    }
    fields |= {"model.latents": latents, "model.normalize": "none", "train.batch_size": batch}
    products, parameters = conv_products(batch, size, channels, dense, latents)
    contestants = [
        Contestant("ours", run_together(dataset, fields, 1, 1), steps),
        Contestant("floor", timing.floor(timing.training_products(products), parameters, steps), steps),
    ]

    def pytorch_loop(peer) -> timing.Work:
        x = dataset.images("train").reshape(-1, 1, size, size)
        return peer.epoch(peer.conv(channels, dense, latents, size), x, batch)

    contestants += settings.peer("pytorch_loop", "PyTorch loop", pytorch_loop, steps)
    times = timing.measure(contestants, settings.repeat)
    yield from rows(f"conv {size}x{size}", "step", times, {"floor": None, "PyTorch loop": 1.0}, "floor")


def conv_products(batch: int, size: int, channels, dense: int, latents: int) -> tuple[list[timing.Product], int]:
    """The layers of that network as products over patches, and how many parameters they have."""
    layers, before = [], 1
    for depth, after in enumerate(channels):
        layers.append((batch * (size >> depth + 1) ** 2, 16 * before, after))
        before = after
    flat = before * (size >> len(channels)) ** 2
    mirror = [(rows, outputs, inputs) for rows, inputs, outputs in reversed(layers)]
    middle = [(flat, dense), (dense, 2 * latents), (latents, dense), (dense, flat)]
    layers += [(batch, inputs, outputs) for inputs, outputs in middle] + mirror
    return layers, sum(inputs * outputs for _, inputs, outputs in layers)


def stream(settings: Settings) -> Iterator[Row]:
    """3072-512-32, batch 256: an epoch of bytes in an .npy file that is read for each batch, beside the same in memory."""
    count, hidden = settings.size(51_200, 640), settings.size(512, 4)
    fields = {"model.latents": settings.size(32, 2), "model.hidden": (hidden,), "model.activation": "relu"}
    fields |= {"train.batch_size": 256, "train.chunk_epochs": 1, "train.epochs": settings.repeat + 1}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        np.save(folder / "images.npy", np.random.default_rng(0).integers(0, 256, (count, 32, 32, 3), np.uint8))
        contestants = [
            Contestant(who, epochs_of(folder / "images.npy", how, fields, folder / how))
            for who, how in (("ours", "false"), ("in memory", "true"))
        ]
        times = timing.measure(contestants, settings.repeat)
    yield from rows(f"3072-{hidden}-32 read from a file", "epoch", times, {"in memory": 1.11})


def epochs_of(path: pathlib.Path, resident: str, settings: Mapping[str, Any], folder: pathlib.Path) -> timing.Work:
    """An epoch of the images of an .npy file, as `fit` trains it: with its line of metrics, without checkpoints."""
    dataset = load("npy", path=str(path), resident=resident, order="shared", valid_fraction=0.0)
    config = base.get_config().to_dict()
    for key, value in settings.items():
        group, _, field = key.partition(".")
        config[group][field] = value
    spec, hyperparams = planning.specify(grid.expand(config)[0], dataset)
    folder.mkdir()
    labels: list[dict[str, Any]] = [{"run": 0, "name": "vae", "seed": 0}]
    job = Job(spec, runs.stack([hyperparams]), dataset, labels, folder / "checkpoints", folder / "metrics.jsonl")
    session = (StreamedSession if dataset.is_streamed else Session)(job, 1, None, None)

    def work() -> None:
        epoch = session.epoch
        while session.epoch == epoch:
            session.advance()

    return work


def start(settings: Settings) -> Iterator[Row]:
    """From the shell to the end of a digits run, its evaluation and figures included."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            sys.executable,
            "-m",
            "experiments.train",
            "--config=configs/vae.py",
            f"--compilation_cache={folder}/cache",
        ]
        if settings.tiny:
            command += ["--config.train.epochs=1", "--config.eval.samples=1", "--config.eval.decoded=20"]

        def train(name: str) -> None:
            root = pathlib.Path(__file__).parents[1]
            subprocess.run([*command, f"--workdir={folder}/{name}"], cwd=root, check=True, capture_output=True)

        cold = timing.seconds(lambda: train("cold"))
        warm = [timing.seconds(functools.partial(train, f"warm_{i}")) for i in range(settings.repeat)]
    yield Row("start, cold cache", "digits run", cold, "limit", 9.0, 1.0)
    yield Row("start, warm cache", "digits run", sorted(warm)[len(warm) // 2], "limit", 4.5, 1.0)


def importance(settings: Settings) -> Iterator[Row]:
    """5000-sample bound of 10,000 images, 784-200-200-50: timed on one batch of 500 images and a share of the draws."""
    batch, draws = settings.size(500, 4), settings.size(250, 2)
    widths = (50, 200, 200, 784) if not settings.tiny else (2, 4, 4, 784)
    model = ModelSpec(shape=(28, 28, 1), latents=widths[0], hidden=widths[1:-1], sigma="", normalize="none")
    x = noise(batch, (28, 28, 1), 255).images("train")
    variables = jax.jit(VAE(model).init)(jax.random.key(0), x)

    @jax.jit
    def bound(variables, x, key):
        vae = VAE(model).bind(variables)
        return estimators.importance_bound(vae, x, vae.encode(x), key, 1.0, draws)

    key = keys.stream(0, keys.Stream.EVALUATION)
    products = [(batch, before, after) for before, after in itertools.pairwise(widths)]
    share = batch * draws / (10_000 * 5000)
    times = timing.measure(
        [
            Contestant("ours", lambda: jax.block_until_ready(bound(variables, x, key)), share),
            Contestant("floor", timing.floor(products, steps=draws), share),
        ],
        settings.repeat,
    )
    yield from rows(f"importance bound (scaled up from {share:.1e} of it)", "run", times, {"floor": 2.0}, "floor")


def growth(settings: Settings) -> Iterator[Row]:
    """Twice the data, the epochs, or the runs."""
    fields = {"model.hidden": (settings.size(128, 4),), "train.batch_size": 64, "model.normalize": "none"}
    small, large = (noise(settings.size(count, count // 10), (8, 8, 1), 16) for count in (1280, 2560))
    count, epochs = settings.size(16, 2), settings.size(20, 1)
    grown = {
        "data": run_together(large, fields, count, epochs),
        "epochs": run_together(small, fields, count, 2 * epochs),
        "runs": run_together(small, fields, 2 * count, epochs),
    }
    once = Contestant("once", run_together(small, fields, count, epochs))
    times = timing.measure([once, *(Contestant(name, work) for name, work in grown.items())], settings.repeat)
    for name in grown:
        yield Row(f"growth, twice the {name}", f"{count} runs", times[name].seconds, "once", times["once"].seconds, 2.1)


def evaluation(settings: Settings) -> Iterator[Row]:
    """Seconds of evaluation over seconds of training, with the defaults and with `--eval=quick`."""
    goals = {"full": 0.5, "quick": 0.1}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        for each in studies.evaluated(folder, settings.tiny):
            for chosen, found, trained in studies.measure(each, folder, settings.repeat):
                what = f"{each.what}, {chosen}"
                yield Row(what, "evaluation", found.seconds, "training", trained, goals[chosen], compile=found.compile)


def curve(settings: Settings) -> Iterator[Row]:
    """The whole curve from one network that is told beta, over nine of one beta each, as `configs/curve.py` has them."""
    dataset, seeds = load("digits"), settings.size(len(curve_study.SEEDS), 1)
    told: dict[str, Any] = {"model.conditioning": "beta"} | curve_study.TOLD
    alone: dict[str, Any] = curve_study.ALONE
    share = settings.size(10, 100)  # of the epochs
    works = {
        "ours": run_together(dataset, told, seeds, told["train.epochs"] // share),
        "nine runs": run_together(dataset, alone, len(curve_study.BETAS) * seeds, alone["train.epochs"] // share),
    }
    times = timing.measure([Contestant(name, work, 1 / share) for name, work in works.items()], settings.repeat)
    yield from rows(f"curve on digits, {counted(seeds, 'seed')}", "training", times, {"nine runs": 0.35})


ENTRIES = {entry.__name__: entry for entry in (mnist, digits, conv, stream, start, importance, growth, evaluation, curve)}
