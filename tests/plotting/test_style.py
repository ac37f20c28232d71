"""Colours that everybody tells apart, and settings of matplotlib that nobody loses."""

from itertools import combinations

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from plot_gallery import PICTURES

from probseq.plotting import PALETTE
from probseq.plotting.canvas import state_colors
from probseq.plotting.style import BAND, DASHES, GREY, INK, MARKERS, shades_of, strong, tint

# Machado, Oliveira and Fernandes (2009), IEEE Transactions on Visualization and Computer Graphics 15(6), severity 1.0,
# in linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
}
RGB_TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


def linear(color):
    rgb = np.array(to_rgb(color))
    return np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)


def lab(color, vision="normal"):
    """CIE L*a*b* under D65."""
    xyz = RGB_TO_XYZ @ np.clip(np.array(VISIONS[vision]) @ linear(color), 0, 1) / (0.95047, 1.0, 1.08883)
    f = np.where(xyz > 216 / 24389, np.cbrt(xyz), (24389 / 27 * xyz + 16) / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(color, paper="white"):
    """WCAG 2.2, from 1 to 21."""
    light, dark = sorted((RGB_TO_XYZ[1] @ linear(one) + 0.05 for one in (color, paper)), reverse=True)
    return light / dark


def test_lab_of_colours_with_known_values():
    np.testing.assert_allclose(lab("#ffffff"), [100, 0, 0], atol=0.02)
    np.testing.assert_allclose(lab("#ff0000"), [53.24, 80.09, 67.20], atol=0.02)
    assert contrast("black") == pytest.approx(21.0)


@pytest.mark.parametrize("vision", VISIONS)
def test_any_two_colours_of_a_picture_differ_for_everybody(vision):
    # A just noticeable difference is 2.3 (Mahy, Van Eycken and Oosterlinck 1994).
    for one, other in combinations((*PALETTE, INK), 2):
        assert np.linalg.norm(lab(one, vision) - lab(other, vision)) > 15, (one, other)
    for one, other in combinations(PALETTE, 2):
        fills = [tint(color, 0.75) for color in (one, other)]
        assert np.linalg.norm(lab(fills[0], vision) - lab(fills[1], vision)) > 10, (one, other)
    shades = [lab(color, vision)[0] for color in shades_of(PALETTE[0])(np.linspace(0, 1, 9))]
    assert (np.diff(shades) < -3).all()


def test_lines_differ_without_colour():
    assert len({(str(DASHES[i % len(DASHES)]), MARKERS[i % len(MARKERS)]) for i in range(len(PALETTE))}) == len(PALETTE)
    many = [lab(color)[0] for color in state_colors(12)]
    assert len(state_colors(12)) == 12 and (np.diff(many) > 2).all()


def test_texts_and_lines_stand_out_from_paper_and_bands():
    for paper in ("white", BAND):
        assert contrast(INK, paper) > 7
    for color in (*PALETTE, GREY):
        assert contrast(strong(color)) >= 3
    assert strong(PALETTE[0]) == to_rgb(PALETTE[0])
    for color in PALETTE:  # what is written or drawn upon the shades of states
        assert contrast(INK, tint(color, 0.4)) > 4.5


def test_sizes_follow_the_reader():
    with mpl.rc_context({"font.size": 20}):
        ax = PICTURES["fan"]()
        assert ax.xaxis.label.get_fontsize() == 20 and ax.get_xticklabels()[0].get_fontsize() == 20 * 0.833


@pytest.mark.parametrize("n", [1, 2])
def test_legends_take_their_room_from_the_axes_where_the_layout_does_not(n):
    figure, axes = plt.subplots(1, n, figsize=(4.5 * n, 3), squeeze=False)
    for ax in axes[0]:
        PICTURES["fan"](ax=ax)
        PICTURES["fan"](ax=ax)
    figure.canvas.draw()
    for ax, edge in zip(axes[0], [*(other.get_window_extent().x0 for other in axes[0][1:]), figure.bbox.width]):
        assert ax.get_legend().get_window_extent().x1 <= edge
        assert ax.get_window_extent().width > 150
