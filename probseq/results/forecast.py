"""One predictive distribution object for every family."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import xarray as xr

from probseq._random import RandomState, torch_generator
from probseq.errors import ApproximationWarning, ParameterError, UnsupportedError
from probseq.evaluation.scores import check_levels
from probseq.results.affine import AffineBackend, core_of
from probseq.results.backends import LawBackend, PathsBackend
from probseq.results.construct import labels_for, path_array, quantile_array
from probseq.results.decomposition import of_laws, of_paths
from probseq.results.labelled import DIMS
from probseq.results.quantiles import QuantilesBackend
from probseq.results.regions import densest_region, shortest_interval, simultaneous_band
from probseq.results.tables import ForecastTables

__all__ = ["Forecast"]


class Forecast(ForecastTables):
    """The predictive distribution of each step: the next ones, or each one given those before it.

    Made by ``forecast`` (steps after a history) and ``predictive`` (one step ahead, for each row of the data). Arrays
    come back as DataArrays with the dimensions ``sequence, time, variable``, of which those that the data did not have
    are left out.

    Parameters
    ----------
    backend : Backend
        What is known inside.
    labels : Sequences
        The data whose names, variables and attributes the results carry.
    index : tuple of pd.Index
        The stamps of the steps, one index a sequence.
    joint : JointLaw or None
        The law over all steps together.
    history : Sequences or None
        What came before, for plots.
    scored : ndarray (n, t, k) of bool or None
        False where the model does not predict: values that it conditions on. Results are NaN there.
    method : str
        How the law was obtained.
    future : bool
        Whether the steps follow one another after a history (results then know their ``horizon``), or each step is
        given those before it.

    Examples
    --------
    >>> import probseq as ps
    >>> forecast = ps.RandomWalk(drift=False).fit([0.0, 1.0, 0.0, 1.0]).forecast(horizon=2)
    >>> forecast.mean().values.round(2)
    array([1., 1.])
    >>> forecast.interval(0.9).values.round(2)
    array([[-0.64,  2.64],
           [-1.33,  3.33]])
    >>> forecast.exact
    True
    """

    @classmethod
    def from_paths(cls, paths: Any, like: Any = None, *, discrete: bool = False) -> Forecast:
        """A forecast from simulated trajectories.

        Parameters
        ----------
        paths : array (path, time), (path, time, variable) or (path, sequence, time, variable)
            A DataArray with these dimensions, such as ``sample()`` gives, may have them in any order.
        like : data in any form whose future this is; its names and time index are continued
        """
        array = path_array(paths)
        labels, index = labels_for(array[0], like)
        return cls(PathsBackend(array, discrete), labels, index, history=None if like is None else labels, future=True)

    @classmethod
    def from_quantiles(cls, levels: Sequence[float], values: Any, like: Any = None) -> Forecast:
        """A forecast from quantiles.

        Parameters
        ----------
        levels : increasing numbers in (0, 1), at least two
        values : array (time, quantile), (time, variable, quantile) or (sequence, time, variable, quantile)
            A DataArray with these dimensions may have them in any order.
        """
        grid, array = quantile_array(levels, values)
        labels, index = labels_for(array[..., 0], like)
        return cls(QuantilesBackend(grid, array), labels, index, history=None if like is None else labels, future=True)

    def mean(self) -> xr.DataArray:
        """E[x]; inf or NaN, with a warning, where it does not exist. Not defined for categories."""
        self._need_numbers("mean", "probs()")
        return self._moment("mean")

    def median(self) -> xr.DataArray:
        """The 0.5 quantile."""
        return self.quantile(0.5).rename("median")

    def var(self) -> xr.DataArray:
        """Var[x]; inf or NaN, with a warning, where it does not exist."""
        self._need_numbers("var", "probs()")
        return self._moment("variance")

    def std(self) -> xr.DataArray:
        """Standard deviation, in the unit of the data."""
        self._need_numbers("std", "probs()")
        return self._moment("std")

    def mode(self) -> xr.DataArray:
        """The most probable category (its code)."""
        return self._label(self._backend.mode(), "mode")

    def probs(self) -> xr.DataArray:
        """Probability of each category, with a ``category`` dimension."""
        p = self._backend.probs()
        words = self._labels.vocabulary
        names = np.arange(p.shape[-1]) if words is None else np.asarray(words.tokens, dtype=object)
        return self._label(p, "probability", ("category",), {"category": ("category", names)})

    def quantile(self, q: float | Sequence[float]) -> xr.DataArray:
        """Quantiles: the smallest x with P(X <= x) >= q.

        Parameters
        ----------
        q : one level or several, each in (0, 1)
        """
        self._need_numbers("quantile", "probs()")
        levels = _numbers(q, "q")
        if levels.ndim != 1 or not np.all((levels > 0) & (levels < 1)):
            raise ParameterError(
                got=f"q={q!r}",
                expected="levels between 0 and 1",
                remedy="Write 0.9 for 90 %." if np.any(levels > 1) else "",
            )
        values = self._backend.quantile(levels)
        if np.ndim(q) == 0:
            return self._label(values[..., 0], "quantile", coords={"quantile": float(levels[0])})
        return self._label(values, "quantile", ("quantile",), {"quantile": ("quantile", levels)})

    def interval(
        self,
        level: float = 0.9,
        kind: str = "eti",
        *,
        joint: bool = False,
        n_paths: int = 10_000,
        random_state: RandomState = 0,
    ) -> xr.DataArray:
        """A predictive interval, with a ``bound`` dimension (lower, upper).

        Parameters
        ----------
        level : its probability, in (0, 1)
        kind : "eti" for equal tails, "hdi" for the shortest interval
        joint : False for each value by itself; True for a band that holds the whole trajectory of a sequence, all steps
            and variables at once, with probability ``level``, of counts at least: equal tails of one size at every
            step, found from ``n_paths`` joint paths (its probability is off by at most about ``1 / sqrt(n_paths)``)
        """
        self._need_numbers("interval", "probs()")
        if not (isinstance(level, int | float | np.number) and 0 < level < 1):
            hint = f"write {level / 100:g}" if isinstance(level, int | float) and 1 < level <= 100 else "write 0.9"
            raise ParameterError(
                got=f"interval({level!r})", expected="a probability in (0, 1)", remedy=f"For 90 %: {hint}."
            )
        if joint:
            both = self._band(float(level), kind, n_paths, random_state)
        elif kind == "eti":
            both = self._backend.quantile(np.array([(1 - level) / 2, (1 + level) / 2]))
        elif kind == "hdi":
            both = shortest_interval(self._backend, float(level))
        else:
            raise ParameterError(got=f"kind={kind!r}", expected='"eti" or "hdi"', remedy="Choose one of them.")
        coords = {"bound": ("bound", np.array(["lower", "upper"])), "level": float(level)}
        return self._label(both, "interval", ("bound",), coords)

    def region(self, level: float = 0.9) -> xr.DataArray:
        """The highest-density region: where a value comes with probability ``level`` and the density is largest.

        Of a law with several peaks these are several intervals, along a ``part`` dimension (NaN where there are fewer)
        in front of which stands ``bound`` (lower, upper). Exact for counts, on a grid of about 1000 cells otherwise.

        Raises
        ------
        UnsupportedError
            A forecast by paths, which has no density: ``interval(level, kind="hdi")`` is the shortest interval.
        """
        self._need_numbers("region", "probs()")
        share = float(check_levels(level))
        found = densest_region(self._backend, share)
        coords = {"bound": ("bound", np.array(["lower", "upper"])), "level": share}
        return self._label(found, "region", ("bound", "part"), coords)

    def _band(self, level: float, kind: str, n_paths: int, random_state: RandomState) -> np.ndarray:
        self._need_numbers("interval", "probs()", every=True)
        self._need_trajectories("interval", "interval(level)")
        self._need_paths(n_paths, max(2, math.ceil(1 / (1 - level))))
        by_paths = isinstance(self._backend, PathsBackend)
        if kind != "eti" or (self._joint is None and not by_paths):
            raise UnsupportedError(
                got=f"interval(kind={kind!r}, joint=True) of a forecast made of {self._backend.substance}",
                expected='kind="eti" and a forecast that knows how its steps hang together',
                remedy="Use joint=False.",
            )
        paths = self._backend.paths if isinstance(self._backend, PathsBackend) else self._paths(n_paths, random_state)
        return simultaneous_band(self._backend, paths, level)

    def cdf(self, x: Any) -> xr.DataArray:
        """P(X <= x) for one number, or for values in the form of the data."""
        self._need_numbers("cdf", "probs()")
        return self._label(self._backend.cdf(self._values(x)), "cdf")

    def pit(self, y: Any, random_state: RandomState = 0) -> xr.DataArray:
        """Probability integral transform F(y); uniform if the forecast is calibrated.

        Discrete laws are randomised between F(y-) and F(y) (Czado, Gneiting and Held 2009, Biometrics 65, eq. 1).
        """
        values = self._values(y)
        upper = self._backend.cdf(values)
        counted = self._backend.discrete_variables
        if counted.any():
            lower = self._backend.cdf(values, left=True)
            u = torch.rand(values.shape, generator=torch_generator(random_state), dtype=torch.float64).numpy()
            upper = np.where(counted, lower + u * (upper - lower), upper)
        return self._label(upper, "pit")

    def sample(self, n_paths: int = 1000, random_state: RandomState = None) -> xr.DataArray:
        """Draw trajectories, dims ``path, sequence, time, variable``.

        One-step predictions, each given the true values before it, are drawn one by one; so are the steps of a forecast
        by quantiles, with a warning.
        """
        self._warn_of_independence("sample")
        return self._label(self._paths(n_paths, random_state), "sample", dims=("path", *DIMS))

    def decompose(self, n_paths: int = 500, random_state: RandomState = 0) -> xr.Dataset:
        """Split the uncertainty into aleatoric (within parameter draws) and epistemic (between them).

        Variances by the law of total variance; entropies in nats for categories. Needs two draws or more.

        Parameters
        ----------
        n_paths : paths for each draw where the law of a step has no closed form
        """
        backend, law = self._backend, core_of(self._backend)
        split: tuple[np.ndarray, np.ndarray] | None = None
        if isinstance(law, LawBackend):
            split = of_laws(law)
            if split is not None and isinstance(backend, AffineBackend):
                split = (split[0] * backend.scale**2, split[1] * backend.scale**2)
        elif isinstance(backend, PathsBackend) and self._joint is not None:
            self._need_paths(n_paths, 2)
            both = self._joint.sample_draws(int(n_paths), torch_generator(random_state))
            split = None if both is None else of_paths(*both, backend.n_categories)
        if split is None:
            raise UnsupportedError(
                got=f"decompose() of a forecast made of {backend.substance}",
                expected="a mixture over two parameter draws or more",
                remedy="Fit with an inference that returns draws, such as MeanField.",
            )
        total, within = split
        # Rounding, or the noise of paths, may leave less than nothing between the draws.
        between = np.maximum(total - within, 0.0)
        parts = {"total": total, "aleatoric": total - between, "epistemic": between}
        return xr.Dataset({name: self._label(part, name) for name, part in parts.items()})

    def plot(
        self,
        truth: Any = None,
        *,
        kind: str | None = None,
        sequence: Any = 0,
        levels: Sequence[float] = (0.5, 0.9),
        history: int | None = None,
        n_paths: int = 0,
        ax: Any = None,
    ) -> Any:
        """Draw the forecast: by default a fan chart of history, median and intervals, and the values that came.

        Parameters
        ----------
        truth : the values that came, in any form
        kind : "fan", "quantiles", "paths", "ridge", "bars" or "shades"
            A fan chart; a line for each quantile; trajectories; the law of each step as a ridge (masses of counts,
            densities of measurements); for categories bars of probability, or shades, their default.
        sequence : which one of several to draw, a list of them, or None for all
        levels : probabilities of the intervals, or the intervals whose ends are the quantiles
        history : how many of its last steps to draw; None draws up to four times the horizon
        n_paths : trajectories to draw on top; for "paths" 0 draws 100
        ax : matplotlib axes, one a panel, or a figure; a new figure is made without it

        Returns
        -------
        Axes, or an array of them where there are several panels: one a variable, of one sequence after the other.
        """
        from probseq.results.plots import plot_forecast

        return plot_forecast(
            self, truth, kind=kind, sequence=sequence, levels=levels, history=history, n_paths=n_paths, ax=ax
        )

    def _moment(self, name: str) -> xr.DataArray:
        values = self._backend.mean() if name == "mean" else self._backend.variance()
        values = np.sqrt(values) if name == "std" else values
        real = np.arange(values.shape[1]) < np.array([len(one) for one in self._index])[:, None]
        undefined = ~np.isfinite(values) & real[..., None] & (True if self._scored is None else self._scored)
        if undefined.any() and np.isfinite(self._backend.quantile(np.array([0.5]))[undefined]).any():
            warnings.warn(
                f"The {name} of this forecast does not exist at {int(undefined.sum())} of {undefined.size} values; "
                "use median() and interval().",
                ApproximationWarning,
                stacklevel=3,
            )
        return self._label(values, name)


def _numbers(values: Any, name: str) -> np.ndarray:
    try:
        return np.atleast_1d(np.asarray(values, dtype=float))
    except (TypeError, ValueError) as error:
        raise ParameterError(got=f"{name}={values!r}", expected="numbers", remedy="Write 0.9.") from error
