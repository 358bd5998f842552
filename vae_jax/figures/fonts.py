"""Fonts for texts that the default one has not, such as Chinese, Japanese and Korean names of runs."""

import contextlib
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

said: list[str] = []  # characters that were missing in this process


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
    asked = set(map(ord, text)).difference(*map(_characters, _default()))
    found, lacking = _fallback(asked)
    if lacking and _list_anew():
        found, _ = _fallback(asked)
    return [*_default(), *found]


def _fallback(lacking: set[int]) -> tuple[list[str], set[int]]:
    """The fewest first families of `FALLBACK` that have some of these code points, and those that none has."""
    found = []
    for family in FALLBACK if lacking else ():
        if lacking & _characters(family):
            found.append(family)
            lacking = lacking - _characters(family)
    return found, lacking


@functools.cache
def _list_anew() -> bool:
    """Look once for fonts that were installed after matplotlib listed them, for it keeps its list; whether there are any."""
    from matplotlib import font_manager

    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    before = len(manager.ttflist)
    for path in set(font_manager.findSystemFonts()) - known:
        with contextlib.suppress(Exception):  # a file that FreeType cannot read is none that can be drawn with
            manager.addfont(path)
    _characters.cache_clear()
    return len(manager.ttflist) > before


def are_bold(families: list[str]) -> bool:
    """Whether every family has a bold font; matplotlib complains of one that has not, and draws the regular one."""
    from matplotlib import font_manager

    weights: dict[str | int, int] = {number: number for number in range(1001)} | font_manager.weight_dict
    listed = font_manager.fontManager.ttflist
    return {entry.name for entry in listed if weights.get(entry.weight, 400) >= 600}.issuperset(families)


def drawable(text: str) -> str:
    """The text with a box for each character that no font has, which is said once."""
    if text.isascii():
        return text
    known = [_characters(family) for family in families(text)]
    missing = [c for c in text if c != "\n" and not any(ord(c) in characters for characters in known)]
    if missing:
        say("".join(dict.fromkeys(missing)))
    return "".join(BOX if c in missing else c for c in text)


def say(missing: str) -> None:
    """One line, the first time that characters are missing."""
    if not said:
        line = f"figures: no installed font has {missing}, boxes stand for such characters (fonts-noto-cjk has them)"
        print(line, file=sys.stderr)
    said.append(missing)
