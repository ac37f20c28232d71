"""Fits as ArviZ reads them: parameter draws by chain, and the log-likelihood of each sequence under each."""

from __future__ import annotations

import warnings
from collections.abc import Hashable
from typing import Any

import numpy as np
import torch
import xarray as xr

from probseq.data.sequences import Sequences
from probseq.errors import ApproximationWarning, DataError, ParameterError, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.inference.chain_draws import ChainDraws

__all__ = ["to_arviz"]


def to_arviz(model: SequenceEstimator, X: Any = None, *, lengths: Any = None, covariates: Any = None) -> Any:
    """A fit with parameter draws for ArviZ: its plots, diagnostics, ``arviz.loo`` and ``arviz.compare``.

    Parameters
    ----------
    model : fitted estimator with several parameter draws
    X : the data that it was fitted to; needed only if it was loaded from a file
    lengths, covariates : as in ``log_prob``

    Returns
    -------
    InferenceData, or a DataTree from ArviZ 1 on
        Groups ``posterior`` (chain, draw, ...), ``log_likelihood`` and ``observed_data``. ``log_likelihood`` has one
        term ``x`` a sequence, log p(x_1:T | theta) in nats on the scale of the data, so that leaving one out leaves out
        a sequence. For one series its terms are log p(x_t | x_<t, theta), with a warning: the future of a value tells
        of it, so that leaving a term out is not leaving a value out. Use ``leave_future_out`` there. Values that a
        model conditions on are in no term: ``arviz.compare`` is for models that score the same ones, whose number is
        the attribute ``n_values``.

    Raises
    ------
    UnsupportedError
        For a model with one draw, draws of unequal weight, or an emission that is no likelihood; without ArviZ.
    DataError
        If the data are neither given nor kept.

    Examples
    --------
    >>> import arviz
    >>> import numpy as np
    >>> import probseq as ps
    >>> rng = np.random.default_rng(0)
    >>> many = [rng.normal(size=20) for _ in range(12)]
    >>> model = ps.ARMA((1, 0), inference=ps.Collapsed(), random_state=0).fit(many)
    >>> int(arviz.loo(ps.to_arviz(model)).n_data_points)
    12
    """
    if not isinstance(model, SequenceEstimator):
        raise ParameterError(got=f"model={model!r}", expected="a fitted estimator", remedy="Fit one.")
    model._check_fitted()
    _check_draws(model)
    if X is None and model._fitted_to is None:
        raise DataError(got="a model without its data", expected="those of the fit", remedy="Pass X.")
    data = model._read(model._fitted_to if X is None else X, lengths, covariates)
    law = model.model_
    with torch.no_grad():
        steps = law.model.log_prob_steps(law.params, model._batch(data))
    values = steps.values.double().numpy()
    n_chains = model.draws_.n_chains if isinstance(model.draws_, ChainDraws) else 1
    shape = (n_chains, values.shape[0] // n_chains)
    chains = {"chain": np.arange(shape[0]), "draw": np.arange(shape[1])}
    groups = {
        "posterior": _by_chain(model.params_, chains),
        "log_likelihood": _terms(data, values.reshape(*shape, *values.shape[1:]), steps.scored.numpy(), chains),
        "observed_data": data.to_dataarray().rename("x").to_dataset(),
    }
    if data.n_sequences == 1:
        warnings.warn(
            "The terms of one series are one-step predictions: arviz.loo would leave them out, but not what later "
            "values tell of them. Use ps.leave_future_out(model, X) instead.",
            ApproximationWarning,
            stacklevel=2,
        )
    return _tree(groups)


def _check_draws(model: SequenceEstimator) -> None:
    if model.model_.n_draws < 2:
        raise UnsupportedError(
            got="a model with one parameter draw", expected="draws", remedy="Fit with NUTS(), Collapsed() or Laplace()."
        )
    if not model.has_likelihood:
        raise UnsupportedError(
            got=f"{model.emission_!r}, which is no likelihood", expected="a density", remedy="Use another head."
        )
    weights = model.draws_.log_weights
    if weights is not None and not torch.allclose(weights, weights[:1].expand_as(weights), atol=1e-12):
        raise UnsupportedError(
            got="draws of unequal weight", expected="draws that count alike", remedy="Use another inference."
        )


def _by_chain(params: xr.Dataset, chains: dict[str, np.ndarray]) -> xr.Dataset:
    """Parameters (draw, ...) as (chain, draw, ...), chain after chain."""
    variables: dict[Hashable, Any] = {}
    size = tuple(len(one) for one in chains.values())
    for name, one in params.data_vars.items():
        rest = tuple(dim for dim in one.dims if dim != "draw")
        array = one.transpose("draw", *rest).values
        variables[name] = (("chain", "draw", *rest), array.reshape(*size, *array.shape[1:]))
    coords = {name: one for name, one in params.coords.items() if "draw" not in one.dims}
    return xr.Dataset(variables, {**coords, **chains})


def _terms(data: Sequences, values: np.ndarray, scored: np.ndarray, chains: dict[str, np.ndarray]) -> xr.Dataset:
    """Terms of a sum over sequences (chain, draw, sequence), or of one series (chain, draw, time), in nats."""
    attrs = {"units": "nats", "n_values": int(scored.sum())}
    steps = np.asarray(scored.any(-1))
    if data.n_sequences > 1:
        array, dim, label = values.sum(-1), "sequence", np.array([str(name) for name in data.names])
        kept = steps.any(-1)
    else:
        array, dim, label, kept = values[:, :, 0], "time", data.index[0].to_numpy(), steps[0]
    part = xr.DataArray(array, {**chains, dim: label}, ("chain", "draw", dim), attrs=attrs)
    return part.isel({dim: np.flatnonzero(kept)}).to_dataset(name="x")


def _tree(groups: dict[str, xr.Dataset]) -> Any:
    try:
        import arviz
    except ImportError as error:
        raise UnsupportedError(
            got="to_arviz without ArviZ", expected="arviz", remedy="Install it: pip install arviz."
        ) from error
    if int(arviz.__version__.split(".")[0]) >= 1:
        return xr.DataTree.from_dict(groups)
    held: dict[str, Any] = dict(groups)
    return arviz.InferenceData(**held)
