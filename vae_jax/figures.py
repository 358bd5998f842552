"""Figures of a run directory: its tables and arrays in, PNG files out, without JAX.

    figures.draw("runs/ablations")

Every function of `FIGURES` takes a `Directory` and returns a matplotlib Figure, or None where the directory has not what
it shows (no images, other than 2 latents, no classes, one run only). Matplotlib is imported inside the functions, and
without pyplot, so that importing this file costs nothing and drawing works in any thread.
"""

import dataclasses
import math
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from vae_jax import results

Arrays = dict[str, np.ndarray]

# Okabe & Ito's colours, which the colour-blind can tell apart; a model has the same one in every figure.
COLORS = {
    "ae": "#D55E00",
    "linear_ae": "#56B4E9",
    "vae_no_kl": "#E69F00",
    "vae": "#0072B2",
    "beta_vae": "#009E73",
    "kl_only": "#CC79A7",
    "pca": "#000000",
    "ppca": "#777777",
}
OTHERS = ("#882255", "#332288", "#999933", "#AA4499", "#44AA99")  # names not above, in order of appearance
CLASSES = "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"  # Tol
ORDER = ("ae", "vae_no_kl", "vae", "beta_vae")  # of panels, before any others; `vae` stands among the betas
TRADE = ("vae", "beta_vae")  # one family: points of one rate-distortion curve
PANELS = 8  # settings in one figure at most
GREY = "0.55"


@dataclasses.dataclass(frozen=True)
class Setting:
    """Runs that differ in their seed only."""

    name: str
    label: str  # the name, and what tells it from others of that name
    color: str
    rows: list[results.Row]


class Drawn(NamedTuple):
    """A setting with the one run of it that pictures show."""

    setting: Setting
    arrays: Arrays
    row: results.Row


class Directory:
    """A run directory as the figures see it: settings in the order of panels, and the arrays of one run of each.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        rows = results.read_csv(self.workdir / "results.csv")
        config = self.workdir / "config.json"
        self.config = results.read_json(config) if config.exists() else {}
        metrics = self.workdir / "metrics.jsonl"
        self.metrics = results.read_jsonl(metrics) if metrics.exists() else []
        self.varying = results.varying_keys(rows)
        self.settings = sorted(_settings(rows, self.varying), key=self._rank)
        self._drawn: dict[int, Drawn | None] = {}  # by the setting's first run

    def value(self, setting: Setting, key: str, default=None):
        """The config field `key` of a setting: from the grid's column, else from `config.json`."""
        if key in setting.rows[0]:
            return setting.rows[0][key]
        value = self.field(key)
        return default if value is None else value

    def field(self, key: str):
        """The field `key` of `config.json`, or None."""
        node = self.config
        for part in ("config", *key.split(".")):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def having(self, key: str, images: bool = True) -> list[Drawn]:
        """Settings whose arrays have `key`; where `images`, as pictures of the size that the first one's have."""
        for setting in self.settings:
            if (first := setting.rows[0]["run"]) not in self._drawn:
                self._drawn[first] = next(filter(None, (self._read(setting, row) for row in setting.rows)), None)
        found = [drawn for drawn in self._drawn.values() if drawn and key in drawn.arrays]
        if images:
            found = [drawn for drawn in found if _is_image(drawn.arrays[key])]
            found = [drawn for drawn in found if drawn.arrays[key].shape[1:] == found[0].arrays[key].shape[1:]]
        return found

    def panels(self, key: str) -> list[Drawn]:
        """`having(key)`, but of each name at most three settings, spread over its range; at most `PANELS` in all."""
        names = _by_name(self.having(key)).values()
        for count in (3, 2, 1):
            chosen = [m[i] for m in names for i in sorted({round(at) for at in np.linspace(0, len(m) - 1, count)})]
            if len(chosen) <= PANELS:
                break
        return sorted(chosen, key=lambda drawn: self._rank(drawn.setting))[:PANELS]

    def pair(self, key: str) -> list[Drawn]:
        """What is shown side by side: `ae` and `vae`, or the names there are; the middle setting of each."""
        names = _by_name(self.having(key))
        return [names[name][len(names[name]) // 2] for name in sorted(names, key=lambda name: name not in ("ae", "vae"))][:2]

    def held_to_prior(self, setting: Setting) -> bool:
        return bool(self.value(setting, "objective.beta", setting.name not in ("ae", "vae_no_kl")))

    def _rank(self, setting: Setting) -> tuple:
        beta = self.value(setting, "objective.beta", 0) if setting.name in TRADE else 0
        name = "vae" if setting.name in TRADE else setting.name
        return ORDER.index(name) if name in ORDER else len(ORDER), beta

    def _read(self, setting: Setting, row: results.Row) -> Drawn | None:
        """A run that has arrays and did not diverge, or None."""
        if not (path := results.arrays_path(self.workdir, row["run"])).exists():
            return None
        arrays = results.read_arrays(path)
        # The rate of a deterministic code is infinite, and that is no divergence.
        finite = all(np.isfinite(arrays[key]).all() for key in arrays if arrays[key].dtype.kind == "f" and "rate" not in key)
        return Drawn(setting, arrays, row) if finite else None


def _settings(rows: Sequence[results.Row], varying: Sequence[str]) -> list[Setting]:
    unknown = [name for name in dict.fromkeys(row["name"] for row in rows) if name not in COLORS]
    colors = COLORS | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(unknown)}
    settings = []
    for (name, *values), members in results.grouped(rows, ["name", *varying]).items():
        family = [row for row in rows if row["name"] == name]
        told = [
            f"{key.rpartition('.')[2]} {value:g}" if isinstance(value, float) else f"{key.rpartition('.')[2]} {value}"
            for key, value in zip(varying, values, strict=True)
            if len({row.get(key) for row in family}) > 1
        ]
        settings.append(Setting(name, ", ".join([str(name), *told]), colors[name], members))
    return settings


def _by_name(drawn: Sequence[Drawn]) -> dict[str, list[Drawn]]:
    names: dict[str, list[Drawn]] = {}
    for each in drawn:
        names.setdefault(each.setting.name, []).append(each)
    return names


def _is_image(array: np.ndarray) -> bool:
    """[N, height, width, channels] of grey or RGB pixels, and not vectors."""
    return array.ndim == 4 and array.shape[-1] in (1, 3)


def draw(workdir: str | os.PathLike) -> list[pathlib.Path]:
    """Draw every figure that the directory has the data for into `workdir/figures`; returns their paths.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """
    directory = Directory(workdir)
    folder = directory.workdir / "figures"
    paths = []
    for name, function in FIGURES.items():
        if (figure := function(directory)) is None:
            continue
        folder.mkdir(exist_ok=True)
        path = folder / f"{name}.png"
        part = path.with_name(path.name + ".part")
        figure.savefig(part, format="png", dpi=150, bbox_inches="tight")
        os.replace(part, path)
        paths.append(path)
    return paths


def _figure(width: float, height: float, title: str, layout: Literal["compressed", "constrained"] = "compressed"):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontsize=12)
    return figure


def _grid(count: int, size: float, title: str, columns: int = 4):
    """A figure with `count` square axes of `size` inches, the last row not always full."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size *= 1.4 if count == 1 else 1
    figure = _figure(max(columns * size, 6.5), rows * (size + 0.7) + 0.5, title)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _mosaic(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """[N, height, width, channels] -> one picture, row by row, with black gaps; pixels cut to [0, 1]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap), columns * (width + gap), channels))
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = np.clip(image, 0, 1)
    return canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]


def _show(axes, picture: np.ndarray, **options) -> None:
    """A picture without ticks; grey where it has one channel."""
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if len(picture) < 600 else "auto", **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def _tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def _classes(arrays: Arrays) -> np.ndarray | None:
    """The labels, where they are a few classes."""
    labels = arrays.get("labels")
    return labels if labels is not None and labels.ndim == 1 and len(np.unique(labels)) <= 20 else None


def _scatter(axes, codes: np.ndarray, labels: np.ndarray | None) -> bool:
    """Codes coloured by class, each class's number at its median; False where the medians lie on each other."""
    from matplotlib import colors, patheffects

    style = {"s": float(np.clip(4000 / len(codes), 2, 12)), "linewidths": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(*codes.T, color=GREY, **style)
        return True
    classes = np.unique(labels)
    for number, label in enumerate(classes):
        axes.scatter(*codes[labels == label].T, color=CLASSES[number % len(CLASSES)], **style)
    medians = np.array([np.median(codes[labels == label], axis=0) for label in classes])
    scaled = medians / np.maximum(np.ptp(codes, axis=0), 1e-9)
    distances = np.linalg.norm(scaled[:, None] - scaled, axis=-1) + 10 * np.eye(len(classes))
    if np.median(distances.min(axis=1)) < 0.03:
        return False
    for number, (label, median) in enumerate(zip(classes, medians, strict=True)):
        color = tuple(0.75 * np.array(colors.to_rgb(CLASSES[number % len(CLASSES)])))  # darker, to be read
        text = axes.text(*median, str(label), color=color, weight="bold", clip_on=True)
        text.set(ha="center", va="center", path_effects=[patheffects.withStroke(linewidth=3, foreground="white")])
    return True


def _class_legend(figure, labels: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    colors = {str(label): CLASSES[number % len(CLASSES)] for number, label in enumerate(np.unique(labels))}
    handles = [Line2D([], [], marker="o", linestyle="", color=color, label=label) for label, color in colors.items()]
    place = {"loc": "outside lower center", "ncols": 10, "frameon": False}
    figure.legend(handles=handles, title="class", handletextpad=0, columnspacing=1, **place)


def _prior_circles(axes, color: str = GREY) -> None:
    """The prior's 1 and 2 sigma, without a say in the limits."""
    from matplotlib.patches import Circle

    if max(np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())) < 0.2:
        return  # a collapsed model: out of view, and slow, for its dashes would be millions
    for radius in (1, 2):
        axes.add_artist(Circle((0, 0), radius, fill=False, edgecolor=color, linewidth=1, linestyle="--"))


def latent_plane(directory: Directory):
    """Mean codes of the test images, and what the decoder makes of the box that they lie in."""
    if not (pairs := directory.pair("plane")):
        return None
    title = "Codes of the test images, and the decoder's output over the same box of the latent plane"
    figure, legend = _figure(11.6, 5.5 * len(pairs) + 1, title), None
    for number, (setting, arrays, _) in enumerate(pairs):
        left, right = (figure.add_subplot(len(pairs), 2, 2 * number + side) for side in (1, 2))
        box, side = arrays["plane_latents"], math.isqrt(len(arrays["plane"]))
        # The decoded points are the centres of the cells.
        half = np.maximum(np.ptp(box, axis=0), 1e-6) / (side - 1) / 2
        (x0, y0), (x1, y1) = box.min(axis=0) - half, box.max(axis=0) + half
        if not _scatter(left, arrays["codes_mean"], _classes(arrays)):
            legend = _classes(arrays)
        _show(right, _mosaic(arrays["plane"], side), extent=(x0, x1, y0, y1), aspect="auto")
        prior = directory.held_to_prior(setting)
        note = " (dashed: the prior's 1 and 2 sigma)" if prior else ""
        left.set_title(f"{setting.label}: mean codes{note}", color=setting.color)
        right.set_title(f"{setting.label}: decoded", color=setting.color)
        for axes in (left, right):
            axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="latent 1", ylabel="latent 2", box_aspect=1)
            axes.locator_params(nbins=6)
        right.set(xticks=left.get_xticks(), yticks=left.get_yticks(), xlim=(x0, x1), ylim=(y0, y1))
        if prior:
            _prior_circles(left)
            _prior_circles(right, "#F0E442")
    if legend is not None:
        _class_legend(figure, legend)
    return figure


# What each term of the loss does alone, by the runs that have only it, in order of preference; and both.
TERMS = {"reconstruction only": ("vae_no_kl", "ae"), "KL only": ("kl_only",), "reconstruction and KL": ("vae",)}


def latent_panels(directory: Directory):
    """Codes under reconstruction only, KL only, and both; other models where there are not two of these."""
    having = [d for d in directory.having("codes_mean", images=False) if d.arrays["codes_mean"].shape[1] == 2]
    names = _by_name([drawn for drawn in having if _classes(drawn.arrays) is not None])
    chosen = {next((n for n in choice if n in names), ""): term for term, choice in TERMS.items()}
    chosen.pop("", None)
    if len(chosen) < 2:
        chosen = {name: chosen.get(name, "") for name in list(names)[:3]}
    if not chosen:
        return None
    title = "Codes of the test images under reconstruction only, KL only, and both"
    title = title if set(chosen.values()) == set(TERMS) else "Codes of the test images"
    if any(directory.held_to_prior(names[name][0].setting) for name in chosen):
        title += " (dashed: the prior's 1 and 2 sigma)"
    (figure, panels), legend = _grid(len(chosen), 3.9, title), None
    for axes, (name, term) in zip(panels, chosen.items(), strict=True):
        setting, arrays, _ = names[name][0]
        codes, what = arrays["codes_mean"], "mean codes"
        if name == "kl_only":  # whose means are all 0
            noise = np.random.default_rng(0).standard_normal(codes.shape)
            codes, what = codes + arrays["codes_std"] * noise, "sampled codes"
        if not _scatter(axes, codes, _classes(arrays)):
            legend = _classes(arrays)
        if directory.held_to_prior(setting):
            _prior_circles(axes)
        axes.set(xlabel="latent 1", ylabel="latent 2", aspect="equal", adjustable="datalim", box_aspect=1)
        heading = f"{term} ({setting.label})" if term else setting.label
        axes.set_title(f"{heading}\n{what}", color=setting.color, fontsize=11)
        _tidy(axes)
    if legend is not None:
        _class_legend(figure, legend)
    return figure


def manifold(directory: Directory):
    """The decoder over the prior's quantiles, for 2 latents."""
    # The decoder of `kl_only` is never trained.
    if not (pairs := [drawn for drawn in directory.panels("manifold") if drawn.setting.name != "kl_only"]):
        return None
    figure, panels = _grid(len(pairs), 3.8, "The decoder over the prior's quantiles, 2 % to 98 % of each latent", columns=3)
    for axes, (setting, arrays, _) in zip(panels, pairs, strict=True):
        _show(axes, _mosaic(arrays["manifold"], math.isqrt(len(arrays["manifold"]))))
        axes.set(xlabel="latent 1", ylabel="latent 2")
        axes.set_title(_held(directory, setting), color=setting.color)
    return figure


def _held(directory: Directory, setting: Setting) -> str:
    """A panel's title, which says where the prior is not what the codes were trained towards."""
    return setting.label + ("" if directory.held_to_prior(setting) else "\n(codes not held to the prior)")


def samples(directory: Directory):
    """Decoder means of draws from the prior."""
    if not (pairs := directory.panels("samples")):
        return None
    figure, panels = _grid(len(pairs), 2.8, "Decoder means of 64 draws from the prior")
    for axes, (setting, arrays, _) in zip(panels, pairs, strict=True):
        _show(axes, _mosaic(arrays["samples"][:64], 8))
        axes.set_title(_held(directory, setting), color=setting.color)
    return figure


def reconstructions(directory: Directory):
    """The first test images, and each model's decoder mean at their mean codes."""
    if not (pairs := directory.panels("reconstructions")):
        return None
    strips = [("data", "black", pairs[0].arrays["images"])]
    strips += [(setting.label, setting.color, arrays["reconstructions"]) for setting, arrays, _ in pairs]
    height, width = strips[0][2].shape[1:3]
    figure = _figure(11.5, len(strips) * 0.65 * height / width + 0.4, "The first test images and their reconstructions")
    _strips(figure.add_subplot(), strips)
    return figure


def _strips(axes, strips: Sequence[tuple[str, str, np.ndarray]]) -> None:
    """Rows of images under each other, with their labels in their colours: (label, color, images) each."""
    picture = _mosaic(np.concatenate([images for _, _, images in strips]), len(strips[0][2]))
    _show(axes, picture)
    places = (np.arange(len(strips)) + 0.5) * len(picture) / len(strips)
    axes.set_yticks(places, [label.replace(", ", "\n") for label, _, _ in strips])
    axes.tick_params(length=0)
    for tick, (_, color, _) in zip(axes.get_yticklabels(), strips, strict=True):
        tick.set_color(color)


STEPS = 9  # of a traversal or an interpolation, as evaluation.py decodes them


def traversals(directory: Directory):
    """The first test image with one latent moved, a row for each latent."""
    if not (pairs := directory.pair("traversals")):
        return None
    most = max(len(arrays["traversals"]) // STEPS for _, arrays, _ in pairs)
    height, width = pairs[0].arrays["traversals"].shape[1:3]
    title = "The first test image with one latent moved, the others held"
    figure = _figure(5.8 * len(pairs), 0.58 * most * height / width + 1.1, title)
    for number, (setting, arrays, _) in enumerate(pairs):
        axes = figure.add_subplot(1, len(pairs), number + 1)
        rows = np.split(arrays["traversals"], len(arrays["traversals"]) // STEPS)
        _strips(axes, [(str(place + 1), "black", row) for place, row in enumerate(rows)])
        over = "the prior, 2 % to 98 %" if directory.held_to_prior(setting) else "its codes, 0.5 % to 99.5 %"
        axes.set(ylabel="latent, by use", xlabel=f"latent moved over {over}", anchor="N")
        axes.set_title(setting.label, color=setting.color)
    return figure


def interpolations(directory: Directory):
    """Decoder means on the line between the codes of two test images."""
    if not (pairs := directory.pair("interpolations")):
        return None
    # Another seed has other pairs of images.
    pairs = [drawn for drawn in pairs if drawn.row.get("seed") == pairs[0].row.get("seed")]
    images, height, width, _ = pairs[0].arrays["interpolations"].shape
    count = images // STEPS
    columns = min(2, count)
    rows = -(-count // columns)
    title = "From one test image to another: decoder means along the line between their codes"
    figure = _figure(5.8 * columns, rows * (0.58 * len(pairs) * height / width + 0.2) + 0.4, title)
    for number in range(count):
        part = slice(number * STEPS, (number + 1) * STEPS)
        strips = [(setting.label, setting.color, arrays["interpolations"][part]) for setting, arrays, _ in pairs]
        _strips(figure.add_subplot(rows, columns, number + 1), strips)
    return figure


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting on one split: mean and standard error over seeds, nats per image."""

    setting: Setting
    rate: tuple[float, float]
    distortion: tuple[float, float]


def _points(directory: Directory, prefix: str) -> list[Point]:
    """Every setting with a distortion; without the runs that diverged."""
    points = []
    for setting in directory.settings:
        pairs = [(row.get(prefix + "rate", math.nan), row.get(prefix + "distortion", math.nan)) for row in setting.rows]
        pairs = [pair for pair in pairs if not math.isnan(pair[0]) and math.isfinite(pair[1])]
        if pairs:
            points.append(Point(setting, *(results.spread(values) for values in zip(*pairs, strict=True))))
    return points


def trade_off(directory: Directory):
    """The rate-distortion plane of either split, and the lines of equal ELBO."""
    splits = {"Training split": _points(directory, "train_"), "Test split": _points(directory, "")}
    every = [point for points in splits.values() for point in points]
    finite = [point for point in every if math.isfinite(point.rate[0])]
    if len({point.setting.label for point in finite}) < 2:
        return None
    # The view is that of the curve: what lies far from it would squash it, and is named at the edge.
    core = [point for point in finite if point.setting.name in TRADE] or finite
    right = max(max(point.rate[0] for point in core), 1e-3)
    distortions = [point.distortion[0] for point in core + [point for point in every if math.isinf(point.rate[0])]]
    pad = max(0.12 * np.ptp(distortions), 0.1 * right)  # distortion and rate are the same nats
    view = {"xlim": (-0.03 * right, 1.15 * right), "ylim": (min(distortions) - pad, max(distortions) + pad)}
    figure = _figure(12.0, 5.8, f"Rate and distortion of every setting{_seeds(directory)}", "constrained")
    axes = None
    for number, (title, points) in enumerate(splits.items()):
        axes = figure.add_subplot(1, 2, number + 1, sharex=axes, sharey=axes)
        axes.set(**view, xlabel="rate (nats per image)", ylabel="distortion (nats per image)" if number == 0 else "")
        axes.set_title(title, pad=10 + 13 * -(-len(_outside(axes, points)) // 2))
        _tidy(axes)
        _equal_elbo(axes, points)
        _curves(axes, directory, [point for point in points if math.isfinite(point.rate[0])])
        _edges(axes, points)
    if directory.field("model.likelihood") == "bernoulli" and directory.field("data.binarize") == "none":
        figure.supxlabel(
            "grey pixels under a Bernoulli decoder: distortions are up to a normaliser", fontsize=9, color="0.35"
        )
    return figure


def _seeds(directory: Directory) -> str:
    """What the errors are over, and how many runs are missing, for a title."""
    rows = [row for setting in directory.settings for row in setting.rows if "distortion" in row]
    seeds = {len(setting.rows) for setting in directory.settings if "seed" in setting.rows[0]}
    number = max(seeds) if len(seeds) == 1 else "the"
    text = f": mean and standard error over {number} seeds" if seeds and max(seeds) > 1 else ""
    diverged = sum(not math.isfinite(row["distortion"]) for row in rows)
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


def _curves(axes, directory: Directory, points: Sequence[Point]) -> None:
    """Points with errors; those of one family that differ in beta only are joined in its order, and named by it."""
    families: dict[tuple, list[Point]] = {}
    for point in points:
        family = "vae" if point.setting.name in TRADE else point.setting.name
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


def latents(directory: Directory):
    """Test error over the number of latents: PCA, a linear AE and a nonlinear one."""
    lines: dict[tuple, dict[int, Setting]] = {}
    for setting in directory.settings:
        others = [setting.rows[0].get(key) for key in directory.varying if key != "model.latents"]
        if isinstance(count := setting.rows[0].get("model.latents"), int):
            lines.setdefault((setting.name, *others), {})[count] = setting
    counts = sorted({count for line in lines.values() for count in line})
    if len(counts) < 2:
        return None
    figure = _figure(7.0, 5.0, "Error of the reconstructions over the number of latents", "constrained")
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="latents")
    firsts = [next(iter(line.values())) for line in lines.values()]
    for first, line in zip(firsts, lines.values(), strict=True):
        label = ", ".join(part for part in first.label.split(", ") if not part.startswith("latents "))
        color = _shade(first, firsts)
        mean, error = np.array([_spread(line[count], "mse") for count in sorted(line)]).T
        if "seed" not in first.rows[0]:  # a baseline: circles, because PCA's line is that of the linear AE
            axes.plot(sorted(line), mean, "o", color=color, label=label, markersize=9, fillstyle="none")
            continue
        style = {"marker": "o", "markersize": 4, "capsize": 2}
        axes.errorbar(sorted(line), mean, np.nan_to_num(error), color=color, label=label, **style)
        train = [_spread(line[count], "train_mse")[0] for count in sorted(line)]
        axes.plot(sorted(line), train, color=color, linestyle="--", linewidth=1, alpha=0.6)
    axes.set_xticks(counts, counts)
    axes.set_xticks([], minor=True)
    axes.set_ylabel("mean squared error per pixel, test split\n(dashed: training split)")
    _plain_log(axes)
    axes.legend(frameon=False)
    _tidy(axes)
    return figure


def _plain_log(axes) -> None:
    """Ticks as 0.03, and not as 3 x 10^-2."""
    low, high = axes.get_ylim()
    digits = "123456789" if high < 5 * low else "1235" if high < 100 * low else "1"
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")


def _spread(setting: Setting, column: str) -> tuple[float, float]:
    values = [row[column] for row in setting.rows if math.isfinite(row.get(column, math.nan))]
    return results.spread(values) if values else (math.nan, math.nan)


def posterior_std(directory: Directory):
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
    figure = _figure(8.5, 5.5, "The posterior's std during training", "constrained")
    axes = figure.add_subplot(xlabel="epoch", ylabel="std, mean over latents and training images", yscale="log")
    ends = []
    for setting, epochs, values in lines:
        color = _shade(setting, [line[0] for line in lines])
        mean = [float(np.mean(column)) for column in values]
        axes.plot(epochs, mean, color=color, linewidth=1.5, label=setting.label)
        axes.fill_between(epochs, list(map(min, values)), list(map(max, values)), color=color, alpha=0.2, linewidth=0)
        ends.append((float(epochs[-1]), mean[-1], setting.label, color))
    _tidy(axes)
    _plain_log(axes)
    _label_ends(axes, ends)
    return figure


def _shade(setting: Setting, among: Sequence[Setting]) -> str | tuple:
    """The setting's colour, from light to dark where several have its name."""
    from matplotlib.colors import to_rgb

    same = [other.label for other in among if other.name == setting.name]
    if len(same) == 1:
        return setting.color
    tone = np.array(to_rgb(setting.color))
    at = same.index(setting.label) / (len(same) - 1)  # 0: half way to white, 1: half way to black
    return tuple(tone + (1 - tone) * (0.5 - at) if at < 0.5 else tone * (1.5 - at))


def _label_ends(axes, ends: Sequence[tuple[float, float, str, str | tuple]]) -> None:
    """A label beside the end (x, y) of each line, on a log axis, moved apart where they would overlap."""
    ends = sorted(ends, key=lambda end: end[1])
    low, high = np.log(axes.get_ylim())
    places, gap = np.array([(math.log(y) - low) / (high - low) for _, y, _, _ in ends]), 0.042
    for _ in range(500):
        overlap = np.maximum(gap - np.diff(places), 0) / 2
        places[:-1] -= overlap
        places[1:] += overlap
        places = np.minimum(places, 1 - gap * np.arange(len(places))[::-1])
    axes.set_xlim(None, max(end[0] for end in ends))
    for place, (x, y, label, color) in zip(places, ends, strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        style = {"color": color, "fontsize": 9, "va": "center", "annotation_clip": False, "arrowprops": line}
        axes.annotate(label, (x, y), xytext=(1.04, place), textcoords="axes fraction", **style)


FIGURES: dict[str, Callable] = {
    "latent_plane": latent_plane,
    "latent_panels": latent_panels,
    "manifold": manifold,
    "samples": samples,
    "reconstructions": reconstructions,
    "traversals": traversals,
    "interpolations": interpolations,
    "trade_off": trade_off,
    "latents": latents,
    "posterior_std": posterior_std,
}
