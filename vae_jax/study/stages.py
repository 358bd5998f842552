"""The two stages of a planned study: its groups trained one after another, then its runs evaluated into `results.csv`."""

import pathlib
import platform
import sys
import time

from vae_jax.core import errors
from vae_jax.evaluation import evaluate
from vae_jax.storage import run_directory, tables
from vae_jax.storage.run_directory import Row
from vae_jax.study import baselines
from vae_jax.study.planning import Group, Study
from vae_jax.system import multihost, signals
from vae_jax.system.progress import Progress
from vae_jax.training import loop
from vae_jax.training.step import TrainState


def train(study: Study, workdir: pathlib.Path) -> list[TrainState]:
    """Train every group to its last epoch, or go on with it; returns the final states.

    Raises:
      Stopped: SIGTERM or Ctrl-C; what was reached is saved.
    """
    states, size = [], 0
    for index, group in enumerate(study.groups):
        labels = [label(study, number) for number in group.numbers]
        start = time.time()
        with signals.held() as stop:
            state, size = loop.fit(
                group.spec, group.hyperparams, group.dataset, group.plan, labels,
                checkpoint_directory(workdir, index), workdir / "metrics.jsonl", size, stop,
            )  # fmt: skip
        states.append(state)
        log(workdir, {"event": "trained", "group": index, "runs": len(labels), "seconds": time.time() - start})
    return states


def saved_state(group: Group, directory: pathlib.Path, workdir: pathlib.Path) -> TrainState:
    """The final state of a group, from its checkpoint.

    Raises:
      UserError: its training has not finished.
    """
    saved = loop.load(group.spec, group.hyperparams, group.dataset, directory)
    if saved is None or saved.step != group.spec.epochs:
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
        for number, step, (metrics, arrays) in zip(group.numbers, state.diverged_at, _evaluated(group, state), strict=True):
            # A diverged run stands where its state was finite last.
            stopped = {"diverged": None if step < 0 else int(step)}
            rows[number] = label(study, number) | study.runs[number].settings | stopped | metrics
            if multihost.writes():
                run_directory.write_arrays(run_directory.arrays_path(workdir, number), arrays)
            progress.update(len(rows))
    progress.finish()
    table = [rows[number] for number in sorted(rows)]
    table += baselines.rows(study, len(table))
    if multihost.writes():
        tables.write_csv(workdir / "results.csv", table)
    multihost.wait("written")
    log(workdir, {"event": "evaluated", "runs": len(rows), "seconds": time.time() - start})
    return tables.read_csv(workdir / "results.csv")


def _evaluated(group: Group, state: TrainState):
    """Metrics and arrays of each run of a group, one after another."""
    return evaluate.evaluate(
        group.spec.model,
        group.eval,
        state.variables,
        group.hyperparams.sigma,
        group.hyperparams.objective,
        group.hyperparams.seed,
        group.dataset,
        group.spec.objective,
    )


def label(study: Study, number: int) -> Row:
    """What heads each line and row of a run."""
    run = study.runs[number]
    return {"run": number, "name": run.name, "seed": run.seed}


def checkpoint_directory(workdir: pathlib.Path, group: int) -> pathlib.Path:
    """Where the checkpoints of group number `group` lie."""
    return workdir / "checkpoints" / f"group_{group:03d}"


def log(workdir: pathlib.Path, event: Row) -> None:
    """A line of `log.jsonl`: the only file that knows the clock and the host."""
    described = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node(), "command": " ".join(sys.argv[:1])}
    if multihost.writes():
        run_directory.append_jsonl(workdir / "log.jsonl", [described | event])
