"""Proposals that follow from the model itself."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from probseq.models.latent_laws import DiagonalLaw, FullLaw

__all__ = ["laplace_law"]

_STEPS = 2


def laplace_law(prior: DiagonalLaw, log_likelihood: Callable[[Tensor], Tensor]) -> FullLaw:
    r"""N(m, P^{-1}) with m near argmax_z log p(x | z) + log p(z) and P = diag(sigma)^{-2} + (-H)_+ at m.

    Two of Newton's steps from the prior mean; H is the matrix of second derivatives of log p(x | z), whose part that
    is not concave is left out. Exact where x is a linear function of z with normal noise (Doucet, Godsill and Andrieu
    2000, section II.D).

    Parameters
    ----------
    log_likelihood : from z (..., d) to log p(x | z), (...), each row by itself
    """
    precision = torch.diag_embed(prior.scale.detach() ** -2)
    loc = prior.loc.detach()
    z, d = loc, loc.shape[-1]
    total = precision
    for _ in range(_STEPS):
        with torch.enable_grad():
            at = z.detach().requires_grad_()
            slope = torch.autograd.grad(log_likelihood(at).sum(), at, create_graph=True)[0]
            rows = (
                [
                    torch.autograd.grad(slope[..., i].sum(), at, retain_graph=True, allow_unused=True)[0]
                    for i in range(d)
                ]
                if slope.requires_grad
                else [None] * d
            )
        bend = torch.stack([torch.zeros_like(z) if row is None else row for row in rows], -2).detach()
        values, vectors = torch.linalg.eigh(-0.5 * (bend + bend.mT))
        total = precision + (vectors * values.clamp_min(0.0).unsqueeze(-2)) @ vectors.mT
        pull = slope.detach() + (precision @ (loc - z).unsqueeze(-1)).squeeze(-1)
        z = z + torch.linalg.solve(total, pull.unsqueeze(-1)).squeeze(-1)
    factor = torch.linalg.cholesky(total)
    # total = F F', so that F'^{-1} is upper triangular with the right square; its own QR gives a lower factor.
    inverse = torch.cholesky_inverse(factor)
    return FullLaw(z, torch.linalg.cholesky(inverse))
