"""Make the font of Chinese characters that probseq ships, a part of Droid Sans Fallback with letters of DejaVu Sans.

The first is in the Debian package fonts-droid-fallback (Apache-2.0), the second comes with matplotlib:

    apt-get download fonts-droid-fallback && dpkg-deb -x fonts-droid-fallback*.deb droid
    python tools/make_font.py droid/usr/share/fonts/truetype/droid/DroidSansFallbackFull.ttf
"""

import bz2
import sys
from pathlib import Path

from fontTools.pens.recordingPen import DecomposingRecordingPen
from fontTools.pens.roundingPen import RoundingPen
from fontTools.pens.transformPen import TransformPen
from fontTools.pens.ttGlyphPen import TTGlyphPen
from fontTools.subset import Options, Subsetter
from fontTools.ttLib import TTFont
from matplotlib import get_data_path

PACKAGE = Path(__file__).parents[1] / "probseq"
FONT = PACKAGE / "plotting" / "files" / "probseq-han.ttf"
FAMILY = "Probseq Han"
COMMON = ((range(0xB0, 0xD8), range(0xA1, 0xFF), "gb2312"), (range(0xA4, 0xC7), range(0x40, 0xFF), "big5"))
KANA_AND_PUNCTUATION = (range(0x3000, 0x3100), range(0xFF01, 0xFF5F))
LETTERS = (range(0x20, 0x7F), range(0xA0, 0x180), (0x2013, 0x2014, 0x2018, 0x2019, 0x201C, 0x201D, 0x2026, 0x2212))


def characters() -> set[str]:
    """Those of the shipped poems, the common ones of both scripts, kana and punctuation."""
    found: set[str] = set()
    for name in ("tang_wuyan", "tang_qiyan"):
        found |= set(bz2.decompress((PACKAGE / "data" / "files" / f"{name}.txt.bz2").read_bytes()).decode())
    for rows, columns, codec in COMMON:
        found |= {one for row in rows for column in columns for one in bytes([row, column]).decode(codec, "ignore")}
    found |= {chr(code) for block in KANA_AND_PUNCTUATION for code in block}
    return {character for character in found if ord(character) >= 0x2E80}


def subset(source: str) -> TTFont:
    """Their outlines, without hints, which screens of today do not need."""
    font = TTFont(source, recalcTimestamp=False)
    options = Options(hinting=False, layout_features=[], glyph_names=False, notdef_outline=True)
    options.name_IDs = [0, 1, 2, 3, 4, 5, 6, 13, 14]
    options.drop_tables += ["GDEF", "GPOS", "GSUB", "vhea", "vmtx", "gasp"]
    subsetter = Subsetter(options)
    subsetter.populate(unicodes={ord(character) for character in characters()})
    subsetter.subset(font)
    return font


def add_letters(font: TTFont) -> None:
    """Letters and figures: beside an equation matplotlib takes all other text of a line from one font."""
    latin = TTFont(Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf")
    scale = font["head"].unitsPerEm / latin["head"].unitsPerEm
    glyphs, names, table = latin.getGlyphSet(), latin.getBestCmap(), font["cmap"].getcmap(3, 1)
    order = font.getGlyphOrder()
    for code in (code for block in LETTERS for code in block if code in names):
        outline, pen = DecomposingRecordingPen(glyphs), TTGlyphPen(None)
        glyphs[names[code]].draw(outline)
        outline.replay(TransformPen(RoundingPen(pen), (scale, 0, 0, scale, 0, 0)))
        name = f"letter{code:04X}"
        glyph = pen.glyph()
        order.append(name)
        font["glyf"].glyphs[name] = glyph
        glyph.recalcBounds(font["glyf"])
        font["hmtx"][name] = (round(scale * glyphs[names[code]].width), getattr(glyph, "xMin", 0))
        table.cmap[code] = name
    font.setGlyphOrder(order)
    font["cmap"].tables = [table]


def main(source: str) -> None:
    """Write the font under a name of its own."""
    font = subset(source)
    add_letters(font)
    copyright_notice = font["name"].getDebugName(0)
    for name_id, text in (
        (0, f"{copyright_notice}; Latin letters from DejaVu Sans, (c) 2003 Bitstream, Inc. and DejaVu changes"),
        (1, FAMILY),
        (2, "Regular"),
        (3, FAMILY),
        (4, FAMILY),
        (6, FAMILY.replace(" ", "")),
    ):
        font["name"].removeNames(nameID=name_id)
        font["name"].setName(text, name_id, 3, 1, 0x409)
    FONT.parent.mkdir(exist_ok=True)
    font.save(FONT)
    drawn = {chr(code) for code in font.getBestCmap()}
    print(f"{FONT}: {len(drawn)} characters, {FONT.stat().st_size} bytes")
    print("without a glyph:", " ".join(f"U+{ord(one):04X}" for one in sorted(characters() - drawn)))


if __name__ == "__main__":
    main(sys.argv[1])
