"""The law of the coordinates that were not seen, given those that were."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq.distributions.base import Distribution, ProductDistribution
from probseq.distributions.blend import SideBySide
from probseq.distributions.compose import Mixture, Pushforward
from probseq.distributions.gaussian import FullNormal, lower_factor
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.product import IndependentParts
from probseq.errors import UnsupportedError

__all__ = ["given"]


def given(law: Distribution, value: Tensor, seen: Tensor) -> Distribution:
    r"""p(x_unseen | x_seen = value_seen), exact.

    Parameters
    ----------
    law : batch shape (*B)
    value : broadcasts to (*B, k), finite everywhere
    seen : broadcasts to (*B, k), bool

    Returns
    -------
    A law of all k coordinates with batch shape (*B). What it says of coordinates that were seen has no meaning.

    Raises
    ------
    UnsupportedError
        For a law whose coordinates depend on each other in a way not known here, where some but not all are seen.
    """
    shape = (*law.batch_shape, law.n_variables)
    value, seen = value.expand(shape), seen.expand(shape)
    if isinstance(law, ProductDistribution) or not bool((seen.any(-1) & ~seen.all(-1)).any()):
        return law
    if isinstance(law, IndependentParts):
        return law.map_parts(lambda part, own: given(part, value[..., own], seen[..., own]))
    if isinstance(law, Mixture):
        value, seen = value.unsqueeze(-2), seen.unsqueeze(-2)
        log_weights = law.log_weights + law.components.log_prob_seen(value, seen)
        return Mixture(torch.log_softmax(log_weights, -1), given(law.components, value, seen))
    if isinstance(law, SideBySide):
        parts = enumerate(law.laws)
        return SideBySide([given(one, value[..., m, :], seen[..., m, :]) for m, one in parts])
    if isinstance(law, Pushforward):
        safe = torch.where(seen, value, law.bijection.forward(torch.zeros_like(value)))
        return Pushforward(given(law.base, law.bijection.inverse(safe), seen), law.bijection)
    if isinstance(law, FactorNormal):
        return law.given(value, seen)
    if isinstance(law, FullNormal):
        return _normal_given(law, value, seen)
    raise UnsupportedError(
        got=f"some coordinates of a {type(law).__name__} given others",
        expected="independent coordinates, correlated normals or mixtures of them",
        remedy="Leave all coordinates of a step out, or none.",
    )


def _normal_given(law: FullNormal, value: Tensor, seen: Tensor) -> FullNormal:
    """mu_u + S_us S_ss^-1 (x_s - mu_s) and S_uu - S_us S_ss^-1 S_su; unit variance where seen."""
    covariance = law.covariance
    m = seen.to(covariance.dtype)
    both = m.unsqueeze(-1) * m.unsqueeze(-2)
    cross = covariance * ((1 - m).unsqueeze(-1) * m.unsqueeze(-2))
    inner = torch.linalg.cholesky(covariance * both + torch.diag_embed(1 - m))
    residual = torch.where(seen, value - law.loc, torch.zeros_like(law.loc))
    loc = law.loc + (cross @ torch.cholesky_solve(residual.unsqueeze(-1), inner)).squeeze(-1)
    rest = (1 - m).unsqueeze(-1) * (1 - m).unsqueeze(-2) * covariance
    rest = rest - cross @ torch.cholesky_solve(cross.mT, inner)
    return FullNormal(loc=loc, scale_tril=lower_factor(rest + torch.diag_embed(m)))
