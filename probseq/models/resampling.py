"""Weighted particles: how many they are worth, and which of them go on."""

from __future__ import annotations

import math
import warnings
from typing import Any

import torch
from torch import Tensor

from probseq.errors import ApproximationWarning
from probseq.models.base import map_state

__all__ = ["by_weight", "effective_size", "normalised", "of_particles", "reduced", "resample", "warn_of_chance"]

_FEW = 0.05


def normalised(log_weights: Tensor) -> Tensor:
    """log W_p with sum_p W_p = 1 over the last dimension; equal where every weight is zero.

    Parameters
    ----------
    log_weights : (..., particle), nats; -inf is a weight of zero
    """
    total = torch.logsumexp(log_weights, -1, keepdim=True)
    even = torch.full_like(log_weights, -math.log(log_weights.shape[-1]))
    return torch.where(total > -torch.inf, log_weights - total, even)


def effective_size(log_weights: Tensor) -> Tensor:
    """1 / sum_p W_p^2, from 1 to the number of particles, (...).

    Parameters
    ----------
    log_weights : (..., particle), nats, up to a constant; -inf is a weight of zero

    References
    ----------
    Kong, Liu and Wong (1994), Journal of the American Statistical Association 89, 278-288.
    """
    weights = normalised(log_weights.double())
    return torch.exp(-torch.logsumexp(2.0 * weights, -1))


def by_weight(log_weights: Tensor, n: int, generator: torch.Generator | None = None) -> Tensor:
    """Numbers of n particles, each drawn by itself by its weight, (*draw, sequence, n).

    Parameters
    ----------
    log_weights : (*draw, sequence, particle), nats, up to a constant
    """
    found = torch.multinomial(log_weights.exp().flatten(0, -2), n, replacement=True, generator=generator)
    return found.reshape(*log_weights.shape[:-1], n)


def of_particles(leaves: Any, chosen: Tensor) -> Any:
    """Particles by number, (*draw, sequence, m), from leaves (*draw, sequence, particle, ...)."""

    def take(leaf: Tensor) -> Tensor:
        rest = leaf.shape[chosen.ndim :]
        at = chosen.reshape(*chosen.shape, *(1,) * len(rest)).expand(*chosen.shape, *rest)
        return leaf.gather(chosen.ndim - 1, at)

    return map_state(take, leaves)


def resample(log_weights: Tensor, generator: torch.Generator | None = None, begin: Tensor | None = None) -> Tensor:
    r"""Systematic resampling: numbers a_1 <= ... <= a_P of the particles that go on, all of weight 1 / P afterwards.

    With U uniform on [0, 1), a_i is the particle whose interval of the cumulated weights holds (i - 1 + U) / P:
    particle p is taken either floor(P W_p) or ceil(P W_p) times, P W_p on average; never where its weight is zero.

    Parameters
    ----------
    log_weights : (..., particle), nats, up to a constant; -inf is a weight of zero
    generator : where U is drawn from, one for each leading index
    begin : (...) float64 or None
        The numbers U themselves, where they are known.

    Returns
    -------
    (..., particle) int64

    References
    ----------
    Kitagawa (1996), Journal of Computational and Graphical Statistics 5, 1-25; Douc, Cappe and Moulines (2005),
    section 3.3.
    """
    weights = normalised(log_weights.detach().double()).exp()
    n = weights.shape[-1]
    if begin is None:
        home = weights.device if generator is None else generator.device
        begin = torch.rand(*weights.shape[:-1], generator=generator, dtype=torch.float64, device=home)
    places = (torch.arange(n, device=weights.device) + begin.to(weights.device).unsqueeze(-1)) / n
    # Rounding may leave the last place beyond the sum: it belongs to the last particle that has any weight.
    last = n - 1 - (weights.flip(-1) > 0).long().argmax(-1, keepdim=True)
    return torch.minimum(torch.searchsorted(weights.cumsum(-1), places, right=True), last)


def reduced(log_weights: Tensor, n: int, uniform: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    r"""The optimal choice of n of M different particles: none is taken twice, and no weight changes on average.

    With c such that sum_p min(W_p / c, 1) = n, particles of weight above c keep it; of the others p goes on with
    probability W_p / c, systematically, and then has the weight c. Where at most n weigh anything all of these go on.
    Every stretch of the order that particles come in has as many drawn as it should, to the next whole number: those
    that are alike are best next to each other. Those that go on stay in this order, and come before empty places.

    Parameters
    ----------
    log_weights : (..., M), nats, normalised over M >= n
    n : int
    uniform : number on [0, 1), or (...,)

    Returns
    -------
    chosen : (..., n) int64
    log_weights : (..., n), normalised
    drawn : (..., n) bool, which of them went on by chance

    References
    ----------
    Fearnhead and Clifford (2003), On-line inference for hidden Markov models via particle filters, J. Royal Statistical
    Society B 65, 887-899, section 4.
    """
    ordered, order = log_weights.sort(dim=-1, descending=True, stable=True)
    weights = ordered.detach().double().exp()
    # What is left behind the m largest, over the number of places that they leave, for m = 0 .. n - 1.
    tail = weights.flip(-1).cumsum(-1).flip(-1)[..., :n]
    level = tail / torch.arange(n, 0, -1, device=weights.device)
    small = weights[..., :n] < level
    m = torch.where(small.any(-1), small.long().argmax(-1), n).unsqueeze(-1)
    place = torch.arange(weights.shape[-1], device=weights.device)
    kept = place < m
    c = level.gather(-1, m.clamp_max(n - 1))
    # Back in the order of the particles, along which chance is systematic.
    rank = torch.argsort(order, dim=-1)
    kept, ordered, weights = (one.gather(-1, rank) for one in (kept, ordered, weights))
    start = torch.as_tensor(uniform, dtype=torch.float64, device=weights.device).unsqueeze(-1)
    along = torch.ceil(torch.where(kept, 0.0, weights).cumsum(-1) / c.clamp_min(1e-300) - start)
    taken = torch.diff(along, dim=-1, prepend=torch.zeros_like(along[..., :1])) > 0
    goes_on = torch.where(small.any(-1, keepdim=True), kept | taken, (rank < n) & (ordered > -torch.inf))
    best = torch.argsort(goes_on.long(), dim=-1, descending=True, stable=True)[..., :n]
    # The level as a function of the weights, for gradients.
    left = torch.where(kept, -1e300, ordered).logsumexp(-1, keepdim=True) - torch.log((n - m).clamp_min(1))
    stays = kept.gather(-1, best)
    new = torch.where(stays, ordered.gather(-1, best), left.to(ordered.dtype))
    new = torch.where(goes_on.gather(-1, best), new, -torch.inf)
    return best, normalised(new), ~stays & small.any(-1, keepdim=True)


def warn_of_chance(errors: Tensor, n_particles: int) -> None:
    """Warn where an estimate is as uncertain as that of less than one in twenty of its particles, drawn independently.

    The number is 1 / error^2. Weights that differ say nothing of it where particles are chosen by `reduced`: one of
    them carries all weight also where the others are known to be wrong.

    Parameters
    ----------
    errors : (*draw, n, t), standard errors of log p(x_t | x_<t)
    n_particles : int
    """
    few = errors.square() * (_FEW * n_particles) > 1.0
    if not bool(few.any()):
        return
    worst = errors.max()
    *_, sequence, step = (int(i) for i in (errors == worst).nonzero()[0])
    warnings.warn(
        f"Of {n_particles} particles {float(worst) ** -2:.1f} tell of step {step} of sequence {sequence}, and less "
        f"than one in twenty of {int(few.sum())} step(s): particles that went on by chance explain the values, and the "
        "likelihood is uncertain there. Take a larger n_particles.",
        ApproximationWarning,
        stacklevel=2,
    )
