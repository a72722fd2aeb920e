"""Blocks of products in a processor's tile registers (AMX), as compiled kernels use them. No I/O.

A tile is up to 16 lines of 64 bytes. One instruction multiplies a tile of rows with a tile of weights:
bytes (unsigned rows, signed weights) into int32, or bfloat16 into float32. A line of weights holds, for
16 outs, four bytes or two halves of each; so the same addresses and strides serve both.

Compiled code may hold these products on any processor, and asks ``is_supported`` before it gets there:
what a processor lacks is compiled to a trap. A thread configures its tiles before the first product of
a compiled call and gives them back at its end: other libraries configure them as well. Operands are
given by address, strides in bytes.

Shapes: M rows of a tile, 16 outs of a tile, K steps of 64 bytes.
"""

import ctypes
import platform
from importlib import import_module
from typing import Any

import numpy as np

from loraland_engine.native import ir, types

llvm: Any = import_module("llvmlite.binding")
extending: Any = import_module("numba.extending")

LINES, LINE_BYTES = 16, 64
TILE_BYTES = LINES * LINE_BYTES
BYTES, HALVES = "bytes", "halves"
_FEATURES = {BYTES: "amx-int8", HALVES: "amx-bf16"}
_INSTRUCTIONS = {BYTES: "llvm.x86.tdpbusd", HALVES: "llvm.x86.tdpbf16ps"}
# The eight tiles: four of sums, two of rows, two of weights.
_ROW_TILE, _WEIGHT_TILE = 4, 6
# arch_prctl(ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA): Linux keeps tiles for who has asked.
_ARCH_PRCTL, _REQUEST, _TILE_DATA = 158, 0x1023, 18

_I8, _I32, _I64 = ir.IntType(8), ir.IntType(32), ir.IntType(64)
_POINTER = _I8.as_pointer()


# Asked once: each time takes a fifth of a millisecond.
_HOST: Any = llvm.get_host_cpu_features()
_HAS_TILES = bool(_HOST.get("amx-tile"))


def _ask() -> bool:
    """Return whether this process may use tiles."""
    if platform.system() != "Linux" or not _HAS_TILES:
        return False
    return bool(ctypes.CDLL(None).syscall(_ARCH_PRCTL, _REQUEST, _TILE_DATA) == 0)


_IS_ALLOWED = _ask()


def has_instruction(kind: str) -> bool:
    """Whether the processor multiplies ``BYTES``, or ``HALVES``, in tiles."""
    return bool(_HOST.get(_FEATURES[kind]))


def is_supported(kind: str) -> bool:
    """Whether this process may have that done."""
    return _IS_ALLOWED and has_instruction(kind)


def setup(num_rows: int) -> np.ndarray:
    """Return what ``configure`` reads: tiles of ``num_rows`` rows, at most 16, times 16 outs."""
    assert 1 <= num_rows <= LINES, num_rows
    described = np.zeros(LINE_BYTES, dtype=np.uint8)
    described[0] = 1
    described[16:32].view(np.uint16)[:] = LINE_BYTES
    described[48:56] = num_rows
    described[48 + _WEIGHT_TILE : 56] = LINES
    return described


def _build_configure(_context: Any, _address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        if _HAS_TILES:
            _call(builder, "llvm.x86.ldtilecfg", [builder.inttoptr(args[0], _POINTER)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


def _build_release(_context: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        if _HAS_TILES:
            _call(builder, "llvm.x86.tilerelease", [])
        return context.get_dummy_value()

    return types.void(), generate


def build_product(
    kind: str, num_row_tiles: int, num_out_tiles: int, *, ahead_bytes: int = 0
) -> Any:
    """Return an intrinsic that writes the sums of some tiles of rows and of outs, four at most.

    ``product(rows, row_stride, weights, line_stride, out_stride, steps, sums, sums_stride)``: each
    step takes 64 bytes of every row and 16 lines of weights of every tile of outs; tiles of outs lie
    ``out_stride`` apart. There is at least one step. With ``ahead_bytes``, weights so far ahead are
    asked for.
    """
    assert num_row_tiles * num_out_tiles <= _ROW_TILE
    emit = _emit if has_instruction(kind) else _emit_trap

    def product(
        _context: Any, rows: Any, row_stride: Any, weights: Any, line_stride: Any, out_stride: Any,
        steps: Any, sums: Any, sums_stride: Any,
    ) -> Any:  # fmt: skip
        def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
            emit(builder, kind, (num_row_tiles, num_out_tiles), args, ahead_bytes)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 8), generate

    return extending.intrinsic(product)


def _emit(builder: Any, kind: str, shape: tuple[int, int], args: Any, ahead_bytes: int) -> None:
    rows, row_stride, weights, line_stride, out_stride, steps, sums, sums_stride = args
    num_rows, num_outs = shape
    tile_rows = builder.mul(row_stride, _I64(LINES))
    step_bytes = builder.mul(line_stride, _I64(LINES))
    for tile in range(num_rows * num_outs):
        _call(builder, "llvm.x86.tilezero", [_I8(tile)])
    before = builder.block
    loop, after = builder.append_basic_block("tiles"), builder.append_basic_block("tiles.end")
    builder.branch(loop)
    builder.position_at_end(loop)
    step = builder.phi(_I64)
    step.add_incoming(_I64(0), before)
    row = builder.add(rows, builder.mul(step, _I64(LINE_BYTES)))
    for i in range(num_rows):
        at = builder.add(row, builder.mul(tile_rows, _I64(i)))
        _load(builder, _ROW_TILE + i, at, row_stride)
    weight = builder.add(weights, builder.mul(step, step_bytes))
    for j in range(num_outs):
        at = builder.add(weight, builder.mul(out_stride, _I64(j)))
        tile = _WEIGHT_TILE + j % 2
        _load(builder, tile, at, line_stride)
        if ahead_bytes:
            _prefetch(builder, builder.add(at, _I64(ahead_bytes)), line_stride)
        for i in range(num_rows):
            operands = [_I8(i * num_outs + j), _I8(_ROW_TILE + i), _I8(tile)]
            _call(builder, _INSTRUCTIONS[kind], operands)
    following = builder.add(step, _I64(1))
    step.add_incoming(following, builder.block)
    builder.cbranch(builder.icmp_signed("<", following, steps), loop, after)
    builder.position_at_end(after)
    for i in range(num_rows):
        for j in range(num_outs):
            at = builder.add(sums, builder.mul(sums_stride, _I64(i * LINES)))
            pointer = builder.inttoptr(builder.add(at, _I64(j * LINE_BYTES)), _POINTER)
            operands = [_I8(i * num_outs + j), pointer, sums_stride]
            _call(builder, "llvm.x86.tilestored64", operands)


def _emit_trap(builder: Any, *_given: Any) -> None:
    """Stand in for what this processor lacks, in compiled code that never gets there."""
    _call(builder, "llvm.trap", [])


def _load(builder: Any, tile: int, address: Any, stride: Any) -> None:
    pointer = builder.inttoptr(address, _POINTER)
    _call(builder, "llvm.x86.tileloadd64", [_I8(tile), pointer, stride])


def _prefetch(builder: Any, address: Any, stride: Any) -> None:
    for line in range(LINES):
        at = builder.add(address, builder.mul(stride, _I64(line)))
        operands = [builder.inttoptr(at, _POINTER), _I32(0), _I32(3), _I32(1)]
        _call(builder, "llvm.prefetch.p0", operands)


def _call(builder: Any, name: str, operands: list[Any]) -> None:
    function = builder.module.globals.get(name)
    if function is None:
        kinds = [operand.type for operand in operands]
        function = ir.Function(builder.module, ir.FunctionType(ir.VoidType(), kinds), name)
    builder.call(function, operands)


# Within compiled code: have this thread's tiles as ``setup`` describes them, by its address.
configure = extending.intrinsic(_build_configure)
# Within compiled code: this thread needs its tiles no longer.
release = extending.intrinsic(_build_release)
