"""Figures on known factors: lines between faces, draws beside the nearest true face, traversals, attributes, metrics."""

import math

import numpy as np

from vae_jax.figures import style
from vae_jax.figures.images import held_label
from vae_jax.figures.run_directory import Directory, Panel
from vae_jax.figures.settings import Role, Setting

TILE = 0.62  # inches of a picture
PAIR = 0  # the pair of images that the line is shown for
TICKS = 8  # below an axis at most
PER_ROW = 8  # pictures of draws
ATTRIBUTES = ("hair", "smile", "glasses")  # shown first, where the data have them
SCORES = {
    "mig": "MIG", "dci_disentanglement": "DCI", "sap": "SAP", "modularity": "modularity", "beta_vae_score": "BetaVAE score",
    "factor_vae_score": "FactorVAE score", "udr": "UDR",
}  # fmt: skip


def _name(panel: Panel) -> str:
    """The factor that pairs differ in."""
    return str(panel.arrays["factor_names"][int(panel.arrays["factor_chosen"])])


def line(directory: Directory):
    """From one value of a factor to another: the true images, their average, and each model; the value read beneath each."""
    if not (shown := directory.panels("factor_line", 6, pictures=False)):
        return None
    first = shown.panels[0]
    rows: list[tuple] = [("true", "black", first.arrays["factor_true_line"][PAIR], None)]
    rows.append(("average of the two pictures", "black", first.arrays["factor_average_line"][PAIR], None))
    for panel in shown.panels:
        read = panel.arrays["factor_read"][:, PAIR]
        rows.append((panel.setting.label, panel.setting.color, panel.arrays["factor_line"][PAIR], read))
    steps = len(rows[0][2])
    true = 0.15 + 0.7 * np.linspace(0, 1, steps)
    title = f"The straight line between two codes, decoded; below each picture the {_name(first)} read from it"
    height = len(rows) * (TILE + 0.17) + 0.8
    figure = style.new_figure(2.2 + steps * TILE, height, shown.titled(title), "compressed")
    axes = figure.subplots(len(rows), steps)
    for row, (label, color, pictures, read) in zip(axes, rows, strict=True):
        values = true if label == "true" else read
        for step, place in enumerate(row):
            style.show(place, np.clip(pictures[step], 0, 1))
            if values is not None:
                place.set_xlabel(f"{values[step]:.2f}", fontsize=style.SMALL, labelpad=1)
        row[0].set_ylabel(style.wrapped(label, 1.6, style.TEXT), color=style.ink(color), rotation=0, ha="right", va="center")
    return figure


def factor_read(directory: Directory):
    """The factor read along the line, mean over pairs and seeds, its band between the quarters of the pairs."""
    shown = directory.panels("factor_read", style.LINES, pictures=False)
    if not shown:
        return None
    name = _name(shown.panels[0])
    title = (
        f"{name.capitalize()} along the line between two codes: mean over pairs, band from the first to the third quarter"
    )
    columns = min(len(shown.panels), 4)
    rows = math.ceil(len(shown.panels) / columns)
    figure = style.new_figure(2.6 * columns, 2.5 * rows + 0.7, shown.titled(title))
    share = np.linspace(0, 1, len(shown.panels[0].arrays["factor_read"]))
    axes = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel()
    for place, panel in zip(axes, shown.panels, strict=False):
        read = np.concatenate(directory.array_of_runs(panel.setting, "factor_read"), axis=1)
        low, high = np.quantile(read, [0.25, 0.75], axis=1)
        place.plot(share, 0.15 + 0.7 * share, color=style.GREY, linestyle="--", linewidth=1, label="true")
        place.fill_between(share, low, high, color=panel.setting.color, alpha=0.25, linewidth=0)
        place.plot(share, read.mean(axis=1), color=panel.setting.color, label=panel.setting.label)
        style.label_axes(place, style.wrapped(panel.setting.label, 2.2), panel.setting.color)
        style.tidy(place)
    for place in axes[len(shown.panels) :]:
        place.set_visible(False)
    for place in axes[max(len(shown.panels) - columns, 0) : len(shown.panels)]:  # below which there is none
        place.set_xlabel("along the line")
        place.tick_params(labelbottom=True)
    axes[0].set_ylabel(f"{name}, read (dashed: true)")
    return figure


def prior_draws(directory: Directory):
    """Decoded draws from the prior, and under each the nearest image that can be rendered."""
    if not (shown := directory.panels("factor_drawn", 6)):
        return None
    title = "Decoded draws from the prior; under each the nearest true image"
    count = min(PER_ROW, len(shown.panels[0].arrays["factor_drawn"]))
    columns = 2 if len(shown.panels) > 1 else 1
    rows = math.ceil(len(shown.panels) / columns)
    figure = style.new_figure(
        columns * (count * TILE + 0.4), rows * (2 * TILE + 0.55) + 0.6, shown.titled(title), "compressed"
    )
    for number, panel in enumerate(shown.panels):
        axes = figure.add_subplot(rows, columns, number + 1)
        pictures = np.concatenate([panel.arrays[key][:count] for key in ("factor_drawn", "factor_drawn_nearest")])
        style.show(axes, style.mosaic(np.clip(pictures, 0, 1), count))
        mean, error = panel.setting.mean("prior_to_nearest")
        told = (
            ""
            if math.isnan(mean)
            else f": squared error of a pixel {mean:.4f}" + ("" if math.isnan(error) else f" ± {error:.4f}")
        )
        style.label_axes(axes, f"{panel.setting.label}{told}", panel.setting.color)
    return figure


def factor_traversals(directory: Directory):
    """For each factor one image with the latent that follows it moved from -2 to 2."""
    if not (shown := directory.pair("factor_line", pictures=False)):
        return None
    names = [str(name) for name in shown.panels[0].arrays["factor_names"]]
    steps = shown.panels[0].arrays["factor_traversals"].shape[1]
    title = "One image with the latent that follows each factor moved from -2 to 2"
    wide = len(shown.panels) * (steps * 0.75 * TILE + 0.9)
    figure = style.new_figure(wide, len(names) * 0.75 * TILE + 1.3, shown.titled(title), "compressed")
    for number, panel in enumerate(shown.panels):
        axes = figure.add_subplot(1, len(shown.panels), number + 1)
        rows = np.concatenate(list(panel.arrays["factor_traversals"]))
        picture = style.mosaic(np.clip(rows, 0, 1), steps)
        style.show(axes, picture)
        axes.set_yticks((np.arange(len(names)) + 0.5) * len(picture) / len(names), [style.plain(name) for name in names])
        axes.set_xticks([0.5 * picture.shape[1] / steps, (steps - 0.5) * picture.shape[1] / steps], ["-2", "2"])
        axes.tick_params(length=0, labelsize=style.TEXT)
        style.label_axes(axes, held_label(directory, panel, wide / len(shown.panels)), panel.setting.color, xlabel="latent")
    return figure


def attribute_vectors(directory: Directory):
    """Reconstructions, and the same with an attribute vector added: effect (1 is what was meant) and leak beside each."""
    shown = directory.panels("factor_line", 5, pictures=False)
    if not shown:
        return None
    every = map(str, shown.panels[0].arrays["factor_names"])
    known = [name for name in every if f"attribute_{name}_after" in shown.panels[0].arrays]
    names = [name for name in ATTRIBUTES if name in known] or known[:3]
    if not names:
        return None
    count = 4
    title = (
        "Reconstructions, and with an attribute vector added (below); effect 1 is what was meant, leak is what else moved"
    )
    wide, tall = 1.5 + len(names) * (count * TILE + 0.25), len(shown.panels) * (2 * TILE + 0.45) + 0.8
    figure = style.new_figure(wide, tall, shown.titled(title), "compressed")
    for row, panel in enumerate(shown.panels):
        for column, name in enumerate(names):
            axes = figure.add_subplot(len(shown.panels), len(names), row * len(names) + column + 1)
            if f"attribute_{name}_after" not in panel.arrays:
                axes.set_visible(False)
                continue
            pictures = np.concatenate([panel.arrays[f"attribute_{name}_{when}"][:count] for when in ("before", "after")])
            style.show(axes, style.mosaic(np.clip(pictures, 0, 1), count))
            effect, leak = (panel.setting.mean(f"attribute_{kind}_{name}")[0] for kind in ("effect", "leak"))
            told = f": effect {style.number(effect, 2)}, leak {style.number(leak, 3)}" if math.isfinite(effect) else ""
            style.label_axes(axes, f"{style.plain(name)}{told}")
            if column == 0:
                label = style.wrapped(panel.setting.label, 1.2, style.TEXT)
                axes.set_ylabel(label, color=style.ink(panel.setting.color), rotation=0, ha="right", va="center")
    return figure


def _over_beta(directory: Directory, column: str) -> list[tuple[float, Setting]]:
    """Settings with reconstruction and KL that have a column, by beta; beta 0 is the autoencoder."""
    found = []
    for setting in directory.trained:
        if not math.isnan(setting.mean(column)[0]) and setting.role is not Role.KL_ONLY:
            found.append((float(directory.value(setting, "objective.beta", 1.0)), setting))
    return sorted(found, key=lambda one: one[0])


def disentanglement(directory: Directory):
    """Each metric of disentanglement over beta, MIG of each factor, and how many latents are used."""
    scores = [column for column in SCORES if len(_over_beta(directory, column)) > 1]
    if "mig" not in scores:
        return None
    factors = sorted({key for row in directory.rows for key in row if key.startswith("mig_") and not key.endswith("_se")})
    planes = [*scores, *factors, "active_units"]
    columns = 4
    rows = math.ceil(len(planes) / columns)
    title = "Disentanglement over beta (bars: standard error over seeds; AE at the left end)"
    title += "; MIG of all factors on one scale" if len(factors) > 1 else ""
    figure = style.new_figure(style.WIDTH, 2.1 * rows + 0.7, title)
    of_factors = None  # the first of their axes
    for number, column in enumerate(planes):
        axes = figure.add_subplot(rows, columns, number + 1, sharey=of_factors if column in factors else None)
        of_factors = axes if column in factors else of_factors
        points = _over_beta(directory, column)
        places = np.arange(len(points))
        means, errors = np.array([setting.mean(column) for _, setting in points]).T
        axes.errorbar(places, means, np.nan_to_num(errors), color=style.BLUE, marker="o", markersize=3, linewidth=1.2)
        texts = ["AE" if setting.role is Role.DETERMINISTIC else f"{beta:.2g}" for beta, setting in points]
        step = -(-len(points) // TICKS)
        axes.set_xticks(places[::step], texts[::step])
        axes.tick_params(labelsize=style.SMALL)
        name = SCORES.get(column, "active latents" if column == "active_units" else f"MIG, {column.removeprefix('mig_')}")
        style.label_axes(axes, style.plain(name), xlabel="beta" if number >= len(planes) - columns else "")
        style.tidy(axes)
    for axes in figure.axes:
        low, high = axes.get_ylim()
        axes.set_ylim(bottom=min(low, -0.04 * high))  # points at 0 whole
    return figure
