"""The emission of many numbers that a few common factors correlate."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq._types import whole_number
from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.emissions.normal import correlated_sums
from probseq.distributions.estimation import EMPTY, flat_rows, pooled_moments, ratio, variance_floor
from probseq.distributions.low_rank import FactorNormal
from probseq.distributions.params import Params, ParamSpec, Positive, Real, Sparse

__all__ = ["LowRankNormal"]

_ROUNDS = 4
_SMALL = 1e-2
_START = 0.3


class LowRankNormal(Emission):
    r"""x ~ N(mean, D + F F'), D = diag(scale^2): many variables that a few common factors correlate.

    The law of factor analysis: x = mean + D^{1/2} e + F z with r standard normal factors z. A density costs O(k r^2)
    instead of the O(k^3) of ``Normal("full")``, and a network gives at most k (r + 2) numbers at a step instead of
    k (k + 3) / 2; as the output of a network in Salinas et al. 2019 (NeurIPS, low-rank Gaussian copula processes).
    Missing coordinates are integrated out exactly.

    F is lower trapezoidal, F_ij = 0 for j > i: any F F' has such a factor, and what is counted is then determined up to
    the signs of the columns.

    Parameters
    ----------
    rank : int
        r; more factors than variables say no more, and as many as variables are used. Parameters: ``mean`` (k,),
        ``scale`` (k,), the standard deviation of what no factor explains, and ``factors`` F (k, r).

    Examples
    --------
    >>> import probseq as ps
    >>> ps.HMM(n_states=2, emission=ps.LowRankNormal(rank=2)).emission
    LowRankNormal(rank=2)
    """

    def __init__(self, rank: int = 1) -> None:
        self.rank = rank

    def check_arguments(self) -> None:
        self._rank()

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        k = observation.n_variables
        state = ("state",) * len(components)
        each = (*components, k)
        r = min(self._rank(), k)
        support = torch.ones(*each, r, dtype=torch.bool).tril()
        return {
            "mean": ParamSpec(each, Real(), (*state, "variable")),
            "scale": ParamSpec(each, Positive(), (*state, "variable")),
            "factors": ParamSpec((*each, r), Sparse(support), (*state, "variable", "factor")),
        }

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        return FactorNormal(loc=params["mean"], scale=params["scale"], factors=params["factors"])

    def initial_outputs(self, observation: Observation) -> Tensor:
        """Loadings of alternating signs: at zero the likelihood has no slope in them."""
        outputs = super().initial_outputs(observation)
        signs = 1.0 - 2.0 * (torch.arange(len(outputs) - 2 * observation.n_variables) % 2)
        outputs[2 * observation.n_variables :] = _START * signs
        return outputs

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        """The factors that fit best beside half of each variable's variance."""
        pooled, r = pooled_moments(x, seen), min(self._rank(), x.shape[-1])
        unit = pooled.variance.sqrt()
        gap = torch.where(seen, (x - pooled.mean) / unit, torch.zeros_like(x)).flatten(0, 1)
        mask = seen.flatten(0, 1).to(x.dtype)
        correlation = (gap.T @ gap) / (mask.T @ mask).clamp_min(1.0)
        own = torch.full_like(unit, 0.5)
        factors = _best_factors(correlation, own, r)
        # Without correlations there are no factors, from which no step would lead away.
        factors = torch.where((factors**2).sum() > _SMALL, factors, _SMALL**0.5 * torch.ones_like(factors))
        return {"mean": pooled.mean, "scale": unit * own.sqrt(), "factors": _trapezoidal(unit.unsqueeze(-1) * factors)}

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """Expected moments given the parameters, and what maximises the likelihood of those (none lowers it).

        Missing coordinates enter through their law at ``params``; the mean is exact given that. Factors and scales are
        maximised in turn (Zhao, Yu and Jiang 2008, Statistics and Computing 18, section 3): F given D from the leading
        eigenvectors of D^{-1/2} S D^{-1/2}, each entry of D given all else in closed form.
        """
        pooled = pooled_moments(x, seen)
        unit, floor = pooled.variance.sqrt(), variance_floor(x, seen) / pooled.variance
        rows, mask, flat = flat_rows(x, seen, weights)
        scale, factors = params["scale"] / unit, params["factors"] / unit.unsqueeze(-1)
        law = FactorNormal(loc=(params["mean"] - pooled.mean) / unit, scale=scale, factors=factors)
        sums = correlated_sums((rows - pooled.mean) / unit, mask, flat, law.loc, law.covariance)
        mean, spread = sums.covariance()
        second = ratio(spread, sums.total[..., None, None])
        own = scale**2
        for _ in range(_ROUNDS):
            factors = _best_factors(second, own, factors.shape[-1])
            own = _best_variances(second, own, factors, floor)
        filled = (sums.total > EMPTY).unsqueeze(-1)
        return {
            "mean": torch.where(filled, pooled.mean + unit * mean, params["mean"]),
            "scale": torch.where(filled, unit * own.sqrt(), params["scale"]),
            "factors": torch.where(filled.unsqueeze(-1), _trapezoidal(unit.unsqueeze(-1) * factors), params["factors"]),
        }

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        """Where some combination of the variables has hardly any variance left."""
        unit = variance_floor(x, seen).sqrt()
        law = FactorNormal(loc=params["mean"], scale=params["scale"], factors=params["factors"])
        smallest = torch.linalg.eigvalsh(law.covariance / (unit.unsqueeze(-1) * unit)).amin(-1)
        return smallest <= 1.001

    def _rank(self) -> int:
        return whole_number("rank", self.rank, 1, "Try 2.")


def _best_factors(second: Tensor, own: Tensor, rank: int) -> Tensor:
    """F (*B, k, r) that maximises the likelihood of second moments S (*B, k, k), given the diagonal of D (*B, k)."""
    root = own.sqrt()
    values, vectors = torch.linalg.eigh(second / (root.unsqueeze(-1) * root.unsqueeze(-2)))
    return root.unsqueeze(-1) * vectors[..., -rank:] * (values[..., -rank:] - 1.0).clamp_min(0.0).sqrt().unsqueeze(-2)


def _best_variances(second: Tensor, own: Tensor, factors: Tensor, floor: Tensor) -> Tensor:
    """The diagonal of D (*B, k), one entry after the other at its maximum given F and the other entries."""
    precision = torch.linalg.inv(factors @ factors.mT + torch.diag_embed(own))
    found = own.clone()
    for i in range(own.shape[-1]):
        column = precision[..., i]
        b = column[..., i]
        # Along D_ii + d the likelihood has one maximum, where 1 + d b = c / b; below the floor it still rises to it.
        c = torch.einsum("...i,...ij,...j->...", column, second, column)
        found[..., i] = torch.maximum(own[..., i] + (c - b) / b**2, floor[i])
        change = found[..., i] - own[..., i]
        shrink = (change / (1.0 + change * b))[..., None, None]
        precision = precision - shrink * column.unsqueeze(-1) * column.unsqueeze(-2)
    return found


def _trapezoidal(factors: Tensor) -> Tensor:
    """The lower trapezoidal matrix with the same F F', diagonal not negative."""
    upper = torch.linalg.qr(factors.mT, mode="r").R
    signs = torch.sign(upper.diagonal(dim1=-2, dim2=-1))
    signs = torch.where(signs == 0, torch.ones_like(signs), signs)
    return (upper.mT * signs.unsqueeze(-2)).tril()
