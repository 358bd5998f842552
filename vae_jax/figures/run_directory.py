"""A run directory as figures see it: settings and families, arrays of the runs that are shown, learning curves.

directory = Directory("runs/ablations", select={"model.latents": "2"})
for panel in directory.panels("samples").panels:
    panel.setting.label, panel.arrays["samples"]
"""

import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.core import errors
from vae_jax.figures import settings, style
from vae_jax.figures.settings import Family, Role, Setting
from vae_jax.storage import npz_headers, run_directory, tables

Arrays = dict[str, np.ndarray]
# Arrays of pictures, all of one shape [., height, width, channels] in a run; and those that have as many latents as codes.
PICTURES = (
    "images", "test_images", "samples", "reconstructions", "interpolations", "interpolation_images", "plane", "manifold",
    "traversals", "predictive_mean", "predictive_sigma", "predictive_low", "predictive_high",
)  # fmt: skip
CODES = ("codes_mean", "codes_std", "plane_latents", "prior_samples")
TOGETHER = {  # what a figure needs beside an array that it looks for
    "plane": ("plane_latents", "codes_mean"),
    "codes_mean": ("codes_std",),
    "reconstructions": ("images",),
    "traversals": ("rate_per_latent", "codes_mean"),
    "predictive_low": ("predictive_high", "predictive_mean", "predictive_sigma", "images"),
    "coverage": ("coverage_levels", "coverage_se", "pit_histogram"),
}

# What the distortion of a likelihood counts; any other likelihood is its own.
UNITS = {
    "bernoulli": "Bernoulli",
    "gaussian": "log density of the pixels",
    "continuous_bernoulli": "log density of the pixels",
    "discretized_logistic": "log probability of the grey levels",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """A setting with the one run of it that pictures show."""

    setting: Setting
    row: settings.Row
    arrays: Arrays


@dataclasses.dataclass(frozen=True, eq=False)
class Panels:
    """What one figure shows side by side, and what it says of the rest (see `settings.Choice`)."""

    panels: list[Panel]
    note: str

    def __bool__(self) -> bool:
        return bool(self.panels)

    def titled(self, title: str) -> str:
        """A figure's title with the note."""
        return f"{title}; {self.note}" if self.note else title


class Directory:
    """A run directory as the figures see it, without the runs that diverged, which are only counted.

    Args:
      workdir: with a `results.csv`; `config.json`, `metrics.jsonl` and `arrays/` are looked at where they exist.
      select: settings to keep, by config name (or "name", "seed") and value as text.

    Raises:
      UserError: no readable `results.csv`, a damaged file, or a selection that no run has.
    """

    def __init__(self, workdir: str | os.PathLike, select: Mapping[str, str] | None = None):
        self.workdir = pathlib.Path(workdir)
        every = tables.read_csv(self.workdir / "results.csv")
        self.config = run_directory.read_config(self.workdir) if (self.workdir / "config.json").exists() else {}
        self._check_settings(every)
        every = self._selected(every, select or {})
        self.rows = [row for row in every if "diverged" not in row]
        self.diverged = len(every) - len(self.rows)
        self.families = settings.families_of(self.rows, self.field)
        self.settings = [setting for family in self.families for setting in family.settings]
        self.trained = [setting for setting in self.settings if setting.role is not Role.CLOSED_FORM]
        self._read = functools.lru_cache(maxsize=2 * style.LINES)(self._read_arrays)
        self._read_one = functools.lru_cache(maxsize=None)(self._read_array)

    def field(self, key: str):
        """The field `key` of `config.json`, or None."""
        node: Any = self.config
        for part in ("config", *key.split(".")):
            node = node.get(part) if isinstance(node, dict) else None
        return node

    def value(self, setting: Setting, key: str, default=None):
        """The config field `key` of a setting: from the grid's column, else from `config.json`, else `default`."""
        value = settings.resolve(setting.rows[0], key, self.field)
        return default if value is None else value

    def unit(self, setting: Setting) -> str:
        """What a setting's distortion counts: only within one of these do numbers compare."""
        likelihood = "gaussian" if setting.role is Role.CLOSED_FORM else self.value(setting, "model.likelihood", "bernoulli")
        return UNITS.get(likelihood, likelihood)

    def family(self, setting: Setting) -> Family:
        """The family that the setting is of."""
        return next(family for family in self.families if any(member is setting for member in family.settings))

    def _check_settings(self, rows: Sequence[settings.Row]) -> None:
        """A column of the grid is of numbers where the config's field is one."""
        for key in tables.grid_keys(rows):
            is_number = settings.is_number(self.field(key))
            for row in rows:
                if is_number and isinstance(row.get(key, 0), str):
                    raise errors.UserError(f"{self.workdir / 'results.csv'}: {key}={row[key]}: should be a number")

    def _selected(self, rows: list[settings.Row], select: Mapping[str, str]) -> list[settings.Row]:
        """The rows that a selection keeps; a closed form stays where it has not the field."""
        for key, text in select.items():
            found = {id(row): settings.resolve(row, key, self.field) for row in rows}
            known = {str(value): None for row, value in zip(rows, found.values(), strict=True) if value is not None}
            if not known:
                names = ["name", "seed", *tables.grid_keys(rows)]
                raise errors.unknown("--select name", key, names)
            rows = [row for row in rows if _agrees(found[id(row)], text) or (found[id(row)] is None and "seed" not in row)]
            if not any(_agrees(found[id(row)], text) for row in rows):
                raise errors.UserError(f"--select={key}={text}: no run has it; there are {', '.join(known)}")
        return rows

    # Arrays.

    def panels(
        self, key: str, most: int = style.LINES, among: Sequence[Setting] | None = None, pictures: bool = True
    ) -> Panels:
        """Settings that differ in one thing and whose arrays have `key`, each with one run: of the same seed where they can.

        Args:
          key: an array.
          most: settings at most.
          among: settings that may be chosen; None is all.
          pictures: whether `key` holds pictures: then all chosen are of the size of the first.
        """
        able = [setting for setting in (self.trained if among is None else among) if self._shows(setting, key, pictures)]
        if pictures:
            shapes = [array.shape[1:] for setting in able if (array := self._array(setting.rows, key)) is not None]
            able = [setting for setting, shape in zip(able, shapes, strict=True) if shape == shapes[0]]
        choice = settings.comparison(able, most)
        seeds = [{row.get("seed") for row in setting.rows} for setting in choice.settings]
        shared = sorted(set.intersection(*seeds), key=settings.sort_key) if seeds else []
        panels = [self._panel(setting, shared[:1]) for setting in choice.settings]
        return Panels([panel for panel in panels if panel], choice.note)

    def pair(self, key: str, pictures: bool = True) -> Panels:
        """An autoencoder (or a model without KL) beside the best model with reconstruction and KL; else two settings."""
        able = [setting for setting in self.trained if self._shows(setting, key, pictures)]
        free = [setting for setting in able if setting.role in (Role.DETERMINISTIC, Role.NO_KL)]
        both = [setting for setting in able if setting.role is Role.BOTH]
        if free and both:
            best = max(both, key=_score)
            other = ("model.latents", *(k for k in best.values if k not in settings.WEIGHTS))
            like = [s for s in free if all(s.values.get(key) == best.values.get(key) for key in other)] or free
            note = "with KL the best by elbo" if len(both) > 1 else ""
            return Panels(self.panels(key, 2, [like[0], best], pictures).panels, note)
        choice = settings.comparison(able, style.LINES)
        if len(choice.settings) < 3 or any(
            len(setting.values) for setting in choice.settings if not self.family(setting).axis
        ):
            return self.panels(key, 2, able, pictures)
        best = max(choice.settings, key=_score)
        rest = [setting for setting in choice.settings if setting is not best]
        most = max(rest, key=lambda s: rate if math.isfinite(rate := s.mean("rate")[0]) else -math.inf)
        note = "; ".join(filter(None, ["most rate, and best elbo", choice.note]))
        return Panels(self.panels(key, 2, [most, best], pictures).panels, note)

    def _shows(self, setting: Setting, key: str, pictures: bool) -> bool:
        array = self._array(setting.rows, key)
        return array is not None and (not pictures or (array.ndim == 4 and array.shape[-1] in (1, 3)))

    def _array(self, rows: Sequence[settings.Row], key: str) -> np.ndarray | None:
        """The array `key` of the first of these runs that has arrays."""
        for row in rows:
            if (array := self._read_one(row["run"], key)) is not None:
                return array
        return None

    def array_of_runs(self, setting: Setting, key: str) -> list[np.ndarray]:
        """The array `key` of every run of a setting that has it."""
        return [array for row in setting.rows if (array := self._read_one(row["run"], key)) is not None]

    def _panel(self, setting: Setting, seeds: Sequence) -> Panel | None:
        """The run of one of these seeds if it can be shown, else the first that can."""
        for row in sorted(setting.rows, key=lambda row: row.get("seed") not in seeds):
            if (arrays := self._read(row["run"])) is not None:
                return Panel(setting, row, arrays)
        return None

    def _read_array(self, run: int, key: str) -> np.ndarray | None:
        path = run_directory.arrays_path(self.workdir, run)
        return npz_headers.read(path, str(path), {key}).get(key) if path.exists() else None

    def _read_arrays(self, run: int) -> Arrays | None:
        """All arrays of a run; None where it has none, or numbers that are not finite."""
        path = run_directory.arrays_path(self.workdir, run)
        if not path.exists():
            return None
        arrays = run_directory.read_arrays(path)
        check_arrays(path, arrays)
        # The rate of a deterministic code is infinite, and that is no divergence.
        finite = all(np.isfinite(arrays[key]).all() for key in arrays if arrays[key].dtype.kind == "f" and "rate" not in key)
        return arrays if finite else None

    def held_to_prior(self, panel: Panel) -> bool:
        """Whether the objective pulls the codes to the prior, as evaluation wrote; of a directory without that, by beta."""
        by_role = panel.setting.role in (Role.BOTH, Role.KL_ONLY)
        return bool(panel.arrays.get("held_to_prior", by_role))

    def has_normal_prior(self, setting: Setting) -> bool:
        """Whether p(z) is N(0, I)."""
        return self.value(setting, "model.prior", "normal") == "normal"

    # Learning curves.

    def curve(self, setting: Setting, column: str) -> tuple[np.ndarray, np.ndarray]:
        """(epochs [k], values [runs, k]) of a column of metrics.jsonl, at the epochs that all runs of the setting have."""
        runs = [self._curves.get((row["run"], column), {}) for row in setting.rows]
        runs = [run for run in runs if run]
        epochs = sorted(set.intersection(*(set(run) for run in runs))) if runs else []
        return np.array(epochs, float), np.array([[run[epoch] for epoch in epochs] for run in runs], float)

    @functools.cached_property
    def _curves(self) -> dict[tuple[int, str], dict[int, float]]:
        """{(run, column): {epoch: value}} of metrics.jsonl."""
        found: dict[tuple[int, str], dict[int, float]] = {}
        for row in run_directory.read_metrics(self.workdir):
            for column, value in row.items():
                if column.startswith(("train_", "valid_")):
                    found.setdefault((row["run"], column), {})[row["epoch"]] = float(value)
        return found


def _score(setting: Setting) -> float:
    return setting.score if not math.isnan(setting.score) else -math.inf


def _agrees(value, text: str) -> bool:
    """Whether a field's value is what `text` says: as numbers where both are."""
    try:
        return float(text) == float(value) if settings.is_number(value) else str(value) == text
    except ValueError:
        return False


def check_arrays(path: pathlib.Path, arrays: Arrays) -> None:
    """Refuse arrays that do not fit together: of a file that was changed, or of another program.

    Raises:
      UserError: the line names the file and the array.
    """

    def refuse(name: str, problem: str):
        raise errors.UserError(f"{path}: array {name!r} {problem}; evaluate the study anew (python -m experiments.evaluate)")

    for name, needed in TOGETHER.items():
        for other in needed:
            if name in arrays and other not in arrays:
                refuse(other, f"is missing, which {name!r} needs")
    pictures = {name: arrays[name].shape[1:] for name in PICTURES if name in arrays}
    for name, shape in pictures.items():
        if arrays[name].dtype.kind not in "fiu" or shape != next(iter(pictures.values())):
            refuse(
                name, f"has pictures of shape {shape}, not of {next(iter(pictures.values()))} as {next(iter(pictures))!r}"
            )
    codes = arrays.get("codes_mean")
    for name in CODES:
        if name in arrays and (codes is None or arrays[name].ndim != 2 or arrays[name].shape[1:] != codes.shape[1:]):
            refuse(name, f"has shape {arrays[name].shape}, which does not go with the codes")
    _check_lengths(arrays, refuse)


def _check_lengths(arrays: Arrays, refuse) -> None:
    """Arrays that belong to each other have as many entries."""
    equal = [
        ("codes_mean", "codes_std"),
        ("codes_mean", "labels"),
        ("images", "reconstructions"),
        ("plane", "plane_latents"),
    ]
    equal += [("coverage_levels", name) for name in ("coverage", "coverage_se")]
    equal += [("predictive_mean", f"predictive_{name}") for name in ("sigma", "low", "high")]
    for first, second in equal:
        if first in arrays and second in arrays and len(np.atleast_1d(arrays[first])) != len(np.atleast_1d(arrays[second])):
            refuse(second, f"has {len(np.atleast_1d(arrays[second]))} entries, not those of {first!r}")
    for name in ("plane", "manifold"):
        if name in arrays and math.isqrt(len(arrays[name])) ** 2 != len(arrays[name]):
            refuse(name, f"has {len(arrays[name])} pictures, which is no square")
