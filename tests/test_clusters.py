"""The files of docs/clusters.md as they are, in two processes with the variables that each cluster sets."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest
from support import QUICK, ROOT

from vae_jax.storage import run_directory

SECONDS = 200
EPOCHS = 10  # in both tests, which share their programs
SETTINGS = ("train.chunk_epochs=1", "model.encoder=linear", "model.decoder=linear", "seed=3", f"train.epochs={EPOCHS}")
# As srun on two nodes: starts its arguments twice, says their processes, and kills what is left where one fails.
SRUN = f"""#!{sys.executable}
import os, subprocess, sys, time
assert sys.argv[1] == "--kill-on-bad-exit=1"
step = dict(SLURM_JOB_ID="7", SLURM_NTASKS="2", SLURM_STEP_NUM_TASKS="2", SLURM_STEP_NODELIST="localhost")
ranks = [dict(SLURM_PROCID=str(number), SLURM_LOCALID=str(number)) for number in range(2)]
started = [subprocess.Popen(sys.argv[2:], env=os.environ | step | rank) for rank in ranks]
if hasattr(os, "sched_setaffinity"):  # Slurm binds each to its cores
    cores = sorted(os.sched_getaffinity(0))
    [os.sched_setaffinity(process.pid, {{cores[number % len(cores)]}}) for number, process in enumerate(started)]
print(*(process.pid for process in started), flush=True)
while not any(process.poll() for process in started) and None in [process.poll() for process in started]:
    time.sleep(0.05)
if failed := any(process.poll() for process in started):
    [process.kill() for process in started]
sys.exit(failed)
"""


def arguments(workdir: pathlib.Path, *more: str) -> list[str]:
    settings = [f"--config.{setting}" for setting in (*SETTINGS, *more)]
    return ["--config=configs/vae.py", f"--workdir={workdir}", "--eval=none", "--cpu_devices=1", *settings]


def known(**variables: str) -> dict[str, str]:
    """The environment, without proxies, which gRPC would ask for the way to this machine."""
    variables |= QUICK
    return {name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | variables


def steps(workdir: pathlib.Path) -> list[int]:
    return [row["epoch"] for row in run_directory.read_jsonl(workdir / "metrics.jsonl")]


def test_a_slurm_job_is_killed_and_queued_again(tmp_path):
    (tmp_path / "srun").write_text(SRUN)
    (tmp_path / "srun").chmod(0o755)
    environment = known(PATH=f"{tmp_path}:{os.environ['PATH']}", SLURM_SUBMIT_DIR=str(ROOT))
    workdir = tmp_path / "study"
    command = ["bash", str(ROOT / "scripts/slurm.sh"), *arguments(workdir, "train.checkpoint_every=1")]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path, "env": environment}
    with subprocess.Popen(command, **pipes) as job:
        processes = [int(number) for number in job.stdout.readline().split()]
        deadline = time.monotonic() + SECONDS
        while not (workdir / "metrics.jsonl").exists() or max(steps(workdir), default=0) < 2:
            assert job.poll() is None and time.monotonic() < deadline, job.stderr.read()
            time.sleep(0.02)
        os.kill(processes[1], signal.SIGKILL)
        job.communicate(timeout=SECONDS)
    assert job.returncode == 1
    done = subprocess.run(command, **pipes, timeout=SECONDS)
    assert done.returncode == 0, done.stderr
    assert f" of {EPOCHS}" in done.stderr and "goes on from epoch " in done.stderr
    assert steps(workdir) == list(range(EPOCHS + 1))


def test_a_kubernetes_job(tmp_path):
    yaml = pytest.importorskip("yaml")
    service, job = yaml.safe_load_all((ROOT / "scripts/kubernetes.yaml").read_text())
    pods, study = job["spec"]["template"]["spec"], job["spec"]["template"]["spec"]["containers"][0]
    variables = {each["name"]: each["value"] for each in study["env"]}
    # What Kubernetes makes the name of the first pod from, and how many processes wait for each other.
    first, port = variables["COORDINATOR"].split(":")
    assert first == f"{job['metadata']['name']}-0.{pods['subdomain']}" and pods["subdomain"] == service["metadata"]["name"]
    assert job["spec"]["completionMode"] == "Indexed"
    assert int(variables["PROCESSES"]) == job["spec"]["completions"] == job["spec"]["parallelism"] == 2
    variables |= {"STUDY": " ".join(arguments(tmp_path / "study")), "COORDINATOR": f"127.0.0.1:{port}"}
    started = [
        subprocess.Popen(
            [*study["command"], *study["args"]],
            cwd=ROOT,
            env=known(**variables, JOB_COMPLETION_INDEX=str(number)),
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    if hasattr(os, "sched_setaffinity"):  # a core for each, so that none starts another process for its figures
        cores = sorted(os.sched_getaffinity(0))
        for number, process in enumerate(started):
            os.sched_setaffinity(process.pid, {cores[number % len(cores)]})
    said = [process.communicate(timeout=SECONDS)[1] for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert steps(tmp_path / "study") == list(range(EPOCHS + 1))
