"""What a person types, as typed: the three mains on a small study, their help, and the shell scripts."""

import ast
import importlib
import os
import pathlib
import re
import shutil
import subprocess

import pytest
from support import SMALL

from experiments import command_line, config_files
from vae_jax.evaluation import config as evaluation
from vae_jax.storage import run_directory, tables
from vae_jax.study import config

ROOT = pathlib.Path(__file__).parents[1]
NAMES = [path.stem for path in (ROOT / "configs").glob("*.py") if path.stem != "__init__"]
# Not of pictures, of which twice as many figures are drawn: what is drawn is looked at in tests/figures.
SETTINGS = SMALL | {"train.epochs": 2}
TRAIN = ["--config=configs/vae.py", *(f"--config.{key}={value}" for key, value in SETTINGS.items())]
TRAIN += ["--sweep=objective.beta=0.5,1", "--sweep=seed=0,1", "--tensorboard"]
ESCAPE = "\x1b"


@pytest.fixture(scope="module")
def clone(tmp_path_factory):
    """A checkout, as far as the mains can tell, that they may write runs/ into."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("configs", "experiments", "tests", "vae_jax"):
        (folder / name).symlink_to(ROOT / name)
    return folder


@pytest.fixture(scope="module")
def trained(clone, forks):
    return forks.run("train", TRAIN, cwd=clone, drawn=True)


@pytest.fixture(scope="module")
def typed(clone, trained, forks):
    """What is typed after that: (exit code, standard output, standard error) by name."""
    for name, removed in (("measured", "results.csv"), ("drawn", "figures")):
        folder = pathlib.Path(shutil.copytree(clone / "runs" / "vae", clone / "runs" / name))
        shutil.move(folder / removed, clone / f"removed_from_{name}")
    commands = {
        "again": ("train", TRAIN),
        "evaluate": ("evaluate", ["--workdir=runs/measured"]),
        "figures": ("figures", ["--workdir=runs/drawn"]),
        "report": ("report", ["--workdir=runs/drawn", "--workdir=runs/vae"]),
        "configs": ("train", ["--workdir=runs/none", "--config"]),
        **{f"help of {main}": (main, ["--help"]) for main in ("train", "evaluate", "figures", "report")},
    }
    return {name: forks.run(*command, cwd=clone, drawn=True) for name, command in commands.items()}


def assert_is_summary(lines: list[str]) -> None:
    """A header, one line for each beta, and how much more there is."""
    header, *settings, more = lines
    assert header.split()[:4] == ["name", "objective.beta", "seeds", "distortion"]
    assert [line.split()[:3] for line in settings] == [["vae", "0.5", "2"], ["vae", "1", "2"]]
    assert all("±" in line for line in settings)
    assert re.fullmatch(r"\d+ more columns in results\.csv", more)


def test_train_prints_the_summary_and_where_things_lie(clone, trained):
    assert trained.code == 0, trained.err
    *summary, title, best, last = trained.out.splitlines()
    assert_is_summary(summary)
    assert title == "best setting of each name by test elbo, its test split:"
    assert re.match(r"  vae +objective.beta=(0.5|1) +elbo -[\d.]+", best)
    drawn = [path for path in (clone / "runs" / "vae" / "figures").iterdir() if path.suffix in (".png", ".gif")]
    assert drawn
    assert last == f"runs/vae: results.csv, {len(drawn)} figures in figures/, and all of it in report.html"


def test_train_says_plain_lines_where_there_is_no_terminal(trained):
    assert ESCAPE not in trained.out + trained.err
    assert "\r" not in trained.out + trained.err
    first, second = trained.err.splitlines()
    assert re.fullmatch(r"vae \(4 runs\): 24 steps in [\d.]+ s", first)
    assert re.fullmatch(r"evaluation: 4 runs in [\d.]+ s", second)


def test_train_fills_the_directory(clone, trained):
    workdir = clone / "runs" / "vae"
    names = {"config.json", "metrics.jsonl", "results.csv", "log.jsonl", "arrays", "checkpoints", "figures", "report.html"}
    names |= {"tensorboard"}
    assert names <= {path.name for path in workdir.iterdir()}
    rows = tables.read_csv(workdir / "results.csv")
    assert [(row["objective.beta"], row["seed"]) for row in rows] == [(0.5, 0), (0.5, 1), (1.0, 0), (1.0, 1)]
    assert len(run_directory.read_jsonl(workdir / "metrics.jsonl")) == 12  # epochs 0, 1 and 2
    assert run_directory.read_json(workdir / "config.json")["config"]["model"]["hidden"] == [4]


def test_the_same_command_again_only_draws(typed, trained):
    code, out, err = typed["again"]
    assert (code, out) == (0, trained.out)
    assert err == "runs/vae: all 4 runs are done\n"


def test_evaluate_writes_the_same_table(clone, typed):
    code, out, err = typed["evaluate"]
    assert code == 0, err
    assert (clone / "runs" / "measured" / "results.csv").read_bytes() == (clone / "removed_from_measured").read_bytes()
    assert_is_summary(out.splitlines())


def test_figures_draws_from_the_directory_alone(clone, typed):
    code, out, err = typed["figures"]
    assert code == 0, err
    drawn = {path.relative_to(clone) for path in (clone / "runs" / "drawn" / "figures").iterdir()}
    assert {path.name for path in drawn} == {path.name for path in (clone / "removed_from_drawn").iterdir()}
    assert {pathlib.Path(line) for line in out.splitlines()} == {path for path in drawn if path.name != "drawn.json"}


def test_report_puts_several_studies_on_one_page(clone, typed):
    code, out, err = typed["report"]
    assert (code, out) == (0, "runs/drawn/report.html\n"), err
    page = (clone / out.strip()).read_text()
    assert 'id="study-0"' in page and 'id="study-1"' in page and 'id="study-2"' not in page


@pytest.mark.parametrize(
    ("main", "flags"),
    [
        ("train", ("config", "workdir", "sweep", "eval")),
        ("evaluate", ("config", "workdir")),
        ("figures", ("config", "workdir")),
        ("report", ("config", "workdir")),
    ],
)
def test_help_is_worth_reading(typed, main, flags):
    code, out, err = typed[f"help of {main}"]
    assert code in (0, 1)
    assert err == ""
    assert f"python -m experiments.{main} --" in out
    for flag in flags:
        assert f"--{flag}:" in out


def test_help_lists_every_field(typed):
    out = typed["help of train"][1]
    for key, field in config.FIELDS.items():
        assert f"  {key}={str(field.default).replace(' ', '')}\n      {field.doc}" in out


def test_config_alone_lists_the_config_files(clone, typed):
    code, out, err = typed["configs"]
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert [line.split()[0] for line in lines] == sorted(f"configs/{name}.py" for name in NAMES)
    assert re.fullmatch(r"configs/vae.py +The VAE: -loss is the ELBO\.", next(line for line in lines if "/vae.py" in line))
    assert not (clone / "runs" / "none").exists()


def test_eval_names_a_set_of_fields_and_what_is_typed_wins():
    file = str(ROOT / "configs" / "vae.py")
    full, quick, typed = (
        config_files.load(file, overrides, name)[0]["eval"]
        for name, overrides in (("full", []), ("quick", []), ("quick", ["eval.samples=5"]))
    )
    assert full == config_files.load(file, [])[0]["eval"]
    assert quick == full | {key.removeprefix("eval."): value for key, value in evaluation.QUICK.items()}
    assert typed == quick | {"samples": 5}


def test_cores_where_the_system_does_not_say_which_are_ours(monkeypatch):
    assert command_line.cores() == len(os.sched_getaffinity(0))
    monkeypatch.delattr(os, "sched_getaffinity")
    assert command_line.cores() == os.cpu_count()
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert command_line.cores() == 1


# The shell scripts, with a Python that only says how it was called

STAND_IN = """#!/bin/sh
[ "$1" = -c ] && exit {too_old}
[ "$1" = -V ] && echo Python 3.8.1 && exit
echo "$PWD: $@" >> "{log}"
if [ "$2" = venv ]; then mkdir -p .venv/bin; cp "$0" .venv/bin/python; {made}; fi
"""


class Checkout:
    """The scripts and requirements.txt in a folder of their own, and a stand-in for Python: 3.11, older, or without venv."""

    def __init__(self, folder: pathlib.Path, too_old: bool = False, made: str = "exit 0"):
        self.root, self.log = folder / "clone", folder / "calls"
        shutil.copytree(ROOT / "scripts", self.root / "scripts")
        shutil.copy(ROOT / "requirements.txt", self.root)
        tools = folder / "tools"
        tools.mkdir()
        for name in ("bash", "sh", "env", "dirname", "cmp", "cp", "mkdir", "cat", "rm"):
            (tools / name).symlink_to(shutil.which(name))
        (tools / "python3").write_text(STAND_IN.format(log=self.log, too_old=int(too_old), made=made))
        (tools / "python3").chmod(0o755)
        self.environment = {"PATH": str(tools), "HOME": os.environ.get("HOME", "/")}

    def run(self, script: str, *arguments: str) -> subprocess.CompletedProcess:
        """From another directory than the script's."""
        command = [str(self.root / "scripts" / script), *arguments]
        return subprocess.run(
            command, cwd="/", env=self.environment, capture_output=True, text=True, timeout=60, check=False
        )

    def calls(self) -> list[str]:
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        self.log.unlink(missing_ok=True)
        assert all(line.startswith(f"{self.root}: ") for line in lines)
        return [line.removeprefix(f"{self.root}: ") for line in lines]


def test_reproduce_makes_the_environment_once_and_runs_all_studies(tmp_path):
    checkout = Checkout(tmp_path)
    names = ("ablations", "latents", "faces", "post")
    studies = [f"-m experiments.train --config=configs/{name}.py --workdir=runs/{name}" for name in names]
    studies.append("-m experiments.claims --workdir=runs --pages")
    first = checkout.run("reproduce")
    assert first.returncode == 0, first.stderr
    venv, pip, *trained = checkout.calls()
    assert venv == "-m venv .venv"
    assert pip.startswith("-m pip install")
    assert pip.endswith("-r requirements.txt")
    assert trained == studies
    assert str(checkout.root) in first.stdout.splitlines()[-1]
    assert checkout.run("reproduce").returncode == 0
    assert checkout.calls() == studies


def test_requirements_that_changed_are_installed(tmp_path):
    checkout = Checkout(tmp_path)
    checkout.run("test")
    checkout.calls()
    (checkout.root / "requirements.txt").write_text("jax\n")
    checkout.run("test")
    pip, tests = checkout.calls()
    assert pip.startswith("-m pip install")
    assert tests == "-m pytest -n 2 --dist loadfile --no-loadscope-reorder"


def test_test_passes_its_arguments_on(tmp_path):
    checkout = Checkout(tmp_path)
    done = checkout.run("test", "-k", "two words", "--stress")
    assert done.returncode == 0, done.stderr
    assert checkout.calls()[-1] == "-m pytest -n 2 --dist loadfile --no-loadscope-reorder -k two words --stress"


@pytest.mark.parametrize("script", ["reproduce", "test"])
def test_an_old_python_is_told(tmp_path, script):
    checkout = Checkout(tmp_path, too_old=True)
    done = checkout.run(script)
    assert done.returncode == 1
    assert done.stderr.startswith("error: vae_jax needs Python 3.11 or newer; python3 is Python 3.8.1.")
    assert done.stderr.count("\n") == 1
    assert checkout.calls() == []
    assert not (checkout.root / ".venv").exists()


def test_an_environment_that_cannot_be_made_is_told_and_removed(tmp_path):
    checkout = Checkout(tmp_path, made="echo no ensurepip; echo install it >&2; exit 1")
    done = checkout.run("test")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "error: python3 could not make .venv (install it); Debian and Ubuntu need the package python3-venv for it\n"
    )
    assert checkout.calls() == ["-m venv .venv"]
    assert not (checkout.root / ".venv").exists()


def test_what_is_imported_ahead_is_there():
    source = (ROOT / "experiments/train.py").read_text()  # not imported: its flags are of one process
    names = ast.literal_eval(re.search(r"^AHEAD = (\(.*\))", source, re.MULTILINE)[1])
    for name in names:
        importlib.import_module(name)
