"""The report from Python: of a series, of models of one's own, or of models that have been fitted and compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq._types import whole_number
from probseq.data.sequences import Sequences, sequences
from probseq.data.timeindex import infer_step
from probseq.errors import DataError, HistoryError, ParameterError
from probseq.estimators.base import TRAINING, SequenceEstimator
from probseq.report.defaults import MODELS
from probseq.report.page import write_page
from probseq.report.source import Source, read_source, trimmed
from probseq.report.study import run_study, study_fitted

__all__ = ["write_report"]


def write_report(
    X: Any,
    path: str | Path = "probseq-report.html",
    models: Mapping[str, SequenceEstimator] | Sequence[str] | None = None,
    *,
    history: Any = None,
    horizon: int | None = None,
    period: int | None = None,
    title: str | None = None,
    column: str | None = None,
    time: str | None = None,
    random_state: int = 0,
) -> Path:
    """Compare models on one series of numbers and write what was found as a HTML page that stands for itself.

    The page has findings in plain language, the ranking with its uncertainty, forecasts against what came, hidden
    states, calibration, residual checks, the models with their parameters, and how to repeat it all. It needs no
    network, and follows light and dark mode. ``probseq compare`` writes the same.

    There are two ways to call it. Without ``history`` the series is cut in two, and models are fitted to its first
    part. With ``history``, as for ``compare``, the models are fitted already and ``X`` is what was held out.

    Parameters
    ----------
    X : one series of numbers in any form, or the path of a CSV file as text or Path
        NaN = missing.
    path : str or Path
        Where the page goes.
    models : dict of name -> estimator, names such as "arma", or None
        Clones of the estimators are fitted, unless ``history`` is given. None chooses by the data, as the command
        line does.
    history : the data before X, ps.TRAINING or None
    horizon : int or None
        Steps to hold out; None takes two years of monthly data, else a sixth.
    period : int or None
        Steps in a season for models that are chosen, 1 for none; None finds out.
    title : str or None
        None takes the name of the data.
    column, time : str or None
        Columns of the values and of the times of a file; found where they are obvious.
    random_state : int
        For models that are chosen.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    DataError
        For text, several variables or sequences, or history that X does not follow.
    ParameterError
        For arguments that do not go together, a folder that is not there, or an unknown name of a model.
    ShapeError
        If there are too few values, or all are equal.

    Examples
    --------
    >>> import tempfile, pathlib
    >>> import probseq as ps
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> y = ps.datasets.lake_huron()
    >>> train, test = ps.split(y, horizon=20)
    >>> models = {"ar": ps.ARMA((1, 0)).fit(train), "walk": ps.RandomWalk().fit(train)}
    >>> ps.write_report(test, folder / "lake.html", models, history=train).name
    'lake.html'
    """
    target = Path(path)
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise ParameterError(got=f"path={str(path)!r}", expected="a file in a folder that exists", remedy="Check it.")
    seed = whole_number("random_state", random_state, 0)
    _check_models(models, history)
    if history is not None:
        if horizon is not None or isinstance(X, str | Path):
            raise ParameterError(
                got="history= with horizon= or a file",
                expected="history=train with X=test, the values that were held out",
                remedy="Leave history out, and the series is cut and the models fitted.",
            )
        study = study_fitted(*_joined(X, history, models, title), models)  # type: ignore[arg-type]
    else:
        if isinstance(X, str | Path):
            source = read_source(str(X), column, time)
            source = replace(source, title=title or source.title)
        else:
            source = trimmed(_source(_series(X, "X"), title))
        study = run_study(source, horizon=horizon, models=models, period=period, seed=seed)
    return write_page(study, target)


def _check_models(models: Any, history: Any) -> None:
    if isinstance(models, str | SequenceEstimator):
        named = f"a list of names, such as {list(MODELS)[:3]}, or a dict of name -> estimator"
        raise ParameterError(got=f"models={models!r}", expected=named)
    own = isinstance(models, Mapping)
    if history is not None and not (own and models):
        raise ParameterError(
            got=f"history= with models={models!r}",
            expected="a dict of name -> fitted estimator",
            remedy="Pass the models that were compared, or leave history out.",
        )
    if not own:
        return
    if not models:
        raise ParameterError(got="no model", expected="at least one estimator by its name")
    for name, model in models.items():
        if not isinstance(model, SequenceEstimator):
            raise ParameterError(
                got=f"{type(model).__name__} under the name {name!r}",
                expected="an estimator such as ps.ARMA()",
                remedy="Compare forecasters from elsewhere with ps.compare.",
            )


def _series(data: Any, what: str) -> xr.DataArray:
    """One series of numbers as a DataArray (time,)."""
    found = sequences(data)
    if found.vocabulary is not None:
        raise DataError(got=f"{what} of text or categories", expected="numbers", remedy="Use ps.compare for them.")
    if found.n_sequences != 1 or found.n_variables != 1:
        several = f"{found.n_sequences} sequences of {found.n_variables} variables"
        raise DataError(
            got=f"{what} with {several}",
            expected="one series of one variable",
            remedy="Choose one, such as y['sales'], or compare on all of them with ps.compare.",
        )
    return _labelled(found)


def _labelled(found: Sequences) -> xr.DataArray:
    index = found.index[0]
    if isinstance(index, pd.PeriodIndex):
        index = index.to_timestamp()
    if isinstance(index, pd.DatetimeIndex):
        index = index.tz_localize(None)
    name = found.name if found.flat else found.variables[0]
    return xr.DataArray(
        np.asarray(found.block(0)[:, 0], float),
        dims="time",
        coords={"time": np.asarray(index)},
        name="value" if name is None else str(name),
        attrs=dict(found.attrs),
    )


def _source(series: xr.DataArray, title: str | None) -> Source:
    named = title or str(series.attrs.get("long_name", "" if series.name == "value" else series.name)) or "A series"
    return Source(series, named[:1].upper() + named[1:], str(series.attrs.get("source", "given in Python")))


def _joined(X: Any, history: Any, models: Any, title: str | None) -> tuple[Source, xr.DataArray, xr.DataArray]:
    """The whole series, and its two parts."""
    past = next(iter(models.values())).training_ if history is TRAINING else history
    if past is None:
        raise HistoryError(
            got="history=ps.TRAINING for models without training data",
            expected="the data before X",
            remedy="Pass history=train.",
        )
    train = _labelled(past) if isinstance(past, Sequences) else _series(past, "history")
    test = _series(X, "X").rename(train.name)
    before, after = train.indexes["time"], test.indexes["time"]
    counted = before.dtype.kind in "iu" and after.dtype.kind in "iu"
    if counted and after[0] == 0:
        test = test.assign_coords(time=np.arange(len(after)) + before[-1] + 1)
        after = test.indexes["time"]
    step = infer_step(before)
    if before.dtype.kind != after.dtype.kind or not after[0] > before[-1]:
        raise DataError(
            got=f"history that ends at {before[-1]} and X that begins at {after[0]}",
            expected="X right after history",
            remedy="Cut them with ps.split(y, horizon=...).",
        )
    if step is not None and infer_step(before.append(after)) is None:
        raise DataError(
            got="steps missing between history and X, or a step of their own in X",
            expected="X right after history, with its step",
            remedy="Cut them with ps.split(y, horizon=...).",
        )
    return _source(xr.concat([train, test], "time"), title), train, test
