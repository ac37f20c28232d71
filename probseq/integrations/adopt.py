"""Models that were fitted by other libraries, as fitted models of this one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from probseq.distributions.emissions import Categorical, Emission, GaussianMixture, Multinomial, Normal, Poisson
from probseq.errors import DataTypeError, NotFittedError
from probseq.estimators.hmm import HMM

__all__ = ["from_hmmlearn"]

Parts = tuple[Emission, dict[str, Any]]


def from_hmmlearn(model: Any) -> HMM:
    """A fitted ``HMM`` with the parameters of a fitted hmmlearn model.

    Score, most probable path and posteriors are those of hmmlearn, to rounding. The variational classes of hmmlearn
    score, decode and smooth with the means of their posterior (only their fit uses the sub-normalised weights
    exp E[log theta], which are no probabilities); so does the adopted model. An hmmlearn model with
    ``algorithm="map"`` decodes by the largest posterior of each step: ``smooth(X).argmax("state")`` here.

    Parameters
    ----------
    model : hmmlearn model
        ``GaussianHMM``, ``GMMHMM``, ``CategoricalHMM``, ``MultinomialHMM``, ``PoissonHMM``,
        ``VariationalGaussianHMM`` or ``VariationalCategoricalHMM``, fitted or with its parameters set.

    Returns
    -------
    HMM
        Without training data: pass ``history=`` to ``forecast``.

    Raises
    ------
    DataTypeError
        For anything else.
    NotFittedError
        For a model without parameters.

    Examples
    --------
    >>> import numpy as np, probseq as ps
    >>> from hmmlearn.hmm import PoissonHMM
    >>> y = ps.datasets.earthquakes().values[:, None]
    >>> theirs = PoissonHMM(2, random_state=0).fit(y)
    >>> bool(np.isclose(ps.from_hmmlearn(theirs).log_prob(y), theirs.score(y)))
    True
    """
    classes = {cls.__name__ for cls in type(model).__mro__ if cls.__module__.partition(".")[0] == "hmmlearn"}
    known = next((name for name in _PARTS if name in classes), None)
    if known is None:
        raise DataTypeError(
            got=f"a {type(model).__name__}",
            expected=f"a fitted hmmlearn model: {', '.join(_PARTS)}",
            remedy="Pass the model itself.",
        )
    if not hasattr(model, "startprob_") or not hasattr(model, "transmat_"):
        raise NotFittedError(
            got=f"a {type(model).__name__} without parameters",
            expected="a fitted model",
            remedy="Call its fit(X) first.",
        )
    try:
        emission, parameters = _PARTS[known](model)
    except AttributeError as error:
        if error.obj is not model:
            raise
        raise NotFittedError(
            got=f"a {type(model).__name__} without {(error.name or '').strip('_')}",
            expected="a fitted model",
            remedy="Call its fit(X) first, or set all of its parameters.",
        ) from error
    return HMM(int(model.n_components), emission).with_parameters(
        initial=_shares(model.startprob_), transition=_shares(model.transmat_), **parameters
    )


def _gaussian(model: Any) -> Parts:
    kind, own = model.covariance_type, np.asarray(model._covars_)
    parameters = {"mean": np.asarray(model.means_)}
    if kind == "spherical":  # one variance a state, which a fit of hmmlearn repeats for every variable
        parameters["scale"] = np.sqrt(own.reshape(len(own), -1)[:, 0])
    elif kind == "diag":
        parameters["scale"] = np.sqrt(own)
    else:
        parameters["covariance"] = _symmetric(own)
    return Normal(covariance=kind), parameters


def _mixture(model: Any) -> Parts:
    kind, own = model.covariance_type, np.asarray(model.covars_)
    parameters = {"weights": _shares(model.weights_), "mean": np.asarray(model.means_)}
    if kind in ("diag", "spherical"):
        parameters["scale"] = np.sqrt(own)
    else:
        parameters["covariance"] = _symmetric(own)
    return GaussianMixture(int(model.n_mix), covariance=kind), parameters


def _poisson(model: Any) -> Parts:
    return Poisson(), {"rate": np.asarray(model.lambdas_)}


def _categorical(model: Any) -> Parts:
    probs = _shares(model.emissionprob_)
    return Categorical(n_categories=probs.shape[-1]), {"probs": probs[:, None]}


def _multinomial(model: Any) -> Parts:
    """hmmlearn keeps the totals of the rows that it was fitted to, one number if they were set."""
    totals = np.unique(np.asarray([] if model.n_trials is None else model.n_trials))
    n_trials = int(totals[0]) if len(totals) == 1 else None
    return Multinomial(n_trials), {"probs": _shares(model.emissionprob_)}


def _shares(probs: Any) -> np.ndarray:
    """hmmlearn accepts rows that sum to one up to 1e-8."""
    array = np.asarray(probs, dtype=np.float64)
    total: np.ndarray = array / array.sum(-1, keepdims=True)
    return total


def _symmetric(covariance: np.ndarray) -> np.ndarray:
    both: np.ndarray = 0.5 * (covariance + np.swapaxes(covariance, -1, -2))
    return both


_PARTS: dict[str, Callable[[Any], Parts]] = {
    "GMMHMM": _mixture,
    "VariationalGaussianHMM": _gaussian,
    "GaussianHMM": _gaussian,
    "VariationalCategoricalHMM": _categorical,
    "CategoricalHMM": _categorical,
    "MultinomialHMM": _multinomial,
    "PoissonHMM": _poisson,
}
