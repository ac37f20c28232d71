"""Backtests: every forecast equals the one that the model makes by itself from that origin."""

import threading
import warnings

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from numpy.testing import assert_allclose
from scipy.stats import multivariate_normal, norm
from sklearn.base import clone

import probseq as ps
from probseq.comparison import held_forecasts
from probseq.comparison.checkpoints import describe_model
from probseq.errors import ConvergenceWarning, CovariateError, DataWarning, HorizonError, ParameterError, ShapeError

AIR = ps.datasets.air_passengers()
ARMA = ps.ARMA(order=(1, 1, 0), transform=ps.Log())
HMM = ps.HMM(2, ps.Poisson(), random_state=0)
QUAKES = ps.datasets.earthquakes()


def same(row, forecast, y):
    """One origin of a backtest against a forecast object."""
    assert_allclose(row["mean"], forecast.mean(), rtol=1e-9)
    assert_allclose(row["log_score"], forecast.log_prob(y), rtol=1e-9)
    assert_allclose(row["joint_log_score"], forecast.log_prob(y, joint=True), rtol=1e-9)
    assert_allclose(row["crps"], forecast.crps(y), rtol=1e-7)
    assert_allclose(row["quantiles"], forecast.quantile(row["quantile"].values.tolist()), rtol=1e-9)
    for level in row["level"].values:
        lower, upper = np.moveaxis(forecast.interval(float(level)).values, -1, 0)
        assert_allclose(row["coverage"].sel(level=level), (y >= lower) & (y <= upper))


@pytest.mark.parametrize("model, data", [(ARMA, AIR), (HMM, QUAKES)])
@pytest.mark.parametrize("window", [None, 60])
def test_expanding_and_rolling_refits(model, data, window):
    found = ps.backtest({"m": model}, data, 3, min_steps=80, stride=2, refit=4, window=window, n_jobs=1)
    assert found["log_score"].dims == ("model", "origin", "horizon")
    y = data.values
    for origin, fitted_at in ((84, 80), (88, 88), (90, 88)):
        row = found.sel(model="m", origin=origin)
        assert int(row["fitted_at"]) == fitted_at
        begin = 0 if window is None else fitted_at - window
        alone = clone(model).fit(data[begin:fitted_at])
        same(row, alone.forecast(3, history=data[begin:origin]), y[origin : origin + 3])
        assert_allclose(row["truth"], y[origin : origin + 3])


def test_a_fitted_model_stays_as_it_is_and_its_draws_are_weighed_on():
    fitted = ps.HMM(2, ps.Normal(), inference=ps.Laplace(n_draws=6), random_state=0).fit(AIR[:60])
    found = ps.backtest(fitted, AIR, 2, min_steps=70, stride=20)
    held = ps.backtest(fitted, AIR, 2, min_steps=70, stride=20, weights="frozen")
    for origin in found["origin"].values:
        y, past = AIR.values[origin : origin + 2], AIR[:origin]
        same(found.isel(model=0).sel(origin=origin), fitted.forecast(2, history=past), y)
        same(held.isel(model=0).sel(origin=origin), fitted.forecast(2, history=past, weights="frozen"), y)
    assert np.abs(found["mean"] - held["mean"]).max() > 1e-3
    with pytest.warns(DataWarning, match="was fitted to 60 steps and is scored on some of them, from step 40"):
        ps.backtest(fitted, AIR, 2, min_steps=40, stride=50)
    again = ps.backtest(fitted, AIR, 2, min_steps=40, stride=50, refit=1)
    alone = clone(fitted).fit(AIR[:90])
    same(again.isel(model=0).sel(origin=90), alone.forecast(2), AIR.values[90:92])


def test_sequences_of_different_lengths_with_covariates():
    rng = np.random.default_rng(0)
    inputs = [pd.DataFrame({"a": rng.normal(size=t), "b": rng.normal(size=t)}) for t in (40, 31, 26)]
    series = [np.cumsum(rng.normal(size=len(u)) * 0.3) + u["a"].to_numpy() for u in inputs]
    model = ps.ARMA(order=(1, 0))
    found = ps.backtest({"x": model, "rw": ps.RandomWalk()}, series, 4, min_steps=24, covariates=inputs, refit=3)
    assert found["crps"].dims == ("model", "origin", "horizon", "sequence")
    assert found.sizes["origin"] == 13 and list(found["origin"].values[[0, -1]]) == [24, 36]
    alone = clone(model).fit([y[:24] for y in series], covariates=[u[:24] for u in inputs])
    for s, y in enumerate(series):
        past = ps.sequences(y[:25], covariates=inputs[s][:25])
        ahead = inputs[s][25:29]
        steps = min(4, len(y) - 25)
        row = found.sel(model="x", origin=25).isel(sequence=s)
        filled = ahead.reindex(range(25, 29)).fillna(0.0)
        forecast = alone.forecast(4, history=past, covariates=filled)
        assert_allclose(row["mean"][:steps], forecast.mean()[:steps], rtol=1e-9)
        assert np.isnan(row[["mean", "log_score", "crps"]].to_array()[:, steps:]).all()
        chain = alone.log_prob_steps(y[25 : 25 + steps], history=past, covariates=inputs[s][25 : 25 + steps])
        assert_allclose(row["joint_log_score"], chain.sum(), rtol=1e-9)
    assert np.isnan(found["joint_log_score"].sel(origin=30).isel(sequence=2)).all()
    assert np.isnan(found["truth"].sel(origin=30).isel(sequence=2)).all()
    assert np.isfinite(found["log_score"].sel(origin=30).isel(sequence=1, horizon=0)).all()
    with pytest.raises(CovariateError) as raised:
        ps.backtest(
            ps.ARMA().with_parameters(ar=[0.5], ma=[0.1], mean=0.0, scale=1.0, n_covariates=1, coefficients=[1.0]),
            series,
        )
    assert "covariate" in str(raised.value)


def test_forecasts_in_batches_of_any_size(monkeypatch):
    model = ps.HMM(2, ps.Normal(), inference=ps.Laplace(n_draws=4), random_state=0).fit(AIR[:60])
    panel = [AIR.values[:90], AIR.values[:80]]
    whole = ps.backtest(model, panel, 3, min_steps=70, stride=3)
    monkeypatch.setattr(held_forecasts, "_PATH_ENTRIES", 3 * 2000 * 3)
    xr.testing.assert_allclose(ps.backtest(model, panel, 3, min_steps=70, stride=3), whole, rtol=1e-10)


def test_origins_as_dates_cut_a_panel_on_one_day():
    long = AIR.to_series()[:60]
    panel = {"old": long, "new": long[24:]}
    found = ps.backtest(ps.RandomWalk(), panel, 1, origins=["1952-06-01", "1953-01-15"])
    assert found["origin"].values[0] == np.datetime64("1952-06-01")
    truth = found["truth"].isel(horizon=0)
    assert_allclose(truth.values, [[long["1952-07-01"]] * 2, [long["1953-02-01"]] * 2])
    assert_allclose(found["mean"].isel(model=0, horizon=0)[1], [long["1953-01-01"]] * 2)
    assert found["timestamp"].dims == ("origin", "horizon", "sequence")


def test_a_series_that_begins_behind_the_first_origin():
    long = AIR.to_series()[:60]
    panel = {"old": long, "new": long[24:]}
    options = {"origins": ["1950-06-01", "1952-03-15", "1952-06-15"]}
    each = ps.PerSequence(ps.ARMA(order=(1, 0)), n_jobs=1)
    found = ps.backtest({"each": each, "one": ps.ARMA(order=(1, 0))}, panel, 1, **options)
    new = found.sel(sequence="new")
    for name in ("mean", "joint_log_score", "truth"):
        assert np.isnan(new[name].isel(origin=0)).all() and np.isfinite(new[name].isel(origin=slice(1, None))).all()
    assert new["origin_time"].isnull().values.tolist() == [True, False, False]
    assert new["timestamp"].isnull().values.squeeze().tolist() == [True, False, False]
    # A model of its own is fitted where it first can be, the common one before that.
    alone = ps.ARMA(order=(1, 0)).fit(long["1951":"1952-03-01"])
    common = ps.ARMA(order=(1, 0)).fit(long[:"1950-06-01"])
    past = long["1951":"1952-06-01"]
    for name, model in (("each", alone), ("one", common)):
        expected = model.forecast(1, history=past.values).mean()
        assert_allclose(new["mean"].sel(model=name).isel(origin=2), expected, rtol=1e-9)


def test_one_model_for_each_series():
    rng = np.random.default_rng(1)
    panel = {"a": rng.normal(size=30), "b": 5 + rng.normal(size=26)}
    each = ps.PerSequence(ps.ARMA(order=(1, 0)), n_jobs=1)
    found = ps.backtest(each, panel, 2, min_steps=20, refit=4, n_jobs=1)
    fitted = clone(each).fit({name: y[:24] for name, y in panel.items()})
    again = ps.backtest(fitted, panel, 2, origins=[24, 25])
    for name, y in panel.items():
        for backtest in (found, again):
            row = backtest.isel(model=0).sel(origin=24, sequence=name)
            same(row, fitted[name].forecast(2), y[24:26])


def test_a_series_that_cannot_be_fitted_loses_no_other():
    rng = np.random.default_rng(1)
    panel = {"a": rng.normal(size=30), "flat": np.ones(30), "b": 5 + rng.normal(size=30)}
    each = ps.PerSequence(ps.ARMA(order=(1, 0)), n_jobs=1)
    options = {"horizon": 2, "min_steps": 26}
    with pytest.warns(ConvergenceWarning, match="flat: no forecasts, DataError"):
        found = ps.backtest(each, panel, n_jobs=3, **options)
    alone = ps.backtest(each, {name: panel[name] for name in "ab"}, n_jobs=1, **options)
    xr.testing.assert_allclose(found.sel(sequence=["a", "b"]), alone)
    assert np.isnan(found["mean"].sel(sequence="flat")).all()
    with pytest.warns(DataWarning, match="could not be fitted"):
        fitted = clone(each).fit({name: y[:26] for name, y in panel.items()})
    with pytest.warns(ConvergenceWarning, match="flat: no forecasts"):
        again = ps.backtest(fitted, panel, n_jobs=1, **options)
    assert_allclose(again["crps"], found["crps"], rtol=1e-9)
    with pytest.raises(ps.errors.DataError, match="does not vary"):
        ps.backtest(each, {"x": np.ones(30), "y": np.ones(30)}, **options)


def test_paths_texts_and_several_variables():
    net = ps.GRU(hidden_size=3, inference=ps.MAP(training=ps.TrainingOptions(max_epochs=2)), random_state=0)
    rng = np.random.default_rng(2)
    both = pd.DataFrame(rng.normal(size=(40, 2)), columns=["u", "v"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ps.backtest(net, both, 3, min_steps=30, stride=3, n_paths=50, n_jobs=1)
        alone = clone(net).fit(both[:30])
        again = ps.backtest(alone, both, 3, min_steps=30, stride=3, n_paths=50, n_jobs=1)
    xr.testing.assert_identical(found, again)
    assert found["mean"].dims == ("model", "origin", "horizon", "variable")
    assert "50 simulated paths" in found["method"].values[0]
    assert np.isfinite(found["log_score"].isel(horizon=0)).all() and np.isnan(found["log_score"][..., 1:]).all()
    steps = alone.log_prob_steps(both, history=None)
    assert_allclose(found["log_score"].isel(model=0, horizon=0), steps[found["origin"].values], rtol=1e-5)
    chains = [steps[o : o + 3].sum() for o in found["origin"].values]
    assert_allclose(found["joint_log_score"].isel(model=0), chains, rtol=1e-5)
    text = "abracadabra" * 4
    words = ps.backtest(ps.MarkovChain(1), text, 2, min_steps=30)
    assert "crps" not in words and np.isfinite(words["log_score"]).all()
    assert set(np.unique(words["mode"])) <= set(range(6))


def test_the_joint_score_integrates_missing_values_out():
    y = AIR.values[:60].astype(float)
    y[[45, 47]] = np.nan
    model = ps.ARMA(order=(1, 1, 1), trend="n").with_parameters(ar=[0.3], ma=[0.2], scale=9.0)
    found = ps.backtest(model, y, 4, origins=[40, 43, 44])
    for origin in found["origin"].values:
        came = y[origin : origin + 4]
        seen = np.flatnonzero(~np.isnan(came))
        # The levels ahead are sums of ARMA(1, 1) differences: their covariance from the weights of the innovations.
        forecast = model.forecast(4, history=y[:origin])
        psi = np.cumsum(np.r_[1.0, 0.5 * 0.3 ** np.arange(3)])
        rows = np.tril(psi[np.maximum(np.arange(4)[:, None] - np.arange(4), 0)])
        law = multivariate_normal(forecast.mean().values[seen], 81.0 * (rows @ rows.T)[np.ix_(seen, seen)])
        expected = law.logpdf(came[seen])
        assert_allclose(found["joint_log_score"].isel(model=0).sel(origin=origin), expected, rtol=1e-6)
    differenced = ps.HMM(1, transform=ps.Difference()).fit(y[:40])
    jumps = ps.backtest(differenced, y[:48], 4, origins=[40, 44])["joint_log_score"].isel(model=0)
    assert np.isnan(jumps).values.tolist() == [False, True]
    cut = ps.backtest(differenced, y[:45], 4, origins=[40, 43])["joint_log_score"].isel(model=0)
    steps = differenced.log_prob_steps(y[43:45], history=y[:43])
    assert_allclose(cut.sel(origin=43), steps.sum(), rtol=1e-9)


class Drift:
    """The last value and the mean step, with normal quantiles."""

    def fit(self, y):
        self.slope, self.sd = float(np.diff(y).mean()), float(np.diff(y).std())
        return self

    def forecast(self, horizon, history):
        steps = np.arange(1, horizon + 1)
        levels = np.linspace(0.01, 0.99, 99)
        centre = history.iloc[-1] + self.slope * steps
        spread = np.sqrt(steps)[:, None] * self.sd * norm.ppf(levels)
        return ps.Forecast.from_quantiles(levels, centre[:, None] + spread, like=history)


def test_forecasters_from_elsewhere_and_wrappers():
    bands = ps.Conformal(ps.ARMA((1, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = ps.backtest({"drift": Drift(), "bands": bands}, AIR, 2, min_steps=100, stride=8, refit=2, n_jobs=1)
    assert np.isnan(found["log_score"]).all() and np.isfinite(found["crps"]).all()
    assert np.isnan(found["joint_log_score"]).all()
    alone = Drift().fit(AIR.values[:116])
    row = found.sel(model="drift", origin=124)
    assert int(row["fitted_at"]) == 116
    assert_allclose(row["mean"], AIR.values[123] + alone.slope * np.array([1, 2]), rtol=1e-3)
    truth = AIR.values[124:126]
    assert_allclose(row["crps"], alone.forecast(2, AIR[:124].to_series()).crps(truth), rtol=1e-9)

    class Own(Drift):
        def fit(self, y):
            self.model = ps.ARMA((1, 0)).fit(y)
            return self

        def forecast(self, horizon, history):
            return self.model.forecast(horizon, history=history)

    both = ps.backtest({"own": Own(), "arma": ps.ARMA((1, 0))}, AIR, 2, min_steps=130, refit=4)
    for name in ("log_score", "joint_log_score", "crps"):
        assert_allclose(*both[name].values, rtol=1e-9)

    class Short(Drift):
        def forecast(self, horizon, history):
            return super().forecast(1, history)

    with pytest.raises(ShapeError, match="horizon=2"):
        ps.backtest({"short": Short()}, AIR, 2)


def test_a_killed_run_goes_on_where_it_was(tmp_path, monkeypatch):
    from probseq.comparison import backtest as module

    models = {"arma": ps.ARMA(order=(1, 0)), "a/b walk": ps.RandomWalk()}
    options = {"horizon": 2, "min_steps": 100, "stride": 4, "refit": 3, "n_jobs": 1}
    whole = ps.backtest(models, AIR, **options)
    run, calls = module.fit_and_forecast, []

    def dying(*args):
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return run(*args)

    monkeypatch.setattr(module, "fit_and_forecast", dying)
    with pytest.raises(KeyboardInterrupt):
        ps.backtest(models, AIR, path=tmp_path / "kept", **options)
    files = sorted((tmp_path / "kept").iterdir())
    assert len(files) == 4 and all(file.suffix == ".npz" for file in files)
    files[0].write_bytes(files[0].read_bytes()[:100])
    resumed = ps.backtest(models, AIR, path=tmp_path / "kept", **options)
    xr.testing.assert_identical(resumed, whole)
    total = len(calls)
    assert total == 5 + 2 * 4 - 3
    xr.testing.assert_identical(ps.backtest(models, AIR, path=tmp_path / "kept", **options), whole)
    assert len(calls) == total
    ps.backtest({"arma": ps.ARMA(order=(1, 1))}, AIR, path=tmp_path / "kept", **options)
    ps.backtest(models, AIR + 1, path=tmp_path / "kept", **options)
    assert len(calls) == total + 4 + 8
    with pytest.raises(ParameterError, match="which is a file"):
        ps.backtest(models, AIR, path=files[1], **options)


def test_forecasters_are_told_apart_by_all_they_hold(tmp_path):
    class Level(Drift):
        def __init__(self, levels):
            self.levels = levels

    first, second = np.zeros(5000), np.zeros(5000)
    second[2500] = 1.0
    assert describe_model(Level(first), False) == describe_model(Level(first.copy()), False)
    assert describe_model(Level(first), False) != describe_model(Level(second), False)
    bands = ps.Conformal(ps.ARMA((1, 0)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fitted = clone(bands).fit(AIR)
    assert describe_model(bands, False) == describe_model(fitted, False)
    assert describe_model(bands, False) != describe_model(ps.Conformal(ps.ARMA((2, 0))), False)
    options = {"X": AIR, "min_steps": 130, "stride": 5, "n_jobs": 1, "path": tmp_path}
    xr.testing.assert_identical(
        ps.backtest({"a": Level(first)}, **options), ps.backtest({"a": Level(first)}, **options)
    )
    assert len(list(tmp_path.iterdir())) == 1


def test_threads_change_nothing():
    models = {"arma": ps.ARMA(order=(1, 0)), "hmm": ps.HMM(2, random_state=0)}
    options = {"horizon": 2, "min_steps": 120, "stride": 5, "refit": 2}
    xr.testing.assert_identical(
        ps.backtest(models, AIR, n_jobs=2, **options), ps.backtest(models, AIR, n_jobs=1, **options)
    )
    assert threading.active_count() < 20


def test_no_value_is_scored_that_a_model_conditions_on():
    found = ps.backtest(
        {"walk": ps.RandomWalk()}, [np.arange(9.0), np.r_[np.nan, np.nan, 1.0, 2, 4, 5, 6, 7, 8]], 1, min_steps=2
    )
    first = found["log_score"].isel(model=0, horizon=0, origin=0)
    assert np.isnan(first[1])


def test_what_is_wrong_is_named():
    with pytest.raises(HorizonError, match="horizon=20 behind the first 130 steps of a sequence of 144"):
        ps.backtest(ARMA, AIR, 20, min_steps=130)
    with pytest.raises(HorizonError, match="horizon=0"):
        ps.backtest(ARMA, AIR, 0)
    for wrong, said in (
        ({"refit": 0}, "refit=0"),
        ({"stride": 0}, "stride=0"),
        ({"window": 1}, "window=1"),
        ({"levels": (90,)}, "levels"),
        ({"levels": "most"}, "levels"),
        ({"origins": [5, 5]}, "increasing"),
        ({"origins": [[5, 6]]}, "shape"),
        ({"origins": []}, "shape"),
        ({"path": 3}, "path=3"),
        ({"progress": "yes"}, "progress"),
        ({"origins": [144]}, "one step of a sequence before and behind"),
        ({"origins": ["soon"]}, "numbers of steps, or stamps"),
        ({"origins": [100], "stride": 2}, "one of them"),
        ({"weights": "equal"}, "weights"),
    ):
        with pytest.raises(ParameterError, match=said):
            ps.backtest(ARMA, AIR, **wrong)
    with pytest.raises(ParameterError, match="differ as words"):
        ps.backtest({1: ARMA, "1": HMM}, AIR)
    with pytest.raises(ParameterError, match="ARMA under the name 'a'"):
        ps.backtest({"a": ps.ARMA}, AIR)
    with pytest.raises(ps.errors.DataError) as raised:
        ps.backtest({"logs": ps.ARMA(transform=ps.Log())}, np.r_[np.arange(30.0) - 5], min_steps=20)
    assert "In the backtest of 'logs', at the origin 20." in raised.value.__notes__


def test_what_fits_had_to_say_is_said_once():
    stuck = ps.HMM(2, inference=ps.EM(max_iter=1), random_state=0)
    with pytest.warns(ConvergenceWarning, match="2 of 2 fits of HMM had something to say; at the origin 100") as told:
        ps.backtest(stuck, AIR, min_steps=100, stride=20, refit=2)
    assert len(told) == 1
