"""Pseudo-residuals: the law of a step given the others, found by leaving it out and smoothing again."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy import special, stats

import probseq as ps
from probseq.errors import ParameterError, UnsupportedError
from probseq.inference.base import Draws

START = [0.2, 0.5, 0.3]
MOVES = [[0.8, 0.2, 0.0], [0.0, 0.6, 0.4], [0.25, 0.25, 0.5]]


def poisson(**options):
    return ps.HMM(3, ps.Poisson(), **options).with_parameters(initial=START, transition=MOVES, rate=[9.0, 2.0, 4.0])


def normal(covariance="full", transform=None, mean=((0.0, 1.0), (3.0, -1.0), (6.0, 4.0))):
    spread = [[[1.0, 0.5], [0.5, 2.0]], [[0.5, 0.0], [0.0, 0.5]], [[1.0, -0.6], [-0.6, 1.0]]]
    own = {"covariance": spread} if covariance == "full" else {"scale": np.sqrt([np.diag(c) for c in spread])}
    model = ps.HMM(3, ps.Normal(covariance), transform=transform)
    return model.with_parameters(initial=START, transition=MOVES, mean=mean, **own)


def by_leaving_out(model, sequences, lower=False):
    """F(x_t) given the other steps: sum_j p(z_t = j | x without step t) F_j(x_t)."""
    laws = model.model_.model.state_laws({name: value[0] for name, value in model.model_.params.items()})
    out = []
    for x in sequences:
        x = np.asarray(x, float).reshape(len(x), -1)
        rows = []
        for t in range(len(x)):
            holed = x.copy()
            holed[t] = np.nan
            probs = model.smooth(holed if x.shape[1] > 1 else holed[:, 0]).values[t]
            value = torch.as_tensor(np.nan_to_num(x[t]))
            each = (laws.cdf_left(value) if lower else laws.cdf(value)).numpy()
            rows.append(np.where(np.isnan(x[t]), np.nan, probs @ each))
        out.append(np.array(rows))
    return out


@pytest.mark.parametrize(
    ("model", "draw"),
    [
        (poisson(), lambda rng, t: rng.poisson(5.0, t).astype(float)),
        (normal("diag"), lambda rng, t: rng.normal(2, 3, (t, 2))),
        (normal("full"), lambda rng, t: rng.normal(2, 3, (t, 2))),
    ],
    ids=["poisson", "diag", "full"],
)
def test_ordinary_residuals_equal_leaving_each_step_out(model, draw):
    rng = np.random.default_rng(0)
    sequences = [draw(rng, t) for t in (9, 1, 5)]
    sequences[0].reshape(9, -1)[3:5, 0] = np.nan
    found = model.residuals(sequences, kind="ordinary")
    upper, lower = (by_leaving_out(model, sequences, lower) for lower in (False, True))
    for i, x in enumerate(sequences):
        shape = np.shape(x)
        middle = 0.5 * (upper[i] + lower[i]).reshape(shape)
        assert_allclose(special.ndtr(found[i, : len(x)]), middle, atol=1e-10)
        if "lower" in found.coords:
            assert_allclose(special.ndtr(found["lower"][i, : len(x)]), lower[i].reshape(shape), atol=1e-10)
            assert_allclose(special.ndtr(found["upper"][i, : len(x)]), upper[i].reshape(shape), atol=1e-10)
    assert np.isnan(found[1, 1:]).all()


def test_probability_of_the_others_equals_that_of_the_data_without_the_step():
    model, x = poisson(), np.array([3.0, 0.0, 12.0, 5.0, 2.0])
    chain = model.model_.model
    left = chain.leave_one_out(model.model_.params, model._batch(model._read(x)))
    for t in range(5):
        holed = np.where(np.arange(5) == t, np.nan, x)
        assert_allclose(left.log_prob[0, 0, t], model.log_prob(holed), rtol=1e-12)


def test_a_step_that_only_one_state_explains():
    """The state of the step alone is impossible by its neighbours' paths except through exact zeros."""
    model = ps.HMM(2, ps.Categorical(n_categories=3)).with_parameters(
        initial=[1.0, 0.0],
        transition=[[0.5, 0.5], [0.0, 1.0]],
        probs=[[[0.5, 0.5, 0.0]], [[0.0, 0.5, 0.5]]],
    )
    data = model._read(np.array([0, 2, 2, 2]))
    left = model.model_.model.leave_one_out(model.model_.params, model._batch(data))
    # Without its own step: z_1 can be 0 only (start); z_2 follows 0 and precedes 1: stay or move, 1/2 x 1/2 or 1/2 x 1.
    assert_allclose(left.probs[0, 0, :2], [[1, 0], [1 / 3, 2 / 3]], atol=1e-14)
    assert_allclose(left.probs[0, 0, 2:], [[0, 1], [0, 1]], atol=1e-14)


def several_draws():
    model = poisson()
    one = model.model_.params
    params = {name: torch.cat([value, value]) for name, value in one.items()}
    params["rate"] = torch.cat([one["rate"], 1.5 * one["rate"]])
    model._adopt(model.model_.model, model.transforms_, Draws(params, 0.0, 0.0, "exact"), model.info_, None)
    return model


def test_draws_are_weighed_by_what_the_others_say():
    model, x = several_draws(), np.array([3.0, 9.0, 12.0, np.nan, 5.0, 0.0])
    found = special.ndtr(model.residuals(x, kind="ordinary")["upper"])
    for t in (0, 2, 5):
        holed = np.where(np.arange(6) == t, np.nan, x)
        each = []
        for d in range(2):
            scale = (1.0, 1.5)[d]
            single = ps.HMM(3, ps.Poisson()).with_parameters(
                initial=START, transition=MOVES, rate=scale * np.array([9.0, 2.0, 4.0])
            )
            law = stats.poisson.cdf(x[t], scale * np.array([9.0, 2.0, 4.0]))
            each.append((float(single.log_prob(holed)), float(single.smooth(holed).values[t] @ law)))
        weights = special.softmax([e[0] for e in each])
        assert_allclose(found[t], weights @ [e[1] for e in each], atol=1e-10)


@pytest.mark.parametrize("kind", ["forecast", "ordinary"])
def test_residuals_are_standard_normal_under_the_model(kind):
    model = normal("full")
    x = model.sample(3000, random_state=4)
    z = model.residuals(x, kind=kind)
    assert z.dims == ("time", "variable") and z.attrs["kind"] == kind
    for i in range(2):
        assert stats.kstest(z[:, i].values[:: 1 if kind == "forecast" else 5], "norm").pvalue > 0.01
    if kind == "forecast":
        lagged = np.corrcoef(z[1:, 0], z[:-1, 0])[0, 1]
        assert abs(lagged) < 3 / np.sqrt(3000)


def test_segments_of_counts_hold_uniform_quantiles():
    model = poisson()
    z = model.residuals(model.sample(3000, random_state=0))
    u = np.random.default_rng(1).uniform(size=3000)
    low, high = special.ndtr(z["lower"].values), special.ndtr(z["upper"].values)
    assert stats.kstest(low + u * (high - low), "uniform").pvalue > 0.01
    assert (z["lower"] <= z).all() and (z <= z["upper"]).all()
    assert_allclose(special.ndtr(z), 0.5 * (low + high), atol=1e-12)


def test_ordinary_residuals_do_not_see_the_scale():
    x = normal("diag").sample(50, random_state=0).values
    logs, plain = normal("diag", ps.Log()), normal("diag")
    assert_allclose(logs.residuals(np.exp(x), "ordinary"), plain.residuals(x, "ordinary"), atol=1e-9)
    assert_allclose(logs.residuals(np.exp(x)), plain.residuals(x), atol=1e-9)


def test_after_a_history():
    model, x = poisson(), np.array([3.0, 9.0, 12.0, 1.0, 5.0, 0.0])
    whole = model.residuals(x, kind="ordinary")
    assert_allclose(model.residuals(x[3:], kind="ordinary", history=x[:3]), whole[3:], atol=1e-10)
    assert_allclose(model.residuals(x[3:], history=x[:3]), model.residuals(x)[3:], atol=1e-10)


@pytest.mark.parametrize(
    "estimator",
    [ps.ARMA((1, 0)), ps.IID(), ps.RandomWalk(), ps.HMM(2, transform=ps.Difference(), random_state=0)],
    ids=["ARMA", "IID", "RandomWalk", "HMM"],
)
def test_every_family_has_forecast_residuals(estimator):
    x = np.cumsum(np.random.default_rng(0).normal(size=80))
    fitted = estimator.fit(x)
    law = fitted.predictive(x)
    z = fitted.residuals(x)
    assert_allclose(special.ndtr(z), law.cdf(x), atol=1e-12)
    assert_array_equal(np.isnan(z), np.isnan(fitted.log_prob_steps(x)))
    with pytest.raises(UnsupportedError, match='kind="forecast"'):
        fitted.residuals(x, kind="ordinary")


def test_refusals():
    words = ps.HMM(2, ps.Categorical(), random_state=0).fit(np.array([0, 1, 2, 0, 1, 1, 0, 2, 1, 0]))
    with pytest.raises(UnsupportedError, match="categories"):
        words.residuals(np.array([0, 1, 2]))
    with pytest.raises(ParameterError, match="kind='other'"):
        poisson().residuals(np.array([1.0]), kind="other")


def test_chains_that_covariates_drive():
    rng = np.random.default_rng(0)
    x, u = rng.poisson(5.0, 8).astype(float), rng.normal(size=(8, 1))
    model = ps.HMM(2, ps.Poisson(), transitions=ps.CovariateTransitions()).with_parameters(
        n_covariates=1,
        initial=[0.3, 0.7],
        transition_intercept=[[0.0, -1.0], [-0.5, 0.0]],
        transition_coefficients=[[[0.0], [1.0]], [[-2.0], [0.0]]],
        rate=[2.0, 8.0],
    )
    found = special.ndtr(model.residuals(x, kind="ordinary", covariates=u)["upper"])
    for t in range(8):
        holed = np.where(np.arange(8) == t, np.nan, x)
        probs = model.smooth(holed, covariates=u).values[t]
        assert_allclose(found[t], probs @ stats.poisson.cdf(x[t], [2.0, 8.0]), atol=1e-10)


def test_a_step_that_enters_later_laws_has_no_ordinary_residual():
    y = np.cumsum(np.random.default_rng(0).normal(size=60))
    fitted = ps.HMM(2, ps.AutoregressiveNormal(order=1), random_state=0).fit(y)
    assert np.isfinite(fitted.residuals(y)[1:]).all()
    with pytest.raises(UnsupportedError, match="forecast"):
        fitted.residuals(y, kind="ordinary")
