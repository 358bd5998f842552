"""Trains runs of one spec together: the host's loop over chunks, with progress, metrics, checkpoints and resume."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.core import errors, keys
from vae_jax.data.dataset import Dataset
from vae_jax.storage import checkpoints, run_directory
from vae_jax.system import memory, multihost, runs, signals
from vae_jax.system.progress import Progress, counted, say
from vae_jax.training import objectives
from vae_jax.training.state import Hyperparams, Metrics, RunSpec, TrainState
from vae_jax.training.step import Program, program_of

OnChunk = Callable[[list[run_directory.Row]], object]


@dataclasses.dataclass(frozen=True)
class Job:
    """Runs to train together, and where what they leave goes.

    Attributes:
      spec: what the runs share.
      hyperparams: with a leading runs axis, NumPy.
      dataset: trained on, and validated on if it has a "valid" split.
      labels: one row per run (run, name, seed) that heads each of its lines of metrics.
      checkpoints: their directory.
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


def fit(job: Job, stop: Sequence[int] = (), on_chunk: OnChunk | None = None) -> TrainState:
    """Train every run to its last epoch, or go on from where a checkpoint says it was.

    Where the devices have no room for all runs they take turns, chunk by chunk: files and numbers are the same.

    Args:
      job: what to train.
      stop: looked at after each chunk; a signal in it asks to save and stop.
      on_chunk: called with the rows that a chunk adds to the metrics file. After an interruption it is called again with
        those of the chunks since the last checkpoint.

    Returns:
      The final state of every run (host).

    Raises:
      UserError: not even one run for each device fits.
      Stopped: `stop` asked for it, and everything up to there is saved.
    """
    # What was trained since the last checkpoint is trained again after a retry.
    return memory.halving(functools.partial(_attempt, job, stop, on_chunk), len(job.labels))[0]


def check(spec: RunSpec, hyperparams: Hyperparams, dataset: Dataset) -> None:
    """Refuse what `fit` could not do here, as far as that is known without compiling.

    Raises:
      UserError: too few devices, or more memory needed than there is for the states of all runs (host) or for the data and
        the state of one (each device).
    """
    if spec.train.data_devices > jax.device_count():
        raise errors.UserError(
            f"train.data_devices={spec.train.data_devices}: should be at most {jax.device_count()}, the number of devices"
        )
    if jax.process_count() > 1 and jax.device_count() % spec.train.data_devices:
        # A process whose devices were left over could not call the program.
        raise errors.UserError(
            f"train.data_devices={spec.train.data_devices}: should divide the {jax.device_count()} devices of all processes"
        )
    state = memory.size(_state_like(spec, hyperparams, dataset))
    if 2 * state > memory.free():
        raise errors.UserError(
            f"{counted(len(hyperparams.seed), 'run')} would take {memory.text(2 * state)} of the host's memory, twice "
            f"{memory.text(state)} while they are saved, and {memory.text(memory.free())} are free; train fewer runs in one "
            "study"
        )
    pixels = {name: split.pixels for name, split in dataset.splits.items()}
    floats = {name: 4 * array.size for name, array in pixels.items()}
    # Training has bytes and the valid split as floats on every device, evaluation the two others as floats.
    shared = max(pixels["train"].nbytes + floats.get("valid", 0), floats["train"] + floats["test"])
    needed, room = shared + state // len(hyperparams.seed), memory.per_device(2 * state)
    if needed > room:
        raise _too_large(needed, shared, room)


def _too_large(needed: int, shared: int, room: int) -> errors.UserError:
    return errors.UserError(
        f"one run needs {memory.text(needed)} on its device, {memory.text(shared)} of it for the data, and there are "
        f"{memory.text(room)}; make the model, train.batch_size or the data smaller, or use fewer devices"
    )


def _attempt(job: Job, stop: Sequence[int], on_chunk: OnChunk | None, most: int) -> TrainState:
    """See `fit`; at most `most` runs are on the devices at a time."""
    saved = job.saved()
    if saved and saved.step == job.spec.train.epochs:
        return saved.state
    session = _Session(job, most, saved, on_chunk)
    if saved:
        say(f"{_title(job)}: goes on from epoch {saved.step} of {job.spec.train.epochs}")
    progress = Progress(_title(job), session.total, "step")
    progress.begin(session.done)
    if session.epoch == 0:
        session.start()
    while session.epoch < job.spec.train.epochs:
        session.advance()
        asked = -multihost.least(-max(stop, default=0))  # all processes stop together
        if asked or session.due():
            session.save()
        progress.update(session.done, _summary(session.rows))
        if asked:
            progress.finish()
            raise signals.Stopped(asked, f"saved after epoch {session.epoch} of {job.spec.train.epochs}")
    progress.finish()
    _say_missed(job, session.rows)
    return session.host


def _title(job: Job) -> str:
    """What the progress line says is trained."""
    name = ", ".join(dict.fromkeys(str(row["name"]) for row in job.labels))
    return f"{name} ({counted(len(job.labels), 'run')})"


def _summary(rows: list[run_directory.Row]) -> str:
    """The last training metrics: of one run, or the median and the range over the runs, in nats."""
    parts = []
    for name in ("loss", "distortion", "rate"):
        values = np.array([row[f"train_{name}"] for row in rows], float)
        with np.errstate(invalid="ignore"):  # a median between infinities
            middle, low, high = np.median(values), values.min(), values.max()
        parts.append(f"{name} {middle:.4g}" + (f" ({low:.4g} to {high:.4g})" if len(rows) > 1 else ""))
    return ", ".join(parts)


def _say_missed(job: Job, rows: list[run_directory.Row]) -> None:
    """A line where runs have not met the target of their objective."""
    missed_by = objectives.OBJECTIVES[job.spec.objective.kind].missed_by
    if missed_by is None:
        return
    gaps = missed_by(job.hyperparams.objective, np.array([row["train_distortion"] for row in rows], float))
    if missed := np.flatnonzero(gaps > 0).tolist():
        worst = max(missed, key=lambda run: gaps[run])
        say(
            f"{_title(job)}: the target of the distortion was not met by {len(missed)} of them; run {rows[worst]['run']} is "
            f"{gaps[worst]:.3g} nats above it"
        )


class _Session:
    """A job on the devices, from its first state or a checkpoint on.

    Attributes:
      epoch: how far the runs are.
      size: how long the metrics file is, in bytes.
      host: the state that was saved last.
      rows: what was added to the metrics file last.
    """

    host: TrainState
    rows: list[run_directory.Row]

    def __init__(self, job: Job, most: int, saved: checkpoints.Checkpoint | None, on_chunk: OnChunk | None):
        self.job, self.on_chunk = job, on_chunk
        self.epoch = saved.step if saved else 0
        self.size = 0
        self.saved_at = self.epoch
        if multihost.writes():
            # Before the first checkpoint also the line before the first step.
            last = saved.step if saved else -1
            self.size = run_directory.forget(job.metrics, [row["run"] for row in job.labels], last)
            if saved and self.size < saved.metadata["metrics_bytes"]:
                raise run_directory.shortened(job.metrics, self.size, saved.metadata["metrics_bytes"])
        program = program_of(job.spec)
        mesh = self.mesh = runs.mesh(most, job.spec.train.data_devices)
        statistics = runs.put(job.dataset.statistics(job.spec.model.normalize), mesh, shared=True)
        self.pixels = runs.put(job.dataset.splits["train"].pixels, mesh, shared=True)
        valid = job.dataset.images("valid") if "valid" in job.dataset.splits else None
        self.valid = None if valid is None else runs.put(valid, mesh, shared=True)
        state = _state_like(job.spec, job.hyperparams, job.dataset)
        room = memory.per_device(2 * memory.size(state)) - memory.size(valid)  # the host holds all states twice to save them
        trees = state, job.hyperparams
        self.blocks, self.program = _blocks(program, mesh, most, len(job.labels), trees, self.pixels, room)
        self.measured = program.over_runs("measure", mesh, mapped=2)
        self.hyperparams = self.blocks.hold(job.hyperparams)
        init = program.over_runs("init", mesh)
        with memory.watched(self.together):
            if saved:
                self.state = self.blocks.hold(saved.state)
            else:
                self.state = self.blocks.call(init, (self.hyperparams,), statistics)

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
        return self.epoch * self.job.spec.steps_per_epoch * len(self.job.labels)

    def start(self) -> None:
        """Write the lines of metrics before the first step: of as many training images as there are validation images."""
        spec, dataset = self.job.spec, self.job.dataset
        count = min(10 * spec.batch_size, spec.train_size) if self.valid is None else len(self.valid)
        images = runs.put(dataset.sample(count), self.mesh, shared=True)
        with memory.watched(self.together):
            self._write(self._measure(images, keys.Stream.START))

    def advance(self) -> None:
        """Train a chunk and write its lines of metrics."""
        spec = self.job.spec
        length = min(spec.chunk_epochs, spec.train.epochs - self.epoch)
        with memory.watched(self.together):
            held = self.state, self.hyperparams
            self.state, chunk = self.blocks.call(self.program, held, self.pixels, np.int32(length))
            chunk = self.blocks.fetch(chunk)  # waits: what fails on a device fails here
            self.epoch += length
            self._write(chunk)

    def _measure(self, images: Any, stream: keys.Stream) -> Metrics:
        """Metrics of every run as it is, on these images."""
        held = self.state, self.hyperparams
        return self.blocks.fetch(self.blocks.call(self.measured, held, images, np.int32(stream)))

    def _write(self, train: Metrics) -> None:
        """Add lines of metrics to the file, with those of the validation split, and pass them to the callback."""
        metrics = {"train": train}
        if self.valid is not None:
            metrics["valid"] = self._measure(self.valid, keys.Stream.VALID)
        self.rows = _lines(self.job.labels, self.epoch, self.epoch * self.job.spec.steps_per_epoch, metrics)
        if multihost.writes():
            # Raises if the file was deleted or recreated meanwhile.
            run_directory.truncate(self.job.metrics, self.size)
            self.size = run_directory.append_jsonl(self.job.metrics, self.rows)
            if self.on_chunk:
                self.on_chunk(self.rows)

    def due(self) -> bool:
        """Whether a checkpoint is: after so many epochs, or at the end."""
        train = self.job.spec.train
        every = train.checkpoint_every and self.epoch - self.saved_at >= train.checkpoint_every
        return bool(every) or self.epoch == train.epochs

    def save(self) -> None:
        """Write a checkpoint."""
        self.host = self.blocks.fetch(self.state)
        checkpoints.save(self.job.checkpoints, self.epoch, self.host, {"metrics_bytes": self.size})
        self.saved_at = self.epoch


def _blocks(
    program: Program, mesh: Mesh, most: int, count: int, trees: tuple, pixels: Any, room: int
) -> tuple[runs.Blocks, Callable]:
    """As many runs at a time, of at most `most`, as fit into `room` bytes on each device, and `advance` of so many."""
    lanes, shared = mesh.shape["runs"], memory.size(pixels)
    sharding = NamedSharding(mesh, PartitionSpec("runs"))
    each = math.ceil(most / lanes)
    while True:
        shapes = jax.tree.map(
            lambda leaf, each=each: jax.ShapeDtypeStruct((each * lanes, *leaf.shape[1:]), leaf.dtype, sharding=sharding),
            trees,
        )
        # A GPU is filled by many runs in one vectorised program; a CPU's core is full with one.
        together = None if jax.default_backend() == "cpu" else each
        mapped = program.over_runs("advance", mesh, mapped=2, donate=True, together=together)
        compiled = mapped.lower(*shapes, pixels, np.int32(1)).compile()
        needed = memory.needed(compiled)
        if needed <= room:
            return runs.Blocks(mesh, count, each * lanes), compiled
        if each == 1:
            raise _too_large(needed, shared, room)
        # As if all but the data grew with the runs, which is true or asks for too few.
        each = max(1, min(each - 1, int(each * (room - shared) / (needed - shared))))


def load(
    spec: RunSpec, hyperparams: Hyperparams, dataset: Dataset, directory: pathlib.Path
) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of these runs, or None where none was saved."""
    return checkpoints.load_latest(directory, _state_like(spec, hyperparams, dataset))


def _state_like(spec: RunSpec, hyperparams: Hyperparams, dataset: Dataset) -> TrainState:
    """The shapes of the state of these runs."""
    statistics = dataset.statistics(spec.model.normalize)
    return jax.eval_shape(jax.vmap(program_of(spec).init, (0, None)), hyperparams, statistics)


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
