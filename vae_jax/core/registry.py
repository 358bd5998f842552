"""Parts that a config names: one table for each kind, to which any file may add a line.

    LIKELIHOODS: Registry[Family] = Registry("likelihood")
    LIKELIHOODS["laplace"] = Family(...)

A table remembers which file a part came from where that file is not of this package: a run directory can then say which
one is missing. Nothing that a run directory names is ever imported.
"""

import pathlib
import sys
from collections.abc import Mapping
from typing import Generic, TypeVar

from vae_jax.core import errors

Part = TypeVar("Part")
PACKAGE = pathlib.Path(__file__).parents[1]


class Registry(dict[str, Part], Generic[Part]):
    """A dict from names to parts of one kind ("likelihood"), with the origin of those that came from outside."""

    def __init__(self, kind: str, parts: Mapping[str, Part] | None = None):
        super().__init__(parts or {})
        self.kind = kind
        self.origin: dict[str, str] = {}

    def __setitem__(self, name: str, part: Part) -> None:
        file = sys._getframe(1).f_globals.get("__file__", "")
        if not file or PACKAGE not in pathlib.Path(file).resolve().parents:
            self.origin[name] = file or "an interactive session"
        super().__setitem__(name, part)

    def __delitem__(self, name: str) -> None:
        self.origin.pop(name, None)
        super().__delitem__(name)

    def __missing__(self, name: str) -> Part:
        raise errors.unknown(self.kind, name, self)
