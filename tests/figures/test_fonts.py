"""Texts in scripts that matplotlib's own font has not: in a font that has them, else boxes and one line that says so."""

import pytest

from vae_jax.figures import draw, fonts
from vae_jax.figures.run_directory import Directory

NAMES = {
    "ae": "\u81ea\u7f16\u7801",
    "vae": "\u5b9e\u9a8c \u7532",
    "beta_vae": "\u30d9\u30fc\u30bf",
    "kl_only": "\uc2e4\ud5d8",
}


@pytest.fixture
def only(monkeypatch):
    """Lets texts fall back to these families alone."""

    def fall_back(*families):
        monkeypatch.setattr(fonts, "FALLBACK", families)
        monkeypatch.setattr(fonts, "_said", [])

    return fall_back


def test_without_a_font_there_are_boxes_and_one_line(tmp_path, studies, only, capsys):
    only()
    studies.write_study(tmp_path, seeds=1, names=NAMES)
    paths = draw.draw(tmp_path, only=("samples", "trade_off", "rates", "posterior_std", "traversals"))
    assert len(paths) == 6  # a warning would be an error
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "font" in line]
    assert "boxes stand for" in line and any(c in line for name in NAMES.values() for c in name)
    figure = draw.FIGURES["rates"](Directory(tmp_path))
    studies.check_layout(figure)
    texts = {text for text, _, _ in studies.texts_of(figure)}
    assert f"{2 * fonts.BOX} {fonts.BOX}" in texts and not any("\u5b9e" in text for text in texts)


def test_a_font_that_has_the_characters_is_used(tmp_path, studies, only, capsys):
    only("No Such Font", "STIXGeneral")
    default = fonts._characters("DejaVu Sans")
    letter = chr(min(code for code in fonts._characters("STIXGeneral") if code not in default and chr(code).isprintable()))
    assert fonts.families(f"a {letter}") == ["DejaVu Sans", "STIXGeneral"] and fonts.families("a") == ["DejaVu Sans"]
    studies.write_study(tmp_path, seeds=1, names={"vae": f"a {letter}", "ae": f"b {letter}"})
    draw.draw(tmp_path, only=("samples", "trade_off", "rates"))
    assert "font" not in capsys.readouterr().err
    figure = draw.FIGURES["rates"](Directory(tmp_path))
    assert f"a {letter}" in {text for text, _, _ in studies.texts_of(figure)}
