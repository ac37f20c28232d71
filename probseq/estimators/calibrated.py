"""Estimators around an estimator: fitted to one part of the data, and corrected by the other."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import xarray as xr
from sklearn.base import BaseEstimator, clone

from probseq._types import number_in
from probseq.data.sequences import Sequences, sequences
from probseq.errors import ParameterError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING, _UnfittedError, check_y
from probseq.estimators.held_part import hold_out
from probseq.estimators.predicting import check_asked
from probseq.results.forecast import Forecast

__all__ = ["Calibrated", "HeldOutFit"]


class HeldOutFit(BaseEstimator):
    """A copy of a model, and the data that it has not seen."""

    model: Any
    calibration_share: float
    estimator_: SequenceEstimator
    _rest: Sequences
    _past: Sequences | None
    _seen_data: Sequences | None

    def _fit_model(self, X: Any, y: Any, lengths: Any, covariates: Any, calibration: Any) -> SequenceEstimator:
        """Fit a copy of the model to what is not held out; remember what is."""
        self.__dict__.pop("estimator_", None)  # a fit that fails leaves nothing half fitted
        estimator = self._estimator()
        number_in("calibration_share", self.calibration_share, "(0, 1)", "Try 0.3.")
        data = sequences(X, lengths=lengths, covariates=covariates)
        check_y(y, data)
        model: SequenceEstimator = clone(estimator)
        if calibration is None:
            first, rest, past = hold_out(data, self.calibration_share)
        else:
            first, past = data, None
            rest = sequences(calibration, vocabulary=data.vocabulary)
        self._check_held(data if calibration is None else rest)
        model._fit(first, None, None, None, None)
        self._rest, self._past = model._read(rest), past
        self._seen_data = None if calibration is not None else data
        self.n_features_in_ = data.n_variables
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(model, "feature_names_in_"):
            self.feature_names_in_ = model.feature_names_in_
        return model

    def _check_held(self, data: Sequences) -> None:
        """Raise for data that the correction cannot be learnt from."""

    def _estimator(self) -> SequenceEstimator:
        from probseq.estimators.hmm import HMM

        estimator = HMM() if self.model is None else self.model
        if not isinstance(estimator, SequenceEstimator):
            raise ParameterError(
                got=f"model={self.model!r}",
                expected="an estimator of probseq",
                remedy=f"Write ps.{type(self).__name__}(ps.HMM(n_states=3)).",
            )
        return estimator

    def _history(self, history: Any) -> Any:
        """All data of the fit for ps.TRAINING, also those that the model was not fitted to."""
        if history is TRAINING and self._seen_data is not None:
            return self._seen_data
        return history

    def _check_fitted(self) -> None:
        if not self.__sklearn_is_fitted__():
            raise _UnfittedError(
                got=f"a {type(self).__name__} that is not fitted", expected="a fitted one", remedy="Call fit(X)."
            )

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags


class Calibrated(HeldOutFit, ABC):
    """A law that is corrected by what the model has not seen, with predictions in the way of all estimators."""

    @abstractmethod
    def predictive(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> Forecast:
        """The one-step-ahead predictive distribution of every row of X, given the rows before it."""

    @abstractmethod
    def forecast(self, horizon: int, history: Any = TRAINING, *, covariates: Any = None) -> Forecast:
        """The predictive distribution of the next ``horizon`` steps."""

    def predict(
        self,
        X: Any = None,
        *,
        horizon: int | None = None,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = ...,
    ) -> xr.DataArray:
        """Medians: of every row of X given those before it, or of the next ``horizon`` steps."""
        check_asked(X, horizon)
        if horizon is not None:
            past = TRAINING if history is ... else history
            found = self.forecast(horizon, past, covariates=covariates)
        else:
            past = None if history is ... else history
            found = self.predictive(X, lengths=lengths, covariates=covariates, history=past)
        return found.median().rename("prediction").drop_vars("quantile", errors="ignore")
