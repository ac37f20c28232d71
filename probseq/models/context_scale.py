"""Sequences that bring their own scale: read from their first values, which are conditioned on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Affine
from probseq.distributions.compose import push
from probseq.distributions.params import Params
from probseq.distributions.stacked import is_normal
from probseq.errors import HistoryError
from probseq.models.base import Batch, Scan, SequenceModel, Steps, map_state
from probseq.models.wrappers import WrapperModel

__all__ = ["ContextScaledModel", "ContextState", "ScaleRule"]

S = TypeVar("S")


class ScaleRule(NamedTuple):
    """How the first values of a sequence give its level and scale, variable by variable.

    centred : mean and standard deviation (division by n); else 0 and the mean absolute value
    floor : the smallest scale, as a share of the mean absolute value
    loc, scale : (k,), for a sequence whose context has no value, or no other than zero
    chosen : (k,) bool, the others stay as they are
    """

    centred: bool
    floor: float
    loc: Tensor
    scale: Tensor
    chosen: Tensor

    def __call__(self, x: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Level and scale (..., k) of values (..., t, k)."""
        count = seen.sum(-2)
        safe = count.clamp_min(1)
        level = torch.where(seen, x, 0.0).abs().sum(-2) / safe
        if self.centred:
            mean = torch.where(seen, x, 0.0).sum(-2) / safe
            spread = (torch.where(seen, x - mean.unsqueeze(-2), 0.0) ** 2).sum(-2).div(safe).sqrt()
            spread = torch.maximum(spread, self.floor * level)
        else:
            mean, spread = torch.zeros_like(level), level
        own = (count > 0) & (level > 0)
        mean = torch.where(count > 0, mean, self.loc)
        scale = torch.where(own, spread, self.scale)
        return torch.where(self.chosen, mean, 0.0), torch.where(self.chosen, scale, 1.0)


class ContextState(NamedTuple, Generic[S]):
    """inner : the state of the model of the scaled values, that of the start until the context is full
    x, seen : (*draw, n, length, k), the context so far
    u : (*draw, n, length, m), its covariates
    loc, scale : (*draw, n, k), those of the rule's own constants until the context is full
    steps : (*draw, n), steps so far
    """

    inner: S
    x: Tensor
    seen: Tensor
    u: Tensor
    loc: Tensor
    scale: Tensor
    steps: Tensor


class ContextScaledModel(WrapperModel):
    r"""x_t = m + s z_t, z ~ the inner model, where m and s come from x_1, ..., x_L of the same sequence.

    log p(x_t | x_<t) = log p(z_t | z_<t) - log s for t > L. The first L values are conditioned on and not scored; once
    they are known the inner model reads them, scaled, as its own past.

    Parameters
    ----------
    inner : SequenceModel
        The law of z.
    length : int
        L.
    rule : ScaleRule
    """

    nested_state = True

    def __init__(self, inner: SequenceModel[Any], length: int, rule: ScaleRule) -> None:
        super().__init__(inner, rule.chosen)
        self.length, self.rule = length, rule

    # one step ---------------------------------------------------------------------------------------------------------

    def initial_state(self, params: Params, n: int) -> ContextState[Any]:
        shape = (*self._draw(params), n)
        x = torch.zeros(*shape, self.length, self.observation.n_variables, dtype=torch.float64)
        return ContextState(
            self.inner.initial_state(params, n),
            x,
            torch.zeros_like(x, dtype=torch.bool),
            x.new_zeros(*shape, self.length, self.n_covariates),
            self.rule.loc.expand(*shape, -1).clone(),
            self.rule.scale.expand(*shape, -1).clone(),
            torch.zeros(shape, dtype=torch.long),
        )

    def scores_next(self, state: ContextState[Any]) -> Tensor | None:
        steps = _first_draw(state.steps, state.steps.ndim - 1)
        known = (steps >= self.length).unsqueeze(-1).expand(-1, self.observation.n_variables)
        inner = self.inner.scores_next(state.inner)
        return known if inner is None else known & inner

    def predict_next(self, params: Params, state: ContextState[Any], u: Tensor | None = None) -> Distribution:
        return push(self.inner.predict_next(params, state.inner, u), Affine(state.loc, state.scale))

    def update(
        self, params: Params, state: ContextState[Any], x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> ContextState[Any]:
        full, last = state.steps >= self.length, state.steps == self.length - 1
        inner = state.inner
        if bool(full.any()):
            after = self.inner.update(params, inner, self._scaled(x, seen, state.loc, state.scale), seen, u)
            inner = _choose(full, after, inner)
        slot = (torch.arange(self.length) == state.steps.unsqueeze(-1)).unsqueeze(-1)
        values = torch.where(slot, torch.where(seen, x, 0.0).to(state.x.dtype).unsqueeze(-2), state.x)
        known = torch.where(slot, seen.unsqueeze(-2), state.seen)
        inputs = state.u if u is None else torch.where(slot, u.to(state.u.dtype).unsqueeze(-2), state.u)
        loc, scale = state.loc, state.scale
        if bool(last.any()):
            m, s = self.rule(values, known)
            loc, scale = (torch.where(last.unsqueeze(-1), new, old) for new, old in ((m, loc), (s, scale)))
            inner = _choose(last, self._read(params, values, known, inputs, m, s), inner)
        return ContextState(inner, values, known, inputs, loc, scale, state.steps + 1)

    def _read(self, params: Params, x: Tensor, seen: Tensor, u: Tensor, loc: Tensor, scale: Tensor) -> Any:
        """The inner state after the context."""
        state = self.inner.initial_state(params, x.shape[-3])
        for t in range(self.length):
            known = seen[..., t, :]
            z = self._scaled(x[..., t, :], known, loc, scale)
            state = self.inner.update(params, state, z, known, u[..., t, :] if self.n_covariates else None)
        return state

    def _scaled(self, x: Tensor, seen: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        z = (x - loc) / scale
        return torch.where(seen, z, self.inner.observation.like(z))

    # whole sequences --------------------------------------------------------------------------------------------------

    def _joined(self, batch: Batch, state: ContextState[Any]) -> tuple[Batch, int] | None:
        """The batch with the part of its context that came before it, and how long that is.

        None where sequences, or draws, differ in what they have of their contexts.
        """
        draws = state.steps.ndim - 1
        firsts = [_first_draw(leaf, draws) for leaf in state[1:]]
        if draws and not all(bool((leaf == one).all()) for leaf, one in zip(state[1:], firsts, strict=True)):
            return None
        x, seen, u, _, _, steps = firsts
        if not len(steps) or bool((steps >= self.length).all()):
            return batch, 0
        before = int(steps[0])
        if not bool((steps == before).all()):
            return None
        inputs = None if batch.u is None else torch.cat([u[:, :before].to(batch.u.dtype), batch.u], 1)
        values = torch.cat([x[:, :before].to(batch.x.dtype), batch.x], 1)
        known = torch.cat([seen[:, :before], batch.seen], 1)
        return Batch(values, known, batch.lengths + before, inputs), before

    def _problem(
        self, batch: Batch, state: ContextState[Any]
    ) -> tuple[Batch, Tensor, Tensor, int, ContextState[Any] | None] | None:
        """The inner batch with levels and scales (n, k), how many steps come before the given batch, and what the
        state will hold of the context (without draws and inner state); None of the latter where it stays as it was.
        """
        found = self._joined(batch, state)
        if found is None:
            return None
        whole, before = found
        draws = state.steps.ndim - 1
        if batch.n and bool((state.steps >= self.length).all()):
            loc, scale = (_first_draw(leaf, draws) for leaf in (state.loc, state.scale))
            kept = None
        else:
            kept = self._context(whole)
            loc, scale = kept.loc, kept.scale
        z = self._scaled(whole.x, whole.seen, loc.unsqueeze(1), scale.unsqueeze(1))
        return whole._replace(x=z), loc, scale, before, kept

    def _context(self, whole: Batch) -> ContextState[Any]:
        """What states hold of sequences from their first step on, once they have ended."""
        there = min(self.length, whole.t)
        real = whole.real[:, :there].unsqueeze(-1)

        def slots(leaf: Tensor) -> Tensor:
            cut = torch.where(real, leaf[:, :there], torch.zeros_like(leaf[:, :there]))
            return torch.nn.functional.pad(cut, (0, 0, 0, self.length - there))

        seen = slots(whole.seen)
        x = torch.where(seen, slots(whole.x.to(torch.float64)), 0.0)
        u = x.new_zeros(whole.n, self.length, 0) if whole.u is None else slots(whole.u.to(torch.float64))
        loc, scale = self.rule(x, seen)
        full = (whole.lengths >= self.length).unsqueeze(-1)
        loc, scale = torch.where(full, loc, self.rule.loc), torch.where(full, scale, self.rule.scale)
        return ContextState(None, x, seen, u, loc, scale, whole.lengths)

    def _final(self, batch: Batch, state: ContextState[Any], kept: ContextState[Any] | None, inner: Any) -> Any:
        if kept is None:
            return state._replace(inner=inner, steps=state.steps + batch.lengths)
        shape = state.steps.shape
        leaves = [leaf.expand(*shape, *leaf.shape[1:]) for leaf in kept[1:]]
        full = (kept.steps >= self.length).expand(shape)
        return ContextState(_choose(full, inner, state.inner), *leaves)

    def inner_problem(self, batch: Batch, state: ContextState[Any]) -> tuple[Batch, Any, int]:
        problem = self._problem(batch, state)
        if problem is None or problem[3]:
            raise HistoryError(
                got=f"a history that ends within the context of {self.length} steps",
                expected="at least the whole context in every history, or none of it",
                remedy="Pass history and data as one.",
            )
        return problem[0], state.inner, 0

    def _log_prob_steps(self, params: Params, batch: Batch, state: ContextState[Any]) -> Steps[Any]:
        problem = self._problem(batch, state)
        if problem is None:
            return super()._log_prob_steps(params, batch, state)
        inner_batch, _, scale, before, kept = problem
        steps = self.inner._log_prob_steps(params, inner_batch, state.inner)
        values, scored = steps.values[..., before:], steps.scored[:, before:]
        if kept is not None:
            late = torch.arange(before, inner_batch.t) >= self.length
            values, scored = torch.where(late, values, 0.0), scored & late.unsqueeze(-1)
        jacobian = torch.where(scored, -scale.log().unsqueeze(1), 0.0).sum(-1)
        error = None if steps.error is None else torch.where(scored.any(-1), steps.error[..., before:], 0.0)
        return Steps(values + jacobian, scored, error, self._final(batch, state, kept, steps.final))

    def _predictive(self, params: Params, batch: Batch, state: ContextState[Any]) -> tuple[Distribution, Tensor]:
        problem = self._problem(batch, state)
        if problem is None or problem[4] is not None:
            return super()._predictive(params, batch, state)
        law, scored = self.inner._predictive(params, problem[0], state.inner)
        shape = (batch.n, batch.t, self.observation.n_variables)
        loc, scale = (leaf.unsqueeze(1).expand(shape) for leaf in problem[1:3])
        return push(law, Affine(loc, scale)), scored

    def _scan(self, params: Params, batch: Batch, state: ContextState[Any]) -> Scan[Any]:
        problem = self._problem(batch, state)
        if problem is None or not batch.t:
            return super()._scan(params, batch, state)
        inner_batch, loc, scale, before, kept = problem
        shape, d = state.steps.shape, state.steps.ndim
        scan = self.inner._scan(params, inner_batch, state.inner)
        inner = map_state(lambda leaf: leaf.narrow(d, before, batch.t), scan.states)
        steps = torch.arange(batch.t).expand(*shape, -1) + state.steps.unsqueeze(-1)

        def along(leaf: Tensor) -> Tensor:
            return leaf.unsqueeze(d).expand(*shape, batch.t, *leaf.shape[d:])

        if kept is None:
            leaves = [along(leaf) for leaf in state[1:-1]]
        else:
            full = steps >= self.length
            inner = _choose(full, inner, map_state(along, state.inner))
            there = (torch.arange(self.length) < steps.unsqueeze(-1)).unsqueeze(-1)
            context = [leaf.expand(*shape, *leaf.shape[1:]) for leaf in kept[1:4]]
            leaves = [torch.where(there, along(leaf), leaf.new_zeros(())) for leaf in context]
            own = (along(leaf.expand(*shape, -1)) for leaf in (loc, scale))
            start = (self.rule.loc, self.rule.scale)
            leaves += [torch.where(full.unsqueeze(-1), a, b) for a, b in zip(own, start, strict=True)]
        states = ContextState(inner, *leaves, steps)  # type: ignore[call-arg]
        return Scan(states, self._final(batch, state, kept, scan.final))

    # the future -------------------------------------------------------------------------------------------------------

    def _full(self, state: ContextState[Any]) -> bool:
        return bool((state.steps >= self.length).all())

    def _sample(
        self,
        params: Params,
        state: ContextState[Any],
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, Any]:
        if temper is not None or not self._full(state):
            return super()._sample(params, state, length, generator, u, temper)
        z, final = self.inner._sample(params, state.inner, length, generator, u, None)
        x = state.loc.unsqueeze(-2) + state.scale.unsqueeze(-2) * z
        return x, state._replace(inner=final, steps=state.steps + length)

    def _forecast_marginals(
        self, params: Params, state: ContextState[Any], u: Tensor | None, horizon: int
    ) -> Distribution | None:
        law = self.inner._forecast_marginals(params, state.inner, u, horizon) if self._full(state) else None
        if law is None:
            return None
        shape = (*state.loc.shape[:-1], horizon, state.loc.shape[-1])
        return push(law, Affine(*(leaf.unsqueeze(-2).expand(shape) for leaf in (state.loc, state.scale))))

    def _forecast_mean(self, params: Params, state: ContextState[Any], u: Tensor | None, horizon: int) -> Tensor | None:
        means = self.inner._forecast_mean(params, state.inner, u, horizon) if self._full(state) else None
        return None if means is None else state.loc.unsqueeze(-2) + state.scale.unsqueeze(-2) * means

    def _forecast_joint(
        self, params: Params, state: ContextState[Any], u: Tensor | None, horizon: int
    ) -> Distribution | None:
        law = self.inner._forecast_joint(params, state.inner, u, horizon) if self._full(state) else None
        if law is None or not is_normal(law):
            return None
        return push(law, Affine(*(torch.cat([leaf] * horizon, -1) for leaf in (state.loc, state.scale))))


def _first_draw(leaf: Tensor, draws: int) -> Tensor:
    return leaf[(0,) * draws]


def _choose(which: Tensor, new: Any, old: Any) -> Any:
    """Leaves (*draw, n, ...) of one state or of another, ``which`` (*draw, n)."""
    return map_state(
        lambda a, b: torch.where(which.reshape(*which.shape, *(1,) * (a.ndim - which.ndim)), a, b), new, old
    )
