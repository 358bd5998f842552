"""Figures that show images or codes: the latent plane, samples, reconstructions, traversals, interpolations.

Each takes a `Directory` and returns a matplotlib Figure, or None where the directory has not what it shows (no images,
other than 2 latents, no classes).
"""

import math
from collections.abc import Sequence

import numpy as np

from vae_jax.evaluation import queries as pictures
from vae_jax.figures import style as plotting


def latent_plane(directory: plotting.Directory):
    """Mean codes of the test images, and what the decoder makes of the box that they lie in."""
    if not (pairs := directory.pair("plane")):
        return None
    title = "Codes of the test images, and the decoder's output over the same box of the latent plane"
    figure, legend = plotting.new_figure(11.6, 5.5 * len(pairs) + 1, title), None
    for number, drawn in enumerate(pairs):
        setting, arrays, _ = drawn
        left, right = (figure.add_subplot(len(pairs), 2, 2 * number + side) for side in (1, 2))
        box, side = arrays["plane_latents"], math.isqrt(len(arrays["plane"]))
        # The decoded points are the centres of the cells.
        half = np.maximum(np.ptp(box, axis=0), 1e-6) / (side - 1) / 2
        (x0, y0), (x1, y1) = box.min(axis=0) - half, box.max(axis=0) + half
        if not _scatter(left, arrays["codes_mean"], _classes(arrays)):
            legend = _classes(arrays)
        plotting.show(right, plotting.mosaic(arrays["plane"], side), extent=(x0, x1, y0, y1), aspect="auto")
        prior = directory.within_normal(drawn)
        note = " (dashed: the prior's 1 and 2 sigma)" if prior else ""
        left.set_title(f"{setting.label}: mean codes{note}", color=setting.color)
        right.set_title(f"{setting.label}: decoded", color=setting.color)
        for axes in (left, right):
            axes.set(xlim=(x0, x1), ylim=(y0, y1), xlabel="latent 1", ylabel="latent 2", box_aspect=1)
            axes.locator_params(nbins=6)
        right.set(xticks=left.get_xticks(), yticks=left.get_yticks(), xlim=(x0, x1), ylim=(y0, y1))
        if prior:
            _prior_circles(left)
            _prior_circles(right, "#F0E442")
    if legend is not None:
        _class_legend(figure, legend)
    return figure


# What each term of the loss does alone, by the runs that have only it, in order of preference; and both.
TERMS = {"reconstruction only": ("vae_no_kl", "ae"), "KL only": ("kl_only",), "reconstruction and KL": ("vae",)}


def latent_panels(directory: plotting.Directory):
    """Codes under reconstruction only, KL only, and both; other models where there are not two of these."""
    having = [d for d in directory.having("codes_mean", images=False) if d.arrays["codes_mean"].shape[1] == 2]
    names = plotting.by_name([drawn for drawn in having if _classes(drawn.arrays) is not None])
    chosen = {next((n for n in choice if n in names), ""): term for term, choice in TERMS.items()}
    chosen.pop("", None)
    if len(chosen) < 2:
        chosen = {name: chosen.get(name, "") for name in list(names)[:3]}
    if not chosen:
        return None
    title = "Codes of the test images under reconstruction only, KL only, and both"
    title = title if set(chosen.values()) == set(TERMS) else "Codes of the test images"
    if any(directory.within_normal(names[name][0]) for name in chosen):
        title += " (dashed: the prior's 1 and 2 sigma)"
    (figure, panels), legend = plotting.grid(len(chosen), 3.9, title), None
    for axes, (name, term) in zip(panels, chosen.items(), strict=True):
        setting, arrays, _ = names[name][0]
        codes, what = arrays["codes_mean"], "mean codes"
        if name == "kl_only":  # whose means are all 0
            noise = np.random.default_rng(0).standard_normal(codes.shape)
            codes, what = codes + arrays["codes_std"] * noise, "sampled codes"
        if not _scatter(axes, codes, _classes(arrays)):
            legend = _classes(arrays)
        if directory.within_normal(names[name][0]):
            _prior_circles(axes)
        axes.set(xlabel="latent 1", ylabel="latent 2", aspect="equal", adjustable="datalim", box_aspect=1)
        heading = f"{term} ({setting.label})" if term else setting.label
        axes.set_title(f"{heading}\n{what}", color=setting.color, fontsize=11)
        plotting.tidy(axes)
    if legend is not None:
        _class_legend(figure, legend)
    return figure


DENSITIES = 40  # test images whose posteriors are drawn


def densities(directory: plotting.Directory):
    """Posteriors of single test images in the latent that is used most, their aggregate, and the prior."""
    pairs = [d for d in directory.panels("codes_mean", images=False) if (d.arrays["codes_std"] > 0).all()]
    if not pairs:
        return None
    normal = [directory.has_normal_prior(drawn.setting) for drawn in pairs]
    title = f"q(z | x) of {DENSITIES} test images (thin) and of all of them together (thick)"
    title += "; dashed: the prior" if any(normal) else ""
    figure, panels = plotting.grid(len(pairs), 3.4, title, columns=4 if len(pairs) > 6 else 3)
    for axes, drawn, is_normal in zip(panels, pairs, normal, strict=True):
        setting, arrays, _ = drawn
        latent = int(np.argmax(arrays["codes_mean"].var(axis=0)))
        mean, std = arrays["codes_mean"][:, latent].astype(float), arrays["codes_std"][:, latent].astype(float)
        steps, labels = np.linspace(-5.5, 5.5, 111), _classes(arrays)
        numbers = np.zeros(len(mean), int) if labels is None else np.unique(labels, return_inverse=True)[1]
        for number, m, s in zip(numbers[:DENSITIES], mean, std, strict=False):
            color = plotting.GREY if labels is None else plotting.CLASSES[number % len(plotting.CLASSES)]
            axes.plot(m + s * steps, _normal(steps) / s, color=color, linewidth=0.7, alpha=0.7)
        draws = mean + std * np.random.default_rng(0).standard_normal((50, len(mean)))
        axes.hist(draws.ravel(), bins=80, density=True, histtype="step", color=setting.color, linewidth=2, zorder=3)
        reach = max(4.0, *np.abs(np.percentile(draws, [0.1, 99.9])))
        if is_normal:
            wide = np.linspace(-reach, reach, 400)
            axes.plot(wide, _normal(wide), color="black", linestyle="--", linewidth=1.5, zorder=4)
        axes.set(yscale="log", ylim=(1e-3, 3 * _normal(0) / std[:DENSITIES].min()), xlim=(-reach, reach))
        axes.set(xlabel=f"latent {latent + 1}", ylabel="density")
        axes.set_title(_held(directory, drawn), color=setting.color)
        plotting.tidy(axes)
    return figure


def _normal(z):
    return np.exp(-0.5 * np.square(z)) / math.sqrt(2 * math.pi)


def manifold(directory: plotting.Directory):
    """The decoder over the prior's quantiles, for 2 latents."""
    # The decoder of `kl_only` is never trained.
    if not (pairs := [drawn for drawn in directory.panels("manifold") if drawn.setting.name != "kl_only"]):
        return None
    title = "The decoder over the prior's quantiles, 2 % to 98 % of each latent"
    figure, panels = plotting.grid(len(pairs), 3.8, title, columns=3)
    for axes, drawn in zip(panels, pairs, strict=True):
        plotting.show(axes, plotting.mosaic(drawn.arrays["manifold"], math.isqrt(len(drawn.arrays["manifold"]))))
        axes.set(xlabel="latent 1", ylabel="latent 2")
        axes.set_title(_held(directory, drawn), color=drawn.setting.color)
    return figure


def _held(directory: plotting.Directory, drawn: plotting.Drawn) -> str:
    """A panel's title, which says where the prior is not what the codes were trained towards."""
    return drawn.setting.label + ("" if directory.held_to_prior(drawn) else "\n(codes not held to the prior)")


def samples(directory: plotting.Directory):
    """Decoder means of draws from the prior."""
    if not (pairs := directory.panels("samples")):
        return None
    figure, panels = plotting.grid(len(pairs), 2.8, f"Decoder means of {pictures.SAMPLES} draws from the prior")
    for axes, drawn in zip(panels, pairs, strict=True):
        plotting.show(axes, plotting.mosaic(drawn.arrays["samples"][: pictures.SAMPLES], 8))
        axes.set_title(_held(directory, drawn), color=drawn.setting.color)
    return figure


def reconstructions(directory: plotting.Directory):
    """The first test images, and each model's decoder mean at their mean codes."""
    if not (pairs := directory.panels("reconstructions")):
        return None
    strips = [("data", "black", pairs[0].arrays["images"])]
    strips += [(setting.label, setting.color, arrays["reconstructions"]) for setting, arrays, _ in pairs]
    height, width = strips[0][2].shape[1:3]
    title = "The first test images and their reconstructions"
    figure = plotting.new_figure(11.5, len(strips) * 0.65 * height / width + 0.4, title)
    _strips(figure.add_subplot(), strips)
    return figure


def _strips(axes, strips: Sequence[tuple[str, str, np.ndarray]]) -> None:
    """Rows of images under each other, with their labels in their colours: (label, color, images) each."""
    picture = plotting.mosaic(np.concatenate([images for _, _, images in strips]), len(strips[0][2]))
    plotting.show(axes, picture)
    places = (np.arange(len(strips)) + 0.5) * len(picture) / len(strips)
    axes.set_yticks(places, [label.replace(", ", "\n") for label, _, _ in strips])
    axes.tick_params(length=0)
    for tick, (_, color, _) in zip(axes.get_yticklabels(), strips, strict=True):
        tick.set_color(color)


def traversals(directory: plotting.Directory):
    """The first test image with one latent moved, a row for each latent."""
    if not (pairs := directory.pair("traversals")):
        return None
    most = max(len(arrays["traversals"]) // pictures.STEPS for _, arrays, _ in pairs)
    height, width = pairs[0].arrays["traversals"].shape[1:3]
    title = "The first test image with one latent moved, the others held"
    figure = plotting.new_figure(5.8 * len(pairs), 0.58 * most * height / width + 1.1, title)
    for number, drawn in enumerate(pairs):
        setting, arrays, _ = drawn
        axes = figure.add_subplot(1, len(pairs), number + 1)
        rows = np.split(arrays["traversals"], len(arrays["traversals"]) // pictures.STEPS)
        _strips(axes, [(str(place + 1), "black", row) for place, row in enumerate(rows)])
        over = "the prior, 2 % to 98 %" if directory.held_to_prior(drawn) else "its codes, 0.5 % to 99.5 %"
        axes.set(ylabel="latent, by use", xlabel=f"latent moved over {over}", anchor="N")
        axes.set_title(setting.label, color=setting.color)
    return figure


def interpolations(directory: plotting.Directory):
    """Decoder means on the line between the codes of two test images."""
    if not (pairs := directory.pair("interpolations")):
        return None
    # Another seed has other pairs of images.
    pairs = [drawn for drawn in pairs if drawn.row.get("seed") == pairs[0].row.get("seed")]
    images, height, width, _ = pairs[0].arrays["interpolations"].shape
    count = images // pictures.STEPS
    columns = min(2, count)
    rows = -(-count // columns)
    title = "From one test image to another: decoder means along the line between their codes"
    figure = plotting.new_figure(5.8 * columns, rows * (0.58 * len(pairs) * height / width + 0.2) + 0.4, title)
    for number in range(count):
        part = slice(number * pictures.STEPS, (number + 1) * pictures.STEPS)
        strips = [(setting.label, setting.color, arrays["interpolations"][part]) for setting, arrays, _ in pairs]
        _strips(figure.add_subplot(rows, columns, number + 1), strips)
    return figure


def _classes(arrays: plotting.Arrays) -> np.ndarray | None:
    """The labels, where they are a few classes."""
    labels = arrays.get("labels")
    return labels if labels is not None and labels.ndim == 1 and len(np.unique(labels)) <= 20 else None


def _scatter(axes, codes: np.ndarray, labels: np.ndarray | None) -> bool:
    """Codes coloured by class, each class's number at its median; False where the medians lie on each other."""
    from matplotlib import colors, patheffects

    style = {"s": float(np.clip(4000 / len(codes), 2, 12)), "linewidths": 0, "alpha": 0.8}
    if labels is None:
        axes.scatter(*codes.T, color=plotting.GREY, **style)
        return True
    classes = np.unique(labels)
    for number, label in enumerate(classes):
        axes.scatter(*codes[labels == label].T, color=plotting.CLASSES[number % len(plotting.CLASSES)], **style)
    medians = np.array([np.median(codes[labels == label], axis=0) for label in classes])
    scaled = medians / np.maximum(np.ptp(codes, axis=0), 1e-9)
    distances = np.linalg.norm(scaled[:, None] - scaled, axis=-1) + 10 * np.eye(len(classes))
    if np.median(distances.min(axis=1)) < 0.03:
        return False
    for number, (label, median) in enumerate(zip(classes, medians, strict=True)):
        color = tuple(0.75 * np.array(colors.to_rgb(plotting.CLASSES[number % len(plotting.CLASSES)])))  # darker, to be read
        text = axes.text(*median, str(label), color=color, weight="bold", clip_on=True)
        text.set(ha="center", va="center", path_effects=[patheffects.withStroke(linewidth=3, foreground="white")])
    return True


def _class_legend(figure, labels: np.ndarray) -> None:
    from matplotlib.lines import Line2D

    colors = {str(label): plotting.CLASSES[number % len(plotting.CLASSES)] for number, label in enumerate(np.unique(labels))}
    handles = [Line2D([], [], marker="o", linestyle="", color=color, label=label) for label, color in colors.items()]
    place = {"loc": "outside lower center", "ncols": 10, "frameon": False}
    figure.legend(handles=handles, title="class", handletextpad=0, columnspacing=1, **place)


def _prior_circles(axes, color: str = plotting.GREY) -> None:
    """1 and 2 sigma of N(0, I), without a say in the limits."""
    from matplotlib.patches import Circle

    if max(np.ptp(axes.get_xlim()), np.ptp(axes.get_ylim())) < 0.2:
        return  # a collapsed model: out of view, and slow, for its dashes would be millions
    for radius in (1, 2):
        axes.add_artist(Circle((0, 0), radius, fill=False, edgecolor=color, linewidth=1, linestyle="--"))
