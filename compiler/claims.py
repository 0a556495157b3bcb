"""Comments that claim are checked: shapes, counts, ranks and properties.

    comment = piece {("," | ";" | "→") piece}          commas inside brackets do not separate
    piece   = NAME ∈ SPACE [: role …]                   shape, and orthogonality for O(k), SO(k), St(r, d)
            | params: EXPR  |  EXPR params              learned scalars a site
            | O(EXPR) params                            how their number grows
            | [verb] EXPR [adjective] (angles | scalars | planar rotations)      each of them is one learned number
            | rank EXPR  |  antisymmetric  |  orthogonal  |  identity            of what the line assigns

A piece is a claim when it matches, whole; everything else is prose. ``identity`` on the line that gives the output says
that a fresh adapter changes nothing. Expressions and spaces are read by the parser and the resolver of programs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import sympy as sp

from padp.compiler.cases import Case
from padp.compiler.counting import Counted, counted, declarations, in_header_terms
from padp.compiler.dims import factored, same, show, written_out
from padp.compiler.elaborate import dimension_names
from padp.compiler.expressions import Reader, size_names
from padp.compiler.ir import Node, Type, depends
from padp.compiler.names import body_of
from padp.compiler.properties import Facts
from padp.compiler.ranks import reaches
from padp.compiler.scope import Entry, Scope, key, split, walk
from padp.compiler.sizes import symbolic
from padp.compiler.starts import Starts
from padp.compiler.state import Elaborated
from padp.compiler.terms import Method, Number, SpaceTerm, Term, Var
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, PadpError, Related
from padp.dsl.parse import parse
from padp.dsl.source import Source, Span

Kind = Literal["shape", "count", "growth", "rank", "antisymmetric", "orthogonal", "identity"]

_NAME = r"[^\W\d_][\w\u0300-\u036f]*['′]*ᵀ?"
_SHAPE = re.compile(rf"(?P<name>{_NAME})\s*(?:∈|\bin\b)\s*(?P<rest>.+)")
_ROLE = re.compile(r"\s*:\s*(?:learned|frozen|shared|trainable|random)\b.*|\s*:\s*$")
_PARAMS = re.compile(r"params?\s*:\s*(?P<size>.+)")
_GROWTH = re.compile(r"O\((?P<size>.+)\)\s+params")
_COUNT = re.compile(r"(?P<size>.+?)\s+params")
_RANK = re.compile(r"rank\s+(?P<size>\S.*)")
_ONE_EACH = re.compile(
    r"(?:[a-z]{4,}\s+)?(?P<size>\S.*?)\s+(?:(?:(?:planar|plane|Givens|Jacobi)\s+rotations)|(?:[A-Za-z-]+\s+)?(?:angles|scalars))"
)
_PROPERTIES: dict[str, Kind] = {"antisymmetric": "antisymmetric", "orthogonal": "orthogonal", "identity": "identity"}
_TITLE = re.compile(rf"(?:{_NAME}|[A-Z][\w-]*)\s*:\s+(?=\S)")
_ORNAMENT = " \t─━═-=*~.│|"


@dataclass(frozen=True, slots=True)
class Remark:
    """A comment with its place; ``statement`` is the one that it stands behind, None for a line of its own."""

    text: str
    span: Span
    statement: s.Declare | s.Assign | None


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a comment that claims. ``name``: what it speaks of; ``size``, ``space``: what it says."""

    kind: Kind
    span: Span
    name: str | None
    statement: Span | None
    size: Term | None = None
    space: SpaceTerm | None = None


# ---------------------------------------------------------------- comments to pieces


def remarks(body: Sequence[s.Statement], source: Source) -> Iterator[Remark]:
    """Every comment of some statements, with its own place in the text."""
    for statement in body:
        match statement:
            case s.Remark(text=text, span=span):
                yield Remark(text, _place(source, text, span.start, span), None)
            case s.Declare() | s.Assign():
                if statement.comment:
                    place = _place(source, statement.comment, statement.span.end, statement.span)
                    yield Remark(statement.comment, place, statement)
            case s.Minimise(comment=comment, span=span):
                if comment:
                    yield Remark(comment, _place(source, comment, span.end, span), None)
            case _:
                if statement.comment:
                    yield Remark(statement.comment, _place(source, statement.comment, statement.span.start,
                                                           statement.span), None)
                yield from remarks(statement.body, source)


def _place(source: Source, comment: str, start: int, otherwise: Span) -> Span:
    at = source.text.find(comment, source.text.find("#", start))
    return Span(at, at + len(comment)) if at >= 0 else otherwise


def pieces(remark: Remark) -> Iterator[tuple[str, Span]]:
    """A comment cut at ``, ; →`` outside of brackets, each piece without ornament."""
    text, depth, start = remark.text, 0, 0
    cuts: list[tuple[int, int]] = []
    for at, c in enumerate(text):
        depth += (c in "([{") - (c in ")]}")
        if c in ",;→" and depth <= 0:
            cuts.append((start, at))
            start = at + 1
    for low, high in [*cuts, (start, len(text))]:
        piece = text[low:high]
        inner = piece.strip(_ORNAMENT)
        if inner:
            first = remark.span.start + low + piece.index(inner)
            yield inner, Span(first, first + len(inner))


# ---------------------------------------------------------------- pieces to claims


class Grammar:
    """Reads pieces of one program. In a block without header, unknown names are numbers; else they make it prose."""

    def __init__(self, program: s.Program, source: Source, method: Method | None, names: Mapping[str, Node]) -> None:
        self.source, self.free = source, program.header is None
        self.scope = Scope()
        nowhere = Span(0, 0)
        for name, node in names.items():
            if node.op == "const":
                self.scope.bind(Entry(name, "number", nowhere, (), ()))
            elif node.type.kind == "index":
                self.scope.bind(Entry(name, "tensor", nowhere))
        self.output = "y" if method is None else method.output
        self.known = _all_names(program)
        self.doubts: list[Diagnostic] = []

    def claims(self, found: Sequence[Remark]) -> list[Claim]:
        """The claims in some comments; what nearly is one is noted in ``doubts``."""
        made: list[Claim] = []
        for remark in found:
            for piece, span in pieces(remark):
                claim = self._claim(piece, span, remark)
                if claim is not None:
                    made.append(claim)
        return made

    def _claim(self, piece: str, span: Span, remark: Remark) -> Claim | None:
        target = _target(remark.statement)
        where = None if remark.statement is None else remark.statement.span
        if (match := _PARAMS.fullmatch(piece)) is not None:
            return self._sized("count", match["size"], span, None, where, piece)
        if (match := _GROWTH.fullmatch(piece)) is not None:
            return self._sized("growth", match["size"], span, None, where, piece)
        if (match := _COUNT.fullmatch(piece)) is not None:
            return self._sized("count", match["size"], span, None, where, piece if len(piece.split()) < 6 else None)
        if (match := _RANK.fullmatch(piece)) is not None and target is not None:
            return self._sized("rank", match["size"], span, target, where, piece if len(piece.split()) < 4 else None)
        if piece in _PROPERTIES and isinstance(remark.statement, s.Assign) and target is not None:
            return Claim(_PROPERTIES[piece], span, target, where)
        if (match := _SHAPE.fullmatch(piece)) is not None:
            return self._shape(match["name"], match["rest"], span, where, piece)
        bare = _TITLE.sub("", piece, count=1)
        if (match := _ONE_EACH.fullmatch(bare)) is not None:
            first = span.start + piece.index(bare)
            return self._sized("count", match["size"], Span(first, first + len(bare)), None, where, None)
        return None

    def _sized(self, kind: Kind, text: str, span: Span, name: str | None, where: Span | None,
               doubt: str | None) -> Claim | None:
        size = self._size(text)
        if size is None:
            if doubt is not None:
                self._doubt(doubt, span, f"`{text}` is not an expression over the dimensions of this program")
            return None
        return Claim(kind, span, name, where, size=size)

    def _size(self, text: str) -> Term | None:
        try:
            tree = parse(Source.of(f"y ← {text}\n"))
        except PadpError:
            return None
        match tree.body:
            case (s.Assign(op="←", value=value, targets=(s.Name(),)),):
                pass
            case _:
                return None
        reader, scope = Reader(self.source, "linear", {}), self._numbers([value])
        term = reader.expr(value, scope, "size")
        return None if reader.findings else term

    def _numbers(self, sizes: Sequence[s.Expr]) -> Scope:
        scope = self.scope.inner()
        if self.free:
            for name in size_names(sizes):
                if scope.find(name.text) is None:
                    scope.bind(Entry(name.text, "number", name.span, (), ()))
        return scope

    def _shape(self, name: str, rest: str, span: Span, where: Span | None, piece: str) -> Claim | None:
        head = _ROLE.sub("", rest)
        try:
            tree = parse(Source.of(f"A ∈ {head}: learned\n"))
        except PadpError:
            return None  # prose, such as "x ∈ the span of A"
        match tree.body:
            case (s.Declare(space=space),):
                pass
            case _:
                return None
        reader, scope = Reader(self.source, "linear", {}), self._numbers((*space.dims, *space.family))
        known = {n.text for n in size_names((*space.dims, *space.family)) if scope.find(n.text) is not None}
        unknown = sorted({n.text for n in size_names((*space.dims, *space.family))} - known)
        term = reader.space(space, scope)
        if unknown or reader.findings:
            self._doubt(piece, span, f"{', '.join(f'`{n}`' for n in unknown)} is no dimension here" if unknown else
                        "its dimensions cannot be read")
            return None
        if not self.free and not _spellings(name) & self.known:
            self._doubt(piece, span, f"nothing here is called `{name}`")
            return None
        return Claim("shape", span, name, where, space=term)

    def _doubt(self, piece: str, span: Span, why: str) -> None:
        self.doubts.append(Diagnostic("N402", f"`{piece}` looks like a claim and is not checked: {why}", span,
                                      self.source, suggestion="params: r(m + n), rank r, R ∈ ℝ^{k×k} are claims"))


def _spellings(name: str) -> set[str]:
    """The keys under which a name may stand: its own, that of what a subscript is taken from, that of its transpose."""
    parts = split(name)
    own = {key(name), key(name.removesuffix("ᵀ"))}
    return own if parts is None else own | {key(parts[0])}


def _all_names(program: s.Program) -> set[str]:
    """Keys of every name that a program mentions, in any variant, and of those that a site provides."""
    found = {"W", "x", "y", "h", "bias"}
    for node in walk((program.header, program.body)):
        match node:
            case s.Name(text=text) | s.Binding(name=text):
                found |= _spellings(text)
            case _:
                pass
    return found


def _target(statement: s.Declare | s.Assign | None) -> str | None:
    """The name that a line assigns, or declares; None when there are several."""
    match statement:
        case s.Declare(names=(s.Name(text=text),)):
            return text
        case s.Assign(targets=(target,)):
            return _assigned(target)
        case _:
            return None


def _assigned(target: s.Expr) -> str | None:
    match target:
        case s.Name(text=text):
            return text
        case s.Chain(head=s.Name(text=text), trailers=(s.Transposed(), *_)):
            return text + "ᵀ"
        case s.Chain(head=s.Name(text=text)):
            return text
        case s.Group(inner=inner):
            return _assigned(inner)
        case _:
            return None


def supposed(program: s.Program, source: Source) -> dict[int, dict[str, SpaceTerm]]:
    """For a block without header: the spaces that comments claim for what their lines assign, by offset of the line."""
    if program.header is not None:
        return {}
    grammar = Grammar(program, source, None, {})
    found: dict[int, dict[str, SpaceTerm]] = {}
    for claim in grammar.claims(list(remarks(program.body, source))):
        if claim.kind == "shape" and claim.statement is not None and claim.name is not None and claim.space is not None:
            found.setdefault(claim.statement.start, {})[claim.name] = claim.space
    return found


# ---------------------------------------------------------------- claims against what was derived


def check_claims(program: s.Program, method: Method, typed: Sequence[Case], sound: bool) -> list[Diagnostic]:
    """What is wrong, open or unclear in the claims of one variant. ``sound``: every name is declared, every shape fits;
    only then are the counts those of the declarations."""
    source = method.source
    names = typed[0].typed.names if typed else {}
    grammar = Grammar(program, source, method, _sizes_of(names))
    made = grammar.claims(list(remarks(body_of(program, method.variant), source)))
    if program.header is not None and program.header.comment:
        at = _place(source, program.header.comment, program.header.span.start, program.header.span)
        made += grammar.claims([Remark(program.header.comment, at, None)])
    found = [*grammar.doubts]
    counts = [c for c in made if c.kind in ("count", "growth")]
    if counts:
        found += _Counts(method, sound).check(counts)
    for case in typed:
        checker = _Values(method, case.typed, program.header is None, sound)
        for claim in made:
            if claim.kind not in ("count", "growth"):
                found += checker.check(claim)
        found += checker.contradictions([c for c in made if c.kind == "shape"])
    return list(dict.fromkeys(found))


def _sizes_of(names: Mapping[str, Node]) -> dict[str, Node]:
    """Dimensions and hyperparameters; names that the body binds are not among them, except index sets."""
    return {n: v for n, v in names.items() if v.op == "const" or v.type.kind == "index"}


def open_properties(program: s.Program, method: Method, typed: Elaborated) -> list[Claim]:
    """The claims on values (shapes apart) of one variant, for testing with numbers."""
    grammar = Grammar(program, method.source, method, _sizes_of(typed.names))
    made = grammar.claims(list(remarks(body_of(program, method.variant), method.source)))
    return [c for c in made if c.kind in ("rank", "antisymmetric", "orthogonal", "identity")
            or (c.kind == "shape" and c.space is not None and c.space.kind in ("O", "SO", "St"))]


# ---------------------------------------------------------------- counts


@dataclass(frozen=True, slots=True)
class _Said:
    claim: Claim
    value: Any  # in the symbols of the comment
    ground: Any  # with relations written out


class _Counts:
    """Claims on the number of learned scalars: against the declarations, and against each other."""

    def __init__(self, method: Method, sound: bool) -> None:
        self.method, self.sound = method, sound
        self.env = {n: v.value for n, v in declarations(method).names.items() if v.op == "const"}
        self.derived: Counted | None = counted(method) if sound else None

    def check(self, claims: Sequence[Claim]) -> list[Diagnostic]:
        said: list[_Said] = []
        found: list[Diagnostic] = []
        for claim in claims:
            assert claim.size is not None
            value = _calculated(claim.size, {})
            if value is not None:
                said.append(_Said(claim, value, self.ground(value)))
            else:
                found.append(Diagnostic("N402", "this count is not checked: it is no number that the sizes give",
                                        claim.span, self.method.source, suggestion="params: r(m + n)"))
        for one in said:
            found += self.against_declarations(one)
        for k, one in enumerate(said):
            for other in said[:k]:
                found += self.against(one, other)
        return found

    def ground(self, value: Any) -> Any:
        """A formula in independent sizes: where n = b·k, n is b·k."""
        return sp.sympify(value).subs({x: self.env.get(str(x), x) for x in sp.sympify(value).free_symbols},
                                      simultaneous=True)

    def free(self, names: Iterable[str]) -> set[Any]:
        """The independent sizes that grow when these do: of n = b·k it is b, k being a choice."""
        chosen = {h.name for h in self.method.hyper}
        found: set[Any] = set()
        for name in names:
            own = _plain(written_out(sp.sympify(self.env.get(name, sp.Symbol(name))))).free_symbols
            found |= {x for x in own if str(x) not in chosen} or own
        return found

    def bounded(self, value: Any, order: _Said) -> bool | None:
        """Whether a count is of the claimed order in the sizes that the claim names."""
        return _bounded(value, order.ground, self.free(str(x) for x in order.value.free_symbols))

    def beyond(self, value: Any, order: _Said) -> bool:
        """Whether a count grows with a size of the site that the claim does not name."""
        site = {d.name for x in self.method.bound for d in (*x.space.dims, *x.space.family) if isinstance(d, Var)}
        others = self.free(sorted(site)) - self.free(str(x) for x in order.value.free_symbols)
        return any(_bounded(value, order.ground, {x}) is False for x in others)

    def against_declarations(self, one: _Said) -> list[Diagnostic]:
        if self.derived is None:
            return []
        total = self.ground(self.derived.total)
        notes = [f"{name}: {show(in_header_terms(self.method, c))}" for name, c in self.derived.by_name.items()]
        if one.claim.kind == "growth":
            if self.bounded(total, one) is False or self.beyond(total, one):
                return [self.diagnostic("E401", f"{show(self.derived.total)} learned scalars are not "
                                        f"O({show(one.value)})", one, notes)]
            return []
        if _equal(total, one.ground):
            return []
        difference = in_header_terms(self.method, _plain(written_out(total - one.ground)))
        notes.append(f"declared − claimed = {show(difference)}")
        return [self.diagnostic("E401", f"the comment counts {show(_plain(one.value))} learned scalars, "
                                f"the declarations {show(self.derived.total)}", one, notes,
                                f"params: {show(self.derived.total)}")]

    def against(self, one: _Said, other: _Said) -> list[Diagnostic]:
        kinds = {one.claim.kind, other.claim.kind}
        if kinds == {"count"}:
            if _equal(one.ground, other.ground):
                return []
            note = f"their difference is {show(factored(_plain(one.ground - other.ground)))}"
        elif kinds == {"count", "growth"}:
            exact, order = (one, other) if one.claim.kind == "count" else (other, one)
            if self.bounded(exact.ground, order) is not False:
                return []
            note = f"{show(exact.value)} grows faster than {show(order.value)}"
        else:
            return []
        here, there = _formula(one), _formula(other)
        return [Diagnostic("E404", f"two comments count the learned scalars differently: {here} here, {there} there",
                           one.claim.span, self.method.source, (Related(other.claim.span, f"{there} here"),), (note,),
                           "correct the one that is wrong")]

    def diagnostic(self, code: str, message: str, one: _Said, notes: Sequence[str],
                   suggestion: str | None = None) -> Diagnostic:
        return Diagnostic(code, message, one.claim.span, self.method.source, (), tuple(notes), suggestion)


def _formula(said: _Said) -> str:
    return f"O({show(_plain(said.value))})" if said.claim.kind == "growth" else show(_plain(said.value))


def _calculated(size: Term, env: Mapping[str, Any]) -> Any | None:
    """The value of a size, or None where it holds something that is no number."""
    try:
        value = sp.sympify(symbolic(size, env))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None
    if any(str(x).startswith("?") for x in value.free_symbols) or value.has(sp.zoo, sp.nan):
        return None
    return value


def _plain(value: Any) -> Any:
    """The formula over symbols without assumptions that could keep terms apart."""
    value = sp.sympify(value)
    return value.subs({x: sp.Symbol(str(x), integer=True, positive=True) for x in value.free_symbols})


def _equal(a: Any, c: Any) -> bool:
    return same(_plain(a), _plain(c))


def _bounded(value: Any, order: Any, growing: set[Any]) -> bool | None:
    """Whether ``value`` grows at most as ``order`` when some sizes grow together, the rest staying; None: not known."""
    value, order = _plain(written_out(value)), _plain(written_out(order))
    if any(not x.exp.is_number for x in (value.atoms(sp.Pow) | order.atoms(sp.Pow))):
        return None  # 2ⁿ
    growing = growing & (value.free_symbols | order.free_symbols)
    if not growing & value.free_symbols:
        return None
    others = dict.fromkeys((value.free_symbols | order.free_symbols) - growing, 2)

    def ratio(t: int) -> float:
        return float((value / order).subs(others).subs(dict.fromkeys(growing, t)))

    try:
        return ratio(10**12) <= 1.5 * abs(ratio(10**6))
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        return None


# ---------------------------------------------------------------- values


class _Values:
    """Claims on shapes, ranks and properties, against the typed program of one case."""

    def __init__(self, method: Method, typed: Elaborated, free: bool, sound: bool) -> None:
        self.method, self.typed, self.free, self.sound = method, typed, free, sound
        self.env: dict[str, Any] = {n: v.value for n, v in typed.names.items() if v.op == "const"}
        self.env |= {n: v for n, v in typed.sizes.items() if n not in self.env}
        if free:  # a size that is named in comments only is what the first of them makes it
            declared = dimension_names(method)
            self.env = {n: v for n, v in self.env.items() if n in declared or n not in typed.sizes}
        self.facts = Facts(typed.graph)
        self.starts = Starts(typed, self.facts.rules)

    def check(self, claim: Claim) -> list[Diagnostic]:
        node = value_of(self.typed, claim)
        if claim.kind == "identity" and claim.name is not None and key(claim.name) == key(self.method.output):
            return self._at_start(claim) if self.sound else []
        if node is None or node.type.kind == "unknown":
            return []
        match claim.kind:
            case "shape":
                return self._shape(claim, node)
            case _ if not self.sound:
                return []
            case "rank":
                return self._rank(claim, node)
            case _:
                return self._property(claim, node)

    def report(self, code: str, message: str, claim: Claim, notes: Sequence[str] = (),
               suggestion: str | None = None, related: Sequence[Related] = ()) -> list[Diagnostic]:
        return [Diagnostic(code, message, claim.span, self.method.source, tuple(related), tuple(notes), suggestion)]

    # shapes

    def claimed(self, space: SpaceTerm) -> Type | None:
        """The type that a claimed space stands for; a size that is named only here is a symbol."""
        if space.index is not None:
            omega = self.typed.names.get(space.index)
            return None if omega is None or omega.type.kind == "unknown" else Type((omega.type.item[0],))
        dims = [_calculated(d, self.env) for d in space.dims]
        family = [_calculated(d, self.env) for d in space.family]
        if any(d is None for d in (*dims, *family)):
            return None
        if space.kind in ("O", "SO"):
            dims = [dims[0], dims[0]]
        kind: Any = {"ℂ": "complex", "ℕ": "index"}.get(space.kind, "real")
        return Type(tuple(dims), tuple(family), kind=kind)

    def _shape(self, claim: Claim, node: Node) -> list[Diagnostic]:
        assert claim.space is not None
        type_, derived = self.claimed(claim.space), self._named(claim, node)
        if type_ is None:
            return []
        axes = [*zip(type_.item, derived.item, strict=False)]
        if type_.family:
            axes += [*zip(type_.family, derived.family, strict=False)]
        self._settle(axes)
        type_ = self.claimed(claim.space) or type_
        wrong = [f"{axis}: {show(written_out(c))} claimed, {show(written_out(d))} derived, "
                 f"difference {show(_difference(c, d))}"
                 for axis, c, d in zip(_axes(derived), type_.item, derived.item, strict=False) if not same(c, d)] \
            if len(type_.item) == len(derived.item) else ["another number of axes"]
        if type_.family and (len(type_.family) != len(derived.family)
                             or not all(same(c, d) for c, d in zip(type_.family, derived.family, strict=True))):
            wrong.append("another family")
        if type_.kind != derived.kind:
            wrong.append(f"{derived.kind} numbers")
        if wrong:
            return self.report("E402", f"{claim.name} is {_shown(derived)}, the comment says {_shown(type_)}", claim,
                               wrong, f"{claim.name} ∈ {_shown(derived)}")
        if claim.space.kind in ("O", "SO", "St") and self.sound:
            return self._property(claim, node)
        return []

    def _named(self, claim: Claim, node: Node) -> Type:
        """The type of what a claim names: of v_i, where v is what has been found, that of an item or a row of it."""
        own = key(claim.name or "")
        if split(claim.name or "") is None or own in {key(n) for n in (*self.typed.parameters, *self.typed.names)} \
                or any(key(n) == own for n, _, _ in self.typed.history):
            return node.type
        whole = node.type
        item, family = (whole.item, whole.family[1:]) if whole.family else (whole.item[1:], ())
        return Type(item, family, kind=whole.kind)

    def _settle(self, axes: Sequence[tuple[Any, Any]]) -> None:
        """A size that only comments name is what the first of them claims it to be."""
        for claimed, derived in axes:
            if self.free and isinstance(claimed, sp.Symbol) and str(claimed) not in self.env:
                self.env[str(claimed)] = derived

    def contradictions(self, claims: Sequence[Claim]) -> list[Diagnostic]:
        """Two claims on one value that differ."""
        found: list[Diagnostic] = []
        values = [value_of(self.typed, claim) for claim in claims]
        types = [None if claim.space is None else self.claimed(claim.space) for claim in claims]
        for k, one in enumerate(claims):
            for j, other in enumerate(claims[:k]):
                here, there = values[k], values[j]
                if one.name is None or other.name is None or here is not there or key(one.name) != key(other.name):
                    continue
                a, c = types[k], types[j]
                if a is None or c is None or here is None:
                    continue
                if len(a.item) != len(c.item) or not all(same(x, y) for x, y in zip(a.item, c.item, strict=True)):
                    found += self.report("E404", f"two comments give {one.name} different shapes: {_shown(a)} here, "
                                         f"{_shown(c)} there", one, related=[Related(other.span, f"{_shown(c)} here")])
        return found

    # ranks and properties

    def _rank(self, claim: Claim, node: Node) -> list[Diagnostic]:
        assert claim.size is not None
        bound = _calculated(claim.size, self.env)
        if bound is None or node.type.rank != 2:
            why = f"{claim.name} is {_shown(node.type)}, and a rank is that of a matrix" if bound is not None else \
                "it is no number that the sizes give"
            return self.report("N402", f"this rank is not checked: {why}", claim)
        known = self.facts.rank(node)
        if known is not None and _at_most(known, bound):
            return []
        reached = reaches(node)
        if reached is not None and self._larger_somewhere(reached, bound):
            return self.report("E403", f"{claim.name} has rank {show(reached)}, the comment says {show(bound)}", claim,
                               [f"derived − claimed = {show(_difference(reached, bound))}"], f"rank {show(reached)}")
        notes = [f"the rules give rank ≤ {show(known)}"] if known is not None else []
        return self.report("N401", f"no rule proves that {claim.name} has rank at most {show(bound)}", claim, notes,
                           "padp check --numerics tests it")

    def _larger_somewhere(self, a: Any, c: Any) -> bool:
        """Whether a > c at some admissible sizes: large dimensions, hyperparameters as they are by default."""
        sizes = {h.name: h.default.value for h in self.method.hyper if isinstance(h.default, Number)}
        gap = sp.sympify(a) - sp.sympify(c)
        values = {x: sizes.get(str(x), 10**6 if not str(x).startswith("(") else 0) for x in gap.free_symbols}
        answer = gap.subs(values)
        return bool(answer.is_positive) and not self.method.relations

    def _property(self, claim: Claim, node: Node) -> list[Diagnostic]:
        kind = claim.kind if claim.kind != "shape" else "orthogonal"
        what = {"orthogonal": "orthogonal", "antisymmetric": "antisymmetric", "identity": "the identity"}[kind]
        if kind == "orthogonal" and claim.space is not None and claim.space.kind == "St":
            what = "of orthonormal rows"
        if kind == "orthogonal" and claim.space is not None and claim.space.kind == "SO":
            what = "a rotation"
        holds = self.facts.holds(what, node)
        if holds is None and self.starts.fails(what, node, self.facts):
            holds = False
        if holds is True:
            return []
        if holds is False:
            mirrored = ["its determinant is −1"] if what == "a rotation" and self.facts.orthogonal(node) else []
            return self.report("E403", f"{claim.name} is not {what}", claim,
                               mirrored or self.starts.reasons(node))
        return self.report("N401", f"no rule proves that {claim.name} is {what}", claim, (),
                           "padp check --numerics tests it")

    def _at_start(self, claim: Claim) -> list[Diagnostic]:
        """``identity`` on the line of the output: W305 and N401 of the lints tell of it; a proof against it is E403."""
        verdict = self.starts.identity()
        if verdict.holds is False:
            return self.report("E403", f"a fresh adapter is not the identity: it starts as {self.method.output} = "
                               f"{verdict.text}", claim)
        return []


def value_of(typed: Elaborated, claim: Claim) -> Node | None:
    """The value that a claim speaks of: what its line assigns (after the loop, when it is carried through one), or what
    the name stands for there."""
    name = claim.name
    if name is None:
        return None
    names = {key(name)} | ({key(parts[0])} if (parts := split(name)) is not None else set())
    history = [(n, node, span) for n, node, span in typed.history if key(n) in names]
    if claim.statement is not None:
        own = [k for k, (_, _, span) in enumerate(history) if span.start == claim.statement.start]
        if own:
            return _closed(history, own[-1])
    before = [k for k, (_, _, span) in enumerate(history) if span.start <= claim.span.start]
    if before:
        return _closed(history, before[-1])
    for known, p in typed.parameters.items():
        if key(known) in names:
            return p.node
    bound = {key(x.name) for x in typed.method.bound}
    return next((typed.names[n] for n in typed.names if key(n) in names & bound), None)


def _closed(history: Sequence[tuple[str, Node, Span]], at: int) -> Node:
    """The value itself, or, where it is one step of a chain, the value of the whole chain."""
    name, node, span = history[at]
    if depends(node, lambda n: n.op == "carry" and n.attrs[0] == name):
        for other, later, around in history[at + 1:]:
            if other == name and around.start <= span.start and span.end <= around.end and not depends(
                    later, lambda n: n.op == "carry" and n.attrs[0] == name):
                return later
    return node


def _axes(type_: Type) -> tuple[str, ...]:
    return ("rows", "columns") if type_.rank == 2 else ("entries",)


def _difference(a: Any, c: Any) -> Any:
    return sp.expand(_plain(a) - _plain(c))


def _at_most(a: Any, c: Any) -> bool:
    if same(a, c):
        return True
    a, c = sp.sympify(a), sp.sympify(c)
    if isinstance(a, sp.Min) and any(_at_most(x, c) for x in a.args):
        return True
    factors = sp.Mul.make_args(a)
    smallest = next((f for f in factors if isinstance(f, sp.Min)), None)
    if smallest is not None and len(factors) > 1 and all(f.is_nonnegative for f in factors):
        return any(_at_most(a / smallest * x, c) for x in smallest.args)
    return bool((c - a).is_nonnegative)


def _shown(type_: Type) -> str:
    """A type with sizes as they are in the header."""
    item, family = tuple(written_out(d) for d in type_.item), tuple(written_out(d) for d in type_.family)
    return str(Type(item, family, (), False, type_.kind))
