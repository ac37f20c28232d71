"""What users ask of hidden states: the best path, probabilities, samples of paths."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.errors import ParameterError
from probseq.estimators.predicting import Predicting
from probseq.models.base import Batch, SequenceModel
from probseq.models.latent import DiscreteLatent
from probseq.models.wrappers import innermost, unwrap

__all__ = ["StateMethods"]


class StateMethods(Predicting):
    """Methods of an estimator whose model, behind its transforms, is a ``DiscreteLatent``."""

    has_states: ClassVar[bool] = True

    def decode(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """The most probable path of states (Viterbi), dims ``sequence, time``; -1 where there is no state.

        Its log-probability log p(x, z) in nats is in ``attrs["log_prob"]`` (one number a sequence).
        """
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            paths = model.decode(self.model_.params, batch, state)
        states = self._spread(paths.states, data, first, -1)
        log_prob = paths.log_prob.numpy()
        one = self.model_.n_draws == 1
        attrs: dict[Any, Any] = {"log_prob": np.squeeze(log_prob[0] if one else log_prob)[()]}
        dims = ("sequence", "time") if one else ("draw", "sequence", "time")
        return data.label(states[0] if one else states, dims, name="state", attrs=attrs)

    def smooth(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """p(state_t | x_1..x_T), the probability of each state given all the data, dims ``sequence, time, state``."""
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            return self._label_probs(model.smooth(self.model_.params, batch, state), data, first, "smoothed")

    def filter_states(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """p(state_t | x_1..x_t), each state's probability given the data so far, dims ``sequence, time, state``."""
        data = self._read(X, lengths, covariates)
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            return self._label_probs(model.filter_states(self.model_.params, batch, state), data, first, "filtered")

    def sample_states(
        self,
        X: Any,
        n_paths: int = 100,
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """Paths of states from their law given all the data, dims ``path, sequence, time``."""
        data = self._read(X, lengths, covariates)
        if not isinstance(n_paths, int | np.integer) or isinstance(n_paths, bool) or n_paths < 1:
            raise ParameterError(got=f"n_paths={n_paths!r}", expected="a whole number from 1", remedy="Try 100.")
        model, batch, state, first = self._problem(data, history)
        seed = self.random_state if random_state is None else random_state
        with torch.no_grad():
            paths = model.sample_states(self.model_.params, batch, int(n_paths), torch_generator(seed), state)
        states = self._spread(paths, data, first, -1)
        one = self.model_.n_draws == 1
        dims = ("path", "sequence", "time") if one else ("draw", "path", "sequence", "time")
        return data.label(states[0] if one else states, dims, name="state")

    def stationary_distribution(self) -> xr.DataArray:
        """The law of the state in the long run, pi = pi A."""
        self._check_fitted()
        with torch.no_grad():
            pi = self._chain().stationary_distribution(self.model_.params).numpy()
        if self.model_.n_draws == 1:
            return xr.DataArray(pi[0], dims="state", name="stationary", coords={"state": np.arange(pi.shape[-1])})
        return xr.DataArray(pi, dims=("draw", "state"), name="stationary")

    def _chain(self) -> DiscreteLatent:
        """The model of the states, behind the transforms."""
        return _with_states(innermost(self.model_.model))

    def _problem(self, data: Sequences, history: Any) -> tuple[DiscreteLatent, Batch, Any, int]:
        """The chain's own batch and state behind the transforms."""
        batch = self._batch(data)
        begun = self._begin(data, history)
        start = self.model_.initial_state({}, batch.n) if begun is None else begun
        model, batch, state, first = unwrap(self.model_.model, batch, self.model_._unpack(start))
        return _with_states(model), batch, state, first

    def _spread(self, array: Tensor, data: Sequences, first: int, empty: int) -> np.ndarray:
        """Put steps without a state in front (time is the last axis)."""
        if first == 0:
            return array.numpy()
        widths = [(0, 0)] * (array.ndim - 1) + [(first, 0)]
        return np.pad(array.numpy(), widths, constant_values=empty)

    def _label_probs(self, probs: Tensor, data: Sequences, first: int, name: str) -> xr.DataArray:
        widths = [(0, 0)] * (probs.ndim - 2) + [(first, 0), (0, 0)]
        array = np.pad(probs.numpy(), widths, constant_values=np.nan)
        if self.model_.n_draws == 1:
            return data.label(array[0], ("sequence", "time", "state"), name=name)
        return data.label(array, ("draw", "sequence", "time", "state"), name=name)

    def _sample_states(self, state: Any, length: int, generator: torch.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Values (n, length, k) on the data's scale and the states behind them (n, length)."""
        if self.model_.n_draws > 1 or self._chain() is not self.model_.model:
            raise ParameterError(
                got="sample(states=True) with transforms or several parameter draws",
                expected="one parameter draw and no transform",
                remedy="Sample first, then decode(sample).",
            )
        x, states, _ = self._chain().simulate(self.model_.params, self.model_._unpack(state), length, generator)
        return x[0].numpy(), states[0].numpy()


def _with_states(model: SequenceModel[Any]) -> DiscreteLatent:
    if not isinstance(model, DiscreteLatent):
        raise TypeError(f"{type(model).__name__} has no discrete states")
    return model
