"""Bands around any model's forecasts that hold as often as they say."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, NamedTuple, NoReturn, Self

import numpy as np
import xarray as xr

from probseq._random import RandomState
from probseq._types import number_in, one_of
from probseq.data.sequences import Sequences
from probseq.errors import DataError, ShapeError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.calibrated import Calibrated
from probseq.estimators.fitted import TRAINING
from probseq.estimators.held_part import HeldValues, trajectories
from probseq.evaluation.conformal import AdaptiveQuantiles, conformal_levels, conformal_quantiles
from probseq.results.backends import Backend
from probseq.results.forecast import Forecast
from probseq.results.quantiles import QuantilesBackend
from probseq.results.transported import TransportedJoint

__all__ = ["Conformal"]

_FEWEST = 19


class _Rules(NamedTuple):
    """What the residuals of one or several variables and horizons say."""

    levels: np.ndarray
    quantiles: list[np.ndarray]
    """of the residuals at these levels"""
    trackers: list[AdaptiveQuantiles]
    """of the adaptive method, else none"""


class _ConformalBackend(QuantilesBackend):
    """Quantiles that are not known beyond the first and the last level."""

    def quantile(self, q: np.ndarray) -> np.ndarray:
        first, last = self.levels[0], self.levels[-1]
        if np.any((q < first - 1e-12) | (q > last + 1e-12)):
            wrong = float(q[(q < first - 1e-12) | (q > last + 1e-12)][0])
            raise DataError(
                got=f"the quantile of level {wrong:.4g}",
                expected=f"levels from {first:.4g} to {last:.4g}, which the held-out values allow",
                remedy="Fit to more data, or raise calibration_share.",
            )
        return super().quantile(q)

    def marginal(self, variables: list[int]) -> QuantilesBackend:
        return _ConformalBackend(self.levels, self.values[:, :, variables])


class Conformal(Calibrated):
    r"""Quantiles m_t + s_t r_(q): a model's median and interquartile range, and residuals of data that it has not seen.

    The residuals r = (x - m) / s of held-out data, for every variable and every horizon by itself, say how far from the
    median values really are; their order statistics take the place of the model's own quantiles. A forecast is known by
    quantiles and has no likelihood.

    Parameters
    ----------
    model : estimator
        Any family of numbers; it is copied. None is ``ps.HMM()``.
    method : "split" or "adaptive"
        "split": a new value that is exchangeable with the held-out ones lies below the quantile of level q with
        probability q, up to 1 / (n + 1), whatever the model (marginally: over held-out data and new value together).
        "adaptive": the levels move against their errors (Gibbs and Candes 2021), so that in the long run of one
        series a share q lies below, also where the series changes.
    calibration_share : float
        The share of the data held out, in (0, 1): the last steps of one sequence, every so many of many sequences.
        Not used where ``fit`` gets ``calibration=``.
    step_size : float
        How far an adaptive level moves for one error; larger ones adapt faster and waver more.

    Attributes
    ----------
    estimator_ : the fitted model
    n_calibration_ : int
        Held-out values of the variable that has fewest, one step ahead.

    Notes
    -----
    Steps of one series are exchangeable only as far as the model explains how they hang together. With many sequences
    the held-out ones are whole sequences.

    References
    ----------
    Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world; Gibbs and Candes (2021), Adaptive
    conformal inference under distribution shift, NeurIPS 34.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x = np.random.default_rng(0).standard_t(2, size=500)
    >>> bands = ps.Conformal(ps.IID()).fit(x)
    >>> inside = bands.forecast(1).interval(0.9).values.ravel()
    >>> bool(-5 < inside[0] < -2 < 2 < inside[1] < 5)
    True
    """

    def __init__(
        self, model: Any = None, method: str = "split", calibration_share: float = 0.3, step_size: float = 0.02
    ) -> None:
        self.model = model
        self.method = method
        self.calibration_share = calibration_share
        self.step_size = step_size

    def fit(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, calibration: Any = None
    ) -> Self:
        """Fit the model to one part of the data, and take residuals from the other.

        Parameters
        ----------
        X : data in any form, one sequence or many; one for the adaptive method
        y : ignored
        lengths, covariates
            As in the model's own ``fit``.
        calibration : data in any form, or None
            Held-out sequences of their own; None takes a share of X, which the model is then not fitted to.

        Raises
        ------
        DataError
            For fewer than 19 held-out values of a variable.
        UnsupportedError
            For categories.
        """
        one_of("method", self.method, ("split", "adaptive"))
        number_in("step_size", self.step_size, "(0, 1)", "Try 0.02.")
        model, rest, past = self._fit_model(X, y, lengths, covariates, calibration)
        base = model._predictive(rest, model._begin(rest, past))
        residuals = _residuals(base._backend, _scored_values(base, rest.values))
        self._held = HeldValues.of(rest, past is TRAINING)
        self._learn([_known(residuals[..., i].ravel(), name, 1) for i, name in enumerate(rest.variables)])
        self.estimator_ = model
        return self

    def _learn(self, residuals: list[np.ndarray]) -> None:
        """From the residuals of each variable, one step ahead."""
        self._known_residuals, self._one_step = residuals, self._rules(residuals)
        self._ahead: dict[tuple[int, int], _Rules] = {}
        self.n_calibration_ = min(len(one) for one in residuals)

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "residuals": self._known_residuals}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        super()._revive(members, found)
        self._learn(found["residuals"])

    def _check_held(self, data: Sequences) -> None:
        if self.method == "adaptive" and data.n_sequences > 1:
            raise ShapeError(
                got=f"{data.n_sequences} sequences for the adaptive method",
                expected="one, whose errors follow one another",
                remedy='Use method="split", or one Conformal a sequence.',
            )

    def _rules(self, known: list[np.ndarray]) -> _Rules:
        """What residuals in their order say, at the levels that the fewest of them allow."""
        levels = conformal_levels(min(len(one) for one in known))
        if self.method == "split":
            return _Rules(levels, [conformal_quantiles(np.sort(one), levels) for one in known], [])
        trackers = []
        for one in known:
            start = max(2, len(one) // 2)
            tracker = AdaptiveQuantiles(one[:start], levels, self.step_size)
            tracker.along(one[start:])
            trackers.append(tracker)
        return _Rules(levels, [tracker.quantiles() for tracker in trackers], trackers)

    # predictions ------------------------------------------------------------------------------------------------------

    def predictive(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> Forecast:
        """The one-step-ahead predictive quantiles of every row of X, given the rows before it.

        The adaptive method goes on learning from each row before the next; what it learns here it forgets afterwards.

        Parameters
        ----------
        history : None, ps.TRAINING or data
            What came before X; ps.TRAINING is all data of the fit.
        """
        self._check_fitted()
        model = self._asked(history)
        data = model._read(X, lengths, covariates)
        self._check_held(data)
        base = model._predictive(data, model._begin(data, history))
        centre, spread = _centre_and_spread(base._backend)
        values = _scored_values(base, data.values)
        rules, each = self._one_step, []
        for i, quantiles in enumerate(rules.quantiles):
            if rules.trackers:
                residuals = (values[0, :, i] - centre[0, :, i]) / spread[0, :, i]
                each.append(rules.trackers[i].copy().along(residuals)[None])
            else:
                each.append(np.broadcast_to(quantiles, (*values.shape[:2], len(rules.levels))))
        return self._forecast_of(base, centre, spread, rules.levels, np.stack(each, 2))

    def forecast(
        self,
        horizon: int,
        history: Any = TRAINING,
        *,
        covariates: Any = None,
        n_paths: int = 1000,
        random_state: RandomState = 0,
    ) -> Forecast:
        """The predictive quantiles of the next ``horizon`` steps, each by itself.

        Parameters
        ----------
        horizon : int
        history : ps.TRAINING, None or data
            What came before; ps.TRAINING is all data of the fit. The adaptive method does not learn from it.
        covariates : like X
            Future values of the covariates, by name.
        n_paths, random_state
            For models whose steps have no closed form.

        Raises
        ------
        DataError
            For fewer than 19 held-out values so many steps ahead.
        """
        self._check_fitted()
        options: dict[str, Any] = {"covariates": covariates, "n_paths": n_paths, "random_state": random_state}
        base = self._asked(history).forecast(horizon, history=history, **options)
        rules = self._rules_ahead(base.n_steps, n_paths)
        centre, spread = _centre_and_spread(base._backend)
        shape = (*centre.shape[1:], len(rules.levels))
        each = np.broadcast_to(np.reshape(rules.quantiles, shape), (len(centre), *shape))
        return self._forecast_of(base, centre, spread, rules.levels, each)

    def _rules_ahead(self, horizon: int, n_paths: int) -> _Rules:
        """The rules of every step ahead, and within it of every variable."""
        if (horizon, n_paths) not in self._ahead:
            ahead = trajectories(self.estimator_, self._held, horizon, n_paths=n_paths)
            residuals = _residuals(ahead.backend, ahead.values)
            names = self._held.variables
            known = [_known(residuals[:, h, i], name, h + 1) for h in range(horizon) for i, name in enumerate(names)]
            self._ahead[horizon, n_paths] = self._rules(known)
        return self._ahead[horizon, n_paths]

    def interval(self, X: Any, level: float = 0.9, **options: Any) -> xr.DataArray:
        """The central interval of every row of X, ``predictive(X, ...).interval(level)``."""
        return self.predictive(X, **options).interval(level)

    def log_prob(self, *args: Any, **options: Any) -> NoReturn:
        """Not defined: quantiles have no density."""
        raise UnsupportedError(
            got="log_prob of Conformal, which knows quantiles only",
            expected="a model with a density",
            remedy="Use predictive(X).crps(X) or ps.calibration; or ps.Recalibrated(model), which keeps its density.",
        )

    log_prob_steps = score = log_prob

    # parts ------------------------------------------------------------------------------------------------------------

    def _forecast_of(
        self, base: Forecast, centre: np.ndarray, spread: np.ndarray, levels: np.ndarray, residuals: np.ndarray
    ) -> Forecast:
        """A forecast by quantiles of the residuals, (n, t, k, Q)."""
        backend = _ConformalBackend(levels, centre[..., None] + spread[..., None] * residuals)
        found = Forecast(
            backend,
            base._labels,
            base._index,
            joint=TransportedJoint(base._backend, base._joint, backend),
            history=base._history,
            scored=base._scored,
            method=f"conformal ({self.method}), {self.n_calibration_} held-out values",
            future=base.future,
        )
        found._stamped = base._stamped
        return found


def _centre_and_spread(backend: Backend) -> tuple[np.ndarray, np.ndarray]:
    """Median and interquartile range (n, t, k); the standard deviation, or one, where the latter is zero."""
    if backend.nominal_variables.any():
        raise UnsupportedError(
            got="conformal quantiles of categories", expected="numbers", remedy="Use a model of numbers or counts."
        )
    quartiles = backend.quantile(np.array([0.25, 0.5, 0.75]))
    spread = quartiles[..., 2] - quartiles[..., 0]
    flat = ~(spread > 0)
    if flat.any():
        std = np.sqrt(backend.variance())
        spread = np.where(flat, np.where(np.isfinite(std) & (std > 0), std, 1.0), spread)
    return quartiles[..., 1], spread


def _residuals(backend: Backend, values: np.ndarray) -> np.ndarray:
    centre, spread = _centre_and_spread(backend)
    return (values - centre) / spread


def _scored_values(base: Forecast, values: np.ndarray) -> np.ndarray:
    """Values (n, t, k), NaN where the model does not predict."""
    return values if base._scored is None else np.where(base._scored, values, np.nan)


def _known(residuals: np.ndarray, variable: Hashable, ahead: int) -> np.ndarray:
    """The residuals that are there, in their order; enough of them."""
    known = residuals[np.isfinite(residuals)]
    if len(known) < _FEWEST:
        raise DataError(
            got=f"{len(known)} held-out values of variable {variable!r}, {ahead} step{'s' * (ahead > 1)} ahead",
            expected=f"at least {_FEWEST}, for intervals of 90 %",
            remedy="Pass more data, or raise calibration_share.",
        )
    return known
