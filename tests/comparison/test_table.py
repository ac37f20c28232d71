"""Columns of a comparison that tell how sure the ranking is, and that no model is scored on what it was given."""

import warnings

import numpy as np
import pytest

import probseq as ps
from probseq.errors import ParameterError
from probseq.evaluation import hac_mean, model_confidence_set, pinball_loss, pseudo_bma_weights

TRAIN, TEST = np.split(np.random.default_rng(0).standard_normal(160).cumsum(), [100])


@pytest.fixture(scope="module")
def models():
    fits = {"rw": ps.RandomWalk(), "season": ps.SeasonalNaive(4), "iid": ps.IID()}
    return {name: model.fit(TRAIN) for name, model in fits.items()}


@pytest.fixture(scope="module")
def found(models):
    return ps.compare(models, TEST, history=TRAIN)


def test_confidence_set_is_that_of_the_paired_scores(models, found):
    steps = np.stack([m.log_prob_steps(TEST, history=TRAIN).values for m in models.values()], -1)
    p = dict(zip(models, model_confidence_set(steps[None]), strict=True))
    for name in models:
        assert found.table.loc[name, "confidence_set"] == (p[name] >= 0.1)
    assert found.confidence_set(0.9) == [name for name in found.table.index if p[name] >= 0.1]
    assert set(found.confidence_set(0.9)) <= set(found.confidence_set(0.999))
    assert not found.table.loc["iid", "confidence_set"]


def test_crps_is_tested_by_paired_differences(models, found):
    crps = {name: m.predictive(TEST, history=TRAIN).crps(TEST).values for name, m in models.items()}
    for name in ("season", "iid"):
        gap = hac_mean(crps[name] - crps[found.best])
        assert found.table.loc[name, "crps_p"] == pytest.approx(gap.p_value, rel=1e-9)
        assert found.difference(name, score="crps").mean == pytest.approx(
            found.table.loc[name, "crps"] - found.table.loc[found.best, "crps"], rel=1e-9
        )
    assert np.isnan(found.table.loc[found.best, "crps_p"])


def test_pinball_is_the_mean_over_five_levels(models, found):
    levels = np.array([0.05, 0.25, 0.5, 0.75, 0.95])
    quantiles = models["rw"].predictive(TEST, history=TRAIN).quantile(levels).values
    assert found.table.loc["rw", "pinball"] == pytest.approx(pinball_loss(TEST[:, None], quantiles, levels).mean())


def test_pseudo_bma_weights_are_learnt_on_the_first_half(models, found):
    names = found.table.index.tolist()
    steps = np.stack([models[name].log_prob_steps(TEST, history=TRAIN).values for name in names], -1)
    np.testing.assert_allclose(found.table["pseudo_bma"], pseudo_bma_weights(steps[:30]), rtol=1e-9)


def test_the_cumulative_plot_adds_up(models, found):
    import matplotlib.pyplot as plt

    for score, sign in (("log_score", 1), ("crps", -1)):
        ax = found.plot_cumulative(score=score)
        last = {line.get_label(): line.get_ydata()[-1] for line in ax.lines if line.get_label() in models}
        for name in set(models) - {found.best}:
            assert last[name] == pytest.approx(sign * found.difference(name, score=score).mean * 60, rel=1e-9)
        plt.close(ax.figure)
    for bad in ({"score": "speed"}, {"sequence": 1}, {"other": "nobody"}):
        with pytest.raises(ParameterError):
            found.plot_cumulative(**bad)


def test_thirty_models_stand_in_one_table():
    fits = {f"season {i}": ps.SeasonalNaive(i).fit(TRAIN) for i in range(1, 31)}
    found = ps.compare(fits, TEST, history=TRAIN)
    assert found.best == "season 1" and len(found.table) == 30
    assert found.table["weight"].sum() == pytest.approx(1)
    assert found.confidence_set()[0] == "season 1"


def test_no_model_is_scored_on_what_any_of_them_conditions_on():
    """Of 60 new values ARIMA(d=1) conditions on one, the network on its context of five, the HMM on none."""
    arima = ps.ARMA((1, 1, 0)).fit(TRAIN)
    hmm = ps.HMM(2, random_state=0).fit(TRAIN)
    quick = ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.errors.ConvergenceWarning)
        net = ps.LSTM(2, transform=ps.ContextScale(5), inference=quick, random_state=0).fit(TRAIN)
    fits = {"arima": arima, "hmm": hmm, "net": net}
    alone = {name: model.log_prob_steps(TEST).values for name, model in fits.items()}
    given = {name: int(np.isnan(steps).sum()) for name, steps in alone.items()}
    assert given == {"arima": 1, "hmm": 0, "net": 5}
    found = ps.compare(fits, TEST)
    assert found.n_values == 55
    common = found.log_prob_steps
    assert np.isnan(common.values[:5]).all() and np.isfinite(common.values[5:]).all()
    for name, steps in alone.items():
        assert found.table.loc[name, "nats"] == pytest.approx(steps[5:].mean(), rel=1e-6)
    crps = hmm.predictive(TEST).crps(TEST).values
    assert found.table.loc["hmm", "crps"] == pytest.approx(crps[5:].mean(), rel=1e-9)
    after = ps.compare(fits, TEST, history=TRAIN)
    assert after.n_values == 60
