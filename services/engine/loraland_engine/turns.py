"""Work that threads share out while they do it, phase after phase. Compiled; x86 only.

Whoever is free takes the next item of a phase, and goes on to the next phase when all its items are
done, by whomever. So a thread that has lost its core between two items keeps nobody waiting, and the
faster thread does more. ``counters`` has for each phase how many items were taken and how many
are done, on a cache line of its own; it is zeroed before the first phase.
"""

# mypy: disable-error-code="no-untyped-def, no-untyped-call, no-any-return"

from typing import Any

import numpy as np

from loraland_engine.native import compiled, extending, ir, types

# Words apart: who waits for what is done does not disturb who takes.
_TAKEN, _DONE = 0, 8
_WORDS = 16
# About 50 µs: what is waited for is one item, unless who does it has lost its core.
_SPINS = 1_000
_NAP_US = 20


def counters(num_phases: int) -> np.ndarray:
    return np.zeros((num_phases, _WORDS), dtype=np.int64)


@compiled
def take(counters, phase):
    """Return the number of an item that is nobody else's; there are no more if it is too large."""
    return _add(counters[phase].ctypes.data + 8 * _TAKEN)


@compiled
def done(counters, phase):
    """Note that an item is done, and return how many were before it."""
    return _add(counters[phase].ctypes.data + 8 * _DONE)


@compiled
def wait(counters, phase, num_items):
    """Return when all items are done: awake at first, then asleep, so that others get the core."""
    address = counters[phase].ctypes.data + 8 * _DONE
    spins = 0
    while _read(address) < num_items:
        spins += 1
        if spins < _SPINS:
            _pause()
        else:
            _usleep(_NAP_US)


def _build_add(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        return builder.atomic_rmw("add", pointer, _WORD(1), "seq_cst")

    return types.int64(types.int64), generate


def _build_read(_context: Any, address: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        pointer = builder.inttoptr(args[0], _WORD.as_pointer())
        return builder.load_atomic(pointer, "seq_cst", 8)

    return types.int64(types.int64), generate


def _build_pause(_context: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        name = "llvm.x86.sse2.pause"
        found = builder.module.globals.get(name)
        kind = ir.FunctionType(ir.VoidType(), [])
        builder.call(found or ir.Function(builder.module, kind, name), [])
        return context.get_dummy_value()

    return types.void(), generate


_WORD = ir.IntType(64)
_add = extending.intrinsic(_build_add)
_read = extending.intrinsic(_build_read)
_pause = extending.intrinsic(_build_pause)
_usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
