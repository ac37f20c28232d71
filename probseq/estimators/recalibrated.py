"""Any model with its predictive cdf bent until it says what happens."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import xarray as xr

from probseq._random import RandomState, numpy_generator
from probseq._types import whole_number
from probseq.data.sequences import Sequences
from probseq.errors import DataError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.calibrated import Calibrated
from probseq.estimators.fitted import TRAINING
from probseq.estimators.held_part import HeldValues, trajectories
from probseq.evaluation.calibration import pit
from probseq.evaluation.recalibration import BernsteinMap, fit_map
from probseq.results.backends import Backend
from probseq.results.forecast import Forecast
from probseq.results.recalibrated import RecalibratedBackend
from probseq.results.transported import TransportedJoint

__all__ = ["Recalibrated"]


class Recalibrated(Calibrated):
    r"""P(x_t <= x \| x_{<t}) = g(F(x \| x_{<t})), with a smooth increasing map g learnt from held-out values.

    The map, a mixture of beta cdfs (Bernstein polynomials), is that of the PIT values of data which the model was not
    fitted to, for every variable and every horizon by itself. It has a density, so that
    log p(x) = log g'(F(x)) + log f(x) remains a log-likelihood of sequences: ``log_prob`` works. A model that is
    right keeps its law, up to what is learnt by chance; how much the map may bend is chosen by leaving out values.

    Parameters
    ----------
    model : estimator
        Any family of numbers with a density; it is copied. None is ``ps.HMM()``.
    calibration_share : float
        The share of the data held out, in (0, 1): the last steps of one sequence, every so many of many sequences.
        Not used where ``fit`` gets ``calibration=``.
    max_degree : int
        The highest degree of the map; 1 changes nothing.

    Attributes
    ----------
    estimator_ : the fitted model
    maps_ : list (k)
        The map of each variable, one step ahead; ``maps_[0].degree`` is 1 where nothing had to change.

    References
    ----------
    Gneiting and Ranjan (2013), Combining predictive distributions, Electronic Journal of Statistics 7; Vitale (1975).

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> x, new = np.random.default_rng(0).standard_t(2, size=(2, 600))
    >>> plain, bent = ps.IID().fit(x), ps.Recalibrated(ps.IID()).fit(x)
    >>> bool(bent.score(new) > plain.score(new) + 0.1)
    True
    """

    def __init__(self, model: Any = None, calibration_share: float = 0.3, max_degree: int = 32) -> None:
        self.model = model
        self.calibration_share = calibration_share
        self.max_degree = max_degree

    def fit(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, calibration: Any = None
    ) -> Self:
        """Fit the model to one part of the data, and learn the map from the other.

        Parameters
        ----------
        X : data in any form, one sequence or many
        y : ignored
        lengths, covariates
            As in the model's own ``fit``.
        calibration : data in any form, or None
            Held-out sequences of their own; None takes a share of X, which the model is then not fitted to.

        Raises
        ------
        DataError
            For fewer than 10 held-out values of a variable.
        UnsupportedError
            For categories.
        """
        whole_number("max_degree", self.max_degree, 1, "Try 32; 1 changes nothing.")
        model, rest, past = self._fit_model(X, y, lengths, covariates, calibration)
        base = model._predictive(rest, model._begin(rest, past))
        values = rest.values if base._scored is None else np.where(base._scored, rest.values, np.nan)
        u = _pit(base._backend, values)
        self.maps_ = [self._map(u[..., i], name, 1) for i, name in enumerate(rest.variables)]
        self._held = HeldValues.of(rest, past is TRAINING)
        self._ahead: dict[tuple[int, int], list[list[BernsteinMap]]] = {}
        self.estimator_ = model
        return self

    def _found(self) -> dict[str, Any]:
        return {**super()._found(), "maps": [one.weights for one in self.maps_]}

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        super()._revive(members, found)
        self.maps_, self._ahead = [BernsteinMap(weights) for weights in found["maps"]], {}

    def _map(self, pit_values: np.ndarray, variable: Any, ahead: int) -> BernsteinMap:
        try:
            return fit_map(pit_values, self.max_degree)
        except DataError as error:
            raise DataError(
                got=f"{error.got}, for variable {variable!r}, {ahead} step{'s' * (ahead > 1)} ahead",
                expected=error.expected,
                remedy="Pass more data, or raise calibration_share.",
            ) from error

    def predictive(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> Forecast:
        """The one-step-ahead predictive distribution of every row of X, given the rows before it.

        Parameters
        ----------
        history : None, ps.TRAINING or data
            What came before X; ps.TRAINING is all data of the fit.
        """
        self._check_fitted()
        data = self.estimator_._read(X, lengths, covariates)
        return self._predictive(data, history)

    def _predictive(self, data: Sequences, history: Any) -> Forecast:
        model = self._asked(history)
        return self._bent(model._predictive(data, model._begin(data, history)), [self.maps_])

    def forecast(
        self,
        horizon: int,
        history: Any = TRAINING,
        *,
        covariates: Any = None,
        n_paths: int = 1000,
        random_state: RandomState = 0,
    ) -> Forecast:
        """The predictive distribution of the next ``horizon`` steps, each with a map of its own.

        Paths hang together as those of the model do. A density of all steps together is not known.

        Parameters
        ----------
        horizon : int
        history : ps.TRAINING, None or data
            What came before; ps.TRAINING is all data of the fit.
        covariates : like X
            Future values of the covariates, by name.
        n_paths, random_state
            For models whose steps have no closed form, whose forecasts have no density either.
        """
        self._check_fitted()
        options: dict[str, Any] = {"covariates": covariates, "n_paths": n_paths, "random_state": random_state}
        base = self._asked(history).forecast(horizon, history=history, **options)
        return self._bent(base, self._maps_ahead(base.n_steps, n_paths))

    def _maps_ahead(self, horizon: int, n_paths: int) -> list[list[BernsteinMap]]:
        """The maps of every step ahead, and within it of every variable."""
        if (horizon, n_paths) not in self._ahead:
            ahead = trajectories(self.estimator_, self._held, horizon, n_paths=n_paths)
            u, names = _pit(ahead.backend, ahead.values), self._held.variables
            self._ahead[horizon, n_paths] = [
                [self._map(u[:, h, i], name, h + 1) for i, name in enumerate(names)] for h in range(horizon)
            ]
        return self._ahead[horizon, n_paths]

    def _bent(self, base: Forecast, maps: list[list[BernsteinMap]]) -> Forecast:
        backend = RecalibratedBackend(base._backend, maps)
        found = Forecast(
            backend,
            base._labels,
            base._index,
            joint=TransportedJoint(base._backend, base._joint, base._backend, backend.unbend),
            history=base._history,
            scored=base._scored,
            method=f"{base.method}, recalibrated",
            future=base.future,
        )
        found._stamped = base._stamped
        return found

    # scores -----------------------------------------------------------------------------------------------------------

    def log_prob_steps(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """log p(x_t | x_<t) in nats, dims ``sequence, time``; NaN where nothing is scored."""
        self._check_fitted()
        data = self.estimator_._read(X, lengths, covariates)
        return data.label(self._steps(data, history)[0], ("sequence", "time"), name="log_prob", attrs={"unit": "nats"})

    def log_prob(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """log p(x_1:T) in nats over the scored values, dim ``sequence`` (a scalar for one sequence)."""
        self._check_fitted()
        data = self.estimator_._read(X, lengths, covariates)
        total = np.nansum(self._steps(data, history)[0], -1)
        return data.label(total, ("sequence",), name="log_prob", attrs={"unit": "nats"})

    def score(
        self, X: Any, y: Any = None, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> float:
        """Mean log p(x_t | x_<t) in nats per scored value; higher is better."""
        self._check_fitted()
        data = self.estimator_._read(X, lengths, covariates)
        steps, n = self._steps(data, history)
        if n == 0:
            raise DataError(
                got="data in which no value is scored", expected="at least one", remedy="Pass longer data, or history=."
            )
        return float(np.nansum(steps)) / n

    def _steps(self, data: Sequences, history: Any) -> tuple[np.ndarray, int]:
        """Nats of every step (n, t), NaN where nothing is scored, and the number of scored values."""
        forecast = self._predictive(data, history)
        values = data.values if forecast._scored is None else np.where(forecast._scored, data.values, np.nan)
        return forecast._backend.log_prob(values), int(np.count_nonzero(~np.isnan(values)))


def _pit(backend: Backend, values: np.ndarray) -> np.ndarray:
    """PIT values (n, t, k), randomised where numbers are counted."""
    if backend.nominal_variables.any():
        raise UnsupportedError(
            got="the recalibration of categories", expected="numbers", remedy="Use a model of numbers or counts."
        )
    upper, counted = backend.cdf(values), backend.discrete_variables
    if not counted.any():
        return np.clip(upper, 0.0, 1.0)
    below = np.where(counted, backend.cdf(values, left=True), upper)
    return np.clip(pit(upper, below, numpy_generator(0).uniform(size=values.shape)), 0.0, 1.0)
