"""Expressions of the syntax tree → terms: operators, norms, sums, chains of postfixes, factors side by side.

Names are read in ``naming``, calls in ``arguments``, spaces in ``spaces``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from padp.compiler.names import terms as t
from padp.compiler.names.calls import made_call, member, read_call, unknown_function
from padp.compiler.names.identifiers import assume, indexed_name, read_name
from padp.compiler.names.index_ranges import item_of, range_of
from padp.compiler.names.reading import Place, Reading
from padp.compiler.names.scope import Entry, Scope, key, plain, walk
from padp.dsl import syntax as s
from padp.dsl.source import Span


class Reader(Reading):
    """Reads expressions, and reports what is wrong in them."""

    def expr(self, e: s.Expr, scope: Scope, place: Place) -> t.Term:
        """One expression."""
        match e:
            case s.Number(value=value, span=span):
                return t.Number(value, span)
            case s.Name(text=text, span=span):
                return read_name(self, text, span, scope, place)
            case s.Group(inner=inner):
                read = self.expr(inner, scope, place)
                return replace(read, grouped=True) if isinstance(read, t.Arith) else read
            case s.Chain():
                return self.chain(e, scope, place)
            case s.Juxt():
                return self.juxt(e, scope, place)
            case s.Unary(op="∇", operand=operand, span=span):
                return self.gradient(operand, scope, place, span)
            case s.Unary(op=op, operand=operand, span=span):
                read = self.expr(operand, scope, place)
                return t.Negate(read, span) if op == "-" else t.Call("sqrt", (read,), (), span)
            case s.Binary():
                return self.binary(e, scope, place)
            case s.Norm(inner=inner, axis=axis, span=span):
                return self.norm(inner, axis, span, scope, place)
            case s.Abs(inner=inner, span=span):
                return t.Magnitude(self.expr(inner, scope, place), span)
            case s.Sum():
                return self.sum(e, scope, place)
            case s.Conditional(then=then, test=test, otherwise=otherwise, span=span):
                return t.Choose(self.expr(then, scope, place), self.test(test, scope),
                                self.expr(otherwise, scope, place), span)
            case s.Blocks(rows=rows, span=span):
                return t.BlockTerm(tuple(tuple(self.expr(x, scope, place) for x in row) for row in rows), span)
            case s.Text(value=value, span=span):
                self.report("E106", f'the text "{value}" cannot stand in an expression', span)
                return t.Var(f'"{value}"', span)
            case s.TupleOf(span=span):
                self.report("E106", "several values in parentheses cannot stand in an expression", span,
                            suggestion="a product of names is written with · or @")
                return t.Var("(…)", span)
            case s.Dots(span=span):
                self.report("E106", "`...` cannot stand here", span, suggestion="blkdiag(R₁, ..., R_b) is a use of it")
                return t.Var("...", span)
            case s.Slice():
                self.report("E106", "a slice cannot stand here", e.span, suggestion="A_{:, :k}")
                return t.Var(":", e.span)

    def gradient(self, operand: s.Expr, scope: Scope, place: Place, span: Span) -> t.Term:
        """``∇w``."""
        while isinstance(operand, s.Group):
            operand = operand.inner
        if not isinstance(operand, s.Name):
            self.report("E210", "∇ stands before the name of a learned tensor", span, suggestion="∇w")
            return t.Var("∇", span)
        found = scope.find(operand.text) or assume(self, operand.text, operand.span, scope)
        if found is None:
            self.undeclared(operand.text, operand.span, scope, place)
        elif not found.learned:
            self.report("E210", f"∇{operand.text}: only a learned tensor has a gradient to be read", span)
        if place not in ("update", "function"):
            self.report("E210", "∇ is known only after backward", span, suggestion="put it under `after backward:`")
        return t.Gradient(operand.text if found is None else found.name, span)

    def binary(self, e: s.Binary, scope: Scope, place: Place) -> t.Term:
        """``left op right``; a chain of products with ``...`` in it is refused and read without."""
        for dots, other in ((e.left, e.right), (e.right, e.left)):
            if isinstance(dots, s.Dots):
                self.report("E106", f"`... {e.op}`: a product with an ellipsis is not read", dots.span, once="dots",
                            suggestion="write a loop: `R ← I`, `for j in range(F):`, `    R ← B_{j} @ R`")
                return self.expr(other, scope, place)
        # the parser makes long sums and products lean to the left: unwind them, so that length is not depth
        stack: list[s.Binary] = []
        left: s.Expr = e
        while isinstance(left, s.Binary) and not isinstance(left.left, s.Dots) and not isinstance(left.right, s.Dots):
            stack.append(left)
            left = left.left
        term = self.expr(left, scope, place)
        for step in reversed(stack):
            term = t.Arith(step.op, term, self.expr(step.right, scope, place), step.span)
        return term

    def norm(self, inner: s.Expr, axis: str | None, span: Span, scope: Scope, place: Place) -> t.Term:
        """``‖e‖`` with its axis."""
        operand = self.expr(inner, scope, place)
        match axis:
            case None | "row" | "col" | "F":
                return t.NormOf(operand, axis, span)
            case _:
                self.report("E204", f"‖·‖_{axis}: unknown axis", span,
                            suggestion="‖·‖_row (one norm a row), ‖·‖_col (one a column) or ‖·‖_F")
                return t.NormOf(operand, "F", span)

    def test(self, e: s.Compare | s.Parity, scope: Scope) -> t.Test:
        """The test of a conditional, or a relation of ``where``: about sizes only."""
        match e:
            case s.Compare(op=op, left=left, right=right, span=span):
                made = t.Test(op, self.expr(left, scope, "size"), self.expr(right, scope, "size"), span)
            case s.Parity(operand=operand, even=even, span=span):
                made = t.Test("even" if even else "odd", self.expr(operand, scope, "size"), None, span)
        for node in walk((made.left, made.right)):
            if isinstance(node, t.Var):
                found = scope.find(node.name)
                if found is not None and found.kind not in ("number", "index"):
                    self.report("E210", f"`{node.name}` is a tensor; a condition is about sizes only", node.span)
        return made

    def sum(self, e: s.Sum, scope: Scope, place: Place) -> t.Term:
        """``Σ``: its indices are bound in its body; without a domain their range is found from use."""
        indices = tuple(plain(i) for i in e.indices)
        inner = scope.inner()
        size: t.Term | None = None
        domain: t.Term | None = None
        if e.domain is not None:
            domain = self.domain(e.domain, scope, place)
            if isinstance(domain, t.Call) and domain.function == "range" and len(domain.args) == 1:
                size = domain.args[0]
            if isinstance(domain, t.Call) and domain.function == "range" and len(indices) != 1:
                self.report("E209", f"range gives one number at a time, not {len(indices)}", e.span,
                            suggestion="Σ_{i ∈ range(n)} …")
        for index in indices:
            self.refuse_taken(index, e.span, scope)
        if domain is None:
            # while another index is looked for, this one's range does not matter, and finding it again at each level of
            # nested sums would take twice the time for each
            found = range_of(self, indices[0], e.body, scope, place, e.span) if len(indices) == 1 and not self.muted \
                else None
            if len(indices) != 1:
                self.report("E307", "a sum over several indices needs to be told their set", e.span,
                            suggestion="Σ_{(i,j) ∈ Ω} …")
            size = found if found is not None else t.Var(f"|{indices[0]}|", e.span)
            domain = t.Call("range", (size,), (), e.span)
        for index in indices:
            inner.bind(Entry(index, "index", e.span, size=size))
        return t.SumOver(indices, domain, self.expr(e.body, inner, place), e.span)

    def domain(self, e: s.Expr, scope: Scope, place: Place) -> t.Term:
        """What a loop or a sum runs over: ``range(…)`` or an index set."""
        while isinstance(e, s.Group):
            e = e.inner
        if isinstance(e, s.Chain) and isinstance(e.head, s.Name) and e.head.text == "range" and len(e.trailers) == 1:
            (args,) = e.trailers
            if isinstance(args, s.Args) and scope.find("range") is None:
                sizes = tuple(self.expr(a, scope, "size") for a in args.args)
                if not 1 <= len(sizes) <= 2 or args.kwargs:
                    self.report("E209", "range takes one or two numbers", e.span, suggestion="range(n) or range(a, b)")
                    sizes = (*sizes, t.Number(0, e.span))[:1]
                return t.Call("range", sizes, (), e.span)
        if isinstance(e, s.Name) and scope.find(e.text) is None and not self.is_function(e.text, scope):
            self.report("E201", f"`{e.text}` is not declared", e.span, once=key(e.text),
                        suggestion=f"define the index set, `{e.text} ← tree(n)`, or loop over `range(…)`",
                        notes=["index sets: tree, neighbours, pairs, halves, band, sample, largest"])
            return t.Var(e.text, e.span)
        term = self.expr(e, scope, place)
        if isinstance(term, t.Number) or (isinstance(term, t.Var) and self._is_number(term.name, scope)):
            self.report("E307", "a loop runs over range(…) or an index set; this is a number", e.span,
                        suggestion="range(…)")
            return t.Call("range", (term,), (), e.span)
        return term

    def _is_number(self, name: str, scope: Scope) -> bool:
        found = scope.find(name)
        return found is not None and found.kind == "number"

    # ------------------------------------------------------------ chains and juxtaposition

    def chain(self, e: s.Chain, scope: Scope, place: Place) -> t.Term:
        """Head and trailers. A postfix after a call belongs to the call, after a parenthesis to that factor."""
        if any(isinstance(x, s.Member) for x in e.trailers):
            return member(self, e)
        head, trailers = e.head, list(e.trailers)
        term: t.Term
        if isinstance(head, s.Name) and trailers:
            match trailers[0]:
                case s.Args() as args if self.is_function(head.text, scope):
                    term = read_call(self, head.text, args, _cover(head.span, args.span), scope, place)
                    del trailers[0]
                case s.Args() as args if unknown_function(self, head, args, scope, place):
                    given = tuple(self.expr(a, scope, place) for a in (*args.args, *(a for _, a in args.kwargs)))
                    term = t.Call(head.text, given, (), _cover(head.span, args.span))
                    del trailers[0]
                case s.Transposed() if scope.find(head.text + "ᵀ") is not None and scope.find(head.text) is None:
                    found = scope.find(head.text + "ᵀ")
                    assert found is not None
                    term = t.Var(found.name, head.span)
                    del trailers[0]
                case s.Transposed() if scope.find(head.text + "ᵀ") is not None:
                    # both V and Vᵀ are names: the written one is meant
                    term = t.Var(head.text + "ᵀ", head.span)
                    del trailers[0]
                case s.Indexed(items=(single,), span=span) if self.is_free(head.text, scope) and not isinstance(
                    single, s.Slice
                ):
                    index = self.expr(single, scope, "size")
                    cover = _cover(head.span, span)
                    sliced = indexed_name(self, head.text, index, self.source.slice(single.span), cover, scope, place)
                    if sliced is None:
                        sliced = t.Item(read_name(self, head.text, head.span, scope, place), (index,), cover)
                    term = sliced
                    del trailers[0]
                case _:
                    term = self.expr(head, scope, place)
        else:
            term = self.expr(head, scope, place)
        product: t.Term | None = None
        for trailer in trailers:
            span = _cover(e.span, trailer.span)
            match trailer:
                case s.Args(args=(arg,), kwargs=()):
                    product = term if product is None else t.Arith("*", product, term, span)
                    term = self.expr(arg, scope, place)
                case s.Args():
                    self.report("E209", "what stands before this parenthesis is not a function, and a product has one "
                                        "factor in each parenthesis", trailer.span, suggestion="f(x)")
                case _:
                    term = self.postfix(term, trailer, span, scope)
        return term if product is None else t.Arith("*", product, term, e.span)

    def postfix(self, term: t.Term, trailer: s.Trailer, span: Span, scope: Scope) -> t.Term:
        """``ᵀ``, ``⁻¹``, ``^e`` and ``_{…}`` after a factor."""
        match trailer:
            case s.Transposed():
                return t.Transpose(term, span)
            case s.Inverted():
                return t.Inverse(term, span)
            case s.Raised(exponent=s.Number(value=-1) | s.Unary(op="-", operand=s.Number(value=1))):
                return t.Inverse(term, span)
            case s.Raised(exponent=exponent):
                return t.Power(term, self.expr(exponent, scope, "size"), span)
            case s.Indexed(items=items):
                return item_of(self, term, self.indices(items, scope), span, scope)
            case _:
                return term

    def indices(self, items: Sequence[s.Expr], scope: Scope) -> tuple[t.Term | t.Range, ...]:
        """The items of an index."""
        read: list[t.Term | t.Range] = []
        for x in items:
            if isinstance(x, s.Slice):
                start, stop, step = (None if end is None else self.expr(end, scope, "size")
                                     for end in (x.start, x.stop, x.step))
                read.append(t.Range(start, stop, step, x.span))
            else:
                read.append(self.expr(x, scope, "size"))
        return tuple(read)

    def juxt(self, e: s.Juxt, scope: Scope, place: Place) -> t.Term:
        """Factors side by side: a function name takes the next operand, the rest is a product."""
        factors = list(e.factors)
        term: t.Term | None = None
        at = 0
        while at < len(factors):
            functions: list[tuple[str, Span, s.Expr | None]] = []
            while at < len(factors) - 1:
                taken = self._bare_function(factors[at], scope)
                if taken is None:
                    break
                functions.append(taken)
                at += 1
            operand = self.expr(factors[at], scope, place)
            at += 1
            for function, span, power in reversed(functions):
                operand = made_call(self, function, (operand,), (), _cover(span, e.span), place)
                if power is not None:
                    operand = t.Power(operand, self.expr(power, scope, "size"), span)
            term = operand if term is None else t.Arith("*", term, operand, e.span)
        assert term is not None
        return term

    def _bare_function(self, e: s.Expr, scope: Scope) -> tuple[str, Span, s.Expr | None] | None:
        match e:
            case s.Name(text=text, span=span) if self.is_function(text, scope):
                return text, span, None
            case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Raised(exponent=power),)) if self.is_function(
                text, scope
            ):
                return text, span, power
            case _:
                return None


def _cover(a: Span, b: Span) -> Span:
    return Span(min(a.start, b.start), max(a.end, b.end))
