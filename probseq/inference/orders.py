"""The search for the orders of an ARMA model: candidates, their fits and the criterion that ranks them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.errors import ProbseqError
from probseq.inference.candidates import CandidateLikelihood, SharedData
from probseq.inference.profile_search import ProfileSearch
from probseq.kernels.polynomials import partial_from_coefficients
from probseq.kernels.profile import unpack
from probseq.kernels.threads import run_blocks
from probseq.models.arma import ARMAModel
from probseq.models.base import Batch

__all__ = [
    "Candidate",
    "CandidateFit",
    "CandidateFits",
    "SearchSpace",
    "exhaustive",
    "fitted_lengths",
    "information_criterion",
    "stepwise",
]

# The chosen candidates are fitted to full accuracy afterwards.
_MAX_ITER, _TOL = 200, 1e-8
_LEADERS = 2
# Starts are this far inside the stationary region: on its edge the likelihood has no slope to follow.
_EDGE = 0.98 / math.sqrt(1.0 - 0.98**2)


class Candidate(NamedTuple):
    """Orders of one candidate, those of differencing being common to all; trend is "n", "c", "t" or "ct"."""

    p: int
    q: int
    seasonal_p: int
    seasonal_q: int
    trend: str

    @classmethod
    def of(cls, orders: Iterable[int], trend: str) -> Candidate:
        """From (p, q, P, Q)."""
        p, q, seasonal_p, seasonal_q = orders
        return cls(int(p), int(q), int(seasonal_p), int(seasonal_q), trend)

    @property
    def orders(self) -> tuple[int, int, int, int]:
        return self[:4]


class CandidateFit(NamedTuple):
    """What a fit of one candidate gave.

    x : free parameters of the four factors. criterion : lower is better, inf for a candidate that has none.
    log_likelihood : of the data fitted to, nats. status : of the optimiser, "undefined" (as many parameters as values
    allow), "unit root" or "failed". error : why it failed.
    """

    candidate: Candidate
    x: np.ndarray
    criterion: float
    log_likelihood: float
    n_parameters: int
    status: str
    error: ProbseqError | None = None


@dataclass(frozen=True)
class SearchSpace:
    """Which candidates there are.

    Parameters
    ----------
    max_p, max_q, max_seasonal_p, max_seasonal_q : int
    trends : tuple of str
        The preferred one first.
    max_order : int or None
        Bound of p + q + P + Q.
    """

    max_p: int
    max_q: int
    max_seasonal_p: int
    max_seasonal_q: int
    trends: tuple[str, ...]
    max_order: int | None = None

    def __contains__(self, candidate: object) -> bool:
        if not isinstance(candidate, Candidate):
            return False
        tops = (self.max_p, self.max_q, self.max_seasonal_p, self.max_seasonal_q)
        inside = all(0 <= order <= top for order, top in zip(candidate.orders, tops, strict=True))
        small = self.max_order is None or sum(candidate.orders) <= self.max_order
        return inside and small and candidate.trend in self.trends

    def all(self) -> list[Candidate]:
        """Every candidate, those with few parameters first."""
        ranges = [range(top + 1) for top in (self.max_p, self.max_q, self.max_seasonal_p, self.max_seasonal_q)]
        every = [Candidate.of(orders, trend) for orders in product(*ranges) for trend in self.trends]
        return sorted((one for one in every if one in self), key=lambda one: sum(one.orders))

    def starts(self) -> list[Candidate]:
        """Where a stepwise search begins: a rich model, an autoregression, a moving average and white noise."""
        first = self.trends[0]
        wanted = [Candidate(2, 2, 1, 1, first), Candidate(0, 0, 0, 0, first), Candidate(1, 0, 1, 0, first)]
        wanted += [Candidate(0, 1, 0, 1, first), *(Candidate(0, 0, 0, 0, other) for other in self.trends[1:])]
        tops = (self.max_p, self.max_q, self.max_seasonal_p, self.max_seasonal_q)
        cut = [Candidate.of(map(min, one.orders, tops), one.trend) for one in wanted]
        return list(dict.fromkeys(one for one in cut if one in self))

    def neighbours(self, candidate: Candidate) -> list[Candidate]:
        """One or both plain orders moved by one, one or both seasonal orders moved by one, or another trend."""
        p, q, seasonal_p, seasonal_q, trend = candidate
        moves = [(a, b) for a, b in product((-1, 0, 1), repeat=2) if a or b]
        found = [Candidate(p, q, seasonal_p + a, seasonal_q + b, trend) for a, b in moves]
        found += [Candidate(p + a, q + b, seasonal_p, seasonal_q, trend) for a, b in moves]
        found += [candidate._replace(trend=other) for other in self.trends if other != trend]
        return [one for one in found if one in self]


def information_criterion(name: str, log_likelihood: float, k: int, n: float) -> float:
    r"""-2 log L + 2 k ("aic"), + 2 k + 2 k (k + 1) / (n - k - 1) ("aicc"), or + k log n ("bic").

    AICc is inf where n <= k + 1.
    """
    if name == "bic":
        return -2.0 * log_likelihood + k * math.log(n)
    value = -2.0 * log_likelihood + 2.0 * k
    if name == "aic":
        return value
    return value + 2.0 * k * (k + 1) / (n - k - 1) if n > k + 1 else math.inf


class CandidateFits:
    """Fits candidates to one batch, and remembers them.

    Parameters
    ----------
    build : callable
        The model of a candidate.
    batch : Batch
    weights : (n,) or None
    criterion : {"aicc", "bic", "aic", "heldout"}
    fraction : float
        Share of each sequence, its last part, on which "heldout" scores: minus twice the one-step log-likelihood of
        what was not fitted to.
    min_root : float
        A candidate one of whose factors has a root of smaller modulus has no criterion.
    period : int
        Steps in a season of the candidates with seasonal orders.
    """

    def __init__(
        self,
        build: Callable[[Candidate], ARMAModel],
        batch: Batch,
        weights: Tensor | None,
        criterion: str,
        fraction: float = 0.2,
        min_root: float = 1.01,
        period: int = 1,
    ) -> None:
        self.min_root = min_root
        self.build, self.whole, self.weights, self.criterion = build, batch, weights, criterion
        self.batch = _first_part(batch, fraction) if criterion == "heldout" else batch
        self.period = period
        self.found: dict[Candidate, CandidateFit] = {}
        self._data: dict[str, SharedData] = {}
        self._errors: dict[str, ProbseqError] = {}

    @property
    def best(self) -> CandidateFit | None:
        """The candidate with the lowest criterion; of equals that with fewer parameters."""
        return next(iter(self.leaders(1)), None)

    def leaders(self, count: int) -> list[CandidateFit]:
        """The best so many candidates that have a criterion."""
        usable = [fit for fit in self.found.values() if math.isfinite(fit.criterion)]
        return sorted(usable, key=lambda fit: (fit.criterion, fit.n_parameters, fit.candidate))[:count]

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Fit those not yet fitted, in parallel, from the best so far among other starts."""
        new = [one for one in dict.fromkeys(candidates) if one not in self.found]
        near = self.best
        for trend in {one.trend for one in new} - self._data.keys() - self._errors.keys():
            self._share(trend)
        runs = run_blocks(
            lambda start, stop: [self._fitted(one, near) for one in new[start:stop]],
            len(new),
            work=float(2_000 * self.batch.n * self.batch.t * len(new)),
        )
        for fits in runs:
            self.found.update((fit.candidate, fit) for fit in fits)

    def _fitted(self, candidate: Candidate, near: CandidateFit | None) -> CandidateFit:
        try:
            return self._fit(candidate, near)
        except (ProbseqError, np.linalg.LinAlgError, FloatingPointError) as error:
            known = error if isinstance(error, ProbseqError) else None
            return CandidateFit(candidate, np.zeros(0), math.inf, -math.inf, 0, "failed", known)

    def _fit(self, candidate: Candidate, near: CandidateFit | None) -> CandidateFit:
        if candidate.trend in self._errors:
            raise self._errors[candidate.trend]
        shared = self._data[candidate.trend]
        k, count = shared.n_fixed + sum(candidate.orders), shared.count
        if self.criterion == "aicc" and count <= k + 1:
            return CandidateFit(candidate, np.zeros(0), math.inf, -math.inf, k, "undefined")
        quick = CandidateLikelihood(shared, candidate.orders, self.period)
        starts = [quick.start(), np.zeros(quick.size)]
        if near is not None:
            starts.append(_carried(near, candidate))
        first = min(starts, key=lambda x: quick(x)[0])
        x, value, status = quick.descend(first, _MAX_ITER, _TOL)
        if shared.gapped:
            # A filter of gaps costs much more: it only finishes what interpolated data have begun.
            profile = self.build(candidate).concentrated(self.batch, self.weights)
            search = ProfileSearch(profile, _MAX_ITER, _TOL)
            search.descend(np.minimum(np.maximum(x, -_EDGE), _EDGE))
            x, value, status = search.x, search.value, search.status
        if not math.isfinite(value):
            return CandidateFit(candidate, np.zeros(0), math.inf, -math.inf, k, "failed")
        return self._judged(CandidateFit(candidate, x, 0.0, -count * value, k, status))

    def _judged(self, fit: CandidateFit) -> CandidateFit:
        """The fit with its criterion."""
        if not _roots_beyond(fit.x, fit.candidate.orders, self.min_root):
            return fit._replace(criterion=math.inf, status="unit root")
        if self.criterion == "heldout":
            return fit._replace(criterion=-2.0 * self._held_out(fit.candidate, fit.x))
        count = self._data[fit.candidate.trend].count
        return fit._replace(
            criterion=information_criterion(self.criterion, fit.log_likelihood, fit.n_parameters, count)
        )

    def revise(self, candidate: Candidate, x: np.ndarray, log_likelihood: float) -> None:
        """Put a more accurate estimate, from the whole data, in place of that of the search."""
        fit = self.found[candidate]
        if self.criterion != "heldout":
            self.found[candidate] = self._judged(fit._replace(x=x, log_likelihood=log_likelihood))
        elif not _roots_beyond(x, candidate.orders, self.min_root):
            self.found[candidate] = fit._replace(criterion=math.inf, status="unit root")

    def _share(self, trend: str) -> None:
        """Find what the candidates of a trend have in common, or why none can be fitted."""
        try:
            model = self.build(Candidate(0, 0, 0, 0, trend))
            profile = model.concentrated(self.batch, self.weights)
            whole = model.concentrated(_bridged(self.batch), self.weights) if profile.gapped else profile
            self._data[trend] = SharedData(whole, model.n_parameters, profile.count, profile.gapped)
        except ProbseqError as error:
            self._errors[trend] = error

    def _held_out(self, candidate: Candidate, x: np.ndarray) -> float:
        model = self.build(candidate)
        params = model.concentrated(self.batch, self.weights).parameters(x)
        with torch.no_grad():
            steps = model.log_prob_steps(params, self.whole)
        later = torch.arange(self.whole.t) >= self.batch.lengths.unsqueeze(-1)
        each = torch.where(later, steps.values, torch.zeros_like(steps.values)).sum(-1)
        return float(each.sum() if self.weights is None else each @ self.weights)


def stepwise(fits: CandidateFits, space: SearchSpace) -> None:
    """From a few models to all neighbours of the best two so far, until neither has one that was not fitted.

    References
    ----------
    Hyndman and Khandakar (2008), Automatic time series forecasting: the forecast package for R, Journal of Statistical
    Software 27, section 3.2; there the search goes on from the best one only, at its first neighbour that is better.
    """
    fits.add(space.starts())
    explored: set[Candidate] = set()
    while open_ends := [fit.candidate for fit in fits.leaders(_LEADERS) if fit.candidate not in explored]:
        explored.add(open_ends[0])
        fits.add(space.neighbours(open_ends[0]))


def exhaustive(fits: CandidateFits, space: SearchSpace) -> None:
    """Fit every candidate; a stepwise search first, so that good starts are known."""
    stepwise(fits, space)
    fits.add(space.all())


def _roots_beyond(x: np.ndarray, orders: tuple[int, int, int, int], modulus: float) -> bool:
    """Whether the roots of the four factors have at least this modulus: those of c(modulus z) are outside one."""
    for row, sign in zip(unpack(x, *orders), (1.0, -1.0, 1.0, -1.0), strict=True):
        if row.size and not partial_from_coefficients(sign * row * modulus ** np.arange(1, row.size + 1))[1]:
            return False
    return True


def fitted_lengths(lengths: Tensor, fraction: float) -> Tensor:
    """How many first steps of each sequence are left when the last ``fraction`` is held out."""
    return lengths - (fraction * lengths).ceil().to(lengths)


def _first_part(batch: Batch, fraction: float) -> Batch:
    """Each sequence without its last part."""
    lengths = fitted_lengths(batch.lengths, fraction)
    t = int(lengths.max())
    inside = (torch.arange(t) < lengths.unsqueeze(-1)).unsqueeze(-1)
    u = None if batch.u is None else batch.u[:, :t]
    return Batch(batch.x[:, :t], batch.seen[:, :t] & inside, lengths, u)


def _bridged(batch: Batch) -> Batch:
    """The batch with missing values interpolated, as if they had been seen."""
    x, steps = batch.x.clone(), np.arange(batch.t)
    for i, seen in enumerate(batch.seen[..., 0].numpy()):
        if seen.any():
            x[i, :, 0] = torch.from_numpy(np.interp(steps, steps[seen], batch.x[i, seen, 0].numpy()))
    return batch._replace(x=x, seen=batch.real.unsqueeze(-1))


def _carried(fit: CandidateFit, candidate: Candidate) -> np.ndarray:
    """The partial autocorrelations of a fit as a start of another candidate: cut, or filled with zeros."""
    start = np.zeros(sum(candidate.orders))
    taken = put = 0
    for old, new in zip(fit.candidate.orders, candidate.orders, strict=True):
        kept = min(old, new)
        start[put : put + kept] = fit.x[taken : taken + kept]
        taken, put = taken + old, put + new
    return np.minimum(np.maximum(start, -_EDGE), _EDGE)
