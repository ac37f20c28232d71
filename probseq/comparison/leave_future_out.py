"""Leave-future-out cross-validation of models with parameter draws, with few refits."""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.special import logsumexp

from probseq._types import whole_number
from probseq.comparison.held_forecasts import fit_to_past
from probseq.comparison.origins import Origins, plan_origins
from probseq.data.sequences import Sequences, sequences
from probseq.errors import ConvergenceWarning, ParameterError, ProbseqError, ProbseqWarning, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.progress_bar import progress_bar
from probseq.evaluation.pareto import psis
from probseq.evaluation.uncertainty import clustered_mean, default_lag, hac_mean

__all__ = ["leave_future_out"]


def leave_future_out(
    model: SequenceEstimator,
    X: Any,
    *,
    min_steps: int | None = None,
    horizon: int = 1,
    k_threshold: float = 0.7,
    lengths: Any = None,
    covariates: Any = None,
    static: Any = None,
    progress: bool | None = None,
) -> xr.Dataset:
    r"""log p(x_i+1:i+h | x_1:i) for i = min_steps, min_steps + 1, ..., parameters learnt from x_1:i.

    Each is log sum_s w_s p(x_i+1:i+h | x_1:i, theta_s). The draws theta_s are those of a fit to the first i* <= i
    steps; their weights w_s, proportional to p(x_i*+1:i | x_1:i*, theta_s) and Pareto smoothed, make them draws given
    x_1:i. Where the shape k of the weights' tail is above ``k_threshold``, the model is fitted anew to x_1:i. As exact
    as the draws are: with ``k_threshold=-inf`` every origin has a fit of its own.

    Parameters
    ----------
    model : estimator with an inference that gives draws, such as ``ps.NUTS()`` or ``ps.Collapsed()``
        Copied and fitted; it stays as it is.
    X : data in any form
        Many sequences share their parameters, are cut after the same number of steps, and weigh the draws together.
    min_steps : int
        Steps before the first origin; half of the longest sequence by default.
    horizon : int
        Steps that are scored together.
    k_threshold : float
        0.7 is what weights are known to be reliable up to.
    lengths, covariates, static : as in ``fit``
    progress : bool or None
        A progress bar over the origins; None shows one in a terminal.

    Returns
    -------
    Dataset
        ``log_score`` (origin, sequence) in nats on the scale of the data; ``pareto_k`` (origin), NaN where the draws
        are those of a fit to all that was seen; ``elpd``, the sum of the scores, and its ``standard_error`` (along
        time by Newey and West, with many sequences clustered by these); ``fitted_at`` (origin). ``origin`` counts the
        known steps.

    Raises
    ------
    UnsupportedError
        For a model with a single draw: each of its fits is exact by itself, see ``backtest``.
    HorizonError
        If no origin leaves ``horizon`` steps behind it.

    References
    ----------
    Buerkner, Gabry and Vehtari (2020), Approximate leave-future-out cross-validation for Bayesian time series models,
    Journal of Statistical Computation and Simulation 90, section 2.2.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.lake_huron()[:60]
    >>> model = ps.ARMA((1, 0), inference=ps.Collapsed(), random_state=0)
    >>> found = ps.leave_future_out(model, y, min_steps=40)
    >>> found.sizes["origin"], len(set(found["fitted_at"].values)) < 10
    (20, True)
    """
    if not isinstance(model, SequenceEstimator):
        raise ParameterError(got=f"model={model!r}", expected="one estimator", remedy="Pass ps.ARMA(...), for one.")
    limit = isinstance(k_threshold, int | float | np.number) and not isinstance(k_threshold, bool)
    if not limit or math.isnan(k_threshold):
        raise ParameterError(got=f"k_threshold={k_threshold!r}", expected="a number", remedy="Try 0.7.")
    data = sequences(X, lengths=lengths, covariates=covariates, static=static).require_values()
    h = whole_number("horizon", horizon, 1)
    plan = plan_origins(data, h, min_steps, 1, None, None)
    scores = np.full((len(plan.labels), data.n_sequences), np.nan)
    k_hat, fitted_at = np.full(len(scores), np.nan), np.empty(len(scores), dtype=np.int64)
    with warnings.catch_warnings(), progress_bar(len(scores), "leave future out", "origins", progress, 20) as bar:
        # Said once for all below.
        warnings.simplefilter("ignore", ProbseqWarning)
        current = _fit(model, data, plan, 0)
        fits = [current]
        for i, steps in enumerate(plan.labels.tolist()):
            weights, k_hat[i] = _reweighed(current, steps)
            if k_hat[i] > k_threshold:
                current = _fit(model, data, plan, i)
                fits.append(current)
                weights, k_hat[i] = current.log_weights, np.nan
            ahead = slice(steps, steps + h)
            scored = current.scored[:, ahead].any(1) & plan.valid[i]
            joint = logsumexp(weights[:, None] + current.values[:, :, ahead].sum(-1), axis=0)
            scores[i], fitted_at[i] = np.where(scored, joint, np.nan), current.steps
            bar()
    said = [fit for fit in fits if fit.message]
    if said:
        warnings.warn(
            f"{len(said)} of {len(fits)} fits had something to say; at the origin {said[0].steps}: {said[0].message}",
            ConvergenceWarning,
            stacklevel=2,
        )
    return _dataset(data, plan, h, scores, k_hat, fitted_at)


class _Fit(NamedTuple):
    """Draws given the first steps, and what each says of all steps.

    steps : how many were known. log_weights : (D,). values : (D, n, t), log p(x_t | x_<t, theta_s). scored : (n, t).
    """

    steps: int
    log_weights: np.ndarray
    values: np.ndarray
    scored: np.ndarray
    message: str


def _reweighed(fit: _Fit, steps: int) -> tuple[np.ndarray, float]:
    """Log weights of the draws given ``steps`` steps, and their tail's shape, NaN where nothing tells them apart."""
    seen = fit.values[:, :, fit.steps : steps].sum((1, 2))
    if (seen == seen[0]).all():
        return fit.log_weights, math.inf if np.isneginf(seen[0]) else math.nan
    smoothed = psis(fit.log_weights + seen)
    return smoothed.log_weights, float(smoothed.k_hat)


def _fit(model: SequenceEstimator, data: Sequences, plan: Origins, i: int) -> _Fit:
    steps = int(plan.labels[i])
    try:
        own, read = fit_to_past(model, data, plan.cuts[i])
    except ProbseqError as error:
        error.add_note(f"In leave_future_out, fitted to the first {steps} steps.")
        raise
    law = own.model_
    if law.n_draws < 2:
        raise UnsupportedError(
            got=f"{type(own).__name__} fitted by {type(own._inference()).__name__}, which gives a single draw",
            expected="an inference that gives draws",
            remedy="Use inference=ps.NUTS() or ps.Laplace(), or backtest(model, X, refit=1) for a point estimate.",
        )
    with torch.no_grad():
        found = law.model.log_prob_steps(law.params, own._batch(read))
    values = found.values.double().numpy()
    return _Fit(steps, law.log_weights.numpy(), values, found.scored.any(-1).numpy(), " ".join(own.draws_.messages))


def _dataset(
    data: Sequences, plan: Origins, horizon: int, scores: np.ndarray, k_hat: np.ndarray, fitted_at: np.ndarray
) -> xr.Dataset:
    n = int((~np.isnan(scores)).sum())
    total, error = float(np.nansum(scores)), math.nan
    if n > 1 and np.isfinite(scores[~np.isnan(scores)]).all():
        if data.n_sequences > 1:
            error = n * clustered_mean(scores, np.arange(data.n_sequences)).standard_error
        else:
            lag = max(horizon - 1, default_lag(n))
            error = n * hac_mean(scores[:, 0], lag).standard_error
    nats = {"units": "nats"}
    coords: dict[str, Any] = {"origin": plan.labels, "fitted_at": ("origin", fitted_at)}
    stamps = plan.stamps(data, horizon)
    if "origin_time" in stamps:
        coords["origin_time"] = stamps["origin_time"]
    if data.many:
        coords["sequence"] = pd.Index(list(data.names), tupleize_cols=False)
    each = (("origin", "sequence"), scores, nats) if data.many else ("origin", scores[:, 0], nats)
    return xr.Dataset(
        {
            "log_score": each,
            "pareto_k": ("origin", k_hat),
            "elpd": ((), total, nats),
            "standard_error": ((), error, nats),
        },
        coords,
        {"horizon": horizon},
    )
