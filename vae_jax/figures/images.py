"""Figures that show pictures: samples, reconstructions, traversals, interpolations, the decoder's manifold."""

import math
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from vae_jax.evaluation import queries
from vae_jax.figures import style
from vae_jax.figures.run_directory import Arrays, Directory, Panel
from vae_jax.figures.settings import Role

COLUMNS = 10  # pictures in a strip at most
TILE = 0.46  # inches of a picture in a strip
SAMPLE_PIXELS = 290  # across a panel of samples at most: more would be smaller than the page shows
PAIRS = 3  # interpolations in one figure
MANIFOLDS = 6


class Strip(NamedTuple):
    """A row of pictures and what stands before and after it."""

    label: str
    color: object
    pictures: np.ndarray
    note: str = ""


def samples(directory: Directory):
    """Decoder means of draws from the prior, beside as many test images."""
    if not (shown := directory.panels("samples", style.LINES - 1)):
        return None
    first = shown.panels[0].arrays
    real = first.get("test_images", first["images"])  # older directories have few
    count = min(len(real), *(len(panel.arrays["samples"]) for panel in shown.panels))
    columns = max(math.isqrt(count), 1)
    while columns > 4 and columns * (real.shape[2] + 1) > SAMPLE_PIXELS:
        columns -= 1
    count = min(count, columns**2)
    title = shown.titled("Decoder means of draws from the prior, beside test images")
    figure, axes = style.grid(len(shown.panels) + 1, 2.35, title)
    style.show(axes[0], style.mosaic(real[:count], columns))
    style.label_axes(axes[0], "test images")
    for place, panel in zip(axes[1:], shown.panels, strict=True):
        style.show(place, style.mosaic(panel.arrays["samples"][:count], columns))
        style.label_axes(place, held_label(directory, panel), panel.setting.color)
    return figure


def held_label(directory: Directory, panel: Panel, width: style.Number = 2.4) -> str:
    """The title of a panel of so many inches, which says where the prior is not what the codes were trained towards."""
    label = style.wrapped(panel.setting.label, width, style.TEXT + 1)
    return label if directory.held_to_prior(panel) else f"{label}\n(codes not held to the prior)"


def reconstructions(directory: Directory):
    """A few test images that are not alike, and each model's decoder mean at their mean codes."""
    if not (shown := directory.panels("reconstructions")):
        return None
    arrays = shown.panels[0].arrays
    chosen = unlike(arrays["images"], arrays.get("labels"), COLUMNS)
    strips = [Strip("test images", "black", arrays["images"][chosen])]
    for panel in shown.panels:
        error = f"mse {panel.row['mse']:.4f}" if "mse" in panel.row else ""
        strips.append(Strip(panel.setting.label, panel.setting.color, panel.arrays["reconstructions"][chosen], error))
    title = shown.titled("Test images and their reconstructions (mse: whole test split)")
    height, width = arrays["images"].shape[1:3]
    figure = style.new_figure(2.6 + TILE * len(chosen), len(strips) * TILE * height / width + 0.9, title, "compressed")
    _strips(figure.add_subplot(), strips)
    return figure


def unlike(images: np.ndarray, labels: np.ndarray | None, count: int) -> np.ndarray:
    """Which of the images to show: one of each class first, then always the one farthest from all chosen; in their order."""
    flat = images.reshape(len(images), -1).astype(float)
    labels = None if labels is None or labels.ndim != 1 else labels[: len(images)]
    firsts = [0] if labels is None else list(np.unique(labels, return_index=True)[1])
    chosen = sorted(firsts)[:count]
    while len(chosen) < min(count, len(images)):
        distance = np.min([np.square(flat - flat[one]).sum(axis=1) for one in chosen], axis=0)
        distance[chosen] = -1
        chosen.append(int(distance.argmax()))
    return np.array(sorted(chosen))


def _strips(axes, strips: Sequence[Strip], ticks: bool = True) -> None:
    """Rows of pictures under each other, with their labels before them and their notes after them."""
    picture = style.mosaic(np.concatenate([strip.pictures for strip in strips]), len(strips[0].pictures))
    style.show(axes, picture)
    places = (np.arange(len(strips)) + 0.5) * len(picture) / len(strips)
    axes.set_yticks(places, ["\n".join(textwrap.wrap(strip.label, 26)) if ticks else "" for strip in strips])
    axes.tick_params(length=0, labelsize=style.TEXT)
    for tick, strip in zip(axes.get_yticklabels(), strips, strict=True):
        tick.set_color(style.ink(strip.color))
    for place, strip in zip(places, strips, strict=True):
        if strip.note:
            at = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": style.SMALL}
            axes.text(1.01, place, strip.note, **at)


def latents_by_importance(arrays: Arrays) -> np.ndarray:
    """The numbers of the latents that were moved, in the order in which evaluation moved them."""
    rate, mean = arrays["rate_per_latent"], arrays["codes_mean"]
    by_rate = len(rate) == mean.shape[1] and np.isfinite(rate).all()
    importance = rate if by_rate else mean.var(axis=0)
    return np.argsort(-importance, kind="stable")[: len(arrays["traversals"]) // queries.STEPS]


def moved(arrays: Arrays) -> list[tuple[int, float, np.ndarray]]:
    """(latent, effect, its pictures) of every traversal, the largest effect first.

    The effect is the range of a pixel over the row, mean over pixels: 0 where nothing changes, 1 from black to white.
    """
    rows = np.split(arrays["traversals"], len(arrays["traversals"]) // queries.STEPS)
    found = [
        (int(latent), float(np.ptp(np.clip(row, 0, 1), axis=0).mean()), row)
        for latent, row in zip(latents_by_importance(arrays), rows, strict=True)
    ]
    return sorted(found, key=lambda one: -one[1])


def traversals(directory: Directory):
    """The first test image with one latent moved, a row for each latent; those of most effect first."""
    if not (shown := directory.pair("traversals")):
        return None
    most = max(len(panel.arrays["traversals"]) // queries.STEPS for panel in shown.panels) + 1
    height, width = shown.panels[0].arrays["traversals"].shape[1:3]
    title = "A test image with one latent moved, the others held; number: range of a pixel over the row, mean over pixels"
    across = len(shown.panels)
    wide = max((TILE * queries.STEPS + 1.4) * across, 5.5)
    tall = TILE * most * height / width + 1.2
    figure = style.new_figure(wide, tall, shown.titled(title), "compressed")
    for number, panel in enumerate(shown.panels):
        axes = figure.add_subplot(1, across, number + 1)
        _traversal(axes, panel)
        held = directory.held_to_prior(panel)
        over = "over the prior's quantiles" if held else "over its codes, 0.5 % to 99.5 %"
        _step_ticks(axes, held)
        axes.set_anchor("N")
        label = style.wrapped(panel.setting.label, 4.5)
        style.label_axes(axes, label, panel.setting.color, xlabel=f"one latent moved {over}")
    return figure


def _traversal(axes, panel: Panel) -> None:
    """The image and its reconstruction, and under them a row for each latent."""
    arrays = panel.arrays
    first = np.concatenate([arrays["images"][:1], arrays["reconstructions"][:1]])
    blank = np.full((queries.STEPS - 2, *first.shape[1:]), np.nan)
    strips = [Strip("image, decoded", "black", np.concatenate([first, blank]))]
    for latent, effect, row in moved(arrays):
        strips.append(Strip(style.latent_number(latent), "black", row, f"{effect:.3f}"))
    _strips(axes, strips)


def _step_ticks(axes, held: bool) -> None:
    """Where along a traversal its steps lie: the prior's quantiles, or the ends of the range of its codes."""
    width = np.ptp(axes.get_xlim()) / queries.STEPS
    levels = queries.LEVELS[queries.TRAVERSED]
    steps = range(0, queries.STEPS, 2) if held else (0, queries.STEPS - 1)
    texts = [f"{100 * levels[step]:.0f} %" for step in steps] if held else ["lowest", "highest"]
    axes.set_xticks([(step + 0.5) * width for step in steps], texts)


def interpolations(directory: Directory):
    """Decoder means on the line between the codes of two test images, between the images themselves."""
    shown = directory.pair("interpolations")
    # Another seed has other pairs of images.
    panels = [panel for panel in shown.panels if panel.row.get("seed") == shown.panels[0].row.get("seed")]
    if not panels:
        return None
    blocks = [[_line(panel, pair) for panel in panels] for pair in unlike_pairs(panels[0].arrays, PAIRS)]
    height, width = blocks[0][0].pictures.shape[1:3]
    has_images = "interpolation_images" in panels[0].arrays
    title = "From one test image to another: decoder means along the line between their codes"
    title += "; at the ends the images themselves" if has_images else ""
    tall = len(blocks) * (len(panels) * TILE * height / width + 0.15) + 0.8
    figure = style.new_figure(2.0 + TILE * len(blocks[0][0].pictures), tall, shown.titled(title), "compressed")
    for number, strips in enumerate(blocks):
        _strips(figure.add_subplot(len(blocks), 1, number + 1), strips)
    return figure


def _line(panel: Panel, pair: int) -> Strip:
    """The pictures of one line, with the images at its ends where evaluation wrote them."""
    row = panel.arrays["interpolations"][pair * queries.STEPS : (pair + 1) * queries.STEPS]
    if (ends := panel.arrays.get("interpolation_images")) is not None and len(ends) > 2 * pair + 1:
        row = np.concatenate([ends[2 * pair : 2 * pair + 1], row, ends[2 * pair + 1 : 2 * pair + 2]])
    return Strip(panel.setting.label, panel.setting.color, row)


def unlike_pairs(arrays: Arrays, count: int) -> list[int]:
    """The pairs whose ends are least alike, in their order."""
    rows = np.split(arrays["interpolations"], len(arrays["interpolations"]) // queries.STEPS)
    distance = [np.square(row[0] - row[-1]).sum() for row in rows]
    return sorted(np.argsort(distance)[::-1][:count].tolist())


def manifold(directory: Directory):
    """The decoder over the prior's quantiles, for 2 latents; without models whose decoder was never trained."""
    trained = [setting for setting in directory.trained if setting.role is not Role.KL_ONLY]
    if not (shown := directory.panels("manifold", MANIFOLDS, trained)):
        return None
    title = shown.titled("The decoder over the prior's quantiles")
    figure, axes = style.grid(len(shown.panels), 3.2, title, columns=3)
    for place, panel in zip(axes, shown.panels, strict=True):
        _manifold(place, panel.arrays["manifold"])
        style.label_axes(place, held_label(directory, panel), panel.setting.color, xlabel="latent 1", ylabel="latent 2")
    return figure


def _manifold(axes, pictures: np.ndarray) -> None:
    """Every second row and column, which are enough to be looked at, with the quantiles that some of them stand at."""
    side = math.isqrt(len(pictures))
    kept = np.arange(0, side, 2 if side > 10 else 1)
    chosen = (side * kept[:, None] + kept).ravel()
    picture = style.mosaic(pictures[chosen], len(kept))
    style.show(axes, picture)
    if side == len(queries.LEVELS):
        places = np.linspace(0, len(kept) - 1, 5).round().astype(int)
        texts = [f"{100 * queries.LEVELS[kept[place]]:.0f} %" for place in places]
        rows, columns = picture.shape[:2]
        axes.set_xticks((places + 0.5) * columns / len(kept), texts)
        axes.set_yticks(rows - (places + 0.5) * rows / len(kept), texts)
