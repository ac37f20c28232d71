"""Properties of forecasts over the families of the registry: one law, whatever made it, and its images too."""

import numpy as np
import pytest
import torch
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
# Known by paths beyond their first step.
BY_PATHS = ("LSTM diag", "LSTM Poisson", "Log Difference HMM")
# Laws of many parts, or without a sampler of their own.
COSTLY = ("HMM by Gibbs", "LSTM Quantiles", "IID Multinomial")
HORIZON = 3
MADE = {}


def made(name, horizon=HORIZON):
    """The forecast of a family, by its own backend."""
    if (name, horizon) not in MADE:
        row = FAMILIES[name]
        covariates = None if row.inputs() is None else row.inputs(horizon, seed=1)
        options = {} if covariates is None else {"covariates": covariates}
        MADE[name, horizon] = row.fitted.forecast(horizon, n_paths=200, random_state=0, **options)
    return MADE[name, horizon]


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
def test_moments_cdf_and_score_are_those_of_a_million_samples(name):
    backend, n = made(name, 1)._backend, 50_000 if name in COSTLY else 1_000_000
    draws = backend.sample(n, torch.Generator().manual_seed(1)).reshape(n, -1).T.copy()
    mean, variance = backend.mean().ravel(), backend.variance().ravel()
    found = {"mean": (draws, mean), "variance": ((draws - draws.mean(-1, keepdims=True)) ** 2, variance)}
    for q in (0.05, 0.5, 0.95):
        x = backend.quantile(np.array([q]))[..., 0]
        found[f"cdf at {q}"] = ((draws <= x.reshape(-1, 1)) * 1.0, backend.cdf(x).ravel())
    if backend.name != "paths":  # of which the fair estimator is no score of their empirical law
        y = backend.quantile(np.array([0.7]))[..., 0]
        gap = np.abs(draws - y.reshape(-1, 1)) - 0.5 * np.abs(draws - np.roll(draws, 1, -1))
        found["crps"] = (gap, backend.crps(y).ravel())
    for what, (each, exact) in found.items():
        exists = np.isfinite(exact)
        error = each.std(-1) / n**0.5
        assert (np.abs(each.mean(-1) - exact) <= 5 * error + 1e-9 * (1 + np.abs(exact)))[exists].all(), what
        assert exists.all() or what == "variance"


@pytest.mark.parametrize("name", BY_PATHS)
def test_the_first_step_of_paths_has_the_law_of_one_step(name):
    paths, law = made(name)._backend.paths[:, :, :1], made(name, 1)._backend
    for q in (0.1, 0.3, 0.5, 0.7, 0.9):
        x = law.quantile(np.array([q]))[..., 0]
        p = law.cdf(x)
        # Networks round to single precision, and paths are moved to their exact means where these are known.
        share = (paths <= x + 1e-5 * (1 + np.abs(x))).mean(0)
        assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / len(paths))).all()


@pytest.mark.parametrize("name", NUMBERS)
@pytest.mark.parametrize("over", ["time", "variable"])
def test_sums_of_paths_have_the_law_of_the_sum(name, over):
    forecast = made(name)
    total = forecast.aggregate("sum", n_paths=3000, random_state=5, over=over)
    n = 20_000 if total.exact else 3000
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
    for horizon, n in ((HORIZON, 2000), (1, 1_000_000)):
        forecast = row.fitted.forecast(horizon, n_paths=200, random_state=0)
        p = forecast._backend.probs()
        assert_allclose(p.sum(-1), 1.0, atol=1e-6)
        draws = forecast._paths(n, 3) if n < 10_000 else forecast._backend.sample(n, torch.Generator().manual_seed(3))
        share = np.stack([(draws == code).mean(0) for code in range(p.shape[-1])], -1)
        few = np.sqrt(p * (1 - p) / 200) if forecast.backend == "paths" else 0.0
        assert (np.abs(share - p) <= 5 * (np.sqrt(p * (1 - p) / n) + few) + 1e-6).all()
