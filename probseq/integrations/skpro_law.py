"""Predictive laws as distributions of skpro. Importing this module imports skpro."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from skpro.distributions.base import BaseDistribution

from probseq.integrations.steps_ahead import StepsAhead
from probseq.results.forecast import Forecast

__all__ = ["SkproLaw"]

_LOWEST = 1e-12


class SkproLaw(BaseDistribution):
    """The law of each of several steps and variables, asked in the way of skpro.

    Distribution function, quantiles, moments and energies (and so skpro's CRPS) are those of ``Forecast``, exact where
    these are. Densities, or probabilities of counts, are there where the model has them. Samples are joint over the
    steps where the forecast knows how these hang together.

    Parameters
    ----------
    steps : StepsAhead
    rows, cols : array of int, or None
        Which steps and variables these are; None is all. One number of each makes a scalar law.
    index, columns : pandas index of the steps and of the variables
    """

    _tags = {
        "capabilities:approx": ["pdfnorm"],
        "capabilities:exact": ["mean", "var", "energy", "cdf", "ppf", "pdf", "log_pdf", "pmf", "log_pmf"],
        "distr:measuretype": "continuous",
        "broadcast_init": "off",
    }

    def __init__(
        self, steps: StepsAhead, rows: Any = None, cols: Any = None, index: Any = None, columns: Any = None
    ) -> None:
        self.steps, self.rows, self.cols = steps, rows, cols
        super().__init__(index=index, columns=columns)
        counted = steps.parts[0].forecast._backend.discrete_variables[self._places()[1]]
        if counted.any():
            self.set_tags(**{"distr:measuretype": "discrete" if counted.all() else "mixed"})

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        rows = np.arange(self.steps.n_steps) if self.rows is None else np.atleast_1d(self.rows)
        return rows, np.arange(self.steps.n_variables) if self.cols is None else np.atleast_1d(self.cols)

    def _iloc(self, rowidx: Any = None, colidx: Any = None) -> SkproLaw:
        rows, cols = self._places()
        i = np.arange(len(rows)) if rowidx is None else np.arange(len(rows))[np.atleast_1d(rowidx)]
        j = np.arange(len(cols)) if colidx is None else np.arange(len(cols))[np.atleast_1d(colidx)]
        if np.ndim(rowidx) == np.ndim(colidx) == 0 and rowidx is not None and colidx is not None:
            return SkproLaw(self.steps, rows[i], cols[j])
        return SkproLaw(self.steps, rows[i], cols[j], self.index[i], self.columns[j])

    def _iat(self, rowidx: Any = None, colidx: Any = None) -> SkproLaw:
        return self._iloc(int(rowidx), int(colidx))

    # questions --------------------------------------------------------------------------------------------------------

    def _part(self, answers: np.ndarray) -> np.ndarray:
        """The steps and variables of this law, from answers (T, k) for all; a number for a scalar law."""
        chosen = answers[np.ix_(*self._places())]
        return chosen if self.ndim else chosen[0, 0]

    def _ask(self, question: Any) -> np.ndarray:
        return self._part(self.steps.ask(question)[..., 0])

    def _ask_of(self, question: Any, x: Any) -> np.ndarray:
        values = np.full((self.steps.n_steps, self.steps.n_variables), np.nan)
        values[np.ix_(*self._places())] = x
        return self._part(self.steps.ask_of(question, values))

    def _mean(self) -> np.ndarray:
        return self._ask(_mean)

    def _var(self) -> np.ndarray:
        return self._ask(lambda forecast: forecast._mask(forecast._backend.variance()))

    def _cdf(self, x: np.ndarray) -> np.ndarray:
        return self._ask_of(lambda forecast, y: forecast._mask(forecast._backend.cdf(y)), x)

    def _ppf(self, p: np.ndarray) -> np.ndarray:
        return self._ask_of(_inverse, p)

    def _log_pdf(self, x: np.ndarray) -> np.ndarray:
        return self._ask_of(_log_prob, x)

    def _pdf(self, x: np.ndarray) -> np.ndarray:
        return np.exp(self._log_pdf(x))

    _log_pmf, _pmf = _log_pdf, _pdf

    def _energy_self(self) -> np.ndarray:
        return self._energies(self._ask(_spread))

    def _energy_x(self, x: np.ndarray) -> np.ndarray:
        """E|X - x| = CRPS(x) + E|X - X'| / 2."""
        distance = self._ask_of(lambda forecast, y: forecast._mask(forecast._backend.crps(y)), x)
        return self._energies(distance + self._ask(_spread) / 2)

    def _energies(self, each: np.ndarray) -> np.ndarray:
        """The sum over the variables of a step."""
        return each.sum(-1, keepdims=True) if self.ndim else each

    def _sample(self, n_samples: int | None = None) -> Any:
        size = 1 if n_samples is None else n_samples
        paths = np.moveaxis(self.steps.ask(lambda forecast: _paths(forecast, size)), -1, 0)
        rows, cols = self._places()
        paths = paths[:, rows[:, None], cols]
        if not self.ndim:
            return paths[0, 0, 0] if n_samples is None else pd.DataFrame(paths[:, 0])
        if n_samples is None:
            return pd.DataFrame(paths[0], self.index, self.columns)
        frames = [pd.DataFrame(path, self.index, self.columns) for path in paths]
        return pd.concat(frames, keys=range(size))


def _mean(forecast: Forecast) -> np.ndarray:
    return forecast._mask(forecast._backend.mean())


def _inverse(forecast: Forecast, p: np.ndarray) -> np.ndarray:
    return forecast._mask(forecast._backend._inverse(np.where(np.isnan(p), 0.5, p)))


def _log_prob(forecast: Forecast, y: np.ndarray) -> np.ndarray:
    """The log density or log probability of each variable by itself, (1, t, k)."""
    each = [forecast._backend.marginal([i]).log_prob(y[..., i : i + 1]) for i in range(y.shape[-1])]
    return forecast._mask(np.stack(each, -1))


def _spread(forecast: Forecast) -> np.ndarray:
    """E|X - X'|, (1, t, k), of independent X and X' with the law of a step.

    CRPS(y) = E|X - y| - E|X - X'| / 2, and E|X - y| = E X - y for a y that X does not fall below.
    """
    lowest = forecast._backend.quantile(np.array([_LOWEST]))[..., 0]
    return 2 * (_mean(forecast) - lowest - forecast._mask(forecast._backend.crps(lowest)))


def _paths(forecast: Forecast, n_paths: int) -> np.ndarray:
    """Draws (t, k, path): whole trajectories of a future, each step by itself where it is predicted one step ahead."""
    if forecast.future:
        return np.moveaxis(forecast._paths(n_paths, None)[:, 0], 0, -1)
    drawn = forecast._backend.sample(n_paths, forecast._generator)
    return np.moveaxis(np.stack([forecast._mask(one) for one in drawn])[:, 0], 0, -1)
