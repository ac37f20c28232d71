"""Densities scored as interval probabilities: sums to one, comparison with counts, one interface."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from sklearn.base import clone

import probseq as ps
from probseq.errors import IncompatibleError, ParameterError, SupportError, UnsupportedError

QUICK = ps.EM(n_init=1)


@pytest.fixture(scope="module")
def quakes():
    return ps.datasets.earthquakes()


@pytest.fixture(scope="module")
def fitted(quakes):
    models = {
        "poisson": ps.HMM(2, ps.Poisson(), inference=QUICK, random_state=0),
        "normal": ps.HMM(2, inference=QUICK, transform=ps.Discretize(lowest=0), random_state=0),
        "density": ps.HMM(2, inference=QUICK, random_state=0),
        "half": ps.HMM(2, inference=QUICK, transform=ps.Discretize(0.5), random_state=0),
    }
    return {name: model.fit(quakes[:87]) for name, model in models.items()}


def test_scores_are_differences_of_the_cdf():
    x = np.array([0.0, 2.0, -1.0, 5.0])
    model = ps.IID(transform=ps.Discretize()).with_parameters(mean=[0.7], scale=[1.3])
    law = stats.norm(0.7, 1.3)
    assert_allclose(model.log_prob_steps(x), np.log(law.cdf(x + 0.5) - law.cdf(x - 0.5)), rtol=1e-12)
    tenths = ps.IID(transform=ps.Discretize(0.1, lowest=-0.1)).with_parameters(mean=[0.7], scale=[1.3])
    y = np.array([0.3, -0.1])
    expected = [np.log(law.cdf(0.35) - law.cdf(0.25)), law.logcdf(-0.05)]
    assert_allclose(tenths.log_prob_steps(y), expected, rtol=1e-12)


def test_the_fit_is_that_of_the_density(quakes, fitted):
    same = fitted["density"].params_
    for name, value in fitted["normal"].params_.items():
        assert_allclose(value, same[name], rtol=1e-12)
    steps = fitted["normal"].log_prob_steps(quakes[:87])
    assert fitted["normal"].log_likelihood_ == pytest.approx(float(steps.sum()))


@pytest.mark.parametrize(
    "make",
    [
        lambda: ps.HMM(2, inference=QUICK, transform=ps.Discretize(lowest=0), random_state=0),
        lambda: ps.ARMA((1, 0), transform=[ps.Discretize(), ps.Log(-0.5)]),
        lambda: ps.ARMA((1, 0), transform=[ps.Discretize(lowest=0), ps.BoxCox(0.5)]),
        lambda: ps.RandomWalk(transform=[ps.Discretize(0.5), ps.Standardize(), ps.Difference()]),
        lambda: ps.IID(ps.StudentT(), transform=ps.Discretize()),
        lambda: ps.IID(ps.GaussianMixture(2), transform=ps.Discretize(lowest=0)),
        lambda: ps.LSTM(
            2,
            inference=ps.MeanField(2, training=ps.TrainingOptions(max_epochs=1)),
            transform=ps.Discretize(lowest=0),
            random_state=0,
        ),
    ],
    ids=["HMM", "ARMA Log", "ARMA BoxCox", "RandomWalk", "StudentT", "GaussianMixture", "LSTM"],
)
def test_every_factor_sums_to_one_over_the_lattice(make, quakes):
    model = make().fit(quakes[:60])
    given = model.get_params()["transform"]
    rounding = given[0] if isinstance(given, list) else given
    law = model.predictive(quakes[60:63], history=quakes[:60])._backend.law
    points = np.arange(-300.0 if rounding.lowest is None else rounding.lowest, 500.0, rounding.width)
    x = torch.as_tensor(points)[:, None, None, None].expand(-1, *law.batch_shape, 1)
    tolerance = 1e-6 if isinstance(model, ps.LSTM) else 1e-8
    assert_allclose(law.log_prob(x).exp().sum(0), 1.0, atol=tolerance)
    # What is scored is the product of these factors.
    at = law.log_prob(torch.as_tensor(quakes.values[60:63].astype(float)).reshape(1, 3, 1))[0]
    scored = model.log_prob_steps(quakes[60:63], history=quakes[:60])
    assert_allclose(scored, at, rtol=10 * tolerance)


def test_normal_meets_poisson(quakes, fitted):
    test, train = quakes[87:], quakes[:87]
    found = ps.compare(fitted, test, history=train)
    table = found.table
    assert np.isfinite(table.loc[["poisson", "normal"], "difference"]).all()
    direct = {n: float(fitted[n].log_prob_steps(test, history=train).mean()) for n in ("poisson", "normal")}
    gap = abs(direct["poisson"] - direct["normal"])
    assert table.loc[["poisson", "normal"], "difference"].min() == pytest.approx(-gap)
    assert str(found.measure) == "probability of whole numbers"
    assert table.loc[["density", "half"], "nats"].isna().all()
    assert "Discretize()" in table.loc["density", "note"]
    assert "lattice of step 0.5" in table.loc["half", "note"]
    # Rounding to halves, or not at all, hardly moves a score in the unit of the data.
    assert_allclose(table.loc[["half", "density"], "crps"], table.loc["normal", "crps"], rtol=5e-3)
    assert 0 < table.loc["normal", "pit_p"] <= 1
    with pytest.raises(UnsupportedError, match="Discretize"):
        found.difference("density", "poisson")


def test_averages_with_counts(quakes, fitted):
    both = ps.Average({"counts": fitted["poisson"], "rounded": fitted["normal"]}, weights="equal").fit(quakes[:87])
    each = [fitted[name].log_prob_steps(quakes[87:], history=quakes[:87]) for name in ("poisson", "normal")]
    steps = both.log_prob_steps(quakes[87:], history=quakes[:87])
    assert_allclose(steps, np.logaddexp(*each) - np.log(2), rtol=1e-9)
    with pytest.raises(IncompatibleError):
        ps.Average({"counts": fitted["poisson"], "half": fitted["half"]}, weights="equal").fit(quakes[:87])


@pytest.mark.parametrize("name, width", [("normal", 1.0), ("half", 0.5)])
def test_forecasts_are_on_the_lattice(name, width, quakes, fitted):
    model = fitted[name]
    for forecast in (model.forecast(3, n_paths=300), model.predictive(quakes[87:90], history=quakes[:87])):
        parts = (forecast.quantile([0.1, 0.5]), forecast.interval(0.8), forecast.interval(0.8, kind="hdi"))
        for values in (*parts, forecast.sample(50)):
            assert_allclose(np.asarray(values) % width, 0.0, atol=1e-12)
    first, inner = model.forecast(1), fitted["density"].forecast(1)
    assert first.exact
    cells = [float(inner.cdf(20.0 + side * width / 2).item()) for side in (1, -1)]
    assert first.log_prob([20.0]).item() == pytest.approx(np.log(cells[0] - cells[1]), rel=1e-9)
    assert first.cdf(20.0).item() == pytest.approx(cells[0], rel=1e-9)
    assert first.mean().item() == pytest.approx(inner.mean().item(), abs=0.02)
    assert_allclose(np.asarray(model.sample(40, random_state=1)) % width, 0.0, atol=1e-12)


def test_joint_scores_are_products_of_steps(quakes, fitted):
    model = fitted["normal"]
    joint = model.forecast(4, n_paths=50).log_prob(quakes[87:91], joint=True)
    assert float(joint) == pytest.approx(float(model.log_prob(quakes[87:91], history=quakes[:87])))


def test_streams_saves_and_clones(tmp_path, quakes, fitted):
    model = fitted["half"]
    model.save(tmp_path / "model.ps")
    again = ps.load(tmp_path / "model.ps")
    assert again.get_params()["transform"] == ps.Discretize(0.5)
    assert_allclose(again.log_prob(quakes), model.log_prob(quakes), rtol=1e-12)
    state = model.initial_state()
    for value in quakes.values[:5]:
        state = model.update(state, float(value))
    assert_allclose(
        model.predictive_at(state).cdf(20.0), model.predictive(quakes[:6]).cdf(quakes[:6] * 0 + 20)[-1], rtol=1e-10
    )
    copy = clone(model).set_params(transform=ps.Discretize(0.5, lowest=0.0))
    assert copy.get_params()["transform"].lowest == 0.0


def test_missing_values_are_told_as_a_pattern(quakes, fitted):
    y = quakes.astype(float).copy()
    y[10] = np.nan
    model = fitted["normal"]
    assert model.model_.missing == "pattern"
    steps = model.log_prob_steps(y)
    assert np.isnan(steps[10]) and np.isfinite(steps[11:]).all()
    filled = model.impute(y)
    assert 0 < float(filled[10]) < 60
    draws = model.impute(y, n_draws=20, random_state=0)
    assert_allclose(draws[:, 10] % 1.0, 0.0)


BAD = {
    "off the lattice": (ps.Discretize(), np.array([1.0, 2.5, 3.0]), SupportError),
    "off a lattice of halves": (ps.Discretize(0.5), np.array([1.0, 2.25, 3.0]), SupportError),
    "below the lowest": (ps.Discretize(lowest=0), np.array([1.0, -2.0, 3.0]), SupportError),
    "no width": (ps.Discretize(0.0), np.arange(9.0), ParameterError),
    "a word": (ps.Discretize("1"), np.arange(9.0), ParameterError),
    "lowest between": (ps.Discretize(1.0, lowest=0.5), np.arange(9.0), ParameterError),
    "infinite lowest": (ps.Discretize(1.0, lowest=-np.inf), np.arange(9.0), ParameterError),
    "not first": ([ps.Log(-1), ps.Discretize()], np.arange(9.0), ParameterError),
    "twice": ([ps.Discretize(), ps.Discretize()], np.arange(9.0), ParameterError),
    "zero under Log": ([ps.Discretize(), ps.Log()], np.arange(9.0), SupportError),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused(name):
    transform, values, error = BAD[name]
    with pytest.raises(error):
        ps.IID(transform=transform).fit(values)


def test_new_values_are_checked_too():
    model = ps.IID(transform=ps.Discretize()).fit(np.arange(9.0))
    with pytest.raises(SupportError, match="multiples of 1"):
        model.log_prob([0.5])


def test_groups_of_variables_keep_the_step():
    x = 0.5 * np.random.default_rng(0).integers(1, 9, size=(20, 2))
    model = ps.IID(ps.Product([ps.Normal(), ps.Gamma()]), transform=ps.Discretize(0.5)).fit(x)
    forecast = model.forecast(1)
    one = forecast.marginal("x0")
    assert_allclose(forecast.crps(x[:1]).values[..., 0].item(), one.crps(x[:1, 0]).item(), rtol=1e-12)
    law = stats.norm(float(x[:, 0].mean()), float(x[:, 0].std()))
    below = law.cdf(0.5 * np.arange(-100, 100) + 0.25)
    expected = 0.5 * ((below - (0.5 * np.arange(-100, 100) >= x[0, 0])) ** 2).sum()
    assert one.crps(x[:1, 0]).item() == pytest.approx(expected, rel=1e-9)
    assert_allclose(np.asarray(forecast.interval(0.8, kind="hdi")) % 0.5, 0.0, atol=1e-12)


def test_counts_and_correlated_variables_are_refused():
    counts = np.random.default_rng(0).poisson(3.0, size=(20, 2)).astype(float)
    with pytest.raises(IncompatibleError):
        ps.IID(ps.Poisson(), transform=ps.Discretize()).fit(counts[:, 0])
    with pytest.raises(IncompatibleError, match="diag"):
        ps.IID(ps.Normal("full"), transform=ps.Discretize()).fit(counts)
    two = ps.IID(transform=ps.Discretize()).fit(counts)
    each = [ps.IID(transform=ps.Discretize()).fit(counts[:, i]).log_prob(counts[:, i]) for i in (0, 1)]
    assert float(two.log_prob(counts)) == pytest.approx(float(sum(each)))
