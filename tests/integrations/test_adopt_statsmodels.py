"""Results of statsmodels, adopted: the same densities of values, forecasts, states, names and dates."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tsa.arima.model import ARIMA
from statsmodels.tsa.statespace.dynamic_factor import DynamicFactor
from statsmodels.tsa.statespace.sarimax import SARIMAX
from statsmodels.tsa.statespace.structural import UnobservedComponents
from statsmodels.tsa.statespace.varmax import VARMAX

import probseq as ps
from probseq.errors import DataTypeError, NotFittedError, UnsupportedError

RNG = np.random.default_rng(3)
N, H = 72, 5
MONTHS = pd.date_range("2015-01-01", periods=N, freq="MS")
WALK = 50.0 + np.cumsum(RNG.normal(0.3, 1.0, N))
SEASON = pd.Series(WALK + 4.0 * np.sin(np.arange(N) * np.pi / 2), MONTHS, name="sales")
GAPS = SEASON.copy()
GAPS.iloc[[0, 7, 8, 40]] = np.nan
X = RNG.normal(size=(N + H, 2))
INPUTS = pd.DataFrame(X, pd.date_range("2015-01-01", periods=N + H, freq="MS"), columns=["price", "ads"])
PAIR = pd.DataFrame(
    np.cumsum(0.3 * RNG.normal(size=(N, 2)), 0) @ np.array([[1.0, 0.4], [0.0, 1.0]]) + RNG.normal(size=(N, 2)),
    MONTHS,
    columns=["a", "b"],
)
HOLES = PAIR.copy()
HOLES.iloc[[3, 20], 0] = np.nan
HOLES.iloc[[11], :] = np.nan
EXOG = INPUTS.iloc[:N]
FUTURE = INPUTS.iloc[N:]
LOOSE = {"enforce_stationarity": False, "enforce_invertibility": False}

MODELS = {
    "ar": lambda: ARIMA(WALK, order=(2, 0, 0)),
    "arma": lambda: ARIMA(SEASON, order=(1, 0, 2)),
    "sparse": lambda: ARIMA(SEASON, order=([1, 4], 0, [3])),
    "arima": lambda: ARIMA(SEASON, order=(1, 1, 1)),
    "arima drift": lambda: ARIMA(SEASON, order=(1, 1, 1), trend="t"),
    "arima line": lambda: ARIMA(SEASON, order=(1, 0, 0), trend="ct"),
    "arima exog": lambda: ARIMA(SEASON, exog=EXOG, order=(1, 0, 1), trend="ct"),
    "arima exog array": lambda: ARIMA(WALK, exog=X[:N], order=(1, 1, 0)),
    "seasonal": lambda: SARIMAX(SEASON, order=(0, 1, 1), seasonal_order=(0, 1, 1, 4)),
    "seasonal ar": lambda: SARIMAX(SEASON, order=(1, 0, 0), seasonal_order=(1, 0, 1, 4), trend="c"),
    "sarimax trend": lambda: SARIMAX(SEASON, order=(1, 1, 0), trend="ct", trend_offset=3),
    "sarimax polynomial": lambda: SARIMAX(SEASON, order=(1, 0, 1), trend=[1, 0, 1], exog=EXOG),
    "sarimax gaps": lambda: SARIMAX(GAPS, order=(1, 1, 1), seasonal_order=(0, 0, 1, 4), exog=EXOG),
    "sarimax noise": lambda: SARIMAX(SEASON, order=(1, 1, 0), measurement_error=True),
    "sarimax hamilton": lambda: SARIMAX(WALK, order=(2, 0, 1), trend="c", hamilton_representation=True),
    "sarimax loose": lambda: SARIMAX(SEASON, order=(2, 1, 1), **LOOSE),
    "sarimax concentrated": lambda: SARIMAX(SEASON, order=(1, 1, 1), concentrate_scale=True),
    "sarimax exact": lambda: SARIMAX(GAPS, order=(1, 1, 1), seasonal_order=(0, 1, 0, 4), use_exact_diffuse=True),
    "level": lambda: UnobservedComponents(GAPS, "local level"),
    "trend": lambda: UnobservedComponents(SEASON, "local linear trend", seasonal=4, exog=EXOG),
    "trend exact": lambda: UnobservedComponents(GAPS, "lltrend", seasonal=4, use_exact_diffuse=True),
    "cycle": lambda: UnobservedComponents(WALK, "rwalk", cycle=True, stochastic_cycle=True, autoregressive=1),
    "var": lambda: VARMAX(PAIR, order=(2, 0)),
    "varma": lambda: VARMAX(HOLES, order=(1, 1)),
    "var trend": lambda: VARMAX(PAIR, order=(1, 0), trend="ct"),
    "var exog": lambda: VARMAX(PAIR, exog=EXOG, order=(1, 0), trend="ct"),
    "var exog gaps": lambda: VARMAX(HOLES, exog=EXOG, order=(2, 0), measurement_error=True, trend="n"),
    "factor": lambda: DynamicFactor(HOLES, k_factors=1, factor_order=2),
}


def fitted(name):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = MODELS[name]()
        options = {} if isinstance(model, ARIMA) else {"disp": False}
        return model.fit(method_kwargs={"maxiter": 8}) if not options else model.fit(maxiter=8, **options)


@pytest.fixture(scope="module", params=MODELS)
def pair(request):
    results = fitted(request.param)
    return results, ps.from_statsmodels(results)


def future(results):
    if results.model.exog is None or not getattr(results.model, "k_exog", 0):
        return None
    return FUTURE if isinstance(results.model.data.orig_endog, pd.Series | pd.DataFrame) else FUTURE.values


def predicted(results, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no dates, no future regressors where none are needed
        inputs = future(results)
        return results.get_forecast(H, **({} if inputs is None else {"exog": inputs}), **options)


def test_densities_of_the_values_that_both_score_are_equal(pair):
    theirs, ours = pair
    steps = ours.log_prob_steps(ours.training_).values
    scored, seen = np.isfinite(steps), np.isfinite(np.asarray(theirs.model.endog)).any(-1)
    assert_allclose(steps[scored], theirs.llf_obs[scored], rtol=1e-8, atol=1e-8)
    unscored = max(theirs.loglikelihood_burn, theirs.filter_results.nobs_diffuse)
    assert_array_equal(scored, seen & (np.arange(len(seen)) >= unscored))
    if not theirs.filter_results.nobs_diffuse:
        assert_allclose(ours.log_likelihood_, theirs.llf, rtol=1e-9)
        assert_allclose(ours.aic, theirs.aic, rtol=1e-9)


def test_forecasts_are_equal_and_keep_names_and_dates(pair):
    theirs, ours = pair
    law, wanted = ours.forecast(H, covariates=future(theirs)), predicted(theirs)
    mean = law.mean()
    assert_allclose(mean, wanted.predicted_mean, rtol=1e-8)
    assert_allclose(law.std(), wanted.se_mean, rtol=1e-8)
    if isinstance(wanted.predicted_mean, pd.DataFrame):
        assert_array_equal(mean.coords["variable"], PAIR.columns)
    if isinstance(theirs.model.data.orig_endog, pd.Series | pd.DataFrame):
        assert_array_equal(mean.coords["time"], INPUTS.index[N:])
    else:
        assert_array_equal(mean.coords["time"], np.arange(N, N + H))


def test_joint_forecasts_and_paths_have_these_moments(pair):
    theirs, ours = pair
    law = ours.forecast(H, covariates=future(theirs))
    total = law.aggregate("sum")
    assert_allclose(np.squeeze(total.mean()), law.mean().sum("time"), rtol=1e-10)
    paths = ours.sample(H, 2000, history=ps.TRAINING, random_state=0, **inputs_of(theirs))
    assert_allclose(paths.mean("sequence"), law.mean(), atol=5.0 * float(law.std().max()) / np.sqrt(2000))
    spread = (paths.sum("time").std("sequence") / np.squeeze(total.std())).values
    assert_allclose(spread, 1.0, atol=0.1)


def inputs_of(results):
    inputs = future(results)
    return {} if inputs is None else {"covariates": inputs}


def test_smoothed_states_and_parameters_are_equal(pair):
    theirs, ours = pair
    smoothed = ours.smooth(ours.training_)
    last = slice(N // 2, None)  # at the start an approximately diffuse covariance has lost digits in both
    wanted = theirs.smoothed_state.T[last]
    assert_allclose(smoothed["mean"][last], wanted, atol=1e-7 * np.abs(wanted).max())
    assert list(smoothed.coords["state"].values) == [str(name) for name in theirs.model.state_names]
    for name, value in zip(theirs.model.param_names, np.asarray(theirs.params), strict=True):
        assert float(ours.params_[name]) == value


def test_a_file_keeps_the_model(pair, tmp_path):
    theirs, ours = pair
    ours.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    assert again.log_likelihood_ == ours.log_likelihood_
    assert_array_equal(again.log_prob_steps(ours.training_), ours.log_prob_steps(ours.training_))
    kept, law = again.forecast(H, covariates=future(theirs)), ours.forecast(H, covariates=future(theirs))
    assert_array_equal(kept.mean(), law.mean())
    assert_array_equal(kept.mean().coords["time"], law.mean().coords["time"])


@pytest.mark.parametrize("name", ["sarimax gaps", "sarimax trend", "var exog gaps"])
def test_new_data_and_streams(name):
    theirs = fitted(name)
    ours = ps.from_statsmodels(theirs)
    inputs = None if theirs.model.exog is None else EXOG
    data = HOLES if ours.n_features_in_ == 2 else GAPS
    other = -0.5 * data
    applied = theirs.apply(other, **({} if inputs is None else {"exog": inputs}))
    assert_allclose(float(ours.log_prob(other, covariates=inputs)), applied.llf, rtol=1e-9)
    first, rest = other.iloc[:30], other.iloc[30:]
    parts = (None, None) if inputs is None else (inputs.iloc[:30], inputs.iloc[30:])
    history = ps.sequences(first, covariates=parts[0])
    split = float(ours.log_prob(first, covariates=parts[0])) + float(
        ours.log_prob(rest, covariates=parts[1], history=history)
    )
    assert_allclose(split, applied.llf, rtol=1e-9)
    state = ours.initial_state()
    values = np.asarray(other).reshape(N, -1)
    total = 0.0
    for t in range(N):
        u = None if inputs is None else inputs.values[t]
        seen = np.isfinite(values[t])
        if seen.all() and t >= theirs.loglikelihood_burn:
            total += float(np.squeeze(ours.predictive_at(state, covariates=u).log_prob(values[t : t + 1])))
        state = ours.update(state, values[t], covariates=u)
    whole = np.isfinite(values).all(-1) & (np.arange(N) >= theirs.loglikelihood_burn)
    assert_allclose(total, applied.llf_obs[whole].sum(), rtol=1e-9)


STATIONARY = ["ar", "arma", "sparse", "arima line", "arima exog", "seasonal ar"]


@pytest.mark.parametrize("name", [*STATIONARY, "arima drift", "arima exog array", "sarimax exact", "trend exact"])
def test_native_models_have_the_same_law(name):
    theirs = fitted(name)
    ours = ps.from_statsmodels(theirs, native=True)
    assert isinstance(ours, ps.LocalTrend if name == "trend exact" else ps.ARMA)
    assert ours.n_parameters_ == len(theirs.params)
    if name in STATIONARY:
        assert_allclose(ours.log_likelihood_, theirs.llf, rtol=1e-10)
    steps = ours.log_prob_steps(ours.training_).values
    scored = np.isfinite(steps)
    exact = 1e-8 if theirs.loglikelihood_burn == 0 else 1e-4  # what a start of variance 1e6 leaves
    assert_allclose(steps[scored], theirs.llf_obs[scored], atol=exact)
    law = ours.forecast(H, covariates=future(theirs))
    assert_allclose(law.mean(), predicted(theirs).predicted_mean, rtol=exact)
    assert_allclose(law.std(), predicted(theirs).se_mean, rtol=exact)


@pytest.mark.parametrize("name", ["arima", "seasonal", "sarimax gaps", "trend", "level", "sarimax noise"])
def test_an_exact_diffuse_start_in_place_of_the_approximate_one(name):
    theirs = fitted(name)
    ours = ps.from_statsmodels(theirs, native=True)
    options = {key: value for key, value in theirs.model._get_init_kwds().items() if key != "exog"}
    kind = SARIMAX if isinstance(theirs.model, SARIMAX) else UnobservedComponents
    if kind is SARIMAX:
        options = {"order": theirs.model.order, "seasonal_order": theirs.model.seasonal_order}
        options["measurement_error"] = theirs.model.measurement_error
    options["use_exact_diffuse"] = True
    exact = kind(theirs.model.data.orig_endog, exog=theirs.model.data.orig_exog, **options)
    wanted = exact.smooth(np.asarray(theirs.params))
    steps = ours.log_prob_steps(ours.training_).values
    scored = np.isfinite(steps)
    assert_allclose(steps[scored], wanted.llf_obs[scored], rtol=1e-8, atol=1e-8)
    assert_allclose(ours.forecast(H, covariates=future(theirs)).mean(), predicted(wanted).predicted_mean, rtol=1e-8)


@pytest.mark.parametrize("name", ["sarimax trend", "sarimax hamilton", "sarimax loose", "cycle", "var", "factor"])
def test_specifications_that_are_not_ours_stay_state_spaces(name):
    assert type(ps.from_statsmodels(fitted(name), native=True)).__name__ == "StateSpaceModel"


def test_what_a_user_changes_in_statsmodels():
    model = SARIMAX(SEASON, order=(1, 0, 1))
    with model.fix_params({"ar.L1": 0.5}):
        theirs = model.fit(disp=False)
    ours = ps.from_statsmodels(theirs)
    assert ours.n_parameters_ == 2 and float(ours.params_["ar.L1"]) == 0.5
    assert float(ours.standard_errors_["ar.L1"]) == 0.0
    assert_allclose(float(ours.standard_errors_["ma.L1"]), theirs.bse["ma.L1"])
    again = ps.from_statsmodels(pickle.loads(pickle.dumps(theirs)))
    assert_array_equal(again.forecast(H).mean(), ours.forecast(H).mean())
    more = pd.Series([50.0, 51.0], pd.date_range(MONTHS[-1], periods=3, freq="MS")[1:], name="sales")
    for grown in (theirs.append(more), theirs.extend(more)):
        assert_allclose(np.ravel(ps.from_statsmodels(grown).forecast(2).mean()), grown.forecast(2), rtol=1e-9)


def test_values_without_a_regular_index():
    uneven = SEASON.copy()
    uneven.index = MONTHS + pd.to_timedelta(np.arange(N) % 3, "D")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = SARIMAX(uneven, order=(1, 0, 0)).fit(disp=False)
    ours = ps.from_statsmodels(theirs)
    assert list(ours.training_.index[0]) == list(uneven.index)
    quarters = pd.Series(WALK, pd.period_range("2001Q1", periods=N, freq="Q"))
    ours = ps.from_statsmodels(SARIMAX(quarters, order=(1, 0, 0)).smooth([0.9, 1.0]))
    assert str(ours.training_.index[0][-1]) == "2018Q4"


def test_missing_values_are_imputed():
    theirs = fitted("var exog gaps")
    ours = ps.from_statsmodels(theirs)
    full = ours.impute(HOLES, covariates=EXOG)
    signal = theirs.smoothed_state.T @ theirs.filter_results.design[..., 0].T
    holes = HOLES.isna().values
    assert_allclose(full.values[holes], signal[holes], rtol=1e-8)
    assert_array_equal(full.values[~holes], HOLES.values[~holes])
    draws = ours.impute(HOLES, 400, covariates=EXOG, random_state=0)
    assert_allclose(draws.mean("path").values[holes], full.values[holes], atol=0.5)


def test_refusals(tmp_path):
    model = SARIMAX(SEASON, order=(1, 0, 0))
    with pytest.raises(NotFittedError, match="fit"):
        ps.from_statsmodels(model)
    for other in (object(), None, SEASON):
        with pytest.raises(DataTypeError, match="SARIMAX"):
            ps.from_statsmodels(other)
    ours = ps.from_statsmodels(model.smooth([0.5, 1.0]))
    for call in (lambda: ours.fit(SEASON), lambda: ours.with_parameters(sigma2=1.0)):
        with pytest.raises(UnsupportedError, match="known"):
            call()
    theirs = SARIMAX(SEASON, order=(1, 1, 0), simple_differencing=True).smooth([0.5, 1.0])
    with pytest.raises(UnsupportedError, match="simple_differencing"):
        ps.from_statsmodels(theirs)
    theirs = UnobservedComponents(SEASON, "rwalk", exog=EXOG, mle_regression=False).smooth([1.0])
    with pytest.raises(UnsupportedError, match="mle_regression"):
        ps.from_statsmodels(theirs)
    theirs = DynamicFactor(PAIR, k_factors=1, factor_order=1, exog=EXOG)
    with pytest.raises(UnsupportedError, match="regressors in DynamicFactor"):
        ps.from_statsmodels(theirs.smooth(theirs.start_params))
    bare = model.smooth([0.5, 1.0])
    bare.save(tmp_path / "bare", remove_data=True)
    with pytest.raises(NotFittedError, match="remove_data"):
        ps.from_statsmodels(type(bare).load(tmp_path / "bare"))
