"""The two stages of a planned study: its groups trained one after another, then its runs evaluated into `results.csv`."""

import dataclasses
import pathlib
import platform
import shlex
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.core import errors, schema
from vae_jax.evaluation import evaluate, metric
from vae_jax.models import conditioning
from vae_jax.storage import run_directory, tables, trained_models
from vae_jax.storage.run_directory import Row
from vae_jax.study import baselines, grid, provenance
from vae_jax.study.planning import Group, Study
from vae_jax.system import multihost, runs, signals
from vae_jax.system.progress import Progress
from vae_jax.training import loop, schedules, session
from vae_jax.training.state import TrainState


def train(
    study: Study,
    workdir: pathlib.Path,
    known: Collection[int] = (),
    on_chunk: loop.OnChunk | None = None,
    reached: Callable[[int], object] = lambda index: None,
) -> list[TrainState | None]:
    """Train every group to its last epoch, or go on with it.

    Args:
      study: what to train.
      workdir: its directory.
      known: the rows of results that are there; a group of which all are is not looked at.
      on_chunk: called with the rows that each chunk adds to `metrics.jsonl`.
      reached: called with the number of each group before it is trained.

    Returns:
      The final states of the groups, None of those that were not looked at.

    Raises:
      Stopped: SIGTERM or Ctrl-C; what was reached is saved.
    """
    states: list[TrainState | None] = []
    for index, group in enumerate(study.groups):
        if set(study.rows_of(group)) <= set(known):
            states.append(None)
            continue
        start = time.time()
        reached(index)
        with signals.held() as stop:
            state = loop.fit(job(study, index, workdir), stop, on_chunk)
        states.append(state)
        log(workdir, {"event": "trained", "group": index, "runs": len(group.numbers), "seconds": time.time() - start})
    return states


def job(study: Study, index: int, workdir: pathlib.Path) -> loop.Job:
    """What `loop.fit` trains of group number `index`."""
    group, directory = study.groups[index], checkpoint_directory(workdir, index)
    labels = [label(study, number) for number in group.numbers]
    return loop.Job(group.spec, group.hyperparams, group.dataset, labels, directory, workdir / "metrics.jsonl")


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


def measure(
    study: Study,
    states: Sequence[TrainState | None],
    workdir: pathlib.Path,
    known: Mapping[int, Row] | None = None,
    plan_of: Callable[[int], evaluate.Plan | None] = lambda index: None,
) -> list[Row]:
    """Evaluate the runs; write `results.csv`, in the order of `study.rows` and baselines after them, and `arrays/`.

    Args:
      study: whose runs they are.
      states: the final states of the groups; None where all rows of the group are known.
      workdir: the directory of the study.
      known: rows that are there already, by number: their cells stay as they are.
      plan_of: the plan of the evaluation of a group by its number, where there is one.
    """
    start = time.time()
    rows: dict[int, Row] = {number: _again(study, number, row) for number, row in (known or {}).items()}
    new = len(study.rows) - len(rows)
    progress = Progress("evaluation", new, "run")
    for index, (group, state) in enumerate(zip(study.groups, states, strict=True)):
        if state is None:
            continue
        numbers = [number for number in study.rows_of(group) if number not in rows]
        trained, diverged_at = trained_runs(study, group, state, numbers)
        evaluated = evaluate.evaluate(trained, group.eval, group.dataset, progress, plan_of(index))
        for place, (number, (metrics, arrays)) in enumerate(zip(numbers, evaluated, strict=True)):
            # A diverged run stands where its state was finite last.
            stopped = {"diverged": None if diverged_at[place] < 0 else int(diverged_at[place])}
            run = study.rows[number].run
            rows[number] = label(study, number) | run.settings | stopped | metrics
            if multihost.writes():
                run_directory.write_arrays(run_directory.arrays_path(workdir, number), arrays)
                variables, sigma = runs.take((trained.variables, trained.sigma), place)
                card = _card(run, group, metrics.get("sigma", float(sigma)))
                trained_models.write(trained_models.path(workdir, number), variables, card)
    progress.finish()
    if multihost.writes():
        _compare_seeds(study, rows, known or {}, workdir)
    table = [rows[number] for number in sorted(rows)]
    table += baselines.rows(study, len(table))
    if multihost.writes():
        tables.write_csv(workdir / "results.csv", table)
        _remove_others(study, workdir)
        described = run_directory.read_json(workdir / "config.json")
        run_directory.write_json(workdir / "config.json", described | {"evaluated": schema.group(study.config, "eval")})
    multihost.wait("written")
    log(workdir, {"event": "evaluated", "runs": new, "seconds": time.time() - start})
    return tables.read_csv(workdir / "results.csv")


def _compare_seeds(study: Study, rows: dict[int, Row], known: Mapping[int, Row], workdir: pathlib.Path) -> None:
    """Add to the new rows what several seeds of a setting say together."""
    for group in study.groups:
        setting = metric.Setting(group.spec.model, group.eval, group.dataset, group.spec.objective.kind)
        asked = [each for name, each in metric.METRICS.items() if name not in group.eval.without]
        wanted = [each.across for each in asked if each.across and each.applies(setting)]
        seeds: dict[tuple, list[int]] = {}
        for number in study.rows_of(group) if wanted else ():
            run = study.rows[number].run
            seeds.setdefault((run.name, *run.settings.items()), []).append(number)
        for numbers in seeds.values():
            if len(numbers) > 1 and not set(numbers) <= set(known):
                arrays = [run_directory.read_arrays(run_directory.arrays_path(workdir, number)) for number in numbers]
                for across in wanted:
                    for number, values in zip(numbers, across([rows[n] for n in numbers], arrays), strict=True):
                        rows[number] |= {} if number in known else values


def _again(study: Study, number: int, row: Mapping[str, str]) -> Row:
    """A known row under the columns that the grid has now."""
    metrics = {column: cell for column, cell in row.items() if "." not in column and column not in (*LABELS, "diverged")}
    return label(study, number) | study.rows[number].run.settings | {"diverged": row.get("diverged")} | metrics


def _card(run: grid.Run, group: Group, sigma: float | None) -> dict:
    """What has to be known to use the network of a run without its study; `sigma` is the one that was evaluated."""
    low, high = zip(*group.dataset.extent.values(), strict=True)
    return {
        "model": dataclasses.asdict(group.spec.model),
        "images": dataclasses.asdict(group.dataset.spec),
        "is_unit": bool(min(low) >= 0 and max(high) <= 1),  # in units of 1 from 0 to 1
        "binarize": run.config["data.binarize"],
        "noise_scale": run.config["objective.noise_scale"],
        "sigma": sigma,
        "config": dict(sorted(run.config.items())),  # the same bytes wherever the config came from
    }


def trained_runs(
    study: Study, group: Group, state: TrainState, numbers: list[int]
) -> tuple[evaluate.TrainedRuns, np.ndarray]:
    """The runs of these rows of a group as evaluation takes them, and where each of them diverged."""
    spec, leaves = group.spec, (state.variables, group.hyperparams, state.diverged_at)
    place_of = {number: place for place, number in enumerate(group.numbers)}
    places = [place_of[study.rows[number].trained] for number in numbers]
    if places != list(range(len(group.numbers))):
        leaves = runs.take(leaves, np.array(places))
    variables, hyperparams, diverged_at = leaves
    if spec.model.conditioning == "beta":
        betas = np.array([study.rows[number].run.config["objective.beta"] for number in numbers], np.float32)
        variables = conditioning.at(variables, np.log(betas))
        weights: Any = hyperparams.objective
        hyperparams = dataclasses.replace(hyperparams, objective=weights.replace(beta=betas))
    # A diverged run stands where its state was finite last, also on its schedules.
    steps = np.where(diverged_at < 0, spec.train.epochs * spec.steps_per_epoch, diverged_at)
    epochs = steps / spec.steps_per_epoch
    trained = evaluate.TrainedRuns(
        group.spec.model,
        variables,
        hyperparams.sigma,
        schedules.ended(hyperparams.objective, dict(spec.schedules), hyperparams.schedule_epochs, epochs),
        hyperparams.seed,
        group.spec.objective.kind,
    )
    return trained, diverged_at


LABELS = ("run", "name", "seed")


def label(study: Study, number: int) -> Row:
    """What heads each line and row of a run, or the row of one of its betas."""
    run = study.rows[number].run
    return {"run": number, "name": run.name, "seed": run.seed}


def checkpoint_directory(workdir: pathlib.Path, group: int) -> pathlib.Path:
    """Where the checkpoints of group number `group` lie."""
    return workdir / "checkpoints" / f"group_{group:03d}"


def files(study: Study) -> list[str]:
    """What the stages write, as names relative to the run directory; folders of checkpoints end with a slash."""
    here = pathlib.Path()
    of_runs = [
        path(here, run) for path in (run_directory.arrays_path, trained_models.path) for run in range(len(study.rows))
    ]
    groups = []
    for index, group in enumerate(study.groups):
        directory = checkpoint_directory(here, index)
        groups += [directory, session.within(directory)] if group.dataset.is_streamed else [directory]
    return [*run_directory.FILES, *(path.as_posix() for path in of_runs), *(f"{path.as_posix()}/" for path in groups)]


def _remove_others(study: Study, workdir: pathlib.Path) -> None:
    """Remove the arrays and models that an earlier evaluation, of more betas, wrote."""
    for name in set(run_directory.recorded(workdir)) - set(files(study)):
        if name.startswith(("arrays/", "models/")):
            (workdir / name).unlink(missing_ok=True)


def log(workdir: pathlib.Path, event: Row) -> None:
    """A line of `log.jsonl`: the only file that knows the clock and the host."""
    described = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node(), "command": shlex.join(sys.orig_argv)}
    described |= {"commit": commit} if (commit := provenance.commit()) else {}
    if multihost.writes():
        run_directory.append_jsonl(workdir / "log.jsonl", [described | event])
