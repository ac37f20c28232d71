"""ArviZ reads what we hand over, and leaves whole sequences out."""

import sys
import warnings

import arviz
import numpy as np
import pytest
import torch
import xarray as xr
from numpy.testing import assert_allclose
from scipy import stats

import probseq as ps
from probseq.errors import ApproximationWarning, DataError, UnsupportedError
from probseq.integrations import arviz as bridge

RNG = np.random.default_rng(0)
COUNTS = [RNG.poisson(4.0, size=t) for t in RNG.integers(3, 9, size=40)]
A, B = 3.0, 0.5
LAPLACE = ps.Laplace(priors={"rate": torch.distributions.Gamma(A, B)}, n_draws=4000)


def left_out(i):
    """log p(sequence i | the others): Poisson counts under a Gamma prior, closed form."""
    others = [one for j, one in enumerate(COUNTS) if j != i]
    shape, rate = A + sum(one.sum() for one in others), B + sum(len(one) for one in others)
    total = 0.0
    for x in COUNTS[i]:
        total += stats.nbinom.logpmf(x, shape, rate / (rate + 1))
        shape, rate = shape + x, rate + 1
    return total


def test_loo_by_sequence_equals_the_closed_form():
    model = ps.IID(ps.Poisson(), inference=LAPLACE, random_state=0).fit(COUNTS)
    data = ps.to_arviz(model)
    assert data.posterior["rate"].dims[:2] == ("chain", "draw")
    assert data.log_likelihood["x"].dims == ("chain", "draw", "sequence")
    found = arviz.loo(data, pointwise=True)
    assert_allclose(found.loo_i, [left_out(i) for i in range(40)], atol=0.02)
    assert found.n_data_points == 40 and not found.warning
    other = ps.IID(ps.Categorical(), inference=ps.Laplace(n_draws=4000), random_state=0)
    table = arviz.compare({"poisson": data, "codes": ps.to_arviz(other.fit([one.astype(float) for one in COUNTS]))})
    assert table.index[0] == "poisson"


def test_chains_and_one_series():
    y = ps.datasets.lake_huron()[:40]
    model = ps.HMM(2, inference=ps.Gibbs(n_draws=40, n_chains=2, n_warmup=20), random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ps.errors.ProbseqWarning)
        model.fit(y)
    with pytest.warns(ApproximationWarning, match="leave_future_out"):
        data = ps.to_arviz(model)
    assert data.posterior.sizes["chain"] == 2 and data.posterior.sizes["draw"] == 20
    name = next(iter(model.params_))
    assert_allclose(data.posterior[name].values.reshape(40, -1), model.params_[name].values.reshape(40, -1))
    terms = data.log_likelihood["x"]
    assert terms.dims == ("chain", "draw", "time")
    for i in (0, 25):
        one = ps.HMM(2).with_parameters(**{name: v[i] for name, v in model.draws_.params.items()})
        assert_allclose(terms.values.reshape(40, -1)[i], one.log_prob_steps(y), rtol=1e-9)


def test_values_that_are_conditioned_on_are_in_no_term():
    many = [RNG.normal(size=9).cumsum() for _ in range(5)]
    law = ps.Laplace(n_draws=50)
    level = ps.to_arviz(ps.ARMA((1, 0, 0), inference=law, random_state=0).fit(many)).log_likelihood["x"]
    steps = ps.to_arviz(ps.ARMA((1, 1, 0), inference=law, random_state=0).fit(many)).log_likelihood["x"]
    assert (level.n_values, steps.n_values) == (45, 40)


def test_a_tree_from_arviz_1_on(monkeypatch):
    model = ps.IID(ps.Poisson(), inference=LAPLACE, random_state=0).fit(COUNTS)
    monkeypatch.setattr(arviz, "__version__", "1.0.0")
    tree = ps.to_arviz(model)
    assert isinstance(tree, xr.DataTree) and set(tree.children) == {"posterior", "log_likelihood", "observed_data"}


def test_what_is_wrong_is_named(tmp_path, monkeypatch):
    with pytest.raises(UnsupportedError, match="one parameter draw"):
        ps.to_arviz(ps.IID(ps.Poisson()).fit(COUNTS))
    model = ps.IID(ps.Poisson(), inference=LAPLACE, random_state=0).fit(COUNTS)
    model.save(tmp_path / "kept")
    loaded = ps.load(tmp_path / "kept")
    with pytest.raises(DataError, match="without its data"):
        ps.to_arviz(loaded)
    xr.testing.assert_equal(bridge.to_arviz(loaded, COUNTS).log_likelihood, ps.to_arviz(model).log_likelihood)
    monkeypatch.setitem(sys.modules, "arviz", None)
    with pytest.raises(UnsupportedError, match="without ArviZ"):
        ps.to_arviz(model)
