"""Pictures of states and residuals show the numbers that they were given."""

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Circle, FancyArrowPatch
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import EmptyDataError, ParameterError, ShapeError, UnsupportedError
from probseq.plotting import plot_emissions, plot_residuals, plot_transition_graph, plot_transition_matrix

MOVES = np.array([[0.9, 0.1, 0.0], [0.002, 0.7, 0.298], [0.25, 0.25, 0.5]])


@pytest.fixture(autouse=True)
def close_figures():
    before = mpl.rcParams.copy()
    yield
    for number in plt.get_fignums():
        plt.figure(number).canvas.draw()
    plt.close("all")
    assert mpl.rcParams == before


@pytest.fixture(scope="module")
def quakes():
    y = ps.datasets.earthquakes()
    fitted = ps.HMM(2, ps.Poisson(), random_state=0).fit(y)
    return y, fitted.order_states().label_states(["calm", "active"])


@pytest.fixture(scope="module")
def pair():
    model = ps.HMM(2, ps.Normal("full")).with_parameters(
        initial=[1, 0],
        transition=[[0.9, 0.1], [0.2, 0.8]],
        mean=[[0, 0], [3, -1]],
        covariance=[[[1, 0.5], [0.5, 2]], [[0.5, 0], [0, 0.5]]],
    )
    values = model.sample(80, random_state=0).values
    index = pd.date_range("2023-01-01", periods=80, freq="D")
    return pd.DataFrame(values, columns=["price", "volume"], index=index), model


def texts(ax):
    return [text.get_text() for text in ax.texts]


def test_matrix_leaves_the_impossible_empty():
    ax = plot_transition_matrix(MOVES, names=["a", "b", "c"])
    assert texts(ax) == ["0.90", "0.10", "0.002", "0.70", "0.30", "0.25", "0.25", "0.50"]
    assert_array_equal(ax.images[0].get_array(), MOVES)
    assert [label.get_text() for label in ax.get_yticklabels()] == ["a", "b", "c"]
    with pytest.raises(ShapeError, match="one row and one column"):
        plot_transition_matrix(MOVES[:2])
    with pytest.raises(ShapeError, match="2 names"):
        plot_transition_matrix(MOVES, names=["a", "b"])


def test_graph_draws_likely_moves_wider():
    ax = plot_transition_graph(MOVES, [0.7, 0.2, 0.1])
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    circles = [patch for patch in ax.patches if isinstance(patch, Circle)]
    # Of the off-diagonal moves one is impossible and one is below 0.5 %.
    assert len(arrows) == 4 + 3 and len(circles) == 3
    assert circles[0].radius > circles[1].radius > circles[2].radius
    widths = {round(a.get_linewidth(), 6) for a in arrows}
    assert max(widths) == pytest.approx(0.8 + 3.2 * np.sqrt(0.9), abs=1e-6)
    assert {"0.90", "0.10", "0.30", "0"} <= set(texts(ax))
    assert len(plot_transition_graph(np.ones((1, 1))).texts) == 2
    many = plot_transition_graph(np.full((6, 6), 1 / 6))
    assert len(many.texts) == 6 + 6


def test_emissions_are_weighted_densities_over_the_histogram():
    x = np.linspace(-4, 4, 100)
    density = np.exp(-0.5 * x**2) / np.sqrt(2 * np.pi)
    ax = plot_emissions([0.0, 1.0, np.nan, -1.0], x, [density, density], [0.3, 0.7], names=["low", "high"])
    lines = {line.get_label(): line.get_ydata() for line in ax.lines}
    assert_allclose(lines["low"], 0.3 * density)
    assert_allclose(lines["all states"], density)
    bars = ax.containers[0].patches
    assert sum(bar.get_height() * bar.get_width() for bar in bars) == pytest.approx(1.0)
    counts = plot_emissions([0, 1, 1, 3], np.arange(4), np.full((1, 4), 0.25), [1.0], discrete=True)
    assert [bar.get_height() for bar in counts.containers[0]] == [0.25, 0.5, 0.0, 0.25]
    with pytest.raises(ShapeError, match="densities"):
        plot_emissions([0.0], x, np.ones((2, 5)), [0.5, 0.5])


def test_residual_panels():
    z = np.array([0.1, -2.5, np.nan, 0.4, 2.2, -0.3, np.inf])
    axes = plot_residuals(np.arange(7), z, (z - 0.1, z + 0.1), n_lags=3, breaks=(3,))
    index, histogram, quantiles, correlation = axes
    inside, outside = index.lines[0].get_ydata(), index.lines[1].get_ydata()
    assert_array_equal(outside, [-2.5, 2.2, np.inf])
    assert np.isnan(inside).sum() == 1
    assert "5 values" in histogram.get_xlabel()
    assert_array_equal(quantiles.lines[1].get_ydata(), np.sort(z[np.isfinite(z)]))
    centred = np.where(np.isfinite(z), z - z[np.isfinite(z)].mean(), 0.0)
    pairs = [(0, 1), (3, 4), (4, 5)]  # neighbours of one sequence
    expected = sum(centred[i] * centred[j] for i, j in pairs) / (centred**2).sum()
    heights = [segment[1, 1] for segment in correlation.collections[1].get_segments()]
    assert heights[0] == pytest.approx(expected)
    with pytest.raises(ParameterError, match="Expected 4"):
        plot_residuals(np.arange(7), z, ax=axes[:2])
    with pytest.raises(ShapeError, match="one for each of 7"):
        plot_residuals(np.arange(7), z[:3])


def test_states_of_a_series(quakes):
    y, model = quakes
    ax = model.plot_states(y)
    series, probabilities = ax.figure.axes
    assert series is ax and ax.get_ylabel() == "earthquakes, count"
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["calm", "active"]
    assert_array_equal(ax.lines[0].get_ydata(), y)
    assert_array_equal(ax.lines[0].get_xdata(), y["time"])
    assert probabilities.get_ylim() == (0, 1)
    mine = plt.figure().add_subplot()
    assert model.plot_states([y.values, y.values[:30]], sequence=1, ax=mine) is mine
    assert len(mine.lines[0].get_xdata()) == 30
    with pytest.raises(ParameterError, match="sequence=2"):
        model.plot_states([y.values, y.values[:30]], sequence=2)


def test_states_of_two_variables_have_a_panel_each(pair):
    frame, model = pair
    axes = model.plot_states(frame)
    assert [ax.get_ylabel() for ax in axes] == ["price", "volume"]
    assert len(axes[0].figure.axes) == 3
    _, mine = plt.subplots(2)
    assert model.plot_states(frame, ax=mine)[1] is mine[1]
    with pytest.raises(ParameterError, match="1 axes"):
        model.plot_states(frame, ax=mine[0])


def test_differenced_states_begin_later():
    x = np.cumsum(np.random.default_rng(0).normal(size=40))
    ax = ps.HMM(2, transform=ps.Difference(2), random_state=0).fit(x).plot_states(x)
    assert min(p.get_extents().x0 for c in ax.collections for p in c.get_paths()) == pytest.approx(1.5)


def test_transitions(quakes):
    _, model = quakes
    left, right = model.plot_transitions()
    assert left.figure is right.figure
    assert "calm" in texts(right)
    assert texts(model.plot_transitions("matrix")) == [f"{p:.2f}" for p in model.params_["transition"].values.ravel()]
    mine = plt.figure().add_subplot()
    assert model.plot_transitions("graph", ax=mine) is mine
    with pytest.raises(ParameterError, match="kind='tree'"):
        model.plot_transitions("tree")


def test_emissions(quakes, pair):
    y, model = quakes
    ax = model.plot_emissions(y)
    assert ax.get_xlabel() == "earthquakes, count"
    lines = {line.get_label(): line for line in ax.lines}
    grid, rates = lines["calm"].get_xdata(), model.params_["rate"].values[:, 0]
    share = model.smooth(y).mean("time").values
    from scipy import stats

    assert_allclose(lines["active"].get_ydata(), share[1] * stats.poisson.pmf(grid, rates[1]), rtol=1e-9)
    frame, normal = pair
    ax = normal.plot_emissions(frame, "volume" if normal.training_ is not None else 1)
    total = next(line for line in ax.lines if line.get_label() == "all states")
    assert np.trapezoid(total.get_ydata(), total.get_xdata()) == pytest.approx(1.0, abs=0.05)


def test_emissions_on_the_scale_of_the_data_and_of_differences():
    x = np.exp(np.random.default_rng(0).normal(1, 0.4, 300))
    ax = ps.HMM(1, transform=ps.Log()).fit(x).plot_emissions(x)
    line = next(line for line in ax.lines if line.get_label() == "all states")
    assert np.trapezoid(line.get_ydata(), line.get_xdata()) == pytest.approx(1.0, abs=0.03)
    steps = np.cumsum(np.random.default_rng(0).normal(size=200))
    ax = ps.HMM(1, transform=ps.Difference()).fit(steps).plot_emissions(steps)
    assert ax.get_xlabel().endswith("(differences)") and abs(np.mean(ax.get_xlim())) < 2


def test_emissions_of_many_counts_and_of_categories():
    big = ps.HMM(2, ps.Poisson()).with_parameters(initial=[1, 0], transition=[[0.9, 0.1], [0.1, 0.9]], rate=[100, 2000])
    ax = big.plot_emissions(big.sample(300, random_state=0).values)
    line = next(line for line in ax.lines if line.get_label() == "all states")
    assert len(line.get_xdata()) <= 201
    assert line.get_ydata().sum() == pytest.approx(1.0, abs=0.02)
    words = ps.HMM(2, ps.Categorical(), random_state=0).fit("abbaabab")
    ax = words.plot_emissions("abba")
    assert [label.get_text() for label in ax.get_xticklabels()][:2] == ["a", "b"]


def test_emissions_that_covariates_move():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(400, 1))
    x = 2.0 * u[:, 0] + rng.normal(size=400)
    fitted = ps.HMM(1, ps.NormalRegression()).fit(x, covariates=u)
    line = next(a for a in fitted.plot_emissions(x, covariates=u).lines if a.get_label() == "all states")
    grid, height = line.get_xdata(), line.get_ydata()
    assert np.trapezoid(height, grid) == pytest.approx(1.0, abs=0.03)
    spread = np.sqrt(np.trapezoid(height * grid**2, grid) - np.trapezoid(height * grid, grid) ** 2)
    assert spread == pytest.approx(np.sqrt(5), rel=0.1)
    driven = ps.HMM(2, ps.Normal(), transitions=ps.CovariateTransitions(), random_state=0).fit(x, covariates=u)
    with pytest.raises(UnsupportedError):
        driven.plot_transitions()


def test_residuals_of_any_family(pair):
    frame, model = pair
    axes = model.plot_residuals(frame, variable=1)
    shown = np.concatenate([line.get_ydata() for line in axes[0].lines[:2]])
    assert_allclose(np.sort(shown), np.sort(model.residuals(frame).values[:, 1]))
    many = model.plot_residuals([frame.values, frame.values[:20]], "ordinary")
    assert "one after the other" in many[0].get_xlabel() and len(many) == 4
    y = ps.datasets.earthquakes()
    _, mine = plt.subplots(2, 2)
    counts = ps.IID(ps.Poisson()).fit(y)
    assert counts.plot_residuals(y, ax=mine)[3] is mine[1, 1]
    assert len(mine[0, 0].collections[0].get_segments()) == len(y)
    with pytest.raises(ParameterError, match="variable=5"):
        model.plot_residuals(frame, variable=5)


@pytest.fixture(scope="module")
def many():
    n = 12
    moves = np.random.default_rng(0).dirichlet(np.full(n, 0.5), n)
    return ps.HMM(n).with_parameters(
        initial=np.full(n, 1 / n), transition=moves, mean=np.arange(n)[:, None], scale=np.ones((n, 1))
    )


def overlap(boxes):
    return any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])


@pytest.mark.parametrize("names", [None, [f"regime {i}" for i in range(12)]])
def test_texts_of_many_states_do_not_overlap(many, names):
    matrix, graph = many.label_states(names).plot_transitions()
    matrix.figure.canvas.draw()
    for some in (matrix.get_xticklabels(), matrix.get_yticklabels(), matrix.texts, graph.texts):
        assert not overlap([text.get_window_extent() for text in some])
    names = names or [str(i) for i in range(12)]
    assert [label.get_text() for label in matrix.get_xticklabels()] == names and set(names) <= set(texts(graph))


def test_states_of_a_text_are_drawn_over_its_tokens():
    model = ps.HMM(2, ps.Categorical(), inference=ps.EM(n_init=1), random_state=0).fit("ab ab ba ab")
    ax = model.plot_states("ab b")
    assert [label.get_text() for label in ax.get_yticklabels()] == ["' '", "a", "b", "<end>"]
    assert ax.lines[0].get_linestyle() == "None"


def test_axes_that_are_none(pair):
    data, model = pair
    forecast = model.forecast(2, history=data)
    for draw in (model.plot_states, model.plot_emissions, model.plot_residuals):
        with pytest.raises(ParameterError, match=r"ax=3. Expected axes of matplotlib"):
            draw(data, ax=3)
    for draw in (forecast.plot, model.plot_transitions, forecast.marginal("price").plot):
        with pytest.raises(ParameterError, match=r"ax=3. Expected axes of matplotlib"):
            draw(ax=3)
    one = plt.subplots()[1]
    with pytest.raises(ParameterError, match="1 axes. Expected 2 axes, one a variable"):
        model.plot_states(data, ax=one)
    with pytest.raises(ParameterError, match="1 axes. Expected 2 axes, one a variable"):
        forecast.plot(ax=one)
    with pytest.raises(ParameterError, match="one for the matrix and one for the graph"):
        model.plot_transitions(ax=[one])
    assert plot_transition_matrix(MOVES, ax=np.array([one])) is one


def test_residuals_of_nothing_are_no_picture(pair):
    with pytest.raises(EmptyDataError, match="at least one value that was seen"):
        pair[1].plot_residuals(np.full((5, 2), np.nan))
