"""Figures of a run directory: its tables and arrays in, pictures out, without JAX.

    draw.draw("runs/ablations")
    draw.draw("runs/grid", only=("samples",), select={"model.latents": "8"}, format="pdf")

A figure is a function of a `run_directory.Directory` that returns a matplotlib Figure, or None where the directory has not
what it shows; and its line in `FIGURES`. An animation returns an `animation.Animation` and has its line in `ANIMATIONS`.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vae_jax import __version__
from vae_jax.core import errors
from vae_jax.core.registry import Registry
from vae_jax.figures import animation, calibration, factors, images, latents, learning, linear, over_beta, rate_distortion
from vae_jax.figures.run_directory import Directory
from vae_jax.storage import run_directory

Function = Callable[[Directory], Any]

FIGURES: Registry[Function] = Registry(
    "figure",
    {
        "learning_curves": learning.learning_curves,
        "rates": learning.rates,
        "latent_plane": latents.latent_plane,
        "latent_panels": latents.latent_panels,
        "densities": latents.densities,
        "manifold": images.manifold,
        "samples": images.samples,
        "reconstructions": images.reconstructions,
        "traversals": images.traversals,
        "interpolations": images.interpolations,
        "trade_off": rate_distortion.trade_off,
        "latents": linear.latents,
        "posterior_std": learning.posterior_std,
        "water_filling": linear.water_filling,
        "gradient_variance": learning.gradient_variance,
        "over_beta": over_beta.over_beta,
        "factors_over_beta": over_beta.factors_over_beta,
        "steering": rate_distortion.steering,
        "priors": rate_distortion.priors,
        "intervals": calibration.intervals,
        "reliability": calibration.reliability,
        "line": factors.line,
        "factor_read": factors.factor_read,
        "prior_draws": factors.prior_draws,
        "factor_traversals": factors.factor_traversals,
        "attribute_vectors": factors.attribute_vectors,
        "disentanglement": factors.disentanglement,
    },
)
ANIMATIONS: Registry[Function] = Registry(
    "animation", {"traversals": animation.traversals, "interpolations": animation.interpolations}
)
FORMATS = ("png", "pdf", "svg")
DRAWN = "drawn.json"  # in the folder of the figures: what was drawn, and from what
KEPT = {"from", "content"}  # of each: a digest of what it was drawn from, and of the file
DPI = 150


def draw(
    workdir: str | os.PathLike, only: Sequence[str] = (), select: Mapping[str, str] | None = None, format: str = "png"
) -> list[pathlib.Path]:
    """Draw every figure that the directory has the data for into `workdir/figures`, unless it is there from the same data.

    Args:
      workdir: a run directory with a `results.csv`.
      only: names of figures; () is all. What is not asked for is left as it is.
      select: settings that are shown, by config name and value as text: {"objective.beta": "4"}.
      format: "png", "pdf" or "svg"; animations are always GIF.

    Returns:
      The paths of the figures, drawn now or before.

    Raises:
      UserError: no readable `results.csv`, a damaged file, or a name, selection or format that there is not.
    """
    if format not in FORMATS:
        raise errors.UserError(f"--format={format}: should be one of {', '.join(FORMATS)}")
    for name in only:
        if name not in FIGURES and name not in ANIMATIONS:
            raise errors.unknown("figure", name, dict.fromkeys([*FIGURES, *ANIMATIONS]))
    workdir = pathlib.Path(workdir)
    directory, folder = Directory(workdir, select), workdir / "figures"
    before, source = _read_drawn(folder), _digest(workdir, select or {})
    drawn, paths, own = dict(before), [], run_directory.recorded(workdir)
    for file, function, is_ours in _files(format, only):
        path = folder / file
        fresh = is_ours and before.get(file) == {"from": source, "content": _content(path)}
        if not fresh and (figure := function(directory)) is not None:
            run_directory.record(workdir, [f"figures/{file}", f"figures/{DRAWN}"])
            folder.mkdir(exist_ok=True)
            _save(figure, path, format)
            drawn[file] = {"from": source, "content": _content(path)}
            fresh = True
        if fresh:
            paths.append(path)
        elif f"figures/{file}" in own:
            path.unlink(missing_ok=True)  # drawn before from other numbers
            drawn.pop(file, None)
    # Another format, drawn from other data, would be a figure that is not true any more.
    for file in [file for file in drawn if drawn[file]["from"] != source and f"figures/{file}" in own and not only]:
        (folder / file).unlink(missing_ok=True)
        del drawn[file]
    if drawn != before:
        run_directory.write_json(folder / DRAWN, drawn)
    return paths


def _files(format: str, only: Sequence[str]) -> list[tuple[str, Function, bool]]:
    """(file, its function, whether it is of this package) of what is asked for; an outside one may change unseen."""
    asked = [(f"{name}.{format}", FIGURES, name) for name in FIGURES] + [(f"{n}.gif", ANIMATIONS, n) for n in ANIMATIONS]
    return [(file, table[name], name not in table.origin) for file, table, name in asked if not only or name in only]


def _save(figure, path: pathlib.Path, format: str) -> None:
    with run_directory.atomic_write(path, "wb") as file:
        if isinstance(figure, animation.Animation):
            figure.save(file)
            return
        metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[format]
        crop = {"bbox_inches": "tight", "pad_inches": 0.08} if getattr(figure, "cropped", False) else {}
        figure.savefig(file, format=format, dpi=DPI, metadata=metadata, **crop)


def _read_drawn(folder: pathlib.Path) -> dict[str, dict[str, str]]:
    """What was drawn: by file name, a digest of what from, and of the file; {} where that cannot be read."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        record = json.loads((folder / DRAWN).read_text())
        if isinstance(record, dict):
            plain = {
                name: drawn for name, drawn in record.items() if name == os.path.basename(name) and isinstance(drawn, dict)
            }
            return {name: drawn for name, drawn in plain.items() if set(drawn) == {"from", "content"}}
    return {}


def _content(path: pathlib.Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else ""


def _digest(workdir: pathlib.Path, select: Mapping[str, str]) -> str:
    """Of all that a figure depends on: the directory's files, the selection, this package and matplotlib."""
    import matplotlib

    total = hashlib.blake2b(digest_size=16)
    total.update(json.dumps([__version__, matplotlib.__version__, sorted(select.items())]).encode())
    here = sorted(pathlib.Path(__file__).parent.glob("*.py"))
    data = [workdir / name for name in ("config.json", "results.csv", "metrics.jsonl")]
    for path in [*here, *data, *sorted((workdir / "arrays").glob("run_*.npz"))]:
        total.update(f"{path.name} {_content(path)}\n".encode())
    return total.hexdigest()
