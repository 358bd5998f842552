"""The table of metrics: what is documented is what is written, and a metric of one's own is a few lines."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import random
from support import small_model, tiny, undocumented

from vae_jax.core import errors
from vae_jax.data.dataset import Dataset, ImageSpec, Split
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.evaluation import metrics
from vae_jax.evaluation.config import EvalConfig, overrides
from vae_jax.evaluation.metric import METRICS, Column, Run, Setting, mean_over_images, of_codes
from vae_jax.models.vae import VAE
from vae_jax.study import study
from vae_jax.training import objectives

PIXELS = 6
MODEL = small_model(shape=(PIXELS,), encoder="linear", decoder="linear", hidden=())


@functools.cache
def dataset() -> Dataset:
    generator = np.random.default_rng(0)
    splits = {
        name: Split(generator.normal(size=(size, PIXELS)).astype(np.float32), np.arange(size) % 3)
        for name, size in (("train", 31), ("test", 17))
    }
    return Dataset(splits, ImageSpec((PIXELS,), 1, False), 0)


@functools.cache
def variables() -> dict:
    """A random network."""
    return jax.jit(VAE(MODEL).init)(random.key(1), jnp.zeros((1, PIXELS)))


def evaluated(**fields) -> tuple[dict, dict]:
    """(row, arrays) of that network with little drawn."""
    small = {"samples": 2, "batch_size": 8, "decoded": 20, "aggregate_samples": 4, "calibration_samples": 2}
    weights = objectives.Weights(noise_scale=np.float32(1), distortion_weight=np.float32(1), beta=np.float32(1))
    leaves = (variables(), np.float32(0.5), weights, np.int32(0))
    one = jax.tree.map(lambda leaf: np.asarray(leaf)[None], leaves)
    ((row, arrays),) = evaluation.evaluate(evaluation.TrainedRuns(MODEL, *one), EvalConfig(**small | fields), dataset())
    return row, arrays


@functools.cache
def everything() -> dict:
    """The row with every metric that need not be asked for."""
    row, _ = evaluated()
    return row


def test_metrics_of_ones_own(monkeypatch):
    """One per image, one of codes and labels."""
    others = tuple(name for name in METRICS if name != "bounds")

    def contrast(trained, x, key):
        return {"contrast": jnp.std(trained.vae.decode(trained.vae.encode(x).mean).mean, axis=1)}

    monkeypatch.setitem(METRICS, "contrast", mean_over_images(contrast, Column("contrast", "std of a reconstruction")))
    spread = of_codes(lambda codes, split: {"spread": float(codes[split.labels == 0].std())}, Column("spread", "of class 0"))
    monkeypatch.setitem(METRICS, "spread", spread)
    row, arrays = evaluated(without=others)
    means = VAE(MODEL).bind(variables()).decode(jnp.asarray(arrays["codes_mean"])).mean
    assert row["contrast"] == pytest.approx(np.std(np.asarray(means), axis=1).mean(), rel=1e-5)
    assert row["contrast_image_se"] > 0
    assert row["spread"] == pytest.approx(arrays["codes_mean"][::3].std(), rel=1e-6)
    assert undocumented(row) == set()


def test_the_printed_summary_has_every_column_with_decimals(monkeypatch):
    assert list(metrics.decimals())[:7] == [*metrics.FIRST, "mse"]
    mine = of_codes(lambda codes, split: {"mine": 0.0}, Column("mine", "one of a config file", decimals=1))
    monkeypatch.setitem(METRICS, "mine", mine)
    assert study.summary([{"run": 0, "name": "vae", "seed": 0, "mine": 0.5}]).split() == [
        "name", "seeds", "mine", "vae", "1", "0.5"
    ]  # fmt: skip


def test_metrics_can_be_left_out():
    row, arrays = evaluated(without=("frechet", "knn_accuracy", "calibration", "rate_parts"))
    assert not {name for name in row if name.startswith(("frechet", "knn", "coverage", "mutual"))}
    assert {name: everything()[name] for name in row} == row  # nothing else moves
    assert len(arrays["samples"]) > 0


@pytest.mark.parametrize("name", ["quick", "none"])
def test_sets_of_evaluation(name):
    fields = {key.removeprefix("eval."): value for key, value in overrides(name).items()}
    row, arrays = evaluated(**fields | {"batch_size": 8})
    assert set(row) >= {"elbo", "active_units"} if name == "quick" else row == arrays == {}
    assert not [column for column in row if column.startswith("train_")]
    assert "frechet_prior" not in row and "mutual_information" not in row
    config = tiny()
    config.update_from_flattened_dict(overrides(name))
    with pytest.raises(errors.UserError, match="did you mean quick"):
        overrides("quik")


def test_no_batch_of_the_training_split_where_it_is_left_out(monkeypatch):
    """The columns of the test split are the same, and what is measured on codes of the training split is not there."""
    whole = everything()
    seen, batches = set(), evaluation.batches.batches
    monkeypatch.setattr(
        evaluation.batches, "batches", lambda dataset, split, size: (seen.add(split), batches(dataset, split, size))[1]
    )
    row, _ = evaluated(train=False)
    assert seen == {"test"}
    assert row == {name: whole[name] for name in row}
    gone = {name for name in whole if name not in row}
    assert gone == {name for name in whole if name.startswith("train_")} | {"knn_accuracy", "subspace_distance"}


def test_a_target_of_the_training_split_is_not_judged_without_it():
    setting = Setting(MODEL, EvalConfig(train=False), dataset(), "geco")
    weights = objectives.Weights(noise_scale=np.float32(1), distortion_weight=np.float32(1), beta=np.float32(1))
    plan = evaluation.Plan.of(setting)
    run = Run(setting, weights, {}, {}, {})
    assert "target_met" not in METRICS["scale"].finish(plan.states()["scale"], run)


def test_a_larger_split_has_fewer_draws_per_image():
    spec = EvalConfig(samples=128, draws=1000)
    assert [spec.draws_of(128, images) for images in (5, 10, 400, 10_000)] == [128, 100, 2, 2]
    # Digits, MNIST: a standard deviation of 5 nats over draws is an error of 0.02 nats in their mean.
    assert [EvalConfig().draws_of(128, images) for images in (360, 10_000, 60_000)] == [128, 5, 2]
    assert EvalConfig(samples=128, draws=0).draws_of(128, 10**6) == 128
    plan = evaluation.Plan.of(Setting(MODEL, EvalConfig(draws=62), dataset()))
    assert (plan.limit("train"), plan.limit("test")) == (2, 3)
