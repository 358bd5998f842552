"""A study as TensorBoard's event files, by tensorboardX, without TensorFlow.

    paths = tensorboard.write("runs/ablations")     # then: tensorboard --logdir=runs/ablations/tensorboard

A file for each run, in a folder of its own: learning curves as scalars over epochs, and settings with final metrics as
hyperparameters. And one for the figures.
"""

import math
import os
import pathlib
import re
import struct
from collections.abc import Iterator, Sequence
from typing import Any

from vae_jax.core import errors
from vae_jax.storage import run_directory, tables
from vae_jax.storage.run_directory import Row

FOLDER = "tensorboard"
FILE = "events.out.tfevents.study"  # no time in it: the next one replaces it
FINAL = "final/"  # heads the metrics of results.csv
CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}  # of a PNG, by its colour type


def require() -> None:
    """Refuse where tensorboardX is not installed.

    Raises:
      UserError: it is not.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError as error:
        raise errors.UserError("--tensorboard needs tensorboardX: pip install tensorboardX") from error


def write(workdir: str | os.PathLike) -> list[pathlib.Path]:
    """Write the event files of a study into `workdir/tensorboard`, from its tables and its figures that are PNG.

    Numbers that are not finite are left out. The files belong to the study: `--restart` removes them.

    Args:
      workdir: a run directory with a `results.csv`.

    Returns:
      The paths of the files.

    Raises:
      UserError: no tensorboardX, no readable `results.csv` or `metrics.jsonl`, or a file in the way that is not the study's.
    """
    require()
    from tensorboardX import summary

    workdir = pathlib.Path(workdir)
    rows, curves = tables.read_csv(workdir / "results.csv"), tables.grouped(run_directory.read_metrics(workdir), ["run"])
    # The same in every file: TensorBoard takes the columns of its table from the first that it finds.
    experiment = summary.hparams(*(_union(list(map(part, rows))) for part in (_settings, _metrics)))[0]
    events = {}
    for row in rows:
        curve = curves.get((row["run"],), [])
        events[_folder(row)] = [*_scalars(curve), *_hyperparameters(row, experiment, curve)]
    events["figures"] = list(_images(sorted((workdir / "figures").glob("*.png"))))
    names = {f"{FOLDER}/{folder}/{FILE}": summaries for folder, summaries in events.items() if summaries}
    for name in names.keys() - set(run_directory.recorded(workdir)):
        if (workdir / name).exists():
            raise errors.UserError(f"{workdir / name}: is there, and no study recorded writing it; move it")
    run_directory.record(workdir, names)
    time = (workdir / "results.csv").stat().st_mtime
    for name, summaries in names.items():
        _write(workdir / name, summaries, time)
    return [workdir / name for name in names]


def _folder(row: Row) -> str:
    """Of a run; a closed form has no seed."""
    name = re.sub(r"[^\w.+-]", "_", row["name"])
    return f"{row['run']:04d}_{name}" + (f"_seed{row['seed']}" if "seed" in row else "")


def _settings(row: Row) -> Row:
    return {key: value for key, value in row.items() if key in ("name", "seed") or "." in key}


def _metrics(row: Row) -> Row:
    """The final metrics that are finite, without their errors, by the tag of their scalar."""
    found = {key: value for key, value in row.items() if key not in ("run", "name", "seed") and "." not in key}
    return {FINAL + key: value for key, value in found.items() if not key.endswith("_se") and math.isfinite(value)}


def _union(rows: Sequence[Row]) -> Row:
    return {key: value for row in rows for key, value in row.items()}


def _scalars(curve: Sequence[Row]) -> Iterator[tuple[int, Any]]:
    """(epoch, summary) of each number of a run's lines of metrics.jsonl; `train_loss` is `train/loss`."""
    from tensorboardX import summary

    for row in curve:
        for key, value in row.items():
            if key not in ("run", "name", "seed", "epoch", "step") and math.isfinite(value):
                yield row["epoch"], summary.scalar(re.sub("^(train|valid)_", r"\1/", key), value)


def _hyperparameters(row: Row, experiment, curve: Sequence[Row]) -> Iterator[tuple[int, Any]]:
    """(epoch, summary) of what TensorBoard's table of hyperparameters shows of a run."""
    from tensorboardX import summary

    last = max((line["epoch"] for line in curve), default=0)
    metrics = _metrics(row)
    _, start, end = summary.hparams(_settings(row), metrics)
    yield from ((0, part) for part in (experiment, start, end))
    yield from ((last, summary.scalar(tag, value)) for tag, value in metrics.items())


def _images(paths: Sequence[pathlib.Path]) -> Iterator[tuple[int, Any]]:
    """(0, summary) of each figure, with the bytes of its file."""
    from tensorboardX.proto.summary_pb2 import Summary

    for path in paths:
        content = path.read_bytes()
        if content[:8] != b"\x89PNG\r\n\x1a\n" or len(content) < 26:
            continue
        width, height, _, kind = struct.unpack(">IIBB", content[16:26])
        image = Summary.Image(height=height, width=width, colorspace=CHANNELS.get(kind, 0), encoded_image_string=content)
        yield 0, Summary(value=[Summary.Value(tag=path.stem, image=image)])


def _write(path: pathlib.Path, summaries: Sequence[tuple[int, Any]], time: float) -> None:
    """An event file of these summaries, with one time for all: no table knows the clock. The old file, or the new."""
    from tensorboardX.proto.event_pb2 import Event
    from tensorboardX.record_writer import RecordWriter

    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    writer = RecordWriter(str(part.absolute()))
    try:
        writer.write(Event(wall_time=time, file_version="brain.Event:2").SerializeToString())
        for step, summary in summaries:
            writer.write(Event(wall_time=time, step=step, summary=summary).SerializeToString())
    finally:
        writer.close()
    os.replace(part, path)
