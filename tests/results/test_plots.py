import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr

import probseq as ps
from probseq.errors import ParameterError, UnsupportedError
from probseq.results.plots import plot_comparison, stamps


@pytest.fixture(autouse=True)
def close_figures():
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")


def line(ax, label):
    return next(found for found in ax.lines if found.get_label() == label)


@pytest.fixture(scope="module")
def walk():
    train, test = ps.split(ps.datasets.air_passengers(), horizon=6)
    return ps.RandomWalk(transform=ps.Log()).fit(train), train, test


def test_fan_shows_median_history_and_truth_at_their_own_times(walk):
    model, train, test = walk
    forecast = model.forecast(6)
    ax = forecast.plot(test)
    np.testing.assert_allclose(line(ax, "median").get_ydata(), forecast.median().values)
    np.testing.assert_array_equal(line(ax, "observed").get_ydata(), test.values)
    np.testing.assert_array_equal(line(ax, "history").get_ydata(), train.values[-24:])
    assert (line(ax, "observed").get_xdata() == test["time"].values).all()
    assert ax.get_ylabel() == "thousand passengers"


def test_history_and_levels_are_chosen(walk):
    model, train, _ = walk
    ax = model.forecast(6).plot(history=3, levels=(0.2, 0.5, 0.8), n_paths=4)
    assert len(line(ax, "history").get_xdata()) == 3
    assert [t.get_text() for t in ax.get_legend().get_texts()] == ["history", "80 %", "50 %", "20 %", "median"]
    no_history = model.forecast(6).plot(history=0)
    assert "history" not in [found.get_label() for found in no_history.lines]


def test_one_panel_a_variable():
    x = np.random.default_rng(0).normal(size=(40, 2)).cumsum(0)
    table = pd.DataFrame(x, columns=["north", "south"])
    forecast = ps.RandomWalk().fit(table).forecast(5)
    axes = forecast.plot()
    assert [ax.get_ylabel() for ax in axes] == ["north", "south"]
    np.testing.assert_allclose(line(axes[1], "median").get_ydata(), forecast.median().values[:, 1])
    with pytest.raises(ParameterError, match="1 axes. Expected 2 axes, one a variable"):
        forecast.plot(ax=plt.subplots()[1])


def test_many_sequences_are_drawn_one_at_a_time():
    x = np.random.default_rng(1).normal(size=(3, 30, 1)).cumsum(1)
    forecast = ps.RandomWalk().fit(x).forecast(4)
    ax = forecast.plot(sequence=2)
    np.testing.assert_array_equal(line(ax, "history").get_ydata(), x[2, -16:, 0])
    with pytest.raises(ParameterError, match="sequence=3"):
        forecast.plot(sequence=3)


def test_categories_are_shades_of_probability():
    forecast = ps.MarkovChain(order=1).fit("abracadabra" * 3).forecast(5)
    ax = forecast.plot()
    assert ax.images[0].get_array().shape[1] == 5
    assert "a" in [label.get_text() for label in ax.get_yticklabels()]


def test_cumulative_difference_starts_from_the_model_asked_for():
    scores = xr.DataArray(
        [[-1.0, -2.0], [-1.0, np.nan], [-3.0, -1.0]], dims=("time", "model"), coords={"model": ["a", "b"]}
    )
    ax = plot_comparison(scores, "a")
    np.testing.assert_allclose(line(ax, "b").get_ydata(), [-1.0, -1.0, 1.0])
    np.testing.assert_allclose(line(plot_comparison(scores.T, "b"), "a").get_ydata(), [1.0, 1.0, -1.0])
    with pytest.raises(ParameterError, match="'c'"):
        plot_comparison(scores, "c")


def test_first_of_several_sequences_is_compared():
    scores = xr.DataArray(
        np.stack([np.zeros((4, 2)), np.ones((4, 2))]),
        dims=("sequence", "time", "model"),
        coords={"model": ["a", "b"]},
    )
    np.testing.assert_array_equal(line(plot_comparison(scores, "a"), "b").get_ydata(), np.zeros(4))


@pytest.mark.parametrize(
    ("index", "expected"),
    [
        (pd.period_range("2020-01", periods=2, freq="M"), np.array(["2020-01", "2020-02"], "datetime64[ns]")),
        (pd.date_range("2020-01-01", periods=2, tz="Asia/Tokyo"), np.array(["2020-01-01", "2020-01-02"], "M8[ns]")),
        (pd.RangeIndex(3, 5), np.array([3, 4])),
        (pd.Index(["x", "y"]), np.array([0, 1])),
    ],
)
def test_stamps_are_what_matplotlib_draws(index, expected):
    np.testing.assert_array_equal(stamps(index), expected)


def counts():
    return ps.PoissonProcess().fit(np.random.default_rng(2).poisson(3, size=40)).forecast(4)


def test_quantiles_are_lines_with_their_levels(walk):
    model, _, test = walk
    forecast = model.forecast(6)
    ax = forecast.plot(test, kind="quantiles", levels=(0.8,))
    drawn = [found.get_ydata() for found in ax.lines if str(found.get_label()).startswith("_")]
    np.testing.assert_allclose(sorted(drawn, key=np.sum), forecast.quantile([0.1, 0.5, 0.9]).values.T)
    assert [text.get_text() for text in ax.texts] == ["90 %", "50 %", "10 %"]
    np.testing.assert_array_equal(line(ax, "observed").get_ydata(), test.values)


def test_paths_are_drawn_without_bands(walk):
    ax = walk[0].forecast(6).plot(kind="paths", n_paths=7)
    assert len(ax.lines) == 7 + 2 and not ax.collections
    assert len(walk[0].forecast(6).plot(kind="paths").lines) == 100 + 2


def test_ridges_of_counts_are_bars_of_their_masses():
    forecast = counts()
    ax = forecast.plot([1, 2, np.nan, 4], kind="ridge")
    assert [text.get_text() for text in ax.get_yticklabels()] == ["1", "2", "3", "4"]
    first = ax.containers[0]
    masses = np.array([bar.get_height() for bar in first])
    at = np.array([bar.get_x() + bar.get_width() / 2 for bar in first])
    expected = np.exp(forecast._backend.law[:, :1].log_prob(torch.as_tensor(at)[:, None, None, None]).numpy().ravel())
    np.testing.assert_allclose(masses / masses.max(), expected / expected.max(), rtol=1e-6)
    np.testing.assert_array_equal(line(ax, "observed").get_xdata(), [1, 2, np.nan, 4])


def test_ridges_of_measurements_are_densities(walk):
    ax = walk[0].forecast(3).plot(kind="ridge")
    assert len(ax.collections) == 3
    heights = [found.get_ydata().max() + rank for rank, found in enumerate(ax.lines)]
    # The law widens: later ridges are lower.
    assert heights[0] > heights[1] > heights[2] > 0
    assert ps.Forecast.from_paths(np.random.default_rng(3).normal(size=(50, 2))).plot(kind="ridge") is not None
    scaled = counts() * 0.5
    assert scaled.plot(kind="ridge").get_xlabel() == ""


def test_categories_are_bars_of_probability():
    forecast = ps.MarkovChain(order=1).fit("abracadabra" * 3).forecast(5)
    ax = forecast.plot("abrac", kind="bars")
    names = [text.get_text() for text in ax.get_legend().get_texts()]
    assert names.pop(0) == "observed"
    heights = np.array([[bar.get_height() for bar in group] for group in ax.containers])
    np.testing.assert_allclose(heights.sum(0), 1.0)
    np.testing.assert_allclose(heights[names.index("a")], forecast.probs().sel(category="a").values)
    many = ps.MarkovChain().fit("the quick brown fox jumps over the lazy dog").forecast(2).plot("zq", kind="bars")
    assert "others" in [text.get_text() for text in many.get_legend().get_texts()]


def test_pictures_that_do_not_fit_are_named(walk):
    with pytest.raises(ParameterError, match="ridge"):
        walk[0].forecast(2).plot(kind="ridges")
    with pytest.raises(UnsupportedError, match="bars"):
        ps.MarkovChain().fit("abracadabra").forecast(2).plot(kind="fan")
    with pytest.raises(UnsupportedError, match="ridge"):
        walk[0].forecast(2).plot(kind="bars")


def test_shades_show_what_came_and_name_their_steps():
    panel = ps.MarkovChain().fit("abracadabra").forecast(3).plot("abr")
    [came] = panel.lines
    names = [tick.get_text() for tick in panel.get_yticklabels()]
    assert [names[int(row)] for row in came.get_ydata()] == list("abr") and came.get_xdata().tolist() == [0, 1, 2]
    words = pd.Series([*"abracadabra"], pd.date_range("2024-01-01", periods=11))
    model = ps.MarkovChain().fit(words)
    panel = model.predictive(words).plot()
    assert panel.get_xticklabels()[0].get_text() == "2024-01-01" and panel.get_xlabel() == ""
    assert not panel.lines


def test_what_is_certain_leaves_the_other_ridges_their_height(walk):
    known = ps.RandomWalk().with_parameters(scale=[1.0]).forecast(3, history=[0.0, 1.0]).given([np.nan, 1.5, np.nan])
    panel = known.plot(kind="ridge")
    tops = [np.ptp(path.vertices[:, 1]) for one in panel.collections for path in one.get_paths()]
    assert min(tops) > 0.5 * max(tops)


def test_paths_of_one_step_are_seen(walk):
    panel = ps.RandomWalk().with_parameters(scale=[1.0]).forecast(1, history=[0.0, 1.0]).plot(kind="paths", n_paths=5)
    assert sum(line.get_marker() == "_" for line in panel.lines) == 5
