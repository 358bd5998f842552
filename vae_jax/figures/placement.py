"""Labels that touch neither each other nor what is drawn: places are tried on the page, by the boxes that texts take.

Call these when the figure's layout is final (`style.settle`): they measure in pixels.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence

import numpy as np

from vae_jax.figures import style

DIRECTIONS = [(math.cos(turn), math.sin(turn)) for turn in np.arange(16) * math.pi / 8]
REACHES = (7, 13, 20, 30, 42, 56, 72)  # points from what is labelled


@dataclasses.dataclass(frozen=True)
class Label:
    """A text that belongs to the point (x, y) of the data.

    Attributes:
      needed: whether it is drawn even where it finds no free place; else it is left out there.
    """

    x: style.Number
    y: style.Number
    text: str
    color: object = "black"
    needed: bool = True
    size: style.Number = style.TEXT
    bold: bool = False


def renderer_of(figure):
    """What measures texts."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    return (figure.canvas if hasattr(figure.canvas, "get_renderer") else FigureCanvasAgg(figure)).get_renderer()


def place(axes, labels: Sequence[Label], points: np.ndarray, lines: Sequence[np.ndarray] = ()) -> list:
    """Write labels near their points, inside the axes; the needed ones first. Returns the texts in pixels' boxes.

    Args:
      axes: with final limits.
      labels: what is written.
      points: markers to keep free, [n, 2] in the data's coordinates.
      lines: joined points, [n, 2] each, that labels avoid where they can.
    """
    renderer, window = renderer_of(axes.figure), axes.get_window_extent()
    scale = axes.figure.dpi / 72
    markers = axes.transData.transform(np.reshape(np.asarray(points, float), (-1, 2)))
    drawn = samples(axes, lines)
    taken: list[np.ndarray] = [box_of(text, renderer) for text in axes.texts if text.get_text() and text.get_visible()]
    written = []
    for label in sorted(labels, key=lambda label: not label.needed):
        text = axes.text(label.x, label.y, label.text, fontsize=label.size, color=style.ink(label.color), zorder=6)
        text.set_fontweight("bold" if label.bold else "normal")
        text.set_parse_math(False)
        style.set_fonts(text)
        extent = text.get_window_extent(renderer)
        text.remove()
        anchor = axes.transData.transform((label.x, label.y))
        best = _best_place(anchor, (extent.width, extent.height), scale, window, taken, markers, drawn)
        if best is None and not label.needed:
            continue
        box, reach = best or (_clamped(anchor, extent, scale, window), REACHES[0])
        taken.append(box)
        written.append(_write(axes, label, anchor, box, reach, scale))
    return written


def box_of(text, renderer) -> np.ndarray:
    """The box (x0, y0, x1, y1) of a text in pixels, without the line that an annotation may have."""
    from matplotlib.text import Annotation, Text

    if isinstance(text, Annotation):
        text.update_positions(renderer)  # which is known only now
    extent = Text.get_window_extent(text, renderer)
    return np.array([extent.x0, extent.y0, extent.x1, extent.y1])


def samples(axes, lines: Sequence[np.ndarray]) -> np.ndarray:
    """Points every few pixels along lines, [n, 2] in pixels."""
    found = [np.zeros((0, 2))]
    for line in lines:
        corners = axes.transData.transform(np.asarray(line, float))
        for start, end in itertools.pairwise(corners):
            if np.isfinite([start, end]).all():
                count = min(int(np.linalg.norm(end - start) / 5) + 2, 400)
                found.append(start + np.linspace(0, 1, count)[:, None] * (end - start))
    return np.concatenate(found)


def _best_place(anchor, size, scale, window, taken, markers, drawn) -> tuple[np.ndarray, style.Number] | None:
    """The box of least cost (lines crossed, then distance) that overlaps no label and no marker, and stays inside."""
    best, lowest = None, math.inf
    for reach in REACHES:
        for across, up in DIRECTIONS:
            center = anchor + scale * reach * np.array([across, up])
            # The text begins where the direction points: right of the point for 0 degrees, centred above for 90.
            x0 = center[0] + (across - 1) / 2 * size[0]
            y0 = center[1] + (up - 1) / 2 * size[1]
            box = np.array([x0, y0, x0 + size[0], y0 + size[1]])
            if box[0] < window.x0 or box[1] < window.y0 or box[2] > window.x1 or box[3] > window.y1:
                continue
            if any(overlap(box, other, 2 * scale) for other in taken) or inside(box, markers, 3 * scale):
                continue
            if reach > REACHES[1] and any(_crosses(anchor, _nearest(box, anchor), other) for other in taken):
                continue  # the line from the text to its point would run through another text
            cost = reach + 12 * min(inside(box, drawn, 1.5 * scale), 6)
            if cost < lowest:
                best, lowest = (box, reach), cost
        if best is not None and lowest <= reach + 8:
            break  # a longer reach cannot be better by more than it costs
    return best


def overlap(a: np.ndarray, b: np.ndarray, margin: style.Number = 0) -> bool:
    """Whether two boxes (x0, y0, x1, y1) come closer than `margin`."""
    return bool(a[0] < b[2] + margin and b[0] < a[2] + margin and a[1] < b[3] + margin and b[1] < a[3] + margin)


def _nearest(box: np.ndarray, point: np.ndarray) -> np.ndarray:
    """The point of the box that is nearest to a point."""
    return np.clip(point, box[:2], box[2:])


def _crosses(start: np.ndarray, end: np.ndarray, box: np.ndarray) -> bool:
    """Whether a straight line runs through a box."""
    return inside(box, start + np.linspace(0, 1, 25)[:, None] * (end - start), 0) > 0


def inside(box: np.ndarray, points: np.ndarray, margin: style.Number) -> int:
    within = (points > box[:2] - margin) & (points < box[2:] + margin)
    return int(within.all(axis=1).sum())


def _clamped(anchor, extent, scale, window) -> np.ndarray:
    """Beside the point, moved into the axes."""
    x0 = min(max(anchor[0] + 7 * scale, window.x0), window.x1 - extent.width)
    y0 = min(max(anchor[1], window.y0), window.y1 - extent.height)
    return np.array([x0, y0, x0 + extent.width, y0 + extent.height])


def _write(axes, label: Label, anchor, box: np.ndarray, reach: style.Number, scale: style.Number):
    """The text in its box, with a line to its point where it is far."""
    offset = (box[:2] - anchor) / scale
    line = None
    if reach > REACHES[1]:
        line = {"arrowstyle": "-", "color": style.GREY, "linewidth": 0.7, "shrinkA": 1, "shrinkB": 3}
    written = axes.annotate(
        label.text, (label.x, label.y), xytext=tuple(offset), textcoords="offset points", ha="left", va="bottom",
        fontsize=label.size, fontweight="bold" if label.bold else "normal", color=style.ink(label.color), arrowprops=line,
        zorder=6, annotation_clip=False, parse_math=False,
    )  # fmt: skip
    style.set_fonts(written)
    return written


def label_ends(
    axes, ends: Sequence[tuple[style.Number, style.Number, str, object]], size: style.Number = style.TEXT
) -> None:
    """A label right of the axes for the end (x, y) of each line, moved apart where they would touch, with a line to it.

    To be called before the layout: it makes the room that the labels need.
    """
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end[1])
    height = axes.get_position().height * axes.figure.get_figheight() * 72
    gap = min(1.5 * size / height, 0.98 / max(len(ends) - 1, 1))
    to_axes = axes.transData + axes.transAxes.inverted()
    places = np.clip([to_axes.transform((x, y))[1] for x, y, _, _ in ends], 0, 1)
    for place, (x, y, text, color) in zip(spaced(places, gap), ends, strict=True):
        line = {"arrowstyle": "-", "color": color, "linewidth": 0.8, "shrinkA": 0, "shrinkB": 0, "relpos": (0, 0.5)}
        axes.annotate(
            text, (x, y), xytext=(1.04, place), textcoords="axes fraction", color=style.ink(color), fontsize=size,
            va="center", annotation_clip=False, arrowprops=line, parse_math=False,
        )  # fmt: skip


def spaced(places: np.ndarray, gap: float) -> np.ndarray:
    """Ascending places in [0, 1], moved as little as needed to be `gap` apart."""
    places = np.array(places, float)
    for _ in range(500):
        near = np.maximum(gap - np.diff(places), 0) / 2
        if not near.max(initial=0) > 1e-9:
            break
        places[:-1] -= near
        places[1:] += near
        places = np.maximum(places, gap * np.arange(len(places)))
        places = np.minimum(places, 1 - gap * np.arange(len(places))[::-1])
    return places
