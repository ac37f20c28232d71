"""Missing values and outliers of ARMA series."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pandas as pd
import torch
import xarray as xr

from probseq._random import RandomState, torch_generator
from probseq.data.sequences import Sequences
from probseq.distributions.compose import mixture, push
from probseq.distributions.gaussian import DiagonalNormal
from probseq.errors import ParameterError, UnsupportedError
from probseq.estimators.predicting import Predicting
from probseq.models.arma import ARMAModel
from probseq.models.arma_response import impulse_response
from probseq.models.arma_smoothing import KINDS, Missing, missing_values, outlier_scores
from probseq.models.base import Batch
from probseq.models.wrappers import ElementwiseModel, innermost, layers, unwrap
from probseq.results.backends import LawBackend

__all__ = ["ARMAGaps"]

_NAMES = (*KINDS, "innovational")
# Critical values by the length of a series, those of R's tsoutliers.
_CRITICAL = ((50, 3.0), (450, 3.5), (np.inf, 4.0))
_MOST = 0.05


class ARMAGaps(Predicting):
    """What all the data say about single values, before and after."""

    def impute(
        self,
        X: Any,
        n_draws: int | None = None,
        *,
        lengths: Any = None,
        covariates: Any = None,
        random_state: RandomState = None,
    ) -> xr.DataArray:
        """The data with their missing values replaced, exact given the model and its parameter draws.

        Parameters
        ----------
        X : data in any form, NaN = missing
        n_draws : int or None
            None puts E[x_t | all that was seen], with its standard deviation in a coordinate ``std`` (0 where a value
            was seen). A number draws so many completions from their joint law along a dimension ``path``.
        random_state : int or Generator
            For the draws; the estimator's own by default.

        Returns
        -------
        DataArray on the scale of the data, dims ``sequence, time, variable``.

        References
        ----------
        See `probseq.models.arma_smoothing.missing_values`.
        """
        data, batch, weights = self._inner(X, lengths, covariates)
        if n_draws is not None and (not isinstance(n_draws, int | np.integer) or n_draws is True or n_draws < 1):
            raise ParameterError(
                got=f"n_draws={n_draws!r}", expected="a whole number from 1, or None", remedy="Try n_draws=100."
            )
        found = missing_values(self._arma(), self.model_.params, batch)
        dims = ("sequence", "time", "variable")
        if n_draws is None:
            filled, spread = data.values.copy(), np.where(data.seen(), 0.0, np.nan)
            for i, one in enumerate(found):
                if len(one.steps):
                    backend = LawBackend(self._law(one, weights[i]))
                    filled[i, one.steps] = backend.mean()[0]
                    spread[i, one.steps] = np.sqrt(backend.variance()[0])
            done = data.label(filled, dims, name="imputed", attrs=data.attrs)
            each = data.label(spread, dims)
            return done.assign_coords(std=(each.dims, each.values))
        generator = torch_generator(self.random_state if random_state is None else random_state)
        paths = np.repeat(data.values[None], int(n_draws), 0)
        for i, one in enumerate(found):
            if len(one.steps):
                paths[:, i, one.steps, 0] = self._completions(one, weights[i], int(n_draws), generator)
        return data.label(paths, ("path", *dims), name="imputed", attrs=data.attrs)

    def outliers(
        self, X: Any, threshold: float | None = None, *, lengths: Any = None, covariates: Any = None
    ) -> pd.DataFrame:
        r"""Values that stand out given all the others: single ones, fading or lasting changes, and strange innovations.

        At each step the size of an additive outlier (one value), a level shift (from there on), a temporary change
        (fading by 0.7 a step) and an innovational outlier (passed on by the model) are estimated. The largest
        \|size / std_error\| above the threshold is taken out, and the search goes on, with parameters as fitted and a
        scale from the median of the innovations, until nothing stands out or 5 % of the steps were named.

        Parameters
        ----------
        X : data in any form
        threshold : float or None
            None is 3 up to 50 values of a series, 3.5 up to 450 and 4 beyond.

        Returns
        -------
        DataFrame with a row an outlier, by time: ``time, kind, size, std_error, t`` (and ``sequence`` where there are
        many). Sizes are on the scale that the ARMA model sees, after the transforms: with ``Log()``, shares.

        References
        ----------
        Chen and Liu (1993), Joint estimation of model parameters and outlier effects in time series, JASA 88.
        """
        if threshold is not None and (isinstance(threshold, bool) or not float(threshold) > 0):
            raise ParameterError(got=f"threshold={threshold!r}", expected="a number above 0", remedy="Try 3.5.")
        data, batch, _ = self._inner(X, lengths, covariates)
        if self.model_.n_draws > 1:
            raise UnsupportedError(
                got="parameters that are draws",
                expected="a point estimate",
                remedy="Fit with inference=ps.MLE() to look for outliers.",
            )
        rows: list[dict[str, Any]] = []
        for i in range(batch.n):
            limit = threshold or next(value for most, value in _CRITICAL if int(batch.lengths[i]) <= most)
            for step, kind, size, error in self._search(batch, i, limit):
                name = {"sequence": data.names[i]} if data.many else {}
                found = {"time": data.index[i][step], "kind": kind, "size": size, "std_error": error}
                rows.append({**name, **found, "t": size / error})
        columns = [*(["sequence"] if data.many else []), "time", "kind", "size", "std_error", "t"]
        return pd.DataFrame(rows, columns=columns)

    def _search(self, batch: Batch, i: int, limit: float) -> list[tuple[int, str, float, float]]:
        """Step, kind, size and standard error of the outliers of one sequence, by step."""
        model, params = self._arma(), self.model_.params
        t = int(batch.lengths[i])
        x, seen = batch.x[i : i + 1, :t].clone(), batch.seen[i : i + 1, :t]
        one = Batch(x, seen, torch.tensor([t]), None if batch.u is None else batch.u[i : i + 1, :t])
        found: list[tuple[int, str, float, float]] = []
        effects = _Effects(model, params, t)
        while len(found) < max(1, int(_MOST * t)):
            scores = outlier_scores(model, params, one)[0]
            innovations = scores.size[3]
            scale = 1.4826 * float(np.nanmedian(np.abs(innovations - np.nanmedian(innovations))))
            if not scale > 0:
                break
            error = scores.error * (scale / float(params["scale"][0]))
            tall = np.nan_to_num(np.abs(scores.size) / error)
            for step, kind, *_ in found:
                tall[_NAMES.index(kind), step] = 0.0
            row, at = (int(place) for place in np.unravel_index(int(tall.argmax()), tall.shape))
            if tall[row, at] < limit:
                break
            size = float(scores.size[row, at])
            found.append((at, _NAMES[row], size, float(error[row, at])))
            x[0, :, 0] -= size * torch.from_numpy(effects(at, row))
        return sorted(found)

    def _inner(self, X: Any, lengths: Any, covariates: Any) -> tuple[Sequences, Batch, np.ndarray]:
        """The data, as the ARMA model sees them, and the weights of its draws (n, draw)."""
        data = self._read(X, lengths, covariates)
        if not all(isinstance(layer, ElementwiseModel) for layer in layers(self.model_.model)):
            raise UnsupportedError(
                got="missing values or outliers behind Difference(), ContextScale() or Discretize()",
                expected="an ARMA model of the values, its differences inside",
                remedy="Write differences into the order, as order=(1, 1, 1); scale with Standardize().",
            )
        if not isinstance(innermost(self.model_.model), ARMAModel):
            raise UnsupportedError(
                got="missing values or outliers under innovations that are not normal, or whose variance moves",
                expected="normal innovations of constant variance, which can be smoothed exactly",
                remedy='Use innovations="normal" without volatility.',
            )
        batch = self._batch(data)
        start = self.model_.initial_state({}, batch.n)
        log_weights = start.log_weights
        if self.model_.n_draws > 1 and not self._is_training(data):
            with torch.no_grad():
                log_weights = self.model_.filter({}, batch, start).log_weights
        _, inner, _, _ = unwrap(self.model_.model, batch, self.model_._unpack(start))
        return data, inner, log_weights.exp().numpy()

    def _law(self, one: Missing, weights: np.ndarray) -> Any:
        """The law of each missing value on the scale of the data, batch (1, m)."""
        scale = np.sqrt(np.diagonal(one.cov, axis1=-2, axis2=-1))
        loc, scale = (torch.from_numpy(np.ascontiguousarray(a.T))[None, ..., None] for a in (one.mean, scale))
        law: Any = self._push_back(DiagonalNormal(loc=loc, scale=scale))
        log_weights = torch.from_numpy(np.log(np.maximum(weights, 1e-300)))
        return mixture(log_weights.expand(1, len(one.steps), -1), law)

    def _completions(self, one: Missing, weights: np.ndarray, n_paths: int, generator: torch.Generator) -> np.ndarray:
        """Joint draws of the missing values of one sequence, (path, m)."""
        draw = torch.multinomial(torch.from_numpy(weights), n_paths, replacement=True, generator=generator).numpy()
        noise = torch.randn((n_paths, len(one.steps)), generator=generator, dtype=torch.float64).numpy()
        roots = np.linalg.cholesky(one.cov)
        values = torch.from_numpy(one.mean[draw] + np.einsum("pij,pj->pi", roots[draw], noise)).unsqueeze(-1)
        for layer in reversed(layers(self.model_.model)):
            if isinstance(layer, ElementwiseModel):
                values = layer.bijection.forward(values)
        return values[..., 0].numpy()

    def _push_back(self, law: Any) -> Any:
        for layer in reversed(layers(self.model_.model)):
            if isinstance(layer, ElementwiseModel):
                law = push(law, layer.bijection)
        return law

    def _arma(self) -> ARMAModel:
        return cast(ARMAModel, innermost(self.model_.model))


class _Effects:
    """What a change of size one does to a series."""

    def __init__(self, model: ARMAModel, params: dict[str, torch.Tensor], t: int) -> None:
        self.t = t
        self.psi = impulse_response(model, params, t)[0]

    def __call__(self, step: int, kind: int) -> np.ndarray:
        after = np.arange(self.t - step)
        shape = self.psi[: len(after)] if kind == len(KINDS) else list(KINDS.values())[kind] ** after.astype(float)
        return np.concatenate([np.zeros(step), shape])
