"""A user's mistake is one line that names the value and what would be right."""

import pytest

from vae_jax.core import errors

KNOWN = ("seed", "objective.beta", "optimizer.learning_rate", "train.epochs")


def test_a_user_error_is_a_value_error():
    assert issubclass(errors.UserError, ValueError)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("objective.bta", "objective.beta"),  # a typing error
        ("beta", "objective.beta"),  # the bare last part
        ("learning_rate", "optimizer.learning_rate"),
        ("epochs", "train.epochs"),
    ],
)
def test_unknown_names_the_nearest_only(name, meant):
    message = str(errors.unknown("config name", name, KNOWN))
    assert message == f"unknown config name {name!r}: did you mean {meant}?"


def test_unknown_lists_all_where_none_is_near():
    message = str(errors.unknown("config name", "zzz", iter(KNOWN)))  # any iterable, read once
    assert message == "unknown config name 'zzz': known are seed, objective.beta, optimizer.learning_rate, train.epochs"


def test_unknown_offers_no_name_twice():
    # "train.epoch" is near to "train.epochs", and so is its last part to nothing: one suggestion.
    message = str(errors.unknown("config name", "epochs", ["train.epochs", "epochs_done"]))
    assert message.count("train.epochs") == 1


@pytest.mark.parametrize("name", ["two\nlines", "", "\x1b[2J"])
def test_one_line_whatever_the_name(name):
    message = str(errors.unknown("config name", name, KNOWN))
    assert "\n" not in message
    assert "\x1b" not in message
