"""The joint law of a forecast, answered by the model and the state it started from."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq._memory import spare
from probseq.distributions.compose import Mixture, mixture
from probseq.distributions.stacked import is_stacked
from probseq.errors import UnsupportedError
from probseq.kernels.padding import fill_missing, find_missing
from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.marginal import Marginalized
from probseq.results.backends import JointLaw, LawBackend
from probseq.results.scenario import backend_of
from probseq.results.trajectory import TrajectoryLaw

__all__ = ["MarginalJoint", "ModelJoint", "make_batch"]

# Longest trajectory and most numbers of a joint covariance for which paths are drawn from it at once.
_DENSE_SIZE = 512
_DENSE_ENTRIES = 10_000_000
# Up to here the joint covariance costs no more than the variances of the steps.
_CHEAP_ENTRIES = 10_000


def make_batch(
    model: SequenceModel[Any], values: np.ndarray, lengths: np.ndarray, covariates: np.ndarray | None = None
) -> Batch:
    """Padded arrays (NaN = missing; anything behind a sequence's length) as the tensors a model takes."""
    array, ends = np.asarray(values, dtype=np.float64), np.asarray(lengths, dtype=np.int64)
    n, t, k = array.shape
    flat, widths = np.ascontiguousarray(array).reshape(n, t * k), k * ends
    seen = spare(flat.shape, np.bool_)
    x = flat
    if ends.min(initial=t) < t or find_missing(flat, widths, seen):
        x = spare(flat.shape)
        fill_missing(flat, widths, np.array(model.observation.fills, dtype=np.float64), seen, x)
    u = None if covariates is None else torch.nan_to_num(torch.as_tensor(covariates, dtype=torch.float64))
    shape = array.shape
    return Batch(torch.from_numpy(x.reshape(shape)), torch.from_numpy(seen.reshape(shape)), torch.from_numpy(ends), u)


class ModelJoint(JointLaw):
    """p(x_{T+1}, ..., x_{T+h} | state) of a fitted model.

    Parameters
    ----------
    model : SequenceModel without free parameters
    state : leaves (n, ...), after the history
    horizon : int
    covariates : (n, horizon, m) or None
    """

    def __init__(self, model: SequenceModel[Any], state: Any, horizon: int, covariates: np.ndarray | None) -> None:
        self.model, self.state, self.horizon, self.covariates = model, state, horizon, covariates

    @cached_property
    def _law(self) -> TrajectoryLaw | None:
        u = None if self.covariates is None else torch.as_tensor(self.covariates)
        with torch.no_grad():
            law = self.model.forecast_joint({}, self.state, self.horizon, u)
        if law is None or not is_stacked(law):
            return None
        draws = self.model.n_draws if isinstance(self.model, Marginalized) else 1
        by_draw = draws > 1 and isinstance(law, Mixture) and law.log_weights.shape[-1] == draws
        return TrajectoryLaw(law, self.model.observation.n_variables, by_draw=by_draw)

    def closed(self) -> TrajectoryLaw | None:
        return self._law

    def steps(self) -> LawBackend | None:
        """The exact law of each step, with those of the draws behind a mixture; None where there are paths only."""
        if self._small(_CHEAP_ENTRIES) and self._law is not None:
            return backend_of(self._law)
        model, u = self.model, None if self.covariates is None else torch.as_tensor(self.covariates)
        with torch.no_grad():
            if not isinstance(model, Marginalized) or model.n_draws < 2:
                law = model.forecast_marginals({}, self.state, self.horizon, u)
                return None if law is None else LawBackend(law)
            draws = model.forecast_draws(self.state, self.horizon, u)
            if draws is None:
                return None
            log_weights = self.state.log_weights.unsqueeze(1).expand(-1, self.horizon, -1)
            return LawBackend(mixture(log_weights.to(model.dtype), draws), draws, log_weights.exp())

    def _require_likelihood(self) -> None:
        first = None if self.covariates is None else torch.as_tensor(self.covariates)[:, 0]
        with torch.no_grad():
            law = self.model.predict_next({}, self.state, first)
        if not law.is_likelihood:
            raise UnsupportedError(
                got="log_prob(joint=True) of a forecast by learnt quantiles",
                expected="a model that was fitted by its likelihood",
                remedy="Use crps(y) or energy_score(y), or a head with a density such as StudentT().",
            )

    def _small(self, entries: int = _DENSE_ENTRIES) -> bool:
        """Whether drawing from a dense joint law costs less than running the model once for each path."""
        size = self.horizon * self.model.observation.n_variables
        draws = self.model.n_draws if isinstance(self.model, Marginalized) else 1
        n = _first_leaf(self.state).shape[0]
        return size <= _DENSE_SIZE and n * draws * size * size <= entries

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        if self._small() and self._law is not None:
            return self._law.sample(n_paths, generator)
        return self._simulate(self.state, n_paths, generator)

    def _simulate(self, state: Any, n_paths: int, generator: torch.Generator) -> np.ndarray:
        u = None if self.covariates is None else torch.as_tensor(self.covariates)
        model = self.model
        if isinstance(model, Marginalized) and model.adapt and model.n_draws > 1:
            x = model.sample_paths(state, n_paths, self.horizon, generator, u)
        else:
            n = _first_leaf(state).shape[0]
            repeated = map_state(lambda leaf: leaf.repeat_interleave(n_paths, 0), state)
            u = None if u is None else u.repeat_interleave(n_paths, 0)
            x = model.sample({}, repeated, self.horizon, generator, u)[0].unflatten(0, (n, n_paths))
        return x.movedim(1, 0).numpy().astype(np.float64, copy=False)

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        model = self.model
        if not isinstance(model, Marginalized) or model.n_draws < 2:
            return None
        u = None if self.covariates is None else torch.as_tensor(self.covariates)
        x = model.sample_paths(self.state, n_paths, self.horizon, generator, u, by_draw=True)
        weights = self.state.log_weights.exp().numpy().astype(np.float64)
        return x.permute(1, 2, 0, 3, 4).numpy().astype(np.float64), weights

    def weighted_paths(
        self, values: np.ndarray, n_paths: int, generator: torch.Generator
    ) -> tuple[np.ndarray, np.ndarray] | None:
        model = self.model
        if not isinstance(model, Marginalized) or not model.adapt:
            return None
        u = None if self.covariates is None else torch.as_tensor(self.covariates)
        seen = torch.as_tensor(~np.isnan(values))
        known = torch.as_tensor(np.nan_to_num(values))
        x, gain = model.sample_through(self.state, known, seen, n_paths, generator, u)
        return x.movedim(1, 0).numpy().astype(np.float64), gain.T.numpy()

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        self._require_likelihood()
        # A model may not run over a gap, such as under Difference, where the joint law integrates it out.
        if np.isnan(values).any() and self._small() and self._law is not None:
            return self._law.log_prob(values)
        lengths = np.full(values.shape[0], values.shape[1])
        batch = make_batch(self.model, values, lengths, self.covariates)
        with torch.no_grad():
            return self.model.log_prob({}, batch, self.state).numpy()


class MarginalJoint(JointLaw):
    """The law of some of the variables over all steps: the others are integrated out.

    Parameters
    ----------
    full : JointLaw over all variables
    which : positions of the variables that stay
    n_variables : int, those of ``full``
    """

    def __init__(self, full: JointLaw, which: list[int], n_variables: int) -> None:
        self.full, self.which, self.n_variables = full, which, n_variables

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        return self.full.sample(n_paths, generator)[..., self.which]

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        both = self.full.sample_draws(n_paths, generator)
        return None if both is None else (both[0][..., self.which], both[1])

    def closed(self) -> TrajectoryLaw | None:
        law = self.full.closed()
        return None if law is None else law.marginal(self.which)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        whole = np.full((*values.shape[:2], self.n_variables), np.nan)
        whole[..., self.which] = values
        return self.full.log_prob(whole)


def _first_leaf(state: Any) -> Tensor:
    while not isinstance(state, Tensor):
        state = state[0]
    return state
