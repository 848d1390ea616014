"""The inner loops of attention: products of a query's head with the keys of many rows, and weighted sums of their values.

As in `tiles`, the code is LLVM's, for vectors of any machine. A sum over rows is one chain in the order of the rows, so it does
not matter in how many pieces they come; a sum over features adds lane by lane, then halves of the lanes. Whole numbers are
multiplied by pairs, and products summed in 64 bits; values are summed in 32, where `walking.exact.tokens` proves that they fit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba.core import types
from numba.extending import intrinsic

from ancestral.walking.native.tiles import F32, I16, I32, I64, LANES, POINTER, cgutils

BLOCK = 4  # vectors of features that are summed together
SCORES = ("query", "keys", "step", "rows", "size", "scores")
BLEND = ("values", "step", "rows", "size", "weights", "sums")


class Head:
    """Writes the code of a function of one head.

    Args:
        function: an empty function; its arguments are called by ``names``, pointers and numbers.
        exact: whole numbers instead of floating point.
    """

    def __init__(self, function: ir.Function, names: Sequence[str], exact: bool) -> None:
        self.builder = ir.IRBuilder(function.append_basic_block())
        self.argument = dict(zip(names, function.args, strict=True))
        self.exact, self.value = exact, I16 if exact else F32
        self.sum = I32 if exact else F32

    # -- scores ----------------------------------------------------------------------------------------------------------------

    def scores(self) -> None:
        """scores[row] = the sum of query[i] keys[row, i] over ``size`` features i, for every row."""
        b, a = self.builder, self.argument
        lanes = LANES * (1 + self.exact)
        total = I64 if self.exact else F32
        sums = ir.VectorType(total, LANES)
        accumulator = cgutils.alloca_once(b, sums)
        whole, rest = b.sdiv(a["size"], self.number(lanes)), b.srem(a["size"], self.number(lanes))
        with cgutils.for_range(b, a["rows"]) as row:
            keys = self.at(a["keys"], b.mul(row.index, a["step"]))
            b.store(ir.Constant(sums, None), accumulator)
            with cgutils.for_range(b, whole) as loop:
                place = b.mul(loop.index, self.number(lanes))
                x, y = (self.load(self.at(base, place), lanes) for base in (a["query"], keys))
                b.store(self.product(x, y, b.load(accumulator, typ=sums)), accumulator)
            with b.if_then(b.icmp_signed(">", rest, self.number(0))):
                place = b.mul(whole, self.number(lanes))
                x, y = (self.masked(self.at(base, place), lanes, rest) for base in (a["query"], keys))
                b.store(self.product(x, y, b.load(accumulator, typ=sums)), accumulator)
            found = self.total(b.load(accumulator, typ=sums))
            b.store(found, b.gep(a["scores"], [row.index], source_etype=total))
        b.ret_void()

    def product(self, x: ir.Value, y: ir.Value, before: ir.Value) -> ir.Value:
        """before + x y; whole numbers by pairs, in the form that LLVM knows (see ``tiles.Tile.pairs``), then widened."""
        b = self.builder
        if not self.exact:
            return self.call("llvm.fmuladd", x.type, x, y, before)
        wide = ir.VectorType(I32, 2 * LANES)
        products = b.mul(b.sext(x, wide), b.sext(y, wide))
        evens, odds = (b.shuffle_vector(products, products, self.lanes(range(o, 2 * LANES, 2))) for o in (0, 1))
        return b.add(before, b.sext(b.add(evens, odds), before.type))

    def total(self, x: ir.Value) -> ir.Value:
        """The sum of a vector's lanes, halves first."""
        b, half = self.builder, LANES // 2
        while half:
            other = b.shuffle_vector(x, x, self.lanes([(i + half) % LANES for i in range(LANES)]))
            x = b.add(x, other) if self.exact else b.fadd(x, other)
            half //= 2
        return b.extract_element(x, ir.Constant(I32, 0))

    # -- weighted sums -----------------------------------------------------------------------------------------------------------

    def blend(self) -> None:
        """sums[i] += the sum of weights[row] values[row, i] over rows; sums have room for whole vectors."""
        b, size = self.builder, self.argument["size"]
        whole, rest = b.sdiv(size, self.number(LANES)), b.srem(size, self.number(LANES))
        blocks = b.sdiv(whole, self.number(BLOCK))
        with cgutils.for_range(b, blocks) as loop:
            self.summed(b.mul(loop.index, self.number(BLOCK * LANES)), BLOCK)
        first = b.mul(blocks, self.number(BLOCK))
        with cgutils.for_range(b, b.sub(whole, first)) as loop:
            self.summed(b.mul(b.add(first, loop.index), self.number(LANES)), 1)
        with b.if_then(b.icmp_signed(">", rest, self.number(0))):
            self.summed(b.mul(whole, self.number(LANES)), 1, rest)
        b.ret_void()

    def summed(self, place: ir.Value, vectors: int, tail: ir.Value | None = None) -> None:
        """The sums of a few vectors of features, held in registers over all rows."""
        b, a, kind = self.builder, self.argument, ir.VectorType(self.sum, LANES)
        targets = [b.gep(a["sums"], [b.add(place, self.number(v * LANES))], source_etype=self.sum) for v in range(vectors)]
        accumulators = [cgutils.alloca_once(b, kind) for _ in range(vectors)]
        for target, accumulator in zip(targets, accumulators, strict=True):
            b.store(b.load(target, align=4, typ=kind), accumulator)
        with cgutils.for_range(b, a["rows"]) as row:
            weight = b.load(b.gep(a["weights"], [row.index], source_etype=self.sum), align=4, typ=self.sum)
            w = self.splat(weight)
            start = b.add(b.mul(row.index, a["step"]), place)
            for v, accumulator in enumerate(accumulators):
                pointer = self.at(a["values"], b.add(start, self.number(v * LANES)))
                x = self.load(pointer, LANES) if tail is None else self.masked(pointer, LANES, tail)
                before = b.load(accumulator, typ=kind)
                after = b.add(before, b.mul(w, b.sext(x, kind))) if self.exact else self.call("llvm.fmuladd", kind, x, w, before)
                b.store(after, accumulator)
        for target, accumulator in zip(targets, accumulators, strict=True):
            b.store(b.load(accumulator, typ=kind), target, align=4)

    # -- words -------------------------------------------------------------------------------------------------------------------

    def number(self, n: int) -> ir.Constant:
        return ir.Constant(I64, n)

    def lanes(self, numbers: Sequence[int]) -> ir.Constant:
        return ir.Constant(ir.VectorType(I32, len(numbers)), list(numbers))

    def at(self, base: ir.Value, place: ir.Value) -> ir.Value:
        return self.builder.gep(base, [place], source_etype=self.value)

    def load(self, pointer: ir.Value, count: int) -> ir.Value:
        return self.builder.load(pointer, align=2 if self.exact else 4, typ=ir.VectorType(self.value, count))

    def masked(self, pointer: ir.Value, count: int, tail: ir.Value) -> ir.Value:
        """The first ``tail`` values of a vector, then zeros."""
        kind = ir.VectorType(self.value, count)
        limit = self.builder.insert_element(ir.Constant(ir.VectorType(I32, count), ir.Undefined), self.narrow(tail), self.zero())
        limit = self.builder.shuffle_vector(limit, limit, self.lanes([0] * count))
        mask = self.builder.icmp_signed("<", self.lanes(range(count)), limit)
        align = ir.Constant(I32, 2 if self.exact else 4)
        return self.call("llvm.masked.load", kind, pointer, align, mask, ir.Constant(kind, None))

    def narrow(self, x: ir.Value) -> ir.Value:
        return self.builder.trunc(x, I32)

    def zero(self) -> ir.Constant:
        return ir.Constant(I32, 0)

    def splat(self, x: ir.Value) -> ir.Value:
        vector = ir.VectorType(x.type, LANES)
        first = self.builder.insert_element(ir.Constant(vector, ir.Undefined), x, self.zero())
        return self.builder.shuffle_vector(first, first, self.lanes([0] * LANES))

    def call(self, name: str, returns: ir.VectorType, *arguments: ir.Value) -> ir.Value:
        """An intrinsic function of LLVM that is named after what it returns, and after pointers."""
        signature = ir.FunctionType(returns, [argument.type for argument in arguments])
        suffix = f".v{returns.count}{'i16' if returns.element == I16 else 'f32'}"
        suffix += ".p0" if any(argument.type == POINTER for argument in arguments) else ""
        return self.builder.call(cgutils.get_or_insert_function(self.builder.module, signature, name + suffix), arguments)


def head_function(module: ir.Module, which: str, exact: bool) -> ir.Function:
    """``Head.scores`` or ``Head.blend`` as a function, written where the module has none yet."""
    name = f"head_{which}_{'exact' if exact else 'float'}"
    if name not in module.globals:
        names = SCORES if which == "scores" else BLEND
        kinds = [I64 if each in ("step", "rows", "size") else POINTER for each in names]
        function = ir.Function(module, ir.FunctionType(ir.VoidType(), kinds), name)
        function.linkage = "internal"
        head = Head(function, names, exact)
        head.scores() if which == "scores" else head.blend()
    return module.globals[name]


def pointers(context: Any, b: ir.IRBuilder, kinds: Any, args: Any) -> list[ir.Value]:
    """Pointers to places of arrays, given as pairs of arguments."""
    found = []
    for array, kind, place in zip(args[::2], kinds[::2], args[1::2], strict=True):
        data = b.bitcast(context.make_array(kind)(context, b, array).data, POINTER)
        found.append(b.gep(data, [place], source_etype=context.get_value_type(kind.dtype)))
    return found


def scores_code(
    typing: Any, state: Any, query: Any, again: Any, keys: Any, scores: Any, first: Any, step: Any, rows: Any, size: Any
) -> Any:
    """scores[first + row] = state[query ..] . state[keys + row step ..] of ``size`` features, for all ``rows``."""

    def code(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> Any:
        q, k, s = pointers(context, b, signature.args[:6], args[:6])
        b.call(head_function(b.module, "scores", state.dtype == types.int16), [q, k, *args[6:], s])
        return context.get_dummy_value()

    return types.void(state, query, again, keys, scores, first, step, rows, size), code


def blend_code(
    typing: Any, state: Any, values: Any, weights: Any, first: Any, sums: Any, place: Any, step: Any, rows: Any, size: Any
) -> Any:
    """sums[place ..] += the sum over rows of weights[first + row] times state[values + row step ..], of ``size`` features."""

    def code(context: Any, b: ir.IRBuilder, signature: Any, args: Any) -> Any:
        v, w, s = pointers(context, b, signature.args[:6], args[:6])
        b.call(head_function(b.module, "blend", state.dtype == types.int16), [v, *args[6:], w, s])
        return context.get_dummy_value()

    return types.void(state, values, weights, first, sums, place, step, rows, size), code


scored: Callable[..., None] = intrinsic(scores_code)
blended: Callable[..., None] = intrinsic(blend_code)
