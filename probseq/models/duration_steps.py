"""M-steps of the transitions and durations of a semi-Markov chain."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probseq.distributions.durations import Duration, FreeDuration, log
from probseq.distributions.params import Params, Positive

__all__ = ["update_durations", "update_jumps"]

_EMPTY = 1e-12
_ASCENTS = 4
_NEWTONS = 4
_LONGEST = 2.0
_HALVINGS = 12
_MOST_LOSS = 0.95

Objective = Callable[[Tensor], Tensor]


def update_jumps(counts: Tensor, previous: Tensor, closed: Tensor, free: Tensor, start: Objective) -> Tensor:
    """Transition probabilities (D, s, s) that raise sum_ij N_ij log A_ij + ``start(A)`` (D,); never downwards.

    Parameters
    ----------
    counts : (D, s, s), expected transitions N
    previous, closed : what to start from; ``closed`` is the maximum without ``start``
    free : (s, s) bool, the entries that may change
    start : log probability of the first states, which depends on the long run of the chain
    """
    if not bool((free.sum(-1) > 1).any()):
        return previous

    def objective(transition: Tensor) -> Tensor:
        return weighted(counts, log(transition)).sum((-2, -1)) + start(transition)

    return _climb(objective, previous, closed, counts.sum(-1, keepdim=True) + 1.0, free)


def update_durations(
    duration: Duration,
    leaves: Tensor,
    stays: Tensor,
    params: Params,
    start: Callable[[Params], Tensor] | None,
    coupled: bool = False,
) -> dict[str, Tensor]:
    r"""Parameters that raise sum_jd L_jd log h_j(d) + S_jd log(1 - h_j(d)), plus ``start(params)`` (D, s) if given.

    Segments cut by the end of the data have no L, only S: right censoring needs nothing more. For free durations the
    maximum is h_j(d) = L_jd / (L_jd + S_jd), the estimate of Kaplan and Meier (1958); other laws take Newton steps,
    none of which lowers the sum.

    Parameters
    ----------
    leaves, stays : (D, s, w), expected numbers of times that a state was left, or kept, at each elapsed duration
    params : parameters of the durations, (D, s, ...)
    start : log probability of the first states and elapsed durations, where these depend on the durations
    coupled : whether ``start`` of a state depends on the durations of others
    """
    specs = duration.parameters(leaves.shape[-2])
    old = {name: params[name] for name in specs}

    def objective(given: Params) -> Tensor:
        tables = duration.tables(given)
        value = (weighted(leaves, tables.leave) + weighted(stays, tables.stay)).sum(-1)
        return value if start is None else value + start(given)

    if isinstance(duration, FreeDuration):
        exposed = leaves + stays
        before = duration.tables(old).leave.exp()
        closed = duration.from_hazards(torch.where(exposed > _EMPTY, leaves / exposed.clamp_min(_EMPTY), before))
        if start is None:
            return closed
        (name,) = specs
        free = torch.ones_like(old[name][0], dtype=torch.bool)
        segments = leaves.sum(-1, keepdim=True) + 1.0
        climbed = _climb(lambda probs: objective({name: probs}).sum(-1), old[name], closed[name], segments, free)
        return {name: climbed}
    lows = {name: spec.constraint.low for name, spec in specs.items() if isinstance(spec.constraint, Positive)}
    joined = (*leaves.shape[:1], -1) if coupled else (*leaves.shape[:2], -1)

    def spread(z: Tensor) -> dict[str, Tensor]:
        each = z.reshape(*leaves.shape[:2], -1)
        return {name: low + each[..., i].exp() for i, (name, low) in enumerate(lows.items())}

    def value(z: Tensor) -> Tensor:
        found = objective(spread(z))
        return found.sum(-1) if coupled else found

    z = torch.stack([(old[name] - low).clamp_min(1e-300).log() for name, low in lows.items()], -1).reshape(joined)
    better, moved = _newton(value, z)
    new = spread(better)
    # What does not move keeps its digits.
    kept = moved.unsqueeze(-1).expand(leaves.shape[:2]) if coupled else moved
    return {name: torch.where(kept, new[name], old[name]) for name in specs}


def weighted(weights: Tensor, logs: Tensor) -> Tensor:
    """weights * logs, 0 where nothing is weighed, however impossible."""
    return torch.where(weights > 0, weights * torch.where(weights > 0, logs, torch.zeros_like(logs)), 0.0)


def _newton(objective: Objective, z: Tensor) -> tuple[Tensor, Tensor]:
    """Newton steps on f_b(z_b), uphill also where f is not concave; the result, and which b moved at all.

    ``objective`` takes (*B, m) to (*B,). Coordinates are logarithms and stay inside +-12.
    """
    size = z.shape[-1]
    moved = torch.zeros(z.shape[:-1], dtype=torch.bool)
    for _ in range(_NEWTONS):
        with torch.enable_grad():
            leaf = z.detach().requires_grad_(True)
            f = objective(leaf)
            (slope,) = torch.autograd.grad(f.sum(), leaf, create_graph=True)
            rows = [torch.autograd.grad(slope[..., i].sum(), leaf, retain_graph=True)[0] for i in range(size)]
        f, slope = _finite(f), torch.nan_to_num(slope.detach(), 0.0, 0.0, 0.0)
        bend = torch.nan_to_num(torch.stack(rows, -2), 0.0, 0.0, 0.0)
        values, vectors = torch.linalg.eigh(0.5 * (bend + bend.mT))
        along = (vectors.mT @ slope.unsqueeze(-1)).squeeze(-1)
        steps = along / values.abs().clamp_min(1e-6 * (1.0 + along.abs()))
        direction = (vectors @ steps.unsqueeze(-1)).squeeze(-1)
        direction = direction * (_LONGEST / direction.norm(dim=-1, keepdim=True).clamp_min(_LONGEST))
        wanted = (slope * direction).sum(-1) > 1e-11 * (1.0 + f.abs())
        length = torch.ones_like(f)
        done = ~wanted
        for _ in range(_HALVINGS):
            if bool(done.all()):
                break
            trial = (z + length.unsqueeze(-1) * direction).clamp(-12.0, 12.0)
            with torch.no_grad():
                risen = ~done & (_finite(objective(trial)) > f)
            z = torch.where(risen.unsqueeze(-1), trial, z)
            moved |= risen
            done |= risen
            length = torch.where(done, length, 0.5 * length)
        if not bool(wanted.any()):
            break
    return z.detach(), moved


def _climb(objective: Objective, previous: Tensor, closed: Tensor, size: Tensor, free: Tensor) -> Tensor:
    """Natural-gradient steps over rows of probabilities (D, ..., m) from the better of two points; never downwards.

    ``size`` (D, ..., 1) is the number of observations behind each row, ``free`` the entries that may change.
    """
    here, value = previous, _finite(objective(previous))
    other = _finite(objective(closed))
    better = other > value
    here = torch.where(_lift(better, here), closed, here)
    value = torch.where(better, other, value)
    for _ in range(_ASCENTS):
        with torch.enable_grad():
            leaf = here.detach().requires_grad_(True)
            (slope,) = torch.autograd.grad(objective(leaf).sum(), leaf)
        slope = torch.nan_to_num(slope, 0.0, 0.0, 0.0)
        movable = here * free
        share = movable / movable.sum(-1, keepdim=True).clamp_min(_EMPTY)
        growth = (slope - (share * slope).sum(-1, keepdim=True)) / size
        # No probability loses more than nearly all; a monotone map of the growth rates still points uphill.
        growth = growth.clamp_min(-_MOST_LOSS)
        centred = movable * (growth - (share * growth).sum(-1, keepdim=True))
        # In each row the longest step that keeps its probabilities above zero, and no longer than one: a row with a
        # probability near zero must not hold up the others.
        shrink = torch.where(centred < 0, -here / centred.clamp_max(-1e-300), torch.inf)
        centred = centred * (_MOST_LOSS * shrink.amin(-1, keepdim=True)).clamp_max(1.0)
        length = torch.ones_like(value)
        moved = torch.zeros_like(better)
        for _ in range(_HALVINGS):
            trial = here + _lift(length, here) * centred
            new = _finite(objective(trial))
            risen = ~moved & (new > value)
            here = torch.where(_lift(risen, here), trial, here)
            value = torch.where(risen, new, value)
            moved |= risen
            length = torch.where(moved, torch.zeros_like(length), 0.5 * length)
            if bool(moved.all()):
                break
        if not bool(moved.any()):
            break
    return here


def _lift(flags: Tensor, like: Tensor) -> Tensor:
    return flags.reshape(-1, *(1,) * (like.ndim - 1))


def _finite(values: Tensor) -> Tensor:
    return torch.nan_to_num(values.detach(), nan=-torch.inf, neginf=-torch.inf)
