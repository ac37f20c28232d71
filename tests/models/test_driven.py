"""Chains driven by covariates or by earlier values, against enumeration, the step loop, and statsmodels."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression
from torch.testing import assert_close

import probseq as ps
from probseq.data.sequences import sequences
from probseq.distributions.emissions import AutoregressiveNormal, Normal, NormalRegression, PoissonRegression
from probseq.distributions.params import flatten, unflatten
from probseq.errors import CovariateError, DataError, IncompatibleError, ParameterError
from probseq.models.base import Batch, SequenceModel
from probseq.models.covariate_transitions import CovariateTransitions
from probseq.models.driven import DrivenHiddenMarkovModel

MASK = [[1, 1, 0], [0, 1, 1], [1, 1, 1]]
# emission, transitions, covariates, options
CASES = {
    "regression": (NormalRegression(), None, 2, {}),
    "regression, correlated": (NormalRegression(covariance="full"), None, 1, {}),
    "regression, stationary": (NormalRegression(), None, 1, {"start": "stationary"}),
    "Poisson regression": (PoissonRegression(), None, 2, {}),
    "autoregression": (AutoregressiveNormal(2), None, 0, {}),
    "autoregression, correlated, covariates": (AutoregressiveNormal(1, "full"), None, 1, {}),
    "driven": (Normal(), CovariateTransitions(), 2, {}),
    "driven, masked": (Normal("full"), CovariateTransitions(mask=MASK), 1, {}),
    "driven regression": (PoissonRegression(), CovariateTransitions(), 1, {}),
    "driven autoregression": (AutoregressiveNormal(1), CovariateTransitions(), 1, {"start": [0.2, 0.3, 0.5]}),
}


def random_batch(emission, n_covariates, n=3, t=6, k=2, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, t, k)) if emission.measure == "lebesgue" else rng.poisson(3.0, (n, t, k)).astype(float)
    lengths = np.maximum(t - np.arange(n), 1)
    missing = 0.0 if getattr(emission, "order", 0) else 0.2
    seen = (rng.random((n, t, k)) >= missing) & (np.arange(t) < lengths[:, None])[..., None]
    u = torch.from_numpy(rng.normal(size=(n, t, n_covariates))) if n_covariates else None
    return Batch(*(torch.from_numpy(a) for a in (np.where(seen, x, 0.0), seen, lengths)), u)


def build(name, n_draws=None, **sizes):
    emission, transitions, m, options = CASES[name]
    batch = random_batch(emission, m, **sizes)
    observation = replace(emission.observation(batch.x.shape[-1]), n_covariates=m)
    model = DrivenHiddenMarkovModel(3, emission, observation, transitions=transitions, n_covariates=m, **options)
    wide = random_batch(emission, m, n=2, t=60, seed=1)
    params = model.em_start(wide, n_draws or 1, "random", torch.Generator().manual_seed(1))
    generator = torch.Generator().manual_seed(2)
    for key in ("coefficients", "autoregression"):
        if key in params:
            params[key] = params[key] + 0.3 * torch.randn(params[key].shape, generator=generator, dtype=torch.float64)
    if "transition_coefficients" in params:
        free = model.parameters()["transition_coefficients"].constraint.support
        noise = torch.randn(params["transition_coefficients"].shape, generator=generator, dtype=torch.float64)
        params["transition_coefficients"] = noise * free
    if "transition" in params:
        params["transition"] = 0.5 * params["transition"] + 0.5 / 3
    return model, batch, params if n_draws else {key: value[0] for key, value in params.items()}


def joint(model, params, batch, q):
    """log p(x, z) of every path z of sequence q by the definition, and the paths."""
    length = int(batch.lengths[q])
    paths = np.array(list(itertools.product(range(model.n_states), repeat=length)))
    start = model._start(params)
    total = torch.log(start)[paths[:, 0]]
    for t in range(length):
        u = None if batch.u is None else batch.u[q, t]
        if t:
            matrix = model.transitions.matrix(params, u) if model.transitions.varying else params["transition"]
            total = total + torch.log(matrix)[paths[:, t - 1], paths[:, t]]
        if t < model.order:
            continue
        for j in range(model.n_states):
            law = _law(model, params, batch.x[q], t, u, j)
            value = law.log_prob_seen(batch.x[q, t], batch.seen[q, t])
            total = total + torch.where(torch.from_numpy(paths[:, t] == j), value, torch.zeros(()).double())
    return total, paths


def _law(model, params, x, t, u, j):
    from probseq.distributions.emissions import Poisson

    emission = model.emission
    if isinstance(emission, Normal):
        return emission.distribution({k: params[k] for k in ("mean", "scale", "covariance") if k in params}, (3,))[j]
    mean = params["intercept"][j]
    if "coefficients" in params:
        mean = mean + params["coefficients"][j] @ u
    for lag in range(model.order):
        mean = mean + params["autoregression"][j, lag] @ x[t - lag - 1]
    if isinstance(emission, PoissonRegression):
        return Poisson().distribution({"rate": mean.exp()})
    own = {k: params[k][j] for k in ("scale", "covariance") if k in params}
    return Normal(emission.covariance).distribution({"mean": mean, **own})


@pytest.mark.parametrize("name", CASES)
def test_equals_enumeration(name):
    model, batch, params = build(name)
    log_prob = model.log_prob(params, batch)
    decoded = model.decode(params, batch)
    posterior = model.smooth(params, batch)
    for q in range(batch.n):
        length = int(batch.lengths[q])
        total, paths = joint(model, params, batch, q)
        assert_close(log_prob[q], torch.logsumexp(total, 0), rtol=1e-10, atol=1e-10)
        best = int(total.argmax())
        assert_close(decoded.log_prob[q], total[best], rtol=1e-10, atol=1e-10)
        share = torch.softmax(total, 0).numpy()
        for t in range(length):
            expected = [share[paths[:, t] == j].sum() for j in range(3)]
            assert_allclose(posterior[q, t], expected, atol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_fast_forms_equal_the_step_loop(name):
    model, batch, params = build(name, n_draws=2)
    begun = model.initial_state(params, batch.n)
    fast = model.log_prob_steps(params, batch)
    scan, loop = model._scan(params, batch, begun), SequenceModel._scan(model, params, batch, begun)
    slow, scored = model._fold(params, batch, loop)
    assert_close(fast.values, torch.where(scored.any(-1), slow.log_prob_seen(batch.x, scored), 0.0), atol=1e-10, rtol=0)
    real = batch.real
    for mine, other in zip((*scan.states, *scan.final), (*loop.states, *loop.final), strict=True):
        if mine.ndim > 2 and mine.shape[2:3] == (batch.t,):
            mine, other = mine[:, real], other[:, real]
        assert_close(mine, other, atol=1e-10, rtol=1e-10)
    # A sequence may be cut anywhere.
    cut = model.log_prob_steps(params, batch.slice_time(0, 3))
    rest = model.log_prob_steps(params, batch.slice_time(3, batch.t), cut.final)
    assert_close(torch.cat([cut.values, rest.values], -1), fast.values, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("name", CASES)
def test_gradient_equals_that_of_the_step_loop(name):
    model, batch, params = build(name)
    specs = model.parameters()
    flat = flatten(specs, params).detach().requires_grad_(True)
    fast = model.log_prob(unflatten(specs, flat), batch).sum()
    values = unflatten(specs, flat)
    begun = model.initial_state(values, batch.n)
    slow = SequenceModel._log_prob_steps(model, values, batch, begun).values.sum()
    (one,) = torch.autograd.grad(fast, flat)
    (two,) = torch.autograd.grad(slow, flat)
    assert_close(one, two, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", CASES)
def test_em_never_lowers_the_likelihood_and_weights_repeat(name):
    model, batch, params = build(name, n_draws=3)
    # Twice the first sequence is the same as weight two.
    twice = Batch(*(None if part is None else torch.cat([part[:1], part]) for part in batch))
    weighed = model.em_step(params, batch, torch.tensor([2.0, 1.0, 1.0]))
    repeated = model.em_step(params, twice)
    for key, value in weighed.params.items():
        assert_close(value, repeated.params[key], atol=1e-8, rtol=1e-8)
    assert_close(weighed.log_prob, repeated.log_prob, atol=1e-10, rtol=1e-10)
    before = torch.full((3,), -torch.inf, dtype=torch.float64)
    for _ in range(10):
        step = model.em_step(params, batch)
        assert bool((step.log_prob >= before - 1e-9 * (1 + step.log_prob.abs())).all())
        before, params = step.log_prob, step.params


def test_switching_autoregression_equals_statsmodels():
    # statsmodels' MarkovRegression on the lag, from the stationary law, is the same model on the values 2..T.
    rng = np.random.default_rng(3)
    x = np.cumsum(rng.normal(size=120)) * 0.3 + rng.normal(size=120)
    peer = MarkovRegression(x[1:], 2, exog=x[:-1], switching_variance=True)
    values = [0.9, 0.2, 0.3, -0.4, 0.5, 0.1, 0.6, 1.7]  # p00, p10, two constants, two lags, two variances
    model = ps.HMM(2, ps.AutoregressiveNormal(1), start="stationary").with_parameters(
        transition=[[0.9, 0.1], [0.2, 0.8]],
        intercept=[0.3, -0.4],
        autoregression=[0.5, 0.1],
        scale=np.sqrt([0.6, 1.7]),
    )
    assert_allclose(float(model.log_prob(x)), peer.loglike(values), rtol=1e-10)
    assert_allclose(
        model.smooth(x).values[1:], peer.smooth(values).smoothed_marginal_probabilities, rtol=1e-7, atol=1e-9
    )


def test_driven_transitions_equal_statsmodels():
    rng = np.random.default_rng(4)
    x, u = rng.normal(size=100), rng.normal(size=100)
    peer = MarkovRegression(x, 2, exog_tvtp=np.column_stack([np.ones(100), u]), switching_variance=True)
    peer.initialize_known(np.array([0.4, 0.6]))
    # p[0->0], p[1->0] on the constant, the same on u; two means, two variances.
    values = np.array([1.2, -0.7, 0.5, 0.8, -0.5, 0.9, 0.5, 1.5])
    first = peer.filter(values).predicted_joint_probabilities[..., 0].sum(1)  # its start is earlier than the first step
    model = ps.HMM(2, transitions=ps.CovariateTransitions(), start=first).with_parameters(
        n_covariates=1,
        transition_intercept=[[0.0, -1.2], [-0.7, 0.0]],
        transition_coefficients=[[[0.0], [-0.5]], [[0.8], [0.0]]],
        mean=[-0.5, 0.9],
        scale=np.sqrt([0.5, 1.5]),
    )
    assert_allclose(float(model.log_prob(x, covariates=u)), peer.loglike(values), rtol=1e-10)


def test_parameters_are_recovered():
    truth = ps.HMM(2, ps.NormalRegression(), transitions=ps.CovariateTransitions(), start=[1.0, 0.0], random_state=1)
    truth = truth.with_parameters(
        n_covariates=1,
        transition_intercept=[[0.0, -2.0], [-1.5, 0.0]],
        transition_coefficients=[[[0.0], [1.5]], [[-1.0], [0.0]]],
        intercept=[0.0, 4.0],
        coefficients=[[[1.0]], [[-2.0]]],
        scale=[0.5, 1.0],
    )
    u = np.random.default_rng(0).normal(size=(3000, 1))
    x, states = truth.sample(3000, covariates=u, states=True)
    fitted = ps.HMM(
        2, ps.NormalRegression(), transitions=ps.CovariateTransitions(), inference=ps.EM(n_init=4), random_state=0
    ).fit(x, covariates=u)
    order = np.argsort(fitted.params_["intercept"].values[:, 0])
    assert_allclose(fitted.params_["coefficients"].values[order, 0, 0], [1.0, -2.0], atol=0.1)
    assert_allclose(fitted.params_["scale"].values[order, 0], [0.5, 1.0], atol=0.1)
    slopes = fitted.params_["transition_coefficients"].values[..., 0][np.ix_(order, order)]
    assert_allclose(slopes, [[0.0, 1.5], [-1.0, 0.0]], atol=0.5)
    assert fitted.log_likelihood_ >= float(truth.log_prob(x, covariates=u))
    decoded = fitted.decode(x, covariates=u).values
    assert np.mean(np.argsort(order)[decoded] == states.values) > 0.95


def test_forecasts_follow_simulation():
    model = ps.HMM(2, ps.NormalRegression(), transitions=ps.CovariateTransitions(), start=[0.9, 0.1], random_state=1)
    model = model.with_parameters(
        n_covariates=1,
        transition_intercept=[[0.0, -1.0], [-0.5, 0.0]],
        transition_coefficients=[[[0.0], [2.0]], [[-1.0], [0.0]]],
        intercept=[0.0, 4.0],
        coefficients=[[[1.0]], [[-2.0]]],
        scale=[0.5, 1.0],
    )
    u = np.linspace(-1, 1, 10)[:, None]
    history = ps.sequences(np.zeros((4, 1)), covariates=np.zeros((4, 1)))
    exact = model.forecast(6, history=history, covariates=u[:6])
    assert exact.exact
    state = model.filter(np.zeros((4, 1)), covariates=np.zeros((4, 1)))
    many = torch.from_numpy(np.repeat(u[None, :6], 20_000, 0))
    inner = model.model_.model
    begun = type(state.tree.inner)(*(leaf.movedim(0, 1).repeat_interleave(20_000, 1) for leaf in state.tree.inner))
    x, _ = inner.sample(model.model_.params, begun, 6, torch.Generator().manual_seed(0), many)
    assert_allclose(exact.mean().values.ravel(), x[0].mean(0).ravel(), atol=0.06)
    assert_allclose(exact.std().values.ravel(), x[0].std(0).ravel(), atol=0.06)


def test_autoregressive_forecasts_are_paths_beyond_one_step():
    x = np.random.default_rng(0).normal(size=60).cumsum()
    model = ps.HMM(2, ps.AutoregressiveNormal(2), inference=ps.EM(n_init=2, tol=0.1), random_state=0)
    model.fit(x)
    assert model.forecast(1).exact
    ahead = model.forecast(5)
    assert not ahead.exact
    assert np.isfinite(ahead.mean().values).all()
    assert int(np.isnan(model.log_prob_steps(x).values).sum()) == 2


@pytest.mark.parametrize("size", [0.01, 1.0, 50.0])
@pytest.mark.parametrize("covariance, k", [("diag", 1), ("diag", 2), ("full", 2)])
def test_a_state_that_explains_its_values_exactly_is_named(size, covariance, k):
    rng = np.random.default_rng(1)
    x = size * rng.normal(size=(60, k))  # the first two, which are inputs only, are near to each other or far apart
    x[2:4] /= size
    for t in range(4, 60):
        x[t] = 0.5 * x[t - 1] - 0.98 * x[t - 2] if t < 40 else rng.normal(size=k)
    model = ps.HMM(2, ps.NormalRegression(2, covariance)).with_parameters(
        initial=[0.5, 0.5],
        transition=[[0.9, 0.1], [0.1, 0.9]],
        intercept=np.zeros((2, k)),
        autoregression=[[0.5 * np.eye(k), -0.98 * np.eye(k)], np.zeros((2, k, k))],
        **(
            {"scale": [[0.1] * k, [1.0] * k]} if covariance == "diag" else {"covariance": [0.01 * np.eye(k), np.eye(k)]}
        ),
    )
    chain, batch = model.model_.model, model._batch(sequences(x))
    params = {name: value.double() for name, value in model.draws_.params.items()}
    for _ in range(20):
        step = chain.em_step(params, batch)
        params = step.params
    (found,) = chain.em_problems(params, batch, step.occupancy)
    assert found == (
        "the variance of state 0 (NormalRegression) collapsed to its floor, 1e-6 of the variance of the data",
    )


def test_starts_that_do_not_collapse_are_preferred():
    rng, x = np.random.default_rng(0), np.zeros(40)
    for t in range(2, 40):
        x[t] = 0.6 * x[t - 1] + 0.2 * x[t - 2] + rng.normal()
    model = ps.HMM(3, ps.NormalRegression(2), inference=ps.EM(n_init=60), random_state=0).fit(x)
    assert model.status_ == "converged"
    assert float(model.params_["scale"].min()) > 2e-3 * x[2:].std()


def test_bad_input():
    x, u = np.random.default_rng(0).normal(size=(2, 30))
    quick = ps.EM(n_init=1, max_iter=3)
    with pytest.raises(CovariateError, match="covariate"):
        ps.HMM(2, ps.NormalRegression(), inference=quick).fit(x)
    with pytest.raises(CovariateError, match="CovariateTransitions"):
        ps.HMM(2, transitions=ps.CovariateTransitions(), inference=quick).fit(x)
    with pytest.raises(CovariateError, match="does not use"):
        ps.HMM(2, inference=quick).fit(x, covariates=u)
    with pytest.raises(DataError, match="missing"):
        ps.HMM(2, ps.AutoregressiveNormal(), inference=quick).fit(np.where(np.arange(30) == 4, np.nan, x))
    with pytest.raises(ParameterError, match="order"):
        ps.HMM(2, ps.AutoregressiveNormal(0), inference=quick).fit(x)
    with pytest.raises(ParameterError, match="stationary"):
        ps.HMM(2, start="stationary", transitions=ps.CovariateTransitions(), inference=quick).fit(x, covariates=u)
    with pytest.raises(IncompatibleError, match="HMM"):
        ps.IID(ps.AutoregressiveNormal()).fit(x)
    with pytest.raises(CovariateError, match="NaN"):
        ps.HMM(2, ps.NormalRegression(), inference=quick).fit(x, covariates=np.where(np.arange(30) == 4, np.nan, u))
