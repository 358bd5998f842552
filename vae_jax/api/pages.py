"""`report.html` of trained studies: their models and test images described in NumPy, and written by `figures.report`.

vae_jax.report("runs/ablations")
"""

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vae_jax.api import trained
from vae_jax.core import errors
from vae_jax.data.dataset import Dataset
from vae_jax.evaluation import metrics, portable
from vae_jax.figures.report import explorer, page
from vae_jax.storage import npz_headers, run_directory, trained_models
from vae_jax.study import planning
from vae_jax.study.config import FIELDS

Load = Callable[[tuple], Dataset]


def report(*workdirs: str | os.PathLike, load: Load | None = None) -> pathlib.Path:
    """Write the page of these studies into the first one's directory; returns its path.

    Args:
      *workdirs: of the studies.
      load: data settings to a data set, as `planning.Study` has it: what was loaded already is not loaded again.

    Raises:
      UserError: a directory without readable results.
    """
    return page.write(workdirs, [describe(pathlib.Path(workdir), load or planning.loader()) for workdir in workdirs])


def describe(workdir: pathlib.Path, load: Load) -> dict[str, Any]:
    """What the page needs of a study beside its files; see `page.write`.

    Models that were trained on other data than the first one, or whose networks cannot be described, are left out.
    """
    found: dict[str, Any] = {
        "models": [],
        "fields": {key: {"doc": field.doc, "default": field.default} for key, field in FIELDS.items()},
        "columns": {name: _told(column) for name, column in metrics.columns().items()},
        "main": [name for name in metrics.decimals() if name in metrics.columns()],
    }
    source: Mapping | None = None
    images = 0
    for run in explorer.chosen(workdir):
        if not trained_models.path(workdir, run).is_file():
            continue
        model = trained.load(workdir, run=run)
        data = {key.removeprefix("data."): value for key, value in model.config.items() if key.startswith("data.")}
        if source is None:
            source, images = data, model.config.get("eval.images", 0)
        # Where the likelihood has no shared sigma the card has none.
        sigma, noise_scale = model.card["sigma"] or 1.0, model.card["noise_scale"]
        described = portable.describe(model.spec, model.variables, sigma, noise_scale)
        if data == source and described:
            ends = [model.config[f"objective.beta_{end}"] for end in ("low", "high")] if "log_beta" in described else None
            found["models"].append({"run": run, "betas": ends, **described})
    if source is None:
        return found
    return found | _images(workdir, source, images, found["models"], load)


def _told(column: metrics.Column) -> str:
    """What a column is, in which unit, and which way is better."""
    doc = column.doc[:1].upper() + column.doc[1:].rstrip(".")
    unit = f" ({column.unit})" if column.unit else ""
    return f"{doc}{unit}." + (f" {column.better.capitalize()} is better." if column.better else "")


def _images(workdir: pathlib.Path, source: Mapping[str, Any], images: int, models: list[dict], load: Load) -> dict[str, Any]:
    """The test split as it was evaluated; where the data are not there any more, the few images that evaluation kept."""
    try:
        loaded = load(planning.source_key({key: FIELDS[f"data.{key}"].typed(value) for key, value in source.items()}))
        loaded = loaded.evaluated(images)
    except (errors.UserError, OSError):
        path = run_directory.arrays_path(workdir, models[0]["run"]) if models else workdir
        arrays = npz_headers.read(path, str(path), {"images"}) if path.is_file() else {}
        return {"images": arrays.get("images")}
    test = loaded.splits["test"]
    names = [factor.name for factor in loaded.factors]
    found = _Images(loaded) if loaded.is_streamed else loaded.images("test")
    return {"images": found, "labels": test.labels, "factors": test.factors, "factor_names": names}


class _Images:
    """The test images of data on a disk, read where some of them are asked for, as of an array."""

    def __init__(self, dataset: Dataset):
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset.splits["test"])

    def __getitem__(self, rows: int | slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(len(self))[rows]
        found = self.dataset.chosen("test", np.atleast_1d(numbers))
        return found if numbers.ndim else found[0]
