"""Small blocks of float32 products that stay in registers, as compiled kernels use them. CPU; no I/O.

``product`` multiplies a few rows A, given by address and any strides, with ``WIDTH`` columns of B.
A compiler keeps such a block in memory when it is written as loops; here it is written as vectors.

Shapes: M rows of a block, K steps, W the block's width.
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

_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_VECTOR = ir.VectorType(_F32, LANES)
_FLAGS = ("contract",)


def _build_product(num_rows: int, *, adds: bool) -> Any:
    """Return an intrinsic: C [M, W] = A [M, K] B [K, W], or += where it ``adds``.

    A's strides are for a row and for a step; all strides count floats.
    """

    def product(
        _context: Any, c: Any, c_row: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_row: Any,
        steps: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _emit_product(builder, num_rows, args, adds=adds)
            return context.get_dummy_value()

        return types.void(c, c_row, a, a_row, a_step, b, b_row, steps), generate

    return extending.intrinsic(product)


def _emit_product(builder: Any, num_rows: int, args: Any, *, adds: bool) -> None:
    c, c_row, a, a_row, a_step, b, b_row, steps = args
    places = [
        (_place(builder, c, builder.mul(c_row, _I64(m)), v * LANES), m, v)
        for m in range(num_rows)
        for v in range(_VECTORS)
    ]
    zero = ir.Constant(_VECTOR, [0.0] * LANES)
    first = [_load(builder, place) if adds else zero for place, _, _ in places]
    before = builder.block
    loop, after = builder.append_basic_block("block"), builder.append_basic_block("block.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    k = builder.phi(_I64)
    k.add_incoming(_I64(0), before)
    sums = [builder.phi(_VECTOR) for _ in places]
    for total, start in zip(sums, first, strict=True):
        total.add_incoming(start, before)
    row_b = builder.mul(k, b_row)
    columns = [_load(builder, _place(builder, b, row_b, v * LANES)) for v in range(_VECTORS)]
    step_a = builder.mul(k, a_step)
    added = []
    for m in range(num_rows):
        offset = builder.add(step_a, builder.mul(a_row, _I64(m)))
        number = _everywhere(builder, builder.load(_pointer(builder, a, offset, _F32), align=4))
        for v in range(_VECTORS):
            term = builder.fmul(number, columns[v], flags=_FLAGS)
            added.append(builder.fadd(sums[m * _VECTORS + v], term, flags=_FLAGS))
    following = builder.add(k, _I64(1))
    k.add_incoming(following, builder.block)
    for total, value in zip(sums, added, strict=True):
        total.add_incoming(value, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for (place, _, _), value in zip(places, added, strict=True):
        builder.store(value, place, align=4)


def _pointer(builder: Any, address: Any, offset: Any, kind: Any) -> Any:
    """Return a pointer to the float at ``offset``."""
    place = builder.add(address, builder.mul(offset, _I64(4)))
    return builder.inttoptr(place, kind.as_pointer())


def _place(builder: Any, address: Any, offset: Any, column: int) -> Any:
    return _pointer(builder, address, builder.add(offset, _I64(column)), _VECTOR)


def _load(builder: Any, place: Any) -> Any:
    return builder.load(place, align=4)


def _everywhere(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_VECTOR, ir.Undefined)
    one = builder.insert_element(nothing, number, _I32(0))
    return builder.shuffle_vector(
        one, nothing, ir.Constant(ir.VectorType(_I32, LANES), [0] * LANES)
    )


# Within compiled code. ``steps`` is at least 1.
multiply_rows = _build_product(ROWS, adds=False)
multiply_row = _build_product(1, adds=False)
add_rows = _build_product(ROWS, adds=True)
add_row = _build_product(1, adds=True)
