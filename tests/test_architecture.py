"""Imports run downwards and nothing dangerous is called: what import-linter and ruff check, and that they would notice."""

import pathlib
import re
import shutil
import subprocess
import sys

import pytest
from support import ROOT

# Run from a process of its own: it looks its packages up in the working directory.
LINT = "from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True, no_logo=True))"

# For each contract a line that breaks it, and the file that it is added to.
VIOLATIONS = {
    "Wings: imports run downwards": ("core/errors.py", "def late():\n    from vae_jax.system import progress"),
    "The library does not need what is typed": ("core/keys.py", "import configs.base"),
    "Figures are drawn from files, without JAX": ("figures/draw.py", "from vae_jax.storage import checkpoints"),
    "ConfigDicts live at the entrance": ("models/vae.py", "import ml_collections"),
    "TensorFlow is for downloading data alone": ("storage/npz_headers.py", "def late():\n    import tensorflow"),
}

# For each rule of ruff that guards the library a line that it refuses.
REFUSED = {
    "D100": "x = 1",
    "S102": '"""It."""\nexec("1")',
    "S301": '"""It."""\nimport pickle\n\npickle.loads(b"")',
    "S302": '"""It."""\nimport marshal\n\nmarshal.loads(b"")',
    "S307": '"""It."""\neval("1")',
    "TID251": '"""It."""\nimport numpy as np\n\nnp.load("file", allow_pickle=True)',
    "TID252": '"""It."""\nfrom . import errors\n\nprint(errors)',
    "TID253": '"""It."""\nimport matplotlib.pyplot as plt\n\nprint(plt)',
}


def lint(folder: pathlib.Path) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-c", LINT], cwd=folder, capture_output=True, text=True, timeout=60)


@pytest.fixture
def copy(tmp_path):
    """The packages, and the settings of the tools."""
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    for package in ("vae_jax", "configs", "experiments", "scripts"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contracts_of_imports_are_kept():
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_contract_can_be_broken(copy):
    for file, line in VIOLATIONS.values():
        with (copy / "vae_jax" / file).open("a") as source:
            source.write(f"\n{line}\n")
    done = lint(copy)
    assert done.returncode == 1, done.stderr
    assert {name for name in VIOLATIONS if f"{name} BROKEN" in done.stdout} == set(VIOLATIONS)
    assert "vae_jax.core.errors -> vae_jax.system.progress" in done.stdout
    assert " KEPT" not in done.stdout  # a contract without its line above


def test_a_new_wing_needs_a_place_among_the_layers(copy):
    (copy / "vae_jax" / "attic.py").write_text('"""Nothing."""\n')
    done = lint(copy)
    assert done.returncode == 1, done.stderr
    assert "attic" in done.stdout


@pytest.mark.parametrize("rule", REFUSED)
def test_rules_of_ruff_guard_the_library(rule):
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--output-format=concise", "-"]
    command += ["--stdin-filename", str(ROOT / "vae_jax" / "core" / "new.py")]
    done = subprocess.run(command, cwd=ROOT, input=REFUSED[rule] + "\n", capture_output=True, text=True, timeout=60)
    assert f" {rule} " in done.stdout, done.stdout + done.stderr


def test_shapes_are_checked_wherever_a_module_says_them(pytestconfig):
    *checked, _ = pytestconfig.getoption("--jaxtyping-packages").split(",")
    for path in (ROOT / "vae_jax").rglob("*.py"):
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        said = re.search(r"^from jaxtyping import", path.read_text(), re.MULTILINE)
        assert not said or any(f"{module}.".startswith(f"{package}.") for package in checked), module


def test_drawing_needs_no_jax():
    modules = {"jax", "matplotlib", "flax", "tensorflow"}
    program = f"import sys, vae_jax.figures.draw; print(sorted({modules} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"
