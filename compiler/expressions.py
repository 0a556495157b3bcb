"""Expressions of the syntax tree → terms: what each name means, what is a call and what a product.

The one class here carries what all expressions of a program share: the functions, the findings so far, and the tensors
that are only known from a comment. It never raises: a name that means nothing is reported once and stays a ``Var``.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from padp.compiler import terms as t
from padp.compiler.calls import (
    AFTER_BACKWARD_ONLY,
    ATTENTION_PARTS,
    INITIALISERS,
    REARRANGES,
    Signature,
    builtin_names,
    canonical,
    signature,
)
from padp.compiler.hypotheses import Hypothesis
from padp.compiler.operators import OPERATORS
from padp.compiler.scope import Entry, Kind, Scope, key, nearest, plain, split, walk
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Source, Span

Place: TypeAlias = Literal["value", "size", "init", "update", "function"]
_LANGUAGE_WORDS = {"learned", "frozen", "shared", "init", "seed"}
_NUMBERS = {"normal": "normal(std) or normal(mean, std)", "uniform": "uniform(low, high)",
            "trunc_normal": "trunc_normal(mean, std)", "kaiming": "kaiming or kaiming(a)", "pairs": "pairs(kaiming)",
            "unit_std": "unit_std(kaiming)"}
_OF_THE_FORWARD = {"x", "h", "bias", "W", "W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O"}
# What people coming from Python or from papers write, and how it is written here.
_HABITS = {
    "σ": "sigmoid(e)", "norm": "‖v‖, ‖M‖_row, ‖M‖_col or ‖M‖_F", "inv": "A⁻¹", "inverse": "A⁻¹", "transpose": "Aᵀ",
    "matmul": "A @ B", "mm": "A @ B", "dot": "uᵀ @ v", "dropout": "drop(e, p)", "cat": "[A, B] or [A; B]",
    "concat": "[A, B] or [A; B]", "vstack": "[A; B]", "hstack": "[A, B]", "identity": "I, or eye(n)", "pow": "a^2",
    "block_diag": "blkdiag(A, B)", "view": "reshape(e, p, q)", "real": "Re(e)", "imag": "Im(e)",
    "stop_gradient": "detach(e)", "sg": "detach(e)", "matrix_exp": "expm(M)", "ReLU": "relu(e)", "GELU": "gelu(e)",
    "SiLU": "silu(e)", "swish": "silu(e)",
}


@dataclass
class Uses:
    """Axes that an index was seen on, while its range is looked for."""

    certain: list[tuple[t.Term, Span]] = field(default_factory=list)
    possible: list[tuple[t.Term, ...]] = field(default_factory=list)


@dataclass
class Reader:
    """Reads expressions. ``hypotheses`` are declarations found in comments, by key; those that were needed are taken
    over into ``assumed``."""

    source: Source
    site: str
    hypotheses: dict[str, Hypothesis]
    functions: dict[str, int] = field(default_factory=dict)  # name → number of parameters
    training: set[str] = field(default_factory=set)  # functions that only make sense after backward
    findings: list[Diagnostic] = field(default_factory=list)
    assumed: dict[str, tuple[t.Parameter, Hypothesis | None, Span]] = field(default_factory=dict)
    sizes: set[str] = field(default_factory=set)  # keys of dimensions that only a comment mentions
    local_names: dict[str, Span] = field(default_factory=dict)  # bound in a loop that is over
    declared_at: dict[str, Span] = field(default_factory=dict)  # where the program declares a tensor, by key
    _reported: set[tuple[str, str]] = field(default_factory=set)
    _muted: int = 0
    _in_space: int = 0
    _uses: dict[str, Uses] = field(default_factory=dict)

    # ------------------------------------------------------------ findings

    def report(self, code: str, message: str, span: Span, *, suggestion: str | None = None, notes: Iterable[str] = (),
               related: Iterable[Related] = (), once: str | None = None) -> None:
        """Record a finding; with ``once``, only the first of that code and word."""
        if self._muted or (once is not None and (code, once) in self._reported):
            return
        if once is not None:
            self._reported.add((code, once))
        self.findings.append(Diagnostic(code, message, span, self.source, tuple(related), tuple(notes), suggestion))

    def undeclared(self, text: str, span: Span, scope: Scope, place: Place) -> None:
        """E201, with the nearest names and the declaration that may be missing."""
        if place == "size":
            suggestion = f"give it a value in the header: adapter NAME({text} = 8)"
        else:
            suggestion = f"declare it, `{text} ∈ ℝ^{{…}}: learned, init = 0`"
            if not text[0].isupper():
                suggestion += f", or, for a number, put it in the header, `adapter NAME({text} = 1)`"
        close = nearest(text, scope.names())
        notes = [f"names that look like it: {', '.join(close)}"] if close else []
        if key(text) in self.local_names:
            notes.append(f"a name that is first bound inside a loop lives for one iteration; `{text}` is one")
            suggestion = f"bind `{text}` before the loop, or write it by index"
        related: list[Related] = []
        below = self.declared_at.get(key(text))
        if below is not None and below.start > span.start and place != "size":
            related = [Related(below, "declared here")]
            suggestion = f"move the declaration of `{text}` above its first use"
        if text in _LANGUAGE_WORDS:
            suggestion = f"`{text}` belongs after the colon of a declaration, `A ∈ ℝ^{{r×n}}: {text}`"
        self.report("E201", f"`{text}` is not declared", span, suggestion=suggestion, notes=notes, related=related,
                    once=key(text))

    # ------------------------------------------------------------ names

    def is_function(self, text: str, scope: Scope) -> bool:
        """Whether a name that is not bound names a function."""
        return scope.find(text) is None and (text in self.functions or signature(text) is not None)

    def entry(self, text: str, scope: Scope, place: Place) -> Entry | None:
        """The bound name, or the one that a comment declares."""
        twice = scope.value_of.get(key(text))
        if twice is not None and place != "size":
            return twice
        return scope.find(text)

    def assume(self, text: str, span: Span, scope: Scope) -> Entry | None:
        """Take a declaration from a comment, because the name is used and declared nowhere."""
        found = self.hypotheses.get(key(text))
        if found is None:
            return None
        parts = split(text)
        if parts is not None and scope.find(parts[0]) is not None and self.index_of(parts[1], span, scope) is not None:
            return None  # v_i with v declared: the comment speaks of an item of v
        name = found.name
        if name not in self.assumed:
            space = self.space(found.space, scope)
            parameter = t.Parameter(name, space, found.role, found.shared, self._assumed_init(found), None, found.span)
            self.assumed[name] = (parameter, found, span)
        parameter = self.assumed[name][0]
        made = parameter_entry(parameter)
        scope.bind(made)
        return made

    def assume_family(self, text: str, base: str, sub: str, span: Span, scope: Scope) -> bool:
        """``# d_i ∈ ℝ^r`` and a sum or loop over i: d is a family; True when base_sub is to be read as its item."""
        index = scope.find(sub)
        if index is None or index.kind != "index" or scope.find(text) is not None:
            return False
        known = self.assumed.get(base)
        if known is not None and known[1] is self.hypotheses.get(key(text)) is not None:
            scope.bind(parameter_entry(known[0]))
            return True
        found = self.hypotheses.get(key(text))
        if found is None or scope.find(base) is not None:
            return False
        length = index.size or t.Var(next(c for c in "NMLFJS" if scope.find(c) is None or c == "N"), span)
        if isinstance(length, t.Var) and scope.find(length.name) is None:
            scope.bind(Entry(length.name, "number", span, (), ()))
        space = self.space(found.space, scope)
        space = replace(space, family=(length, *space.family))
        parameter = t.Parameter(base, space, found.role, found.shared, self._assumed_init(found), None, found.span)
        size = length.name if isinstance(length, t.Var) else "N"
        shape = found.text.split("∈", 1)[1].split(":", 1)
        line = replace(found, text=f"{base} ∈ ({shape[0].strip()})^{size}:{shape[1]}")
        self.hypotheses[key(text)] = line
        self.assumed[base] = (parameter, line, span)
        scope.bind(parameter_entry(parameter))
        return True

    def _assumed_init(self, found: Hypothesis) -> t.Term | None:
        return None if found.init is None else self.initial(found.init, Scope())

    def tensor(self, text: str, span: Span, scope: Scope, place: Place) -> t.Term | None:
        """A whole bound name, also as the transpose of a name bound with ᵀ, or one that a comment declares."""
        found = self.entry(text, scope, place)
        if found is not None:
            if place == "update" and found.name in _OF_THE_FORWARD and key(text) not in self.declared_at:
                self.report("E210", f"`{found.name}` belongs to the forward pass: after backward there are parameters "
                                    "and their gradients", span, once=f"{found.name} after backward",
                            suggestion="leave it out, or keep what is needed in a parameter")
            if found.kind == "number" and key(text) in self.sizes and not self._in_space:
                self.report("E201", f"`{text}` has no value", span, once=key(text),
                            suggestion=f"give it one in the header: adapter NAME({text} = 8)")
            return t.Var(found.name, span)
        flipped = scope.find(text + "ᵀ")
        if flipped is not None:
            return t.Transpose(t.Var(flipped.name, span), span)
        found = self.assume(text, span, scope)
        return None if found is None else t.Var(found.name, span)

    def index_of(self, sub: str, span: Span, scope: Scope) -> t.Term | None:
        """A subscript as an index: a number, or a bound dimension or loop index."""
        if sub.isdecimal():
            return t.Number(int(sub), span)
        found = scope.find(sub)
        return t.Var(found.name, span) if found is not None and found.kind in ("number", "index") else None

    def name(self, text: str, span: Span, scope: Scope, place: Place) -> t.Term:
        """A name as written: itself, an indexed name, a slice of the capital letter's matrix."""
        parts = split(text)
        if parts is not None and self.assume_family(text, *parts, span, scope):
            return self.item(t.Var(parts[0], span), (t.Var(parts[1], span),), span, scope)
        whole = self.tensor(text, span, scope, place)
        if whole is not None:
            return whole
        if parts is not None:
            base, sub = parts
            index = self.index_of(sub, span, scope)
            indexed = self.indexed_name(base, index, sub, span, scope, place)
            if indexed is not None:
                return indexed
            if index is not None and isinstance(index, t.Var) and place != "size":
                self.undeclared(base, span, scope, place)
                return t.Item(t.Var(base, span), (index,), span)
        if signature(text) is not None or text in self.functions:
            self.report("E209", f"`{text}` is a function and stands here without an argument", span,
                        suggestion=f"{text}(…)")
            return t.Var(text, span)
        self.undeclared(text, span, scope, place)
        return t.Var(text, span)

    def indexed_name(self, base: str, index: t.Term | None, sub: str, span: Span, scope: Scope,
                     place: Place) -> t.Term | None:
        """``aᵢ``: item i of a, or row or column i of A; None when neither a nor A is known."""
        if index is not None:
            whole = self.tensor(base, span, scope, place)
            if whole is not None:
                return self.item(whole, (index,), span, scope)
        if base.upper() == base or not base.islower():
            return None
        matrix = self.tensor(base.upper(), span, scope, place)
        if matrix is None:
            return None
        return self.row_or_column(matrix, base, index, sub, span, scope)

    def row_or_column(self, matrix: t.Term, base: str, index: t.Term | None, sub: str, span: Span,
                      scope: Scope) -> t.Term:
        """``aᵢ`` with i unbound by name a: the slice of A along the axis whose dimension is i's range."""
        capital = base.upper()
        if index is None:
            self.report("E206", f"`{sub}` of `{base}_{sub}` is not an index here", span, once=f"{base}_{sub}",
                        suggestion=f"sum or loop over it, `Σ_{{{sub} ∈ range(r)}} …`, or say the slice: "
                                   f"`{capital}_{{:,{sub}}}` is a column, `{capital}_{{{sub},:}}` a row")
            return t.Item(matrix, (t.Range(None, None, None, span), t.Var(sub, span)), span)
        _, item = self.axes(matrix, scope)
        if item is None or len(item) != 2:
            self.report("E206", f"`{base}_{sub}`: {capital} is not a declared matrix, so which slice is meant is open",
                        span, suggestion=f"`{capital}_{{{sub},:}}` is a row, `{capital}_{{:,{sub}}}` a column")
            return self.item(matrix, (index,), span, scope)
        uses = self._uses.get(index.name) if isinstance(index, t.Var) else None
        if uses is not None:
            uses.possible.append(item)
            return t.Item(matrix, (index,), span)
        entry = scope.find(index.name) if isinstance(index, t.Var) else None
        size = None if entry is None else entry.size
        fits = [k for k in (0, 1) if size is not None and item[k] == size]
        if len(fits) != 1:
            why = "both are" if fits else "none is known to be"
            self.report("E206", f"`{base}_{sub}` can be a row or a column of {capital}: the one whose length is the "
                                f"range of {sub} is meant, and {why}", span,
                        suggestion=f"`{capital}_{{{sub},:}}` is a row, `{capital}_{{:,{sub}}}` a column")
        axis = fits[0] if len(fits) == 1 else 0
        colon = t.Range(None, None, None, span)
        return self.item(matrix, (index,) if axis == 0 else (colon, index), span, scope)

    def item(self, base: t.Term, items: tuple[t.Term | t.Range, ...], span: Span, scope: Scope) -> t.Term:
        """``base[items]``, and the note on which axes the indices stand."""
        family, item = self.axes(base, scope)
        axes = None if family is None else family if item is None else family + item
        for position, index in enumerate(items):
            if isinstance(index, t.Var) and index.name in self._uses and axes is not None and position < len(axes):
                self._uses[index.name].certain.append((axes[position], span))
        return t.Item(base, items, span)

    # ------------------------------------------------------------ symbolic axes, as far as they are plain

    def axes(self, term: t.Term, scope: Scope) -> tuple[tuple[t.Term, ...] | None, tuple[t.Term, ...] | None]:
        """Family and item axes of a term, where declarations say them; None: not known."""
        match term:
            case t.Var(name=name):
                for entry in scope.value_of.values():
                    if entry.name == name:
                        return entry.family, entry.item
                found = scope.find(name)
                return (None, None) if found is None else (found.family, found.item)
            case t.Number():
                return (), ()
            case t.Transpose(operand=operand):
                family, item = self.axes(operand, scope)
                return family, item[::-1] if item is not None and len(item) == 2 else None
            case t.Inverse(operand=operand) | t.Negate(operand=operand):
                return self.axes(operand, scope)
            case t.Call(function=function, args=args) if function not in REARRANGES:
                return self._common_family(args, scope), None
            case t.Arith(left=left, right=right):
                return self._common_family((left, right), scope), None
            case t.NormOf(operand=operand) | t.Magnitude(operand=operand) | t.Power(base=operand):
                return self.axes(operand, scope)[0], None
            case _:
                return None, None

    def _common_family(self, parts: Sequence[t.Term], scope: Scope) -> tuple[t.Term, ...] | None:
        families = [self.axes(p, scope)[0] for p in parts]
        for family in families:
            if family:
                return family
        return None if None in families else ()

    def range_of(self, index: str, body: s.Expr, scope: Scope, place: Place, span: Span) -> t.Term | None:
        """The n of range(n) that ``index`` runs over, found from the axes that it indexes in ``body``."""
        probe = scope.inner()
        probe.bind(Entry(index, "index", span))
        before, self._uses[index] = self._uses.get(index), Uses()
        self._muted += 1
        try:
            self.expr(body, probe, place)
            uses = self._uses[index]
        finally:
            self._muted -= 1
            del self._uses[index]
            if before is not None:
                self._uses[index] = before
        certain = dict(reversed(uses.certain))
        if len(certain) == 1:
            return next(iter(certain))
        if len(certain) > 1:
            places = list(certain.values())
            self.report("E307", f"`{index}` indexes axes of different lengths", places[0],
                        related=[Related(p, "and here") for p in places[1:]],
                        suggestion=f"say which: {index} ∈ range(…)")
            return next(iter(certain))
        common: list[t.Term] = []
        if uses.possible:
            common = [size for size in dict.fromkeys(uses.possible[0])
                      if all(size in other for other in uses.possible)]
        if len(common) == 1:
            return common[0]
        if common:
            self.report("E206", f"`{index}` can run over rows or columns: nothing says which", span,
                        suggestion=f"loop over it, `for {index} in range(r): …`, or write the slice, "
                                   f"`A_{{{index},:}}` or `A_{{:,{index}}}`")
            inner = [size for size in common if not (isinstance(size, t.Var) and size.name in ("m", "n"))]
            return (inner or common)[0]
        self.report("E307", f"nothing says how far `{index}` runs", span, suggestion=f"{index} ∈ range(…)")
        return None

    # ------------------------------------------------------------ expressions

    def expr(self, e: s.Expr, scope: Scope, place: Place) -> t.Term:
        """One expression."""
        match e:
            case s.Number(value=value, span=span):
                return t.Number(value, span)
            case s.Name(text=text, span=span):
                return self.name(text, span, scope, place)
            case s.Group(inner=inner):
                return self.expr(inner, scope, place)
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
        found = scope.find(operand.text) or self.assume(operand.text, operand.span, scope)
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
            found = self.range_of(indices[0], e.body, scope, place, e.span) if len(indices) == 1 and not self._muted \
                else None
            if len(indices) != 1:
                self.report("E307", "a sum over several indices needs to be told their set", e.span,
                            suggestion="Σ_{(i,j) ∈ Ω} …")
            size = found if found is not None else t.Var(f"|{indices[0]}|", e.span)
            domain = t.Call("range", (size,), (), e.span)
        for index in indices:
            inner.bind(Entry(index, "index", e.span, size=size))
        return t.SumOver(indices, domain, self.expr(e.body, inner, place), e.span)

    def refuse_taken(self, index: str, span: Span, scope: Scope) -> None:
        """An index must not hide a name."""
        found = scope.find(index)
        if found is not None:
            self.report("E202", f"`{index}` is an index here and already means something else", span,
                        suggestion="another letter", related=[Related(found.span, f"`{found.name}` is bound here")])

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
            return self.member(e)
        head, trailers = e.head, list(e.trailers)
        term: t.Term
        if isinstance(head, s.Name) and trailers:
            match trailers[0]:
                case s.Args() as args if self.is_function(head.text, scope):
                    term = self.call(head.text, args, _cover(head.span, args.span), scope, place)
                    del trailers[0]
                case s.Args() as args if self.unknown_function(head, args, scope, place):
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
                    sliced = self.indexed_name(head.text, index, self.source.slice(single.span), cover, scope, place)
                    if sliced is None:
                        sliced = t.Item(self.name(head.text, head.span, scope, place), (index,), cover)
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

    def is_free(self, text: str, scope: Scope) -> bool:
        """Neither bound, nor a function, nor declared by a comment."""
        return (scope.find(text) is None and scope.find(text + "ᵀ") is None and not self.is_function(text, scope)
                and key(text) not in self.hypotheses)

    def unknown_function(self, head: s.Name, args: s.Args, scope: Scope, place: Place) -> bool:
        """Report ``f(…)`` where f is nothing at all; True when it was so."""
        parts = split(head.text)
        if not self.is_free(head.text, scope) or (parts is not None and not self.is_free(parts[0], scope)):
            return False
        if parts is not None and self.index_of(parts[1], head.span, scope) is not None:
            return False
        if place == "size" and len(args.args) == 1:
            return False  # k(k-1)/2 with k unknown
        close = nearest(head.text, [*builtin_names(), *self.functions])
        self.report("E203", f"there is no function `{head.text}`", head.span, once=key(head.text),
                    suggestion=_HABITS[head.text] if head.text in _HABITS else
                    f"did you mean {' or '.join(close)}?" if close else
                    f"define it, `{head.text}(e) ← …`, or declare the tensor `{head.text}`")
        return True

    def member(self, e: s.Chain) -> t.Term:
        """``model.layer[l].output[pos]``: the language has no attributes."""
        text = self.source.slice(e.span) or "…"
        members = [x.name for x in e.trailers if isinstance(x, s.Member)]
        known = next((name for name in members if signature(name) is not None), None)
        habit = next((name for name in members if name in _HABITS), None)
        if known is not None:
            suggestion = f"{known}(e)"
        elif habit is not None:
            suggestion = _HABITS[habit]
        elif isinstance(e.head, s.Name) and e.head.text in ("np", "torch", "F", "nn", "math"):
            suggestion = "an operator or a function of the language; `padp explain E203` shows how they are called"
        elif self.site == "hidden":
            suggestion = "the site binds the hidden state as h"
        else:
            suggestion = "a hidden state is a site: `adapter NAME on hidden(h ∈ ℝ^d)`"
        self.report("E510", f"`{text}` is not known: the language has no attributes of Python objects", e.span,
                    suggestion=suggestion, once=text)
        return t.Var(text, e.span)

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
                return self.item(term, self.indices(items, scope), span, scope)
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
                operand = self.made_call(function, (operand,), (), _cover(span, e.span), place)
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

    # ------------------------------------------------------------ calls

    def call(self, name: str, args: s.Args, span: Span, scope: Scope, place: Place) -> t.Term:
        """``f(…)`` with f a function."""
        name = canonical(name) if name not in self.functions else name
        given = list(args.args)
        keywords = list(args.kwargs)
        if name == "attn":
            given = [a for a in given if not isinstance(a, s.Dots)]
            keywords = [*zip(ATTENTION_PARTS, given, strict=False), *keywords]
            given = given[len(ATTENTION_PARTS) :]
        elif any(isinstance(a, s.Dots) for a in given):
            given = [self.family_of(name, given, span)]
        inner: Place = place
        if name in ("range", "ones", "zeros", "eye", "floor", "ceil", "log2", "arange", "band", "sample", "pairs",
                    "halves", "tree", "neighbours", "butterfly", "cubic"):
            inner = "size"
        read: list[t.Term] = []
        for position, a in enumerate(given):
            if name == "scatter" and position == 1 and isinstance(a, s.Name) and self.is_free(a.text, scope):
                self.report("E201", f"`{a.text}` is not declared", a.span, once=key(a.text),
                            suggestion=f"{a.text} ← sample(m, n, count, seed)")
            numeric = position > 0 and name in ("reshape", "tile", "repeat", "grouped", "blocks", "topk", "argtop",
                                                "largest", "drop", "ema")
            read.append(self.expr(a, scope, "size" if numeric else inner))
        named: list[tuple[str, t.Term]] = []
        for word, value in keywords:
            named.append((word, self.keyword(name, word, value, scope, place)))
        return self.made_call(name, tuple(read), tuple(named), span, place)

    def keyword(self, function: str, word: str, value: s.Expr, scope: Scope, place: Place) -> t.Term:
        """A keyword argument: ``shape=(m, n)`` is a call of ``tuple``, ``over=model`` a word."""
        match function, word, value:
            case "scatter", "shape", s.TupleOf(items=items, span=span):
                return t.Call("tuple", tuple(self.expr(i, scope, "size") for i in items), (), span)
            case "keep", "over", s.Name(text="model", span=span):
                return t.Text("model", span)
            case "keep", "over", _:
                self.report("E204", "keep ranks over = model", value.span, suggestion="over = model")
                return t.Text("model", value.span)
            case "svd", "rank", _:
                return self.expr(value, scope, "size")
            case _:
                return self.expr(value, scope, place)

    def family_of(self, function: str, args: Sequence[s.Expr], span: Span) -> s.Expr:
        """``R₁, ..., R_b`` is R."""
        bases: set[str] = set()
        for a in args:
            parts = split(a.text) if isinstance(a, s.Name) else None
            if parts is None and isinstance(a, s.Chain) and isinstance(a.head, s.Name) and len(a.trailers) == 1:
                parts = (a.head.text, "") if isinstance(a.trailers[0], s.Indexed) else None
            if not isinstance(a, s.Dots):
                bases.add(parts[0] if parts is not None else "")
        if len(bases) == 1 and "" not in bases:
            return s.Name(bases.pop(), span)
        self.report("E209", f"`...` in {function}: the members of one family stand on both sides of it", span,
                    suggestion=f"{function}(R₁, ..., R_b)")
        return next((a for a in args if not isinstance(a, s.Dots)), s.Number(0, span))

    def made_call(self, name: str, args: tuple[t.Term, ...], kwargs: tuple[tuple[str, t.Term], ...], span: Span,
                  place: Place) -> t.Term:
        """The call, checked against the function's signature and against where it stands."""
        name = canonical(name) if name not in self.functions else name
        if name in self.functions:
            self.check_arguments(name, Signature((self.functions[name], self.functions[name])), len(args), kwargs, span)
            if name in self.training and place not in ("update", "function"):
                self.report("E210", f"{name} reads gradients or keeps a state: it is known only after backward", span,
                            suggestion="put it under `after backward:`")
            return t.Call(name, args, kwargs, span)
        known = signature(name)
        assert known is not None
        self.check_arguments(name, known, len(args), kwargs, span)
        if name in AFTER_BACKWARD_ONLY and place not in ("update", "function"):
            self.report("E210", f"{name} is for updates", span, suggestion="put it under `after backward:`")
        if name == "range":
            self.report("E210", "range is for loops and sums", span, suggestion="arange(n) is the vector 0 … n − 1")
        if name == "attn" and self.site != "attention":
            self.report("E210", "attn is for the attention site", span, once="attn",
                        suggestion="adapter NAME on attention(W_Q ∈ (ℝ^{e×d})^H, …)")
        return t.Call(name, args, kwargs, span)

    def check_arguments(self, name: str, known: Signature, count: int, kwargs: Sequence[tuple[str, t.Term]],
                        span: Span) -> None:
        """E209 for a wrong number of arguments or an unknown keyword."""
        low, high = known.arity
        form = OPERATORS[name].signature if name in OPERATORS and name not in self.functions else None
        if not low <= count <= high:
            wanted = str(low) if low == high else f"{low} to {high}"
            self.report("E209", f"{name} takes {wanted} argument{'' if wanted == '1' else 's'}, not {count}", span,
                        suggestion=form)
        seen: set[str] = set()
        for word, value in kwargs:
            if word in seen:
                self.report("E209", f"{name}: {word} is given twice", value.span)
            elif word not in known.keywords:
                self.report("E209", f"{name} has no argument called {word}", value.span,
                            suggestion=f"it has {', '.join(known.keywords)}" if known.keywords else form)
            seen.add(word)

    # ------------------------------------------------------------ spaces and initial values

    def space(self, e: s.Space, scope: Scope) -> t.SpaceTerm:
        """A declared space. ``ℝ^{b×k×k}`` is a family b of k×k matrices; ``ℝ^Ω`` has one number for each element."""
        dims, family = list(e.dims), list(e.family)
        if len(dims) == 1 and not family and isinstance(dims[0], s.Name):
            found = scope.find(dims[0].text)
            if found is not None and found.kind == "tensor" and key(found.name) not in scope.value_of:
                count = t.Magnitude(t.Var(found.name, dims[0].span), dims[0].span)
                return t.SpaceTerm(e.kind, (count,), (), found.name, e.span)
        if e.kind in ("ℝ", "ℂ", "ℕ") and len(dims) > 2:
            family, dims = [*family, *dims[:-2]], dims[-2:]
        for name in size_names((*dims, *family)):
            if scope.find(name.text) is None:
                scope.bind(Entry(name.text, "number", name.span, (), ()))
                self.sizes.add(key(name.text))
        self._in_space += 1
        read = [tuple(self.expr(d, scope, "size") for d in part) for part in (dims, family)]
        self._in_space -= 1
        return t.SpaceTerm(e.kind, read[0], read[1], None, e.span)

    def initial(self, e: s.Expr, scope: Scope) -> t.Term:
        """The value after ``init =``: a named initialiser, or any expression of what is known at attach."""
        name, span = "", e.span
        args: tuple[s.Expr, ...] = ()
        match e:
            case s.Name(text=text):
                name = text
            case s.Chain(head=s.Name(text=text), trailers=(s.Args(args=given, kwargs=()),)):
                name, args = text, given
            case _:
                pass
        if name not in INITIALISERS or scope.find(name) is not None:
            return t.Number(0, span) if self.no_initialiser(e, name, scope) else self.expr(e, scope, "init")
        low, high = INITIALISERS[name].arity
        if not low <= len(args) <= high:
            wanted = str(low) if low == high else f"{low} or {high}"
            self.report("E209", f"the initialiser {name} takes {wanted} number{'' if wanted == '1' else 's'}, "
                                f"not {len(args)}", span, suggestion=_NUMBERS.get(name, name))
        if name in ("pairs", "unit_std"):
            return t.Call(name, tuple(self.initial(a, scope) for a in args), (), span)
        return t.Call(name, tuple(self.expr(a, scope, "size") for a in args), (), span)


    def no_initialiser(self, e: s.Expr, name: str, scope: Scope) -> bool:
        """Report E204 for a word after ``init =`` that is nothing at all; True when it was."""
        constant = {"zeros": "0", "ones": "1", "zero": "0", "one": "1", "identity": "I", "eye": "I"}.get(name)
        base = (split(name) or (name, ""))[0]
        declared = key(name) in self.declared_at or base in self.declared_at or not self.is_free(name, scope)
        if not name or scope.find(name) is not None or (declared and not (constant and isinstance(e, s.Name))):
            return False
        close = [word for word in INITIALISERS if name.startswith(word)] or nearest(name, INITIALISERS)
        self.report("E204", f"`{name}` is no initialiser", e.span,
                    suggestion=f"init = {constant or (close[0] if close else '0')}",
                    notes=[f"initialisers: {', '.join(INITIALISERS)}, a number, or an expression of what is known"])
        return True


def _cover(a: Span, b: Span) -> Span:
    return Span(min(a.start, b.start), max(a.end, b.end))


def size_names(dims: Iterable[s.Expr]) -> list[s.Name]:
    """The names in dimensions, without those of functions."""
    found: list[s.Name] = []

    def visit(e: object) -> None:
        match e:
            case s.Name():
                found.append(e)
            case s.Chain(head=s.Name() as head, trailers=trailers):
                called = bool(trailers) and isinstance(trailers[0], s.Args)
                if not (called and signature(head.text) is not None):
                    found.append(head)
                visit(trailers)
            case tuple():
                for part in e:
                    visit(part)
            case _:
                for part in _parts(e):
                    visit(part)

    visit(tuple(dims))
    return found


def _parts(e: object) -> list[object]:
    slots = getattr(type(e), "__dataclass_fields__", {})
    return [getattr(e, name) for name in slots if name != "span"]


def parameter_entry(p: t.Parameter) -> Entry:
    """The scope entry of a declared tensor."""
    kind: Kind = "tensor"
    return Entry(p.name, kind, p.span, p.space.family, p.space.dims, None, p.role == "learned")
