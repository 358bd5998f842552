"""What the README and the pages for users say is there and works: Python runs as it stands, commands and paths exist."""

import importlib
import math
import pathlib
import re

import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from support import LINEAR, VECTORS, tiny

from configs import ablations
from vae_jax.models import likelihoods, networks, priors
from vae_jax.storage import tables
from vae_jax.study import grid, study
from vae_jax.training import objectives

ROOT = pathlib.Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = (README, ROOT / "docs/guide.md", ROOT / "docs/extending.md")


def text() -> str:
    return "\n".join(page.read_text() for page in PAGES)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text(), flags=re.MULTILINE | re.DOTALL)


def study_block() -> str:
    (block,) = [block for block in blocks("python") if "study.run(" in block]
    return block


def one_run(add) -> None:
    add(ablations.variant("vae", 0))


def test_the_study_from_python_has_at_most_ten_lines():
    assert len([line for line in study_block().splitlines() if line.strip()]) <= 10


def test_the_study_from_python_runs(tmp_path, monkeypatch, capsys):
    """As it stands, but with the study that it runs made tiny, and of vectors, which have few figures."""
    vectors = {"data__name": "npz", "data__path": str(ROOT / VECTORS), "model__latents": 3, "model__likelihood": "gaussian"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(ablations, "get_config", lambda: tiny(name="ablations", baselines=("pca",), **vectors, **LINEAR))
    monkeypatch.setattr(ablations, "sweep", one_run)
    exec(compile(study_block(), str(README), "exec"), {})
    (table,) = tmp_path.rglob("results.csv")
    assert (table.parent / "figures/learning_curves.png").exists()
    assert [row["name"] for row in tables.read_csv(table)] == ["vae", "pca"]
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("module", "table", "name", "changed"),
    [
        (priors, "PRIORS", "cauchy", {"model.prior": "cauchy"}),
        (likelihoods, "LIKELIHOODS", "laplace", {"model.likelihood": "laplace", "model.sigma": "learned"}),
        (networks, "ENCODERS", "residual", {"model.encoder": "residual"}),
        (objectives, "OBJECTIVES", "squared_capacity", {"objective.kind": "squared_capacity", "objective.capacity": 2.0}),
    ],
)
def test_what_is_added_can_be_used(module, table, name, changed, tmp_path, monkeypatch):
    """The example as it stands, as if it stood at the end of its room; then a study uses it."""
    block = next(block for block in blocks("python") if f'{table}["{name}"]' in block)
    monkeypatch.setitem(getattr(module, table), name, None)  # undone at the end, with what the example adds
    exec(compile(block, str(README), "exec"), dict(vars(module)))
    config = tiny(**LINEAR)
    for key, value in changed.items():
        group, _, field = key.partition(".")
        config[group][field] = value
    (row,) = study.run(config, tmp_path)
    assert np.isfinite(row["elbo"])
    assert ("rate_se" in row) == (module is priors)


def test_the_likelihood_of_the_readme_is_right(monkeypatch):
    """One struct and one line, in fewer than ten: against SciPy."""
    block = next(block for block in blocks("python") if "LIKELIHOODS[" in block)
    assert len(re.findall(r"^\S*\[.*\] = ", block, flags=re.MULTILINE)) == 1
    assert len([line for line in block.splitlines() if line.strip()]) < 10
    monkeypatch.setitem(likelihoods.LIKELIHOODS, "laplace", None)  # is taken out again in the end
    exec(compile(block, str(README), "exec"), dict(vars(likelihoods)))
    family = likelihoods.LIKELIHOODS["laplace"]
    x = np.random.default_rng(0).normal(size=(3, 4)).astype(np.float32)
    law = scipy.stats.laplace(0.25, 0.5 / math.sqrt(2))
    built = family.build(jnp.full((3, 4), 0.25), jnp.log(jnp.float32(0.5)), 1)
    np.testing.assert_allclose(built.log_prob(jnp.asarray(x)), law.logpdf(x.astype(float)).sum(axis=1), rtol=1e-5)


def test_other_python_is_valid():
    for block in blocks("python"):
        compile(block, str(README), "exec")


def test_links_lead_somewhere():
    for page in PAGES:
        links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
        assert links
        assert [link for link in links if not (page.parent / link).exists()] == []


def test_named_files_are_there():
    """Every path below a folder of the repository, but for what a run leaves behind and for stand-ins like NAME."""
    named = set(re.findall(r"(?<![\w/.])(?:\./)?((?:configs|scripts|tests|docs|vae_jax|experiments)/[\w./-]*\w)", text()))
    assert {"scripts/reproduce", "scripts/test"} <= named
    missing = {path for path in named if not (ROOT / path).exists() and not re.search(r"[A-Z]{3}|/my|/mine", path)}
    assert missing == set()


def commands() -> list[str]:
    """Every `python -m experiments...` with its continued lines."""
    joined = text().replace("\\\n", " ")
    return [found.strip() for found in re.findall(r"python -m (experiments\.[^\n`]*)", joined)]


def test_commands_are_those_there_are():
    modules = {command.split()[0] for command in commands()}
    mains = {path.stem for path in (ROOT / "experiments").glob("*.py")} - {"__init__", "command_line", "config_files"}
    assert modules == {f"experiments.{main}" for main in mains}
    for module in modules:
        assert (ROOT / f"{module.replace('.', '/')}.py").exists()


def test_names_in_commands_are_config_names():
    fields = grid.flatten(importlib.import_module("configs.base").get_config().to_dict())
    named = [
        name for command in commands() for name in re.findall(r"--(?:config\.|sweep=)([a-z_]+(?:\.[a-z_0-9]+)*)=", command)
    ]
    assert named
    assert [name for name in named if name not in fields and name != "x.y"] == []


@pytest.mark.parametrize("topic", ["results.csv", "--sweep", "npz", "tfds", "likelihood", "network", "PCA", "nats"])
def test_it_speaks_of(topic):
    assert topic.lower() in text().lower()
