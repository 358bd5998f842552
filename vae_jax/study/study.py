"""A study, from config to `results.csv`: planned, checked, trained, evaluated, written. What scripts and notebooks call.

rows = study.run(config, "runs/vae")
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import os
import pathlib
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import ml_collections

import vae_jax
from vae_jax.core import errors
from vae_jax.data import dataset as data
from vae_jax.evaluation import columns
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.storage import checkpoints, run_directory, tables
from vae_jax.study import grid
from vae_jax.study.config import ABSENT
from vae_jax.system import multihost, runs, signals
from vae_jax.system.progress import Progress, say
from vae_jax.training import loop as fit
from vae_jax.training import step as training

Config = ml_collections.ConfigDict | Mapping

summary, best, diverged = tables.summary, tables.best, tables.diverged


# What a directory with runs in it holds, whoever's they are.
RUNS = ("results.csv", "metrics.jsonl", "checkpoints/group_*/[0-9]*")


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that share data, program and plan: trained together, checkpointed together."""

    dataset: data.Dataset
    spec: training.RunSpec
    eval: evaluation.EvalConfig
    plan: fit.Plan
    numbers: list[int]
    hyperparams: training.Hyperparams  # leading runs axis


@dataclasses.dataclass(frozen=True)
class Study:
    """A checked grid: its runs in order, and the groups they are trained in."""

    config: dict
    rows: list[dict]
    sweeps: list[tuple[str, list]]
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
    _, rows, typed = grid.resolve(config, sweep, sweeps)
    planned = grid.expand(config, _adding(rows), typed)
    loaded = functools.cache(lambda source: data.load(**dict(source)))
    groups = [
        Group(loaded(source), spec, eval_spec, plan, [number for number, _ in members], runs.stack([h for _, h in members]))
        for (source, spec, eval_spec, plan), members in grid.group(planned, loaded).items()
    ]
    return Study(config, rows, typed, planned, groups)


def _adding(rows: Sequence[Mapping]) -> Callable:
    """A `sweep(add)` of these rows."""
    return lambda add: [add(row) for row in rows]


def run(
    config: Config,
    workdir: str | os.PathLike,
    sweep: Callable | None = None,
    sweeps: Sequence[tuple[str, Sequence]] = (),
    restart: bool = False,
) -> list[tables.Row]:
    """Plan, train and evaluate a study in `workdir`; returns the rows of `results.csv`. See `plan` for the arguments.

    Called again with the same arguments it goes on where it stopped; a finished study is only read. With `restart` it
    removes what a study left in `workdir`, and nothing else, and starts over.

    Raises:
      UserError: a mistake in the config, or a directory that belongs to another one.
      Stopped: SIGTERM or Ctrl-C while training; what was reached is saved.
    """
    return execute(plan(config, sweep, sweeps), pathlib.Path(workdir), restart)


def execute(study: Study, workdir: pathlib.Path, restart: bool = False) -> list[tables.Row]:
    """Train and evaluate what `workdir` does not hold yet."""
    if workdir.exists() and not workdir.is_dir():
        raise errors.UserError(f"--workdir={workdir}: is a file; should be a directory, or a new name")
    described = _description(study)
    multihost.agree(repr(described), "config, version or device")
    if restart or not (workdir / "results.csv").exists():
        for group in study.groups:
            fit.check(group.spec, group.hyperparams, group.dataset)
    with _held(workdir):
        if multihost.writes():
            _prepare(study, described, workdir, restart)
        multihost.wait("prepared")
        if (workdir / "results.csv").exists():
            say(f"{workdir}: all {len(study.runs)} runs are done")
            return tables.read_csv(workdir / "results.csv")
        states = _train(study, workdir)
        return _evaluate(study, states, workdir)


def _prepare(study: Study, described: dict, workdir: pathlib.Path, restart: bool) -> None:
    """Make `workdir` the directory of this study, or refuse it."""
    if restart:
        for group in workdir.glob("checkpoints/group_*"):
            checkpoints.clear(group)
        run_directory.clear(workdir)
    if (workdir / "config.json").exists():
        return _same(study, run_directory.read_config(workdir), workdir)
    if left := [path for pattern in RUNS for path in workdir.glob(pattern)]:
        raise errors.UserError(f"--workdir={workdir}: has {left[0].name} but no config.json; start over by --restart")
    run_directory.write_json(workdir / "config.json", described)


@contextlib.contextmanager
def _held(workdir: pathlib.Path) -> Iterator[None]:
    """The directory, made and locked by the process that writes, until all have come to the end."""
    with contextlib.ExitStack() as stack:
        if multihost.writes():
            workdir.mkdir(parents=True, exist_ok=True)
            stack.enter_context(run_directory.locked(workdir))
        multihost.wait("locked")
        yield
        multihost.wait("done")


def evaluate(workdir: str | os.PathLike) -> list[tables.Row]:
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
    with _described(workdir, run_directory.read_config(workdir)) as (config, rows, sweeps):
        return plan(config, _adding(rows), sweeps)


@contextlib.contextmanager
def _described(workdir: pathlib.Path, described: dict) -> Iterator[tuple[dict, list, list]]:
    """The config, the rows and the sweeps of a `config.json`; what cannot be used inside is told as its fault."""
    try:
        sweeps = [(key, values) for key, values in described["sweeps"]]
        yield ABSENT | grid.flatten(described["config"]), described["sweep"], sweeps
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        if isinstance(error, errors.UserError):
            raise
        raise errors.UserError(f"{workdir / 'config.json'}: not the description of a study") from error


def _description(study: Study) -> dict:
    """What `config.json` says: the whole config and its sweep, and on what it ran."""
    described = {
        "format": run_directory.FORMAT,
        "config": study.config,
        "sweep": study.rows,
        "sweeps": study.sweeps,
    }
    commit = _commit()
    return described | _platform() | ({"commit": commit} if commit else {})


def _platform() -> dict:
    """What numbers may depend on, beside the config."""
    packages = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "scikit-learn")
    versions = {"vae_jax": vae_jax.__version__, "python": platform.python_version()}
    versions |= {package: importlib.metadata.version(package) for package in packages}
    return {"versions": versions, "device": f"{jax.devices()[0].device_kind} ({jax.default_backend()})"}


def _commit() -> str | None:
    """The git commit of the project, where it is a checkout and git is there."""
    home = pathlib.Path(__file__).parents[2]
    if not (home / ".git").exists():
        return None
    try:
        command = ["git", "-C", str(home), "rev-parse", "HEAD"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _same(study: Study, theirs: dict, workdir: pathlib.Path) -> None:
    """Refuse a directory of another study, naming what differs first; other versions only get a word."""
    ours, other = _platform(), {key: theirs.get(key) for key in ("versions", "device")}
    with _described(workdir, theirs) as (config, rows, sweeps):
        if differs := _difference(grid.flatten(study.config), config):
            older = (other["versions"] or {}).get("vae_jax", vae_jax.__version__)
            by = "" if older == vae_jax.__version__ else f" (of vae_jax {older}; this is {vae_jax.__version__})"
        else:
            planned, by = grid.expand(config, _adding(rows), sweeps), ""
            differs = _other_grid(study.runs, planned)
    if differs:
        raise errors.UserError(
            f"--workdir={workdir} belongs to another config{by}: {differs}; choose another directory, "
            "or start over by --restart"
        )
    if ours != other:
        say(f"{workdir}: begun with other versions or on another device; the numbers may differ in the last digits")


def _difference(ours: grid.Flat, theirs: grid.Flat) -> str:
    """The first field that differs, or ""."""
    for key in [*ours, *(key for key in theirs if key not in ours)]:
        here, there = (side.get(key, "nothing") for side in (ours, theirs))
        if here != there:
            return f"{key} is {there} there and {here} here"
    return ""


def _other_grid(ours: list[grid.Run], theirs: list[grid.Run]) -> str:
    """What the sweeps make of one config differs in, or ""."""
    here, there = (", ".join(planned[0].settings) or "nothing" for planned in (ours, theirs))
    if here != there:
        return f"its sweep sets {there} there and {here} here"
    for number, (mine, other) in enumerate(zip(ours, theirs, strict=False)):
        if differs := _difference(mine.config, other.config):
            return f"in run {number} {differs}"
    return f"it has {len(theirs)} runs there and {len(ours)} here" if len(ours) != len(theirs) else ""


def _train(study: Study, workdir: pathlib.Path) -> list[training.TrainState]:
    states, size = [], 0
    for index, group in enumerate(study.groups):
        labels = [_label(study, number) for number in group.numbers]
        start = time.time()
        with signals.held() as stop:
            state, size = fit.fit(
                group.spec, group.hyperparams, group.dataset, group.plan, labels,
                _checkpoint_directory(workdir, index), workdir / "metrics.jsonl", size, stop,
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


def _evaluate(study: Study, states: list[training.TrainState], workdir: pathlib.Path) -> list[tables.Row]:
    """Rows of `results.csv` in the order of the grid, baselines after them."""
    start = time.time()
    progress = Progress("evaluation", len(study.runs), "runs")
    rows: dict[int, tables.Row] = {}
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
        for number, step, (metrics, arrays) in zip(group.numbers, state.diverged_at, evaluated, strict=True):
            # A diverged run stands where its state was finite last.
            stopped = {"diverged": None if step < 0 else int(step)}
            rows[number] = _label(study, number) | study.runs[number].settings | stopped | metrics
            if multihost.writes():
                run_directory.write_arrays(run_directory.arrays_path(workdir, number), arrays)
            progress.update(len(rows))
    progress.finish()
    table = [rows[number] for number in sorted(rows)]
    table += _baseline_rows(study, len(table))
    if multihost.writes():
        tables.write_csv(workdir / "results.csv", table)
    multihost.wait("written")
    _log(workdir, {"event": "evaluated", "runs": len(rows), "seconds": time.time() - start})
    return tables.read_csv(workdir / "results.csv")


def _baseline_rows(study: Study, first: int) -> list[tables.Row]:
    """Closed-form rows: one for each setting of the grid that they depend on; what does not apply stays empty."""
    rows: list[tables.Row] = []
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
                found = columns.of_baseline(name, group.dataset, latents, beta, sigma if kind == "fixed" else None)
                if found is not None:
                    settings = {field: value for field, value in run.settings.items() if _applies(name, field)}
                    rows.append({"run": first + len(rows), "name": name} | settings | found)
    return rows


def _applies(baseline: str, field: str) -> bool:
    """Whether a closed form depends on a field of the config."""
    fields = ("model.latents", "model.sigma", "objective.beta") if baseline == "ppca" else ("model.latents",)
    return field in fields or field.startswith("data.")


def _label(study: Study, number: int) -> tables.Row:
    run = study.runs[number]
    return {"run": number, "name": run.name, "seed": run.config["seed"]}


def _checkpoint_directory(workdir: pathlib.Path, group: int) -> pathlib.Path:
    return workdir / "checkpoints" / f"group_{group:03d}"


def _log(workdir: pathlib.Path, event: tables.Row) -> None:
    """A line of `log.jsonl`: the only file that knows the clock and the host."""
    described = {"time": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "host": platform.node(), "command": " ".join(sys.argv[:1])}
    if multihost.writes():
        run_directory.append_jsonl(workdir / "log.jsonl", [described | event])
