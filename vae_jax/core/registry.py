"""Parts that a config names: one table for each kind, to which any file may add a line.

    LIKELIHOODS: Registry[Family] = Registry("likelihood")
    LIKELIHOODS["laplace"] = Family(...)

A table remembers which file a part came from where that file is not of this package: `config.json` has it (`added`), and
where such a part is missing later, the line about it names the file (`check`). Nothing that a run directory names is ever
imported.
"""

import pathlib
import sys
import typing
from collections.abc import Mapping
from typing import Generic, TypeVar

from vae_jax.core import errors

Part = TypeVar("Part")
PACKAGE = pathlib.Path(__file__).parents[1]


REGISTRIES: "dict[str, Registry]" = {}  # every table of this process, by kind
_last_change = 0


class Registry(dict[str, Part], Generic[Part]):
    """A dict from names to parts of one kind ("likelihood"), with the origin of those that came from outside."""

    def __init__(self, kind: str, parts: Mapping[str, Part] | None = None):
        super().__init__(parts or {})
        self.kind = kind
        self.origin: dict[str, str] = {}
        REGISTRIES[kind] = self

    @typing.no_type_check  # no wrapper between this and who calls it
    def __setitem__(self, name: str, part: Part) -> None:
        file = sys._getframe(1).f_globals.get("__file__", "")
        if not file or PACKAGE not in pathlib.Path(file).resolve().parents:
            self.origin[name] = file or "an interactive session"
        super().__setitem__(name, part)
        _changed()

    def __delitem__(self, name: str) -> None:
        self.origin.pop(name, None)
        super().__delitem__(name)
        _changed()

    def update(self, *args, **kwargs) -> None:
        super().update(*args, **kwargs)
        _changed()

    def __missing__(self, name: str) -> Part:
        raise errors.unknown(self.kind, name, self)


def _changed() -> None:
    global _last_change
    _last_change += 1


def changes() -> int:
    """A number that differs after every change of a table: what was built from the parts of before is not used again."""
    return _last_change


def added() -> dict[str, dict[str, str]]:
    """The parts that files outside this package have added: {kind: {name: file}}."""
    return {kind: dict(table.origin) for kind, table in REGISTRIES.items() if table.origin}


def check(recorded: object, where: str) -> None:
    """Refuse to go on without a part that a study had; tables that this process has not loaded are not looked at.

    Args:
      recorded: what `added` gave then.
      where: heads the line, such as the directory of the study.

    Raises:
      UserError: the line says which part is missing, and which file added it.
    """
    kinds = recorded if isinstance(recorded, Mapping) else {}
    for kind, parts in kinds.items():
        for name, file in parts.items() if isinstance(parts, Mapping) and kind in REGISTRIES else ():
            if name not in REGISTRIES[kind]:
                raise errors.UserError(f"{where}: unknown {kind} {name!r}; {file} added it: --config={file}")
