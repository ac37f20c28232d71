"""Chinese text in pictures: every character has a glyph, or there is an error."""

import logging

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.ft2font import FT2Font

import probseq as ps
from probseq.errors import GlyphError
from probseq.plotting import fonts, plot_attention, plot_bars, plot_fan, plot_transition_graph
from probseq.plotting.fonts import FAMILY, FONT


@pytest.fixture(autouse=True)
def drawn_without_complaint(caplog):
    yield
    with caplog.at_level(logging.WARNING):
        for number in plt.get_fignums():
            plt.figure(number).canvas.draw()
    plt.close("all")
    assert not caplog.records


def test_the_font_has_the_shipped_poems_and_common_characters():
    glyphs = {chr(code) for code in FT2Font(str(FONT)).get_charmap()}
    poems = set("".join(text for form in ("wuyan", "qiyan") for text in ps.datasets.tang_poems(form)))
    assert {one for one in poems if one != "\n"} - glyphs <= {"\U00027267"}
    level_1 = {
        bytes([row, column]).decode("gb2312", "ignore") for row in range(0xB0, 0xD8) for column in range(161, 255)
    }
    big5 = {bytes([row, column]).decode("big5", "ignore") for row in range(0xA4, 0xC6) for column in range(0x40, 0x7F)}
    assert level_1 | big5 | set("，。、；：？！「」《》（）ひらがなカタカナ") - {""} <= glyphs | {""}
    assert FONT.stat().st_size < 1_300_000
    notice = (FONT.parent / "LICENSES.md").read_text()
    assert "Apache License" in notice and "Bitstream Vera" in notice


def test_texts_that_need_no_other_font_keep_theirs():
    ax = plot_fan([0, 1], [-1.0, 1.0], {}, title="Größe −1 µ²", ylabel="°C")
    assert ax.title.get_fontfamily() == ax.yaxis.label.get_fontfamily() == mpl.rcParams["font.family"]


def test_chinese_comes_after_the_fonts_of_the_reader():
    ax = plot_fan([0, 1], [0.0, 1.0], {}, title="气温 and 氣溫", xlabel="步")
    assert ax._left_title.get_fontfamily() == ["sans-serif", FAMILY] == ax.xaxis.label.get_fontfamily()
    with mpl.rc_context({"font.family": ["DejaVu Serif"]}):
        ax = plot_fan([0, 1], [0.0, 1.0], {}, title="气温")
        assert ax._left_title.get_fontfamily() == ["DejaVu Serif", FAMILY]


def test_names_of_states_tokens_and_categories():
    graph = plot_transition_graph(np.eye(2) * 0.8 + 0.1, names=["平靜", "活躍"])
    assert {text.get_text() for text in graph.texts} >= {"平靜", "活躍"}
    ax = plot_attention(range(5), np.ones((5, 2)) / 2, tokens="白日依山盡")
    assert [label.get_text() for label in ax.get_xticklabels()] == list("白日依山盡")
    assert all(label.get_fontfamily()[-1] == FAMILY for label in ax.get_xticklabels())
    ax.set_xlim(-2, 8)  # ticks that are made anew
    ax.figure.canvas.draw()
    bars = plot_bars(["一"], list("白日"), [[0.4, 0.6]])
    assert [text.get_text() for text in bars.get_legend().get_texts()] == ["白", "日"]


def test_equations_are_drawn_offline_beside_chinese():
    words = r"流量 $\mu_t = \alpha_1 m^3/s$ 平均"
    ax = plot_fan([0, 1], [0.0, 1.0], {}, title=words, ylabel=r"$\sqrt{x}$, m")
    assert ax._left_title.get_fontfamily() == [FAMILY]
    assert ax.yaxis.label.get_fontfamily() == mpl.rcParams["font.family"]
    ax.figure.canvas.draw()
    with pytest.raises(GlyphError, match=r"'温' \(U\+6E29\).*outside of the dollars"):
        plot_fan([0, 1], [0.0, 1.0], {}, title=r"$温_t$")


def test_dollars_that_are_no_equation_are_text():
    for words in ("US$ and A$ \\frac", "10 $ 20 $ {"):
        ax = plot_fan([0, 1], [0.0, 1.0], {}, title=words)
        ax.figure.canvas.draw()
        assert ax.get_title(loc="left") == words
    assert not plot_fan([0, 1], [0.0, 1.0], {}, ylabel=r"$\frac$").yaxis.label.get_parse_math()


def test_a_character_without_a_glyph_is_an_error_and_leaves_no_figure():
    before = plt.get_fignums()
    with pytest.raises(GlyphError, match=r"'🦆' \(U\+1F986\) in the text 'a 🦆'.*Install a font") as caught:
        plot_fan([0, 1], [0.0, 1.0], {}, title="a 🦆")
    assert "Noto" in caught.value.remedy and plt.get_fignums() == before
    for draw in (
        lambda: plot_bars(["1"], ["\U00027267", "x"], [[0.5, 0.5]]),
        lambda: plot_attention(range(2), np.ones((2, 2)), tokens=["a", "\U0001f986"]),
        lambda: plot_transition_graph(np.eye(1), names=["\U0001f986"]),
        lambda: plot_fan([0, 1], [0.0, 1.0], {}, title="$x$ 🦆"),
    ):
        with pytest.raises(GlyphError):
            draw()
    assert plt.get_fignums() == before


def test_installed_fonts_are_asked_last(tmp_path, monkeypatch):
    from fontTools.ttLib import TTFont

    font = TTFont(FONT)
    table = font["cmap"].getcmap(3, 1)
    table.cmap = {0x3400: table.cmap[ord("白")]}
    for number in (1, 3, 4, 6):
        font["name"].setName("Rare Signs", number, 3, 1, 0x409)
    path = tmp_path / "rare.ttf"
    font.save(path)
    manager = font_manager.fontManager
    monkeypatch.setattr(manager, "ttflist", list(manager.ttflist))
    manager.addfont(path)
    fonts._installed.cache_clear()
    ax = plot_fan([0, 1], [0.0, 1.0], {}, title="白 \u3400")
    assert ax._left_title.get_fontfamily() == ["sans-serif", FAMILY, "Rare Signs"]
    ax.figure.canvas.draw()
    plt.close("all")
    fonts._installed.cache_clear()
