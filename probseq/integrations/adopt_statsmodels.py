"""Results of statsmodels' time-series models, as fitted models of this library."""

from __future__ import annotations

from typing import Any

from probseq.errors import DataTypeError, NotFittedError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.integrations.statsmodels_regimes import adopt_regimes
from probseq.integrations.statsmodels_space import adopt_state_space

__all__ = ["from_statsmodels"]

_EXPECTED = (
    "fitted results of ARIMA, SARIMAX, VARMAX, UnobservedComponents, another state-space model, MarkovAutoregression "
    "or MarkovRegression of statsmodels"
)


def from_statsmodels(results: Any, native: bool = False) -> SequenceEstimator:
    """A fitted model with the law that statsmodels found: the same forecasts and one-step densities, to rounding.

    The model continues the data of the fit under their names and dates. ``params_`` and the number of parameters are
    those of the results, for state spaces ``standard_errors_`` too.

    A state-space model keeps its start. Where that is approximately diffuse (the default of statsmodels: a variance of
    1e6, or the ``initial_variance``), so it is here, and the first ``loglikelihood_burn`` steps, which statsmodels
    leaves out of ``llf``, are not scored: ``log_likelihood_`` is ``llf``. Where it is exactly diffuse
    (``use_exact_diffuse=True``), values whose predictive is diffuse are not scored here, while ``llf`` counts
    -log(2 pi F_inf) / 2 for each; over all others both agree.

    A Markov-switching autoregression conditions on its first ``order`` values, as statsmodels does, which cuts them off
    its results; here they are part of the data, not scored. Forecasts of the first step are exact, those further ahead
    are paths. Where variances switch, statsmodels takes that of the regime ``order - 1`` steps ago, and so does this.

    Parameters
    ----------
    results : statsmodels results
        Of ``ARIMA``, ``SARIMAX``, ``VARMAX``, ``UnobservedComponents`` or another state-space model whose matrices do
        not change in time; intercepts may, with a polynomial trend and, in the four that are named, with regressors.
        Of ``MarkovAutoregression`` without regressors or ``MarkovRegression``, with a constant or without.
    native : bool
        True gives a model of this library's own where there is one of that specification: `ARMA` for ``ARIMA`` and
        ``SARIMAX``, `LocalLevel` and `LocalTrend` for ``UnobservedComponents``, with their methods, the names of their
        parameters and fits of their own. Any approximately diffuse start becomes exact: likelihood and forecasts then
        differ from those of statsmodels, by about the squares of the data over its 1e6; without one they are equal.

    Returns
    -------
    StateSpaceModel or RegimeModel
        Not to be fitted again (another family where ``native`` finds one is). Regressors are covariates, whose future
        values ``forecast`` asks for. ``smooth(X)`` gives the hidden states, or the probabilities of the regimes
        (``filter_states`` and ``decode`` too).

    Raises
    ------
    DataTypeError
        For anything else.
    NotFittedError
        For a model in place of its results, or results without their data.
    UnsupportedError
        For matrices that change in time (``mle_regression=False``, ``time_varying_regression``),
        ``simple_differencing``, regressors in other models than those named, and Markov switching with ``exog_tvtp`` or
        a trend in time.

    Examples
    --------
    >>> import probseq as ps
    >>> from statsmodels.tsa.arima.model import ARIMA
    >>> theirs = ARIMA(ps.datasets.lake_huron().values, order=(2, 0, 0)).fit()
    >>> ours = ps.from_statsmodels(theirs)
    >>> bool(abs(ours.forecast(3).mean() - theirs.forecast(3)).max() < 1e-9)
    True
    """
    plain = getattr(results, "_results", results)
    kinds = {cls.__name__ for cls in type(plain).__mro__ if cls.__module__.partition(".")[0] == "statsmodels"}
    if kinds & {"MLEModel", "MarkovSwitching", "Representation"}:
        raise NotFittedError(
            got=f"a {type(plain).__name__}", expected=_EXPECTED, remedy="Pass what its fit() or smooth(params) returns."
        )
    if "MarkovSwitchingResults" in kinds:
        return adopt_regimes(plain)
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
    return adopt_state_space(plain, native)
