"""What a series does whatever its noise does: a straight line and waves of known periods, by the number of the step."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

from probseq.errors import ParameterError

__all__ = ["Deterministic", "Wave"]

# Frequencies nearer to each other than this are the same in any series that is short enough to be stored.
_SAME = 1e-9


@dataclass(frozen=True)
class Wave:
    """sin(2 pi k t / period), or the cosine."""

    harmonic: int
    period: float
    sine: bool

    @property
    def frequency(self) -> float:
        """Turns a step."""
        return self.harmonic / self.period

    def __str__(self) -> str:
        return f"{'sin' if self.sine else 'cos'}(2 pi {self.harmonic} t/{self.period:.12g})"


class Deterministic:
    r"""mean + trend t in the differenced series, sum_i fourier_i wave_i(t) in the levels; t = 1 at a sequence's start.

    Where the series is differenced k times the line is a polynomial of degree k + 1 in the levels: with Delta(B) q(t) =
    t, trend q(t) is added to the levels. The polynomials that Delta(B) removes are the diffuse start's.

    Parameters
    ----------
    constant, trend : bool
        Whether there is a mean, and a slope.
    fourier : pairs of a period and the number K of its harmonics
        K sines and K cosines, with frequencies 1 / period to K / period; the sine of frequency 1/2 is zero and left
        out.
    d, seasonal_d, season : int
        The differences (1 - B)^d (1 - B^season)^seasonal_d.

    Raises
    ------
    ParameterError
        For K above period / 2, for the same frequency twice, and for waves that the seasonal differences remove.
    """

    def __init__(
        self,
        constant: bool = True,
        trend: bool = False,
        fourier: Iterable[tuple[float, int]] = (),
        d: int = 0,
        seasonal_d: int = 0,
        season: int = 1,
    ) -> None:
        self.constant, self.trend = constant, trend
        self.waves: list[Wave] = []
        for period, harmonics in fourier:
            _check(period, harmonics)
            for k in range(1, int(harmonics) + 1):
                both = abs(2 * k - period) > _SAME * period
                self.waves += [Wave(k, float(period), sine) for sine in ((True, False) if both else (False,))]
        self._check_waves(season if seasonal_d else 0)
        self._line = _integrated_line(d, seasonal_d, season) if trend else np.zeros(1)

    def _check_waves(self, season: int) -> None:
        met: list[Wave] = []
        for wave in self.waves:
            for other in met:
                if wave.sine == other.sine and abs(wave.frequency - other.frequency) <= _SAME:
                    raise ParameterError(
                        got=f"fourier terms {other} and {wave}, which are the same",
                        expected="every frequency once",
                        remedy=f"Lower the number of harmonics of period {max(wave.period, other.period):g}, or leave "
                        "one period out.",
                    )
            met.append(wave)
            turns = wave.frequency * season
            if season and abs(turns - round(turns)) <= _SAME * season:
                raise ParameterError(
                    got=f"the fourier term {wave} with seasonal differences over {season} steps",
                    expected="waves that these differences do not remove",
                    remedy="Leave the period out of fourier=, or the seasonal differences out of the order.",
                )

    @property
    def names(self) -> list[str]:
        """The waves in words."""
        return [str(wave) for wave in self.waves]

    @property
    def moving(self) -> bool:
        """Whether the levels depend on the number of the step."""
        return self.trend or bool(self.waves)

    def fourier(self, steps: Tensor) -> Tensor:
        """The waves at the steps (...,), (..., K); whole turns are taken off before the sine, so that none is late."""
        columns = []
        for wave in self.waves:
            angle = 2.0 * math.pi / wave.period * torch.remainder(steps.double() * wave.harmonic, wave.period)
            columns.append(torch.sin(angle) if wave.sine else torch.cos(angle))
        return torch.stack(columns, -1) if columns else steps.double().unsqueeze(-1)[..., :0]

    def line(self, steps: Tensor) -> Tensor:
        """q(t) at the steps."""
        t, value = steps.double(), torch.zeros_like(steps, dtype=torch.float64)
        for coefficient in self._line[::-1]:
            value = value * t + float(coefficient)
        return value

    def added(
        self, trend: Tensor | None, fourier: Tensor | None, age: Tensor, n_steps: int | None = None
    ) -> Tensor | float:
        """What the line and the waves add to the levels of the steps after ``age``; 0 where there are none.

        Parameters
        ----------
        trend, fourier : (*draw,), (*draw, K), their coefficients
        age : (*draw, n), steps so far
        n_steps : int or None
            How many steps from there on are wanted; None is one.

        Returns
        -------
        (*draw, n), or (*draw, n, n_steps).
        """
        if not self.moving:
            return 0.0
        together = bool((age == age.reshape(-1)[:1]).all())
        begin = age.reshape(-1)[:1] if together else age
        ages = begin if n_steps is None else begin.unsqueeze(-1) + torch.arange(n_steps)
        steps, place = (ages.reshape(-1) + 1, None) if together else torch.unique(ages + 1, return_inverse=True)
        table = torch.zeros((), dtype=torch.float64)
        if fourier is not None:
            table = table + fourier @ self.fourier(steps).mT
        if trend is not None:
            table = table + trend.unsqueeze(-1) * self.line(steps)
        if place is None:
            return table.expand(*age.shape) if n_steps is None else table.unsqueeze(-2).expand(*age.shape, n_steps)
        rows = math.prod(table.shape[:-1])
        return table.reshape(rows, -1).gather(1, place.reshape(rows, -1)).reshape(place.shape)


def _integrated_line(d: int, seasonal_d: int, season: int) -> np.ndarray:
    """Coefficients, lowest first, of a polynomial q with (1 - B)^d (1 - B^season)^seasonal_d q(t) = t."""
    line = [Fraction(0), Fraction(1)]
    for lag in (*(1 for _ in range(d)), *(season for _ in range(seasonal_d))):
        # (1 - B^s) t^n = - sum_(i < n) C(n, i) (-s)^(n - i) t^i, whose leading term is n s t^(n - 1).
        rest, found = line[:], [Fraction(0)] * (len(line) + 1)
        for n in range(len(line), 0, -1):
            found[n] = rest[n - 1] / (n * lag)
            for i in range(n):
                rest[i] += found[n] * math.comb(n, i) * Fraction(-lag) ** (n - i)
        line = found
    return np.array([float(one) for one in line])


def _check(period: float, harmonics: int) -> None:
    number = isinstance(period, int | float | np.integer | np.floating) and not isinstance(period, bool)
    if not number or not math.isfinite(period) or period < 2:
        raise ParameterError(
            got=f"a fourier period of {period!r}",
            expected="a number of steps, at least 2, such as 365.25",
            remedy="Write fourier={365.25: 3, 7: 2}: the period, and how many harmonics.",
        )
    whole = isinstance(harmonics, int | np.integer) and not isinstance(harmonics, bool) and harmonics >= 1
    if not whole or harmonics > period / 2 * (1 + _SAME):
        raise ParameterError(
            got=f"{harmonics!r} harmonics of the period {period:g}",
            expected=f"a whole number from 1 to {int(period / 2)}, half the period",
            remedy="Faster waves look like slower ones at whole steps; lower the number.",
        )
