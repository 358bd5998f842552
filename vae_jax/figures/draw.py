"""Figures of a run directory: its tables and arrays in, PNG files out, without JAX.

    figures.draw("runs/ablations")

Every function of `FIGURES` takes a `Directory` and returns a matplotlib Figure, or None where the directory has not what
it shows. Here are the figures of numbers; those of images and codes are in `image_figures`,
those that compare methods in `method_figures`, those of a decoder's intervals in `calibration_figures`.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from vae_jax.evaluation import closed_form
from vae_jax.figures import calibration as calibration_figures
from vae_jax.figures import images as image_figures
from vae_jax.figures import rate_distortion as method_figures
from vae_jax.figures import style as plotting
from vae_jax.storage import run_directory, tables


def draw(workdir: str | os.PathLike) -> list[pathlib.Path]:
    """Draw every figure that the directory has the data for into `workdir/figures`; returns their paths.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """
    directory = plotting.Directory(workdir)
    folder = directory.workdir / "figures"
    paths = []
    for name, function in FIGURES.items():
        path = folder / f"{name}.png"
        if (figure := function(directory)) is None:
            if f"figures/{path.name}" in run_directory.recorded(directory.workdir):
                path.unlink(missing_ok=True)  # drawn before from other numbers
            continue
        run_directory.record(directory.workdir, [f"figures/{path.name}"])
        folder.mkdir(exist_ok=True)
        with run_directory.atomic_write(path, "wb") as file:
            # Written fast: hardly larger.
            figure.savefig(file, format="png", dpi=150, bbox_inches="tight", pil_kwargs={"compress_level": 1})
        paths.append(path)
    return paths


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting on one split: mean and standard error over seeds, nats per image."""

    setting: plotting.Setting
    rate: tuple[float, float]
    distortion: tuple[float, float]


def _points(directory: plotting.Directory, prefix: str) -> list[Point]:
    """Every setting with a distortion; without the runs that diverged."""
    points = []
    for setting in directory.settings:
        pairs = [(row.get(prefix + "rate", math.nan), row.get(prefix + "distortion", math.nan)) for row in setting.rows]
        pairs = [pair for pair in pairs if not math.isnan(pair[0]) and math.isfinite(pair[1])]
        if pairs:
            points.append(Point(setting, *(tables.mean_and_stderr(values) for values in zip(*pairs, strict=True))))
    return points


def trade_off(directory: plotting.Directory):
    """The rate-distortion plane of either split, and the lines of equal ELBO."""
    splits = {"Training split": _points(directory, "train_"), "Test split": _points(directory, "")}
    every = [point for points in splits.values() for point in points]
    finite = [point for point in every if math.isfinite(point.rate[0])]
    others = {"objective.kind", "model.prior"} & set(tables.grid_keys([point.setting.rows[0] for point in every]))
    if len({point.setting.label for point in finite}) < 2 or others:
        return None  # a study of other things has its own figure
    # The view is that of the curve: what lies far from it would squash it, and is named at the edge.
    core = [point for point in finite if point.setting.name in plotting.TRADE] or finite
    right = max(max(point.rate[0] for point in core), 1e-3)
    distortions = [point.distortion[0] for point in core + [point for point in every if math.isinf(point.rate[0])]]
    pad = max(0.12 * np.ptp(distortions), 0.1 * right)  # distortion and rate are the same nats
    view = {"xlim": (-0.03 * right, 1.15 * right), "ylim": (min(distortions) - pad, max(distortions) + pad)}
    figure = plotting.new_figure(12.0, 5.8, f"Rate and distortion of every setting{_seeds(directory)}", "constrained")
    axes = None
    for number, (title, points) in enumerate(splits.items()):
        axes = figure.add_subplot(1, 2, number + 1, sharex=axes, sharey=axes)
        axes.set(**view, xlabel="rate (nats per image)", ylabel="distortion (nats per image)" if number == 0 else "")
        axes.set_title(title, pad=10 + 13 * -(-len(_outside(axes, points)) // 2))
        plotting.tidy(axes)
        _equal_elbo(axes, points)
        _curves(axes, directory, [point for point in points if math.isfinite(point.rate[0])])
        _edges(axes, points)
    if directory.field("model.likelihood") == "bernoulli" and directory.field("data.binarize") == "none":
        figure.supxlabel(
            "grey pixels under a Bernoulli decoder: distortions are up to a normaliser", fontsize=9, color="0.35"
        )
    return figure


def _seeds(directory: plotting.Directory) -> str:
    """What the errors are over, and how many runs are missing, for a title."""
    rows = [row for setting in directory.settings for row in setting.rows if "distortion" in row]
    seeds = {len(setting.rows) for setting in directory.settings if "seed" in setting.rows[0]}
    number = max(seeds) if len(seeds) == 1 else "the"
    text = f": mean and standard error over {number} seeds" if seeds and max(seeds) > 1 else ""
    diverged = directory.diverged + sum(not math.isfinite(row["distortion"]) for row in rows)
    return text + (f", without {diverged} diverged run{'s' if diverged > 1 else ''}" if diverged else "")


def _equal_elbo(axes, points: Sequence[Point]) -> None:
    """Faint lines of distortion + rate = const, named at the left or the right end where no point is in the way."""
    from matplotlib.ticker import MaxNLocator

    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    style = {"color": "0.6", "fontsize": 8, "ha": "center", "va": "center", "zorder": 0.5}
    style |= {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    style |= {"rotation": -45, "rotation_mode": "anchor", "transform_rotates_text": True}
    for level in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(y0, y1 + x1):
        axes.plot([x0, x1], [level - x0, level - x1], color="0.85", linewidth=0.8, zorder=0)
        for x in (x0 + 0.06 * (x1 - x0), x1 - 0.06 * (x1 - x0)):
            free = all(_distance(axes, point, x, level - x) > 0.1 for point in points)
            if free and 0.04 < (level - x - y0) / (y1 - y0) < 0.96:
                axes.text(x, level - x, f"ELBO {0 - level:g}".replace("-", "\u2212"), **style)
                break


def _curves(axes, directory: plotting.Directory, points: Sequence[Point]) -> None:
    """Points with errors; those of one family that differ in beta only are joined in its order, and named by it."""
    families: dict[tuple, list[Point]] = {}
    for point in points:
        family = "vae" if point.setting.name in plotting.TRADE else point.setting.name
        others = [directory.value(point.setting, key) for key in directory.varying if key != "objective.beta"]
        families.setdefault((family, *others), []).append(point)
    taken: list[tuple[float, float]] = []
    for members in families.values():
        beta = {point.setting.label: directory.value(point.setting, "objective.beta", math.nan) for point in members}
        members.sort(key=lambda point: beta[point.setting.label])
        line = [(point.rate[0], point.distortion[0]) for point in members]
        axes.plot(*zip(*line, strict=True), color=members[-1].setting.color, linewidth=1, zorder=1)
        labels: list[list] = []  # point and text; points that lie on each other share one
        for point, xy in zip(members, line, strict=True):
            label, color = point.setting.label, point.setting.color
            errors = {"xerr": point.rate[1], "yerr": point.distortion[1]}
            style = {"color": color, "marker": "o", "markersize": 5, "capsize": 2, "linestyle": ""}
            axes.errorbar(*xy, **{key: error for key, error in errors.items() if error > 0}, label=label, **style)
            text = label if len(members) == 1 else f"{beta[label]:g}" + (" (vae)" if label == "vae" else "")
            if labels and _distance(axes, point, *labels[-1][0]) < 0.03:
                labels[-1][1] += f", {text}"
            else:
                labels.append([xy, text, color])
        if len(members) > 1:  # the first in full: what else the family differs in, and that the numbers are betas
            first = members[0].setting.label
            labels[0][1] = labels[0][1].replace(f"{beta[first]:g}", first.partition(", ")[2] or f"beta {beta[first]:g}", 1)
        for xy, text, color in labels:
            above = all(math.dist(axes.transLimits.transform(xy), other) > 0.04 for other in taken)
            offset = (6, 5) if above else (6, -13)
            axes.annotate(text, xy, xytext=offset, textcoords="offset points", color=color, fontsize=9)
            taken.append(tuple(axes.transLimits.transform(xy)))


def _edges(axes, points: Sequence[Point]) -> None:
    """What the plane does not hold: infinite rates as lines; points out of view as arrows, and in words above it."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    text = {"textcoords": "offset points", "fontsize": 9, "annotation_clip": False}
    for number, point in enumerate(_outside(axes, points)):
        (x, _), (y, _), color = point.rate, point.distortion, point.setting.color
        marker, arrow = (">", "\u2192") if x > x1 else ("^", "\u2191") if y > y1 else ("v", "\u2193")
        axes.plot(min(x, x1), min(max(y, y0), y1), marker, color=color, clip_on=False)
        label = f"{arrow} {point.setting.label}: rate {x:.1f}, distortion {y:.1f}"
        place = {"xy": (0.5 * (number % 2), 1), "xycoords": "axes fraction", "xytext": (0, 8 + 13 * (number // 2))}
        axes.annotate(label, color=color, **place, **text)
    for point in points:
        if math.isinf(point.rate[0]):
            y, color = point.distortion[0], point.setting.color
            axes.axhline(y, color=color, linestyle="--", linewidth=1, zorder=1)
            label = f"{point.setting.label}: infinite rate, distortion {y:.1f}"
            axes.annotate(label, (x0 + 0.12 * (x1 - x0), y), xytext=(0, -4), color=color, va="top", **text)


def _outside(axes, points: Sequence[Point]) -> list[Point]:
    """Points of finite rate that lie out of view."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return [p for p in points if math.isfinite(p.rate[0]) and not (x0 <= p.rate[0] <= x1 and y0 <= p.distortion[0] <= y1)]


def _distance(axes, point: Point, x: float, y: float) -> float:
    """From a point, or the line of an infinite rate, to (x, y), with the plane's width and height as 1."""
    rate = point.rate[0] if math.isfinite(point.rate[0]) else x
    return math.dist(*axes.transLimits.transform([(rate, point.distortion[0]), (x, y)]))


def _over_latents(directory: plotting.Directory, settings: Sequence[plotting.Setting]):
    """Lines over the number of latents: (label without it, {latents: setting}) each; and every number there is."""
    lines: dict[tuple, dict[int, plotting.Setting]] = {}
    for setting in settings:
        others = [setting.rows[0].get(key) for key in directory.varying if key != "model.latents"]
        if isinstance(count := directory.value(setting, "model.latents"), int):
            lines.setdefault((setting.name, *others), {})[count] = setting
    parts = [next(iter(line.values())).label.split(", ") for line in lines.values()]
    labels = [", ".join(part for part in label if not part.startswith("latents ")) for label in parts]
    return list(zip(labels, lines.values(), strict=True)), sorted({count for line in lines.values() for count in line})


def latents(directory: plotting.Directory):
    """Test error over the number of latents: PCA, a linear AE and a nonlinear one."""
    lines, counts = _over_latents(directory, directory.settings)
    if len(counts) < 2:
        return None
    figure = plotting.new_figure(7.0, 5.0, "Error of the reconstructions over the number of latents", "constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="latents")
    firsts = [next(iter(line.values())) for _, line in lines]
    for first, (label, line) in zip(firsts, lines, strict=True):
        color = plotting.shade(first, firsts)
        mean, error = np.array([plotting.column_spread(line[count], "mse") for count in sorted(line)]).T
        if "seed" not in first.rows[0]:  # a baseline: circles, because PCA's line is that of the linear AE
            axes.plot(sorted(line), mean, "o", color=color, label=label, markersize=9, fillstyle="none")
            continue
        style = {"marker": "o", "markersize": 4, "capsize": 2}
        axes.errorbar(sorted(line), mean, np.nan_to_num(error), color=color, label=label, **style)
        train = [plotting.column_spread(line[count], "train_mse")[0] for count in sorted(line)]
        axes.plot(sorted(line), train, color=color, linestyle="--", linewidth=1, alpha=0.6)
    axes.set_xticks(counts, counts)
    axes.set_xticks([], minor=True)
    axes.set_ylabel("mean squared error per pixel, test split\n(dashed: training split)")
    plotting.plain_log(axes)
    axes.legend(frameon=False)
    plotting.tidy(axes)
    return figure


def posterior_std(directory: plotting.Directory):
    """The posterior's std during training, for the models that use it."""
    by_run: dict[int, dict[int, float]] = {}
    for row in directory.metrics:
        if math.isfinite(value := row.get("train_mean_std", math.nan)) and value > 0:
            by_run.setdefault(row["run"], {})[row["epoch"]] = value
    lines = []
    for setting in directory.settings:
        runs = [by_run[row["run"]] for row in setting.rows if row["run"] in by_run and row.get("mean_std") != 0]
        epochs = sorted({epoch for run in runs for epoch in run})
        if len(epochs) > 1 and directory.value(setting, "objective.noise_scale", 1) != 0:
            lines.append((setting, epochs, [[run[epoch] for run in runs if epoch in run] for epoch in epochs]))
    if not lines:
        return None
    figure = plotting.new_figure(8.5, 5.5, "The posterior's std during training", "constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="std, mean over latents and training images", yscale="log")
    ends = []
    for setting, epochs, values in lines:
        color = plotting.shade(setting, [line[0] for line in lines])
        mean = [float(np.mean(column)) for column in values]
        axes.plot(epochs, mean, color=color, linewidth=1.5, label=setting.label)
        axes.fill_between(epochs, list(map(min, values)), list(map(max, values)), color=color, alpha=0.2, linewidth=0)
        ends.append((float(epochs[-1]), mean[-1], setting.label, color))
    plotting.tidy(axes)
    plotting.plain_log(axes)
    plotting.label_ends(axes, ends)
    return figure


# The axes of the water-filling figure: columns of its curves and points.
WATER = "water level theta = beta \u00b7 sigma\u00b2", "rate (nats per image)", "squared error per image"


def water_filling(directory: plotting.Directory):
    """Rate and squared error of linear beta-VAEs over the water level, and on one plane, beside the closed form."""
    rows = [row for setting in directory.settings for row in setting.rows if math.isfinite(row.get("theta", math.nan))]
    trained = [row for row in rows if row["name"] == "linear" and math.isfinite(row["train_distortion"])]
    images = [drawn.arrays["images"] for drawn in directory.having("images", images=False)]
    if not images or len({row["theta"] for row in trained}) < 2:
        return None
    pixels = math.prod(images[0].shape[1:])
    curves, label = _optima(directory, [row["theta"] for row in trained]), "closed form (bars: a latent switches off)"
    if not curves:  # evaluated before there were spectra
        others = [key for key in directory.varying if key not in ("objective.beta", "model.sigma")]
        lines = tables.grouped([row for row in rows if row["name"] == "ppca"], others).values()
        curves, label = [(_levels(line, pixels), []) for line in lines], "closed form at the same theta, joined"
    if not curves:
        return None
    title = "Reverse water-filling: linear beta-VAEs and their optimum in closed form, training split"
    figure = plotting.new_figure(13.0, 4.6, title, "constrained")
    color = next(setting.color for setting in directory.settings if setting.name == "linear")
    for number, (x, y) in enumerate(((0, 1), (0, 2), (1, 2))):
        axes = figure.add_subplot(1, 3, number + 1, xlabel=WATER[x], ylabel=WATER[y], xscale="linear" if x else "log")
        for curve, switches in curves:
            style = {"marker": "|" if switches else "", "markersize": 10, "markevery": switches, "color": plotting.GREY}
            axes.plot(curve[:, x], curve[:, y], label=None if axes.lines else label, **style)
        for place, ((sigma,), runs) in enumerate(tables.grouped(trained, ["model.sigma"]).items()):
            points = _levels(runs, pixels)
            # Of another sigma: larger and hollow, for those of one theta lie on each other.
            style = {"marker": "osD^v"[place % 5], "markersize": 10, "fillstyle": "none"} if place else {"marker": "o"}
            what = "trained" if sigma is None else f"trained, sigma {sigma}"
            axes.plot(points[:, x], points[:, y], color=color, linestyle="", clip_on=False, label=what, **style)
        axes.set_ylim(0)
        plotting.tidy(axes)
    figure.axes[0].legend(frameon=False)
    return figure


def _optima(directory: plotting.Directory, thetas: Sequence[float]) -> list[tuple[np.ndarray, list[int]]]:
    """Curves (theta, rate, squared error) over the range of `thetas`, and their points where a latent switches off."""
    low, high = min(thetas) / 1.3, max(thetas) * 1.3
    curves = {}
    for drawn in directory.having("spectrum", images=False):
        values, latents = drawn.arrays["spectrum"], drawn.arrays["codes_mean"].shape[1]
        ends = [value for value in values[:latents] if low < value < high]
        theta = np.union1d(np.geomspace(low, high, 200), ends)
        curve = np.stack([theta, *closed_form.water_filling(values, latents, theta)], axis=1)
        if drawn.setting.name == "linear":
            curves[curve.tobytes()] = curve, np.flatnonzero(np.isin(theta, ends)).tolist()  # once for each data set
    return list(curves.values())


def _levels(rows: Sequence[tables.Row], pixels: int) -> np.ndarray:
    """(theta, rate, squared error) of rows, in order of theta."""
    return np.array(sorted((row["theta"], row["train_rate"], _squared_error(row, pixels)) for row in rows))


def _squared_error(row: tables.Row, pixels: int) -> float:
    """Of an image, expected over the posterior: the Gaussian distortion without its constant, times 2 sigma^2."""
    variance = row["sigma"] ** 2
    return 2 * variance * (row["train_distortion"] - pixels / 2 * math.log(2 * math.pi * variance))


# The estimators of a gradient that evaluation compares, and their colours.
ESTIMATORS = {"score": ("score function", "#D55E00"), "reparameterized": ("reparameterisation", "#0072B2")}


def gradient_variance(directory: plotting.Directory):
    """The variance of two estimators of the gradient in the posterior's parameters, over the number of latents."""
    having = [s for s in directory.settings if all(f"gradient_variance_{name}" in s.rows[0] for name in ESTIMATORS)]
    lines, counts = _over_latents(directory, having)
    if len(counts) < 2:
        return None
    title = "Variance of the reconstruction term's gradient in the posterior's mean and log-variance"
    figure = plotting.new_figure(8.5, 5.0, title, "constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="latents")
    axes.set_ylabel("variance of one draw, summed over parameters\n(mean over test images; bars: standard error over seeds)")
    ends = []
    for family, line in lines:
        for name, (label, color) in ESTIMATORS.items():
            label += f" ({family})" if len(lines) > 1 else ""
            mean, error = np.array([plotting.column_spread(line[k], f"gradient_variance_{name}") for k in sorted(line)]).T
            style = {"marker": "o", "markersize": 4, "capsize": 2}
            axes.errorbar(sorted(line), mean, np.nan_to_num(error), color=color, label=label, **style)
            ends.append((float(max(line)), float(mean[-1]), label, color))
    axes.set_xticks(counts, counts)
    axes.set_xticks([], minor=True)
    plotting.tidy(axes)
    plotting.label_ends(axes, ends)
    axes.set_xlim(None, 1.08 * counts[-1])  # the last point whole
    return figure


FIGURES: dict[str, Callable] = {
    "latent_plane": image_figures.latent_plane,
    "latent_panels": image_figures.latent_panels,
    "densities": image_figures.densities,
    "manifold": image_figures.manifold,
    "samples": image_figures.samples,
    "reconstructions": image_figures.reconstructions,
    "traversals": image_figures.traversals,
    "interpolations": image_figures.interpolations,
    "trade_off": trade_off,
    "latents": latents,
    "posterior_std": posterior_std,
    "water_filling": water_filling,
    "gradient_variance": gradient_variance,
    "steering": method_figures.steering,
    "priors": method_figures.priors,
    "intervals": calibration_figures.intervals,
    "reliability": calibration_figures.reliability,
}
