"""The published studies: each names rows and columns that its config makes, and one of them runs from end to end."""

import importlib
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support import tiny

from experiments import published
from vae_jax.data.dataset import load
from vae_jax.figures import draw as figures
from vae_jax.models import likelihoods
from vae_jax.models.vae import VAE, ModelSpec
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


def test_the_ends_of_the_scale_on_mnist():
    """Of a decoder that says nothing but the mean, 205.8 to 206.0 nats; no grey image costs less than its entropy, 45.5."""
    directory = pathlib.Path(os.environ.get("TFDS_DATA_DIR", ""), "mnist")
    if not directory.is_dir():
        pytest.skip("needs a prepared mnist in $TFDS_DATA_DIR")
    dataset = load("mnist", valid_fraction=0)
    x = jnp.asarray(dataset.images("test"))
    spec = ModelSpec(shape=x.shape[1:], hidden=(), activation="relu", sigma="")
    variables = {"statistics": jax.tree.map(jnp.asarray, dataset.statistics("center"))}
    key = {"params": jax.random.key(0)}
    params = VAE(spec).apply(variables, x[:1], rngs=key, mutable=["params"])[1]["params"]
    collapsed = VAE(spec).bind(variables | {"params": jax.tree.map(jnp.zeros_like, params)})
    assert 205.8 < -np.mean(collapsed.decode(jnp.zeros((len(x), 2))).log_prob(x)) < 206.0
    logits = jnp.clip(jnp.log(x) - jnp.log1p(-x), -50, 50)
    assert -np.mean(likelihoods.Bernoulli(logits).log_prob(x)) == pytest.approx(45.53, abs=0.01)
