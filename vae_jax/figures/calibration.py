"""Figures of decoders that give intervals: what they say of each pixel, and whether it holds.

Each takes a `Directory` and returns a matplotlib Figure, or None where no run has intervals.
"""

import numpy as np

from vae_jax.figures import style as plotting

ROWS = 4  # settings of one figure of intervals
COLUMNS = 6  # panels of the reliability figure
IMAGES = 8  # test images in a strip


def intervals(directory: plotting.Directory):
    """Mean, sigma and 3-sigma interval of every pixel of a few test images, and all pixels of the first in order."""
    if not (chosen := _middle(directory.having("predictive_low"), ROWS)):
        return None
    title = "What decoders say of each pixel: mean, sigma and the central 99.73 % interval, z drawn from the posterior"
    figure = plotting.new_figure(12.0, 2.9 * len(chosen) + 0.6, title, "constrained")
    places = figure.add_gridspec(len(chosen), 2, width_ratios=(2, 3))
    for number, drawn in enumerate(chosen):
        left, right = (figure.add_subplot(places[number, side]) for side in (0, 1))
        _strips(left, drawn)
        _profile(right, drawn)
    figure.axes[1].legend(frameon=False, loc="upper left", fontsize=9)
    return figure


def _middle(drawn: list[plotting.Drawn], most: int) -> list[plotting.Drawn]:
    """Of each name the middle setting."""
    return [settings[len(settings) // 2] for settings in plotting.by_name(drawn).values()][:most]


def _strips(axes, drawn: plotting.Drawn) -> None:
    setting, arrays, _ = drawn
    sigma = arrays["predictive_sigma"][:IMAGES]
    rows = {
        "data": arrays["images"],
        "mean": arrays["predictive_mean"],
        f"sigma\n(white: {sigma.max():.2f})": sigma / max(sigma.max(), 1e-9),
        "low": arrays["predictive_low"],
        "high": arrays["predictive_high"],
    }
    picture = plotting.mosaic(np.concatenate([images[:IMAGES] for images in rows.values()]), len(sigma))
    plotting.show(axes, picture)
    axes.set_yticks((np.arange(len(rows)) + 0.5) * len(picture) / len(rows), list(rows), fontsize=9)
    axes.tick_params(length=0)
    axes.set_title(setting.label, color=setting.color, fontsize=11)


def _profile(axes, drawn: plotting.Drawn) -> None:
    """The pixels of the first image by their mean: band, mean, and the data, in red where it is outside."""
    setting, arrays, row = drawn
    mean, low, high, x = (
        arrays[name][0].ravel() for name in ("predictive_mean", "predictive_low", "predictive_high", "images")
    )
    order, place = np.argsort(mean, kind="stable"), np.arange(len(mean))
    axes.fill_between(place, low[order], high[order], color=setting.color, alpha=0.25, linewidth=0, label="99.73 % interval")
    axes.plot(place, mean[order], color=setting.color, linewidth=1.5, label="mean")
    outside = ((x < low) | (x > high))[order]
    size = float(np.clip(600 / len(x), 1, 5))
    axes.plot(place[~outside], x[order][~outside], "o", color="black", markersize=size, label="data")
    axes.plot(place[outside], x[order][outside], "o", color="red", markersize=size, label="data outside")
    parts = {"this interval": "predictive_coverage_3sigma", "z drawn once": "coverage_3sigma"}
    parts |= {"mean code": "mean_code_coverage_3sigma"}
    measured = ", ".join(f"{name} {100 * row[column]:.2f} %" for name, column in parts.items() if column in row)
    axes.set_title(f"measured coverage, test split: {measured}", fontsize=9)
    axes.set(xlabel="pixels of the first image, by their mean", ylabel="value")
    plotting.tidy(axes)


def reliability(directory: plotting.Directory):
    """Measured against nominal coverage of central intervals, with errors over images, and the PIT histogram."""
    names = plotting.by_name(directory.having("coverage", images=False))
    columns = dict(list(names.items())[:COLUMNS])
    if not columns:
        return None
    title = "Do the intervals hold? z drawn from the posterior, test split (bars: standard error over images)"
    figure, above = plotting.new_figure(max(2.1 * len(columns), 7.0), 5.6, title, "constrained"), None
    for number, (name, settings) in enumerate(columns.items()):
        above = figure.add_subplot(2, len(columns), number + 1, sharex=above, sharey=above)
        below = figure.add_subplot(2, len(columns), number + 1 + len(columns))
        above.plot([0, 1], [0, 1], color=plotting.GREY, linewidth=1, linestyle="--")
        below.axhline(1, color=plotting.GREY, linewidth=1, linestyle="--")
        for setting, arrays, _ in settings:
            color = plotting.shade(setting, [other.setting for other in settings])
            label = setting.label.removeprefix(f"{name}, ")
            style = {"color": color, "linewidth": 1.3, "markersize": 3, "marker": "o"}
            above.errorbar(arrays["coverage_levels"], arrays["coverage"], arrays["coverage_se"], label=label, **style)
            density = arrays["pit_histogram"] * len(arrays["pit_histogram"])
            below.stairs(density, np.linspace(0, 1, len(density) + 1), color=color, linewidth=1.3)
        above.set_title(name, color=settings[0].setting.color)
        above.set(xlabel="nominal coverage", ylabel="measured coverage" if number == 0 else "", box_aspect=1)
        below.set(xlabel="PIT", ylabel="density" if number == 0 else "", box_aspect=1)
        above.legend(frameon=False, fontsize=7, loc="upper left")
        for axes in (above, below):
            plotting.tidy(axes)
    return figure
