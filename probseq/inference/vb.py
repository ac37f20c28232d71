"""Variational Bayes of hidden Markov models: a conjugate law of the parameters, apart from that of the states."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor

from probseq._types import Rule, number_in, one_of, whole_number
from probseq.errors import IncompatibleError
from probseq.inference.base import Draws, Inference, Progress
from probseq.inference.chain_laws import ChainLaws, chain_prior
from probseq.kernels import chain
from probseq.models.base import Batch, SequenceModel
from probseq.models.chain_problem import table_with_known_states
from probseq.models.hmm import HiddenMarkovModel
from probseq.models.relabel import exchangeable

__all__ = ["VB", "VariationalDraws", "expect"]

_LOG = logging.getLogger(__name__)
_BYTES = 400_000_000
_ROUNDING = 1e-9
# All starts are followed until they stand still to this many nats, then the best few to the asked tolerance.
_COARSE, _FINALISTS = 1e-2, 3


@dataclass(frozen=True)
class VariationalDraws(Draws):
    """Draws from the law q of the parameters, with q itself.

    Parameters
    ----------
    law : ChainLaws
        q, D = 1.
    point : dict
        The parameters at the mean of q, one draw (1, ...).
    occupancy : (s,)
        Expected number of steps in each state, most first unless structure tells the states apart.
    pruned : tuple of int
        States that the data do not need.
    """

    law: ChainLaws | None = None
    point: dict[str, Tensor] = field(default_factory=dict)
    occupancy: Tensor = field(default_factory=lambda: torch.zeros(0))
    pruned: tuple[int, ...] = ()

    def renamed(self, params: dict[str, Tensor], order: Tensor) -> Self:
        """As in `Draws`; q has one order only, the one that most draws have."""
        orders, counts = torch.unique(order, dim=0, return_counts=True)
        common = orders[counts.argmax()]
        law = None if self.law is None else self.law.permuted(common)
        return replace(
            self,
            params=params,
            law=law,
            point={} if law is None else {name: law.point()[name] for name in self.point},
            occupancy=self.occupancy[common],
            pruned=tuple(i for i, old in enumerate(common.tolist()) if old in self.pruned),
        )


class VB(Inference):
    r"""Maximise the evidence lower bound E_q[log p(x, z | theta)] + H(q(z)) - KL(q(theta) || p(theta)) <= log p(x).

    q(z) is a whole Markov chain, q(theta) conjugate; the two are updated in turn, so that the bound never falls. Extra
    states empty themselves: their posterior returns to the prior and costs nothing. The fitted model averages over
    draws of q, whose spread is narrower than that of the posterior (parameters and states are taken as independent);
    `Gibbs` has no such error.

    Parameters
    ----------
    n_draws : int
        Parameter draws from q.
    n_init : int
        Starts, run as one batch; the one with the highest bound survives.
    init : {"kmeans", "random"}
        Whether the first start follows clusters of the values; all others are random.
    max_iter : int
    tol : float
        A start has converged when its last gain, and that still to come, are below ``tol`` nats.
    prior : dict or None
        Hyper-parameters by name; what is left out is weakly informative and scaled to the data. "initial" and
        "transition" are Dirichlet concentrations (default 1 / n_states: smaller ones prune harder). Normal: "mean",
        "strength", then "shape", "rate" of the precision ("diag", "spherical") or "dof", "scatter" of the covariance
        ("full", "tied"). Poisson: "shape", "rate". Categorical: "concentration". Bernoulli: "ones", "zeros". Product:
        those of its parts with their names in front, as "normal_mean".
    prune : float
        States with fewer expected steps are reported as pruned, in ``draws_.pruned`` and by a warning.

    Examples
    --------
    The bound chooses the number of states; q itself is in ``draws_``.

    >>> import probseq as ps
    >>> y = ps.datasets.earthquakes()
    >>> fits = [ps.HMM(s, ps.Poisson(), inference=ps.VB(), random_state=0).fit(y) for s in (1, 2, 3)]
    >>> [round(float(fit.draws_.objective), 1) for fit in fits]
    [-395.8, -354.2, -350.6]
    >>> fits[2].draws_.point["rate"].squeeze(-1).round(decimals=1).tolist()
    [[19.7, 13.1, 29.7]]

    References
    ----------
    MacKay (1997), Ensemble learning for hidden Markov models; Beal (2003), Variational algorithms for approximate
    Bayesian inference, chapter 3; McGrory and Titterington (2009), Variational Bayesian analysis for hidden Markov
    models.
    """

    fits: ClassVar[str] = (
        "hidden Markov models with Normal, Poisson, Categorical and Bernoulli emissions and their Product"
    )
    rules: ClassVar[Mapping[str, Rule]] = {
        "n_draws": partial(whole_number, lowest=1),
        "n_init": partial(whole_number, lowest=1),
        "init": partial(one_of, choices=("kmeans", "random")),
        "max_iter": partial(whole_number, lowest=1),
        "tol": partial(number_in, interval="[0, inf)", remedy="In nats: try tol=1e-6."),
        "prune": partial(number_in, interval="[0, inf)", remedy="In steps: try prune=1.0."),
    }

    def __init__(
        self,
        n_draws: int = 100,
        n_init: int = 10,
        init: str = "kmeans",
        max_iter: int = 2000,
        tol: float = 1e-6,
        prior: Mapping[str, Any] | None = None,
        prune: float = 1.0,
    ) -> None:
        self.n_draws, self.n_init, self.init = n_draws, n_init, init
        self.max_iter, self.tol, self.prior, self.prune = max_iter, tol, prior, prune

    def can_fit(self, model_class: type[SequenceModel[Any]]) -> bool:
        return issubclass(model_class, HiddenMarkovModel)

    def fit(
        self,
        model: SequenceModel[Any],
        batch: Batch,
        generator: torch.Generator,
        *,
        validation: Batch | None = None,
        weights: Tensor | None = None,
        progress: Progress | None = None,
    ) -> VariationalDraws:
        """Find q from every start, keep the best, and draw from it.

        ``objective`` is the bound and ``trace`` its course; ``log_prob`` is log (1/D) sum_d p(x | theta_d). ``status``
        is "converged", "max_iter", "decreased" (the bound fell, which only rounding can do) or "interrupted".

        Raises
        ------
        ParameterError
            for settings out of range, and hyper-parameters that the prior does not have.
        IncompatibleError
            for emissions without a conjugate prior, transitions that depend on covariates, and a stationary start.
        """
        self.check()
        self.require(type(model))
        if not isinstance(model, HiddenMarkovModel):
            raise TypeError("can_fit accepted a model that is no hidden Markov model")
        if model.start == "stationary":
            raise IncompatibleError(
                got='VB with start="stationary"',
                expected='start="free" or known probabilities: the stationary law has no conjugate prior',
                remedy="Use Gibbs, or EM.",
            )
        prior = chain_prior(model, batch, self.prior, "VB")
        with torch.no_grad():
            run = _Run(_first(model, batch, prior, self.n_init, self.init, generator, weights))
            interrupted = False
            try:
                for tol in (max(self.tol, _COARSE), self.tol):
                    while len(active := run.active(self.max_iter)):
                        laws = ChainLaws.join(run.following[i] for i in active)
                        run.advance(active, _iterate(model, batch, prior, laws, weights), tol)
                        if progress is not None:
                            progress(len(run.trace), run.trace[-1])
                    if tol > self.tol:
                        run.resume()
            except KeyboardInterrupt:
                if not run.trace:
                    raise
                interrupted = True
            return self._result(model, batch, prior, run, generator, weights, interrupted)

    def _result(
        self,
        model: HiddenMarkovModel,
        batch: Batch,
        prior: ChainLaws,
        run: _Run,
        generator: torch.Generator,
        weights: Tensor | None,
        interrupted: bool,
    ) -> VariationalDraws:
        best = int(np.argmax(run.bound))
        law, occupancy = run.laws[best], run.occupancy[best]
        if prior.symmetric and exchangeable(model, law.point(), batch):
            order = occupancy.argsort(descending=True, stable=True)
            law, occupancy = law.permuted(order), occupancy[order]
        pruned = tuple(int(j) for j in (occupancy < self.prune).nonzero().squeeze(-1))
        status = "interrupted" if interrupted else run.status[best]
        status = "max_iter" if status == "running" else status
        messages = []
        if pruned:
            messages.append(
                f"{len(pruned)} of {model.n_states} states are not needed and were pruned: {list(pruned)}, with "
                f"{float(occupancy[list(pruned)].sum()):.2g} of {float(occupancy.sum()):.6g} expected steps"
            )
        if status in ("max_iter", "decreased"):
            messages.append(
                f"VB stopped with status {status!r} after {len(run.history[best])} iterations; "
                f"the last one gained {run.gain[best]:.2g} nats"
            )
        _LOG.info("VB: best of %d starts, bound %.4f (%s)", len(run.laws), run.bound[best], status)
        draws = law.take(torch.zeros(self.n_draws, dtype=torch.long)).sample(generator)
        each = torch.cat(
            [model.log_prob({name: v[i : i + 1] for name, v in draws.items()}, batch) for i in range(self.n_draws)]
        )
        total = each.sum(-1) if weights is None else each @ weights.to(each.dtype)
        names = list(model.parameters())
        point = law.point()
        return VariationalDraws(
            params={name: draws[name] for name in names},
            log_prob=float(torch.logsumexp(total, 0) - math.log(self.n_draws)),
            objective=float(run.bound[best]),
            status=status,
            n_iter=len(run.history[best]),
            trace=np.array(run.history[best]),
            optima=np.sort(run.bound)[::-1].copy(),
            messages=tuple(messages),
            law=law,
            point={name: point[name] for name in names},
            occupancy=occupancy,
            pruned=pruned,
        )


class Expected(NamedTuple):
    """What the best q(z) says, for each of D laws of the parameters.

    bound : (D,), the evidence lower bound in nats.
    first : (D, s), expected first states.
    counts : (D, s, s), expected moves.
    posterior : (D, n, t, s), q(z_t).
    """

    bound: Tensor
    first: Tensor
    counts: Tensor
    posterior: Tensor


def expect(
    model: HiddenMarkovModel, batch: Batch, prior: ChainLaws, laws: ChainLaws, weights: Tensor | None = None
) -> Expected:
    """The q(z) that maximises the bound for given laws, and the bound there; sums are weighted by sequence.

    q(z) is a chain with exp(E[log A]) for its matrix, whose rows sum to less than one: each is divided by its sum,
    which is made up for in the emissions of the state that is left.
    """
    log_matrix, log_start = laws.transition.expected_log(), _log_start(model, laws)
    rows, total = torch.logsumexp(log_matrix, -1), torch.logsumexp(log_start, -1)
    table = table_with_known_states(laws.emission.expected_log_prob(batch.x, batch.seen), batch)
    left = torch.arange(batch.t) < (batch.lengths - 1).unsqueeze(-1)
    table = table + left.unsqueeze(-1) * rows[:, None, None, :]
    gain = None if weights is None else weights.to(table.dtype).reshape(1, -1, 1).numpy()
    found = chain.expectations(
        (log_start - total.unsqueeze(-1)).exp().unsqueeze(1).numpy(),
        (log_matrix - rows.unsqueeze(-1)).exp().numpy(),
        chain.table_emission(table.numpy()),
        batch.lengths.numpy(),
        gain=gain,
    )
    each = torch.from_numpy(found.log_prob) + total.unsqueeze(-1) * (batch.lengths > 0)
    evidence = each.sum(-1) if weights is None else each @ weights.to(each.dtype)
    return Expected(
        evidence - laws.divergence(prior),
        torch.from_numpy(found.start).sum(1),
        torch.from_numpy(found.counts),
        torch.from_numpy(found.posterior),
    )


def _log_start(model: HiddenMarkovModel, laws: ChainLaws) -> Tensor:
    if laws.initial is not None:
        return laws.initial.expected_log()
    known = model.known_start
    if known is None:
        raise TypeError("a stationary start has no conjugate law")
    return known.log().expand(laws.transition.concentration.shape[0], -1)


class _Iteration(NamedTuple):
    """The bound before, the laws after, and the expected steps in each state between the two."""

    bound: Tensor
    laws: ChainLaws
    occupancy: Tensor


def _iterate(
    model: HiddenMarkovModel, batch: Batch, prior: ChainLaws, laws: ChainLaws, weights: Tensor | None
) -> _Iteration:
    """q(z), then q(theta); laws in groups, so that the tables of all starts need not fit at once."""
    size = max(1, _BYTES // (8 * 4 * max(1, batch.n * batch.t * model.n_states)))
    n = laws.transition.concentration.shape[0]
    groups = []
    for i in range(0, n, size):
        some = laws.take(slice(i, i + size))
        found = expect(model, batch, prior, some, weights)
        new = prior.updated(found.first, found.counts, batch, found.posterior, some)
        groups.append(_Iteration(found.bound, new, found.posterior.sum((1, 2))))
    bound, occupancy = torch.cat([g.bound for g in groups]), torch.cat([g.occupancy for g in groups])
    return _Iteration(bound, ChainLaws.join(g.laws for g in groups), occupancy)


def _first(
    model: HiddenMarkovModel,
    batch: Batch,
    prior: ChainLaws,
    n_starts: int,
    init: str,
    generator: torch.Generator,
    weights: Tensor | None,
) -> list[ChainLaws]:
    """Laws that follow from the states under the starting values of EM."""
    params = model.em_start(batch, n_starts, init, generator)
    gain = torch.ones(batch.n, dtype=model.dtype) if weights is None else weights.to(model.dtype)
    laws = []
    for start in range(n_starts):
        states = model.smooth({name: v[start : start + 1] for name, v in params.items()}, batch)
        states = states * gain.reshape(-1, 1, 1)
        moves = states[:, :, :-1].mT @ (states[:, :, 1:] / gain.clamp_min(1e-300).reshape(-1, 1, 1))
        laws.append(prior.updated(states[:, :, 0].sum(1), moves.sum(1), batch, states))
    return laws


class _Run:
    """All starts: where each stands, the bound there, and how it ended."""

    def __init__(self, laws: list[ChainLaws]) -> None:
        n = len(laws)
        self.laws, self.following = list(laws), list(laws)
        self.bound, self.gain = np.full(n, -np.inf), np.full(n, np.inf)
        self.occupancy: list[Tensor] = [torch.zeros(0)] * n
        self.status = ["running"] * n
        self.history: list[list[float]] = [[] for _ in range(n)]
        self.trace: list[float] = []

    def active(self, max_iter: int) -> list[int]:
        """The starts that go on."""
        return [i for i, word in enumerate(self.status) if word == "running" and len(self.history[i]) < max_iter]

    def resume(self) -> None:
        """Let the best starts run on to the final tolerance."""
        for start in np.argsort(-self.bound)[:_FINALISTS]:
            if self.status[start] == "converged":
                self.status[start] = "running"

    def advance(self, active: list[int], step: _Iteration, tol: float) -> None:
        """Take in the bound at ``following`` and, where it did not fall, move there."""
        for row, start in enumerate(active):
            new, old = float(step.bound[row]), float(self.bound[start])
            gain = new - old
            if not gain >= -_ROUNDING * (1.0 + abs(new)):
                self.status[start] = "decreased"
                self.history[start].append(old)
                continue
            before = self.gain[start]
            rate = min(max(gain / before, 0.0), 1.0 - 1e-6) if 0.0 < before < math.inf else 0.0
            self.laws[start], self.following[start] = self.following[start], step.laws.take(slice(row, row + 1))
            self.bound[start], self.gain[start], self.occupancy[start] = new, gain, step.occupancy[row]
            self.history[start].append(new)
            # What is still to come, were the gains to shrink as the last one did (Aitken).
            ahead = gain * rate / (1.0 - rate)
            if before < math.inf and max(gain, ahead) < tol:
                self.status[start] = "converged"
        self.trace.append(float(self.bound.max()))
