"""What users ask of hidden states: the best paths, probabilities, samples of paths, expected counts."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import take_draw
from probseq.errors import ParameterError
from probseq.estimators.imputation import Imputation
from probseq.estimators.state_plots import StatePlots
from probseq.models.base import map_state

__all__ = ["StateMethods"]


class StateMethods(StatePlots, Imputation):
    """Methods of an estimator whose model, behind its transforms, is a ``DiscreteLatent``."""

    has_states: ClassVar[bool] = True

    def decode(
        self, X: Any, k: int | None = None, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """The most probable path of states (Viterbi), dims ``sequence, time``; -1 where there is no state.

        Parameters
        ----------
        X : data in any form
        k : int or None
            The k most probable paths, best first, along a dimension ``path``. Its coordinates are ``log_prob``, log
            p(x, z) in nats, and ``probability``, p(z | x). Where there are fewer possible paths the rest is -1.

        Returns
        -------
        DataArray of int. Without ``k``, log p(x, z) is in ``attrs["log_prob"]`` (one number a sequence). With names of
        states (see `label_states`) a coordinate ``state_name`` has them.
        """
        data = self._borrow(X, lengths, covariates)
        if k is not None:
            whole_number("k", k, 1, "Try 5.")
        model, batch, state, first = self._problem(data, history)
        params = self.model_.params
        with torch.no_grad():
            if k is None:
                paths = model.decode(params, batch, state)
            else:
                paths = model.decode(params, batch, state, k=int(k))
                evidence = self._evidence(model, batch, state)
        log_prob = paths.log_prob.numpy()
        lead: tuple[str, ...] = ("draw", "sequence") if k is None else ("draw", "path", "sequence")
        codes = self._spread(paths.states, data, first, -1)
        if k is None:
            one = self.model_.n_draws == 1
            attrs = {"log_prob": np.squeeze(log_prob[0] if one else log_prob)[()]}
            return self._label_states(codes, (*lead, "time"), data, attrs)
        found = self._label_states(codes, (*lead, "time"), data)
        # Paths that cannot be have no part, in data that cannot be neither.
        gap = np.full(log_prob.shape, -np.inf)
        np.subtract(log_prob, evidence.unsqueeze(1).numpy(), out=gap, where=log_prob > -np.inf)
        share = np.exp(gap)
        for name, array in (("log_prob", log_prob), ("probability", share)):
            each = data.label(array[0] if self.model_.n_draws == 1 else array, self._lead(lead))
            found = found.assign_coords({name: (each.dims, each.values)})
        return found

    def smooth(self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None) -> xr.DataArray:
        """p(state_t | x_1..x_T), the probability of each state given all the data, dims ``sequence, time, state``."""
        data = self._borrow(X, lengths, covariates)
        model, batch, state, first = self._problem(data, history)
        with torch.no_grad():
            return self._label_probs(model.smooth(self.model_.params, batch, state), data, first, "smoothed")

    def filter_states(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.DataArray:
        """p(state_t | x_1..x_t), each state's probability given the data so far, dims ``sequence, time, state``."""
        data = self._borrow(X, lengths, covariates)
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
        data = self._borrow(X, lengths, covariates)
        whole_number("n_paths", n_paths, 1, "Try 100.")
        model, batch, state, first = self._problem(data, history)
        seed = self.random_state if random_state is None else random_state
        with torch.no_grad():
            paths = model.sample_states(self.model_.params, batch, int(n_paths), torch_generator(seed), state)
        return self._label_states(self._spread(paths, data, first, -1), ("draw", "path", "sequence", "time"), data)

    def expected_counts(
        self, X: Any, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> xr.Dataset:
        """How often states are expected to be visited and to follow one another, given all the data.

        Returns
        -------
        Dataset with ``transitions`` (sequence, state, next_state), the expected number of moves from one state to
        another, and ``occupancy`` (sequence, state), the expected number of steps in each state. Sum them over
        ``sequence`` where there are many.
        """
        data = self._borrow(X, lengths, covariates)
        model, batch, state, _ = self._problem(data, history)
        with torch.no_grad():
            moves = model.expected_transitions(self.model_.params, batch, state).numpy()
            steps = model.smooth(self.model_.params, batch, state).sum(-2).numpy()
        names = self._state_labels()
        coords = {"state": names, "next_state": names}
        arrays = {}
        for name, array, dims in (
            ("transitions", moves, ("draw", "sequence", "state", "next_state")),
            ("occupancy", steps, ("draw", "sequence", "state")),
        ):
            shown = {dim: coords[dim] for dim in dims if dim in coords}
            each = array[0] if self.model_.n_draws == 1 else array
            arrays[name] = data.label(each, self._lead(dims), name=name, coords=shown)
        return xr.Dataset(arrays)

    def expected_durations(self) -> xr.DataArray:
        """How many steps a visit of each state lasts in the mean; inf for a state that is never left."""
        self._check_fitted()
        with torch.no_grad():
            steps = self._latent().expected_durations(self.model_.params).numpy()
        return self._by_state(steps, "duration").assign_attrs(units="steps")

    def stationary_distribution(self) -> xr.DataArray:
        """The law of the state in the long run, pi = pi A."""
        self._check_fitted()
        with torch.no_grad():
            pi = self._latent().stationary_distribution(self.model_.params).numpy()
        return self._by_state(pi, "stationary")

    def _by_state(self, array: np.ndarray, name: str) -> xr.DataArray:
        one = self.model_.n_draws == 1
        dims = self._lead(("draw", "state"))
        return xr.DataArray(array[0] if one else array, dims=dims, name=name, coords={"state": self._state_labels()})

    def _spread(self, array: Tensor, data: Sequences, first: int, empty: int) -> np.ndarray:
        """Put steps without a state in front (time is the last axis)."""
        if first == 0:
            return array.numpy()
        widths = [(0, 0)] * (array.ndim - 1) + [(first, 0)]
        return np.pad(array.numpy(), widths, constant_values=empty)

    def _label_states(
        self, codes: np.ndarray, dims: tuple[str, ...], data: Sequences, attrs: dict[Any, Any] | None = None
    ) -> xr.DataArray:
        one = self.model_.n_draws == 1
        shown = codes[0] if one else codes
        return self._named_states(data.label(shown, self._lead(dims), name="state", attrs=attrs, padded=True))

    def _label_probs(self, probs: Tensor, data: Sequences, first: int, name: str) -> xr.DataArray:
        widths = [(0, 0)] * (probs.ndim - 2) + [(first, 0), (0, 0)]
        array = np.pad(probs.numpy(), widths, constant_values=np.nan)
        one = self.model_.n_draws == 1
        dims = self._lead(("draw", "sequence", "time", "state"))
        return data.label(array[0] if one else array, dims, name=name, coords={"state": self._state_labels()})

    def _sample_states(
        self, state: Any, length: int, generator: torch.Generator, u: Tensor | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values (n, length, k) on the data's scale and the states behind them (n, length)."""
        if self._latent() is not self.model_.model:
            raise ParameterError(
                got="sample(states=True) with transforms",
                expected="no transform: the values before it have states",
                remedy="Sample first, then decode(sample).",
            )
        # Each sequence has one draw of the parameters, its own row along the draws.
        n = state.log_weights.shape[0]
        draw = torch.multinomial(state.log_weights.exp(), 1, generator=generator).squeeze(-1)
        inner = map_state(lambda leaf: leaf[torch.arange(n), draw].unsqueeze(1), state.inner)
        future = None if u is None else u.expand(n, *u.shape[-2:]).unsqueeze(1)
        params = take_draw(self.model_.params, draw)
        x, states, _ = self._latent().simulate(params, inner, length, generator, future)
        return x[:, 0].numpy(), states[:, 0].numpy()
