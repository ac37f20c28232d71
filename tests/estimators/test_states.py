"""What users ask of hidden states, against enumeration of all paths."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.distributions.params import flatten, unconstrained_size, unflatten
from probseq.errors import NotFittedError, ParameterError
from probseq.inference.base import Draws

START = np.array([0.2, 0.5, 0.3])
MOVES = np.array([[0.8, 0.2, 0.0], [0.1, 0.6, 0.3], [0.25, 0.25, 0.5]])
RATES = np.array([9.0, 2.0, 4.0])
X = np.array([3.0, np.nan, 10.0, 1.0, 4.0])


@pytest.fixture
def model():
    return ps.HMM(3, ps.Poisson()).with_parameters(initial=START, transition=MOVES, rate=RATES)


def several_draws(model, scales=(1.0, 0.5, 2.0), orders=((0, 1, 2), (2, 0, 1), (1, 2, 0))):
    """The same model with draws whose states are named differently."""
    one = model.model_.params
    params = {
        "initial": torch.stack([one["initial"][0][list(o)] for o in orders]),
        "transition": torch.stack([one["transition"][0][list(o)][:, list(o)] for o in orders]),
        "rate": torch.stack([c * one["rate"][0][list(o)] for c, o in zip(scales, orders, strict=True)]),
    }
    made = ps.HMM(3, ps.Poisson()).with_parameters(initial=START, transition=MOVES, rate=RATES)
    made._adopt(made.model_.model, made.transforms_, Draws(params, 0.0, 0.0, "exact"), made.info_, None)
    return made


def joint(x, start=START, moves=MOVES, rates=RATES):
    """log p(x, z) of every path, and the paths."""
    paths = np.array(list(itertools.product(range(len(start)), repeat=len(x))))
    law = torch.distributions.Poisson(torch.as_tensor(rates))
    with np.errstate(divide="ignore"):
        total = np.log(start)[paths[:, 0]]
        for t, value in enumerate(x):
            if t:
                total = total + np.log(moves)[paths[:, t - 1], paths[:, t]]
            if not np.isnan(value):
                total = total + law.log_prob(torch.tensor(value)).numpy()[paths[:, t]]
    return total, paths


def test_expected_counts_equal_enumeration(model):
    total, paths = joint(X)
    weights = np.exp(total - np.logaddexp.reduce(total))
    moves = np.zeros((3, 3))
    for t in range(1, len(X)):
        np.add.at(moves, (paths[:, t - 1], paths[:, t]), weights)
    found = model.expected_counts(X)
    assert found.transitions.dims == ("state", "next_state")
    assert_allclose(found.transitions, moves, atol=1e-12)
    assert_allclose(found.occupancy, [weights @ (paths == j).sum(1) for j in range(3)], atol=1e-12)
    many = model.expected_counts([X, X[:2]])
    assert many.transitions.dims == ("sequence", "state", "next_state")
    assert_allclose(many.transitions[0], found.transitions)
    assert_allclose(many.transitions.sum(("state", "next_state")), [4, 1])
    assert_allclose(many.occupancy.sum("state"), [5, 2])
    assert several_draws(model).expected_counts(X).transitions.dims == ("draw", "state", "next_state")


def test_expected_counts_go_on_after_a_history(model):
    x = np.array([3.0, 2.0, 10.0, 1.0, 4.0, 4.0])
    whole, first = model.expected_counts(x), model.smooth(x[3:], history=x[:3])
    rest = model.expected_counts(x[3:], history=x[:3])
    assert_allclose(rest.occupancy, first.sum("time"))
    assert_allclose(rest.transitions.sum(), 2)
    assert_allclose(whole.transitions.sum(), 5)


def test_durations_are_geometric(model):
    assert_allclose(model.expected_durations(), [5.0, 2.5, 2.0])
    assert model.expected_durations().attrs == {"units": "steps"}
    stays = ps.HMM(2, ps.Poisson()).with_parameters(initial=[1, 0], transition=[[0.5, 0.5], [0, 1]], rate=[1, 2])
    assert_array_equal(stays.expected_durations(), [2.0, np.inf])


@pytest.mark.parametrize("driven", [False, True])
def test_a_known_start_moves_with_its_states(driven, tmp_path):
    rng = np.random.default_rng(0)
    x, u = np.r_[rng.normal(3, 1, 20), rng.normal(0, 1, 30)], {"covariates": np.ones(50)} if driven else {}
    chain = ps.CovariateTransitions() if driven else None
    fitted = ps.HMM(2, start=[1, 0], transitions=chain, inference=ps.EM(n_init=1, max_iter=5), random_state=0)
    with pytest.warns(ps.errors.ConvergenceWarning):
        fitted.fit(x, **u)
    ordered = fitted.order_states(lambda params: [1, 0])
    assert_array_equal(ordered.get_params()["start"], [0, 1])
    assert_array_equal(fitted.get_params()["start"], [1, 0])
    ordered.save(tmp_path / "m.ps")
    ahead = {"covariates": np.ones(2)} if driven else {}
    for one in (ordered, ps.load(tmp_path / "m.ps")):
        assert_allclose(one.log_prob_steps(x, **u), fitted.log_prob_steps(x, **u), rtol=1e-10)
        assert_allclose(one.forecast(2, **ahead).mean(), fitted.forecast(2, **ahead).mean(), rtol=1e-10)
        assert_array_equal(one.decode(x, **u), 1 - fitted.decode(x, **u))


@pytest.mark.parametrize(
    ("by", "expected"),
    [
        ("mean", [2, 4, 9]),
        ("std", [2, 4, 9]),
        ("rate", [2, 4, 9]),
        (lambda p: p.rate, [2, 4, 9]),
        (lambda p: -p.rate.values[:, 0], [9, 4, 2]),
        (lambda p: p.transition.isel(next_state=0), [2, 4, 9]),
    ],
)
def test_order_states(model, by, expected):
    ordered = model.order_states(by)
    assert_array_equal(ordered.params_["rate"].values.ravel(), expected)
    assert_array_equal(model.params_["rate"].values.ravel(), RATES)
    assert_allclose(ordered.log_prob(X), model.log_prob(X))
    old = [list(RATES).index(rate) for rate in expected]
    assert_allclose(ordered.smooth(X), model.smooth(X).values[:, old])
    assert_allclose(ordered.params_["transition"], MOVES[old][:, old])
    back = model.order_states(by, descending=True)
    assert_array_equal(back.params_["rate"].values.ravel(), expected[::-1])


def test_order_by_how_often_a_state_occurs(model):
    often = model.stationary_distribution()
    assert_allclose(model.order_states("stationary").stationary_distribution(), np.sort(often))


def test_order_of_one_of_several_variables():
    mean = np.array([[0.0, 3.0], [1.0, 1.0], [2.0, 2.0]])
    model = ps.HMM(3).with_parameters(initial=START, transition=MOVES, mean=mean, scale=np.ones((3, 2)))
    assert_array_equal(model.order_states(variable=1).params_["mean"][:, 1], [1, 2, 3])
    frame = pd.DataFrame(np.random.default_rng(0).normal(size=(60, 2)), columns=["a", "b"])
    fitted = ps.HMM(2, random_state=0).fit(frame)
    assert np.diff(fitted.order_states(variable="b").params_["mean"].sel(variable="b")) > 0
    with pytest.raises(ParameterError, match="'a', 'b'"):
        fitted.order_states(variable="c")


def test_draws_are_ordered_by_themselves(model):
    draws = several_draws(model)
    ordered = draws.order_states()
    assert_array_equal(ordered.params_["rate"][:, :, 0], np.outer([1, 0.5, 2], [2, 4, 9]))
    assert_allclose(ordered.log_prob(X), draws.log_prob(X))
    named = ordered.label_states(["low", "middle", "high"])
    assert named.smooth(X).dims == ("draw", "time", "state")
    assert_allclose(named.smooth(X).sel(state="high")[0], model.smooth(X)[:, 0])
    assert named.decode(X)["state_name"].dims == ("draw", "time")
    with pytest.raises(ParameterError, match="label_states\\(None\\)"):
        draws.label_states(["a", "b", "c"]).order_states()


def test_forecasts_after_training_survive_a_new_order():
    y = ps.datasets.earthquakes()
    fitted = ps.HMM(3, ps.Poisson(), random_state=1).fit(y)
    ordered = fitted.order_states(descending=True)
    assert_allclose(ordered.forecast(4).mean(), fitted.forecast(4).mean())
    assert_allclose(ordered.log_likelihood_, fitted.log_likelihood_)
    steps = ps.HMM(2, transform=ps.Difference(), random_state=0).fit(y)
    assert_allclose(steps.order_states(descending=True).forecast(1).mean(), steps.forecast(1).mean())


def test_standard_errors_follow_their_states(model):
    """Var(theta) = J Var(flat) J^T: of renamed parameters it is the renamed one."""
    specs = model.model_.model.parameters()

    def covariance(fitted, name):
        flat = flatten(specs, fitted.model_.params)[0]
        slope = torch.autograd.functional.jacobian(lambda f: unflatten(specs, f)[name].flatten(), flat).numpy()
        return slope @ fitted.draws_.covariance @ slope.T

    root = np.random.default_rng(0).normal(size=(unconstrained_size(specs),) * 2)
    draws = Draws(model.model_.params, 0.0, 0.0, "exact", covariance=root @ root.T)
    model._adopt(model.model_.model, model.transforms_, draws, model.info_, None)
    ordered, old = model.order_states(), [1, 2, 0]
    for name, rows in (("rate", old), ("transition", np.arange(9).reshape(3, 3)[old][:, old].ravel())):
        expected = covariance(model, name)[np.ix_(rows, rows)]
        assert_allclose(covariance(ordered, name), expected, rtol=1e-9, atol=1e-9 * np.abs(expected).max())


def test_order_refuses_what_is_no_key(model):
    for by, words in (("nothing", "stationary"), (lambda p: [1.0, 2.0], "each of 3"), ("initial2", "'rate'")):
        with pytest.raises(ParameterError, match=words):
            model.order_states(by)
    left_right = ps.HMM(2, ps.Poisson(), transitions=np.triu(np.ones((2, 2), bool)))
    fitted = left_right.with_parameters(initial=[1, 0], transition=[[0.5, 0.5], [0, 1]], rate=[3, 2])
    with pytest.raises(ParameterError, match="structure"):
        fitted.order_states()
    with pytest.raises(NotFittedError):
        ps.HMM(2).order_states()


def test_labels_of_states(model, tmp_path):
    named = model.label_states(["active", "calm", "middle"])
    smoothed = named.smooth(X)
    assert_array_equal(smoothed["state"], ["active", "calm", "middle"])
    path = named.decode(X)
    assert_array_equal(path["state_name"], np.array(["active", "calm", "middle"])[path])
    assert_array_equal(named.params_["transition"].sel(state="calm", next_state="middle"), 0.3)
    assert_array_equal(named.expected_durations().sel(state="calm"), 2.5)
    assert_array_equal(named.expected_counts(X).transitions["next_state"], ["active", "calm", "middle"])
    assert_array_equal(named.order_states().state_names_, ["calm", "middle", "active"])
    assert_array_equal(model.label_states({1: "calm"}).smooth(X)["state"], ["0", "calm", "2"])
    assert model.state_names_ is None and "state_name" not in model.decode(X).coords
    ragged = named.decode([X, X[:2]])
    assert_array_equal(ragged["state_name"][1, 2:], [""] * 3)
    _, hidden = named.sample(4, states=True, random_state=0)
    assert set(hidden["state_name"].values) <= {"active", "calm", "middle"}
    named.save(tmp_path / "model")
    assert ps.load(tmp_path / "model").state_names_ == ("active", "calm", "middle")
    assert named.label_states(None).state_names_ is None
    for names in (["a", "b"], ["a", "a", "b"], "abc", {5: "x"}, {0: "1"}):
        with pytest.raises(ParameterError, match="3 different names"):
            model.label_states(names)


def test_best_paths_equal_enumeration(model):
    total, paths = joint(X)
    best = np.argsort(-total, kind="stable")[:6]
    found = model.decode(X, k=6)
    assert found.dims == ("path", "time")
    assert_allclose(found["log_prob"], total[best], rtol=1e-12)
    assert_allclose(found["probability"], np.exp(total[best] - np.logaddexp.reduce(total)), rtol=1e-10)
    place = {tuple(path): value for path, value in zip(paths.tolist(), total, strict=True)}
    each = [tuple(path) for path in found.values.tolist()]  # equal paths may come in any order
    assert_allclose([place[path] for path in each], total[best], rtol=1e-12)
    assert len(set(each)) == 6
    assert_array_equal(found[0], model.decode(X))
    many = model.decode([X, X[:2]], k=20)
    assert many.dims == ("path", "sequence", "time") and many["log_prob"].dims == ("path", "sequence")
    short, _ = joint(X[:2])
    n = int(np.isfinite(short).sum())
    assert_allclose(many["probability"][:, 1].sum(), 1.0)
    assert (many[n:, 1] == -1).all() and (many["log_prob"][n:, 1] == -np.inf).all()
    assert several_draws(model).decode(X, k=2)["probability"].dims == ("draw", "path")
    with pytest.raises(ParameterError, match="k=0"):
        model.decode(X, k=0)


def test_criteria_count_steps_and_free_parameters(tmp_path):
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.normal(0, 1, (40, 2)), rng.normal(4, 1, (40, 2))])
    x[3] = np.nan
    x[5, 0] = np.nan
    fitted = ps.HMM(2, random_state=0, transform=ps.Standardize()).fit(x)
    k = 1 + 2 + 4 + 4 + 4  # start, moves, means, scales; the constants of the transform
    assert fitted.n_parameters_ == k
    assert_allclose(fitted.aic, -2 * float(fitted.log_prob(x)) + 2 * k)
    assert_allclose(fitted.bic, -2 * float(fitted.log_prob(x)) + k * np.log(79))
    share = float(fitted.decode(x, k=1)["probability"][0])
    assert_allclose(fitted.icl, fitted.bic - 2 * np.log(share), rtol=1e-12)
    fitted.save(tmp_path / "model")
    loaded = ps.load(tmp_path / "model")
    assert (loaded.bic, loaded.icl) == (fitted.bic, fitted.icl)
    assert fitted.order_states().icl == fitted.icl


def test_icl_of_enumerated_paths():
    y = ps.datasets.earthquakes()[:6]
    fitted = ps.HMM(2, ps.Poisson(), random_state=0, inference=ps.EM(n_init=1, max_iter=300, tol=1.0)).fit(y)
    p = fitted.params_
    total, _ = joint(y.values.astype(float), p["initial"].values, p["transition"].values, p["rate"].values[:, 0])
    assert_allclose(fitted.icl, -2 * total.max() + fitted.n_parameters_ * np.log(6), rtol=1e-10)


def test_paths_of_impossible_data_have_no_probability():
    codes = ps.HMM(2, ps.Categorical(3)).with_parameters(
        initial=[1.0, 0.0], transition=np.eye(2), probs=[[[0.5, 0.5, 0.0]], [[0.0, 0.0, 1.0]]]
    )
    found = codes.decode([0, 1, 2.0], k=2)
    assert_array_equal(found["probability"], [0.0, 0.0])
    assert_array_equal(found["log_prob"], [-np.inf, -np.inf])
    assert_array_equal(codes.decode([0, 1, 0.0], k=2)["probability"], [1.0, 0.0])
