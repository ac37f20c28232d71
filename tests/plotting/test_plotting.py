import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pytest
from matplotlib.collections import PolyCollection

from probseq.errors import ParameterError, ShapeError
from probseq.plotting import plot_cumulative_difference, plot_fan, plot_pit, plot_states, plot_weights

DAYS = np.arange("2020-01-01", "2020-03-01", dtype="datetime64[D]")
N = len(DAYS)


@pytest.fixture(autouse=True)
def close_figures():
    before = mpl.rcParams.copy()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert mpl.rcParams == before


def line(ax, label):
    return next(found for found in ax.lines if found.get_label() == label)


def legend(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_importing_loads_no_matplotlib():
    code = "import sys, probseq.plotting; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_fan_draws_what_it_was_given():
    median = np.arange(10.0)
    bands = {0.5: (median - 1, median + 1), 0.9: (median - 3, median + 3)}
    truth = np.where(np.arange(10) == 4, np.nan, median + 0.5)
    ax = plot_fan(
        DAYS[-10:],
        median,
        bands,
        history=(DAYS[:-10], np.ones(N - 10)),
        truth=truth,
        paths=np.ones((3, 10)),
        ylabel="°C",
    )
    np.testing.assert_array_equal(line(ax, "median").get_ydata(), median)
    np.testing.assert_array_equal(line(ax, "observed").get_ydata(), truth)
    assert len(line(ax, "history").get_xdata()) == N - 10
    assert legend(ax) == ["history", "90 %", "50 %", "median", "observed"]
    assert ax.get_ylabel() == "°C"
    wide, narrow = [c for c in ax.collections if isinstance(c, PolyCollection)]
    assert wide.get_datalim(ax.transData).height == pytest.approx(9 + 6)
    assert narrow.get_datalim(ax.transData).height == pytest.approx(9 + 2)


def test_fan_of_one_step_shows_its_interval():
    ax = plot_fan([7], [1.0], {0.9: ([0.0], [3.0])})
    np.testing.assert_array_equal(ax.collections[0].get_segments()[0], [[7, 0], [7, 3]])


def test_fan_refuses_what_does_not_fit():
    with pytest.raises(ShapeError, match="median of shape"):
        plot_fan(np.arange(3), np.ones(4), {})
    with pytest.raises(ShapeError, match="one sequence"):
        plot_fan(np.arange(3), np.ones((3, 2)), {})
    with pytest.raises(ParameterError, match="level=90"):
        plot_fan(np.arange(3), np.ones(3), {90: (np.ones(3), np.ones(3))})


def test_everything_draws_on_the_axes_given():
    _, axes = plt.subplots(5)
    assert plot_fan([0, 1], [0, 1], {}, ax=axes[0]) is axes[0]
    assert plot_states(DAYS, np.ones(N), np.zeros(N, int), np.ones((N, 1)), ax=axes[1]) is axes[1]
    assert plot_pit([0.2, 0.7], ax=axes[2]) is axes[2]
    assert plot_weights(["a"], [1.0], ax=axes[3]) is axes[3]
    assert plot_cumulative_difference([0, 1], {"a": [0, 1]}, ax=axes[4]) is axes[4]
    assert len(plt.get_fignums()) == 1


def test_states_shade_their_runs_up_to_the_middle_between_times():
    ax = plot_states(np.arange(6), np.ones(6), [0, 0, 1, -1, 1, 0])
    runs = [[path.get_extents().intervalx.tolist() for path in c.get_paths()] for c in ax.collections]
    assert runs == [[[-0.5, 1.5], [4.5, 5.5]], [[1.5, 2.5], [3.5, 4.5]]]
    assert legend(ax) == ["state 0", "state 1"]


@pytest.mark.parametrize("free", [False, True])
def test_state_probabilities_get_a_panel_of_their_own(free):
    ax = plt.figure().add_axes((0.1, 0.4, 0.6, 0.5)) if free else None
    p = np.full((N, 3), 1 / 3)
    ax = plot_states(DAYS, np.ones((N, 2)), np.arange(N) % 3, p, names=["low", "mid", "high"], ax=ax)
    panels = ax.child_axes if free else [other for other in ax.figure.axes if other is not ax]
    assert len(panels) == 1
    assert panels[0].get_ylim() == (0, 1)
    assert legend(ax) == ["low", "mid", "high"]
    with pytest.raises(ShapeError, match="probabilities of shape"):
        plot_states(DAYS, np.ones(N), np.arange(N) % 3, p[1:])


def test_more_states_than_the_palette_has_colours():
    ax = plot_states(np.arange(40), np.ones(40), np.arange(40) // 2)
    assert len({tuple(c.get_facecolor()[0]) for c in ax.collections}) == 20


def test_pit_bars_are_a_density():
    ax = plot_pit(np.array([0.1, 0.15, 0.9, np.nan]), n_bins=4)
    assert [bar.get_height() for bar in ax.containers[0]] == pytest.approx([8 / 3, 0, 0, 4 / 3])
    assert "3 values" in ax.get_xlabel()


def test_weights_keep_their_order_from_the_top():
    ax = plot_weights(["best", "next", "unknown"], [0.7, -0.3, np.nan], errors=[0.1, 0.2, np.nan], xlabel="nats")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["best", "next", "unknown"]
    assert ax.yaxis_inverted()
    assert [bar.get_width() for bar in ax.patches] == pytest.approx([0.7, -0.3, 0])
    assert [text.get_text() for text in ax.texts] == ["0.7", "-0.3", "none"]
    assert ax.get_xlim()[0] < -0.5 < 0.8 < ax.get_xlim()[1]
    with pytest.raises(ShapeError, match="one for each of 2 names"):
        plot_weights(["a", "b"], [1.0])


def test_cumulative_difference_skips_what_is_not_scored():
    ax = plot_cumulative_difference(DAYS[:4], {"hmm": [1.0, np.nan, -3.0, 0.5]}, reference="arma")
    np.testing.assert_allclose(line(ax, "hmm").get_ydata(), [1, 1, -2, -1.5])
    assert ax.get_ylabel() == "nats ahead of arma"


@pytest.mark.parametrize("years", [5, 10, 40])
def test_years_keep_apart_in_a_narrow_panel(years):
    figure, axes = plt.subplots(1, 3, figsize=(10, 2), layout="constrained")
    months = np.datetime64("1992-01") + np.arange(12 * years)
    plot_cumulative_difference(months, {"hmm": np.ones(12 * years)}, ax=axes[1])
    figure.canvas.draw()
    shown = [tick.label1.get_window_extent() for tick in axes[1].xaxis.get_major_ticks() if tick.label1.get_text()]
    assert len(shown) >= 2
    assert all(left.x1 < right.x0 for left, right in zip(shown, shown[1:], strict=False))
