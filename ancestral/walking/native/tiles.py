"""The innermost loops of the native engine: products of a few rows with a few columns, held in registers, as LLVM vector code.

A tile is ``rows`` x ``vectors`` sums, each vector ``LANES`` columns wide. Every sum is one chain, in the order of the window:
so a result depends neither on the tile that computes it nor on how many rows are computed together. Whole numbers are
multiplied by pairs, 16 bits each, and summed in 32 bits; written as below, LLVM finds the instruction that does just that
where there is one. The same text becomes AVX-512, AVX2, SSE or NEON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import llvmlite.binding as llvm  # type: ignore[import-untyped]
import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils as untyped
from numba.core import types
from numba.core.registry import cpu_target
from numba.extending import intrinsic, overload

Function = TypeVar("Function", bound=Callable[..., Any])


cgutils: Any = untyped
int32: Callable[[Any], int] = np.int32  # type: ignore[assignment]  # numbers, to those who read types
int64: Callable[[Any], int] = np.int64  # type: ignore[assignment]
float32: Callable[[Any], float] = np.float32  # type: ignore[assignment]

OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # no lock is held; a division by zero is not looked for


def compiled(function: Function) -> Function:
    """Compile at the first call."""
    ready: Function = numba.njit(**OPTIONS)(function)
    return ready


def inlined(function: Function) -> Function:
    """Compile as a part of whatever calls it, so that what is large is not compiled once for every caller's caller."""
    ready: Function = numba.njit(inline="always", **OPTIONS)(function)
    return ready


def entry(function: Function) -> Function:
    """Compile at the first call, and keep the result on disk for later processes."""
    ready: Function = numba.njit(cache=True, **OPTIONS)(function)
    return ready


def by_kind(stub: Function, floats: Function, integers: Function) -> None:
    """Make calls of ``stub(values, ...)`` in compiled code go to one of two functions, by what the values are."""

    def chosen(values: Any, *rest: Any) -> Function:
        return integers if isinstance(values.dtype, types.Integer) else floats

    overload(stub, jit_options={"nogil": True, "error_model": "numpy"}, strict=False)(chosen)


def by_type(stub: Function, numbers: Function, other: Function) -> None:
    """Make calls of ``stub(flag, ...)`` in compiled code go to one of two functions, by whether the flag is a number.

    The other is not even compiled then: so what few need does not keep all waiting.
    """

    def chosen(flag: Any, *rest: Any) -> Function:
        return numbers if isinstance(flag, types.Integer) else other

    overload(stub, jit_options={"nogil": True, "error_model": "numpy"}, strict=False)(chosen)


# -- the shape of tiles ------------------------------------------------------------------------------------------------------

I8, I16, I32, I64, F32 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64), ir.FloatType()
POINTER = ir.PointerType()


def register_file() -> tuple[int, int, int]:
    """(lanes, rows, vectors) of the largest tile that this machine's registers hold.

    LLVM is asked what it makes of a sum of sixteen floats, for that settles which registers it uses.
    """
    triple, cpu, features = cpu_target.target_context.codegen().magic_tuple()
    machine = llvm.Target.from_triple(triple).create_target_machine(cpu=cpu, features=features, opt=2)
    text = "define void @f(ptr %p) {\n%x = load <16 x float>, ptr %p\n%y = fadd <16 x float> %x, %x\n"
    assembly = machine.emit_assembly(llvm.parse_assembly(text + "store <16 x float> %y, ptr %p\nret void\n}"))
    if "zmm" in assembly:
        return 16, 6, 4
    if "ymm" in assembly:
        return 8, 6, 2
    return (4, 6, 4) if triple.startswith(("aarch64", "arm64")) else (4, 4, 2)


LANES, ROWS, VECTORS = register_file()
HEIGHTS = tuple(sorted({ROWS, 4, 2, 1}, reverse=True))  # rows of tiles: what is left over takes one or two more, not one of each

# -- one tile ----------------------------------------------------------------------------------------------------------------

POINTERS = ("source", "weights", "biases", "init", "target")
NUMBERS: tuple[str, ...] = ("source_step", "init_step", "target_step", "windows", "apart", "length")
NUMBERS += ("slot", "slots", "slot_step", "panel_step", "low", "high", "tail")


class Tile:
    """Writes the code of one tile; see ``multiply`` for what it computes.

    Args:
        function: an empty function that takes POINTERS and NUMBERS.
        exact: whole numbers instead of floating point.
        rows, vectors: the shape.
    """

    def __init__(self, function: ir.Function, exact: bool, rows: int, vectors: int) -> None:
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.exact, self.rows, self.vectors = exact, rows, vectors
        self.argument = dict(zip(POINTERS + NUMBERS, function.args, strict=True))
        self.value, self.total = (I16, I32) if exact else (F32, F32)
        self.sums = ir.VectorType(self.total, LANES)
        self.accumulators = [[cgutils.alloca_once(self.builder, self.sums) for _ in range(vectors)] for _ in range(rows)]

    def write(self) -> None:
        """The whole function."""
        for v in range(self.vectors):
            self.begin(v)
        self.sum_windows()
        for v in range(self.vectors):
            self.finish(v)
        self.builder.ret_void()

    def begin(self, v: int) -> None:
        """Sums start from init and bias; in whole numbers the init is brought to the sum's scale by a shift to the left."""
        b, parts = self.builder, 3 if self.exact else 1
        bias = self.load("biases", self.number(v * parts * LANES), self.sums, 4)
        for m in range(self.rows):
            place = b.add(b.mul(self.number(m), self.argument["init_step"]), self.number(v * LANES))
            init = self.load("init", place, ir.VectorType(self.value, LANES), self.value_size)
            if self.exact:
                shift = self.load("biases", self.number((v * parts + 1) * LANES), self.sums, 4)
                start = b.add(b.shl(b.sext(init, self.sums), shift), bias)
            else:
                start = b.fadd(init, bias)
            b.store(start, self.accumulators[m][v])

    def sum_windows(self) -> None:
        """For each row of the window, ``apart`` from each other, whose first one lies in ``slot`` of a ring of ``slots``."""
        b, arguments = self.builder, self.argument
        slot = cgutils.alloca_once_value(b, arguments["slot"])
        step = cgutils.alloca_once_value(b, self.number(0))
        with cgutils.for_range(b, arguments["windows"]):
            row = b.mul(b.load(slot, typ=I64), arguments["slot_step"])
            with cgutils.for_range(b, arguments["length"]) as loop:
                self.product(b.add(row, b.mul(loop.index, self.number(1 + self.exact))), b.load(step, typ=I64))
                b.store(b.add(b.load(step, typ=I64), self.number(1)), step)
            after = b.add(b.load(slot, typ=I64), arguments["apart"])
            around = b.sub(after, arguments["slots"])
            b.store(b.select(b.icmp_signed("<", around, self.number(0)), after, around), slot)

    def product(self, place: ir.Value, step: ir.Value) -> None:
        """Add source[m, place] * weights[step, :] to every sum; in whole numbers a pair of products."""
        b, pair = self.builder, 1 + self.exact
        weights = [self.weights(v, step, ir.VectorType(self.value, pair * LANES)) for v in range(self.vectors)]
        for m in range(self.rows):
            at = b.add(b.mul(self.number(m), self.argument["source_step"]), place)
            x = self.splat(self.load("source", at, self.total, self.value_size), self.total)
            for v, w in enumerate(weights):
                before = b.load(self.accumulators[m][v], typ=self.sums)
                b.store(self.pairs(x, w, before) if self.exact else self.fused(x, w, before), self.accumulators[m][v])

    def weights(self, v: int, step: ir.Value, kind: ir.Type) -> ir.Value:
        """The weights of one vector of columns; a panel is VECTORS wide or ends early, and lies in one piece."""
        b, pair = self.builder, 1 + self.exact
        panel, place = divmod(v, VECTORS)
        width = min(VECTORS, self.vectors - panel * VECTORS) * LANES * pair
        start = b.add(b.mul(self.number(panel), self.argument["panel_step"]), self.number(place * LANES * pair))
        return self.load("weights", b.add(start, b.mul(step, self.number(width))), kind, self.value_size)

    def fused(self, x: ir.Value, w: ir.Value, before: ir.Value) -> ir.Value:
        """before + x w, rounded once where the machine can."""
        return self.call("llvm.fmuladd", self.sums, x, w, before)

    def pairs(self, x: ir.Value, w: ir.Value, before: ir.Value) -> ir.Value:
        """before + x[0] w[0] + x[1] w[1]: widened whole, multiplied, then the evens and odds added: LLVM knows this form."""
        b, wide = self.builder, ir.VectorType(I32, 2 * LANES)
        products = b.mul(b.sext(b.bitcast(x, w.type), wide), b.sext(w, wide))
        evens, odds = (b.shuffle_vector(products, products, self.lanes(range(o, 2 * LANES, 2))) for o in (0, 1))
        return b.add(before, b.add(evens, odds))

    def finish(self, v: int) -> None:
        """Bring the sums to the target's scale, clamp and store them; of the last vector only the first ``tail`` columns."""
        for m in range(self.rows):
            sums = self.builder.load(self.accumulators[m][v], typ=self.sums)
            self.store(self.scaled(sums, v) if self.exact else self.floored(sums), m, v)

    def floored(self, sums: ir.Value) -> ir.Value:
        """relu where low is 0, for a low of -1 stands for no bound; NaN stays NaN."""
        b = self.builder
        bounded = b.icmp_signed("==", self.argument["low"], self.number(0))
        low = self.splat(b.select(bounded, ir.Constant(F32, 0.0), ir.Constant(F32, float("-inf"))), F32)
        return b.select(b.fcmp_ordered("<", sums, low), low, sums)

    def scaled(self, sums: ir.Value, v: int) -> ir.Value:
        """clamp((sums + half) >> shift), with half of the last bit that goes."""
        b = self.builder
        shift = self.load("biases", self.number((3 * v + 2) * LANES), self.sums, 4)
        one = ir.Constant(self.sums, [1] * LANES)
        sums = b.ashr(b.add(sums, b.lshr(b.shl(one, shift), one)), shift)
        low, high = (self.splat(b.trunc(self.argument[name], I32), I32) for name in ("low", "high"))
        sums = b.select(b.icmp_signed(">", sums, low), sums, low)
        return b.trunc(b.select(b.icmp_signed("<", sums, high), sums, high), ir.VectorType(I16, LANES))

    def store(self, values: ir.Value, m: int, v: int) -> None:
        b = self.builder
        place = b.add(b.mul(self.number(m), self.argument["target_step"]), self.number(v * LANES))
        pointer = b.gep(self.argument["target"], [place], source_etype=self.value)
        if v + 1 < self.vectors:
            b.store(values, pointer, align=self.value_size)
            return
        with b.if_else(b.icmp_signed("==", self.argument["tail"], self.number(LANES))) as (full, partial):
            with full:
                b.store(values, pointer, align=self.value_size)
            with partial:
                mask = b.icmp_signed("<", self.lanes(range(LANES)), self.splat(b.trunc(self.argument["tail"], I32), I32))
                align = ir.Constant(I32, self.value_size)
                self.call("llvm.masked.store", ir.VoidType(), values, pointer, align, mask)

    def call(self, intrinsic: str, returns: ir.Type, *arguments: ir.Value) -> ir.Value:
        """An intrinsic function of LLVM that is named after the type of its first argument, and of its pointers."""
        signature = ir.FunctionType(returns, [argument.type for argument in arguments])
        suffix = f".v{LANES}{'i16' if arguments[0].type.element == I16 else 'f32'}"
        suffix += ".p0" if any(argument.type == POINTER for argument in arguments) else ""
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, intrinsic + suffix), arguments)

    # -- words ---------------------------------------------------------------------------------------------------------------

    @property
    def value_size(self) -> int:
        """Bytes of a value in the state."""
        return 2 if self.exact else 4

    def number(self, n: int) -> ir.Constant:
        return ir.Constant(I64, n)

    def lanes(self, numbers: range) -> ir.Constant:
        return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))

    def load(self, name: str, place: ir.Value, kind: ir.Type, align: int) -> ir.Value:
        unit = I32 if name == "biases" else self.value
        return self.builder.load(self.builder.gep(self.argument[name], [place], source_etype=unit), align=align, typ=kind)

    def splat(self, x: ir.Value, kind: ir.Type) -> ir.Value:
        vector = ir.VectorType(kind, LANES)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(I32, 0))
        return self.builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(I32, LANES), [0] * LANES))


# -- what compiled code calls ------------------------------------------------------------------------------------------------


def tile_function(module: ir.Module, exact: bool, rows: int, vectors: int) -> ir.Function:
    """The function of one tile, written where the module has none yet."""
    name = f"tile_{'exact' if exact else 'float'}_{rows}x{vectors}"
    if name not in module.globals:
        kinds = [POINTER] * len(POINTERS) + [I64] * len(NUMBERS)
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        function.linkage = "internal"
        Tile(function, exact, rows, vectors).write()
    return module.globals[name]


def multiply_code(
    typing: Any,
    state: Any,
    weights: Any,
    biases: Any,
    rows: Any,
    vectors: Any,
    places: Any,
    numbers: Any,
) -> Any:
    """target[m] = init[m] + bias + sum over the window of source[m] times weight, for ``rows`` m and ``vectors`` LANES columns.

    ``places`` are those of POINTERS in state (source, init, target), weights and biases; ``numbers`` those of NUMBERS.
    """
    exact = state.dtype == types.int16

    def code(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> Any:
        arrays = [context.make_array(kind)(context, b, value).data for kind, value in zip(signature.args[:3], args, strict=False)]
        state, weights, biases = (b.bitcast(array, POINTER) for array in arrays)
        unit = I16 if exact else F32
        homes = [(state, unit), (weights, unit), (biases, I32), (state, unit), (state, unit)]
        places = cgutils.unpack_tuple(b, args[5])
        pointers = [b.gep(home, [place], source_etype=kind) for (home, kind), place in zip(homes, places, strict=True)]
        shapes = [(m, v) for m in HEIGHTS for v in range(1, (VECTORS if m > 1 else 2 * VECTORS) + 1)]
        key = b.add(b.mul(args[3], ir.Constant(I64, 2 * VECTORS + 1)), args[4])
        done = b.append_basic_block()
        switch = b.switch(key, done)
        for m, v in shapes:
            block = b.append_basic_block()
            switch.add_case(ir.Constant(I64, m * (2 * VECTORS + 1) + v), block)
            with b.goto_block(block):
                b.call(tile_function(b.module, exact, m, v), [*pointers, *cgutils.unpack_tuple(b, args[6])])
                b.branch(done)
        b.position_at_end(done)
        return context.get_dummy_value()

    return types.void(state, weights, biases, rows, vectors, places, numbers), code


multiply: Callable[..., None] = intrinsic(multiply_code)


# -- functions ---------------------------------------------------------------------------------------------------------------


def fused_code(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once where the machine can: the same at every place, whatever the compiler does around it."""

    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        kind = args[0].type
        function = builder.module.declare_intrinsic("llvm.fmuladd", [kind], ir.FunctionType(kind, [kind] * 3))
        return builder.call(function, args)

    return a(a, a, a), code


fused: Callable[..., Any] = intrinsic(fused_code)


@compiled
def exponential(x: float) -> float:
    """exp(x) of a float32 up to 88, within 2e-7 of the value; by arithmetic alone, so that loops of it become vector code."""
    one, least = float32(1.0), float32(-87.0)
    x = least if x < least else x
    magic = float32(12582912.0)  # 1.5 * 2^23: adding it rounds to a whole number n, which the lowest bits then hold
    shifted = fused(x, float32(1.44269504), magic)
    n = shifted - magic
    f = fused(n, float32(-0.693359375), x)  # log 2 in two parts, the first of which is exact
    f = fused(n, float32(2.12194440e-4), f)
    y = fused(float32(1.9875691500e-4), f, float32(1.3981999507e-3))
    y = fused(y, f, float32(8.3334519073e-3))
    y = fused(y, f, float32(4.1665795894e-2))
    y = fused(y, f, float32(1.6666665459e-1))
    y = fused(y, f, float32(0.5))
    y = fused(y, f * f, f) + one
    power: Any = np.int32((np.float32(shifted).view(np.int32) << 23) + 0x3F800000)  # the bits of 2^n
    scaled: float = y * power.view(np.float32)
    return scaled
