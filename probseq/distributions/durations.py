"""Laws of how long a state is held: explicit durations of hidden semi-Markov models."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq._types import Configuration, whole_number
from probseq.distributions.params import Params, ParamSpec, Positive, Simplex
from probseq.errors import ParameterError

__all__ = [
    "Duration",
    "DurationTables",
    "FreeDuration",
    "GeometricDuration",
    "NegativeBinomialDuration",
    "PoissonDuration",
]

_DEFAULT_MAXIMUM = 100
# Nodes of v = exp(x - exp(-x)), which turns an integrand that decays like exp(-v) into a doubly exponential one.
_NODES = torch.arange(-3.5, 9.0, 0.0625, dtype=torch.float64)


class DurationTables(NamedTuple):
    """A law of durations d = 1, 2, ..., as logarithms, each (*draw, s, w).

    leave : log h(d), h(d) = P(duration = d | duration >= d), the hazard; that of w holds for all longer durations
    stay : log(1 - h(d))
    survivor : log P(duration >= d)
    """

    leave: Tensor
    stay: Tensor
    survivor: Tensor

    def residual(self) -> tuple[Tensor, Tensor]:
        """log E[duration] (*draw, s), and the law (*draw, s, w) of the elapsed duration at a random step of a state.

        The latter is P(duration >= d) / E[duration]; w gathers all d >= w.
        """
        beyond = self.survivor[..., -1:] - self.leave[..., -1:]
        each = torch.cat([self.survivor[..., :-1], beyond], -1)
        mean = log_sum(each)
        return mean, each - mean.unsqueeze(-1)

    def log_mass(self, longest: int) -> Tensor:
        """log P(duration = d) for d = 1 .. longest, (*draw, s, longest)."""
        width = self.leave.shape[-1]
        inside = (self.survivor + self.leave)[..., :longest]
        if longest <= width:
            return inside
        steps = torch.arange(1, longest - width + 1, dtype=inside.dtype)
        # No step beyond w where w is left for certain: 0 times -inf is not a number.
        stay = self.stay[..., -1:].clamp_min(-1e300)
        return torch.cat([inside, inside[..., -1:] + steps * stay], -1)


class Duration(Configuration, ABC):
    """A law of durations d = 1, 2, ..., one for each state of a hidden semi-Markov model.

    Up to ``max_duration`` the hazards P(duration = d | duration >= d) are those of the law. Beyond it the hazard stays
    what it is there, which makes the tail geometric: no duration is impossible and no probability is lost.
    """

    max_duration: int | None

    @property
    def width(self) -> int:
        """The number w of elapsed durations that are told apart.

        Raises
        ------
        ParameterError
            for a maximum that is not a positive integer.
        """
        given = _DEFAULT_MAXIMUM if self.max_duration is None else self.max_duration
        return whole_number("max_duration", given, 1, "Try a few times the mean duration.")

    @abstractmethod
    def parameters(self, n_states: int) -> dict[str, ParamSpec]:
        """Specifications; every name begins with ``duration_``, every shape with ``n_states``."""

    @abstractmethod
    def tables(self, params: Params) -> DurationTables:
        """Hazards and survivor function, differentiable in the parameters (*draw, s, ...)."""

    @abstractmethod
    def with_mean(self, mean: Tensor) -> dict[str, Tensor]:
        """Parameters (D, s, ...) of broad laws with means (D, s) at least 1, to start a fit from."""


class FreeDuration(Duration):
    r"""P(duration = d) = probs_d for d = 1 .. max_duration, and no longer: any law with a bounded duration.

    Parameters
    ----------
    max_duration : int
        The longest possible duration; a state is then left for certain. Data that need a longer one have probability 0.

    Notes
    -----
    Parameter: ``duration_probs`` (state, duration).

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HSMM(2, ps.Poisson(), duration=ps.FreeDuration(max_duration=20), random_state=0).fit(quakes)
    >>> model.n_parameters_
    41
    """

    def __init__(self, max_duration: int) -> None:
        self.max_duration = max_duration

    def parameters(self, n_states: int) -> dict[str, ParamSpec]:
        return {"duration_probs": ParamSpec((n_states, self.width), Simplex(), ("state", "duration"))}

    def tables(self, params: Params) -> DurationTables:
        probs = params["duration_probs"]
        survivor = probs.flip(-1).cumsum(-1).flip(-1)
        longer = torch.cat([survivor[..., 1:], torch.zeros_like(survivor[..., :1])], -1)
        reached = survivor > 0
        log_survivor = log(survivor)
        safe = torch.where(reached, log_survivor, torch.zeros_like(log_survivor))
        # A duration that is never reached is left at once; it has no probability anyway.
        leave = torch.where(reached, log(probs) - safe, torch.zeros_like(probs))
        stay = torch.where(reached, log(longer) - safe, torch.full_like(probs, -torch.inf))
        certain = torch.zeros_like(leave[..., :1])
        return DurationTables(torch.cat([leave[..., :-1], certain], -1), stay, log_survivor)

    def with_mean(self, mean: Tensor) -> dict[str, Tensor]:
        d = torch.arange(self.width, dtype=mean.dtype)
        rate = 1.0 / mean.clamp(1.0 + 1e-3, float(max(2, self.width)))
        geometric = torch.softmax(d * torch.log1p(-rate).unsqueeze(-1), -1)
        return {"duration_probs": 0.5 * geometric + 0.5 / self.width}

    def from_hazards(self, hazards: Tensor) -> dict[str, Tensor]:
        """The law with these hazards (*draw, s, w); that of the maximum counts as 1."""
        inside = torch.cat([hazards[..., :-1], torch.ones_like(hazards[..., :1])], -1)
        survivor = torch.cumprod(torch.cat([torch.ones_like(inside[..., :1]), 1.0 - inside[..., :-1]], -1), -1)
        probs = inside * survivor
        return {"duration_probs": probs / probs.sum(-1, keepdim=True)}


class _ParametricDuration(Duration):
    """A law on d - 1 = 0, 1, ... given by its masses, with a geometric or no tail beyond the maximum.

    Parameters
    ----------
    max_duration : int or None
        The longest duration up to which the law is exact; None is 100. Time and memory grow with it.
    tail : {"geometric", "truncated"}
        Beyond ``max_duration`` the hazard stays what it is there (the probability of longer durations is the law's own,
        only its shape is geometric), or longer durations are impossible and the law is renormalised.
    """

    def __init__(self, max_duration: int | None = None, tail: str = "geometric") -> None:
        self.max_duration, self.tail = max_duration, tail

    def parameters(self, n_states: int) -> dict[str, ParamSpec]:
        if self.tail not in ("geometric", "truncated"):
            raise ParameterError(got=f"tail={self.tail!r}", expected='"geometric" or "truncated"', remedy="Choose one.")
        _ = self.width
        return {name: ParamSpec((n_states,), Positive(low), ("state",)) for name, low in self._lows().items()}

    @abstractmethod
    def _lows(self) -> dict[str, float]:
        """Names of the parameters and their lower bounds."""

    @abstractmethod
    def _log_mass(self, params: Params) -> Tensor:
        """log P(duration = d), d = 1 .. w, (*draw, s, w)."""

    @abstractmethod
    def _tail(self, params: Params, n: int) -> tuple[Tensor, Tensor]:
        """log P(N = n + 1) / P(N = n) and log P(N >= n + 1) / P(N = n + 1) for N = duration - 1, (*draw, s)."""

    def tables(self, params: Params) -> DurationTables:
        mass = self._log_mass(params)
        last = mass[..., -1]
        if self.tail == "truncated":
            beyond, leave, stay = last, torch.zeros_like(last), torch.full_like(last, -torch.inf)
        else:
            ratio, further = self._tail(params, self.width - 1)
            # log P(N > n) / P(N = n), accurate where the tail is light; where most mass is there, one minus the rest.
            excess = ratio + further
            body = mass[..., :-1].exp().sum(-1)
            light = body > 0.5
            rest = torch.log1p(-torch.where(light, torch.zeros_like(body), body))
            beyond = torch.where(light, last + torch.nn.functional.softplus(excess), rest)
            leave = torch.where(light, torch.nn.functional.logsigmoid(-excess), last - rest)
            certain = torch.where(light, torch.full_like(leave, -1.0), leave)
            stay = torch.where(light, torch.nn.functional.logsigmoid(excess), _log1m_exp(certain))
        survivor = torch.cat([mass[..., :-1], beyond.unsqueeze(-1)], -1).flip(-1).logcumsumexp(-1).flip(-1)
        hazards, complements = _paired(mass[..., :-1] - survivor[..., :-1], survivor[..., 1:] - survivor[..., :-1])
        return DurationTables(
            torch.cat([hazards, leave.unsqueeze(-1)], -1),
            torch.cat([complements, stay.unsqueeze(-1)], -1),
            survivor - survivor[..., :1],
        )


class GeometricDuration(Duration):
    r"""P(duration = d) = (1 - 1/m)^(d-1) / m, with mean m > 1: what the states of a plain hidden Markov model have.

    Parameters
    ----------
    max_duration : int or None
        Irrelevant to the law: with a constant hazard one duration stands for all. None is 1.

    Notes
    -----
    Parameter: ``duration_mean`` (state,).

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HSMM(2, ps.Poisson(), duration=ps.GeometricDuration(), random_state=0).fit(quakes)
    >>> model.n_parameters_
    5
    """

    def __init__(self, max_duration: int | None = None) -> None:
        self.max_duration = max_duration

    @property
    def width(self) -> int:
        return 1 if self.max_duration is None else super().width

    def parameters(self, n_states: int) -> dict[str, ParamSpec]:
        return {"duration_mean": ParamSpec((n_states,), Positive(1.0), ("state",))}

    def tables(self, params: Params) -> DurationTables:
        mean = params["duration_mean"].unsqueeze(-1)
        steps = torch.arange(self.width, dtype=mean.dtype)
        stay = torch.log(mean - 1.0) - torch.log(mean)
        shape = (*mean.shape[:-1], self.width)
        return DurationTables((-torch.log(mean)).expand(shape), stay.expand(shape), steps * stay)

    def with_mean(self, mean: Tensor) -> dict[str, Tensor]:
        return {"duration_mean": mean.clamp_min(1.0 + 1e-3)}


class PoissonDuration(_ParametricDuration):
    r"""d - 1 ~ Poisson(m - 1), with mean m > 1: durations that vary little around their mean.

    Parameters
    ----------
    max_duration : int or None
        The longest duration up to which the law is exact; None is 100. Time and memory grow with it.
    tail : {"geometric", "truncated"}
        Beyond ``max_duration`` the hazard stays what it is there (the probability of longer durations is the law's own,
        only its shape is geometric), or longer durations are impossible and the law is renormalised. The hazard of a
        Poisson law goes on rising, so let ``max_duration`` be well above the mean.

    Notes
    -----
    Parameter: ``duration_mean`` (state,), the mean of the law before its tail is changed.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HSMM(2, ps.Poisson(), duration=ps.PoissonDuration(), random_state=0).fit(quakes)
    >>> model.n_parameters_
    5
    """

    def _lows(self) -> dict[str, float]:
        return {"duration_mean": 1.0}

    def _log_mass(self, params: Params) -> Tensor:
        rate = (params["duration_mean"] - 1.0).unsqueeze(-1)
        n = torch.arange(self.width, dtype=rate.dtype)
        return n * torch.log(rate) - rate - torch.lgamma(n + 1.0)

    def _tail(self, params: Params, n: int) -> tuple[Tensor, Tensor]:
        # P(N >= m) / P(N = m) = int exp(-v + rate (1 - exp(-v / m))) dv (the incomplete gamma function, substituted).
        rate = params["duration_mean"] - 1.0
        v, log_width = _quadrature()
        decayed = -torch.expm1(-v / (n + 1.0))
        further = torch.logsumexp(log_width - v + rate.unsqueeze(-1) * decayed, -1)
        return torch.log(rate) - np.log(n + 1.0), further

    def with_mean(self, mean: Tensor) -> dict[str, Tensor]:
        return {"duration_mean": mean.clamp_min(1.05)}


class NegativeBinomialDuration(_ParametricDuration):
    r"""d - 1 ~ negative binomial with mean m - 1 and size r: P(N = n) = C(n + r - 1, n) q^n (1-q)^r, q = (m-1)/(m-1+r).

    Size 1 is the geometric law of a plain hidden Markov model, a large size the Poisson law. Its hazard tends to the
    constant 1 - q, so that the geometric tail beyond the maximum is what the law comes to by itself.

    Parameters
    ----------
    max_duration : int or None
        The longest duration up to which the law is exact; None is 100. Time and memory grow with it.
    tail : {"geometric", "truncated"}
        Beyond ``max_duration`` the hazard stays what it is there (the probability of longer durations is the law's own,
        only its shape is geometric), or longer durations are impossible and the law is renormalised.

    Notes
    -----
    Parameters: ``duration_mean`` (state,), the mean of the law before its tail is changed, and ``duration_size``.

    Examples
    --------
    >>> import probseq as ps
    >>> quakes = ps.datasets.earthquakes()
    >>> model = ps.HSMM(2, ps.Poisson(), duration=ps.NegativeBinomialDuration(), random_state=0).fit(quakes)
    >>> model.n_parameters_
    7
    """

    def _lows(self) -> dict[str, float]:
        return {"duration_mean": 1.0, "duration_size": 0.0}

    def _log_mass(self, params: Params) -> Tensor:
        mean, size = (params["duration_mean"] - 1.0).unsqueeze(-1), params["duration_size"].unsqueeze(-1)
        n = torch.arange(self.width, dtype=mean.dtype)
        # Products of ratios: differences of log-gammas would lose digits for large sizes.
        ratios = torch.log(size + n[:-1]) - torch.log(mean + size) + torch.log(mean) - torch.log(n[1:])
        return torch.cat([torch.zeros_like(mean), ratios], -1).cumsum(-1) - size * torch.log1p(mean / size)

    def _tail(self, params: Params, n: int) -> tuple[Tensor, Tensor]:
        # The incomplete beta function with its variable t = q exp(-v / m).
        mean, size = params["duration_mean"] - 1.0, params["duration_size"]
        v, log_width = _quadrature()
        odds = (mean / size).unsqueeze(-1)
        grown = (size.unsqueeze(-1) - 1.0) * torch.log1p(odds * -torch.expm1(-v / (n + 1.0)))
        further = torch.log1p(mean / size) + torch.logsumexp(log_width - v + grown, -1)
        ratio = torch.log(size + n) - np.log(n + 1.0) + torch.log(mean) - torch.log(mean + size)
        return ratio, further

    def with_mean(self, mean: Tensor) -> dict[str, Tensor]:
        return {"duration_mean": mean.clamp_min(1.05), "duration_size": torch.full_like(mean, 2.0)}


def _quadrature() -> tuple[Tensor, Tensor]:
    """Nodes v on (0, inf) and the logarithms of their weights."""
    fall = torch.exp(-_NODES)
    v = torch.exp(_NODES - fall)
    return v, _NODES - fall + torch.log1p(fall) + np.log(0.0625)


def _paired(leave: Tensor, stay: Tensor) -> tuple[Tensor, Tensor]:
    """log h and log(1 - h) that belong to each other to the last digit: the larger one follows from the smaller."""
    small = torch.minimum(leave, stay).clamp_max(-0.5)
    other = _log1m_exp(small)
    return torch.where(leave < stay, leave, other), torch.where(leave < stay, other, stay)


def _log1m_exp(x: Tensor) -> Tensor:
    """log(1 - exp(x)) for x < 0."""
    return torch.where(x > -0.7, torch.log(-torch.expm1(x)), torch.log1p(-torch.exp(x)))


def log(probs: Tensor) -> Tensor:
    """log p with -inf, and no NaN in gradients, at exact zeros."""
    positive = probs > 0
    return torch.where(positive, torch.where(positive, probs, torch.ones_like(probs)).log(), -torch.inf)


def log_sum(values: Tensor) -> Tensor:
    """log sum exp over the last axis, with no NaN in gradients where all are -inf."""
    top = values.detach().amax(-1, keepdim=True)
    top = torch.where(torch.isfinite(top), top, torch.zeros_like(top))
    return log((values - top).exp().sum(-1)) + top.squeeze(-1)


def as_duration(given: Any) -> Duration:
    """What users pass as ``duration=``; None is ``NegativeBinomialDuration()``."""
    if given is None:
        return NegativeBinomialDuration()
    if not isinstance(given, Duration):
        raise ParameterError(
            got=f"duration={given!r}",
            expected="FreeDuration(max_duration), PoissonDuration(), NegativeBinomialDuration() or GeometricDuration()",
            remedy="Write its parentheses." if isinstance(given, type) else "Pass one of them.",
        )
    return given
