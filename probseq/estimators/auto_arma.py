"""ARMA models that choose their own orders."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self, cast

import numpy as np
import pandas as pd
import torch

from probseq._random import RandomState
from probseq._types import Rule, number_in, one_of, or_none, whole_number
from probseq.data.sequences import Sequences
from probseq.distributions.params import take_draw
from probseq.errors import DataError, ParameterError, UnsupportedError
from probseq.estimators.arma import ARMA
from probseq.estimators.pipeline import DataInfo, FittedTransforms, model_inputs
from probseq.inference.base import Draws, Inference
from probseq.inference.differencing import choose_differences, is_constant, residual_series
from probseq.inference.optimize import MLE
from probseq.inference.order_selection import OrderSearch, SelectedDraws, join_draws, rank, settle
from probseq.inference.orders import Candidate, CandidateFits, SearchSpace, exhaustive, fitted_lengths, stepwise
from probseq.models.arma import ARMAModel
from probseq.models.average import AverageModel
from probseq.models.base import Batch, SequenceModel
from probseq.models.marginal import MarginalState
from probseq.models.wrappers import innermost, map_innermost, unwrap
from probseq.results.joint import make_batch

__all__ = ["AutoARMA"]

_COUNT = partial(whole_number, lowest=0)


class AutoARMA(ARMA):
    """Seasonal ARIMA model whose orders the data choose; once fitted, an `ARMA` in every way.

    First the orders of differencing: D while the seasonal strength exceeds 0.64, d by a unit-root test. Then p, q, P, Q
    and the trend by a criterion over exact likelihoods; all candidates have the same d and D, since likelihoods of
    different differences are not comparable. Several sequences share orders and parameters.

    Parameters
    ----------
    period : int or None
        Steps in a season; None searches no seasonal orders.
    d, D : int or None
        Orders of differencing; None chooses them.
    max_p, max_q, max_P, max_Q, max_d, max_D : int
        Bounds; for short series p and q stay below a third of its values, P and Q below a third of its seasons.
    max_order : int or None
        Bound of p + q + P + Q.
    trend : "n", "c", "t", "ct" or None
        As in `ARMA`; None lets the criterion choose between "n" and "c" where d + D < 2, and is "n" elsewhere.
    fourier : dict or None
        As in `ARMA`, for every candidate.
    criterion : {"aicc", "bic", "aic", "heldout"}
        "heldout" is minus twice the one-step log-likelihood of the last part of each sequence, to which the candidates
        are not fitted; the chosen one is then fitted to all.
    search : {"stepwise", "exhaustive"}
        All neighbours of the best two candidates so far until none is new, or all candidates.
    test : {"kpss", "adf"}
        Unit-root test that chooses d.
    average : bool, int or float
        Averages the forecast over candidates, with weights proportional to exp(-criterion / 2), so that it includes the
        uncertainty of the orders. True takes candidates with at least a hundredth of the best one's weight, a number
        below one those with at least that share of it, a whole number the best so many.
    validation_fraction : float
        The last part for "heldout".
    min_root : float
        A candidate one of whose factors has a root of smaller modulus is not chosen: it differences too much or too
        little. 1 takes them all.
    transform : transform or list of transforms
    inference : Inference or None
        None is ``MLE()``. Candidates are compared at their maximum likelihood; this fits the chosen ones.
    random_state : int or None

    References
    ----------
    Hyndman and Khandakar (2008), Automatic time series forecasting: the forecast package for R, Journal of Statistical
    Software 27. Burnham and Anderson (2002), Model selection and multimodel inference, section 2.9 (weights).

    Examples
    --------
    >>> import probseq as ps
    >>> y = ps.datasets.air_passengers()
    >>> model = ps.AutoARMA(period=12, transform=ps.Log()).fit(y)
    >>> model.order_, model.seasonal_order_
    ((0, 1, 1), (0, 1, 1, 12))
    """

    rules: ClassVar[Mapping[str, Rule]] = {
        "period": or_none(partial(whole_number, lowest=1)),
        "d": or_none(_COUNT),
        "D": or_none(_COUNT),
        "max_p": _COUNT,
        "max_q": _COUNT,
        "max_P": _COUNT,
        "max_Q": _COUNT,
        "max_d": _COUNT,
        "max_D": _COUNT,
        "max_order": or_none(_COUNT),
        "trend": ARMA.rules["trend"],
        "criterion": partial(one_of, choices=("aicc", "bic", "aic", "heldout")),
        "search": partial(one_of, choices=("stepwise", "exhaustive")),
        "test": partial(one_of, choices=("kpss", "adf")),
        "validation_fraction": partial(number_in, interval="(0, 1)", remedy="Try 0.2."),
        "min_root": partial(number_in, interval="[1, inf)", remedy="Try 1.01."),
    }

    def __init__(
        self,
        period: int | None = None,
        d: int | None = None,
        D: int | None = None,
        max_p: int = 5,
        max_q: int = 5,
        max_P: int = 2,
        max_Q: int = 2,
        max_d: int = 2,
        max_D: int = 1,
        max_order: int | None = None,
        trend: str | None = None,
        fourier: Mapping[float, int] | None = None,
        criterion: str = "aicc",
        search: str = "stepwise",
        test: str = "kpss",
        average: bool | int | float = False,
        validation_fraction: float = 0.2,
        min_root: float = 1.01,
        transform: Any = None,
        inference: Inference | None = None,
        random_state: RandomState = None,
    ) -> None:
        self.period = period
        self.d, self.D = d, D
        self.max_p, self.max_q, self.max_P, self.max_Q = max_p, max_q, max_P, max_Q
        self.max_d, self.max_D, self.max_order = max_d, max_D, max_order
        self.trend, self.fourier = trend, fourier
        self.criterion, self.search, self.test = criterion, search, test
        self.average = average
        self.validation_fraction, self.min_root = validation_fraction, min_root
        self.transform = transform
        self.inference = inference
        self.random_state = random_state
        self._check_pair(inference)

    # what was found ---------------------------------------------------------------------------------------------------

    @property
    def _found(self) -> OrderSearch:
        self._check_fitted()
        return cast(OrderSearch, cast(SelectedDraws, self.draws_).search)

    @property
    def order_(self) -> tuple[int, int, int]:
        """(p, d, q) of the best candidate."""
        found = self._found
        best = found.candidates()[0]
        return best.p, found.d, best.q

    @property
    def seasonal_order_(self) -> tuple[int, int, int, int]:
        """(P, D, Q, period) of the best candidate."""
        found = self._found
        best = found.candidates()[0]
        return best.seasonal_p, found.seasonal_d, best.seasonal_q, found.period

    @property
    def trend_(self) -> str:
        """The trend of the best candidate: "n", "c", "t" or "ct"."""
        return self._found.candidates()[0].trend

    @property
    def candidates_(self) -> pd.DataFrame:
        """Every candidate that was fitted, best first.

        Columns p, d, q, P, D, Q, trend, criterion (lower is better), log_likelihood (nats on the scale of the data;
        for "heldout" of the part fitted to), n_parameters, weight (exp(-criterion / 2), normalised over the candidates
        that are averaged, over all where none are), status of the optimiser ("undefined": too many parameters for the
        criterion; "unit root": see ``min_root``; "failed") and message (why it failed).
        """
        found = self._found
        p, q, seasonal_p, seasonal_q = found.orders.T
        return pd.DataFrame(
            {
                "p": p,
                "d": found.d,
                "q": q,
                "P": seasonal_p,
                "D": found.seasonal_d,
                "Q": seasonal_q,
                "trend": found.trends,
                "criterion": found.criterion,
                "log_likelihood": found.log_likelihood,
                "n_parameters": found.n_parameters,
                "weight": found.weights,
                "status": found.status,
                "message": found.messages,
            }
        ).rename_axis("rank")

    def _arma(self) -> ARMAModel:
        """The best candidate; in an average its parameters are those without a number in their names."""
        model = innermost(self.model_.model)
        return cast(ARMAModel, model.models[0] if isinstance(model, AverageModel) else model)

    # building ---------------------------------------------------------------------------------------------------------

    def with_parameters(self, *, n_covariates: int = 0, **parameters: Any) -> Self:
        """Not possible: there are no data to choose the orders.

        Raises
        ------
        UnsupportedError
        """
        raise UnsupportedError(
            got="with_parameters for AutoARMA",
            expected="orders, which only data can choose",
            remedy="Use ARMA(order=..., seasonal_order=...).with_parameters(...).",
        )

    def _orders(self) -> tuple[tuple[int, int, int], tuple[int, int, int, int]]:
        return self.order_, self.seasonal_order_

    def _build(self, info: DataInfo) -> SequenceModel[Any]:
        search = getattr(vars(self).get("draws_"), "search", None)
        if search is None:
            return self._candidate(Candidate(0, 0, 0, 0, self.trend or "n"), self.d or 0, self.D or 0, info)
        models = [self._candidate(one, search.d, search.seasonal_d, info) for one in search.candidates()]
        return AverageModel(models) if len(models) > 1 else models[0]

    def _candidate(self, orders: Candidate, d: int, seasonal_d: int, info: DataInfo) -> ARMAModel:
        seasonal = (orders.seasonal_p, seasonal_d, orders.seasonal_q)
        period = self.period if any(seasonal) else None
        arma = ARMA((orders.p, d, orders.q), seasonal, period, orders.trend, self.fourier)
        return cast(ARMAModel, arma._build(info))

    # fitting ----------------------------------------------------------------------------------------------------------

    def _check_arguments(self) -> None:
        super()._check_arguments()
        if self.D and (self.period or 1) < 2:
            raise ParameterError(
                got=f"D={self.D} with period={self.period}",
                expected="a period of at least 2 steps",
                remedy="Write period=12 for monthly data.",
            )
        average = self.average
        whole = isinstance(average, bool | int | np.integer)
        if not (whole and average >= 0 or isinstance(average, float) and 0.0 < average < 1.0):
            raise ParameterError(
                got=f"average={average!r}",
                expected="True, False, a number of candidates from 1, or a share of the best weight below 1",
                remedy="Try average=True.",
            )

    def _infer(
        self, inference: Inference, model: SequenceModel[Any], batch: Batch, generator: torch.Generator, **options: Any
    ) -> tuple[SequenceModel[Any], Draws]:
        weights = options.get("weights")
        info = DataInfo(n_covariates=model.n_covariates)
        period = int(self.period or 1)
        terms = self._candidate(Candidate(0, 0, 0, 0, self.trend or "n"), 0, 0, info).terms
        steps = torch.arange(1, batch.t + 1)
        known = [terms.fourier(steps).numpy()] + ([terms.line(steps).numpy()[:, None]] if terms.trend else [])
        series = residual_series(batch, np.concatenate(known, 1))
        explained = _are_constant(series)
        if explained and _are_constant(residual_series(batch._replace(u=None), np.concatenate(known, 1))):
            raise DataError(
                got="a series that does not vary",
                expected="values with some variance, beyond what Fourier terms explain",
                remedy="A constant needs no model; check the column.",
            )
        d, seasonal_d = self.d or 0, self.D or 0
        if not explained:
            d, seasonal_d = choose_differences(series, period, self.d, self.D, self.max_d, self.max_D, self.test)

        def build(candidate: Candidate) -> ARMAModel:
            return self._candidate(candidate, d, seasonal_d, info)

        fits = CandidateFits(build, batch, weights, self.criterion, self.validation_fraction, self.min_root, period)
        # Rounding, which is all that covariates may leave, has no orders.
        longest = 0 if explained else max((x.size for x in series), default=0)
        space = self._space(longest, period, d + seasonal_d)
        (stepwise if self.search == "stepwise" else exhaustive)(fits, space)
        given = inference if type(inference) is MLE else MLE(covariance=False)
        # Draws of an average have no covariance.
        exact = MLE(given.n_init, given.max_iter, given.tol, given.covariance if self.average is False else False)
        settled: dict[Candidate, Draws] = {}
        while True:
            search = rank(fits, d, seasonal_d, period, self.average)
            chosen = search.candidates()
            rough = [one for one in chosen if one not in settled]
            if not rough:
                break
            for one in rough:
                # A search ends with less accuracy: on the way to a unit root it may stop in time, the maximum does not.
                profile = build(one).concentrated(batch, weights)
                settled[one], x = settle(profile, fits.found[one].x, exact, generator, options.get("progress"))
                fits.revise(one, x, settled[one].log_prob)
        models = [build(one) for one in chosen]
        draws = [settled[one] for one in chosen]
        if given is not inference:
            draws = [inference.fit(one, batch, generator, **options) for one in models]
        whole: SequenceModel[Any] = models[0]
        best = draws[0]
        if len(models) > 1:
            whole = AverageModel(models)
            best = join_draws(whole, draws, search.weights[: search.n_averaged])
        return whole, SelectedDraws(**vars(best), search=search)

    def _space(self, n: int, period: int, n_differences: int) -> SearchSpace:
        """Bounds of the orders for series of at most n values."""
        seasons = n // 3 // period if period > 1 else 0
        trends = ("c", "n") if n_differences < 2 else ("n",)
        return SearchSpace(
            min(self.max_p, n // 3),
            min(self.max_q, n // 3),
            min(self.max_P, seasons),
            min(self.max_Q, seasons),
            trends if self.trend is None else (self.trend,),
            self.max_order,
        )

    def _adopt(
        self,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        info: DataInfo,
        data: Sequences | None,
        weights: torch.Tensor | None = None,
    ) -> None:
        search = getattr(draws, "search", None)
        if data is not None and transforms.transforms and search is not None:
            shifted = self._on_data_scale(search, model, transforms, draws, data, weights)
            draws = SelectedDraws(**{**vars(draws), "search": shifted})
        super()._adopt(model, transforms, draws, info, data, weights)
        state = self.training_state_
        if state is not None and isinstance(model, AverageModel):
            # The candidates were weighed by these data: replaying them must not weigh them a second time.
            start = self.model_.params["weights"].log()
            inner = map_innermost(
                self.model_.model, state.inner, lambda own: own._replace(log_weights=start.expand_as(own.log_weights))
            )
            self.training_state_ = MarginalState(inner, state.log_weights)

    def _on_data_scale(
        self,
        search: OrderSearch,
        model: SequenceModel[Any],
        transforms: FittedTransforms,
        draws: Draws,
        data: Sequences,
        weights: torch.Tensor | None,
    ) -> OrderSearch:
        """The search with the log-Jacobian of the transforms in its likelihoods: the same for every candidate."""
        best, params = model, take_draw(draws.params, 0)
        if isinstance(model, AverageModel):
            best, params = model.models[0], model.parts(params)[0]
        outer = transforms.wrap(best)
        batch = make_batch(outer, data.values, data.lengths, model_inputs(data))
        with torch.no_grad():
            start = outer.initial_state(params, batch.n)
            _, inner_batch, inner_start, first = unwrap(outer, batch, start)
            inside = best.log_prob_steps(params, inner_batch, inner_start).values
            steps = outer.log_prob_steps(params, batch, start).values[:, first:] - inside
        each = torch.ones(batch.n, dtype=steps.dtype) if weights is None else weights
        fitted = torch.ones_like(steps, dtype=torch.bool)
        if self.criterion == "heldout":
            fitted = (
                torch.arange(steps.shape[1]) < fitted_lengths(inner_batch.lengths, self.validation_fraction)[:, None]
            )
        to_fit, other = (float((steps * part).sum(-1) @ each) for part in (fitted, ~fitted))
        scored = other if self.criterion == "heldout" else to_fit
        return replace(search, criterion=search.criterion - 2.0 * scored, log_likelihood=search.log_likelihood + to_fit)


def _are_constant(series: list[np.ndarray]) -> bool:
    """Whether none of these series varies, where there are any of more than two values."""
    return bool(series) and all(x.size > 2 and is_constant(x) for x in series)
