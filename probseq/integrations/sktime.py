"""The way to sktime: models of probseq as its forecasters."""

from __future__ import annotations

from typing import Any

from probseq.errors import UnsupportedError

__all__ = ["to_sktime"]


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
            got="to_sktime without sktime", expected="sktime", remedy='Install it: pip install "probseq[interop]".'
        ) from error
    return SktimeForecaster(estimator, n_paths)
