"""Hidden chains in batched torch, for any device: filter, smoother, expected counts, Viterbi, posterior paths.

Shapes as in `chain` and `varying`: D draws, n sequences padded to t steps, s states, ``lengths`` (n,). ``initial`` is
(D, n or 1, s) = p(z_1); ``transition`` (D, s, s), or (D or 1, n or 1, t, s, s) where [:, :, t] drives the move into
step t; ``log_emission`` (D or 1, n, t, s). With matrices for each step ``begun`` (n,) may say that ``initial`` is
p(z_0) and that the matrix into the first step applies. float64 or float32. Results beyond the length of a sequence are
0 (-1 for states). Exact; no gradients are recorded (`models.chain_likelihood` has them). Probabilities are scaled in
every step, and the sequences where that loses mass are done again in logarithms.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from probseq.kernels.torch_recursions import (
    LIMITS,
    Forward,
    Moves,
    Steps,
    backward_log,
    backward_scaled,
    forward_log,
    forward_scaled,
    steps_between,
)

__all__ = ["Expectations", "Filtered", "Paths", "decode", "expectations", "filter_states", "sample_paths"]

# Steps at a time where only the last state is kept.
_BLOCK = 1024


class Filtered(NamedTuple):
    """p(z_t | x_1:t) and p(z_t | x_<t), both (D, n, t, s); log p(x_t | x_<t) (D, n, t); p(z_T | x_1:T) (D, n, s).

    Probabilities over all steps are empty where only the last was asked for.
    """

    filtered: Tensor
    predicted: Tensor
    log_prob_steps: Tensor
    last: Tensor


class Expectations(NamedTuple):
    """Posterior probabilities of the E-step.

    ``posterior`` p(z_t | x_1:T) (D, n, t, s); ``start`` (D, n, s), the posterior of the state that ``initial``
    describes; ``moves`` the expected transitions: (D, s, s), their sum over all steps and sequences, or with a matrix
    for each step (D, n, t, s, s), p(z_{t-1} = i, z_t = j | x_1:T); ``log_prob`` log p(x_1:T) (D, n).
    """

    posterior: Tensor
    start: Tensor
    moves: Tensor
    log_prob: Tensor


class Paths(NamedTuple):
    """Most probable states (D, n, t) and their log p(x_1:T, z_1:T) (D, n)."""

    states: Tensor
    log_prob: Tensor


@torch.no_grad()
def filter_states(
    initial: Tensor,
    transition: Tensor,
    log_emission: Tensor,
    lengths: Tensor,
    *,
    begun: Tensor | None = None,
    keep: bool = True,
) -> Filtered:
    """Filtered and predicted state probabilities by the forward recursion.

    After an observation that no state can emit (log-likelihood -inf) the filter goes on as if it were unseen.
    """
    problem = _Problem(initial, transition, log_emission, lengths, begun)
    result, lost = problem.filter(False, keep)
    if bool(lost.any()):
        q = lost.any(0).nonzero().squeeze(-1)
        again, _ = problem.sequences(q).filter(True, keep)
        for whole, part in zip(result, again, strict=True):
            where = lost[:, q].reshape(*lost[:, q].shape, *(1,) * (whole.ndim - 2))
            whole[:, q] = torch.where(where, part, whole[:, q])
    empty = (problem.lengths == 0).unsqueeze(-1)
    return result._replace(last=torch.where(empty, initial.expand_as(result.last), result.last))


@torch.no_grad()
def expectations(
    initial: Tensor,
    transition: Tensor,
    log_emission: Tensor,
    lengths: Tensor,
    *,
    begun: Tensor | None = None,
    gain: Tensor | None = None,
) -> Expectations:
    """Posterior marginals and expected transitions by forward-backward.

    With ``gain`` g_t, broadcast to (D, n, t), the results are the derivatives of sum_t g_t log p(x_t | x_<t) in the log
    emissions (``posterior``), the log transition (``moves``) and log initial probabilities (``start``).
    """
    problem = _Problem(initial, transition, log_emission, lengths, begun)
    n_draws, n, t, s = problem.shape
    if t == 0:
        zeros = problem.first.new_zeros
        moves = zeros(transition.shape) if transition.ndim == 3 else zeros(n_draws, n, 0, s, s)
        return Expectations(zeros(n_draws, n, 0, s), zeros(n_draws, n, s), moves, zeros(n_draws, n))
    gain = problem.first.new_ones(()) if gain is None else gain.to(problem.first)
    weight = torch.where(problem.active, gain.expand(n_draws, n, t).movedim(-1, 0), 0.0)
    rise = weight - torch.cat([weight[1:], torch.zeros_like(weight[:1])])
    found = problem.forward(False)
    posterior, after = backward_scaled(problem.moves(False), found, rise)
    kept = ~found.lost.unsqueeze(-1)
    posterior, after = (torch.where(kept, a, 0.0) for a in (posterior, after))
    before = torch.where(kept, found.filtered, 0.0)
    steps = found.steps
    if problem.varying:
        moves = problem.first.new_zeros(n_draws, n, t, s, s)
        pairs = before[:-1].unsqueeze(-1) * after[1:].unsqueeze(-2)
        moves[:, :, 1:] = pairs.movedim(0, 2) * transition[:, :, 1:]
    else:
        flat = (a.movedim(0, 2).reshape(n_draws, n * (t - 1), s) for a in (before[:-1], after[1:]))
        left, right = flat
        moves = (left.mT @ right) * transition
    if bool(found.lost.any()):
        q = found.lost.any(0).nonzero().squeeze(-1)
        each, part, log_steps = _log_expectations(problem.sequences(q), rise[:, :, q], found.lost[:, q])
        posterior[:, :, q] += each
        if problem.varying:
            moves[:, q] += part
        else:
            moves += part
        steps[:, :, q] = torch.where(found.lost[:, q], log_steps, steps[:, :, q])
    posterior = posterior.movedim(0, 2)
    start = problem.first_moves(posterior, moves)
    return Expectations(posterior, start, moves, torch.where(problem.active, steps, 0.0).sum(0))


def _log_expectations(problem: _Problem, rise: Tensor, lost: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Posteriors, moves and steps where ``lost``, else 0."""
    n_draws, n, t, s = problem.shape
    found = problem.forward(True)
    moves = problem.moves(True)
    out = found.filtered.new_zeros((n_draws, n, t, s, s) if problem.varying else (n_draws, s, s))
    posterior = torch.zeros_like(found.filtered)
    # Logarithms hold no signs: a gain that rises somewhere is the difference of two that never do.
    for sign in (1.0, -1.0):
        part = (sign * rise).clamp_min(0.0)
        if sign < 0 and not bool((part > 0).any()):
            continue

        def gather(step: int, pair: Tensor, sign: float = sign) -> None:
            mine = sign * torch.where(lost[..., None, None], pair, 0.0)
            if problem.varying:
                out[:, :, step] += mine
            else:
                out.add_(mine.sum(1))

        posterior += sign * backward_log(moves, found, part, gather)[0]
    return torch.where(lost.unsqueeze(-1), posterior, 0.0), out, found.steps


@torch.no_grad()
def decode(
    initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, *, begun: Tensor | None = None
) -> Paths:
    """Viterbi: argmax over paths of p(z_1:T, x_1:T); the lowest state wins ties; -1 beyond a sequence's end."""
    problem = _Problem(initial, transition, log_emission, lengths, begun)
    n_draws, n, t, s = problem.shape
    moves, score = problem.moves(True), problem.first.log()
    back = torch.empty(t, n_draws, n, s, dtype=torch.int32, device=score.device)
    gained = score.new_zeros(n_draws, n)
    same = torch.arange(s, dtype=torch.int32, device=score.device)
    for begin in range(0, t, _BLOCK):
        end = min(t, begin + _BLOCK)
        block = steps_between(problem.table, problem.lengths, begin, end)
        for i in range(end - begin):
            active = block.active[i].unsqueeze(-1)
            if begin + i > 0:
                ahead, choice = torch.max(score.unsqueeze(-1) + moves.at(begin + i), -2)
                back[begin + i] = torch.where(active, choice.to(torch.int32), same)
                score = torch.where(active, ahead, score)
            # Scores are kept relative to the best so far: their rounding does not grow with the length.
            joint = score + block.shifted[i]
            top = joint.amax(-1, keepdim=True)
            score = torch.where(active & (top > -torch.inf), joint - top, score)
            gained += torch.where(block.active[i], top.squeeze(-1) + block.peak[i], 0.0)
    states = torch.full((t, n_draws, n), -1, dtype=torch.int64, device=score.device)
    if t > 0:
        states[t - 1] = score.argmax(-1)
    for step in range(t - 2, -1, -1):
        states[step] = back[step + 1].gather(-1, states[step + 1].unsqueeze(-1)).squeeze(-1)
    return Paths(torch.where(problem.active, states, -1).movedim(0, -1), gained)


@torch.no_grad()
def sample_paths(
    initial: Tensor,
    transition: Tensor,
    log_emission: Tensor,
    lengths: Tensor,
    uniform: Tensor,
    *,
    begun: Tensor | None = None,
) -> Tensor:
    """Paths from p(z_1:T | x_1:T) by forward filtering, backward sampling; -1 beyond a sequence's end.

    ``uniform`` (D, path, n, t) holds independent uniform numbers in [0, 1); states come back in its shape.
    """
    problem = _Problem(initial, transition, log_emission, lengths, begun)
    t = problem.shape[2]
    found = problem.forward(False)
    filtered = found.filtered.log()
    if bool(found.lost.any()):
        q = found.lost.any(0).nonzero().squeeze(-1)
        again = problem.sequences(q).forward(True).filtered
        filtered[:, :, q] = torch.where(found.lost[:, q].unsqueeze(-1), again, filtered[:, :, q])
    moves = problem.moves(True)
    states = torch.full((t, *uniform.shape[:-1]), -1, dtype=torch.int64, device=filtered.device)
    index = torch.arange(problem.shape[3], device=filtered.device)
    final = (problem.lengths - 1).reshape(1, 1, -1, 1)
    for step in range(t - 1, -1, -1):
        weight = filtered[step].unsqueeze(1)
        if step + 1 < t:
            onward = weight + moves.columns(states[step + 1], step + 1)
            weight = torch.where(step < final, onward, weight)
        mass = (weight - weight.amax(-1, keepdim=True)).exp()
        reached = mass.cumsum(-1)
        goal = uniform[..., step].unsqueeze(-1) * reached[..., -1:]
        # Rounding may carry the goal to the total: never choose a state without mass.
        most = torch.where(mass > 0, index, 0).amax(-1)
        states[step] = torch.minimum((reached <= goal).sum(-1), most)
    return torch.where(problem.active.unsqueeze(2), states, -1).movedim(0, -1)


class _Problem:
    """Checked tensors; ``first`` (D, n, s) is the distribution of the state at the first step."""

    def __init__(
        self, initial: Tensor, transition: Tensor, log_emission: Tensor, lengths: Tensor, begun: Tensor | None
    ) -> None:
        n_draws, n, t, s = initial.shape[0], lengths.shape[0], log_emission.shape[-2], initial.shape[-1]
        self.varying = transition.ndim == 5
        wanted = (n_draws, n, t, s, s) if self.varying else (n_draws, s, s)
        fits = transition.ndim == len(wanted) and all(
            a == b or (a == 1 and self.varying and axis < 2)
            for axis, (a, b) in enumerate(zip(transition.shape, wanted, strict=True))
        )
        if not fits or initial.ndim != 3 or initial.shape[1] not in (1, n) or initial.dtype not in LIMITS:
            raise ValueError(
                f"got initial {tuple(initial.shape)} of {initial.dtype}, transition {tuple(transition.shape)} and {n} "
                f"lengths, expected transition {wanted}, one initial row for each sequence or for all, float64 or "
                "float32; check the shapes."
            )
        if begun is not None and not self.varying and bool(begun.any()):
            raise ValueError("got begun with a constant matrix; give p(z_1) as initial instead.")
        self.shape = (n_draws, n, t, s)
        self.transition, self.table, self.lengths = transition, log_emission, lengths
        self.active = (torch.arange(t, device=lengths.device).unsqueeze(-1) < lengths).unsqueeze(1)
        self.begun = None if begun is None else (begun & (lengths > 0)).unsqueeze(-1)
        self._initial = initial.expand(n_draws, n, s)
        self.first = self._initial
        self._watch: Tensor | None = None
        if self.begun is not None and t > 0:
            moved = (self._initial.unsqueeze(-2) @ transition[:, :, 0]).squeeze(-2)
            self.first = torch.where(self.begun, moved, self.first)

    def sequences(self, q: Tensor) -> _Problem:
        """The problem of the sequences ``q`` alone, from their first step on."""
        moves = self.transition
        if self.varying and moves.shape[1] > 1:
            moves = moves[:, q]
        return _Problem(self.first[:, q], moves, self.table[:, q], self.lengths[q], None)

    def moves(self, logarithmic: bool) -> Moves:
        return Moves(self.transition, logarithmic)

    def forward(self, logarithmic: bool) -> Forward:
        """The forward recursion over all steps."""
        block = steps_between(self.table, self.lengths, 0, self.shape[2])
        return self._forward(logarithmic, None, block, 0)

    def filter(self, logarithmic: bool, keep: bool) -> tuple[Filtered, Tensor]:
        """The filter, and which sequences lost mass (D, n)."""
        n_draws, n, t, s = self.shape
        new = self.first.new_zeros
        filtered, steps = new(n_draws, n, t if keep else 0, s), new(n_draws, n, t)
        predicted, last = torch.zeros_like(filtered), self.first.clone()
        lost = torch.zeros(n_draws, n, dtype=torch.bool, device=last.device)
        mass: Tensor | None = None
        for begin in range(0, t, _BLOCK):
            end = min(t, begin + _BLOCK)
            block = steps_between(self.table, self.lengths, begin, end)
            found = self._forward(logarithmic, mass, block, begin)
            mass, lost = found.filtered[-1], lost | found.lost
            steps[:, :, begin:end] = torch.where(block.active, found.steps, 0.0).movedim(0, -1)
            shown = (a.exp() if logarithmic else a for a in (found.filtered, found.predicted))
            probs, ahead = shown
            at = (self.lengths - 1 - begin).clamp(0, end - begin - 1).reshape(1, 1, -1, 1).expand(1, *last.shape)
            ends = (self.lengths > begin) & (self.lengths <= end)
            last = torch.where(ends.unsqueeze(-1), probs.gather(0, at).squeeze(0), last)
            if keep:
                real = block.active.unsqueeze(-1)
                filtered[:, :, begin:end] = torch.where(real, probs, 0.0).movedim(0, 2)
                predicted[:, :, begin:end] = torch.where(real, ahead, 0.0).movedim(0, 2)
        return Filtered(filtered, predicted, steps, last), lost

    def _forward(self, logarithmic: bool, mass: Tensor | None, block: Steps, begin: int) -> Forward:
        moves = self.moves(logarithmic)
        if logarithmic:
            return forward_log(self.first.log() if mass is None else mass, moves, block, begin)
        start = self.first if mass is None else mass
        if self._watch is None:
            self._watch = moves.watch(self.shape[2])
        return forward_scaled(start, moves, self._watch, block, begin)

    def first_moves(self, posterior: Tensor, moves: Tensor) -> Tensor:
        """Fill ``moves`` into the first step of sequences that have begun; the posterior that ``initial`` describes."""
        start = posterior[:, :, 0]
        if self.begun is None:
            return start.clone()
        share = torch.where(self.first > 0, start / self.first, 0.0)
        both = self._initial.unsqueeze(-1) * self.transition[:, :, 0] * share.unsqueeze(-2)
        both = torch.where(self.begun.unsqueeze(-1), both, 0.0)
        moves[:, :, 0] = both
        return torch.where(self.begun, both.sum(-1), start)
