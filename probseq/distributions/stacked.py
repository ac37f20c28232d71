"""Laws of several steps stacked into one event, step after step: their single steps and their linear images."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.base import Distribution
from probseq.distributions.bijections import Affine
from probseq.distributions.compose import Mixture
from probseq.distributions.gaussian import DiagonalNormal, FullNormal, lower_factor
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.pushforward import Pushforward
from probseq.errors import UnsupportedError

__all__ = ["is_normal", "is_stacked", "linear_image", "single_steps"]

_NORMALS = (FullNormal, DiagonalNormal, FactorNormal)


def is_normal(law: Distribution) -> bool:
    """Whether a law is a correlated normal or a mixture of such, so that its linear images are known."""
    return isinstance(law.components if isinstance(law, Mixture) else law, _NORMALS)


def is_stacked(law: Distribution) -> bool:
    """Whether `single_steps` knows what to do: correlated normals, maps of them, mixtures of either."""
    if isinstance(law, Mixture):
        return is_stacked(law.components)
    return is_stacked(law.base) if isinstance(law, Pushforward) else isinstance(law, _NORMALS)


def single_steps(law: Distribution, n_variables: int) -> Distribution:
    """The law of each step by itself.

    Parameters
    ----------
    law : correlated normals, maps of them, or mixtures of either; batch shape (*B), event (h * k,), step-major
    n_variables : k

    Returns
    -------
    A law with batch shape (*B, h) and event shape (k,).

    Raises
    ------
    UnsupportedError
        For any other kind of law.
    """
    h = law.n_variables // n_variables
    if isinstance(law, Mixture):
        weights = law.log_weights.unsqueeze(-2).expand(*law.batch_shape, h, law.log_weights.shape[-1])
        return Mixture(weights, single_steps(law.components, n_variables).movedim(-1, -2))
    if isinstance(law, Pushforward):
        bijection = law.bijection
        if isinstance(bijection, Affine):
            bijection = Affine(*(t.unflatten(-1, (h, n_variables)) for t in (bijection.loc, bijection.scale)))
        return Pushforward(single_steps(law.base, n_variables), bijection)
    normal = _normal(law)
    loc = normal.loc.unflatten(-1, (h, n_variables))
    if n_variables == 1:
        return DiagonalNormal(loc=loc, scale=normal.variance.sqrt().unsqueeze(-1))
    rows = normal.scale_tril.unflatten(-2, (h, n_variables))
    return FullNormal(loc=loc, scale_tril=lower_factor(rows @ rows.mT))


def linear_image(law: Distribution, matrix: Tensor, shift: Tensor, settled: Tensor | None = None) -> Distribution:
    r"""The law of A x + b: N(A mu + b, A S A').

    Parameters
    ----------
    law : a correlated normal or a mixture of such, batch shape (*B), event (m,)
    matrix : A, (*B, l, m) or (l, m)
    shift : b, (*B, l) or (l,)
    settled : (*B, l) bool or None
        Rows of A that are zero: they are given unit variance, since no variance has no density.

    Returns
    -------
    Of the same kind, event (l,).

    Raises
    ------
    UnsupportedError
        For any other kind of law.
    """
    if isinstance(law, Mixture):
        a = matrix.unsqueeze(-3) if matrix.ndim > 2 else matrix
        b = shift.unsqueeze(-2) if shift.ndim > 1 else shift
        zero = None if settled is None else settled.unsqueeze(-2)
        return Mixture(law.log_weights, linear_image(law.components, a, b, zero))
    normal = _normal(law)
    loc = (matrix @ normal.loc.unsqueeze(-1)).squeeze(-1) + shift
    rows = matrix @ normal.scale_tril
    if settled is None and _keeps_factors(matrix):
        return FullNormal(loc=loc, scale_tril=rows)
    covariance = rows @ rows.mT
    if settled is not None:
        covariance = covariance + torch.diag_embed(settled.to(covariance.dtype))
    return FullNormal(loc=loc, scale_tril=lower_factor(covariance))


def _keeps_factors(matrix: Tensor) -> bool:
    """Square and lower triangular with a positive diagonal: it turns one Cholesky factor into another."""
    square = matrix.shape[-2] == matrix.shape[-1]
    return square and bool((matrix.triu(1) == 0).all()) and bool((matrix.diagonal(dim1=-2, dim2=-1) > 0).all())


def _normal(law: Distribution) -> FullNormal:
    if isinstance(law, FullNormal):
        return law
    if isinstance(law, DiagonalNormal):
        return FullNormal(loc=law.loc, scale_tril=torch.diag_embed(law.scale))
    if isinstance(law, FactorNormal):
        return law.full()
    raise UnsupportedError(
        got=f"a {type(law).__name__} over several steps",
        expected="a correlated normal, a map of one, or a mixture of such",
        remedy="Use simulated paths.",
    )
