"""One rule for every picture: ``ax`` may be left out, and is what was drawn on.

Functions and methods are found in the package, so that a new one falls under the rule; it needs a row below.
"""

import importlib
import inspect
import pkgutil
import warnings
from functools import cache

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from matplotlib.axes import Axes
from plot_gallery import PICTURES, axes_of

import probseq as ps
import probseq.plotting as pp
from probseq.errors import ParameterError
from probseq.plotting.canvas import times_of
from probseq.results.plots import plot_comparison, plot_forecast

SERIES = np.cumsum(np.random.default_rng(0).normal(size=30)) / 3
RAGGED = [SERIES, SERIES[:12]]
PAIR = np.stack([SERIES, SERIES[::-1]], 1)
QUICK = ps.MLE(training=ps.TrainingOptions(max_epochs=1))
LATENT = ps.AmortizedVI(training=ps.TrainingOptions(max_epochs=1))


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@cache
def hmm():
    return ps.HMM(2).with_parameters(
        initial=[0.5, 0.5], transition=[[0.9, 0.1], [0.2, 0.8]], mean=[[-1.0], [1.0]], scale=[[1.0], [1.0]]
    )


@cache
def network(attention=None):
    return ps.GRU(3, attention=attention, inference=QUICK, random_state=0).fit(SERIES)


@cache
def latent():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.errors.ApproximationWarning)
        return ps.DeepMarkov(2, 4, n_particles=20, inference=LATENT, random_state=0).fit(SERIES)


def walk(data=SERIES):
    return ps.RandomWalk().fit(data)


@cache
def compared():
    return ps.compare({"walk": walk(), "iid": ps.IID().fit(SERIES)}, SERIES[1:], history=SERIES[:1])


def scored():
    steps = np.random.default_rng(0).normal(size=(20, 2))
    return xr.DataArray(steps, dims=("time", "model"), coords={"model": ["a", "b"]})


# Where a plot is found -> what draws it, given ax.
METHODS = {
    "probseq.comparison.calibration.plot_calibration": lambda ax: ps.plot_calibration(
        ps.calibration(walk().predictive(SERIES), SERIES), ax=ax
    ),
    "probseq.comparison.table.Comparison.plot": lambda ax: compared().plot(ax=ax),
    "probseq.comparison.table.Comparison.plot_cumulative": lambda ax: compared().plot_cumulative(ax=ax),
    "probseq.results.forecast.Forecast.plot": lambda ax: walk().forecast(3).plot(ax=ax),
    "probseq.results.plots.plot_forecast": lambda ax: plot_forecast(walk(PAIR).forecast(3), ax=ax),
    "probseq.results.plots.plot_comparison": lambda ax: plot_comparison(scored(), "a", ax),
    "probseq.estimators.residuals.Residuals.plot_residuals": lambda ax: walk().plot_residuals(SERIES, ax=ax),
    "probseq.estimators.state_plots.StatePlots.plot_states": lambda ax: hmm().plot_states(RAGGED, sequence=None, ax=ax),
    "probseq.estimators.state_plots.StatePlots.plot_transitions": lambda ax: hmm().plot_transitions(ax=ax),
    "probseq.estimators.state_plots.StatePlots.plot_emissions": lambda ax: hmm().plot_emissions(SERIES, ax=ax),
    "probseq.estimators.arma_diagnostics.ARMADiagnostics.plot_diagnostics": lambda ax: (
        ps.ARMA((1, 0)).with_parameters(ar=[0.5], mean=0.0, scale=1.0).plot_diagnostics(SERIES, ax=ax)
    ),
    "probseq.estimators.latent_paths.LatentPaths.plot_states": lambda ax: latent().plot_states(
        SERIES, n_paths=5, ax=ax
    ),
    "probseq.estimators.encoding.Encoding.plot_attention": lambda ax: network(attention=3).plot_attention(
        RAGGED, sequence=[0, 1], ax=ax
    ),
    "probseq.estimators.network_gradients.NetworkGradients.plot_gradient_norms": lambda ax: (
        network().plot_gradient_norms(SERIES, 5, ax=ax)
    ),
    "probseq.estimators.network_spectrum.NetworkSpectrum.plot_recurrent_spectrum": lambda ax: (
        network().plot_recurrent_spectrum(ax=ax)
    ),
    "probseq.estimators.network_compression.NetworkCompression.plot_compression": lambda ax: network().plot_compression(
        SERIES, ax=ax
    ),
}


def is_picture(name):
    return name == "plot" or name.startswith("plot_")


def found():
    """Every public function and method of the package that draws, by where it is defined."""
    plots = {}
    for module in pkgutil.walk_packages(ps.__path__, "probseq."):
        if module.name.startswith(("probseq.kernels", "probseq.testing", "probseq.integrations", "probseq.report")):
            continue
        home = importlib.import_module(module.name)
        for name, one in vars(home).items():
            if getattr(one, "__module__", None) != module.name:
                continue
            if inspect.isfunction(one) and is_picture(name):
                plots[f"{module.name}.{name}"] = one
            elif inspect.isclass(one):
                plots |= {f"{module.name}.{name}.{key}": own for key, own in vars(one).items() if is_picture(key)}
    return plots


FOUND = found()
DRAWS = {f"function {name}": draw for name, draw in PICTURES.items()} | METHODS


def test_every_picture_is_under_the_rule():
    arrays = {name for name in FOUND if name.startswith("probseq.plotting.")}
    assert {name.rsplit(".", 1)[1] for name in arrays} == {name for name in pp.__all__ if is_picture(name)}
    assert set(FOUND) - arrays == set(METHODS)
    assert len(FOUND) > 30


@pytest.mark.parametrize("name", FOUND)
def test_signatures(name):
    signature = inspect.signature(FOUND[name])
    assert signature.parameters["ax"].default is None
    assert "ax" in FOUND[name].__doc__ or "plot_cumulative" in name or name.endswith("Comparison.plot")
    if name.startswith("probseq.plotting."):
        assert hasattr(FOUND[name], "__wrapped__"), "decorate it with probseq.plotting.style.picture"


@pytest.mark.parametrize("name", DRAWS)
def test_what_is_given_is_returned(name):
    draw = DRAWS[name]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.errors.ApproximationWarning)
        alone = draw(ax=None)
        panels = axes_of(alone)
        assert all(isinstance(ax, Axes) for ax in panels)
        assert isinstance(alone, Axes) if len(panels) == 1 else alone.shape == (len(panels),) and alone.dtype == object
        open_figures = len(plt.get_fignums())
        figure = plt.figure(figsize=(9, 8))
        part = figure.subfigures(1, 2)[0]
        mine = part.subplots(len(panels), squeeze=False)
        given = draw(ax=mine[0, 0] if len(panels) == 1 else mine)
        assert all(one is other for one, other in zip(axes_of(given), mine.ravel(), strict=True))
        inside = axes_of(draw(ax=plt.figure()))
        assert len(inside) == len(panels)
        assert len(plt.get_fignums()) == open_figures + 2 and {ax.figure for ax in inside} == {plt.gcf()}
        for wrong in (3, [mine[0, 0]] * (len(panels) + 1), []):
            with pytest.raises(ParameterError, match="axes"):
                draw(ax=wrong)


TIMES = {
    "whole": lambda n: np.arange(n) + 1900,
    "real": lambda n: np.arange(n) * 0.25,
    "dates": lambda n: np.arange("2020-01-30", np.datetime64("2020-01-30") + n, dtype="datetime64[D]"),
    "zone": lambda n: pd.date_range("2024-03-30", periods=n, freq="6h", tz="Europe/Berlin"),
    "periods": lambda n: pd.period_range("2020Q1", periods=n, freq="Q"),
    "list of periods": lambda n: list(pd.period_range("2020-01", periods=n, freq="M")),
    "python dates": lambda n: [day.date() for day in pd.date_range("2020-01-01", periods=n)],
    "words": lambda n: [f"run {i}" for i in range(n)],
}


@pytest.mark.parametrize(("kind", "n"), [*((kind, 9) for kind in TIMES), ("whole", 1), ("zone", 1), ("words", 2)])
def test_times_of_every_kind_and_gaps(kind, n):
    times = TIMES[kind](n)
    line = np.where(np.arange(n) % 4 == 1, np.nan, np.sin(np.arange(n)))
    shares = np.tile([0.3, 0.7], (n, 1))
    figure, axes = plt.subplots(12, figsize=(8, 36), dpi=25)
    pp.plot_fan(times, line, {0.9: (line - 1, line + 1)}, truth=line, paths=line[None], ax=axes[0])
    pp.plot_quantiles(times, {0.1: line - 1, 0.5: line}, ax=axes[1])
    pp.plot_states(times, line, np.arange(n) % 2, shares, ax=axes[2])
    pp.plot_state_probabilities(times, shares, ax=axes[3])
    pp.plot_latent_paths(times, line[:, None], (line[:, None] - 1, line[:, None] + 1), ax=axes[4])
    pp.plot_cumulative_difference(times, {"a": line}, ax=axes[5])
    pp.plot_attention(times, shares, ax=axes[6])
    pp.plot_residuals(times, np.nan_to_num(line), ax=plt.figure())
    pp.plot_piano_roll(shares, times=times if kind != "words" else None, ax=axes[8])
    pp.plot_states(times, line * np.nan, np.full(n, -1), ax=axes[9])
    pp.plot_fan(times, line, {}, history=(times, line), ax=axes[10])
    pp.plot_emissions(line, np.arange(3), np.ones((1, 3)) / 3, [1.0], discrete=True, ax=axes[11])
    figure.canvas.draw()
    assert len(times_of(times)) == n
    if kind == "whole":
        ticks = axes[0].get_xticks()
        assert (ticks == np.round(ticks)).all()


def test_a_value_between_gaps_is_seen():
    ax = pp.plot_fan(range(4), [1.0, np.nan, 2.0, 3.0], {})
    assert ax.lines[0].get_markevery() == [0]


def test_several_sequences_have_a_panel_each():
    forecast = walk({"north": SERIES, "南": SERIES[:9]}).forecast(3)
    axes = forecast.plot(sequence=None)
    assert [ax.get_title(loc="left") for ax in axes] == ["north", "南"]
    assert len(walk([PAIR, PAIR[:8]]).forecast(2).plot(sequence=[1, 0], kind="ridge")) == 4
    assert forecast.plot(sequence=-1).get_title(loc="left") == "南"
    for wrong in (2, [0, 5], 0.5, True, []):
        with pytest.raises(ParameterError, match="sequence"):
            forecast.plot(sequence=wrong)
    rows = hmm().plot_states(RAGGED, sequence=[1, 0])
    assert [len(ax.lines[0].get_xdata()) for ax in rows] == [12, 30]
    assert isinstance(hmm().plot_states(RAGGED, sequence=[1]), Axes)


def test_below_the_attention_to_a_text_stand_its_tokens():
    model = ps.GRU(3, head=ps.Categorical(), attention=3, inference=QUICK, random_state=0).fit(
        ["白日依山盡", "黃河入海流"]
    )
    ax = model.plot_attention(["白日依山", "黃河"], sequence=1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["黃", "河", "<end>"]
