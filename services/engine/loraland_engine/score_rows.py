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


def _build_largest(_context: Any, _scores: Any, _count: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        def step(_index: Any, numbers: Any, found: Any) -> Any:
            return _larger(builder, numbers, found)

        start = _everywhere(builder, _F32(_LOWEST))
        return _reduced(builder, _emit_loop(builder, start, args, step), _larger)

    return types.float32(types.int64, types.int64), generate


def _build_weigh(_context: Any, _scores: Any, _count: Any, _largest: Any, _weights: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        *given, largest, weights = args
        most = _everywhere(builder, largest)

        def step(index: Any, numbers: Any, total: Any) -> Any:
            weight = _power(builder, builder.fsub(numbers, most))
            at = builder.add(weights, builder.mul(index, _I64(2)))
            to = builder.inttoptr(at, _HALVES.as_pointer())
            builder.store(builder.fptrunc(weight, _HALVES), to, align=2)
            return builder.fadd(total, weight)

        start = _everywhere(builder, _F32(0.0))
        return _reduced(builder, _emit_loop(builder, start, given, step), ir.IRBuilder.fadd)

    return types.float32(types.int64, types.int64, types.float32, types.int64), generate


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


def _emit_loop(builder: Any, start: Any, given: Any, step: Any) -> Any:
    """Emit a loop over ``count`` numbers, a multiple of 32 and not 0, that carries a vector."""
    address, count = given
    before = builder.block
    loop, after = builder.append_basic_block("scores"), builder.append_basic_block("scores.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    index, carried = builder.phi(_I64), builder.phi(_FLOATS)
    index.add_incoming(_I64(0), before)
    carried.add_incoming(start, before)
    at = builder.add(address, builder.mul(index, _I64(4)))
    numbers = builder.load(builder.inttoptr(at, _FLOATS.as_pointer()), align=4)
    result = step(index, numbers, carried)
    following = builder.add(index, _I64(STEP))
    index.add_incoming(following, builder.block)
    carried.add_incoming(result, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)
    return result


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


def _everywhere(builder: Any, number: Any) -> Any:
    nothing = ir.Constant(_FLOATS, ir.Undefined)
    one = builder.insert_element(nothing, number, _I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_INTS, [0] * STEP))


def _call(builder: Any, name: str, vector: Any) -> Any:
    name = f"{name}.v{STEP}f32"
    function = builder.module.globals.get(name)
    if function is None:
        kind = ir.FunctionType(_FLOATS, [_FLOATS])
        function = ir.Function(builder.module, kind, name)
    return builder.call(function, [vector])


# Within compiled code: the largest of ``count`` scores, a multiple of 32.
largest = extending.intrinsic(_build_largest)
# Within compiled code: write the weights relative to ``largest``; return their sum before rounding.
weigh = extending.intrinsic(_build_weigh)
