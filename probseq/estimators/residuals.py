"""Pseudo-residuals: how extreme each value is under the fitted model, on the scale of a standard normal."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import xarray as xr
from scipy import special

from probseq.data.sequences import Sequences
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.predicting import Predicting
from probseq.plotting import plot_residuals
from probseq.results.forecast import Forecast
from probseq.results.plots import stamps, time_label

__all__ = ["Residuals"]


class Residuals(Predicting):
    """Residuals that are standard normal under the model, whatever its law."""

    def residuals(
        self,
        X: Any,
        kind: str = "forecast",
        *,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
    ) -> xr.DataArray:
        r"""Pseudo-residuals, Phi^{-1}(F_t(x_t)), dims ``sequence, time, variable``; NaN for what is missing.

        Under the model they are standard normal: beyond 1.96 for one value in twenty. Values of discrete variables have
        a segment Phi^{-1}(F(x-)) to Phi^{-1}(F(x)), in the coordinates ``lower`` and ``upper``; the residual is
        Phi^{-1} of the middle probability. Residuals above 8.2 are inf: float64 has no probability closer to one.

        Parameters
        ----------
        X : data in any form
        kind : "forecast" or "ordinary"
            F_t is the law of x_t given the steps before it (such residuals are independent over time under the model),
            or given all other steps (for hidden Markov models).
        history, weights
            As for ``predictive``; the weights of forecast residuals only.

        Raises
        ------
        UnsupportedError
            For categories, which have no order, and for ordinary residuals of a family without them.

        References
        ----------
        Zucchini, MacDonald and Langrock (2016), Hidden Markov models for time series, section 6.2; Dunn and Smyth
        (1996), Randomized quantile residuals.
        """
        data = self._read(X, lengths, covariates)
        if kind == "forecast":
            forecast = self._predictive(data, self._begin(data, history, weights), weights)
        elif kind == "ordinary" and weights != "adapt":
            raise ParameterError(
                got=f'weights={weights!r} for residuals of kind="ordinary"',
                expected="draws that are weighed by all other steps",
                remedy='Leave weights out, or use kind="forecast".',
            )
        elif kind == "ordinary":
            with torch.no_grad():
                forecast = self._given_the_others(data, history)
        else:
            raise ParameterError(got=f"kind={kind!r}", expected='"forecast" or "ordinary"', remedy="Choose one.")
        return _pseudo_residuals(forecast, data, kind)

    def plot_residuals(
        self,
        X: Any,
        kind: str = "forecast",
        *,
        variable: Any = 0,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        weights: str = "adapt",
        ax: Any = None,
    ) -> Any:
        """Four panels that show whether residuals of one variable are standard normal and independent.

        Parameters
        ----------
        X, kind, weights
            As in `residuals`. Ordinary residuals are not independent over time, even if the model is right.
        variable : int or name
        ax : four Axes, or a figure

        Returns
        -------
        Array of four Axes: residuals in time (many sequences one after the other), histogram, normal quantiles,
        autocorrelations.
        """
        data = self._read(X, lengths, covariates)
        j = self._position(variable)
        found = self.residuals(X, kind, lengths=lengths, covariates=covariates, history=history, weights=weights)
        real = data.mask()

        def column(array: xr.DataArray) -> np.ndarray:
            return array.values.reshape(data.values.shape)[..., j][real]

        segments = (column(found["lower"]), column(found["upper"])) if "lower" in found.coords else None
        one = data.n_sequences == 1
        return plot_residuals(
            stamps(data.index[0]) if one else np.arange(int(data.lengths.sum())),
            column(found),
            segments,
            breaks=tuple(np.cumsum(data.lengths)[:-1].tolist()),
            title=str(data.variables[j]) if data.n_variables > 1 else None,
            xlabel=time_label(data, data.index[0]) if one else "step, sequences one after the other",
            ax=ax,
        )

    def _given_the_others(self, data: Sequences, history: Any) -> Forecast:
        """The law of every x_t given all other steps."""
        raise UnsupportedError(
            got=f'kind="ordinary" for {type(self).__name__}',
            expected="a family with discrete hidden states",
            remedy='Use kind="forecast".',
        )


def _pseudo_residuals(forecast: Forecast, data: Sequences, kind: str) -> xr.DataArray:
    backend = forecast._backend
    forecast._need_numbers("residuals", "smooth(X) or log_prob_steps(X)")
    upper, lower = backend.cdf(data.values), backend.cdf(data.values, left=True)
    labelled = backend.nominal_variables
    with np.errstate(divide="ignore"):
        arrays = [np.where(labelled, np.nan, special.ndtri(p)) for p in (0.5 * (lower + upper), lower, upper)]
    middle, low, high = (forecast._label(array, "residual", attrs={"kind": kind}) for array in arrays)
    if backend.discrete_variables.any():
        middle = middle.assign_coords(lower=(low.dims, low.values), upper=(high.dims, high.values))
    return middle
