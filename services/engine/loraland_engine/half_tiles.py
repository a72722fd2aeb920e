"""Numbers rounded to bfloat16 and laid out as products in tile registers take them. No I/O.

Rows of a product lie as they are, 32 halves to a tile's line. Of the other operand, a line holds pairs
of halves for 16 outs: ``pack_square`` makes such lines of 16 outs' own rows, ``pack_pair`` of two rows
that have the outs side by side. Operands are given by address, strides in numbers. ``like``, an empty
array, says what numbers they are: float32, int8, or bfloat16 as uint16.

Needs AVX-512 for bfloat16, as every processor with tiles of halves has.
"""

from importlib import import_module
from typing import Any

from loraland_engine.native import ir, types

extending: Any = import_module("numba.extending")

LINES = 16
# Numbers of a row in a tile's line, and the bytes of the line.
STEP, LINE_BYTES = 32, 64
_F32, _I8, _I16, _I32, _I64 = ir.FloatType(), *map(ir.IntType, (8, 16, 32, 64))
_PAIRS = ir.VectorType(_I32, LINES)


class _Half(ir.HalfType):  # type: ignore[misc]
    """llvmlite has no bfloat16 of its own."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


# Types are had once each; without it this would be the class above.
_Half._create_instance()
HALF = _Half()


def _build_round(_context: Any, _to: Any, _source: Any, _count: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        to, source, count = args
        before = builder.block
        loop, after = builder.append_basic_block("round"), builder.append_basic_block("round.end")
        builder.branch(loop)
        builder.position_at_end(loop)
        index = builder.phi(_I64)
        index.add_incoming(_I64(0), before)
        numbers = _load(builder, _at(builder, source, index, 4), STEP, types.float32)
        _store(builder, _rounded(builder, numbers, types.float32), _at(builder, to, index, 2))
        following = builder.add(index, _I64(STEP))
        index.add_incoming(following, builder.block)
        builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64), generate


def _build_pack_square(
    _context: Any, _to: Any, _source: Any, _stride: Any, _last: Any, like: Any
) -> Any:
    kind = like.dtype

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        to, source, stride, last, _ = args
        rows = []
        for line in range(LINES):
            # Lines beyond the last row repeat it: what comes of them is not looked at.
            is_there = builder.icmp_signed("<", _I64(line), last)
            row = builder.mul(builder.select(is_there, _I64(line), last), stride)
            numbers = _load(builder, _at(builder, source, row, _size(kind)), STEP, kind)
            rows.append(_rounded(builder, numbers, kind))
        for line, row in enumerate(_transposed(builder, rows)):
            _store(builder, row, builder.add(to, _I64(line * LINE_BYTES)))
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.int64, like), generate


def _build_pack_pair(_context: Any, _to: Any, _upper: Any, _lower: Any, like: Any) -> Any:
    kind = like.dtype

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        to, upper, lower, _ = args
        left, right = (_load(builder, address, LINES, kind) for address in (upper, lower))
        order = [i // 2 + LINES * (i % 2) for i in range(STEP)]
        pairs = builder.shuffle_vector(left, right, ir.Constant(ir.VectorType(_I32, STEP), order))
        _store(builder, _rounded(builder, pairs, kind), to)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, like), generate


def _transposed(builder: Any, rows: list[Any]) -> list[Any]:
    """Return 16 vectors of what was in each lane of 16: halves change places, then quarters, ..."""
    distance = LINES // 2
    while distance:
        lanes = range(LINES)
        low = [i if not i & distance else LINES + i - distance for i in lanes]
        high = [i + distance if not i & distance else LINES + i for i in lanes]
        orders = [ir.Constant(_PAIRS, order) for order in (low, high)]
        following = list(rows)
        for i in lanes:
            if not i & distance:
                pair = rows[i], rows[i + distance]
                following[i] = builder.shuffle_vector(*pair, orders[0])
                following[i + distance] = builder.shuffle_vector(*pair, orders[1])
        rows, distance = following, distance // 2
    return rows


def _rounded(builder: Any, numbers: Any, kind: Any) -> Any:
    """Return 32 numbers as 16 pairs of halves, to the nearest."""
    if kind == types.int8:
        numbers = builder.sitofp(numbers, ir.VectorType(_F32, STEP))
    if kind != types.uint16:
        numbers = builder.fptrunc(numbers, ir.VectorType(HALF, STEP))
    return builder.bitcast(numbers, _PAIRS)


def _size(kind: Any) -> int:
    return int(kind.bitwidth) // 8


def _at(builder: Any, address: Any, index: Any, size: int) -> Any:
    return builder.add(address, builder.mul(index, _I64(size)))


def _load(builder: Any, address: Any, count: int, kind: Any) -> Any:
    item = {types.float32: _F32, types.int8: _I8, types.uint16: _I16}[kind]
    pointer = builder.inttoptr(address, ir.VectorType(item, count).as_pointer())
    return builder.load(pointer, align=_size(kind))


def _store(builder: Any, pairs: Any, address: Any) -> None:
    builder.store(pairs, builder.inttoptr(address, _PAIRS.as_pointer()), align=4)


# Within compiled code: round ``count`` float32, a multiple of 32 and not 0, from one address to another.
round_row = extending.intrinsic(_build_round)
# Within compiled code: 16 lines of pairs, of 32 numbers from each of 16 rows; ``last`` is the last row.
pack_square = extending.intrinsic(_build_pack_square)
# Within compiled code: one line of pairs, of 16 numbers from each of two rows.
pack_pair = extending.intrinsic(_build_pack_pair)
