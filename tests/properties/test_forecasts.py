"""Properties of forecasts over all backends: quantile, interval, cdf, pit and sample are one law."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from probseq.data.sequences import sequences
from probseq.distributions.bijections import Affine, BoxCoxInverse, Exponential
from probseq.distributions.categorical import Bits
from probseq.distributions.compose import mixture, push
from probseq.distributions.counts import PoissonCounts
from probseq.distributions.gaussian import DiagonalNormal, DiagonalStudentT, FullNormal
from probseq.results import Forecast
from probseq.results.backends import LawBackend

T = 2
pytestmark = pytest.mark.filterwarnings("ignore:.* takes the steps as independent:probseq.errors.ApproximationWarning")


def tensor(draw, low, high, *shape):
    size = int(np.prod(shape))
    values = draw(st.lists(st.floats(low, high, allow_nan=False), min_size=size, max_size=size))
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def base_law(draw, kind, *batch):
    loc, scale = tensor(draw, -3, 3, *batch, 1), tensor(draw, 0.2, 3, *batch, 1)
    if kind == "normal":
        return DiagonalNormal(loc=loc, scale=scale)
    if kind == "full":
        return FullNormal(loc=loc, scale_tril=scale.unsqueeze(-1))
    if kind == "student":
        return DiagonalStudentT(df=tensor(draw, 1.1, 20, *batch, 1), loc=loc, scale=scale)
    if kind == "poisson":
        return PoissonCounts(rate=tensor(draw, 0.05, 30, *batch, 1))
    if kind == "bits":
        return Bits(logit=loc)
    if kind == "lognormal":
        return push(DiagonalNormal(loc=loc, scale=scale.clamp_max(1.0)), Exponential(-1.0))
    if kind == "boxcox":
        return push(DiagonalNormal(loc=loc, scale=scale), BoxCoxInverse(0.5))
    return push(DiagonalStudentT(df=torch.full_like(loc, 5.0), loc=loc, scale=scale), Affine(loc[0], scale[0]))


KINDS = ["normal", "full", "student", "poisson", "bits", "lognormal", "boxcox", "shifted"]


@st.composite
def forecasts(draw):
    labels = sequences(np.zeros(T))
    backend = draw(st.sampled_from(["analytic", "mixture", "paths", "quantiles"]))
    if backend == "paths":
        n = draw(st.integers(2, 30))
        values = draw(st.lists(st.integers(-5, 5), min_size=n * T, max_size=n * T))
        return Forecast.from_paths(np.array(values, dtype=float).reshape(n, T), discrete=draw(st.booleans()))
    if backend == "quantiles":
        levels = sorted(draw(st.sets(st.sampled_from(np.round(np.arange(0.02, 1, 0.02), 2).tolist()), min_size=2)))
        gaps = draw(st.lists(st.floats(0.01, 2.0), min_size=len(levels) * T, max_size=len(levels) * T))
        return Forecast.from_quantiles(levels, np.cumsum(np.array(gaps).reshape(T, -1), -1))
    kind = draw(st.sampled_from(KINDS))
    if backend == "analytic":
        return Forecast(LawBackend(base_law(draw, kind, 1, T)), labels, labels.index, future=True)
    weights = torch.log_softmax(tensor(draw, -4, 4, 1, T, 3), -1)
    parts = base_law(draw, kind, 1, T, 3)
    return Forecast(LawBackend(mixture(weights, parts), parts, weights.exp()), labels, labels.index, future=True)


levels = st.floats(0.001, 0.999)


@given(forecasts(), levels)
def test_quantile_inverts_cdf(forecast, q):
    x = forecast.quantile(q).values
    inside = forecast.backend != "quantiles" or forecast._backend.levels[0] < q < forecast._backend.levels[-1]
    p = forecast.cdf(x).values
    if inside:
        assert (p >= q - 1e-7).all()
        assert (
            forecast._backend.cdf(x[None, :, None] - 1e-4 * (1 + np.abs(x[None, :, None])))[0, :, 0] <= q + 1e-7
        ).all()
    if not (forecast.discrete or forecast.backend == "paths") and inside:
        assert_allclose(p, q, atol=1e-6)


@given(forecasts(), levels, levels)
def test_quantiles_and_cdf_increase(forecast, one, two):
    low, high = sorted((one, two))
    both = forecast.quantile([low, high]).values
    assert (both[..., 0] <= both[..., 1] + 1e-12).all()
    assert (forecast.cdf(both[..., 0]).values <= forecast.cdf(both[..., 1]).values + 1e-12).all()


@given(forecasts(), st.floats(0.05, 0.95))
def test_interval_covers_what_the_cdf_says(forecast, level):
    interval = forecast.interval(level)
    lower, upper = interval.sel(bound="lower").values, interval.sel(bound="upper").values
    if forecast.backend == "quantiles" and forecast._backend.levels[0] > (1 - level) / 2 - 1e-9:
        return
    if forecast.backend == "quantiles" and forecast._backend.levels[-1] < (1 + level) / 2 + 1e-9:
        return
    below = forecast._backend.cdf(lower[None, :, None], left=True)[0, :, 0]
    covered = forecast.cdf(upper).values - below
    assert (covered >= level - 1e-6).all()
    if not (forecast.discrete or forecast.backend == "paths"):
        assert_allclose(covered, level, atol=2e-6)


@settings(max_examples=20)
@given(forecasts(), st.floats(0.1, 0.9))
def test_shortest_interval_covers_and_is_no_longer(forecast, level):
    if forecast.backend == "quantiles":
        return
    hdi, eti = forecast.interval(level, kind="hdi").values, forecast.interval(level).values
    assert ((hdi[..., 1] - hdi[..., 0]) <= (eti[..., 1] - eti[..., 0]) * (1 + 1e-6) + 1e-9).all()
    below = forecast._backend.cdf(hdi[None, :, None, 0], left=True)[0, :, 0]
    assert (forecast.cdf(hdi[..., 1]).values - below >= level - 1e-5).all()


@settings(max_examples=40)
@given(forecasts(), st.floats(0.05, 0.95))
def test_sample_frequencies(forecast, q):
    n = 2000
    x = forecast.quantile(q).values
    draws = forecast.sample(n, random_state=1).values
    p = np.clip(forecast.cdf(x).values, 0, 1)
    share = (draws <= x + 1e-9 * (1 + np.abs(x))).mean(0)
    if forecast.backend == "quantiles":
        # At an end of the levels the quantile function is flat: mass sits on the last value.
        edge = (q <= forecast._backend.levels[0]) | (q >= forecast._backend.levels[-1])
        if edge:
            return
    assert (np.abs(share - p) <= 5 * np.sqrt(p * (1 - p) / n) + 2 / n).all()


@given(forecasts(), st.integers(0, 9))
def test_pit_lies_between_the_left_and_the_right_cdf(forecast, y):
    values = np.full(T, float(y))
    pit = forecast.pit(values).values
    left = forecast._backend.cdf(values[None, :, None], left=True)[0, :, 0]
    assert (pit <= forecast.cdf(values).values + 1e-12).all() and (pit >= left - 1e-12).all()


@pytest.mark.filterwarnings("ignore:The (variance|std):probseq.errors.ApproximationWarning")
@given(forecasts())
def test_variance_is_the_square_of_std(forecast):
    variance, std = forecast.var().values, forecast.std().values
    finite = np.isfinite(variance)
    assert (variance[finite] >= -1e-9).all()
    assert_allclose(np.where(finite, std, 0.0) ** 2, np.where(finite, variance, 0.0), rtol=1e-9, atol=1e-12)


@pytest.mark.filterwarnings("ignore:The (variance|std):probseq.errors.ApproximationWarning")
@settings(max_examples=30)
@given(forecasts(), st.floats(-4, 8))
def test_crps_is_the_integral_of_its_definition(forecast, y):
    if forecast.discrete:
        y = float(round(abs(y)))
    value = forecast.crps(np.full(T, y)).values
    assert np.isfinite(value).all() and (value >= -1e-9).all()
    draws = forecast.sample(4000, random_state=2).values
    halves = np.abs(draws[:2000] - draws[2000:])
    terms = np.abs(draws[:2000] - y) - 0.5 * halves
    if np.isfinite(forecast.var().values).all():
        error = terms.std(0) / 2000**0.5
        assert (np.abs(terms.mean(0) - value) <= 6 * error + 0.02 * (1 + np.abs(value))).all()


@settings(max_examples=30)
@given(forecasts(), st.sampled_from(["sum", "mean", "max", "min"]))
def test_aggregate_is_that_of_the_paths(forecast, how):
    total = forecast.aggregate(how, n_paths=50, random_state=3)
    paths = getattr(np, how)(forecast.sample(50, random_state=3).values, axis=1)
    assert total.n_steps == 1
    assert_allclose(total.mean().values, [paths.mean()], rtol=1e-9, atol=1e-12)


@given(forecasts())
def test_variance_decomposes(forecast):
    if forecast.backend != "mixture":
        with pytest.raises(TypeError, match="two parameter draws"):
            forecast.decompose()
        return
    parts = forecast.decompose()
    finite = np.isfinite(parts["total"].values)
    assert (parts["epistemic"].values[finite] >= -1e-6 * (1 + parts["total"].values[finite])).all()
    both = parts["aleatoric"] + parts["epistemic"]
    assert_allclose(both.values[finite], parts["total"].values[finite], rtol=1e-9)
