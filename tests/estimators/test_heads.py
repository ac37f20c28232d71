"""Every emission as the head of a small network: fit, score, predict, forecast, sample, keep in a file."""

import numpy as np
import pytest

import probseq as ps
from probseq.distributions.emissions import ConditionalEmission, Emission
from probseq.errors import IncompatibleError, UnsupportedError
from probseq.testing.registry import Row

HEADS = {
    "Normal": (ps.Normal(), "real", 2),
    "Normal full": (ps.Normal("full"), "real", 2),
    "Normal spherical": (ps.Normal("spherical"), "real", 2),
    "Normal tied": (ps.Normal("tied"), "real", 2),
    "LowRankNormal": (ps.LowRankNormal(rank=2), "real", 3),
    "StudentT": (ps.StudentT(), "real", 2),
    "LogNormal": (ps.LogNormal(), "positive", 1),
    "LogNormal full": (ps.LogNormal("full"), "positive", 2),
    "Gamma": (ps.Gamma(), "positive", 2),
    "Beta": (ps.Beta(), "unit", 2),
    "VonMises": (ps.VonMises(), "angle", 2),
    "GaussianMixture": (ps.GaussianMixture(3), "real", 1),
    "GaussianMixture full": (ps.GaussianMixture(2, "full"), "real", 2),
    "GaussianMixture spherical": (ps.GaussianMixture(2, "spherical"), "real", 2),
    "GaussianMixture tied": (ps.GaussianMixture(2, "tied"), "real", 2),
    "Poisson": (ps.Poisson(), "count", 2),
    "NegativeBinomial": (ps.NegativeBinomial(), "count", 1),
    "ZeroInflatedPoisson": (ps.ZeroInflatedPoisson(), "count", 2),
    "Multinomial": (ps.Multinomial(n_trials=6), "share", 3),
    "Categorical": (ps.Categorical(), "code", 1),
    "Bernoulli": (ps.Bernoulli(), "bit", 3),
    "AutoregressiveBernoulli": (ps.AutoregressiveBernoulli(4), "bit", 3),
    "Quantiles": (ps.Quantiles((0.1, 0.25, 0.5, 0.75, 0.9)), "real", 2),
    "Product": (ps.Product([ps.StudentT(), ps.Poisson()]), "mixed", 2),
    "Product of low rank": (ps.Product([ps.Normal(), ps.NegativeBinomial()], sizes=[1, 2]), "mixed", 3),
    "Product with constants": (ps.Product([ps.Tied(ps.StudentT(), shared=("df",)), ps.Poisson()]), "mixed", 2),
    "Product with quantiles": (ps.Product([ps.Quantiles((0.1, 0.5, 0.9)), ps.Poisson()]), "mixed", 2),
    "Product with categories": (ps.Product([ps.Normal(), ps.Categorical(3)]), "labelled", 2),
    "Tied": (ps.Tied(ps.StudentT(), shared=("df",)), "real", 2),
    "Tied mixture": (ps.Tied(ps.GaussianMixture(2)), "real", 1),
}
_FITTED = {}


def data_of(name, t=40):
    _, kind, k = HEADS[name]
    if kind == "labelled":
        return np.concatenate([Row(name, ps.LSTM, "real").values(t), Row(name, ps.LSTM, "code").values(t)], 1)
    return Row(name, ps.LSTM, kind, k).values(t)


def fitted(name):
    if name not in _FITTED:
        training = ps.TrainingOptions(max_epochs=6)
        model = ps.LSTM(4, head=HEADS[name][0], inference=ps.MLE(training=training), random_state=0)
        _FITTED[name] = model.fit(data_of(name))
    return _FITTED[name]


def every_head(*without):
    return pytest.mark.parametrize("name", [name for name in HEADS if name not in without])


WITHOUT_LIKELIHOOD = ("Quantiles", "Product with quantiles")


def test_no_exported_emission_is_left_out():
    exported = {getattr(ps, name) for name in ps.__all__}
    emissions = {one for one in exported if isinstance(one, type) and issubclass(one, Emission)}
    tried = {type(head) for head, _, _ in HEADS.values()}
    assert {one for one in emissions - tried if not issubclass(one, ConditionalEmission)} == set()


@every_head(*WITHOUT_LIKELIHOOD)
def test_log_prob_adds_up_and_streams(name):
    model, x = fitted(name), data_of(name)
    steps = model.log_prob_steps(x).values
    assert steps.shape == (40,)
    assert np.isfinite(steps).all()
    np.testing.assert_allclose(float(model.log_prob(x)), steps.sum(), rtol=1e-5)
    np.testing.assert_allclose(model.score(x), steps.sum() / x.size, rtol=1e-5)
    state = model.initial_state()
    for t in range(3):
        value = model.predictive_at(state).log_prob(x[t : t + 1] if x.shape[1] > 1 else x[t : t + 1, 0])
        np.testing.assert_allclose(float(value.squeeze()), steps[t], rtol=1e-3, atol=1e-3)
        state = model.update(state, x[t])


@every_head(*WITHOUT_LIKELIHOOD)
def test_a_network_says_more_than_its_start(name):
    x = data_of(name)
    head = HEADS[name][0]
    start = ps.LSTM(4, head=head, inference=ps.MLE(training=ps.TrainingOptions(max_epochs=1)), random_state=0).fit(x)
    assert fitted(name).score(x) > start.score(x) - 0.02
    assert np.isfinite([fitted(name).aic, fitted(name).bic]).all()


@every_head()
def test_missing_values_are_told_and_not_filled_in(name):
    x = data_of(name)
    with_gaps = x.copy()
    with_gaps[4] = np.nan
    if name != "Multinomial":
        with_gaps[7:9, 0] = np.nan
    one = fitted(name).predictive(with_gaps)
    backend = one._backend
    values = backend.probs() if backend.nominal else backend.mean()
    assert np.isfinite(values).all()
    if name not in WITHOUT_LIKELIHOOD:
        steps = fitted(name).log_prob_steps(with_gaps).values
        np.testing.assert_array_equal(np.isnan(steps), np.isnan(with_gaps).all(1))


@every_head()
def test_one_step_ahead_everything_is_answered(name):
    model, x = fitted(name), data_of(name)
    one = model.predictive(x)
    assert np.isfinite(np.asarray(model.predict(x), dtype=float)).all()
    if one._backend.nominal:
        np.testing.assert_allclose(one.probs().values.sum(-1), 1.0, rtol=1e-5)
        return
    numbers = ~one._backend.nominal_variables
    at = (slice(None), numbers) if x.shape[1] > 1 else ()
    assert (one.std().values[at] >= 0).all()
    quantiles = one.quantile([0.05, 0.5, 0.95]).values[at]
    assert (np.diff(quantiles, axis=-1) >= 0).all()
    assert np.isfinite(one.crps(x).values[at]).all()
    pit = one.pit(x).values[at]
    assert ((pit >= 0) & (pit <= 1)).all()


@every_head()
def test_forecasts_go_on_from_the_exact_next_step(name):
    model = fitted(name)
    next_step = model.forecast(1, random_state=0)
    assert next_step.backend in ("analytic", "quantiles")
    paths = model.forecast(3, n_paths=400, random_state=0)
    assert paths.backend == "paths"
    assert paths.sample(5).shape[0] == 5
    simulated, known = paths._backend.paths[:, 0, 0], next_step._backend
    if known.nominal:
        share = (simulated[:, 0, None] == np.arange(3)).mean(0)
        np.testing.assert_allclose(share, known.probs()[0, 0, 0], atol=0.1)
        return
    share = (simulated <= known.quantile(np.array([0.5]))[0, 0, :, 0]).mean(0)
    expected = known.cdf(known.quantile(np.array([0.5]))[..., 0])[0, 0]
    np.testing.assert_allclose(share, expected, atol=0.11)


@every_head()
def test_generated_values_are_possible_ones(name):
    model, head = fitted(name), HEADS[name][0]
    x = model.sample(12, n_sequences=2, random_state=0)
    values = np.asarray(x.values, dtype=float).reshape(-1, data_of(name).shape[1])
    head.check(values)
    again = model.sample(12, n_sequences=2, random_state=0)
    np.testing.assert_array_equal(np.asarray(again.values), np.asarray(x.values))


@every_head()
def test_files_keep_it(name, tmp_path):
    model, x = fitted(name), data_of(name)
    model.save(tmp_path / "model.ps")
    back = ps.load(tmp_path / "model.ps")
    assert back.head == HEADS[name][0]
    ours, theirs = model.predictive(x)._backend, back.predictive(x)._backend
    if ours.nominal:
        np.testing.assert_array_equal(ours.probs(), theirs.probs())
    else:
        np.testing.assert_array_equal(ours.cdf(x[None]), theirs.cdf(x[None]))


@every_head("Normal tied", "Normal spherical", "LogNormal full", "GaussianMixture tied", "GaussianMixture spherical")
def test_draws_of_weights_are_averaged(name):
    inference = ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=2))
    model = ps.LSTM(3, head=HEADS[name][0], inference=inference, random_state=0).fit(data_of(name))
    forecast = model.forecast(2, n_paths=20)
    assert forecast.sample(3).shape[0] == 3
    one = model.predictive(data_of(name))
    assert one.backend in ("mixture", "quantiles")


def test_quantiles_are_no_likelihood():
    model, x = fitted("Quantiles"), data_of("Quantiles")
    for ask in (
        lambda: model.score(x),
        lambda: model.log_prob(x),
        lambda: model.log_prob_steps(x),
        lambda: model.predictive(x).log_prob(x),
        lambda: model.forecast(3).log_prob(x[:3], joint=True),
        lambda: model.forecast(1).log_prob(x[:1]),
        lambda: model.aic,
        lambda: model.bic,
    ):
        with pytest.raises(UnsupportedError, match="likelihood"):
            ask()
    assert np.isnan(model.log_likelihood_)
    assert model.predictive(x).backend == "quantiles"
    assert not model.predictive(x).exact
    with pytest.raises(IncompatibleError, match="LSTM"):
        ps.HMM(2, ps.Quantiles()).fit(x)


def test_quantiles_are_compared_by_crps():
    x = data_of("Quantiles")
    models = {"quantiles": fitted("Quantiles"), "normal": fitted("Normal"), "walk": ps.RandomWalk().fit(x)}
    table = ps.compare(models, x).table
    assert list(table.index)[-1] == "quantiles"
    assert np.isnan(table.loc["quantiles", ["nats", "difference", "se", "weight"]].astype(float)).all()
    assert "no likelihood" in table.loc["quantiles", "note"]
    assert np.isfinite(table["crps"].astype(float)).all()
    assert np.isfinite(table.loc["normal", "nats"])
    alone = ps.compare({"a": fitted("Quantiles"), "b": fitted("Quantiles")}, x)
    assert alone.table["nats"].isna().all()
    assert "lower CRPS" in repr(alone)


def test_quantiles_are_learnt():
    rng = np.random.default_rng(0)
    x = rng.standard_t(4, size=600)
    training = ps.TrainingOptions(max_epochs=40)
    model = ps.RNN(4, head=ps.Quantiles((0.1, 0.5, 0.9)), inference=ps.MLE(training=training), random_state=0).fit(x)
    inside = (x[:, None] <= model.predictive(x).quantile([0.1, 0.5, 0.9]).values).mean(0)
    np.testing.assert_allclose(inside, [0.1, 0.5, 0.9], atol=0.06)


@pytest.mark.parametrize("law", [ps.NormalRegression(), ps.PoissonRegression(), ps.AutoregressiveNormal()])
@pytest.mark.parametrize("family", [ps.LSTM, ps.DeepMarkov, ps.IID])
def test_regressions_belong_to_states(family, law):
    u = np.arange(20.0)[:, None] / 20
    name = "emission" if family is ps.IID else "head"
    with pytest.raises(IncompatibleError, match=f"{name}={type(law).__name__}") as caught:
        family(**{name: law}).fit(np.arange(20.0) % 3, covariates=None if family is ps.IID else u)
    assert "HMM" in caught.value.remedy
