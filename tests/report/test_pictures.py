import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from probseq.plotting.style import strong
from probseq.report import figures, read_source, run_study


@pytest.fixture(scope="module")
def study():
    return run_study(read_source("lake_huron"), horizon=16, models=["arma", "rw", "iid"])


def drawn(draw, columns=1):
    figure = Figure(layout="constrained")
    draw(figure.subplots(1, columns))
    return figure


def test_models_keep_their_colours_in_lines_and_legends(study):
    figure = drawn(lambda ax: figures.lead(study, ax))
    [legend] = figure.legends
    colors = {t.get_text(): to_hex(h.get_color()) for t, h in zip(legend.get_texts(), legend.legend_handles)}
    wanted = {name: to_hex(strong(figures.color_of(study, name))) for name in colors}
    assert set(colors) == set(study.models) - {study.comparison.best}
    assert colors == wanted


def test_intervals_are_those_of_the_differences(study):
    [ax] = drawn(lambda ax: figures.intervals(study, ax)).axes
    names = [text.get_text() for text in ax.get_yticklabels()]
    ends = {line.get_ydata()[0]: line.get_xdata() for line in ax.lines if line.get_marker() == "|"}
    for row, name in enumerate(names[1:], 1):
        np.testing.assert_allclose(ends[row], study.comparison.difference(name).interval(0.95))


def test_the_picture_of_the_series_shows_split_and_missing_values(study):
    [ax] = drawn(lambda ax: figures.series(study, ax)).axes
    past, ahead = ax.lines[:2]
    assert len(past.get_xdata()) == study.train.size and len(ahead.get_xdata()) == 16
    assert [text.get_text() for text in ax.figure.legends[0].get_texts()] == ["fitted to (82)", "held out (16)"]


def test_coverage_is_counted(study):
    [ax] = drawn(lambda ax: figures.coverage(study, ax)).axes
    line = next(line for line in ax.lines if line.get_label() == "rw")
    pit = study.comparison.pit("rw")
    level, inside = line.get_data()
    i = int(np.argmin(np.abs(level - 0.5)))
    assert inside[i] == np.mean((pit >= 0.25) & (pit <= 0.75))


def test_residual_quantiles_are_sorted_residuals(study):
    right = drawn(lambda axes: figures.residuals(study, "rw", axes), columns=2).axes[1]
    dots = next(line for line in right.lines if line.get_marker() == "o")
    np.testing.assert_allclose(dots.get_ydata(), np.sort(study.residuals("rw")))
