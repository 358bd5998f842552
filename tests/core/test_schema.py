"""A field is declared once: its type comes from its annotation, and what is allowed is said as it is checked."""

import dataclasses

import pytest

from vae_jax.core import errors, schema


@dataclasses.dataclass(frozen=True)
class ThingConfig:
    """Some fields."""

    size: float = schema.field(1.0, "A size.", low=schema.POSITIVE, high=10**6, traced=True)
    count: int = schema.field(3, "A count.", low=0, high=1e6)
    names: tuple[str, ...] = schema.field((), "Names.", choices=("a", "b"))
    text: str = schema.field("", "A text.")
    word: str = schema.field("", "A word.", choices=("a", "b"))


SIZE, COUNT, NAMES, TEXT, WORD = schema.fields(ThingConfig, "thing")


def test_a_type_is_that_of_the_annotation_whatever_the_bounds_are_written_as():
    assert (SIZE.kind, COUNT.kind, NAMES.kind, NAMES.item, TEXT.kind) == (float, int, tuple, str, str)
    assert SIZE.typed("2") == 2.0
    assert type(SIZE.typed(2)) is float
    assert type(COUNT.typed("2")) is int
    with pytest.raises(errors.UserError, match=r"thing\.count=2\.0: should be a whole number"):
        COUNT.typed(2.0)


@pytest.mark.parametrize(
    ("field", "good", "bad", "allowed"),
    [
        (SIZE, 1e6, 0.0, "above 0 and at most 1e+06"),
        (SIZE, 1e-9, float("nan"), "above 0 and at most 1e+06"),
        (COUNT, 0, -1, "from 0 to 1e+06"),
        (NAMES, ("a", "b"), ("a", "c"), "one of a, b"),
        (WORD, "", "c", "one of a, b or empty"),
    ],
)
def test_what_is_allowed_is_said_where_it_is_refused(field, good, bad, allowed):
    field.check(good)
    with pytest.raises(errors.UserError) as caught:
        field.check(bad)
    assert str(caught.value) == f"{field.key}={bad}: {'each ' if field.kind is tuple else ''}should be {allowed}"
    assert field.allowed == allowed


def test_any_text_is_allowed():
    assert TEXT.allowed == ""
    TEXT.check("anything")


def test_static_and_traced_fields_are_the_halves_of_a_config():
    config = ThingConfig(size=2.0, count=5)
    assert schema.static(config) == ThingConfig(count=5)
    assert schema.traced(config) == {"size": 2.0}
