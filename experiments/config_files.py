"""Config files as they are typed: `--config=FILE`, `--config.x.y=VALUE`, `--sweep=x.y=V1,V2,...`, and what there is to type.

Not by `ml_collections.config_flags`: it takes the last of two values for one field, reads `model.hidden=(8,x)` as the
tuple ('(8,x)',), answers an unknown name with a bare AttributeError, and runs the config file before JAX has its devices.
"""

import ast
import pathlib
import runpy
import traceback
from collections.abc import Callable, Sequence

from vae_jax.core import errors
from vae_jax.evaluation import config as evaluation
from vae_jax.study import grid
from vae_jax.study.config import FIELDS, find, typed
from vae_jax.system import traced


def load(path: str, overrides: Sequence[str], evaluated: str = "full") -> tuple[dict, Callable | None]:
    """The nested config of a config file with `x.y=value` overrides applied, and its `sweep`, if it has one.

    Args:
      path: of the config file.
      overrides: `x.y=value` texts.
      evaluated: the name of a set of `eval` fields; one that is overridden, or set by the sweep, is not the set's.

    Raises:
      UserError: no such file, field or set, a value of another type, or whatever code of the file raises.
    """
    module = run(path)
    if "get_config" not in module:
        raise errors.UserError(f"--config={path}: has no get_config(); see configs/base.py")
    config = _told(path, lambda: module["get_config"]().to_dict())
    for name in grid.flatten(config):
        find(name)
    changes = read_overrides(overrides)
    for key, value in (evaluation.overrides(evaluated) | changes).items():
        group, _, field = key.rpartition(".")
        (config.setdefault(group, {}) if group else config)[field] = value
    sweep = module.get("sweep")
    _refuse_hidden(changes, sweep, path)
    return config, sweep


def read_overrides(overrides: Sequence[str]) -> dict:
    """The values of `x.y=value` texts by dotted name, each as the type of its field."""
    changes: dict = {}
    for override in overrides:
        key, given, text = override.partition("=")
        if not given:
            raise errors.UserError(f"--config.{override}: should be --config.{override}=VALUE")
        if key in changes:
            raise errors.UserError(f"--config.{key} is given twice")
        changes[key] = typed(key, text)
    return changes


def _refuse_hidden(changes: dict, sweep: Callable | None, path: str) -> None:
    """An override of a name that the sweep sets anyway would do nothing."""
    rows: list[dict] = []
    if sweep:
        _told(path, lambda: sweep(rows.append))
    for row in rows:
        for key in changes.keys() & set(row if isinstance(row, dict) else ()):
            raise errors.UserError(f"--config.{key} has no effect: the sweep of {path} sets {key}")


def run(path: str) -> dict:
    """What a config file defines; the parts that it adds are then known.

    Raises:
      UserError: no such file, or whatever code of the file raises.
    """
    file = pathlib.Path(path)
    if not file.is_file() or file.suffix != ".py":
        names = [str(known) for known in _files()]
        raise errors.unknown("config", path, names) if names else errors.UserError(f"--config={path}: no such file")
    traced.depends_on(path)
    return _told(path, lambda: runpy.run_path(path))


def _told(path: str, function: Callable):
    """`function()`, which runs code of the config file: what that raises is told with its line."""
    try:
        return function()
    except Exception as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == path]
        where = f", line {lines[-1]}" if lines else ""
        raise errors.UserError(f"--config={path}{where}: {type(error).__name__}: {error}") from error


def parse_sweep(text: str) -> tuple[str, list[str]]:
    """KEY=V1,V2,... as its name and its values, split at commas outside brackets."""
    key, given, values = text.partition("=")
    if not given:
        raise errors.UserError(f"--sweep={text}: should be --sweep=KEY=V1,V2,...")
    return key, grid.split_values(values)


def listing() -> str:
    """The config files of the project, each with the first line of its note."""
    notes = {str(file): (ast.get_docstring(ast.parse(file.read_text())) or "").partition("\n")[0] for file in _files()}
    width = max(map(len, notes), default=0)
    return "\n".join(f"{file:{width}}  {note}" for file, note in notes.items())


def fields_help() -> str:
    """Every config field with its default, its sentence, and what is allowed."""
    lines = ["Config fields, for --config.NAME=VALUE and --sweep=NAME=V1,V2,..., with their defaults:", ""]
    for field in FIELDS.values():
        default = str(field.default).replace(" ", "")
        allowed = f" {field.allowed[0].upper()}{field.allowed[1:]}." if field.allowed else ""
        lines += [f"  {field.key}={default}", f"      {field.doc}{allowed}"]
    return "\n".join(lines)


def _files() -> list[pathlib.Path]:
    return sorted(file for file in pathlib.Path("configs").glob("*.py") if file.stem != "__init__")
