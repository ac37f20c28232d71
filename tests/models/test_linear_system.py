"""Linear dynamical systems: the dense normal law, statsmodels, expectation maximisation, coordinates of the states."""

import numpy as np
import pytest
import statsmodels.api as sm
import torch
from scipy import stats

from probseq.distributions.emissions import Observation, Poisson
from probseq.distributions.params import unconstrained_size, unflatten
from probseq.errors import CovariateError, ParameterError, ShapeError
from probseq.inference.em import EM
from probseq.inference.optimize import MLE
from probseq.kernels.linear_gaussian import make_system
from probseq.kernels.linear_gaussian_moments import smooth_moments
from probseq.kernels.linear_gaussian_smoother import smooth_series
from probseq.models.linear_system import LinearSystemModel
from probseq.models.linear_system_axes import explained_variance, principal_axes, turned
from probseq.models.linear_system_moments import expected_sums
from probseq.models.linear_system_step import _observation, _transition, staircase
from probseq.results.joint import make_batch
from probseq.testing import check_model

STYLES = {
    "plain": dict(n_states=2),
    "full": dict(n_states=2, noise="full"),
    "mean": dict(n_states=3, noise="full", start="mean", n_covariates=2, inputs="both"),
    "free": dict(n_states=2, start="free", n_covariates=1),
    "values": dict(n_states=1, n_covariates=2, inputs="values"),
}


def some(k=2, n=3, t=12, missing=0.2, seed=0, **style):
    """A model, parameters of one draw and a ragged batch with gaps, one of them over a whole step."""
    rng = np.random.default_rng(seed)
    model = LinearSystemModel(Observation(k), **style)
    specs = model.parameters()
    generator = torch.Generator().manual_seed(seed)
    flat = 0.4 * torch.randn(1, unconstrained_size(specs), generator=generator, dtype=torch.float64)
    x, u = 3.0 + 2.0 * rng.normal(size=(n, t, k)), rng.normal(size=(n, t, model.n_covariates))
    x[rng.random(x.shape) < missing] = np.nan
    x[0, 4] = np.nan
    return model, unflatten(specs, flat), make_batch(model, x, np.array([t, t - 3, t][:n]), u if u.size else None)


def dense(model, params, batch, i):
    """Mean and covariance of (states, values) of all steps of a sequence, from the recursion written out."""
    p = {name: value[0].numpy() for name, value in params.items()}
    a, c, r, t = p["transition"], p["loading"], model.n_states, int(batch.lengths[i])
    noise = p["noise_covariance"] if model.noise == "full" else np.diag(p["noise_scale"] ** 2)
    first = p.get("start_covariance", np.eye(r))
    if model.start == "stationary":
        first = np.linalg.solve(np.eye(r * r) - np.kron(a, a), np.eye(r).ravel()).reshape(r, r)
    mean, cov = np.zeros((t, r)), np.zeros((t, r, t, r))
    for s in range(t):
        mean[s] = a @ mean[s - 1] if s else p.get("start_mean", np.zeros(r))
        if s and model.drives:
            mean[s] += p["drive"] @ batch.u[i, s].numpy()
        cov[s, :, s] = a @ cov[s - 1, :, s - 1] @ a.T + np.eye(r) if s else first
        for before in range(s):
            cov[s, :, before] = a @ cov[s - 1, :, before]
            cov[before, :, s] = cov[s, :, before].T
    joins = batch.u[i, :t].numpy() @ p["coefficients"] if model.joins else 0.0
    big = np.kron(np.eye(t), c)
    states = cov.reshape(t * r, t * r)
    values = big @ states @ big.T + np.kron(np.eye(t), noise)
    return mean, states, (mean @ c.T + p["offset"] + joins).ravel(), values, states @ big.T


@pytest.mark.parametrize("style", STYLES)
def test_conforms(style):
    check_model(LinearSystemModel(Observation(2), **STYLES[style]), skip=("check_marginalized",))


@pytest.mark.parametrize("style", STYLES)
def test_likelihood_smoother_and_filter_equal_the_dense_normal_law(style):
    model, params, batch = some(**STYLES[style])
    got, smooth = model.log_prob(params, batch)[0], model.smooth(params, batch)
    filtered = model.filter_moments(params, batch, model.initial_state(params, batch.n))
    for i in range(batch.n):
        t, r = int(batch.lengths[i]), model.n_states
        mean, states, values, cov, cross = dense(model, params, batch, i)
        seen = batch.seen[i, :t].numpy().ravel()
        x = batch.x[i, :t].numpy().ravel()
        expected = stats.multivariate_normal(values[seen], cov[np.ix_(seen, seen)]).logpdf(x[seen])
        assert float(got[i]) == pytest.approx(expected, rel=1e-10)
        for end, moments in ((t, (smooth.mean[0, i], smooth.cov[0, i])), (5, (f[0, i] for f in filtered))):
            known = seen & (np.repeat(np.arange(t), 2) < end)
            gain = cross[:, known] @ np.linalg.inv(cov[np.ix_(known, known)])
            centre = mean.ravel() + gain @ (x - values)[known]
            spread = states - gain @ cross[:, known].T
            at = slice((end - 1) * r, end * r)
            loc, var = moments
            np.testing.assert_allclose(loc[end - 1], centre[at], rtol=1e-8, atol=1e-9)
            np.testing.assert_allclose(var[end - 1], spread[at, at], rtol=1e-8, atol=1e-9)


@pytest.mark.parametrize("gaps", [True, False], ids=["gaps", "settled"])
def test_moments_equal_those_of_the_smoother_of_any_state_space(gaps):
    rng = np.random.default_rng(0)
    k, r, n, c = 3, 2, 120, 2
    parts = rng.normal(size=(k, r)), rng.normal(size=k), 0.5 * np.eye(k), np.array([[0.8, 0.2], [-0.1, 0.6]])
    system = make_system(*parts, rng.normal(size=r), np.eye(r))
    y, seen, mean, cov = rng.normal(size=(c, n, k)), rng.random((n, k)) > 0.3, rng.normal(size=(c, r)), 2.0 * np.eye(r)
    seen[:30] = True
    seen[60:] |= not gaps
    expected = smooth_series(system, y, seen, mean.copy(), cov.copy(), np.zeros((r, r)))
    got = smooth_moments(system, y, seen, mean.copy(), cov.copy())
    np.testing.assert_allclose(got.mean, expected.mean, atol=1e-12)
    np.testing.assert_allclose(got.cov, expected.cov, atol=1e-12)
    np.testing.assert_allclose(got.across, expected.across[:-1], atol=1e-12)


class Peer(sm.tsa.statespace.MLEModel):
    """The same system in statsmodels, at fixed matrices."""

    def __init__(self, x, p, noise):
        r = len(p["transition"])
        super().__init__(x, k_states=r, k_posdef=r)
        self["design"], self["obs_intercept"], self["obs_cov"] = p["loading"], p["offset"][:, None], noise
        self["transition"], self["selection"], self["state_cov"] = p["transition"], np.eye(r), np.eye(r)
        self.initialize_stationary()


@pytest.mark.parametrize("style", ["plain", "full"])
def test_likelihood_and_smoother_equal_statsmodels(style):
    model, params, batch = some(n=1, t=40, **STYLES[style])
    x = np.where(batch.seen[0], batch.x[0], np.nan)
    peer = Peer(x, {name: v[0].numpy() for name, v in params.items()}, model.noise_covariance(params)[0].numpy())
    result = peer.smooth([])
    np.testing.assert_allclose(model.log_prob_steps(params, batch).values[0, 0], result.llf_obs, atol=1e-8)
    np.testing.assert_allclose(model.smooth(params, batch).mean[0, 0].T, result.smoothed_state, atol=1e-7)


# expectation maximisation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("style", STYLES)
def test_em_never_lowers_the_likelihood_that_it_reports(style):
    model, _, batch = some(k=3, t=25, **STYLES[style])
    weights = torch.tensor([1.0, 2.0, 0.5], dtype=torch.float64)
    params = model.em_start(batch, 4, "kmeans", torch.Generator().manual_seed(0))
    before = None
    for _ in range(12):
        step = model.em_step(params, batch, weights)
        expected = model.log_prob(params, batch) @ weights
        np.testing.assert_allclose(step.log_prob, expected, rtol=1e-10)
        if before is not None:
            assert bool((step.log_prob >= before - 1e-9).all())
        before, params = step.log_prob, step.params


def expected_log_prob(model, batch, theta, moments):
    """E[log p(states, values | theta) | what was seen], for any covariance Q of the shocks, from dense moments.

    With noise="full" a value that is missing where others were seen is latent too; else what is missing is left out.
    """
    r, total = model.n_states, 0.0

    def normal(cov, second):
        return -0.5 * (torch.logdet(cov) + torch.trace(torch.linalg.solve(cov, second)))

    if model.start == "stationary":
        q, a = theta["spread"], theta["transition"]
        first = torch.linalg.solve(torch.eye(r * r) - torch.kron(a, a), q.reshape(-1)).reshape(r, r)
    else:
        first = theta["start_covariance"] if model.start == "free" else theta["spread"]
    for i, (mean, cov) in enumerate(moments):
        t = int(batch.lengths[i])
        m, n = torch.tensor(mean[: t * r]).reshape(t, r), torch.tensor(mean[t * r :]).reshape(t, -1)
        k = n.shape[1]
        c = torch.tensor(cov)

        def block(one, other, c=c, t=t, k=k):
            places = [[s * r + j for j in range(r)] if w == "s" else [t * r + s * k + j for j in range(k)]
                      for w, s in (one, other)]  # fmt: skip
            return c[places[0]][:, places[1]]

        for s in range(t):
            u = batch.u[i, s] if batch.u is not None else torch.zeros(0, dtype=torch.float64)
            now = block(("s", s), ("s", s))
            if s == 0:
                off = m[0] - theta["start_mean"] if model.start != "stationary" else m[0]
                total = total + normal(first, now + torch.outer(off, off))
            else:
                a, cross = theta["transition"], block(("s", s), ("s", s - 1))
                off = m[s] - a @ m[s - 1] - (theta["drive"] @ u if model.drives else 0.0)
                spread = now - a @ cross.T - cross @ a.T + a @ block(("s", s - 1), ("s", s - 1)) @ a.T
                total = total + normal(theta["spread"], spread + torch.outer(off, off))
            seen = batch.seen[i, s]
            if not bool(seen.any()):
                continue
            z = theta["loading"]
            off = n[s] - z @ m[s] - theta["offset"] - (u @ theta["coefficients"] if model.joins else 0.0)
            cross = block(("v", s), ("s", s))
            second = block(("v", s), ("v", s)) - z @ cross.T - cross @ z.T + z @ now @ z.T + torch.outer(off, off)
            if model.noise == "full":
                total = total + normal(theta["noise"], second)
            else:
                at = seen.nonzero().squeeze(-1)
                total = total + normal(torch.diag(theta["noise"])[at][:, at], second[at][:, at])
    return total


@pytest.mark.parametrize("style", ["full", "mean", "free", "values"])
def test_the_m_step_maximises_the_expected_log_likelihood(style):
    """Its gradient is zero at the closed forms, for transitions too where the start does not hang on them."""
    model, params, batch = some(k=2, n=2, t=8, **STYLES[style])
    moments = []
    for i in range(batch.n):
        mean, states, values, cov, cross = dense(model, params, batch, i)
        whole = np.block([[states, cross], [cross.T, cov]])
        centre = np.concatenate([mean.ravel(), values])
        at = mean.size + np.flatnonzero(batch.seen[i, : int(batch.lengths[i])].numpy().ravel())
        x = batch.x[i, : int(batch.lengths[i])].numpy().ravel()
        gain = whole[:, at] @ np.linalg.inv(whole[np.ix_(at, at)])
        moments.append((centre + gain @ (x[at - mean.size] - centre[at]), whole - gain @ whole[at]))
    values, centre = model._values(batch, None)
    old = model._coefficients(params, 0, centre)
    space, state = model._space(params), model.initial_state(params, batch.n)
    driven = model._driven(params, batch.u, state.age, batch.lengths)
    added = np.zeros((batch.n, batch.t, model.n_states)) if driven is None else driven[0][0].numpy()
    noise = old.noise if old.noise.ndim == 2 else np.diag(old.noise)
    parts = [np.ascontiguousarray(one) for one in (old.loading, old.offset, noise, old.transition)]
    system = make_system(*parts, np.zeros(model.n_states), np.eye(model.n_states))
    first = space.mean[0].numpy(), np.ascontiguousarray(space.cov[0].numpy())
    sums = expected_sums(system, model.noise == "full", old.coefficients, added, *first, values)
    loading, offset, coefficients, noise = _observation(sums, old, np.zeros(2))
    transition, drive, spread, mean, cov = _transition(sums, old, model.start)
    found = {"loading": loading, "offset": offset + centre, "noise": noise}
    if model.joins:
        found["coefficients"] = coefficients
    fixed = {"transition": transition, "spread": spread, "drive": drive, "start_mean": mean, "start_covariance": cov}
    if model.start != "stationary":
        found |= {name: fixed.pop(name) for name in ("transition", "spread", "start_mean")}
        found |= {"drive": fixed.pop("drive")}
        if model.start == "free":
            found["start_covariance"] = fixed.pop("start_covariance")
    leaves = {name: torch.tensor(value, requires_grad=True) for name, value in found.items()}
    rest = {name: torch.tensor(value) for name, value in fixed.items()}
    value = expected_log_prob(model, batch, {**rest, **leaves}, moments)
    for name, slope in zip(leaves, torch.autograd.grad(value, list(leaves.values())), strict=True):
        np.testing.assert_allclose(slope, 0.0, atol=1e-7, err_msg=name)


def test_em_and_gradients_reach_the_same_maximum():
    rng = np.random.default_rng(4)
    state = np.zeros((80, 1))
    for t in range(1, 80):
        state[t] = 0.8 * state[t - 1] + rng.normal()
    x = state @ [[1.0, -0.6, 0.3]] + 0.7 * rng.normal(size=(80, 3))
    x[rng.random(x.shape) < 0.1] = np.nan
    model = LinearSystemModel(Observation(3), 1)
    batch = make_batch(model, x[None], np.array([80]))
    by_em = EM(n_init=1, tol=1e-6).fit(model, batch, torch.Generator().manual_seed(0))
    by_gradients = MLE(tol=1e-12, covariance=False).fit(model, batch, torch.Generator().manual_seed(1))
    assert by_em.status == "converged"
    assert by_em.log_prob == pytest.approx(by_gradients.log_prob, abs=1e-5)
    np.testing.assert_allclose(by_em.params["loading"], by_gradients.params["loading"], atol=1e-3)
    truth = {"transition": [[0.8]], "loading": [[1.0], [-0.6], [0.3]], "offset": [0.0] * 3, "noise_scale": [0.7] * 3}
    at = {name: torch.tensor(v, dtype=torch.float64) for name, v in truth.items()}
    assert float(model.log_prob(at, batch).sum()) < by_em.log_prob
    assert float(by_em.params["transition"]) == pytest.approx(0.8, abs=0.2)


def test_problems_are_named():
    model, params, batch = some(**STYLES["free"])
    bad = dict(params)
    bad["noise_scale"] = params["noise_scale"] * torch.tensor([1.0, 1e-9], dtype=torch.float64)
    bad["start_covariance"] = torch.full((1, 2, 2), 1.0, dtype=torch.float64)
    said = model.em_problems(bad, batch, torch.zeros(1, 2))[0]
    assert "Variable 1 has no noise" in said[0] and "too few sequences" in said[1]
    model, params, batch = some(**STYLES["plain"])
    unit = {**params, "transition": (1.0 - 1e-9) * torch.eye(2, dtype=torch.float64).unsqueeze(0)}
    assert "unit circle" in model.em_problems(unit, batch, torch.zeros(1, 2))[0][0]
    assert model.em_problems(params, batch, torch.zeros(1, 2)) == [()]


# coordinates ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k, r", [(1, 1), (1, 4), (2, 3), (4, 2)])
def test_a_staircase_has_zeros_right_of_a_positive_diagonal(k, r):
    rng = np.random.default_rng(k * 10 + r)
    a, c = rng.normal(size=(r, r)), rng.normal(size=(k, r))
    turn = staircase(a, c)
    np.testing.assert_allclose(turn @ turn.T, np.eye(r), atol=1e-12)
    rows = np.concatenate([c @ turn.T, turn @ a @ turn.T])[:r]
    np.testing.assert_allclose(np.triu(rows, 1), 0.0, atol=1e-12)
    assert (np.diag(rows) >= 0).all()


@pytest.mark.parametrize("noise", ["diag", "full"])
@pytest.mark.parametrize("k, r", [(1, 1), (1, 2), (1, 4), (2, 2), (2, 4), (3, 2), (3, 4)])
def test_parameters_are_counted_as_the_autocovariances_see_them(k, r, noise):
    model = LinearSystemModel(Observation(k), r, noise)
    specs = model.parameters()
    generator = torch.Generator().manual_seed(0)
    flat = 0.5 * torch.randn(unconstrained_size(specs), generator=generator, dtype=torch.float64)

    def law(flat):
        params = unflatten(specs, flat)
        space = model.system(params)
        rows, cov = [params["offset"], (space.design @ space.cov @ space.design.mT + space.noise).flatten()], space.cov
        for _ in range(2 * r + 1):
            cov = space.transition @ cov
            rows.append((space.design @ cov @ space.design.mT).flatten())
        return torch.cat(rows)

    values = torch.linalg.svdvals(torch.autograd.functional.jacobian(law, flat))
    assert int((values > 1e-10 * values[0]).sum()) == model.n_parameters


@pytest.mark.parametrize("start", ["mean", "free"])
@pytest.mark.parametrize("k, r", [(1, 1), (1, 2), (1, 3), (2, 2), (2, 4), (3, 2)])
def test_parameters_are_counted_as_all_first_and_second_moments_see_them(k, r, start):
    model = LinearSystemModel(Observation(k), r, start=start)
    specs = model.parameters()
    generator = torch.Generator().manual_seed(0)
    flat = 0.5 * torch.randn(unconstrained_size(specs), generator=generator, dtype=torch.float64)

    def law(flat):
        params = unflatten(specs, flat)
        turn, design = params["transition"], params["loading"]
        mean = params["start_mean"]
        cov = params["start_covariance"] if start == "free" else torch.eye(r, dtype=torch.float64)
        rows = []
        for _ in range(2 * r + 2):
            rows += [design @ mean + params["offset"], (design @ cov @ design.mT).flatten()]
            rows[-1] = rows[-1] + torch.diag(params["noise_scale"] ** 2).flatten()
            lagged = cov
            for _ in range(2 * r + 1):
                lagged = turn @ lagged
                rows.append((design @ lagged @ design.mT).flatten())
            mean, cov = turn @ mean, turn @ cov @ turn.mT + torch.eye(r, dtype=torch.float64)
        return torch.cat(rows)

    values = torch.linalg.svdvals(torch.autograd.functional.jacobian(law, flat))
    assert int((values > 1e-10 * values[0]).sum()) == model.n_parameters


@pytest.mark.parametrize("style", ["plain", "mean", "free"])
def test_turned_states_have_the_same_law(style):
    model, params, batch = some(**STYLES[style])
    r = model.n_states
    turn = torch.linalg.qr(torch.randn(r, r, dtype=torch.float64, generator=torch.Generator().manual_seed(3)))[0]
    other = turned(params, turn)
    np.testing.assert_allclose(model.log_prob(other, batch), model.log_prob(params, batch), rtol=1e-10)
    ours, theirs = model.smooth(params, batch), model.smooth(other, batch)
    np.testing.assert_allclose(ours.mean @ turn.T, theirs.mean, atol=1e-9)


def test_principal_axes_explain_in_order_and_shares_add_up():
    model, params, _ = some(k=3, **STYLES["plain"])
    noise = model.noise_covariance(params)
    space = model._space(params)
    variance = (space.design @ space.cov @ space.design.mT + noise).diagonal(dim1=-2, dim2=-1)
    np.testing.assert_allclose(explained_variance(params).sum(-1) + noise.diagonal(dim1=-2, dim2=-1), variance)
    found = turned(params, principal_axes(params, noise))
    share = (explained_variance(found) / variance.unsqueeze(-1)).sum(-2)[0]
    assert float(share[0]) > float(share[1])
    best = max(
        float((explained_variance(turned(params, turn)) / variance.unsqueeze(-1)).sum(-2)[0, 0])
        for angle in np.linspace(0, np.pi, 50)
        for turn in [torch.tensor([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])]
    )
    assert float(share[0]) >= best - 1e-12
    largest = found["loading"][0].abs() / variance[0].sqrt().unsqueeze(-1)
    assert bool((found["loading"][0].gather(0, largest.argmax(0, keepdim=True)) > 0).all())


@pytest.mark.parametrize(
    "wrong", [{"n_states": 0}, {"n_states": 1.5}, {"noise": "none"}, {"start": "zero"}, {"inputs": "no"}]
)
def test_arguments_that_are_none(wrong):
    with pytest.raises(ParameterError):
        LinearSystemModel(Observation(2), **wrong)


def test_counts_and_missing_covariates():
    with pytest.raises(ShapeError, match="continuous"):
        LinearSystemModel(Poisson().observation(1))
    model, params, batch = some(**STYLES["values"])
    with pytest.raises(CovariateError):
        model.log_prob(params, batch._replace(u=None))
