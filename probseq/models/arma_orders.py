"""Orders of ARMA models: numbers of lags, or the lags themselves."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from probseq.distributions.params import ParamSpec
from probseq.errors import ParameterError
from probseq.kernels.arima import difference_coefficients
from probseq.kernels.sparse_profile import support_of
from probseq.models.innovations import Lags
from probseq.models.sparse_stationary import stationary_at

__all__ = [
    "FACTORS",
    "LagSet",
    "LagStructure",
    "Order",
    "SeasonalOrder",
    "check_orders",
    "lag_structure",
    "multiply_factors",
]

FACTORS = ("ar", "ma", "seasonal_ar", "seasonal_ma")

LagSet = int | tuple[int, ...]
Order = tuple[LagSet, int, LagSet]
SeasonalOrder = tuple[LagSet, int, LagSet, int]


class LagStructure(NamedTuple):
    """What follows from the orders alone; nobody writes to its arrays, which models share.

    order, seasonal_order : the orders in their shortest form
    own_lags : of phi, theta, Phi and Theta, the latter in seasons
    lags : of the products, and the differences
    specs : the four factors as parameters, those that have a coefficient
    """

    order: Order
    seasonal_order: SeasonalOrder
    own_lags: tuple[np.ndarray, ...]
    lags: Lags
    counts: np.ndarray
    all_lags: np.ndarray
    specs: dict[str, ParamSpec]


@lru_cache(maxsize=256)
def lag_structure(order: Order, seasonal_order: SeasonalOrder) -> LagStructure:
    """The structure of orders that `check_orders` has found good, kept, since models of one order are made often."""
    (_, d, _), (_, seasonal_d, _, period) = order, seasonal_order
    own = tuple(_lag_set(part) for part in (order[0], order[2], seasonal_order[0], seasonal_order[2]))
    p, q, seasonal_p, seasonal_q = (_shortest(lags) for lags in own)
    lags = Lags(
        support_of(own[0], own[2], period),
        support_of(own[1], own[3], period),
        difference_coefficients(d, seasonal_d, period),
    )
    specs = {
        name: ParamSpec((one.size,), stationary_at(one, sign), (f"{name}_lag",))
        for name, one, sign in zip(FACTORS, own, (1, -1, 1, -1), strict=True)
        if one.size
    }
    counts = np.array([one.size for one in own])
    orders: tuple[Order, SeasonalOrder] = ((p, d, q), (seasonal_p, seasonal_d, seasonal_q, period))
    return LagStructure(*orders, own, lags, counts, np.concatenate(own), specs)


def _lag_set(part: LagSet) -> np.ndarray:
    """The lags that an order means, ascending."""
    return np.arange(1, part + 1) if isinstance(part, int | np.integer) else np.sort(np.array(part, dtype=np.int64))


def _shortest(lags: np.ndarray) -> LagSet:
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
    plain = not any(_lag_set(seasonal_order[i]).size for i in (0, 2)) and not seasonal_order[1]
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
