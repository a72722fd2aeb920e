"""Weights in bfloat16 as compiled kernels multiply them: packed blocks, and the product by AVX-512. CPU.

A block is 16 outputs over the whole width: for each two inputs 64 bytes, two halves of each output.
That is a line of a tile, and what one AVX512_BF16 instruction multiplies with two halves of a row. The
width is filled up with zeros to whole tiles, and so are rows.

Shapes: N outs, D in, C blocks. Halves are uint16 to NumPy, which knows no bfloat16.
"""

from importlib import import_module
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from loraland_engine import tile_registers
from loraland_engine.native import ir, types

llvm: Any = import_module("llvmlite.binding")
extending: Any = import_module("numba.extending")

OUTS, INS = 16, 2
# Halves of a row in a tile's line.
STEP = tile_registers.LINE_BYTES // 2
BLOCK_ROWS = (8, 4, 2, 1)
# The same for any number of rows, so that a sum is always taken in the same order.
_UNROLL = 2
_PREFETCH_BYTES = 2048
# Asked once: each time takes a fifth of a millisecond.
_HAS_LANES = bool(llvm.get_host_cpu_features().get("avx512bf16"))


def is_supported() -> bool:
    """Whether this machine multiplies halves, in tiles or in lanes."""
    return tile_registers.is_supported(tile_registers.HALVES) or has_lanes()


def has_lanes() -> bool:
    return _HAS_LANES


def padded(num_in: int) -> int:
    """Return the width of rows and blocks."""
    return -(-num_in // STEP) * STEP


def packed_bytes(num_out: int, num_in: int) -> int:
    """Return what ``pack`` needs."""
    return -(-num_out // OUTS) * OUTS * padded(num_in) * 2


def pack(weight_ND: Tensor, memory: np.ndarray) -> np.ndarray:
    """Write the blocks to the beginning of ``memory``, as [C, D / 2, 16, 2]; return them."""
    num_out, num_in = weight_ND.shape
    blocks, width = -(-num_out // OUTS), padded(num_in)
    place = torch.from_numpy(memory[: packed_bytes(num_out, num_in)]).view(torch.bfloat16)
    packed = place.view(blocks, width // INS, OUTS, INS)
    if (blocks * OUTS, width) != (num_out, num_in):
        weight_ND = functional.pad(weight_ND, (0, width - num_in, 0, blocks * OUTS - num_out))
    packed.copy_(weight_ND.view(blocks, OUTS, width // INS, INS).transpose(1, 2))
    found: np.ndarray = packed.view(torch.int16).numpy().view(np.uint16)
    return found


def _build_multiply(num_rows: int) -> Any:
    """Return an intrinsic: sums [rows, 16] of ``num_rows`` rows, from addresses, strides in bytes."""

    def multiply(
        _context: Any, row: Any, stride: Any, block: Any, sums: Any, to_stride: Any
    ) -> Any:
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            if has_lanes():
                _emit(builder, num_rows, args)
            else:
                # Compiled for a processor that has tiles only, and never called there.
                builder.call(_declared(builder.module, "llvm.trap", _TRAP), [])
            return context.get_dummy_value()

        return types.void(row, stride, block, sums, to_stride), generate

    return extending.intrinsic(multiply)


class _Half(ir.HalfType):  # type: ignore[misc]
    """llvmlite has no bfloat16 of its own."""

    null = "0.0"
    intrinsic_name = "bf16"

    def __str__(self) -> str:
        return "bfloat"


_Half._create_instance()
_I32, _I64, _I8 = ir.IntType(32), ir.IntType(64), ir.IntType(8)
_LANES = ir.VectorType(_I32, OUTS)
_SUMS = ir.VectorType(ir.FloatType(), OUTS)
_HALVES = ir.VectorType(_Half(), OUTS * INS)
_TRAP = ir.FunctionType(ir.VoidType(), [])


def _emit(builder: Any, num_rows: int, given: Any) -> None:
    """Emit the loop over the width and the stores of the sums."""
    row, stride, block, sums, to_stride = given
    before = builder.block
    loop, after = builder.append_basic_block("halves"), builder.append_basic_block("halves.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    byte = builder.phi(_I64)
    byte.add_incoming(_I64(0), before)
    totals = [builder.phi(_SUMS) for _ in range(num_rows * _UNROLL)]
    for total in totals:
        total.add_incoming(ir.Constant(_SUMS, [0.0] * OUTS), before)
    # Two halves of a row meet 16 times as many of the block.
    ahead = builder.add(block, builder.mul(byte, _I64(OUTS)))
    added = []
    for u in range(_UNROLL):
        at = builder.add(ahead, _I64(u * OUTS * 4))
        _emit_prefetch(builder, builder.add(at, _I64(_PREFETCH_BYTES)))
        weights = builder.load(builder.inttoptr(at, _LANES.as_pointer()), align=64)
        for r in range(num_rows):
            place = builder.add(builder.mul(stride, _I64(r)), builder.add(byte, _I64(u * 4)))
            two = builder.load(
                builder.inttoptr(builder.add(row, place), _I32.as_pointer()), align=2
            )
            added.append(_emit_add(builder, totals[u * num_rows + r], two, weights))
    following = builder.add(byte, _I64(4 * _UNROLL))
    byte.add_incoming(following, builder.block)
    for total, sum_ in zip(totals, added, strict=True):
        total.add_incoming(sum_, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, stride), loop, after)
    builder.position_at_end(after)
    for r in range(num_rows):
        total = builder.fadd(added[r], added[num_rows + r])
        to = builder.add(sums, builder.mul(to_stride, _I64(r)))
        builder.store(total, builder.inttoptr(to, _SUMS.as_pointer()), align=4)


def _emit_add(builder: Any, total: Any, two: Any, weights: Any) -> Any:
    """Emit the instruction: to each sum, two halves of the row times two weights."""
    nothing = ir.Constant(_LANES, ir.Undefined)
    one = builder.insert_element(nothing, two, _I32(0))
    everywhere = builder.shuffle_vector(one, nothing, ir.Constant(_LANES, [0] * OUTS))
    function = _declared(
        builder.module,
        "llvm.x86.avx512bf16.dpbf16ps.512",
        ir.FunctionType(_SUMS, [_SUMS, _HALVES, _HALVES]),
    )
    operands = [builder.bitcast(numbers, _HALVES) for numbers in (everywhere, weights)]
    return builder.call(function, [total, *operands])


def _emit_prefetch(builder: Any, address: Any) -> None:
    pointer = _I8.as_pointer()
    function = _declared(
        builder.module,
        "llvm.prefetch.p0",
        ir.FunctionType(ir.VoidType(), [pointer, _I32, _I32, _I32]),
    )
    builder.call(function, [builder.inttoptr(address, pointer), _I32(0), _I32(3), _I32(1)])


def _declared(module: Any, name: str, function_type: Any) -> Any:
    found = module.globals.get(name)
    return found if found is not None else ir.Function(module, function_type, name)


# Within compiled code, by the number of rows; the row stride is the width.
multiply_8, multiply_4, multiply_2, multiply_1 = map(_build_multiply, BLOCK_ROWS)
