"""The models of a study in full: what they say, their parameters with units, how they were fitted."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq.distributions.emissions import LogNormal
from probseq.errors import ProbseqError
from probseq.estimators.arma import ARMA
from probseq.models.transforms import Difference, Log
from probseq.report.families import family_of, transformed, transforms_of
from probseq.report.formula import mathml
from probseq.report.markup import listing, paragraphs, table, whole
from probseq.report.study import Study

__all__ = ["catalogue", "parameter_tables"]

_MOST = 64
_ENDED = {
    "converged": "the fit converged{after}",
    "exact": "the estimates are exact, no iterations were needed",
    "max_iter": "the fit stopped{after}, as many as it may take, before it met its own test of convergence",
    "decreased": "the fit stopped{after}, because its objective became worse",
    "degenerate": "the fit ended in a degenerate solution{after}",
    "interrupted": "the fit was interrupted{after}",
    "stopped": "the fit was stopped by a callback{after}",
}
_LOCATED = ("loc", "mean", "scale", "drift", "level", "level_scale", "slope", "slope_scale", "trend")
_CHANCES = ("initial", "transition")


def catalogue(study: Study) -> str:
    """A part for every model, best first."""
    overview = pd.DataFrame.from_dict(
        {
            name: {
                "what": study.what(name),
                "free parameters": f"{study.models[name].n_parameters_:,}",
                "fit, s": f"{study.models[name].fit_seconds_:.2f}",
                "ended": study.models[name].status_,
                "nats per value fitted": _fitted(study, name),
            }
            for name in study.ranked
        },
        orient="index",
    )
    parts = [f"<h3>{whole(name)}: {whole(study.what(name))}</h3>{_model(study, name)}" for name in study.ranked]
    return table(overview, "model", "Models and their fits") + "".join(parts)


def _fitted(study: Study, name: str) -> str:
    model = study.models[name]
    found = model.log_likelihood_ / max(model.n_scored_, 1)
    return "" if math.isnan(found) else f"{found:.3f}"


def _model(study: Study, name: str) -> str:
    model = study.models[name]
    family = family_of(model)
    lines = [line for line in (transformed(model), *family.equations) if line]
    formula = "".join(mathml(line if transformed(model) else line.replace("x_", "y_")) for line in lines)
    tables = "".join(
        table(frame, corner, f"Parameters of {name}") for corner, frame in parameter_tables(study, name).items()
    )
    warned = study.warnings.get(name, ())
    said = listing([f"The fit warned: {text}" for text in warned], "warn") if warned else ""
    return (
        f"{paragraphs(family.meaning)}<div class=formula>{formula}</div>{paragraphs(_how(study, name))}{tables}{said}"
    )


def _how(study: Study, name: str) -> str:
    """Inference and convergence in words."""
    model = study.models[name]
    inference = type(model._inference()).__name__ if model.status_ != "exact" else ""
    text = f"Fitted by {_METHODS.get(inference, inference)}; " if inference else ""
    after = f" after {model.n_iter_} iterations" if model.n_iter_ and model.n_iter_ > 1 else ""
    text += _ENDED.get(model.status_, f"the fit ended as {model.status_}{{after}}").format(after=after) + "."
    n_draws = model.model_.n_draws
    if n_draws > 1:
        text += f" Forecasts average over {n_draws} draws of the parameters."
    size = _size(model.params_)
    if size > _MOST:
        text += f" Its {size:,} parameters are not listed."
    if not study.warnings.get(name) and study.chosen:
        text += " It raised no warning."
    return text[:1].upper() + text[1:]


_METHODS = {
    "EM": "expectation-maximisation (EM)",
    "MLE": "maximum likelihood",
    "MAP": "the maximum of the posterior (MAP)",
    "MeanField": "variational inference, a normal law over every weight (mean field)",
    "NUTS": "Hamiltonian Monte Carlo (NUTS)",
    "Gibbs": "Gibbs sampling",
    "VB": "variational Bayes",
    "Laplace": "Laplace's approximation of the posterior",
}


def parameter_tables(study: Study, name: str) -> dict[str, pd.DataFrame]:
    """The fitted parameters as text by the heading of their first column; a sentence's worth where they are many."""
    model = study.models[name]
    params: xr.Dataset = model.params_
    if _size(params) > _MOST:
        return {}
    by_state: dict[str, dict[str, str]] = {}
    rows: dict[str, dict[str, str]] = {}
    errors = _errors(model)
    for key, values in params.items():
        spread = values.std("draw", ddof=1) if "draw" in values.dims else None
        array = values if spread is None else values.mean("draw")
        if array.sizes.get("variable") == 1:
            array = array.squeeze("variable", drop=True)
            spread = None if spread is None else spread.squeeze("variable", drop=True)
        unit = _unit(study, model, str(key))
        if array.dims == ("state",):
            title = f"{_word(str(key))}{f', {unit}' if unit else ''}"
            for s, value in enumerate(array.values):
                by_state.setdefault(_state(array, s), {})[title] = _number(value, str(key))
        elif array.dims == ("state", "next_state"):
            for s in range(array.shape[0]):
                for j in range(array.shape[1]):
                    by_state.setdefault(_state(array, s), {})[f"to {_state(array, j)}"] = _number(
                        array.values[s, j], str(key)
                    )
        else:
            for place, value in np.ndenumerate(array.values):
                title = _place(str(key), array, place)
                row = {"estimate": _number(value, str(key)), "unit": unit}
                error = errors.get(title, math.nan if spread is None else float(spread.values[place]))
                row["standard error"] = "" if math.isnan(error) else f"{error:.2g}"
                rows[title] = row
    frames = {"state": by_state, "parameter": rows}
    found = {corner: pd.DataFrame.from_dict(part, orient="index").fillna("") for corner, part in frames.items() if part}
    return {corner: frame.loc[:, (frame != "").any()] for corner, frame in found.items()}


def _size(params: xr.Dataset) -> int:
    """Numbers in one draw of all parameters."""
    return sum(int(np.prod([n for d, n in v.sizes.items() if d != "draw"])) for v in params.values())


def _errors(model: Any) -> dict[str, float]:
    """Standard errors by parameter, for families that have them."""
    if not isinstance(model, ARMA):
        return {}
    try:
        return {str(key): float(value) for key, value in model.summary()["std_error"].items()}
    except ProbseqError:
        return {}


def _state(array: xr.DataArray, s: int) -> str:
    names = array.coords.get("state")
    return f"state {s}" if names is None or names.dtype.kind in "iu" else str(names.values[s])


def _place(key: str, array: xr.DataArray, place: tuple[int, ...]) -> str:
    """A name such as ma[1]."""
    if not place:
        return key
    labels = [str(array.coords[d].values[i]) if d in array.coords else str(i) for d, i in zip(array.dims, place)]
    return f"{key}[{', '.join(labels)}]"


def _word(key: str) -> str:
    return {"initial": "starts here", "scale": "standard deviation", "rate": "mean count"}.get(key, key)


def _unit(study: Study, model: Any, key: str) -> str:
    """The unit of a parameter of location or scale."""
    if key == "rate":
        return "a step"
    if key not in _LOCATED:
        return ""
    transforms = transforms_of(model)
    on_logs = isinstance(model.get_params(deep=False).get("emission"), LogNormal)
    unit = "log scale" if on_logs else study.source.unit or "unit of the data"
    for transform in transforms:
        if isinstance(transform, Log):
            unit = "log scale"
        elif not isinstance(transform, Difference):
            unit = f"after {type(transform).__name__}"
    change = any(isinstance(t, Difference) for t in transforms) or key in ("drift", "slope", "slope_scale", "trend")
    return f"{unit} a step" if change else unit


def _number(value: Any, key: str) -> str:
    if key in _CHANCES:
        return f"{float(value):.2f}"
    return f"{float(value):.4g}"
