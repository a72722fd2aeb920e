"""A row of scores becomes a row of weights in bfloat16, as compiled kernels use it. No I/O.

Scores are logarithms to base 2, so that a weight is a power of 2: a shift and a short series. What the
series is off by, 4e-5, is far less than what a weight loses when it is rounded. Operands are given by
address; numbers come 32 at a time.

Needs AVX-512 for bfloat16, as every processor with tiles of halves has.
"""

from importlib import import_module
from typing import Any

import numpy as np

from loraland_engine import half_tiles
from loraland_engine.native import ir, types

extending: Any = import_module("numba.extending")

STEP = 32
LOG2_E = float(np.log2(np.e))
# Powers of ln 2 over factorials, the highest first.
_SERIES = (0.009618129107628477, 0.05550410866482158, 0.2402265069591007, 0.6931471805599453, 1.0)
# Of exponents, and of scores: none is lower.
_SMALLEST, _LOWEST = -126.0, -3.0e38
_MANTISSA_BITS = 23
_FLAGS = ("nsz", "contract")
_F32, _I32, _I64 = ir.FloatType(), ir.IntType(32), ir.IntType(64)
_FLOATS, _INTS = ir.VectorType(_F32, STEP), ir.VectorType(_I32, STEP)
_HALVES = ir.VectorType(half_tiles.HALF, STEP)


def _build_weigh(_context: Any, _scores: Any, _size: Any, _count: Any, _weights: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        scores, size, count, weights = args
        lowest = _everywhere(builder, _F32(_LOWEST))

        def seen(index: Any) -> Any:
            left = builder.trunc(builder.sub(count, index), _I32)
            lanes = ir.Constant(_INTS, [*range(STEP)])
            is_seen = builder.icmp_signed("<", lanes, _everywhere(builder, left, _INTS))
            return builder.select(is_seen, _load(builder, scores, index), lowest)

        def look(index: Any, found: Any) -> Any:
            return _larger(builder, seen(index), found)

        largest = _reduced(builder, _emit_loop(builder, lowest, size, look), _larger)
        most = _everywhere(builder, largest)

        def weigh(index: Any, total: Any) -> Any:
            weight = _power(builder, builder.fsub(seen(index), most))
            at = builder.add(weights, builder.mul(index, _I64(2)))
            to = builder.inttoptr(at, _HALVES.as_pointer())
            builder.store(builder.fptrunc(weight, _HALVES), to, align=2)
            return builder.fadd(total, weight)

        start = _everywhere(builder, _F32(0.0))
        return _reduced(builder, _emit_loop(builder, start, size, weigh), ir.IRBuilder.fadd)

    return types.float32(types.int64, types.int64, types.int64, types.int64), generate


def _build_scale(_context: Any, _to: Any, _source: Any, _count: Any, _factor: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        to, source, count, factor = args
        everywhere = _everywhere(builder, factor)

        def scale(index: Any, carried: Any) -> Any:
            numbers = builder.fmul(_load(builder, source, index), everywhere)
            builder.store(numbers, _place(builder, to, index), align=4)
            return carried

        _emit_loop(builder, everywhere, count, scale)
        return context.get_dummy_value()

    return types.void(types.int64, types.int64, types.int64, types.float32), generate


def _power(builder: Any, numbers: Any) -> Any:
    """Return 2 to the numbers, none of which is positive."""
    numbers = _larger(builder, numbers, _everywhere(builder, _F32(_SMALLEST)))
    whole = _call(builder, "llvm.rint", numbers)
    rest = builder.fsub(numbers, whole)
    series = _everywhere(builder, _F32(_SERIES[0]))
    for factor in _SERIES[1:]:
        series = builder.fmul(series, rest, flags=_FLAGS)
        series = builder.fadd(series, _everywhere(builder, _F32(factor)), flags=_FLAGS)
    shift = ir.Constant(_INTS, [_MANTISSA_BITS] * STEP)
    exponent = builder.shl(builder.fptosi(whole, _INTS), shift)
    return builder.bitcast(builder.add(builder.bitcast(series, _INTS), exponent), _FLOATS)


def _emit_loop(builder: Any, start: Any, count: Any, step: Any) -> Any:
    """Emit a loop over ``count`` numbers, a multiple of 32 and not 0, that carries a vector."""
    before = builder.block
    loop, after = builder.append_basic_block("scores"), builder.append_basic_block("scores.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    index, carried = builder.phi(_I64), builder.phi(_FLOATS)
    index.add_incoming(_I64(0), before)
    carried.add_incoming(start, before)
    result = step(index, carried)
    following = builder.add(index, _I64(STEP))
    index.add_incoming(following, builder.block)
    carried.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return result


def _place(builder: Any, address: Any, index: Any) -> Any:
    at = builder.add(address, builder.mul(index, _I64(4)))
    return builder.inttoptr(at, _FLOATS.as_pointer())


def _load(builder: Any, address: Any, index: Any) -> Any:
    return builder.load(_place(builder, address, index), align=4)


def _larger(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", left, right), left, right)


def _reduced(builder: Any, vector: Any, combine: Any) -> Any:
    """Return what ``combine`` makes of all lanes, by halves."""
    count = STEP
    while count > 1:
        count //= 2
        low, high = (
            builder.shuffle_vector(
                vector, vector, ir.Constant(ir.VectorType(_I32, count), [*range(at, at + count)])
            )
            for at in (0, count)
        )
        vector = combine(builder, low, high)
    return builder.extract_element(vector, _I32(0))


def _call(builder: Any, name: str, vector: Any) -> Any:
    name = f"{name}.v{STEP}f32"
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, [vector])


def _everywhere(builder: Any, number: Any, kind: Any = _FLOATS) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, number, _I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_INTS, [0] * STEP))


# Within compiled code: write the weights of ``size`` scores, a multiple of 32, of which ``count`` are
# seen; the others get as good as none. Return the weights' sum before they were rounded.
weigh = extending.intrinsic(_build_weigh)
# Within compiled code: multiply ``count`` float32, a multiple of 32, into another place.
scale_row = extending.intrinsic(_build_scale)
