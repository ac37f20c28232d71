"""Shared parameters: the same law as with equal values written out, exact M-steps, true counts of parameters."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import optimize, stats
from sklearn.base import clone

import probseq as ps
from probseq.distributions.params import n_free_parameters, take_draw
from probseq.distributions.tables import component_log_prob
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.em import EM

MEANS = np.array([0.0, 4.0, -4.0])


def simulated(t: int = 300, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    z = (np.arange(t) // 15) % 3
    return rng.normal(MEANS[z], np.array([1.0, 1.5, 0.7])[z])


def setting(n: int = 40, k: int = 2, draws: int = 2, states: int = 3):
    """Values with holes and random weights of the states."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, n, k, generator=generator, dtype=torch.float64) * 2.0 + 1.0
    seen = torch.rand(2, n, k, generator=generator) < 0.8
    weights = torch.rand(draws, 2, n, states, generator=generator, dtype=torch.float64)
    return torch.where(seen, x, 0.0), seen, weights / weights.sum(-1, keepdim=True)


def objective(emission, observation, x, seen, weights, params):
    """sum_t w_t log p(x_t seen), (D,)."""
    table = component_log_prob(emission.distribution(params, (weights.shape[-1],)), x, seen)
    return (weights * table).sum((1, 2, 3))


EMISSIONS = {
    "groups": ps.Tied(ps.Normal(), states=[0, 1, 0]),
    "groups of t": ps.Tied(ps.StudentT(), states=[2, 2, 5]),
    "groups and full": ps.Tied(ps.Normal("full"), states=[1, 0, 0]),
    "scale": ps.Tied(ps.Normal(), shared=("scale",)),
    "spherical scale": ps.Tied(ps.Normal("spherical"), shared=("scale",)),
    "covariance": ps.Tied(ps.Normal("full"), shared=("covariance",)),
    "mean": ps.Tied(ps.Normal(), shared=("mean",)),
    "df": ps.Tied(ps.StudentT(), shared=("df",)),
    "scale and df": ps.Tied(ps.StudentT(), shared=["scale", "df"]),
    "everything": ps.Tied(shared=("mean", "scale")),
    "groups and scale": ps.Tied(ps.Normal(), states=[0, 1, 0], shared=("scale",)),
    "a part": ps.Tied(ps.Product([ps.Normal(), ps.StudentT(df=4.0)]), shared=("normal_scale",)),
    "groups of parts": ps.Tied(ps.Product([ps.Normal(), ps.Normal("full")]), states=[0, 1, 1]),
}
COUNTS = {  # free parameters of three states and two variables
    "groups": 2 * 4,
    "groups of t": 2 * 6,
    "groups and full": 2 * 5,
    "scale": 6 + 2,
    "spherical scale": 6 + 1,
    "covariance": 6 + 3,
    "mean": 2 + 6,
    "df": 12 + 2,
    "scale and df": 6 + 4,
    "everything": 4,
    "groups and scale": 4 + 2,
    "a part": 3 + 1 + 6,
    "groups of parts": 2 * 4,
}


@pytest.mark.parametrize("name", EMISSIONS)
def test_shared_parameters_are_counted_once(name):
    specs = EMISSIONS[name].parameters(EMISSIONS[name].observation(2), (3,))
    assert n_free_parameters(specs) == COUNTS[name]


@pytest.mark.parametrize("name", EMISSIONS)
def test_m_steps_never_lower_the_objective_of_any_draw(name):
    emission = EMISSIONS[name]
    event = emission.observation(2)
    x, seen, weights = setting()
    params = emission.initial_params(event, x, seen, weights, (3,))
    specs = emission.parameters(event, (3,))
    before = objective(emission, event, x, seen, weights, params)
    for _ in range(6):
        params = emission.m_step(event, x, seen, weights, params)
        assert {n: tuple(v.shape) for n, v in params.items()} == {n: (2, *s.shape) for n, s in specs.items()}
        after = objective(emission, event, x, seen, weights, params)
        assert bool((after >= before - 1e-9 * before.abs()).all())
        before = after


@pytest.mark.parametrize("name", ["scale", "spherical scale", "mean", "groups", "groups and scale"])
def test_repeated_m_steps_reach_the_maximum(name):
    emission = EMISSIONS[name]
    event = emission.observation(2)
    x, seen, weights = setting(draws=1)
    params = emission.initial_params(event, x, seen, weights, (3,))
    for _ in range(20):
        params = emission.m_step(event, x, seen, weights, params)
    reached = float(objective(emission, event, x, seen, weights, params))
    specs = emission.parameters(event, (3,))
    sizes = [int(np.prod(spec.shape)) for spec in specs.values()]

    def loss(flat):
        parts = np.split(flat, np.cumsum(sizes)[:-1])
        values = {
            n: torch.tensor(np.exp(p) if n == "scale" else p).reshape(1, *s.shape)
            for (n, s), p in zip(specs.items(), parts, strict=True)
        }
        return -float(objective(emission, event, x, seen, weights, values))

    start = np.concatenate([np.zeros(size) for size in sizes])
    best = optimize.minimize(loss, start, method="BFGS", options={"gtol": 1e-6})
    assert_allclose(reached, -best.fun, rtol=1e-8)


def test_a_group_adds_the_weights_of_its_states():
    x, seen, weights = setting()
    tied, alone = EMISSIONS["groups"], ps.Normal()
    event = alone.observation(2)
    params = tied.initial_params(event, x, seen, weights, (3,))
    both = torch.stack([weights[..., 0] + weights[..., 2], weights[..., 1]], -1)
    expected = alone.m_step(event, x, seen, both, params)
    got = tied.m_step(event, x, seen, weights, params)
    shown = both[0, ..., 0].unsqueeze(-1) * seen
    assert_allclose(got["mean"][0, 0], (shown * x).sum((0, 1)) / shown.sum((0, 1)), rtol=1e-12)
    for name in ("mean", "scale"):
        assert_allclose(got[name], expected[name], rtol=1e-14)


def test_the_shared_scale_is_the_root_mean_square_around_the_own_means():
    x, seen, weights = setting(draws=1)
    tied = EMISSIONS["scale"]
    event = tied.observation(2)
    got = tied.m_step(event, x, seen, weights, tied.initial_params(event, x, seen, weights, (3,)))
    shown = weights[0].unsqueeze(-1) * seen.unsqueeze(-2)
    mean = (shown * x.unsqueeze(-2)).sum((0, 1)) / shown.sum((0, 1))
    square = (shown * (x.unsqueeze(-2) - mean) ** 2).sum((0, 1, 2)) / shown.sum((0, 1, 2))
    assert_allclose(got["mean"][0], mean, rtol=1e-12)
    assert_allclose(got["scale"][0], square.sqrt(), rtol=1e-12)


# models ---------------------------------------------------------------------------------------------------------------

CHAIN = {"initial": np.array([0.5, 0.3, 0.2]), "transition": np.full((3, 3), 0.1) + 0.7 * np.eye(3)}


def test_groups_are_the_model_with_equal_states_written_out():
    x = simulated(50)
    tied = ps.HMM(3, ps.Tied(ps.Normal(), [4, 1, 4])).with_parameters(
        mean=[[1.0], [2.0]], scale=[[3.0], [4.0]], **CHAIN
    )
    plain = ps.HMM(3, ps.Normal()).with_parameters(mean=[[2.0], [1.0], [2.0]], scale=[[4.0], [3.0], [4.0]], **CHAIN)
    assert tied.params_["mean"].dims == ("group", "variable")
    assert_allclose(tied.log_prob(x), plain.log_prob(x), rtol=1e-12)
    assert_allclose(tied.forecast(3, history=x).quantile(0.2), plain.forecast(3, history=x).quantile(0.2), rtol=1e-10)
    assert plain.n_parameters_ - tied.n_parameters_ == 2


def test_a_shared_parameter_is_the_model_with_equal_values_written_out():
    x = simulated(50)
    loc, scale = MEANS[:, None], np.array([[1.0], [2.0], [0.5]])
    tied = ps.HMM(3, ps.Tied(ps.StudentT(), shared=("df",))).with_parameters(loc=loc, scale=scale, df=[5.0], **CHAIN)
    plain = ps.HMM(3, ps.StudentT()).with_parameters(loc=loc, scale=scale, df=np.full((3, 1), 5.0), **CHAIN)
    fixed = ps.HMM(3, ps.StudentT(df=5.0)).with_parameters(loc=loc, scale=scale, **CHAIN)
    assert tied.params_["df"].dims == ("variable",)
    assert_allclose(tied.log_prob(x), plain.log_prob(x), rtol=1e-12)
    assert_allclose(tied.log_prob(x), fixed.log_prob(x), rtol=1e-12)
    assert (plain.n_parameters_, tied.n_parameters_, fixed.n_parameters_) == (17, 15, 14)


@pytest.mark.parametrize(
    ("emission", "n_parameters"),
    [
        (ps.Tied(ps.Normal(), [0, 1, 0]), 8 + 4),
        (ps.Tied(ps.Normal(), shared=("scale",)), 8 + 4),
        (ps.Tied(ps.StudentT(), shared=("df",)), 8 + 7),
        (ps.Tied(ps.Normal(), [0, 1, 2], shared=("mean",)), 8 + 4),
    ],
)
def test_em_climbs(emission, n_parameters):
    model = ps.HMM(3, emission, inference=EM(n_init=1, tol=1e-3), random_state=0).fit(simulated(150))
    trace = model.draws_.trace
    assert np.all(np.diff(trace) >= -1e-9 * np.abs(trace[1:])) and len(trace) > 2
    assert model.n_parameters_ == n_parameters
    assert_allclose(model.aic, 2 * n_parameters - 2 * model.log_likelihood_)


def test_a_shared_covariance_is_the_tied_normal():
    x = np.random.default_rng(0).normal(size=(120, 2)) + 3.0 * ((np.arange(120) // 10) % 2)[:, None]
    settings = {"inference": EM(n_init=2), "random_state": 0}
    tied = ps.HMM(2, ps.Tied(ps.Normal("full"), shared=("covariance",)), **settings).fit(x)
    own = ps.HMM(2, ps.Normal("tied"), **settings).fit(x)
    assert_allclose(tied.log_likelihood_, own.log_likelihood_, rtol=1e-8)
    assert tied.n_parameters_ == own.n_parameters_


def test_left_right_states_that_come_back_share_their_law():
    rng = np.random.default_rng(0)
    words = [np.concatenate([rng.normal(m, 1.0, 12) for m in (0.0, 5.0, 0.0)]) for _ in range(6)]
    settings = {"inference": EM(n_init=4), "random_state": 0, "transitions": np.triu(np.ones((3, 3), dtype=bool))}
    tied = ps.HMM(3, ps.Tied(ps.Normal(), [0, 1, 0]), **settings).fit(words)
    assert_allclose(np.sort(tied.params_["mean"].values[:, 0]), [0.0, 5.0], atol=0.4)
    assert_allclose(tied.params_["scale"].values[:, 0], 1.0, atol=0.2)


def test_gradient_and_em_find_the_same_optimum():
    x = simulated(150)
    emission = ps.Tied(ps.Normal(), shared=("scale",))
    em = ps.HMM(3, emission, inference=EM(n_init=3), random_state=0).fit(x)
    mle = ps.HMM(3, emission, inference=ps.MLE(), random_state=0).fit(x)
    assert_allclose(mle.log_likelihood_, em.log_likelihood_, atol=1e-4)


def test_a_scale_shared_by_all_states_is_recovered():
    rng = np.random.default_rng(2)
    z = (np.arange(900) // 30) % 3
    x = rng.normal(MEANS[z], 1.3)
    model = ps.HMM(3, ps.Tied(ps.Normal(), shared=("scale",)), inference=EM(n_init=3), random_state=0).fit(x)
    assert_allclose(np.sort(model.params_["mean"].values[:, 0]), np.sort(MEANS), atol=0.3)
    assert_allclose(model.params_["scale"].values, 1.3, atol=0.1)


def test_missing_values_are_integrated_out():
    x = np.column_stack([simulated(6), simulated(6, seed=1)])
    x[1, 0] = x[2, 1] = x[4] = np.nan
    mean = np.column_stack([MEANS, MEANS])
    model = ps.HMM(3, ps.Tied(ps.Normal(), shared=("scale",))).with_parameters(mean=mean, scale=[1.0, 2.0], **CHAIN)
    belief, total = CHAIN["initial"], 0.0
    for row in x:
        p = np.ones(3)
        for i, sd in enumerate((1.0, 2.0)):
            p = p * (1.0 if np.isnan(row[i]) else stats.norm(mean[:, i], sd).pdf(row[i]))
        total += np.log(belief @ p)
        belief = (belief * p) / (belief @ p) @ CHAIN["transition"]
    assert_allclose(float(model.log_prob(x)), total, rtol=1e-12)


def test_a_collapsed_group_is_named_for_each_of_its_states():
    emission = ps.Tied(ps.Normal(), [0, 1, 0])
    x, seen, _ = setting(k=1)
    params = {"mean": torch.zeros(1, 2, 1, dtype=torch.float64), "scale": torch.tensor([[[1e-9], [1.0]]]).double()}
    low = emission.states_at_floor(emission.observation(1), x, seen, params)
    assert low.tolist() == [[True, False, True]]


def test_a_saved_model_comes_back(tmp_path):
    x = simulated(60)
    model = ps.HMM(3, ps.Tied(ps.StudentT(df=4.0), [0, 1, 0], ("scale",)), inference=EM(n_init=1), random_state=0).fit(
        x
    )
    model.save(tmp_path / "model")
    again = ps.load(tmp_path / "model")
    assert again.emission == model.emission
    assert_allclose(again.log_prob(x), model.log_prob(x))


def test_transforms_go_around():
    x = np.exp(0.2 * simulated(90))
    emission = ps.Tied(ps.Normal(), shared=("scale",))
    settings = {"inference": EM(n_init=2), "random_state": 0}
    logs, plain = (
        ps.HMM(3, emission, transform=ps.Log(), **settings).fit(x),
        ps.HMM(3, emission, **settings).fit(np.log(x)),
    )
    assert_allclose(logs.log_likelihood_, plain.log_likelihood_ - np.log(x).sum(), rtol=1e-9)


def test_nested_hyper_parameters_are_reached_and_copied():
    model = ps.HMM(3, ps.Tied(ps.Normal(), [0, 1, 0]))
    model.set_params(emission__emission__covariance="full")
    assert model.get_params()["emission__emission__covariance"] == "full"
    copied = clone(model).set_params(emission__emission__covariance="diag")
    assert model.emission.emission.covariance == "full" and copied.emission.emission.covariance == "diag"


def test_an_independent_model_may_name_shared_parameters():
    x = simulated(60)
    assert_allclose(ps.IID(ps.Tied(shared=("scale",))).fit(x).log_prob(x), ps.IID(ps.Normal()).fit(x).log_prob(x))


def test_states_that_share_their_law_do_not_change_places():
    values = {"mean": [[1.0], [2.0]], "scale": [[3.0], [4.0]], **CHAIN}
    model = ps.HMM(3, ps.Tied(ps.Normal(), [0, 1, 0])).with_parameters(**values)
    with pytest.raises(ParameterError, match="share parameters"):
        model.order_states(lambda params: params["transition"].isel(next_state=0))


@pytest.mark.parametrize(
    ("emission", "match"),
    [
        (ps.Tied(ps.Normal(), [0, 1]), "groups of 2 states"),
        (ps.Tied(ps.Normal(), [0, 1, 1, 0]), "groups of 4 states"),
        (ps.Tied(ps.Normal(), []), "groups of 0 states"),
        (ps.Tied(ps.Normal(), [0.5, 1, 1]), "one whole number a state"),
        (ps.Tied(ps.Normal(), ["a", "b", "a"]), "one whole number a state"),
        (ps.Tied(ps.Normal(), "010"), "one whole number a state"),
        (ps.Tied(ps.Normal(), 3), "one whole number a state"),
        (ps.Tied(ps.Normal(), shared=("variance",)), "'mean', 'scale'"),
        (ps.Tied(ps.Normal(), shared="scale"), "tuple of names"),
        (ps.Tied(ps.Normal(), shared=(1,)), "tuple of names"),
        (ps.Tied(ps.Normal), "parentheses"),
        (ps.Tied("Normal"), "emission such as"),
    ],
)
def test_impossible_ties_raise(emission, match):
    with pytest.raises(ParameterError, match=match):
        ps.HMM(3, emission).fit(simulated(30))


def test_emissions_with_inputs_of_their_own_raise():
    with pytest.raises(IncompatibleError, match="NormalRegression in Tied"):
        ps.HMM(3, ps.Tied(ps.NormalRegression())).fit(simulated(30))
    with pytest.raises(ParameterError, match="groups of 3 states"):
        ps.IID(ps.Tied(ps.Normal(), [0, 1, 0])).fit(simulated(30))


def test_draws_keep_their_own_shared_values():
    emission = EMISSIONS["groups and scale"]
    event = emission.observation(2)
    x, seen, weights = setting(draws=3)
    params = emission.m_step(event, x, seen, weights, emission.initial_params(event, x, seen, weights, (3,)))
    together = component_log_prob(emission.distribution(params, (3,)), x, seen)
    for d in range(3):
        alone = component_log_prob(emission.distribution(take_draw(params, d), (3,)), x, seen)
        assert_allclose(together[d], alone, rtol=1e-13)
