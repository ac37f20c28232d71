"""Whether an ARMA model fits, and what it says: tests of residuals, responses, spectra, one picture of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from probseq._types import whole_number
from probseq.errors import ParameterError
from probseq.estimators.arma_gaps import ARMAGaps
from probseq.evaluation.whiteness import heteroskedasticity, jarque_bera, ljung_box
from probseq.models.arma_response import autocovariance, impulse_response, spectral_density
from probseq.plotting import plot_diagnostics
from probseq.results.plots import stamps, time_label

__all__ = ["ARMADiagnostics"]


class ARMADiagnostics(ARMAGaps):
    """Tests and pictures of fitted ARMA models."""

    def diagnose(
        self, X: Any, lags: Any = None, *, lengths: Any = None, covariates: Any = None, history: Any = None
    ) -> pd.DataFrame:
        """Tests of the standardised one-step residuals, which are independent and standard normal under the model.

        Parameters
        ----------
        X : data in any form; the values that the model was fitted to, or others
        lags : int, list of int or None
            Up to which lags autocorrelations are tested together; None is 10 (a fifth of a short series) and, with a
            season, two seasons.

        Returns
        -------
        DataFrame, one row a test (and sequence, where there are many): ``statistic``, ``df``, ``p_value``. Rows:
        Ljung-Box of the residuals (independence in time; degrees of freedom less the ARMA coefficients) and of their
        squares (changing variance; McLeod and Li), Jarque-Bera (normal law), H (the last third against the first).

        References
        ----------
        Ljung and Box (1978), Biometrika 65; McLeod and Li (1983), J. Time Series Analysis 4; Jarque and Bera (1980),
        Economics Letters 6; Harvey (1989), section 5.4.2, for H.
        """
        data = self._read(X, lengths, covariates)
        z = self.residuals(X, lengths=lengths, covariates=covariates, history=history).values  # type: ignore[attr-defined]
        table: dict[Any, dict[str, float]] = {}
        for i, row in enumerate(z.reshape(data.values.shape)[..., 0]):
            one = row[: data.lengths[i]]
            for name, found in self._tests(one, lags).items():
                table[(data.names[i], name) if data.many else name] = dict(zip(("statistic", "df", "p_value"), found))
        result = pd.DataFrame.from_dict(table, orient="index")
        if data.many:
            result.index = pd.MultiIndex.from_tuples(result.index.to_list(), names=["sequence", "test"])
        else:
            result.index.name = "test"
        return result

    def _tests(self, z: np.ndarray, lags: Any) -> dict[str, tuple[float, float, float]]:
        n_fitted = sum(size.size for size in self._arma().own_lags)
        n = int(np.isfinite(z).sum())
        if lags is None:
            short, period = max(1, min(10, n // 5)), self._arma().period
            chosen = sorted({short, min(2 * period, max(n // 2, 1))}) if period > 1 else [short]
        else:
            chosen = list(np.atleast_1d(np.asarray(lags, dtype=object)))
        if not all(isinstance(lag, int | np.integer) and not isinstance(lag, bool) and 0 < lag < n for lag in chosen):
            raise ParameterError(
                got=f"lags={lags!r} for {n} residuals",
                expected=f"whole numbers from 1 to {n - 1}",
                remedy="Try lags=10.",
            )
        tests = {f"Ljung-Box, {lag} lags": ljung_box(z, int(lag), n_fitted) for lag in chosen}
        tests |= {f"Ljung-Box of squares, {lag} lags": ljung_box(z**2, int(lag), 0) for lag in chosen[:1]}
        return {**tests, "Jarque-Bera": jarque_bera(z), "H": heteroskedasticity(z)}

    def impulse_response(self, n_steps: int = 24, *, cumulative: bool = False) -> xr.DataArray:
        """What one unit of innovation adds to the next values, psi_j of x_t = sum_j psi_j e_t-j, dim ``horizon``.

        Parameters
        ----------
        n_steps : int
        cumulative : bool
            Running sums: what it adds to all values up to there.

        Returns
        -------
        DataArray on the scale that the ARMA model sees, after the transforms; several draws have a dim ``draw``.
        """
        count = whole_number("n_steps", n_steps, 1, "Try 24.")
        self._check_fitted()
        psi = impulse_response(self._arma(), self.model_.params, count + 1)
        return self._by_draw(
            np.cumsum(psi, -1) if cumulative else psi, "horizon", np.arange(count + 1), "impulse_response"
        )

    def autocorrelation(self, n_lags: int = 24) -> xr.DataArray:
        """Autocorrelations that the model implies for the (differenced) series, dim ``lag`` from 0."""
        count = whole_number("n_lags", n_lags, 1, "Try 24.")
        self._check_fitted()
        gamma = autocovariance(self._arma(), self.model_.params, count)
        return self._by_draw(gamma / gamma[:, :1], "lag", np.arange(count + 1), "autocorrelation")

    def spectrum(self, n_frequencies: int = 257) -> xr.DataArray:
        """Spectral density of the (differenced) series, dim ``frequency`` in turns a step from 0 to 1/2.

        Its integral from -1/2 to 1/2 is the variance, in squared units of what the ARMA model sees.
        """
        count = whole_number("n_frequencies", n_frequencies, 1, "Try 24.")
        self._check_fitted()
        frequencies = np.linspace(0.0, 0.5, count)
        density = spectral_density(self._arma(), self.model_.params, frequencies)
        return self._by_draw(density, "frequency", frequencies, "spectral_density")

    def plot_diagnostics(
        self,
        X: Any,
        *,
        n_lags: int = 20,
        lengths: Any = None,
        covariates: Any = None,
        history: Any = None,
        ax: Any = None,
    ) -> Any:
        """Nine panels: residuals in time, their law, correlations and tests; roots, response and spectrum of the model.

        Parameters
        ----------
        X : data in any form
        n_lags : int
        ax : nine Axes, or a figure

        Returns
        -------
        Array of nine Axes.
        """
        data = self._read(X, lengths, covariates)
        count = whole_number("n_lags", n_lags, 1, "Try 24.")
        found = self.residuals(X, lengths=lengths, covariates=covariates, history=history)  # type: ignore[attr-defined]
        z = found.values.reshape(data.values.shape)[..., 0][data.mask()]
        one = data.n_sequences == 1
        roots = self.roots()  # type: ignore[attr-defined]
        response, density = self.impulse_response(), self.spectrum()
        if "draw" in response.dims:
            response, density = response.mean("draw"), density.mean("draw")
        return plot_diagnostics(
            stamps(data.index[0]) if one else np.arange(int(data.lengths.sum())),
            z,
            n_fitted=sum(size.size for size in self._arma().own_lags),
            ar_roots=roots["ar"].values,
            ma_roots=roots["ma"].values,
            response=response.values,
            spectrum=(density["frequency"].values, density.values),
            n_lags=count,
            breaks=tuple(np.cumsum(data.lengths)[:-1].tolist()),
            xlabel=time_label(data, data.index[0]) if one else "step, sequences one after the other",
            ax=ax,
        )

    def _by_draw(self, values: np.ndarray, dim: str, at: np.ndarray, name: str) -> xr.DataArray:
        if len(values) == 1:
            return xr.DataArray(values[0], {dim: at}, (dim,), name)
        return xr.DataArray(values, {"draw": np.arange(len(values)), dim: at}, ("draw", dim), name)
