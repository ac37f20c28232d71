"""Linear-Gaussian models whose states are driven by covariates."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.gaussian import DiagonalNormal, FullNormal
from probseq.distributions.params import Params
from probseq.models.base import Batch, Scan, Steps
from probseq.models.linear_gaussian import LinearGaussianModel, SmoothedStates, real_steps
from probseq.models.linear_gaussian_state import GaussianState

__all__ = ["DrivenLinearGaussian"]


class DrivenLinearGaussian(LinearGaussianModel):
    """s_(t+1) = T s_t + c + G u_(t+1) + eta_t beside what a ``LinearGaussianModel`` is.

    The covariates of a sequence's first step do not drive its state. What they add to states and values is a known
    linear recursion, which is taken off before the filter and put back behind it; gradients flow through it.
    """

    @abstractmethod
    def drive(self, params: Params) -> Tensor | None:
        """G (*draw, r, m), which may lack the draw dimensions where it is constant; None for zero."""

    def _driven(
        self, params: Params, u: Tensor | None, age: Tensor, lengths: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """What u (n, t, m) adds to the states of its steps, (*draw, n, t, r), and to those after them, (*draw, n, r).

        Steps before the start of ``u`` are part of a state, whose next step is the one that ``age`` (*draw, n) counts.
        """
        drive = self.drive(params)
        if drive is None or u is None:
            return None
        turn = self._space(params).transition.mT
        pushes = u.to(self.dtype) @ drive.mT.unsqueeze(-3)
        added = torch.zeros(*age.shape, drive.shape[-2], dtype=self.dtype)
        rows = []
        for t in range(u.shape[-2]):
            here = added + torch.where((age + t > 0).unsqueeze(-1), pushes[..., t, :], 0.0)
            rows.append(here)
            moved = here @ turn
            added = moved if lengths is None else torch.where((t < lengths).unsqueeze(-1), moved, added)
        return torch.stack(rows, -2) if rows else added.unsqueeze(-2)[..., :0, :], added

    def _seen_through(self, params: Params, states: Tensor) -> Tensor:
        """Z s of states (*draw, n, t, r), (*draw, n, t, k)."""
        return states @ self._space(params).design.mT.unsqueeze(-3)

    def _pushed(self, params: Params, state: GaussianState, u: Tensor | None) -> GaussianState:
        """The state of the next step once its covariates u (n, m) are known."""
        added = self._driven(params, None if u is None else u.unsqueeze(-2), state.age)
        return state if added is None else state._replace(mean=state.mean + added[0].squeeze(-2))

    # the law ----------------------------------------------------------------------------------------------------------

    def predict_next(self, params: Params, state: GaussianState, u: Tensor | None = None) -> Distribution:
        return super().predict_next(params, self._pushed(params, state, u), u)

    def update(
        self, params: Params, state: GaussianState, x: Tensor, seen: Tensor, u: Tensor | None = None
    ) -> GaussianState:
        return super().update(params, self._pushed(params, state, u), x, seen, u)

    def _centred(self, params: Params, batch: Batch, state: GaussianState) -> Tensor:
        plain = super()._centred(params, batch, state)
        added = self._driven(params, batch.u, state.age, batch.lengths)
        if added is None:
            return plain
        own = torch.where(real_steps(batch), self._seen_through(params, added[0]), 0.0)
        return plain - own.reshape(plain.shape)

    def _scan(self, params: Params, batch: Batch, state: GaussianState) -> Scan[GaussianState]:
        scan = super()._scan(params, batch, state)
        added = self._driven(params, batch.u, state.age, batch.lengths)
        if added is None:
            return scan
        turned = added[0] @ self._space(params).transition.mT.unsqueeze(-3)
        before = torch.cat([torch.zeros_like(turned[..., :1, :]), turned[..., :-1, :]], -2)
        step = torch.arange(batch.t) < batch.lengths.unsqueeze(-1)
        # Steps behind the end of a sequence hold its last state.
        before = torch.where(step.unsqueeze(-1), before, added[1].unsqueeze(-2))
        return Scan(_moved(scan.states, before), _moved(scan.final, added[1]))

    def _log_prob_steps(self, params: Params, batch: Batch, state: GaussianState) -> Steps[GaussianState]:
        steps = super()._log_prob_steps(params, batch, state)
        added = self._driven(params, batch.u, state.age, batch.lengths)
        return steps if added is None else steps._replace(final=_moved(steps.final, added[1].detach()))

    def smooth(self, params: Params, batch: Batch, state: GaussianState | None = None) -> SmoothedStates:
        start = self.initial_state(params, batch.n) if state is None else state
        found = super().smooth(params, batch, start)
        added = self._driven(params, batch.u, start.age, batch.lengths)
        if added is None:
            return found
        own = torch.where(real_steps(batch), added[0].detach(), 0.0)
        seen = self._seen_through(params, own).detach()
        return found._replace(mean=found.mean + own, x=found.x + seen, signal=found.signal + seen)

    # the future -------------------------------------------------------------------------------------------------------

    def _forecast_marginals(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> Distribution | None:
        law = super()._forecast_marginals(params, state, u, horizon)
        added = self._driven(params, u, state.age)
        if law is None or added is None:
            return law
        loc = law.mean + self._seen_through(params, added[0])
        if isinstance(law, FullNormal):
            return FullNormal(loc=loc, scale_tril=law.scale_tril)
        return DiagonalNormal(loc=loc, scale=law.variance.sqrt())

    def _forecast_joint(
        self, params: Params, state: GaussianState, u: Tensor | None, horizon: int
    ) -> FullNormal | None:
        law = super()._forecast_joint(params, state, u, horizon)
        added = self._driven(params, u, state.age)
        if law is None or added is None:
            return law
        loc = law.loc + self._seen_through(params, added[0]).flatten(-2)
        return FullNormal(loc=loc, scale_tril=law.scale_tril)

    def _sample(
        self,
        params: Params,
        state: GaussianState,
        length: int,
        generator: torch.Generator | None,
        u: Tensor | None,
        temper: Callable[[Distribution], Distribution] | None,
    ) -> tuple[Tensor, GaussianState]:
        x, final = super()._sample(params, state, length, generator, u, temper)
        added = (
            None if temper is not None else self._driven(params, u, state.age)
        )  # step by step they are pushed already
        if added is None:
            return x, final
        return x + self._seen_through(params, added[0]), _moved(final, added[1])


def _moved(state: GaussianState, by: Tensor) -> GaussianState:
    return state._replace(mean=state.mean + by)
