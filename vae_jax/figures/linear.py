"""What is known in closed form beside what was trained: the error of PCA over the latents, and reverse water-filling."""

import math
from collections.abc import Sequence

import numpy as np

from vae_jax.evaluation import closed_form
from vae_jax.figures import style
from vae_jax.figures.learning import latent_ticks, over_latents
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Role, Row, Setting
from vae_jax.storage import tables


def latents(directory: Directory):
    """Test error over the number of latents: PCA, linear and nonlinear autoencoders, VAEs."""
    lines, counts = over_latents(directory, [s for s in directory.settings if math.isfinite(s.mean("mse")[0])])
    if len(counts) < 2:
        return None
    note = f" ({style.LINES} of {len(lines)} lines)" if len(lines) > style.LINES else ""
    lines = lines[: style.LINES]
    figure = style.new_figure(7.5, 4.8, f"Error of the reconstructions over the number of latents{note}")
    axes = figure.add_subplot(xscale="log", yscale="log")
    colors = style.family_colors([(next(iter(line.values())).role, len(line)) for _, line in lines])
    for (label, line), color in zip(lines, colors, strict=True):
        xs = sorted(line)
        mean, error = np.array([line[count].mean("mse") for count in xs]).T
        if line[xs[0]].role is Role.CLOSED_FORM:  # circles, because PCA's line is that of a linear autoencoder
            axes.plot(xs, mean, "o", color=color, label=label, markersize=9, fillstyle="none")
            continue
        axes.errorbar(xs, mean, np.nan_to_num(error), color=color, label=label, marker="o", markersize=4, capsize=2)
        axes.plot(
            xs, [line[count].mean("train_mse")[0] for count in xs], color=color, linestyle="--", linewidth=1, alpha=0.6
        )
    latent_ticks(axes, counts)
    style.label_axes(axes, xlabel="latents", ylabel="mean squared error per pixel, test split\n(dashed: training split)")
    style.plain_log(axes.yaxis, *axes.get_ylim())
    axes.legend(frameon=False, fontsize=style.TEXT)
    style.tidy(axes)
    return figure


# The axes of the water-filling figure: columns of its curves and points.
WATER = "water level theta = beta \u00b7 sigma\u00b2", "rate (nats per image)", "squared error per image"


def water_filling(directory: Directory):
    """Rate and squared error of linear beta-VAEs over the water level, and on one plane, beside the closed form."""
    trained = [
        row for setting in directory.trained if _is_linear(directory, setting) for row in setting.rows if _has_level(row)
    ]
    panel = directory.panels("images", 1, pictures=False)
    if not panel or len({row["theta"] for row in trained}) < 2:
        return None
    pixels = math.prod(panel.panels[0].arrays["images"].shape[1:])
    curves, label = _optima(directory, [row["theta"] for row in trained]), "closed form (bars: a latent switches off)"
    if not curves:  # evaluated before there were spectra
        curves, label = _closed_rows(directory, pixels), "closed form at the same theta, joined"
    if not curves:
        return None
    title = "Reverse water-filling: linear beta-VAEs and their optimum in closed form, training split"
    figure = style.new_figure(style.WIDTH, 4.0, title)
    for number, (x, y) in enumerate(((0, 1), (0, 2), (1, 2))):
        axes = figure.add_subplot(1, 3, number + 1, xscale="linear" if x else "log")
        style.label_axes(axes, xlabel=WATER[x], ylabel=WATER[y])
        for curve, switches in curves:
            look = {"marker": "|" if switches else "", "markersize": 10, "markevery": switches, "color": style.GREY}
            axes.plot(curve[:, x], curve[:, y], label=None if axes.lines else label, **look)
        _trained_points(axes, trained, pixels, x, y)
        axes.set_ylim(0)
        style.tidy(axes)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=style.TEXT)
    return figure


def _is_linear(directory: Directory, setting: Setting) -> bool:
    """Whether a setting is the model that the closed form is the optimum of."""
    networks = {directory.value(setting, f"model.{part}") for part in ("encoder", "decoder")}
    return networks == {"linear"} and directory.value(setting, "model.likelihood") == "gaussian"


def _has_level(row: Row) -> bool:
    return all(math.isfinite(row.get(column, math.nan)) for column in ("theta", "train_distortion", "train_rate", "sigma"))


def _trained_points(axes, trained: Sequence[Row], pixels: int, x: int, y: int) -> None:
    groups = sorted(tables.grouped(trained, ["model.sigma"]).items(), key=lambda group: -len(group[1]))
    for place, ((sigma,), runs) in enumerate(groups):
        points = _levels(runs, pixels)
        # Of another sigma: larger and hollow, for those of one theta lie on each other.
        look = {"marker": "osD^v"[place % 5], "markersize": 10, "fillstyle": "none"} if place else {"marker": "o"}
        what = "trained" if sigma is None else f"trained, sigma {sigma}"
        axes.plot(points[:, x], points[:, y], color=style.BLUE, linestyle="", clip_on=False, label=style.plain(what), **look)


def _optima(directory: Directory, thetas: Sequence[float]) -> list[tuple[np.ndarray, list[int]]]:
    """Curves (theta, rate, squared error) over the range of `thetas`, and their points where a latent switches off."""
    low, high = min(thetas) / 1.3, max(thetas) * 1.3
    curves = {}
    for setting in directory.trained:
        if not _is_linear(directory, setting):
            continue
        for values, codes in zip(
            directory.array_of_runs(setting, "spectrum"), directory.array_of_runs(setting, "codes_mean"), strict=False
        ):
            latents = codes.shape[1]
            ends = [value for value in values[:latents] if low < value < high]
            theta = np.union1d(np.geomspace(low, high, 200), ends)
            curve = np.stack([theta, *closed_form.water_filling(values, latents, theta)], axis=1)
            curves[curve.tobytes()] = curve, np.flatnonzero(np.isin(theta, ends)).tolist()  # once for each data set
    return list(curves.values())


def _closed_rows(directory: Directory, pixels: int) -> list[tuple[np.ndarray, list[int]]]:
    """The rows of the closed form, joined in the order of theta: a curve for each number of latents and the like."""
    rows = [row for s in directory.settings if s.role is Role.CLOSED_FORM for row in s.rows if _has_level(row)]
    others = [key for key in tables.grid_keys(rows) if key not in ("objective.beta", "model.sigma")]
    return [(_levels(line, pixels), []) for line in tables.grouped(rows, others).values()]


def _levels(rows: Sequence[Row], pixels: int) -> np.ndarray:
    """(theta, rate, squared error) of rows, in order of theta."""
    return np.array(sorted((row["theta"], row["train_rate"], _squared_error(row, pixels)) for row in rows))


def _squared_error(row: Row, pixels: int) -> float:
    """Of an image, expected over the posterior: the Gaussian distortion without its constant, times 2 sigma^2."""
    variance = row["sigma"] ** 2
    return 2 * variance * (row["train_distortion"] - pixels / 2 * math.log(2 * math.pi * variance))
