"""Draws with location and scale integrated out, against dense normals, grids and the closed form of regression."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose
from scipy import integrate, stats
from statsmodels.tsa.arima_process import ArmaProcess

import probseq as ps
from probseq.distributions.emissions import Observation
from probseq.errors import EmptyDataError, IncompatibleError, ParameterError
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch


def batch_of(*rows: np.ndarray, u: np.ndarray | None = None) -> Batch:
    width = max(len(row) for row in rows)
    x = np.zeros((len(rows), width, 1))
    seen = np.zeros(x.shape, dtype=bool)
    for i, row in enumerate(rows):
        seen[i, : len(row), 0] = np.isfinite(row)
        x[i, : len(row), 0] = np.nan_to_num(row)
    inputs = None if u is None else torch.from_numpy(u)
    return Batch(torch.from_numpy(x), torch.from_numpy(seen), torch.tensor([len(row) for row in rows]), inputs)


def dense(ar: float, ma: float, y: np.ndarray, design: np.ndarray) -> tuple[float, np.ndarray]:
    """The integrated likelihood up to a constant and the generalised least-squares estimate, by matrices."""
    gamma = np.array([1 + 2 * ar * ma + ma**2, *((1 + ar * ma) * (ar + ma) * ar ** np.arange(len(y) - 1.0))]) / (
        1 - ar**2
    )
    cov = gamma[np.abs(np.subtract.outer(np.arange(len(y)), np.arange(len(y))))]
    seen = np.isfinite(y)
    cov, y, design = cov[seen][:, seen], y[seen], design[seen]
    inverse = np.linalg.inv(cov)
    gram = design.T @ inverse @ design
    beta = np.linalg.solve(gram, design.T @ inverse @ y)
    rest = (y - design @ beta) @ inverse @ (y - design @ beta)
    df = len(y) - design.shape[1]
    parts = np.linalg.slogdet(cov)[1] + np.linalg.slogdet(gram)[1] + df * np.log(rest)
    return -0.5 * parts, beta


@pytest.mark.parametrize("holes", [(), (4, 5, 17)])
def test_integral_is_that_of_the_dense_normal(holes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    y, u = 3 + rng.normal(size=30), rng.normal(size=(1, 30, 2))
    y[list(holes)] = np.nan
    model = ARMAModel(Observation(1), (1, 0, 1), (0, 0, 0, 1), True, 2)
    profile = model.integrated(batch_of(y, u=u))
    design = np.column_stack([np.ones(30), u[0]])
    points = [np.array([0.3, 0.2]), np.array([1.5, -0.4]), np.array([-0.6, 0.9])]
    ours = [profile.integrated(x) for x in points]
    coefficients = [profile.parameters_at(x, np.ones(4)) for x in points]
    theirs = [dense(float(one["ar"]), float(one["ma"]), y, design) for one in coefficients]
    values = np.array([one.log_prob for one in ours])
    assert_allclose(np.diff(values), np.diff([value for value, _ in theirs]), rtol=1e-9, atol=1e-9)
    for one, (_, beta) in zip(ours, theirs):
        centred = np.append(one.location[0] + profile.centre, one.location[1:])
        assert_allclose(centred, beta, rtol=1e-8)
        assert one.df == 27 - len(holes)


def test_white_noise_has_the_law_of_student() -> None:
    # Without coefficients the posterior is exact: the mean is Student t, the variance inverse chi-squared.
    y = np.random.default_rng(1).normal(5, 2, size=12)
    model = ps.ARMA(order=(0, 0), inference=ps.Collapsed(n_draws=40_000), random_state=0).fit(y)
    mean, scale = (model.params_[name].values for name in ("mean", "scale"))
    t = (mean - y.mean()) / (y.std(ddof=1) / np.sqrt(12))
    assert stats.kstest(t, stats.t(11).cdf).pvalue > 1e-3
    assert stats.kstest(11 * y.var(ddof=1) / scale**2, stats.chi2(11).cdf).pvalue > 1e-3
    law = model.forecast(1)
    exact = stats.t(11, y.mean(), y.std(ddof=1) * np.sqrt(1 + 1 / 12))
    assert_allclose(law.quantile([0.05, 0.95]).values.ravel(), exact.ppf([0.05, 0.95]), atol=0.06)


def test_draws_follow_the_posterior_on_a_grid() -> None:
    rng = np.random.default_rng(2)
    y = ArmaProcess([1, -0.8], [1]).generate_sample(35, distrvs=rng.standard_normal)
    model = ps.ARMA(order=(1, 0), inference=ps.Collapsed(n_draws=4000, n_proposals=4000), random_state=0).fit(y)
    rho = model.params_["ar"].values[:, 0]
    profile = ARMAModel(Observation(1), (1, 0, 0), (0, 0, 0, 1), True).integrated(batch_of(y))

    def density(r: float) -> float:
        return float(np.exp(profile.integrated(np.array([r / np.sqrt(1 - r * r)])).log_prob - top) / np.sqrt(1 - r * r))

    top = max(profile.integrated(np.array([x])).log_prob for x in np.linspace(-1, 4, 60))
    moments = [
        integrate.quad(lambda r, k=k: r**k * density(r), -1 + 1e-9, 1 - 1e-9, limit=400, epsabs=1e-9)[0]
        for k in range(3)
    ]
    mean = moments[1] / moments[0]
    spread = np.sqrt(moments[2] / moments[0] - mean**2)
    assert_allclose(rho.mean(), mean, atol=5 * spread / np.sqrt(1500))
    assert_allclose(rho.std(), spread, rtol=0.06)


def test_draws_are_valid_repeatable_and_stored(tmp_path: object) -> None:
    y = ps.datasets.air_passengers()[:72]
    new = ps.ARMA(
        order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log(), inference=ps.Collapsed(30), random_state=1
    )
    model, again = new.fit(y), ps.ARMA(**new.get_params(deep=False)).fit(y)
    assert_allclose(model.params_["ma"].values, again.params_["ma"].values, rtol=0)
    assert (np.abs(model.params_["seasonal_ma"].values) < 1).all() and model.params_.sizes["draw"] == 30
    path = f"{tmp_path}/model.ps"
    model.save(path)
    assert_allclose(ps.load(path).forecast(5).std().values, model.forecast(5).std().values)
    wider = (
        model.forecast(12).std()
        / ps.ARMA(order=(0, 1, 1), seasonal_order=(0, 1, 1, 12), transform=ps.Log()).fit(y).forecast(12).std()
    )
    assert (wider > 1).all()


def test_sparse_lags_trend_and_several_series() -> None:
    rng = np.random.default_rng(3)
    rows = [0.1 * np.arange(n) + rng.normal(size=n) for n in (40, 25)]
    model = ps.ARMA(order=([2], 0), trend="ct", inference=ps.Collapsed(50), random_state=0).fit(rows)
    slope = model.params_["trend"].values
    assert abs(slope.mean() - 0.1) < 0.03 and 0.002 < slope.std() < 0.05
    assert model.params_["ar"].shape == (50, 1)


def test_bad_use() -> None:
    with pytest.raises(IncompatibleError, match="ARMA"):
        ps.HMM(2, inference=ps.Collapsed())
    for wrong in ({"n_draws": 0}, {"n_proposals": 10}):
        with pytest.raises(ParameterError):
            ps.ARMA(order=(1, 0), inference=ps.Collapsed(**wrong)).fit(np.arange(9.0) % 4)
    with pytest.raises(EmptyDataError):
        ps.ARMA(order=(1, 0), inference=ps.Collapsed()).fit([1.0, 2.0])
