"""Parametric bootstrap: its scatter is that of estimates from new data."""

import numpy as np
import pytest
from numpy.testing import assert_allclose

import probseq as ps
from probseq.errors import ParameterError, UnsupportedError


def test_errors_of_a_mean_are_those_of_theory():
    y = np.random.default_rng(0).normal(3.0, 2.0, 50)
    fitted = ps.IID().fit(y)
    found = ps.bootstrap(fitted, y, n_draws=150, random_state=0)
    scale = float(fitted.params_["scale"].squeeze())
    assert_allclose(found.standard_errors["mean"].squeeze(), scale / np.sqrt(50), rtol=0.2)
    assert_allclose(found.params["mean"].mean("draw").squeeze(), fitted.params_["mean"].squeeze(), atol=0.1)
    low, high = found.interval(0.9)["mean"].values.ravel()
    assert_allclose(high - low, 2 * 1.645 * scale / np.sqrt(50), rtol=0.25)
    assert found.log_likelihood.shape == (150,)
    assert found.log_likelihood.min() < fitted.log_likelihood_ < found.log_likelihood.max()


def test_states_keep_their_names_and_refits_start_from_the_fit():
    y = ps.datasets.earthquakes()
    fitted = (
        ps.HMM(2, ps.Poisson(), random_state=0).fit(y).order_states(descending=True).label_states(["active", "calm"])
    )
    found = ps.bootstrap(fitted, y, n_draws=12, random_state=1)
    assert found.params["rate"].dims == ("draw", "state", "variable")
    rates = found.params["rate"].sel(variable="earthquakes")
    assert (rates.sel(state="active") > rates.sel(state="calm")).all()
    # Zucchini and MacDonald report errors of 1 to 3 for rates of this size.
    assert (found.standard_errors["rate"] > 0.2).all() and (found.standard_errors["rate"] < 4).all()
    again = ps.bootstrap(fitted, y, n_draws=12, random_state=1)
    assert_allclose(again.params["rate"], found.params["rate"])


def test_holes_lengths_and_conditioned_values_stay():
    from probseq._random import torch_generator
    from probseq.comparison.bootstrap import _simulate

    rng = np.random.default_rng(0)
    x = [np.cumsum(rng.normal(size=30)), np.cumsum(rng.normal(size=20))]
    fitted = ps.HMM(2, transform=ps.Difference(2), random_state=0).fit(x)
    data = fitted._read(x)
    simulated = _simulate(fitted, data, torch_generator(0))
    assert_allclose(simulated.values[:, :2], data.values[:, :2])
    assert not np.isclose(simulated.values[0, 2:], data.values[0, 2:]).any()
    assert np.isnan(simulated.values[1, 20:]).all()
    holed = np.where(np.arange(30) == 7, np.nan, x[0])
    plain = ps.HMM(2, random_state=0).fit(holed)
    assert np.isnan(_simulate(plain, plain._read(holed), torch_generator(0)).values[0]).ravel().nonzero()[0] == [7]
    assert ps.bootstrap(fitted, x, n_draws=2, random_state=0).params.sizes["draw"] == 2


def test_refits_end_once_nothing_is_gained(monkeypatch):
    from probseq.comparison.bootstrap import _climb
    from probseq.models.hmm import HiddenMarkovModel

    y = np.array([1.0, 2.0, 3.0, 2.0])
    fitted = ps.HMM(1, ps.Poisson(), random_state=0).fit(y)
    steps = []
    step = HiddenMarkovModel.em_step
    monkeypatch.setattr(HiddenMarkovModel, "em_step", lambda *given: steps.append(1) or step(*given))
    found = _climb(fitted.model_.model, dict(fitted.model_.params), fitted._batch(fitted._read(y)))
    assert_allclose(found["rate"].squeeze(), 2.0, rtol=1e-12)
    assert len(steps) <= 3


def test_any_family():
    y = np.cumsum(np.random.default_rng(0).normal(size=60))
    for model in (ps.ARMA((1, 0)), ps.RandomWalk(), ps.HMM(2, transform=ps.Standardize(), random_state=0)):
        found = ps.bootstrap(model.fit(y), y, n_draws=3, random_state=0)
        assert all(np.isfinite(value).all() for value in found.params.values())


def test_refusals():
    y = ps.datasets.earthquakes()
    fitted = ps.IID(ps.Poisson()).fit(y)
    with pytest.raises(ParameterError, match="n_draws=1"):
        ps.bootstrap(fitted, y, n_draws=1)
    with pytest.raises(ParameterError, match="Write 0.9"):
        ps.bootstrap(fitted, y, n_draws=2, random_state=0).interval(90)
    words = ps.MarkovChain().fit(["ab", "ba", "bb"])
    with pytest.raises(UnsupportedError, match="end"):
        ps.bootstrap(words, ["ab", "ba"], n_draws=2)
