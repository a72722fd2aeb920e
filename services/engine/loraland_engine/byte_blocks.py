"""The product of bytes as compiled kernels use it: one block of outputs with a few rows. CPU only.

A block is 16 outputs over the whole width: for each four inputs 64 bytes, four of each output. That
is what one VNNI instruction multiplies with four bytes of a row. Blocks lie one after the other, in
huge pages where the system has them: a step reads every one of them.

Shapes: N outs, D in, C blocks.
"""

import contextlib
import mmap
from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loraland_engine.native import ir

llvm: Any = import_module("llvmlite.binding")
extending: Any = import_module("numba.extending")
types: Any = import_module("numba.types")

OUTS, INS = 16, 4
# The width that the compiled loops take in one go.
WIDTH = 16
BLOCK_ROWS = (16, 8, 4, 2, 1)
_HUGE = 1 << 21
_PREFETCH_BYTES = 2048
# Since this version the instruction's operands are typed as the bytes that they are.
_BYTES_SINCE = 22


def is_supported(num_in: int) -> bool:
    """Whether this machine multiplies bytes so, and the width divides."""
    features = llvm.get_host_cpu_features()
    return bool(features.get("avx512vnni")) and num_in % WIDTH == 0


def pack(weight_ND: Tensor, memory: np.ndarray) -> np.ndarray:
    """Write the blocks to the beginning of ``memory``, as [C, D / 4, 16, 4]; return them."""
    num_out, num_in = weight_ND.shape
    blocks = -(-num_out // OUTS)
    packed = memory[: blocks * OUTS * num_in].reshape(blocks, num_in // INS, OUTS, INS)
    padded = torch.zeros(blocks * OUTS, num_in, dtype=torch.int8)
    padded[:num_out] = weight_ND
    packed[:] = padded.view(blocks, OUTS, num_in // INS, INS).transpose(1, 2).numpy()
    return packed


def packed_bytes(num_out: int, num_in: int) -> int:
    """Return what ``pack`` needs."""
    return -(-num_out // OUTS) * OUTS * num_in


class Memory:
    """Huge pages for one pack of blocks after the other."""

    def __init__(self, num_bytes: int) -> None:
        self._left = huge_memory(num_bytes)

    def take(self, num_bytes: int) -> np.ndarray:
        """Return the next part."""
        assert num_bytes <= len(self._left), (num_bytes, len(self._left))
        taken, self._left = self._left[:num_bytes], self._left[num_bytes:]
        return taken


def huge_memory(num_bytes: int) -> np.ndarray:
    """Return zeroed int8 memory in huge pages where there are any: fewer addresses to look up."""
    # Private: shared memory has huge pages only where the machine's administrator turned them on.
    memory = mmap.mmap(-1, num_bytes + _HUGE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    # A kernel that knows no such advice refuses it.
    with contextlib.suppress(AttributeError, OSError):
        memory.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(memory, dtype=np.int8)
    start = -whole.ctypes.data % _HUGE
    return whole[start : start + num_bytes]


def _build_multiply(num_rows: int) -> Any:
    """Return an intrinsic: sums [rows, 16] of ``num_rows`` rows, from addresses."""
    # Enough sums in flight to hide an instruction's latency.
    unroll = max(1, 4 // num_rows)

    def multiply(_context: Any, row: Any, stride: Any, block: Any, width: Any, sums: Any) -> Any:
        def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            _emit(builder, num_rows, unroll, args)
            return _context.get_dummy_value()

        return types.void(row, stride, block, width, sums), generate

    return extending.intrinsic(multiply)


_I32, _I64, _I8 = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_LANES = ir.VectorType(_I32, OUTS)
_FOURS = ir.VectorType(_I8, OUTS * INS)
_F32 = ir.FloatType()
_FLOATS = ir.VectorType(_F32, OUTS)


def _emit(builder: Any, num_rows: int, unroll: int, given: Any) -> None:
    """Emit the loop over the width and the stores of the sums."""
    row, stride, block, width, sums = given
    module, step = builder.module, INS * unroll
    before = builder.block
    loop, after = builder.append_basic_block("bytes"), builder.append_basic_block("bytes.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    d = builder.phi(_I64)
    d.add_incoming(_I64(0), before)
    totals = [builder.phi(_LANES) for _ in range(num_rows * unroll)]
    for total in totals:
        total.add_incoming(ir.Constant(_LANES, [0] * OUTS), before)
    ahead = builder.add(block, builder.mul(d, _I64(OUTS)))
    added = []
    for u in range(unroll):
        at = builder.add(ahead, _I64(u * OUTS * INS))
        _emit_prefetch(builder, module, builder.add(at, _I64(_PREFETCH_BYTES)))
        weights = builder.load(builder.inttoptr(at, _LANES.as_pointer()), align=64)
        for r in range(num_rows):
            place = builder.add(builder.mul(stride, _I64(r)), builder.add(d, _I64(u * INS)))
            four = builder.load(
                builder.inttoptr(builder.add(row, place), _I32.as_pointer()), align=4
            )
            added.append(_emit_add(builder, module, totals[u * num_rows + r], four, weights))
    following = builder.add(d, _I64(step))
    d.add_incoming(following, builder.block)
    for total, sum_ in zip(totals, added, strict=True):
        total.add_incoming(sum_, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, width), loop, after)
    builder.position_at_end(after)
    for r in range(num_rows):
        total = added[r]
        for u in range(1, unroll):
            total = builder.add(total, added[u * num_rows + r])
        to = builder.add(sums, _I64(r * OUTS * INS))
        builder.store(total, builder.inttoptr(to, _LANES.as_pointer()), align=4)


def _emit_add(builder: Any, module: Any, total: Any, four: Any, weights: Any) -> Any:
    """Emit the instruction: to each sum, four bytes of the row times four weights."""
    everywhere = _everywhere(builder, four, _LANES)
    operand = _FOURS if llvm.llvm_version_info[0] >= _BYTES_SINCE else _LANES
    function = _declared(
        module, "llvm.x86.avx512.vpdpbusd.512", ir.FunctionType(_LANES, [_LANES, operand, operand])
    )
    return builder.call(
        function, [total, builder.bitcast(everywhere, operand), builder.bitcast(weights, operand)]
    )


def _emit_prefetch(builder: Any, module: Any, address: Any) -> None:
    pointer = _I8.as_pointer()
    function = _declared(
        module, "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32])
    )
    builder.call(function, [builder.inttoptr(address, pointer), _I32(0), _I32(3), _I32(1)])


def _declared(module: Any, name: str, function_type: Any) -> Any:
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, function_type, name)


def _build_finish(
    _context: Any, sums: Any, sums_stride: Any, count: Any, scale: Any, shift: Any,
    factor: Any, y: Any, y_stride: Any,
) -> Any:  # fmt: skip
    """Return an intrinsic: 16 outputs of each row as floats, (sum - shift) * factor * scale."""

    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        _emit_finish(builder, args)
        return context.get_dummy_value()

    return types.void(*[types.int64] * 8), generate


def _emit_finish(builder: Any, args: Any) -> None:
    sums, sums_stride, count, scale, shift, factor, y, y_stride = args
    shifts = builder.load(builder.inttoptr(shift, _LANES.as_pointer()), align=4)
    factors = builder.load(builder.inttoptr(factor, _FLOATS.as_pointer()), align=4)
    before = builder.block
    loop, after = builder.append_basic_block("finish"), builder.append_basic_block("finish.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    t = builder.phi(_I64)
    t.add_incoming(_I64(0), before)
    at = builder.add(sums, builder.mul(t, sums_stride))
    total = builder.load(builder.inttoptr(at, _LANES.as_pointer()), align=4)
    exact = builder.sitofp(builder.sub(total, shifts), _FLOATS)
    at = builder.add(scale, builder.mul(t, _I64(4)))
    row_scale = builder.load(builder.inttoptr(at, _F32.as_pointer()), align=4)
    result = builder.fmul(builder.fmul(exact, factors), _everywhere(builder, row_scale, _FLOATS))
    at = builder.add(y, builder.mul(t, y_stride))
    builder.store(result, builder.inttoptr(at, _FLOATS.as_pointer()), align=4)
    following = builder.add(t, _I64(1))
    t.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, count), loop, after)
    builder.position_at_end(after)


def _everywhere(builder: Any, number: Any, kind: Any) -> Any:
    nothing = ir.Constant(kind, ir.Undefined)
    one = builder.insert_element(nothing, number, _I32(0))
    return builder.shuffle_vector(one, nothing, ir.Constant(_LANES, [0] * OUTS))


# Within compiled code, of addresses, strides in bytes and how many rows: ``_build_finish``.
finish_16 = extending.intrinsic(_build_finish)
# Within compiled code, by the number of rows.
multiply_16, multiply_8, multiply_4, multiply_2, multiply_1 = map(_build_multiply, BLOCK_ROWS)
