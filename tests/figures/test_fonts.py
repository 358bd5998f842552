"""Texts in scripts that matplotlib's own font has not: in a font that has them, else boxes and one line that says so."""

import pytest
from matplotlib import font_manager

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
        monkeypatch.setattr(fonts, "said", [])

    return fall_back


def test_without_a_font_there_are_boxes_and_one_line(tmp_path, studies, only, capsys):
    only()
    studies.write_study(tmp_path, seeds=1, names=NAMES)
    paths = draw.draw(tmp_path, only=("samples", "trade_off", "posterior_std", "traversals"))
    assert len(paths) == 5  # a warning would be an error
    figure = draw.FIGURES["rates"](Directory(tmp_path))
    studies.check_layout(figure)
    texts = {text for text, _, _ in studies.texts_of(figure)}
    assert f"{2 * fonts.BOX} {fonts.BOX}" in texts and not any("\u5b9e" in text for text in texts)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "font" in line]
    assert "boxes stand for" in line and any(c in line for name in NAMES.values() for c in name)


def _letter() -> str:
    """One that STIXGeneral has, and matplotlib's default font has not."""
    lacking = fonts._characters("STIXGeneral") - fonts._characters("DejaVu Sans")
    return chr(min(code for code in lacking if chr(code).isprintable()))


def test_a_font_that_has_the_characters_is_used(tmp_path, studies, only, capsys):
    only("No Such Font", "STIXGeneral")
    letter = _letter()
    assert fonts.families(f"a {letter}") == ["DejaVu Sans", "STIXGeneral"] and fonts.families("a") == ["DejaVu Sans"]
    studies.write_study(tmp_path, seeds=1, names={"vae": f"a {letter}", "ae": f"b {letter}"})
    draw.draw(tmp_path, only=("samples", "trade_off"))
    figure = draw.FIGURES["rates"](Directory(tmp_path))
    assert f"a {letter}" in {text for text, _, _ in studies.texts_of(figure)}
    assert "font" not in capsys.readouterr().err


def test_a_font_installed_after_matplotlib_listed_them_is_found(only, monkeypatch):
    """Its list stays in a cache, also after a font was installed because a line said which one has the characters."""
    only("STIXGeneral")
    path = font_manager.findfont("STIXGeneral")
    letter = _letter()
    listed = [entry for entry in font_manager.fontManager.ttflist if entry.name != "STIXGeneral"]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda: [path, "no font"])
    for cached in (fonts._characters, fonts._list_anew):
        cached.cache_clear()
    try:
        assert fonts.families("a") == ["DejaVu Sans"]
        assert fonts.families(f"a {letter}") == ["DejaVu Sans", "STIXGeneral"] and fonts.drawable(letter) == letter
    finally:
        for cached in (fonts._characters, fonts._list_anew):
            cached.cache_clear()


def test_a_family_without_a_bold_font_is_regular(only, monkeypatch, studies, tmp_path, caplog):
    only("STIXGeneral")  # stands for a family of one font
    listed = [e for e in font_manager.fontManager.ttflist if e.name != "STIXGeneral" or e.weight == 400]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", listed)
    assert fonts.are_bold(["DejaVu Sans"]) and not fonts.are_bold(["DejaVu Sans", "STIXGeneral"])
    letter = _letter()
    studies.write_study(tmp_path, seeds=1, names={"beta_vae": f"a {letter}"})
    figure = draw.FIGURES["trade_off"](Directory(tmp_path))
    assert f"a {letter}" in {text for text, _, _ in studies.texts_of(figure)}
    assert "weight" not in caplog.text
