"""The two stages of a planned study: its groups trained one after another, then its runs evaluated into `results.csv`."""

import dataclasses
import pathlib
import platform
import shlex
import sys
import time

import numpy as np

from vae_jax.core import errors
from vae_jax.evaluation import evaluate
from vae_jax.storage import run_directory, tables, trained_models
from vae_jax.storage.run_directory import Row
from vae_jax.study import baselines, grid, provenance
from vae_jax.study.planning import Group, Study
from vae_jax.system import multihost, runs, signals
from vae_jax.system.progress import Progress
from vae_jax.training import loop, schedules
from vae_jax.training.state import TrainState


def train(study: Study, workdir: pathlib.Path) -> list[TrainState]:
    """Train every group to its last epoch, or go on with it; returns the final states.

    Raises:
      Stopped: SIGTERM or Ctrl-C; what was reached is saved.
    """
    states, size = [], 0
    for index, group in enumerate(study.groups):
        labels = [label(study, number) for number in group.numbers]
        start = time.time()
        directory, metrics = checkpoint_directory(workdir, index), workdir / "metrics.jsonl"
        job = loop.Job(group.spec, group.hyperparams, group.dataset, labels, directory, metrics, size)
        with signals.held() as stop:
            state, size = loop.fit(job, stop)
        states.append(state)
        log(workdir, {"event": "trained", "group": index, "runs": len(labels), "seconds": time.time() - start})
    return states


def saved_state(group: Group, directory: pathlib.Path, workdir: pathlib.Path) -> TrainState:
    """The final state of a group, from its checkpoint.

    Raises:
      UserError: its training has not finished.
    """
    saved = loop.load(group.spec, group.hyperparams, group.dataset, directory)
    if saved is None or saved.step != group.spec.train.epochs:
        raise errors.UserError(
            f"--workdir={workdir}: its training has not finished; run the same experiments.train command again"
        )
    return saved.state


def measure(study: Study, states: list[TrainState], workdir: pathlib.Path) -> list[Row]:
    """Evaluate the runs; write `results.csv`, its rows in the order of the grid and baselines after them, and `arrays/`."""
    start = time.time()
    progress = Progress("evaluation", len(study.runs), "runs")
    rows: dict[int, Row] = {}
    for group, state in zip(study.groups, states, strict=True):
        evaluated = zip(group.numbers, state.diverged_at, _evaluated(group, state, progress), strict=True)
        for place, (number, step, (metrics, arrays)) in enumerate(evaluated):
            # A diverged run stands where its state was finite last.
            stopped = {"diverged": None if step < 0 else int(step)}
            rows[number] = label(study, number) | study.runs[number].settings | stopped | metrics
            if multihost.writes():
                run_directory.write_arrays(run_directory.arrays_path(workdir, number), arrays)
                variables, sigma = runs.take((state.variables, group.hyperparams.sigma), place)
                card = _card(study.runs[number], group, metrics.get("sigma", float(sigma)))
                trained_models.write(trained_models.path(workdir, number), variables, card)
    progress.finish()
    table = [rows[number] for number in sorted(rows)]
    table += baselines.rows(study, len(table))
    if multihost.writes():
        tables.write_csv(workdir / "results.csv", table)
    multihost.wait("written")
    log(workdir, {"event": "evaluated", "runs": len(rows), "seconds": time.time() - start})
    return tables.read_csv(workdir / "results.csv")


def _card(run: grid.Run, group: Group, sigma: float | None) -> dict:
    """What has to be known to use the network of a run without its study; `sigma` is the one that was evaluated."""
    low, high = zip(*((split.pixels.min(), split.pixels.max()) for split in group.dataset.splits.values()), strict=True)
    return {
        "model": dataclasses.asdict(group.spec.model),
        "images": dataclasses.asdict(group.dataset.spec),
        "is_unit": bool(min(low) >= 0 and max(high) <= group.dataset.spec.levels),  # in units of 1 from 0 to 1
        "binarize": run.config["data.binarize"],
        "noise_scale": run.config["objective.noise_scale"],
        "sigma": sigma,
        "config": run.config,
    }


def _evaluated(group: Group, state: TrainState, progress: Progress):
    """Metrics and arrays of each run of a group, one after another."""
    spec, hyperparams = group.spec, group.hyperparams
    # A diverged run stands where its state was finite last, also on its schedules.
    steps = np.where(state.diverged_at < 0, spec.train.epochs * spec.steps_per_epoch, state.diverged_at)
    epochs = steps / spec.steps_per_epoch
    trained = evaluate.TrainedRuns(
        group.spec.model,
        state.variables,
        group.hyperparams.sigma,
        schedules.ended(hyperparams.objective, dict(spec.schedules), hyperparams.schedule_epochs, epochs),
        group.hyperparams.seed,
        group.spec.objective.kind,
    )
    return evaluate.evaluate(trained, group.eval, group.dataset, progress)


def label(study: Study, number: int) -> Row:
    """What heads each line and row of a run."""
    run = study.runs[number]
    return {"run": number, "name": run.name, "seed": run.seed}


def checkpoint_directory(workdir: pathlib.Path, group: int) -> pathlib.Path:
    """Where the checkpoints of group number `group` lie."""
    return workdir / "checkpoints" / f"group_{group:03d}"


def files(study: Study) -> list[str]:
    """What the stages write, as names relative to the run directory; folders of checkpoints end with a slash."""
    here = pathlib.Path()
    of_runs = [
        path(here, run) for path in (run_directory.arrays_path, trained_models.path) for run in range(len(study.runs))
    ]
    groups = [checkpoint_directory(here, index).as_posix() + "/" for index in range(len(study.groups))]
    return [*run_directory.FILES, *(path.as_posix() for path in of_runs), *groups]


def log(workdir: pathlib.Path, event: Row) -> None:
    """A line of `log.jsonl`: the only file that knows the clock and the host."""
    described = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node(), "command": shlex.join(sys.orig_argv)}
    described |= {"commit": commit} if (commit := provenance.commit()) else {}
    if multihost.writes():
        run_directory.append_jsonl(workdir / "log.jsonl", [described | event])
