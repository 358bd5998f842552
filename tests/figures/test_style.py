"""How figures look: lines of a title, numbers."""

import pytest

from vae_jax.figures import style


def test_lines_are_as_few_as_fit_and_about_as_long_as_each_other():
    text = "A test image with one latent moved, the others held; with KL the best by elbo"
    letters = int(5 * 72 / (0.56 * 11))
    lines = style.wrapped(text, 5).split("\n")
    assert " ".join(lines) == text and len(lines) == 2 and max(map(len, lines)) <= letters
    assert abs(len(lines[0]) - len(lines[1])) <= 8  # greedy lines end in a single "elbo"
    assert style.wrapped("beta_vae, beta 0.25", 1.2, style.TEXT) == "beta_vae,\nbeta 0.25"
    assert style.wrapped("short", 5) == "short" and style.wrapped("", 5) == ""


@pytest.mark.parametrize(("value", "text"), [(-0.001, "0.00"), (0.004, "0.00"), (-0.02, "-0.02"), (1.205, "1.21")])
def test_a_zero_has_no_sign(value, text):
    assert style.number(value, 2) == text
