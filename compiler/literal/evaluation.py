"""One run over a resolved program with dense values: every statement and every kind of term, literally.

    Evaluation(site, environment).steps(method.body)

``site`` says what stands around the program: its tensors, dtype and functions (see ``literal/reference.py``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol, TypeAlias

import torch
from torch import Tensor

from padp.compiler.kernels import dense as K
from padp.compiler.kernels import itemwise
from padp.compiler.literal import values as d
from padp.compiler.literal.values import Datum, Pieces, Value
from padp.compiler.names import terms as t
from padp.dsl.diagnostics import PadpError, refuse
from padp.dsl.source import Span


@dataclass(frozen=True)
class Parts:
    """What ``attn(…)`` was given: q, k, v as (heads, e) of one token, o as the family of output maps."""

    tensors: Mapping[str, Value]


Meaning: TypeAlias = "int | float | str | Value | Parts | tuple[Value, ...]"
Environment: TypeAlias = "dict[str, Meaning | Pieces]"

LONGEST_LOOP = 1_000_000


class Surroundings(Protocol):
    """What an evaluation needs to know of the site."""

    @property
    def method(self) -> t.Method: ...

    @property
    def functions(self) -> Mapping[str, t.Function]: ...

    @property
    def tensors(self) -> Mapping[str, Tensor]: ...

    @property
    def dtype(self) -> torch.dtype: ...

    @property
    def device(self) -> torch.device: ...

    def base(self) -> Environment:
        """What is bound before the first statement."""
        ...


def plain_number(value: Meaning) -> int | float:
    """A number, where nothing else will do."""
    if isinstance(value, (int, float)):
        return value
    raise refuse("E301", f"a number is needed here, this is {value}")


class Evaluation:
    """One run over statements, with the names bound so far."""

    def __init__(self, site: Surroundings, environment: Mapping[str, Meaning | Pieces]) -> None:
        self.site = site
        self.environment: Environment = dict(environment)

    def steps(self, steps: Sequence[t.Step]) -> None:
        """Statements, in order."""
        for step in steps:
            try:
                self.step(step)
            except PadpError as error:
                if _is_placed(error):
                    raise
                raise _placed(error, step.span, self.site.method) from None

    def step(self, step: t.Step) -> None:
        match step:
            case t.Let(names=(name,), value=value):
                self.environment[name] = self.term(value)
            case t.Let(names=names, value=value):
                parts = self.term(value)
                if not isinstance(parts, tuple) or len(parts) != len(names):
                    raise refuse("E209", f"{len(names)} names on the left do not fit the value on the right")
                self.environment.update(zip(names, parts, strict=True))
            case t.Write(name=name, items=items, op=op, value=value):
                self.write(name, items, op, value)
            case t.Loop(variables=variables, domain=domain, body=body):
                kept = {v: self.environment.get(v) for v in variables}
                for values in self.domain(domain, len(variables)):
                    self.environment.update(zip(variables, values, strict=True))
                    self.steps(body)
                self.restore(kept)

    def restore(self, kept: Mapping[str, Meaning | Pieces | None]) -> None:
        for name, value in kept.items():
            if value is None:
                self.environment.pop(name, None)
            else:
                self.environment[name] = value

    def write(self, name: str, items: Sequence[t.Term | t.Range], op: str, term: t.Term) -> None:
        """Into a copy of a bound name, or one more piece of a name that is being defined."""
        value = self.value(term)
        places = [self.index(i) for i in items]
        bound = self.environment.get(name)
        if isinstance(bound, Value):
            self.environment[name] = d.write(bound, places, op, value)
        elif bound is None or isinstance(bound, Pieces):
            if op != "←":
                raise refuse("E305", f"`{name}` is not whole yet, and {op} changes it")
            pieces = Pieces([]) if bound is None else bound
            like = Value(torch.zeros((), dtype=self.site.dtype, device=self.site.device), 0)
            self.environment[name] = Pieces([*pieces.parts, (tuple(places), d.closed(d.scalar(value, like)))])
        else:
            raise refuse("E301", f"`{name}` is a number and has no entries")

    def domain(self, domain: t.Term, count: int) -> Iterator[tuple[int, ...]]:
        """The indices that a loop or a sum runs over, in order."""
        match domain:
            case t.Call(function="range", args=args):
                ends = [self.number(a) for a in args]
                if not all(isinstance(e, int) for e in ends):
                    raise refuse("E501", f"range takes whole numbers, not {', '.join(map(str, ends))}", domain.span)
                if ends[-1] < (ends[0] if len(ends) == 2 else 0):
                    raise refuse("E501", f"a range goes upwards, not to {ends[-1]}", domain.span)
                values = range(*(int(e) for e in ends))
                if len(values) > LONGEST_LOOP:
                    raise refuse("E307", f"a loop of {len(values)} steps is too long", domain.span)
                yield from ((i,) for i in values)
            case _:
                found = self.term(domain)
                if not isinstance(found, Value) or not found.is_index:
                    raise refuse("E307", "a loop runs over range(…) or an index set", domain.span)
                rows = found.tensor if found.rank == 2 else found.tensor[:, None]
                if rows.shape[-1] != count:
                    raise refuse("E209", f"the elements of this set are {rows.shape[-1]} numbers each, not {count}",
                                 domain.span)
                yield from (tuple(int(i) for i in row) for row in rows.tolist())

    def look_up(self, name: str, span: Span) -> Meaning:
        found = self.environment.get(name)
        if isinstance(found, Pieces):
            found = self.environment[name] = found.assembled(name)
        if found is not None:
            parameter = next((p for p in self.site.method.parameters if p.name == name and p.space.index), None)
            if parameter is not None and isinstance(found, Value) and found.tensor is self.site.tensors.get(name):
                index = self.look_up(str(parameter.space.index), span)
                if isinstance(index, Value) and index.rank == 2:
                    return replace(found, over=index.tensor)
            return found
        if name == "I":
            return d.identity(self.site.dtype, self.site.device)
        if name == "π":
            return math.pi
        raise refuse("E201", f"`{name}` has no value", span)

    # ------------------------------------------------------------ terms

    def value(self, term: t.Term) -> Datum:
        """A term that is a number or a tensor."""
        found = self.term(term)
        if isinstance(found, (str, Parts, tuple)):
            raise refuse("E301", "a number or a tensor is needed here", term.span)
        return found

    def number(self, term: t.Term) -> int | float:
        found = self.term(term)
        if isinstance(found, Value) and found.is_index and found.rank == 0 and not found.family:
            return int(found.tensor)
        if not isinstance(found, (int, float)):
            raise refuse("E310", "a number known from the sizes is needed here", term.span)
        return found

    def size(self, term: t.Term) -> int:
        found = self.number(term)
        if not isinstance(found, int) or found < 0:
            raise refuse("E501", f"a size is a whole number ≥ 0, this is {found}", term.span)
        return found

    def index(self, term: t.Term | t.Range) -> d.Index:
        """One item of an index."""
        if isinstance(term, t.Range):
            start, stop = (None if e is None else self.place(e) for e in (term.start, term.stop))
            between: slice = slice(start, stop, None if term.step is None else self.whole(term.step))
            return between
        found = self.term(term)
        if isinstance(found, Value) and found.is_index and found.rank == 1:
            return found.tensor
        return self.place(term)

    def place(self, term: t.Term) -> int | d.FromEnd:
        """A whole number; one that is written with a minus in front counts from the end."""
        return d.FromEnd(self.whole(term)) if t.counts_back(term) else self.whole(term)

    def whole(self, term: t.Term) -> int:
        found = self.number(term)
        if not isinstance(found, int):
            raise refuse("E305", f"an index is a whole number, this is {found}", term.span)
        return found

    def term(self, term: t.Term) -> Meaning:
        """The value of a term."""
        try:
            return self.read(term)
        except PadpError as error:
            if _is_placed(error):
                raise
            raise _placed(error, term.span, self.site.method) from None
        except (RuntimeError, ArithmeticError) as error:  # a singular matrix, an overflow
            message = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise refuse("E301", f"this cannot be computed: {message}", term.span,
                         source=self.site.method.source) from error

    def read(self, term: t.Term) -> Meaning:
        match term:
            case t.Number(value=value):
                return value
            case t.Text(value=text):
                return text
            case t.Var(name=name, span=span):
                return self.look_up(name, span)
            case t.Call():
                return self.call(term)
            case t.Negate(operand=operand):
                inner = self.value(operand)
                return d.scale(-1, inner) if isinstance(inner, Value) else -inner
            case t.Arith(op=op, left=left, right=right):
                return _ARITHMETIC[op](self.value(left), self.value(right))
            case t.Power(base=base, exponent=exponent):
                return d.power(self.value(base), self.number(exponent))
            case t.Transpose(operand=operand):
                return d.transpose(self.value(operand))
            case t.Inverse(operand=operand):
                return d.invert(self.value(operand))
            case t.Item(base=base, items=items):
                whole = self.value(base)
                if not isinstance(whole, Value):
                    raise refuse("E305", "a number has no entries")
                return d.item(whole, [self.index(i) for i in items])
            case t.Magnitude(operand=operand):
                inner = self.value(operand)
                if isinstance(inner, Value) and inner.is_index and inner.rank:
                    return int(inner.tensor.shape[0])
                return Value(d.closed(inner).tensor.abs(), inner.rank, norm=inner.norm) \
                    if isinstance(inner, Value) else abs(inner)
            case t.NormOf(operand=operand, axis=axis):
                return d.norm(self.value(operand), axis)
            case t.SumOver(indices=indices, domain=domain, body=body):
                return self.sum(indices, domain, body)
            case t.Choose(then=then, test=test, otherwise=otherwise):
                return self.term(then if self.holds(test) else otherwise)
            case t.BlockTerm(rows=rows):
                return self.blocks([[self.value(x) for x in row] for row in rows])
            case t.Gradient(name=name):
                raise refuse("E210", f"∇{name} is known only after backward", term.span)

    def holds(self, test: t.Test) -> bool:
        """The test of a relation or of a conditional: about sizes only."""
        left = self.number(test.left)
        right = 0 if test.right is None else self.number(test.right)
        match test.op:
            case "=":
                return left == right
            case "≠":
                return left != right
            case "<":
                return left < right
            case "≤":
                return left <= right
            case ">":
                return left > right
            case "≥":
                return left >= right
            case "even":
                return left % 2 == 0
            case "odd":
                return left % 2 == 1

    def sum(self, indices: tuple[str, ...], domain: t.Term, body: t.Term) -> Datum:
        total: Datum | None = None
        kept = {i: self.environment.get(i) for i in indices}
        for values in self.domain(domain, len(indices)):
            self.environment.update(zip(indices, values, strict=True))
            part = self.value(body)
            total = part if total is None else d.add(total, part)
        self.restore(kept)
        if total is None:
            raise refuse("E501", "this sum runs over nothing", domain.span)
        return total

    def blocks(self, rows: list[list[Datum]]) -> Value:
        """``[A, B; C, D]``: a vector is a column, a scalar one entry; a single column of vectors stacks."""
        like = Value(torch.zeros((), dtype=self.site.dtype, device=self.site.device), 0)
        grid = [[d.closed(d.scalar(x, like)) for x in row] for row in rows]
        flat = [x for row in grid for x in row]
        lead = torch.broadcast_shapes(*(x.family for x in flat))
        stacked = all(x.rank < 2 for x in flat) and len(grid) > 1 and all(len(row) == 1 for row in grid)
        literal = len(grid) == 1 and all(not isinstance(x, Value) for row in rows for x in row)
        if stacked or literal:
            parts = [x.tensor[..., None] if x.rank == 0 else x.tensor for x in flat]
            line = torch.cat([p.expand(*lead, p.shape[-1]) for p in parts], -1)
            return Value(line, 1, norm=all(x.norm for x in flat))
        lines: list[Tensor] = []
        for row in grid:
            columns = [x.tensor.reshape((*x.tensor.shape, *([1] * (2 - x.rank)))) for x in row]
            if len({c.shape[-2] for c in columns}) > 1:
                raise refuse("E301", f"{' and '.join(str(x) for x in row)} cannot stand beside each other")
            lines.append(torch.cat([c.expand(*lead, *c.shape[-2:]) for c in columns], -1))
        if len({line.shape[-1] for line in lines}) > 1:
            raise refuse("E301", "the rows of this matrix of blocks have different lengths")
        return Value(torch.cat(lines, -2), 2)

    # ------------------------------------------------------------ calls

    def call(self, term: t.Call) -> Meaning:
        name = term.function
        function = self.site.functions.get(name)
        if function is not None:
            inner = self.site.base()
            inner.update({k: v for k, v in self.environment.items() if k in ("x", "h")})
            inner.update(zip(function.parameters, (self.value(a) for a in term.args), strict=True))
            return Evaluation(self.site, inner).term(function.body)
        if name == "attn":
            return Parts({k: self.tensor(v) for k, v in term.kwargs})
        if name in _OF_NUMBERS:
            return self.of_numbers(name, term)
        if name in K.INDEX_SETS:
            numbers = [self.size(a) for a in term.args]
            if name in ("tree", "neighbours") and numbers[0] < 1:
                raise refuse("E501", f"{name}({numbers[0]}): nothing to turn", term.span)
            made = K.INDEX_SETS[name](*numbers).to(self.site.device)
            return Value(made, made.dim())
        return self.operator(name, term)

    def tensor(self, term: t.Term) -> Value:
        found = self.value(term)
        like = Value(torch.zeros((), dtype=self.site.dtype, device=self.site.device), 0)
        return d.closed(d.scalar(found, like))

    def of_numbers(self, name: str, term: t.Call) -> Meaning:
        """Functions of sizes."""
        match name:
            case "floor":
                return math.floor(self.number(term.args[0]))
            case "ceil":
                return math.ceil(self.number(term.args[0]))
            case _:
                n = self.number(term.args[0])
                exact = isinstance(n, int) and n > 0 and n & (n - 1) == 0
                return n.bit_length() - 1 if exact and isinstance(n, int) else math.log2(n)

    def operator(self, name: str, term: t.Call) -> Meaning:
        """An operator of the table."""
        args, named = list(term.args), dict(term.kwargs)

        def filled(value: float, *shape: int) -> Tensor:
            return torch.full(shape, value, dtype=self.site.dtype, device=self.site.device)

        match name:
            case "max" | "min" if len(args) == 2:
                return (max if name == "max" else min)(self.number(args[0]), self.number(args[1]))
            case "ones" | "zeros":
                return Value(filled(1.0 if name == "ones" else 0.0, *(self.size(a) for a in args)), len(args))
            case "eye":
                return Value(torch.diag(filled(1.0, self.size(args[0]))), 2)
            case "len":
                return int(_rank(self.tensor(args[0]), 1, 2, name).item[0])
            case "blkdiag" if len(args) > 1:
                parts = [_rank(self.tensor(a), 2, 2, name) for a in args]
                tensors = ((p.tensor, 2) for p in parts)
                return Value(itemwise.each(lambda *items: itemwise.blkdiag(list(items)), *tensors), 2)
            case "outer" | "solve" | "kron" | "maximum" | "minimum":
                return self.binary_operator(name, self.tensor(args[0]), self.tensor(args[1]))
            case "clamp":
                e = self.tensor(args[0])
                ends = [d.scalars(end, e.rank) if isinstance(end, Value) else end
                        for end in (self.value(args[1]), self.value(args[2]))]
                return replace(e, tensor=K.clamp(e.tensor, *ends), row=False, lying=False, over=None, norm=False)
            case "largest":
                return Value(K.largest(_rank(self.tensor(args[0]), 2, 2, name).tensor, self.size(args[1])), 2)
            case _:
                pass
        first = self.value(args[0])
        if not isinstance(first, Value) and name in K.POINTWISE:
            return float(K.POINTWISE[name](torch.tensor(float(first), dtype=torch.float64)))
        e = self.tensor(args[0])
        if 0 in e.item[_NEEDED.get(name, slice(0, 0))]:
            raise refuse("E501", f"{name} of no entries has no value", term.span)
        if name == "sqrt" and e.norm:
            return d.power(e, 0.5)
        if name in K.POINTWISE:
            return replace(e, tensor=K.POINTWISE[name](e.tensor), lying=False, over=None,
                           norm=e.norm and name in ("sqrt", "abs"))
        if name in _OF_ONE:
            low_rank, high_rank, make_one = _OF_ONE[name]
            return make_one(_rank(e, low_rank, high_rank, name))
        sizes = [self.size(a) for a in args[1:]] if name not in ("drop", "scatter") else []
        match name:
            case "perm":
                if not e.is_index:
                    raise refuse("E310", "perm takes an index vector", suggestion="arange(n) or butterfly(n, k, j)")
                return Value(K.perm(e.tensor, self.site.dtype), 2)
            case "reshape":
                return Value(K.reshape(e.tensor, e.tensor.dim(), sizes), min(2, len(sizes)), norm=e.norm)
            case "blocks":
                whole = _rank(e, 2, 2, name)
                return Value(itemwise.each(lambda M: itemwise.blocks(M, *sizes), (whole.tensor, 2)), 2)
            case "tile":
                return Value(K.tile(e.tensor, sizes[0], _rank(e, 1, 2, name).rank), e.rank, norm=e.norm)
            case "repeat":
                return Value(K.repeat(_family(e, name).tensor, sizes[0], e.rank), e.rank, norm=e.norm)
            case "grouped":
                heads = sizes[0] if sizes else int(self.look_up_number("H", term))
                return Value(K.grouped(_family(e, name).tensor, heads, e.rank), e.rank, norm=e.norm)
            case "scatter":
                places, shape = self.tensor(args[1]), named["shape"]
                if not isinstance(shape, t.Call) or not places.is_index or places.item[-1:] != (2,) or e.rank != 1:
                    raise refuse("E301", "scatter takes a vector, a set of pairs and shape=(m, n)")
                m, n = (self.size(a) for a in shape.args)
                if places.item[0] != e.item[0]:
                    raise refuse("E301", f"{e.item[0]} values for {places.item[0]} places")
                if any(not (0 <= i < m and 0 <= j < n) for i, j in places.tensor.tolist()):
                    raise refuse("E305", f"a place lies outside of {m}×{n}")
                return Value(itemwise.each(lambda c: itemwise.scatter(c, places.tensor, m, n), (e.tensor, 1)), 2)
            case "svd":
                rank = self.size(named["rank"]) if "rank" in named else None
                U, S, V = K.svd(_rank(e, 2, 2, name).tensor, rank)
                return Value(U, 2), Value(S, 1), Value(V, 2)
            case "qr":
                Q, R = K.qr(_rank(e, 2, 2, name).tensor)
                return Value(Q, 2), Value(R, 2)
            case "topk":
                return Value(K.topk(_rank(e, 1, 1, name).tensor, sizes[0]), 1)
            case "argtop":
                return Value(K.argtop(_rank(e, 1, 1, name).tensor, sizes[0]), 1)
            case "detach":
                return replace(e, tensor=e.tensor.detach())
            case "drop":
                if not 0 <= self.number(args[1]) <= 1:
                    raise refuse("E501", "a probability lies between 0 and 1", term.span)
                return e  # the reference is what is computed in evaluation, where nothing is dropped
            case _:
                raise refuse("E203", f"{name} has no meaning here", term.span)

    def look_up_number(self, name: str, term: t.Call) -> int | float:
        return plain_number(self.look_up(name, term.span))

    def binary_operator(self, name: str, a: Value, b: Value) -> Value:
        match name:
            case "outer":
                return Value(K.outer(_rank(a, 1, 1, name).tensor, _rank(b, 1, 1, name).tensor), 2)
            case "solve":
                if a.rank != 2 or not b.rank or a.item[0] != a.item[1] or a.item[0] != b.item[0]:
                    raise refuse("E301", f"solve(A, B) is A⁻¹ B: {a} and {b} do not fit")
                return Value(itemwise.each(itemwise.solve, (a.tensor, 2), (b.tensor, b.rank)), b.rank)
            case "kron":
                return d.kron(a, b)
            case _:
                if a.rank and b.rank and a.item != b.item:
                    raise refuse("E301", f"{name} of {a} and {b}")
                rank = max(a.rank, b.rank)
                x, y = (v.tensor if v.rank else d.scalars(v, rank) for v in (a, b))
                return Value((torch.maximum if name == "maximum" else torch.minimum)(x, y), rank, axis=a.axis or b.axis,
                             norm=name == "maximum" and a.norm and b.norm)


def _rank(e: Value, low: int, high: int, name: str) -> Value:
    if not low <= e.rank <= high:
        wanted = {(1, 1): "a vector", (2, 2): "a matrix", (1, 2): "a vector or a matrix"}.get((low, high), "a scalar")
        raise refuse("E301", f"{name} takes {wanted}, this is {e}")
    return e


def _family(e: Value, name: str) -> Value:
    if not e.family:
        raise refuse("E301", f"{name} takes a family, this is {e}")
    return e


def _square(e: Value, name: str) -> Value:
    if e.item[0] != e.item[1]:
        raise refuse("E304", f"{name} takes a square matrix, this is {e}")
    return e


def _assembled(e: Value) -> Value:
    if len(e.family) < 2:
        raise refuse("E301", f"assemble takes a grid of blocks (ℝ^{{p×q}})^{{a×b}}, this is {e}")
    return Value(itemwise.each(itemwise.assemble, (e.tensor, 4)), 2)


def _blkdiag(e: Value) -> Value:
    parts = _family(e, "blkdiag").tensor.reshape(math.prod(e.family), *e.item)
    return Value(itemwise.blkdiag(list(parts.unbind(0))) if len(parts) else parts.new_zeros(0, 0), 2)


def _split_rows(e: Value) -> Value:
    return Value(e.tensor, 1, norm=e.norm)


def _one(function: Callable[[Tensor], Tensor], rank: int) -> Callable[[Value], Value]:
    return lambda e: Value(function(e.tensor), rank)


def _item(function: Callable[[Tensor], Tensor], rank: int) -> Callable[[Value], Value]:
    return lambda e: Value(itemwise.each(function, (e.tensor, e.rank)), rank)


def _per(function: Callable[[Tensor], Tensor], axis: Literal["row", "col"]) -> Callable[[Value], Value]:
    return lambda e: Value(function(e.tensor), 1, axis=axis, norm=e.norm and function in _OF_NORMS)


def _all(function: Callable[[Tensor, int], Tensor]) -> Callable[[Value], Value]:
    return lambda e: Value(function(e.tensor, e.rank), 0, norm=e.norm and function in _OF_NORMS)


def _max_row(M: Tensor) -> Tensor:
    return M.amax(-1)


def _max_col(M: Tensor) -> Tensor:
    return M.amax(-2)


_OF_NORMS = (K.total, K.mean, K.largest_entry, K.sum_row, K.sum_col, K.mean_row, K.mean_col, _max_row, _max_col)
"""Reductions of norms that are norms."""


_ARITHMETIC: Mapping[str, Callable[[Datum, Datum], Datum]] = {
    "+": d.add, "-": lambda a, b: d.add(a, b, -1), "·": d.dotted, "@": d.matmul, "⊙": d.hadamard, "⊗": d.kron,
    "/": d.divide, "//": d.floor_divide, "*": d.beside,
}
# axes of the item along which there must be entries
_NEEDED: Mapping[str, slice] = {
    **dict.fromkeys(("max", "min", "mean", "softmax", "circulant", "fft", "ifft", "fft2", "ifft2"), slice(None)),
    "max_row": slice(1, 2), "min_row": slice(1, 2), "mean_row": slice(1, 2),
    "max_col": slice(0, 1), "min_col": slice(0, 1), "mean_col": slice(0, 1),
}
_OF_NUMBERS = ("floor", "ceil", "log2")
# rank of the item from, to, and the value
_OF_ONE: Mapping[str, tuple[int, int, Callable[[Value], Value]]] = {
    "skew": (1, 1, _item(itemwise.skew, 2)), "diag": (1, 1, _item(itemwise.diag, 2)),
    "diagonal": (2, 2, _one(K.diagonal, 1)),
    "blkdiag": (2, 2, _blkdiag), "assemble": (2, 2, _assembled), "circulant": (1, 1, _item(itemwise.circulant, 2)),
    "flatten": (0, 2, lambda e: Value(e.tensor.reshape(-1), 1, norm=e.norm)), "vec": (2, 2, _one(K.vec, 1)),
    "family": (2, 2, _split_rows), "rows": (1, 1, lambda e: Value(_family(e, "rows").tensor, 2, norm=e.norm)),
    "tril": (2, 2, _one(K.tril, 2)), "triu": (2, 2, _one(K.triu, 2)), "stril": (2, 2, _one(K.stril, 2)),
    "striu": (2, 2, _one(K.striu, 2)), "expm": (2, 2, lambda e: _item(itemwise.expm, 2)(_square(e, "expm"))),
    "trace": (2, 2, lambda e: Value(K.trace(_square(e, "trace").tensor), 0)),
    "softmax": (1, 1, _item(itemwise.softmax, 1)),
    "fft": (1, 1, _one(K.fft, 1)), "ifft": (1, 1, _one(K.ifft, 1)), "fft2": (2, 2, _one(K.fft2, 2)),
    "ifft2": (2, 2, _one(K.ifft2, 2)), "Re": (0, 2, lambda e: Value(K.real(e.tensor), e.rank)),
    "Im": (0, 2, lambda e: Value(K.imag(e.tensor), e.rank)),
    "sum": (1, 2, _all(K.total)), "mean": (1, 2, _all(K.mean)), "max": (1, 2, _all(K.largest_entry)),
    "min": (1, 2, _all(K.smallest_entry)), "sum_row": (2, 2, _per(K.sum_row, "row")),
    "sum_col": (2, 2, _per(K.sum_col, "col")), "mean_row": (2, 2, _per(K.mean_row, "row")),
    "mean_col": (2, 2, _per(K.mean_col, "col")), "max_row": (2, 2, _per(_max_row, "row")),
    "max_col": (2, 2, _per(_max_col, "col")), "min_row": (2, 2, _per(lambda M: M.amin(-1), "row")),
    "min_col": (2, 2, _per(lambda M: M.amin(-2), "col")),
}


def _is_placed(error: PadpError) -> bool:
    return all(x.span is not None and x.span != Span(0, 0) and x.source is not None for x in error.diagnostics)


def _placed(error: PadpError, span: Span, method: t.Method) -> PadpError:
    """The same findings, with a place where they have none."""
    return PadpError([
        replace(x, span=span if x.span is None or x.span == Span(0, 0) else x.span, source=x.source or method.source)
        for x in error.diagnostics
    ])
