"""Sixteen numbers that are worked on as one: a vector type for kernels, with arithmetic, memory access, exp2 and log2.

Lane k of all vectors belongs to one chain, so that sixteen chains advance with one instruction stream and no
instruction waits for another lane. The compiler splits a vector into the registers of the processor at hand (two of
512 bits, four of 256 bits, eight of 128 bits); there is no code for one kind of processor only.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, register_model

from probseq.kernels.compiler import kernel

# numba's own annotation promises less than the decorator returns.
intrinsic: Any = _intrinsic

LANES = 16
LN_2 = 0.6931471805599453
LOG2_E = 1.4426950408889634

_DOUBLES = ir.VectorType(ir.DoubleType(), LANES)
_INTEGERS = ir.VectorType(ir.IntType(64), LANES)
# Products and sums may fuse; nothing else about the arithmetic may change.
_FLAGS = ("contract",)


class _Lanes(types.Type):
    def __init__(self) -> None:
        super().__init__(name="Lanes16")


lanes = _Lanes()


@register_model(_Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _DOUBLES)


def _constant(value: float) -> Any:
    return ir.Constant(_DOUBLES, [value] * LANES)


def _integer(value: int) -> Any:
    return ir.Constant(_INTEGERS, [value] * LANES)


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any, element: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), element.as_pointer())


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """Sixteen neighbours of a contiguous array (the bits of integers), from the flat position ``offset`` on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments, _DOUBLES)
        return builder.load(place, align=8)

    return lanes(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write sixteen neighbours of a contiguous array, from the flat position ``offset`` on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments[:2], _DOUBLES)
        builder.store(arguments[2], place, align=8)
        return context.get_dummy_value()

    return types.void(array, types.intp, lanes), codegen


@intrinsic
def spread(typingctx: Any, array: Any, offset: Any) -> Any:
    """The number at the flat position ``offset`` of a contiguous float64 array, in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments, ir.DoubleType())
        return _in_all_lanes(builder, builder.load(place))

    return lanes(array, types.intp), codegen


@intrinsic
def splat(typingctx: Any, value: Any) -> Any:
    """One number in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _in_all_lanes(builder, arguments[0])

    return lanes(types.float64), codegen


def _in_all_lanes(builder: Any, value: Any) -> Any:
    single = builder.insert_element(ir.Constant(_DOUBLES, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), LANES), [0] * LANES)
    return builder.shuffle_vector(single, ir.Constant(_DOUBLES, ir.Undefined), places)


def _pairwise(emit: Callable[[Any, Any, Any], Any]) -> Any:
    @intrinsic
    def combine(typingctx: Any, left: Any, right: Any) -> Any:
        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return emit(builder, *arguments)

        return lanes(lanes, lanes), codegen

    return combine


def _lesser(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", left, right), left, right)


def _greater(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


lesser = _pairwise(_lesser)
greater = _pairwise(_greater)


@intrinsic
def where_seen(typingctx: Any, seen: Any, value: Any, other: Any) -> Any:
    """``value`` in the lanes where ``seen`` is not NaN, ``other`` elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("ord", arguments[0], arguments[0]), *arguments[1:])

    return lanes(lanes, lanes, lanes), codegen


@intrinsic
def where_less(typingctx: Any, left: Any, right: Any, value: Any, other: Any) -> Any:
    """``value`` in the lanes where left < right, ``other`` elsewhere."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.select(builder.fcmp_ordered("<", *arguments[:2]), *arguments[2:])

    return lanes(lanes, lanes, lanes, lanes), codegen


@intrinsic
def four_columns(typingctx: Any, array: Any, places: Any, offset: Any) -> Any:
    """Four neighbours from the flat position places_k + offset on, for each lane k: a vector for each of the four."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, few = signature.args, ir.VectorType(ir.DoubleType(), 4)
        index = ir.IntType(64)

        def chosen(left: Any, right: Any, order: list[int]) -> Any:
            return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))

        rows = []
        for lane in range(LANES):
            place = builder.load(_address(context, builder, kinds[1], arguments[1], ir.Constant(index, lane), index))
            at = _address(context, builder, kinds[0], arguments[0], builder.add(place, arguments[2]), few)
            rows.append(builder.load(at, align=8))
        halves = []
        for first in (0, 8):
            a, b, c, d = (chosen(rows[first + k], rows[first + k + 4], list(range(8))) for k in range(4))
            even, odd = [0, 8, 2, 10, 4, 12, 6, 14], [1, 9, 3, 11, 5, 13, 7, 15]
            left, right = [0, 1, 8, 9, 4, 5, 12, 13], [2, 3, 10, 11, 6, 7, 14, 15]
            pairs = [(chosen(a, b, order), chosen(c, d, order)) for order in (even, odd)]
            halves.append([chosen(*pairs[j % 2], (left, right)[j // 2]) for j in range(4)])
        columns = [chosen(low, high, list(range(LANES))) for low, high in zip(*halves, strict=True)]
        return context.make_tuple(builder, signature.return_type, columns)

    return types.UniTuple(lanes, 4)(array, places, types.intp), codegen


@intrinsic
def store_columns(typingctx: Any, array: Any, places: Any, offset: Any, a: Any, b: Any, c: Any, d: Any) -> Any:
    """The way back of `four_columns`: for each lane k four neighbours from the flat position places_k + offset on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        kinds, index = signature.args, ir.IntType(64)

        def chosen(left: Any, right: Any, order: list[int]) -> Any:
            return builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(ir.IntType(32), len(order)), order))

        even = [k for pair in range(0, LANES, 2) for k in (pair, pair + LANES)]
        pairs = [
            [chosen(left, right, [k + side for k in even]) for left, right in (arguments[3:5], arguments[5:7])]
            for side in (0, 1)
        ]
        for lane in range(LANES):
            first = lane // 2 * 2
            four = chosen(*pairs[lane % 2], [first, first + 1, first + LANES, first + 1 + LANES])
            place = builder.load(_address(context, builder, kinds[1], arguments[1], ir.Constant(index, lane), index))
            at = builder.add(place, arguments[2])
            builder.store(four, _address(context, builder, kinds[0], arguments[0], at, four.type), align=8)
        return context.get_dummy_value()

    return types.void(array, places, types.intp, lanes, lanes, lanes, lanes), codegen


@intrinsic
def whole(typingctx: Any, value: Any) -> Any:
    """The bits of one integer in every lane."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _in_all_lanes(builder, builder.bitcast(arguments[0], ir.DoubleType()))

    return lanes(types.int64), codegen


@intrinsic
def merged(typingctx: Any, low: Any, high: Any, places: Any) -> Any:
    """The bits of integers: ``low`` or ``high`` moved up by some places."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = [builder.bitcast(value, _INTEGERS) for value in arguments[:2]]
        count = _in_all_lanes(builder, builder.bitcast(arguments[2], ir.DoubleType()))
        moved = builder.shl(bits[1], builder.bitcast(count, _INTEGERS))
        return builder.bitcast(builder.or_(bits[0], moved), _DOUBLES)

    return lanes(lanes, lanes, types.int64), codegen


@intrinsic
def nibble(typingctx: Any, word: Any, number: Any) -> Any:
    """The four bits of a word at the place that each lane asks for; words and numbers are integers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, place = (builder.bitcast(value, _INTEGERS) for value in arguments)
        moved = builder.lshr(bits, builder.shl(place, _integer(2)))
        return builder.bitcast(builder.and_(moved, _integer(15)), _DOUBLES)

    return lanes(lanes, lanes), codegen


@intrinsic
def _shifted_up(typingctx: Any, value: Any) -> Any:
    """The lowest twelve bits of each number, moved to where sign and exponent are."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.shl(builder.bitcast(arguments[0], _INTEGERS), _integer(52))
        return builder.bitcast(bits, _DOUBLES)

    return lanes(lanes), codegen


@intrinsic
def mantissa(typingctx: Any, value: Any) -> Any:
    """m in [1, 2) of value = m 2^e, positive and normal."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.and_(builder.bitcast(arguments[0], _INTEGERS), _integer((1 << 52) - 1))
        return builder.bitcast(builder.or_(bits, _integer(1023 << 52)), _DOUBLES)

    return lanes(lanes), codegen


@intrinsic
def exponent(typingctx: Any, value: Any) -> Any:
    """e of value = m 2^e, positive and normal, as a floating point number."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.lshr(builder.bitcast(arguments[0], _INTEGERS), _integer(52))
        # An integer below 2^52 in the low bits of 2^52 is that number added to 2^52.
        raised = builder.bitcast(builder.or_(bits, _integer((1023 + 52) << 52)), _DOUBLES)
        return builder.fsub(raised, _constant(2.0**52 + 1023))

    return lanes(lanes), codegen


@intrinsic
def inverse_power(typingctx: Any, value: Any) -> Any:
    """2^-e of value = m 2^e, positive and normal: a product with it is exact and lies in [1, 2)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits = builder.and_(builder.bitcast(arguments[0], _INTEGERS), _integer(0x7FF << 52))
        return builder.bitcast(builder.sub(_integer(2046 << 52), bits), _DOUBLES)

    return lanes(lanes), codegen


def _teach(symbol: Any, method: str) -> None:
    """Make an operator of the language work on vectors; the symbol is typed and lowered without further compilation."""

    @infer_global(symbol)
    class Typed(AbstractTemplate):  # numba registers the class when it is made
        def generic(self, args: Any, kws: Any) -> Any:
            return lanes(lanes, lanes) if args == (lanes, lanes) else None

    @lower_builtin(symbol, lanes, lanes)
    def lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, method)(*arguments, flags=_FLAGS)


for _symbol, _method in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _teach(_symbol, _method)


@kernel(forceinline=True)
def exp2(x):
    """2^x for x <= 1000, within 2 units in the last place; 0 for -inf, 2^-1000 for anything finite below -1000."""
    low = splat(-1000.0)
    bounded = where_less(x, low, low, x)
    # Adding 1.5 * 2^52 rounds to an integer that then sits in the low bits; 1023 is the bias of exponents.
    rounder = splat(6755399441055744.0 + 1023.0)
    shifted = bounded + rounder
    r = bounded - (shifted - rounder)
    # Interpolation of 2^r at the Chebyshev points of [-1/2, 1/2], relative error 2e-17.
    p = splat(4.4558179083360645e-10)
    p = p * r + splat(7.074194297288521e-09)
    p = p * r + splat(1.0178057087733941e-07)
    p = p * r + splat(1.3215432535912375e-06)
    p = p * r + splat(1.5252733841556773e-05)
    p = p * r + splat(1.5403530463724353e-04)
    p = p * r + splat(1.333355814640647e-03)
    p = p * r + splat(9.618129107587256e-03)
    p = p * r + splat(5.5504108664821625e-02)
    p = p * r + splat(0.24022650695910158)
    p = p * r + splat(0.6931471805599453)
    p = p * r + splat(1.0)
    value = p * _shifted_up(shifted)
    return where_less(splat(-np.inf), x, value, where_seen(x, splat(0.0), x))


@kernel(forceinline=True)
def log(x):
    """log x for positive normal x, within 1 unit in the last place (fdlibm, e_log.c)."""
    one = splat(1.0)
    m = mantissa(x)
    root = splat(1.4142135623730951)
    f = where_less(root, m, splat(0.5) * m, m) - one
    k = where_less(root, m, exponent(x) + one, exponent(x))
    s = f / (splat(2.0) + f)
    z = s * s
    w = z * z
    odd = w * (splat(0.3999999999940941908) + w * (splat(0.2222219843214978396) + w * splat(0.1531383769920937332)))
    even = splat(0.1818357216161805012) + w * splat(0.1479819860511658591)
    even = splat(0.6666666666666735130) + w * (splat(0.2857142874366239149) + w * even)
    half = splat(0.5) * f * f
    # ln 2 in two parts: the first has trailing zeros, so that multiples of it are exact.
    rest = s * (half + odd + z * even) + k * splat(1.90821492927058770002e-10)
    return k * splat(6.93147180369123816490e-01) - ((half - rest) - f)


@kernel
def vectors(rows: int, width: int) -> np.ndarray:
    """Zeros (rows, width, lane) in memory where every vector fills whole lines of the cache."""
    size = rows * width * LANES
    flat = np.zeros(size + 8)
    first = (-flat.ctypes.data // 8) % 8
    return flat[first : first + size].reshape((rows, width, LANES))


@intrinsic
def add_totals(typingctx: Any, out: Any, offset: Any, a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any):
    """Add the totals over lanes of eight vectors to eight neighbours of an array.

    A tree that halves and interleaves the vectors: 29 instructions, where eight sums one by one would take 56.
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        def chosen(left: Any, right: Any, places: list[int]) -> Any:
            mask = ir.Constant(ir.VectorType(ir.IntType(32), len(places)), places)
            return builder.shuffle_vector(left, right, mask)

        vectors8 = []
        for value in arguments[2:]:
            low, high = (chosen(value, value, list(range(k, k + 8))) for k in (0, 8))
            vectors8.append(builder.fadd(low, high))
        for run in (1, 2, 4):
            # [a0 a1 a2 ...] and [b0 b1 b2 ...] become [a b a b ...]; four of these [a b c d a b c d]; and so on.
            even = [k + i + side for k in range(0, 8, 2 * run) for side in (0, 8) for i in range(run)]
            odd = [k + run for k in even]
            vectors8 = [
                builder.fadd(chosen(left, right, even), chosen(left, right, odd))
                for left, right in zip(vectors8[::2], vectors8[1::2], strict=True)
            ]
        element = ir.VectorType(ir.DoubleType(), 8)
        place = _address(context, builder, signature.args[0], *arguments[:2], element)
        builder.store(builder.fadd(builder.load(place, align=8), vectors8[0]), place, align=8)
        return context.get_dummy_value()

    return types.void(out, types.intp, *[lanes] * 8), codegen
