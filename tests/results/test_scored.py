"""Scores of forecasts: each value, trajectories with gaps, and means beside a baseline."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import ApproximationWarning, EmptyDataError, ParameterError, ShapeError, UnsupportedError
from probseq.evaluation import crps_normal, crps_poisson, crps_samples, energy_score, variogram_score

X = 10 + np.cumsum(np.random.default_rng(0).normal(size=60))
Y = X[-1] + np.array([0.4, -0.3, np.nan, 1.2])
SEEN = ~np.isnan(Y)


@pytest.fixture(scope="module")
def arma():
    return ps.ARMA(order=(1, 0)).fit(X).forecast(4)


@pytest.fixture(scope="module")
def walk():
    return ps.RandomWalk().fit(X).forecast(4)


def test_scores_of_values_agree_with_scoringrules(arma):
    import scoringrules

    mean, std, y = arma.mean().values[SEEN], arma.std().values[SEEN], Y[SEEN]
    assert_allclose(arma.crps(Y)[SEEN], scoringrules.crps_normal(y, mean, std), rtol=0, atol=1e-10)
    assert_allclose(-arma.log_prob(Y)[SEEN], scoringrules.logs_normal(y, mean, std), rtol=0, atol=1e-10)
    low, high = arma.quantile([0.1, 0.9]).values[SEEN].T
    assert_allclose(arma.pinball(Y, 0.1)[SEEN], scoringrules.quantile_score(y, low, 0.1), rtol=0, atol=1e-10)
    assert_allclose(
        arma.interval_score(Y, 0.8)[SEEN], scoringrules.interval_score(y, low, high, 0.2), rtol=0, atol=1e-10
    )
    below = arma.cdf(11.0).values[SEEN]
    assert_allclose(
        arma.brier_score(Y, threshold=11.0)[SEEN], scoringrules.brier_score(y <= 11.0, below), rtol=0, atol=1e-10
    )
    for score in (arma.pinball(Y), arma.interval_score(Y), arma.brier_score(Y, 11.0), arma.smape(Y)):
        assert np.isnan(score.values[2]).all() and not np.isnan(score.values[3]).any()
    assert arma.pinball(Y).dims == ("time", "quantile") and arma.pinball(Y).sizes["quantile"] == 9


def test_scores_of_trajectories_agree_with_scoringrules_on_the_values_that_came(arma):
    import scoringrules

    paths = arma.sample(200, random_state=3).values[:, SEEN]
    fair = scoringrules.es_ensemble(Y[SEEN], paths, estimator="fair")
    assert_allclose(arma.energy_score(Y, 200, random_state=3), fair, rtol=0, atol=1e-10)
    assert_allclose(
        arma.variogram_score(Y, 0.5, 200, random_state=3), scoringrules.vs_ensemble(Y[SEEN], paths), rtol=0, atol=1e-10
    )
    assert np.isnan(arma.energy_score(np.full(4, np.nan), 5)) and np.isnan(arma.variogram_score(np.full(4, np.nan)))


def test_crps_of_paths_is_the_fair_estimator():
    import scoringrules

    paths = np.random.default_rng(1).normal(size=(30, 4))
    score = ps.Forecast.from_paths(paths).crps(Y)
    assert_allclose(score[SEEN], scoringrules.crps_ensemble(Y[SEEN], paths[:, SEEN].T, estimator="fair"), atol=1e-10)
    assert_allclose(score[SEEN], crps_samples(Y[SEEN], paths[:, SEEN]), rtol=1e-12)


def test_errors_by_hand(arma):
    forecast = ps.Forecast.from_quantiles([0.4, 0.6], np.array([[1.0, 3.0], [4.0, 8.0]]), like=[1.0, 3.0, 2.0])
    assert_allclose(forecast.absolute_error([3.0, 5.0]), [1.0, 1.0])
    assert_allclose(forecast.smape([3.0, 5.0]), [2 / 5, 2 / 11])
    # Naive errors of 1 3 2 are 2 and 1: mean 1.5.
    assert_allclose(forecast.mase([3.0, 5.0]), [1 / 1.5, 1 / 1.5])
    assert_allclose(arma.rmse(Y), np.sqrt(np.nanmean((Y - arma.mean().values) ** 2)))
    assert_allclose(arma.squared_error(Y)[SEEN], (Y - arma.mean().values)[SEEN] ** 2)
    with pytest.raises(ShapeError, match="period"):
        forecast.mase([3.0, 5.0], period=3)
    with pytest.raises(UnsupportedError, match="history"):
        ps.Forecast.from_paths(np.zeros((3, 2))).mase([1.0, 2.0])


def test_categories_and_counts():
    import scoringrules

    letters = ps.MarkovChain().fit("abracadabra").forecast(2)
    p, codes = letters.probs().values, [letters.probs()["category"].values.tolist().index(c) for c in "br"]
    assert_allclose(letters.brier_score("br"), ((p - np.eye(p.shape[-1])[codes]) ** 2).sum(-1), atol=1e-14)
    expected = scoringrules.rps_score(np.array(codes) + 1, p)
    assert_allclose(letters.ranked_probability_score("br"), expected, rtol=0, atol=1e-10)
    assert letters.scores("br")["score"].values.tolist() == ["log_score", "brier_score"]
    with pytest.raises(UnsupportedError, match="log_prob"):
        letters.pinball("br")
    counts = ps.PoissonProcess().fit(np.arange(30) % 5).forecast(2)
    assert_allclose(counts.ranked_probability_score([1, 3]), counts.crps([1, 3]))
    with pytest.raises(UnsupportedError, match="categories"):
        counts.brier_score([1, 3])


def test_means_and_skill_on_common_values(arma, walk):
    table = arma.scores(Y, walk)
    both = [one.crps(Y).mean().item() for one in (arma, walk)]
    row = table.sel(score="crps")
    assert (row["mean"].item(), row["baseline"].item()) == pytest.approx(both)
    assert row["skill"].item() == pytest.approx(1 - both[0] / both[1]) and row["n"] == 3
    nats = table.sel(score="log_score")
    assert nats["skill"].item() == pytest.approx((arma.log_prob(Y) - walk.log_prob(Y)).mean().item())
    assert table.sel(score="rmse")["mean"].item() == pytest.approx(arma.rmse(Y).item())
    assert table.sel(score="mase")["mean"].item() == pytest.approx(arma.mase(Y).mean().item())
    assert set(arma.scores(Y).data_vars) == {"mean", "n"}


def test_a_baseline_without_a_score_leaves_it_open(arma):
    quantiles = ps.Forecast.from_quantiles([0.1, 0.9], np.stack([X[-1] - np.ones(4), X[-1] + np.ones(4)], -1))
    table = arma.scores(Y, quantiles)
    assert np.isnan(table.sel(score="log_score")["skill"]) and table.sel(score="crps")["skill"].notnull()
    alone = quantiles.scores(Y)
    assert "log_score" in alone.attrs["left_out"] and "mase" in alone.attrs["left_out"]
    assert "log_score" not in alone["score"]
    with pytest.raises(UnsupportedError, match="quantiles"):
        quantiles.scores(Y, which=["log_score"])


def test_scores_of_many_sequences_and_variables():
    rng = np.random.default_rng(2)
    data = rng.normal(size=(3, 40, 2)).cumsum(1)
    forecast = ps.RandomWalk().fit(data).forecast(5)
    y = data[:, -5:] + 0.3
    y[1, 3, 0] = np.nan
    table = forecast.scores(y)
    log_prob = np.nansum(forecast.log_prob(y))
    assert table.sel(score="log_score")["mean"].item() == pytest.approx(log_prob / 29)
    assert table.sel(score="log_score")["n"] == 29 and table.sel(score="energy_score")["n"] == 3
    by = forecast.scores(y, per=("variable", "sequence"))
    assert by["mean"].sizes == {"score": 7, "sequence": 3, "variable": 2}
    crps = forecast.crps(y).mean("time").values
    assert_allclose(by["mean"].sel(score="crps").transpose("sequence", "variable"), crps)
    assert "level" not in forecast.scores(y, per="sequence").coords
    each = forecast.scores(y, per="horizon", which=["crps"])
    assert_allclose(each["mean"].sel(score="crps"), np.nanmean(forecast.crps(y), axis=(0, 2)))
    flat, paths = y[0].reshape(-1), forecast.sample(100, random_state=0).values[:, 0].reshape(100, -1)
    assert_allclose(forecast.energy_score(y, 100)[0], energy_score(flat, paths))
    assert_allclose(forecast.variogram_score(y, 1.0, 100)[0], variogram_score(flat, paths, p=1.0))


def test_wrong_requests_are_named(arma, walk):
    with pytest.raises(ParameterError, match="crps"):
        arma.scores(Y, which=["crsp"])
    with pytest.raises(ParameterError, match="a Forecast"):
        arma.scores(Y, baseline=Y)
    with pytest.raises(ShapeError, match="baseline"):
        arma.scores(Y, baseline=ps.RandomWalk().fit(X).forecast(3))
    with pytest.raises(ParameterError, match="dimensions"):
        arma.scores(Y, per="path")
    with pytest.raises(ParameterError, match=r"Write 0\.9"):
        arma.interval_score(Y, 90)
    with pytest.raises(UnsupportedError, match="trajectory"):
        ps.RandomWalk().fit(X).predictive(X).variogram_score(X)


def test_one_step_predictions_have_scores_of_values_only():
    model = ps.RandomWalk().fit(X)
    table = model.predictive(X).scores(X)
    assert "energy_score" not in table["score"] and table.sel(score="crps")["n"] == len(X) - 1
    scale = model.params_["scale"].item()
    assert table.sel(score="crps")["mean"].item() == pytest.approx(crps_normal(X[1:], X[:-1], scale).mean())


def test_known_values_do_not_count_as_scored():
    data = np.random.default_rng(5).normal(size=(40, 2)).cumsum(0)
    known = np.array([[data[-1, 0], np.nan], [np.nan, np.nan]])
    scenario = ps.RandomWalk().fit(data).forecast(2).given(known)
    y = data[-2:]
    row = scenario.scores(np.where(np.isnan(known), y, known), which=["log_score"]).isel(score=0)
    assert row["n"] == 3
    assert row["mean"].item() == pytest.approx(scenario.log_prob(np.where(np.isnan(known), y, known)).sum().item() / 3)


def test_steps_known_one_by_one_are_no_trajectory():
    loose = ps.Forecast.from_quantiles([0.1, 0.5, 0.9], np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 5.0]]))
    for ask in (lambda: loose.energy_score([2.0, 3.0]), lambda: loose.aggregate("sum"), lambda: loose.sample(3)):
        with pytest.warns(ApproximationWarning, match="independent"):
            ask()
    table = loose.scores([2.0, 3.0])
    assert "energy_score" not in table["score"] and "step by step" in table.attrs["left_out"]
    with pytest.warns(ApproximationWarning, match="independent"):
        assert loose.scores([2.0, 3.0], which="energy_score")["n"].item() == 1


def test_a_count_that_is_not_whole_is_as_far_as_it_is():
    counts = ps.PoissonProcess().with_parameters(rate=[0.5]).forecast(1, history=[0.0, 1.0])
    assert_allclose(counts.crps([2.5]), crps_poisson(2.5, 0.5), rtol=1e-12)
    assert_allclose((2 * counts).crps([5.0]), 2 * counts.crps([2.5]), rtol=1e-12)


def test_wrong_thresholds_and_seasons_are_named(arma, walk):
    for wrong in (np.nan, "a", [1.0, 2.0]):
        with pytest.raises(ParameterError, match="threshold"):
            arma.brier_score(Y, threshold=wrong)
    assert_allclose(arma.brier_score(Y, arma.mean().mean()), arma.brier_score(Y, arma.mean().mean().item()))
    with pytest.raises(ParameterError, match="period"):
        arma.mase(Y, period=1.5)
    gaps = ps.RandomWalk().with_parameters(scale=[1.0]).forecast(2, history=[1.0, np.nan, 2.0])
    assert "mase" in gaps.scores([1.0, 2.0]).attrs["left_out"]
    with pytest.raises(EmptyDataError):
        gaps.scores([1.0, 2.0], which="mase")
