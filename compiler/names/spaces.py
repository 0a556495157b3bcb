"""Declared spaces and initial values, read.

    read_space(reader, ℝ^{b×k×k}, scope)        a family b of k×k matrices; ℝ^Ω has one number for each element of Ω
    read_initial(reader, kaiming, scope)        a named initialiser, or any expression of what is known at attach
"""

from __future__ import annotations

from collections.abc import Iterable

from padp.compiler.names import terms as t
from padp.compiler.names.reading import Reading
from padp.compiler.names.scope import Entry, Kind, Scope, key, nearest, split
from padp.compiler.names.signatures import INITIALISERS, signature
from padp.dsl import syntax as s

# What other libraries and papers call random numbers.
_DRAWN = {"randn": "normal(1)", "rand": "uniform(0, 1)", "N": "normal(0, 0.02)", "gaussian": "normal(0.02)",
          "Normal": "normal(0.02)", "Uniform": "uniform(-1, 1)", "he": "kaiming_normal", "glorot": "xavier"}
_NUMBERS = {"normal": "normal(std) or normal(mean, std)", "uniform": "uniform(low, high)",
            "trunc_normal": "trunc_normal(mean, std)", "kaiming": "kaiming or kaiming(a)", "pairs": "pairs(kaiming)",
            "unit_std": "unit_std(kaiming)"}


def read_space(reader: Reading, e: s.Space, scope: Scope) -> t.SpaceTerm:
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
            reader.sizes.add(key(name.text))
    reader.in_space += 1
    read = [tuple(reader.expr(d, scope, "size") for d in part) for part in (dims, family)]
    reader.in_space -= 1
    return t.SpaceTerm(e.kind, read[0], read[1], None, e.span)


def read_initial(reader: Reading, e: s.Expr, scope: Scope) -> t.Term:
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
        return t.Number(0, span) if _no_initialiser(reader, e, name, scope) else reader.expr(e, scope, "init")
    low, high = INITIALISERS[name].arity
    if not low <= len(args) <= high:
        wanted = str(low) if low == high else f"{low} or {high}"
        reader.report("E209", f"the initialiser {name} takes {wanted} number{'' if wanted == '1' else 's'}, "
                              f"not {len(args)}", span, suggestion=_NUMBERS.get(name, name))
    if name in ("pairs", "unit_std"):
        return t.Call(name, tuple(read_initial(reader, a, scope) for a in args), (), span)
    return t.Call(name, tuple(reader.expr(a, scope, "size") for a in args), (), span)


def _no_initialiser(reader: Reading, e: s.Expr, name: str, scope: Scope) -> bool:
    """Report E204 for a word after ``init =`` that is nothing at all; True when it was."""
    constant = {"zeros": "0", "ones": "1", "zero": "0", "one": "1", "identity": "I", "eye": "I"}.get(name)
    constant = constant or _DRAWN.get(name)
    base = (split(name) or (name, ""))[0]
    declared = key(name) in reader.declared_at or base in reader.declared_at or not reader.is_free(name, scope)
    if not name or scope.find(name) is not None or (declared and not (constant and isinstance(e, s.Name))):
        return False
    close = [word for word in INITIALISERS if name.startswith(word)] or nearest(name, INITIALISERS)
    reader.report("E204", f"`{name}` is no initialiser", e.span,
                  suggestion=f"init = {constant or (close[0] if close else '0')}",
                  notes=[f"initialisers: {', '.join(INITIALISERS)}, a number, or an expression of what is known"])
    return True


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
