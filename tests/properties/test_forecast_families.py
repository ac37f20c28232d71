"""Properties of forecasts over the families of the registry: one law, whatever made it, and its images too."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from probseq.testing.registry import ROWS

# Families that are fitted in a moment, and one or two of each kind that takes longer.
CHOSEN = (
    "HMM diag", "HMM Poisson", "HMM StudentT", "HMM Product", "HMM by Gibbs", "HSMM", "LSTM diag", "LSTM Quantiles",
    "LSTM Poisson", "ARMA", "ARIMA", "ARMA seasonal", "ARMA by Laplace", "ARMA collapsed", "AutoARMA averaged",
    "LocalLevel", "LocalTrend damped", "Log LocalTrend", "VAR", "VARMA", "RandomWalk", "SeasonalNaive",
    "PoissonProcess", "Log ARIMA", "Logit IID", "BoxCox ARMA", "Log Difference HMM", "Difference(3) IID",
    "ContextScale ARMA",
)  # fmt: skip
CATEGORIES = ("IID Categorical", "HMM Categorical", "MarkovChain", "LSTM Categorical")
FAMILIES = {row.name: row for row in ROWS if row.name in CHOSEN or row.name.startswith("IID ")}
SLOW = ("IID AutoregressiveBernoulli",)
NUMBERS = sorted(name for name, row in FAMILIES.items() if row.kind not in ("code", "angle") and name not in SLOW)
HORIZON = 3
MADE = {}


def made(name):
    """The forecast of a family, by its own backend."""
    if name not in MADE:
        row = FAMILIES[name]
        covariates = None if row.inputs() is None else row.inputs(HORIZON, seed=1)
        options = {} if covariates is None else {"covariates": covariates}
        MADE[name] = row.fitted.forecast(HORIZON, n_paths=200, random_state=0, **options)
    return MADE[name]


def test_the_families_are_there_with_all_backends():
    assert set(CHOSEN) <= set(FAMILIES)
    assert {made(name).backend for name in NUMBERS} == {"analytic", "mixture", "paths"}


levels = st.floats(0.01, 0.99)
maps = st.tuples(st.sampled_from([1.0, -1.0, 2.0, -0.25]), st.sampled_from([0.0, 3.0, -1.5]))


@pytest.mark.parametrize("name", NUMBERS)
@settings(max_examples=4)
@given(q=levels, image=maps)
def test_quantile_inverts_cdf(name, q, image):
    forecast = made(name) * image[0] + image[1]
    x = forecast._backend.quantile(np.array([q]))[..., 0]
    up_to, below = forecast._backend.cdf(x), forecast._backend.cdf(x, left=True)
    assert (up_to >= q - 1e-6).all() and (below <= q + 1e-6).all()
    steps = forecast._backend.discrete_variables | (forecast.backend == "paths")
    assert_allclose(up_to[..., ~steps], q, atol=2e-6)
    # Q(p) <= y iff p <= F(y), at points that are no rounding apart from a step.
    for y in (x, x + 0.3, x - 0.3):
        p = forecast._backend.cdf(y)
        clear = (np.abs(p - q) > 1e-6) | (y == x)
        assert ((x <= y + 1e-9 * (1 + np.abs(y))) == (q <= p + 1e-6))[clear].all()


@pytest.mark.parametrize("name", NUMBERS)
@settings(max_examples=3)
@given(level=st.floats(0.1, 0.9), image=maps)
def test_intervals_cover_differences_of_the_cdf(name, level, image):
    forecast = made(name) * image[0] + image[1]
    backend = forecast._backend
    ends = backend.quantile(np.array([(1 - level) / 2, (1 + level) / 2]))
    covered = backend.cdf(ends[..., 1]) - backend.cdf(ends[..., 0], left=True)
    assert (covered >= level - 2e-6).all()
    steps = backend.discrete_variables | (forecast.backend == "paths")
    assert_allclose(covered[..., ~steps], level, atol=4e-6)


@pytest.mark.parametrize("name", NUMBERS)
def test_moments_are_those_of_a_large_sample(name):
    forecast = made(name)
    n = 4000
    if forecast.backend == "paths":
        draws = forecast._backend.paths
        n = len(draws)
    else:
        draws = forecast._paths(n, 1)
    mean, variance = forecast._backend.mean(), forecast._backend.variance()
    finite = np.isfinite(variance)
    error = np.sqrt(np.where(finite, variance, 0.0) / n)
    assert (np.abs(draws.mean(0) - mean)[finite] <= 5 * error[finite] + 1e-3 * np.sqrt(variance[finite]) + 1e-9).all()
    spread = (draws - draws.mean(0)) ** 2
    noise = spread.std(0) / np.sqrt(n)
    assert (np.abs(spread.mean(0) - variance)[finite] <= (8 * noise + 0.02 * variance)[finite] + 1e-9).all()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("over", ["time", "variable"])
def test_sums_of_paths_have_the_law_of_the_sum(name, over):
    forecast = made(name)
    n = 3000
    total = forecast.aggregate("sum", n_paths=n, random_state=5, over=over)
    paths = forecast._paths(n, 6).sum(2 if over == "time" else 3)
    found = total._backend.mean().reshape(paths.shape[1:])
    error = paths.std(0) * np.sqrt(2 / n)
    # Heavy tails, and a backend that holds few paths, leave more noise.
    heavy = np.abs(paths - np.median(paths, 0)).max(0) > 12 * paths.std(0)
    few = total.backend == "paths" and forecast.backend == "paths"
    assert few or (np.abs(paths.mean(0) - found) <= 5 * error + 1e-9)[~heavy].all()
    for q in (0.1, 0.5, 0.9):
        x = total._backend.quantile(np.array([q])).reshape(paths.shape[1:])
        p = total._backend.cdf(total._backend.quantile(np.array([q]))[..., 0]).reshape(paths.shape[1:])
        share = (paths <= x + 1e-9 * (1 + np.abs(x))).mean(0)
        assert (np.abs(share - p) <= 5 * np.sqrt(2 * p * (1 - p) / n) + (0.15 if few else 2 / n)).all()


@pytest.mark.parametrize("name", [name for name in NUMBERS if name != "LSTM Quantiles"])
@settings(max_examples=2)
@given(image=maps)
def test_densities_of_images_have_their_jacobian(name, image):
    forecast = made(name)
    changed = forecast * image[0] + image[1]
    y = np.median(forecast._paths(9, 2), 0)
    counted = forecast._backend.discrete_variables
    slope = HORIZON * (~counted).sum() * np.log(abs(image[0]))
    there = y * image[0] + image[1]
    assert_allclose(changed._joint.log_prob(there), forecast._joint.log_prob(y) - slope, rtol=1e-5, atol=1e-5)
    if forecast.backend != "paths":
        assert_allclose(changed._backend.log_prob(there), forecast._backend.log_prob(y) - slope / HORIZON, rtol=1e-6)
    assert_allclose(changed._backend.crps(there), abs(image[0]) * forecast._backend.crps(y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", CATEGORIES)
def test_probabilities_of_categories_are_frequencies(name):
    row = next(one for one in ROWS if one.name == name)
    forecast = row.fitted.forecast(HORIZON, n_paths=200, random_state=0)
    p = forecast._backend.probs()
    assert_allclose(p.sum(-1), 1.0, atol=1e-6)
    n = 2000
    draws = forecast._paths(n, 3)
    share = (draws[..., None] == np.arange(p.shape[-1])).mean(0)
    few = np.sqrt(p * (1 - p) / 200) if forecast.backend == "paths" else 0.0
    assert (np.abs(share - p) <= 5 * (np.sqrt(p * (1 - p) / n) + few) + 1e-9).all()
