"""What happens while a study learns: losses, the posterior's std, the rate of each latent, the noise of gradients."""

from collections.abc import Callable, Sequence

import numpy as np

from vae_jax.figures import placement, settings, style
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Family, Role, Setting

QUANTITIES = ("loss", "distortion", "rate")
SPLITS = {"train": "training split", "valid": "validation split"}
PLANES = 8  # of curves in one figure
BANDS = 16  # lines in a plane that have bands: those of more would lie on each other
NAMED = 45  # rows of a map of rates that all have their label
USED = 0.01  # nats from which a latent counts as used


def learning_curves(directory: Directory):
    """Loss, distortion and rate over the epochs, of the training and the validation split; a line for each setting."""
    shown = [s for s in directory.trained if any(len(directory.curve(s, f"train_{name}")[0]) for name in QUANTITIES)]
    if not shown:
        return None
    planes, note = _planes(directory, shown, directory.unit)
    splits = [split for split in SPLITS if any(len(directory.curve(setting, f"{split}_loss")[0]) for setting in shown)]
    # Both splits share a row, unless there are too many lines for it.
    rows = [(label, members, kind) for label, members in planes for kind in _rows_of(members, splits)]
    together = any(len(kind) > 1 for _, _, kind in rows)
    title = "Learning curves in nats per image"
    title += ": training split (solid), validation split (dashed)" if together else ""
    title += f", {SPLITS[splits[0]]}" if len(splits) == 1 else ""
    banded = [members for _, members in planes if len(members) <= BANDS]
    title += "; bands: range over seeds" if any(len(s.rows) > 1 for members in banded for s in members) else ""
    figure = style.new_figure(style.WIDTH, (2.5 if len(rows) < 4 else 2.0) * len(rows) + 0.7, f"{title}{note}")
    beside = _width_of_legends(directory, planes)
    across = (style.WIDTH - beside) / len(QUANTITIES)
    grid = figure.add_gridspec(len(rows), 4, width_ratios=[across] * len(QUANTITIES) + [max(beside, 1e-3)])
    for number, (label, members, kind) in enumerate(rows):
        colors = style.line_colors(members)
        row_axes = []
        for column, name in enumerate(QUANTITIES):
            axes = figure.add_subplot(grid[number, column])
            band = len(members) <= BANDS
            drawn = [_curve(axes, directory, *pair, name, kind, band) for pair in zip(members, colors, strict=True)]
            _zoom(axes, [values for curves in drawn for values in curves])
            if not any(drawn):
                axes.set_axis_off()
                axes.text(0.5, 0.5, "infinite: the codes are points", transform=axes.transAxes, ha="center", va="center")
            split = SPLITS[kind[0]] if len(kind) < len(splits) else ""
            heading = ", ".join(filter(None, [name, label, split]))
            heading = style.wrapped(heading, across - 0.2, style.TEXT + 1)
            style.label_axes(axes, heading, xlabel="epoch" if number == len(rows) - 1 else "")
            axes.xaxis.get_major_locator().set_params(integer=True)
            style.tidy(axes)
            row_axes.append(axes)
        _key(figure, directory, row_axes, members, colors, label)
    return figure


def _rows_of(members: Sequence[Setting], splits: list[str]) -> list[list[str]]:
    """The splits that each row of a plane's panels shows."""
    return [splits] if len(members) <= style.LINES else [[split] for split in splits]


def _planes(
    directory: Directory, shown: Sequence[Setting], unit: Callable[[Setting], str] = lambda _: ""
) -> tuple[list[tuple[str, list[Setting]]], str]:
    """What shares a plane, with what its title says; and a note.

    Everything of one unit, or one family each beyond `style.LINES`.
    """
    planes = []
    for told, members in (groups := settings.groups_of(shown, unit)).items():
        found = [("", list(members))] if len(members) <= style.LINES else _by_family(directory, members)
        planes += [(", ".join(filter(None, [label, told if len(groups) > 1 else ""])), some) for label, some in found]
    note = f" ({PLANES} of {len(planes)} groups of settings)" if len(planes) > PLANES else ""
    return planes[:PLANES], note


def _by_family(directory: Directory, shown: Sequence[Setting]) -> list[tuple[str, list[Setting]]]:
    """Families of several settings, each with its label; those of one setting together before them."""
    families = [(family, [s for s in family.settings if s in shown]) for family in directory.families]
    single = [members[0] for _, members in families if len(members) == 1]
    planes = [("", single[at : at + style.LINES]) for at in range(0, len(single), style.LINES)]
    return planes + [(family.label, members) for family, members in families if len(members) > 1]


LEGEND = 1.7  # inches beside the curves at most


def _width_of_legends(directory: Directory, planes: Sequence[tuple[str, Sequence[Setting]]]) -> float:
    """Inches that the legends of planes need beside them; 0 where all have a bar."""
    listed = [(label, setting) for label, members in planes if len(members) <= style.LINES for setting in members]
    letters = max((len(_within(_drawn_label(directory, setting), label)) for label, setting in listed), default=0)
    return min(0.7 + 0.56 * style.SMALL / 72 * letters, LEGEND) if listed else 0.0


def _curve(
    axes, directory: Directory, setting: Setting, color, name: str, splits: Sequence[str], has_band: bool
) -> list[tuple]:
    """The lines of a setting on some splits, the first one with its band; returns (epochs, values) of lines and edges."""
    if name == "rate" and setting.role is Role.DETERMINISTIC:
        return []  # infinite
    drawn = []
    for split in splits:
        epochs, values = directory.curve(setting, f"{split}_{name}")
        if not len(epochs) or not np.isfinite(values).any():
            continue
        mean = values.mean(axis=0)
        dashes = "--" if split == "valid" and len(splits) > 1 else "-"
        label = setting.label if split == splits[0] else f"_{setting.label}, {SPLITS[split]}"
        axes.plot(epochs, mean, dashes, color=color, linewidth=1.4, label=label, marker="o" if len(epochs) == 1 else None)
        if has_band and len(values) > 1 and split == splits[0]:
            band = {"color": color, "alpha": 0.2, "linewidth": 0}
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), **band)
            drawn += [(epochs, values.min(axis=0)), (epochs, values.max(axis=0))]
        drawn.append((epochs, mean))
    return drawn


def _zoom(axes, curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> None:
    """Limits in which what follows the first steps fills the plane: the fall from where training began may leave it."""
    parts = [values[epochs > 0.08 * epochs[-1]] for epochs, values in curves]
    late = np.concatenate([*parts, *(values[-1:] for _, values in curves), np.zeros(0)])
    late = late[np.isfinite(late)]
    if not len(late):
        return
    low, high = axes.get_ylim()
    pad = 0.08 * max(np.ptp(late), 1e-3 * max(abs(late).max(), 1e-3))
    if late.max() + pad - (late.min() - pad) < 0.6 * (high - low):
        axes.set_ylim(late.min() - pad, late.max() + pad)


def _key(figure, directory: Directory, axes: Sequence, members: Sequence[Setting], colors: Sequence, plane: str) -> None:
    """Which colour is which setting: a legend beside the last of the axes, or a bar where there are too many."""
    from matplotlib.lines import Line2D

    if len(members) > style.LINES:
        family = directory.family(members[0])
        values = [_value_text(directory, family, setting) for setting in members]
        style.color_bar(figure, list(axes), colors, values, family.axis.rpartition(".")[2] or "setting")
        return
    labels = [_within(_drawn_label(directory, setting), plane) for setting in members]
    labels = [style.wrapped(label, LEGEND - 0.5, style.SMALL) for label in labels]
    handles = [Line2D([], [], color=color, label=label) for label, color in zip(labels, colors, strict=True)]
    place = {"loc": "center left", "bbox_to_anchor": (1.02, 0.5), "frameon": False, "fontsize": style.SMALL}
    legend = axes[-1].legend(handles=handles, handlelength=1.5, **place)
    legend.set_in_layout(False)  # it has a column of its own, which is not to push the bars of other planes away


def _drawn_label(directory: Directory, setting: Setting) -> str:
    """A setting's label; while a network that is told beta trains, each image has a beta of its own."""
    told = directory.value(setting, "model.conditioning") == "beta"
    return style.plain(f"{setting.name}, beta drawn for each image") if told else setting.label


def _within(label: str, plane: str) -> str:
    """A setting's label without what the heading of its plane says."""
    said = plane.split(", ")
    return ", ".join(part for part in label.split(", ") if part not in said) or label


def _value_text(directory: Directory, family: Family, setting: Setting) -> str:
    """A setting's value of the family's axis, as a bar has it."""
    value = directory.value(setting, family.axis) if family.axis else setting.label
    return f"{value:g}" if isinstance(value, int | float) else str(value)


def posterior_std(directory: Directory):
    """The posterior's std during training, for the models that use it."""
    lines = []
    for setting in directory.trained:
        epochs, values = directory.curve(setting, "train_mean_std")
        used = len(epochs) > 1 and (values > 0).all() and np.isfinite(values).all()
        if used and setting.role is not Role.DETERMINISTIC and setting.mean("mean_std")[0] != 0:
            lines.append(setting)
    if not lines:
        return None
    planes, note = _planes(directory, lines)
    columns = min(len(planes), 2)
    rows = -(-len(planes) // columns)
    title = f"The posterior's std during training, mean over latents and training images{note}"
    figure = style.new_figure(7.5 if columns == 1 else style.WIDTH, 3.6 * rows + 0.8, title)
    first, ends = None, []
    for number, (label, members) in enumerate(planes):
        first = axes = figure.add_subplot(rows, columns, number + 1, yscale="log", sharey=first)
        style.label_axes(axes, label, xlabel="epoch", ylabel="std" if number % columns == 0 else "")
        ends.append((axes, _std_lines(figure, axes, directory, members, label)))
    assert first is not None
    for axes, labels in ends:  # when the limits, which all share, are final
        style.plain_log(axes.yaxis, *first.get_ylim())
        placement.label_ends(axes, labels)
    return figure


def _std_lines(figure, axes, directory: Directory, members: Sequence[Setting], plane: str) -> list[tuple]:
    """The lines of some settings; returns the ends that are to be labelled."""
    ends, colors = [], style.line_colors(members)
    for setting, color in zip(members, colors, strict=True):
        epochs, values = directory.curve(setting, "train_mean_std")
        mean = values.mean(axis=0)
        axes.plot(epochs, mean, color=color, linewidth=1.5, label=setting.label)
        if len(values) > 1 and len(members) <= BANDS:
            axes.fill_between(epochs, values.min(axis=0), values.max(axis=0), color=color, alpha=0.2, linewidth=0)
        label = _drawn_label(directory, setting)
        label = _within(label, plane) if label == setting.label else style.wrapped(label, 1.8)
        ends.append((float(epochs[-1]), float(mean[-1]), label, color))
    style.tidy(axes)
    axes.set_xlim(None, max(end[0] for end in ends))
    if len(members) > style.LINES:
        _key(figure, directory, [axes], members, colors, plane)
        return []
    return ends


def rates(directory: Directory):
    """The rate of each latent, sorted, for each setting: which latents are used, and how much."""
    found = {setting: rate for setting in directory.trained if (rate := _sorted_rate(directory, setting)) is not None}
    if not found:
        return None
    title = "Rate of each latent, sorted, test split (mean over seeds)"
    return _rate_bars(found, title) if len(found) <= style.LINES else _rate_map(found, title)


def _sorted_rate(directory: Directory, setting: Setting) -> np.ndarray | None:
    """The rates of a setting's latents in falling order, mean over its runs; None where it has none."""
    codes = directory.array_of_runs(setting, "codes_mean")
    # A prior that ties the latents has one rate for all of them.
    latents = codes[0].shape[-1] if codes else 0
    runs = [rate for rate in directory.array_of_runs(setting, "rate_per_latent") if rate.shape == (latents,)]
    runs = [-np.sort(-rate) for rate in runs if np.isfinite(rate).all()]
    return np.mean(runs, axis=0) if runs else None


def _rate_bars(found: dict[Setting, np.ndarray], title: str):
    """A panel for each setting, all on one scale: that of the settings with a KL, if others would make theirs unreadable."""
    most = {setting: max(float(rate.max()), 1e-3) for setting, rate in found.items()}
    held = max((rate for setting, rate in most.items() if setting.role is not Role.NO_KL), default=0.0)
    top = held if held and max(most.values()) > 3 * held else max(most.values())
    columns = min(len(found), 4)
    rows = -(-len(found) // columns)
    figure = style.new_figure(max(2.5 * columns, 4.5), 2.2 * rows + 0.8, title)
    first = None
    for number, (setting, rate) in enumerate(found.items()):
        first = axes = figure.add_subplot(rows, columns, number + 1, sharex=first, sharey=first)
        axes.bar(np.arange(len(rate)) + 1, rate, color=setting.color, width=0.8)
        used = f"{int(np.sum(rate > USED))} of {len(rate)} above {USED:g} nats"
        used += f"\ncut off: up to {most[setting]:.1f} nats" if most[setting] > top else ""
        style.label_axes(axes, style.wrapped(setting.label, 2.5, style.TEXT), setting.color)
        box = {"facecolor": "white", "linewidth": 0, "pad": 2}
        axes.text(0.98, 0.96, used, transform=axes.transAxes, ha="right", va="top", fontsize=style.SMALL, bbox=box)
        below, left = number >= len(found) - columns, number % columns == 0
        style.label_axes(axes, xlabel="latent, by rate" if below else "", ylabel="nats per image" if left else "")
        axes.xaxis.get_major_locator().set_params(integer=True)
        style.tidy(axes)
    assert first is not None
    first.set_ylim(0, 1.18 * top)  # room for the number of those used
    return figure


def _rate_map(found: dict[Setting, np.ndarray], title: str):
    """A row for each setting and a cell for each latent, coloured by its rate."""
    table = np.full((len(found), max(map(len, found.values()))), np.nan)
    for row, rate in zip(table, found.values(), strict=True):
        row[: len(rate)] = rate
    figure = style.new_figure(7.5, min(0.2 * len(found), 9) + 1.4, title)
    axes = figure.add_subplot()
    image = axes.imshow(table, aspect="auto", cmap="viridis", vmin=0, interpolation="nearest")
    count = len(found)
    places = range(0, count, -(-count // NAMED))
    axes.set_yticks(places, [list(found)[place].label for place in places])
    axes.set_xticks(np.arange(table.shape[1]), np.arange(table.shape[1]) + 1)
    if table.shape[1] > 16:
        every = np.unique(np.linspace(0, table.shape[1] - 1, 9).round().astype(int))
        axes.set_xticks(every, every + 1)
    if table.shape[1] <= 10 and count <= NAMED:
        for (row, column), value in np.ndenumerate(table):
            if np.isfinite(value):
                tone = "white" if value < 0.6 * np.nanmax(table) else "black"
                axes.text(column, row, f"{value:.2f}", ha="center", va="center", color=tone, fontsize=style.SMALL)
    style.label_axes(axes, xlabel="latent, by rate")
    bar = figure.colorbar(image, ax=axes, pad=0.02)
    bar.set_label("nats per image", fontsize=style.TEXT)
    bar.ax.tick_params(labelsize=style.SMALL)
    return figure


# The estimators of a gradient that evaluation compares, and their colours.
ESTIMATORS = {"score": ("score function", style.VERMILLION), "reparameterized": ("reparameterisation", style.BLUE)}


def gradient_variance(directory: Directory):
    """The variance of two estimators of the gradient in the posterior's parameters, over the number of latents."""
    having = [s for s in directory.trained if all(f"gradient_variance_{name}" in s.rows[0] for name in ESTIMATORS)]
    lines, counts = over_latents(directory, having)
    if len(counts) < 2:
        return None
    title = "Variance of the reconstruction term's gradient in the posterior's mean and log-variance"
    figure = style.new_figure(8.0, 4.6, title)
    axes = figure.add_subplot(xscale="log", yscale="log")
    ends = []
    for place, (family, line) in enumerate(lines[: style.LINES // 2]):
        for name, (label, color) in ESTIMATORS.items():
            label += f" ({family})" if len(lines) > 1 else ""
            mean, error = np.array([line[count].mean(f"gradient_variance_{name}") for count in sorted(line)]).T
            mark = {"marker": "osD^"[place], "markersize": 4, "capsize": 2}
            axes.errorbar(sorted(line), mean, np.nan_to_num(error), color=color, label=label, **mark)
            ends.append((float(max(line)), float(mean[-1]), label, color))
    ylabel = "variance of one draw, summed over parameters\n(mean over test images; bars: standard error over seeds)"
    style.label_axes(axes, xlabel="latents", ylabel=ylabel)
    latent_ticks(axes, counts)
    style.tidy(axes)
    placement.label_ends(axes, ends)
    axes.set_xlim(None, 1.08 * counts[-1])  # the last point whole
    return figure


def over_latents(
    directory: Directory, settings: Sequence[Setting]
) -> tuple[list[tuple[str, dict[int, Setting]]], list[int]]:
    """Lines over the number of latents: (label, {latents: setting}) each; and every number there is."""
    lines: dict[tuple, dict[int, Setting]] = {}
    for setting in settings:
        others = tuple(value for key, value in setting.values.items() if key not in ("model.latents",))
        name = setting.name if setting.role is Role.CLOSED_FORM else ""
        if isinstance(count := directory.value(setting, "model.latents"), int):
            lines.setdefault((setting.role, name, *others), {})[count] = setting
    firsts = [next(iter(line.values())) for line in lines.values()]
    parts = [[part for part in first.label.split(", ") if not part.startswith("latents ")] for first in firsts]
    labels = [", ".join(part) or first.name for part, first in zip(parts, firsts, strict=True)]
    return list(zip(labels, lines.values(), strict=True)), sorted({count for line in lines.values() for count in line})


def latent_ticks(axes, counts: Sequence[int]) -> None:
    """The numbers of latents that there are, as many as can be read, on a log axis."""
    shown = list(counts)
    while len(shown) > 10:
        shown = shown[::2]
    axes.set_xticks(shown, [str(count) for count in shown])
    axes.set_xticks([], minor=True)
