"""What several test files share: small studies, comparisons of directories, JAX settings, commands run as processes."""

import contextlib
import itertools
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest
from jax._src import compiler
from jax.experimental.compilation_cache import compilation_cache

from configs import base
from vae_jax.evaluation import config as evaluation
from vae_jax.evaluation import metrics
from vae_jax.evaluation.metrics import METRICS
from vae_jax.models.vae import ModelSpec
from vae_jax.storage import run_directory
from vae_jax.training.state import RunSpec, TrainState
from vae_jax.training.step import Program

ROOT = pathlib.Path(__file__).parents[1]
COLLECTIVES = re.compile(r"all-reduce|all-gather|all-to-all|collective-permute|collective-broadcast|reduce-scatter")


def tiny(**fields):
    """The base config at the smallest size that still has chunks, checkpoints and batches; two underscores for a dot."""
    small = {"train__epochs": 4, "train__chunk_epochs": 1, "train__checkpoint_every": 2, "model__hidden": (8,)}
    small |= {"eval__samples": 2, "eval__decoded": 50, "eval__aggregate_samples": 0, "eval__calibration_samples": 2}
    config = base.get_config()
    config.update_from_flattened_dict({name.replace("__", "."): value for name, value in (small | fields).items()})
    return config


def small_model(**fields) -> ModelSpec:
    """One hidden layer of 4, two latents, images of 2x3 pixels as they are, under a Gaussian of fixed sigma."""
    settings = {"shape": (2, 3, 1), "hidden": (4,), "likelihood": "gaussian", "sigma": "fixed", "normalize": "none"}
    return ModelSpec(**settings | fields)


def random_state(spec: RunSpec, hyperparams, statistics: dict) -> TrainState:
    """A state before the first step, with random numbers for parameters: compiling `init` would cost as much as a step."""
    shapes = jax.eval_shape(Program(spec).init, hyperparams, statistics)
    generator = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: generator.normal(0, 0.05, leaf.shape).astype(leaf.dtype), shapes.params)
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes)
    return zeros.replace(params=params, statistics=zeros.statistics | statistics, diverged_at=np.int32(-1))


# Of a study whose evaluation is not looked at.
NOT_EVALUATED = {name.replace(".", "__"): value for name, value in evaluation.overrides("none").items()}
assert set(NOT_EVALUATED["eval__without"]) == set(METRICS) != set()  # whatever was imported before

# Networks that compile in half the time, where it does not matter which are trained.
LINEAR = {"model__encoder": "linear", "model__decoder": "linear"}


def with_settings(**settings):
    """JAX's settings, and those of before when the generator ends."""
    before = {name: jax.config.values[name] for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()  # JAX looks at its settings once
    yield
    for name, value in before.items():
        jax.config.update(name, value)
    compilation_cache.reset_cache()


# How programs are compiled in a fifth of the time: without most of XLA's optimizations, by the older emitters of a CPU, as
# code of one part. Small programs would be cut into dozens of parts, each of which costs milliseconds; and how they are cut
# decides over bits. In one part, runs have the same bits in blocks of any size, as they have where all is optimized.
FLAGS = {"xla_cpu_use_fusion_emitters": False, "xla_cpu_parallel_codegen_split_count": 1}
_OPTIONS = compiler.get_compile_options


def compiled(*, fully: bool):
    """Compile as outside the tests, or quickly, until the generator ends."""

    def with_flags(*args, **kwargs):  # for each program, because XLA reads its flags once
        found = _OPTIONS(*args, **kwargs)
        found.env_option_overrides = [*found.env_option_overrides, *FLAGS.items()]
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "get_compile_options", _OPTIONS if fully else with_flags)
        yield from with_settings(jax_disable_most_optimizations=not fully)


def assert_same_numbers(ours, theirs):
    """Two directories hold the same results, metrics and arrays, bit for bit."""
    for name in ("results.csv", "metrics.jsonl"):
        assert (ours / name).read_bytes() == (theirs / name).read_bytes()
    mine, other = (sorted(path.name for path in (workdir / "arrays").iterdir()) for workdir in (ours, theirs))
    assert mine == other
    for name in mine:
        arrays = [run_directory.read_arrays(workdir / "arrays" / name) for workdir in (ours, theirs)]
        assert arrays[0].keys() == arrays[1].keys()
        assert all(arrays[0][key].tobytes() == arrays[1][key].tobytes() for key in arrays[0])


def signed(workdir: pathlib.Path) -> list[dict]:
    """What the last checkpoint of each group signs: the digest of all parameters, and the length of metrics.jsonl."""
    groups = sorted((workdir / "checkpoints").iterdir())
    last = [max(group.iterdir(), key=lambda path: int(path.name)) for group in groups]
    return [json.loads((path / "_CHECKPOINT_METADATA").read_text())["custom_metadata"] for path in last]


def undocumented(row: dict) -> set[str]:
    """Names in a row of results that belong to no column of the table of metrics."""
    known = set()
    for column in metrics.columns().values():
        for name in (column.name, *(f"{split}_{column.name}" for split in column.splits)):
            known.add(name)
            if "draws" in column.error:
                known.add(f"{name}_se")
            if "images" in column.error:
                known.add(f"{name}_image_se")
    return set(row) - known


def replica_groups(text: str) -> list[set[int]]:
    """Who speaks to whom in a compiled program: the groups of devices of every collective."""
    found = []
    for line in text.splitlines():
        if not re.search(rf"= .*({COLLECTIVES.pattern})(-start)?\(", line):
            continue
        listed = re.search(r"replica_groups=\{(\{[\d,{}]*\})\}", line)
        counted = re.search(r"replica_groups=\[(\d+),(\d+)\]<=\[(\d+)\]", line)
        if listed:
            found += [{int(number) for number in group.split(",")} for group in re.findall(r"\{([\d,]+)\}", listed[1])]
        else:  # [groups, members]<=[devices], in order; any other form fails here
            groups, members, _ = map(int, counted.groups())
            found += [set(range(group * members, (group + 1) * members)) for group in range(groups)]
    return found


VECTORS = "tests/data/vectors.npz"
# The settings of a study of a fraction of a second.
SMALL = {
    "data.name": "npz",
    "data.path": VECTORS,
    "model.latents": 3,
    "model.hidden": "(4,)",
    "model.likelihood": "gaussian",
    "train.epochs": 6,
    "train.chunk_epochs": 1,
    "train.checkpoint_every": 1,
    "train.batch_size": 16,
    "eval.samples": 2,
    "eval.batch_size": 16,
    "eval.decoded": 20,
    "eval.aggregate_samples": 4,
}

# The environment of a process that compiles quickly.
QUICK = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": " ".join(f"--{name}={int(value)}" for name, value in FLAGS.items()),
}

# What the commands need, and what study and figures import only where they use it. Then a core for each worker of
# pytest-xdist: with threads for both cores a small study takes half as much time again of them. The devices stay two.
IMPORTED = """
import jinja2, matplotlib.backends.backend_agg, matplotlib.figure, mpl_toolkits.mplot3d, numpy
import sklearn.datasets, sklearn.neighbors, tensorflow_datasets
from orbax.checkpoint import v1
import vae_jax.api.pages, vae_jax.figures.draw, vae_jax.study.study
import experiments.command_line
import gc, os
gc.freeze()
if hasattr(os, "sched_setaffinity"):
    cores, worker = sorted(os.sched_getaffinity(0)), os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    os.sched_setaffinity(0, {cores[int(worker[2:]) % len(cores)]})
"""

# Each line on standard input is a command, whose process id is answered, or such an id, whose exit code is answered.
SERVER = (
    IMPORTED
    + """
import atexit, json, os, resource, runpy, sys

for line in sys.stdin:
    command = json.loads(line)
    if isinstance(command, int):
        print(os.waitstatus_to_exitcode(os.waitpid(command, 0)[1]), flush=True)
        continue
    child = os.fork()
    if not child:
        os.environ.update(command["environment"])
        os.chdir(command["cwd"])
        for path, number in ((os.devnull, 0), (command["out"], 1), (command["err"], 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = open(0)
        if command["limit"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (command["limit"], command["limit"]))
        if not command["drawn"]:
            vae_jax.figures.draw.draw = lambda *_, **__: []
            vae_jax.api.pages.report = lambda *_, **__: None
        sys.argv = [command["main"], *command["arguments"]]
        sys.orig_argv = [sys.executable, "-m", *sys.argv]
        code = 1
        try:
            if command["code"]:
                exec(command["code"], {"__name__": "__main__"})
            else:
                runpy.run_module(command["main"], run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        if command["code"]:
            atexit._run_exitfuncs()  # several processes take leave of each other
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
"""
)


class Ended(NamedTuple):
    code: int  # minus the signal, where one ended it
    out: str
    err: str


class Forks:
    """Runs a main as `python -m MODULE ARGUMENTS` would, in a fork of a process that has imported what it needs.

    `start`, perhaps `os.kill(pid, ...)`, then `end`; or both by `run`. Compiled quickly; what was compiled is kept in
    `folder`, and not longer: a process that is killed may leave half a program, which would stay.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder, self.started, self.last, self.numbers = folder, {}, 0, itertools.count()
        # Without proxies: gRPC would ask them for the way to this machine.
        environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | QUICK
        environment |= {"PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}", "XDG_CACHE_HOME": str(folder)}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
            env=environment,
        )  # fmt: skip

    def start(
        self,
        main: str,
        arguments: list[str],
        *,
        code: str = "",
        limit: int = 0,
        cwd: pathlib.Path = ROOT,
        drawn: bool = False,
        **environment: str,
    ) -> int:
        """The process id. One that takes five minutes hangs, and is killed.

        Args:
          main: a module; one of experiments/ by its name there.
          arguments: of the command line.
          code: what is run instead, as by `python -c`.
          limit: in bytes, that no file may grow beyond, if given.
          cwd: where it is typed.
          drawn: whether figures and the page of a study are drawn, which takes longer than to train a small one.
          environment: variables that are set, too.
        """
        command = {"main": main if "." in main else f"experiments.{main}", "arguments": [str(each) for each in arguments]}
        command |= {"code": code, "limit": limit, "cwd": str(cwd), "drawn": drawn, "environment": environment}
        number = next(self.numbers)
        out, err = (self.folder / f"{number}.{name}" for name in ("out", "err"))
        self.last = self._ask(command | {"out": str(out), "err": str(err)})
        watch = threading.Timer(300, os.kill, (self.last, signal.SIGKILL))
        watch.start()
        self.started[self.last] = watch, out, err
        return self.last

    def end(self, process: int = 0) -> Ended:
        """Waits for it, or for the one that was started last."""
        watch, out, err = self.started.pop(process or self.last)
        code = self._ask(process or self.last)
        watch.cancel()
        return Ended(code, out.read_text(errors="replace"), err.read_text(errors="replace"))

    def run(self, main: str, arguments: list[str], **settings) -> Ended:
        self.start(main, arguments, **settings)
        return self.end()

    def close(self) -> None:
        for process in list(self.started):  # of tests that failed
            os.kill(process, signal.SIGKILL)
            self.end(process)
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait(60)

    def _ask(self, line: dict | int) -> int:
        self.server.stdin.write(json.dumps(line) + "\n")
        self.server.stdin.flush()
        return int(self.server.stdout.readline())


def wait_for(condition, seconds: float = 60) -> None:
    """Block until `condition()` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)


def is_there(folder: pathlib.Path, pattern: str) -> bool:
    """Whether a file of that pattern is in a folder where a process writes."""
    with contextlib.suppress(FileNotFoundError):  # of a folder that is removed while it is read
        return any(folder.glob(pattern))
    return False
