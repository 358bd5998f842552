"""Figures of a run directory: its tables and arrays in, pictures out, without JAX.

    draw.draw("runs/ablations")
    draw.draw("runs/grid", only=("samples",), select={"model.latents": "8"}, format="pdf")

A figure is a function of a `run_directory.Directory` that returns a matplotlib Figure, or None where the directory has not
what it shows; and its line in `FIGURES`. An animation returns an `animation.Animation` and has its line in `ANIMATIONS`.
"""

import collections
import contextlib
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from vae_jax import __version__
from vae_jax.core import errors
from vae_jax.core.registry import Registry
from vae_jax.figures import (
    animation,
    calibration,
    factors,
    fonts,
    images,
    latents,
    learning,
    linear,
    over_beta,
    placement,
    rate_distortion,
    style,
)
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.second import Answer, Asked, Process
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
MARGIN = 0.08  # inches left around a figure whose edges are cut


def draw(
    workdir: str | os.PathLike,
    only: Sequence[str] = (),
    select: Mapping[str, str] | None = None,
    format: str = "png",
    second: Process | None = None,
) -> list[pathlib.Path]:
    """Draw every figure that the directory has the data for into `workdir/figures`, unless it is there from the same data.

    Args:
      workdir: a run directory with a `results.csv`.
      only: names of figures; () is all. What is not asked for is left as it is.
      select: settings that are shown, by config name and value as text: {"objective.beta": "4"}.
      format: "png", "pdf" or "svg"; animations are always GIF.
      second: a process that draws some of them at the same time.

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
    drawn, own, files = dict(before), run_directory.recorded(workdir), _files(format, only)
    stale = [
        Asked(file, str(workdir), select or {}, source)
        for file, is_ours in files.items()
        if not is_ours or before.get(file) != {"from": source, "content": _digest_of(folder / file)}
    ]
    for asked, content in _contents(stale, directory, second):
        file = asked.file
        if content is not None:
            run_directory.record(workdir, [f"figures/{file}", f"figures/{DRAWN}"])
            folder.mkdir(exist_ok=True)
            with run_directory.atomic_write(folder / file, "wb") as written:
                written.write(content)
            drawn[file] = {"from": source, "content": _digest_of(folder / file)}
            continue
        del files[file]
        if f"figures/{file}" in own:
            (folder / file).unlink(missing_ok=True)  # drawn before from other numbers
            drawn.pop(file, None)
    # Another format, drawn from other data, would be a figure that is not true any more.
    for file in [file for file in drawn if drawn[file]["from"] != source and f"figures/{file}" in own and not only]:
        (folder / file).unlink(missing_ok=True)
        del drawn[file]
    if drawn != before:
        run_directory.write_json(folder / DRAWN, dict(sorted(drawn.items())))
    return [folder / file for file in files]


def _files(format: str, only: Sequence[str]) -> dict[str, bool]:
    """The files that are asked for, and whether their functions are of this package: an outside one may change unseen."""
    asked = [(f"{name}.{format}", FIGURES, name) for name in FIGURES] + [(f"{n}.gif", ANIMATIONS, n) for n in ANIMATIONS]
    return {file: name not in table.origin for file, table, name in asked if not only or name in only}


def _contents(stale: Sequence[Asked], directory: Directory, second: Process | None) -> Iterator[tuple[Asked, bytes | None]]:
    """Each file's content, or None where there is nothing to show: drawn here from the first on, there from the last."""
    waiting = collections.deque(stale)

    def draw_there() -> list[tuple[Asked, Answer | None]]:
        answers = []
        while second and waiting:
            with contextlib.suppress(IndexError):  # the last one was taken here
                asked = waiting.pop()
                answers.append((asked, second.draw(asked)))
        return answers

    with ThreadPoolExecutor(1) as thread:
        there = thread.submit(draw_there)
        try:
            while waiting:
                asked = waiting.popleft()
                yield asked, content(asked, directory)
        finally:
            waiting.clear()  # where one cannot be drawn or written
    for asked, answer in there.result():
        if answer and answer.missing:
            fonts.say(answer.missing)
        yield asked, answer.content if answer else content(asked, directory)


def content(asked: Asked, directory: Directory | None = None) -> bytes | None:
    """The content of a figure's file; None where the directory has not what it shows."""
    name, _, format = asked.file.rpartition(".")
    table = ANIMATIONS if format == "gif" else FIGURES
    figure = table[name](directory or Directory(asked.workdir, asked.select))
    if figure is None:
        return None
    file = io.BytesIO()
    if isinstance(figure, animation.Animation):
        figure.save(file)
    else:
        metadata = {"png": {"Software": None}, "pdf": {"CreationDate": None}, "svg": {"Date": None}}[format]
        figure.savefig(file, format=format, dpi=DPI, metadata=metadata, **_crop(figure, format))
    return file.getvalue()


def _crop(figure: Any, format: str) -> dict[str, Any]:
    """What `savefig` needs to cut the figure's edges. A PNG is laid out here; `savefig` would draw it twice for that."""
    cropped = getattr(figure, "cropped", None)  # None: not one of `style.new_figure`
    if format != "png" or cropped is None:
        return {"bbox_inches": "tight", "pad_inches": MARGIN} if cropped else {}
    figure.set_dpi(DPI)
    style.settle(figure)
    return {"bbox_inches": figure.get_tightbbox(placement.renderer_of(figure)).padded(MARGIN)} if cropped else {}


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


def _digest_of(path: pathlib.Path) -> str:
    return hashlib.blake2b(path.read_bytes(), digest_size=16).hexdigest() if path.is_file() else ""


def _digest(workdir: pathlib.Path, select: Mapping[str, str]) -> str:
    """Of all that a figure depends on: the directory's files, the selection, this package and matplotlib."""
    import matplotlib

    total = hashlib.blake2b(digest_size=16)
    total.update(json.dumps([__version__, matplotlib.__version__, sorted(select.items())]).encode())
    here = sorted(pathlib.Path(__file__).parent.glob("*.py"))
    data = [workdir / name for name in ("config.json", "results.csv", "metrics.jsonl")]
    for path in [*here, *data, *sorted((workdir / "arrays").glob("run_*.npz"))]:
        total.update(f"{path.name} {_digest_of(path)}\n".encode())
    return total.hexdigest()
