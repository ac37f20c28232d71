"""The joint law of a forecast, answered by the model and the state it started from."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from probseq.models.base import Batch, SequenceModel, map_state
from probseq.models.marginal import Marginalized
from probseq.results.backends import JointLaw

__all__ = ["MarginalJoint", "ModelJoint", "make_batch"]


def make_batch(
    model: SequenceModel[Any], values: np.ndarray, lengths: np.ndarray, covariates: np.ndarray | None = None
) -> Batch:
    """Padded arrays (NaN = missing; anything behind a sequence's length) as the tensors a model takes."""
    array = np.asarray(values, dtype=np.float64)
    present = np.isnan(array)
    np.logical_not(present, out=present)
    ends = np.asarray(lengths, dtype=np.int64)
    n_padding = int((array.shape[1] - ends).sum())
    if n_padding:
        beyond = np.arange(array.shape[1]) >= ends[:, None]
        present[beyond] = False
    n_missing = present.size - np.count_nonzero(present)
    x, seen = torch.as_tensor(array), torch.from_numpy(present)
    if n_padding and n_missing == n_padding * array.shape[2]:
        # Only padding: a copy and a few rows cost a fraction of a choice at every coordinate.
        filled = array.copy()
        filled[beyond] = model.observation.fills
        x = torch.from_numpy(filled)
    elif n_missing:
        x = model.observation.filled(x, seen)
    u = None if covariates is None else torch.nan_to_num(torch.as_tensor(covariates, dtype=torch.float64))
    return Batch(x, seen, torch.as_tensor(ends), u)


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

    def sample(self, n_paths: int, generator: torch.Generator) -> np.ndarray:
        n = _first_leaf(self.state).shape[0]
        repeated = map_state(lambda leaf: leaf.repeat_interleave(n_paths, 0), self.state)
        u = None
        if self.covariates is not None:
            u = torch.as_tensor(self.covariates).repeat_interleave(n_paths, 0)
        x, _ = self.model.sample({}, repeated, self.horizon, generator, u)
        return x.reshape(n, n_paths, self.horizon, -1).movedim(1, 0).numpy().astype(np.float64, copy=False)

    def sample_draws(self, n_paths: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        model = self.model
        if not isinstance(model, Marginalized) or model.n_draws < 2:
            return None
        log_weights = self.state.log_weights
        paths = []
        for draw in range(model.n_draws):
            certain = torch.full_like(log_weights, -torch.inf)
            certain[:, draw] = 0.0
            state = self.state._replace(log_weights=certain)
            paths.append(ModelJoint(model, state, self.horizon, self.covariates).sample(n_paths, generator))
        return np.stack(paths), log_weights.exp().numpy().astype(np.float64)

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        lengths = np.full(values.shape[0], values.shape[1])
        batch = make_batch(self.model, values, lengths, self.covariates)
        with torch.no_grad():
            steps = self.model.log_prob_steps({}, batch, self.state)
        scored = steps.scored.any(-1).numpy()
        return np.where(scored, steps.values.numpy(), np.nan)


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

    def log_prob(self, values: np.ndarray) -> np.ndarray:
        whole = np.full((*values.shape[:2], self.n_variables), np.nan)
        whole[..., self.which] = values
        return self.full.log_prob(whole)


def _first_leaf(state: Any) -> Tensor:
    while not isinstance(state, Tensor):
        state = state[0]
    return state
