"""Roots of the factors of an ARMA model, and what is worth a word about them."""

from __future__ import annotations

import cmath
from typing import NamedTuple

import numpy as np

from probseq.kernels.sparse_profile import common_step, spread

__all__ = ["Factor", "factor_roots", "root_problems"]

# A root nearer to the unit circle than this, or a pair nearer to each other than this, is worth a word.
_NEAR_UNIT, _NEAR_PAIR = 1e-3, 0.02


class Factor(NamedTuple):
    """1 - sum_j c_j B^(lag_j) for an autoregression, 1 + sum_j c_j B^(lag_j) for a moving average.

    name : as in "seasonal moving-average". lags : (m,), in steps of the factor. season : steps of such a lag.
    """

    name: str
    lags: np.ndarray
    coefficients: np.ndarray
    season: int

    @property
    def step(self) -> int:
        """The factor is a polynomial in B^step."""
        return int(common_step(self.lags)) * self.season

    @property
    def autoregressive(self) -> bool:
        return self.name.endswith("autoregressive")


def factor_roots(factor: Factor) -> np.ndarray:
    """Roots z^step of the factor, as a polynomial of z^step."""
    if not factor.lags.size:
        return np.zeros(0)
    row = spread(factor.coefficients, factor.lags // common_step(factor.lags))
    signed = -row if factor.autoregressive else row
    if row.size == 1:
        return np.array([-1.0 / signed[0]]) if row[0] != 0.0 else np.zeros(0)
    if row.size == 2 and row[1] != 0.0:
        b, a = signed.tolist()
        inner = cmath.sqrt(b * b - 4.0 * a)
        # The sum that does not cancel; the product of the roots is 1 / a.
        whole = -0.5 * (b + (inner if (b * inner.conjugate()).real >= 0.0 else -inner))
        roots = np.array([whole / a, 1.0 / whole])
        return roots if inner.imag else roots.real
    return np.roots(np.append(signed[::-1], 1.0))


def root_problems(factors: list[Factor]) -> tuple[str, ...]:
    """Roots near the unit circle, and pairs that nearly cancel, in words."""
    messages = []
    factors = [factor for factor in factors if factor.lags.size]
    steps = [factor.step for factor in factors]
    roots = [factor_roots(factor).tolist() for factor in factors]
    upper = [[root for root in found if root.imag >= 0] for found in roots]
    for factor, step, found in zip(factors, steps, upper, strict=True):
        for root in found:
            # The modulus of a root z^step says as much as that of z to the power of the step.
            if abs(root) < 1.0 + _NEAR_UNIT:
                of = f" in B^{step}" if step != factor.season else ""
                hint = "difference more" if factor.autoregressive else "difference less"
                messages.append(
                    f"The {factor.name} root {_show(root)}{of} is within {_NEAR_UNIT:g} of the unit circle: {hint}."
                )
    for one, step, found in zip(factors, steps, upper, strict=True):
        for other, its_step, against in zip(factors, steps, roots, strict=True):
            if not one.autoregressive or other.autoregressive or not against or step != its_step:
                continue
            for root in found:
                distances = [abs(there - root) for there in against]
                nearest = against[distances.index(min(distances))]
                if abs(nearest - root) < _NEAR_PAIR * abs(root):
                    plain = all(np.array_equal(f.lags, np.arange(1, f.lags.size + 1)) for f in (one, other))
                    messages.append(
                        f"The {one.name} root {_show(root)} and the {other.name} root {_show(nearest)} nearly cancel: "
                        + ("lower both orders by one." if plain else "leave a lag of each out.")
                    )
    return tuple(messages)


def _show(root: complex) -> str:
    if abs(root.imag) < 1e-9:
        return f"{root.real:.4f}"
    return f"{root.real:.4f} +- {abs(root.imag):.4f}i (modulus {abs(root):.4f})"
