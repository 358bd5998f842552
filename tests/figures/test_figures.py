"""Figures are drawn from the files of a run directory alone, and only those that it has the data for."""

import itertools
import math
import subprocess
import sys
import threading

import matplotlib.image
import numpy as np
import pytest

from vae_jax.core import errors
from vae_jax.figures import draw as figures
from vae_jax.figures import images as image_figures
from vae_jax.figures import style as plotting
from vae_jax.storage import run_directory, tables

STUDY = {  # name -> noise_scale, distortion_weight, betas
    "ae": (0.0, 1.0, (0.0,)),
    "vae_no_kl": (1.0, 1.0, (0.0,)),
    "kl_only": (1.0, 0.0, (1.0,)),
    "vae": (1.0, 1.0, (1.0,)),
    "beta_vae": (1.0, 1.0, (0.5, 2.0)),
}
PICTURES = {"latent_plane", "manifold", "samples", "reconstructions", "traversals", "interpolations"}
STOCHASTIC = {"densities", "posterior_std"}  # of models whose codes are drawn
SPECIAL = {
    "latents",
    "water_filling",
    "gradient_variance",
    "steering",
    "priors",
    "intervals",
    "reliability",
}  # of other studies than this one


def arrays_of(noise_scale: float, seed: int, latents: int = 2, shape=(8, 8, 1), labels: bool = True) -> dict:
    """Random arrays with the names and shapes that evaluation gives them."""
    generator = np.random.default_rng(seed)
    classes = np.arange(40) % 4
    corners = np.array([[0, 0], [0, 4], [4, 0], [4, 4]])[classes]
    mean = generator.normal(size=(40, latents)) + np.pad(corners, ((0, 0), (0, max(0, latents - 2))))[:, :latents]
    counts = {"images": 16, "reconstructions": 16, "samples": 64, "traversals": 9 * latents}
    counts |= {"interpolations": 36} if labels else {}
    counts |= {"plane": 400, "manifold": 225} if latents == 2 else {}
    arrays = {name: generator.random((count, *shape), np.float32) for name, count in counts.items()}
    if latents == 2:
        axes = [np.linspace(low, high, 20) for low, high in zip(mean.min(axis=0), mean.max(axis=0), strict=True)]
        arrays["plane_latents"] = np.array(list(itertools.product(axes[1][::-1], axes[0])))[:, ::-1]
    rate = np.full(latents, 1.0 if noise_scale else np.inf)
    arrays |= {"codes_mean": mean, "codes_std": np.full_like(mean, noise_scale), "rate_per_latent": rate}
    return arrays | ({"labels": classes} if labels else {})


def write_run(workdir, run: int, settings: dict, name: str, seed: int, **shape) -> dict:
    """The arrays and metrics of one run; returns its row of results.csv."""
    noise, weight, beta = settings.values()
    generator = np.random.default_rng(run)
    run_directory.write_arrays(run_directory.arrays_path(workdir, run), arrays_of(noise, seed, **shape))
    metrics = {"run": run, "name": name, "seed": seed}
    run_directory.append_jsonl(
        workdir / "metrics.jsonl", [metrics | {"epoch": e, "train_mean_std": 0.9**e} for e in (1, 2, 3)]
    )
    row = {"run": run, "name": name, "seed": seed} | settings | {"mean_std": noise}
    for prefix in ("", "train_"):
        rate = math.inf if noise == 0 else 20.0 if beta == 0 else (2 + generator.random()) / beta
        row |= {f"{prefix}distortion": 20 + beta + generator.random() + 20 * (weight == 0), f"{prefix}rate": rate}
        row[f"{prefix}mse"] = generator.random()
    return row


def write_study(workdir, study: dict = STUDY, seeds: int = 2, **shape):
    """A finished directory of a small study, with a baseline."""
    rows: list = []
    for seed, (name, (noise, weight, betas)) in itertools.product(range(seeds), study.items()):
        for beta in betas:
            settings = {"objective.noise_scale": noise, "objective.distortion_weight": weight, "objective.beta": beta}
            rows.append(write_run(workdir, len(rows), settings, name, seed, **shape))
    tables.write_csv(workdir / "results.csv", [*rows, {"run": len(rows), "name": "pca", "mse": 0.1, "train_mse": 0.1}])
    return workdir


def drawn(workdir) -> set[str]:
    """Draw, check the files, and return the names of the figures."""
    paths = figures.draw(workdir)
    assert sorted(paths) == sorted((workdir / "figures").glob("*"))
    for path in paths:
        height, width, _ = matplotlib.image.imread(path, format="png").shape
        assert 100 <= height <= 2000 and 500 <= width <= 2000, path
    return {path.stem for path in paths}


def applicable(workdir) -> set[str]:
    """The names of the figures that would be drawn; much quicker than drawing them."""
    directory = plotting.Directory(workdir)
    return {name for name, function in figures.FIGURES.items() if function(directory) is not None}


def test_draws_every_figure_of_a_study(tmp_path):
    assert drawn(write_study(tmp_path)) == set(figures.FIGURES) - SPECIAL


@pytest.mark.parametrize(
    ("change", "names"),
    [
        ({"shape": (64,)}, {"latent_panels"} | STOCHASTIC),
        ({"labels": False}, PICTURES - {"interpolations"} | STOCHASTIC),
        ({"latents": 3}, PICTURES - {"latent_plane", "manifold"} | STOCHASTIC),
        ({"shape": (6, 8, 3)}, PICTURES | {"latent_panels"} | STOCHASTIC),
    ],
    ids=["vectors", "no labels", "3 latents", "colours"],
)
def test_leaves_out_what_a_single_run_cannot_show(tmp_path, change, names):
    assert applicable(write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1, **change)) == names


def test_draws_a_single_autoencoder_and_needs_no_metrics(tmp_path):
    write_study(tmp_path, {"ae": STUDY["ae"]}, seeds=1)
    assert applicable(tmp_path) == PICTURES | {"latent_panels"}  # the std of a deterministic code has no meaning
    (tmp_path / "metrics.jsonl").unlink()
    assert applicable(tmp_path) == PICTURES | {"latent_panels"}


def test_latents_figure_has_a_line_for_each_name(tmp_path):
    rows = [
        {
            "run": run,
            "name": name,
            "seed": seed,
            "model.latents": latents,
            "mse": 1 / latents + seed,
            "train_mse": 1 / latents,
        }
        for run, (latents, name, seed) in enumerate(itertools.product((1, 2, 4), ("linear_ae", "ae"), (0, 1)))
    ]
    rows += [{"run": 90 + k, "name": "pca", "model.latents": k, "mse": 1 / k, "train_mse": 1 / k} for k in (1, 2, 4)]
    tables.write_csv(tmp_path / "results.csv", rows)
    assert drawn(tmp_path) == {"latents"}
    axes = figures.latents(plotting.Directory(tmp_path)).axes[0]
    assert {text.get_text() for text in axes.get_legend().get_texts()} == {"linear_ae", "ae", "pca"}
    line = next(bar for bar in axes.containers if bar.get_label() == "ae")
    np.testing.assert_allclose(line.lines[0].get_ydata(), [1.5, 1.0, 0.75])  # means over the seeds


PIXELS = 16


def write_water_filling(workdir) -> list[tables.Row]:
    """Runs of known rate and squared error 1 + theta, one pair of which shares theta; and their closed form."""
    rows: list = []
    for name, (beta, sigma) in itertools.product(("linear", "ppca"), ((0.5, 0.5), (1.0, 0.5), (4.0, 0.5), (4.0, 0.25))):
        theta = beta * sigma**2
        distortion = (1 + theta) / (2 * sigma**2) + PIXELS / 2 * math.log(2 * math.pi * sigma**2)
        row = {"run": len(rows), "name": name, "objective.beta": beta, "model.sigma": sigma, "sigma": sigma, "theta": theta}
        seed = {"seed": 0} if name == "linear" else {}
        rows.append(row | seed | {"train_rate": -math.log(theta / 2), "train_distortion": distortion})
    run_directory.write_arrays(run_directory.arrays_path(workdir, 0), {"images": np.zeros((5, 4, 4, 1))})
    tables.write_csv(workdir / "results.csv", rows)
    return rows


def test_water_filling_shows_rate_and_squared_error_over_theta(tmp_path):
    rows = write_water_filling(tmp_path)
    rate, error, plane = figures.water_filling(plotting.Directory(tmp_path)).axes
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
    arrays = {"spectrum": np.array([3.0, 0.5, 0.2, 0.1]), "codes_mean": np.zeros((5, 2))}
    run_directory.write_arrays(path, run_directory.read_arrays(path) | arrays)
    rate, error, _ = figures.water_filling(plotting.Directory(tmp_path)).axes
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
    assert [len(line.get_xdata()) for line in figures.water_filling(plotting.Directory(tmp_path)).axes[0].lines] == [4, 2, 1]
    tables.write_csv(tmp_path / "results.csv", rows[:4])
    assert figures.water_filling(plotting.Directory(tmp_path)) is None


def test_gradient_variance_has_a_line_for_each_estimator(tmp_path):
    rows = [
        {"run": run, "name": "vae", "seed": seed, "model.latents": latents}
        | {"gradient_variance_reparameterized": latents + seed, "gradient_variance_score": 100 * latents**2 + seed}
        for run, (latents, seed) in enumerate(itertools.product((2, 4, 16), (0, 1, 2)))
    ]
    tables.write_csv(tmp_path / "results.csv", rows)
    axes = figures.gradient_variance(plotting.Directory(tmp_path)).axes[0]
    bars = {bar.get_label(): bar.lines for bar in axes.containers}
    assert set(bars) == {text.get_text() for text in axes.texts} and axes.get_yscale() == "log"
    for label, mean in (("reparameterisation", [3, 5, 17]), ("score function", [401, 1601, 25601])):
        line, _, (segments,) = bars[label]
        np.testing.assert_allclose(line.get_ydata(), mean)
        for ends, middle in zip(segments.get_segments(), mean, strict=True):  # the error of 0, 1, 2 is 1 / sqrt(3)
            np.testing.assert_allclose(ends[:, 1], middle + np.array([-1, 1]) / math.sqrt(3))
    tables.write_csv(tmp_path / "results.csv", rows[:3])
    assert figures.gradient_variance(plotting.Directory(tmp_path)) is None  # one number of latents


def write_calibration(workdir, names=("fixed", "learned"), shape=(4, 4, 1)) -> None:
    """Two betas of each name: intervals half of which hold the data, and a coverage that is the square of the nominal."""
    levels = np.arange(1, 20) / 20
    rows: list = []
    for name, beta in itertools.product(names, (1.0, 4.0)):
        images = np.linspace(0, 1, 16 * math.prod(shape)).reshape(16, *shape)
        half = np.where(np.arange(images.size) % 2, 0.1, -0.1).reshape(images.shape)
        arrays = {"images": images, "predictive_mean": images, "predictive_sigma": images / 10}
        arrays |= {"predictive_low": images - half, "predictive_high": images + half}
        arrays |= {"coverage_levels": levels, "coverage": levels**2, "coverage_se": levels / 100}
        arrays |= {"pit_histogram": np.full(20, 0.05), "pit_histogram_se": np.full(20, 0.01)}
        run_directory.write_arrays(run_directory.arrays_path(workdir, len(rows)), arrays)
        coverage = {"coverage_3sigma": 0.9, "predictive_coverage_3sigma": 0.95, "mean_code_coverage_3sigma": 0.97}
        rows.append({"run": len(rows), "name": name, "seed": 0, "objective.beta": beta} | coverage)
    tables.write_csv(workdir / "results.csv", rows)


def test_reliability_has_a_panel_for_each_name_and_a_curve_for_each_setting(tmp_path):
    write_calibration(tmp_path)
    assert drawn(tmp_path) == {"intervals", "reliability"}
    figure = figures.FIGURES["reliability"](plotting.Directory(tmp_path))
    for name, axes in zip(("fixed", "learned"), figure.axes[::2], strict=True):
        assert axes.get_title() == name
        assert [bar.get_label() for bar in axes.containers] == ["beta 1", "beta 4"]
        for bar in axes.containers:
            line, _, (segments,) = bar.lines
            np.testing.assert_allclose(line.get_ydata(), line.get_xdata() ** 2)
            errors = [np.ptp(segment[:, 1]) / 2 for segment in segments.get_segments()]
            np.testing.assert_allclose(errors, line.get_xdata() / 100)


def test_intervals_say_which_coverage_was_measured_and_mark_what_is_outside(tmp_path):
    write_calibration(tmp_path)
    figure = figures.FIGURES["intervals"](plotting.Directory(tmp_path))
    assert [axes.get_title() for axes in figure.axes[::2]] == ["fixed, beta 4", "learned, beta 4"]
    for axes in figure.axes[1::2]:
        assert axes.get_title() == (
            "measured coverage, test split: this interval 95.00 %, z drawn once 90.00 %, mean code 97.00 %"
        )
        inside, outside = (line.get_xdata() for line in axes.lines[1:])
        assert list(inside) == list(range(1, 16, 2)) and list(outside) == list(range(0, 16, 2))


def test_intervals_of_vectors_are_not_drawn(tmp_path):
    write_calibration(tmp_path, shape=(16,))
    assert drawn(tmp_path) == {"reliability"}


def test_trade_off_shows_mean_and_standard_error_over_seeds(tmp_path):
    directory = plotting.Directory(write_study(tmp_path, seeds=3))
    rows = tables.read_csv(tmp_path / "results.csv")
    for axes, prefix in zip(figures.trade_off(directory).axes, ("train_", ""), strict=True):
        bars = {bar.get_label(): bar for bar in axes.containers}
        # Every setting of finite rate, also where it lies out of view.
        assert set(bars) == {"vae", "vae_no_kl", "kl_only", *(f"beta_vae, beta {beta:g}" for beta in STUDY["beta_vae"][2])}
        for label, beta in (("vae", 1.0), ("beta_vae, beta 0.5", 0.5)):
            runs = [row for row in rows if row["name"] == label.split(",")[0] and row["objective.beta"] == beta]
            line, _, segments = bars[label].lines
            for axis, column in enumerate(("rate", "distortion")):
                mean, error = tables.mean_and_stderr([row[prefix + column] for row in runs])
                ends = segments[axis].get_segments()[0][:, axis]
                np.testing.assert_allclose(float(line.get_data()[axis][0]), mean)
                np.testing.assert_allclose(ends, [mean - error, mean + error])


def test_trade_off_joins_betas_in_order_with_the_vae_among_them(tmp_path):
    directory = plotting.Directory(write_study(tmp_path))
    axes = figures.trade_off(directory).axes[1]
    bars = {bar.get_label(): bar.lines[0].get_xdata()[0] for bar in axes.containers}
    order = ["beta_vae, beta 0.5", "vae", "beta_vae, beta 2"]
    joined = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == len(order)]
    np.testing.assert_array_equal(joined, [[bars[label] for label in order]])


def test_trade_off_names_what_lies_out_of_view(tmp_path):
    for axes in figures.trade_off(plotting.Directory(write_study(tmp_path))).axes:
        texts = [text.get_text() for text in axes.texts]
        assert any(text.startswith("\N{UPWARDS ARROW} kl_only: ") for text in texts)
        assert any(text.startswith("\N{RIGHTWARDS ARROW} vae_no_kl: rate 20.0") for text in texts)
        assert any(text.startswith("ae: infinite rate") for text in texts)


def test_a_name_has_one_color_in_every_figure(tmp_path):
    study = STUDY | {"mine": (1.0, 1.0, (1.0,)), "other": (1.0, 1.0, (1.5,))}
    directory = plotting.Directory(write_study(tmp_path, study))
    colors = {setting.name: setting.color for setting in directory.settings}
    assert len(set(colors.values())) == len(colors)
    assert all(colors[name] == color for name, color in plotting.COLORS.items() if name in colors)
    trade = figures.trade_off(directory).axes[0]
    std = figures.posterior_std(directory).axes[0]
    for name in ("vae", "kl_only", "mine"):
        (bar,) = (bar for bar in trade.containers if bar.get_label() == name)
        (line,) = (line for line in std.lines if line.get_label() == name)
        assert bar.lines[0].get_color() == line.get_color() == colors[name]
    (title,) = {axes.title.get_color() for axes in image_figures.samples(directory).axes if axes.get_title() == "vae"}
    assert title == colors["vae"]


def test_posterior_std_leaves_out_deterministic_codes(tmp_path):
    axes = figures.posterior_std(plotting.Directory(write_study(tmp_path))).axes[0]
    labels = {line.get_label() for line in axes.lines}
    assert "ae" not in labels and {"vae", "vae_no_kl", "kl_only", "beta_vae, beta 2"} <= labels


def test_plane_lies_over_its_codes_with_the_largest_second_latent_on_top(tmp_path):
    write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    # Pictures as bright as their first latent is large, so that the picture shows its own axes.
    first, second = np.unique(arrays["plane_latents"][:, 0]), np.unique(arrays["plane_latents"][:, 1])
    level = (arrays["plane_latents"][:, 0] - first[0]) / np.ptp(first) / 2 + (
        arrays["plane_latents"][:, 1] == second[-1]
    ) / 2
    arrays["plane"] = np.broadcast_to(level[:, None, None, None], (400, 8, 8, 1))
    run_directory.write_arrays(path, arrays)
    _, right = image_figures.latent_plane(plotting.Directory(tmp_path)).axes
    image = right.images[0]
    picture, (left, _, bottom, top) = np.asarray(image.get_array()), image.get_extent()
    assert picture[4, 4] == 0.5 and picture[4, -4] == 1.0 and picture[-4, 4] == 0 and picture[-4, -4] == 0.5
    half = (first[1] - first[0]) / 2, (second[1] - second[0]) / 2
    np.testing.assert_allclose([left, bottom, top], [first[0] - half[0], second[0] - half[1], second[-1] + half[1]])


def test_steering_keeps_the_colors_and_names_what_lies_beyond_the_betas(tmp_path):
    rows: list = []
    for kind, key, value, rate in (
        *(("weighted", "objective.beta", beta, 4 / beta) for beta in (1.0, 2.0, 4.0)),
        *(("mmd", "objective.mmd_weight", weight, 900 / weight) for weight in (30.0, 300.0)),
    ):
        name = "beta_vae" if kind == "weighted" else "mmd"
        for seed in range(2):
            row = {"run": len(rows), "name": name, "seed": seed, "objective.kind": kind, key: value}
            rows.append(row | {f"{prefix}rate": rate + seed for prefix in ("", "train_")})
            rows[-1] |= {"distortion": 20.0 - rate / 10, "train_distortion": 19.0 - rate / 10}
    tables.write_csv(tmp_path / "results.csv", rows)
    directory = plotting.Directory(tmp_path)
    figure = figures.FIGURES["steering"](directory)
    colors = {setting.name: setting.color for setting in directory.settings}
    assert colors["beta_vae"] == plotting.COLORS["beta_vae"]
    for axes, distortion in zip(figure.axes, (16.0, 17.0), strict=True):
        assert {bar.get_label(): bar.lines[0].get_color() for bar in axes.containers} == colors
        (text,) = axes.texts
        assert text.get_text() == f"mmd, mmd_weight 30: rate 30.5, distortion {distortion} \N{RIGHTWARDS ARROW}"
        assert axes.get_xlim()[1] < 30


def circles(figure) -> list[int]:
    """The prior's circles in each axes."""
    return [sum(type(artist).__name__ == "Circle" for artist in axes.get_children()) for axes in figure.axes]


@pytest.mark.parametrize("prior", ["normal", "laplace"])
@pytest.mark.parametrize("where", ["config", "grid"])
def test_circles_are_those_of_a_normal_prior_alone(tmp_path, prior, where):
    write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1)
    if where == "config":
        run_directory.write_json(tmp_path / "config.json", {"config": {"model": {"prior": prior}}})
    else:
        rows = tables.read_csv(tmp_path / "results.csv")
        tables.write_csv(tmp_path / "results.csv", [row | {"model.prior": prior} for row in rows])
    plane, panels = (figures.FIGURES[name](plotting.Directory(tmp_path)) for name in ("latent_plane", "latent_panels"))
    is_normal = prior == "normal"
    assert circles(plane) == [2 * is_normal, 2 * is_normal] and circles(panels) == [2 * is_normal]
    assert ("dashed" in plane.axes[0].get_title()) == ("dashed" in panels.get_suptitle()) == is_normal


@pytest.mark.parametrize("prior", ["normal", "laplace"])
def test_densities_are_those_of_the_posteriors(tmp_path, prior):
    write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1)
    run_directory.write_json(tmp_path / "config.json", {"config": {"model": {"prior": prior}}})
    (axes,) = figures.FIGURES["densities"](plotting.Directory(tmp_path)).axes
    arrays = run_directory.read_arrays(run_directory.arrays_path(tmp_path, 0))
    latent = arrays["codes_mean"].var(axis=0).argmax()
    *single, last = (line.get_xydata().T for line in axes.get_lines())
    single = single if prior == "normal" else [*single, last]
    assert len(single) == image_figures.DENSITIES
    for (x, y), mean in zip(single, arrays["codes_mean"][:, latent], strict=True):
        assert x[y.argmax()] == pytest.approx(mean)
        assert np.trapezoid(y, x) == pytest.approx(1, abs=1e-6)
    if prior == "normal":
        assert last[1].max() == pytest.approx(1 / math.sqrt(2 * math.pi), rel=1e-3)


def test_whether_codes_are_held_to_the_prior_is_what_evaluation_wrote(tmp_path):
    write_study(tmp_path, {"vae_no_kl": STUDY["vae_no_kl"], "vae": STUDY["vae"]}, seeds=1)
    for run, held in enumerate((True, False)):  # of beta 0 and 1: the other way round than beta alone says
        path = run_directory.arrays_path(tmp_path, run)
        run_directory.write_arrays(path, run_directory.read_arrays(path) | {"held_to_prior": np.array(held)})
    directory = plotting.Directory(tmp_path)
    titles = {axes.get_title() for axes in image_figures.samples(directory).axes}
    assert titles == {"vae_no_kl", "vae\n(codes not held to the prior)"}
    moved = {axes.get_title(): axes.get_xlabel() for axes in image_figures.traversals(directory).axes}
    assert "the prior" in moved["vae_no_kl"] and "its codes" in moved["vae"]


def test_diverged_and_missing_runs_are_passed_over(tmp_path):
    write_study(tmp_path)
    rows = tables.read_csv(tmp_path / "results.csv")
    vae = [row for row in rows if row["name"] == "vae"]
    vae[0] |= {"distortion": math.nan, "train_distortion": math.nan, "rate": math.nan, "train_rate": math.nan}
    tables.write_csv(tmp_path / "results.csv", rows)
    path = run_directory.arrays_path(tmp_path, vae[0]["run"])
    run_directory.write_arrays(path, {key: array * np.nan for key, array in run_directory.read_arrays(path).items()})
    for row in rows:
        if row["name"] == "ae":
            run_directory.arrays_path(tmp_path, row["run"]).unlink()
    directory = plotting.Directory(tmp_path)
    assert "without 1 diverged run" in figures.trade_off(directory).get_suptitle()
    shown = {drawn.setting.name: drawn.row["seed"] for drawn in directory.having("plane")}
    assert "ae" not in shown and shown["vae"] == 1 and shown["kl_only"] == 0
    assert applicable(tmp_path) == set(figures.FIGURES) - SPECIAL


def test_a_collapsed_model_alone_is_drawn(tmp_path):
    write_study(tmp_path, {"kl_only": STUDY["kl_only"]}, seeds=1)
    path = run_directory.arrays_path(tmp_path, 0)
    arrays = run_directory.read_arrays(path)
    arrays |= {"codes_mean": 0 * arrays["codes_mean"], "plane_latents": 0 * arrays["plane_latents"]}
    run_directory.write_arrays(path, arrays)
    for function in (image_figures.latent_plane, image_figures.latent_panels):
        function(plotting.Directory(tmp_path)).savefig(tmp_path / "figure.png")


def test_missing_or_damaged_files_are_the_users_mistake(tmp_path):
    with pytest.raises(errors.UserError, match=r"results\.csv"):
        figures.draw(tmp_path)
    write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1)
    run_directory.arrays_path(tmp_path, 0).write_bytes(b"PK")
    with pytest.raises(errors.UserError, match=r"run_0000\.npz"):
        figures.draw(str(tmp_path))


def test_draws_in_a_thread(tmp_path):
    write_study(tmp_path, {"vae": STUDY["vae"]}, seeds=1)
    threads = [threading.Thread(target=image_figures.samples, args=[plotting.Directory(tmp_path)]) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert "matplotlib.pyplot" not in sys.modules


def test_imports_neither_jax_nor_matplotlib():
    code = "import sys, vae_jax.figures; print({'jax', 'matplotlib', 'flax'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
