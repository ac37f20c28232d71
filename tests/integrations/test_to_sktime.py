"""Our models as forecasters of sktime: what they say is what the models say."""

import pickle
import warnings

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import CovariateError, HistoryError, HorizonError, ParameterError, UnsupportedError

pytest.importorskip("sktime", reason="sktime is not installed")

RNG = np.random.default_rng(0)
DAYS = pd.date_range("2001-01-01", periods=60, freq="D", name="day")
NOISE = RNG.standard_normal(60)
Y = pd.Series(5 + np.array([sum(0.7**j * NOISE[i - j] for j in range(i + 1)) for i in range(60)]), DAYS, name="level")
X = pd.DataFrame({"b": RNG.standard_normal(60), "a": RNG.standard_normal(60)}, DAYS)
AR = ps.ARMA((1, 0))
LEVELS = [0.05, 0.5, 0.9]


def values(array):
    return np.asarray(array, dtype=float)


@pytest.fixture(scope="module")
def fitted():
    """An autoregression after 50 steps; not to be changed."""
    return ps.to_sktime(AR).fit(Y[:50])


def test_the_checks_of_sktime_pass():
    from sktime.utils.estimator_checks import check_estimator

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sktime announces its next versions
        found = check_estimator(ps.to_sktime(ps.IID(random_state=0)), verbose=0)
    failed = {name: result for name, result in found.items() if result != "PASSED"}
    assert not failed and len(found) > 300


def test_every_question_is_answered_by_the_forecast(fitted):
    own = AR.fit(Y[:50]).forecast(4)
    rows, stamps = [0, 1, 3], DAYS[[50, 51, 53]]
    point = fitted.predict(fh=[1, 2, 4])
    assert point.name == "level" and point.index.equals(stamps) and point.index.name == "day"
    assert_allclose(point, values(own.mean())[rows], rtol=1e-12)
    quantiles = fitted.predict_quantiles(fh=[1, 2, 4], alpha=LEVELS)
    assert quantiles.columns.tolist() == [("level", level) for level in LEVELS]
    assert_allclose(quantiles, values(own.quantile(LEVELS))[rows], rtol=1e-12)
    interval = fitted.predict_interval(fh=[2], coverage=0.8)
    assert_allclose(values(interval)[0], values(own.interval(0.8))[1], rtol=1e-12)
    assert_allclose(fitted.predict_var(fh=[1, 2, 4])["level"], values(own.var())[rows], rtol=1e-12)


def test_a_covariance_has_the_variances_and_the_correlations_of_the_model(fitted):
    found = values(fitted.predict_var(fh=[1, 3], cov=True))
    phi, scale = (float(fitted.estimator_.params_[name].squeeze()) for name in ("ar", "scale"))
    variance = {h: scale**2 * sum(phi ** (2 * i) for i in range(h)) for h in (1, 3)}
    expected = [[variance[1], phi**2 * variance[1]], [phi**2 * variance[1], variance[3]]]
    assert_allclose(np.diag(found), np.diag(expected), rtol=1e-9)
    assert_allclose(found, expected, rtol=0.05)
    with pytest.raises(UnsupportedError, match="joint"):
        fitted.predict_var(fh=[0, 1], cov=True)


def test_steps_of_the_past_are_predicted_from_those_before(fitted):
    own = AR.fit(Y[:50])
    found = fitted.predict(fh=[-49, 0, 2])
    expected = values(own.predict(Y[:50]))
    assert_allclose(found, [expected[0], expected[-1], values(own.predict(horizon=2))[1]], rtol=1e-12)
    residuals = fitted.predict_residuals(Y[:50])
    assert_allclose(residuals, Y[:50] - expected, atol=1e-12)
    with pytest.raises(HorizonError, match="before the first value"):
        fitted.predict(fh=[-50])
    walk = ps.to_sktime(ps.RandomWalk()).fit(Y)
    assert np.isnan(walk.predict(fh=[-59]).iloc[0]) and walk.predict(fh=[-58]).iloc[0] == Y.iloc[0]


def test_an_update_moves_the_state_and_keeps_the_parameters(monkeypatch):
    forecaster = ps.to_sktime(AR).fit(Y[:40])
    own, read = forecaster.estimator_, []
    inner = type(own.model_).filter

    def filter(model, params, batch, state=None):
        read.append(batch.t)
        return inner(model, params, batch, state)

    monkeypatch.setattr(type(own.model_), "filter", filter)
    for i in range(40, 50):
        forecaster.update(Y[i : i + 1], update_params=False)
    forecaster.update(Y[50:55], update_params=False)
    assert read == [1] * 10 + [5] and forecaster.estimator_ is own
    expected = own.forecast(3, history=Y[:55])
    assert_allclose(forecaster.predict(fh=[1, 2, 3]), values(expected.mean()), rtol=1e-12)
    assert_allclose(forecaster.predict(fh=[-2]).iloc[0], values(own.predict(Y[:53]))[-1], rtol=1e-12)
    before = len(read)
    forecaster.update(Y[30:55], update_params=False)
    assert len(read) == before, "steps that are known were read again"


def test_an_update_that_is_asked_to_fits_anew():
    forecaster = ps.to_sktime(AR).fit(Y[:40]).update(Y[40:55])
    expected = ps.ARMA((1, 0)).fit(Y[:55])
    assert forecaster.estimator_.log_likelihood_ == expected.log_likelihood_
    assert_allclose(forecaster.predict(fh=[1, 2]), values(expected.predict(horizon=2)), rtol=1e-12)


def test_steps_left_out_are_missing_and_corrections_are_taken_over():
    forecaster = ps.to_sktime(AR).fit(Y[:40]).update(Y[43:46], update_params=False)
    own, gap = forecaster.estimator_, Y[:46].copy()
    gap.iloc[40:43] = np.nan
    assert_allclose(forecaster.predict(fh=[1]), values(own.forecast(1, history=gap).mean()), rtol=1e-12)
    forecaster.update(Y[40:46], update_params=False)
    assert_allclose(forecaster.predict(fh=[1]), values(own.forecast(1, history=Y[:46]).mean()), rtol=1e-12)
    changed = Y[:48].copy()
    changed.iloc[[39, 45]] += 3.0
    forecaster.update(changed[39:], update_params=False)
    both = [values(own.predict(changed))[-1], values(own.forecast(1, history=changed).mean())[0]]
    assert_allclose(forecaster.predict(fh=[0, 1]), both, rtol=1e-12)
    changed.iloc[44:46] -= 3.0
    forecaster.update(changed[44:])
    assert_allclose(forecaster.predict(fh=[1]), values(ps.ARMA((1, 0)).fit(changed).predict(horizon=1)), rtol=1e-12)
    with pytest.raises(HistoryError, match="no step of the data"):
        forecaster.update(pd.Series([1.0], DAYS[:1] - pd.Timedelta("1D"), name="level"), update_params=False)


def test_cutoffs_before_the_end_know_nothing_of_what_follows():
    from sktime.split import ExpandingWindowSplitter

    forecaster = ps.to_sktime(AR).fit(Y[:50])
    windows = ExpandingWindowSplitter(fh=[1, 2], initial_window=3, step_length=2)
    found = forecaster.update_predict(Y[30:40], cv=windows, update_params=False)
    own = forecaster.estimator_
    for end in found.columns:
        expected = own.forecast(2, history=Y[:end])
        assert_allclose(found[end].dropna(), values(expected.mean()), rtol=1e-12)


def test_covariates_go_by_name_and_time():
    forecaster = ps.to_sktime(AR).fit(Y[:50], X)
    own = ps.ARMA((1, 0)).fit(Y[:50], covariates=X[:50])
    shuffled = X[["a", "b"]].sample(frac=1, random_state=0)
    expected = own.predict(horizon=3, covariates=X[50:53])
    assert_allclose(forecaster.predict(fh=[1, 3], X=shuffled.sort_index()), values(expected)[[0, 2]], rtol=1e-9)
    with pytest.raises(CovariateError, match="2001-02-20"):
        forecaster.predict(fh=[2], X=X[51:])
    with pytest.raises(CovariateError):
        forecaster.predict(fh=[1])
    with pytest.raises(CovariateError, match="without"):
        forecaster.predict(fh=[1], X=X[["a"]])
    forecaster.update(Y[50:53], X, update_params=False)
    past = ps.sequences(Y[:53], covariates=X[:53])
    expected = forecaster.estimator_.forecast(1, history=past, covariates=X[53:54])
    assert_allclose(forecaster.predict(fh=[1], X=X), values(expected.mean()), rtol=1e-12)
    assert_allclose(forecaster.predict(fh=[0], X=X), values(own.predict(past))[-1:], rtol=1e-9)
    with pytest.raises(HistoryError, match="covariates"):
        forecaster.update(Y[55:], X, update_params=False)


def test_missing_values():
    holes = Y.copy()
    holes.iloc[[5, 20, 59]] = np.nan
    forecaster = ps.to_sktime(AR).fit(holes)
    assert_allclose(forecaster.predict(fh=[1]), values(ps.ARMA((1, 0)).fit(holes).predict(horizon=1)), rtol=1e-12)
    with pytest.raises(ValueError, match="missing"):
        ps.to_sktime(ps.ARMA((1, 0), innovations="laplace")).fit(holes)


def test_several_variables_and_panels():
    both = pd.DataFrame({"u": Y, "v": 10 * Y.shift(1).bfill() + X["a"]})
    joint = ps.to_sktime(ps.VAR()).fit(both)
    own = ps.VAR().fit(both)
    assert_allclose(joint.predict(fh=[1, 2]), values(own.predict(horizon=2)), rtol=1e-9)
    found = joint.predict_quantiles(fh=[1, 2], alpha=LEVELS)
    assert_allclose(found["v"], values(own.forecast(2).quantile(LEVELS))[:, 1], rtol=1e-9)
    each = ps.to_sktime(AR).fit(both)
    assert_allclose(each.predict(fh=[1])["u"], values(ps.ARMA((1, 0)).fit(Y).predict(horizon=1)), rtol=1e-12)
    panel = pd.concat({"one": Y.to_frame(), "two": 2 * Y.to_frame()}, names=["series", "day"])
    rows = ps.to_sktime(AR).fit(panel).predict(fh=[1])
    assert rows.index.names == ["series", "day"]
    assert_allclose(rows["level"].iloc[1], 2 * rows["level"].iloc[0], rtol=1e-5)


INDEXES = [pd.RangeIndex(60), pd.RangeIndex(7, 67), pd.period_range("2001-01", periods=60, freq="M")]


@pytest.mark.parametrize("index", INDEXES)
def test_indexes_go_on(index):
    y = pd.Series(Y.values, index)
    forecaster = ps.to_sktime(AR).fit(y[:58])
    assert forecaster.predict(fh=[1, 2]).index.equals(index[58:])
    assert forecaster.update(y[58:], update_params=False).predict(fh=[0]).index.equals(index[59:])


@pytest.mark.parametrize("step", ["1D", "1h", "2h"])
def test_horizons_may_be_spans_of_time(step):
    from sktime.forecasting.base import ForecastingHorizon

    y = pd.Series(Y.values, pd.date_range("2001-01-01", periods=60, freq=step))
    forecaster = ps.to_sktime(AR).fit(y)
    spans = ForecastingHorizon(pd.TimedeltaIndex([pd.Timedelta(step), 3 * pd.Timedelta(step)]))
    assert_array_equal(forecaster.predict(fh=spans), forecaster.predict(fh=[1, 3]))


def tags(estimator):
    names = ("multivariate", "exogenous", "missing_values", "pred_int")
    return [ps.to_sktime(estimator).get_tag(f"capability:{name}") for name in names]


def test_tags_say_what_the_estimator_takes():
    assert tags(None) == tags(AR) == [False, True, True, True]
    assert tags(ps.HMM(2)) == [True, False, True, True]
    assert tags(ps.HMM(2, ps.Categorical())) == [True, False, True, False]
    assert tags(ps.HMM(2, transitions=ps.CovariateTransitions())) == [True, True, True, True]
    assert tags(ps.LSTM(2)) == tags(ps.VAR()) == [True, True, True, True]
    assert tags(ps.LSTM(2, transform=ps.Difference())) == [True, True, False, True]
    assert tags(ps.HMM(2, ps.AutoregressiveNormal()))[2] is False
    assert tags(ps.ARMA((0, 0), volatility=ps.GARCH())) == [False, True, False, True]
    assert tags(ps.Average([ps.IID(), ps.HMM(2)])) == [True, False, True, True]
    assert tags(ps.Average([ps.IID(), AR])) == [False, True, True, True]
    assert tags(ps.Average([ps.IID(), ps.IID(transform=ps.Difference())]))[2] is False
    assert tags(ps.Conformal(ps.LocalLevel())) == [False, True, True, True]
    assert ps.to_sktime(ps.HMM(2)).get_tag("property:randomness") == "stochastic"
    assert ps.to_sktime(ps.HMM(2, random_state=0)).get_tag("property:randomness") == "deterministic"


def test_labels_have_a_most_probable_one():
    codes = pd.Series(np.tile([0.0, 1.0, 1.0], 20), name="code")
    forecaster = ps.to_sktime(ps.MarkovChain(order=2)).fit(codes[:58])
    assert_array_equal(forecaster.predict(fh=[1, 2]), [1.0, 1.0])
    assert_array_equal(forecaster.predict(fh=[-3, -1, 0]), [0.0, 1.0, 0.0])
    with pytest.raises(NotImplementedError, match="quantile"):
        forecaster.predict_quantiles(fh=[1])


@pytest.mark.parametrize("correct", [ps.Conformal, ps.Recalibrated])
def test_corrected_models_read_their_past(correct):
    walk = ps.ARMA((1, 0)).with_parameters(ar=[0.7], mean=[5.0], scale=[1.0]).sample(100, random_state=0)
    y = pd.Series(walk.values.ravel(), name="level")
    forecaster = ps.to_sktime(correct(ps.RandomWalk(), calibration_share=0.6)).fit(y[:95])
    forecaster.update(y[95:], update_params=False)
    own = forecaster.estimator_
    expected = own.forecast(2, history=y)
    assert_allclose(forecaster.predict(fh=[1, 2]), values(expected.median()), rtol=1e-12)
    interval = forecaster.predict_interval(fh=[1, 2], coverage=0.8)
    assert_allclose(values(interval), values(expected.interval(0.8)), rtol=1e-12)
    assert_allclose(forecaster.predict(fh=[0]), values(own.predict(y[95:], history=y[:95]))[-1:], rtol=1e-12)
    with pytest.raises(UnsupportedError, match="joint"):
        forecaster.predict_var(fh=[1], cov=True)


def test_draws_keep_their_weights_over_what_they_were_found_from():
    model = ps.ARMA((1, 0), inference=ps.Collapsed(n_draws=20), random_state=0)
    forecaster = ps.to_sktime(model).fit(Y[:50])
    own = forecaster.estimator_
    frozen = values(own.predict(Y[:50], weights="frozen"))
    assert_allclose(forecaster.predict(fh=[-10, 0]), frozen[[39, 49]], rtol=1e-12)
    assert_allclose(forecaster.predict(fh=[1]), values(own.predict(horizon=1)), rtol=1e-12)
    forecaster.update(Y[50:], update_params=False)
    assert_allclose(forecaster.predict(fh=[1]), values(own.forecast(1, history=Y).mean()), rtol=1e-9)
    assert_allclose(forecaster.predict(fh=[0]), values(own.predict(Y[50:], history=ps.TRAINING))[-1:], rtol=1e-9)


def test_paths_repeat_and_their_number_is_a_choice():
    noisy = ps.to_sktime(ps.ARMA((1, 0), innovations="laplace", random_state=0), n_paths=64).fit(Y)
    found = noisy.predict_quantiles(fh=[2, 3], alpha=[0.3])
    pd.testing.assert_frame_equal(found, noisy.predict_quantiles(fh=[2, 3], alpha=[0.3]))
    expected = noisy.estimator_.forecast(3, n_paths=64, random_state=0).quantile(0.3)
    assert_allclose(values(found).ravel(), values(expected)[1:], rtol=1e-12)


def test_components_are_parameters():
    forecaster = ps.to_sktime(ps.HMM(2, random_state=0), n_paths=10)
    assert forecaster.get_params()["estimator__n_states"] == 2
    other = forecaster.clone().set_params(estimator__n_states=3)
    assert other.estimator.n_states == 3 and forecaster.estimator.n_states == 2 and other.n_paths == 10
    found = ps.to_sktime(AR).fit(Y).get_fitted_params()
    own = ps.ARMA((1, 0)).fit(Y)
    assert found["ar"] == own.params_["ar"].item() and found["aic"] == own.aic
    again = pickle.loads(pickle.dumps(ps.to_sktime(AR).fit(Y)))
    assert_allclose(again.predict(fh=[1]), values(ps.ARMA((1, 0)).fit(Y).predict(horizon=1)), rtol=1e-12)


@pytest.mark.parametrize("wrong", [ps.ARMA, ps.PerSequence(ps.IID()), "arma", ps.Normal()])
def test_what_is_no_estimator_of_one_sequence_is_told_so(wrong):
    with pytest.raises(ParameterError, match="one sequence"):
        ps.to_sktime(wrong)


def test_without_sktime_it_says_what_to_install(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "sktime.forecasting.base", None)
    monkeypatch.delitem(sys.modules, "probseq.integrations.sktime_forecaster", raising=False)
    with pytest.raises(UnsupportedError, match="pip install sktime skpro"):
        ps.to_sktime()
