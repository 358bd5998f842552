"""Figures of codes: two latents coloured by class, beside what the decoder makes of the plane, and their densities."""

import math
from collections.abc import Sequence

import numpy as np

from vae_jax.figures import style
from vae_jax.figures.run_directory import Arrays, Directory, Panel, Panels
from vae_jax.figures.settings import Role, Setting

SCALE = 2.2  # by how much panels on one scale differ until each is also shown on its own


def latent_plane(directory: Directory):
    """Mean codes of the test images, and what the decoder makes of the box that they lie in, at the same place."""
    if not (shown := directory.pair("plane")):
        return None
    title = "Codes of the test images, and the decoder's output over the same part of the plane"
    title = shown.titled(f"{title}{prior_note(directory, shown.panels)}")
    figure = style.new_figure(9.0, 4.5 * len(shown.panels) + 1.2, title, "compressed")
    labels = None
    for number, panel in enumerate(shown.panels):
        left, right = (figure.add_subplot(len(shown.panels), 2, 2 * number + side) for side in (1, 2))
        labels = _plane_row(directory, panel, left, right)
    if labels is not None:
        _class_legend(figure, labels)
    return figure


def _plane_row(directory: Directory, panel: Panel, left, right) -> np.ndarray | None:
    """Codes on the left, pictures on the right, both on the same square; returns the classes."""
    arrays, label = panel.arrays, panel.setting.label
    box, pictures, side = _thinned(arrays)
    # The decoded points are the centres of the cells.
    half = np.maximum(np.ptp(box, axis=0), 1e-6) / (side - 1) / 2
    (x0, y0), (x1, y1) = box.min(axis=0) - half, box.max(axis=0) + half
    classes = _classes(arrays)
    style.show(right, style.mosaic(pictures, side), extent=(x0, x1, y0, y1), aspect="equal")
    held = directory.held_to_prior(panel)
    style.label_axes(left, f"{style.wrapped(label, 4.2)}: mean codes", panel.setting.color)
    style.label_axes(right, f"{style.wrapped(label, 4.2)}: decoded", panel.setting.color)
    reach = prior_reach(directory, panel)
    limits = _square(np.array([[x0, y0], [x1, y1], *reach]))
    for axes in (left, right):
        axes.set(xlim=limits[0], ylim=limits[1], aspect="equal")
        style.label_axes(axes, xlabel="latent 1", ylabel="latent 2")
        axes.locator_params(nbins=6)
        axes.spines[:].set_visible(True)
        axes.spines[:].set_color("0.8")
    _scatter(left, arrays["codes_mean"], classes)
    draw_prior(left, directory, panel)
    draw_prior(right, directory, panel, style.ORANGE)
    right.set(xticks=left.get_xticks(), yticks=left.get_yticks(), xlim=limits[0], ylim=limits[1])
    if not held:
        left.set_title(left.get_title() + "\n(not held to the prior)", color=style.ink(panel.setting.color), fontsize=10)
    return classes


def _thinned(arrays: Arrays) -> tuple[np.ndarray, np.ndarray, int]:
    """Latents and pictures of the plane, every second row and column of a fine one; and how many stand side by side."""
    side = math.isqrt(len(arrays["plane"]))
    kept = np.arange(0, side, 2 if side > 12 else 1)
    chosen = (side * kept[:, None] + kept).ravel()
    return arrays["plane_latents"][chosen], arrays["plane"][chosen], len(kept)


def _square(corners: np.ndarray) -> np.ndarray:
    """Limits ((x0, x1), (y0, y1)) of the smallest square around the corners."""
    middle, reach = (corners.min(axis=0) + corners.max(axis=0)) / 2, 0.52 * np.ptp(corners, axis=0).max()
    return np.stack([middle - max(reach, 1e-3), middle + max(reach, 1e-3)], axis=1)


# What each term of the loss does alone, by the settings that have only it, in order of preference; and both.
TERMS = {
    "reconstruction only": (Role.NO_KL, Role.DETERMINISTIC),
    "KL only": (Role.KL_ONLY,),
    "reconstruction and KL": (Role.BOTH,),
}


def latent_panels(directory: Directory):
    """Codes under reconstruction only, KL only, and both, on one scale; other models where there are not two of these."""
    able = [s for s in directory.trained if (codes := directory.array_of_runs(s, "codes_mean")) and codes[0].shape[1] == 2]
    terms = {term: setting for term, roles in TERMS.items() if (setting := _of_roles(able, roles))}
    if len(terms) > 1:
        chosen = list(terms.values())
        panels = [directory.panels("codes_mean", 1, [setting], False).panels for setting in chosen]
        shown = Panels([panel for found in panels for panel in found], "")
        headings = {id(setting): term for term, setting in terms.items()}
        title = "Codes of the test images under " + ", ".join(terms)
    else:
        shown, headings = directory.panels("codes_mean", 4, able, False), {}
        title = shown.titled("Codes of the test images")
    if not shown or _classes(shown.panels[0].arrays) is None:
        return None
    return _panels_figure(directory, shown.panels, headings, title)


def _of_roles(able: Sequence[Setting], roles: Sequence[Role]) -> Setting | None:
    """The best setting of the first of these roles that there is: of those with equal weights, where there are any."""
    for role in roles:
        if members := [setting for setting in able if setting.role is role]:
            equal = [
                s for s in members if s.values.get("objective.beta") == s.values.get("objective.distortion_weight", 1.0)
            ]
            return max(equal or members, key=lambda s: s.score if not math.isnan(s.score) else -math.inf)
    return None


def _panels_figure(directory: Directory, panels: Sequence[Panel], headings: dict[int, str], title: str):
    """A row of panels on one scale, and a second one where some would be too small in it, each on its own."""
    drawn = [_codes(panel) for panel in panels]
    reach = [np.abs(codes).max(initial=0) for codes, _ in drawn]
    priors = [np.abs(prior_reach(directory, panel)).max(initial=0) for panel in panels]
    most = 1.05 * max([*reach, *priors, 1e-3])
    # Where the objective holds codes to the prior both are seen; else the codes alone.
    held = [prior if directory.held_to_prior(panel) else 0 for prior, panel in zip(priors, panels, strict=True)]
    own = [1.05 * max(*each, 1e-3) for each in zip(reach, held, strict=True)]
    rows = 2 if most > SCALE * min(own) else 1
    title += "; above on one scale, below each on its own" if rows == 2 else "; one scale"
    title += prior_note(directory, panels)
    width = max(3.2 * len(panels), 5.0)
    figure = style.new_figure(width, 3.3 * rows + 1.4, title, "compressed")
    for number, (panel, (codes, what)) in enumerate(zip(panels, drawn, strict=True)):
        for row in range(rows):
            axes = figure.add_subplot(rows, len(panels), row * len(panels) + number + 1)
            limit = most if row == 0 else own[number]
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit), aspect="equal")
            _scatter(axes, codes, _classes(panel.arrays), named=row == rows - 1)
            draw_prior(axes, directory, panel)
            axes.locator_params(nbins=6)
            style.label_axes(axes, xlabel="latent 1", ylabel="latent 2" if number == 0 else "")
            if row == 0:
                label = style.wrapped(panel.setting.label, 2.8)
                heading = headings.get(id(panel.setting), "")
                style.label_axes(axes, f"{heading}\n{label}, {what}" if heading else f"{label}\n{what}", panel.setting.color)
    _class_legend(figure, _classes(panels[0].arrays))
    return figure


def _codes(panel: Panel) -> tuple[np.ndarray, str]:
    """What is drawn of a panel: its mean codes, or one draw of each where the means are all alike."""
    codes = panel.arrays["codes_mean"]
    if panel.setting.role is Role.KL_ONLY or codes.std(axis=0).max() < 0.02:
        noise = np.random.default_rng(0).standard_normal(codes.shape)
        return codes + panel.arrays["codes_std"] * noise, "sampled codes"
    return codes, "mean codes"


POSTERIORS = 30  # test images whose posteriors are drawn
DENSITY_PANELS = 5
REACH = 4.0  # of the axis of the latent
PEAK = 2.4  # of the axis of single posteriors: six times the density of N(0, 1) at 0


def densities(directory: Directory):
    """Posteriors of single test images in the latent of most rate, and all of them together against the prior."""
    able = [s for s in directory.trained if (std := directory.array_of_runs(s, "codes_std")) and (std[0] > 0).all()]
    if not (shown := directory.panels("codes_mean", DENSITY_PANELS, able, pictures=False)):
        return None
    title = shown.titled("Densities of the codes of test images, in the latent of most rate, on one scale")
    count = len(shown.panels)
    figure = style.new_figure(max(2.0 * count, 5.5), 5.2, title)
    classes = None
    top = min(PEAK, 1.15 * max(_peak(panel.arrays) for panel in shown.panels))
    low = 0.0
    for number, panel in enumerate(shown.panels):
        above, below = (figure.add_subplot(2, count, row * count + number + 1) for row in (0, 1))
        classes = _density_column(directory, panel, above, below, number == 0)
        above.set_ylim(0, top)
        low = max(low, below.get_ylim()[1])
        if number:
            above.set_yticklabels([])
            below.set_yticklabels([])
    for below in figure.axes[1::2]:
        below.set_ylim(0, min(low, 2 * PEAK))
    _density_legend(figure, classes)
    return figure


def _density_column(directory: Directory, panel: Panel, above, below, first: bool) -> np.ndarray | None:
    """Single posteriors above, their mixture and the prior below; returns the classes."""
    arrays, setting = panel.arrays, panel.setting
    latent = _most_used(arrays)
    mean, std = arrays["codes_mean"][:, latent].astype(float), arrays["codes_std"][:, latent].astype(float)
    classes = _classes(arrays)
    numbers = np.zeros(len(mean), int) if classes is None else np.unique(classes, return_inverse=True)[1]
    z = np.linspace(-5.5, 5.5, 111)
    for number, m, s in zip(numbers[:POSTERIORS], mean, std, strict=False):
        color = style.GREY if classes is None else style.CLASSES[number % len(style.CLASSES)]
        above.plot(m + s * z, style.normal_density(z) / s, color=color, linewidth=0.9, alpha=0.85)
    wide, edges = np.linspace(-REACH, REACH, 401), np.linspace(-REACH, REACH, 41)
    below.stairs(mixture_density(mean, std, edges), edges, color=setting.color, fill=True, alpha=0.5)
    for axes in (above, below):
        if directory.has_normal_prior(setting):
            axes.plot(wide, style.normal_density(wide), color="black", linestyle="--", linewidth=1.3, zorder=4)
        elif (drawn := arrays.get("prior_samples")) is not None:
            bins = np.linspace(-REACH, REACH, 41 if len(drawn) > 300 else 17)
            density = np.histogram(drawn[:, latent], bins)[0] / len(drawn) / np.diff(bins)
            axes.stairs(density, bins, baseline=None, color="black", linestyle="--", linewidth=1.1, zorder=4)
        axes.set(xlim=(-REACH, REACH))
        style.tidy(axes)
    below.set_ylim(0, max(0.5, below.get_ylim()[1]))
    beyond = float(np.mean(np.abs(mean) > REACH))
    peak = _peak(arrays)
    notes = [f"peaks up to {peak:.0f}"] if peak > 1.2 * PEAK else []
    notes += [f"{100 * beyond:.0f} % of codes outside"] if beyond >= 0.005 else []
    if notes:
        look = {
            "va": "top",
            "fontsize": style.SMALL,
            "zorder": 5,
            "bbox": {"facecolor": "white", "alpha": 0.85, "linewidth": 0},
        }
        above.text(0.06, 0.98, "\n".join(notes), transform=above.transAxes, **look)
    free = "" if directory.held_to_prior(panel) else "\n(not held to the prior)"
    style.label_axes(above, style.wrapped(setting.label, 2.4) + free, setting.color)
    style.label_axes(above, ylabel=f"q(z | x), {POSTERIORS} images" if first else "")
    style.label_axes(below, xlabel=style.latent_number(latent), ylabel="mean over the test split" if first else "")
    return classes


def _peak(arrays: Arrays) -> float:
    """The largest density of the posteriors that are drawn."""
    std = arrays["codes_std"][:POSTERIORS, _most_used(arrays)]
    return float(1 / math.sqrt(2 * math.pi) / std.min())


def mixture_density(mean: np.ndarray, std: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """The density of the mixture of N(mean, std^2), as its exact mean over each bin: narrow posteriors count too."""
    root = math.sqrt(2)
    below = np.array([[math.erf((edge - m) / (root * s)) for edge in edges] for m, s in zip(mean, std, strict=True)])
    return np.diff(below.mean(axis=0)) / 2 / np.diff(edges)


def _most_used(arrays: Arrays) -> int:
    """The latent of the highest rate; where latents have no rate each, the one whose mean codes vary most."""
    rate, mean = arrays.get("rate_per_latent", np.zeros(0)), arrays["codes_mean"]
    by_rate = len(rate) == mean.shape[1] and np.isfinite(rate).all()
    return int(np.argmax(rate if by_rate else mean.var(axis=0)))


def _density_legend(figure, classes: np.ndarray | None) -> None:
    from matplotlib.lines import Line2D

    handles = [
        Line2D(
            [],
            [],
            color=style.GREY,
            linewidth=0.9,
            label="one test image" if classes is None else "one test image, by class",
        ),
        Line2D([], [], color=style.GREY, linewidth=5, alpha=0.5, label="all test images together"),
        Line2D([], [], color="black", linestyle="--", label="prior"),
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=3, frameon=False, fontsize=style.TEXT)


def _classes(arrays: Arrays) -> np.ndarray | None:
    """The labels, where they are a few classes."""
    labels = arrays.get("labels")
    return labels if labels is not None and labels.ndim == 1 and len(np.unique(labels)) <= 20 else None


def _scatter(axes, codes: np.ndarray, labels: np.ndarray | None, named: bool = True) -> None:
    """Codes coloured by class, with the names of the classes; after the limits are set."""
    look = {"s": float(np.clip(4000 / len(codes), 2, 12)), "linewidths": 0, "alpha": 0.8, "rasterized": True}
    if labels is None:
        axes.scatter(*codes.T, color=style.GREY, **look)
        return
    classes = np.unique(labels)
    for number, label in enumerate(classes):
        axes.scatter(*codes[labels == label].T, color=style.CLASSES[number % len(style.CLASSES)], **look)
    if named:
        _name_classes(axes, codes, labels)


def _name_classes(axes, codes: np.ndarray, labels: np.ndarray) -> None:
    """Each class's name at its median, if no other stands there; none where the classes lie on each other."""
    from matplotlib import patheffects

    classes = np.unique(labels)
    medians = np.array([np.median(codes[labels == label], axis=0) for label in classes])
    near = 0.06 * np.ptp(axes.get_xlim())
    if np.ptp(medians, axis=0).max() < 2 * near:
        return
    for number, (label, median) in enumerate(zip(classes, medians, strict=True)):
        if number and np.linalg.norm(medians[:number] - median, axis=1).min() < near:
            continue
        color = style.ink(style.CLASSES[number % len(style.CLASSES)])
        text = axes.text(*median, style.plain(str(label)), color=color, weight="bold", clip_on=True, fontsize=style.TEXT)
        text.set(ha="center", va="center", path_effects=[patheffects.withStroke(linewidth=3, foreground="white")])


def _class_legend(figure, labels: np.ndarray | None) -> None:
    from matplotlib.lines import Line2D

    if labels is None:
        return
    names = [style.plain(str(label)) for label in np.unique(labels)]
    handles = [
        Line2D([], [], marker="o", linestyle="", color=style.CLASSES[number % len(style.CLASSES)], label=name)
        for number, name in enumerate(names)
    ]
    place = {"loc": "outside lower center", "ncols": 10, "frameon": False, "fontsize": style.TEXT}
    figure.legend(handles=handles, title="class", title_fontsize=style.TEXT, handletextpad=0, columnspacing=1, **place)


DRAWS = 250  # of a prior in one plane


def draw_prior(axes, directory: Directory, panel: Panel, color: str = "0.25") -> None:
    """1 and 2 sigma of N(0, I), or draws from another prior where evaluation wrote some; without a say in the limits."""
    from matplotlib.patches import Circle

    if directory.has_normal_prior(panel.setting):
        for radius in (1, 2):
            axes.add_artist(Circle((0, 0), radius, fill=False, edgecolor=color, linewidth=1, linestyle="--", zorder=4))
    elif (drawn := panel.arrays.get("prior_samples")) is not None:
        limits = axes.get_xlim(), axes.get_ylim()
        axes.scatter(*drawn[:DRAWS].T, marker="+", color=color, s=14, linewidths=0.7, alpha=0.8, zorder=4, label="prior")
        axes.set(xlim=limits[0], ylim=limits[1])


def prior_reach(directory: Directory, panel: Panel) -> np.ndarray:
    """Two corners (x, y) of a box with the prior of a panel; none where it is not known."""
    if directory.has_normal_prior(panel.setting):
        return np.array([[-2.1, -2.1], [2.1, 2.1]])
    if (drawn := panel.arrays.get("prior_samples")) is None:
        return np.zeros((0, 2))
    return np.percentile(drawn, [2, 98], axis=0)


def prior_note(directory: Directory, panels: Sequence[Panel]) -> str:
    """What stands for the priors of these panels, for a title."""
    normal = [directory.has_normal_prior(panel.setting) for panel in panels]
    drawn = any("prior_samples" in panel.arrays for panel, is_normal in zip(panels, normal, strict=True) if not is_normal)
    notes = ["dashed: 1 and 2 sigma of N(0, I)"] if any(normal) else []
    notes += ["crosses: draws from the prior"] if drawn else []
    return "".join(f"; {note}" for note in notes)
