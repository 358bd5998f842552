"""What a network that is told beta does to one image as beta grows, and where each of its latents switches off."""

import math
from collections.abc import Sequence

import numpy as np

from vae_jax.figures import style
from vae_jax.figures.learning import USED
from vae_jax.figures.run_directory import Directory, Panel
from vae_jax.figures.settings import Family, Setting

PICTURES = 12  # reconstructions at most
IMAGE = 0  # of the test images, the one that is shown


def is_told_beta(directory: Directory, family: Family) -> bool:
    """Whether the settings of a family are one network (of each seed), told a beta each."""
    told = all(directory.value(setting, "model.conditioning") == "beta" for setting in family.settings)
    return told and family.axis == "objective.beta"


def over_beta(directory: Directory):
    """A test image decoded by one network told one beta after another, its posterior's std, and the rate of each latent."""
    families = [family for family in directory.families if is_told_beta(directory, family)]
    if not families:
        return None
    members = families[0].settings
    shown = directory.panels("reconstructions", PICTURES, members).panels
    panels = directory.panels("codes_std", len(members), members, pictures=False).panels
    panels = [panel for panel in panels if panel.row["seed"] == panels[0].row["seed"] and _beta(panel) > 0]
    if len(shown) < 2 or len(panels) < 2:
        return None
    seed = panels[0].row["seed"]
    title = f"One network, told beta (seed {seed}): a test image decoded, its posterior, and what each latent carries"
    figure = style.new_figure(style.WIDTH, 4.9, title)
    top, below = figure.subfigures(2, 1, height_ratios=(1, 2.6))
    _pictures(top, shown)
    betas = np.array([_beta(panel) for panel in panels])
    std = np.array([panel.arrays["codes_std"][IMAGE] for panel in panels])
    rates = [panel.arrays["rate_per_latent"] for panel in panels]
    axes = below.subplots(1, 2)
    order = np.arange(std.shape[1])
    if all(rate.shape == std[0].shape for rate in rates):
        # The colours of many go along the rate that each has at the least beta.
        order = np.argsort(-rates[0], kind="stable") if len(order) > style.LINES else order
        std, rates = std[:, order], [rate[order] for rate in rates]
    _lines(axes[0], betas, std, "std of the image's posterior")
    axes[0].set_ylim(0, 1.05 * max(1.0, std.max()))
    if all(rate.shape == std[0].shape for rate in rates):
        _lines(axes[1], betas, np.array(rates), "rate of a latent (nats per image)\ncrosses: it switches off")
        _switches(axes[1], betas, np.array(rates))
    else:  # a prior that ties the latents has one rate for all
        _lines(axes[1], betas, np.array([rate.sum() for rate in rates])[:, None], "rate (nats per image)")
    if len(order) <= style.LINES:
        axes[0].legend(frameon=False, fontsize=style.SMALL, ncols=2)
    else:
        style.color_bar(below, list(axes), style.sequence(len(order)), [f"{latent + 1}" for latent in order], "latent")
    return figure


def _beta(panel: Panel) -> float:
    return float(panel.row["objective.beta"])


def _pictures(figure, shown: Sequence[Panel]) -> None:
    """The image, and its reconstruction at each beta."""
    pictures = [shown[0].arrays["images"][IMAGE], *(panel.arrays["reconstructions"][IMAGE] for panel in shown)]
    names = ["image", *(f"{_beta(panel):.3g}" for panel in shown)]
    for place, picture, name in zip(figure.subplots(1, len(pictures)), pictures, names, strict=True):
        style.show(place, np.clip(picture, 0, 1))
        place.set_title(name if name == "image" else f"beta {name}", fontsize=style.SMALL)


def _lines(axes, betas: np.ndarray, values: np.ndarray, label: str) -> None:
    """A line for each latent over beta."""
    count = values.shape[1]
    colors = style.PALETTE if count <= len(style.PALETTE) else style.sequence(count)
    for latent in range(count):
        name = style.latent_number(latent) if count <= style.LINES else None
        axes.plot(betas, values[:, latent], color=colors[latent], linewidth=1.4, label=name)
    axes.set_xscale("log")
    style.label_axes(axes, xlabel="beta", ylabel=label)
    style.plain_log(axes.xaxis, *axes.get_xlim())
    style.tidy(axes)


def _switches(axes, betas: np.ndarray, rates: np.ndarray) -> None:
    """Where the rate of each latent falls below `USED`, between two betas."""
    for latent, beta in switched_off(betas, rates).items():
        colors = style.PALETTE if rates.shape[1] <= len(style.PALETTE) else style.sequence(rates.shape[1])
        axes.plot([beta], [0], "x", color=colors[latent], markersize=7, clip_on=False, zorder=5)
    axes.set_ylim(0, None)


def switched_off(betas: np.ndarray, rates: np.ndarray) -> dict[int, float]:
    """{latent: the beta from which on its rate is below `USED`}, of those that carry more at a smaller one.

    Args:
      betas: growing [n].
      rates: [n, latents] nats.
    """
    found = {}
    for latent in range(rates.shape[1]):
        used = np.flatnonzero(rates[:, latent] > USED)
        if len(used) and used[-1] + 1 < len(betas):
            found[latent] = math.sqrt(betas[used[-1]] * betas[used[-1] + 1])
    return found


EFFECT = "attribute_effect_"  # heads the columns of each factor


def factors_over_beta(directory: Directory):
    """Faces between two codes, draws of the prior, and what each attribute vector still changes, over beta: one network."""
    families = [family for family in directory.families if is_told_beta(directory, family)]
    if not families or not math.isfinite(families[0].settings[0].mean("midpoint_ratio")[0]):
        return None
    members = [setting for setting in families[0].settings if setting.values["objective.beta"] > 0]
    effects = [c for c in members[0].rows[0] if c.startswith(EFFECT) and not c.endswith("_se")][: style.LINES]
    several = ", bands: standard error over seeds" if len(members[0].rows) > 1 else ""
    figure = style.new_figure(
        style.WIDTH, 3.9, f"One network, told beta: what lies between codes, and what is lost{several}"
    )
    panels = (
        (["midpoint_ratio"], "error of the decoded middle, over that of\nthe average of two pictures (midpoint_ratio)"),
        (["prior_to_nearest"], "mse of draws to the nearest true picture\n(prior_to_nearest)"),
        (effects, "share of a factor's change that its\nattribute vector makes (attribute_effect)"),
    )
    for number, (columns, label) in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), number + 1, xscale="log")
        for column, color in zip(columns, style.PALETTE, strict=False):
            _band(axes, members, column, color)
        style.label_axes(axes, xlabel="beta", ylabel=label)
        style.plain_log(axes.xaxis, *axes.get_xlim())
        axes.set_ylim(min(0, axes.get_ylim()[0]), None)
        style.tidy(axes)
    figure.axes[-1].legend(frameon=False, fontsize=style.SMALL, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def _band(axes, members: Sequence[Setting], column: str, color) -> None:
    """Mean of a column over beta, with its error."""
    betas = np.array([setting.values["objective.beta"] for setting in members])
    mean, error = np.array([setting.mean(column) for setting in members]).T
    axes.plot(betas, mean, color=color, linewidth=1.4, label=column.removeprefix(EFFECT))
    error = np.nan_to_num(error)
    axes.fill_between(betas, mean - error, mean + error, color=color, alpha=0.2, linewidth=0)
