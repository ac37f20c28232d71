"""Parametric bootstrap: how far parameters would move if the fitted model made the data again."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
from sklearn.base import clone
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import Params
from probseq.errors import ConvergenceWarning, DegenerateWarning, UnsupportedError
from probseq.estimators.base import SequenceEstimator
from probseq.estimators.pipeline import fit_transforms, model_inputs
from probseq.evaluation.scores import check_level
from probseq.inference.em import EM
from probseq.inference.optimize import MLE
from probseq.models.base import Batch
from probseq.models.latent import DiscreteLatent, ExpectationMaximization
from probseq.models.relabel import exchangeable, match_states, permute_states
from probseq.models.wrappers import innermost, unwrap
from probseq.results.joint import make_batch

__all__ = ["Bootstrap", "bootstrap"]

_MAX_ITER, _TOL = 1000, 1e-6


@dataclass(frozen=True)
class Bootstrap:
    """The result of ``bootstrap``.

    Parameters
    ----------
    params : Dataset
        The parameters of every refit, dim ``draw``, with the names of ``params_``; states are matched to those of the
        fit.
    log_likelihood : (draw,)
        Nats of every simulated data set at its own fit: where the real data lie far below, the model is wrong.
    """

    params: xr.Dataset
    log_likelihood: np.ndarray

    @property
    def standard_errors(self) -> xr.Dataset:
        """Standard deviation of every parameter over the refits."""
        return self.params.std("draw", ddof=1)

    def interval(self, level: float = 0.9) -> xr.Dataset:
        """Percentile intervals, with a ``bound`` dimension (lower, upper)."""
        level = check_level(level)
        ends = self.params.quantile([(1 - level) / 2, (1 + level) / 2], "draw").rename(quantile="bound")
        return ends.assign_coords(bound=["lower", "upper"])


def bootstrap(
    fitted: SequenceEstimator,
    X: Any,
    n_draws: int = 100,
    *,
    lengths: Any = None,
    covariates: Any = None,
    random_state: RandomState = None,
) -> Bootstrap:
    """Simulate data like X from a fitted model, refit the model to them, and look how its parameters scatter.

    Every data set has the lengths, covariates and missing values of X; values that the model conditions on stay. Models
    with latent states that were fitted by EM or MLE are refitted by EM from the fitted parameters, others from their
    own starting values. Transforms are fitted anew each time.

    Parameters
    ----------
    fitted : SequenceEstimator
        With one draw of the parameters.
    X : the data that it was fitted to, in any form
    n_draws : int
        How many data sets, at least 2; 100 give standard errors to about 7 %.
    random_state : int, Generator or None

    Raises
    ------
    ParameterError
        For fewer than two draws.
    UnsupportedError
        For several parameter draws, whose spread is known already, and for texts that end with a token.

    References
    ----------
    Efron and Tibshirani (1993), An introduction to the bootstrap, section 6.5; Zucchini, MacDonald and Langrock (2016),
    section 3.6.2, for hidden Markov models.

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.earthquakes()
    >>> model = ps.HMM(2, ps.Poisson(), random_state=0).fit(y).order_states()
    >>> errors = ps.bootstrap(model, y, n_draws=5, random_state=0).standard_errors
    >>> bool((errors.rate < 5).all())
    True
    """
    data = fitted._read(X, lengths, covariates)
    whole_number("n_draws", n_draws, 2, "Try n_draws=100.")
    if fitted.model_.n_draws > 1 or (data.vocabulary is not None and data.vocabulary.end is not None):
        several = fitted.model_.n_draws > 1
        raise UnsupportedError(
            got="bootstrap of a model with several parameter draws" if several else "bootstrap of texts with an end",
            expected="a point estimate" if several else "sequences whose length is given",
            remedy='params_.std("draw") is their spread.' if several else "Read them with end=False.",
        )
    generator = torch_generator(random_state)
    found, log_likelihood = [], []
    for _ in range(int(n_draws)):
        simulated = _simulate(fitted, data, generator)
        params, value = _refit(fitted, simulated)
        found.append(params)
        log_likelihood.append(value)
    params = {name: torch.cat([one[name] for one in found]) for name in found[0]}
    return Bootstrap(fitted._label_params(_matched(fitted, data, params)), np.array(log_likelihood))


def _simulate(fitted: SequenceEstimator, data: Sequences, generator: torch.Generator) -> Sequences:
    model, inputs = fitted.model_, model_inputs(data)
    with torch.no_grad():
        first, state = 0, model.initial_state({}, data.n_sequences)
        while (ready := model.scores_next(state)) is not None and not bool(ready.all()):
            first += 1
            state = model.filter({}, fitted._batch(data.slice_time(0, first)))
        u = None if inputs is None else torch.as_tensor(np.nan_to_num(inputs[:, first:]))
        x, _ = model.sample({}, state, data.max_length - first, generator, u)
    values = data.values.copy()
    values[:, first:] = x.double().numpy()
    return replace(data, values=np.where(data.seen(), values, np.nan))


def _refit(fitted: SequenceEstimator, data: Sequences) -> tuple[dict[str, Tensor], float]:
    """Parameters (1, ...) and the log-likelihood on the scale of the data."""
    estimator = clone(fitted)
    model = innermost(fitted.model_.model)
    if isinstance(model, ExpectationMaximization) and isinstance(fitted._inference(), EM | MLE):
        transforms, values, steps, inputs = fit_transforms(estimator._transforms(), data)
        params = _climb(model, dict(fitted.model_.params), make_batch(model, values, steps, inputs))
        whole = transforms.wrap(model)
        with torch.no_grad():
            value = whole.log_prob(params, make_batch(whole, data.values, data.lengths, model_inputs(data)))
        return params, float(value.sum())
    with warnings.catch_warnings():
        for category in (ConvergenceWarning, DegenerateWarning):
            warnings.simplefilter("ignore", category)
        estimator.fit(data)
    return dict(estimator.model_.params), estimator.log_likelihood_


def _climb(model: ExpectationMaximization, params: dict[str, Tensor], batch: Batch) -> dict[str, Tensor]:
    """EM until the gain that is still to come, extrapolated from the last two steps, is small."""
    value, gain = -torch.inf, torch.inf
    for _ in range(_MAX_ITER):
        step = model.em_step(params, batch)
        new = float(step.log_prob[0])
        last, gain = gain, new - value
        if gain <= 0:
            break
        rate = min(gain / last, 1 - 1e-6) if last < torch.inf else 1.0
        if rate < 1 and max(gain, gain * rate / (1 - rate)) < _TOL:
            break
        value, params = new, step.params
    return params


def _matched(fitted: SequenceEstimator, data: Sequences, params: Params) -> Params:
    """States named as in the fit, by who is where in the real data."""
    model = innermost(fitted.model_.model)
    if not isinstance(model, DiscreteLatent):
        return params
    start = fitted.model_.initial_state({}, data.n_sequences)
    chain, batch, _, _ = unwrap(fitted.model_.model, fitted._batch(data), fitted.model_._unpack(start))
    if not exchangeable(chain, fitted.model_.params, batch):
        return params
    real = batch.real
    with torch.no_grad():
        reference = model.smooth(fitted.model_.params, batch)[0][real]
        probs = model.smooth(params, batch)[:, real]
    return permute_states(chain.parameters(), params, match_states(probs, reference))
