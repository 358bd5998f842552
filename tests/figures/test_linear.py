"""What is known in closed form beside what was trained."""

import itertools
import math

import numpy as np

from vae_jax.figures import draw, linear
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory, tables


def test_latents_figure_has_a_line_for_each_network(tmp_path):
    rows = []
    for latents, network, seed in itertools.product((1, 2, 4), ("linear", "mlp"), (0, 1)):
        fields = {"model.latents": latents, "model.encoder": network, "objective.noise_scale": 0.0}
        rows.append({"run": len(rows), "name": f"{network}_ae", "seed": seed} | fields)
        rows[-1] |= {"mse": 1 / latents + seed, "train_mse": 1 / latents}
    rows += [{"run": 90 + k, "name": "pca", "model.latents": k, "mse": 1 / k, "train_mse": 1 / k} for k in (1, 2, 4)]
    tables.write_csv(tmp_path / "results.csv", rows)
    assert {path.stem for path in draw.draw(tmp_path)} == {"latents"}
    axes = linear.latents(Directory(tmp_path)).axes[0]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"linear_ae", "mlp_ae", "pca"}
    line = next(bar for bar in axes.containers if bar.get_label() == "mlp_ae")
    np.testing.assert_allclose(line.lines[0].get_ydata(), [1.5, 1.0, 0.75])  # means over the seeds
    assert next(line for line in axes.lines if line.get_label() == "pca").get_linestyle() == "None"


PIXELS = 16


def write_water_filling(workdir) -> list[dict]:
    """Runs of known rate and squared error 1 + theta, one pair of which shares theta; and their closed form."""
    rows: list = []
    for name, (beta, sigma) in itertools.product(("mine", "ppca"), ((0.5, 0.5), (1.0, 0.5), (4.0, 0.5), (4.0, 0.25))):
        theta = beta * sigma**2
        distortion = (1 + theta) / (2 * sigma**2) + PIXELS / 2 * math.log(2 * math.pi * sigma**2)
        row = {"run": len(rows), "name": name, "objective.beta": beta, "model.sigma": sigma, "sigma": sigma, "theta": theta}
        seed = {"seed": 0} if name == "mine" else {}
        rows.append(row | seed | {"train_rate": -math.log(theta / 2), "train_distortion": distortion})
    run_directory.write_arrays(run_directory.arrays_path(workdir, 0), {"images": np.zeros((5, 4, 4, 1))})
    tables.write_csv(workdir / "results.csv", rows)
    model = {"encoder": "linear", "decoder": "linear", "likelihood": "gaussian"}
    run_directory.write_json(workdir / "config.json", {"config": {"model": model}})
    return rows


def test_water_filling_shows_rate_and_squared_error_over_theta(tmp_path):
    rows = write_water_filling(tmp_path)
    rate, error, plane = linear.water_filling(Directory(tmp_path)).axes
    for above, beside, line in zip(rate.lines, error.lines, plane.lines, strict=True):
        np.testing.assert_array_equal(line.get_xydata(), np.stack([above.get_ydata(), beside.get_ydata()], axis=1))
    for axes, value in ((rate, lambda theta: -np.log(theta / 2)), (error, lambda theta: 1 + theta)):
        assert [len(line.get_xdata()) for line in axes.lines] == [4, 3, 1]  # closed form, sigma 0.5, sigma 0.25
        assert list(axes.lines[0].get_xdata()) == sorted(row["theta"] for row in rows[4:])
        for line in axes.lines:
            np.testing.assert_allclose(line.get_ydata(), value(line.get_xdata()))


def test_water_filling_has_the_curve_of_the_spectrum_where_there_is_one(tmp_path):
    write_water_filling(tmp_path)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = {"spectrum": np.array([3.0, 0.5, 0.2, 0.1]), "codes_mean": np.zeros((5, 2)), "codes_std": np.ones((5, 2))}
    run_directory.write_arrays(path, run_directory.read_arrays(path) | arrays)
    rate, error, _ = linear.water_filling(Directory(tmp_path)).axes
    for axes, value in (
        (rate, lambda theta: (np.log(3 / theta) + max(np.log(0.5 / theta), 0)) / 2),
        (error, lambda theta: min(theta, 3) + min(theta, 0.5) + 0.3),
    ):
        curve, *points = axes.lines
        assert len(curve.get_xdata()) > 100 and len(points) == 2
        np.testing.assert_allclose(curve.get_ydata(), [value(theta) for theta in curve.get_xdata()], rtol=1e-12)
        np.testing.assert_array_equal(curve.get_xdata()[curve.get_markevery()], [0.5])  # 3 lies beyond the runs


def test_water_filling_passes_over_diverged_runs_and_needs_a_closed_form(tmp_path):
    rows = write_water_filling(tmp_path)
    rows[1] |= {"train_rate": math.nan, "train_distortion": math.nan}
    tables.write_csv(tmp_path / "results.csv", rows)
    assert [len(line.get_xdata()) for line in linear.water_filling(Directory(tmp_path)).axes[0].lines] == [4, 2, 1]
    tables.write_csv(tmp_path / "results.csv", rows[:4])
    assert linear.water_filling(Directory(tmp_path)) is None
