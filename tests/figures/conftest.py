"""Small studies made by hand: directories with the columns and arrays that training and evaluation write."""

import itertools
import math
import types

import numpy as np
import pytest

from vae_jax.figures import placement, style
from vae_jax.storage import run_directory, tables

VARIANTS = {  # name -> noise_scale, distortion_weight, betas
    "ae": (0.0, 1.0, (0.0,)),
    "vae_no_kl": (1.0, 1.0, (0.0,)),
    "kl_only": (1.0, 0.0, (1.0,)),
    "vae": (1.0, 1.0, (1.0,)),
    "beta_vae": (1.0, 1.0, (0.5, 2.0)),
}


def arrays_of(noise_scale: float, seed: int, latents: int = 2, shape=(8, 8, 1), labels: bool = True) -> dict:
    """Random arrays with the names and shapes that evaluation gives them."""
    generator = np.random.default_rng(seed)
    classes = np.arange(40) % 4
    corners = np.array([[0, 0], [0, 4], [4, 0], [4, 4]])[classes]
    mean = generator.normal(size=(40, latents)) + np.pad(corners, ((0, 0), (0, max(0, latents - 2))))[:, :latents]
    counts = {"images": 16, "reconstructions": 16, "samples": 64, "traversals": 9 * latents}
    counts |= {"interpolations": 36} if labels else {}
    counts |= {"plane": 400, "manifold": 289} if latents == 2 else {}
    arrays = {name: generator.random((count, *shape), np.float32) for name, count in counts.items()}
    if latents == 2:
        axes = [np.linspace(low, high, 20) for low, high in zip(mean.min(axis=0), mean.max(axis=0), strict=True)]
        arrays["plane_latents"] = np.array(list(itertools.product(axes[1][::-1], axes[0])))[:, ::-1]
    rate = np.linspace(1.0, 0.5, latents) if noise_scale else np.full(latents, np.inf)
    arrays |= {"codes_mean": mean, "codes_std": np.full_like(mean, 0.5 * noise_scale), "rate_per_latent": rate}
    return arrays | ({"labels": classes} if labels else {})


def write_run(workdir, settings: dict, name: str, seed: int = 0, arrays: bool = True, **shape) -> dict:
    """Write the arrays and the metrics of one run, numbered by its place; returns its row of results.csv."""
    run = len(list((workdir / "arrays").glob("*"))) if arrays else settings.pop("run")
    noise, weight = settings.get("objective.noise_scale", 1.0), settings.get("objective.distortion_weight", 1.0)
    beta = settings.get("objective.beta", 1.0)
    latents = settings.get("model.latents", shape.pop("latents", 2))
    generator = np.random.default_rng(run)
    if arrays:
        run_directory.write_arrays(run_directory.arrays_path(workdir, run), arrays_of(noise, seed, latents, **shape))
    lines = []
    for epoch in (1, 2, 3):
        values = {"loss": 30 + beta, "distortion": 30.0, "rate": 2 / (1 + beta), "mean_std": 0.9}
        lines.append({"run": run, "name": name, "seed": seed, "epoch": epoch})
        for split, (column, value) in itertools.product(("train", "valid"), values.items()):
            lines[-1][f"{split}_{column}"] = value * 0.9**epoch + 0.01 * seed
    run_directory.append_jsonl(workdir / "metrics.jsonl", lines)
    row = {"run": run, "name": name, "seed": seed} | settings | {"mean_std": noise}
    for prefix in ("", "train_"):
        rate = math.inf if noise == 0 else 20.0 if beta == 0 else (2 + generator.random()) / beta
        distortion = 20 + beta + generator.random() + 20 * (weight == 0)
        row |= {f"{prefix}distortion": distortion, f"{prefix}rate": rate, f"{prefix}elbo": -rate - distortion}
        row[f"{prefix}mse"] = generator.random()
    return row


def write_study(workdir, variants: dict = VARIANTS, seeds: int = 2, names: dict | None = None, **shape):
    """A finished directory of a small study, with a baseline; `names` are other names for its runs."""
    rows: list = []
    for seed, (name, (noise, weight, betas)) in itertools.product(range(seeds), variants.items()):
        for beta in betas:
            settings = {"objective.noise_scale": noise, "objective.distortion_weight": weight, "objective.beta": beta}
            rows.append(write_run(workdir, settings, (names or {}).get(name, name), seed, **shape))
    tables.write_csv(workdir / "results.csv", [*rows, {"run": len(rows), "name": "pca", "mse": 0.1, "train_mse": 0.1}])
    return workdir


def write_grid(workdir, keys: dict, seeds: int = 1, config: dict | None = None, name: str = "vae", **shape):
    """A study whose runs are the product of `keys`, dotted names to values, all under one name."""
    (workdir / "arrays").mkdir(exist_ok=True)
    rows: list = []
    for *values, seed in itertools.product(*keys.values(), range(seeds)):
        rows.append(write_run(workdir, dict(zip(keys, values, strict=True)), name, seed, **shape))
    tables.write_csv(workdir / "results.csv", rows)
    if config:
        run_directory.write_json(workdir / "config.json", {"config": config})
    return workdir


def write_table(workdir, rows) -> None:
    """A results.csv of rows that are numbered here."""
    tables.write_csv(workdir / "results.csv", [{"run": run} | row for run, row in enumerate(rows)])


def texts_of(figure) -> list:
    """Every text that is seen: its string, its size in points, and its box in pixels, (x0, y0, x1, y1)."""
    from matplotlib.axis import Tick
    from matplotlib.text import Text

    figure.draw_without_rendering()
    renderer = placement.renderer_of(figure)
    of_ticks = {id(text) for tick in figure.findobj(Tick) for text in (tick.label1, tick.label2)}
    texts = [text for text in figure.findobj(Text) if id(text) not in of_ticks]
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            low, high = sorted(axis.get_view_interval())
            shown = [tick for tick in axis.get_major_ticks() if low <= tick.get_loc() <= high]
            texts += [text for tick in shown for text in (tick.label1, tick.label2)]
    found = []
    for text in texts:
        if text.get_visible() and text.get_text().strip():
            found.append((text.get_text(), text.get_fontsize(), placement.box_of(text, renderer)))
    return found


def check_layout(figure) -> None:
    """Texts are large enough, lie inside the picture, and do not touch each other."""
    found = texts_of(figure)
    width, height = figure.canvas.get_width_height()
    for text, size, box in found:
        assert size >= style.SMALL, (text, size)
        assert box[0] >= -1 and box[1] >= -1 and box[2] <= width + 1 and box[3] <= height + 1, (text, box, width, height)
    for (a, _, one), (b, _, other) in itertools.combinations(found, 2):
        rotated = "ELBO" in a and "ELBO" in b  # parallel, and their upright boxes are larger than they are
        assert rotated or not placement.overlap(one, other, -1), (a, b)
    assert figure.get_figwidth() <= 13 and figure.get_figheight() <= 25


@pytest.fixture(scope="session")
def studies():
    """The functions of this file, for tests that make directories and look at figures."""
    return types.SimpleNamespace(
        VARIANTS=VARIANTS,
        arrays_of=arrays_of,
        write_run=write_run,
        write_study=write_study,
        write_grid=write_grid,
        write_table=write_table,
        check_layout=check_layout,
        texts_of=texts_of,
    )
