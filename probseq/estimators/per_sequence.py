"""Panels: one model a sequence."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from typing import Any, Self

import numpy as np
import pandas as pd
import xarray as xr
from sklearn.base import clone

from probseq._random import RandomState
from probseq._types import truth_value, whole_number
from probseq.data.sequences import Sequences, sequences
from probseq.errors import DataError, DataWarning, ProbseqWarning
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.fitted import TRAINING, check_y
from probseq.estimators.label_files import decode_labels, encode_labels, plain_label
from probseq.estimators.members import Composed
from probseq.estimators.progress_bar import progress_bar
from probseq.kernels.threads import number_of_threads
from probseq.results.backends import Backend
from probseq.results.forecast import Forecast
from probseq.results.rows import RowsBackend, RowsJoint

__all__ = ["PerSequence"]

_LISTED = 5


class PerSequence(Composed):
    """One model a sequence: fitted in parallel, matched by name, each on its own.

    Without it, many sequences share one set of parameters. A series that cannot be fitted never loses the others: it is
    named in ``failures_``, and asked for later it raises.

    Parameters
    ----------
    estimator : estimator
        Any family; it is copied for each sequence and stays as it is.
    n_jobs : int or None
        Threads; None is as many as there are processors (or ``PROBSEQ_NUM_THREADS``).
    progress : bool or None
        A progress bar; None shows one in a terminal for 20 series or more.

    Attributes
    ----------
    models_ : dict
        Name of a sequence to its fitted model; ``panel["name"]`` is the same.
    failures_ : DataFrame
        What went wrong, one row a sequence without a model: ``error``, ``message``.
    problems_ : DataFrame
        What the fits had to say, one row a sequence with a message: ``status``, ``message``.

    Examples
    --------
    >>> import probseq as ps
    >>> y = {"short": [1.0, 2.0, 1.5, 1.8, 1.1, 1.6], "long": [5.0, 4.0, 4.4, 5.2, 4.9, 5.1, 4.2, 4.6]}
    >>> panel = ps.PerSequence(ps.ARMA(order=(1, 0))).fit(y)
    >>> panel.forecast(2).mean().sizes["sequence"]
    2
    """

    inner = "estimator"

    def __init__(self, estimator: Any = None, n_jobs: int | None = None, progress: bool | None = None) -> None:
        self.estimator = estimator
        self.n_jobs = n_jobs
        self.progress = progress

    def _default_inner(self) -> SequenceEstimator:
        from probseq.estimators.arma import ARMA

        return ARMA()

    # fitting ------------------------------------------------------------------------------------------------------

    def fit(
        self,
        X: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        static: Any = None,
    ) -> Self:
        """Fit a copy of the estimator to every sequence.

        Parameters
        ----------
        X : data in any form, one sequence or many, each with a name of its own
        y : ignored
        lengths, covariates, static
            As in the estimator's own ``fit``.

        Raises
        ------
        DataError
            If two sequences have one name, or no sequence could be fitted.
        ParameterError
            For what is no estimator, or a number of jobs below one.
        """
        estimator = self._template()
        threads = self._threads()
        if self.progress is not None:
            truth_value("progress", self.progress)
        data = sequences(X, lengths=lengths, covariates=covariates, static=static)
        check_y(y, data)
        if len(set(data.names)) < data.n_sequences:
            twice = next(name for name in data.names if data.names.count(name) > 1)
            raise DataError(
                got=f"two sequences named {twice!r}",
                expected="a name of its own for each",
                remedy="Name them: pass a dict of sequences.",
            )
        models: dict[int, SequenceEstimator] = {}
        failures: dict[int, tuple[str, str]] = {}

        def one(i: int) -> SequenceEstimator:
            model: SequenceEstimator = clone(estimator)
            return model._fit(data.select(i), None, None, None, None)

        with warnings.catch_warnings():
            # Said once for all below, by the names of the series.
            warnings.simplefilter("ignore", ProbseqWarning)
            for i, found in self._run(one, range(data.n_sequences), threads):
                if isinstance(found, SequenceEstimator):
                    models[i] = found
                else:
                    failures[i] = (type(found).__name__, str(found))
        if not models:
            i = min(failures)
            raise DataError(
                got=f"{len(failures)} sequences, none of which could be fitted; {data.names[i]!r}: {failures[i][1]}",
                expected="at least one that can",
                remedy="Fit one by itself to see more.",
            )
        self.models_ = {data.names[i]: models[i] for i in sorted(models)}
        self.failures_ = _table({data.names[i]: failures[i] for i in sorted(failures)}, ("error", "message"))
        said = {
            name: (model.status_, " ".join(model.draws_.messages))  # type: ignore[attr-defined]
            for name, model in self.models_.items()
            if model.draws_.messages
        }
        self.problems_ = _table(said, ("status", "message"))
        self.labels_ = data
        self.n_features_in_ = data.n_variables
        self._warn()
        return self

    def _threads(self) -> int:
        jobs = number_of_threads() if self.n_jobs is None else self.n_jobs
        return whole_number("n_jobs", jobs, 1)

    def _run(
        self, task: Callable[[int], SequenceEstimator], rows: Iterable[int], threads: int
    ) -> Iterator[tuple[int, SequenceEstimator | Exception]]:
        """What became of every row, as they are done."""

        def safe(i: int) -> tuple[int, SequenceEstimator | Exception]:
            try:
                return i, task(i)
            except (ArithmeticError, ValueError, TypeError, RuntimeError, np.linalg.LinAlgError) as error:
                return i, error

        todo = list(rows)
        with progress_bar(len(todo), "fitting", "series", self.progress, 20) as bar:
            if threads == 1:
                for i in todo:
                    yield safe(i)
                    bar()
                return
            with ThreadPoolExecutor(threads) as pool:
                futures = [pool.submit(safe, i) for i in todo]
                try:
                    for future in as_completed(futures):
                        yield future.result()
                        bar()
                finally:
                    for future in futures:
                        future.cancel()

    def _warn(self) -> None:
        for table, what in ((self.failures_, "could not be fitted"), (self.problems_, "had something to say")):
            if len(table):
                names = ", ".join(repr(name) for name in table.index[:_LISTED])
                more = f" and {len(table) - _LISTED} more" if len(table) > _LISTED else ""
                where = "failures_" if table is self.failures_ else "problems_"
                total = len(self.models_) + len(self.failures_)
                warnings.warn(f"{len(table)} of {total} series {what} ({where}): {names}{more}.", DataWarning, 3)

    # the models -----------------------------------------------------------------------------------------------------

    def __getitem__(self, name: Hashable) -> SequenceEstimator:
        self._check_fitted()
        if name not in self.models_:
            failed = name in self.failures_.index
            raise DataError(
                got=f"series {name!r}" + (", which could not be fitted" if failed else ""),
                expected=f"one of the {len(self.models_)} series with a model",
                remedy=str(self.failures_["message"].to_dict()[name]) if failed else "Check the names; see models_.",
            )
        return self.models_[name]

    def __len__(self) -> int:
        self._check_fitted()
        return len(self.models_)

    def __sklearn_is_fitted__(self) -> bool:
        return hasattr(self, "models_")

    @property
    def params_(self) -> xr.Dataset:
        """Parameters of all models along ``sequence``; NaN for one that a series' model does not have."""
        self._check_fitted()
        each = [model.params_ for model in self.models_.values()]
        names = pd.Index(list(self.models_), name="sequence", tupleize_cols=False)
        return xr.concat(each, names, join="outer", data_vars="all", coords="minimal", compat="override")

    @property
    def log_likelihood_(self) -> float:
        """Sum over the series, nats."""
        self._check_fitted()
        return float(sum(model.log_likelihood_ for model in self.models_.values()))

    @property
    def n_parameters_(self) -> int:
        """Sum over the series."""
        self._check_fitted()
        return int(sum(model.n_parameters_ for model in self.models_.values()))

    def summary(self) -> pd.DataFrame:
        """One row a series: scored values, log-likelihood, free parameters, AIC, BIC, how the fit ended, seconds."""
        self._check_fitted()
        rows = {
            name: {
                "n_scored": model.n_scored_,
                "log_likelihood": model.log_likelihood_,
                "n_parameters": model.n_parameters_,
                "aic": model.aic,
                "bic": model.bic,
                "status": model.status_,  # type: ignore[attr-defined]
                "seconds": model.fit_seconds_,
            }
            for name, model in self.models_.items()
        }
        table = pd.DataFrame.from_dict(rows, orient="index")
        table.index = pd.Index(list(rows), name="sequence", tupleize_cols=False)
        return table

    # scores and predictions -------------------------------------------------------------------------------------------

    def _matched(
        self, X: Any, lengths: Any, covariates: Any, history: Any
    ) -> tuple[Sequences, list[tuple[SequenceEstimator, Sequences, Any]]]:
        """The data, and for each sequence its model, its data and its past."""
        self._check_fitted()
        data = sequences(X, lengths=lengths, covariates=covariates)
        past = None
        if history is not None and history is not TRAINING:
            past = sequences(history)
            at = {name: i for i, name in enumerate(past.names)}
        found = []
        for i, name in enumerate(data.names):
            model = self[name]
            before = history
            if past is not None:
                if name not in at:
                    raise DataError(
                        got=f"no history of series {name!r}",
                        expected="the past of every series",
                        remedy="Check the names.",
                    )
                before = past.select(at[name])
            found.append((model, data.select(i), before))
        return data, found

    def log_prob_steps(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """log p(x_t | x_<t) of each series under its own model, nats, dims ``sequence, time``; NaN where not scored."""
        data, each = self._matched(X, lengths, covariates, history)
        values = np.full(data.values.shape[:2], np.nan)
        for i, (model, one, past) in enumerate(each):
            values[i, : data.lengths[i]] = model.log_prob_steps(one, history=past, weights=weights).values
        return data.label(values, ("sequence", "time"), name="log_prob", attrs={"unit": "nats"})

    def log_prob(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """log p(x_1:T) of every series under its own model, dim ``sequence``, nats."""
        data, each = self._matched(X, lengths, covariates, history)
        total = np.array([float(model.log_prob(one, history=past, weights=weights)) for model, one, past in each])
        return data.label(total, ("sequence",), name="log_prob", attrs={"unit": "nats"})

    def score(
        self,
        X: Any,
        y: Any = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> float:
        """Mean log p(x_t | x_<t) in nats per scored value of all series; higher is better."""
        data, each = self._matched(X, lengths, covariates, history)
        check_y(y, data)
        total, n = 0.0, 0
        for model, one, past in each:
            steps = model._steps(model._read(one), model._begin(one, past, weights), weights)
            total += float(steps.values.double().sum())
            n += int(np.count_nonzero(steps.scored.numpy()))
        if n == 0:
            raise DataError(
                got="data in which no value is scored", expected="at least one", remedy="Pass longer data, or history=."
            )
        return total / n

    def predictive(
        self,
        X: Any,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> Forecast:
        """The one-step-ahead predictive distribution of every row of X."""
        data, each = self._matched(X, lengths, covariates, history)
        found = [model.predictive(one, history=past, weights=weights) for model, one, past in each]
        scored = np.zeros(data.values.shape, dtype=bool)
        for i, one in enumerate(found):
            scored[i, : data.lengths[i]] = True if one._scored is None else one._scored[0]
        return Forecast(_rows(found), data, data.index, scored=scored, method=found[0].method)

    def forecast(
        self,
        horizon: int | None = None,
        *,
        history: Any = TRAINING,
        covariates: Any = None,
        n_paths: int = 2000,
        weights: str = "adapt",
        random_state: RandomState = None,
    ) -> Forecast:
        """The predictive distribution of the next ``horizon`` steps of every series with a model.

        Parameters
        ----------
        horizon : int
        history : ps.TRAINING or data
            What came before; data may be of some of the series.
        covariates : mapping of names to future covariates, or None
        n_paths, weights, random_state
            As in the estimators' own ``forecast``.
        """
        self._check_fitted()
        if history is TRAINING:
            labels = self.labels_.select([i for i, name in enumerate(self.labels_.names) if name in self.models_])
            pasts: list[Any] = [TRAINING] * labels.n_sequences
        else:
            labels = sequences(history)
            pasts = [labels.select(i) for i in range(labels.n_sequences)]
        found = []
        for name, past in zip(labels.names, pasts, strict=True):
            own = covariates[name] if isinstance(covariates, dict) else covariates
            options: dict[str, Any] = {"n_paths": n_paths, "weights": weights, "random_state": random_state}
            found.append(self[name].forecast(horizon, history=past, covariates=own, **options))
        index = tuple(one._index[0] for one in found)
        joints = [one._joint for one in found]
        joint = RowsJoint([one for one in joints if one is not None]) if all(joints) else None
        method = found[0].method if len({one.method for one in found}) == 1 else "one model a series"
        return Forecast(
            _rows(found),
            labels,
            index,
            joint=joint,
            history=labels,
            method=method,
            future=True,
            random_state=random_state,
        )

    def predict(
        self,
        X: Any = None,
        *,
        horizon: int | None = None,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        """E[x_t | x_<t] for the rows of X, or with ``horizon`` the point forecast of the next steps."""
        if X is None:
            past = TRAINING if history is None else history
            return self.forecast(horizon, history=past, covariates=covariates, weights=weights).mean()
        return self.predictive(X, lengths=lengths, covariates=covariates, history=history, weights=weights).mean()

    # files ------------------------------------------------------------------------------------------------------------

    def _members(self) -> dict[Hashable, SequenceEstimator]:
        return self.models_

    def _found(self) -> dict[str, Any]:
        tables = {name: getattr(self, name) for name in ("failures_", "problems_")}
        return {
            "labels": encode_labels(self.labels_),
            "tables": {
                name: {"rows": [plain_label(row) for row in table.index], "columns": table.to_dict("list")}
                for name, table in tables.items()
            },
        }

    def _revive(self, members: dict[Any, SequenceEstimator], found: dict[str, Any]) -> None:
        self.models_ = members
        self.labels_ = decode_labels(found["labels"], next(iter(members.values())).vocabulary_)
        self.n_features_in_ = self.labels_.n_variables
        for name, kept in found["tables"].items():
            index = pd.Index(kept["rows"], name="sequence", tupleize_cols=False)
            setattr(self, name, pd.DataFrame(kept["columns"], index=index))


def _rows(forecasts: list[Forecast]) -> Backend:
    return RowsBackend([one._backend for one in forecasts])


def _table(rows: dict[Hashable, tuple[str, str]], columns: tuple[str, str]) -> pd.DataFrame:
    table = pd.DataFrame(list(rows.values()), columns=list(columns))
    table.index = pd.Index(list(rows), name="sequence", tupleize_cols=False)
    return table
