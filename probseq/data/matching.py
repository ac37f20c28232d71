"""Whether data are of the kind that a model was fitted with."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np

from probseq.data.batch import Sequences
from probseq.data.covariates import order_by_name, plain_names
from probseq.errors import ShapeError

__all__ = ["matched"]

_SHOWN = 5


def matched(
    data: Sequences,
    variables: tuple[Hashable, ...],
    *,
    named: bool,
    inputs: tuple[Hashable, ...] = (),
    n_static: int = 0,
    who: str = "The model",
) -> Sequences:
    """Return `data` with the covariates in the order of the fit, if they have the variables of the fit.

    Parameters
    ----------
    data : Sequences
    variables : tuple
        Those that the model was fitted with.
    named : bool
        Whether they had names. Names are compared where both sides have them.
    inputs : tuple
        Names of the covariates and then of the static inputs of the fit. Inputs without names go by position.
    n_static : int
        How many of them are static.
    who : str
        Name of the model in the message.

    Raises
    ------
    ShapeError
        For another number of variables, other names, or another order of them.
    CovariateError
        For other covariates or static inputs.
    """
    if data.n_variables != len(variables):
        reshape = "Reshape your data: a 1-D array is a sequence of one variable." if data.flat else ""
        raise ShapeError(
            got=f"X has {data.n_variables} features, but {who} is expecting {len(variables)} features as input",
            expected=f"the variables of the fit, {_few(variables)}",
            remedy=reshape or "Pass the same columns.",
        )
    # Numbers as names that are 0 to k - 1 in another order were columns without names once.
    turned = not named and set(data.variables) == set(range(len(variables)))
    known = tuple(range(len(variables))) if turned else variables
    if data.named and (named or turned) and plain_names(data.variables) != plain_names(known):
        raise ShapeError(
            got=f"the variables {_few(data.variables)}",
            expected=f"{_few(known)} in this order",
            remedy="The feature names should match those that were passed during fit.\n"
            + _difference(data.variables, known)
            + "Select the columns by name.",
        )
    return _with_inputs_of(data, inputs, n_static)


def _with_inputs_of(data: Sequences, inputs: tuple[Hashable, ...], n_static: int) -> Sequences:
    given = (*data.covariate_names, *data.static_names)
    if given == inputs and len(data.static_names) == n_static:
        return data
    if len(data.static_names) != n_static:
        # What was static in the fit may come as a column of the covariates, and the other way round.
        order = order_by_name(given, len(given), inputs)
        blocks = [] if data.covariates is None else [data.covariates]
        if data.static is not None:
            blocks.append(np.repeat(data.static[:, None], data.max_length, 1))
        both = np.concatenate(blocks, -1)[..., order] if blocks else None
        return replace(data, covariates=both, covariate_names=inputs, static=None, static_names=())
    n_varying = len(inputs) - n_static
    varying = order_by_name(data.covariate_names, data.n_covariates, inputs[:n_varying])
    fixed = order_by_name(data.static_names, n_static, inputs[n_varying:])
    return replace(
        data,
        covariates=None if data.covariates is None else data.covariates[..., varying],
        covariate_names=inputs[:n_varying],
        static=None if data.static is None else data.static[:, fixed],
        static_names=inputs[n_varying:],
    )


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
