"""Well-formed programs as Hypothesis strategies: what the grammar can produce, layer by layer as it stands there."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from typing import Literal

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from padp.dsl.spellings import KEYWORDS, glyph_name
from padp.dsl.syntax import (
    Abs,
    AfterBackward,
    Args,
    Assign,
    Binary,
    BinaryOp,
    Binding,
    Blocks,
    Chain,
    Common,
    Compare,
    CompareOp,
    Conditional,
    Declare,
    Dots,
    Expr,
    For,
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
    Program,
    Raised,
    Remark,
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
    Variant,
)

WORDS = (
    "a", "W", "x", "e", "E2", "i", "t", "T", "R", "N", "O", "mask", "in", "inner", "Delta", "lambda", "beta1", "Sigma",
    "Phi", "hat", "bar", "prime", "q2", "1", "12", "K", "learned", "init", "seed", "â", "β", "Σ", "Δ", "ΔW", "ξ",
)


OPS: tuple[BinaryOp, ...] = ("·", "@", "⊙", "⊗", "/", "//")
SIGNS: tuple[BinaryOp, ...] = ("+", "-")
PREFIXES: tuple[Literal["√", "∇"], ...] = ("√", "∇")
COMPARISONS: tuple[CompareOp, ...] = ("=", "≠", "<", "≤", ">", "≥")
ARROWS: tuple[Literal["←", "+=", "-="], ...] = ("←", "←", "+=", "-=")
_ops = st.sampled_from(OPS)


def canonical(text: str) -> str | None:
    try:
        return glyph_name(text)
    except ValueError:
        return None


@st.composite
def _spelled(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(WORDS))
    for _ in range(draw(st.integers(0, 3))):
        text += draw(st.sampled_from(("_", "_", "_", "__", "'", "ᵢ", "₁", "ₖ")))
        if text[-1] == "_":
            text += draw(st.sampled_from(WORDS))
    return text


def _usable(name: str) -> bool:
    return name not in KEYWORDS and name not in ("None", "True", "False", "sum", "after")


identifiers: SearchStrategy[str] = _spelled().map(canonical).filter(bool).map(str).filter(_usable)
"""Canonical names, of every shape a name can have."""

names = identifiers.map(Name)
words = st.sampled_from(("LoRA", "IA3", "linear", "seed", "peft", "on2", "a_b"))
numbers = st.one_of(
    st.integers(0, 2**63 - 1), st.integers(0, 20), st.floats(0, 1e300, allow_subnormal=False).map(abs), st.just(0.5)
).map(Number)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=8)
quoted = texts.map(lambda t: unicodedata.normalize("NFC", t.replace('"', ""))).map(Text)
comments = texts.map(lambda t: unicodedata.normalize("NFC", t).strip())


def tuples(items: SearchStrategy[Expr], least: int, most: int) -> SearchStrategy[tuple[Expr, ...]]:
    return st.lists(items, min_size=least, max_size=most).map(tuple)


def _layer(build: Callable[[st.DrawFn, int], Expr]) -> Callable[[int], SearchStrategy[Expr]]:
    @st.composite
    def strategy(draw: st.DrawFn, depth: int) -> Expr:
        return build(draw, depth)

    return strategy


def _expr(draw: st.DrawFn, depth: int) -> Expr:
    out = draw(_term(depth))
    for _ in range(draw(st.integers(0, 1))):
        out = Binary(draw(st.sampled_from(SIGNS)), out, draw(_term(depth)))
    return out


def _value(draw: st.DrawFn, depth: int) -> Expr:
    if depth > 0 and draw(st.integers(0, 7)) == 0:
        return Conditional(draw(expr(depth - 1)), draw(tests(depth - 1)), draw(value(depth - 1)))
    return draw(expr(depth))


def _term_of(draw: st.DrawFn, depth: int) -> Expr:
    shape = draw(st.sampled_from(("product", "product", "tail", "both")))
    if shape == "tail" and depth > 0:
        return draw(_tail(depth - 1))
    out = draw(_signed(depth))
    for _ in range(draw(st.integers(0, 1))):
        out = Binary(draw(_ops), out, draw(_signed(depth)))
    if shape == "both" and depth > 0:
        out = Binary(draw(_ops), out, draw(_tail(depth - 1)))
    return out




def _tail_of(draw: st.DrawFn, depth: int) -> Expr:
    kind = draw(st.sampled_from(("over", "bounded", "minus", "juxt")))
    if kind == "over":
        indices = tuple(draw(st.lists(st.sampled_from("ijtbkqx"), min_size=1, max_size=2)))
        return Sum(indices, None, draw(_term(depth)))
    if kind == "minus" and depth > 0:
        return Unary("-", draw(_tail(depth - 1)))
    indices = tuple(draw(st.lists(identifiers, min_size=1, max_size=2)))
    bounded = Sum(indices, draw(expr(max(depth - 1, 0))), draw(_term(depth)))
    if kind == "juxt":
        factors = draw(_factors(depth))
        return Juxt((*(factors.factors if isinstance(factors, Juxt) else (factors,)), bounded))
    return bounded


def _signed_of(draw: st.DrawFn, depth: int) -> Expr:
    kind = draw(st.integers(0, 9))
    if kind == 0:
        return Dots()
    if kind == 1 and depth > 0:
        return Unary("-", draw(_signed(depth - 1)))
    return draw(_factors(depth))


def _factors_of(draw: st.DrawFn, depth: int) -> Expr:
    first = draw(_factor(depth))
    if draw(st.integers(0, 3)):
        return first
    return Juxt((first, *draw(st.lists(_later(depth), min_size=1, max_size=2))))


def _later_of(draw: st.DrawFn, depth: int) -> Expr:
    if depth > 0 and draw(st.integers(0, 4)) == 0:
        return draw(_rooted(depth - 1))
    head = draw(names)
    return Chain(head, draw(_trailers(depth - 1))) if depth > 0 and draw(st.booleans()) else head


def _rooted_of(draw: st.DrawFn, depth: int) -> Expr:
    operand = draw(_factor(depth))
    op = draw(st.sampled_from(PREFIXES))
    if isinstance(operand, Chain) and isinstance(operand.head, Group):
        return Chain(Unary(op, operand.head), operand.trailers)
    return Unary(op, operand)


def _factor_of(draw: st.DrawFn, depth: int) -> Expr:
    if depth <= 0:
        return draw(st.one_of(numbers, names, names))
    kind = draw(st.sampled_from(("number", "name", "name", "chain", "chain", "rooted", "atom")))
    if kind == "number":
        return draw(numbers)
    if kind == "name":
        return draw(names)
    if kind == "rooted":
        return draw(_rooted(depth - 1))
    head = draw(st.one_of(_atom(depth - 1), names, numbers) if kind == "chain" else _atom(depth - 1))
    return Chain(head, draw(_trailers(depth - 1))) if kind == "chain" else head


def _atom_of(draw: st.DrawFn, depth: int) -> Expr:
    depth = max(depth, 0)
    kind = draw(st.sampled_from(("name", "group", "blocks", "norm", "abs")))
    if kind == "group":
        return Group(draw(value(depth)))
    if kind == "blocks":
        return Blocks(tuple(draw(st.lists(tuples(value(depth), 1, 2), min_size=1, max_size=2))))
    if kind == "norm":
        return Norm(draw(expr(depth)), draw(st.sampled_from((None, "row", "col", "F", "2"))))
    if kind == "abs":
        return Abs(draw(expr(depth)))
    return draw(names)


expr = _layer(_expr)
value = _layer(_value)
_term = _layer(_term_of)
_tail = _layer(_tail_of)
_signed = _layer(_signed_of)
_factors = _layer(_factors_of)
_later = _layer(_later_of)
_rooted = _layer(_rooted_of)
_factor = _layer(_factor_of)
_atom = _layer(_atom_of)


@st.composite
def _trailers(draw: st.DrawFn, depth: int) -> tuple[Trailer, ...]:
    return tuple(draw(st.lists(_trailer(max(depth, 0)), min_size=1, max_size=3)))


@st.composite
def _trailer(draw: st.DrawFn, depth: int) -> Trailer:
    kind = draw(st.sampled_from(("args", "transposed", "inverted", "raised", "indexed", "member")))
    if kind == "args":
        return draw(_args(depth))
    if kind == "transposed":
        return Transposed()
    if kind == "inverted":
        return Inverted()
    if kind == "member":
        return Member(draw(identifiers.filter(lambda n: not re.match("T(?![A-Za-z0-9])", n))))
    if kind == "indexed":
        return Indexed(draw(tuples(st.one_of(_slice(depth), expr(depth)), 1, 3)))
    exponent = draw(st.one_of(value(depth), numbers, numbers.map(lambda n: Unary("-", n))))
    if isinstance(exponent, Unary) and exponent.op == "-" and exponent.operand == Number(1):
        return Inverted()
    return Raised(exponent)


@st.composite
def _args(draw: st.DrawFn, depth: int) -> Args:
    items = st.one_of(value(depth), quoted, tuples(value(depth), 2, 3).map(TupleOf))
    named = draw(st.dictionaries(identifiers, items, max_size=2))
    return Args(draw(tuples(items, 0, 2)), tuple(named.items()))


@st.composite
def _slice(draw: st.DrawFn, depth: int) -> Slice:
    bound = st.one_of(st.none(), expr(depth))
    return Slice(draw(bound), draw(bound), draw(bound))


@st.composite
def tests(draw: st.DrawFn, depth: int) -> Compare | Parity:
    if draw(st.booleans()):
        return Parity(draw(expr(depth)), draw(st.booleans()))
    op = draw(st.sampled_from(COMPARISONS))
    return Compare(op, draw(expr(depth)), draw(expr(depth)))


# ---------------------------------------------------------------- spaces


@st.composite
def dims(draw: st.DrawFn) -> Expr:
    out = draw(_dim_factors())
    for _ in range(draw(st.integers(0, 2))):
        op = draw(_ops)
        right = draw(_dim_factors())
        out = Binary(draw(st.sampled_from(SIGNS)), out, right) if draw(st.booleans()) or _sums(out) else Binary(
            op, out, right
        )
    return out


def _sums(e: Expr) -> bool:
    return isinstance(e, Binary) and e.op in ("+", "-")


@st.composite
def _dim_factors(draw: st.DrawFn) -> Expr:
    first = draw(_dim_chain(st.one_of(names, numbers, value(0).map(Group))))
    if draw(st.integers(0, 3)):
        return first
    later = _dim_chain(names.filter(lambda n: n.text != "x"))  # there it would be ×
    return Juxt((first, *draw(st.lists(later, min_size=1, max_size=2))))


@st.composite
def _dim_chain(draw: st.DrawFn, heads: SearchStrategy[Expr]) -> Expr:
    head = draw(heads)
    if draw(st.integers(0, 3)):
        return head
    return Chain(head, draw(st.lists(st.one_of(_args(0), numbers.map(Raised)), min_size=1, max_size=2).map(tuple)))


@st.composite
def spaces(draw: st.DrawFn) -> Space:
    family = draw(tuples(dims(), 0, 2))
    if draw(st.booleans()):
        return Space(draw(st.sampled_from(("O", "SO", "St"))), draw(tuples(dims(), 1, 2)), family)
    return Space(draw(st.sampled_from(("ℝ", "ℂ", "ℕ"))), draw(tuples(dims(), 0, 3)), family)


# ---------------------------------------------------------------- statements

_comment = st.one_of(st.none(), comments.map(lambda t: t or None))
remarks = comments.map(Remark)


@st.composite
def declares(draw: st.DrawFn) -> Declare:
    given = st.one_of(st.none(), value(1), quoted)
    roles = draw(st.lists(st.builds(Role, identifiers, given), min_size=1, max_size=3))
    return Declare(tuple(draw(st.lists(names, min_size=1, max_size=2))), draw(spaces()), tuple(roles), draw(_comment))


@st.composite
def _target(draw: st.DrawFn) -> Expr:
    head = draw(names.filter(lambda n: not n.text.startswith("Σ")))
    trailer = st.one_of(
        st.just(Transposed()), _args(0), st.builds(Indexed, tuples(st.one_of(_slice(0), expr(0)), 1, 2))
    )
    trailers = draw(st.lists(trailer, max_size=2))
    return Chain(head, tuple(trailers)) if trailers else head


@st.composite
def assigns(draw: st.DrawFn) -> Assign:
    op = draw(st.sampled_from(ARROWS))
    return Assign(draw(tuples(_target(), 1, 2)), op, draw(value(2)), draw(_comment))


@st.composite
def _body(draw: st.DrawFn, depth: int) -> tuple[Statement, ...]:
    first = draw(st.lists(remarks, max_size=1))
    return (*first, *draw(st.lists(_inner(depth), min_size=1, max_size=2)), *draw(st.lists(remarks, max_size=1)))


@st.composite
def _inner(draw: st.DrawFn, depth: int) -> Statement:
    simple: list[SearchStrategy[Statement]] = [assigns(), declares(), st.builds(Minimise, value(2), _comment)]
    if depth > 0 and draw(st.integers(0, 3)) == 0:
        variables = tuple(draw(st.lists(names, min_size=1, max_size=3)))
        return For(variables, draw(expr(1)), draw(_body(depth - 1)), draw(_comment))
    return draw(st.one_of(simple))


@st.composite
def _outer(draw: st.DrawFn) -> Statement:
    kind = draw(st.sampled_from(("inner", "inner", "inner", "variant", "common", "after", "remark")))
    if kind == "variant":
        return Variant(draw(words), draw(_body(2)), draw(_comment))
    if kind == "common":
        return Common(draw(_body(2)), draw(_comment))
    if kind == "after":
        return AfterBackward(draw(_body(1)), draw(_comment))
    return draw(remarks) if kind == "remark" else draw(_inner(2))


@st.composite
def headers(draw: st.DrawFn) -> Header:
    given = st.one_of(st.none(), value(1), quoted)
    hyper = draw(st.lists(st.builds(Hyper, identifiers, given, st.booleans()), max_size=3))
    bindings = draw(st.lists(st.builds(Binding, identifiers, spaces()), max_size=2))
    options = draw(st.lists(st.tuples(identifiers, st.one_of(value(0), quoted)), max_size=1))
    relations = draw(st.lists(tests(1), max_size=2))
    return Header(
        draw(words), tuple(hyper), draw(words), tuple(bindings), tuple(options), tuple(relations), draw(_comment)
    )


programs: SearchStrategy[Program] = st.builds(
    Program, st.one_of(st.none(), headers()), st.lists(_outer(), max_size=3).map(tuple)
)
