"""Which pieces of comments claim something, and what.

    comment = piece {("," | ";" | "→") piece}          commas inside brackets do not separate
    piece   = NAME ∈ SPACE [: role …]                   shape, and orthogonality for O(k), SO(k), St(r, d)
            | params: EXPR  |  EXPR params              learned scalars a site
            | O(EXPR) params  |  params: O(EXPR)        how their number grows
            | [verb] EXPR [adjective] (angles | scalars | planar rotations)      each of them is one learned number
            | rank EXPR  |  antisymmetric  |  orthogonal  |  identity            of what the line assigns

A piece is a claim when it matches, whole; everything else is prose. In a count, letters side by side are a product,
``2rn + mr``, where no size has the whole as its name. ``identity`` on the line that gives the output says that a fresh
adapter changes nothing. Expressions and spaces are read by the parser and the resolver of programs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from padp.compiler.ir.budget import spend, working_on
from padp.compiler.ir.nodes import Node
from padp.compiler.names.comments import Remark, pieces, remarks
from padp.compiler.names.expressions import Reader
from padp.compiler.names.glued import WORD, apart, spelled_out
from padp.compiler.names.scope import Entry, Scope, key, split, walk
from padp.compiler.names.spaces import read_space, size_names
from padp.compiler.names.terms import Method, SpaceTerm, Term
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.parse import parse
from padp.dsl.source import Source, Span

Kind = Literal["shape", "count", "growth", "rank", "antisymmetric", "orthogonal", "identity"]
_NAME = r"[^\W\d_][\w\u0300-\u036f]*['′]*ᵀ?"
_SHAPE = re.compile(rf"(?P<name>{_NAME})\s*(?:∈|\bin\b)\s*(?P<rest>.+)")
_ROLE = re.compile(r"\s*:\s*(?:learned|frozen|shared|trainable|random)\b.*|\s*:\s*$")
_PARAMS = re.compile(r"params?\s*:\s*(?P<size>.+)")
_GROWTH = re.compile(r"O\((?P<size>.+)\)\s+params|params?\s*:\s*O\((?P<after>.+)\)")
_COUNT = re.compile(r"(?P<size>.+?)\s+params")
_RANK = re.compile(r"rank\s+(?P<size>\S.*)")
_ONE_EACH = re.compile(
    r"(?:[a-z]{4,}\s+)?(?P<size>\S.*?)\s+(?:(?:(?:planar|plane|Givens|Jacobi)\s+rotations)|(?:[A-Za-z-]+\s+)?(?:angles|scalars))"
)
_PROPERTIES: dict[str, Kind] = {"antisymmetric": "antisymmetric", "orthogonal": "orthogonal", "identity": "identity"}
_TITLE = re.compile(rf"(?<![\w\u0300-\u036f'′-])(?:{_NAME}|[A-Z][\w-]*)\s*:\s+(?=\S)")


_READING = 200
"""Steps that reading a claim takes."""

_LONGEST = 1_000
"""Characters of a claim: what is longer is prose."""


@dataclass(frozen=True, slots=True)
class Claim:
    """A piece of a comment that claims. ``name``: what it speaks of; ``size``, ``space``: what it says."""

    kind: Kind
    span: Span
    name: str | None
    statement: Span | None
    size: Term | None = None
    space: SpaceTerm | None = None


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
            working_on(remark.span)
            spend()
            for piece, span in pieces(remark):
                if len(piece) > _LONGEST:
                    continue
                claim = self._claim(piece, span, remark)
                if claim is not None:
                    made.append(claim)
        return made

    def _claim(self, piece: str, span: Span, remark: Remark) -> Claim | None:
        target = _target(remark.statement)
        where = None if remark.statement is None else remark.statement.span
        if (match := _GROWTH.fullmatch(piece)) is not None:
            return self._sized("growth", match["size"] or match["after"], span, None, where, piece)
        if (match := _PARAMS.fullmatch(piece)) is not None:
            return self._sized("count", match["size"], span, None, where, piece)
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
            signs = spelled_out(text, self._is_size)
            size = None if signs is None else self._size(signs)
        if size is None:
            if doubt is not None:
                side_by_side = any(apart(word, self._is_size) for word in WORD.findall(text))
                self._doubt(doubt, span, f"`{text}` is not an expression over the dimensions of this program" +
                            (", or not a plain one: between sizes write `·`" if side_by_side else ""))
            return None
        return Claim(kind, span, name, where, size=size)

    def _is_size(self, name: str) -> bool:
        found = self.scope.find(name)
        return found is not None and found.kind == "number"

    def _size(self, text: str) -> Term | None:
        spend(_READING + len(text) * 2)
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
        spend(_READING + len(head) * 2)
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
        term = read_space(reader, space, scope)
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
