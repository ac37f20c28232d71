"""Mixed columns: likelihoods against enumeration, fits part by part, and every question a forecast answers."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import stats
from sklearn.base import clone

import probseq as ps
from probseq.distributions.emissions import Product
from probseq.distributions.params import n_free_parameters
from probseq.errors import IncompatibleError, ParameterError, ShapeError, SupportError, UnsupportedError
from probseq.evaluation import crps_discrete, crps_normal_mixture
from probseq.inference.em import EM

MEAN, SCALE, RATE = np.array([-1.0, 2.0]), np.array([1.0, 0.5]), np.array([1.0, 5.0])
START, MOVE = np.array([0.6, 0.4]), np.array([[0.8, 0.2], [0.3, 0.7]])
KNOWN = {
    "initial": START,
    "transition": MOVE,
    "normal_mean": MEAN[:, None],
    "normal_scale": SCALE[:, None],
    "poisson_rate": RATE[:, None],
}


def emission() -> Product:
    return ps.Product([ps.Normal(), ps.Poisson()])


def known() -> ps.HMM:
    return ps.HMM(2, emission(), random_state=0).with_parameters(**KNOWN)


def simulated(t: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = [int(rng.random() < START[1])]
    for _ in range(t - 1):
        z.append(int(rng.random() < MOVE[z[-1], 1]))
    z = np.array(z)
    return np.c_[rng.normal(MEAN[z], SCALE[z]), rng.poisson(RATE[z])].astype(float)


def with_holes(x: np.ndarray) -> np.ndarray:
    x = x.copy()
    x[1, 0] = x[2, 1] = x[4] = np.nan
    return x


def states_log_prob(x: np.ndarray) -> np.ndarray:
    """log p(x_t | state), (t, s), by scipy; what is missing says nothing."""
    normal = np.nan_to_num(stats.norm(MEAN, SCALE).logpdf(x[:, :1]), nan=0.0)
    with np.errstate(invalid="ignore"):
        count = np.where(np.isnan(x[:, 1:]), 0.0, stats.poisson(RATE).logpmf(np.nan_to_num(x[:, 1:])))
    return normal + count


def test_the_likelihood_is_the_sum_over_all_paths():
    x = with_holes(simulated(7))
    each = states_log_prob(x)
    total = 0.0
    for path in itertools.product(range(2), repeat=len(x)):
        p = START[path[0]] * np.prod([MOVE[a, b] for a, b in itertools.pairwise(path)])
        total += p * np.exp(sum(each[t, z] for t, z in enumerate(path)))
    assert_allclose(float(known().log_prob(x)), np.log(total), rtol=1e-12)


def test_parameters_have_names_and_dimensions_of_their_own():
    model = known()
    assert set(model.params_) == set(KNOWN)
    assert model.params_["normal_mean"].dims == ("state", "normal_variable")
    assert model.n_parameters_ == 1 + 2 + 2 + 2 + 2
    twice = ps.Product([ps.Normal("full"), ps.Categorical(3), ps.Normal()], sizes=[2, 1, 1])
    specs = twice.parameters(twice.observation(4), (2,))
    assert list(specs) == ["normal0_mean", "normal0_covariance", "categorical_probs", "normal2_mean", "normal2_scale"]
    assert specs["normal0_covariance"].dims == ("state", "normal0_variable", "normal0_other_variable")
    assert n_free_parameters(specs) == 2 * (2 + 3 + 2 + 2)


def test_one_part_of_many_columns_is_that_part():
    x = np.random.default_rng(0).normal(size=(60, 2))
    settings = {"inference": EM(n_init=2), "random_state": 0}
    whole = ps.HMM(2, ps.Normal("full"), **settings).fit(x)
    part = ps.HMM(2, ps.Product([ps.Normal("full")], sizes=[2]), **settings).fit(x)
    assert_allclose(part.log_likelihood_, whole.log_likelihood_, rtol=1e-9)
    assert part.n_parameters_ == whole.n_parameters_


def test_the_m_step_is_that_of_each_part():
    x = torch.tensor(np.nan_to_num(with_holes(simulated(30)))[None])
    seen = ~torch.isnan(torch.tensor(with_holes(simulated(30))[None]))
    weights = torch.rand(3, 1, 30, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    both, event = emission(), emission().observation(2)
    start = both.initial_params(event, x, seen, weights, (2,))
    new = both.m_step(event, x, seen, weights, start)
    for i, (part, prefix) in enumerate([(ps.Normal(), "normal"), (ps.Poisson(), "poisson")]):
        own = {name.removeprefix(f"{prefix}_"): value for name, value in start.items() if name.startswith(prefix)}
        one = part.m_step(part.observation(1), x[..., i : i + 1], seen[..., i : i + 1], weights, own)
        for name, value in one.items():
            assert_array_equal(new[f"{prefix}_{name}"], value)
    shown = weights[0, 0] * seen[0, :, :1]
    assert_allclose(new["normal_mean"][0, :, 0], (shown * x[0, :, :1]).sum(0) / shown.sum(0), rtol=1e-10)


def test_em_climbs_and_finds_the_truth():
    model = ps.HMM(2, emission(), inference=EM(n_init=3), random_state=0).fit(with_holes(simulated(1500)))
    trace = model.draws_.trace
    assert np.all(np.diff(trace) >= -1e-9 * np.abs(trace[1:]))
    order = np.argsort(model.params_["normal_mean"].values[:, 0])
    assert_allclose(model.params_["normal_mean"].values[order, 0], MEAN, atol=0.15)
    assert_allclose(model.params_["normal_scale"].values[order, 0], SCALE, atol=0.1)
    assert_allclose(model.params_["poisson_rate"].values[order, 0], RATE, rtol=0.1)
    assert_allclose(model.params_["transition"].values[np.ix_(order, order)], MOVE, atol=0.07)


def test_gradient_and_em_find_the_same_optimum():
    x = simulated(150)
    em = ps.HMM(2, emission(), inference=EM(n_init=3), random_state=0).fit(x)
    mle = ps.HMM(2, emission(), inference=ps.MLE(), random_state=0).fit(x)
    assert_allclose(mle.log_likelihood_, em.log_likelihood_, atol=1e-4)


# forecasts ------------------------------------------------------------------------------------------------------------


def ahead(h: int, x: np.ndarray) -> np.ndarray:
    """p(state_T+h | x), (s,), by a plain forward recursion."""
    belief = START
    for row in np.exp(states_log_prob(x)):
        belief = (belief * row) / (belief * row).sum() @ MOVE
    return belief @ np.linalg.matrix_power(MOVE, h - 1)


def test_forecasts_answer_every_question_column_by_column():
    x, y = simulated(40), simulated(3, seed=5)
    f = known().forecast(3, history=x)
    assert "measurements and counts" in repr(f) and not f.discrete
    for h in range(3):
        w = ahead(h + 1, x)
        mean = np.array([w @ MEAN, w @ RATE])
        second = np.array([w @ (SCALE**2 + MEAN**2), w @ (RATE + RATE**2)])
        assert_allclose(f.mean().values[h], mean, rtol=1e-10)
        assert_allclose(f.var().values[h], second - mean**2, rtol=1e-10)
        count = w @ stats.poisson(RATE[:, None]).cdf(np.arange(60))
        assert_allclose(f.cdf(2.0).values[h], [w @ stats.norm(MEAN, SCALE).cdf(2.0), count[2]], rtol=1e-10)
        assert_array_equal(f.quantile([0.1, 0.9]).values[h, 1], [np.argmax(count >= q) for q in (0.1, 0.9)])
        assert_allclose(w @ stats.norm(MEAN, SCALE).cdf(f.median().values[h, 0]), 0.5, atol=1e-10)
        assert_allclose(f.log_prob(y).values[h], np.log(w @ np.exp(states_log_prob(y)[h])), rtol=1e-10)
        assert_allclose(f.crps(y).values[h, 0], crps_normal_mixture(y[h, 0], w, MEAN, SCALE), rtol=1e-9)
        exact = crps_discrete(y[h, 1], lambda k, w=w: np.tensordot(w, stats.poisson(RATE[:, None]).cdf(k.ravel()), 1))
        assert_allclose(f.crps(y).values[h, 1], exact, rtol=1e-9)
    assert np.isfinite(f.interval(0.9, kind="hdi").values).all()
    frame = f.to_dataframe()
    assert len(frame) == 6 and not frame.isna().any().any()


def test_pit_is_randomised_for_the_counts_only():
    x, y = simulated(40), simulated(3, seed=5)
    f = known().forecast(3, history=x)
    one, two = f.pit(y, random_state=1).values, f.pit(y, random_state=2).values
    assert_array_equal(one[:, 0], two[:, 0])
    assert_array_equal(one[:, 0], f.cdf(y).values[:, 0])
    assert np.all(one[:, 1] != two[:, 1])
    below = f.cdf(y - np.array([0.0, 1.0])).values[:, 1]
    assert np.all((one[:, 1] >= below) & (one[:, 1] <= f.cdf(y).values[:, 1]))


def test_samples_have_the_kinds_and_moments_of_their_columns():
    f = known().forecast(2, history=simulated(40))
    draws = f.sample(4000, random_state=0).values
    assert np.all(draws[..., 1] == np.floor(draws[..., 1])) and not np.any(draws[..., 0] == np.floor(draws[..., 0]))
    assert np.all(np.abs(draws.mean(0) - f.mean().values) < 5 * f.std().values / 4000**0.5)
    assert np.all(f.energy_score(simulated(2, seed=5), n_paths=200) > 0)


def test_one_variable_of_a_forecast_is_of_one_kind():
    x = simulated(40)
    f = known().forecast(2, history=x)
    for i, variable in enumerate(f._labels.variables):
        one = f.marginal(variable)
        assert one.discrete == (i == 1)
        assert_allclose(one.quantile([0.2, 0.8]).values[:, 0], f.quantile([0.2, 0.8]).values[:, i], rtol=1e-10)
        assert_allclose(one.log_prob(x[:2, i : i + 1]), f.log_prob(np.where(np.arange(2) == i, x[:2], np.nan)))


def test_paths_remember_which_columns_are_counts():
    net = ps.LSTM(
        2, head=emission(), inference=ps.MeanField(n_draws=2, training=ps.TrainingOptions(max_epochs=1)), random_state=0
    )
    f = net.fit(simulated(40)).forecast(3, n_paths=200, random_state=0)
    assert f.backend == "paths" and f.marginal(f._labels.variables[1]).discrete
    one, two = (f.pit(simulated(3), random_state=seed).values for seed in (1, 2))
    assert_array_equal(one[:, 0], two[:, 0])


# categories beside numbers --------------------------------------------------------------------------------------------


def weather(t: int = 120) -> np.ndarray:
    rng = np.random.default_rng(3)
    z = (np.arange(t) // 15) % 2
    return np.c_[rng.normal(4.0 * z, 1.0), np.where(rng.random(t) < 0.8, z, 2)].astype(float)


def test_categories_beside_numbers_are_labels():
    x = weather()
    model = ps.HMM(2, ps.Product([ps.Normal(), ps.Categorical()]), inference=EM(n_init=2), random_state=0).fit(x)
    assert model.params_["categorical_probs"].shape == (2, 1, 3)
    f = model.forecast(3)
    for answer in (f.mean(), f.var(), f.quantile(0.5), f.cdf(1.0), f.crps(x[:3]), f.pit(x[:3]), f.interval()):
        values = answer.values.reshape(3, 2, -1)
        assert np.isnan(values[:, 1]).all() and np.isfinite(values[:, 0]).all()
    with pytest.raises(UnsupportedError, match="marginal"):
        f.probs()
    with pytest.raises(UnsupportedError, match="marginal"):
        f.energy_score(x[:3])
    label = f._labels.variables[1]
    p = f.marginal(label).probs().values
    assert_allclose(p.sum(-1), 1.0)
    assert_array_equal(f.mode().values[:, 1], p[:, 0].argmax(-1))
    assert_allclose(model.predict(horizon=3).values, np.c_[f.mean().values[:, 0], p[:, 0].argmax(-1)])
    assert np.isfinite(model.score(x))
    with pytest.raises(ps.errors.DataError, match="column 1"):
        model.score(np.where(np.arange(2) == 1, 7.0, x))


def test_categories_of_different_sizes_share_one_table_of_probabilities():
    x = np.c_[np.arange(40) % 2, np.arange(40) % 3].astype(float)
    model = ps.IID(ps.Product([ps.Categorical(), ps.Categorical()])).fit(x)
    p = model.forecast(1).probs().values[0]
    assert_allclose(p, [[0.5, 0.5, 0.0], [14 / 40, 13 / 40, 13 / 40]], rtol=1e-9)
    assert model.predict(x).shape == (40, 2)


def test_a_network_reads_categories_beside_numbers():
    training = ps.TrainingOptions(max_epochs=2)
    net = ps.LSTM(2, head=ps.Product([ps.Normal(), ps.Categorical(3)]), inference=ps.MLE(training=training))
    net.set_params(random_state=0).fit(weather())
    assert np.isfinite(net.log_prob(weather()))
    assert net.forecast(1).sample(5, random_state=0).shape[-1] == 2


# comparing ------------------------------------------------------------------------------------------------------------


def test_log_scores_meet_only_under_one_measure():
    x = simulated(160)
    mixed = {"hmm": ps.HMM(2, emission(), inference=EM(n_init=1), random_state=0), "iid": ps.IID(emission())}
    models = {**mixed, "normal": ps.IID(ps.Normal())}
    for model in models.values():
        model.fit(x[:120])
    table = ps.compare(models, x[120:], history=x[:120]).table
    assert np.isfinite(table.loc[["hmm", "iid"], "nats"]).all() and np.isnan(table.loc["normal", "nats"])
    assert "variables [1]" in table.loc["normal", "note"]
    assert np.isfinite(table["crps"]).all()
    same = {"parts": ps.IID(ps.Product([ps.Normal(), ps.Normal()])).fit(x), "whole": ps.IID(ps.Normal()).fit(x)}
    assert_allclose(*ps.compare(same, x).table["nats"], rtol=1e-9)


def test_comparisons_score_numbers_beside_categories():
    x = weather()
    model = ps.IID(ps.Product([ps.Normal(), ps.Categorical()])).fit(x)
    row = ps.compare({"a": model, "b": clone(model).fit(x[:100])}, x).table.loc["a"]
    assert np.isfinite(row["crps"]) and 0 < row["cover90"] <= 1 and np.isfinite(row["nats"])


# transforms -----------------------------------------------------------------------------------------------------------


def test_measured_columns_may_be_standardised():
    x = simulated(200) * np.array([50.0, 1.0]) + np.array([1e4, 0.0])
    settings = {"inference": EM(n_init=2, tol=1e-10), "random_state": 0}
    plain = ps.HMM(2, emission(), **settings).fit(x)
    scaled = ps.HMM(2, emission(), transform=ps.Standardize([0]), **settings).fit(x)
    assert_allclose(scaled.log_likelihood_, plain.log_likelihood_, rtol=1e-8)
    assert scaled.n_parameters_ == plain.n_parameters_ + 2
    assert_allclose(scaled.forecast(2).mean(), plain.forecast(2).mean(), rtol=1e-4)


@pytest.mark.parametrize("transform", [ps.Log(), ps.Difference(), ps.Standardize(), ps.Standardize([1])])
def test_transforms_of_counts_raise(transform):
    with pytest.raises(IncompatibleError, match="variable 1 is counted"):
        ps.HMM(2, emission(), transform=transform).fit(np.abs(simulated(40)) + 1.0)


def test_measured_columns_of_any_family_may_be_transformed():
    x = np.exp(np.random.default_rng(0).normal(size=(50, 2)))
    parts = ps.IID(ps.Product([ps.Normal(), ps.StudentT(df=5.0)]), transform=ps.Log()).fit(x)
    alone = [ps.IID(e, transform=ps.Log()).fit(x[:, i]) for i, e in enumerate([ps.Normal(), ps.StudentT(df=5.0)])]
    assert_allclose(float(parts.log_prob(x)), sum(float(m.log_prob(x[:, i])) for i, m in enumerate(alone)), rtol=1e-9)


@pytest.mark.parametrize("variables", [[2], [-1], "0", 0, [0.5]])
def test_standardize_names_variables_that_are_not_there(variables):
    with pytest.raises(ParameterError, match="positions from 0 to 1"):
        ps.IID(transform=ps.Standardize(variables)).fit(simulated(20))


# hyper-parameters -----------------------------------------------------------------------------------------------------


def test_a_saved_model_comes_back(tmp_path):
    model = ps.HMM(2, ps.Product([ps.Normal("full"), ps.Categorical()], [2, 1]), inference=EM(n_init=1), random_state=0)
    x = np.c_[simulated(60)[:, :1], np.random.default_rng(0).normal(size=60), weather(60)[:, 1]]
    model.fit(x).save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    assert again.emission == model.emission and again.n_parameters_ == model.n_parameters_
    assert_allclose(again.log_prob(x), model.log_prob(x))
    assert_allclose(again.forecast(2).quantile(0.3), model.forecast(2).quantile(0.3))


def test_copies_share_nothing():
    model = ps.HMM(2, emission())
    copied = clone(model)
    copied.emission.emissions[0].set_params(covariance="full")
    assert model.emission == emission() and copied.emission != emission()


@pytest.mark.parametrize(
    ("emissions", "sizes", "match"),
    [
        ([], None, "list of emissions"),
        ("Normal", None, "list of emissions"),
        (["Normal", "Poisson"], None, "parentheses"),
        ([ps.Normal, ps.Poisson], None, "parentheses"),
        (ps.Normal(), None, "list of emissions"),
        ([ps.Normal(), ps.Poisson()], [1], "one whole number"),
        ([ps.Normal(), ps.Poisson()], [1, 0], "one whole number"),
        ([ps.Normal(), ps.Poisson()], 2, "one whole number"),
        ([ps.Normal(), ps.Poisson()], [True, 1], "one whole number"),
        ([ps.Normal(), ps.Poisson()], [1.0, 1], "one whole number"),
    ],
)
def test_impossible_parts_raise(emissions, sizes, match):
    with pytest.raises(ParameterError, match=match):
        ps.IID(ps.Product(emissions, sizes)).fit(simulated(20))


@pytest.mark.parametrize("columns", [1, 3])
def test_another_number_of_columns_raises(columns):
    with pytest.raises(ShapeError, match=rf"Got {columns} variables? .*Expected 2"):
        ps.IID(emission()).fit(np.ones((20, columns)))


def test_what_a_part_cannot_take_is_named_with_its_column():
    x = simulated(20)
    x[3, 1] = -2.0
    with pytest.raises(SupportError, match="-2 in column 1 of the data"):
        ps.HMM(2, emission()).fit(x)


def test_emissions_with_inputs_of_their_own_raise():
    with pytest.raises(IncompatibleError, match="NormalRegression in a Product"):
        ps.HMM(2, ps.Product([ps.NormalRegression(), ps.Poisson()])).fit(simulated(20))
