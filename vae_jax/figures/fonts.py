"""Fonts for texts that the default one has not, such as Chinese, Japanese and Korean names of runs."""

import functools
import sys

BOX = "\u25a1"  # stands for a character that no installed font has
# Tried in this order after matplotlib's own fonts: what Linux, macOS and Windows have for many scripts.
FALLBACK = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK KR", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN",
    "WenQuanYi Micro Hei", "WenQuanYi Zen Hei", "Droid Sans Fallback", "PingFang SC", "PingFang HK", "Hiragino Sans GB",
    "Hiragino Sans", "Apple SD Gothic Neo", "Heiti TC", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic",
    "IPAexGothic", "IPAGothic", "TakaoGothic", "NanumGothic", "UnDotum", "Arial Unicode MS", "Unifont",
)  # fmt: skip

_said: list[str] = []  # characters that were missing in this process


@functools.cache
def _default() -> list[str]:
    """The families that matplotlib is set to, generic names as the first of theirs that is installed."""
    from matplotlib import rcParams

    return [_font(family).family_name for family in rcParams["font.family"]]


def _font(family: str):
    """The font of a family, regular."""
    from matplotlib import font_manager

    return font_manager.get_font(font_manager.findfont(font_manager.FontProperties(family=[family])))


@functools.cache
def _characters(family: str) -> frozenset[int]:
    """The code points that a family has; none where it is not installed."""
    from matplotlib import font_manager

    names = {entry.name for entry in font_manager.fontManager.ttflist}
    if family not in names:
        return frozenset()
    return frozenset(_font(family).get_charmap())


def families(text: str) -> list[str]:
    """The default families, and of `FALLBACK` the fewest first ones that have what these lack."""
    found, lacking = _default(), set(map(ord, text))
    for family in found:
        lacking -= _characters(family)
    for family in FALLBACK if lacking else ():
        if lacking & _characters(family):
            found = [*found, family]
            lacking -= _characters(family)
    return found


def drawable(text: str) -> str:
    """The text with a box for each character that no font has, which is said once."""
    if text.isascii():
        return text
    known = [_characters(family) for family in families(text)]
    missing = [c for c in text if c != "\n" and not any(ord(c) in characters for characters in known)]
    if missing:
        _say("".join(dict.fromkeys(missing)))
    return "".join(BOX if c in missing else c for c in text)


def _say(missing: str) -> None:
    """One line, the first time that characters are missing."""
    if not _said:
        line = f"figures: no installed font has {missing}, boxes stand for such characters (fonts-noto-cjk has them)"
        print(line, file=sys.stderr)
    _said.append(missing)
