"""What a config field is: declared once, in the dataclass of its group, beside the code that uses it.

    @dataclasses.dataclass(frozen=True)
    class OptimizerConfig:
        learning_rate: float = schema.field(3e-3, "Step size.", low=schema.POSITIVE, high=1e6, traced=True)

`study.config` composes the groups. From these declarations alone come the default config, the checks of type and range,
the split of a run into what is static and what is traced, `--help`, `docs/config.md` and the reading of older directories.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from vae_jax.core import errors

Value = Any  # bool, int, float, str, or a tuple of those
POSITIVE = math.ulp(0.0)  # as a lower end: any number above 0
KINDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a tuple like (64,64)",
    str: "a printable text",
}


@dataclasses.dataclass(frozen=True)
class Field:
    """One config field.

    Attributes:
      key: its dotted name, "objective.beta".
      kind: its type: bool, int, float, str or tuple.
      item: the type of a tuple's elements; None for other kinds.
      default: its value in `get_config()`.
      doc: its sentence of documentation.
      low, high: the smallest and the largest value, both allowed (of a tuple: of each element); None: no limit.
      choices: the names that are allowed (of a tuple: as elements), and the default; read when it is asked, so that a
        registry may grow.
      traced: whether runs that differ in it share a program.
      unused: the value it should have where the run has no use for it; None: any value does.
      absent: what a run directory means that was written before the field existed; None: every directory has it.
    """

    key: str
    kind: type
    item: type | None
    default: Value
    doc: str
    low: float | int | None = None
    high: float | int | None = None
    choices: Collection[str] | None = None
    traced: bool = False
    unused: Value = None
    absent: Value = None

    @property
    def name(self) -> str:
        """The last part of the key."""
        return self.key.rpartition(".")[2]

    def typed(self, value) -> Value:
        """`value` (a text from the command line, or a Python value) as the type of this field.

        Raises:
          UserError: it cannot be read as that type.
        """
        return self._as(self.kind, value)

    def _as(self, kind: type, value) -> Value:
        try:
            if kind is tuple:
                parts = value if isinstance(value, tuple | list) else _split_tuple(str(value))
                assert self.item is not None
                return tuple(self._as(self.item, part) for part in parts)
            if isinstance(value, np.generic):
                value = value.item()
            if kind is bool:
                return {"true": True, "false": False}[str(value).lower()]
            is_scalar = isinstance(value, str | int | float) and not isinstance(value, bool)
            if not is_scalar or (kind is int and isinstance(value, float)):
                raise ValueError
            if kind is str and not str(value).isprintable():
                raise ValueError
            return kind(value)
        except (ValueError, KeyError, OverflowError):
            shown = value if isinstance(value, str) and value.isprintable() else repr(value)
            raise errors.UserError(f"{self.key}={shown[:200]}: should be {KINDS[kind]}") from None

    @property
    def allowed(self) -> str:
        """Which values of its type are allowed, in words; "" where all are."""
        if self.choices is not None:
            empty = " or empty" if self.default == "" else ""
            return f"one of {', '.join(self.choices)}{empty}"
        if (self.low, self.high) == (None, None):
            return ""
        low, high = self._range()
        return f"above 0 and at most {high:g}" if low == POSITIVE else f"from {low:g} to {high:g}"

    def check(self, value: Value) -> None:
        """Refuse a value of the right type that is out of range or no choice.

        Raises:
          UserError: the line names the field, the value and what is allowed.
        """
        each = value if self.kind is tuple else (value,)
        low, high = self._range()
        is_choice = self.choices is None or value == self.default or set(each) <= set(self.choices)
        is_in_range = (self.low, self.high) == (None, None) or all(low <= part <= high for part in each)  # nan is not
        if not (is_choice and is_in_range):
            subject = "each should be" if self.kind is tuple else "should be"
            raise errors.UserError(f"{self.key}={value}: {subject} {self.allowed}")

    def _range(self) -> tuple[float | int, float | int]:
        return -math.inf if self.low is None else self.low, math.inf if self.high is None else self.high


def field(
    default: Value,
    doc: str,
    *,
    low: float | int | None = None,
    high: float | int | None = None,
    choices: Collection[str] | None = None,
    traced: bool = False,
    unused: Value = None,
    absent: Value = None,
) -> Any:
    """A dataclass field that is a config field; the arguments are the attributes of `Field`."""
    # A Field's own dataclass equality would compare registries: the metadata is a plain dict.
    metadata = {
        "doc": doc, "low": low, "high": high, "choices": choices, "traced": traced, "unused": unused, "absent": absent
    }  # fmt: skip
    return dataclasses.field(default=default, metadata={"schema": metadata})


def fields(config: type, group: str = "") -> tuple[Field, ...]:
    """The config fields of a group's dataclass, in order; `group` heads their keys ("" for none)."""
    return _fields(config, group)


@functools.cache  # not of `fields` itself: mypy would ask its callers for a hash
def _fields(config: Any, group: str) -> tuple[Field, ...]:
    hints = typing.get_type_hints(config)
    found = []
    for declared in dataclasses.fields(config):
        if "schema" not in declared.metadata:
            continue
        hint = hints[declared.name]
        is_tuple = typing.get_origin(hint) is tuple
        found.append(
            Field(
                key=f"{group}.{declared.name}" if group else declared.name,
                kind=tuple if is_tuple else hint,
                item=typing.get_args(hint)[0] if is_tuple else None,
                default=declared.default,
                **declared.metadata["schema"],
            )
        )
    return tuple(found)


def static(config):
    """`config` (a group's dataclass) with its traced fields at their defaults: equal for runs that may share a program."""
    return dataclasses.replace(config, **{field.name: field.default for field in fields(type(config)) if field.traced})


def traced(config) -> dict[str, np.generic]:
    """The traced fields of `config` by name, as 32-bit NumPy scalars: what differs between the runs of a program."""
    kinds = {int: np.int32, float: np.float32}
    return {field.name: kinds[field.kind](getattr(config, field.name)) for field in fields(type(config)) if field.traced}


def numbers(config: type) -> Any:
    """A frozen dataclass of the traced fields of a group's dataclass, each a number, by default the field's default.

    A base for the pytree that carries them: what `traced` gives are its arguments.
    """
    defaults = traced(config())
    return dataclasses.make_dataclass(
        config.__name__, [(name, Any, dataclasses.field(default=value)) for name, value in defaults.items()], frozen=True
    )


def group(flat: Mapping[str, Value], name: str) -> dict[str, Value]:
    """The fields of one group of a flat config (by dotted names), as keyword arguments of its dataclass."""
    return {key.partition(".")[2]: value for key, value in flat.items() if key.startswith(f"{name}.")}


def _split_tuple(text: str) -> list[str]:
    """The elements of "(64,64)", "64,64," or "64"."""
    inner = text.strip()
    if inner[:1] in "([" and inner[-1:] in ")]":
        inner = inner[1:-1]
    return [part.strip() for part in inner.split(",") if part.strip()]
