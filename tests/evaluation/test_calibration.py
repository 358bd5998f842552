"""Coverage, residuals and intervals of decoders, against linear models whose residuals are known exactly."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats
from jax import random
from support import compiled, small_model, tiny

from vae_jax.data.dataset import Dataset, ImageSpec, Split
from vae_jax.evaluation import accumulate, calibration, closed_form
from vae_jax.evaluation import evaluate as evaluation
from vae_jax.evaluation.metric import METRICS
from vae_jax.models.vae import VAE
from vae_jax.study import grid, planning
from vae_jax.training import objectives
from vae_jax.training.step import Program

PIXELS, IMAGES, DRAWS = 6, 4000, 40
SIGMA = 0.5
# The smallest eigenvalue is above beta sigma^2 for the betas of `ACTIVE`, and below it for those of `SWITCHED_OFF`.
EIGENVALUES = np.array([8.0, 5.0, 4.0, 3.0, 2.5, 2.2])
ACTIVE, SWITCHED_OFF = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0), (10.0, 14.0, 100.0)
SPEC = small_model(shape=(PIXELS,), latents=PIXELS, encoder="linear", decoder="linear", hidden=())


@functools.cache
def images() -> np.ndarray:
    """Gaussian vectors with a covariance that is known exactly, because they are whitened first."""
    generator = np.random.default_rng(0)
    white = generator.normal(size=(IMAGES, PIXELS))
    white = (white - white.mean(axis=0)) @ np.linalg.inv(np.linalg.cholesky(np.cov(white, rowvar=False, bias=True))).T
    axes = np.linalg.qr(generator.normal(size=(PIXELS, PIXELS)))[0]
    return 1 + white @ (axes * np.sqrt(EIGENVALUES)).T


def variables(fitted: closed_form.LinearVAE) -> dict:
    """The closed-form optimum as the parameters of the network."""
    params = {
        "encoder": {
            "Dense_0": {"kernel": fitted.gain.T, "bias": -fitted.mean @ fitted.gain.T},
            "log_var": np.log(fitted.variances) / 10,
        },
        "decoder": {"Dense_0": {"kernel": fitted.weights.T, "bias": fitted.mean}},
    }
    return {"params": jax.tree.map(lambda leaf: jnp.asarray(np.float32(leaf)), params)}


def measure(variables: dict, sigma):
    """All that is drawn of `images` under a model."""
    vae, x, key = VAE(SPEC).bind(variables), jnp.asarray(np.float32(images())), random.key(3)
    posterior = vae.encode(x)
    found = calibration.measure(vae, x, posterior, key, sigma, DRAWS)
    return found | {"squared_error": calibration.squared_error(vae, x, posterior, key, sigma, DRAWS)}


@functools.cache
def program():
    """`measure`, compiled fully: it is called a dozen times, and so takes a third of the time."""
    (found,) = [jax.jit(measure).lower(variables(optimum(1.0)), SIGMA).compile() for _ in compiled(fully=True)]
    return found


@functools.cache
def optimum(beta: float) -> closed_form.LinearVAE:
    return closed_form.linear_vae(images(), PIXELS, beta, SIGMA**2)


@functools.cache
def measured(beta: float, sigma: float = SIGMA) -> tuple[dict, dict]:
    """(columns, what `measure` returns) of the linear optimum at this beta, trained with `SIGMA`, judged with `sigma`."""
    found = jax.device_get(program()(variables(optimum(beta)), sigma))
    return calibration.columns(over_images(found)), found


def over_images(found: dict) -> accumulate.Means:
    return accumulate.Means().add(calibration.summed(found))


def within(k: int, variance: np.ndarray, sigma2: float | np.ndarray) -> float:
    """P(|r| < k sigma) over pixels whose errors are normal with these variances."""
    return float(np.mean(scipy.special.erf(k * np.sqrt(sigma2 / (2 * variance)))))


def residual_variances(beta: float) -> np.ndarray:
    """Of each pixel: diag(U D U'), with D the smaller of the water level and the eigenvalue."""
    values, vectors = closed_form.spectrum(images())
    return np.diag(vectors * np.minimum(beta * SIGMA**2, values) @ vectors.T)


# Oracles


@pytest.mark.parametrize("beta", ACTIVE)
def test_coverage_of_a_linear_model_with_all_latents_active(beta):
    """r is exactly N(0, beta): 68.27, 95.45 and 99.73 % at beta 1, erf(k / sqrt(2 beta)) at any other."""
    row, _ = measured(beta)
    np.testing.assert_allclose(
        optimum(beta).weights.T @ optimum(beta).weights, np.diag(EIGENVALUES - beta * SIGMA**2), atol=1e-9
    )
    for k in (1, 2, 3):
        expected = math.erf(k / math.sqrt(2 * beta))
        # An image has few of those beyond 3 sigma: beside the bootstrap, a tenth of what is outside.
        assert abs(row[f"coverage_{k}sigma"] - expected) < 4 * row[f"coverage_{k}sigma_image_se"] + 1e-5
    assert abs(row["residual_mean_square"] - beta) < 4 * row["residual_mean_square_image_se"]
    assert row["mean_sigma"] == pytest.approx(SIGMA, rel=1e-5)


def test_the_nominal_coverages_are_those_of_a_normal():
    nominal = [math.erf(k / math.sqrt(2)) for k in (1, 2, 3)]
    np.testing.assert_allclose(nominal, [0.6827, 0.9545, 0.9973], atol=5e-5)
    row, _ = measured(1.0)
    assert row["calibration_error"] < 0.003
    assert measured(4.0)[0]["calibration_error"] > 0.2


@pytest.mark.parametrize("beta", SWITCHED_OFF)
def test_with_latents_switched_off_pixels_have_their_own_variances(beta):
    row, _ = measured(beta)
    variances = residual_variances(beta)
    assert np.sum(optimum(beta).variances > 1 - 1e-9) >= 1  # a posterior that is the prior
    assert variances.max() > 1.01 * variances.min()
    for k in (1, 2, 3):
        assert (
            abs(row[f"coverage_{k}sigma"] - within(k, variances, SIGMA**2)) < 4 * row[f"coverage_{k}sigma_image_se"] + 1e-5
        )
    assert abs(row["residual_mean_square"] - variances.mean() / SIGMA**2) < 4 * row["residual_mean_square_image_se"]


@pytest.mark.parametrize("beta", (1.0, 4.0, 14.0))
def test_the_mean_code_and_the_mixture_cover_more(beta):
    """Errors at the mean code have variance theta^2 / lambda; the mixture adds to sigma^2 what z does not know."""
    row, _ = measured(beta)
    values, vectors = closed_form.spectrum(images())
    theta = beta * SIGMA**2
    used = np.minimum(theta / values, 1)
    error = np.diag(vectors * (values * used**2) @ vectors.T)
    mixture = SIGMA**2 + np.diag(vectors * (np.maximum(values - theta, 0) * used) @ vectors.T)
    for k in (1, 2, 3):
        expected = within(k, error, SIGMA**2)
        assert abs(row[f"mean_code_coverage_{k}sigma"] - expected) < 4 * math.sqrt(0.25 / IMAGES)
        # With so many draws for a mixture, its tails lack a little.
        assert abs(row[f"predictive_coverage_{k}sigma"] - within(k, error, mixture)) < 4 * math.sqrt(0.25 / IMAGES)
    assert row["mean_code_coverage_1sigma"] > row["coverage_1sigma"] + 0.01


@pytest.mark.parametrize("beta", (0.25, 1.0, 4.0, 14.0))
def test_the_optimal_sigma_gives_residuals_of_mean_square_1_at_every_beta(beta):
    _, found = measured(beta)
    sigma = float(np.sqrt(found["squared_error"].mean(dtype=float)))
    assert sigma**2 == pytest.approx(residual_variances(beta).mean(), rel=0.02)
    row, _ = measured(beta, sigma)
    assert abs(row["residual_mean_square"] - 1) < 4 * row["residual_mean_square_image_se"] / math.sqrt(DRAWS) + 2e-3


def test_the_pit_of_a_calibrated_model_is_uniform():
    _, found = measured(1.0)
    arrays = calibration.arrays(over_images(found))
    assert arrays["pit_histogram"].sum() == pytest.approx(1)
    assert np.all(np.abs(arrays["pit_histogram"] - 0.05) < 4 * arrays["pit_histogram_se"])
    assert np.all(np.abs(arrays["coverage"] - calibration.LEVELS) < 4 * arrays["coverage_se"])
    # An overconfident one has too much at either end.
    wide = calibration.arrays(over_images(measured(4.0)[1]))["pit_histogram"]
    assert wide[0] > 0.1 < wide[-1] and wide[9] < 0.04


# What is counted


def test_coverage_is_read_from_the_distribution_of_the_pit():
    uniform = np.asarray(calibration.EDGES)[None]
    expected = [*calibration.LEVELS, *calibration.SIGMAS.values()]
    np.testing.assert_allclose(calibration.coverage(uniform)[0], expected, atol=1e-12)
    half = np.asarray(calibration.distribution(jnp.array([[0.5, 0.5], [0.0, 0.5]])))
    assert calibration.coverage(half)[0].tolist() == [1] * 22
    assert calibration.coverage(half)[1].tolist() == [0.5] * 22


def test_a_pixel_that_is_not_a_number_is_not_counted_as_outside():
    found = calibration.distribution(jnp.array([[0.5, jnp.nan], [0.1, 0.9]]))
    assert np.isnan(found[0]).all() and np.isfinite(found[1]).all()


# The intervals that are shown


SAMPLES = 50


@jax.jit
def shown(noise_scale):
    """The codes of five images, and the intervals that are shown of them."""
    vae = VAE(SPEC).bind(variables(optimum(1.0)))
    posterior = vae.encode(jnp.asarray(np.float32(images()[:5]))).scaled(noise_scale)
    return posterior, calibration.shown(vae, posterior, random.key(0), SIGMA, SAMPLES)


def test_the_predictive_interval_is_that_of_the_mixture():
    posterior, found = shown(noise_scale=1.0)
    eps = np.asarray(jax.jit(random.normal, static_argnums=1)(random.key(0), (SAMPLES * 5, PIXELS)), float)
    eps = eps.reshape(SAMPLES, 5, PIXELS)
    z = np.asarray(posterior.mean, float) + np.asarray(posterior.std, float) * eps
    means = z @ optimum(1.0).weights.T + optimum(1.0).mean
    np.testing.assert_allclose(found["predictive_mean"], means.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found["predictive_sigma"], np.sqrt(SIGMA**2 + means.var(axis=0)), rtol=1e-4)
    for name, share in (("low", scipy.stats.norm.cdf(-3)), ("high", scipy.stats.norm.cdf(3))):
        below = scipy.stats.norm.cdf(np.asarray(found[f"predictive_{name}"], float), means, SIGMA).mean(axis=0)
        np.testing.assert_allclose(below, share, rtol=2e-3)
    np.testing.assert_allclose(found["mean_code_high"] - found["mean_code_mean"], 3 * SIGMA, rtol=1e-4)


def test_without_noise_the_mixture_is_the_mean_code():
    point, found = shown(noise_scale=0.0)
    assert np.all(np.isneginf(point.log_var))
    for name in ("mean", "sigma", "low", "high"):
        np.testing.assert_allclose(found[f"predictive_{name}"], found[f"mean_code_{name}"], rtol=1e-5, atol=1e-5)


# In the columns of a study


@functools.cache
def evaluated(likelihood: str, sigma: str) -> list[tuple[dict, dict]]:
    """(row, arrays) of three runs with random parameters, on bytes."""
    generator = np.random.default_rng(0)
    splits = {
        name: Split(generator.integers(0, 256, (size, 4, 4, 1)).astype(np.uint8), np.arange(size) % 2)
        for name, size in (("train", 60), ("test", 45))
    }
    dataset = Dataset(splits, ImageSpec((4, 4, 1), 255, False), 0)
    fields = {"model__likelihood": likelihood, "model__sigma": sigma, "train__batch_size": 20, "eval__batch_size": 20}
    others = tuple(name for name in METRICS if name not in ("bounds", "scale", "calibration"))
    (run,) = grid.expand(tiny(**fields, eval__calibration_samples=16, eval__without=others).to_dict())
    spec, hyperparams = planning.specify(run, dataset)
    statistics = dataset.statistics(spec.model.normalize)
    shapes = jax.eval_shape(Program(spec).init, hyperparams, statistics)
    params = jax.tree.map(lambda leaf: generator.normal(0, 0.3, (3, *leaf.shape)).astype(np.float32), shapes.params)
    every = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (3, *np.shape(leaf))), (statistics, hyperparams))
    bound = {"params": params, "statistics": every[0]}
    spec_of_eval = evaluation.EvalConfig(**run.group("eval"))
    weights: objectives.Weights = every[1].objective
    trained = evaluation.TrainedRuns(spec.model, bound, every[1].sigma, weights, every[1].seed)
    return list(evaluation.evaluate(trained, spec_of_eval, dataset))


def test_an_optimal_sigma_is_that_of_the_training_split_and_frozen():
    for row, arrays in evaluated("gaussian", "optimal"):
        # Sigma and distortion are of 2 draws each, which are others: half the 16 pixels times the error of E[r^2].
        error = 5 * math.sqrt(2) * row["train_distortion_se"]
        assert abs(row["train_residual_mean_square"] - 1) < error / 8
        assert row["mean_sigma"] == pytest.approx(row["sigma"], rel=1e-5)
        assert row["train_mean_sigma"] == pytest.approx(row["sigma"], rel=1e-5)
        constant = 8 * math.log(2 * math.pi * row["sigma"] ** 2)
        assert abs(row["train_distortion"] - (constant + 8)) < error
        assert (
            abs(row["distortion"] - (constant + 8 * row["residual_mean_square"])) < 5 * math.sqrt(2) * row["distortion_se"]
        )
        assert "bits_per_pixel" not in row and arrays["predictive_low"].shape == (16, 4, 4, 1)


def test_a_discretised_decoder_is_reported_in_bits():
    for row, arrays in evaluated("discretized_logistic", "per_pixel"):
        assert row["bits_per_pixel"] == pytest.approx(-row["elbo"] / 16 / math.log(2))
        assert row["train_bits_per_pixel"] == pytest.approx(-row["train_elbo"] / 16 / math.log(2))
        assert row["bits_per_pixel"] > 8  # uniform bytes can not be had for less
        assert "sigma" not in row and row["mean_sigma"] > 0  # every pixel has its own
        assert "residual_mean_square" not in row  # the location may lie far outside [0, 1]
        levels = arrays["predictive_high"] * 255
        np.testing.assert_allclose(levels, np.round(levels), atol=1e-3)  # an end of the interval is a value
