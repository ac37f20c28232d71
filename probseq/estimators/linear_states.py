"""What users ask of the states of a linear dynamical system: what they were, how they move, what they explain."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any, Self, cast

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from probseq._random import RandomState, torch_generator
from probseq._types import whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import take_draw
from probseq.errors import UnsupportedError
from probseq.estimators.gaussian_states import GaussianStates
from probseq.estimators.named_states import NamedStates
from probseq.models.base import map_state
from probseq.models.linear_gaussian_state import GaussianState
from probseq.models.linear_system import LinearSystemModel
from probseq.models.linear_system_axes import explained_variance, principal_axes, turned, turned_state
from probseq.models.marginal import Marginalized
from probseq.models.wrappers import innermost, map_innermost

__all__ = ["LinearStates"]


class LinearStates(NamedStates, GaussianStates):
    """Methods of an estimator whose model, behind its transforms, is a ``LinearSystemModel``."""

    def smooth(
        self,
        X: Any,
        *,
        covariance: bool = False,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> xr.Dataset:
        """The states given all the data, s_t | x_1..x_T; exact, also over gaps.

        Parameters
        ----------
        X : data in any form, NaN = missing
        covariance : bool
            Whether ``covariance`` is there too, dims ``sequence, time, state, other_state``.

        Returns
        -------
        Dataset of ``mean`` and ``std``, dims ``sequence, time, state``. Several parameter draws are averaged.
        """
        data = self._borrow(X, lengths, covariates)
        _, smoothed, weights, first = self._smoothed(data, history)
        return self._moments(data, smoothed.mean, smoothed.cov, weights, first, covariance)

    def filter_states(
        self,
        X: Any,
        *,
        covariance: bool = False,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
    ) -> xr.Dataset:
        """The states given the data so far, s_t | x_1..x_t; exact. Arguments and result as of `smooth`.

        Several parameter draws are averaged with the weights that all the data give them.
        """
        data = self._borrow(X, lengths, covariates)
        found, batch, state, first = self._problem(data, history)
        model = cast(LinearSystemModel, found)
        with torch.no_grad():
            mean, cov = model.filter_moments(self.model_.params, batch, state)
            weights = self._draw_weights(data, history).exp().T
        return self._moments(data, mean, cov, weights, first, covariance)

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
        """Whole paths of the states from their joint law given all the data; exact.

        Dims ``path, sequence, time, state``. Each path has one draw of the parameters.
        """
        data = self._borrow(X, lengths, covariates)
        whole_number("n_paths", n_paths, 1, "Try 100.")
        found, batch, state, first = self._problem(data, history)
        model = cast(LinearSystemModel, found)
        generator = torch_generator(self.random_state if random_state is None else random_state)
        weights = self._draw_weights(data, history).exp()
        chosen = torch.multinomial(weights, int(n_paths), replacement=True, generator=generator).T
        result = np.full((int(n_paths), batch.n, batch.t, model.n_states), np.nan)
        for d in torch.unique(chosen).tolist():
            begun = map_state(lambda leaf, d=d: leaf[d], state)
            rows = (chosen == d).any(-1).nonzero().squeeze(-1)
            drawn = model.sample_states(take_draw(self.model_.params, d), batch, len(rows), generator, begun)
            result[rows] = np.where((chosen[rows] == d)[..., None, None].numpy(), drawn.numpy(), result[rows])
        array = np.pad(result, ((0, 0), (0, 0), (first, 0), (0, 0)), constant_values=np.nan)
        array = np.where(~data.mask()[..., None], np.nan, array)
        dims = ("path", "sequence", "time", "state")
        return data.label(array, dims, name="state", coords={"state": self._state_labels()})

    def _moments(
        self, data: Sequences, mean: Tensor, cov: Tensor, weights: Tensor, first: int, whole: bool
    ) -> xr.Dataset:
        """Averages over draws of moments (draw, n, t, ...) as a Dataset."""
        w = weights[..., None, None]
        centre = (w * mean).sum(0)
        off = mean - centre
        spread = (w[..., None] * (cov + off.unsqueeze(-1) * off.unsqueeze(-2))).sum(0)
        names = self._state_labels()
        behind = ~data.mask()
        parts = {"mean": centre, "std": spread.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()}
        if whole:
            parts["covariance"] = spread
        labelled = {}
        for name, value in parts.items():
            array = np.pad(value.numpy(), ((0, 0), (first, 0), *((0, 0),) * (value.ndim - 2)), constant_values=np.nan)
            array = np.where(behind.reshape(*behind.shape, *(1,) * (value.ndim - 2)), np.nan, array)
            dims = ("sequence", "time", "state", "other_state")[: value.ndim]
            labelled[name] = data.label(array, dims, name=name, coords={dim: names for dim in dims[2:]})
        return xr.Dataset(labelled)

    def modes(self) -> xr.Dataset:
        """How the states move by themselves: one mode for each eigenvalue of the transition, slowest first.

        Returns
        -------
        Dataset over ``mode`` (and ``draw``): ``eigenvalue`` (complex), ``modulus``, ``period`` in steps (inf where it
        does not turn) and ``half_life`` in steps (inf where it does not die). The system is stationary where every
        modulus is below one; ``attrs["stationary"]`` says so.
        """
        self._check_fitted()
        values = torch.linalg.eigvals(self.model_.params["transition"]).numpy()
        order = np.lexsort((values.imag, -values.real, -np.round(np.abs(values), 12)), axis=-1)
        values = np.take_along_axis(values, order, -1)
        size, angle = np.abs(values), np.abs(np.angle(values))
        with np.errstate(divide="ignore"):
            period = np.where(angle > 0, 2.0 * np.pi / angle, np.inf)
            half_life = np.where(size < 1.0, np.log(0.5) / np.log(size), np.inf)
        one = self.model_.n_draws == 1
        dims = ("mode",) if one else ("draw", "mode")
        arrays = {"eigenvalue": values, "modulus": size, "period": period, "half_life": half_life}
        return xr.Dataset(
            {name: (dims, array[0] if one else array) for name, array in arrays.items()},
            attrs={"stationary": bool((size < 1.0).all())},
        )

    def explained_variance(self) -> xr.DataArray:
        """Share of the stationary variance of each variable that the shocks of each state make, the rest is noise.

        Returns
        -------
        DataArray, dims ``variable, state`` (behind ``draw``). Shocks are independent, so that shares add up.

        Raises
        ------
        UnsupportedError
            Where the states are not stationary.
        """
        self._check_fitted()
        self._require_stable("explained_variance()")
        model, params = self._system(), self.model_.params
        with torch.no_grad():
            parts = explained_variance(params)
            whole = parts.sum(-1) + model.noise_covariance(params).diagonal(dim1=-2, dim2=-1)
            share = (parts / whole.unsqueeze(-1)).numpy()
        one = self.model_.n_draws == 1
        coords: dict[str, Any] = {"state": self._state_labels()}
        if self.training_ is not None:
            coords["variable"] = [str(name) for name in self.training_.variables]
        dims = ("variable", "state") if one else ("draw", "variable", "state")
        return xr.DataArray(share[0] if one else share, dims=dims, name="explained_variance", coords=coords)

    def order_states(self) -> Self:
        """A copy of the fitted model whose states come in the order of the variance that they explain.

        The states are rotated, draw by draw, to the axes whose shocks explain most of the variables' variances, one
        after the other, and get the sign with which the variable that they move most goes up. The law of the data stays
        what it was; names of states and the covariance of the estimates are lost.

        Raises
        ------
        UnsupportedError
            Where the states are not stationary.
        """
        self._check_fitted()
        self._require_stable("order_states()")
        model, params = self._system(), self.model_.params
        with torch.no_grad():
            turn = principal_axes(params, model.noise_covariance(params))
        moved = copy.copy(self)
        new = turned(params, turn)
        moved.model_ = Marginalized(self.model_.model, new, self.model_.log_weights, self.model_.adapt)
        moved.draws_ = replace(self.draws_, params=new, covariance=None)
        moved.state_names_ = None

        def turned_belief(state: GaussianState) -> GaussianState:
            mean, cov = turned_state(state.mean, state.cov, turn)
            return state._replace(mean=mean, cov=cov)

        if self.training_state_ is not None:
            inner = map_innermost(self.model_.model, self.model_._unpack(self.training_state_), turned_belief)
            moved.training_state_ = moved.model_._pack(inner, self.training_state_.log_weights)
        return moved

    def _n_named(self) -> int:
        return self._system().n_states

    def _require_stable(self, what: str) -> None:
        largest = float(torch.linalg.eigvals(self.model_.params["transition"]).abs().max())
        if largest >= 1.0:
            raise UnsupportedError(
                got=f"{what} of states that are not stationary (an eigenvalue of size {largest:.4f})",
                expected="eigenvalues of the transition inside the unit circle",
                remedy='Fit with start="stationary".',
            )

    def _system(self) -> LinearSystemModel:
        model: Any = innermost(self.model_.model)
        return cast(LinearSystemModel, model)

    def _names(self) -> dict[str, Any]:
        labels = self._state_labels()
        return {**super()._names(), "state": labels, "next_state": labels, "other_state": labels}
