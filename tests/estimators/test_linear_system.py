"""Linear dynamical systems for users: states, their axes and names, forecasts, missing values, bad input."""

import numpy as np
import pytest

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError, UnsupportedError

TURN = 0.95 * np.array([[np.cos(0.5), np.sin(0.5)], [-np.sin(0.5), np.cos(0.5)]])
LOADING = np.array([[1.0, 0.0], [0.5, 1.0], [-0.5, 0.3]])
KNOWN = {"transition": TURN, "loading": LOADING, "offset": [5.0, 0.0, -2.0], "noise_scale": [0.5, 0.4, 0.6]}


@pytest.fixture(scope="module")
def truth():
    return ps.LinearDynamicalSystem().with_parameters(**KNOWN)


@pytest.fixture(scope="module")
def x(truth):
    return truth.sample(400, random_state=0)


@pytest.fixture(scope="module")
def fitted(x):
    return ps.LinearDynamicalSystem(2, random_state=0).fit(x)


def test_a_fit_recovers_the_system_within_its_standard_errors(fitted):
    assert fitted.converged_
    for name, value in KNOWN.items():
        found, error = fitted.params_[name].values, fitted.standard_errors_[name].values
        off = (found - np.asarray(value)) / np.where(error > 0, error, 1.0)
        assert (np.abs(off) < 3.5).all(), f"{name}: {off}"
        assert bool((error > 0).all()) or name == "loading"
    assert fitted.params_["loading"].dims == ("variable", "state")
    assert float(fitted.params_["loading"][0, 1]) == 0.0 == float(fitted.standard_errors_["loading"][0, 1])
    assert fitted.n_parameters_ == 4 + 5 + 3 + 3


def test_modes_tell_rhythm_and_memory(fitted, truth):
    modes = truth.modes()
    np.testing.assert_allclose(modes["modulus"], 0.95)
    np.testing.assert_allclose(modes["period"], 2 * np.pi / 0.5)
    np.testing.assert_allclose(modes["half_life"], np.log(0.5) / np.log(0.95))
    assert modes.attrs["stationary"] and fitted.modes()["period"].values[0] == pytest.approx(2 * np.pi / 0.5, rel=0.05)


def test_smoothed_states_are_nearer_to_the_truth_than_filtered_ones(truth):
    model = truth.model_.model
    params = truth.model_.params
    rng = np.random.default_rng(1)
    s, x = np.zeros((150, 2)), np.zeros((150, 3))
    for t in range(150):
        s[t] = (TURN @ s[t - 1] if t else 3.0) + rng.normal(size=2)
        x[t] = LOADING @ s[t] + KNOWN["offset"] + rng.normal(size=3) * KNOWN["noise_scale"]
    x[20:25] = np.nan
    x[40, 1] = np.nan
    smooth, filtered = truth.smooth(x, covariance=True), truth.filter_states(x)
    assert smooth["mean"].dims == ("time", "state")
    assert smooth["covariance"].dims == ("time", "state", "other_state")
    diagonal = np.sqrt(np.einsum("tii->ti", smooth["covariance"].values))
    np.testing.assert_allclose(diagonal, smooth["std"], rtol=1e-12)
    assert float(((smooth["mean"] - s) ** 2).mean()) < float(((filtered["mean"] - s) ** 2).mean())
    assert bool((smooth["std"] <= filtered["std"] + 1e-12).all())
    np.testing.assert_allclose(smooth["mean"][-1], filtered["mean"][-1], rtol=1e-9)
    z = (smooth["mean"] - s) / smooth["std"]
    assert 0.75 < float((z**2).mean()) < 1.3
    assert model.n_parameters == 15 and len(params["transition"]) == 1


def test_ordered_states_explain_most_first_and_leave_the_law_alone(fitted, x):
    turned = fitted.order_states().label_states(["cycle", "rest"])
    share = turned.explained_variance()
    assert list(share["state"].values) == ["cycle", "rest"] and share.dims == ("variable", "state")
    assert float(share.sum("variable")[0]) > float(share.sum("variable")[1])
    np.testing.assert_allclose(share.sum("state"), fitted.explained_variance().sum("state"), rtol=1e-9)
    assert float(turned.log_prob(x)) == pytest.approx(float(fitted.log_prob(x)), rel=1e-12)
    np.testing.assert_allclose(turned.forecast(5).mean(), fitted.forecast(5).mean(), rtol=1e-9)
    assert list(turned.smooth(x)["state"].values) == ["cycle", "rest"]
    assert list(turned.params_["transition"]["next_state"].values) == ["cycle", "rest"]
    assert turned.label_states(None).state_names_ is None
    for wrong in (["a"], ["a", "a"], "ab"):
        with pytest.raises(ParameterError, match="different names"):
            fitted.label_states(wrong)


def test_ordered_states_survive_a_file(fitted, x, tmp_path):
    turned = fitted.order_states().label_states(["cycle", "rest"])
    turned.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    np.testing.assert_array_equal(again.smooth(x)["mean"], turned.smooth(x)["mean"])
    assert again.state_names_ == ("cycle", "rest")


def test_paths_of_states_have_the_moments_of_the_smoother(truth, x):
    part = x.values[:30].copy()
    part[10:14] = np.nan
    paths, smooth = truth.sample_states(part, 2000, random_state=0), truth.smooth(part, covariance=True)
    assert paths.dims == ("path", "time", "state")
    error = smooth["std"] / np.sqrt(2000)
    assert float((abs(paths.mean("path") - smooth["mean"]) / error).max()) < 4.5
    np.testing.assert_allclose(np.cov(paths.values[:, 12].T), smooth["covariance"][12], rtol=0.15, atol=0.1)
    again = truth.sample_states(part, 2000, random_state=0)
    np.testing.assert_array_equal(paths, again)


def test_missing_values_are_filled_from_the_other_variables(truth, x):
    holes = x.values.copy()
    holes[100:110, 0] = np.nan
    filled = truth.impute(holes)
    error = np.abs(filled.values[100:110, 0] - x.values[100:110, 0]).mean()
    assert error < 1.5 < np.abs(x.values[100:110, 0] - 5.0).mean()
    draws = truth.impute(holes, n_draws=50, random_state=0)
    assert draws.dims == ("path", "time", "variable") and float(draws[:, 105, 0].std()) > 0.1


def test_panels_with_covariates_and_weights():
    rng = np.random.default_rng(3)
    parts, inputs = [], []
    for t in (50, 35, 40):
        u, s, rows = rng.normal(size=(t, 1)), np.zeros(1), []
        for i in range(t):
            s = 0.7 * s + (2.0 * u[i] if i else 0.0) + rng.normal(size=1)
            rows.append(s[0] + 1.0 + 0.3 * rng.normal())
        parts.append(np.array(rows))
        inputs.append(u)
    quick = ps.MLE(tol=1e-7, covariance=False)
    model = ps.LinearDynamicalSystem(1, inference=quick, random_state=0)
    model.fit(parts, covariates=inputs, weights=[1, 2, 1])
    assert model.params_["drive"].dims == ("state", "covariate")
    assert (model.params_["drive"] * model.params_["loading"]).item() == pytest.approx(2.0, abs=0.3)
    assert model.params_["transition"].item() == pytest.approx(0.7, abs=0.15)
    smooth = model.smooth(parts, covariates=inputs)
    assert smooth["mean"].dims == ("sequence", "time", "state")
    paths = model.sample_states(parts, 400, covariates=inputs, random_state=0)
    assert float((abs(paths.mean("path") - smooth["mean"]) / (smooth["std"] / 20.0)).max()) < 4.5
    assert np.isnan(smooth["mean"].values[1, 35:]).all() and np.isfinite(smooth["mean"].values[1, :35]).all()


def test_draws_average_states():
    rng, s, values = np.random.default_rng(0), 0.0, []
    for _ in range(60):
        s = 0.7 * s + rng.normal()
        values.append(s + 0.5 * rng.normal())
    model = ps.LinearDynamicalSystem(1, inference=ps.Laplace(n_draws=8, tol=1e-6), random_state=0).fit(values)
    assert model.smooth(values)["std"].dims == ("time", "state")
    assert (model.params_["loading"] > 0).all() and model.modes()["modulus"].dims == ("draw", "mode")


def test_more_states_than_variables_fit_without_a_warning():
    rng, s, values = np.random.default_rng(1), np.zeros(2), []
    for _ in range(80):
        s = TURN @ s + rng.normal(size=2)
        values.append(s[0] + 0.5 * rng.normal())
    model = ps.LinearDynamicalSystem(2, random_state=0).fit(values)
    assert model.converged_ and model.n_parameters_ == 6
    assert model.modes()["period"].values[0] == pytest.approx(2 * np.pi / 0.5, rel=0.1)
    with pytest.raises(UnsupportedError, match="without a covariance"):
        _ = model.standard_errors_


def test_unstable_systems_say_what_they_lack():
    model = ps.LinearDynamicalSystem(1, start="mean").with_parameters(
        transition=[[1.05]], loading=[1.0], offset=[0.0], noise_scale=[1.0], start_mean=[2.0]
    )
    assert not model.modes().attrs["stationary"] and np.isinf(model.modes()["half_life"])
    for ask in (model.order_states, model.explained_variance):
        with pytest.raises(UnsupportedError, match="not stationary"):
            ask()
    with pytest.raises(ParameterError, match="not stationary"):
        ps.LinearDynamicalSystem().with_parameters(**{**KNOWN, "transition": 1.1 * np.eye(2)})


def test_inferences_that_cannot_fit_are_named():
    with pytest.raises(IncompatibleError, match="MLE, EM"):
        ps.LinearDynamicalSystem(inference=ps.VB())


def test_a_constant_variable_is_named():
    x = np.random.default_rng(0).normal(size=(50, 2))
    x[:, 1] = 3.0
    with pytest.warns(ps.errors.DegenerateWarning, match="Variable 1 has no noise"):
        ps.LinearDynamicalSystem(1, inference=ps.EM(n_init=1, tol=1e-3), random_state=0).fit(x)
