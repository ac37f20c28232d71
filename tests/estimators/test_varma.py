"""Fitted vector autoregressions and vector ARMA models: against statsmodels on real data, and by simulation."""

import warnings

import numpy as np
import pandas as pd
import pytest
import statsmodels.api as sm
from statsmodels.tsa.api import VAR as LeastSquares  # noqa: N811
from statsmodels.tsa.statespace.varmax import VARMAX

import probseq as ps
from probseq.errors import DataError, DegenerateWarning, ParameterError, ShapeError, UnsupportedError


@pytest.fixture(scope="module")
def growth():
    """Quarterly growth of American GDP, consumption and investment, 1959 to 2009, in per cent."""
    levels = sm.datasets.macrodata.load_pandas().data[["realgdp", "realcons", "realinv"]]
    rates = 100 * np.log(levels).diff().dropna()
    rates.index = pd.period_range("1959Q2", periods=len(rates), freq="Q")
    return rates


@pytest.fixture(scope="module")
def fitted(growth):
    return ps.VAR(order=1).fit(growth)


def test_maximum_is_at_least_that_of_varmax(growth, fitted):
    peer = VARMAX(growth.to_numpy(), order=(1, 0), trend="c").fit(disp=False, maxiter=100)
    # statsmodels 0.14 reaches -817.81718.
    assert peer.llf == pytest.approx(-817.8172, abs=1e-3)
    assert fitted.log_likelihood_ >= peer.llf
    assert fitted.log_likelihood_ == pytest.approx(-817.817175, abs=1e-6)
    np.testing.assert_allclose(fitted.params_["ar"][0], peer.coefficient_matrices_var[0], atol=5e-3)
    forecast = fitted.forecast(4).mean()
    np.testing.assert_allclose(forecast, peer.forecast(4), atol=5e-3)
    assert list(forecast["variable"].values) == ["realgdp", "realcons", "realinv"]


def test_standard_errors_and_granger_near_those_of_least_squares(growth, fitted):
    """Asymptotically the same: the first value is one of 202."""
    peer = LeastSquares(growth.to_numpy()).fit(1)
    np.testing.assert_allclose(fitted.standard_errors_["ar"][0], peer.bse[1:].T, rtol=0.05)
    found = fitted.granger("realcons", "realgdp")
    test = peer.test_causality(0, 1, kind="wald")
    assert found["statistic"] == pytest.approx(test.test_statistic, rel=0.1)
    assert found["df"] == 1 and found["p_value"] < 1e-4
    assert found.equals(fitted.granger(1, 0))


def test_responses_equal_those_of_statsmodels(fitted):
    params = fitted.params_
    ar, covariance = params["ar"][0].values, params["covariance"].values
    response = fitted.impulse_response(5)
    assert response.dims == ("horizon", "variable", "other_variable")
    expected = [np.linalg.matrix_power(ar, h) @ np.linalg.cholesky(covariance) for h in range(6)]
    np.testing.assert_allclose(response, expected, atol=1e-12)
    plain = fitted.impulse_response(5, orthogonal=False, cumulative=True)
    np.testing.assert_allclose(plain[2], np.eye(3) + ar + ar @ ar, atol=1e-12)
    shares = fitted.forecast_error_decomposition(5)
    np.testing.assert_allclose(shares.sum("other_variable"), 1.0)
    variance = fitted.forecast(5).var().values
    totals = np.cumsum(np.array(expected[:5]) ** 2, 0)
    np.testing.assert_allclose(totals.sum(-1), variance, rtol=1e-10)
    np.testing.assert_allclose(shares, totals / variance[..., None], rtol=1e-10)


def test_moving_average_responds_for_q_steps():
    model = ps.VARMA(order=(1, 1)).with_parameters(
        ar=[[[0.5, 0.1], [0.0, 0.4]]], ma=[[[0.2, 0.3], [-0.4, 0.1]]], mean=[0.0, 1.0], covariance=np.eye(2)
    )
    first, ma = np.array([[0.5, 0.1], [0.0, 0.4]]), np.array([[0.2, 0.3], [-0.4, 0.1]])
    expected = [np.eye(2), first + ma, first @ (first + ma)]
    np.testing.assert_allclose(model.impulse_response(2), expected, atol=1e-14)
    roots = model.roots()
    np.testing.assert_allclose(np.sort(roots["ar"].values.real), [2.0, 2.5])
    for root in roots["ma"].values:
        assert abs(np.linalg.det(np.eye(2) + ma * root)) < 1e-12


def test_parameters_are_found_again():
    truth = ps.VARMA(order=(1, 1)).with_parameters(
        ar=[[[0.6, 0.2], [-0.1, 0.5]]],
        ma=[[[0.3, 0.5], [-0.4, -0.3]]],
        mean=[2.0, -1.0],
        covariance=[[1.0, 0.4], [0.4, 2.0]],
    )
    x = truth.sample(2000, random_state=0)
    model = ps.VARMA().fit(x)
    assert model.status_ == "converged"
    for name, value in truth.params_.items():
        z = (model.params_[name] - value) / model.standard_errors_[name]
        assert float(np.abs(z).max()) < 3.5
    assert model.log_likelihood_ > float(truth.log_prob(x))


def test_gaps_and_many_series(growth):
    holes = growth.copy()
    holes.iloc[5, 1] = holes.iloc[70, 0] = np.nan
    holes.iloc[20:23] = np.nan
    model = ps.VAR(order=2).fit([holes.to_numpy()[:100], holes.to_numpy()[100:]])
    assert model.status_ == "converged" and model.n_scored_ == 606 - 11
    filled = model.impute(holes.to_numpy())
    assert bool(np.isfinite(filled).all())
    np.testing.assert_array_equal(filled[30:60], holes.to_numpy()[30:60])


def test_covariates_move_the_mean():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(300, 1))
    x = u @ np.array([[2.0, -1.0]]) + rng.normal(size=(300, 2))
    model = ps.VAR(order=1).fit(x, covariates=pd.DataFrame(u, columns=["rain"]))
    z = (model.params_["coefficients"].values - [[2.0, -1.0]]) / model.standard_errors_["coefficients"].values
    assert np.abs(z).max() < 3.5
    assert "coefficients[rain, x0]" in model.summary().index
    ahead = model.forecast(2, covariates=pd.DataFrame({"rain": [1.0, 0.0]})).mean()
    assert float(ahead[0, 0] - ahead[1, 0]) == pytest.approx(2.0, abs=0.5)


def test_summary_names_its_rows(fitted):
    table = fitted.summary()
    assert list(table.columns) == ["estimate", "std_error", "z", "lower", "upper"]
    assert len(table) == fitted.n_parameters_ == 18
    assert table.loc["ar[1, realgdp, realcons]", "estimate"] == float(fitted.params_["ar"][0, 0, 1])
    assert table.attrs["log_likelihood"] == fitted.log_likelihood_


def test_what_is_not_identified_warns():
    """White noise is a VARMA(1, 1) for every pair of matrices that cancel."""
    x = np.random.default_rng(2).normal(size=(300, 2))
    with pytest.warns(DegenerateWarning, match="not identified"):
        ps.VARMA(order=(1, 1), inference=ps.MLE(tol=1e-7)).fit(x)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ps.VAR(order=1).fit(x)


def test_a_walk_warns_of_its_root():
    x = np.cumsum(np.random.default_rng(3).normal(size=(400, 2)), 0)
    x[:, 1] = np.random.default_rng(4).normal(size=400)
    x[:, 0] += np.arange(400)
    with pytest.warns(DegenerateWarning, match="autoregressive root .* unit circle"):
        ps.VAR(order=1).fit(x)


def test_draws_carry_through_responses(growth):
    model = ps.VAR(1, inference=ps.Laplace(n_draws=20), random_state=0).fit(growth)
    assert model.impulse_response(3).dims == ("draw", "horizon", "variable", "other_variable")
    assert model.impulse_response(3).shape == (20, 4, 3, 3)
    with pytest.raises(UnsupportedError, match="draws"):
        model.granger(0, 1)


@pytest.mark.parametrize(
    "make, error, match",
    [
        (lambda x: ps.VAR(order=(1, 0)).fit(x), ParameterError, "order="),
        (lambda x: ps.VAR(order=-1).fit(x), ParameterError, "order="),
        (lambda x: ps.VARMA(order=1).fit(x), ParameterError, "order="),
        (lambda x: ps.VARMA(order=(True, 0)).fit(x), ParameterError, "order="),
        (lambda x: ps.VAR(trend="ct").fit(x), ParameterError, "trend="),
        (lambda x: ps.VAR().fit(np.column_stack([x, x.sum(1)])), DataError, "combination"),
        (lambda x: ps.VAR().fit(np.ones((30, 2))), DataError, "does not vary"),
        (lambda x: ps.VAR().fit(x).granger(0, 0), ParameterError, "two variables"),
        (lambda x: ps.VAR().fit(x).impulse_response(0), ParameterError, "n_steps"),
        (lambda x: ps.VAR().fit(x).log_prob(x[:, 0]), ShapeError, "variables"),
        (
            lambda x: ps.VAR().with_parameters(ar=[[[1.2]]], mean=[0.0], covariance=[[1.0]]),
            ParameterError,
            "not stationary",
        ),
    ],
)
def test_mistakes_are_explained(make, error, match):
    with pytest.raises(error, match=match):
        make(np.random.default_rng(0).normal(size=(40, 2)))
