"""The published studies: each names rows and columns that its config makes, and one of them runs from end to end."""

import importlib

import pytest
from test_study import compiled_once, tiny  # noqa: F401

from experiments import published
from vae_jax import grid


@pytest.mark.parametrize("name", published.PUBLISHED)
def test_rows_are_those_of_the_config(name):
    module = importlib.import_module(f"configs.{name}")
    config = module.get_config().to_dict()
    names = {run.name for run in grid.expand(config, getattr(module, "sweep", None))} | set(config["baselines"])
    for row, column, _, _ in published.PUBLISHED[name]:
        assert row in names
        assert column != "importance_bound" or config["eval"]["importance_samples"] > 0


def test_ours_stand_beside_theirs(tmp_path, monkeypatch):
    module = importlib.import_module("configs.pytorch_examples")
    monkeypatch.setattr(module, "get_config", lambda: tiny(name="pytorch_examples"))
    (line,) = published.compare("pytorch_examples", tmp_path / "run", data_dir="")
    assert "negative elbo" in line
    assert 0 < float(line.partition("ours")[2].split()[0]) < 100
    assert line.endswith("105.6 +- 0.5, pytorch/examples")
    assert (tmp_path / "run" / "results.csv").exists()
