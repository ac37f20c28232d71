"""Variational inference: exact where the posterior is normal, a bound on the evidence where it is not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from torch.distributions import LogNormal, Normal

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.errors import IncompatibleError, ParameterError
from probseq.inference.laplace import log_posterior
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch


def batch_of(y: np.ndarray) -> Batch:
    return Batch(torch.from_numpy(y)[None, :, None], torch.ones(1, len(y), 1, dtype=torch.bool), torch.tensor([len(y)]))


def white() -> tuple[ARMAModel, Batch, dict[str, torch.distributions.Distribution]]:
    y = np.random.default_rng(0).normal(2, 1.5, size=8)
    priors = {"mean": Normal(torch.tensor(0.0).double(), 3.0), "scale": LogNormal(torch.tensor(0.0).double(), 1.0)}
    return ARMAModel(Observation(1), (0, 0, 0), (0, 0, 0, 1), True), batch_of(y), priors


def test_bound_is_below_the_evidence_and_above_laplace_law() -> None:
    model, batch, priors = white()
    target = log_posterior(model, batch, None, priors)

    axes = np.linspace(-1.5, 5.5, 121), np.linspace(-1.2, 2.2, 121)
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    values = np.exp(target.evaluate(grid.reshape(-1, 2))[0] + 20).reshape(121, 121)
    evidence = np.log(np.trapezoid(np.trapezoid(values, axes[1]), axes[0])) - 20
    found = ps.ADVI(priors=priors, n_points=512).fit(model, batch, torch.Generator().manual_seed(0))
    assert found.status == "converged"
    assert found.objective < evidence and found.objective > evidence - 0.1
    assert (np.diff(found.trace) >= 0).all()
    assert found.trace[0] <= found.objective


def test_moments_are_nearer_than_those_at_the_mode() -> None:
    # The log of the scale has a skewed posterior: its mean lies above the mode.
    model, batch, priors = white()
    target = log_posterior(model, batch, None, priors)
    grid = np.stack(np.meshgrid(np.linspace(-1.5, 5.5, 121), np.linspace(-1.2, 2.2, 121), indexing="ij"), -1).reshape(
        -1, 2
    )
    weight = np.exp(target.evaluate(grid)[0])
    weight /= weight.sum()
    exact = weight @ grid
    laplace, advi = (
        inference.fit(model, batch, torch.Generator().manual_seed(1))
        for inference in (ps.Laplace(priors=priors, n_draws=20_000), ps.ADVI(priors=priors, n_draws=20_000))
    )
    errors = [abs(float(draws.params["scale"].log().mean()) - exact[1]) for draws in (laplace, advi)]
    assert errors[1] < 0.5 * errors[0]
    spread = np.sqrt(weight @ (grid - exact) ** 2)
    assert_allclose(float(advi.params["scale"].log().std()), spread[1], rtol=0.1)


def test_long_series_agree_with_laplace() -> None:
    y = (
        ps.ARMA(order=(2, 1))
        .with_parameters(ar=[0.5, -0.3], ma=[0.4], mean=1.0, scale=2.0)
        .sample(3000, random_state=0)
    )
    one, two = (
        ps.ARMA(order=(2, 1), inference=inference(n_draws=4000), random_state=0).fit(y)
        for inference in (ps.Laplace, ps.ADVI)
    )
    for name in ("ar", "ma", "mean", "scale"):
        a, b = one.params_[name], two.params_[name]
        assert_allclose(a.mean("draw"), b.mean("draw"), atol=0.25 * float(a.std("draw").max()))
        assert_allclose(a.std("draw"), b.std("draw"), rtol=0.1)


def test_hidden_states_and_bad_use() -> None:
    counts = ps.datasets.earthquakes()
    model = ps.HMM(2, emission=ps.Poisson(), inference=ps.ADVI(n_draws=50), random_state=0).fit(counts)
    rates = np.sort(model.params_["rate"].values.reshape(50, 2), -1).mean(0)
    assert_allclose(rates, [15.4, 26.0], atol=1.5)  # the maximum: Zucchini and MacDonald (2009), table 3.1
    with pytest.raises(IncompatibleError):
        ps.LSTM(inference=ps.ADVI())
    with pytest.raises(ParameterError):
        ps.ARMA(inference=ps.ADVI(n_points=1)).fit([1.0, 2.0, 1.0, 3.0, 2.0])
