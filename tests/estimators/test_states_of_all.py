"""Every emission and chain answers for its states, its missing values and its residuals."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import special

from probseq.errors import DataError, UnsupportedError
from probseq.estimators.states import StateMethods
from probseq.models.wrappers import innermost
from probseq.testing.registry import ROWS

STATES = [row for row in ROWS if isinstance(row.make(), StateMethods)]


@pytest.fixture(autouse=True)
def close_figures():
    yield
    plt.close("all")


@pytest.fixture(params=STATES, ids=lambda row: row.name)
def row(request):
    return request.param


def test_paths_counts_and_order(row):
    x, u, fitted = row.values(12, seed=3), row.inputs(12, seed=3), row.fitted
    best, most = fitted.decode(x, k=3, covariates=u), fitted.decode(x, covariates=u)
    assert (best.isel(path=0) == most).all()
    assert (best["probability"] <= 1 + 1e-9).all()
    counts = fitted.expected_counts(x, covariates=u)
    smoothed = fitted.smooth(x, covariates=u).sum("time")
    assert_allclose(counts["occupancy"], smoothed, atol=1e-9)
    named = fitted.label_states([f"s{i}" for i in range(innermost(fitted.model_.model).n_states)])
    assert named.smooth(x, covariates=u)["state"].values[0] == "s0"


def test_residuals(row):
    x, u, fitted = row.values(12, seed=3), row.inputs(12, seed=3), row.fitted
    law = fitted.predictive(x, covariates=u)
    if law._backend.nominal:
        with pytest.raises(UnsupportedError):
            fitted.residuals(x, covariates=u)
        return
    try:
        z = fitted.residuals(x, covariates=u)
    except UnsupportedError as error:
        assert "total" in str(error)
        return
    assert z.sizes["time"] == 12
    assert np.isnan(z.values[: row.start]).all()
    assert np.isfinite(z.values[row.start :]).any()
    if row.start or row.missing == "forbidden":
        return
    ordinary = fitted.residuals(x, "ordinary", covariates=u)
    # With one step there are no others.
    one = None if u is None else u[:1]
    alone = fitted.residuals(x[:1], "ordinary", covariates=one)
    assert_allclose(special.ndtr(alone), special.ndtr(fitted.residuals(x[:1], covariates=one)), atol=1e-9)
    assert np.isfinite(ordinary.values).any()
    axes = fitted.plot_residuals(x, covariates=u)
    assert len(axes) == 4


def test_missing_values(row):
    x, u, fitted = row.values(12, seed=3), row.inputs(12, seed=3), row.fitted
    x = x.copy()
    x[5] = np.nan
    if row.missing == "forbidden":
        with pytest.raises(DataError):
            fitted.impute(x, covariates=u)
        return
    if row.n_variables > 1 and fitted.model_.observation.n_categories is None and "Multinomial" not in row.name:
        x[8, 0] = np.nan
    try:
        filled = fitted.impute(x, covariates=u)
        paths = fitted.impute(x, n_draws=200, covariates=u, random_state=0)
    except UnsupportedError as error:
        # Unknown totals, scales taken from the values themselves, and bits that hang together.
        assert any(reason in str(error) for reason in ("total", "ContextScale", "AutoregressiveBits"))
        return
    known = ~np.isnan(x).reshape(filled.shape)
    assert_allclose(filled.values[known], x[~np.isnan(x)])
    assert np.isfinite(filled.values.astype(float)).all() and np.isfinite(paths.values.astype(float)).all()
    if not fitted.model_.observation.n_categories and "VonMises" not in row.name:
        gone = ~known
        mean, error = paths.values.mean(0)[gone], paths.values.std(0)[gone] / np.sqrt(200)
        assert (np.abs(mean - filled.values[gone]) <= 5 * error + 1e-9).all()


def test_pictures(row):
    x, u, fitted = row.values(12, seed=3), row.inputs(12, seed=3), row.fitted
    fitted.plot_states(x, covariates=u)
    try:
        ax = fitted.plot_emissions(x, covariates=u)
    except UnsupportedError as error:
        assert "total" in str(error)
        return
    for line in ax.lines:
        assert np.isfinite(np.asarray(line.get_ydata(), float)).all()
    try:
        fitted.plot_transitions()
    except UnsupportedError as error:
        assert "covariate" in str(error).lower()
