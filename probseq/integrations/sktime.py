"""The ways to sktime and back: our models as its forecasters, and its forecasters in our comparisons."""

from __future__ import annotations

from typing import Any

from probseq.errors import DataTypeError, UnsupportedError
from probseq.integrations.foreign_sktime import ForeignSktime

__all__ = ["from_sktime", "to_sktime"]


def to_sktime(estimator: Any = None, n_paths: int = 2000) -> Any:
    """An estimator as a forecaster of sktime, for its pipelines, tuning, ensembles, hierarchies and evaluation.

    Parameters
    ----------
    estimator : estimator of probseq
        Any family, ``Average``, ``Conformal`` or ``Recalibrated``; it stays as it is, copies are fitted. None is
        ``ps.ARMA((1, 0))``.
    n_paths : int
        How many paths a forecast without a closed form is made of.

    Returns
    -------
    probseq.integrations.sktime_forecaster.SktimeForecaster
        With ``fit``, ``predict``, ``predict_quantiles``, ``predict_interval``, ``predict_var``, ``predict_proba`` (a
        distribution of skpro) and ``update``. Its tags say what the estimator takes: several variables, covariates
        (``X``), missing values. ``update(y, update_params=False)`` moves the state in constant time;
        ``update_params=True``, the default of sktime, fits anew. The fitted model is ``estimator_``.

    Raises
    ------
    ParameterError
        For what is no estimator of one sequence.
    UnsupportedError
        Without sktime.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.lake_huron().to_series()
    >>> forecaster = ps.to_sktime(ps.ARMA((1, 0))).fit(y[:-10])
    >>> forecaster.predict_interval(fh=[1, 2, 3], coverage=[0.5, 0.9]).shape
    (3, 4)
    >>> forecaster.update(y[-10:], update_params=False).predict(fh=[1]).index[0].item()
    1973
    """
    try:
        from probseq.integrations.sktime_forecaster import SktimeForecaster
    except ImportError as error:
        raise UnsupportedError(
            got="to_sktime without sktime", expected="sktime", remedy="Install it: pip install sktime skpro."
        ) from error
    return SktimeForecaster(estimator, n_paths)


def from_sktime(forecaster: Any, refit: bool = True, normal: bool = False) -> ForeignSktime:
    """A forecaster of sktime for ``compare`` and ``backtest``, beside models of probseq.

    Parameters
    ----------
    forecaster : forecaster of sktime
        With prediction intervals or quantiles (its tag ``capability:pred_int``); it stays as it is. For ``refit=False``
        either fitted already, or by ``fit(y)`` of what is returned, which takes one sequence in any form.
    refit : bool
        True fits a copy to all values before every step that is asked for: right for every forecaster, and as slow as
        so many fits. Its parameters then learn from the values that others are only tested on. False keeps the
        parameters and hands new values to ``update(update_params=False)``, which only some forecasters truly take in
        (``SARIMAX``, ``UnobservedComponents`` and others of statsmodels do); those that say that they do not raise.
    normal : bool
        Whether to take the law for normal, with the forecaster's mean and variance: it then has a density, and its
        log score. Otherwise the forecast is known by 45 quantiles, and compared by CRPS, pinball loss and coverage.

    Returns
    -------
    ForeignForecaster

    Raises
    ------
    DataTypeError
        For what is no forecaster of sktime.
    UnsupportedError
        For a forecaster of single numbers.

    Examples
    --------
    >>> import warnings
    >>> warnings.simplefilter("ignore", FutureWarning)  # sktime announces its next version
    >>> from sktime.forecasting.sarimax import SARIMAX
    >>> import probseq as ps
    >>> train, test = ps.split(ps.datasets.lake_huron(), horizon=20)
    >>> theirs = ps.from_sktime(SARIMAX(order=(1, 0, 0), trend="c"), refit=False, normal=True).fit(train)
    >>> found = ps.compare({"sarimax": theirs, "arma": ps.ARMA((1, 0)).fit(train)}, test, history=train)
    >>> bool(abs(found.table["nats"].diff().iloc[1]) < 0.01)
    True
    """
    if not hasattr(forecaster, "predict_quantiles") or isinstance(forecaster, type):
        raise DataTypeError(
            got=f"{forecaster!r}",
            expected="a forecaster of sktime",
            remedy="Write its parentheses." if isinstance(forecaster, type) else "Pass the forecaster itself.",
        )
    if not forecaster.get_tag("capability:pred_int"):
        raise UnsupportedError(
            got=f"a {type(forecaster).__name__}, which forecasts single numbers",
            expected="a forecaster with intervals: its tag capability:pred_int",
            remedy="Put sktime's NaiveVariance or ConformalIntervals around it.",
        )
    return ForeignSktime(forecaster, refit, normal)
