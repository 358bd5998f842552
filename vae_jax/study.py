"""A study, from config to `results.csv`: planned, checked, trained, evaluated, written. What scripts and notebooks call.

rows = study.run(config, "runs/vae")
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections

import vae_jax
from vae_jax import data, errors, evaluation, fit, grid, processes, results, runs, training
from vae_jax.progress import Progress, say

Config = ml_collections.ConfigDict | Mapping

summary, best = results.summary, results.best


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that share data, program and plan: trained together, checkpointed together."""

    dataset: data.Dataset
    spec: training.RunSpec
    eval: evaluation.EvalSpec
    plan: fit.Plan
    numbers: list[int]
    hyperparams: training.Hyperparams  # leading runs axis


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked grid: its runs in order, and the groups they are trained in."""

    config: dict
    rows: list[dict]
    sweeps: list
    runs: list[grid.Run]
    groups: list[Group]


def plan(config: Config, sweep: Callable | None = None, sweeps: Sequence[tuple[str, Sequence]] = ()) -> Study:
    """Check everything that can be wrong, load the data, and say which runs share a program.

    Args:
      config: a ConfigDict or nested dict with the fields of `configs/base.py`.
      sweep: the config's own `sweep(add)`, or None.
      sweeps: (dotted name, values) pairs; they multiply.

    Raises:
      UserError: with one line that names the value and what would be right.
    """
    config = config.to_dict() if isinstance(config, ml_collections.ConfigDict) else dict(config)
    rows: list[dict] = []
    if sweep:
        sweep(rows.append)
    planned = grid.expand(config, sweep, sweeps)
    loaded = functools.cache(lambda source: data.load(**dict(source)))
    groups = [
        Group(loaded(source), spec, eval_spec, plan, [number for number, _ in members], runs.stack([h for _, h in members]))
        for (source, spec, eval_spec, plan), members in grid.group(planned, loaded).items()
    ]
    return Study(config, rows, [[key, list(values)] for key, values in sweeps], planned, groups)


def run(
    config: Config, workdir: str | os.PathLike, sweep: Callable | None = None, sweeps: Sequence[tuple[str, Sequence]] = ()
) -> list[results.Row]:
    """Plan, train and evaluate a study in `workdir`; returns the rows of `results.csv`. See `plan` for the arguments.

    Called again with the same arguments it goes on where it stopped; a finished study is only read.

    Raises:
      UserError: a mistake in the config, or a directory that belongs to another one.
    """
    return execute(plan(config, sweep, sweeps), pathlib.Path(workdir))


def execute(study: Study, workdir: pathlib.Path) -> list[results.Row]:
    """Train and evaluate what `workdir` does not hold yet."""
    described = _description(study)
    processes.agree(json.dumps(described), "config, version or device")
    if (workdir / "config.json").exists():
        _same(described, results.read_json(workdir / "config.json"), workdir)
    done = (workdir / "results.csv").exists()
    if not done:
        for group in study.groups:
            fit.check(group.spec, group.hyperparams, group.dataset)
    with _held(workdir):
        if processes.writes() and not (workdir / "config.json").exists():
            results.write_json(workdir / "config.json", described)
        if done:
            say(f"{workdir}: all {len(study.runs)} runs are done")
            return results.read_csv(workdir / "results.csv")
        states = _train(study, workdir)
        return _evaluate(study, states, workdir)


@contextlib.contextmanager
def _held(workdir: pathlib.Path) -> Iterator[None]:
    """The directory, made and locked by the process that writes, until all have come to the end."""
    with contextlib.ExitStack() as stack:
        if processes.writes():
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(results.locked(workdir))
        processes.wait("locked")
        yield
        processes.wait("done")


def evaluate(workdir: str | os.PathLike) -> list[results.Row]:
    """Evaluate the trained runs of `workdir` anew, from its checkpoints, and write `results.csv` and `arrays/`.

    Raises:
      UserError: no run directory, or one whose training has not finished.
    """
    workdir = pathlib.Path(workdir)
    study = read(workdir)
    with _held(workdir):
        return _evaluate(study, [_saved_state(study, index, workdir) for index in range(len(study.groups))], workdir)


def read(workdir: pathlib.Path) -> Study:
    """The study that `workdir` was made for, planned again from its `config.json`."""
    described = results.read_json(workdir / "config.json")
    try:
        config, rows, sweeps = (described[key] for key in ("config", "sweep", "sweeps"))
        return plan(config, lambda add: [add(row) for row in rows], [(key, values) for key, values in sweeps])
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, errors.UserError):
            raise
        raise errors.UserError(f"{workdir / 'config.json'}: not the description of a study") from error


def _description(study: Study) -> dict:
    """What `config.json` says: the whole config and its sweep, and on what it ran."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
    described = {
        "config": study.config,
        "sweep": study.rows,
        "sweeps": study.sweeps,
        "versions": {"vae_jax": vae_jax.__version__, "python": platform.python_version()}
        | {package: importlib.metadata.version(package) for package in packages},
        "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})",
    }
    commit = _commit()
    described |= {"commit": commit} if commit else {}
    return json.loads(json.dumps(results.strict(described)))


def _commit() -> str | None:
    """The git commit of the project, where it is a checkout and git is there."""
    home = pathlib.Path(__file__).parents[1]
    if not (home / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(home), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _same(ours: dict, theirs: Any, workdir: pathlib.Path) -> None:
    """Refuse a directory of another config, naming the first key that differs; other versions only get a word."""
    if not isinstance(theirs, dict):
        raise errors.UserError(f"{workdir / 'config.json'}: not the description of a study")
    flat = [grid.flatten({"config": side.get("config", {})}) for side in (ours, theirs)]
    for key in [*flat[0], *(key for key in flat[1] if key not in flat[0])]:
        values = [side.get(key, "nothing") for side in flat]
        if values[0] != values[1]:
            name = key.removeprefix("config.")
            raise errors.UserError(
                f"--workdir={workdir} belongs to another config: {name} is {values[1]} there and {values[0]} here; "
                "choose another directory"
            )
    for key in ("sweep", "sweeps"):
        if ours[key] != theirs.get(key):
            raise errors.UserError(
                f"--workdir={workdir} belongs to another config: its {key} differs; choose another directory"
            )
    if ours["versions"] != theirs.get("versions") or ours["device"] != theirs.get("device"):
        say(f"{workdir}: begun with other versions or on another device; the numbers may differ in the last digits")


def _train(study: Study, workdir: pathlib.Path) -> list[training.TrainState]:
    states, size = [], 0
    for index, group in enumerate(study.groups):
        labels = [_label(study, number) for number in group.numbers]
        start = time.time()
        state, size = fit.fit(
            group.spec, group.hyperparams, group.dataset, group.plan, labels,
            _checkpoint_directory(workdir, index), workdir / "metrics.jsonl", size,
        )  # fmt: skip
        states.append(state)
        _log(workdir, {"event": "trained", "group": index, "runs": len(labels), "seconds": time.time() - start})
    return states


def _saved_state(study: Study, index: int, workdir: pathlib.Path) -> training.TrainState:
    """The final state of a group, from its checkpoint."""
    group = study.groups[index]
    saved = fit.load(group.spec, group.hyperparams, group.dataset, _checkpoint_directory(workdir, index))
    if saved is None or saved.step != group.spec.epochs:
        raise errors.UserError(
            f"--workdir={workdir}: its training has not finished; run the same experiments.train command again"
        )
    return saved.state


def _evaluate(study: Study, states: list[training.TrainState], workdir: pathlib.Path) -> list[results.Row]:
    """Rows of `results.csv` in the order of the grid, baselines after them."""
    start = time.time()
    progress = Progress("evaluation", len(study.runs), "runs")
    rows: dict[int, results.Row] = {}
    for group, state in zip(study.groups, states, strict=True):
        hyperparams = group.hyperparams
        evaluated = evaluation.evaluate(
            group.spec.model,
            group.eval,
            state.variables,
            hyperparams.sigma,
            hyperparams.objective,
            hyperparams.seed,
            group.dataset,
            group.spec.objective,
        )
        for number, (metrics, arrays) in zip(group.numbers, evaluated, strict=True):
            rows[number] = _label(study, number) | study.runs[number].settings | metrics
            if processes.writes():
                results.write_arrays(results.arrays_path(workdir, number), arrays)
            progress.update(len(rows))
    progress.finish()
    table = [rows[number] for number in sorted(rows)]
    table += _baseline_rows(study, len(table))
    if processes.writes():
        results.write_csv(workdir / "results.csv", table)
    processes.wait("written")
    _log(workdir, {"event": "evaluated", "runs": len(rows), "seconds": time.time() - start})
    return results.read_csv(workdir / "results.csv")


def _baseline_rows(study: Study, first: int) -> list[results.Row]:
    """Closed-form rows: one for each setting of the grid that they depend on; what does not apply stays empty."""
    rows: list[results.Row] = []
    seen = set()
    for group in study.groups:
        for number in group.numbers:
            run = study.runs[number]
            for name in run.config["baselines"]:
                key = (name, *(value for field, value in run.config.items() if _applies(name, field)))
                kind, sigma = grid.sigma(run.config)
                latents, beta = run.config["model.latents"], run.config["objective.beta"]
                if key in seen or (name == "ppca" and beta == 0):
                    continue
                seen.add(key)
                columns = evaluation.baseline_columns(name, group.dataset, latents, beta, sigma if kind == "fixed" else None)
                if columns is not None:
                    settings = {field: value for field, value in run.settings.items() if _applies(name, field)}
                    rows.append({"run": first + len(rows), "name": name} | settings | columns)
    return rows


def _applies(baseline: str, field: str) -> bool:
    """Whether a closed form depends on a field of the config."""
    fields = ("model.latents", "model.sigma", "objective.beta") if baseline == "ppca" else ("model.latents",)
    return field in fields or field.startswith("data.")


def _label(study: Study, number: int) -> results.Row:
    run = study.runs[number]
    return {"run": number, "name": run.name, "seed": run.config["seed"]}


def _checkpoint_directory(workdir: pathlib.Path, group: int) -> pathlib.Path:
    return workdir / "checkpoints" / f"group_{group:03d}"


def _log(workdir: pathlib.Path, event: results.Row) -> None:
    """A line of `log.jsonl`: the only file that knows the clock and the host."""
    described = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node(), "command": " ".join(sys.argv[:1])}
    if processes.writes():
        results.append_jsonl(workdir / "log.jsonl", [described | event])
