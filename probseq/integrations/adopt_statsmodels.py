"""Results of statsmodels' time-series models, as fitted models of this library."""

from __future__ import annotations

from typing import Any

from probseq.errors import DataTypeError, NotFittedError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.integrations.statsmodels_space import adopt_state_space

__all__ = ["from_statsmodels"]

_EXPECTED = "fitted results of ARIMA, SARIMAX, VARMAX, UnobservedComponents or another state-space model of statsmodels"


def from_statsmodels(results: Any, exact_diffuse: bool = False) -> SequenceEstimator:
    """A fitted model with the law that statsmodels found: the same forecasts and one-step densities, to rounding.

    The model continues the data of the fit under their names and dates. ``params_``, ``standard_errors_`` and the
    number of parameters are those of the results.

    A state-space model keeps its start. Where that is approximately diffuse (the default of statsmodels: a variance of
    1e6, or the ``initial_variance``), so it is here, and the first ``loglikelihood_burn`` steps, which statsmodels
    leaves out of ``llf``, are not scored: ``log_likelihood_`` is ``llf``. Where it is exactly diffuse
    (``use_exact_diffuse=True``), values whose predictive is diffuse are not scored here, while ``llf`` counts
    -log(2 pi F_inf) / 2 for each; over all others both agree.

    Parameters
    ----------
    results : statsmodels results
        Of ``ARIMA``, ``SARIMAX``, ``VARMAX``, ``UnobservedComponents`` or another state-space model whose matrices do
        not change in time; intercepts may, with a polynomial trend and, in the four that are named, with regressors.
    exact_diffuse : bool
        Replaces an approximately diffuse start by the exact one. Likelihood and forecasts then differ from those of
        statsmodels, by about the variance of the data over 1e6.

    Returns
    -------
    StateSpaceModel
        Not to be fitted again. Regressors are covariates, whose future values ``forecast`` asks for.

    Raises
    ------
    DataTypeError
        For anything else.
    NotFittedError
        For a model in place of its results, or results without their data.
    UnsupportedError
        For matrices that change in time (``mle_regression=False``, ``time_varying_regression``),
        ``simple_differencing``, and regressors in other models than those named.

    Examples
    --------
    >>> import probseq as ps
    >>> from statsmodels.tsa.arima.model import ARIMA
    >>> theirs = ARIMA(ps.datasets.lake_huron().to_series(), order=(2, 0, 0)).fit()
    >>> ours = ps.from_statsmodels(theirs)
    >>> bool(abs(ours.forecast(3).mean().values - theirs.forecast(3)).max() < 1e-9)
    True
    """
    plain = getattr(results, "_results", results)
    kinds = {cls.__name__ for cls in type(plain).__mro__ if cls.__module__.partition(".")[0] == "statsmodels"}
    if kinds & {"MLEModel", "MarkovSwitching", "Representation"}:
        raise NotFittedError(
            got=f"a {type(plain).__name__}", expected=_EXPECTED, remedy="Pass what its fit() or smooth(params) returns."
        )
    if "MLEResults" not in kinds or not hasattr(plain, "filter_results"):
        raise DataTypeError(got=f"a {type(plain).__name__}", expected=_EXPECTED, remedy="Pass the results themselves.")
    if plain.model is None or getattr(plain.model, "endog", None) is None or plain.filter_results is None:
        raise NotFittedError(
            got=f"{type(plain).__name__} without their data",
            expected="results that still hold them",
            remedy="Save them with remove_data=False.",
        )
    if getattr(plain.model, "simple_differencing", False):
        raise UnsupportedError(
            got="simple_differencing=True: results for the differences of the data",
            expected="results for the data",
            remedy="Fit with simple_differencing=False.",
        )
    return adopt_state_space(plain, exact_diffuse)
