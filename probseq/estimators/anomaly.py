"""Anomalies with a known rate of false alarms: a model, and what surprised it in ordinary data."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import xarray as xr

from probseq._types import number_in, truth_value
from probseq.data.sequences import Sequences
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.calibrated import HeldOutFit

__all__ = ["AnomalyDetector"]


class AnomalyDetector(HeldOutFit):
    r"""Step t is an anomaly if -log p(x_t | x_{<t}) exceeds what ordinary data exceed at the rate asked for.

    The model is fitted to one part of the data, its surprise in the rest calibrates the threshold (split conformal
    prediction, Vovk et al. 2005): a step that is exchangeable with those of the calibration is flagged with probability
    at most ``false_alarm_rate``, whatever the model. Steps of one series are exchangeable only as far as the model is
    right. A value that is missing is never flagged.

    Parameters
    ----------
    model : estimator
        Any family; it is copied. None is ``ps.HMM()``.
    false_alarm_rate : float
        False alarms per ordinary step, in (0, 1).
    calibration_share : float
        The share of the data that calibrates, in (0, 1): the last steps of one sequence, every so many of many
        sequences. Not used where ``fit`` gets ``calibration=``.
    outlier_labels : bool
        Whether ``predict`` returns scikit-learn's -1 (anomaly) and 1 (ordinary) in place of True and False.

    Attributes
    ----------
    estimator_ : fitted model
    threshold_ : float
        Surprise in nats above which a step is an anomaly.
    calibration_ : array
        Surprises of the scored calibration steps.
    variable_calibration_ : list of arrays
        Surprises of each variable by itself in the calibration steps.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.random.default_rng(0).normal(size=400)
    >>> detector = ps.AnomalyDetector(ps.IID(), false_alarm_rate=0.01).fit(x)
    >>> detector.predict([0.2, 9.0, float("nan")]).values
    array([False,  True, False])
    """

    def __init__(
        self,
        model: Any = None,
        false_alarm_rate: float = 0.01,
        calibration_share: float = 0.3,
        outlier_labels: bool = False,
    ) -> None:
        self.model = model
        self.false_alarm_rate = false_alarm_rate
        self.calibration_share = calibration_share
        self.outlier_labels = outlier_labels

    def fit(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, calibration: Any = None
    ) -> Self:
        """Fit the model and its threshold to ordinary data.

        Parameters
        ----------
        X : data in any form, one sequence or many
        y : ignored
        lengths, covariates
            As in the model's own ``fit``.
        calibration : data in any form, or None
            Ordinary sequences of their own; None takes a share of X, which the model is then not fitted to.

        Raises
        ------
        DataError
            For fewer than 1 / false_alarm_rate - 1 scored calibration steps, which allow no such threshold.
        ParameterError
            For what is no estimator, and arguments outside their range.
        """
        number_in("false_alarm_rate", self.false_alarm_rate, "(0, 1)", "Write 0.01 for one in a hundred.")
        truth_value("outlier_labels", self.outlier_labels)
        model, rest, past = self._fit_model(X, y, lengths, covariates, calibration)
        threshold = model.surprise_threshold(rest, self.false_alarm_rate, history=past)
        each = _by_step(model.surprise(rest, history=past), rest)
        variables = _by_variable(model.surprise(rest, per="variable", history=past), rest)
        self.estimator_, self.threshold_ = model, threshold
        self.calibration_ = np.sort(each[~np.isnan(each)])
        self.variable_calibration_ = [np.sort(v[~np.isnan(v)]) for v in np.moveaxis(variables, -1, 0)]
        return self

    def _found(self) -> dict[str, Any]:
        return {"threshold": self.threshold_, "steps": self.calibration_, "variables": self.variable_calibration_}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        super()._revive(members, found)
        self.threshold_, self.calibration_ = found["threshold"], found["steps"]
        self.variable_calibration_ = found["variables"]

    def anomalies(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.Dataset:
        """Which steps are anomalies, and which variable made them so.

        Parameters
        ----------
        history : None, ps.TRAINING or data
            What came before X; ps.TRAINING is all data of the fit, the calibration too where it was a share of them.

        Returns
        -------
        Dataset with ``surprise`` and ``p_value`` of each step and ``anomaly`` = (p_value <= false_alarm_rate), dims
        ``sequence, time``; ``variable_surprise`` and ``variable_p_value`` of each variable by itself, -log p(x_ti |
        x_<t), with ``variable`` besides; and ``most_surprising``, the variable with the smallest p-value (the one
        furthest above its own calibration among equals), "" where nothing is scored.
        """
        self._check_fitted()
        model = self._asked(history)
        data = model._read(X, lengths, covariates)
        found = model.anomalies(data, self.calibration_, rate=self.false_alarm_rate, history=history)
        each = _by_variable(model.surprise(data, per="variable", history=history), data)
        p = np.full(each.shape, np.nan)
        excess = np.full(each.shape, -np.inf)
        for i, known in enumerate(self.variable_calibration_):
            scored = ~np.isnan(each[..., i])
            if not known.size:
                continue
            above = len(known) - np.searchsorted(known, each[..., i][scored], side="left")
            p[..., i][scored] = (1 + above) / (len(known) + 1)
            with np.errstate(invalid="ignore"):  # impossible as some ordinary values were
                excess[..., i][scored] = np.nan_to_num(each[..., i][scored] - known[-1], nan=0.0, posinf=np.inf)
        lowest = np.where(np.isnan(p), np.inf, p)
        tied = np.where(lowest == lowest.min(-1, keepdims=True), excess, -np.inf)
        names = np.asarray([str(v) for v in data.variables], dtype=object)
        most = np.where(np.isnan(p).all(-1), "", names[np.argmax(tied, -1)])
        dims = ("sequence", "time")
        parts = {
            "variable_surprise": data.label(each, (*dims, "variable"), name="variable_surprise"),
            "variable_p_value": data.label(p, (*dims, "variable"), name="variable_p_value"),
            "most_surprising": data.label(most, dims, name="most_surprising"),
        }
        return found.assign(parts)

    def predict(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """Whether each step is an anomaly, dims ``sequence, time``: True, or -1 with ``outlier_labels`` (else 1)."""
        below = self.decision_function(X, lengths=lengths, covariates=covariates, history=history) < 0
        below.attrs = {}  # answers have no unit
        if not self.outlier_labels:
            return below.rename("anomaly")
        return xr.where(below, -1, 1).rename("outlier").assign_coords(below.coords)

    def score_samples(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """log p(x_t | x_<t) in nats, dims ``sequence, time``: the lower, the less ordinary; NaN where not scored."""
        self._check_fitted()
        found = self._asked(history).surprise(X, lengths=lengths, covariates=covariates, history=history)
        return (-found).rename("score").assign_attrs(unit="nats")

    def decision_function(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """``score_samples`` plus the threshold, nats: below 0 for anomalies, NaN where nothing is scored."""
        found = self.score_samples(X, lengths=lengths, covariates=covariates, history=history)
        if np.isposinf(self.threshold_):  # ordinary data were impossible as often as alarms may be false
            return xr.where(np.isneginf(found), 0.0, found + np.inf).rename("decision")
        return (found + self.threshold_).rename("decision")


def _by_step(surprise: xr.DataArray, data: Sequences) -> np.ndarray:
    return np.asarray(surprise.values, dtype=float).reshape(data.values.shape[:2])


def _by_variable(surprise: xr.DataArray, data: Sequences) -> np.ndarray:
    return np.asarray(surprise.values, dtype=float).reshape(data.values.shape)
