"""What a search for orders has found: the ranking, the weights, and the draws of the model that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch

from probseq._types import Record
from probseq.errors import EmptyDataError
from probseq.inference.base import Draws, Progress
from probseq.inference.optimize import MLE
from probseq.inference.orders import Candidate, CandidateFits
from probseq.inference.profile_search import ProfileSearch
from probseq.inference.search import wants_covariance
from probseq.models.average import AverageModel
from probseq.models.concentrated import Profile

__all__ = ["OrderSearch", "SelectedDraws", "join_draws", "rank", "settle"]


@dataclass(frozen=True)
class OrderSearch(Record):
    """What a search has found, best first.

    Parameters
    ----------
    d, seasonal_d, period : int
    orders : (c, 4) int64
        p, q, P, Q.
    trends : tuple of str
    criterion, log_likelihood : (c,)
    n_parameters : (c,) int64
    status : tuple of str
    messages : tuple of str
        Why a candidate failed, or nothing.
    weights : (c,)
        exp(-criterion / 2), normalised over the candidates that are averaged, over all where none are.
    n_averaged : int
        The first so many make the forecast.
    """

    d: int
    seasonal_d: int
    period: int
    orders: np.ndarray
    trends: tuple[str, ...]
    criterion: np.ndarray
    log_likelihood: np.ndarray
    n_parameters: np.ndarray
    status: tuple[str, ...]
    messages: tuple[str, ...]
    weights: np.ndarray
    n_averaged: int

    def candidates(self) -> list[Candidate]:
        """The candidates that make the forecast."""
        every = zip(self.orders[: self.n_averaged], self.trends, strict=False)
        return [Candidate.of(orders, trend) for orders, trend in every]


@dataclass(frozen=True)
class SelectedDraws(Draws):
    """Draws of the parameters of a model whose orders were searched for, and that search."""

    search: OrderSearch | None = None


def rank(fits: CandidateFits, d: int, seasonal_d: int, period: int, average: bool | int | float) -> OrderSearch:
    """The fits in order, with the weights of those to average.

    Parameters
    ----------
    average : bool, int or float
        True averages candidates whose weight is at least a hundredth of the best one's, a float those with at least
        that share of it, an integer the best so many.

    Raises
    ------
    ProbseqError
        The first reason why a candidate failed, if none has a criterion.
    """
    ranked = sorted(fits.found.values(), key=lambda fit: (fit.criterion, fit.n_parameters, fit.candidate))
    values = np.array([fit.criterion for fit in ranked])
    if not np.isfinite(values[0]):
        failed = [fit.error for fit in ranked if fit.error is not None]
        raise (
            failed[0]
            if failed
            else EmptyDataError(
                got=f"too few values for the {fits.criterion} of any candidate",
                expected="at least two values more than parameters",
                remedy='Pass a longer series, give the orders to ARMA, or use criterion="bic".',
            )
        )
    raw = np.exp(-0.5 * (values - values[0]))
    if average is False:
        count, used = 1, raw
    else:
        share = 0.01 if average is True else float(average) if average < 1 else 0.0
        count = int(((raw >= share) & np.isfinite(values)).sum())
        count = min(count, int(average)) if average is not True and average >= 1 else count
        used = np.where(np.arange(raw.size) < count, raw, 0.0)
    return OrderSearch(
        d,
        seasonal_d,
        period,
        np.array([fit.candidate.orders for fit in ranked], dtype=np.int64),
        tuple(fit.candidate.trend for fit in ranked),
        values,
        np.array([fit.log_likelihood for fit in ranked]),
        np.array([fit.n_parameters for fit in ranked], dtype=np.int64),
        tuple(fit.status for fit in ranked),
        tuple("" if fit.error is None else str(fit.error) for fit in ranked),
        used / used.sum(),
        count,
    )


def settle(
    profile: Profile, x: np.ndarray, inference: MLE, generator: torch.Generator, progress: Progress | None
) -> tuple[Draws, np.ndarray]:
    """Maximum likelihood to full accuracy from the estimate of a search, and from random starts where asked for.

    Also the free parameters at which it is.
    """
    search = ProfileSearch(profile, inference.max_iter, inference.tol, progress)
    search.evaluate(x)
    if profile.size:
        random = profile.starts(inference.n_init, generator) if inference.n_init else []
        search.descend_all([x, *random[len(random) - inference.n_init :]])
    else:
        search.status, search.optima = "exact", list(search.trace)
    wanted = wants_covariance(inference.covariance, 0) and search.status != "interrupted"
    log_prob = -search.scale * search.value
    draws = Draws(
        {name: value.detach().unsqueeze(0) for name, value in profile.parameters(search.x).items()},
        log_prob,
        log_prob,
        search.status,
        search.n_iter,
        np.array(search.trace),
        np.sort(np.array(search.optima))[::-1].copy(),
        profile.problems(search.x),
        covariance=profile.covariance(search.x) if wanted else None,
    )
    return draws, search.x


def join_draws(model: AverageModel, draws: list[Draws], weights: np.ndarray) -> Draws:
    r"""Draws of an average from draws of each of its models.

    A model m of weight w_m whose draw d has weight v_md stands in the average with w_m v_md. All models must have the
    same number of draws.
    """
    count = len(next(iter(draws[0].params.values())))
    inner = [torch.zeros(count, dtype=torch.float64) if d.log_weights is None else d.log_weights for d in draws]
    joint = torch.stack([torch.log_softmax(v, -1) for v in inner], -1) + torch.from_numpy(weights).log()
    first = draws[0]
    return replace(
        first,
        params=model.join([one.params for one in draws], joint.softmax(-1)),
        log_weights=None if count == 1 else torch.logsumexp(joint, -1),
        covariance=None,
    )
