"""Elementary vector operations that the compiler turns into wide instructions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from probseq.kernels.compiler import kernel

_LOG2_E = 1.4426950408889634
# ln 2 in two parts: the first has trailing zeros, so that multiples of it are exact (fdlibm, e_exp.c).
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
# Adding 1.5 * 2**52 rounds to an integer that then sits in the low bits.
_ROUNDER = 6755399441055744.0


@intrinsic
def _bits(typingctx: Any, value: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.IntType(64))

    return types.int64(types.float64), codegen


@intrinsic
def _double(typingctx: Any, bits: Any) -> Any:
    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.bitcast(arguments[0], ir.DoubleType())

    return types.float64(types.int64), codegen


@kernel(fastmath={"contract"})
def exp_below(x: float, floor: float, below: float) -> float:
    """exp(x) for x <= 700, within 1 unit in the last place; ``below`` where x < floor (floor at least -708).

    Branch-free, so that a plain loop over it becomes vector code; the exponential of the C library does not.
    """
    shifted = x * _LOG2_E + _ROUNDER
    n = shifted - _ROUNDER
    r = x - n * _LN2_HIGH
    r = r - n * _LN2_LOW
    p = 1.6059043836821613e-10
    p = p * r + 2.08767569878681e-09
    p = p * r + 2.505210838544172e-08
    p = p * r + 2.755731922398589e-07
    p = p * r + 2.7557319223985893e-06
    p = p * r + 2.48015873015873e-05
    p = p * r + 1.984126984126984e-04
    p = p * r + 1.388888888888889e-03
    p = p * r + 8.333333333333333e-03
    p = p * r + 4.1666666666666664e-02
    p = p * r + 1.6666666666666666e-01
    p = p * r + 0.5
    p = p * r + 1.0
    p = p * r + 1.0
    power: float = _double((_bits(shifted) + np.int64(1023)) << np.int64(52))
    return below if x < floor else p * power


@kernel(fastmath={"contract"})
def exp_rows(rows: np.ndarray, count: int, floor: float, below: float) -> None:
    """rows[:count] <- exp(rows[:count]), with ``below`` for finite entries under ``floor`` and 0 for -inf."""
    flat = rows.reshape(rows.size)
    size = count * rows.shape[1]
    if below == 0.0:
        for k in range(size):
            flat[k] = exp_below(flat[k], floor, 0.0)
    else:
        for k in range(size):
            value = flat[k]
            flat[k] = 0.0 if value == -np.inf else exp_below(value, floor, below)


@kernel(fastmath={"contract"})
def log_positive(x: float) -> float:
    """log x for positive normal x, within 1 unit in the last place (fdlibm, e_log.c), without branches."""
    bits: int = _bits(x)
    mantissa = _double((bits & np.int64(0x000FFFFFFFFFFFFF)) | np.int64(0x3FF0000000000000))
    exponent = (bits >> np.int64(52)) - np.int64(1023)
    high = mantissa > 1.4142135623730951
    f = (0.5 * mantissa if high else mantissa) - 1.0
    k = float(exponent) + (1.0 if high else 0.0)
    s = f / (2.0 + f)
    z = s * s
    w = z * z
    odd = w * (0.3999999999940941908 + w * (0.2222219843214978396 + w * 0.1531383769920937332))
    even = 0.6666666666666735130 + w * (0.2857142874366239149 + w * (0.1818357216161805012 + w * 0.1479819860511658591))
    half = 0.5 * f * f
    return k * _LN2_HIGH - ((half - (s * (half + odd + z * even) + k * _LN2_LOW)) - f)


@kernel
def transposed(matrix: np.ndarray) -> np.ndarray:
    """Transpose in row-major memory (``matrix.T.copy()`` compiles to column-major)."""
    out = np.empty((matrix.shape[1], matrix.shape[0]))
    for i in range(matrix.shape[0]):
        for j in range(matrix.shape[1]):
            out[j, i] = matrix[i, j]
    return out


@kernel(fastmath={"contract", "reassoc"})
def dot(left: np.ndarray, right: np.ndarray) -> float:
    """sum_j left_j right_j."""
    total = 0.0
    for j in range(left.size):
        total += left[j] * right[j]
    return total


@kernel(fastmath={"contract", "reassoc"})
def log_dot(left: np.ndarray, right: np.ndarray) -> float:
    """log sum_j exp(left_j + right_j); -inf stands for exact zeros."""
    peak = max_plus(left, right)
    if peak == -np.inf:
        return peak
    total = 0.0
    for j in range(left.size):
        total += exp_below(left[j] + right[j] - peak, -708.0, 0.0)
    return peak + math.log(total)


@kernel(fastmath={"nnan", "nsz"})
def max_plus(left: np.ndarray, right: np.ndarray) -> float:
    """max_j left_j + right_j."""
    top = -np.inf
    for j in range(left.size):
        value = left[j] + right[j]
        top = value if value > top else top
    return top


@kernel(fastmath={"nnan", "nsz"})
def propagate_max(weights: np.ndarray, matrix: np.ndarray, out: np.ndarray) -> None:
    """out_j = max_i weights_i + matrix_ij, four rows at a time."""
    size = out.size
    for j in range(size):
        out[j] = -np.inf
    whole = size - size % 4
    for i in range(0, whole, 4):
        a = weights[i]
        b = weights[i + 1]
        c = weights[i + 2]
        d = weights[i + 3]
        for j in range(size):
            first = a + matrix[i, j]
            second = b + matrix[i + 1, j]
            third = c + matrix[i + 2, j]
            fourth = d + matrix[i + 3, j]
            first = first if first > second else second
            third = third if third > fourth else fourth
            first = first if first > third else third
            out[j] = first if first > out[j] else out[j]
    for i in range(whole, size):
        a = weights[i]
        for j in range(size):
            first = a + matrix[i, j]
            out[j] = first if first > out[j] else out[j]


@kernel
def log_sum(values: np.ndarray) -> float:
    """log sum_j exp(values_j), -inf for no mass."""
    peak = -np.inf
    for value in values:
        if value > peak:
            peak = value
    if peak == -np.inf:
        return peak
    total = 0.0
    for value in values:
        total += math.exp(value - peak)
    return peak + math.log(total)


@kernel(fastmath={"contract"})
def add_outer(left: np.ndarray, right: np.ndarray, count: int, out: np.ndarray) -> None:
    """out_ij += sum_t left_ti right_tj over the first ``count`` rows, four rows at a time."""
    size = right.shape[1]
    whole = count - count % 4
    for t in range(0, whole, 4):
        for i in range(left.shape[1]):
            a = left[t, i]
            b = left[t + 1, i]
            c = left[t + 2, i]
            d = left[t + 3, i]
            for j in range(size):
                out[i, j] += (a * right[t, j] + b * right[t + 1, j]) + (c * right[t + 2, j] + d * right[t + 3, j])
    for t in range(whole, count):
        for i in range(left.shape[1]):
            a = left[t, i]
            for j in range(size):
                out[i, j] += a * right[t, j]
