"""A study in two processes leaves what it leaves in one, bit for bit; where one of them fails, the other ends too."""

import pathlib
import re
import shutil
import signal
import socket

import pytest
from support import LINEAR, NOT_EVALUATED, assert_same_numbers, signed, tiny

from experiments import command_line
from vae_jax.storage import run_directory
from vae_jax.study import study
from vae_jax.system import multihost

pytestmark = pytest.mark.usefixtures("one_run_at_a_time")
SWEEPS = (("seed", ("0", "1", "2")),)  # three runs for four devices

# The command line of the experiments around a study in {workdir}; `early` runs when the processes have found each other,
# `late` when the study is done.
MAIN = """
import contextlib, os, sys
with contextlib.suppress(AttributeError, OSError):  # a core for each, as on two machines, where there are two
    os.sched_setaffinity(0, {int(sys.argv[-1][-1])})
from experiments import command_line
workdir, early, epochs, late = (sys.argv.pop(1) for _ in range(4))
command_line._TIMEOUT = 30
def main():
    import jax
    from support import LINEAR, tiny
    from vae_jax.core import errors
    from vae_jax.study import study
    exec(early)
    study.run(tiny(**LINEAR, train__epochs=eval(epochs)), workdir, None, (("seed", ("0", "1", "2")),))
    exec(late)
command_line.run(main)
"""

# Process 1 finds that it cannot do what process 0 is about to do with it.
FAIL = """
from vae_jax.training import loop as fit
def fail(*_):
    from vae_jax.core import errors
    raise errors.UserError("no more")
if jax.process_index() == 1:
    fit.check = fail
"""


# One more run, in a copy.
GROW = """
import shutil
from vae_jax.system import multihost
if multihost.writes():
    shutil.copytree(workdir, workdir + "_grown")
multihost.wait("copied")
study.run(tiny(**LINEAR), workdir + "_grown", None, (("seed", ("0", "1", "2", "3")),))
"""


def free_port() -> int:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


# Read for each batch, of which each process has its half.
STREAMED = {"data__resident": "false", "train__data_devices": 2, "train__epochs": 2, **LINEAR, **NOT_EVALUATED}
HALVES = f"""
import numpy as np
from vae_jax.data import stored
looked_at = []
def counted(self, rows, told, read=stored.ArrayInMemory.read, looked_at=looked_at):
    looked_at.append(len(rows))
    return read(self, rows, told)
stored.ArrayInMemory.read = counted
study.run(tiny(**{STREAMED}), workdir + "_streamed")
assert looked_at.count(64) == 20 and 128 not in looked_at, looked_at  # of batches of 128, in 20 steps
sys.exit()
"""


@pytest.fixture(scope="module")
def two_processes(forks):
    """Exit code and standard error of two processes with so many devices each."""

    def run(workdir: pathlib.Path, early: str = "", epochs: str = "4", late: str = "", devices: int = 2):
        flags = [f"--coordinator=127.0.0.1:{free_port()}", "--processes=2", f"--cpu_devices={devices}"]
        started = [
            forks.start("study", [workdir, early, epochs, late, *flags, f"--process={number}"], code=MAIN)
            for number in range(2)
        ]
        return [(ended.code, ended.err) for ended in map(forks.end, started)]

    return run


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    """The study in this process alone, one run after another; grown beside it."""
    workdir = tmp_path_factory.mktemp("distributed") / "one"
    study.run(tiny(**LINEAR), workdir, None, SWEEPS)
    grown = shutil.copytree(workdir, f"{workdir}_grown")
    study.run(tiny(**LINEAR), grown, None, [("seed", ("0", "1", "2", "3"))])
    return workdir


@pytest.fixture(scope="module")
def double(two_processes, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("distributed") / "two"
    return workdir, two_processes(workdir, late=GROW)


def test_the_same_bits_in_two_processes_as_in_one(single, double):
    workdir, ended = double
    assert [code for code, _ in ended] == [0, 0], ended
    assert_same_numbers(workdir, single)


def test_a_study_grows_in_two_processes_as_in_one(single, double):
    """By a run that one process trains, while the other has none."""
    assert_same_numbers(pathlib.Path(f"{double[0]}_grown"), pathlib.Path(f"{single}_grown"))
    assert [path.name for path in (double[0] / "checkpoints").iterdir()] == ["group_000"]
    assert f"{double[0]}_grown: 3 runs are there, 1 is new" in double[1][0][1]


def test_one_process_speaks_and_writes(double):
    workdir, ((_, first), (_, second)) = double
    assert re.findall(r"^vae \(3 runs\): 120 steps in ", first, re.MULTILINE)  # after its progress, where it takes long
    assert second == ""
    events = [line["event"] for line in run_directory.read_jsonl(workdir / "log.jsonl")]
    assert events == ["trained", "evaluated"]


def test_one_process_reads_the_checkpoints_of_two(single, double):
    """Their digests are whole, and their states those of the single process."""
    (double[0] / "results.csv").unlink()
    study.evaluate(double[0])
    assert_same_numbers(double[0], single)


@pytest.mark.parametrize(
    ("early", "epochs", "lines"),
    [
        (FAIL, "4", ("lost another process", "no more")),
        ("", "4 + jax.process_index()", ("--process=1 has another config", "--process=1 has another config")),
    ],
    ids=["one fails", "other flags"],
)
def test_no_process_waits_for_one_that_will_not_come(two_processes, tmp_path, early, epochs, lines):
    ended = two_processes(tmp_path / "workdir", early, epochs)
    for number, ((code, err), line) in enumerate(zip(ended, lines, strict=True)):
        # Now and then the one that is left hears nothing of it, and JAX ends it when the other has been silent for too long.
        if (number, code) == (0, -signal.SIGABRT) and "lost" in line:
            assert "heartbeat" in err.lower() or "unhealthy" in err.lower(), err
            continue
        assert code == 2
        assert err.splitlines()[-1].startswith(f"error: {line}")
    assert not (tmp_path / "workdir").exists()


def test_streamed_data_in_two_processes(two_processes, tmp_path):
    """Each reads the half of every batch that its device has, and the bits are those of one process."""
    ended = two_processes(tmp_path / "two", early=HALVES, epochs="1", devices=1)
    assert [code for code, _ in ended] == [0, 0], ended
    study.run(tiny(**STREAMED), tmp_path / "one")
    assert_same_numbers(tmp_path / "two_streamed", tmp_path / "one")
    assert signed(tmp_path / "two_streamed") == signed(tmp_path / "one")


@pytest.mark.stress
def test_a_killed_process_is_noticed(two_processes, tmp_path):
    kill = "import os, threading; jax.process_index() and threading.Timer(8, os.abort).start()"
    (code, err), (killed, _) = two_processes(tmp_path / "workdir", kill, "100000")
    assert killed != 0
    assert code == 2, err


@pytest.mark.parametrize(
    ("environment", "announced"),
    [
        ({}, False),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, False),  # inside an allocation, without srun
        ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, False),
        ({"SLURM_STEP_NUM_TASKS": "4"}, True),
        ({"OMPI_COMM_WORLD_SIZE": "1"}, False),
        ({"OMPI_COMM_WORLD_SIZE": "2"}, True),
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, False),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, True),
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, False),  # any pod
        ({"KUBERNETES_SERVICE_HOST": "10.0.0.1", "JOB_COMPLETION_INDEX": "0"}, True),
    ],
)
def test_a_plain_machine_waits_for_nobody(environment, announced):
    assert command_line._announced(environment) == announced


def test_a_single_process_agrees_with_itself():
    assert multihost.writes()
    assert multihost.least(7) == 7
    multihost.agree("anything", "config")
    multihost.wait("nothing")
