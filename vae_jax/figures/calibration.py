"""Figures of decoders that give intervals: what they say of each pixel, and whether it holds."""

from collections.abc import Sequence

import numpy as np

from vae_jax.figures import style
from vae_jax.figures.images import unlike
from vae_jax.figures.run_directory import Directory, Panel
from vae_jax.figures.settings import Setting

ROWS = 6  # settings of one figure of intervals
IMAGES = 6  # test images in a strip
PANELS = 8  # of the reliability figure


def intervals(directory: Directory):
    """Mean, sigma and 3-sigma interval of every pixel of a few test images, and all pixels of the first in order."""
    if not (shown := directory.panels("predictive_low", ROWS)):
        return None
    title = "What decoders say of each pixel: mean, sigma and the central 99.73 % interval, z drawn from the posterior"
    figure = style.new_figure(style.WIDTH, 2.35 * len(shown.panels) + 0.9, shown.titled(title))
    places = figure.add_gridspec(len(shown.panels), 2, width_ratios=(2, 3))
    arrays = shown.panels[0].arrays
    count = min(len(arrays["predictive_mean"]), len(arrays["images"]))
    chosen = unlike(arrays["images"][:count], arrays.get("labels"), IMAGES)
    # One scale for all, so that a brighter picture is a larger sigma; a few pixels may be beyond it.
    white = float(np.percentile([panel.arrays["predictive_sigma"][chosen] for panel in shown.panels], 99))
    for number, panel in enumerate(shown.panels):
        left, right = (figure.add_subplot(places[number, side]) for side in (0, 1))
        _strips(left, panel, chosen, max(white, 1e-9))
        _profile(right, panel, int(chosen[0]), number == len(shown.panels) - 1)
    handles, labels = figure.axes[1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False, fontsize=style.TEXT)
    return figure


def _strips(axes, panel: Panel, chosen: np.ndarray, white: float) -> None:
    arrays = panel.arrays
    rows = {
        "data": arrays["images"],
        "mean": arrays["predictive_mean"],
        f"sigma (white: {white:.2g} or more)": arrays["predictive_sigma"] / white,
        "low": arrays["predictive_low"],
        "high": arrays["predictive_high"],
    }
    picture = style.mosaic(np.concatenate([pictures[chosen] for pictures in rows.values()]), len(chosen))
    style.show(axes, picture)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * len(picture) / len(rows), list(rows))
    axes.tick_params(length=0, labelsize=style.TEXT)
    style.label_axes(axes, style.wrapped(panel.setting.label, 3.2), panel.setting.color)
    axes.tick_params(labelsize=style.TEXT)


def _profile(axes, panel: Panel, image: int, last: bool) -> None:
    """The pixels of one image by their mean: band, mean, and the data, in red where it is outside."""
    arrays, color = panel.arrays, panel.setting.color
    names = ("predictive_mean", "predictive_low", "predictive_high", "images")
    mean, low, high, x = (arrays[name][image].ravel() for name in names)
    order, place = np.argsort(mean, kind="stable"), np.arange(len(mean))
    axes.fill_between(place, low[order], high[order], color=color, alpha=0.25, linewidth=0, label="99.73 % interval")
    axes.plot(place, mean[order], color=color, linewidth=1.5, label="mean")
    outside = ((x < low) | (x > high))[order]
    size = float(np.clip(600 / len(x), 1, 5))
    axes.plot(place[~outside], x[order][~outside], "o", color="black", markersize=size, label="data")
    axes.plot(place[outside], x[order][outside], "X", color="red", markersize=size + 1, label="data outside the interval")
    parts = {"this interval": "predictive_coverage_3sigma", "z drawn once": "coverage_3sigma"}
    parts |= {"mean code": "mean_code_coverage_3sigma"}
    measured = ", ".join(f"{name} {100 * panel.row[column]:.2f} %" for name, column in parts.items() if column in panel.row)
    measured = measured.replace(", z drawn", ",\nz drawn")
    xlabel = "pixels of the first image shown, by their mean" if last else ""
    style.label_axes(axes, f"measured coverage: {measured}" if measured else "", xlabel=xlabel, ylabel="value")
    axes.title.set_size(style.TEXT)
    style.tidy(axes)


def reliability(directory: Directory):
    """Measured against nominal coverage of central intervals, with errors over images, and the PIT histogram."""
    able = [setting for setting in directory.trained if directory.array_of_runs(setting, "coverage")]
    groups = _panels(directory, able)
    if not groups:
        return None
    note = f" ({PANELS} of {len(groups)} groups of settings)" if len(groups) > PANELS else ""
    groups = groups[:PANELS]
    title = f"Do the intervals hold? z drawn from the posterior, test split (bars: standard error over images){note}"
    columns = min(len(groups), 4)
    blocks = -(-len(groups) // columns)
    alone = len(groups) == 1  # its two panels stand side by side
    figure = style.new_figure(*((8.0, 4.6) if alone else (max(2.5 * columns, 6.0), 5.4 * blocks + 0.6)), title)
    for number, (label, members) in enumerate(groups):
        row, column = divmod(number, columns)
        places = (2 * row * columns + column + 1, (2 * row + 1) * columns + column + 1)
        shape = (1, 2) if alone else (2 * blocks, columns)
        above, below = (figure.add_subplot(*shape, place) for place in places)
        _reliability_panel(directory, above, below, members, column == 0)
        style.label_axes(above, style.wrapped(label, 2.4), members[0].color)
    _reliability_keys(figure, directory, groups)
    return figure


def _panels(directory: Directory, able: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """What shares a panel: a family of settings each; where all are alone in theirs, all together, at most eight."""
    families = [(family, [s for s in family.settings if s in able]) for family in directory.families]
    families = [(family, members) for family, members in families if members]
    if all(len(members) == 1 for _, members in families):
        single = [members[0] for _, members in families]
        return [("", single[at : at + style.LINES]) for at in range(0, len(single), style.LINES)]
    return [(family.label if len(families) > 1 else "", members) for family, members in families]


def _reliability_panel(directory: Directory, above, below, members: Sequence[Setting], first: bool) -> None:
    above.plot([0, 1], [0, 1], color=style.GREY, linewidth=1, linestyle="--")
    below.axhline(1, color=style.GREY, linewidth=1, linestyle="--")
    for setting, color in zip(members, style.line_colors(members), strict=True):
        panel = directory.panels("coverage", 1, [setting], pictures=False).panels[0]
        arrays = panel.arrays
        look = {"color": color, "linewidth": 1.3, "markersize": 3, "marker": "o"}
        above.errorbar(arrays["coverage_levels"], arrays["coverage"], arrays["coverage_se"], label=setting.label, **look)
        density = arrays["pit_histogram"] * len(arrays["pit_histogram"])
        below.stairs(density, np.linspace(0, 1, len(density) + 1), baseline=None, color=color, linewidth=1.3)
    style.label_axes(above, xlabel="nominal coverage", ylabel="measured coverage" if first else "")
    style.label_axes(below, xlabel="PIT (1: flat is calibrated)", ylabel="density" if first else "")
    above.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), box_aspect=1)
    below.set(xlim=(0, 1), ylim=(0, None), box_aspect=1)
    for axes in (above, below):
        style.tidy(axes)


def _reliability_keys(figure, directory: Directory, groups: Sequence[tuple[str, list[Setting]]]) -> None:
    """What the colours are: once below the figure, where all panels have the same values; else in each panel."""
    from matplotlib.lines import Line2D

    texts = [[_value(directory, setting, members) for setting in members] for _, members in groups]
    if max(len(members) for _, members in groups) > style.LINES:
        longest = max(range(len(groups)), key=lambda number: len(texts[number]))
        members = groups[longest][1]
        name = directory.family(members[0]).axis.rpartition(".")[2]
        style.color_bar(figure, figure.axes, style.line_colors(members), texts[longest], name)
        return
    look = {"frameon": False, "fontsize": style.SMALL}
    if len(groups) > 1 and all(text == texts[0] for text in texts) and len({m[0].color for _, m in groups}) > 0:
        members = groups[0][1]
        axis = directory.family(members[0]).axis.rpartition(".")[2]
        handles = [
            Line2D([], [], color=color, marker="o", markersize=3, label=f"{axis} {text}".strip())
            for color, text in zip(style.line_colors(members), texts[0], strict=True)
        ]
        if len(handles) > 1:
            figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 6), **look)
        return
    for axes in figure.axes[::2]:
        axes.legend(loc="upper left", **look)


def _value(directory: Directory, setting: Setting, members: Sequence[Setting]) -> str:
    """What tells a setting from the others of its panel."""
    axis = directory.family(setting).axis
    if not axis or len(members) == 1:
        return setting.label
    value = directory.value(setting, axis)
    return f"{value:g}" if isinstance(value, int | float) else str(value)
