"""EM: it climbs, it ends where the gradient vanishes, it finds published optima, and it says when it fails."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from probseq.data import datasets
from probseq.distributions.emissions import Bernoulli, Categorical, Normal, Poisson, StudentT
from probseq.distributions.params import flatten, take_draw, unflatten
from probseq.errors import ParameterError
from probseq.inference.em import EM
from probseq.models.base import Batch
from probseq.models.hmm import HiddenMarkovModel

EMISSIONS = {
    "diag": Normal(),
    "full": Normal("full"),
    "spherical": Normal("spherical"),
    "tied": Normal("tied"),
    "student": StudentT(),
    "student fixed": StudentT(df=4.0),
    "poisson": Poisson(),
    "categorical": Categorical(n_categories=4),
    "bernoulli": Bernoulli(),
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_batch(values):
    x = torch.as_tensor(np.asarray(values, dtype=float))
    x = x.reshape(1, -1, 1) if x.ndim == 1 else x
    seen = ~torch.isnan(x)
    return Batch(torch.nan_to_num(x), seen, torch.full((x.shape[0],), x.shape[1]))


def regimes(emission, n=3, t=80, k=2, seed=0, missing=0.15):
    """Data with two persistent regimes and holes."""
    rng = np.random.default_rng(seed)
    z = (np.arange(t) // 13 % 2)[None, :, None] * np.ones((n, 1, k))
    if isinstance(emission, Poisson):
        x = rng.poisson(3.0 + 7.0 * z).astype(float)
    elif isinstance(emission, Categorical):
        x = np.where(rng.random((n, t, k)) < 0.1, rng.integers(0, 4, (n, t, k)), rng.integers(0, 2, (n, t, k)) + 2 * z)
    elif isinstance(emission, Bernoulli):
        x = (rng.random((n, t, k)) < 0.2 + 0.6 * z).astype(float)
    else:
        x = 100 + 3 * z + rng.standard_t(4, (n, t, k)) @ np.array([[1.0, 0.5], [0.0, 1.0]])[:k, :k]
    x = np.where(rng.random((n, t, k)) < missing, np.nan, x)
    batch = as_batch(x)
    lengths = torch.tensor([t, t - 10, 5])
    seen = batch.seen & (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1)
    return Batch(torch.where(seen, batch.x, emission.fill), seen, lengths)


def hmm(emission, n_states=2, k=2, **options):
    return HiddenMarkovModel(n_states, emission, emission.observation(k), **options)


@pytest.mark.parametrize("name", EMISSIONS)
@pytest.mark.parametrize("start", ["free", "stationary"])
def test_likelihood_never_falls_and_ends_at_a_stationary_point(name, start):
    emission = EMISSIONS[name]
    batch, model = regimes(emission), hmm(emission, start=start)
    params = model.em_start(batch, 3, "random", generator())
    previous = None
    for _ in range(40):
        step = model.em_step(params, batch)
        if previous is not None:
            assert torch.all(step.log_prob >= previous - 1e-9 * previous.abs())
        params, previous = step.params, step.log_prob
    assert_allclose(model.em_step(params, batch).log_prob, model.log_prob(params, batch).sum(-1), rtol=1e-10)
    draws = EM(n_init=4, max_iter=20_000, tol=1e-12).fit(model, batch, generator(1))
    assert draws.status == "converged"
    specs = model.parameters()
    flat = flatten(specs, draws.params).requires_grad_()
    model.log_prob(unflatten(specs, flat), batch).sum().backward()
    at_bound = torch.zeros_like(flat, dtype=torch.bool)
    if "df" in specs:
        # Degrees of freedom may sit at their upper bound, where the likelihood is flat.
        at_bound[..., -specs["df"].constraint.size(specs["df"].shape) :] = True
    assert float(flat.grad[~at_bound].abs().max()) < 2e-4


@pytest.mark.parametrize("name", ["diag", "full", "student"])
def test_recovers_what_was_simulated(name):
    emission = EMISSIONS[name]
    model = hmm(emission)
    params = model.em_start(regimes(emission, missing=0.0), 1, "kmeans", generator())
    params["transition"] = torch.tensor([[[0.95, 0.05], [0.1, 0.9]]], dtype=torch.float64)
    location = "loc" if name == "student" else "mean"
    params[location] = torch.tensor([[[0.0, 0.0], [4.0, -3.0]]], dtype=torch.float64)
    x, _, _ = model.simulate(params, model.initial_state(params, 5), 800, generator(4))
    batch = Batch(x[0], torch.ones_like(x[0], dtype=torch.bool), torch.full((5,), 800))
    found = EM(n_init=4, tol=1e-6).fit(model, batch, generator(5)).params
    order = found[location][0, :, 0].argsort()
    spread = model.emission.distribution(params, (2,)).stddev
    assert torch.all((found[location][0, order] - params[location][0]).abs() < 5 * spread / 1200**0.5)
    assert torch.all((found["transition"][0][order][:, order] - params["transition"][0]).abs() < 0.03)


@pytest.mark.parametrize(
    ("start", "n_states", "log_prob", "aic"),
    [
        ("stationary", 1, -391.9189, 785.8379),
        ("stationary", 2, -342.3183, 692.6365),
        ("stationary", 3, -329.4603, 676.9206),
        ("stationary", 4, -327.8316, 687.6632),
        ("free", 2, -341.8787, None),
        ("free", 3, -328.5275, None),
        ("free", 4, -326.2850, None),
    ],
)
def test_earthquakes(start, n_states, log_prob, aic):
    """Zucchini and MacDonald (2009), tables 3.1 and 6.1; 4 free states: -326.2850, above their -326.6749."""
    batch = as_batch(np.asarray(datasets.earthquakes()))
    model = hmm(Poisson(), n_states, 1, start=start)
    draws = EM().fit(model, batch, generator(n_states))
    assert draws.status == "converged"
    assert_allclose(draws.log_prob, log_prob, atol=6e-5)
    if aic is not None:
        assert_allclose(2 * model.n_parameters - 2 * draws.log_prob, aic, atol=1.2e-4)
    rates = draws.params["rate"].flatten().sort().values
    if n_states == 4 and start == "free":
        assert_allclose(rates, [11.873, 13.479, 19.827, 29.773], atol=6e-4)
    if n_states == 3 and start == "stationary":
        assert_allclose(rates, [13.1457, 19.7210, 29.7144], atol=2e-4)
        law = model.forecast_marginals(draws.params, model.filter(draws.params, batch), 30)
        order = draws.params["rate"].flatten().argsort()
        share = law.log_weights.exp()[0, 0][:, order]
        quoted = {1: (0.951, 0.028, 0.021), 10: (0.674, 0.220, 0.107), 30: (0.482, 0.373, 0.145)}
        for horizon, probs in quoted.items():
            assert_allclose(share[horizon - 1], probs, atol=6e-4)
        assert_allclose(law.mean[0, 0, [0, 9, 29], 0], [13.679, 16.358, 17.999], atol=6e-4)


def test_weights_equal_repetition():
    batch, model = regimes(Normal()), hmm(Normal())
    params = model.em_start(batch, 2, "random", generator())
    weighted = model.em_step(params, batch, torch.tensor([2.0, 1.0, 1.0]))
    twice = Batch(*(torch.cat([a[:1], a]) for a in batch[:3]))
    repeated = model.em_step(params, twice)
    assert_allclose(weighted.log_prob, repeated.log_prob, rtol=1e-12)
    assert_allclose(weighted.params["mean"], repeated.params["mean"], rtol=1e-10)
    assert_allclose(weighted.params["transition"], repeated.params["transition"], rtol=1e-10)


@pytest.mark.parametrize("name", ["diag", "poisson", "full"])
def test_starts_in_one_batch_equal_starts_alone(name, monkeypatch):
    emission = EMISSIONS[name]
    batch, model = regimes(emission), hmm(emission)
    params = model.em_start(batch, 3, "kmeans", generator())
    together = model.em_step(params, batch)
    monkeypatch.setattr("probseq.models.hmm._EM_BYTES", 1)
    grouped = model.em_step(params, batch)
    for draw in range(3):
        alone = model.em_step(take_draw(params, slice(draw, draw + 1)), batch)
        for key, value in alone.params.items():
            assert_allclose(together.params[key][draw], value[0], rtol=1e-9, atol=1e-12)
            assert_allclose(grouped.params[key][draw], value[0], rtol=1e-9, atol=1e-12)


def test_degenerate_fits_name_the_state():
    rng = np.random.default_rng(0)
    constant = np.concatenate([np.full(30, 5.0), rng.normal(size=30)])
    draws = EM(n_init=3).fit(hmm(Normal(), 2, 1), as_batch(constant), generator())
    assert draws.status == "degenerate" and not draws.converged
    assert any("variance of state" in text for text in draws.messages)
    short = EM(n_init=2).fit(hmm(Poisson(), 5, 1), as_batch([1.0, 2.0]), generator())
    assert short.status == "degenerate" and any("is empty" in text for text in short.messages)


def test_optima_status_and_trace():
    batch, model = regimes(Normal()), hmm(Normal(), 3)
    seen = []
    draws = EM(n_init=5).fit(model, batch, generator(), progress=lambda i, value: seen.append((i, value)))
    assert draws.optima.shape == (5,) and np.all(np.diff(draws.optima) <= 0)
    assert len(draws.trace) == draws.n_iter and np.all(np.diff(draws.trace) >= -1e-9 * np.abs(draws.trace[:-1]))
    assert_allclose(draws.trace[-1], draws.log_prob)
    assert_allclose(float(model.log_prob(draws.params, batch).sum()), draws.log_prob, rtol=1e-10)
    assert [i for i, _ in seen] == list(range(1, len(seen) + 1))
    early = EM(n_init=2, max_iter=3).fit(model, batch, generator())
    assert early.status == "max_iter" and early.n_iter == 3 and "max_iter" in early.messages[-1]


def test_interrupting_keeps_the_best_so_far():
    def stop(iteration, value):
        if iteration == 4:
            raise KeyboardInterrupt

    batch, model = regimes(Normal()), hmm(Normal(), 3)
    draws = EM(n_init=3).fit(model, batch, generator(), progress=stop)
    assert draws.status == "interrupted" and draws.n_iter == 4
    assert_allclose(float(model.log_prob(draws.params, batch).sum()), draws.log_prob, rtol=1e-10)


@pytest.mark.parametrize("bad", [{"n_init": 0}, {"n_init": 1.5}, {"init": "zeros"}, {"max_iter": 0}, {"tol": -1.0}])
def test_settings_out_of_range_raise(bad):
    with pytest.raises(ParameterError, match=next(iter(bad))):
        EM(**bad).fit(hmm(Normal()), regimes(Normal()), generator())


def test_long_data_need_no_table_of_all_starts():
    x = np.random.default_rng(0).normal(size=30_000).cumsum()
    draws = EM(n_init=2, max_iter=3).fit(hmm(Normal(), 2, 1), as_batch(x), generator())
    assert np.isfinite(draws.log_prob)
