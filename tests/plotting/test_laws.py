"""Pictures of whole laws from arrays."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from probseq.errors import ShapeError
from probseq.plotting import plot_bars, plot_quantiles, plot_ridge


@pytest.fixture(autouse=True)
def close_figures():
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def test_the_tallest_ridge_nearly_reaches_the_row_above():
    x = np.linspace(-1, 1, 5)
    ax = plot_ridge(["a", "b"], [x, x], [np.ones(5), 4 * np.ones(5)], title="laws")
    assert ax.lines[0].get_ydata().max() == pytest.approx(0.85 / 4)
    assert ax.lines[1].get_ydata().max() == pytest.approx(-1 + 0.85)
    empty = plot_ridge(["a"], [x], [np.zeros(5)], counted=True)
    assert len(empty.containers[0]) == 5


def test_one_step_has_marks_for_its_quantiles():
    ax = plot_quantiles([3], {0.1: [1.0], 0.5: [2.0], 0.9: [4.0]}, history=([1, 2], [0.0, 1.0]))
    assert [found.get_marker() for found in ax.lines[1:]] == ["o"] * 3
    with pytest.raises(ShapeError, match="quantile 0.5"):
        plot_quantiles([1, 2], {0.5: [1.0]})


def test_rare_categories_are_put_together():
    p = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])
    ax = plot_bars(["1", "2"], ["x", "y", "z"], p, truth=["z", None], most=2)
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["observed", "x", "y", "others"]
    np.testing.assert_allclose([bar.get_height() for bar in ax.containers[2]], [0.1, 0.3])
    np.testing.assert_allclose(ax.lines[0].get_xydata(), [[0, 0.95]])


def test_shapes_are_checked():
    with pytest.raises(ShapeError, match="rows of values"):
        plot_ridge(["a"], [], [])
    with pytest.raises(ShapeError, match="step, category"):
        plot_bars(["1"], ["x"], np.ones((2, 2)))
