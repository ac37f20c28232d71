"""Fonts of pictures: those of the reader first, then one with Chinese characters that comes with the package."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from probseq.errors import GlyphError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.text import Text

__all__ = ["FAMILY", "FONT", "fit_fonts"]

FAMILY = "Probseq Han"
FONT = Path(__file__).parent / "files" / "probseq-han.ttf"
"""The characters of the shipped poems, the common ones of both scripts, kana, and Latin letters; see LICENSES.md."""

_EQUATION = re.compile(r"(?<!\\)\$(.*?)(?<!\\)\$", re.DOTALL)
_HAN = 0x2E80
# A font of boxes for every character there is.
_BOXES = "Last Resort"


def fit_fonts(ax: Axes) -> None:
    """Give every text of an axes a family of fonts that has its glyphs, and leave alone those that need none.

    The fonts of the reader's settings come first, then the one of the package, then what is installed. In a line with
    an equation matplotlib takes all other text from one font, so that is the package's if the reader's does not do.

    Raises
    ------
    GlyphError
        No font has a glyph for some character, which would be drawn as a box.
    """
    for text in _texts(ax):
        words = text.get_text()
        if not words or not text.get_visible() or words.isascii() and "$" not in words:
            continue
        equations = _EQUATION.findall(words) if text.get_parse_math() else []
        if equations and not _readable(equations):
            text.set_parse_math(False)
            equations = []
        families = _families(words, equations, tuple(text.get_fontfamily()))
        if families is not None:
            text.set_fontfamily(families)
    for axis in (ax.xaxis, ax.yaxis):
        _fit_ticks(axis)


def _fit_ticks(axis: Any) -> None:
    """Ticks with names, also those that appear when the reader moves the limits."""
    from matplotlib import rcParams

    wanted: list[str] = []
    for words in _names_of(axis):
        equations = _EQUATION.findall(words)
        if equations and not _readable(equations):
            for label in axis.get_ticklabels():
                label.set_parse_math(False)
        families = _families(words, [], tuple(rcParams["font.family"])) or []
        wanted += [family for family in families if family not in wanted]
    if wanted:
        axis.set_tick_params(labelfontfamily=wanted)


def _texts(ax: Any) -> list[Text]:
    """All texts but those of ticks, which are made when they are needed."""
    found = [ax.title, ax._left_title, ax._right_title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
    legend = ax.get_legend()
    return found if legend is None else [*found, *legend.get_texts(), legend.get_title()]


def _names_of(axis: Any) -> list[str]:
    from matplotlib.category import StrCategoryFormatter
    from matplotlib.ticker import FixedLocator

    formatter, locator = axis.get_major_formatter(), axis.get_major_locator()
    if isinstance(formatter, StrCategoryFormatter):
        names = [str(name) for name in axis.units._mapping]
    elif isinstance(locator, FixedLocator):
        names = formatter.format_ticks(list(locator()))
    else:
        return []
    return [name for name in names if not name.isascii() or "$" in name]


def _families(words: str, equations: list[str], own: tuple[str, ...]) -> list[str] | None:
    """The families for a text, or None where those that it has do."""
    if equations:
        inside = {one for one in "".join(equations) if ord(one) >= _HAN}
        if inside:
            raise _error(inside, words, "Write it outside of the dollars, or escape them: \\$.")
        plain = _EQUATION.sub("", words)
        wanted = {ord(one) for one in plain if one != "\n"}
        if wanted <= _glyphs(own[:1]):
            return None
        missing = wanted - _glyphs((_registered(),))
        if not missing:
            return [FAMILY]
        raise _error({chr(code) for code in missing}, words, "Leave the equation or these characters out.")
    wanted = {ord(one) for one in words if one != "\n"}
    if wanted <= _glyphs(own):
        return None
    families = [*own, _registered()]
    missing = wanted - _glyphs(tuple(families))
    for family in _installed(frozenset(missing)) if missing else ():
        if missing & _glyphs((family,)):
            families.append(family)
            missing -= _glyphs((family,))
    if missing:
        raise _error({chr(code) for code in missing}, words)
    return families


def _readable(equations: list[str]) -> bool:
    from matplotlib.font_manager import FontProperties
    from matplotlib.mathtext import MathTextParser

    try:
        MathTextParser("path").parse(
            "".join(f"${one}$" for one in equations), prop=FontProperties(family=[_registered()])
        )
    except ValueError:
        return False
    return True


def _error(characters: set[str], words: str, remedy: str = "") -> GlyphError:
    named = ", ".join(f"{one!r} (U+{ord(one):04X})" for one in sorted(characters)[:8])
    more = "" if len(characters) <= 8 else f" and {len(characters) - 8} more"
    return GlyphError(
        got=f"{named}{more} in the text {words!r}",
        expected="characters for which an installed font has a glyph",
        remedy=remedy or "Install a font that has them, such as Noto Sans CJK, or write the text in other characters.",
    )


def _registered() -> str:
    """The family of the package, which matplotlib is told of when it is first needed."""
    from matplotlib import font_manager

    if all(entry.name != FAMILY for entry in font_manager.fontManager.ttflist):
        font_manager.fontManager.addfont(FONT)
    return FAMILY


def _glyphs(families: tuple[str, ...]) -> frozenset[int]:
    """The characters that some fonts have together."""
    from matplotlib import font_manager

    found: frozenset[int] = frozenset()
    for family in families:
        try:
            path = font_manager.findfont(font_manager.FontProperties(family=[family]), fallback_to_default=False)
        except ValueError:  # this family is not installed
            continue
        found |= _characters(str(path))
    return found


@lru_cache(maxsize=64)
def _characters(path: str) -> frozenset[int]:
    from matplotlib.ft2font import FT2Font

    return frozenset(FT2Font(path).get_charmap())


@lru_cache(maxsize=64)
def _installed(missing: frozenset[int]) -> tuple[str, ...]:
    """Installed families that have some of the characters, those with most of them first."""
    from matplotlib import font_manager

    have: dict[str, int] = {}
    for entry in font_manager.fontManager.ttflist:
        if entry.name in have or entry.name.startswith(_BOXES) or entry.style != "normal":
            continue
        try:
            have[entry.name] = len(missing & _characters(entry.fname))
        except (OSError, RuntimeError):  # a font that was removed, or is damaged
            continue
    return tuple(sorted((name for name, n in have.items() if n), key=lambda name: -have[name]))
