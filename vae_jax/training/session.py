"""Runs of one spec on the devices: their state, the program of a chunk, their lines of metrics and their checkpoints."""

import dataclasses
import math
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from vae_jax.core import errors, keys
from vae_jax.data import stored
from vae_jax.data.dataset import Dataset
from vae_jax.storage import checkpoints, run_directory
from vae_jax.system import memory, multihost, runs
from vae_jax.training.state import Hyperparams, Metrics, RunSpec, TrainState
from vae_jax.training.step import Program, program_of

OnChunk = Callable[[list[run_directory.Row]], object]

VALID = 2**27  # bytes of validation images, as floats, where data stay on a disk
BLOCK = 2**25  # bytes of a block of batches from there, at most, where that is not less than one batch


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs to train together, and where what they leave goes.

    Attributes:
      spec: what the runs share.
      hyperparams: with a leading runs axis, NumPy.
      dataset: trained on, and validated on if it has a "valid" split.
      labels: one row per run (run, name, seed) that heads each of its lines of metrics.
      checkpoints: their directory; those within a chunk are beside it, see `within`.
      metrics: the file to which one line per chunk and run is appended.
    """

    spec: RunSpec
    hyperparams: Hyperparams
    dataset: Dataset
    labels: list[run_directory.Row]
    checkpoints: pathlib.Path
    metrics: pathlib.Path

    def saved(self) -> checkpoints.Checkpoint | None:
        """The newest whole checkpoint, or None where none was saved."""
        return load(self.spec, self.hyperparams, self.dataset, self.checkpoints)

    @property
    def within(self) -> pathlib.Path:
        """The directory of checkpoints within a chunk."""
        return within(self.checkpoints)


def within(directory: pathlib.Path) -> pathlib.Path:
    """The directory of checkpoints within a chunk, of those whose others are in `directory`."""
    return directory.with_name(f"{directory.name}_steps")


class Begun(NamedTuple):
    """Where training was saved.

    Attributes:
      epoch: that the last lines of metrics are of.
      steps: that each run has done.
      tree: what is carried on: of a whole chunk the state.
      size: of the file of metrics, in bytes.
    """

    epoch: int
    steps: int
    tree: Any
    size: int


class Session:
    """A job on the devices, from its first state or a checkpoint on.

    Attributes:
      epoch: that the last lines of metrics are of.
      steps: that each run has done.
      held: what is carried from call to call, as `blocks` takes it.
      size: how long the metrics file is, in bytes.
      host: the state that was saved last.
      rows: what was added to the metrics file last.
    """

    held: Any
    host: TrainState
    rows: list[run_directory.Row]

    def __init__(self, job: Job, most: int, saved: checkpoints.Checkpoint | None, on_chunk: OnChunk | None):
        self.job, self.on_chunk, self.rows = job, on_chunk, []
        begun = self._begun(saved)
        self.epoch, self.steps = (begun.epoch, begun.steps) if begun else (0, 0)
        self.saved_at = saved.step * job.spec.steps_per_epoch if saved else 0
        self.size = self._forget(begun)
        self.mesh = runs.mesh(most, job.spec.train.data_devices)
        statistics = runs.put(job.dataset.statistics(job.spec.model.normalize), self.mesh, shared=True)
        valid = validation(job.dataset)
        self.valid = None if valid is None else runs.put(valid, self.mesh, shared=True)
        state = state_like(job.spec, job.hyperparams, job.dataset)
        room = memory.per_device(2 * memory.size(state)) - memory.size(valid)  # the host holds all states twice to save them
        program = program_of(job.spec)
        self.blocks, self.program = self._compiled(program, most, state, room)
        self.measured = program.over_runs("measure", self.mesh, mapped=2)
        self.hyperparams = self.blocks.hold(job.hyperparams)
        init = program.over_runs("init", self.mesh)
        with memory.watched(self.together):
            if begun:
                self.held = self.blocks.hold(begun.tree)
            else:
                self.held = self._carried(self.blocks.call(init, (self.hyperparams,), statistics))

    def _forget(self, begun: Begun | None) -> int:
        """Take back the lines of metrics after those of the checkpoint; returns the length of the file."""
        if not multihost.writes():
            return 0
        # Before the first checkpoint also the line before the first step.
        last = begun.epoch if begun else -1
        size = run_directory.forget(self.job.metrics, [row["run"] for row in self.job.labels], last)
        if begun and size < begun.size:
            raise run_directory.shortened(self.job.metrics, size, begun.size)
        return size

    # What is other where the data come block by block.

    def _begun(self, saved: checkpoints.Checkpoint | None) -> Begun | None:
        """Where training goes on."""
        if saved is None:
            return None
        steps = saved.step * self.job.spec.steps_per_epoch
        return Begun(saved.step, steps, saved.state, saved.metadata["metrics_bytes"])

    def _compiled(self, program: Program, most: int, state: TrainState, room: int) -> tuple[runs.Blocks, Callable]:
        """How many runs are on the devices at a time, and the program that `advance` calls."""
        self.pixels = runs.put(self.job.dataset.splits["train"].pixels, self.mesh, shared=True)
        count = len(self.job.labels)
        trees = state, self.job.hyperparams, np.zeros(count, np.int32)
        return fitted(program, "advance", self.mesh, most, count, trees, (self.pixels,), room)

    def _carried(self, state: TrainState) -> Any:
        """What is carried from a state on, at the beginning of a chunk."""
        return state

    @property
    def state(self) -> TrainState:
        """Where the runs are."""
        return self.held

    def advance(self) -> None:
        """Train a chunk and write its lines of metrics."""
        spec = self.job.spec
        length = min(spec.chunk_epochs, spec.train.epochs - self.epoch)
        with memory.watched(self.together):
            held = self.held, self.hyperparams, self.blocks.hold_number(length)
            self.held, chunk = self.blocks.call(self.program, held, self.pixels)
            chunk = self.blocks.fetch(chunk)  # waits: what fails on a device fails here
            self.steps += length * spec.steps_per_epoch
            self._end_chunk(length, chunk)

    def due(self) -> bool:
        """Whether a checkpoint is: after so many epochs, or at the end."""
        train, spec = self.job.spec.train, self.job.spec
        epochs = (self.steps - self.saved_at) / spec.steps_per_epoch
        return bool(train.checkpoint_every and epochs >= train.checkpoint_every) or self.epoch == train.epochs

    def save(self) -> None:
        """Write a checkpoint."""
        self.host = self.blocks.fetch(self.state)
        checkpoints.save(self.job.checkpoints, self.epoch, self.host, {"metrics_bytes": self.size})
        self.saved_at = self.steps

    @property
    def where(self) -> str:
        """How far the runs are, in words."""
        return f"epoch {self.epoch} of {self.job.spec.train.epochs}"

    # What is alike.

    @property
    def together(self) -> int:
        """How many runs are on the devices at a time."""
        return min(self.blocks.size, len(self.job.labels))

    @property
    def total(self) -> int:
        """Steps of all runs."""
        return self.job.spec.train.epochs * self.job.spec.steps_per_epoch * len(self.job.labels)

    @property
    def done(self) -> int:
        """Of those, how many are done."""
        return self.steps * len(self.job.labels)

    def start(self) -> None:
        """Write the lines of metrics before the first step: of as many training images as there are validation images."""
        count = measured_first(self.job) if self.valid is None else len(self.valid)
        images = runs.put(self.job.dataset.sample(count), self.mesh, shared=True)
        with memory.watched(self.together):
            self._write(self._measure(images, keys.Stream.START))

    def _end_chunk(self, length: int, train: Metrics) -> None:
        """Write the lines of metrics of a chunk of so many epochs."""
        self.epoch += length
        self._write(train)

    def _measure(self, images: Any, stream: keys.Stream) -> Metrics:
        """Metrics of every run as it is, on these images."""
        held = self.state, self.hyperparams
        return self.blocks.fetch(self.blocks.call(self.measured, held, images, np.int32(stream)))

    def _write(self, train: Metrics) -> None:
        """Add lines of metrics to the file, with those of the validation split, and pass them to the callback."""
        metrics = {"train": train}
        if self.valid is not None:
            metrics["valid"] = self._measure(self.valid, keys.Stream.VALID)
        self.rows = _lines(self.job.labels, self.epoch, self.steps, metrics)
        if multihost.writes():
            # Raises if the file was deleted or recreated meanwhile.
            run_directory.truncate(self.job.metrics, self.size)
            self.size = run_directory.append_jsonl(self.job.metrics, self.rows)
            if self.on_chunk:
                self.on_chunk(self.rows)


def validation(dataset: Dataset) -> np.ndarray | None:
    """The images of the validation split, if there is one; of a large one on a disk some, evenly from all of it."""
    if "valid" not in dataset.splits:
        return None
    if not dataset.is_streamed:
        return dataset.images("valid")
    most = max(VALID // (4 * math.prod(dataset.spec.shape)), 1)
    return dataset.chosen("valid", stored.evenly(len(dataset.splits["valid"]), most))


def measured_first(job: Job) -> int:
    """How many training images are measured before the first step, of data that are in memory."""
    splits = job.dataset.splits
    return len(splits["valid"]) if "valid" in splits else min(10 * job.spec.batch_size, job.spec.train_size)


def block_steps(spec: RunSpec, dtype: np.dtype) -> int:
    """Steps of a block of batches, at most; it goes neither beyond an epoch nor beyond a checkpoint that is due."""
    batch = spec.batch_size * math.prod(spec.images.shape) * dtype.itemsize
    most = min(spec.steps_per_epoch, spec.train.checkpoint_steps or spec.steps_per_epoch)
    return int(np.clip(BLOCK // batch, 1, most))


def held_by_devices(spec: RunSpec, dataset: Dataset) -> int:
    """Bytes of data that are on each device while runs are trained."""
    train, valid = dataset.splits["train"].pixels, dataset.splits.get("valid")
    floats = 4 * math.prod(dataset.spec.shape)
    if not dataset.is_streamed:
        # Training has bytes and the valid split as floats on every device, evaluation batches of them.
        return train.nbytes + (len(valid) * floats if valid else 0)
    batch = spec.batch_size // spec.train.data_devices * math.prod(dataset.spec.shape) * train.dtype.itemsize
    # One block is trained while the next one is there already.
    return 2 * block_steps(spec, train.dtype) * batch + (min(len(valid) * floats, max(VALID, floats)) if valid else 0)


def too_large(needed: int, shared: int, room: int) -> errors.UserError:
    """The error of runs that need too much of a device."""
    return errors.UserError(
        f"one run needs {memory.text(needed)} on its device, {memory.text(shared)} of it for the data, and there are "
        f"{memory.text(room)}; make the model, train.batch_size or the data smaller, or use fewer devices"
    )


def fitted(
    program: Program,
    name: str,
    mesh: Mesh,
    most: int,
    count: int,
    trees: tuple,
    shared: tuple,
    room: int,
    first: PartitionSpec | None = None,
) -> tuple[runs.Blocks, Callable]:
    """As many runs at a time, of at most `most`, as fit into `room` bytes on each device, and the program of so many.

    Args:
      program: of the runs.
      name: of its method: a function of some trees of a run, of the data, and of what else the runs share.
      mesh: where it is computed.
      most: runs at a time.
      count: of all runs.
      trees: of all runs, or their shapes.
      shared: the data, and what else there is, or their shapes.
      room: bytes.
      first: how the data are split over devices; None: each has all of them.

    Raises:
      UserError: not even one run for each device fits.
    """
    lanes, data = mesh.shape["runs"], memory.size(shared[0])
    each = math.ceil(most / lanes)
    while True:
        shapes = runs.shaped(trees, mesh, each * lanes)
        compiled = advancing(program, name, mesh, each, len(trees), first).lower(*shapes, *shared).compile()
        needed = memory.needed(compiled)
        if needed <= room:
            return runs.Blocks(mesh, count, each * lanes), compiled
        if each == 1:
            raise too_large(needed, data, room)
        # As if all but the data grew with the runs, which is true or asks for too few.
        each = max(1, min(each - 1, int(each * (room - data) / (needed - data))))


def advancing(
    program: Program, name: str, mesh: Mesh, each: int, mapped: int, first: PartitionSpec | None = None
) -> runs.OverRuns:
    """The program of a chunk, or a part of it, for `each` runs on a device, of so many trees of a run; see `fitted`."""
    # A GPU is filled by many runs in one vectorised program; a CPU's core is full with one.
    together = None if jax.default_backend() == "cpu" else each
    options = {} if first is None else {"first": first}
    return program.over_runs(name, mesh, mapped=mapped, donate=True, together=together, **options)


def load(
    spec: RunSpec, hyperparams: Hyperparams, dataset: Dataset, directory: pathlib.Path
) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of these runs, or None where none was saved."""
    return checkpoints.load_latest(directory, state_like(spec, hyperparams, dataset))


def state_like(spec: RunSpec, hyperparams: Hyperparams, dataset: Dataset) -> TrainState:
    """The shapes of the state of these runs."""
    count = len(hyperparams.seed)
    # By the program that makes the first state, which is traced in any case. Training may have had more devices.
    mesh = runs.mesh(count, min(spec.train.data_devices, jax.device_count()))
    statistics = runs.shaped(dataset.statistics(spec.model.normalize), mesh)
    many = runs.shaped(hyperparams, mesh, -(-count // mesh.shape["runs"]) * mesh.shape["runs"])
    shapes = program_of(spec).over_runs("init", mesh).shapes(many, statistics)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((count, *leaf.shape[1:]), leaf.dtype), shapes)


def _lines(labels: list[run_directory.Row], epoch: int, step: int, chunk: dict[str, Metrics]) -> list[run_directory.Row]:
    """One row per run: train metrics are means over the chunk, valid ones stand at its end."""
    columns = {
        f"{split}_{field.name}": getattr(metrics, field.name)
        for split, metrics in chunk.items()
        for field in dataclasses.fields(metrics)
    }
    return [
        row | {"epoch": epoch, "step": step} | {name: float(values[run]) for name, values in columns.items()}
        for run, row in enumerate(labels)
    ]
