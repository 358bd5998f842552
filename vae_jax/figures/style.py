"""How figures look: colours, text, axes, pictures. Nothing here knows of run directories.

Matplotlib is imported inside the functions, and without pyplot: importing this file costs nothing, and drawing works in
any thread.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from vae_jax.figures import fonts

# Okabe & Ito's colours, which the colour-blind can tell apart, then two of Paul Tol's.
BLUE, GREEN, VERMILLION, PURPLE, ORANGE, SKY = "#0072B2", "#009E73", "#D55E00", "#CC79A7", "#E69F00", "#56B4E9"
WINE, BLACK = "#882255", "#000000"
PALETTE = (BLUE, GREEN, WINE, SKY, VERMILLION, ORANGE, PURPLE, BLACK)
ROLE_COLORS = (VERMILLION, ORANGE, BLUE, PURPLE, BLACK)  # by the number of a role
CLASSES = "#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499", "#888888"  # Tol
GREY = "0.55"
Number = float | int
LINES = 8  # in one plane at most; more have a colour bar, or planes of their own
TEXT = 9.0  # points of ordinary text
SMALL = 8.0  # points of the smallest text
WIDTH = 10.0  # inches of a wide figure: at this width text has its points


def plain(text: str) -> str:
    """`text` with what cannot be printed as escapes: a label is never a control character, nor a line break."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def family_colors(families: Sequence[tuple[int, int]]) -> list[Any]:
    """A colour for each family, given as (number of its role, number of its settings).

    The first family of a role has the role's colour, so that a model has the same one in every figure; more families than
    colours go from dark to light.
    """
    if len(families) > LINES:
        return list(sequence(len(families)))
    used = {ROLE_COLORS[role] for role, _ in families}
    others = iter([color for color in PALETTE if color not in used])
    colors, seen = [], set()
    for role, _ in families:
        colors.append(next(others) if role in seen else ROLE_COLORS[role])
        seen.add(role)
    return colors


def sequence(count: int) -> list[tuple]:
    """`count` colours from dark to light along one scale that stays readable in grey and for the colour-blind."""
    from matplotlib import colormaps

    return [colormaps["viridis"](place) for place in np.linspace(0, 0.88, max(count, 1))]


def shades(color, count: int) -> list:
    """`count` tones of one colour, from light to dark; the colour itself where there is one."""
    from matplotlib.colors import to_rgb

    tone = np.array(to_rgb(color))
    if count == 1:
        return [color]
    places = np.linspace(0.45, -0.45, count)  # towards white, towards black
    return [tuple(tone + (1 - tone) * place if place > 0 else tone * (1 + place)) for place in places]


def line_colors(settings: Sequence) -> list:
    """Colours of lines in one plane: of several families each its own in tones, of one family along the scale."""
    families = list(dict.fromkeys(setting.color for setting in settings))
    if len(families) == 1 and len(settings) > 1:
        return sequence(len(settings))
    tones = {color: iter(shades(color, sum(s.color == color for s in settings))) for color in families}
    return [next(tones[setting.color]) for setting in settings]


def ink(color) -> tuple:
    """The colour of a text that belongs to `color`: darker where the colour itself is too light to be read on white."""
    from matplotlib.colors import to_rgb

    tone = np.array(to_rgb(color))
    while np.dot(tone, (0.2126, 0.7152, 0.0722)) > 0.42:
        tone = 0.9 * tone
    return tuple(tone)


@functools.cache
def _figure_class():
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import PlaceHolderLayoutEngine

    class PlainFigure(Figure):
        """A figure in which no text is a formula: names are shown as they are written; `cropped` where its edges are cut."""

        cropped = False

        def get_layout_engine(self):
            """None when the layout is final: with the placeholder, saving would draw the whole figure twice."""
            engine = super().get_layout_engine()
            return None if isinstance(engine, PlaceHolderLayoutEngine) else engine

        def draw(self, renderer):
            prepare_texts(self)
            super().draw(renderer)

    return PlainFigure


def prepare_texts(figure) -> None:
    """Every text as it is written, in fonts that have its characters; except numbers that an axis formats itself."""
    from matplotlib.text import Text
    from matplotlib.ticker import FixedFormatter, FuncFormatter

    numbers: set[int] = set()
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            formatter = axis.get_major_formatter()
            if not isinstance(formatter, FixedFormatter | FuncFormatter):
                numbers.update(map(id, axis.findobj(Text)))
                numbers.discard(id(axis.label))
            elif isinstance(formatter, FuncFormatter) and not isinstance(formatter.func, _Drawable):
                formatter.func = _Drawable(formatter.func)
    for text in figure.findobj(Text):
        if id(text) not in numbers:
            text.set_parse_math(False)
            set_fonts(text)


class _Drawable:
    """What labels the ticks, in characters that fonts have: an axis writes its labels anew each time it is drawn."""

    def __init__(self, func):
        self.func = func

    def __call__(self, value, position=None) -> str:
        return fonts.drawable(str(self.func(value, position)))


def set_fonts(text) -> None:
    """Fonts that have the characters of a text, with boxes for those that no font has."""
    written = text.get_text()
    if not written.isascii():
        families = fonts.families(written)
        text.set_fontfamily(families)
        if text.get_weight() == "bold" and not fonts.are_bold(families):
            text.set_weight("normal")
        text.set_text(fonts.drawable(written))


def new_figure(width: Number, height: Number, title: str, layout: Literal["compressed", "constrained"] = "constrained"):
    """An empty figure of so many inches, wide enough for its title."""
    figure = _figure_class()(figsize=(width, height), layout=layout)
    figure.cropped = layout == "compressed"  # pictures have their own shape: what they leave free is cut
    if figure.cropped:
        figure.get_layout_engine().set(
            h_pad=0.08, hspace=0.06
        )  # a label below one picture does not touch the title of the next
    figure.suptitle(wrapped(title, width), fontsize=TEXT + 2)
    return figure


def wrapped(text: str, width: Number, size: Number = TEXT + 2) -> str:
    """The text in lines that fit into `width` inches: as few as that needs, and about as long as each other."""
    share = 0.56 if text.isascii() else 1.0  # of its size, that a letter is wide; Chinese ones are square
    letters = max(int(width * 72 / (share * size)), 10)
    return "\n".join(line for part in text.split("\n") for line in _balanced(part, letters))


def _balanced(text: str, letters: int) -> list[str]:
    """Lines of at most so many letters, of which the last is no single word where all could be shorter instead."""
    import textwrap

    lines = textwrap.wrap(text, letters) or [""]
    while len(shorter := textwrap.wrap(text, letters - 1)) == len(lines) and letters > 2:
        lines, letters = shorter, letters - 1
    return lines


def number(value: float, digits: int) -> str:
    """A number with so many digits after the point, and no sign before a zero."""
    return f"{round(value, digits) + 0.0:.{digits}f}"


def settle(figure) -> None:
    """Lay the figure out, once: places on the page are then final, and labels can be put between what is drawn."""
    prepare_texts(figure)
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine("none")


def grid(count: int, size: Number, title: str, columns: int = 4):
    """A figure with `count` square axes of `size` inches, the last row not always full."""
    columns = min(count, columns)
    rows = -(-count // columns)
    size *= 1.3 if count == 1 else 1
    figure = new_figure(max(columns * size, 5.5), rows * (size + 0.55) + 0.5, title, "compressed")
    return figure, [figure.add_subplot(rows, columns, number + 1) for number in range(count)]


def label_axes(axes, title: str = "", color="black", **labels: str) -> None:
    """Title and axis labels in the sizes of all figures, as wide as the axes are on the page."""
    if title:
        axes.set_title(title, color=ink(color), fontsize=TEXT + 1)
    axes.set(**labels)
    axes.xaxis.label.set_size(TEXT)
    axes.yaxis.label.set_size(TEXT)
    axes.tick_params(which="both", labelsize=SMALL)


def tidy(axes) -> None:
    axes.spines[["top", "right"]].set_visible(False)


def mosaic(pictures: np.ndarray, columns: int, gap: int = 1) -> np.ndarray:
    """[N, height, width, channels] -> one picture, row by row, with black gaps; pixels cut to [0, 1]; white where nan."""
    count, height, width, channels = pictures.shape
    rows = -(-count // columns)
    canvas = np.zeros((rows * (height + gap), columns * (width + gap), channels))
    for number, picture in enumerate(pictures):
        top, left = (number // columns) * (height + gap), (number % columns) * (width + gap)
        if np.isnan(picture).any():
            canvas[top : top + height + gap, left : left + width + gap] = 1
        else:
            canvas[top : top + height, left : left + width] = np.clip(picture, 0, 1)
    return canvas[: canvas.shape[0] - gap, : canvas.shape[1] - gap]


def show(axes, picture: np.ndarray, **options) -> None:
    """A picture without ticks; grey where it has one channel."""
    picture = picture[..., 0] if picture.shape[-1] == 1 else picture
    axes.imshow(picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest" if len(picture) < 600 else "auto", **options)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)


def plain_log(axis, low: float, high: float) -> None:
    """Ticks of a log axis as 0.03, and not as 3 x 10^-2; only as many as can be read."""
    digits = "123456789" if high < 5 * low else "1235" if high < 100 * low else "125" if high < 1000 * low else "1"
    for formatter in (axis.set_major_formatter, axis.set_minor_formatter):
        formatter(lambda value, _: f"{value:g}" if f"{value:e}"[0] in digits else "")


def color_bar(figure, axes, colors: Sequence, labels: Sequence[str], title: str) -> None:
    """What each of many colours stands for: a bar beside `axes`, labelled at a few of them."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import ListedColormap, Normalize

    mappable = ScalarMappable(Normalize(-0.5, len(colors) - 0.5), ListedColormap(list(colors)))
    bar = figure.colorbar(mappable, ax=axes, pad=0.01, aspect=25, fraction=0.05)
    places = sorted({round(place) for place in np.linspace(0, len(colors) - 1, min(len(colors), 7))})
    bar.set_ticks(places, labels=[labels[place] for place in places])
    bar.ax.minorticks_off()
    bar.ax.tick_params(labelsize=SMALL, length=0)
    bar.set_label(title, fontsize=TEXT)
    bar.outline.set_visible(False)


def latent_number(number: int) -> str:
    """Latents are counted from 1 in figures."""
    return f"latent {number + 1}"


def normal_density(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)
