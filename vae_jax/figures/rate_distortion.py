"""Figures that compare methods: ways to steer the balance on the rate-distortion plane, priors side by side."""

import math
from collections.abc import Sequence

import numpy as np

from vae_jax.figures import style as plotting
from vae_jax.storage import tables


def steering(directory: plotting.Directory):
    """The rate-distortion plane with a curve for each method; the betas of the weighted objective are the line to beat."""
    names: dict[str, list[plotting.Setting]] = {}
    for setting in directory.settings:
        if all(math.isfinite(row.get("rate", math.nan)) for row in setting.rows):
            names.setdefault(setting.name, []).append(setting)
    kinds = {directory.value(setting, "objective.kind", "weighted") for setting in directory.settings}
    if len(kinds) < 2:
        return None
    figure = plotting.new_figure(12.0, 5.8, "Ways to choose the balance: mean and standard error over seeds", "constrained")
    axes = None
    for number, (prefix, title) in enumerate({"train_": "Training split", "": "Test split"}.items()):
        axes = figure.add_subplot(1, 2, number + 1, sharex=axes, sharey=axes)
        axes.set(xlabel="rate (nats per image)", ylabel="distortion (nats per image)" if number == 0 else "")
        for place, (name, settings) in enumerate(names.items()):
            spreads = [[plotting.column_spread(s, prefix + column) for column in ("rate", "distortion")] for s in settings]
            (x, x_error), (y, y_error) = (np.array(column).T for column in zip(*sorted(spreads), strict=True))
            base = name in plotting.TRADE
            style: dict = {"color": settings[0].color, "zorder": 3 if base else 2, "capsize": 2}
            style |= {"linewidth": 2.5 if base else 1.2, "marker": "." if base else "os^Dv<>"[place % 7], "markersize": 5}
            axes.errorbar(x, y, np.nan_to_num(y_error), np.nan_to_num(x_error), label=name, **style)
        axes.set_xlim(*_view(directory, names, axes))
        plotting.tidy(axes)
        _name_beyond(axes, [setting for settings in names.values() for setting in settings], prefix, title)
    figure.axes[0].legend(frameon=False)
    return figure


def _view(directory: plotting.Directory, names: dict, axes) -> tuple[float, float]:
    """The rates that the betas reach, and a little more: what lies far from them would squash them."""
    weighted = [setting for name, settings in names.items() for setting in settings if name in plotting.TRADE]
    rates = [plotting.column_spread(setting, "train_rate")[0] for setting in weighted]
    low, high = axes.get_xlim()
    return (-0.04 * max(rates), min(high, 1.3 * max(rates))) if rates else (low, high)


def _name_beyond(axes, settings: Sequence[plotting.Setting], prefix: str, title: str) -> None:
    """What lies beyond the view in words, between the axes and their title."""
    rates = [plotting.column_spread(setting, prefix + "rate")[0] for setting in settings]
    beyond = [(setting, rate) for setting, rate in zip(settings, rates, strict=True) if rate > axes.get_xlim()[1]]
    for place, (setting, rate) in enumerate(reversed(beyond)):
        distortion, _ = plotting.column_spread(setting, prefix + "distortion")
        text = f"{setting.label}: rate {rate:.1f}, distortion {distortion:.1f} \u2192"
        style = {"xycoords": "axes fraction", "textcoords": "offset points", "ha": "right", "fontsize": 9}
        axes.annotate(text, (1, 1), xytext=(0, 6 + 13 * place), color=setting.color, **style)
    axes.set_title(title, pad=8 + 13 * len(beyond))


# What tells one prior from another: column, and what it is called.
PRIOR_COLUMNS = (
    ("importance_bound", "importance bound (nats per image)"),
    ("rate", "rate (nats per image)"),
    ("aggregate_kl", "KL(q(z) || p(z)) (nats)"),
    ("frechet_prior", "Frechet distance of samples (pixels)"),
)


def priors(directory: plotting.Directory):
    """What each prior is worth: a panel for each measure, a row for each prior, a point for each seed and their mean."""
    from matplotlib.ticker import MaxNLocator

    settings = [s for s in directory.settings if directory.value(s, "model.prior") and "importance_bound" in s.rows[0]]
    if len({directory.value(setting, "model.prior") for setting in settings}) < 2:
        return None
    columns = [(column, label) for column, label in PRIOR_COLUMNS if all(column in s.rows[0] for s in settings)]
    title = "Priors, test split: every run, and mean and standard error over seeds"
    figure = plotting.new_figure(3.2 * len(columns), 0.5 * len(settings) + 1.8, title, "constrained")
    rows = np.arange(len(settings))[::-1]
    for number, (column, label) in enumerate(columns):
        axes = figure.add_subplot(1, len(columns), number + 1, xlabel=label)
        for row, setting in zip(rows, settings, strict=True):
            values = [run[column] for run in setting.rows]
            mean, error = tables.mean_and_stderr(values)
            axes.plot(values, [row] * len(values), ".", color="0.7", zorder=1)
            axes.errorbar(mean, row, xerr=np.nan_to_num(error), color=setting.color, marker="o", capsize=3, zorder=2)
        axes.set_yticks(rows, [setting.label.partition(",")[0] for setting in settings] if number == 0 else [])
        axes.set_ylim(-0.6, len(settings) - 0.4)
        axes.xaxis.set_major_locator(MaxNLocator(4))
        plotting.tidy(axes)
    return figure
