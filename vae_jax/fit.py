"""Trains many runs of one spec together: the host's loop over chunks, with progress, metrics, checkpoints and resume."""

import dataclasses
import pathlib
from collections.abc import Sequence

import jax
import numpy as np

from vae_jax import checkpoints, data, interrupts, results, runs, training
from vae_jax.progress import Progress


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
    labels: list[results.Row],
    directory: pathlib.Path,
    metrics: pathlib.Path,
    done_before: int,
    stop: Sequence[int] = (),
) -> tuple[training.TrainState, int]:
    """Train every run to its last epoch, or go on from where a checkpoint says it was.

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
      Stopped: `stop` asked for it, and everything up to there is saved.
    """
    count = len(labels)
    program = training.make_program(spec)
    mesh = runs.mesh(count)
    hyperparams = runs.pad(hyperparams, mesh.size)
    saved = load(spec, runs.take(hyperparams, slice(count)), dataset, directory)
    epoch, size = (saved.step, saved.metadata["metrics_bytes"]) if saved else (0, done_before)
    if saved and epoch == spec.epochs:
        return saved.state, size
    results.truncate(metrics, size)
    init = runs.over_runs(program.init, mesh)
    state = runs.put(saved.state, mesh) if saved else init(hyperparams, dataset.statistics(spec.model.normalize))
    advance = runs.over_runs(program.advance, mesh, mapped=2, donate=True)
    splits = jax.device_put({"train": dataset.splits["train"].pixels})
    if "valid" in dataset.splits:
        splits["valid"] = jax.device_put(dataset.images("valid"))

    name = ", ".join(dict.fromkeys(str(row["name"]) for row in labels))
    per_epoch = spec.steps_per_epoch * count
    progress = Progress(f"{name} ({count} run{'s' if count > 1 else ''})", spec.epochs * per_epoch, "steps")
    progress.begin(epoch * per_epoch)
    last_save = epoch
    while epoch < spec.epochs:
        length = min(plan.chunk_epochs, spec.epochs - epoch)
        state, chunk = advance(state, hyperparams, splits, np.int32(length))
        epoch += length
        results.truncate(metrics, size)  # a directory that was taken away and came again is not gone on with
        size = results.append_jsonl(metrics, _lines(labels, epoch, epoch * spec.steps_per_epoch, jax.device_get(chunk)))
        due, asked = plan.checkpoint_every and epoch - last_save >= plan.checkpoint_every, tuple(stop)
        if due or asked or epoch == spec.epochs:
            host = runs.take(jax.device_get(state), slice(count))
            checkpoints.save(directory, epoch, host, {"metrics_bytes": size})
            last_save = epoch
        progress.update(epoch * per_epoch)
        if asked:
            progress.finish()
            raise interrupts.Stopped(asked[0], f"saved after epoch {epoch} of {spec.epochs}")
    progress.finish()
    return host, size


def load(
    spec: training.RunSpec, hyperparams: training.Hyperparams, dataset: data.Dataset, directory: pathlib.Path
) -> checkpoints.Checkpoint | None:
    """The newest whole checkpoint of these runs, or None where none was saved."""
    init = jax.vmap(training.make_program(spec).init, (0, None))
    like = jax.eval_shape(init, hyperparams, dataset.statistics(spec.model.normalize))
    return checkpoints.load_latest(directory, like)


def _lines(labels: list[results.Row], epoch: int, step: int, chunk: dict[str, training.Metrics]) -> list[results.Row]:
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
