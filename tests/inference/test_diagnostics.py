"""R-hat and effective sample sizes: ArviZ is the oracle; they tell good chains from bad ones."""

import arviz
import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from probseq.inference.diagnostics import chain_diagnostics, ess_bulk, ess_tail, r_hat


def chains(rho, n_chains=4, n=200, seed=0, shift=0.0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n_chains, n))
    for t in range(1, n):
        x[:, t] = rho * x[:, t - 1] + np.sqrt(1 - rho**2) * x[:, t]
    return x + shift * np.arange(n_chains)[:, None]


CASES = {
    "white": chains(0.0),
    "slow": chains(0.9),
    "very slow": chains(0.995),
    "alternating": chains(-0.6),
    "apart": chains(0.3, shift=1.0),
    "one chain": chains(0.5, n_chains=1),
    "odd": chains(0.5, n=151),
    "heavy": np.tan(chains(0.2, seed=3)),
    "short": chains(0.3, n=8),
    "ties": np.round(chains(0.5)),
}


@pytest.mark.parametrize("name", CASES)
def test_equal_to_arviz(name):
    x = CASES[name]
    # ArviZ refuses one chain, whose halves are compared all the same.
    halves = x if len(x) > 1 else x.reshape(2, -1)
    assert_allclose(r_hat(halves), arviz.rhat(halves), rtol=1e-10)
    assert_allclose(ess_bulk(x), arviz.ess(x, method="bulk"), rtol=1e-9)
    assert_allclose(ess_tail(x), arviz.ess(x, method="tail"), rtol=1e-9)


def test_each_parameter_on_its_own_and_constants_left_out():
    good, bad = chains(0.0, n=100), chains(0.0, n=100, shift=2.0)
    values = np.stack([good, np.full_like(good, 0.25), bad], -1).reshape(400, 3)
    found = chain_diagnostics({"a": torch.from_numpy(values), "b": torch.from_numpy(good.reshape(400))}, 4)
    assert_allclose(found.r_hat["a"], [r_hat(good), np.nan, r_hat(bad)])
    assert found.r_hat["b"].shape == () and found.ess_bulk["a"].shape == (3,)
    disagree, few = found.problems(400, 4)
    assert "R-hat of a[2]" in disagree and "a[2]" in few
    fine = chain_diagnostics({"b": torch.from_numpy(good.reshape(400))}, 4)
    assert fine.problems(400, 4) == []
    assert chain_diagnostics({"b": torch.zeros(8)}, 4).problems(8, 4) == []


@pytest.mark.parametrize("n", range(1, 9))
def test_a_few_draws_are_judged_without_an_error(n):
    values = {"a": torch.from_numpy(chains(0.3, n=n).reshape(-1))}
    found = chain_diagnostics(values, 4)
    assert np.isnan(found.ess_bulk["a"]) or 0 < found.ess_bulk["a"] <= 4 * n * np.log10(max(4 * n, 10))
