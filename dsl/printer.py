"""The tree back to text, in one canonical form: ``parse(Source.of(to_text(p))) == p``, in glyphs and in ASCII.

One statement a line, blocks indented by four spaces, a comment two spaces after its statement. No parenthesis is added
or dropped: the tree holds those that were written. Comments and quoted text are left as they are in both spellings.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

from padp.dsl.spellings import OPERATORS, SUBSCRIPTS, ascii_name, glyph_name
from padp.dsl.syntax import (
    Abs,
    AfterBackward,
    Args,
    Assign,
    Binary,
    Binding,
    Blocks,
    Chain,
    Common,
    Compare,
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

Printable: TypeAlias = Expr | Compare | Parity | Space

_INDENT = "    "
_SUPERSCRIPTS = str.maketrans("0123456789-", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻")


def to_text(program: Program, ascii: bool = False) -> str:
    """The canonical text of a program, ending with a newline (empty for an empty program)."""
    style = _Style(ascii)
    lines: list[str] = []
    body = list(program.body)
    if program.header is not None:
        start = program.header.span.start
        while body and isinstance(body[0], Remark) and body[0].span.start < start:
            lines += _statement(body.pop(0), style)
        lines.append(_commented(_header(program.header, style), program.header.comment))
        if body:
            lines.append("")
    for statement in body:
        lines += _statement(statement, style)
    return "".join(line + "\n" for line in lines)


def show(node: Printable, ascii: bool = False) -> str:
    """The text of an expression, a relation or a space, as messages quote it."""
    return _space(node, _Style(ascii)) if isinstance(node, Space) else _expr(node, _Style(ascii))


@dataclass(frozen=True, slots=True)
class _Style:
    ascii: bool
    tight: bool = False  # no spaces around operators: inside indices, exponents and relations

    def sign(self, glyph: str) -> str:
        return OPERATORS.get(glyph, glyph) if self.ascii else glyph

    def name(self, name: str) -> str:
        return ascii_name(name) if self.ascii else glyph_name(name)

    @property
    def closer(self) -> _Style:
        return _Style(self.ascii, True)


# ---------------------------------------------------------------- lines


def _header(header: Header, style: _Style) -> str:
    text = f"adapter {header.name}"
    if header.hyper:
        text += "(" + ", ".join(_hyper(h, style) for h in header.hyper) + ")"
    text += f" on {header.site}"
    items = [_binding(b, style) for b in header.bindings]
    items += [f"{style.name(name)} = {_expr(value, style)}" for name, value in header.options]
    if items:
        text += "(" + ", ".join(items) + ")"
    if header.relations:
        text += " where " + ", ".join(_expr(r, style.closer) for r in header.relations)
    return text


def _hyper(hyper: Hyper, style: _Style) -> str:
    text = ("knob " if hyper.knob else "") + style.name(hyper.name)
    return text if hyper.default is None else f"{text} = {_expr(hyper.default, style)}"


def _binding(binding: Binding, style: _Style) -> str:
    return f"{style.name(binding.name)} {style.sign('∈')} {_space(binding.space, style)}"


def _statement(statement: Statement, style: _Style) -> Iterator[str]:
    match statement:
        case Remark(text):
            yield f"# {text}".rstrip()
        case Declare(names, space, roles, comment):
            named = ", ".join(style.name(n.text) for n in names)
            listed = ", ".join(_role(r, style) for r in roles)
            yield _commented(f"{named} {style.sign('∈')} {_space(space, style)}: {listed}", comment)
        case Assign(targets, op, value, comment):
            left = ", ".join(_expr(t, style) for t in targets)
            yield _commented(f"{left} {style.sign(op)} {_expr(value, style)}", comment)
        case Minimise(value, comment):
            yield _commented(f"minimise {_expr(value, style)}", comment)
        case For(variables, iterable, body, comment):
            named = ", ".join(style.name(v.text) for v in variables)
            named = f"({named})" if len(variables) > 1 else named
            yield from _block(f"for {named} in {_expr(iterable, style)}", body, comment, style)
        case Variant(name, body, comment):
            yield from _block(f"variant {name}", body, comment, style)
        case Common(body, comment):
            yield from _block("common", body, comment, style)
        case AfterBackward(body, comment):
            yield from _block("after backward", body, comment, style)


def _block(head: str, body: tuple[Statement, ...], comment: str | None, style: _Style) -> Iterator[str]:
    yield _commented(f"{head}:", comment)
    for statement in body:
        for line in _statement(statement, style):
            yield _INDENT + line


def _role(role: Role, style: _Style) -> str:
    name = style.name(role.name)
    return name if role.value is None else f"{name} = {_expr(role.value, style)}"


def _commented(line: str, comment: str | None) -> str:
    return line if comment is None else f"{line}  # {comment}"


# ---------------------------------------------------------------- expressions


def _expr(e: Expr | Compare | Parity, s: _Style) -> str:
    match e:
        case Number(value):
            return repr(value)
        case Text(value):
            return f'"{value}"'
        case Name(text):
            return s.name(text)
        case Dots():
            return "..."
        case Group(inner):
            return f"({_expr(inner, s)})"
        case TupleOf(items):
            return "(" + _listed(items, s) + ")"
        case Slice(start, stop, step):
            bounds = [start, stop] if step is None else [start, stop, step]
            return ":".join("" if b is None else _expr(b, s) for b in bounds)
        case Chain(head, trailers):
            return _chain(head, trailers, s)
        case Juxt(factors):
            return _juxt(factors, s)
        case Unary("-", operand):
            return "-" + _expr(operand, s)
        case Unary(op, operand):
            gap = " " if s.ascii and not isinstance(operand, Group) else ""
            return s.sign(op) + gap + _expr(operand, s)
        case Binary(op, left, right):
            close = s.tight or (op in "/" and isinstance(left, _SMALL) and isinstance(right, _SMALL))
            gap = "" if close and s.sign(op) != "(x)" else " "
            return _expr(left, s) + gap + s.sign(op) + gap + _expr(right, s)
        case Norm(inner, axis):
            return _barred(inner, s.sign("‖"), s) + ("" if axis is None else f"_{axis}")
        case Abs(inner):
            return _barred(inner, "|", s)
        case Sum(indices, domain, body):
            return _sum(indices, domain, s) + " " + _expr(body, s)
        case Compare(op, left, right):
            return f"{_expr(left, s)} {s.sign(op)} {_expr(right, s)}"
        case Parity(operand, even):
            return f"{_expr(operand, s)} {'even' if even else 'odd'}"
        case Conditional(then, test, otherwise):
            return f"{_expr(then, s)} if {_expr(test, s)} else {_expr(otherwise, s)}"
        case Blocks(rows):
            return "[" + "; ".join(_listed(row, s) for row in rows) + "]"


_SMALL = (Number, Name, Group)


def _listed(items: tuple[Expr, ...], s: _Style) -> str:
    return ", ".join(_expr(item, s) for item in items)


def _chain(head: Expr, trailers: tuple[Trailer, ...], s: _Style) -> str:
    out = _guarded(head, trailers, s)
    for trailer in trailers:
        match trailer:
            case Args(args, kwargs):
                named = [f"{s.name(name)} = {_expr(value, s)}" for name, value in kwargs]
                out += "(" + ", ".join([*(_expr(a, s) for a in args), *named]) + ")"
            case Transposed():
                out += ".T" if out[-1] == "ᵀ" else s.sign("ᵀ")
            case Inverted():
                out += s.sign("⁻¹")
            case Raised(exponent):
                out += _power(exponent, s, after=out)
            case Indexed(items):
                plain = all(isinstance(item, (Name, Number, Slice)) for item in items)
                inside = ",".join(_expr(item, s.closer) for item in items)
                out += f"_{{{inside}}}" if plain else f"[{inside}]"
            case Member(name):
                out += "." + s.name(name)
    return out


def _guarded(e: Expr, trailers: tuple[Trailer, ...], s: _Style) -> str:
    """A name before something that would make a sum of it: ``Σᵢ`` before ``(``, ``Σ_{i}`` before ``u``."""
    if isinstance(e, Name) and not s.ascii:
        first = trailers[0] if trailers else None
        names = isinstance(first, Indexed) and all(isinstance(item, Name) for item in first.items)
        if re.fullmatch("Σ[ᵢⱼₜ]+", e.text) or (e.text == "Σ" and names):
            return ascii_name(e.text)
    return _expr(e, s)


def _power(exponent: Expr, s: _Style, after: str) -> str:
    """``²``, ``⁻²``, ``^{e}``; two superscripts in a row would run together."""
    match exponent:
        case Number(int() as n):
            digits = str(n)
        case Unary("-", Number(int() as n)):
            digits = f"-{n}"
        case _:
            return f"^{{{_expr(exponent, s.closer)}}}"
    if s.ascii:
        return f"^{digits}"
    if after[-1] in "⁰¹²³⁴⁵⁶⁷⁸⁹" and digits[0] != "-":
        return f"^{{{digits}}}"
    return digits.translate(_SUPERSCRIPTS)


def _juxt(factors: tuple[Expr, ...], s: _Style) -> str:
    """``2i`` close together, all others with a space (``2e3`` would be a number)."""
    out = ""
    for factor in factors:
        match factor:
            case Name():
                piece = _guarded(factor, (), s)
            case _:
                piece = _expr(factor, s)
        close = out.isdigit() and piece[0].isalpha() and piece[0] not in "eE"
        out += piece if close or not out else " " + piece
    return out


def _barred(inner: Expr, bar: str, s: _Style) -> str:
    text = _expr(inner, s)
    before = " " if text[0] in "|‖" else ""
    after = " " if text[-1] in "|‖" else ""
    return bar + before + text + after + bar


def _sum(indices: tuple[str, ...], domain: Expr | None, s: _Style) -> str:
    if domain is not None:
        named = ", ".join(s.name(i) for i in indices)
        named = f"({named})" if len(indices) > 1 else named
        return f"{s.sign('Σ')}_{{{named} {s.sign('∈')} {_expr(domain, s)}}}"
    if not s.ascii and all(i in SUBSCRIPTS for i in indices):
        return "Σ" + "".join(SUBSCRIPTS[i] for i in indices)
    return f"{s.sign('Σ')}_{{{','.join(indices)}}}"


# ---------------------------------------------------------------- spaces


def _space(space: Space, s: _Style) -> str:
    if space.kind in ("O", "SO", "St"):
        text = f"{space.kind}({', '.join(_expr(d, s.closer) for d in space.dims)})"
        return text + _exponent(space.family, s)
    text = s.sign(space.kind) + _exponent(space.dims, s)
    return f"({text}){_exponent(space.family, s)}" if space.family else text


def _exponent(dims: tuple[Expr, ...], s: _Style) -> str:
    if not dims:
        return ""
    if len(dims) == 1 and isinstance(dims[0], (Name, Number)):
        return f"^{_expr(dims[0], s.closer)}"
    times = " x " if s.ascii else "×"
    return f"^{{{times.join(_expr(d, s.closer) for d in dims)}}}"
