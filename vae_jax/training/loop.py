"""Trains many runs of one spec together: the host's loop over chunks, with progress, metrics, checkpoints and resume."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vae_jax.core import errors
from vae_jax.data import dataset as data
from vae_jax.storage import checkpoints, run_directory
from vae_jax.system import memory, multihost, runs, signals
from vae_jax.system.progress import Progress, counted
from vae_jax.training import step as training


@dataclasses.dataclass(frozen=True)
class Plan:
    """When the host looks at a group of runs, in epochs; never by the clock. Fields of the config's `train` group."""

    chunk_epochs: int
    checkpoint_every: int  # 0: at the end only


def fit(
    spec: training.RunSpec,
    hyperparams: training.Hyperparams,
    dataset: data.Dataset,
    plan: Plan,
    labels: list[run_directory.Row],
    directory: pathlib.Path,
    metrics: pathlib.Path,
    done_before: int,
    stop: Sequence[int] = (),
) -> tuple[training.TrainState, int]:
    """Train every run to its last epoch, or go on from where a checkpoint says it was.

    Where the devices have no room for all runs they take turns, chunk by chunk: files and numbers are the same.

    Args:
      spec: what the runs share.
      hyperparams: with a leading runs axis, NumPy.
      dataset: trained on, and validated on if it has a "valid" split.
      plan: how long a chunk is.
      labels: one row per run (run, name, seed) that heads each of its lines of metrics.
      directory: of the checkpoints.
      metrics: the file that one line per chunk and run is appended to.
      done_before: how long that file was when this group began, in bytes.
      stop: looked at after each chunk; a signal in it asks to save and stop.

    Returns:
      The final state of every run (host), and how long the metrics file is.

    Raises:
      UserError: not even one run for each device fits.
      Stopped: `stop` asked for it, and everything up to there is saved.
    """
    # What was trained since the last checkpoint is trained again after a retry.
    attempt = functools.partial(_fit, spec, hyperparams, dataset, plan, labels, directory, metrics, done_before, stop)
    return memory.halving(attempt, len(labels))[0]


def check(spec: training.RunSpec, hyperparams: training.Hyperparams, dataset: data.Dataset) -> None:
    """Refuse what `fit` could not do here, as far as that is known without compiling.

    Raises:
      UserError: too few devices, or more memory needed than there is for the states of all runs (host) or for the data and
        the state of one (each device).
    """
    if spec.data_devices > jax.device_count():
        raise errors.UserError(f"train.data_devices={spec.data_devices}: there are {jax.device_count()} devices")
    if jax.process_count() > 1 and jax.device_count() % spec.data_devices:
        # A process whose devices were left over could not call the program.
        raise errors.UserError(
            f"train.data_devices={spec.data_devices}: should divide the {jax.device_count()} devices of all processes"
        )
    state = memory.size(_state_like(spec, hyperparams, dataset))
    if 2 * state > memory.free():
        raise errors.UserError(
            f"{len(hyperparams.seed)} runs need {memory.text(2 * state)} of the host's memory, twice {memory.text(state)} "
            f"while they are saved, and {memory.text(memory.free())} are free; train fewer runs in one study"
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


def _fit(
    spec, hyperparams, dataset, plan, labels, directory, metrics, done_before, stop, most
) -> tuple[training.TrainState, int]:
    """See `fit`; at most `most` runs are on the devices at a time."""
    count = len(labels)
    program = training.make_program(spec)
    mesh = runs.mesh(most, spec.data_devices)
    saved = load(spec, hyperparams, dataset, directory)
    epoch, size = (saved.step, saved.metadata["metrics_bytes"]) if saved else (0, done_before)
    if saved and epoch == spec.epochs:
        return saved.state, size
    if multihost.writes():
        run_directory.truncate(metrics, size)
    splits = {"train": dataset.splits["train"].pixels}
    if "valid" in dataset.splits:
        splits["valid"] = dataset.images("valid")
    statistics, splits = runs.put((dataset.statistics(spec.model.normalize), splits), mesh, shared=True)
    state = _state_like(spec, hyperparams, dataset)
    room = memory.per_device(2 * memory.size(state))  # the host holds all states twice while it saves them
    blocks, advance = _blocks(program.advance, mesh, most, count, (state, hyperparams), splits, room)
    hyperparams = blocks.hold(hyperparams)
    init = runs.over_runs(program.init, mesh)
    with memory.watched(min(blocks.size, count)):
        state = blocks.hold(saved.state) if saved else blocks.call(init, (hyperparams,), statistics)

    name = ", ".join(dict.fromkeys(str(row["name"]) for row in labels))
    per_epoch = spec.steps_per_epoch * count
    progress = Progress(f"{name} ({counted(count, 'run')})", spec.epochs * per_epoch, "steps")
    progress.begin(epoch * per_epoch)
    last_save = epoch
    while epoch < spec.epochs:
        length = min(plan.chunk_epochs, spec.epochs - epoch)
        with memory.watched(min(blocks.size, count)):
            state, chunk = blocks.call(advance, (state, hyperparams), splits, np.int32(length))
            chunk = blocks.fetch(chunk)  # waits: what fails on a device fails here
        epoch += length
        if multihost.writes():
            run_directory.truncate(metrics, size)  # a directory that was taken away and came again is not gone on with
            size = run_directory.append_jsonl(metrics, _lines(labels, epoch, epoch * spec.steps_per_epoch, chunk))
        due = plan.checkpoint_every and epoch - last_save >= plan.checkpoint_every
        asked = -multihost.least(-max(stop, default=0))  # all processes stop together
        if due or asked or epoch == spec.epochs:
            host = blocks.fetch(state)
            checkpoints.save(directory, epoch, host, {"metrics_bytes": size})
            last_save = epoch
        progress.update(epoch * per_epoch)
        if asked:
            progress.finish()
            raise signals.Stopped(asked, f"saved after epoch {epoch} of {spec.epochs}")
    progress.finish()
    return host, size


def _blocks(
    advance: Callable, mesh: Mesh, most: int, count: int, trees: tuple, splits: dict, room: int
) -> tuple[runs.Blocks, Callable]:
    """As many runs at a time, of at most `most`, as fit into `room` bytes on each device, and `advance` of so many."""
    lanes, shared = mesh.shape["runs"], memory.size(splits)
    sharding = NamedSharding(mesh, PartitionSpec("runs"))
    each = math.ceil(most / lanes)
    while True:
        shapes = jax.tree.map(
            lambda leaf, each=each: jax.ShapeDtypeStruct((each * lanes, *leaf.shape[1:]), leaf.dtype, sharding=sharding),
            trees,
        )
        # A GPU is filled by many runs in one vectorised program; a CPU's core is full with one.
        together = None if jax.default_backend() == "cpu" else each
        mapped = runs.over_runs(advance, mesh, mapped=2, donate=True, together=together)
        compiled = mapped.lower(*shapes, splits, np.int32(1)).compile()
        needed = memory.needed(compiled)
        if needed <= room:
            return runs.Blocks(mesh, count, each * lanes), compiled
        if each == 1:
            raise _too_large(needed, shared, room)
        # As if all but the data grew with the runs, which is true or asks for too few.
        each = max(1, min(each - 1, int(each * (room - shared) / (needed - shared))))


def load(
    spec: training.RunSpec, hyperparams: training.Hyperparams, dataset: data.Dataset, directory: pathlib.Path
) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of these runs, or None where none was saved."""
    return checkpoints.load_latest(directory, _state_like(spec, hyperparams, dataset))


def _state_like(spec: training.RunSpec, hyperparams: training.Hyperparams, dataset: data.Dataset) -> training.TrainState:
    """The shapes of the state of these runs."""
    init = jax.vmap(training.make_program(spec).init, (0, None))
    return jax.eval_shape(init, hyperparams, dataset.statistics(spec.model.normalize))


def _lines(
    labels: list[run_directory.Row], epoch: int, step: int, chunk: dict[str, training.Metrics]
) -> list[run_directory.Row]:
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
