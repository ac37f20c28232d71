"""Backtests: forecasts from many origins in the past, scored by what came."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq._types import one_of, truth_value, whole_number
from probseq.comparison.checkpoints import Checkpoints, describe_model
from probseq.comparison.foreign import ForeignForecaster
from probseq.comparison.held_forecasts import HeldForecasts, Question, fit_and_forecast
from probseq.comparison.one_by_one import forecast_one_by_one
from probseq.comparison.origins import Origins, plan_origins
from probseq.data.labels import dataset
from probseq.data.sequences import Sequences, sequences
from probseq.errors import ConvergenceWarning, DataWarning, HorizonError, ParameterError, ProbseqError, ProbseqWarning
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.history import replayed_steps
from probseq.estimators.per_sequence import PerSequence
from probseq.estimators.progress_bar import progress_bar
from probseq.kernels.threads import number_of_threads

__all__ = ["backtest"]

Model = SequenceEstimator | PerSequence | ForeignForecaster


def backtest(
    models: Any,
    X: Any,
    horizon: int = 1,
    *,
    min_steps: int | None = None,
    stride: int = 1,
    origins: Any = None,
    refit: int | None = None,
    window: int | None = None,
    lengths: Any = None,
    covariates: Any = None,
    static: Any = None,
    quantiles: tuple[float, ...] = (0.05, 0.25, 0.5, 0.75, 0.95),
    levels: tuple[float, ...] = (0.5, 0.9),
    weights: str = "adapt",
    n_paths: int = 2000,
    n_jobs: int | None = None,
    progress: bool | None = None,
    path: Any = None,
    random_state: int = 0,
) -> xr.Dataset:
    """Forecast from many origins as if each were today, and score the forecasts by what came.

    Between refits the parameters stay and the state goes on: one pass along the data gives the states of all origins,
    and their forecasts are one batch.

    Parameters
    ----------
    models : estimator, list, or dict of name -> estimator
        One that is not fitted is copied and fitted to what is known at an origin. One that is fitted already is used
        as it is unless ``refit`` is given: its parameters should come from data before the first origin. A
        ``PerSequence`` has a model for each sequence; one that cannot be fitted leaves NaN and is told. A
        ``ForeignForecaster``, or a wrapper such as ``Conformal``, is copied, fitted to each sequence by itself and
        asked at every origin; it is given no covariates.
    X : data in any form, one sequence or many
    horizon : int
        Steps ahead.
    min_steps : int
        Steps before the first origin; half of the longest sequence by default.
    stride : int
        Steps from one origin to the next, as long as ``horizon`` steps are left.
    origins : numbers of steps, or stamps
        The origins themselves: how many first steps are known, or the stamp of the last one that is, which cuts
        sequences of different beginnings at the same date.
    refit : int or None
        How many origins share a fit: 1 fits anew at each, None fits at the first one only.
    window : int or None
        How many last steps a fit sees (a rolling window); None for all (an expanding one).
    lengths, covariates, static : as in ``fit``
        Covariates are known over the horizon of every forecast. Models that take none are given none.
    quantiles : levels of the quantiles
    levels : probabilities of the central intervals whose coverage is counted
    weights : "adapt" or "frozen"
        Whether what is seen between fits moves the weights of parameter draws; see ``forecast``.
    n_paths : int
        Simulated paths where a law has no closed form.
    n_jobs : int or None
        Threads over models, fits and the series of a ``PerSequence``; None is as many as there are processors (or
        ``PROBSEQ_NUM_THREADS``).
    progress : bool or None
        A progress bar; None shows one in a terminal for 5 fits or more.
    path : folder or None
        Keeps what every fit gave, in a file of its own: a run that was stopped goes on where it was, and a model that
        joins later is the only one that is run. Parts are found by the arguments of the model, the data and the
        question; a model without ``random_state`` counts as itself.
    random_state : int
        Of simulated paths.

    Returns
    -------
    Dataset
        ``log_score`` (model, origin, horizon, sequence), nats of each step by itself, on the scale of the data;
        ``joint_log_score`` (model, origin, sequence), nats of what came over the whole horizon together: the sum of
        its one-step conditionals; ``crps``, ``mean``, ``quantiles``, ``coverage`` (1 where the central interval held
        the value) and ``truth``, with a ``variable`` dimension where the data have one; ``mode`` for categories.
        ``sequence`` is there if many came in. NaN stands where nothing was forecast or came; in both log scores for
        models without likelihood, in ``log_score`` behind the first step where laws are known by paths only, and in
        ``joint_log_score`` over gaps that a model cannot run over and for forecasts that do not know it, as those of
        wrappers. ``origin`` counts the known steps (or is the stamp that was asked for); ``fitted_at`` is the origin at
        which the parameters were fitted (of a ``PerSequence``, the first one behind it that knows some of a series that
        began later), ``method`` says how the laws of a model were found.

    Raises
    ------
    HorizonError
        If no origin leaves ``horizon`` steps behind it.
    ParameterError
        For origins outside the data, a ``path`` that is a file, and arguments that are none.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.earthquakes()
    >>> models = {"iid": ps.IID(ps.Poisson()), "hmm": ps.HMM(2, ps.Poisson(), random_state=0)}
    >>> found = ps.backtest(models, y, horizon=3, min_steps=80, refit=10)
    >>> dict(found["log_score"].sizes)
    {'model': 2, 'origin': 25, 'horizon': 3}
    >>> best = found["log_score"].mean(("origin", "horizon")).idxmax("model")
    >>> best.item()
    'hmm'
    """
    data = sequences(X, lengths=lengths, covariates=covariates, static=static).require_values()
    named = _named(models)
    if isinstance(horizon, bool) or not isinstance(horizon, int | np.integer) or horizon < 1:
        raise HorizonError(got=f"horizon={horizon!r}", expected="a whole number from 1", remedy="Try horizon=12.")
    one_of("weights", weights, ("adapt", "frozen"))
    asked = Question(
        int(horizon),
        _fractions("quantiles", quantiles),
        _fractions("levels", levels),
        weights,
        None if window is None else whole_number("window", window, 2),
        whole_number("n_paths", n_paths, 2),
        whole_number("random_state", random_state, 0),
    )
    if progress is not None:
        truth_value("progress", progress)
    jobs = number_of_threads() if n_jobs is None else whole_number("n_jobs", n_jobs, 1)
    plan = plan_origins(data, asked.horizon, min_steps, stride, origins, refit)
    ready = {name: refit is None and _is_fitted(model) for name, model in named.items()}
    for name, model in named.items():
        if ready[name]:
            _warn_of_leaks(name, model, data, plan.cuts[0])
    found = _run(named, ready, data, plan, asked, Checkpoints(path), jobs, progress)
    return _dataset(named, found, data, plan, asked)


def _named(models: Any) -> dict[str, Model]:
    if isinstance(models, Model) and not isinstance(models, type):
        models = [models]
    if not isinstance(models, Mapping | list | tuple) or not len(models):
        raise ParameterError(
            got=f"models={models!r}", expected="an estimator, or a dict or list of them", remedy="Pass some."
        )
    if not isinstance(models, Mapping):
        kinds = [type(one).__name__ for one in models]
        names = [
            f"{kind} {kinds[: i + 1].count(kind)}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)
        ]
        models = dict(zip(names, models, strict=True))
    for name, model in models.items():
        if isinstance(model, type) or not isinstance(model, Model):
            raise ParameterError(
                got=f"{model.__name__ if isinstance(model, type) else type(model).__name__} under the name {name!r}",
                expected="an estimator of probseq",
                remedy="Write it with parentheses." if isinstance(model, type) else "Pass ps.ARMA(), for one.",
            )
    if len({str(name) for name in models}) < len(models):
        raise ParameterError(
            got=f"models under the names {list(models)}", expected="names that differ as words", remedy="Rename one."
        )
    return {str(name): model for name, model in models.items()}


def _is_fitted(model: Model) -> bool:
    return isinstance(model, SequenceEstimator | PerSequence) and model.__sklearn_is_fitted__()


def _fractions(name: str, given: Any) -> tuple[float, ...]:
    try:
        values = np.atleast_1d(np.asarray(given, dtype=float)).tolist()
    except (TypeError, ValueError):
        values = [given]
    if not all(isinstance(one, float) and 0 < one < 1 for one in values) or len(set(values)) < len(values):
        raise ParameterError(
            got=f"{name}={given!r}", expected="different numbers between 0 and 1", remedy="Write 0.9 for 90 %."
        )
    return tuple(values)


def _warn_of_leaks(name: str, model: Model, data: Sequences, known: np.ndarray) -> None:
    """Warn where a model that stays as it is was fitted to what it is to forecast."""
    each: list[tuple[Any, Any]] = list(model.models_.items()) if isinstance(model, PerSequence) else [(None, model)]
    for which, one in each:
        row = None if which is None or which not in data.names else data.names.index(which)
        own, cut = (data, known) if row is None else (data.select([row]), known[[row]])
        steps = replayed_steps(own, one.training_, one.training_fingerprint_)
        if steps is not None and (steps > cut).any():
            warnings.warn(
                f"{name} was fitted to {int(steps.max())} steps and is scored on some of them, from step "
                f"{int(cut.min())} on: fit it to the first ones only, or pass refit=.",
                DataWarning,
                stacklevel=3,
            )
            return


def _run(
    named: dict[str, Model],
    ready: dict[str, bool],
    data: Sequences,
    plan: Origins,
    asked: Question,
    kept: Checkpoints,
    jobs: int,
    progress: bool | None,
) -> dict[tuple[str, int], HeldForecasts]:
    """What every fit of every model gave, from the folder where it is there."""
    found: dict[tuple[str, int], HeldForecasts] = {}
    made_from = (
        {
            name: {
                "model": describe_model(model, ready[name]),
                "data": data.fingerprint(),
                "variables": [str(one) for one in data.variables],
                "asked": asdict(asked),
                "answers": [one.name for one in fields(HeldForecasts)],
            }
            for name, model in named.items()
        }
        if kept.folder is not None
        else {}
    )

    def origin_of(which: tuple[str, int]) -> tuple[str, Any]:
        name, i = which
        group = plan.groups[i]
        told = {**made_from[name], "cuts": plan.cuts[group].tolist()} if made_from else None
        return f"{name}-{plan.labels[group[0]]}", told

    def task(which: tuple[str, int]) -> HeldForecasts:
        name, i = which
        try:
            model, group = named[name], plan.groups[i]
            if isinstance(model, SequenceEstimator | PerSequence):
                one = fit_and_forecast(model, ready[name], data, plan, group, asked, spare)
            else:
                one = forecast_one_by_one(model, data, plan, group, asked)
        except ProbseqError as error:
            error.add_note(f"In the backtest of {name!r}, at the origin {plan.labels[plan.groups[i][0]]}.")
            raise
        kept.save(*origin_of(which), one.arrays())
        return one

    todo = []
    for which in ((name, i) for i in range(len(plan.groups)) for name in named):
        held = kept.load(*origin_of(which))
        if held is None:
            todo.append(which)
        else:
            found[which] = HeldForecasts.from_arrays(held)
    spare = max(1, jobs // max(1, len(todo)))
    with warnings.catch_warnings():
        # Said once for all below.
        warnings.simplefilter("ignore", ProbseqWarning)
        with progress_bar(len(todo), "backtest", "fits", progress, 5) as bar:
            for which, one in _as_done(task, todo, jobs):
                found[which] = one
                bar()
    for name in named:
        told = [i for i in range(len(plan.groups)) if found[name, i].message]
        if told:
            at = plan.labels[plan.groups[told[0]][0]]
            warnings.warn(
                f"{len(told)} of {len(plan.groups)} fits of {name} had something to say; at the origin {at}: "
                f"{found[name, told[0]].message}",
                ConvergenceWarning,
                stacklevel=3,
            )
    return found


def _as_done(
    task: Callable[[tuple[str, int]], HeldForecasts], todo: list[tuple[str, int]], jobs: int
) -> Iterator[tuple[tuple[str, int], HeldForecasts]]:
    if jobs == 1 or len(todo) < 2:
        for which in todo:
            yield which, task(which)
        return
    with ThreadPoolExecutor(min(jobs, len(todo))) as pool:
        futures = {pool.submit(task, which): which for which in todo}
        try:
            for future in as_completed(futures):
                yield futures[future], future.result()
        finally:
            for future in futures:
                future.cancel()


def _dataset(
    named: dict[str, Model],
    found: dict[tuple[str, int], HeldForecasts],
    data: Sequences,
    plan: Origins,
    asked: Question,
) -> xr.Dataset:
    per = {name: [found[name, i] for i in range(len(plan.groups))] for name in named}

    def stacked(what: str) -> np.ndarray:
        each = [[getattr(one, what) for one in parts] for parts in per.values()]
        rows = [parts[0] if len(parts) == 1 else np.concatenate(parts) for parts in each]
        return rows[0][None] if len(rows) == 1 else np.stack(rows)

    units = {"units": data.attrs["units"]} if "units" in data.attrs else {}
    step = ("model", "origin", "horizon", "sequence")
    value = (*step, "variable")
    parts: dict[str, Any] = {
        "log_score": (step, stacked("log_score"), {"units": "nats"}),
        "joint_log_score": (("model", "origin", "sequence"), stacked("joint_log_score"), {"units": "nats"}),
        "crps": (value, stacked("crps"), units),
        "mean": (value, stacked("mean"), units),
        "quantiles": ((*value, "quantile"), stacked("quantiles"), units),
        "coverage": ((*value, "level"), stacked("coverage"), {}),
        "mode": (value, stacked("mode"), {}),
        "truth": (value[1:], plan.truth(data, asked.horizon), units),
    }
    if np.isnan(parts["mode"][1]).all():
        del parts["mode"]
    elif np.isnan(parts["mean"][1]).all():
        for name in ("crps", "mean", "quantiles", "coverage"):
            del parts[name]
    unused = {dim for dim, there in (("sequence", data.many), ("variable", not data.flat)) if not there}
    for name, (dims, array, attrs) in parts.items():
        only = tuple(0 if dim in unused else slice(None) for dim in dims)
        parts[name] = (tuple(dim for dim in dims if dim not in unused), array[only], attrs)
    labels: dict[str, Any] = {
        "model": tuple(named),
        "origin": _counted(plan.labels),
        "horizon": range(1, asked.horizon + 1),
    }
    if data.many:
        labels["sequence"] = pd.Index(list(data.names), tupleize_cols=False)
    if not data.flat:
        labels["variable"] = pd.Index(list(data.variables), tupleize_cols=False)
    if "quantiles" in parts:
        labels["quantile"], labels["level"] = asked.quantiles, asked.levels
    coords = {
        "fitted_at": (("origin",), plan.fitted_at()),
        "method": (("model",), tuple(next((one.method for one in ways if one.method), "") for ways in per.values())),
        **plan.stamps(data, asked.horizon),
    }
    return dataset(parts, labels, coords)


def _counted(labels: np.ndarray) -> np.ndarray | range:
    """Numbers of steps at equal distances as a range, whose labels are kept."""
    if labels.dtype.kind not in "iu" or len(labels) < 2:
        return labels
    step = int(labels[1] - labels[0])
    even = range(int(labels[0]), int(labels[-1]) + 1, step)
    return even if len(even) == len(labels) and bool((np.diff(labels) == step).all()) else labels
