"""Which hidden state is which: their order and the names that users give them."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Self

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq.distributions.params import flatten, unflatten
from probseq.errors import ParameterError
from probseq.estimators.latent import HiddenStates
from probseq.estimators.named_states import NamedStates
from probseq.models.marginal import Marginalized
from probseq.models.relabel import moved_start, permute_states
from probseq.models.wrappers import map_innermost

__all__ = ["StateNames"]


class StateNames(NamedStates, HiddenStates):
    """The order and the names of hidden states."""

    def order_states(
        self,
        by: str | Callable[[xr.Dataset], Any] = "mean",
        *,
        variable: Any = 0,
        descending: bool = False,
    ) -> Self:
        """A copy of the fitted model whose states are numbered by a key, from the smallest on.

        The law of the data stays the same; a start that is known moves with its states. Each parameter draw is ordered
        by itself, so that a state means the same in all of them where the key tells the states apart.

        Parameters
        ----------
        by : str or callable
            "mean" or "std" of what a state emits (on the scale of the transformed data), "stationary" for how often the
            state is visited in the long run, the name of a parameter of a state in ``params_``, or a function of
            ``params_`` that gives one number a state.
        variable : int or name
            Which of several variables counts.
        descending : bool
            From the largest on.

        Raises
        ------
        ParameterError
            For a key that has no number a state, and where forbidden or known transitions tell the states apart, or
            a known start those of some draws.

        Examples
        --------
        >>> import probseq as ps
        >>> model = ps.HMM(2, ps.Poisson(), random_state=0).fit(ps.datasets.earthquakes()).order_states()
        >>> model.label_states(["calm", "active"]).params_["rate"].squeeze().to_series().round(1).to_dict()
        {'calm': 15.4, 'active': 26.0}
        """
        self._check_fitted()
        key = self._state_key(by, variable)
        order = np.argsort(-key if descending else key, -1, kind="stable")
        if self.state_names_ is not None and (order != order[0]).any():
            raise ParameterError(
                got="an order that differs between parameter draws, for states that have names",
                expected="names given after the order",
                remedy="Call label_states(None) first.",
            )
        return self._permuted(torch.as_tensor(order))

    def _n_named(self) -> int:
        return self._latent().n_states

    def _named_states(self, codes: xr.DataArray) -> xr.DataArray:
        """Codes of states with their names as a coordinate, "" where there is no state."""
        if self.state_names_ is None:
            return codes
        words = np.asarray([*self.state_names_, ""], dtype=object)
        return codes.assign_coords(state_name=(codes.dims, words[codes.values]))

    def _names(self) -> dict[str, Any]:
        names: dict[str, Any] = super()._names()  # type: ignore[misc]
        if self.state_names_ is not None:
            names["state"] = names["next_state"] = self._state_labels()
        return names

    def _state_key(self, by: Any, variable: Any) -> np.ndarray:
        """(D, s)."""
        model, params = self._latent(), self.model_.params
        n_draws, n_states = self.model_.n_draws, model.n_states
        with torch.no_grad():
            if by in ("mean", "std"):
                law = model.state_laws(params)
                each: Any = (law.mean if by == "mean" else law.variance.sqrt())[..., self._position(variable)]
            elif by == "stationary":
                each = model.stationary_distribution(params)
            elif callable(by):
                each = self._called_key(by)
            else:
                each = self._parameter_key(by, variable)
        key = np.asarray(each, dtype=float)
        if key.shape == (n_states,):
            key = np.broadcast_to(key, (n_draws, n_states))
        if key.shape != (n_draws, n_states) or np.isnan(key).any():
            raise ParameterError(
                got=f"by={by!r}, a key of shape {key.shape}" + (" with NaN" if np.isnan(key).any() else ""),
                expected=f"one number for each of {n_states} states (and of {n_draws} draws)",
                remedy='Try by="mean" or a parameter with one number a state.',
            )
        return key

    def _called_key(self, by: Callable[[xr.Dataset], Any]) -> Any:
        found = by(self.params_)
        if isinstance(found, xr.DataArray):
            lead = [dim for dim in ("draw", "state") if dim in found.dims]
            found = found.transpose(*lead, ...).squeeze().values
            return found if found.ndim == 2 or self.model_.n_draws == 1 else found.reshape(self.model_.n_draws, -1)
        return found

    def _parameter_key(self, by: Any, variable: Any) -> Tensor:
        specs = self.model_.model.parameters()
        known = [name for name, spec in specs.items() if set(spec.dims) in ({"state"}, {"state", "variable"})]
        if by not in known:
            raise ParameterError(
                got=f"by={by!r}",
                expected=f'"mean", "std", "stationary", one of {known}, or a function of params_',
                remedy='Try by="mean".',
            )
        value, dims = self.model_.params[by], ("draw", *specs[by].dims)
        return value.select(dims.index("variable"), self._position(variable)) if "variable" in dims else value

    def _permuted(self, order: Tensor) -> Self:
        """A copy in which state i of draw d is the old state ``order[d, i]``."""
        specs = self.model_.model.parameters()
        params = permute_states(specs, self.model_.params, order)
        moved = copy.copy(self)
        inner = self.model_.model
        start = moved_start(self._latent(), order)
        if start is not None:
            moved.start = start.numpy()  # type: ignore[attr-defined]
            inner = self.transforms_.wrap(moved._build(self.info_))  # type: ignore[attr-defined]
        model = Marginalized(inner, params, self.model_.log_weights, self.model_.adapt)
        covariance = self.draws_.covariance
        if covariance is not None:

            def renamed(flat: Tensor) -> Tensor:
                return flatten(specs, permute_states(specs, unflatten(specs, flat), order[0]))

            found = flatten(specs, self.model_.params)[0]
            slope = torch.autograd.functional.jacobian(renamed, found).numpy()
            covariance = slope @ covariance @ slope.T
        moved.model_ = model
        moved.draws_ = replace(self.draws_.renamed(params, order), covariance=covariance)
        if self.training_state_ is not None:
            inner = map_innermost(
                model.model,
                model._unpack(self.training_state_),
                lambda belief: self._latent().permute_state(belief, order),
            )
            moved.training_state_ = model._pack(inner, self.training_state_.log_weights)
        names = self.state_names_
        moved.state_names_ = None if names is None else tuple(names[i] for i in order[0].tolist())
        return moved
