"""Whether data are of the kind that a model was fitted with."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from probseq.data.batch import Sequences
from probseq.data.covariates import order_by_name
from probseq.errors import CovariateError, DataError, ShapeError

__all__ = ["matched"]

_SHOWN = 5


def matched(
    data: Sequences,
    variables: tuple[Hashable, ...],
    *,
    named: bool,
    covariate_names: tuple[Hashable, ...] = (),
    static_names: tuple[Hashable, ...] = (),
    who: str = "The model",
) -> Sequences:
    """Return `data` with the covariates in the order of the fit, if they have the variables of the fit.

    Parameters
    ----------
    data : Sequences
    variables, covariate_names, static_names : tuple
        What the model was fitted with.
    named : bool
        Whether the variables had names in the fit. Names are compared where both sides have them and there are
        several variables.
    who : str
        Name of the model in the message.

    Raises
    ------
    ShapeError
        For another number of variables.
    DataError
        For other names, or another order of them.
    CovariateError
        For other covariates or static inputs.
    """
    if named and data.named and not data.flat and data.variables != variables:
        raise DataError(
            got=f"the variables {_few(data.variables)}",
            expected=f"{_few(variables)}",
            remedy="The feature names should match those that were passed during fit.\n"
            + _difference(data.variables, variables),
        )
    if data.n_variables != len(variables):
        reshape = "Reshape your data: a 1-D array is a sequence of one variable. " if data.flat else ""
        raise ShapeError(
            got=f"{data.n_variables} variable(s)",
            expected=f"{len(variables)}: {_few(variables)}",
            remedy=f"{reshape}X has {data.n_variables} features, but {who} is expecting {len(variables)} features "
            "as input.",
        )
    changes: dict[str, object] = {}
    if covariate_names or data.covariates is not None:
        if data.covariates is None:
            raise CovariateError(
                got="no covariates",
                expected=f"the covariates {list(covariate_names)}",
                remedy="Pass covariates= as in fit.",
            )
        changes.update(_reordered(data.covariates, data.covariate_names, covariate_names, "covariates"))
    if data.static is not None:
        changes.update(_reordered(data.static, data.static_names, static_names, "static"))
    elif static_names:
        raise CovariateError(
            got="no static inputs",
            expected=f"the static inputs {list(static_names)}",
            remedy="Pass static= as in fit.",
        )
    return replace(data, **changes) if changes else data  # type: ignore[arg-type]


def _reordered(
    values: np.ndarray, given: tuple[Hashable, ...], wanted: tuple[Hashable, ...], what: str
) -> dict[str, object]:
    if given == wanted:
        return {}
    order = order_by_name(given, values.shape[-1], wanted)
    return {what: values[..., order], "covariate_names" if what == "covariates" else "static_names": wanted}


def _few(names: tuple[Hashable, ...]) -> str:
    return f"{list(names[:_SHOWN])}{'...' if len(names) > _SHOWN else ''}"


def _difference(given: tuple[Hashable, ...], wanted: tuple[Hashable, ...]) -> str:
    """Return the wording of scikit-learn for names that differ."""
    unseen = sorted(set(given) - set(wanted), key=str)
    missing = sorted(set(wanted) - set(given), key=str)
    text = ""
    for head, names in (("unseen at fit time", unseen), ("seen at fit time, yet now missing", missing)):
        if names:
            shown = [f"- {name}\n" for name in names[:_SHOWN]] + (["- ...\n"] if len(names) > _SHOWN else [])
            text += f"Feature names {head}:\n" + "".join(shown)
    return text or "Feature names must be in the same order as they were in fit.\n"
