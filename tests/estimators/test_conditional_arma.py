"""ARMA with innovations and volatility of one's choice, through the whole interface."""

import numpy as np
import pytest
import torch
from scipy import stats

import probseq as ps
from probseq.errors import (
    ApproximationWarning,
    DataError,
    DegenerateWarning,
    HistoryError,
    IncompatibleError,
    ParameterError,
    UnsupportedError,
)
from probseq.models.arma import ARMAModel
from probseq.models.conditional_arma import ConditionalARMAModel


@pytest.fixture(scope="module")
def returns():
    return 100 * np.log(ps.datasets.sp500()).diff("time")[:400]


@pytest.fixture(scope="module")
def fitted(returns):
    return ps.ARMA((1, 0), innovations="studentt", volatility=ps.GARCH(1, 1), random_state=0).fit(returns)


def test_only_other_innovations_make_the_likelihood_conditional(fitted, returns):
    plain = ps.ARMA((1, 0)).fit(returns)
    assert isinstance(plain.model_.model, ARMAModel)
    assert isinstance(fitted.model_.model, ConditionalARMAModel)
    assert (plain.model_.likelihood, fitted.model_.likelihood) == ("exact", "conditional")
    assert fitted.summary().attrs["likelihood"] == "conditional"
    assert fitted.n_scored_ == len(returns) - 1 == plain.n_scored_ - 1
    table = ps.compare({"plain": plain, "garch": fitted}, returns).table
    assert "conditional likelihood" in table.loc["garch", "note"]
    assert "conditional" not in table.loc["plain", "note"]


def test_summary_names_every_parameter(fitted):
    table = fitted.summary()
    assert list(table.index) == ["ar[1]", "mean", "omega", "garch[alpha]", "garch[beta]", "df"]
    assert (table["std_error"] > 0).all()
    assert fitted.params_["garch"].sel(garch_term="beta") > fitted.params_["garch"].sel(garch_term="alpha")


def test_predictives_are_the_law_of_the_innovations(fitted, returns):
    """Student t around the mean, with the variance of the recursion."""
    law = fitted.predictive(returns)
    p = {name: float(v) for name, v in fitted.params_.items() if v.ndim == 0}
    ar = float(fitted.params_["ar"][0])
    alpha, beta = fitted.params_["garch"].values
    y, h = returns.values, p["omega"] / (1 - alpha - beta)
    mean = p["mean"] + ar * (y[:-1] - p["mean"])
    for t in range(1, 30):
        spread = np.sqrt(h * (p["df"] - 2) / p["df"])
        assert float(law.quantile(0.9)[t]) == pytest.approx(stats.t.ppf(0.9, p["df"], mean[t - 1], spread), rel=1e-9)
        h = p["omega"] + alpha * (y[t] - mean[t - 1]) ** 2 + beta * h
    # E|z| = 0.80 of a normal is less than what a Student t with few degrees of freedom needs.
    z = fitted.residuals(returns)
    assert abs(float(z.std()) - 1) < 0.1


def test_forecasts_say_what_is_exact(fitted):
    far, near = fitted.forecast(12), fitted.forecast(1)
    assert near.exact
    assert not far.exact
    assert far.method == "2000 simulated paths, moved to the exact means"
    ar, mean = float(fitted.params_["ar"][0]), float(fitted.params_["mean"])
    last = float(fitted.training_.values[0, -1, 0])
    expected = mean + ar ** np.arange(1, 13) * (last - mean)
    np.testing.assert_allclose(far.mean(), expected, atol=1e-12)
    np.testing.assert_allclose(far.mean()[0], near.mean()[0], atol=1e-12)
    np.testing.assert_allclose(fitted.predict(horizon=12), expected, atol=1e-12)


def test_variance_of_forecasts_returns_to_its_level(fitted):
    """E[h] = level + (alpha + beta)^k (h - level), and the variance of an autoregression is their weighted sum."""
    state = fitted.model_._unpack(fitted.training_state_)
    alpha, beta = fitted.params_["garch"].values
    level = float(fitted.params_["omega"]) / (1 - alpha - beta)
    h = level + (alpha + beta) ** np.arange(4) * (float(state.variance[0, 0]) - level)
    ar = float(fitted.params_["ar"][0])
    expected = [sum(ar ** (2 * (t - i)) * h[i] for i in range(t + 1)) for t in range(4)]
    f = fitted.forecast(4, n_paths=60000, random_state=1)
    np.testing.assert_allclose(f.var(), expected, rtol=0.08)


def test_means_stay_exact_under_affine_transforms_only(returns):
    both = {}
    for name, transform in (("plain", None), ("scaled", ps.Standardize())):
        model = ps.ARMA((1, 0), innovations="skewt", transform=transform, random_state=0).fit(returns)
        both[name] = model.forecast(5)
    np.testing.assert_allclose(both["scaled"].mean(), both["plain"].mean(), atol=1e-4)
    assert "exact means" in both["scaled"].method
    logs = ps.ARMA((0, 1, 1), innovations="laplace", transform=ps.Log(), random_state=0)
    logs.fit(ps.datasets.air_passengers())
    assert "exact" not in logs.forecast(5).method


def test_forecasts_have_the_moments_of_their_laws():
    """The exponential of a Student t has no mean, that of a Laplace law has one while its scale is below 1."""
    y = ps.datasets.air_passengers()
    heavy = ps.ARMA((0, 1, 1), innovations="studentt", transform=ps.Log(), random_state=0).fit(y)
    with pytest.warns(ApproximationWarning):
        assert np.isinf(heavy.forecast(3).mean()).all()
    with pytest.warns(ApproximationWarning, match="median"):
        np.testing.assert_allclose(heavy.predict(horizon=3), heavy.forecast(3).median().values.ravel())
    light = ps.ARMA((0, 1, 1), innovations="laplace", transform=ps.Log(), random_state=0).fit(y)
    assert np.isfinite(light.forecast(3).mean()).all()


def test_what_is_not_determined_has_no_error():
    with pytest.warns(DegenerateWarning, match="alpha of the GARCH is nearly 0"):
        model = ps.ARMA((0, 0), volatility=ps.GARCH()).fit(np.random.default_rng(0).normal(size=500))
    errors = model.standard_errors_
    assert np.isnan(errors["omega"])
    assert np.isnan(errors["garch"]).all()
    assert float(errors["mean"]) == pytest.approx(500**-0.5, rel=0.1)


def test_streaming_equals_filtering(fitted, returns):
    state = fitted.initial_state()
    for x in returns.values[:50]:
        state = fitted.update(state, x)
    expected = fitted.predictive_at(fitted.filter(returns[:50]))
    np.testing.assert_allclose(fitted.predictive_at(state).mean(), expected.mean(), rtol=1e-12)
    np.testing.assert_allclose(fitted.predictive_at(state).var(), expected.var(), rtol=1e-12)


def test_files_keep_the_model(fitted, returns, tmp_path):
    fitted.save(tmp_path / "model.probseq")
    again = ps.load(tmp_path / "model.probseq")
    assert again.volatility == ps.GARCH(1, 1)
    assert again.model_.likelihood == "conditional"
    np.testing.assert_allclose(again.log_prob(returns), fitted.log_prob(returns), rtol=1e-12)
    assert again.get_params()["volatility__p"] == 1


def test_generation_needs_a_history_only_with_differences():
    law = ps.ARMA((1, 0), innovations="laplace").with_parameters(ar=[0.9], mean=5.0, scale=1.0)
    x = law.sample(3, n_sequences=4000, random_state=0)
    assert float(x[:, 0].std()) == pytest.approx((1 - 0.81) ** -0.5, rel=0.06)
    with pytest.raises(HistoryError):
        law.forecast(3, history=None)
    walk = ps.ARIMA((0, 1, 0), innovations="laplace").with_parameters(scale=1.0)
    with pytest.raises(HistoryError):
        walk.sample(3)


def test_bayesian_fits(returns):
    short = returns[:120]

    def make(inference, **more):
        return ps.ARMA((1, 0), inference=inference, random_state=0, **more)

    best = make(ps.MLE(), innovations="studentt").fit(short)
    prior = {"ar": torch.distributions.Normal(0.5, 0.02)}
    mode = make(ps.MAP(prior), innovations="studentt").fit(short)
    assert float(mode.params_["ar"][0]) > 0.4 > float(best.params_["ar"][0])
    around = make(ps.Laplace(n_draws=200), innovations="studentt", volatility=ps.GARCH()).fit(short)
    assert (around.params_["garch"].sum("garch_term") < 1).all()
    assert (around.params_["df"] > 2.05).all()


@pytest.mark.filterwarnings("ignore::probseq.errors.ConvergenceWarning")
def test_chains_find_the_spread_of_a_law_with_a_kink():
    y = np.random.default_rng(1).laplace(3.0, 1.0, size=80)
    plain = ps.ARMA((0, 0), innovations="laplace").fit(y)
    quick = ps.NUTS(n_draws=60, n_chains=1, n_warmup=60, max_tree_depth=4)
    draws = ps.ARMA((0, 0), innovations="laplace", inference=quick, random_state=0).fit(y).params_["mean"]
    error = float(plain.standard_errors_["mean"])
    assert abs(float(draws.mean()) - float(plain.params_["mean"])) < 2 * error
    assert 0.4 * error < float(draws.std()) < 2.5 * error


def test_several_sequences_and_covariates():
    rng = np.random.default_rng(0)
    u = rng.normal(size=(3, 200, 1))
    y = 2.0 + 1.5 * u[..., 0] + rng.standard_t(4, size=(3, 200)) * 0.5
    model = ps.ARMA((1, 1), innovations="studentt").fit(y[..., None], covariates=u)
    assert float(model.params_["coefficients"][0]) == pytest.approx(1.5, abs=0.06)
    assert model.n_scored_ == 3 * 199
    total = model.log_prob(y[..., None], covariates=u).sum()
    assert float(total) == pytest.approx(model.log_likelihood_, abs=1e-9)


def test_mistakes_are_named(returns):
    with pytest.raises(ParameterError, match="studentt"):
        ps.ARMA(innovations="t").fit(returns)
    with pytest.raises(ParameterError, match="GARCH"):
        ps.ARMA(volatility=ps.GARCH(1, 2)).fit(returns)
    with pytest.raises(IncompatibleError, match="NUTS"):
        ps.ARMA(innovations="laplace", inference=ps.Laplace())
    holes = returns.copy()
    holes[5] = np.nan
    model = ps.ARMA((1, 0), innovations="studentt")
    with pytest.raises(DataError, match="missing value"):
        model.fit(holes)
    model.fit(returns)
    with pytest.raises(UnsupportedError, match="normal innovations"):
        model.impute(holes)
    with pytest.warns(DegenerateWarning, match="lower bound"):
        ps.ARMA((0, 0), innovations="studentt").fit(np.random.default_rng(0).standard_cauchy(size=400))


def test_diagnosis_knows_the_unconditional_variance(fitted, returns):
    alpha, beta = fitted.params_["garch"].values
    level = float(fitted.params_["omega"]) / (1 - alpha - beta)
    ar = float(fitted.params_["ar"][0])
    f = fitted.spectrum(3)
    assert float(f[0]) == pytest.approx(level / (1 - ar) ** 2, rel=1e-9)
    np.testing.assert_allclose(fitted.impulse_response(3), ar ** np.arange(4), rtol=1e-9)
    assert "Jarque-Bera" in fitted.diagnose(returns).index
    assert abs(fitted.roots()["ar"].values[0]) == pytest.approx(abs(1 / ar), rel=1e-9)
