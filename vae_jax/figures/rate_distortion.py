"""Rate against distortion: every setting on one plane, ways to steer the balance, priors side by side."""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from vae_jax.figures import over_beta, placement, settings, style
from vae_jax.figures.placement import Label
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Family, Role, Setting

SPLITS = {"train_": "training split", "": "test split"}  # by the prefix of their columns
NOTES = 4  # settings out of view that a plane names
NUMBERS = 6  # points of a curve whose value is written


@dataclasses.dataclass(frozen=True)
class Point:
    """A setting on one split: (mean, standard error) over seeds, in nats per image; an infinite rate has no error."""

    setting: Setting
    rate: tuple[float, float]
    distortion: tuple[float, float]

    @property
    def xy(self) -> tuple[float, float]:
        return self.rate[0], self.distortion[0]

    @property
    def is_finite(self) -> bool:
        return math.isfinite(self.rate[0])


def point_of(setting: Setting, prefix: str) -> Point | None:
    """The point of a setting, or None where the table has none."""
    rates = [row.get(f"{prefix}rate") for row in setting.rows]
    distortion = setting.mean(f"{prefix}distortion")
    if math.isnan(distortion[0]) or not any(isinstance(rate, int | float) and not math.isnan(rate) for rate in rates):
        return None
    rate = setting.mean(f"{prefix}rate")
    return Point(setting, rate if math.isfinite(rate[0]) else (math.inf, math.nan), distortion)


def trade_off(directory: Directory):
    """The rate-distortion plane of either split, with the lines of equal ELBO; a curve for each family of settings."""
    kinds = {directory.value(setting, "objective.kind", "weighted") for setting in directory.trained}
    curves = [family for family in directory.families if len(_points(family, "")) > 1]
    finite = [s for s in directory.trained if (point := point_of(s, "")) and point.is_finite]
    priors = {directory.value(setting, "model.prior", "normal") for setting in directory.trained}
    if len(kinds) > 1 or len(finite) < 2 or (len(priors) > 1 and not curves):
        return None  # a study of other things has its own figure
    return _planes(directory, "Rate and distortion of every setting")


def steering(directory: Directory):
    """The rate-distortion plane with a curve for each kind of objective; the weighted one is the line to beat."""
    kinds = {directory.value(setting, "objective.kind", "weighted") for setting in directory.trained}
    return _planes(directory, "Ways to choose the balance") if len(kinds) > 1 else None


def _planes(directory: Directory, title: str):
    """A row of planes for each unit of distortion, a column for each split."""
    groups: dict[str, list[Family]] = {}
    for family in directory.families:
        if _points(family, "") or _points(family, "train_"):
            groups.setdefault(_unit(directory, family), []).append(family)
    if not groups:
        return None
    # Evaluation may have left the training split out.
    splits = {p: name for p, name in SPLITS.items() if any(_points(family, p) for family in directory.families)}
    wide = style.WIDTH if len(splits) > 1 else 0.66 * style.WIDTH
    figure = style.new_figure(wide, 4.7 * len(groups) + 0.5, title + _seeds(directory))
    drawn = []
    for row, (unit, families) in enumerate(groups.items()):
        first = None
        view = _view(families)
        for column, (prefix, split) in enumerate(splits.items()):
            place = len(splits) * row + column + 1
            first = axes = figure.add_subplot(len(groups), len(splits), place, sharex=first, sharey=first)
            axes.set(**view)
            lower = "lower is better" if column == 0 else ""
            style.label_axes(
                axes, xlabel="rate (nats per image)", ylabel=f"distortion (nats per image), {lower}" if lower else ""
            )
            heading = f"{split}, {unit}" if len(groups) > 1 else split
            style.tidy(axes)
            drawn.append((axes, families, prefix, heading))
            _draw_points(axes, families, prefix, [f for f in families if over_beta.is_told_beta(directory, f)])
            _name_outside(axes, families, prefix, heading)
        _bar(figure, figure.axes[-len(splits) :], families)
    if any(unit == "Bernoulli" for unit in groups) and directory.field("data.binarize") in (None, "none"):
        note = "Bernoulli on pixels that are not bits: distortion is up to a normaliser, comparable within this study only"
        figure.supxlabel(note, fontsize=style.SMALL, color="0.35")
    style.settle(figure)
    for axes, families, prefix, _ in drawn:
        _label(axes, families, prefix, alone=len(directory.families) == 1)
    return figure


def _points(family: Family, prefix: str) -> list[Point]:
    return [point for setting in family.settings if (point := point_of(setting, prefix))]


def _unit(directory: Directory, family: Family) -> str:
    """What the family's distortion counts, and of which data."""
    setting = family.settings[0]
    unit = directory.unit(setting)
    data = [settings.told(key, value, [key]) for key, value in setting.values.items() if key.startswith("data.") and value]
    return style.plain(", ".join([unit, *data]))


def _seeds(directory: Directory) -> str:
    """What the errors are over, and how many runs are missing, for a title."""
    number = max((len(setting.rows) for setting in directory.trained), default=0)
    text = ", mean and standard error over seeds" if number > 1 else ""
    diverged = directory.diverged + sum(
        math.isnan(row["distortion"]) for setting in directory.trained for row in setting.rows if "distortion" in row
    )
    return text + (f", without {diverged} diverged run{'s' if diverged > 1 else ''}" if diverged else "")


def _view(families: Sequence[Family]) -> dict[str, tuple[float, float]]:
    """Limits that hold the curves of the weighted objective, as wide on both splits: what lies far out would squash them."""
    points = [point for family in families for prefix in SPLITS for point in _points(family, prefix)]
    finite = [point for point in points if point.is_finite]
    core = [point for point in finite if point.setting.role is Role.BOTH] or finite
    weighted = [p for p in core if p.setting.values.get("objective.kind", "weighted") == "weighted"] or core
    if not finite:
        distortions = [point.distortion[0] for point in points]
        pad = max(0.2 * np.ptp(distortions), 0.02 * abs(distortions[0]), 1e-3)
        return {"xlim": (-0.03, 1.0), "ylim": (min(distortions) - pad, max(distortions) + pad)}
    most = max(point.rate[0] for point in weighted)
    near = [point for point in core if point.rate[0] <= 1.35 * most]
    right = max(max(point.rate[0] for point in near), 1e-3)
    low, high = min(p.distortion[0] for p in near), max(p.distortion[0] for p in near)
    lines = [
        p.distortion[0] for p in points if not p.is_finite and abs(p.distortion[0] - low) < 1.5 * max(high - low, right)
    ]
    low, high = min([low, *lines]), max([high, *lines])
    # Bars are whole, unless one is longer than all that is seen.
    bars = [p.distortion[0] + sign * p.distortion[1] for p in near for sign in (-1, 1) if p.distortion[1] < high - low]
    low, high = min([low, *bars]), max([high, *bars])
    pad = max(0.14 * (high - low), 0.08 * right)  # distortion and rate are the same nats
    return {"xlim": (-0.05 * right, 1.2 * right), "ylim": (low - pad, high + pad)}


def _draw_points(axes, families: Sequence[Family], prefix: str, told: Sequence[Family] = ()) -> None:
    """Points with their errors, those of a family joined in the order of its axis; infinite rates as lines.

    Families of `told` are one network told a beta each: a line with its band over seeds, on which the others are points.
    """
    order = sorted(families, key=lambda family: family.role is not Role.BOTH)
    for number, family in enumerate(order):
        points = _points(family, prefix)
        finite = [point for point in points if point.is_finite]
        if family in told and len(finite) > 1:
            _draw_curve(axes, family, finite)
            continue
        if len(finite) > 1 and not told:
            axes.plot(*zip(*(point.xy for point in finite), strict=True), color=family.color, linewidth=1.2, zorder=2)
        mark = {
            "marker": "osD^vPX<"[number % 8],
            "markersize": 4.5 if len(finite) < 20 else 3,
            "capsize": 2,
            "linestyle": "",
        }
        for point in finite:
            errors = {"xerr": point.rate[1], "yerr": point.distortion[1]}
            errors = {key: error for key, error in errors.items() if error > 0}
            axes.errorbar(*point.xy, **errors, label=point.setting.label, color=family.color, zorder=3, **mark)
        for point in points:
            if not point.is_finite:
                line = {"linestyle": "--", "linewidth": 1.2, "zorder": 1.5, "label": point.setting.label}
                axes.axhline(point.distortion[0], color=family.color, **line)


def _draw_curve(axes, family: Family, points: Sequence[Point]) -> None:
    """A line through the points, and the standard error of their distortion over seeds as a band."""
    rate, distortion, error = np.array([(*point.xy, point.distortion[1]) for point in points]).T
    axes.plot(rate, distortion, color=family.color, linewidth=1.6, zorder=2, label=family.label)
    if np.isfinite(error).all():
        band = {"color": family.color, "alpha": 0.25, "linewidth": 0, "zorder": 1.5}
        axes.fill_between(rate, distortion - error, distortion + error, **band)


def _outside(axes, points: Sequence[Point]) -> list[Point]:
    """Points that lie out of view."""
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    return [p for p in points if not y0 <= p.distortion[0] <= y1 or (p.is_finite and not x0 <= p.rate[0] <= x1)]


def _name_outside(axes, families: Sequence[Family], prefix: str, heading: str) -> None:
    """The axes' title, and above it in words what lies out of view."""
    points = [point for family in families for point in _points(family, prefix)]
    outside = _outside(axes, points)
    lines = []
    for point in outside[: NOTES if len(outside) <= NOTES else NOTES - 1]:
        rate = f"{point.rate[0]:.1f}" if point.is_finite else "infinite"
        lines.append(
            (f"out of view: {point.setting.label}, rate {rate}, distortion {point.distortion[0]:.1f}", point.setting.color)
        )
    if len(outside) > NOTES:
        lines.append((f"and {len(outside) - NOTES + 1} more settings", "black"))
    for number, (text, color) in enumerate(reversed(lines)):
        place = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "left", "va": "bottom"}
        axes.annotate(text, (0, 1), xytext=(0, 4 + 11 * number), color=style.ink(color), fontsize=style.SMALL, **place)
    axes.set_title(heading, fontsize=style.TEXT + 1, pad=6 + 11 * len(lines))


def _bar(figure, axes: Sequence, families: Sequence[Family]) -> None:
    """Which colour is which family, where there are too many to label each."""
    if len(families) > style.LINES:
        style.color_bar(figure, list(axes), [family.color for family in families], [f.label for f in families], "")


def _label(axes, families: Sequence[Family], prefix: str, alone: bool) -> None:
    """One label for each curve, values at some of its points, and the names of the lines of equal ELBO."""
    x0, x1 = axes.get_xlim()
    labels, lines, markers = [], [], np.zeros((0, 2))
    for family in families:
        members = _points(family, prefix)
        outside = _outside(axes, members)
        seen = [point for point in members if point not in outside]
        finite = [point for point in seen if point.is_finite]
        if finite:
            lines.append(np.array([point.xy for point in finite]))
            markers = np.concatenate([markers, lines[-1]])
            lines += [bar for point in finite for bar in _error_bars(point)]
        for point in seen:
            if not point.is_finite:
                y = point.distortion[0]
                lines.append(np.array([(x0, y), (x1, y)]))
                labels.append(Label(x0 + 0.6 * (x1 - x0), y, f"{point.setting.label}: infinite rate", family.color))
        if finite and len(families) <= style.LINES:
            curves = [other for other in families if other is not family and len(_points(other, prefix)) > 1]
            others = np.array([p.xy for other in curves for p in _points(other, prefix) if p.is_finite]).reshape(-1, 2)
            labels += _family_labels(family, finite, others, alone=alone)
    placement.place(axes, _without_repeats(axes, labels), markers, lines)
    _equal_elbo(axes, markers, lines)


def _error_bars(point: Point) -> list[np.ndarray]:
    """The ends of a point's error bars."""
    (x, x_error), (y, y_error) = point.rate, point.distortion
    bars = [((x - x_error, y), (x + x_error, y)), ((x, y - y_error), (x, y + y_error))]
    return [np.array(bar) for bar in bars if np.isfinite(bar).all()]


def _without_repeats(axes, labels: Sequence[Label]) -> list[Label]:
    """The labels without those that say the same at nearly the same place."""
    kept: list[Label] = []
    for label in labels:
        here = axes.transLimits.transform((label.x, label.y))
        same = [axes.transLimits.transform((other.x, other.y)) for other in kept if other.text == label.text]
        if label.needed or not any(math.dist(here, there) < 0.05 for there in same):
            kept.append(label)
    return kept


def _family_labels(family: Family, finite: Sequence[Point], others: np.ndarray, alone: bool) -> list[Label]:
    """The family's label at the point farthest from other families, and values of its axis at some points."""
    labels = []
    if len(finite) == 1:
        return [Label(*finite[0].xy, family.label if not family.axis else finite[0].setting.label, family.color)]
    if not alone:
        far = max(finite, key=lambda point: _clearance(point.xy, others))
        labels.append(Label(*far.xy, family.label, family.color, bold=True))
    if family.axis:
        count = NUMBERS if len(others) == 0 or alone else 2
        places = _along(np.array([point.xy for point in finite]), count)
        named = [place for place, point in enumerate(finite) if _own_name(point, family)]
        for place in sorted({*places, *(named if len(named) <= 2 else [])}):
            point = finite[place]
            value = point.setting.values[family.axis]
            text = f"{value:g}" if settings.is_number(value) else str(value)
            if place in (places[0], places[-1]):  # the ends say what the numbers are
                text = f"{family.axis.rpartition('.')[2]} {text}"
            text += f" ({point.setting.label})" if place in named else ""
            labels.append(Label(*point.xy, text, family.color, needed=False, size=style.SMALL))
    return labels


def _along(line: np.ndarray, count: int) -> list[int]:
    """Which points of a line to name: the ends, and those nearest to even steps along it."""
    steps = np.linalg.norm(np.diff(line, axis=0) / np.maximum(np.ptp(line, axis=0), 1e-9), axis=1)
    length = np.concatenate([[0], np.cumsum(steps)])
    wanted = np.linspace(0, length[-1], min(count, len(line)))
    return sorted({int(np.argmin(np.abs(length - at))) for at in wanted} | {0, len(line) - 1})


def _own_name(point: Point, family: Family) -> bool:
    """Whether a setting has a name of its own within its family, as `vae` has among beta-VAEs."""
    return point.setting.label == point.setting.name != family.label


def _clearance(xy: tuple[float, float], others: np.ndarray) -> float:
    return float(np.linalg.norm(others - np.array(xy), axis=1).min(initial=math.inf))


def _equal_elbo(axes, markers: np.ndarray, lines: Sequence[np.ndarray]) -> None:
    """Faint lines of distortion + rate = const, named where nothing is in the way."""
    from matplotlib.ticker import MaxNLocator

    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    renderer, window = placement.renderer_of(axes.figure), axes.get_window_extent()
    taken = [placement.box_of(text, renderer) for text in axes.texts]
    busy = np.concatenate([axes.transData.transform(markers), placement.samples(axes, lines)])
    look = {"color": "0.5", "fontsize": style.SMALL, "ha": "center", "va": "center", "zorder": 0.5}
    look |= {"rotation": -45, "rotation_mode": "anchor", "transform_rotates_text": True}
    look |= {"bbox": {"facecolor": "white", "edgecolor": "none", "pad": 0.5}}
    for level in MaxNLocator(10, steps=[1, 2, 5, 10]).tick_values(y0, y1 + x1):
        axes.plot([x0, x1], [level - x0, level - x1], color="0.88", linewidth=0.8, zorder=0)
        for share in (0.93, 0.85, 0.77, 0.07, 0.15, 0.6, 0.45, 0.3):
            x = x0 + share * (x1 - x0)
            text = axes.text(x, level - x, f"ELBO {0 - level:g}".replace("-", "\u2212"), **look)
            box = placement.box_of(text, renderer)
            inside = window.x0 <= box[0] and box[2] <= window.x1 and window.y0 <= box[1] and box[3] <= window.y1
            if (
                inside
                and not any(placement.overlap(box, other, 2) for other in taken)
                and not placement.inside(box, busy, 3)
            ):
                taken.append(box)
                break
            text.remove()


# What tells one prior from another: column, what it is called, which direction is better.
PRIOR_COLUMNS = (
    ("importance_bound", "importance bound\n(nats per image; higher is better)"),
    ("elbo", "ELBO\n(nats per image; higher is better)"),
    ("rate", "rate\n(nats per image)"),
    ("aggregate_kl", "KL(q(z) || p(z))\n(nats; lower is better)"),
    ("frechet_prior", "Frechet distance of samples\n(pixels; lower is better)"),
)


def _of_several_priors(able: Sequence[Setting]) -> list[Setting]:
    """The settings beside which there is one of another prior, all texts (a likelihood, a data set) being equal."""
    others = [key for key in able[0].values if key != "model.prior"]
    texts = [key for key in others if not all(settings.is_number(setting.values[key]) for setting in able)]
    alike = settings.groups_of(able, lambda setting: tuple(setting.values[key] for key in texts)).values()
    return [s for members in alike if len({m.values.get("model.prior") for m in members}) > 1 for s in members]


def priors(directory: Directory):
    """What each prior is worth: a panel for each measure, a row for each setting, a point for each seed and their mean."""
    from matplotlib.ticker import MaxNLocator

    able = [s for s in directory.trained if directory.value(s, "model.prior") and "elbo" in s.rows[0]]
    if len({directory.value(setting, "model.prior") for setting in able}) < 2:
        return None
    choice = settings.comparison(_of_several_priors(able), 3 * style.LINES)
    shown = choice.settings
    if len(shown) < 2:
        return None
    columns = [(column, label) for column, label in PRIOR_COLUMNS if all(math.isfinite(s.mean(column)[0]) for s in shown)]
    columns = columns[:1] + [pair for pair in columns[1:] if pair[0] != "elbo"][:3]
    title = "Priors, test split: every run (grey), mean and standard error over seeds"
    title += f" ({choice.note})" if choice.note else ""
    figure = style.new_figure(style.WIDTH, 0.36 * len(shown) + 1.9, title)
    rows = np.arange(len(shown))[::-1]
    for number, (column, label) in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), number + 1)
        style.label_axes(axes, xlabel=label)
        for row, setting in zip(rows, shown, strict=True):
            values = [run[column] for run in setting.rows if math.isfinite(run.get(column, math.nan))]
            mean, error = setting.mean(column)
            axes.plot(values, [row] * len(values), ".", color="0.7", zorder=1)
            axes.errorbar(mean, row, xerr=np.nan_to_num(error), color=setting.color, marker="o", capsize=3, zorder=2)
        axes.set_yticks(rows, [setting.label for setting in shown] if number == 0 else [""] * len(shown))
        axes.set_ylim(-0.6, len(shown) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.grid(axis="y", color="0.92")
        axes.set_axisbelow(True)
        style.tidy(axes)
    return figure
