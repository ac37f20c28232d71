"""What a fitted vector ARMA model says about shocks: responses, and shares of the errors of forecasts."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import xarray as xr

from probseq._types import whole_number
from probseq.estimators.gaussian_states import GaussianStates
from probseq.models.varma import VARMAModel
from probseq.models.varma_response import error_shares, impulse_response
from probseq.models.wrappers import innermost

__all__ = ["VARMAResponses"]


class VARMAResponses(GaussianStates):
    """Responses of a fitted vector ARMA model, on the scale that it sees, after the transforms."""

    def impulse_response(self, n_steps: int = 24, *, orthogonal: bool = True, cumulative: bool = False) -> xr.DataArray:
        """What one innovation adds to the next values, dims ``horizon`` from 0, ``variable``, ``other_variable``.

        Parameters
        ----------
        n_steps : int
        orthogonal : bool
            Innovations of one standard deviation in the order of the variables (Cholesky): the first moves all at
            once, the last only itself. False: one unit of the innovation of a variable by itself.
        cumulative : bool
            Running sums: what it adds to all values up to there.

        Returns
        -------
        DataArray: the response of ``variable`` to an innovation of ``other_variable``; several draws have a dim
        ``draw``.
        """
        count = whole_number("n_steps", n_steps, 1, "Try 24.")
        self._check_fitted()
        psi = impulse_response(self._varma(), self.model_.params, count + 1, orthogonal)
        return self._square(np.cumsum(psi, 1) if cumulative else psi, np.arange(count + 1), "impulse_response")

    def forecast_error_decomposition(self, n_steps: int = 24) -> xr.DataArray:
        """Shares of the variance of forecasts that innovations bring.

        Parameters
        ----------
        n_steps : int

        Returns
        -------
        DataArray, dims ``horizon`` from 1, ``variable``, ``other_variable``: the share of the orthogonal innovation of
        ``other_variable`` in Var[x_(t+h) | x_<=t] of ``variable``; they sum to one over ``other_variable``.
        """
        count = whole_number("n_steps", n_steps, 1, "Try 24.")
        self._check_fitted()
        shares = error_shares(self._varma(), self.model_.params, count)
        return self._square(shares, np.arange(1, count + 1), "forecast_error_decomposition")

    def _varma(self) -> VARMAModel:
        return cast(VARMAModel, innermost(self.model_.model))

    def _square(self, values: np.ndarray, horizon: np.ndarray, name: str) -> xr.DataArray:
        dims: tuple[str, ...] = ("draw", "horizon", "variable", "other_variable")
        coords: dict[str, Any] = {"draw": np.arange(len(values)), "horizon": horizon}
        names = self._names()
        coords |= {dim: names[dim] for dim in dims[2:] if dim in names}
        if len(values) == 1:
            values, dims = values[0], dims[1:]
            coords.pop("draw")
        return xr.DataArray(values, coords, dims, name)
