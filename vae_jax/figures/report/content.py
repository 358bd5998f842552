"""What the page says of one study: its table, settings, curves, config and claims, as values that JSON has."""

import math
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vae_jax.core import errors
from vae_jax.figures import settings
from vae_jax.figures.report import packing
from vae_jax.figures.run_directory import Directory
from vae_jax.figures.settings import Role
from vae_jax.storage import run_directory, tables

CURVE_NUMBERS = 120_000  # of all learning curves together; more points are thinned out
# Colours that are seen on white and on black: of roles, of the one family that is swept, and of several families.
ROLE_COLORS = {
    Role.DETERMINISTIC: "#d55e00",
    Role.NO_KL: "#e69f00",
    Role.KL_ONLY: "#cc6fa4",
    Role.CLOSED_FORM: "#8a8a8a",
}
RAMP = ((47, 181, 118), (38, 148, 201), (92, 99, 220))
FAMILIES = ("#2694c9", "#2fb576", "#9a4f96", "#c9a227", "#d55e00", "#5c63dc", "#cc6fa4", "#8a8a8a")


def study(workdir: pathlib.Path, described: Mapping[str, Any]) -> dict[str, Any]:
    """Everything but the explorer and the pictures.

    Args:
      workdir: of an evaluated study.
      described: what `page.write` takes; of it `columns`, `main` and `fields`.

    Raises:
      UserError: no readable `results.csv`, or a damaged file.
    """
    directory = Directory(workdir)
    rows = tables.read_csv(workdir / "results.csv")
    documentation = {key: about["doc"] for key, about in described.get("fields", {}).items()} | described.get("columns", {})
    number_of = {row["run"]: at for at, setting in enumerate(directory.settings) for row in setting.rows}
    columns = list(dict.fromkeys(key for row in rows for key in row))
    varying = [key for key in tables.grid_keys(rows) if len({row.get(key) for row in rows if "seed" in row}) > 1]
    main = [*described.get("main", ()), *varying]
    return {
        "title": workdir.resolve().name,
        "header": header(directory, rows),
        "config": config(directory, described.get("fields", {})),
        "columns": [{"key": key, "help": column_help(key, documentation), "main": key in main} for key in columns],
        "settings": [
            {"label": each.label, "role": each.role.name.lower(), "color": color}
            for each, color in zip(directory.settings, colors(directory), strict=True)
        ],
        "families": families(directory),
        "rows": [{"setting": number_of.get(row["run"]), "cells": [cell(row.get(key)) for key in columns]} for row in rows],
        "curves": curves(workdir),
        "claims": claims(workdir),
    }


def cell(value: Any) -> Any:
    """A cell of the table: numbers with six digits, what is not finite as text, None where there is nothing."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else str(value)
    return value


def header(directory: Directory, rows: Sequence[Mapping]) -> dict[str, Any]:
    """On what the study ran, how large it is and how long it took."""
    trained = [row for row in rows if "seed" in row]
    events = _log(directory.workdir)
    seconds = {kind: sum(e.get("seconds", 0) for e in events if e.get("event") == kind) for kind in ("trained", "evaluated")}
    commands = [event["command"] for event in events if isinstance(event.get("command"), str)]
    data = directory.field("data.name")
    return {
        "data": str(directory.field("data.path") or data or "") if data == "npz" else str(data or ""),
        "runs": len(trained),
        "settings": len(directory.trained),
        "seeds": len({row["seed"] for row in trained}),
        "diverged": directory.diverged,
        "seconds": {kind: round(value, 1) for kind, value in seconds.items() if value},
        "command": commands[0] if commands else "",
        "device": str(directory.config.get("device", "")),
        "commit": str(directory.config.get("commit", "")),
        "versions": {str(name): str(version) for name, version in directory.config.get("versions", {}).items()},
    }


def _log(workdir: pathlib.Path) -> list[dict]:
    try:
        return run_directory.read_jsonl(workdir / "log.jsonl")
    except (FileNotFoundError, errors.UserError):
        return []  # times are nice to have


def config(directory: Directory, documentation: Mapping[str, Mapping]) -> list[dict[str, Any]]:
    """Every field of the config by its dotted name: the value or what the runs have, its default and its documentation."""
    found = []
    for key, value in _flat(directory.config.get("config", {})).items():
        values = dict.fromkeys(str(row[key]) for row in directory.rows if row.get(key) is not None)
        shown = ", ".join(values) if values else _shown(value)
        about = documentation.get(key, {})
        default = _shown(about["default"]) if "default" in about else None
        is_set = len(values) > 1 or (default is not None and shown != default)
        found.append({"key": key, "value": shown, "default": default, "help": about.get("doc", ""), "set": is_set})
    return found


def _shown(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "(" + ", ".join(map(str, value)) + ("," if len(value) == 1 else "") + ")"
    return str(value)


def _flat(node: Mapping, prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return found


ERRORS = {"_image_se": "Standard error over images of", "_se": "Standard error over draws of"}
SPLITS = {"train_": "Training split.", "valid_": "Validation split."}
COLUMNS = {"run": "Number of the run in the study.", "name": "Name of the run.", "seed": "Of every random number."}


def column_help(key: str, documentation: Mapping[str, str]) -> str:
    """What a column means; those of a split and of an error are said by the column that they belong to."""
    if key in documentation or key in COLUMNS:
        return documentation.get(key) or COLUMNS[key]
    for ending, text in ERRORS.items():
        if key.endswith(ending):
            return f"{text} {key.removesuffix(ending)}."
    for split, text in SPLITS.items():
        if key.startswith(split) and (found := column_help(key.removeprefix(split), documentation)):
            return f"{text} {found}"
    for pattern, text in documentation.items():  # of each factor or level
        if "<" in pattern and re.fullmatch(re.sub(r"<\w+>", ".+", pattern), key):
            return text
    return ""


def colors(directory: Directory) -> list[str]:
    """A colour for each setting: roles have their own, a swept family goes along a ramp, several families have one each."""
    found: dict[int, str] = {}
    both = [family for family in directory.families if family.role is Role.BOTH]
    for number, family in enumerate(both):
        for place, setting in enumerate(family.settings):
            at = place / max(len(family.settings) - 1, 1)
            found[id(setting)] = _ramp(at) if len(both) == 1 else _shade(FAMILIES[number % len(FAMILIES)], at - 0.5)
    return [found.get(id(setting)) or ROLE_COLORS[setting.role] for setting in directory.settings]


def _ramp(at: float) -> str:
    channels = [np.interp(at, np.linspace(0, 1, len(RAMP)), values) for values in zip(*RAMP, strict=True)]
    return "#" + "".join(f"{round(value):02x}" for value in channels)


def _shade(color: str, at: float) -> str:
    """Lighter below 0, darker above."""
    channels = [int(color[i : i + 2], 16) for i in (1, 3, 5)]
    mixed = [value + (255 - value) * -0.7 * at if at < 0 else value * (1 - 0.7 * at) for value in channels]
    return "#" + "".join(f"{round(value):02x}" for value in mixed)


def families(directory: Directory) -> list[dict[str, Any]]:
    """Settings whose points are joined by a line, by number."""
    numbers = {id(setting): at for at, setting in enumerate(directory.settings)}
    return [{"label": f.label, "settings": [numbers[id(s)] for s in f.settings]} for f in directory.families if f.axis]


def curves(workdir: pathlib.Path) -> dict[str, Any]:
    """metrics.jsonl as float32 [points, columns] of each run, the epoch first."""
    path = workdir / "metrics.jsonl"
    rows = run_directory.read_jsonl(path) if path.exists() else []
    rows = [row for row in rows if "run" in row and settings.is_number(row.get("epoch"))]
    columns = ["epoch", *dict.fromkeys(key for row in rows for key in row if key.startswith(("train_", "valid_")))]
    by_run: dict[int, list] = {}
    for row in rows:
        values = [row.get(key, math.nan) for key in columns]
        by_run.setdefault(row["run"], []).append([v if settings.is_number(v) else math.nan for v in values])
    total = sum(len(points) for points in by_run.values()) * len(columns)
    step = max(1, math.ceil(total / CURVE_NUMBERS))
    thinned = {run: np.array(points, np.float32)[_kept(len(points), step)] for run, points in by_run.items()}
    return {"columns": columns, "runs": [{"run": run, "data": packing.float32(points)} for run, points in thinned.items()]}


def _kept(points: int, step: int) -> list[int]:
    """Every `step`-th of so many, with the last."""
    return sorted({*range(0, points, step), points - 1})


def claims(workdir: pathlib.Path) -> list[dict[str, str]]:
    """`claims.json`, where there is one: a list of {"statement", "verdict", "numbers"}.

    Raises:
      UserError: it is something else.
    """
    path = workdir / "claims.json"
    if not path.exists():
        return []
    found = run_directory.read_json(path)
    names = ("statement", "verdict", "numbers")
    if not isinstance(found, list) or not all(isinstance(claim, dict) and "statement" in claim for claim in found):
        raise errors.UserError(f"{path}: should be a list of objects with {', '.join(names)}")
    return [{name: str(claim.get(name, "")) for name in names} for claim in found]
