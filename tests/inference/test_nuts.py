"""NUTS: exact posteriors within Monte Carlo error, chains that agree, and what is refused."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import stats
from torch.distributions import Gamma, LogNormal, Normal

import probseq as ps
from probseq.errors import ConvergenceWarning, IncompatibleError, ParameterError
from probseq.inference.priors import checked_priors, log_prior
from probseq.models.arma import ARMAModel
from probseq.models.hmm import HiddenMarkovModel
from probseq.results.joint import make_batch

COUNTS = np.random.default_rng(0).poisson(3.0, 12).astype(float)


def double(values):
    return torch.as_tensor(values, dtype=torch.float64)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def as_batch(model, x):
    return make_batch(model, np.asarray(x, dtype=float).reshape(1, -1, 1), np.array([len(x)]))


def test_the_rate_of_counts_has_its_gamma_posterior():
    model = HiddenMarkovModel(1, ps.Poisson(), ps.Poisson().observation(1))
    inference = ps.NUTS({"rate": Gamma(double(2.0), double(0.5))}, n_draws=300, n_chains=2, n_warmup=50)
    draws = inference.fit(model, as_batch(model, COUNTS), generator())
    exact = stats.gamma(2.0 + COUNTS.sum(), scale=1 / (0.5 + len(COUNTS)))
    rate = draws.params["rate"].flatten().numpy()
    effective = draws.diagnostics.ess_bulk["rate"].item()
    assert effective > 60 and len(rate) == 300
    assert abs(rate.mean() - exact.mean()) < 4 * exact.std() / np.sqrt(effective)
    for q in (0.1, 0.5, 0.9):
        share = (rate < exact.ppf(q)).mean()
        assert abs(share - q) < 4 * np.sqrt(q * (1 - q) / effective)
    assert draws.status == "converged" and draws.n_divergent == 0 and draws.messages == ()
    assert_allclose(draws.params["transition"], 1.0)


def test_an_autoregression_has_the_posterior_of_a_grid():
    rng = np.random.default_rng(1)
    x = np.zeros(25)
    for t in range(1, 25):
        x[t] = 0.6 * x[t - 1] + rng.normal()
    model = ARMAModel(ps.IID()._emission().observation(1), (1, 0, 0), constant=False)
    priors = {"ar": Normal(double(0.0), double(0.5)), "scale": LogNormal(double(0.0), double(1.0))}
    batch = as_batch(model, x)
    draws = ps.NUTS(priors, n_draws=200, n_chains=2, n_warmup=60).fit(model, batch, generator())
    ar, scale = np.linspace(-0.995, 0.995, 60), np.linspace(0.4, 3.0, 50)
    grid = {"ar": double(np.repeat(ar, 50)[:, None]), "scale": double(np.tile(scale, 60))}
    specs = model.parameters()
    log_density = model.log_prob(grid, batch)[:, 0] + log_prior(specs, checked_priors(specs, priors), grid)
    weight = torch.softmax(log_density, 0).numpy()
    for name in ("ar", "scale"):
        values = grid[name].flatten().numpy()
        mean = weight @ values
        sd = np.sqrt(weight @ (values - mean) ** 2)
        found = draws.params[name].flatten().numpy()
        effective = draws.diagnostics.ess_bulk[name].item()
        assert abs(found.mean() - mean) < 4 * sd / np.sqrt(effective)
        order = np.argsort(values, kind="stable")
        for q in (0.1, 0.5, 0.9):
            point = values[order][np.searchsorted(np.cumsum(weight[order]), q)]
            below = weight[values < point].sum()
            # Between the grid's neighbours the exact share is not known to better than this.
            width = weight[values == point].sum()
            assert abs((found < point).mean() - below) < 4 * np.sqrt(q * (1 - q) / effective) + width


def test_states_keep_one_name_across_draws_and_the_fit_averages_over_them():
    y = np.asarray(ps.datasets.earthquakes(), dtype=float)[:60]
    inference = ps.NUTS(n_draws=40, n_chains=2, n_warmup=40, order="rate")
    model = ps.HMM(2, ps.Poisson(), inference=inference, random_state=2).fit(y)
    rates = model.params_["rate"].values[..., 0]
    assert rates.shape == (40, 2) and np.all(rates[:, 0] <= rates[:, 1])
    assert model.draws_.n_chains == 2 and model.draws_.permutation.shape == (40, 2)
    assert model.draws_.trace.shape == (60,) and model.draws_.n_iter == 60
    steps = model.model_.log_prob({}, model._batch(model.training_))
    assert_allclose(float(steps.sum()), model.draws_.log_prob, rtol=1e-9)


def test_divergences_and_chains_that_disagree_warn():
    rng = np.random.default_rng(0)
    x = np.append(rng.normal(size=12), 8.0)
    inference = ps.NUTS({"scale": None}, n_draws=40, n_chains=2, n_warmup=2, max_tree_depth=2)
    with pytest.warns(ConvergenceWarning, match="diverged|disagree|worth"):
        model = ps.HMM(3, inference=inference, random_state=0).fit(x)
    assert model.status_ == "max_iter"


def test_an_interrupt_keeps_the_draws_of_whole_chains():
    model = HiddenMarkovModel(1, ps.Poisson(), ps.Poisson().observation(1))

    def stop(iteration, value):
        if iteration == 45:
            raise KeyboardInterrupt

    inference = ps.NUTS(n_draws=20, n_chains=2, n_warmup=20)
    draws = inference.fit(model, as_batch(model, COUNTS), generator(), progress=stop)
    assert draws.status == "interrupted" and draws.params["rate"].shape[0] == 10 and draws.n_chains == 1


@pytest.mark.parametrize(
    "options",
    [
        {"n_draws": 0},
        {"n_chains": 0},
        {"n_warmup": -1},
        {"target_accept": 1.0},
        {"max_tree_depth": 0},
        {"order": "transition"},
        {"priors": {"rate": Normal(torch.zeros(3), 1.0)}},
    ],
)
def test_wrong_settings_are_refused(options):
    with pytest.raises(ParameterError):
        ps.HMM(2, ps.Poisson(), inference=ps.NUTS(**options)).fit(COUNTS)


def test_recurrent_networks_are_refused():
    with pytest.raises(IncompatibleError, match="NUTS"):
        ps.LSTM(inference=ps.NUTS())
