"""Every figure of a row against a known answer: a linear Gaussian model has them all in closed form."""

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.linalg
import scipy.stats
from jax import random
from sklearn.neighbors import KNeighborsClassifier
from support import tiny, undocumented

from vae_jax.core import errors
from vae_jax.data.dataset import Dataset, ImageSpec, Split
from vae_jax.evaluation import baselines, batches, closed_form, codes, frechet, metric
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.evaluation import queries as pictures
from vae_jax.evaluation.metric import METRICS
from vae_jax.models.vae import VAE
from vae_jax.study import grid, planning
from vae_jax.system import memory, runs
from vae_jax.training import objectives

SIGMA = 0.5
PIXELS, LATENTS = 5, 3
SEEDS = 24
# One block of runs and a part of the next: a point, half the noise, then the whole of it with many seeds, and beside these
# the linear model at its optimum, and turned.
NOISE = (0.0, 0.5, *[1.0] * SEEDS)
AE, HALF, VAES, OPTIMUM, TURNED = 0, 1, range(2, 2 + SEEDS), 2 + SEEDS, 3 + SEEDS


@functools.cache
def dataset() -> Dataset:
    """Vectors far from zero, so that a padding row would be seen in any mean."""
    generator = np.random.default_rng(0)
    sizes = {"train": 91, "test": 53}
    splits = {
        name: Split(generator.normal(2.0, 1.0, (size, PIXELS)).astype(np.float32), np.arange(size) % 4)
        for name, size in sizes.items()
    }
    return Dataset(splits, ImageSpec((PIXELS,), 1, False), 0)


@functools.cache
def planned(batch_size: int):
    """The network and what is drawn, from a config."""
    linear = {"model__encoder": "linear", "model__decoder": "linear", "model__latents": LATENTS, "model__normalize": "none"}
    likelihood = {"model__likelihood": "gaussian", "model__sigma": str(SIGMA), "train__batch_size": 16}
    small = {"eval__samples": 8, "eval__calibration_samples": 4, "eval__batch_size": batch_size, "eval__decoded": 500}
    config = tiny(**linear, **likelihood, **small)
    (run,) = grid.expand(config.to_dict())
    return planning.specify(run, dataset())[0].model, evaluation.EvalConfig(**run.group("eval"))


@functools.cache
def variables() -> dict:
    """Random parameters; the last latent hardly knows the image."""
    model, _ = planned(20)
    params = jax.jit(VAE(model).init)(random.key(1), jnp.zeros((1, PIXELS)))["params"]
    kernel = np.array(params["encoder"]["Dense_0"]["kernel"])
    kernel[:, -1] *= 1e-3
    params["encoder"]["Dense_0"]["kernel"] = kernel
    params["decoder"]["Dense_0"]["bias"] = np.linspace(-1, 1, PIXELS, dtype=np.float32)
    return {"params": params}


def every(value) -> np.ndarray:
    """The same leaf for every run."""
    return np.broadcast_to(value, (len(NOISE), *np.shape(value)))


def without_all_but(*names: str) -> tuple[str, ...]:
    """What `eval.without` says where these metrics alone are looked at."""
    return tuple(name for name in METRICS if name not in names)


# Everything that is estimated beside the bounds.
ALL = {
    "valid": True,
    "importance_samples": 60,
    "importance_splits": ("train", "valid", "test"),
    "aggregate_samples": 40,
    "ais_temperatures": 8,
    "ais_chains": 8,
    "ais_images": 500,
    "gradient_samples": 400,
}


@functools.cache
def evaluated() -> list[tuple[dict, dict]]:
    """(row, arrays) of all runs with every estimate there is: one evaluation, because compiling is what takes time.

    Also of a validation split, which has the images of the test split. An image of padding would make every number that
    sees it none.
    """
    splits = dataset().splits
    more = dataclasses.replace(dataset(), splits=splits | {"valid": splits["test"]})
    together = (drawn(), optimal(), optimal(tilt=TILT))
    leaves = [(each.variables, each.sigma, each.weights, each.seeds) for each in together]
    trained = evaluation.TrainedRuns(planned(20)[0], *jax.tree.map(lambda *each: np.concatenate(each), *leaves))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "PADDING", np.nan)
        return list(evaluation.evaluate(trained, dataclasses.replace(planned(20)[1], **ALL), more))


def of_runs(weights: objectives.Weights, count: int) -> objectives.Weights:
    """Every number with a runs axis."""
    return jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count,)), weights)


def drawn() -> evaluation.TrainedRuns:
    """The runs of `NOISE`."""
    noise = np.float32(NOISE)
    weights = of_runs(objectives.Weights(noise_scale=noise, distortion_weight=np.ones_like(noise), beta=noise), len(noise))
    seeds = np.int32([0, 0, *range(SEEDS)])
    return evaluation.TrainedRuns(planned(20)[0], jax.tree.map(every, variables()), every(np.float32(SIGMA)), weights, seeds)


def evaluated_by(spec: evaluation.EvalConfig, count: int) -> list[tuple[dict, dict]]:
    """(row, arrays) of the first of the runs of `NOISE`."""
    return list(evaluation.evaluate(drawn().take(slice(count)), spec, dataset()))


def rows() -> list[dict]:
    """Of the runs of `NOISE`."""
    return [row for row, _ in evaluated()[: len(NOISE)]]


@dataclasses.dataclass(frozen=True)
class Exact:
    """What is known of one split at one noise scale, in float64."""

    distortion: float
    rate: float
    mse: float


def decoder() -> tuple[np.ndarray, np.ndarray]:
    """W [latents, pixels] and b of the decoder."""
    bound = VAE(planned(20)[0]).bind(variables())
    decode = jax.jit(lambda z: bound.decode(z, SIGMA).mean)
    origin, *units = np.asarray(decode(np.eye(LATENTS + 1, LATENTS, -1, dtype=np.float32)), float)
    return np.array(units) - origin, origin


@functools.cache
def encoded(split: str):
    return jax.jit(VAE(planned(20)[0]).bind(variables()).encode)(dataset().images(split))


@functools.cache
def exact(split: str, noise_scale: float) -> Exact:
    """E|x - W z - b|^2 = |x - W mean - b|^2 + sum_i |W_i|^2 var_i, and the KL of two Gaussians."""
    x = dataset().images(split).astype(float)
    posterior = encoded(split)
    mean, variance = np.asarray(posterior.mean, float), noise_scale**2 * np.exp(np.asarray(posterior.log_var, float))
    kernel, bias = decoder()
    squares = np.square(x - mean @ kernel - bias).sum(axis=1)
    spread = variance @ np.square(kernel).sum(axis=1)
    distortion = (squares + spread) / (2 * SIGMA**2) + PIXELS / 2 * math.log(2 * math.pi * SIGMA**2)
    rate = 0.5 * (mean**2 + variance - 1 - np.log(variance)).sum(axis=1) if noise_scale else np.array(np.inf)
    return Exact(distortion.mean(), rate.mean(), squares.mean() / PIXELS)


# Columns


@pytest.mark.parametrize("prefix", ["", "train_"])
def test_distortion_and_its_error_match_the_closed_form(prefix):
    """The z-scores of many seeds are standard normal: unbiased, and the stated error is the real one."""
    known = exact("train" if prefix else "test", 1.0).distortion
    scores = [(rows()[run][f"{prefix}distortion"] - known) / rows()[run][f"{prefix}distortion_se"] for run in VAES]
    low, high = scipy.stats.chi2(SEEDS).ppf([1e-4, 1 - 1e-4])
    assert low < np.sum(np.square(scores)) < high
    assert abs(np.mean(scores)) < 4 / math.sqrt(SEEDS)


def test_half_the_noise_is_drawn_and_reported():
    known, row = exact("test", 0.5), rows()[HALF]
    assert abs(row["distortion"] - known.distortion) < 4 * row["distortion_se"]
    assert abs(row["distortion"] - exact("test", 1.0).distortion) > 10 * row["distortion_se"]
    assert row["rate"] == pytest.approx(known.rate, rel=1e-5)
    assert row["train_rate"] == pytest.approx(exact("train", 0.5).rate, rel=1e-5)
    assert row["mean_std"] == pytest.approx(rows()[VAES[0]]["mean_std"] / 2, rel=1e-6)


def test_the_rate_is_the_closed_form_for_every_seed():
    for split, prefix in (("test", ""), ("train", "train_")):
        assert {rows()[run][f"{prefix}rate"] for run in VAES} == {rows()[VAES[0]][f"{prefix}rate"]}
        assert rows()[VAES[0]][f"{prefix}rate"] == pytest.approx(exact(split, 1.0).rate, rel=1e-5)


def test_the_elbo_is_what_it_is_called():
    for row in rows():
        for prefix in ("", "train_"):
            assert row[f"{prefix}elbo"] == -(row[f"{prefix}distortion"] + row[f"{prefix}rate"])
    assert rows()[HALF]["elbo_se"] == rows()[HALF]["distortion_se"] > 0


def test_a_point_for_a_code_has_infinite_rate_and_an_exact_distortion():
    row, known = rows()[AE], exact("test", 0.0)
    assert (row["rate"], row["elbo"], row["mean_std"]) == (math.inf, -math.inf, 0)
    assert (row["train_rate"], row["train_elbo"]) == (math.inf, -math.inf)
    assert row["distortion"] == pytest.approx(known.distortion, rel=1e-6)
    assert row["distortion_se"] == 0
    assert row["elbo_se"] is None


def test_mse_is_at_the_mean_code_whatever_the_noise():
    for row in rows():
        assert row["mse"] == pytest.approx(exact("test", 1.0).mse, rel=1e-6)
        assert row["train_mse"] == pytest.approx(exact("train", 1.0).mse, rel=1e-6)


def test_a_latent_that_does_not_vary_is_not_active():
    assert {row["active_units"] for row in rows()} == {LATENTS - 1}


@functools.cache
def in_batches(batch_size: int) -> list[tuple[dict, dict]]:
    """(row, arrays) of the first three runs, without decoded means."""
    others = without_all_but("bounds", "active_units", "knn_accuracy", "frechet")
    return evaluated_by(dataclasses.replace(planned(batch_size)[1], decoded=0, without=others), 3)


@pytest.mark.parametrize("batch_size", [7, 500])
def test_padding_is_never_counted(batch_size):
    """8 or 1 batches instead of 3, for 53 images: only what is drawn may differ."""
    found = in_batches(batch_size)
    for (row, arrays), (other, others) in zip(found, evaluated()[:3], strict=True):
        for name in ("rate", "mse", "mean_std", "train_rate", "train_mse"):
            assert row[name] == pytest.approx(other[name], rel=1e-6)
        for name in ("active_units", "knn_accuracy"):
            assert row[name] == other[name]
        assert arrays["codes_mean"].shape == (53, LATENTS)
        np.testing.assert_allclose(arrays["codes_mean"], others["codes_mean"], rtol=1e-5, atol=1e-6)
    (ae, _), (vae, _) = found[:2]
    assert ae["distortion"] == pytest.approx(exact("test", 0.0).distortion, rel=1e-6)
    assert abs(vae["distortion"] - exact("test", 0.5).distortion) < 4 * vae["distortion_se"]


@functools.cache
def drawn_once() -> dict:
    """The row of the optimum where everything is drawn once but the chains of annealing, for as many images as there are."""
    one = dict.fromkeys(("samples", "importance_samples", "aggregate_samples", "gradient_samples"), 1)
    unaffected = ("frechet", "knn_accuracy", "calibration", "subspace_distance")
    fields = {"valid": False, "importance_splits": ("train", "test"), "ais_images": 53, "without": unaffected}
    spec = dataclasses.replace(planned(20)[1], **ALL | one | fields)
    ((row, _),) = evaluation.evaluate(optimal(), spec, dataset())
    return row


def test_no_estimate_sees_padding():
    for row, arrays in evaluated()[HALF:]:
        assert all(math.isfinite(value) for value in row.values())
        assert all(np.isfinite(array).all() for array in arrays.values())
    annealed = {name: value for name, value in drawn_once().items() if name.startswith("ais")}
    assert "ais_bound" in annealed
    assert {name: estimated()[name] for name in annealed} == annealed


def test_every_column_is_documented():
    row = rows()[VAES[0]]
    assert undocumented(row) == set()
    some = {"elbo", "train_elbo", "valid_elbo", "knn_accuracy", "frechet_prior", "ais_bound_image_se", "subspace_distance"}
    assert {*some, "train_importance_bound", "gradient_variance_score"} <= set(row)


def ratios(found: list[dict]) -> dict[str, float]:
    """For each error of a column over draws: how far the column spreads over seeds, in units of what the error says."""
    errors = [name for name in found[0] if name.endswith("_se") and not name.endswith("_image_se")]
    return {
        name: np.std([row[name.removesuffix("_se")] for row in found], ddof=1) / np.mean([row[name] for row in found])
        for name in errors
    }


def test_errors_are_those_of_repetition():
    """Standard deviations of so many values and errors lie within a half of the true ones."""
    found = ratios([{name: row[name] for name in row if not name.startswith("valid_")} for row in rows()[VAES[0] :]])
    assert len(found) == 17
    assert {name: ratio for name, ratio in found.items() if not 0.55 < ratio < 1.6} == {}


@pytest.mark.stress
@pytest.mark.parametrize("images", [20, 53])
def test_errors_are_those_of_a_hundred_repetitions(images):
    """Also where the rate is taken apart for all images, or for some."""
    fields = {"valid": False, "importance_splits": ("test",), "aggregate_samples": images}
    count = 100
    same = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (count, *np.shape(leaf))), (variables(), np.float32(SIGMA)))
    weights, seeds = of_runs(objectives.Weights(), count), np.arange(count, dtype=np.int32)
    trained = evaluation.TrainedRuns(planned(20)[0], *same, weights, seeds)
    spec = dataclasses.replace(planned(20)[1], **ALL | fields)
    found = ratios([row for row, _ in evaluation.evaluate(trained, spec, dataset())])
    assert {name: ratio for name, ratio in found.items() if not 0.8 < ratio < 1.3} == {}


def test_draws_come_from_the_seed():
    assert len({rows()[run]["distortion"] for run in VAES}) == SEEDS


def test_samples_of_the_prior_are_decoded():
    """frechet_prior against the distance of N(b, W^T W), from which decoder means of the prior come, to the images."""
    kernel, bias = decoder()
    x = dataset().images("test").astype(float)
    covariance, product = np.cov(x, rowvar=False, bias=True), kernel.T @ kernel
    cross = scipy.linalg.sqrtm(product @ covariance).real
    known = np.square(bias - x.mean(axis=0)).sum() + np.trace(product + covariance - 2 * cross)
    found = [rows()[run]["frechet_prior"] for run in VAES]
    assert abs(np.mean(found) - known) < np.std(found)  # the mean of 20 within the spread of one
    assert np.std(found) < 0.1 * known


def test_arrays_hold_the_codes():
    posterior = encoded("test")
    for run in (AE, HALF, VAES[-1]):
        _, arrays = evaluated()[run]
        np.testing.assert_allclose(arrays["codes_mean"], posterior.mean, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(arrays["codes_std"], NOISE[run] * np.asarray(posterior.std), rtol=1e-6)
        np.testing.assert_array_equal(arrays["labels"], dataset().splits["test"].labels)
        np.testing.assert_array_equal(arrays["images"], dataset().images("test")[: len(arrays["images"])])
        assert arrays["held_to_prior"] == (NOISE[run] > 0)  # beta, see evaluated()
        covariance = np.cov(dataset().images("train").astype(float), rowvar=False, bias=True)
        np.testing.assert_allclose(arrays["spectrum"], np.linalg.eigvalsh(covariance)[::-1])


@contextlib.contextmanager
def no_programs():
    """No program that an evaluation before has made, and none that this one makes afterwards."""
    evaluation._over_runs.cache_clear()
    yield
    evaluation._over_runs.cache_clear()


@functools.cache
def in_turns() -> tuple[list[int], list[dict]]:
    """How many runs were tried together where memory holds one, and the rows of the first six, without what is asked for."""
    real, sizes = runs.over_runs, []

    def exhausted(function, mesh, **options):
        program = real(function, mesh, **options)

        def call(*args):
            sizes.append(len(args[0][-1]))
            if sizes[-1] > 1:
                raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")
            return program(*args)

        return call

    with pytest.MonkeyPatch.context() as patch, no_programs():
        patch.setattr(runs, "over_runs", exhausted)
        patch.setattr(evaluation, "BLOCK", 5)
        return sizes, [row for row, _ in evaluated_by(planned(20)[1], 6)]


def test_runs_take_turns_where_memory_is_short(monkeypatch):
    """Half as many together where a device has no more; the rows are the same."""
    sizes, found = in_turns()
    assert list(dict.fromkeys(sizes)) == [5, 3, 2, 1]
    assert found == [{name: row[name] for name in mine} for mine, row in zip(found, rows(), strict=False)]
    monkeypatch.setattr(memory, "free", lambda: 10**5)
    assert evaluation.Plan.of(metric.Setting(*planned(20), dataset())).together(5) == 1


def test_no_memory_for_one_run_is_told(monkeypatch):
    def exhausted(*_, **__):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory.")

    monkeypatch.setattr(runs, "over_runs", lambda *_, **__: exhausted)
    with no_programs(), pytest.raises(errors.UserError, match="out of memory on a device with 1 run at a time"):
        evaluated_by(planned(20)[1], 1)


def test_a_valid_split_is_evaluated_where_it_is_asked_for():
    """Its columns are those of the same images as the test split, but for the draws; the others do not move."""
    row, alone = rows()[2], in_turns()[1][2]
    assert row["valid_rate"] == pytest.approx(row["rate"], rel=1e-6)
    assert row["valid_mse"] == pytest.approx(row["mse"], rel=1e-6)
    assert row["valid_distortion"] != row["distortion"]
    assert abs(row["valid_distortion"] - row["distortion"]) < 5 * 2 * row["distortion_se"]
    assert row["valid_importance_bound"] > row["valid_elbo"]
    assert not [name for name in alone if name.startswith("valid_")]
    assert {name: row[name] for name in alone} == pytest.approx(alone, rel=1e-6)


def test_without_decoded_means_there_is_no_frechet_distance():
    model, spec = planned(20)
    metrics, others = (
        set(evaluation.Plan.of(metric.Setting(model, each, dataset())).metrics)
        for each in (spec, dataclasses.replace(spec, decoded=0))
    )
    assert metrics - others == {"frechet"}
    row, arrays = in_batches(500)[2]
    assert {"frechet_prior", "frechet_midpoint"} == {name for name in rows()[2] if name.startswith("frechet")}
    assert not [name for name in row if name.startswith("frechet")]
    assert len(arrays["samples"]) == pictures.SAMPLES


# What is estimated beside: the linear model at its optimum, through the whole evaluation


@functools.cache
def optimum():
    return closed_form.linear_vae(dataset().images("train").astype(float), LATENTS)


TILT = 0.3


def optimal(tilt: float = 0.0) -> evaluation.TrainedRuns:
    """One run: the exact optimum with sigma fixed to its own; `tilt` turns its first direction towards the last."""
    exact = optimum()
    directions = np.linalg.svd(exact.weights)[0]
    weights = exact.weights.copy()
    length = np.linalg.norm(weights[:, 0])
    weights[:, 0] = length * (math.cos(tilt) * weights[:, 0] / length + math.sin(tilt) * directions[:, -1])
    encoder = {
        "Dense_0": {"kernel": exact.gain.T, "bias": -exact.gain @ exact.mean},
        "log_var": np.log(exact.variances) / 10,
    }
    params = {"encoder": encoder, "decoder": {"Dense_0": {"kernel": weights.T, "bias": exact.mean}}}
    leaves = ({"params": jax.tree.map(lambda leaf: np.float32(leaf)[None], params)}, np.float32([math.sqrt(exact.sigma2)]))
    of_objective = of_runs(objectives.Weights(np.float32(1), np.float32(2), np.float32(3)), 1)
    return evaluation.TrainedRuns(planned(20)[0], *leaves, of_objective, np.int32([7]))


def estimated() -> dict:
    """The row of the optimum."""
    return evaluated()[OPTIMUM][0]


def test_columns_of_scale():
    row = estimated()
    assert row["effective_beta"] == 1.5
    assert row["sigma"] == pytest.approx(math.sqrt(optimum().sigma2), rel=1e-6)
    assert row["theta"] == pytest.approx(1.5 * optimum().sigma2, rel=1e-6)


def test_importance_bound_columns():
    row = estimated()
    for prefix, split in (("", "test"), ("train_", "train")):
        exact = optimum().log_prob(dataset().images(split).astype(float)).mean()
        # At the exact posterior every draw is log p(x).
        assert row[f"{prefix}importance_bound"] == pytest.approx(exact, abs=1e-4)
        assert 0 <= row[f"{prefix}importance_bound_se"] < 1e-4
        assert abs(row[f"{prefix}elbo"] - exact) < 5 * row[f"{prefix}elbo_se"]


def test_columns_of_the_rate_add_up():
    row = estimated()
    parts = row["mutual_information"] + row["total_correlation"] + row["dimension_wise_kl"]
    assert parts == pytest.approx(row["sampled_rate"], rel=1e-5)
    assert abs(row["sampled_rate"] - row["rate"]) < 5 * row["sampled_rate_se"]
    assert row["mutual_information"] <= math.log(row["aggregate_images"]) == math.log(53)


def test_latents_that_the_prior_does_not_take_apart_have_no_kl_each():
    model, spec = planned(20)
    model, spec = dataclasses.replace(model, prior="mixture"), dataclasses.replace(spec, aggregate_samples=53)
    spec = dataclasses.replace(spec, without=without_all_but("rate_parts"))
    shapes, generator = jax.eval_shape(VAE(model).init, random.key(1), jnp.zeros((1, PIXELS))), np.random.default_rng(1)
    weights = of_runs(objectives.Weights(), 1)
    leaves = (
        jax.tree.map(lambda leaf: generator.normal(0, 0.3, (1, *leaf.shape)).astype(np.float32), shapes),
        np.float32([SIGMA]),
        weights,
        np.int32([0]),
    )
    ((row, _),) = evaluation.evaluate(evaluation.TrainedRuns(model, *leaves), spec, dataset())
    assert "dimension_wise_kl" not in row
    assert row["mutual_information"] + row["aggregate_kl"] == pytest.approx(row["sampled_rate"], rel=1e-5)


def test_columns_of_annealing():
    row = estimated()
    assert row["bdmc_gap"] == pytest.approx(row["bdmc_upper"] - row["bdmc_lower"], rel=1e-5)
    assert row["bdmc_gap"] > -4 * row["bdmc_gap_se"]
    exact = optimum().log_prob(dataset().images("test").astype(float)).mean()
    assert row["ais_bound"] < exact + 4 * row["ais_bound_se"]
    assert 1 <= row["ais_effective_samples"] <= ALL["ais_chains"] + 1e-5
    assert 0 < row["gradient_variance_reparameterized"] < row["gradient_variance_score"]


def test_deviations_are_nothing_at_the_optimum_and_something_elsewhere():
    """E[mean] = 0 and E[mean^2 + std^2] = 1 per latent on the training split."""
    row = estimated()
    assert row["train_mean_deviation"] < 1e-5
    assert row["train_moment_deviation"] < 1e-5
    posterior = encoded("train")
    mean, variance = np.asarray(posterior.mean, float), np.exp(np.asarray(posterior.log_var, float))
    elsewhere = rows()[VAES[0]]
    assert elsewhere["train_mean_deviation"] == pytest.approx(np.abs(mean.mean(axis=0)).max(), rel=1e-5)
    second = (mean**2 + variance).mean(axis=0)
    assert elsewhere["train_moment_deviation"] == pytest.approx(np.abs(second - 1).max(), rel=1e-5)


def test_subspace_distance_is_the_sine_of_the_largest_angle():
    assert estimated()["subspace_distance"] < 1e-3  # the square root of float32's rounding
    turned, _ = evaluated()[TURNED]
    assert turned["subspace_distance"] == pytest.approx(math.sin(TILT), rel=1e-4)


def test_one_draw_has_no_standard_error():
    row = drawn_once()
    drawn = ("distortion", "elbo", "train_distortion", "train_elbo", "importance_bound", "train_importance_bound")
    for name in (*drawn, "sampled_rate"):
        assert row[f"{name}_se"] is None
        assert math.isfinite(row[name])
    assert row["gradient_variance_score"] is row["gradient_variance_reparameterized"] is None
    assert all(value is not None for name, value in row.items() if not name.endswith("_se") and "gradient" not in name)


# Closed-form rows


def test_baselines_of_bits_that_are_drawn_afresh_do_not_depend_on_one_draw():
    """The optimum of the expected second moments; its row is measured on the bits that runs are measured on."""
    generator = np.random.default_rng(0)
    pixels = {name: generator.integers(0, 256, (size, 6)).astype(np.uint8) for name, size in (("train", 70), ("test", 40))}
    splits = {name: Split(array) for name, array in pixels.items()}
    dynamic = Dataset(splits, ImageSpec((6,), 255, True), 0)
    p, test = pixels["train"] / 255, dynamic.images("test").astype(float)
    second = (p[:, :, None] * p[:, None]).mean(axis=0) + np.diag((p * (1 - p)).mean(axis=0))
    mean = p.mean(axis=0)
    top = np.linalg.eigh(second - np.outer(mean, mean))[1][:, -2:]
    residual = (test - mean) - (test - mean) @ top @ top.T
    row = baselines.row("pca", dynamic, 2, 1.0, None)
    assert row["mse"] == pytest.approx(np.square(residual).mean(), rel=1e-6)
    assert baselines.row("ppca", dynamic, 2, 1.0, None)["sigma"] > 0


# Nearest neighbours


def test_a_closed_form_leaves_them_out_where_they_are_not_wanted():
    pixels, labels = np.arange(40, dtype=np.uint8).reshape(10, 4), np.arange(10) % 2
    splits = {name: Split(pixels, labels) for name in ("train", "test")}
    dataset = Dataset(splits, ImageSpec((4,), 255, False), 0)
    rows = [baselines.row("pca", dataset, 1, 1.0, None, without) for without in ((), ("knn_accuracy",))]
    assert rows[0].keys() - rows[1].keys() == {"knn_accuracy"}


@pytest.mark.parametrize("latents", [1, codes.TREE_LATENTS, codes.TREE_LATENTS + 1])
def test_knn_is_that_of_scikit_learn(latents):
    generator = np.random.default_rng(latents)
    points, labels = generator.normal(size=(300, latents)).astype(np.float32), 7 * generator.integers(0, 3, 300)
    of_sklearn = KNeighborsClassifier(codes.NEIGHBOURS, algorithm="brute").fit(points[:200], labels[:200])
    found = codes.knn_accuracy(points[:200], labels[:200], points[200:], labels[200:])
    assert found == of_sklearn.score(points[200:], labels[200:])


def test_knn_of_separate_classes_is_perfect_and_of_mixed_labels_is_not():
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = 10 * np.eye(3)[labels] + generator.normal(size=(60, 3))
    assert codes.knn_accuracy(points[:40], labels[:40], points[40:], labels[40:]) == 1.0
    assert codes.knn_accuracy(points[:40], labels[:40], points[40:], (labels[40:] + 1) % 3) == 0.0


def test_five_neighbours_vote():
    """Around 0: two of class 0 are nearest, then three of class 1; the next of class 0 are too far to count."""
    train = np.array([0.1, -0.2, 0.3, -0.4, 0.5, 0.6, -0.7])[:, None]
    labels = np.array([0, 0, 1, 1, 1, 0, 0])
    assert codes.knn_accuracy(train, labels, np.zeros((1, 1)), np.array([1])) == 1.0


def test_of_equal_votes_the_smaller_label_wins():
    train, labels = np.array([0.1, -0.1, 0.2, -0.2])[:, None], np.array([7, 3, 3, 7])
    assert codes.knn_accuracy(train, labels, np.zeros((1, 1)), np.array([3])) == 1.0


# Frechet distance


def distance(a: np.ndarray, b: np.ndarray) -> float:
    spreads = (frechet.Spread(math.prod(x.shape[1:])).add(x[:1]).add(x[1:]) for x in (a, b))
    one, other = spreads
    return frechet.Target(other).distance(one)


def reference(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.reshape(len(a), -1), b.reshape(len(b), -1)
    covariances = [np.cov(x, rowvar=False, bias=True) for x in (a, b)]
    root = scipy.linalg.sqrtm(covariances[0] @ covariances[1]).real
    return np.square(a.mean(axis=0) - b.mean(axis=0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)


def clouds(count=300, shape=(3, 2, 1)):
    generator = np.random.default_rng(3)
    a = generator.normal(size=(count, *shape))
    b = 1 + a[::-1] * generator.uniform(0.5, 2, shape) + generator.normal(size=(count, 1, 1, 1))
    return a, b


def test_frechet_matches_scipy_and_is_symmetric():
    a, b = clouds()
    assert distance(a, b) == pytest.approx(reference(a, b), rel=1e-9)
    assert distance(b, a) == pytest.approx(distance(a, b), rel=1e-9)


def test_frechet_of_gaussians_in_one_dimension():
    a = np.array([-1.0, 1.0])[:, None]  # mean 0, std 1
    assert distance(a, 3 + 2 * a) == pytest.approx(3**2 + (2 - 1) ** 2)


def test_frechet_of_a_shift_is_its_square():
    a, _ = clouds()
    shift = np.linspace(0, 1, 6).reshape(3, 2, 1)
    assert distance(a, a) == pytest.approx(0, abs=1e-9)
    assert distance(a, a + shift) == pytest.approx(np.square(shift).sum(), rel=1e-9)


def test_frechet_of_a_scaling():
    a, _ = clouds()
    trace = np.square(a - a.mean(axis=0)).sum(axis=(1, 2, 3)).mean()
    expected = 0.25 * trace + 0.25 * np.square(a.mean(axis=0)).sum()
    assert distance(a, 1.5 * a) == pytest.approx(expected, rel=1e-9)


def test_frechet_of_fewer_images_than_pixels():
    """Singular covariances, and pixels that never change."""
    a, b = clouds(count=4)
    a[:, 0] = 0
    assert distance(a, a) == pytest.approx(0, abs=1e-6)
    flat = [x.reshape(4, -1) for x in (a, b)]
    centred = [x - x.mean(axis=0) for x in flat]
    # tr (S_a S_b)^(1/2) is the sum of the singular values of the centred data's product.
    cross = np.linalg.norm(centred[0] @ centred[1].T, "nuc") / 4
    spread = sum(np.square(x).sum() / 4 for x in centred) - 2 * cross
    expected = np.square(flat[0].mean(axis=0) - flat[1].mean(axis=0)).sum() + spread
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_of_many_pixels_is_that_of_the_first_images(monkeypatch):
    """By singular values of a matrix of so many rows; both ways agree where both can be taken."""
    a, b = clouds(count=40)
    monkeypatch.setattr(frechet, "SIDE", 5)  # of 6 pixels
    assert frechet.images_of(5000, 6) == 5
    assert frechet.images_of(5000, 5) == 5000
    found = distance(a, b)
    spread = frechet.Spread(6).add(a[:3]).add(a[3:])
    assert spread.is_full
    assert sum((rows if rows.base is None else rows.base).nbytes for rows in spread._rows) == 5 * 6 * 8  # no more is kept
    monkeypatch.undo()
    # Five images span four dimensions: two eigenvalues are 0 up to rounding, of some 1e-16, and their roots are added.
    assert found == pytest.approx(distance(a[:5], b[:5]), rel=1e-7)
    assert found == pytest.approx(reference(a[:5], b[:5]), rel=1e-6)
    assert found > distance(a, b)  # five images do not span six pixels


# Pairs of different classes

LABELS = np.array([3, 1, 1, 7, 3, 1, 1, 1, 1, 7])


def pairs(count: int, labels=LABELS, seed: int = 0):
    return pictures.pairs(labels, count, np.random.default_rng(seed))


def test_pairs_are_of_different_classes():
    found = pairs(5000)
    assert found.shape == (5000, 2)
    assert (LABELS[found[:, 0]] != LABELS[found[:, 1]]).all()


def test_pairs_cover_all_images_evenly():
    first, second = pairs(5000).T
    assert np.bincount(first).tolist() == [500] * 10
    for image in range(10):
        others = np.flatnonzero(LABELS[image] != LABELS)
        counts = np.bincount(second[first == image], minlength=10)[others]
        assert counts.sum() == 500  # and none of its own class
        expected = 500 / len(others)
        assert np.sum((counts - expected) ** 2 / expected) < scipy.stats.chi2(len(others) - 1).ppf(1 - 1e-5)


def test_pairs_come_from_the_seed():
    np.testing.assert_array_equal(pairs(50), pairs(50))
    assert (pairs(50) != pairs(50, seed=1)).any()


def test_fewer_pairs_than_images():
    found = pairs(4)
    assert found.shape == (4, 2)
    assert len(set(found[:, 0])) == 4


@pytest.mark.parametrize("labels", [None, np.zeros(5, int)])
def test_no_pairs_without_two_classes(labels):
    assert pairs(10, labels=labels) is None
