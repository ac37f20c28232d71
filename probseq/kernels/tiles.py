"""Matrix products in tiles of vectors that stay in registers, and the functions that gates need, in either precision.

A tile is four rows by a few vectors of neighbouring columns. Its sums never leave the registers while the terms of a
product are read, so that products of small matrices run near the speed of the processor, several times faster than a
library of linear algebra, which is made for large ones.
"""

from __future__ import annotations

import math
import operator
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core.typing.templates import AbstractTemplate, infer_global
from numba.extending import intrinsic as _intrinsic
from numba.extending import lower_builtin, models, register_model

from probseq.kernels.compiler import kernel

# numba's own annotation promises less than the decorator returns.
intrinsic: Any = _intrinsic

ROWS = 4
# Processors with 512 bits have 32 registers of them, enough for 16 sums; others have 16 of 256 bits, for 8 sums.
_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
VECTORS = 4 if _WIDE else 2
_BYTES = 64 if _WIDE else 32
# Products and sums may fuse; nothing else about the arithmetic may change.
_FLAGS = ("contract",)
# Beyond it a gate is open or shut to the last bit, and no power of e leaves the normal numbers.
_FAR = {32: 40.0, 64: 80.0}
_DEGREE = {32: 7, 64: 13}
_MANTISSA = {32: 23, 64: 52}
_BIAS = {32: 127, 64: 1023}


def lanes_of(n_bytes: int) -> int:
    """How many numbers of so many bytes are one vector."""
    return _BYTES // n_bytes


class _Vector(types.Type):
    def __init__(self, element: Any) -> None:
        self.element, self.bits = element, element.bitwidth
        self.count = 8 * _BYTES // self.bits
        super().__init__(name=f"Vector({element})")

    @property
    def scalar(self) -> Any:
        return ir.FloatType() if self.bits == 32 else ir.DoubleType()

    @property
    def llvm(self) -> Any:
        return ir.VectorType(self.scalar, self.count)

    @property
    def integers(self) -> Any:
        return ir.VectorType(ir.IntType(self.bits), self.count)


class _Tile(types.Type):
    def __init__(self, element: Any, vectors: int) -> None:
        self.vector, self.vectors = _Vector(element), vectors
        super().__init__(name=f"Tile({element}, {vectors})")


@register_model(_Vector)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, kind.llvm)


@register_model(_Tile)
class _TileModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.ArrayType(kind.vector.llvm, ROWS * kind.vectors))


def _address(context: Any, builder: Any, kind: Any, array: Any, offset: Any, element: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), element.as_pointer())


def _everywhere(builder: Any, kind: _Vector, value: Any) -> Any:
    single = builder.insert_element(ir.Constant(kind.llvm, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    places = ir.Constant(ir.VectorType(ir.IntType(32), kind.count), [0] * kind.count)
    return builder.shuffle_vector(single, ir.Constant(kind.llvm, ir.Undefined), places)


def _constant(kind: _Vector, value: float) -> Any:
    return ir.Constant(kind.llvm, [value] * kind.count)


def _plus(builder: Any, term: Any, left: Any, right: Any) -> Any:
    """Term + left * right."""
    return builder.fadd(term, builder.fmul(left, right, flags=_FLAGS), flags=_FLAGS)


# vectors --------------------------------------------------------------------------------------------------------------


@intrinsic
def load(typingctx: Any, array: Any, offset: Any) -> Any:
    """The neighbours of a contiguous array from the flat position ``offset`` on."""
    kind = _Vector(array.dtype)

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments, kind.llvm)
        return builder.load(place, align=kind.bits // 8)

    return kind(array, types.intp), codegen


@intrinsic
def store(typingctx: Any, array: Any, offset: Any, value: Any) -> Any:
    """Write neighbours of a contiguous array from the flat position ``offset`` on."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _address(context, builder, signature.args[0], *arguments[:2], value.llvm)
        builder.store(arguments[2], place, align=value.bits // 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, value), codegen


@intrinsic
def ones_like(typingctx: Any, value: Any) -> Any:
    """1 in every lane."""
    return value(value), lambda context, builder, signature, arguments: _constant(value, 1.0)


@intrinsic
def where_positive(typingctx: Any, condition: Any, value: Any) -> Any:
    """``value`` in the lanes where ``condition`` is positive, 0 elsewhere; NaN where the condition is NaN."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        nothing = _constant(value, 0.0)
        kept = builder.select(builder.fcmp_ordered(">", arguments[0], nothing), arguments[1], nothing)
        number = builder.fcmp_ordered("ord", arguments[0], arguments[0])
        return builder.select(number, kept, arguments[0])

    return value(value, value), codegen


def _teach(symbol: Any, method: str) -> None:
    """Make an operator of the language work on vectors; the symbol is typed and lowered without further compilation."""

    @infer_global(symbol)
    class Typed(AbstractTemplate):  # numba registers the class when it is made
        def generic(self, args: Any, kws: Any) -> Any:
            same = len(args) == 2 and isinstance(args[0], _Vector) and args[0] == args[1]
            return args[0](*args) if same else None

    @lower_builtin(symbol, _Vector, _Vector)
    def lowered(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return getattr(builder, method)(*arguments, flags=_FLAGS)


for _symbol, _method in ((operator.add, "fadd"), (operator.sub, "fsub"), (operator.mul, "fmul")):
    _teach(_symbol, _method)


def _powers_of_e(builder: Any, kind: _Vector, x: Any) -> tuple[Any, Any]:
    """s = 2^n and q = e^r - 1 of e^x = s e^r, |r| <= ln(2) / 2, with x held within the far ends."""
    far, bits, shift = _FAR[kind.bits], ir.IntType(kind.bits), _MANTISSA[kind.bits]
    for sign, bound in (("<", -far), (">", far)):
        bound = _constant(kind, bound)
        x = builder.select(builder.fcmp_ordered(sign, x, bound), bound, x)
    # Adding 1.5 * 2^shift rounds to an integer that then sits in the low bits, with the bias of exponents.
    rounder = _constant(kind, 1.5 * 2.0**shift + _BIAS[kind.bits])
    shifted = builder.fadd(builder.fmul(x, _constant(kind, 1 / math.log(2))), rounder)
    n = builder.fsub(shifted, rounder)
    # ln 2 in two parts: the first has trailing zeros, so that multiples of it are exact.
    high = 0.693359375 if kind.bits == 32 else 6.93147180369123816490e-01
    low = -2.12194440054690583e-4 if kind.bits == 32 else 1.90821492927058770002e-10
    r = _plus(builder, x, n, _constant(kind, -high))
    r = _plus(builder, r, n, _constant(kind, -low))
    q = _constant(kind, 1 / math.factorial(_DEGREE[kind.bits]))
    for k in range(_DEGREE[kind.bits] - 1, 0, -1):
        q = _plus(builder, _constant(kind, 1 / math.factorial(k)), q, r)
    moved = builder.shl(
        builder.bitcast(shifted, kind.integers), ir.Constant(kind.integers, [ir.Constant(bits, shift)] * kind.count)
    )
    return builder.bitcast(moved, kind.llvm), builder.fmul(q, r, flags=_FLAGS)


@intrinsic
def sigmoid(typingctx: Any, value: Any) -> Any:
    """1 / (1 + e^-x)."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        one = _constant(value, 1.0)
        s, q = _powers_of_e(builder, value, builder.fsub(_constant(value, -0.0), arguments[0]))
        return builder.fdiv(one, builder.fadd(one, _plus(builder, s, s, q)))

    return value(value), codegen


@intrinsic
def tanh(typingctx: Any, value: Any) -> Any:
    """(e^2x - 1) / (e^2x + 1), with few relative errors also near 0."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        s, q = _powers_of_e(builder, value, builder.fadd(arguments[0], arguments[0]))
        less = _plus(builder, builder.fsub(s, _constant(value, 1.0)), s, q)
        return builder.fdiv(less, builder.fadd(less, _constant(value, 2.0)))

    return value(value), codegen


# tiles ----------------------------------------------------------------------------------------------------------------


def _blank(vectors: int) -> Any:
    @intrinsic
    def blank(typingctx: Any, array: Any) -> Any:
        kind = _Tile(array.dtype, vectors)

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            whole = ir.ArrayType(kind.vector.llvm, ROWS * vectors)
            return ir.Constant(whole, [_constant(kind.vector, 0.0)] * (ROWS * vectors))

        return kind(array), codegen

    return blank


blank_wide, blank_half, blank_one = _blank(VECTORS), _blank(VECTORS // 2), _blank(1)


@intrinsic
def _with_term(typingctx: Any, tile: Any, left: Any, place: Any, row_step: Any, right: Any, at: Any) -> Any:
    """Tile + the outer product of ROWS numbers, ``row_step`` apart, and as many neighbours as the tile is wide."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        sums, left_array, offset, step, right_array, start = arguments
        kind, found = tile.vector, []
        neighbours = []
        for v in range(tile.vectors):
            where = builder.add(start, ir.Constant(ir.IntType(64), v * kind.count))
            where = _address(context, builder, signature.args[4], right_array, where, kind.llvm)
            neighbours.append(builder.load(where, align=kind.bits // 8))
        for row in range(ROWS):
            number = builder.load(_address(context, builder, signature.args[1], left_array, offset, kind.scalar))
            number = _everywhere(builder, kind, number)
            for v in range(tile.vectors):
                before = builder.extract_value(sums, row * tile.vectors + v)
                found.append(_plus(builder, before, number, neighbours[v]))
            offset = builder.add(offset, step)
        return _packed(builder, sums.type, found)

    return tile(tile, left, types.intp, types.intp, right, types.intp), codegen


def _packed(builder: Any, kind: Any, values: list[Any]) -> Any:
    whole = ir.Constant(kind, ir.Undefined)
    for index, value in enumerate(values):
        whole = builder.insert_value(whole, value, index)
    return whole


def _places(context: Any, builder: Any, tile: _Tile, kind: Any, array: Any, offset: Any, step: Any) -> list[Any]:
    found = []
    for _ in range(ROWS):
        for v in range(tile.vectors):
            where = builder.add(offset, ir.Constant(ir.IntType(64), v * tile.vector.count))
            found.append(_address(context, builder, kind, array, where, tile.vector.llvm))
        offset = builder.add(offset, step)
    return found


@intrinsic
def taken(typingctx: Any, tile: Any, array: Any, offset: Any, step: Any) -> Any:
    """A tile of the shape of another one from rows ``step`` apart."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = _places(context, builder, tile, signature.args[1], *arguments[1:])
        align = tile.vector.bits // 8
        return _packed(builder, arguments[0].type, [builder.load(place, align=align) for place in places])

    return tile(tile, array, types.intp, types.intp), codegen


@intrinsic
def put(typingctx: Any, tile: Any, array: Any, offset: Any, step: Any) -> Any:
    """Write a tile to rows ``step`` apart."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        places = _places(context, builder, tile, signature.args[1], *arguments[1:])
        for index, place in enumerate(places):
            builder.store(builder.extract_value(arguments[0], index), place, align=tile.vector.bits // 8)
        return context.get_dummy_value()

    return types.void(tile, array, types.intp, types.intp), codegen


@kernel(forceinline=True)
def with_product(tile, left, place, row_step, step, right, at, width, count):
    """Tile + sum_k left_rk right_k: row r of the tile reads left at place + r row_step + k step, right at + k width."""
    for k in range(count):
        tile = _with_term(tile, left, place + k * step, row_step, right, at + k * width)
    return tile
