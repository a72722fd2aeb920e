"""Small blocks of float32 products that stay in registers, as compiled kernels use them. CPU; no I/O.

``product`` multiplies a few rows A with some columns of B, ``dots`` a few rows with a few others. A
compiler keeps such a block in memory when it is written as loops; here it is written as vectors.
Operands are given by address, their strides in numbers. One of them may be int8 instead of float32:
``like`` is then an empty array of that type.

Shapes: M rows of a block, K steps, W the block's width, R rows of the other operand.
"""

from importlib import import_module
from typing import Any

from loraland_engine.native import ir, types

llvm: Any = import_module("llvmlite.binding")
extending: Any = import_module("numba.extending")


def _lanes() -> int:
    features = llvm.get_host_cpu_features()
    if features.get("avx512f"):
        return 16
    return 8 if features.get("avx") else 4


LANES = _lanes()
_VECTORS = 3
WIDTH = LANES * _VECTORS
# The sums, a row of B and a number of A fit the registers: 32 of them, 16 before AVX-512.
ROWS = 4 if LANES == 8 else 8
# As many sums again where both operands are vectors.
SQUARE = 2 if LANES == 8 else 4

_F32, _I8, _I32, _I64 = ir.FloatType(), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_FLAGS = ("contract",)
_ZERO = ir.Constant(_VECTOR, [0.0] * LANES)


def _build_product(num_rows: int, num_vectors: int = _VECTORS, *, adds: bool) -> Any:
    """Return an intrinsic: C [M, W] = A [M, K] B [K, W], or += where it ``adds``.

    A's strides are for a row and for a step; there is at least one step.
    """

    def product(
        _context: Any, c: Any, c_row: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_row: Any,
        steps: Any, like: Any,
    ) -> Any:  # fmt: skip
        is_int8 = like.dtype == types.int8

        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _emit_product(builder, (num_rows, num_vectors), args, adds=adds, is_int8=is_int8)
            return context.get_dummy_value()

        return types.void(c, c_row, a, a_row, a_step, b, b_row, steps, like), generate

    return extending.intrinsic(product)


def _emit_product(
    builder: Any, shape: tuple[int, int], args: Any, *, adds: bool, is_int8: bool
) -> None:
    c, c_row, a, a_row, a_step, b, b_row, steps, _ = args
    num_rows, num_vectors = shape
    places = [
        _place(builder, c, builder.add(builder.mul(c_row, _I64(m)), _I64(v * LANES)))
        for m in range(num_rows)
        for v in range(num_vectors)
    ]
    first = [builder.load(place, align=4) if adds else _ZERO for place in places]

    def step(k: Any, sums: list[Any]) -> list[Any]:
        row = builder.mul(k, b_row)
        columns = [
            _load(builder, b, builder.add(row, _I64(v * LANES)), is_int8=is_int8)
            for v in range(num_vectors)
        ]
        added: list[Any] = []
        for m in range(num_rows):
            at = builder.add(builder.mul(k, a_step), builder.mul(a_row, _I64(m)))
            number = _everywhere(builder, builder.load(_pointer(builder, a, at, _F32), align=4))
            for column in columns:
                added.append(_multiply_add(builder, sums[len(added)], number, column))
        return added

    sums = _emit_loop(builder, first, step, end=steps, increment=1)
    for place, value in zip(places, sums, strict=True):
        builder.store(value, place, align=4)


def _build_dots(num_rows: int, num_others: int) -> Any:
    """Return an intrinsic: C [M, R] = the products of M rows X and R rows A over ``width`` numbers.

    The width is a multiple of ``LANES``, and not 0. The last operand, A, may be int8.
    """

    def dots(
        _context: Any, c: Any, c_row: Any, x: Any, x_row: Any, a: Any, a_row: Any, width: Any,
        like: Any,
    ) -> Any:  # fmt: skip
        is_int8 = like.dtype == types.int8

        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _emit_dots(builder, num_rows, num_others, args, is_int8=is_int8)
            return context.get_dummy_value()

        return types.void(c, c_row, x, x_row, a, a_row, width, like), generate

    return extending.intrinsic(dots)


def _emit_dots(builder: Any, num_rows: int, num_others: int, args: Any, *, is_int8: bool) -> None:
    c, c_row, x, x_row, a, a_row, width, _ = args

    def step(d: Any, sums: list[Any]) -> list[Any]:
        rows, others = (
            [
                _load(builder, address, builder.add(d, builder.mul(stride, _I64(i))), is_int8=kind)
                for i in range(count)
            ]
            for address, stride, count, kind in (
                (x, x_row, num_rows, False), (a, a_row, num_others, is_int8)
            )
        )  # fmt: skip
        pairs = [(row, other) for row in rows for other in others]
        return [_multiply_add(builder, s, *pair) for s, pair in zip(sums, pairs, strict=True)]

    start = [_ZERO] * (num_rows * num_others)
    sums = _emit_loop(builder, start, step, end=width, increment=LANES)
    for index, total in enumerate(sums):
        m, r = divmod(index, num_others)
        place = _pointer(builder, c, builder.add(builder.mul(c_row, _I64(m)), _I64(r)), _F32)
        builder.store(_total(builder, total), place, align=4)


def _emit_loop(builder: Any, start: list[Any], step: Any, *, end: Any, increment: int) -> list[Any]:
    """Emit a loop that carries vectors; return them as they are after it."""
    before = builder.block
    loop, after = builder.append_basic_block("block"), builder.append_basic_block("block.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    index = builder.phi(_I64)
    index.add_incoming(_I64(0), before)
    carried = [builder.phi(_VECTOR) for _ in start]
    for value, first in zip(carried, start, strict=True):
        value.add_incoming(first, before)
    results: list[Any] = step(index, carried)
    following = builder.add(index, _I64(increment))
    index.add_incoming(following, builder.block)
    for value, result in zip(carried, results, strict=True):
        value.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, end), loop, after)
    builder.position_at_end(after)
    return results


def _multiply_add(builder: Any, total: Any, left: Any, right: Any) -> Any:
    return builder.fadd(total, builder.fmul(left, right, flags=_FLAGS), flags=_FLAGS)


def _pointer(builder: Any, address: Any, offset: Any, kind: Any, size: int = 4) -> Any:
    place = builder.add(address, builder.mul(offset, _I64(size)))
    return builder.inttoptr(place, kind.as_pointer())


def _place(builder: Any, address: Any, offset: Any) -> Any:
    return _pointer(builder, address, offset, _VECTOR)


def _load(builder: Any, address: Any, offset: Any, *, is_int8: bool) -> Any:
    if not is_int8:
        return builder.load(_place(builder, address, offset), align=4)
    kind = ir.VectorType(_I8, LANES)
    numbers = builder.load(_pointer(builder, address, offset, kind, size=1), align=1)
    return builder.sitofp(builder.sext(numbers, ir.VectorType(_I32, LANES)), _VECTOR)


def _everywhere(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, number, _I32(0))
    return builder.shuffle_vector(
        one, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    )


def _total(builder: Any, vector: Any) -> Any:
    """Return the sum of the lanes, by halves."""
    half = LANES // 2
    while half:
        order = [(i + half) % LANES for i in range(LANES)]
        other = builder.shuffle_vector(
            vector, vector, ir.Constant(ir.VectorType(_I32, LANES), order)
        )
        vector = builder.fadd(vector, other)
        half //= 2
    return builder.extract_element(vector, _I32(0))


# Within compiled code. W is ``WIDTH``, or ``LANES`` in those of a lane's width.
multiply_rows = _build_product(ROWS, adds=False)
multiply_row = _build_product(1, adds=False)
add_rows = _build_product(ROWS, adds=True)
add_row = _build_product(1, adds=True)
add_rows_narrow = _build_product(ROWS, 1, adds=True)
add_row_narrow = _build_product(1, 1, adds=True)
# M and R are ``SQUARE``, or 1.
dot_square = _build_dots(SQUARE, SQUARE)
dot_rows = _build_dots(SQUARE, 1)
dot_others = _build_dots(1, SQUARE)
dot_one = _build_dots(1, 1)
