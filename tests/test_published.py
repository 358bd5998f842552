"""The published studies: each names rows and columns that its config makes, and one of them runs from end to end."""

import importlib

import pytest
from support import tiny

from experiments import published
from vae_jax.figures import draw as figures
from vae_jax.study import grid, study


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


def test_several_seeds_are_told_apart(tmp_path, monkeypatch):
    rows = [{"name": "flow", "seed": seed, "importance_bound": -90.0} for seed in range(2)]
    rows += [{"name": "vamp", "seed": 0, "importance_bound": -90.0}]
    monkeypatch.setattr(study, "run", lambda *_: rows)
    monkeypatch.setattr(figures, "draw", lambda _: [])
    lines = published.compare("mnist_priors", tmp_path, data_dir="")
    assert [line.partition("negative")[0].split()[1:] for line in lines] == [
        ["vamp"],
        ["flow", "seed", "0"],
        ["flow", "seed", "1"],
    ]
