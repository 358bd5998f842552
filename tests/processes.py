"""Mains as processes that really end, by themselves or killed: forks of one process that has imported everything."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]

# Each line on standard input is a command; its process id and then its exit code are answered.
SERVER = """
import json, os, resource, runpy, sys
import numpy, sklearn.datasets, tensorflow_datasets
from orbax.checkpoint import v1
import vae_jax.figures, vae_jax.study
import experiments.command_line

for line in sys.stdin:
    main, arguments, out, err, limit = json.loads(line)
    child = os.fork()
    if not child:
        for path, number in ((os.devnull, 0), (out, 1), (err, 2)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        sys.stdin = open(0)
        if limit:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
        sys.argv = [main, *arguments]
        sys.orig_argv = [sys.executable, "-m", main, *arguments]
        code = 1
        try:
            runpy.run_module(main, run_name="__main__", alter_sys=True)
            code = 0
        except SystemExit as end:
            code = end.code or 0
        except BaseException:
            sys.excepthook(*sys.exc_info())
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Ended(NamedTuple):
    code: int  # minus the signal, where one ended it
    out: str
    err: str


class Forks:
    """Runs one main at a time: `start`, perhaps `os.kill(pid, ...)`, then `end`; or both by `run`."""

    def __init__(self, folder: pathlib.Path, cwd: pathlib.Path = ROOT, **environment: str):
        self.out, self.err = folder / "stdout", folder / "stderr"
        # Half the time to compile, and one device: a fork has the threads that it needs for itself alone.
        quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "PYTHONPATH": str(ROOT), **environment}
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=cwd,
            env=os.environ | quick,
        )  # fmt: skip

    def start(self, main: str, arguments: list[str], limit: int = 0) -> int:
        """The process id of `python -m experiments.MAIN ARGUMENTS`; no file may grow beyond `limit` bytes, if given.

        One that takes two minutes hangs, and is killed.
        """
        asked = f"experiments.{main}", [str(argument) for argument in arguments], str(self.out), str(self.err), limit
        self.server.stdin.write(json.dumps(asked) + "\n")
        self.server.stdin.flush()
        process = int(self.server.stdout.readline())
        self.watch = threading.Timer(120, os.kill, (process, signal.SIGKILL))
        self.watch.start()
        return process

    def end(self) -> Ended:
        code = int(self.server.stdout.readline())
        self.watch.cancel()
        return Ended(code, self.out.read_text(errors="replace"), self.err.read_text(errors="replace"))

    def run(self, main: str, arguments: list[str], limit: int = 0) -> Ended:
        self.start(main, arguments, limit)
        return self.end()

    def close(self) -> None:
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait(60)


def wait_for(found, seconds: float = 60) -> None:
    """Until `found()` is true."""
    end = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.002)
