"""The one exception that stands for a user's mistake, and the nearest right name for a wrong one."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the person at the keyboard: its message is one line that names the value and what would be right."""


def unknown(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for `name` where one of `known` was meant, with the nearest of them first."""
    known = list(known)
    # A bare last part (`beta` for `objective.beta`) is what people type most.
    nearest = [full for full in known if full.rpartition(".")[2] == name]
    nearest += [full for full in difflib.get_close_matches(str(name), known, n=3, cutoff=0.5) if full not in nearest]
    if nearest:
        return UserError(f"unknown {kind} {name!r}: did you mean {' or '.join(nearest)}?")
    return UserError(f"unknown {kind} {name!r}: known are {', '.join(known)}")
