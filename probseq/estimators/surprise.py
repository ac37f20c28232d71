"""How surprising each step is, and which are too surprising to go on believing in them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import xarray as xr

from probseq._types import number_in
from probseq.data.sequences import Sequences
from probseq.errors import DataError, ParameterError
from probseq.estimators.fitted import FittedModel
from probseq.evaluation.conformal import conformal_rank

__all__ = ["Surprise"]


class Surprise(FittedModel):
    """Anomaly scores with thresholds that are calibrated on other data."""

    def surprise(
        self,
        X: Any,
        *,
        per: str = "step",
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """-log p(x_t | x_<t) in nats; NaN where nothing is scored.

        Parameters
        ----------
        per : "step" or "variable"
            Of all variables of a step together, or of each by itself, -log p(x_ti | x_<t), which does not look at the
            other variables of the step. The sum over variables is more than that of the step where they are dependent.
        history, weights
            As for ``log_prob_steps``.

        Returns
        -------
        DataArray, dims ``sequence, time``, and ``variable`` for ``per="variable"``.
        """
        if per not in ("step", "variable"):
            raise ParameterError(got=f"per={per!r}", expected='"step" or "variable"', remedy="Choose one of them.")
        data = self._read(X, lengths, covariates)
        dims = ("sequence", "time") if per == "step" else ("sequence", "time", "variable")
        found = self._surprise(data, history, weights, per)
        return data.label(found, dims, name="surprise", attrs={"unit": "nats"})

    def _surprise(self, data: Sequences, history: Any, weights: str, per: str = "step") -> np.ndarray:
        state = self._begin(data, history, weights)
        if per == "step":
            steps = self._steps(data, state, weights)
            return np.where(steps.scored.any(-1).numpy(), -steps.values.double().numpy(), np.nan)
        batch = self._batch(data)
        with torch.no_grad():
            law, scored = self._weighed(weights).predictive({}, batch, state)
            each = [
                law.marginal([i]).log_prob_seen(batch.x[..., i : i + 1], scored[..., i : i + 1])
                for i in range(batch.x.shape[-1])
            ]
        return np.where(scored.numpy(), -torch.stack(each, -1).double().numpy(), np.nan)

    def surprise_threshold(
        self,
        X: Any,
        rate: float = 0.01,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> float:
        """The surprise of a step that at most the share ``rate`` of ordinary steps exceeds.

        The ceil((n + 1)(1 - rate))-th smallest of the n surprises of X (split conformal prediction, Vovk et al. 2005):
        where those of X and a new one are exchangeable it exceeds the threshold with probability at most ``rate``,
        whatever the model, for every n. Steps of one series are exchangeable only as far as the model is right; the
        data that the model was fitted to are none, their surprise is too small.

        Parameters
        ----------
        X : ordinary data, other than those of the fit
        rate : float
            False alarms per step.

        Raises
        ------
        DataError
            For fewer than 1 / rate - 1 scored steps, which allow no such threshold.
        """
        known = _known(self._surprise(self._read(X, lengths, covariates), history, weights))
        rank = conformal_rank(len(known), 1 - _checked(rate))
        if rank > len(known):
            raise DataError(
                got=f"{len(known)} scored steps to calibrate a rate of {rate:g}",
                expected=f"at least {math.ceil(1 / rate - 1 - 1e-9)}",
                remedy="Pass more data, or allow more false alarms.",
            )
        return float(np.partition(known, rank - 1)[rank - 1])

    def anomalies(
        self,
        X: Any,
        calibration: Any,
        *,
        rate: float = 0.01,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.Dataset:
        """Which steps are more surprising than ordinary ones are.

        Parameters
        ----------
        X : data to judge
        calibration : array
            Surprises of ordinary data other than those of the fit, as ``surprise(...)`` gives them, NaN left out.
        rate : float
            False alarms per step.

        Returns
        -------
        Dataset with ``surprise``; ``p_value`` = (1 + number of calibration steps at least as surprising) / (n + 1),
        which is at most u with probability at most u for an exchangeable step; and ``anomaly`` = p_value <= rate.

        Examples
        --------
        >>> import numpy as np, probseq as ps
        >>> model = ps.IID().with_parameters(mean=[0.0], scale=[1.0])
        >>> usual = model.surprise(np.linspace(-2, 2, 99))
        >>> model.anomalies([0.3, 7.0, -1.0], usual, rate=0.05).anomaly.values
        array([False,  True, False])
        """
        _checked(rate)
        known = np.sort(_known(np.asarray(calibration, dtype=float)))
        data = self._read(X, lengths, covariates)
        score = self._surprise(data, history, weights)
        above = len(known) - np.searchsorted(known, score, side="left")
        p = np.where(np.isnan(score), np.nan, (1 + above) / (len(known) + 1))
        dims = ("sequence", "time")
        parts = {"surprise": score, "p_value": p, "anomaly": p <= rate + 1e-12}
        return xr.Dataset({name: data.label(values, dims, name=name) for name, values in parts.items()})


def _known(surprise: np.ndarray) -> np.ndarray:
    known = surprise[~np.isnan(surprise)]
    if not known.size:
        raise DataError(
            got="no scored step to calibrate with", expected="at least one", remedy="Pass the surprise of other data."
        )
    return known


def _checked(rate: Any) -> float:
    return number_in("rate", rate, "(0, 1)", "Write rate=0.01 for one in a hundred.")
