"""Vector registers for compiled loops: sixteen float32 values that are loaded, multiplied and stored as one.

Builds on numba (the extra ``fast``). numba's own vectorisation gives up on short ragged loops, and checks at run time
whether arrays overlap; loops over heads of 32 values and a few dozen columns then run at a fifth of the processor's
speed. Here a loop says itself what one register holds. A processor with narrower registers takes two or four for each.
The order of sums depends on lengths alone, never on where in memory an array lies.

Inside ``compiled`` functions: ``load(array, i)``, ``store(array, i, x)``, ``splat(v)``, ``add``, ``sub``, ``mul``,
``div``, ``fma(a, b, c)`` = a b + c, ``maximum``, ``exp``, ``first(x, n, other)`` (lanes below n of x, else of other);
and to a number ``total(x)`` and ``largest(x)``. Arrays are flat, contiguous float32; nothing is checked.

``gemm(blas(), turn_a, turn_b, m, n, k, a, at, row, b, at, row, beta, c, at, row)`` is PyTorch's matrix product: C = A B
+ beta C with C [m, n]; matrices begin at ``at``, and their rows are ``row`` apart; A and B are turned (transposed) or
not.

``shared`` runs a function that is compiled ``by_address`` on PyTorch's own threads. Such a function gets numbers:
``floats_at`` and ``whole_at`` make pointers of addresses, ``taken(table)`` counts ``table[0]`` up for all threads.

numba looks at a module alone to tell whether its compiled code is still good: whoever changes one has to touch those of
this package that build on it.
"""

from __future__ import annotations

import ctypes
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core import event as events
from numba.extending import intrinsic, models, register_model

LANES = 16

_LOG = logging.getLogger(__name__)

_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INTS = ir.VectorType(ir.IntType(32), LANES)
# 2^f on [-1/2, 1/2], highest power first; fitted for the least relative error, 2e-9 before rounding.
_POWERS = (1.535336e-4, 1.3398875e-3, 9.6184374e-3, 5.5503325e-2, 2.4022648e-1, 6.931472e-1, 1.0)
_LIMIT = 87.0  # exp of it and of its negative are normal float32 values; what is beyond counts as it
_LOG2E = float(np.float32(np.log2(np.e)))
_LOG2E_REST = float(np.log2(np.e)) - _LOG2E


class _Register(types.Type):
    """Sixteen float32 values."""

    def __init__(self) -> None:
        super().__init__(name="Register16")


@register_model(_Register)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, _FLOATS)  # type: ignore[no-untyped-call]


_register = _Register()


class _Notice(events.Listener):
    """Says once that loops are being compiled: seconds in which nothing else seems to happen."""

    said = False

    def on_start(self, event: Any) -> None:
        """Called before anything is compiled that was not on the disk."""
        ours = event.data["dispatcher"].py_func.__module__.startswith("tacit.")
        if ours and not self.said:
            self.said = True
            _LOG.info("compiling loops for this processor, once: 15 seconds, or a minute or two on a busy one")

    def on_end(self, event: Any) -> None:
        """Nothing to say."""


events.register("numba:compile", _Notice())  # type: ignore[no-untyped-call]


def compiled(function: Callable[..., Any], *, reorder: bool = False) -> Any:
    """Machine code for the processor at hand, made at the first call and kept on the disk if possible. Other threads
    run meanwhile. ``reorder``: sums may be, so that numba itself can put them into registers."""
    fastmath = {"nsz", "contract", "reassoc"} if reorder else {"nsz", "contract"}
    return _kept(numba.njit, function, nogil=True, fastmath=fastmath)


def by_address(function: Callable[..., Any]) -> Any:
    """``compiled`` for ``shared``: a function of the address of whole numbers, without the interpreter."""
    kind: Any = types.void(types.CPointer(types.int64))  # type: ignore[no-untyped-call]
    return _kept(lambda **options: numba.cfunc(kind, **options), function, fastmath={"nsz", "contract"})


def _kept(jit: Any, function: Callable[..., Any], **options: Any) -> Any:
    try:
        return jit(cache=True, error_model="numpy", **options)(function)
    except RuntimeError:  # no folder that could hold the compiled code
        return jit(error_model="numpy", **options)(function)


def _place(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [index]), _FLOATS.as_pointer())


def _load(typing: Any, array: Any, index: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load(_place(context, builder, signature.args[0], *arguments), align=4)

    return _register(array, types.intp), code


def _store(typing: Any, array: Any, index: Any, value: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.store(arguments[2], _place(context, builder, signature.args[0], *arguments[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, _register), code


def _repeated(builder: Any, value: Any, kind: Any) -> Any:
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), value, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, ir.Constant(kind, ir.Undefined), ir.Constant(_INTS, [0] * LANES))


def _splat(typing: Any, value: Any) -> Any:
    return _register(types.float32), lambda context, builder, signature, a: _repeated(builder, a[0], _FLOATS)


def _call(builder: Any, name: str, arguments: Any) -> Any:
    kind = ir.FunctionType(_FLOATS, [_FLOATS] * len(arguments))
    function: Any = cgutils.get_or_insert_function(  # type: ignore[no-untyped-call]
        builder.module, kind, f"llvm.{name}.v{LANES}f32"
    )
    return builder.call(function, arguments)


def _fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    return _register(_register, _register, _register), lambda context, builder, s, a: _call(builder, "fma", a)


def _two(operation: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(typing: Any, a: Any, b: Any) -> Any:
        return _register(_register, _register), lambda context, builder, s, a: operation(builder, a[0], a[1])

    return intrinsic(typed)


def _larger(builder: Any, a: Any, b: Any) -> Any:
    return builder.select(builder.fcmp_ordered(">", a, b), a, b)


def _reduced(operation: Callable[[Any, Any, Any], Any]) -> Any:
    def typed(typing: Any, x: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            (x,) = arguments
            for distance in (8, 4, 2, 1):
                order = ir.Constant(_INTS, [(lane + distance) % LANES for lane in range(LANES)])
                x = operation(builder, x, builder.shuffle_vector(x, ir.Constant(_FLOATS, ir.Undefined), order))
            return builder.extract_element(x, ir.Constant(ir.IntType(32), 0))

        return types.float32(_register), code

    return intrinsic(typed)


def _everywhere(value: float) -> Any:
    return ir.Constant(_FLOATS, [float(np.float32(value))] * LANES)


def _exp(typing: Any, x: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        (x,) = arguments
        x = builder.select(builder.fcmp_ordered("<", x, _everywhere(-_LIMIT)), _everywhere(-_LIMIT), x)
        x = builder.select(builder.fcmp_ordered(">", x, _everywhere(_LIMIT)), _everywhere(_LIMIT), x)
        whole = _call(builder, "rint", [builder.fmul(x, _everywhere(_LOG2E))])
        rest = _call(builder, "fma", [x, _everywhere(_LOG2E), builder.fneg(whole)])
        rest = _call(builder, "fma", [x, _everywhere(_LOG2E_REST), rest])
        found = _everywhere(_POWERS[0])
        for coefficient in _POWERS[1:]:
            found = _call(builder, "fma", [found, rest, _everywhere(coefficient)])
        exponent = builder.add(builder.fptosi(whole, _INTS), ir.Constant(_INTS, [127] * LANES))
        scale = builder.bitcast(builder.shl(exponent, ir.Constant(_INTS, [23] * LANES)), _FLOATS)
        return builder.fmul(found, scale)

    return _register(_register), code


def _first(typing: Any, x: Any, count: Any, other: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        x, count, other = arguments
        limit = _repeated(builder, builder.trunc(count, ir.IntType(32)), _INTS)
        lanes = ir.Constant(_INTS, list(range(LANES)))
        return builder.select(builder.icmp_signed("<", lanes, limit), x, other)

    return _register(_register, types.intp, _register), code


def _gemm(
    typing: Any, address: Any, turn_a: Any, turn_b: Any, m: Any, n: Any, k: Any, a: Any, a_at: Any, a_row: Any, b: Any,
    b_at: Any, b_row: Any, beta: Any, c: Any, c_at: Any, c_row: Any,
) -> Any:  # fmt: skip
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        address, turn_a, turn_b, m, n, k, a, a_at, a_row, b, b_at, b_row, beta, c, c_at, c_row = arguments
        narrow = ir.IntType(32)

        def by_reference(value: Any) -> Any:
            place: Any = cgutils.alloca_once_value(builder, value)  # type: ignore[no-untyped-call]
            return builder.bitcast(place, pointer)

        def number(value: Any) -> Any:
            return by_reference(builder.trunc(value, narrow))

        def letter(turned: Any) -> Any:
            yes, no = ir.Constant(ir.IntType(8), ord("T")), ir.Constant(ir.IntType(8), ord("N"))
            return by_reference(builder.select(turned, yes, no))

        def values(kind: Any, array: Any, at: Any) -> Any:
            data = context.make_array(kind)(context, builder, array).data
            return builder.bitcast(builder.gep(data, [at]), pointer)

        pointer = ir.IntType(8).as_pointer()
        kinds = signature.args
        # Fortran counts columns first: the product of the transposes, b's first, is the transpose that C calls rows.
        passed = [
            letter(turn_b), letter(turn_a), number(n), number(m), number(k),
            by_reference(ir.Constant(ir.FloatType(), 1.0)),
            values(kinds[9], b, b_at), number(b_row), values(kinds[6], a, a_at), number(a_row),
            by_reference(beta), values(kinds[13], c, c_at), number(c_row),
        ]  # fmt: skip
        kind = ir.FunctionType(ir.VoidType(), [pointer] * len(passed))
        builder.call(builder.inttoptr(address, kind.as_pointer()), passed)
        return context.get_dummy_value()

    whole = types.intp
    return types.void(
        whole, types.boolean, types.boolean, whole, whole, whole, a, whole, whole, b, whole, whole, types.float32, c,
        whole, whole,
    ), code  # fmt: skip


def _pointer(kind: Any) -> Any:
    def typed(typing: Any, address: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))

        return types.CPointer(kind)(types.intp), code  # type: ignore[no-untyped-call]

    return intrinsic(typed)


def _taken(typing: Any, counts: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        return builder.atomic_rmw("add", data, ir.Constant(ir.IntType(64), 1), "monotonic")

    return types.int64(counts), code


def _of_torch(name: str) -> Any:
    """A function of the libraries that PyTorch itself uses on the CPU; None where it shows none."""
    import torch  # takes seconds, which a search of keys need not spend

    folder = Path(torch.__file__).parent / "lib"
    for path in (folder / "libtorch_cpu.so", folder / "libtorch_cpu.dylib"):
        found = getattr(ctypes.CDLL(str(path)), name, None) if path.is_file() else None
        if found is not None:
            return found
    return None


@cache
def blas() -> int | None:
    """The address of the matrix product (``sgemm``) of PyTorch; None where it shows none."""
    product = _of_torch("sgemm_")
    return None if product is None else ctypes.cast(product, ctypes.c_void_p).value


_ALONE = ctypes.CFUNCTYPE(None, ctypes.c_void_p)


@cache
def _team() -> Any:
    """``GOMP_parallel``, which runs a function on the threads that products take; None where PyTorch has others."""
    return _of_torch("GOMP_parallel")


def shared(work: Any, table: np.ndarray, threads: int) -> None:
    """Run ``work`` on so many of PyTorch's threads (one where they are not known), each of which asks for parts.

    Args:
        work: made by ``by_address``; it asks by ``taken``.
        table: int64; its first number is the next part.
        threads: at most.
    """
    data, team = ctypes.c_void_p(table.ctypes.data), _team()
    if threads > 1 and team is not None:
        team(ctypes.c_void_p(work.address), data, ctypes.c_uint(threads), ctypes.c_uint(0))
    else:
        _ALONE(work.address)(data)


gemm: Any = intrinsic(_gemm)
floats_at: Any = _pointer(types.float32)
whole_at: Any = _pointer(types.int64)
taken: Any = intrinsic(_taken)
load: Any = intrinsic(_load)
store: Any = intrinsic(_store)
splat: Any = intrinsic(_splat)
fma: Any = intrinsic(_fma)
exp: Any = intrinsic(_exp)
first: Any = intrinsic(_first)
add: Any = _two(lambda builder, a, b: builder.fadd(a, b))
sub: Any = _two(lambda builder, a, b: builder.fsub(a, b))
mul: Any = _two(lambda builder, a, b: builder.fmul(a, b))
div: Any = _two(lambda builder, a, b: builder.fdiv(a, b))
maximum: Any = _two(_larger)
total: Any = _reduced(lambda builder, a, b: builder.fadd(a, b))
largest: Any = _reduced(_larger)
