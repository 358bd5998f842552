"""Trains runs of one spec together: the host's loop over chunks, with progress, metrics, checkpoints and resume."""

import functools
from collections.abc import Sequence

import jax
import numpy as np

from vae_jax.core import errors
from vae_jax.data.dataset import Dataset
from vae_jax.storage import checkpoints, run_directory
from vae_jax.system import memory, multihost, signals
from vae_jax.system.progress import Progress, counted, say
from vae_jax.training import objectives
from vae_jax.training.session import Job, OnChunk, Session, held_by_devices, load, state_like, too_large
from vae_jax.training.state import Hyperparams, RunSpec, TrainState
from vae_jax.training.streamed import StreamedSession

__all__ = ["Job", "OnChunk", "check", "checkpoints", "fit", "load"]


def fit(job: Job, stop: Sequence[int] = (), on_chunk: OnChunk | None = None) -> TrainState:
    """Train every run to its last epoch, or go on from where a checkpoint says it was.

    Where the devices have no room for all runs they take turns, chunk by chunk: files and numbers are the same.

    Args:
      job: what to train.
      stop: looked at after each chunk, or block of a chunk; a signal in it asks to save and stop.
      on_chunk: called with the rows that a chunk adds to the metrics file. After an interruption it is called again with
        those of the chunks since the last checkpoint.

    Returns:
      The final state of every run (host).

    Raises:
      UserError: not even one run for each device fits, or data on a disk cannot be read.
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
    state = memory.size(state_like(spec, hyperparams, dataset))
    if 2 * state > memory.free():
        raise errors.UserError(
            f"{counted(len(hyperparams.seed), 'run')} would take {memory.text(2 * state)} of the host's memory, twice "
            f"{memory.text(state)} while they are saved, and {memory.text(memory.free())} are free; train fewer runs in one "
            "study"
        )
    shared = held_by_devices(spec, dataset)
    needed, room = shared + state // len(hyperparams.seed), memory.per_device(2 * state)
    if needed > room:
        raise too_large(needed, shared, room)


def _attempt(job: Job, stop: Sequence[int], on_chunk: OnChunk | None, most: int) -> TrainState:
    """See `fit`; at most `most` runs are on the devices at a time."""
    saved = job.saved()
    if saved and saved.step == job.spec.train.epochs:
        return saved.state
    session = (StreamedSession if job.dataset.is_streamed else Session)(job, most, saved, on_chunk)
    if session.steps:
        say(f"{_title(job)}: goes on from {session.where}")
    progress = Progress(_title(job), session.total, "step")
    progress.begin(session.done)
    if not session.steps:
        session.start()
    while session.epoch < job.spec.train.epochs:
        session.advance()
        asked = -multihost.least(-max(stop, default=0))  # all processes stop together
        if asked or session.due():
            session.save()
        progress.update(session.done, _summary(session.rows))
        if asked:
            progress.finish()
            raise signals.Stopped(asked, f"saved after {session.where}")
    progress.finish()
    _say_missed(job, session.rows)
    return session.host


def _title(job: Job) -> str:
    """What the progress line says is trained."""
    name = ", ".join(dict.fromkeys(str(row["name"]) for row in job.labels))
    return f"{name} ({counted(len(job.labels), 'run')})"


def _summary(rows: list[run_directory.Row]) -> str:
    """The last training metrics: of one run, or the median and the range over the runs, in nats; "" before there are any."""
    parts = []
    for name in ("loss", "distortion", "rate") if rows else ():
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
