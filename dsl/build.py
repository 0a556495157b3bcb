"""From Lark's reductions to the syntax tree: one method for every rule of grammar.lark, under the rule's name.

Lark calls them bottom-up while it parses, so nothing here recurses. A method gets all children of its rule, tokens
included (that is where spans come from), and raises PadpError for what the grammar lets through and the language
does not.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeAlias, TypeVar, cast

from lark import Token

from padp.dsl.diagnostics import refuse
from padp.dsl.limits import MAX_DIGITS, MAX_INTEGER, MAX_NAME
from padp.dsl.source import Span
from padp.dsl.spellings import KEYWORDS, glyph_name
from padp.dsl.syntax import (
    Abs,
    Args,
    Assign,
    Binary,
    BinaryOp,
    Binding,
    Blocks,
    Chain,
    Compare,
    CompareOp,
    Conditional,
    Declare,
    Dots,
    Expr,
    Group,
    Header,
    Hyper,
    Indexed,
    Inverted,
    Juxt,
    Member,
    Minimise,
    Name,
    Norm,
    Number,
    Parity,
    Raised,
    Role,
    Slice,
    Space,
    Statement,
    Sum,
    Text,
    Trailer,
    Transposed,
    TupleOf,
    Unary,
)


@dataclass(frozen=True, slots=True)
class ForHead:
    variables: tuple[Name, ...]
    iterable: Expr
    span: Span


@dataclass(frozen=True, slots=True)
class VariantHead:
    name: str
    span: Span


@dataclass(frozen=True, slots=True)
class CommonHead:
    span: Span


@dataclass(frozen=True, slots=True)
class AfterHead:
    span: Span


Head: TypeAlias = ForHead | VariantHead | CommonHead | AfterHead


@dataclass(frozen=True, slots=True)
class LineTree:
    """What one logical line says: a header alone, or a block's head, or statements, or a head and statements."""

    header: Header | None
    head: Head | None
    statements: tuple[Statement, ...]


@dataclass(frozen=True, slots=True)
class _Several:
    """The children of a rule that is no node of its own (``role ("," role)*``)."""

    items: tuple[object, ...]
    span: Span


@dataclass(frozen=True, slots=True)
class _Keyword:
    name: str
    value: Expr
    span: Span


_OPERATORS: dict[str, BinaryOp] = {
    "+": "+", "-": "-", "·": "·", "*": "·", "@": "@", "⊙": "⊙", ".*": "⊙", "⊗": "⊗", "(x)": "⊗", "/": "/", "//": "//",
}
_COMPARISONS: dict[str, CompareOp] = {
    "=": "=", "≠": "≠", "!=": "≠", "<": "<", "≤": "≤", "<=": "≤", ">": ">", "≥": "≥", ">=": "≥",
}
_ASSIGNS: dict[str, Literal["←", "+=", "-="]] = {"←": "←", "<-": "←", "+=": "+=", "-=": "-="}
_SPACES: dict[str, Literal["ℝ", "ℂ", "ℕ", "O", "SO", "St"]] = {
    "ℝ": "ℝ", "R": "ℝ", "ℂ": "ℂ", "C": "ℂ", "ℕ": "ℕ", "N": "ℕ", "O": "O", "SO": "SO", "St": "St"}
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹", "0123456789")
_PYTHON_VALUES = {"None": "leave it out", "True": "write 1", "False": "write 0"}


class _Placed(Protocol):
    """A tree or a list of trees: it has a span."""

    @property
    def span(self) -> Span: ...


Children: TypeAlias = Sequence[object]
_T = TypeVar("_T")


class Build:
    """Rule name → node."""

    # ------------------------------------------------------------ lines

    def start(self, c: Children) -> LineTree:
        statements = [item for several in c if isinstance(several, _Several) for item in several.items]
        header = next((x for x in c if isinstance(x, Header)), None)
        head = next((x for x in c if isinstance(x, Head)), None)
        return LineTree(header, head, tuple(cast("list[Statement]", statements)))

    def statements(self, c: Children) -> _Several:
        return _several(c)

    def header(self, c: Children) -> Header:
        name, site = (token for token in c if _is(token, "NAME"))
        parts = [item for several in c if isinstance(several, _Several) for item in several.items]
        options = tuple((x.name, x.value) for x in _kind(parts, _Keyword))
        relations = tuple(x for x in parts if isinstance(x, (Compare, Parity)))
        return Header(_plain_name(name, "an adapter"), _kind(parts, Hyper), _plain_name(site, "a site"),
                      _kind(parts, Binding), options, relations, None, _span(c))

    def hypers(self, c: Children) -> _Several:
        return _several(c)

    def site(self, c: Children) -> _Several:
        return _several(c)

    def relations(self, c: Children) -> _Several:
        return _several(c)

    def hyper(self, c: Children) -> Hyper:
        knob = _is(c[0], "KNOB")
        default = cast(Expr, c[-1]) if len(c) > 2 else None
        return Hyper(_name(c[1] if knob else c[0]), default, knob, _span(c))

    def binding(self, c: Children) -> Binding:
        return Binding(_name(c[0]), cast(Space, c[2]), _span(c))

    def option(self, c: Children) -> _Keyword:
        return self.kwarg(c)

    def for_head(self, c: Children) -> ForHead:
        variables = cast(_Several, c[1])
        return ForHead(_kind(variables.items, Name), cast(Expr, c[3]), _span(c))

    def variables(self, c: Children) -> _Several:
        return _several(_names(c), c)

    def variant_head(self, c: Children) -> VariantHead:
        return VariantHead(_plain_name(c[1], "a variant"), _span(c))

    def common_head(self, c: Children) -> CommonHead:
        return CommonHead(_span(c))

    def after_head(self, c: Children) -> AfterHead:
        return AfterHead(_span(c))

    # ------------------------------------------------------------ statements

    def assign(self, c: Children) -> Assign:
        targets = cast("tuple[Expr, ...]", cast(_Several, c[0]).items)
        for target in targets:
            _check_target(target)
        return Assign(targets, _ASSIGNS[str(c[1])], cast(Expr, c[2]), None, _span(c))

    def targets(self, c: Children) -> _Several:
        return _several(c)

    def declare(self, c: Children) -> Declare:
        names = cast("tuple[Expr, ...]", cast(_Several, c[0]).items)
        for name in names:
            braced = _braced(name)
            if braced is not None:
                raise refuse("E106", "`_{…}` takes an item of what stands before it, so this is no name to declare",
                             name.span, suggestion=f"write `{braced}`, here and wherever it is used")
            if not isinstance(name, Name):
                raise refuse("E106", "only a plain name can be declared here", name.span,
                             suggestion="declare the whole of it under one name: `A ∈ ℝ^{r×n}: learned`")
        return Declare(_kind(names, Name), cast(Space, c[2]), _kind(c[3:], Role), None, _span(c))

    def role(self, c: Children) -> Role:
        return Role(_name(c[0]), cast(Expr, c[2]) if len(c) > 1 else None, _span(c))

    def minimise(self, c: Children) -> Minimise:
        return Minimise(cast(Expr, c[1]), None, _span(c))

    # ------------------------------------------------------------ expressions

    def conditional(self, c: Children) -> Conditional:
        return Conditional(cast(Expr, c[0]), cast("Compare | Parity", c[2]), cast(Expr, c[4]), _span(c))

    def compare(self, c: Children) -> Compare:
        return Compare(_COMPARISONS[str(c[1])], cast(Expr, c[0]), cast(Expr, c[2]), _span(c))

    def parity(self, c: Children) -> Parity:
        return Parity(cast(Expr, c[0]), _is(c[1], "EVEN"), _span(c))

    def binary(self, c: Children) -> Binary:
        return Binary(_OPERATORS[str(c[1])], cast(Expr, c[0]), cast(Expr, c[2]), _span(c))

    def unary(self, c: Children) -> Unary:
        return Unary("-", cast(Expr, c[1]), _span(c))

    def rooted(self, c: Children) -> Expr:
        """``√Σ_{:r}`` takes the operand with its trailers; ``√(a)²`` is ``(√(a))²``, as ``sqrt(a)²`` must be."""
        op: Literal["√", "∇"] = "√" if _is(c[0], "ROOT") or _is(c[0], "SQRT") else "∇"
        operand = cast(Expr, c[1])
        if isinstance(operand, Chain) and isinstance(operand.head, Group):
            first = cast(Token, c[0])
            head = Unary(op, operand.head, Span(cast(int, first.start_pos), operand.head.span.end))
            return Chain(head, operand.trailers, _span(c))
        return Unary(op, operand, _span(c))

    def juxt(self, c: Children) -> Juxt:
        factors = cast("list[Expr]", list(c))
        if isinstance(factors[0], Juxt):  # `2x Σ_{i ∈ S} …`
            factors = [*factors[0].factors, *factors[1:]]
        return Juxt(tuple(factors), _span(c))

    def dots(self, c: Children) -> Dots:
        return Dots(_span(c))

    def bounded_sum(self, c: Children) -> Sum:
        index = cast(_Several, c[1])
        names = tuple(name.text for name in _kind(index.items, Name))
        return Sum(names, cast(Expr, c[3]), cast(Expr, c[5]), _span(c))

    def sum_index(self, c: Children) -> _Several:
        return _several(_names(c), c)

    def sum_over(self, c: Children) -> Sum:
        """``Σₜ``, ``Σᵢⱼ``, ``Σ_i`` and ``Σ_{i,j}``: the indices are the letters of the token."""
        names = _parts_of_subscript(str(c[0]))
        return Sum(names, None, cast(Expr, c[1]), _span(c))

    def chain(self, c: Children) -> Chain:
        return Chain(cast(Expr, c[0]), cast("tuple[Trailer, ...]", cast(_Several, c[1]).items), _span(c))

    def trailers(self, c: Children) -> _Several:
        return _several(c)

    def name(self, c: Children) -> Name:
        text = _name(c[0])
        if text in _PYTHON_VALUES:
            raise refuse("E106", f"`{text}` is Python's; the language has numbers only", _span(c),
                         suggestion=_PYTHON_VALUES[text])
        return Name(text, _span(c))

    def number(self, c: Children) -> Number:
        text = str(c[0])
        if len(text) > MAX_DIGITS:
            raise refuse("E105", f"this number is longer than {MAX_DIGITS} characters", _span(c),
                         suggestion="write it in fewer digits, as in `1.5e-3`")
        value = int(text) if text.isdigit() else float(text)
        if value > MAX_INTEGER if isinstance(value, int) else value == float("inf"):
            raise refuse("E105", "this number is too large", _span(c),
                         suggestion="whole numbers go up to 2⁶³ − 1, others to 1.7e308")
        return Number(value, _span(c))

    def text(self, c: Children) -> Text:
        return Text(str(c[0])[1:-1], _span(c))

    def group(self, c: Children) -> Group:
        return Group(cast(Expr, c[1]), _span(c))

    def blocks(self, c: Children) -> Blocks:
        rows = tuple(cast("tuple[Expr, ...]", row.items) for row in _kind(c, _Several))
        return Blocks(rows, _span(c))

    def row(self, c: Children) -> _Several:
        return _several(c)

    def norm(self, c: Children) -> Norm:
        axis = str(c[3])[1:] if len(c) > 3 else None
        return Norm(cast(Expr, c[1]), axis, _span(c))

    def abs(self, c: Children) -> Abs:
        return Abs(cast(Expr, c[1]), _span(c))

    def tuple(self, c: Children) -> TupleOf:
        return TupleOf(cast("tuple[Expr, ...]", _several(c).items), _span(c))

    # ------------------------------------------------------------ trailers

    def transposed(self, c: Children) -> Transposed:
        return Transposed(_span(c))

    def superscript(self, c: Children) -> Inverted | Raised:
        digits = str(c[0]).lstrip("⁻").translate(_SUPERSCRIPTS)
        if len(digits) > MAX_DIGITS:
            raise refuse("E105", f"this exponent is longer than {MAX_DIGITS} characters", _span(c))
        return _raised(Number(int(digits), _span(c)), str(c[0])[0] == "⁻", _span(c))

    def raised(self, c: Children) -> Inverted | Raised:
        if _is(c[1], "MINUS"):
            return _raised(cast(Number, c[2]), True, _span(c))
        exponent = cast(Expr, c[1])
        if isinstance(exponent, Name) and exponent.text == "T" and str(c[0]) == "^":
            raise refuse("E106", "`^T` may be a transpose or a power", _span(c),
                         suggestion="write `ᵀ` or `.T` for the transpose, `^{T}` for the power")
        if isinstance(exponent, Unary) and exponent.op == "-" and isinstance(exponent.operand, Number):
            return _raised(exponent.operand, True, _span(c))
        return Raised(exponent, _span(c))

    def indexed(self, c: Children) -> Indexed:
        return Indexed(cast("tuple[Expr, ...]", cast(_Several, c[1]).items), _span(c))

    def items(self, c: Children) -> _Several:
        return _several(c)

    def slice(self, c: Children) -> Slice:
        bounds: list[Expr | None] = [None]
        for child in c:
            if _is(child, "COLON"):
                bounds.append(None)
            else:
                bounds[-1] = cast(Expr, child)
        return Slice(bounds[0], bounds[1], bounds[2] if len(bounds) > 2 else None, _span(c))

    def member(self, c: Children) -> Member:
        return Member(_name(c[1]), _span(c))

    def args(self, c: Children) -> Args:
        positional: list[Expr] = []
        named: dict[str, Expr] = {}
        for child in _several(c).items:
            if isinstance(child, _Keyword):
                if child.name in named:
                    raise refuse("E106", f"`{child.name} =` is given twice", child.span, suggestion="keep one of them")
                named[child.name] = child.value
            elif named and not isinstance(child, Dots):
                raise refuse("E106", "an argument without a name follows one with a name", cast(Expr, child).span,
                             suggestion="put the named arguments last")
            else:
                positional.append(cast(Expr, child))
        return Args(tuple(positional), tuple(named.items()), _span(c))

    def kwarg(self, c: Children) -> _Keyword:
        return _Keyword(_name(c[0]), cast(Expr, c[2]), _span(c))

    # ------------------------------------------------------------ spaces

    def plain_space(self, c: Children) -> Space:
        dims = cast(_Several, c[1]).items if len(c) > 1 else ()
        return Space(_SPACES[str(c[0])], cast("tuple[Expr, ...]", dims), (), _span(c))

    def manifold(self, c: Children) -> Space:
        return Space(_SPACES[str(c[0])], cast("tuple[Expr, ...]", _several(c).items), (), _span(c))

    def wrapped(self, c: Children) -> Space:
        inner = cast(Space, c[1])
        return Space(inner.kind, inner.dims, inner.family, _span(c))

    def family(self, c: Children) -> Space:
        inner, power = cast(Space, c[0]), cast(_Several, c[1])
        return Space(inner.kind, inner.dims, (*cast("tuple[Expr, ...]", power.items), *inner.family), _span(c))

    def power(self, c: Children) -> _Several:
        return _several(c)


# ---------------------------------------------------------------- what the methods share


def _span(children: Children) -> Span:
    first, last = children[0], children[-1]
    start = first.start_pos if isinstance(first, Token) else cast(_Placed, first).span.start
    end = last.end_pos if isinstance(last, Token) else cast(_Placed, last).span.end
    return Span(cast(int, start), cast(int, end))


def _several(children: Children, place: Children | None = None) -> _Several:
    """Everything that is no punctuation."""
    return _Several(tuple(x for x in children if not isinstance(x, Token)), _span(place or children))


def _kind(children: Iterable[object], kind: type[_T]) -> tuple[_T, ...]:
    return tuple(x for x in children if isinstance(x, kind))


def _is(child: object, terminal: str) -> bool:
    return isinstance(child, Token) and child.type == terminal


def _names(children: Children) -> list[Name]:
    return [Name(_name(token), _span([token])) for token in children if _is(token, "NAME")]


def _name(token: object) -> str:
    """The canonical glyph form of a NAME token."""
    text, place = str(token), _span([token])
    if len(text) > MAX_NAME:
        raise refuse("E105", f"this name is longer than {MAX_NAME} characters", place)
    if text in KEYWORDS:
        raise refuse("E106", f"`{text}` is a word of the language and cannot be a name", place,
                     suggestion="choose another name")
    try:
        return glyph_name(text)
    except ValueError as error:
        raise refuse("E102", f"`{text}` cannot be a name: {error}", place,
                     suggestion="a name is a Latin word or a Greek letter, with subscripts, primes, marks") from None


def _plain_name(token: object, what: str) -> str:
    text = str(token)
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", text):
        raise refuse("E106", f"`{text}`: the name of {what} consists of ASCII letters, digits and `_`", _span([token]),
                     suggestion="spell it out: it is typed on command lines and stored in checkpoints")
    return text


def _raised(exponent: Number, negative: bool, span: Span) -> Inverted | Raised:
    if not negative:
        return Raised(exponent, span)
    return Inverted(span) if exponent.value == 1 else Raised(Unary("-", exponent, span), span)


def _parts_of_subscript(token: str) -> tuple[str, ...]:
    if "{" in token:
        return tuple(letter.strip() for letter in token[token.index("{") + 1 : token.index("}")].split(","))
    if "_" in token:
        return (token[-1],)
    return tuple(unicodedata.normalize("NFKC", sub) for sub in token[1:])


def _check_target(target: Expr) -> None:
    """Left of an arrow stands a name, perhaps transposed or indexed, or a function's head ``f(a, b)``."""
    if isinstance(target, Name):
        if re.fullmatch("Σ[ᵢⱼₜ]+", target.text):
            raise refuse("E106", f"`{target.text}` is the sign of a sum, not a name to assign to", target.span,
                         suggestion="give the value a letter: `s ← …`")
        return
    if isinstance(target, Chain) and isinstance(target.head, Name):
        bad = next((t for t in target.trailers if not isinstance(t, (Indexed, Transposed, Args))), None)
        if bad is None:
            return
        raise refuse("E106", "this cannot be assigned to", bad.span,
                     suggestion="assign to a name: `y ← …`, `x̂[2i] ← …`, or define a function: `f(a) ← …`")
    if isinstance(target, Sum):
        raise refuse("E106", "a sum cannot be assigned to", target.span, suggestion="assign it to a name: `s ← Σᵢ …`")
    raise refuse("E106", "only a name, or a part of one, can stand on the left of `←`", target.span,
                 suggestion="assign to a name: `y ← …`, `x̂[2i] ← …`, or define a function: `f(a) ← …`")


def _braced(target: Expr) -> str | None:
    """``W_down`` for the ``W_{down}`` of LaTeX."""
    match target:
        case Chain(head=Name(text=base), trailers=(Indexed(items=items),)) if base and items:
            subs = [x.text if isinstance(x, Name) else str(x.value) if isinstance(x, Number) else "" for x in items]
            return "_".join((base, *subs)) if all(sub.isalnum() for sub in subs) else None
        case _:
            return None
