"""Proposals that follow from the model itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probseq.models.latent_laws import DiagonalLaw, FullLaw

__all__ = ["laplace_law"]

_STEPS = 2
# Fractions of one of Newton's steps that are tried where all of it leads down.
_SHARES = (0.25, 0.0625, 0.0)
_ALIKE = 1e-3


def laplace_law(prior: DiagonalLaw, log_likelihood: Callable[[Tensor], Tensor]) -> FullLaw:
    r"""N(m, P^{-1}) with m near argmax_z log p(x | z) + log p(z) and P = diag(sigma)^{-2} + (-H)_+.

    Two of Newton's steps from the prior mean, shortened where they would lead down; H is the matrix of second
    derivatives of log p(x | z) where the last step begins, whose part that is not concave is left out. Exact where x is
    a linear function of z with normal noise (Doucet, Godsill and Andrieu 2000, section II.D). Without gradients.

    Parameters
    ----------
    log_likelihood : from z (..., d) to log p(x | z), (...), each row by itself
    """
    spread, z = prior.scale.detach() ** -2, prior.loc.detach()
    loc, precision = z, torch.diag_embed(spread)

    def height(z: Tensor) -> Tensor:
        with torch.no_grad():
            return log_likelihood(z) - 0.5 * ((z - loc).square() * spread).sum(-1)

    total = precision
    for _ in range(_STEPS):
        slope, bend = _derivatives(z, log_likelihood)
        values, vectors = torch.linalg.eigh(-0.5 * (bend + bend.mT))
        total = precision + (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
        pull = slope + (loc - z) * spread
        z = _climbed(z, torch.linalg.solve(total, pull.unsqueeze(-1)).squeeze(-1), height)
    # total^-1 = L L' is what draws are made with.
    return FullLaw(z, torch.linalg.cholesky(torch.cholesky_inverse(torch.linalg.cholesky(total))))


def _derivatives(z: Tensor, log_likelihood: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """First (..., d) and second (..., d, d) derivatives; zero where they overflow."""
    with torch.enable_grad():
        at = z.detach().requires_grad_()
        slope = torch.autograd.grad(log_likelihood(at).sum(), at, create_graph=True)[0]
        rows: list[Tensor | None] = [None] * z.shape[-1]
        if slope.requires_grad:
            parts = [slope[..., i].sum() for i in range(z.shape[-1])]
            rows = [torch.autograd.grad(part, at, retain_graph=True, allow_unused=True)[0] for part in parts]
    bend = torch.stack([torch.zeros_like(z) if row is None else row for row in rows], -2).detach()
    slope = slope.detach()
    usable = bend.isfinite().all(-1).all(-1) & slope.isfinite().all(-1)
    return torch.where(usable[..., None], slope, 0.0), torch.where(usable[..., None, None], bend, 0.0)


def _climbed(z: Tensor, step: Tensor, height: Callable[[Tensor], Tensor]) -> Tensor:
    """z + step, or as much of the step as does not lead down."""
    before, found = height(z) - _ALIKE, z + step
    down = ~(height(found) >= before)
    for share in _SHARES:
        if not bool(down.any()):
            break
        found = torch.where(down.unsqueeze(-1), z + share * step, found)
        down = down & ~(height(found) >= before)
    return found
