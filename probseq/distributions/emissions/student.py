"""The Student t emission and its M-step."""

from __future__ import annotations

import torch
from torch import Tensor

from probseq._types import positive_number
from probseq.distributions.base import Distribution
from probseq.distributions.emissions.base import Emission, Observation
from probseq.distributions.emissions.normal import Normal
from probseq.distributions.estimation import (
    EMPTY,
    flat_rows,
    pooled_moments,
    ratio,
    variance_floor,
    weighted_chunks,
)
from probseq.distributions.gaussian import DiagonalStudentT
from probseq.distributions.params import Params, ParamSpec, Positive, Real
from probseq.distributions.special import log_half_step

__all__ = ["StudentT"]

_START_DF = 10.0
_MAX_DF = 1e3


class StudentT(Emission):
    r"""x_i ~ t(df_i, loc_i, scale_i), independent over the variables: a normal with heavy tails.

    Parameters
    ----------
    df : float or None
        Degrees of freedom held fixed; None estimates them (above 1, so that a mean exists).

    Examples
    --------
    >>> import probseq as ps
    >>> x = [0.1, -0.4, 0.3, 0.2, -0.1, 25.0]
    >>> for law in (ps.Normal(), ps.StudentT()):
    ...     print(type(law).__name__, round(float(ps.IID(law).fit(x).forecast(1).median().squeeze()), 1))
    Normal 4.2
    StudentT 0.1
    """

    def __init__(self, df: float | None = None) -> None:
        self.df = df

    def check_arguments(self) -> None:
        if self.df is not None:
            positive_number("df", self.df, "None estimates it; Normal() is the limit of many degrees of freedom.")

    def parameters(self, observation: Observation, components: tuple[int, ...] = ()) -> dict[str, ParamSpec]:
        shape = (*components, observation.n_variables)
        dims = ("state",) * len(components) + ("variable",)
        self.check_arguments()
        specs = {"loc": ParamSpec(shape, Real(), dims), "scale": ParamSpec(shape, Positive(), dims)}
        if self.df is None:
            specs["df"] = ParamSpec(shape, Positive(low=1.0), dims)
        return specs

    def distribution(self, params: Params, components: tuple[int, ...] = ()) -> Distribution:
        loc = params["loc"]
        df = params["df"] if self.df is None else torch.full_like(loc, float(self.df))
        return DiagonalStudentT(df=df, loc=loc, scale=params["scale"])

    def pooled_params(self, observation: Observation, x: Tensor, seen: Tensor) -> dict[str, Tensor]:
        pooled = pooled_moments(x, seen)
        start = {"loc": pooled.mean, "scale": pooled.variance.sqrt()}
        if self.df is None:
            start["df"] = torch.full_like(pooled.mean, _START_DF)
        return start

    def initial_params(
        self, observation: Observation, x: Tensor, seen: Tensor, responsibilities: Tensor, components: tuple[int, ...]
    ) -> dict[str, Tensor]:
        normal = Normal().initial_params(observation, x, seen, responsibilities, components)
        start = {"loc": normal["mean"], "scale": normal["scale"]}
        if self.df is None:
            start["df"] = torch.full_like(start["loc"], _START_DF)
        return start

    def m_step(
        self, observation: Observation, x: Tensor, seen: Tensor, weights: Tensor, params: Params
    ) -> dict[str, Tensor]:
        """ECME: x given its latent precision u is normal, E[u] = (df + 1) / (df + z^2); then df on the likelihood.

        Liu and Rubin (1995), ML estimation of the t distribution using EM and its extensions, equation 2 and section 3.
        """
        return self.climb(x, seen, weights, params)

    def climb(
        self, x: Tensor, seen: Tensor, weights: Tensor, params: Params, common_df: bool = False
    ) -> dict[str, Tensor]:
        """The M-step; with ``common_df`` the degrees of freedom, equal in all states (D, s, k), stay equal."""
        floor = variance_floor(x, seen)
        rows, seen, weights = flat_rows(x, seen, weights)
        mask = seen.to(x.dtype)
        centre = (mask * rows).sum(0) / mask.sum(0).clamp_min(1.0)
        loc, scale = params["loc"], params["scale"]
        df = params["df"] if self.df is None else torch.full_like(loc, float(self.df))
        n, wu, first, second = (torch.zeros_like(loc) for _ in range(4))
        middle, factor, most = loc.unsqueeze(1), (scale * df.sqrt()).reciprocal().unsqueeze(1), 1.0 + 1.0 / df
        for part, w in weighted_chunks(rows, mask, weights, loc):
            # (df + 1) / (df + z^2), its constant factor left for the sums.
            u = w / ((part - middle) * factor).square_().add_(1.0)
            gap = part - centre
            n += w.sum(1)
            wu += u.sum(1)
            moved = u.mul_(gap)
            first += moved.sum(1)
            second += moved.mul_(gap).sum(1)
        wu, first, second = most * wu, most * first, most * second
        filled = n > EMPTY
        shift = ratio(first, wu)
        square = ratio((second - shift * first).clamp_min(0.0), n)
        new = {
            "loc": torch.where(filled, centre + shift, loc),
            "scale": torch.where(filled, torch.maximum(square, floor).sqrt(), scale),
        }
        if self.df is None:
            better = _better_df(df, rows, mask, weights, new["loc"], new["scale"], common_df)
            new["df"] = torch.where(filled.any(1, keepdim=True) if common_df else filled, better, df)
        return new

    def states_at_floor(self, observation: Observation, x: Tensor, seen: Tensor, params: Params) -> Tensor:
        return (params["scale"] ** 2 <= 1.001 * variance_floor(x, seen)).any(-1)


def _better_df(
    df: Tensor, x: Tensor, mask: Tensor, weights: Tensor, loc: Tensor, scale: Tensor, common: bool
) -> Tensor:
    """A Newton step in log df on sum_t w_t log t(x_t; df, loc, scale), kept only where it raises that sum.

    The sum is that of each state, or with ``common`` that of all states together.
    """

    def pooled(each: Tensor) -> Tensor:
        return each.sum(1, keepdim=True) if common else each

    value, slope, bend = (pooled(part) for part in _df_profile(df, x, mask, weights, loc, scale))
    newton = torch.where(bend < 0, -slope / bend.clamp_max(-1e-300), slope.sign()).clamp(-1.5, 1.5)
    best = df
    for width in (1.0, 0.2):
        trial = (df * torch.exp(width * newton)).clamp(1.0 + 1e-6, _MAX_DF)
        new = pooled(_df_value(trial, x, mask, weights, loc, scale))
        best, value = torch.where(new > value, trial, best), torch.maximum(new, value)
        if bool((best == trial).all()):
            break
    return best


def _df_value(df: Tensor, x: Tensor, mask: Tensor, weights: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
    """sum_t w_t log t(x_t) without its terms free of df, (D, s, k)."""
    n, logs = torch.zeros_like(loc), torch.zeros_like(loc)
    centre, factor = loc.unsqueeze(1), (scale * df.sqrt()).reciprocal().unsqueeze(1)
    for part, w in weighted_chunks(x, mask, weights, loc):
        n += w.sum(1)
        logs += ((part - centre) * factor).square_().log1p_().mul_(w).sum(1)
    return _without_data(df, n, logs)


def _without_data(df: Tensor, n: Tensor, logs: Tensor) -> Tensor:
    return n * log_half_step(0.5 * df) - 0.5 * (df + 1.0) * logs


def _df_profile(
    df: Tensor, x: Tensor, mask: Tensor, weights: Tensor, loc: Tensor, scale: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """sum_t w_t log t(x_t) without its terms free of df, and its two derivatives in log df, each (D, s, k)."""
    n, logs, share, product = (torch.zeros_like(loc) for _ in range(4))
    centre, factor = loc.unsqueeze(1), (scale * df.sqrt()).reciprocal().unsqueeze(1)
    for part, w in weighted_chunks(x, mask, weights, loc):
        # q = z^2 / (df + z^2), from z^2 / df.
        inner = ((part - centre) * factor).square_()
        n += w.sum(1)
        logs += inner.log1p().mul_(w).sum(1)
        q = inner / (inner + 1.0)
        weighted = w * q
        share += weighted.sum(1)
        product += weighted.sub_(weighted * q).sum(1)
    half = 0.5 * (df + 1.0)
    value = _without_data(df, n, logs)
    first = 0.5 * (n * (torch.digamma(half) - torch.digamma(0.5 * df) - 1 / df) - logs + (1 + 1 / df) * share)
    curve = 0.5 * (torch.polygamma(1, half) - torch.polygamma(1, 0.5 * df)) + 1 / df**2
    second = 0.5 * (n * curve + share / df - share / df**2 - (1 + 1 / df) * product / df)
    return value, df * first, df**2 * second + df * first
