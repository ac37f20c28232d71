"""Orders of ARMA models: numbers of lags, or the lags themselves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from probseq.errors import ParameterError

__all__ = ["LagSet", "Order", "SeasonalOrder", "check_orders", "lag_set", "multiply_factors", "shortest"]

LagSet = int | tuple[int, ...]
Order = tuple[LagSet, int, LagSet]
SeasonalOrder = tuple[LagSet, int, LagSet, int]


def lag_set(part: LagSet) -> np.ndarray:
    """The lags that an order means, ascending."""
    return np.arange(1, part + 1) if isinstance(part, int | np.integer) else np.sort(np.array(part, dtype=np.int64))


def shortest(lags: np.ndarray) -> LagSet:
    """The order that means these lags: a number where they are 1, ..., p."""
    return lags.size if np.array_equal(lags, np.arange(1, lags.size + 1)) else tuple(lags.tolist())


def check_orders(order: Order, seasonal_order: SeasonalOrder) -> None:
    """Raise ``ParameterError`` for numbers below zero, lags that are not distinct and positive, or a season below 2."""
    good = len(order) == 3 and len(seasonal_order) == 4
    for numbers in (order, seasonal_order):
        for i, part in enumerate(numbers):
            good = good and (_whole(part) or (i in (0, 2) and isinstance(part, tuple) and _distinct(part)))
    if not good:
        raise ParameterError(
            got=f"order={order!r}, seasonal_order={seasonal_order!r}",
            expected="(p, d, q) and (P, D, Q, s) of integers >= 0, or distinct lags >= 1 in place of p, q, P or Q",
            remedy="Write order=(2, 0, 1), seasonal_order=(0, 0, 0, 1) for an ARMA(2, 1) without a season.",
        )
    plain = not any(lag_set(seasonal_order[i]).size for i in (0, 2)) and not seasonal_order[1]
    if not plain and seasonal_order[3] < 2:
        raise ParameterError(
            got=f"seasonal_order={seasonal_order!r}",
            expected="a season of at least 2 steps",
            remedy="Write seasonal_order=(0, 1, 1, 12) for monthly data.",
        )


def _whole(value: object, low: int = 0) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool) and bool(value >= low)


def _distinct(lags: tuple[int, ...]) -> bool:
    return all(_whole(lag, 1) for lag in lags) and len(set(lags)) == len(lags)


def multiply_factors(
    plain: Tensor | None,
    plain_lags: np.ndarray,
    seasonal: Tensor | None,
    seasonal_lags: np.ndarray,
    period: int,
    one: Tensor,
) -> Tensor:
    """Coefficients (D, .) from lag 0 on of (1 + sum_i a_i B^i)(1 + sum_j A_j B^(period j)).

    Parameters
    ----------
    plain, seasonal : (D, m) or None, at their lags
    one : (D, 1), of ones
    """
    poly = one
    if plain is not None:
        rest = one.new_zeros(len(one), int(plain_lags[-1]))
        poly = torch.cat([one, rest.index_copy(1, torch.from_numpy(plain_lags - 1), plain)], 1)
    if seasonal is not None:
        size = int(seasonal_lags[-1]) * period
        total = torch.nn.functional.pad(poly, (0, size))
        for i, j in enumerate(seasonal_lags.tolist()):
            shifted = torch.nn.functional.pad(poly, (j * period, size - j * period))
            total = total + seasonal[:, i : i + 1] * shifted
        poly = total
    return poly
