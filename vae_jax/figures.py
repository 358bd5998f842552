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
}
OTHERS = ("#882255", "#999999", "#332288", "#999933", "#AA4499")  # names not above, in order of appearance
CLASSES = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888")  # Tol
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


class Directory:
    """A run directory as the figures see it: settings in the order of panels, and the arrays of one run of each.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        rows = results.read_csv(self.workdir / "results.csv")
        config = self.workdir / "config.json"
        self.config = results.read_json(config).get("config", {}) if config.exists() else {}
        metrics = self.workdir / "metrics.jsonl"
        self.metrics = results.read_jsonl(metrics) if metrics.exists() else []
        self.varying = results.varying_keys(rows)
        self.settings = sorted(_settings(rows, self.varying), key=self._rank)
        self._drawn: dict[int, tuple[results.Row, Arrays] | None] = {}

    def value(self, setting: Setting, key: str, default=None):
        """The config field `key` of a setting: from the grid's column, else from `config.json`."""
        if key in setting.rows[0]:
            return setting.rows[0][key]
        node = self.config
        for part in key.split("."):
            node = node.get(part) if isinstance(node, dict) else None
        return default if node is None else node

    def drawn(self, setting: Setting) -> tuple[results.Row, Arrays] | None:
        """The first run of a setting that has arrays and did not diverge: what its pictures show."""
        key = setting.rows[0]["run"]
        if key not in self._drawn:
            self._drawn[key] = next(filter(None, map(self._read, setting.rows)), None)
        return self._drawn[key]

    def having(self, key: str, images: bool = True) -> list[tuple[Setting, Arrays]]:
        """Settings whose arrays have `key`, as pictures where `images`."""
        found = [(setting, self.drawn(setting)) for setting in self.settings]
        return [
            (setting, drawn[1])
            for setting, drawn in found
            if drawn and key in drawn[1] and (not images or _is_image(drawn[1][key]))
        ]

    def panels(self, key: str) -> list[tuple[Setting, Arrays]]:
        """`having(key)`, but of each name at most three settings, spread over its range; `PANELS` in all."""
        chosen = []
        for members in _by_name(self.having(key)).values():
            chosen += [members[i] for i in sorted({0, len(members) // 2, len(members) - 1})]
        return sorted(chosen, key=lambda pair: self._rank(pair[0]))[:PANELS]

    def pair(self, key: str) -> list[tuple[Setting, Arrays]]:
        """What is shown side by side: `ae` and `vae`, or the names there are; the middle setting of each."""
        names = _by_name(self.having(key))
        return [names[name][len(names[name]) // 2] for name in sorted(names, key=lambda name: name not in ("ae", "vae"))][:2]

    def held_to_prior(self, setting: Setting) -> bool:
        return bool(self.value(setting, "objective.beta", setting.name not in ("ae", "vae_no_kl")))

    def _rank(self, setting: Setting) -> tuple:
        beta = self.value(setting, "objective.beta", 0) if setting.name in TRADE else 0
        name = "vae" if setting.name in TRADE else setting.name
        return ORDER.index(name) if name in ORDER else len(ORDER), beta

    def _read(self, row: results.Row) -> tuple[results.Row, Arrays] | None:
        path = results.arrays_path(self.workdir, row["run"])
        if not path.exists():
            return None
        arrays = results.read_arrays(path)
        finite = all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")
        return (row, arrays) if finite else None


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


def _by_name(pairs: Sequence[tuple[Setting, Arrays]]) -> dict[str, list[tuple[Setting, Arrays]]]:
    names: dict[str, list[tuple[Setting, Arrays]]] = {}
    for setting, arrays in pairs:
        names.setdefault(setting.name, []).append((setting, arrays))
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
        figure.savefig(part, format="png", dpi=150)
        os.replace(part, path)
        paths.append(path)
    return paths


def _figure(width: float, height: float, title: str):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    figure.suptitle(title, fontsize=12)
    return figure


def _grid(count: int, size: float, title: str, columns: int = 4):
    """A figure with `count` square axes of `size` inches, the last row not always full."""
    columns = min(count, columns)
    rows = -(-count // columns)
    figure = _figure(max(columns * size, 5), rows * (size + 0.25) + 0.4, title)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def _mosaic(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """[N, height, width, channels] -> one picture, row by row, with white gaps; pixels cut to [0, 1]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.ones((rows * (height + gap), columns * (width + gap), channels))
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


def _scatter(axes, codes: np.ndarray, labels: np.ndarray | None) -> None:
    """Codes coloured by class, each class's number at its median unless the medians lie on each other."""
    from matplotlib import patheffects

    style = {"s": float(np.clip(4000 / len(codes), 2, 12)), "linewidths": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(*codes.T, color=GREY, **style)
        return
    classes = np.unique(labels)
    for number, label in enumerate(classes):
        axes.scatter(*codes[labels == label].T, color=CLASSES[number % len(CLASSES)], **style)
    medians = np.array([np.median(codes[labels == label], axis=0) for label in classes])
    scaled = medians / np.maximum(np.ptp(codes, axis=0), 1e-9)
    distances = np.linalg.norm(scaled[:, None] - scaled, axis=-1) + 10 * np.eye(len(classes))
    if np.median(distances.min(axis=1)) < 0.03:
        return
    for number, (label, median) in enumerate(zip(classes, medians, strict=True)):
        stroke = [patheffects.withStroke(linewidth=3, foreground="white")]
        color = CLASSES[number % len(CLASSES)]
        text = axes.text(*median, str(label), color=color, weight="bold", ha="center", va="center", clip_on=True)
        text.set_path_effects(stroke)


def _class_legend(figure, labels: np.ndarray | None) -> None:
    from matplotlib.lines import Line2D

    if labels is None:
        return
    handles = [
        Line2D([], [], marker="o", linestyle="", color=CLASSES[number % len(CLASSES)], label=str(label))
        for number, label in enumerate(np.unique(labels))
    ]
    figure.legend(
        handles=handles, title="class", loc="outside lower center", ncols=10, frameon=False, handletextpad=0, columnspacing=1
    )


def _prior_circles(axes, color: str = GREY) -> None:
    """The prior's 1 and 2 sigma, without a say in the limits."""
    from matplotlib.patches import Circle

    for radius in (1, 2):
        axes.add_artist(Circle((0, 0), radius, fill=False, edgecolor=color, linewidth=1, linestyle="--"))


def latent_plane(directory: Directory):
    """Mean codes of the test images, and what the decoder makes of the box that they lie in."""
    if not (pairs := directory.pair("plane")):
        return None
    title = "Codes of the test images, and the decoder's output over the same box of the latent plane"
    figure = _figure(9.4, 4.5 * len(pairs) + 0.9, title)
    for number, (setting, arrays) in enumerate(pairs):
        left, right = (figure.add_subplot(len(pairs), 2, 2 * number + side) for side in (1, 2))
        box, side = arrays["plane_latents"], math.isqrt(len(arrays["plane"]))
        # The decoded points are the centres of the cells.
        half = np.maximum(np.ptp(box, axis=0), 1e-6) / (side - 1) / 2
        (x0, y0), (x1, y1) = box.min(axis=0) - half, box.max(axis=0) + half
        _scatter(left, arrays["codes_mean"], _classes(arrays))
        _show(right, _mosaic(arrays["plane"], side, gap=0), extent=(x0, x1, y0, y1), aspect="auto")
        left.set_title(f"{setting.label}: mean codes", color=setting.color)
        right.set_title(f"{setting.label}: decoded", color=setting.color)
        for axes in (left, right):
            axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="latent 1", ylabel="latent 2", box_aspect=1)
            axes.tick_params(bottom=True, left=True)
            axes.locator_params(nbins=6)
        right.xaxis.set_major_locator(left.xaxis.get_major_locator())
        right.yaxis.set_major_locator(left.yaxis.get_major_locator())
        if directory.held_to_prior(setting):
            _prior_circles(left)
            _prior_circles(right, "#F0E442")
            left.text(0.02, 0.02, "dashed: 1 and 2 sigma of the prior", color="0.35", fontsize=8, transform=left.transAxes)
    _class_legend(figure, _classes(pairs[0][1]))
    return figure
