"""Structures of transitions, known entries and starts, and states that are known, against enumeration and counts."""

import itertools

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

import probseq as ps
from probseq.errors import DataError, ParameterError, ShapeError
from probseq.models.transitions import as_transitions

NAN = np.nan


def series(t=300, seed=0):
    rng = np.random.default_rng(seed)
    return np.repeat([0.0, 3.0, 6.0, 3.0, 0.0, 6.0], t // 6) + rng.normal(size=t)


@pytest.mark.parametrize(
    "structure, allowed",
    [
        (ps.LeftRight(), [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [0, 0, 0, 1]]),
        (ps.LeftRight(jumps=2), [[1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]),
        (ps.Banded(), [[1, 1, 0, 0], [1, 1, 1, 0], [0, 1, 1, 1], [0, 0, 1, 1]]),
        (ps.Cyclic(), [[1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1], [1, 0, 0, 1]]),
    ],
)
def test_structures_keep_exact_zeros(structure, allowed):
    allowed = np.array(allowed, dtype=bool)
    assert_array_equal(structure.support(4), allowed)
    with_mask = ps.HMM(4, transitions=allowed, inference=ps.EM(n_init=3), random_state=0).fit(series())
    named = ps.HMM(4, transitions=structure, inference=ps.EM(n_init=3), random_state=0).fit(series())
    matrix = named.params_["transition"].values
    assert_array_equal(matrix[~allowed], 0.0)
    assert_allclose(matrix, with_mask.params_["transition"].values)
    # Start 3, one less than the allowed entries of each row, mean and scale of each state.
    assert named.n_parameters_ == 3 + (allowed.sum() - 4) + 8
    path = named.decode(series()).values
    assert allowed[path[:-1], path[1:]].all()


@pytest.mark.parametrize("start", ["free", "stationary"])
@pytest.mark.parametrize("inference", [ps.EM(n_init=4), ps.MLE()], ids=["EM", "MLE"])
def test_fixed_entries_stay(start, inference):
    fixed = [[0.9, NAN, NAN], [NAN, NAN, NAN], [0.25, 0.0, 0.75]]
    transitions = ps.Transitions(fixed=fixed)
    model = ps.HMM(3, transitions=transitions, start=start, inference=inference, random_state=0).fit(series())
    matrix = model.params_["transition"].values
    known = ~np.isnan(fixed)
    assert_allclose(matrix[known], np.array(fixed)[known], atol=1e-12)
    assert_allclose(matrix.sum(1), 1.0)
    assert model.n_parameters_ == (2 if start == "free" else 0) + 1 + 2 + 0 + 6


def test_em_and_gradients_agree_on_a_partly_known_stationary_chain():
    transitions = ps.Transitions(fixed=[[0.8, NAN, NAN], [NAN, NAN, NAN], [NAN, NAN, 0.6]])
    options = {"transitions": transitions, "start": "stationary", "random_state": 0}
    em = ps.HMM(3, inference=ps.EM(n_init=4), **options).fit(series())
    trace = em.draws_.trace
    assert (np.diff(trace) >= -1e-9 * np.abs(trace[1:])).all()
    specs, values = em.model_.model.parameters(), em.model_.params
    from probseq.distributions.params import flatten, unflatten

    flat = flatten(specs, {k: v[0] for k, v in values.items()}).requires_grad_(True)
    data = em._batch(em._read(series()))
    (slope,) = torch.autograd.grad(em.model_.model.log_prob(unflatten(specs, flat), data).sum(), flat)
    assert float(slope.abs().max()) < 1e-3


def test_a_known_start_is_kept_and_not_counted():
    x = series()
    model = ps.HMM(3, start=[0.0, 1.0, 0.0], inference=ps.EM(n_init=4), random_state=0).fit(x)
    assert model.n_parameters_ == 6 + 6
    assert "initial" not in model.params_
    assert model.decode(x).values[0] == 1
    assert_allclose(model.smooth(x).values[0], [0.0, 1.0, 0.0], atol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {"transitions": np.ones((3, 3), bool)},
        {"transitions": ps.Transitions(mask=[[True, True], [False, False]])},
        {"transitions": ps.Transitions(fixed=[[0.5, 0.6], [NAN, NAN]])},
        {"transitions": ps.Transitions(fixed=[[0.5, 0.4], [NAN, NAN]])},
        {"transitions": ps.Transitions(mask=[[True, False], [True, True]], fixed=[[NAN, 0.2], [NAN, NAN]])},
        {"transitions": ps.Transitions(fixed=[[-0.5, NAN], [NAN, NAN]])},
        {"transitions": ps.LeftRight},
        {"transitions": [[0.5, 0.5], [0.5, 0.5]]},
        {"transitions": [[True, True], [True]]},
        {"transitions": ps.Transitions([[0.9, 0.1], [0.2, 0.8]])},
        {"transitions": ps.Transitions(mask=[[1, 1], [1]])},
        {"transitions": ps.Transitions(fixed="q")},
        {"transitions": ps.LeftRight(jumps=0)},
        {"transitions": ps.Banded(width=1.5)},
        {"start": [0.5, 0.6]},
        {"start": [1.0, 0.0, 0.0]},
        {"start": "first"},
    ],
)
def test_bad_settings_raise(options):
    with pytest.raises(ParameterError):
        ps.HMM(2, **options).fit(series())


def test_masks_are_read_from_lists_and_arrays():
    assert as_transitions([[True, False], [True, True]]).support(2).tolist() == [[True, False], [True, True]]
    assert as_transitions(None).support(2) is None


def test_known_states_restrict_the_paths():
    """EM's objective is the sum over all paths that agree with what is known."""
    rng = np.random.default_rng(1)
    x, states = rng.normal(size=6), np.array([-1, 1, -1, -1, 0, -1])
    model = ps.HMM(2, inference=ps.EM(n_init=1, max_iter=1), random_state=0)
    start = {
        "initial": [0.3, 0.7],
        "transition": [[0.8, 0.2], [0.4, 0.6]],
        "mean": [[0.0], [1.0]],
        "scale": [[1.0], [2.0]],
    }
    chain = model.with_parameters(**start)
    inner, params = chain.model_.model, chain.model_.params
    batch = chain._batch(chain._read(x))._replace(states=torch.from_numpy(states)[None])
    found = float(inner.em_step(params, batch).log_prob)
    total = -np.inf
    for z in itertools.product(range(2), repeat=6):
        if all(known in (-1, state) for known, state in zip(states, z, strict=True)):
            joint = np.log(start["initial"][z[0]])
            joint += sum(np.log(start["transition"][i][j]) for i, j in itertools.pairwise(z))
            m, s = np.array(start["mean"]).ravel()[list(z)], np.array(start["scale"]).ravel()[list(z)]
            joint += (-0.5 * ((x - m) / s) ** 2 - np.log(s) - 0.5 * np.log(2 * np.pi)).sum()
            total = np.logaddexp(total, joint)
    assert_allclose(found, total, rtol=1e-12)
    assert_allclose(float(inner.log_prob(params, batch)), total, rtol=1e-12)


def test_states_that_are_all_known_give_counts_and_moments():
    rng = np.random.default_rng(2)
    z = (np.cumsum(rng.random(400) < 0.1) % 2).astype(int)
    x = np.where(z == 1, -2.0, 1.0) + rng.normal(size=400)
    for inference in (ps.EM(n_init=1), ps.MLE()):
        model = ps.HMM(2, inference=inference, random_state=0).fit(x, states=z)
        counts = np.zeros((2, 2))
        np.add.at(counts, (z[:-1], z[1:]), 1)
        assert_allclose(model.params_["transition"], counts / counts.sum(1, keepdims=True), atol=1e-4)
        for j in range(2):
            assert_allclose(model.params_["mean"][j], x[z == j].mean(), atol=1e-4)
            assert_allclose(model.params_["scale"][j], x[z == j].std(), atol=1e-4)


def test_a_few_known_states_fix_the_numbering():
    x = series()
    states = np.full(300, -1)
    states[10], states[60], states[110] = 2, 0, 1  # levels 0, 3, 6
    model = ps.HMM(3, random_state=0).fit(x, states=states)
    assert_allclose(model.params_["mean"].values[[2, 0, 1], 0], [0.0, 3.0, 6.0], atol=0.5)
    two = ps.HMM(3, random_state=0).fit([x, x[:100]], states=[states, states[:100]])
    joined = ps.HMM(3, random_state=0).fit(
        np.r_[x, x[:100]], lengths=[300, 100], states=np.r_[states, states[:100]].astype(float)
    )
    assert_allclose(two.params_["mean"], joined.params_["mean"])
    after = ps.HMM(3, transform=ps.Difference(), random_state=0, inference=ps.EM(n_init=2))
    assert after.fit(x, states=states).model_.n_draws == 1


def test_bad_states_raise():
    x = series()
    for states, error in (
        ([0, 1], ShapeError),
        (np.full(300, 3), DataError),
        (np.full(300, 0.5), DataError),
        (["a"] * 300, DataError),
        (np.zeros((2, 300)), ShapeError),
        (np.zeros((1, 310)), ShapeError),
    ):
        with pytest.raises(error):
            ps.HMM(3).fit(x, states=states)


def test_an_end_state_is_a_column_of_flags():
    """p(x_1:T, the sequence ends after T) with an absorbing end state, written as a flag beside the values."""
    transition = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3]])  # the last column leads to the end
    end = transition[:, 2]
    x = np.array([0.1, -0.4, 1.3, 0.2])
    flags = [0.0, 0.0, 0.0, 1.0]
    model = ps.HMM(2, ps.Product([ps.Normal(), ps.Bernoulli()])).with_parameters(
        initial=[0.7, 0.3],
        transition=transition[:, :2] / (1 - end)[:, None],
        normal_mean=[0.0, 1.0],
        normal_scale=[1.0, 0.5],
        bernoulli_logit=np.log(end / (1 - end)),
    )
    total = 0.0
    for z in itertools.product(range(2), repeat=4):
        chance = [0.7, 0.3][z[0]] * np.prod([transition[i, j] for i, j in itertools.pairwise(z)]) * end[z[-1]]
        mean, scale = np.array([0.0, 1.0])[list(z)], np.array([1.0, 0.5])[list(z)]
        total += chance * np.prod(np.exp(-0.5 * ((x - mean) / scale) ** 2) / scale / np.sqrt(2 * np.pi))
    assert_allclose(float(model.log_prob(np.column_stack([x, flags]))), np.log(total), rtol=1e-12)


def test_known_states_that_no_path_can_follow_raise():
    x = series()
    back = np.full(300, -1)
    back[0], back[10] = 1, 0
    with pytest.raises(DataError, match="state 0 at step 10"):
        ps.HMM(2, transitions=ps.LeftRight()).fit(x, states=back)
    with pytest.raises(DataError, match="state 1 at step 0"):
        ps.HMM(2, start=[1.0, 0.0]).fit(x, states=back)
    fixed = ps.Transitions(fixed=[[NAN, NAN], [0.0, 1.0]])
    with pytest.raises(DataError, match="step 10"):
        ps.HMM(2, transitions=fixed).fit(x, states=back)
    with pytest.raises(ShapeError, match="12"):
        ps.HMM(2).fit([x[:10], x[10:30]], states=[np.full(12, -1), np.full(20, -1)])
    mask = [[False, True, False], [False, False, True], [True, False, False]]
    skipped = np.full(300, -1)
    skipped[0], skipped[1] = 0, 2
    with pytest.raises(DataError, match="step 1"):
        ps.HSMM(3, transitions=mask).fit(x, states=skipped)


def test_one_state_has_predictives():
    model = ps.HMM(1, ps.Normal(), random_state=0).fit(series())
    assert_allclose(model.predictive(series()).mean().values, model.params_["mean"].values[0, 0])
    assert np.isfinite(model.residuals(series()).values).all()


def test_driven_states_of_plain_emissions_can_be_ordered():
    x, u = series(), np.random.default_rng(0).normal(size=300)
    model = ps.HMM(3, transitions=ps.CovariateTransitions(), inference=ps.EM(n_init=1, tol=0.1), random_state=0)
    means = model.fit(x, covariates=u).order_states().params_["mean"].values.ravel()
    assert (np.diff(means) > 0).all()


def test_starts_follow_the_structure():
    """Clusters come in any order; a left-right chain must get them in that of time."""
    rng = np.random.default_rng(0)
    levels = np.repeat([6.0, 0.0, 9.0, 3.0], 15)
    x = [levels + rng.normal(size=60) for _ in range(5)]
    options = {"transitions": ps.LeftRight(), "start": [1.0, 0.0, 0.0, 0.0], "random_state": 0}
    one = ps.HMM(4, inference=ps.EM(n_init=1), **options).fit(x)
    assert_allclose(one.params_["mean"].values.ravel(), [6.0, 0.0, 9.0, 3.0], atol=0.5)
    bayes = ps.HMM(4, inference=ps.Gibbs(n_draws=40, n_chains=1, n_warmup=50), **options).fit(x)
    assert_allclose(bayes.params_["mean"].mean("draw").values.ravel(), [6.0, 0.0, 9.0, 3.0], atol=0.5)
