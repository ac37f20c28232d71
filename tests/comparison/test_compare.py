"""The table of a comparison, against the same numbers by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import probseq as ps
from probseq.errors import DataError, NotFittedError, ParameterError, UnsupportedError
from probseq.evaluation import clustered_mean, hac_mean, stacking_weights

TRAIN, TEST = np.split(np.random.default_rng(0).standard_normal(160).cumsum(), [100])


@pytest.fixture(scope="module")
def models():
    fits = {"rw": ps.RandomWalk(), "season": ps.SeasonalNaive(4), "iid": ps.IID()}
    return {name: model.fit(TRAIN) for name, model in fits.items()}


def test_scores_are_those_of_the_models(models):
    found = ps.compare(models, TEST, history=TRAIN)
    steps = {name: m.log_prob_steps(TEST, history=TRAIN).values for name, m in models.items()}
    order = sorted(steps, key=lambda name: -steps[name].mean())
    assert found.table.index.tolist() == order
    assert found.best == order[0]
    assert found.n_values == 60
    for name in order:
        assert found.table.loc[name, "nats"] == pytest.approx(steps[name].mean(), abs=1e-12)
        gap = hac_mean(steps[name] - steps[found.best])
        assert found.table.loc[name, "difference"] == pytest.approx(gap.mean, abs=1e-12)
        if name != found.best:
            assert found.table.loc[name, "se"] == pytest.approx(gap.standard_error, rel=1e-12)
        assert found.table.loc[name, "parameters"] == models[name].n_parameters_
    np.testing.assert_array_equal(found.log_prob_steps.sel(model="iid").values, steps["iid"])


def test_calibration_columns_by_hand(models):
    row = ps.compare(models, TEST, history=TRAIN).table.loc["rw"]
    scale = models["rw"].params_["scale"].item()
    z = np.diff(np.r_[TRAIN[-1], TEST]) / scale
    assert row["cover50"] == np.mean(np.abs(z) <= stats.norm.ppf(0.75))
    assert row["cover90"] == np.mean(np.abs(z) <= stats.norm.ppf(0.95))
    assert row["pit_p"] == pytest.approx(stats.kstest(stats.norm.cdf(z), "uniform").pvalue, rel=1e-9)
    cdf, pdf = stats.norm.cdf(z), stats.norm.pdf(z)
    crps = scale * (z * (2 * cdf - 1) + 2 * pdf - 1 / np.sqrt(np.pi))
    assert row["crps"] == pytest.approx(crps.mean(), rel=1e-10)


def test_no_model_is_scored_on_what_another_conditions_on(models):
    found = ps.compare(models, TEST)
    assert found.n_values == 56  # the seasonal walk conditions on its first four values
    steps = models["iid"].log_prob_steps(TEST).values
    assert found.table.loc["iid", "nats"] == pytest.approx(steps[4:].mean(), abs=1e-12)


def test_a_step_of_which_models_score_different_coordinates_is_dropped_whole():
    x = np.random.default_rng(1).standard_normal((40, 2)).cumsum(0)
    x[0, 1] = np.nan  # the walk conditions on the second variable one step later
    fits = {"rw": ps.RandomWalk().fit(x), "iid": ps.IID().fit(x)}
    found = ps.compare(fits, x)
    assert found.n_values == 2 * 38
    assert found.table.loc["iid", "nats"] == pytest.approx(fits["iid"].log_prob_steps(x).values[2:].sum() / 76)


def test_many_sequences_are_clusters():
    rng = np.random.default_rng(2)
    panel = [rng.standard_normal(n).cumsum() for n in (20, 30, 25, 40)]
    fits = {"rw": ps.RandomWalk().fit(panel), "drift": ps.RandomWalk(drift=True).fit(panel)}
    found = ps.compare(fits, panel)
    a, b = (fits[name].log_prob_steps(panel).values for name in ("drift", "rw"))
    other = next(name for name in fits if name != found.best)
    sign = 1.0 if other == "drift" else -1.0
    gap = clustered_mean(sign * (a - b), np.arange(4)[:, None])
    assert found.table.loc[other, "se"] == pytest.approx(gap.standard_error, rel=1e-12)
    assert "4 sequences" in found.table.loc[other, "note"]
    per_sequence = ps.compare(fits, panel, per="sequence").table
    per_step = ps.compare(fits, panel, per="step").table
    assert per_sequence.loc[other, "nats"] == pytest.approx(per_step.loc[other, "nats"] * 111 / 4)
    assert per_sequence.loc[other, "se"] == pytest.approx(per_step.loc[other, "se"] * 111 / 4)


def test_densities_and_probabilities_do_not_meet():
    counts = np.random.default_rng(3).poisson(4.0, 80)
    fits = {"poisson": ps.PoissonProcess(), "hmm": ps.HMM(2, ps.Poisson(), random_state=0), "normal": ps.IID()}
    for model in fits.values():
        model.fit(counts)
    table = ps.compare(fits, counts).table
    assert np.isnan(table.loc["normal", "nats"])
    assert "density" in table.loc["normal", "note"]
    assert np.isfinite(table["crps"]).all()
    assert table.index[-1] == "normal"


def test_both_scores_of_a_model_with_draws():
    net = ps.LSTM(4, inference=ps.MeanField(n_draws=5, training=ps.TrainingOptions(max_epochs=20)), random_state=0).fit(
        TRAIN
    )
    row = ps.compare([net], TEST, history=TRAIN).table.loc["LSTM"]
    own = net.log_prob_steps(TEST, history=TRAIN).values.mean()
    held = net.log_prob_steps(TEST, history=TRAIN, weights="frozen").values.mean()
    assert row["nats"] == pytest.approx(own, abs=1e-6)
    assert row["frozen"] == pytest.approx(held, abs=1e-6)
    assert row["nats"] != row["frozen"]
    assert 1.0 <= row["draws"] <= 5.0


def test_weights_are_learnt_on_other_values_than_they_are_scored_on(models):
    found = ps.compare(models, TEST, history=TRAIN)
    names = found.table.index.tolist()
    steps = np.stack([models[name].log_prob_steps(TEST, history=TRAIN).values for name in names], -1)
    weights = stacking_weights(steps[:30])
    np.testing.assert_allclose(found.table["weight"], weights, atol=1e-6)
    mixed = np.log(np.exp(steps[30:]) @ weights).mean()
    assert found.stacked["stacked"] == pytest.approx(mixed, abs=1e-6)


def test_the_table_is_text_and_a_frame(models, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    found = ps.compare(models, TEST, history=TRAIN)
    assert "nats per value" in repr(found) and "among the best" in repr(found)
    assert "60 values" in found.caption
    assert found.to_dataframe() is not found.table


@pytest.mark.parametrize(
    ("ask", "error"),
    [
        (lambda m: ps.compare(None, TEST), ParameterError),
        (lambda m: ps.compare({}, TEST), ParameterError),
        (lambda m: ps.compare({"a": 3}, TEST), ParameterError),
        (lambda m: ps.compare({1: m["iid"], "1": m["rw"]}, TEST), ParameterError),
        (lambda m: ps.compare(m, TEST).confidence_set("most"), ParameterError),
        (lambda m: ps.compare(m, TEST).confidence_set([0.5, 0.9]), ParameterError),
        (lambda m: ps.compare(m, TEST).difference("iid").interval("most"), ParameterError),
        (lambda m: ps.compare({"a": ps.IID()}, TEST), NotFittedError),
        (lambda m: ps.compare(m, TEST, per="month"), ParameterError),
        (lambda m: ps.compare(m, TEST[:3]), DataError),
        (lambda m: ps.compare(m, TEST).difference("nobody"), ParameterError),
        (lambda m: ps.compare(m, TEST).pit("nobody"), ParameterError),
    ],
)
def test_bad_questions(models, ask, error):
    with pytest.raises(error):
        ask(models)


def test_models_of_text_are_compared_by_perplexity():
    texts = ["to be or not to be", "to do is to be", "do be do be do"]
    models = {"by characters": ps.MarkovChain(1).fit(texts), "smoothed": ps.MarkovChain(2, "kneser_ney").fit(texts)}
    found = ps.compare(models, texts)
    for name, model in models.items():
        np.testing.assert_allclose(found.table.loc[name, "perplexity"], model.perplexity(texts), rtol=1e-12)
    assert found.best == "smoothed" and "perplexity" in repr(found) and found.pit("smoothed").size == 0
    assert np.isnan(found.table["crps"]).all()
    numbers = ps.compare({"walk": ps.RandomWalk().fit([1.0, 2.0, 4.0, 3.0])}, [3.0, 5.0, 4.0])
    assert numbers.table["perplexity"].isna().all() and "perplexity" not in repr(numbers)


def test_scores_under_different_measures_have_no_difference():
    counts = np.random.default_rng(3).poisson(4.0, 60)
    fits = {"poisson": ps.PoissonProcess().fit(counts), "normal": ps.IID().fit(counts)}
    found = ps.compare(fits, counts)
    with pytest.raises(UnsupportedError, match='score="crps"'):
        found.difference("normal", "poisson")
    assert np.isfinite(found.difference("normal", score="crps").mean)
    words = ps.compare([ps.MarkovChain(1).fit("abab"), ps.MarkovChain(2).fit("abba")], "abab")
    with pytest.raises(UnsupportedError, match="the crps of"):
        words.difference(words.table.index[1], score="crps")


def test_models_that_are_not_comparable_are_ordered_by_crps():
    counts = np.random.default_rng(3).poisson(4.0, 60)
    bad = ps.IID().with_parameters(mean=[20.0], scale=[1.0])
    far = ps.IID().with_parameters(mean=[9.0], scale=[1.0])
    fits = {"bad": bad, "far": far, "poisson": ps.PoissonProcess().fit(counts)}
    fits |= {f"poisson {i}": fits["poisson"] for i in range(3)}
    assert ps.compare(fits, counts).table.index[-2:].tolist() == ["far", "bad"]


def test_texts_with_and_without_their_end_do_not_meet():
    texts = ["abab", "abba", "baba"]
    closed = ps.MarkovChain(1).fit(texts)
    open_ = ps.MarkovChain(1).fit(ps.sequences(texts, end=False))
    for fits in ({"closed": closed, "open": open_}, {"open": open_, "closed": closed}):
        first, other = fits
        table = ps.compare(fits, texts).table
        assert table.loc[first, "nats"] == pytest.approx(fits[first].score(texts))
        assert np.isnan(table.loc[other, "nats"]) and "end of a text" in table.loc[other, "note"]


def test_vocabularies_are_sets():
    coded = [ps.Vocabulary(tokens) for tokens in (("a", "b"), ("b", "a"), ("a", "c"))]
    fits = [ps.MarkovChain(1).fit(ps.sequences(["aa", "aaa"], vocabulary=v, end=False)) for v in coded]
    table = ps.compare({"ab": fits[0], "ba": fits[1], "ac": fits[2]}, ["aaaa", "a"]).table
    assert table.loc["ab", "nats"] == pytest.approx(table.loc["ba", "nats"])
    assert np.isnan(table.loc["ac", "nats"]) and "other probability over 2 tokens" in table.loc["ac", "note"]


def test_a_sequence_that_is_not_scored_is_none():
    panel = [TEST[:20], TEST[20:40], np.full(5, np.nan)]
    fits = {"rw": ps.RandomWalk().fit(TRAIN), "iid": ps.IID().fit(TRAIN)}
    found = ps.compare(fits, panel, per="sequence")
    total = np.nansum(fits["iid"].log_prob_steps(panel).values[:2, 1:])
    assert found.table.loc["iid", "nats"] == pytest.approx(total / 2)


def test_models_that_thought_the_data_impossible():
    x = np.array([0, 1, 1, 0, 1, 1, 0, 1, 0, 0, 1, 1])
    fits = {p: ps.IID(ps.Categorical()).fit(x).with_parameters(probs=[[p, 1 - p]]) for p in (0.0, 0.5, 1.0)}
    table = ps.compare(fits, x).table
    assert table.index[0] == "0.5" and table["confidence_set"].tolist() == [True, False, False]
    assert np.isneginf(table["difference"][1:]).all() and table["note"].str.contains("probability zero").sum() == 2
    none = ps.compare({"a": fits[0.0], "b": fits[1.0]}, x)
    assert none.table["note"].str.contains("probability zero").all() and "flattered" not in repr(none)
    assert np.isnan(none.difference("a", "b").mean)
