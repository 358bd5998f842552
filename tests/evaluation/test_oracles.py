"""Trained linear VAEs against what they must converge to: the studies of configs/linear.py and configs/water_filling.py."""

import numpy as np
import pytest

from configs import linear, water_filling
from vae_jax.core import errors
from vae_jax.data.dataset import Dataset, ImageSpec, Split
from vae_jax.evaluation import baselines, closed_form
from vae_jax.study import grid, study

LATENTS, PIXELS, ROWS = 2, 6, 150
SIGMA = 0.5
PAIRS = ((0.1, 0.5), (1.0, 0.5), (4.0, 0.25), (10.0, 0.5))  # (beta, sigma); the middle two have one theta


@pytest.fixture(scope="module")
def vectors(tmp_path_factory):
    """Columns of very different size, away from 0: two directions above the noise, variances 50, 9, then 0.3 to 0.1."""
    generator = np.random.default_rng(0)
    basis = np.linalg.qr(generator.normal(size=(PIXELS, PIXELS)))[0]
    rows = generator.normal(size=(ROWS + 40, PIXELS)) * np.sqrt([50, 9, 0.3, 0.2, 0.15, 0.1]) @ basis + 20
    path = tmp_path_factory.mktemp("data") / "vectors.npz"
    np.savez(path, train=rows[:ROWS], test=rows[ROWS:])
    return path, rows[:ROWS].astype(np.float32).astype(float)


def small(module, path, **fields) -> dict:
    """The config of a study at a tenth of its steps."""
    config = module.get_config()
    small = {"train.epochs": 3000, "schedule.sigma": "cooling:1200", "eval.decoded": 50, "eval.aggregate_samples": 0}
    small["eval.without"] = ("frechet", "calibration")
    fields = {"data.name": "npz", "data.path": str(path), "model.latents": LATENTS} | small | fields
    config.update_from_flattened_dict(fields)
    return config.to_dict()


def by_name(rows) -> dict:
    return {row["name"]: row for row in rows}


@pytest.fixture(scope="module")
def learned(vectors, tmp_path_factory) -> dict:
    config = small(linear, vectors[0], **{"eval.importance_samples": 60, "eval.samples": 500})
    return by_name(study.run(config, tmp_path_factory.mktemp("linear") / "run"))


def test_a_trained_linear_vae_is_ppca(learned, vectors):
    trained, exact = learned["linear"], learned["ppca"]
    known = closed_form.linear_vae(vectors[1], LATENTS)
    assert exact["train_elbo"] == pytest.approx(known.log_prob(vectors[1]).mean(), rel=1e-6)
    assert exact["sigma"] ** 2 == pytest.approx(known.sigma2, rel=1e-5)
    # Never above the maximum likelihood, but for the error of the draws.
    gap, error = exact["train_elbo"] - trained["train_elbo"], trained["train_elbo_se"]
    assert -4 * error < gap < 0.01 + 4 * error
    assert error < 0.005
    assert trained["sigma"] ** 2 == pytest.approx(exact["sigma"] ** 2, rel=0.01)
    assert trained["subspace_distance"] < 0.02
    assert trained["active_units"] == exact["active_units"] == LATENTS
    assert trained["train_rate"] == pytest.approx(exact["train_rate"], abs=0.05)
    assert trained["train_mse"] == pytest.approx(exact["train_mse"], rel=0.01)


def test_the_importance_bound_of_an_exact_posterior_is_the_elbo(learned):
    trained = learned["linear"]
    error = np.hypot(trained["train_elbo_se"], trained["train_importance_bound_se"])
    gap = trained["train_importance_bound"] - trained["train_elbo"]
    assert -4 * error < gap < 0.01 + 4 * error


def test_convergence_is_told_by_the_deviations(learned):
    assert learned["linear"]["train_mean_deviation"] < 0.02
    assert learned["linear"]["train_moment_deviation"] < 0.02


@pytest.fixture(scope="module")
def filled(vectors, tmp_path_factory) -> list[dict]:
    config = small(water_filling, vectors[0], **{"eval.samples": 200})

    def sweep(add):
        for beta, sigma in PAIRS:
            add({"objective.beta": beta, "model.sigma": str(sigma)})

    return study.run(config, tmp_path_factory.mktemp("filled") / "run", sweep)


def squared_error(row) -> float:
    """E|x - W z - b|^2 from the distortion in nats."""
    variance = row["sigma"] ** 2
    return 2 * variance * (row["train_distortion"] - PIXELS / 2 * np.log(2 * np.pi * variance))


def test_fixed_sigma_lies_on_the_water_filling_curve(filled, vectors):
    values = closed_form.spectrum(vectors[1])[0]
    trained = [row for row in filled if row["name"] == "water_filling"]
    exact = [row for row in filled if row["name"] == "ppca"]
    assert len(trained) == len(exact) == len(PAIRS)
    for row, known, (beta, sigma) in zip(trained, exact, PAIRS, strict=True):
        assert row["theta"] == pytest.approx(beta * sigma**2, rel=1e-6)
        (rate,), (error,) = closed_form.water_filling(values, LATENTS, np.array([row["theta"]]))
        active = max(1, int(np.sum(values[:LATENTS] > row["theta"])))
        assert row["train_rate"] == pytest.approx(rate, abs=0.05 * active)
        assert squared_error(row) == pytest.approx(error, abs=0.01 * values.sum())
        assert known["train_rate"] == pytest.approx(rate, abs=1e-6)
        assert squared_error(known) == pytest.approx(error, rel=1e-6)
        assert row["active_units"] == known["active_units"]


def test_equal_theta_has_equal_rate_and_squared_error(filled):
    a, b = filled[1], filled[2]
    assert a["theta"] == pytest.approx(b["theta"])
    assert a["train_rate"] == pytest.approx(b["train_rate"], abs=0.02)
    assert squared_error(a) == pytest.approx(squared_error(b), rel=0.01)
    # Their distortions in nats differ by scale.
    assert abs(a["train_distortion"] - b["train_distortion"]) > 1


def test_learned_sigma_without_an_optimum_has_no_row():
    """Data of rank 1 in 3 dimensions: sigma goes to its floor, and the closed form has no maximum."""
    flat = Split(np.outer([1.0, -1.0, 2.0, -2.0], [1.0, 0.0, 0.0]).astype(np.float32))
    dataset = Dataset({"train": flat, "test": flat}, ImageSpec((3,), 1, False), 0)
    assert baselines.row("ppca", dataset, 1, 1.0, None) is None
    assert baselines.row("ppca", dataset, 1, 1.0, 0.5)["active_units"] == 1
    # Noise below the floor of a learned sigma is as good as none.
    flat.pixels[:, 1] = 1e-5 * np.array([1, 1, -1, -1])
    assert baselines.row("ppca", dataset, 1, 1.0, None) is None


@pytest.mark.parametrize("latents", [PIXELS, PIXELS + 1])
def test_learned_sigma_with_as_many_latents_as_dimensions_is_refused(vectors, latents):
    with pytest.raises(errors.UserError, match="learned: should be below 6"):
        study.plan(small(linear, vectors[0], **{"model.latents": latents}))


def test_cooling_needs_a_sigma():
    config = linear.get_config()
    config.model.normalize = "none"
    with pytest.raises(errors.UserError, match=r"schedule\.sigma=cooling:8000"):
        grid.expand(config.to_dict())
