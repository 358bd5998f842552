"""The rooms of the house: who may import whom, what is imported late, and what is never used. Read from the source."""

import ast
import dataclasses
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "vae_jax").glob("*.py"))
SOURCES = sorted(
    path for folder in ("vae_jax", "configs", "experiments", "scripts", "tests") for path in (ROOT / folder).glob("*.py")
)

# What each room is built on, bottom up; it may also import whatever those may. A room that is not here fails.
# `columns` sets the baselines' rows beside those of the runs; it, `estimators`, `calibration` and `pictures` are the cellars
# of `evaluation`.
BUILT_ON = {
    "errors": (),
    "keys": ("errors",),
    "progress": ("errors",),
    "processes": ("errors",),
    "memory": ("processes",),
    "interrupts": (),
    "archives": ("errors",),
    "data": ("keys", "archives"),
    "networks": (),
    "likelihoods": (),
    "priors": (),
    "runs": (),
    "baselines": (),
    "checkpoints": ("progress", "processes"),
    "results": ("archives",),
    "model": ("networks", "likelihoods", "priors"),
    "objectives": ("model",),
    "training": ("data", "objectives"),
    "estimators": ("keys", "model"),
    "pictures": (),
    "calibration": ("keys", "model"),
    "columns": ("data", "objectives", "baselines", "calibration"),
    "evaluation": ("columns", "runs", "memory", "estimators", "pictures"),
    "fit": ("training", "runs", "memory", "checkpoints", "results", "interrupts"),
    "grid": ("fit", "evaluation"),
    "study": ("grid",),
    "plotting": ("results",),
    "image_figures": ("plotting", "pictures"),
    "method_figures": ("plotting",),
    "calibration_figures": ("plotting",),
    "figures": ("image_figures", "method_figures", "calibration_figures", "baselines"),
}
BASE = ("errors", "keys", "progress")
# Figures are drawn from files: what they are built on may itself import these alone.
FIGURES_USE: dict[str, set[str]] = {"plotting": {"results", "archives", "errors"}, "baselines": set(), "pictures": set()}
OUTSIDE = ("configs", "experiments", "scripts", "tests")
LATE = ("tensorflow_datasets", "tensorflow", "matplotlib", "sklearn", "orbax")
PICKLES = ("pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve")


@dataclasses.dataclass(frozen=True)
class Import:
    """One imported name in full ("vae_jax.runs"), and the functions it is in, outermost first."""

    name: str
    inside: tuple[str, ...]

    @property
    def top(self) -> str:
        return self.name.partition(".")[0]


def imports(source: str) -> list[Import]:
    """Every import of a module of `vae_jax`, at any depth, relative ones resolved."""
    found = []

    def visit(node, inside):
        if isinstance(node, ast.Import):
            found.extend(Import(alias.name, inside) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(filter(None, ("vae_jax" if node.level else "", node.module)))
            found.extend(Import(f"{base}.{alias.name}", inside) for alias in node.names)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            inside = (*inside, node.name)
        for child in ast.iter_child_nodes(node):
            visit(child, inside)

    visit(ast.parse(source), ())
    return found


def rooms(source: str) -> set[str]:
    """The rooms that a source imports; "*" and the like are no room and therefore never allowed."""
    names = [found.name.split(".") for found in imports(source) if found.top == "vae_jax"]
    return {name[1] for name in names if len(name) > 1 and name[1] != "__version__"}


def allowed(room: str) -> set[str]:
    """What a room may import: all that it is built on, and for rooms above the base, the base."""
    if room in FIGURES_USE:
        return FIGURES_USE[room]
    below = {lower for direct in BUILT_ON[room] for lower in {direct} | allowed(direct)}
    return below if room in BASE or "plotting" in below else below | set(BASE)


def forbidden_edges(room: str, source: str) -> set[str]:
    return rooms(source) - allowed(room) if room != "__init__" else rooms(source)


def imported_early(source: str) -> set[str]:
    """Packages of `LATE` that are imported with the module."""
    return {found.top for found in imports(source) if not found.inside} & set(LATE)


def tensorflow_outside_download(room: str, source: str) -> list[Import]:
    found = [found for found in imports(source) if found.top == "tensorflow"]
    return [one for one in found if room != "data" or "_tfds_builder" not in one.inside]


def dangerous(source: str) -> set[str]:
    """Code read from strings or files, and imports that the other checks cannot see."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {call.func.id if isinstance(call.func, ast.Name) else getattr(call.func, "attr", "") for call in calls}
    flags = {
        keyword.arg
        for call in calls
        for keyword in call.keywords
        if keyword.arg == "allow_pickle" and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
    }
    pickles = {found.top for found in imports(source)} & set(PICKLES)
    return (names & {"eval", "exec", "__import__", "import_module"}) | flags | pickles


def of_library():
    return pytest.mark.parametrize("path", LIBRARY, ids=lambda path: path.stem)


@of_library()
def test_imports_run_downwards(path):
    assert path.stem == "__init__" or path.stem in BUILT_ON, f"{path.stem} has no place in the house: add it to BUILT_ON"
    assert not forbidden_edges(path.stem, path.read_text())


@of_library()
def test_library_imports_nothing_that_is_typed(path):
    assert not {found.top for found in imports(path.read_text())} & set(OUTSIDE)


@of_library()
def test_heavy_packages_are_imported_where_they_are_used(path):
    assert not imported_early(path.read_text())
    assert not tensorflow_outside_download(path.stem, path.read_text())


@of_library()
def test_config_dict_lives_at_the_entrance(path):
    if path.stem != "study":
        assert "ml_collections" not in {found.top for found in imports(path.read_text())}
        assert "ConfigDict" not in path.read_text()


@of_library()
def test_nothing_is_unpickled_or_evaluated(path):
    assert not dangerous(path.read_text())


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_docstring(path):
    assert (ast.get_docstring(ast.parse(path.read_text())) or "").strip()


def test_the_package_names_its_rooms_bottom_up():
    named = re.findall(r"`(\w+)`", ast.get_docstring(ast.parse((ROOT / "vae_jax" / "__init__.py").read_text())) or "")
    assert named == list(BUILT_ON) and set(named) == {path.stem for path in LIBRARY} - {"__init__"}
    place = {room: number for number, room in enumerate(named)}
    assert all(place[lower] < place[room] for room, direct in BUILT_ON.items() for lower in direct)


def test_drawing_needs_no_jax():
    program = "import sys, vae_jax.figures; print(sorted({'jax', 'matplotlib', 'flax', 'tensorflow'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("room", "source", "edge"),
    [
        ("runs", "from vae_jax import training", "training"),
        ("data", "import vae_jax.study as study", "study"),
        ("networks", "def f():\n    from vae_jax.models.vae import VAE", "model"),
        ("priors", "from . import likelihoods", "likelihoods"),
        ("results", "from .checkpoints import save", "checkpoints"),
        ("evaluation", "if True:\n    from vae_jax import training", "training"),
        ("errors", "from vae_jax.system.progress import say", "progress"),
        ("figures", "from vae_jax import progress", "progress"),
        ("plotting", "from vae_jax import figures", "figures"),
        ("image_figures", "from vae_jax import figures", "figures"),
        ("study", "from vae_jax import *", "*"),
        ("__init__", "from vae_jax import data", "data"),
    ],
)
def test_an_upward_or_sideways_import_is_seen(room, source, edge):
    assert forbidden_edges(room, source) == {edge}


def test_what_the_other_checks_see():
    early = "import matplotlib.pyplot as plt\nif True:\n    import sklearn\nclass A:\n    from orbax import checkpoint"
    assert imported_early(early) == {"matplotlib", "sklearn", "orbax"}
    assert imported_early("def f():\n    import matplotlib") == set()
    assert tensorflow_outside_download("data", "def load():\n    import tensorflow as tf")
    assert tensorflow_outside_download("fit", "def _tfds_builder():\n    import tensorflow")
    assert not tensorflow_outside_download("data", "def _tfds_builder():\n    import tensorflow")
    assert dangerous("eval('1')") == {"eval"}
    assert dangerous("builtins.exec(text)") == {"exec"}
    assert dangerous("from pickle import load") == {"pickle"}
    assert dangerous("np.load(f, allow_pickle=flag)") == {"allow_pickle"}
    assert dangerous("importlib.import_module('vae_jax.study')") == {"import_module"}
    assert not dangerous("np.load(f, allow_pickle=False)")
