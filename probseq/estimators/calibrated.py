"""Estimators around an estimator: fitted to one part of the data, and corrected by the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable
from typing import Any

import xarray as xr
from sklearn.base import clone

from probseq._types import number_in
from probseq.data.sequences import Sequences, sequences
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING, check_y
from probseq.estimators.held_part import HeldValues, behind, hold_out
from probseq.estimators.members import Composed
from probseq.estimators.predicting import check_asked
from probseq.results.forecast import Forecast

__all__ = ["Calibrated", "HeldOutFit"]


class HeldOutFit(Composed):
    """A copy of a model, fitted to a part of the data, and corrected by what it has not seen."""

    model: Any
    calibration_share: float
    estimator_: SequenceEstimator
    _continued: SequenceEstimator

    def _fit_model(
        self, X: Any, y: Any, lengths: Any, covariates: Any, calibration: Any
    ) -> tuple[SequenceEstimator, Sequences, Any]:
        """Fit a copy of the model; what is held out, and its history, which is ps.TRAINING or None."""
        self.__dict__.pop("estimator_", None)  # a fit that fails leaves nothing half fitted
        model: SequenceEstimator = clone(self._template())
        number_in("calibration_share", self.calibration_share, "(0, 1)", "Try 0.3.")
        data = sequences(X, lengths=lengths, covariates=covariates)
        check_y(y, data)
        part = None if calibration is not None else hold_out(data, self.calibration_share)
        rest = sequences(calibration, vocabulary=data.vocabulary) if part is None else part.rest
        self._check_held(rest if part is None else data)
        model._fit(data if part is None else part.first, None, None, None, None)
        rest = model._read(rest)
        # The model has no need to have been fitted to all data to go on behind them.
        self._continued = model if part is None else behind(model, data, part.rows)
        self._note_features(model)
        return model, rest, TRAINING if part is not None and part.rows is None else None

    def _note_features(self, model: SequenceEstimator) -> None:
        self.n_features_in_ = model.n_features_in_
        self.__dict__.pop("feature_names_in_", None)
        if hasattr(model, "feature_names_in_"):
            self.feature_names_in_ = model.feature_names_in_

    def _check_held(self, data: Sequences) -> None:
        """Raise for data that the correction cannot be learnt from."""

    def _asked(self, history: Any) -> SequenceEstimator:
        """The model to ask what follows a history: of ps.TRAINING, all data of the fit are its past.

        So they are of many sequences that begin with these. Of one, the model itself knows how far it was fitted.
        """
        past = self._continued.training_
        many = past is not None and past.n_sequences > 1
        return self._continued if history is TRAINING or many else self.estimator_

    def _members(self) -> dict[Hashable, SequenceEstimator]:
        found: dict[Hashable, SequenceEstimator] = {"model": self.estimator_}
        return found if self._continued is self.estimator_ else {**found, "continued": self._continued}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        self.estimator_ = members["model"]
        self._continued = members.get("continued", self.estimator_)
        self._note_features(self.estimator_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "estimator_")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.allow_nan = True
        tags.input_tags.string = True
        tags.target_tags.required = False
        return tags


class Calibrated(HeldOutFit):
    """A law that is corrected by what the model has not seen, with predictions in the way of all estimators.

    Forecasts of further horizons are corrected when they are asked for, so that the held-out values are kept.
    """

    _held: HeldValues

    def save(self, path: Any) -> None:
        """Write all that was fitted to one file that ``ps.load`` reads, no pickle; with the held-out values inside.

        Forecasts of any horizon are corrected by these. Values that the model was fitted to are not in the file.
        """
        super().save(path)

    def _found(self) -> dict[str, Any]:
        return {"held": self._held}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        super()._revive(members, found)
        self._held = found["held"]

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
