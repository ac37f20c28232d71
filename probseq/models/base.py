"""The heart: a sequence model is its one-step-ahead predictive distribution and a state that summarises the past."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.emissions import Observation
from probseq.distributions.params import Params, ParamSpec, n_free_parameters
from probseq.errors import UnsupportedError

__all__ = ["Batch", "Scan", "SequenceModel", "Steps", "map_state", "where_sequence"]

S = TypeVar("S")

# Numbers that a trajectory of states may hold at a time where only some of them are kept.
_STATE_ENTRIES = 4_000_000


class Batch(NamedTuple):
    """Padded sequences as tensors.

    x : (n, t, k), finite everywhere: unseen coordinates hold the observation's fill value.
    seen : (n, t, k) bool, False for missing values and for padding.
    lengths : (n,) int64.
    u : (n, t, m) covariates or None; u_t is known before x_t.
    states : (n, t) int64, latent states that are known, -1 where they are not; None where none is.
    given : (n,) int64, how many first steps a fit need not explain, only continue; None for none.
    """

    x: Tensor
    seen: Tensor
    lengths: Tensor
    u: Tensor | None = None
    states: Tensor | None = None
    given: Tensor | None = None

    @property
    def n(self) -> int:
        return self.x.shape[0]

    @property
    def t(self) -> int:
        return self.x.shape[1]

    @property
    def real(self) -> Tensor:
        """(n, t) bool, False for padding."""
        return torch.arange(self.t, device=self.x.device) < self.lengths.unsqueeze(-1)

    @property
    def complete(self) -> bool:
        """Whether every value of every step is seen."""
        seen, lengths = self.seen.numpy(force=True), self.lengths.numpy(force=True)
        return int(np.count_nonzero(seen)) == int(lengths.sum()) * seen.shape[-1]

    @property
    def to_explain(self) -> Tensor:
        """(n, t, k) bool, the seen values behind the given ones."""
        if self.given is None:
            return self.seen
        late = torch.arange(self.t, device=self.x.device) >= self.given.unsqueeze(-1)
        return self.seen & late.unsqueeze(-1)

    def slice_time(self, start: int, stop: int) -> Batch:
        """Steps start .. stop-1, lengths cut accordingly."""
        u = None if self.u is None else self.u[:, start:stop]
        states = None if self.states is None else self.states[:, start:stop]
        lengths = self.lengths.clamp(start, max(start, stop)) - start
        given = None if self.given is None else (self.given - start).clamp_min(0)
        return Batch(self.x[:, start:stop], self.seen[:, start:stop], lengths, u, states, given)


class Scan(NamedTuple, Generic[S]):
    """States along a batch.

    states : leaves (*draw, n, t, ...), the state *before* each step, a function of x_<t.
    final : leaves (*draw, n, ...), the state after the last step of each sequence.
    """

    states: S
    final: S


class Steps(NamedTuple, Generic[S]):
    """One-step log predictive densities along a batch.

    values : (*draw, n, t), log p(x_t | x_<t) in nats over the scored coordinates; 0 where nothing is scored.
    scored : (n, t, k) bool.
    error : Monte Carlo standard errors of ``values``, whose squares add up to that of their sum; None if exact.
    final : the state after the last step of each sequence.
    """

    values: Tensor
    scored: Tensor
    error: Tensor | None
    final: S


def map_state(function: Callable[..., Tensor], state: Any, *others: Any) -> Any:
    """Apply ``function`` to the matching leaves of states (tensors nested in tuples and named tuples)."""
    if isinstance(state, Tensor):
        return function(state, *others)
    parts = [map_state(function, *leaves) for leaves in zip(state, *others, strict=True)]
    return type(state)(*parts) if hasattr(state, "_fields") else tuple(parts)


class SequenceModel(ABC, Generic[S]):
    r"""A law of sequences, p(x_{1:T} | u) = prod_t p(x_t | x_{<t}, u_{<=t}).

    ``predict_next(state_t, u_t)`` is the t-th factor; state_t depends on x_<t and u_<t only. u_t enters
    ``predict_next`` and ``update`` of step t. Parameters have shape (*draw, *spec.shape), leaves of states
    (*draw, n, ...). Observed values may carry the draw dimensions too, (*draw, n, k), as in simulation.

    Subclasses give the five abstract methods. The hooks that begin with an underscore have slow correct defaults and
    are overridden only by equal, faster forms; ``check_model`` asserts the equality. u_t may carry draw dimensions too.
    """

    observation: Observation
    dtype: torch.dtype = torch.float64
    n_covariates: int = 0
    n_settled: int = 0
    """Free parameters settled before inference, such as the mean and scale of a standardisation."""
    exact: bool = True
    """Whether ``log_prob_steps`` is exact, or an estimate with an error."""
    estimate: str = ""
    """How it is estimated where it is not exact, such as "FIVO (100 particles)"."""
    shares_noise: bool = False
    """Whether the particles of all parameter draws are moved by the same random numbers, so that these err alike."""
    likelihood: str = "exact"
    """How a sequence begins: "exact", or "conditional" on its first values with all that came before set to zero."""
    missing: str = "exact"
    """What a missing value does: "exact", it is integrated out; "pattern", the law is that given which are missing;
    "particles", it is drawn, and the law is an estimate."""
    starts_itself: bool = False
    """Whether simulation from the initial state draws the values that ``scores_next`` only conditions on."""

    # what a family defines ------------------------------------------------------------------------------------------

    @abstractmethod
    def parameters(self) -> Mapping[str, ParamSpec]:
        """Name, shape, constraint and prior of every parameter."""

    @abstractmethod
    def initial_state(self, params: Params, n: int) -> S:
        """The state before the first step of n sequences."""

    @abstractmethod
    def predict_next(self, params: Params, state: S, u: Tensor | None = None) -> Distribution:
        """p(x_t | x_<t, u_<=t), batch shape (*draw, n)."""

    @abstractmethod
    def update(self, params: Params, state: S, x: Tensor, seen: Tensor, u: Tensor | None = None) -> S:
        """The state after seeing x_t (n, k); coordinates with ``seen == False`` are integrated out exactly."""

    def scores_next(self, state: S) -> Tensor | None:
        """Which coordinates of the next value are scored, (n, k) bool.

        None means all. False marks values that the model only conditions on, such as the first of a random walk.
        """
        return None

    # hooks ------------------------------------------------------------------------------------------------------------

    def _scan(self, params: Params, batch: Batch, state: S) -> Scan[S]:
        """Run over the batch, one step at a time."""
        draw = len(self._draw(params))
        states = []
        for t in range(batch.t):
            states.append(state)
            u = None if batch.u is None else batch.u[:, t]
            running = t < batch.lengths
            # A padded step counts as seen for the family, since its result is thrown away and must not raise.
            seen = batch.seen[:, t] | ~running.unsqueeze(-1)
            after = self.update(params, state, batch.x[:, t], seen, u)
            state = map_state(lambda new, old, r=running: where_sequence(r, new, old, draw), after, state)
        if not states:
            return Scan(map_state(lambda leaf: leaf.unsqueeze(draw + 1).narrow(draw + 1, 0, 0), state), state)
        return Scan(map_state(lambda *leaves: torch.stack(leaves, draw + 1), *states), state)

    def _states_at(self, params: Params, batch: Batch, steps: Tensor, state: S) -> S:
        """The states after the first ``steps`` (n, m) steps of each sequence, in any order, leaves (*draw, n, m, ...).

        p(x_{s+1} | x_{1:s}) is ``predict_next`` of what is kept for s, from 0 to the length of the sequence.
        """
        d, ends = len(self._draw(params)), batch.lengths.unsqueeze(-1)
        every = (slice(None),) * d
        kept = map_state(lambda leaf: leaf.unsqueeze(d + 1).repeat_interleave(steps.shape[1], d + 1), state)
        width = max(1, _STATE_ENTRIES // max(1, _n_numbers(state)))
        for start in range(0, batch.t, width):
            stop = min(start + width, batch.t)
            scan = self._scan(params, batch.slice_time(start, stop), state)
            state = scan.final
            inside = (steps > start) & (steps <= stop)
            last = inside & ((steps == ends) | (steps == stop))
            i, j = torch.nonzero(inside & ~last, as_tuple=True)
            _copy_leaves(scan.states, (*every, i, steps[i, j] - start), kept, (*every, i, j))
            i, j = torch.nonzero(last, as_tuple=True)
            _copy_leaves(scan.final, (*every, i), kept, (*every, i, j))
        return kept

    def _log_prob_steps(self, params: Params, batch: Batch, state: S) -> Steps[S]:
        """Time folds into the batch: one ``predict_next`` on the trajectory gives every factor at once."""
        scan = self._scan(params, batch, state)
        law, scored = self._fold(params, batch, scan)
        values = law.log_prob_seen(batch.x, scored)
        return Steps(torch.where(scored.any(-1), values, torch.zeros_like(values)), scored, None, scan.final)

    def _log_prob_fresh(self, params: Params, batch: Batch) -> Steps[S]:
        """As `_log_prob_steps` for new sequences, for models that can do without the state that these start from."""
        return self._log_prob_steps(params, batch, self.initial_state(params, batch.n))

    def _predictive(self, params: Params, batch: Batch, state: S) -> tuple[Distribution, Tensor]:
        """All one-step predictives, batch shape (*draw, n, t), and the scored mask (n, t, k)."""
        return self._fold(params, batch, self._scan(params, batch, state))

    def _training_log_prob(
        self,
        params: Params,
        batch: Batch,
        scored: Tensor,
        state: S | None,
        generator: torch.Generator,
        done: float = 1.0,
    ) -> tuple[Tensor, S]:
        """What gradient training maximises: log p of the values ``scored`` (n, t, k) by sequence, (n,), final state.

        Families whose training needs noise of its own (dropout), or has a bound in place of log p, override it.
        ``done`` is the fraction of the training that lies behind.
        """
        start = self.initial_state(params, batch.n) if state is None else state
        scan = self._scan(params, batch, start)
        law, _ = self._fold(params, batch, scan)
        return law.training_score(batch.x, scored).sum(-1), scan.final

    def _validation_log_prob(self, params: Params, batch: Batch, scored: Tensor) -> Tensor:
        """By which training is judged on data held back: as `_training_log_prob`, without noise."""
        law, _ = self.predictive(params, batch)
        return law.training_score(batch.x, scored).sum(-1)

    def _forecast_marginals(self, params: Params, state: S, u: Tensor | None, horizon: int) -> Distribution | None:
        """Exact laws of x_{T+1}, ..., x_{T+h} given the state, batch shape (*draw, n, h); None if not available."""
        return None

    def _forecast_joint(self, params: Params, state: S, u: Tensor | None, horizon: int) -> Distribution | None:
        """Exact joint law of x_{T+1}, ..., x_{T+h} given the state, batch shape (*draw, n), event (h * k,), step-major.

        A `FullNormal`, a mixture of such, or either through a monotone map of each value; None if not available.
        """
        return None

    def _forecast_mean(self, params: Params, state: S, u: Tensor | None, horizon: int) -> Tensor | None:
        """E[x_{T+1}], ..., E[x_{T+h}] given the state, exact, (*draw, n, h, k); None if not available."""
        return None

    def _initial_guess(self, batch: Batch, generator: torch.Generator) -> dict[str, Tensor]:
        """Starting values for an optimiser, without draw dimensions."""
        raise UnsupportedError(
            got=f"a request for starting values of {type(self).__name__}",
            expected="a model that knows starting values",
            remedy="Pass initial parameters.",
        )

    # final ------------------------------------------------------------------------------------------------------------

    @property
    def n_parameters(self) -> int:
        """Number of free parameters."""
        return n_free_parameters(self.parameters()) + self.n_settled

    @cached_property
    def _first_parameter(self) -> tuple[str, int] | None:
        """Name and number of dimensions of the first parameter."""
        return next(((name, len(spec.shape)) for name, spec in self.parameters().items()), None)

    def _draw(self, params: Params) -> tuple[int, ...]:
        """The leading draw dimensions that all parameters share; () when there is no parameter."""
        if self._first_parameter is None:
            return ()
        name, rank = self._first_parameter
        shape = params[name].shape
        return tuple(shape[: len(shape) - rank])

    def _fold(self, params: Params, batch: Batch, scan: Scan[S]) -> tuple[Distribution, Tensor]:
        draw = self._draw(params)
        d, n, t = len(draw), batch.n, batch.t
        folded = map_state(lambda leaf: leaf.flatten(d, d + 1), scan.states)
        u = None if batch.u is None else batch.u.flatten(0, 1)
        law = self.predict_next(params, folded, u).reshape(*draw, n, t)
        scores = self.scores_next(folded)
        scored = batch.seen if scores is None else batch.seen & scores.reshape(n, t, -1)
        return law, scored

    def filter(self, params: Params, batch: Batch, state: S | None = None) -> S:
        """The state after each sequence's last step."""
        return self.log_prob_steps(params, batch, state).final

    def log_prob_steps(self, params: Params, batch: Batch, state: S | None = None) -> Steps[S]:
        """log p(x_t | x_<t) for every step; ``state=None`` starts new sequences."""
        if state is None:
            return self._log_prob_fresh(params, batch)
        return self._log_prob_steps(params, batch, state)

    def log_prob(self, params: Params, batch: Batch, state: S | None = None) -> Tensor:
        """log p(x_1:T) over the scored values, (*draw, n), in nats."""
        return self.log_prob_steps(params, batch, state).values.sum(-1)

    def predictive(self, params: Params, batch: Batch, state: S | None = None) -> tuple[Distribution, Tensor]:
        """One-step-ahead predictive distributions, batch (*draw, n, t), and the scored mask."""
        start = self.initial_state(params, batch.n) if state is None else state
        return self._predictive(params, batch, start)

    def forecast_marginals(
        self, params: Params, state: S, horizon: int, u: Tensor | None = None
    ) -> Distribution | None:
        """Exact marginal laws of the next ``horizon`` steps, or None where only paths are available."""
        return self._forecast_marginals(params, state, u, horizon)

    def forecast_joint(self, params: Params, state: S, horizon: int, u: Tensor | None = None) -> Distribution | None:
        """Exact joint law of the next ``horizon`` steps, or None where only paths are available.

        Batch shape (*draw, n), event shape (horizon * k,): the k variables of the first step, then of the second.
        """
        return self._forecast_joint(params, state, u, horizon)

    def forecast_mean(self, params: Params, state: S, horizon: int, u: Tensor | None = None) -> Tensor | None:
        """Exact means of the next ``horizon`` steps, also where only paths have their laws; None if not available."""
        return self._forecast_mean(params, state, u, horizon)

    def sample(
        self,
        params: Params,
        state: S,
        length: int,
        generator: torch.Generator | None = None,
        u: Tensor | None = None,
        temper: Callable[[Distribution], Distribution] | None = None,
    ) -> tuple[Tensor, S]:
        """Simulate onwards from a state.

        Parameters
        ----------
        state : leaves (*draw, n, ...)
        u : (*draw, n, length, m), (n, length, m) or None
        temper : changes each one-step law before it is drawn from, for tempered generation

        Returns
        -------
        x : (*draw, n, length, k)
        state : the state after the last simulated step
        """
        with torch.no_grad():
            return self._sample(params, state, length, generator, u, temper)

    def _sample(
        self,
        params: Params,
        state: S,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, S]:
        values = []
        for t in range(length):
            u_t = None if u is None else u.select(-2, t)
            law = self.predict_next(params, state, u_t)
            x = (law if temper is None else temper(law)).sample((), generator=generator)
            values.append(x)
            state = self.update(params, state, x, torch.ones_like(x, dtype=torch.bool), u_t)
        return torch.stack(values, -2), state


def _copy_leaves(source: Any, at: tuple[Any, ...], target: Any, to: tuple[Any, ...]) -> None:
    def write(whole: Tensor, part: Tensor) -> Tensor:
        whole[to] = part[at]
        return whole

    map_state(write, target, source)


def _n_numbers(state: Any) -> int:
    return state.numel() if isinstance(state, Tensor) else sum(map(_n_numbers, state))


def where_sequence(mask: Tensor, new: Tensor, old: Tensor, draw: int) -> Tensor:
    """Choose per sequence: mask (n,) against leaves (*draw, n, ...)."""
    shaped = mask.reshape(*(1,) * draw, -1, *(1,) * (new.ndim - draw - 1))
    return torch.where(shaped, new, old)
