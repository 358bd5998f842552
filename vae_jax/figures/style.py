"""What every figure is drawn with: the colours, the run directory as figures see it, and axes.

Matplotlib is imported inside the functions, and without pyplot: importing this file costs nothing, and drawing works in
any thread.
"""

import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from vae_jax.core import errors
from vae_jax.storage import run_directory, tables

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
OTHERS = (
    "#882255",
    "#332288",
    "#999933",
    "#AA4499",
    "#6699CC",
    "#661100",
    "#44AA99",
)  # names not above, in order of appearance
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
    rows: list[tables.Row]


class Drawn(NamedTuple):
    """A setting with the one run of it that pictures show."""

    setting: Setting
    arrays: Arrays
    row: tables.Row


class Directory:
    """A run directory as the figures see it: settings in the order of panels, and the arrays of one run of each.

    Without the runs that diverged, which are only counted.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """

    def __init__(self, workdir: str | os.PathLike):
        self.workdir = pathlib.Path(workdir)
        every = tables.read_csv(self.workdir / "results.csv")
        rows = [row for row in every if "diverged" not in row]
        self.diverged = len(every) - len(rows)
        self.config = run_directory.read_config(self.workdir) if (self.workdir / "config.json").exists() else {}
        self._check_settings(rows)
        self.metrics = run_directory.read_metrics(self.workdir)
        self.varying = tables.varying_keys(rows)
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
        node: Any = self.config
        for part in ("config", *key.split(".")):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def _check_settings(self, rows: Sequence[tables.Row]) -> None:
        """A column of the grid is of numbers where the config's field is one."""
        for row, key in itertools.product(rows, tables.grid_keys(rows)):
            if isinstance(self.field(key), int | float) and isinstance(row.get(key, 0), str):
                raise errors.UserError(f"{self.workdir / 'results.csv'}: {key}={row[key]}: should be a number")

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

    def panels(self, key: str, images: bool = True) -> list[Drawn]:
        """`having(key)`, but of each name at most three settings, spread over its range; at most `PANELS` in all."""
        names = by_name(self.having(key, images)).values()
        for count in (3, 2, 1):
            chosen = [m[i] for m in names for i in sorted({round(at) for at in np.linspace(0, len(m) - 1, count)})]
            if len(chosen) <= PANELS:
                break
        return sorted(chosen, key=lambda drawn: self._rank(drawn.setting))[:PANELS]

    def pair(self, key: str) -> list[Drawn]:
        """What is shown side by side: `ae` and `vae`, or the names there are; the middle setting of each."""
        names = by_name(self.having(key))
        return [names[name][len(names[name]) // 2] for name in sorted(names, key=lambda name: name not in ("ae", "vae"))][:2]

    def held_to_prior(self, drawn: Drawn) -> bool:
        """Whether the objective pulls the codes to the prior, as evaluation wrote; of a directory without that, by beta."""
        by_beta = self.value(drawn.setting, "objective.beta", drawn.setting.name not in ("ae", "vae_no_kl"))
        return bool(drawn.arrays.get("held_to_prior", by_beta))

    def within_normal(self, drawn: Drawn) -> bool:
        """Whether N(0, I) is what the codes are pulled to."""
        return self.held_to_prior(drawn) and self.has_normal_prior(drawn.setting)

    def has_normal_prior(self, setting: Setting) -> bool:
        """Whether p(z) is N(0, I)."""
        return self.value(setting, "model.prior", "normal") == "normal"

    def _rank(self, setting: Setting) -> tuple:
        beta = self.value(setting, "objective.beta", 0) if setting.name in TRADE else 0
        name = "vae" if setting.name in TRADE else setting.name
        return ORDER.index(name) if name in ORDER else len(ORDER), beta

    def _read(self, setting: Setting, row: tables.Row) -> Drawn | None:
        """A run that has arrays and did not diverge, or None."""
        if not (path := run_directory.arrays_path(self.workdir, row["run"])).exists():
            return None
        arrays = run_directory.read_arrays(path)
        # The rate of a deterministic code is infinite, and that is no divergence.
        finite = all(np.isfinite(arrays[key]).all() for key in arrays if arrays[key].dtype.kind == "f" and "rate" not in key)
        return Drawn(setting, arrays, row) if finite else None


def _settings(rows: Sequence[tables.Row], varying: Sequence[str]) -> list[Setting]:
    unknown = [name for name in dict.fromkeys(row["name"] for row in rows) if name not in COLORS]
    colors = COLORS | {name: OTHERS[i % len(OTHERS)] for i, name in enumerate(unknown)}
    settings = []
    for (name, *values), members in tables.grouped(rows, ["name", *varying]).items():
        family = [row for row in rows if row["name"] == name]
        told = [
            f"{key.rpartition('.')[2]} {value:g}" if isinstance(value, float) else f"{key.rpartition('.')[2]} {value}"
            for key, value in zip(varying, values, strict=True)
            if len({row.get(key) for row in family}) > 1
        ]
        settings.append(Setting(name, ", ".join([str(name), *told]), colors[name], members))
    return settings


def by_name(drawn: Sequence[Drawn]) -> dict[str, list[Drawn]]:
    names: dict[str, list[Drawn]] = {}
    for each in drawn:
        names.setdefault(each.setting.name, []).append(each)
    return names


def _is_image(array: np.ndarray) -> bool:
    """[N, height, width, channels] of grey or RGB pixels, and not vectors."""
    return array.ndim == 4 and array.shape[-1] in (1, 3)


def new_figure(width: float, height: float, title: str, layout: Literal["compressed", "constrained"] = "compressed"):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout=layout)
    figure.suptitle(title, fontsize=12)
    return figure


def grid(count: int, size: float, title: str, columns: int = 4):
    """A figure with `count` square axes of `size` inches, the last row not always full."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size *= 1.4 if count == 1 else 1
    figure = new_figure(max(columns * size, 6.5), rows * (size + 0.7) + 0.5, title)
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def mosaic(images: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """[N, height, width, channels] -> one picture, row by row, with black gaps; pixels cut to [0, 1]."""
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap), columns * (width + gap), channels))
    for number, image in enumerate(images):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        canvas[top : top + height, left : left + width] = np.clip(image, 0, 1)
    return canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]


def show(axes, picture: np.ndarray, **options) -> None:
    """A picture without ticks; grey where it has one channel."""
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if len(picture) < 600 else "auto", **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def plain_log(axes) -> None:
    """Ticks as 0.03, and not as 3 x 10^-2."""
    low, high = axes.get_ylim()
    digits = "123456789" if high < 5 * low else "1235" if high < 100 * low else "1"
    for formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")


def column_spread(setting: Setting, column: str) -> tuple[float, float]:
    values = [row[column] for row in setting.rows if math.isfinite(row.get(column, math.nan))]
    return tables.mean_and_stderr(values) if values else (math.nan, math.nan)


def shade(setting: Setting, among: Sequence[Setting]) -> str | tuple:
    """The setting's colour, from light to dark where several have its name."""
    from matplotlib.colors import to_rgb

    same = [other.label for other in among if other.name == setting.name]
    if len(same) == 1:
        return setting.color
    tone = np.array(to_rgb(setting.color))
    at = same.index(setting.label) / (len(same) - 1)  # 0: half way to white, 1: half way to black
    return tuple(tone + (1 - tone) * (0.5 - at) if at < 0.5 else tone * (1.5 - at))


def label_ends(axes, ends: Sequence[tuple[float, float, str, str | tuple]]) -> None:
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
