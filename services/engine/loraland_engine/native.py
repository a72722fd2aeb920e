"""Python compiled to machine code at first use, by Numba, and kept beside the source. CPU only.

Numba's own threads would fight with torch's, whose idle ones spin for a while before they sleep. So
``spread`` puts the work on torch's pool, through the OpenMP library that comes with torch.
"""

import ctypes
import hashlib
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

# What these modules offer is generic beyond what a type checker can follow.
numba: Any = import_module("numba")
types: Any = import_module("numba.types")
extending: Any = import_module("numba.extending")
cgutils: Any = import_module("numba.core.cgutils")
callconv: Any = import_module("numba.core.callconv")
ir: Any = import_module("llvmlite.ir")

carray = numba.carray
# Sums may be reordered, or nothing would be vectorized; infinities and NaN keep their meaning.
_FAST = {"reassoc", "contract", "nsz", "arcp"}
LINE_BYTES = 64
# Addresses of GOMP_parallel and omp_get_thread_num (0 where there is no such library), and how many
# threads to use.
Threads = tuple[int, int, int]


def _digest_sources() -> str:
    sources = sorted(Path(__file__).parent.glob("*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()


_SOURCES = _digest_sources()


def compiled(function: Any) -> Any:
    """Compile a function at its first call."""
    options = {"fastmath": _FAST, "nogil": True, "error_model": "numpy"}
    try:
        dispatcher = numba.njit(cache=True, **options)(function)
    # No folder to keep the machine code in: compile again in each process.
    except RuntimeError:
        return numba.njit(**options)(function)
    # Numba looks at the function's own file only; what it calls is compiled into it as well.
    file = dispatcher._cache._cache_file
    file._source_stamp = f"{file._source_stamp} {_SOURCES}"
    return dispatcher


def torch_threads() -> Threads:
    """Return what ``spread`` needs to use as many of torch's threads as torch does."""
    return *_OPENMP, torch.get_num_threads() if _OPENMP[0] else 1


def _openmp() -> tuple[int, int]:
    library = Path(torch.__file__).parent / "lib" / "libgomp.so.1"
    if not library.exists():
        return 0, 0
    loaded = ctypes.CDLL(str(library))
    functions = (loaded.GOMP_parallel, loaded.omp_get_thread_num)
    parallel, thread_num = (ctypes.cast(f, ctypes.c_void_p).value or 0 for f in functions)
    return parallel, thread_num


_OPENMP = _openmp()


def _spread(typing: Any, threads: Any, num_items: Any, body: Any, args: Any) -> Any:
    """Call ``body(first, last, *args)`` on each thread, with its share of the items."""
    body_signature = body.get_call_type(typing, (types.intp, types.intp, *args.types), {})

    def generate(context: Any, builder: Any, _signature: Any, values: Any) -> Any:
        call_body = context.get_function(body, body_signature)
        context.add_linking_libs(getattr(call_body, "libs", ()))
        parallel, thread_num, num_threads = cgutils.unpack_tuple(builder, values[0])
        num_items = values[1]
        given = _borrow(context, builder, args.types, cgutils.unpack_tuple(builder, values[3]))
        is_one = builder.or_(
            builder.icmp_signed("<=", num_threads, _WORD(1)),
            builder.icmp_signed("<=", num_items, _WORD(1)),
        )
        with builder.if_else(is_one) as (alone, together):
            with alone:
                call_body(builder, [_WORD(0), num_items, *given])
            with together:
                packed = cgutils.pack_struct(builder, given)
                shared = cgutils.pack_struct(builder, [packed, num_items, thread_num, num_threads])
                worker = _build_worker(builder.module, shared.type, call_body)
                start = builder.inttoptr(parallel, _START.as_pointer())
                data = cgutils.alloca_once_value(builder, shared)
                operands = [builder.bitcast(v, _BYTES) for v in (worker, data)]
                builder.call(start, [*operands, builder.trunc(num_threads, _INT), _INT(0)])
        return context.get_dummy_value()

    return types.void(threads, num_items, body, args), generate


_WORD, _INT, _BYTES = ir.IntType(64), ir.IntType(32), ir.IntType(8).as_pointer()
# void GOMP_parallel(void (*worker)(void *), void *data, unsigned num_threads, unsigned flags)
_START = ir.FunctionType(ir.VoidType(), [_BYTES, _BYTES, _INT, _INT])


def _borrow(context: Any, builder: Any, kinds: Any, values: Any) -> list[Any]:
    """Return the arguments with arrays that own nothing.

    Each slice of an array that owns its memory counts a reference, and threads that count in the same
    place wait for each other. The caller keeps the arrays alive.
    """
    return [
        _without_owner(context, builder, kind, value)
        for kind, value in zip(kinds, values, strict=True)
    ]


def _without_owner(context: Any, builder: Any, kind: Any, value: Any) -> Any:
    if isinstance(kind, types.BaseTuple):
        parts = _borrow(context, builder, list(kind), cgutils.unpack_tuple(builder, value))
        return context.make_tuple(builder, kind, parts)
    if not isinstance(kind, types.Array):
        return value
    array = context.make_array(kind)(context, builder, value=value)
    array.meminfo = cgutils.get_null_value(array.meminfo.type)
    return array._getvalue()


def _build_worker(module: Any, shared_type: Any, call_body: Any) -> Any:
    """Build what each thread runs: its share, by its number, of what ``shared`` describes."""
    # Compiled code reports errors through its caller's arguments, so the caller must look like one.
    inner_type = ir.FunctionType(_INT, [_BYTES, callconv.excinfo_ptr_t.as_pointer(), _BYTES])
    inner = ir.Function(module, inner_type, module.get_unique_name("spread_share"))
    inner.linkage = "internal"
    builder = ir.IRBuilder(inner.append_basic_block())
    shared = builder.load(builder.bitcast(inner.args[2], shared_type.as_pointer()))
    given, num_items, thread_num, num_threads = cgutils.unpack_tuple(builder, shared)
    ask = builder.inttoptr(thread_num, ir.FunctionType(_INT, []).as_pointer())
    thread = builder.sext(builder.call(ask, []), _WORD)
    first, last = (
        builder.sdiv(builder.mul(num_items, index), num_threads)
        for index in (thread, builder.add(thread, _WORD(1)))
    )
    call_body(builder, [first, last, *cgutils.unpack_tuple(builder, given)])
    builder.ret(_INT(0))
    worker_type = ir.FunctionType(ir.VoidType(), [_BYTES])
    worker = ir.Function(module, worker_type, module.get_unique_name("spread_worker"))
    worker.linkage = "internal"
    builder = ir.IRBuilder(worker.append_basic_block())
    error = builder.alloca(callconv.excinfo_ptr_t)
    builder.call(inner, [_BYTES(None), error, worker.args[0]])
    builder.ret_void()
    return worker


def _float_from_bits(_context: Any, _bits: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.float32(types.int32), generate


def _bits_of_float(_context: Any, _number: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.bitcast(args[0], context.get_value_type(signature.return_type))

    return types.int32(types.float32), generate


def _pointer_like(_context: Any, _address: Any, like: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.inttoptr(args[0], context.get_value_type(signature.return_type))

    return types.CPointer(like.dtype)(types.int64, like), generate


def _cycles(_context: Any) -> Any:
    def generate(_context: Any, builder: Any, _signature: Any, _args: Any) -> Any:
        name = "llvm.readcyclecounter"
        found = builder.module.globals.get(name)
        return builder.call(
            found or ir.Function(builder.module, ir.FunctionType(_WORD, []), name), []
        )

    return types.int64(), generate


def _prefetch(_context: Any, _address: Any) -> Any:
    def generate(context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        name, kind = "llvm.prefetch.p0", ir.FunctionType(ir.VoidType(), [_BYTES, _INT, _INT, _INT])
        found = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
        builder.call(found, [builder.inttoptr(args[0], _BYTES), _INT(0), _INT(2), _INT(1)])
        return context.get_dummy_value()

    return types.void(types.int64), generate


# Within compiled code: work for all threads of torch's pool.
spread = extending.intrinsic(_spread)
# Within compiled code: the float32 that an int32's bits mean.
float_from_bits = extending.intrinsic(_float_from_bits)
# Within compiled code: an address as a pointer to what an array holds.
pointer_like = extending.intrinsic(_pointer_like)
# Within compiled code: the bits of a float32 as an int32.
bits_of_float = extending.intrinsic(_bits_of_float)
# Within compiled code: the processor's clock, whose rate is its own.
cycles = extending.intrinsic(_cycles)
# Within compiled code: what lies at an address will be read soon.
prefetch = extending.intrinsic(_prefetch)


@compiled
def fetch(address, num_bytes):  # type: ignore[no-untyped-def]
    """Ask for memory that is read next."""
    for offset in range(0, num_bytes, LINE_BYTES):
        prefetch(address + offset)
