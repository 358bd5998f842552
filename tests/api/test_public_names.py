"""`import vae_jax` is light; its public names are those of the library, and what is missing is told."""

import subprocess
import sys

import pytest
from support import ROOT

import vae_jax
from vae_jax.api import frames, pages, trained
from vae_jax.figures import draw
from vae_jax.study import config, study


def test_each_name_is_the_function_of_the_library():
    public = {
        "curves": frames.curves,
        "default_config": config.default_config,
        "draw": draw.draw,
        "evaluate": study.evaluate,
        "frame": frames.frame,
        "load": trained.load,
        "report": pages.report,
        "run": study.run,
    }
    assert {name: getattr(vae_jax, name) for name in vae_jax.__all__} == public
    assert set(public) <= set(dir(vae_jax))


def test_an_unknown_name_is_told_with_those_there_are():
    with pytest.raises(
        AttributeError, match="module 'vae_jax' has no attribute 'train'; it has curves, default_config, draw"
    ):
        vae_jax.train  # noqa: B018
    assert not hasattr(vae_jax, "train")


def run(program: str) -> str:
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_nothing_heavy_is_imported_before_it_is_used():
    heavy = "{'jax', 'numpy', 'pandas', 'matplotlib', 'orbax', 'ml_collections'} & set(sys.modules)"
    assert run(f"import sys, vae_jax; print(sorted({heavy}))") == "[]"
    assert run(f"import sys, vae_jax; vae_jax.frame, vae_jax.draw; print(sorted({heavy}))") == "['numpy']"


WITHOUT_ML_COLLECTIONS = """
import sys, vae_jax
sys.modules["ml_collections"] = None
try:
    vae_jax.run
except ImportError as error:
    print(error)
"""


def test_a_package_that_is_not_there_is_told():
    said = run(WITHOUT_ML_COLLECTIONS)
    assert said.startswith("vae_jax.run could not be imported: ")
    assert "ml_collections" in said
