"""Estimators of probseq as forecasters of sktime. Importing this module imports sktime."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.base import clone
from sktime.forecasting.base import BaseForecaster, ForecastingHorizon

from probseq.data.sequences import Sequences, sequences
from probseq.errors import CovariateError, HorizonError, UnsupportedError
from probseq.estimators.arma import ARMA
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.baseline import RandomWalk
from probseq.estimators.calibrated import Calibrated
from probseq.estimators.fitted import TRAINING
from probseq.estimators.state import State
from probseq.integrations.capabilities import capabilities
from probseq.integrations.stamped_past import StampedPast
from probseq.integrations.steps_ahead import Part, StepsAhead
from probseq.results.forecast import Forecast

__all__ = ["SktimeForecaster"]

_COVARIANCE_PATHS = 10_000


class SktimeForecaster(BaseForecaster):
    """A forecaster of sktime that is a model of probseq; ``ps.to_sktime`` makes one.

    Point forecasts are means (the median where there is no mean, and for ``Conformal`` and ``Recalibrated``);
    quantiles, intervals and variances are those of the model's own predictive law, as is the distribution of
    ``predict_proba``, which needs skpro. Steps of the past are predicted one step ahead, from those before them; the
    first ones are NaN where the model only conditions on them.

    ``update(y, X, update_params=False)`` moves the state of the model over the new steps, in constant time a step, and
    keeps its parameters. ``update_params=True``, which is sktime's default, fits a copy of the estimator anew to all
    data so far. Steps that were left out are missing values; values that correct known ones are taken over, which reads
    all data again. ``Conformal`` and ``Recalibrated`` have no state: they read their past again at each forecast.

    Parameters
    ----------
    estimator : estimator of probseq
        Any family, ``Average``, ``Conformal`` or ``Recalibrated``; it stays as it is, a copy is fitted. None is
        ``ps.ARMA((1, 0))``. Models of one variable get one copy a column, and every series of a panel gets its own.
    n_paths : int
        How many paths a forecast without a closed form is made of.

    Attributes
    ----------
    estimator_ : the fitted copy

    Notes
    -----
    The tags say what the estimator at hand can do: several variables, covariates, missing values, quantiles (not for
    categories). Data are kept for predictions of the past and for refits, whatever the config ``remember_data`` says;
    that asks sktime to keep a copy of its own, and is off.

    Examples
    --------
    >>> import probseq as ps
    >>> from probseq.integrations.sktime_forecaster import SktimeForecaster
    >>> y = ps.datasets.lake_huron().to_series()
    >>> forecaster = SktimeForecaster(ps.ARMA((1, 0))).fit(y[:-10])
    >>> forecaster.predict(fh=[1, 2]).shape
    (2,)
    >>> moved = forecaster.update(y[-10:], update_params=False)
    >>> interval = moved.predict_interval(fh=[1], coverage=0.9)
    """

    _tags = {
        "authors": "the probseq developers",
        "maintainers": "the probseq developers",
        "y_inner_mtype": "pd.DataFrame",
        "X_inner_mtype": "pd.DataFrame",
        "requires-fh-in-fit": False,
        "capability:multivariate": True,
        "capability:exogenous": True,
        "capability:missing_values": True,
        "capability:insample": True,
        "capability:pred_int": True,
        "capability:pred_int:insample": True,
        "capability:update": True,
        "capability:non_contiguous_X": False,
        "capability:categorical_in_X": False,
    }
    _config = {"remember_data": False}

    def __init__(self, estimator: Any = None, n_paths: int = 2000) -> None:
        self.estimator = estimator
        self.n_paths = n_paths
        super().__init__()

    def __post_init__(self) -> None:
        self._y = self._X = None  # sktime's own copies, for those who set remember_data
        can = capabilities(self._template())
        self.set_tags(
            **{
                "capability:multivariate": can.multivariate,
                "capability:exogenous": can.covariates,
                "capability:missing_values": can.missing,
                "capability:pred_int": can.numbers,
                "capability:pred_int:insample": can.numbers,
                "property:randomness": "stochastic" if can.random else "deterministic",
            }
        )

    def _template(self) -> SequenceEstimator | Calibrated:
        return ARMA((1, 0)) if self.estimator is None else self.estimator

    # fitting ----------------------------------------------------------------------------------------------------------

    def _fit(self, y: pd.DataFrame, X: pd.DataFrame | None, fh: Any) -> SktimeForecaster:
        self._learn(StampedPast(*_beside(y, X)))
        return self

    def _learn(self, past: StampedPast) -> None:
        """Fit a copy to a past; nothing changes if that fails."""
        estimator = clone(self._template())
        estimator.fit(_read(past.values, past.inputs))
        self.estimator_, self._past, self._n_fitted = estimator, past, past.n_steps
        self._position = self._after_training()

    def _after_training(self) -> State | None:
        own = self.estimator_
        return State(own.training_state_, 1) if isinstance(own, SequenceEstimator) else None

    def _update(self, y: pd.DataFrame, X: pd.DataFrame | None = None, update_params: bool = True) -> SktimeForecaster:
        values, inputs = _beside(y, X)
        past, changed = self._past, self._past.contradicts(values, inputs)
        new = past.unseen(values, inputs)
        if not len(new[0]) and not changed:
            return self
        if not update_params and not changed:
            self._position = self._moved(self._position, *new)
            past.extended(*new)
            return self
        past = past.corrected(values, inputs) if changed else StampedPast(past.values, past.inputs)
        if len(new[0]):
            past.extended(*new)
        if update_params:
            self._learn(past)
        else:
            self._past = past
            self._position = self._replayed()
        return self

    def _moved(self, state: State | None, values: pd.DataFrame, inputs: pd.DataFrame | None) -> State | None:
        """The state after further steps; None where there are no states."""
        own = self.estimator_
        if state is None:
            return None
        with torch.no_grad():
            return State(own.model_.filter({}, own._batch(own._read(_read(values, inputs))), state.tree), 1)

    def _replayed(self) -> State | None:
        """The state after the past, of which the model was fitted to an earlier form."""
        own = self.estimator_
        if not isinstance(own, SequenceEstimator):
            return None
        first = own.filter(_read(*self._past.rows(0, self._n_fitted)), weights="frozen")
        rest = self._past.rows(self._n_fitted, self._past.n_steps)
        return self._moved(first, *rest) if len(rest[0]) else first

    def _get_fitted_params(self) -> dict[str, Any]:
        """The parameters of the model by name (all draws of them), and how well it fits."""
        own = self.estimator_ if isinstance(self.estimator_, SequenceEstimator) else self.estimator_.estimator_
        found: dict[str, Any] = {str(name): one.values.squeeze() for name, one in own.params_.data_vars.items()}
        return {**found, "log_likelihood": own.log_likelihood_, "aic": own.aic, "bic": own.bic}

    # predictions ------------------------------------------------------------------------------------------------------

    def _predict(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> pd.DataFrame:
        points = self._ahead(fh, X).ask(self._point)[..., 0]
        return pd.DataFrame(points, self._stamps(fh), self._get_varnames())

    def _point(self, forecast: Forecast) -> np.ndarray:
        own = self.estimator_
        if isinstance(own, SequenceEstimator):
            found = own._point(forecast).values.astype(float)
            return np.where(found < 0, np.nan, found) if forecast._backend.nominal else found
        return forecast.median().values

    def _predict_quantiles(self, fh: ForecastingHorizon, X: pd.DataFrame | None, alpha: list[float]) -> pd.DataFrame:
        found = self._ahead(fh, X).ask(lambda forecast: forecast.quantile(list(alpha)).values)
        columns = self._get_columns(method="predict_quantiles", alpha=alpha)
        return pd.DataFrame(found.reshape(len(found), -1), self._stamps(fh), columns)

    def _predict_var(self, fh: ForecastingHorizon, X: pd.DataFrame | None, cov: bool = False) -> pd.DataFrame:
        steps, stamps, names = self._ahead(fh, X), self._stamps(fh), self._get_varnames()
        if not cov:
            return pd.DataFrame(steps.ask(lambda forecast: forecast.var().values)[..., 0], stamps, names)
        forecast, rows, at = steps.parts[0]
        if len(steps.parts) > 1 or not forecast.future or self._position is None:
            raise UnsupportedError(
                got="predict_var(cov=True) of steps that have no joint law",
                expected="steps of the future, of a model with a law of all of them",
                remedy="Use cov=False.",
            )
        paths = forecast.sample(_COVARIANCE_PATHS, random_state=0).values[:, rows[np.argsort(at)]]
        paths = paths.reshape(_COVARIANCE_PATHS, len(rows), -1)
        scale = np.sqrt(steps.ask(lambda forecast: forecast.var().values)[..., 0])
        each = [np.outer(sd, sd) * _correlation(paths[..., i]) for i, sd in enumerate(scale.T)]
        return pd.DataFrame(np.hstack(each), stamps, pd.MultiIndex.from_product([names, stamps]))

    def _predict_proba(self, fh: ForecastingHorizon, X: pd.DataFrame | None, marginal: bool = True) -> Any:
        from probseq.integrations.skpro_law import SkproLaw

        return SkproLaw(self._ahead(fh, X), index=self._stamps(fh), columns=pd.Index(self._get_varnames()))

    def _stamps(self, fh: ForecastingHorizon) -> pd.Index:
        return fh.to_absolute_index(self.cutoff).rename(self._past.last.name)

    def _ahead(self, fh: ForecastingHorizon, X: pd.DataFrame | None) -> StepsAhead:
        """The law of every step of ``fh``: of later ones from the cutoff, of the others one step ahead."""
        relative = fh.to_relative(self.cutoff).to_pandas()
        if relative.dtype.kind not in "iu":  # spans of time
            relative = fh.to_absolute_int(self.cutoff[0], self.cutoff).to_pandas()
        ahead = relative.to_numpy(dtype=int)
        known = self._past.steps_until(self.cutoff)
        rows = known - 1 + ahead
        if (rows < 0).any():
            raise HorizonError(
                got=f"fh={ahead.tolist()}, {-int(rows.min())} steps before the first value",
                expected=f"at least {1 - known}",
                remedy="Shorten the horizon.",
            )
        parts, at, cut = [], np.arange(len(ahead)), self._n_fitted
        first, second = (ahead <= 0) & (rows < cut), (ahead <= 0) & (rows >= cut)
        if first.any():
            parts.append(Part(self._one_step(0, cut, None), rows[first], at[first]))
        if second.any():
            parts.append(Part(self._one_step(cut, known, TRAINING), rows[second] - cut, at[second]))
        later = ahead > 0
        if later.any():
            parts.append(Part(self._future(int(ahead.max()), known, X), ahead[later] - 1, at[later]))
        return StepsAhead(parts, len(self._get_varnames()))

    def _one_step(self, start: int, stop: int, history: Any) -> Forecast:
        """Predictions of steps of the past; those of the fit weigh no parameter draws anew."""
        data, own = _read(*self._past.rows(start, stop)), self.estimator_
        if history is None and isinstance(own, SequenceEstimator):
            return own.predictive(data, weights="frozen")
        return own.predictive(data, history=history)

    def _future(self, horizon: int, known: int, X: pd.DataFrame | None) -> Forecast:
        """The next steps after the first ``known`` ones."""
        own = self.estimator_
        asked: dict[str, Any] = {"covariates": self._inputs_ahead(horizon, X), "n_paths": self.n_paths}
        if known == self._past.n_steps and self._position is not None:
            return own.forecast(horizon, state=self._position, **asked)
        if known == 0:
            return own.forecast(horizon, history=None, **asked)
        if isinstance(own, SequenceEstimator) and known < self._n_fitted:
            asked["weights"] = "frozen"
        past = TRAINING if known == self._n_fitted else _read(*self._past.rows(0, known))
        return own.forecast(horizon, history=past, **asked)

    def _inputs_ahead(self, horizon: int, X: pd.DataFrame | None) -> np.ndarray | None:
        """Covariates (horizon, m) of the next steps, in the order of the fit."""
        known = self._past.inputs
        if known is None:
            return None
        wanted = ForecastingHorizon(np.arange(1, horizon + 1)).to_absolute_index(self.cutoff)
        unnamed = [] if X is None else [name for name in known.columns if name not in X.columns]
        if unnamed:
            raise CovariateError(
                got=f"X without {unnamed}", expected=f"{list(known.columns)}", remedy="Name them as in the fit."
            )
        missing = wanted if X is None else wanted.difference(X.index)
        if X is None or len(missing):
            raise CovariateError(
                got=f"no covariates at {missing[0]}" + (f" and {len(missing) - 1} more steps" * (len(missing) > 1)),
                expected=f"{list(known.columns)} at every step up to the last of the horizon",
                remedy="Pass X with all of these steps.",
            )
        return X.loc[wanted, list(known.columns)].to_numpy(dtype=float)

    @classmethod
    def get_test_params(cls, parameter_set: str = "default") -> list[dict[str, Any]]:
        """Settings for the checks of sktime."""
        return [{"estimator": RandomWalk(random_state=0)}, {"estimator": ARMA((1, 0), random_state=0), "n_paths": 50}]


def _beside(y: pd.DataFrame, X: pd.DataFrame | None) -> tuple[pd.DataFrame, pd.DataFrame | None]:
    """Values and the covariates of the same steps, as numbers."""
    return y.astype("float64"), None if X is None else X.loc[y.index].astype("float64")


def _correlation(paths: np.ndarray) -> np.ndarray:
    """Correlations (t, t) of the steps of paths (path, t)."""
    return np.atleast_2d(np.corrcoef(paths, rowvar=False))


def _read(values: pd.DataFrame, inputs: pd.DataFrame | None) -> Sequences:
    """One sequence; a single column is a series."""
    data = values.iloc[:, 0] if values.shape[1] == 1 else values
    if values.shape[1] == 1 and not isinstance(data.name, str):
        data = data.rename(None)
    return sequences(data, covariates=inputs)
