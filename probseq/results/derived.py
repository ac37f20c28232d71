"""Forecasts made of a forecast: of sums and other functions, of some variables, and given what is known of them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Sequence
from typing import Any, Self

import numpy as np
import torch

from probseq._random import RandomState, torch_generator
from probseq.errors import ApproximationWarning, ParameterError, ShapeError, SupportError, UnsupportedError
from probseq.results.affine import AffineBackend
from probseq.results.aggregation import FUNCTIONS, Grouping, checked_function, name_of
from probseq.results.arithmetic import ForecastArithmetic
from probseq.results.backends import Backend, PathsBackend
from probseq.results.construct import select_variables, single_variable
from probseq.results.joint import MarginalJoint
from probseq.results.labelled import EXACT
from probseq.results.scenario import backend_of
from probseq.results.trajectory import check_unchanged

__all__ = ["DerivedForecasts"]

# Weighted paths that are worth fewer than this say little of quantiles.
_FEW_PATHS = 50


class DerivedForecasts(ForecastArithmetic):
    """A labelled law from which others follow; see `Forecast`."""

    def aggregate(
        self,
        how: str | Callable[..., np.ndarray] = "sum",
        n_paths: int = 2000,
        random_state: RandomState = 0,
        *,
        every: int | None = None,
        over: str = "time",
    ) -> Self:
        """The forecast of the sum (mean, max, min, or any function with ``axis=``) over steps or variables.

        Sums and means of a joint normal law, or of a mixture of such over parameter draws, are exact (``exact``,
        ``method``); everything else comes from ``n_paths`` joint paths.

        Parameters
        ----------
        how : "sum", "mean", "max", "min" or a function
        every : int, optional
            Length of the runs of steps that are put together, such as 3 to go from months to quarters; by default all.
            It has to divide the number of steps. A run is labelled by its last step.
        over : "time", or "variable" for the variables of each step
        """
        if isinstance(how, str) and how not in FUNCTIONS:
            raise ParameterError(
                got=f"how={how!r}", expected=f"one of {sorted(FUNCTIONS)}", remedy="Or pass a function."
            )
        function = FUNCTIONS[how] if isinstance(how, str) else checked_function(how, "how")
        name = how if isinstance(how, str) else name_of(how)
        self._need_numbers("aggregate", "sample()", every=True)
        self._need_trajectories("aggregate", "mean() of each step")
        grouping = Grouping(self.n_steps, self._backend.shape[-1], every, over)
        matrix = grouping.matrix(how) if isinstance(how, str) else None
        closed = None if matrix is None or self._joint is None else self._joint.closed()
        joint = None if closed is None or matrix is None else closed.linear(matrix, grouping.shape[1])
        if joint is not None:
            backend: Backend = backend_of(joint)
            method = f"{name}, {EXACT[backend.name]}"
        else:
            self._warn_of_independence("aggregate")
            paths = grouping.reduce(self._paths(n_paths, random_state), function)
            counted = self._backend.discrete_variables
            backend = PathsBackend(
                paths,
                counted if over == "time" else bool(counted.all()),
                # Of other functions, such as a median, moments may exist that those of the values do not.
                finite=grouping.finite(self._backend) if isinstance(how, str) else None,
            )
            method = f"{name} of {n_paths} paths"
        labels = self._labels if over == "time" else single_variable(self._labels, name)
        index = tuple(one[grouping.every - 1 :: grouping.every] for one in self._index)
        combined = type(self)(
            backend, labels, index, joint=joint, method=method, future=self.future, random_state=self._random_state
        )
        # One figure for many steps: the stamp of the last one does not tell which data belong to it.
        combined._stamped = self._stamped and grouping.every == 1
        return combined

    def given(self, values: Any, n_paths: int = 2000, random_state: RandomState = 0) -> Self:
        """The forecast once some of its values are known: a scenario, or data that came early.

        The open values get their exact law given the past and all known values, earlier and later ones. A known value
        is certain: its own quantile, of variance zero, and not scored by ``log_prob``. Parameter draws are weighed by
        how well they predict the known values. Where the joint law has no closed form, as that of a network,
        ``n_paths`` are drawn out of ten times as many that run through the known values, by how well each predicts
        them; ``method`` says so, and how many paths these weights are worth. Called on its result, it draws new paths
        through all values that are known by then.

        Parameters
        ----------
        values : array, Series, DataFrame or DataArray
            In the form of the forecast, NaN where open, in the unit of the data. With stamps or names some of the
            steps and variables are enough.
        n_paths, random_state
            For forecasts by paths.

        Returns
        -------
        Forecast of the same steps, on which ``given`` may be called again.

        Raises
        ------
        UnsupportedError
            The forecast is no trajectory of a fitted model, as one of sums.
        ParameterError
            A value other than the one known before.
        ShapeError
            Stamps or names that the forecast does not have.
        SupportError
            A value that cannot happen, such as a negative one under a logarithm.

        Warns
        -----
        ApproximationWarning
            Where the weighted paths are worth fewer than 50: what is known is far from what was expected.

        Examples
        --------
        >>> import probseq as ps
        >>> walk = ps.RandomWalk().with_parameters(scale=[2.0])
        >>> known = walk.forecast(2, history=[0.0, 1.0]).given([float("nan"), 4.0])
        >>> known.mean().values, known.std().values.round(3)
        (array([2.5, 4. ]), array([1.414, 0.   ]))
        """
        return self._given(self._scenario(values), n_paths, random_state)

    def _given(self, values: np.ndarray, n_paths: int, random_state: RandomState) -> Self:
        if self._image_of is not None:
            source, scale, shift, keeps_unit = self._image_of
            known = AffineBackend(source._backend, scale, shift).source(values)
            return source._given(known, n_paths, random_state)._image(scale, shift, keeps_unit)
        closed = None if self._joint is None else self._joint.closed()
        if closed is None:
            return self._through(values, n_paths, random_state)
        joint = closed.given(values)
        n_known = int(joint.certain.sum())
        backend = backend_of(joint)
        scenario = type(self)(
            backend,
            self._labels,
            self._index,
            joint=joint,
            history=self._history,
            method=f"{EXACT[backend.name]}, given {n_known} value{'s' * (n_known != 1)}",
            future=self.future,
            random_state=self._random_state,
        )
        scenario._stamped = self._stamped
        return scenario

    def _through(self, values: np.ndarray, n_paths: int, random_state: RandomState) -> Self:
        """Paths through these values and all that were known before: weights of paths do not add up, laws do."""
        source = self
        if self._origin is not None:
            source, known = self._origin
            check_unchanged(known, values)
            values = np.where(np.isnan(known), values, known)
        scenario = source._chosen_paths(values, n_paths, random_state)
        scenario._origin, scenario._stamped = (source, values), source._stamped
        return scenario

    def _chosen_paths(self, values: np.ndarray, n_paths: int, random_state: RandomState) -> Self:
        """Paths through known values, resampled by their importance weights."""
        self._need_paths(n_paths, 2)
        generator = torch_generator(random_state)
        found = None if self._joint is None else self._joint.weighted_paths(values, 10 * int(n_paths), generator)
        if found is None:
            raise UnsupportedError(
                got=f"given() of a forecast made of {self._backend.substance} ({self.method})",
                expected="the forecast of a fitted model, with all its variables and steps",
                remedy="Call given() on forecast(horizon) itself, before marginal(), aggregate() or map().",
            )
        paths, log_weights = found
        top = log_weights.max(0)
        if not np.isfinite(top).all():
            raise SupportError(
                got=f"known values that no path of {len(paths)} allows",
                expected="values that the forecast thinks possible",
                remedy="Check their unit, and the range of the model's transform.",
            )
        weights = np.exp(log_weights - top)
        weights /= weights.sum(0)
        worth = float((1.0 / (weights**2).sum(0)).min())
        if worth < _FEW_PATHS:
            warnings.warn(
                f"The paths through the known values are worth {worth:.0f} only: these are far from what was expected. "
                "Raise n_paths.",
                ApproximationWarning,
                stacklevel=4,
            )
        kept = torch.multinomial(torch.from_numpy(weights.T.copy()), int(n_paths), True, generator=generator).numpy().T
        # Networks compute in single precision; what is known is known as it was given.
        chosen = np.where(np.isnan(values), np.take_along_axis(paths, kept[..., None, None], 0), values)
        old = self._backend
        finite = old.finite if isinstance(old, PathsBackend) else None
        if finite is not None:
            finite = (finite[0] | ~np.isnan(values), finite[1] | ~np.isnan(values))
        return type(self)(
            PathsBackend(chosen, old.discrete_variables, _categories(old), finite),
            self._labels,
            self._index,
            history=self._history,
            method=f"{n_paths} of {len(paths)} paths weighed by the known values, worth {worth:.0f}",
            future=self.future,
            random_state=self._random_state,
        )

    def map(
        self, function: Callable[[np.ndarray], np.ndarray], n_paths: int = 2000, random_state: RandomState = 0
    ) -> Self:
        """The forecast of ``function(x)``, value by value, by paths, whose moments are finite whatever the function."""
        self._need_numbers("map", "sample()", every=True)
        paths = np.asarray(checked_function(function, "function")(self._paths(n_paths, random_state)), dtype=float)
        if paths.shape != (n_paths, *self._backend.shape):
            raise ShapeError(
                got=f"a function that turns {(n_paths, *self._backend.shape)} into {paths.shape}",
                expected="a function of each value",
                remedy="Use aggregate() to combine steps.",
            )
        # A function of counts has as many values as these.
        backend, method = PathsBackend(paths, self._backend.discrete_variables), f"map of {n_paths} paths"
        # The unit of x is not that of the function of x.
        labels = self._labels.without_units()
        mapped = type(self)(backend, labels, self._index, scored=self._scored, method=method, future=self.future)
        mapped._stamped = self._stamped
        return mapped

    def marginal(self, variable: Hashable | Sequence[Hashable]) -> Self:
        """The forecast of one variable, or of some."""
        wanted = list(variable) if isinstance(variable, list | tuple) else [variable]
        known = list(self._labels.variables)
        unknown = [v for v in wanted if v not in known]
        if unknown:
            raise ParameterError(got=f"variable {unknown[0]!r}", expected=f"one of {known}", remedy="Check the name.")
        which = [known.index(v) for v in wanted]
        one = type(self)(
            self._backend.marginal(which),
            select_variables(self._labels, which),
            self._index,
            joint=None if self._joint is None else MarginalJoint(self._joint, which, len(known)),
            history=None if self._history is None else select_variables(self._history, which),
            future=self.future,
            scored=None if self._scored is None else self._scored[..., which],
            method=self.method,
            random_state=self._random_state,
        )
        one._stamped = self._stamped
        return one


def _categories(backend: Backend) -> tuple[int | None, ...]:
    """How many categories each variable has; None for numbers."""
    if isinstance(backend, PathsBackend):
        return backend.categories
    return tuple(
        backend.marginal([i]).probs().shape[-1] if nominal else None
        for i, nominal in enumerate(backend.nominal_variables)
    )
