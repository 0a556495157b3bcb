"""Assignments: whole names, parts of an svd or a qr, writes by index.

    R ← e           binds a name;  R += e is R ← R + e
    U, Σ, Vᵀ ← svd(M)
    A_{i,:} ← e     an index that is bound nowhere runs over the range that its uses in e imply
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from padp.compiler.names import terms as t
from padp.compiler.names.declarations import declared_in_place
from padp.compiler.names.gathered import Run
from padp.compiler.names.index_ranges import axes_of, range_of
from padp.compiler.names.reading import Place
from padp.compiler.names.scope import Entry, Scope, key, split, walk
from padp.compiler.names.signatures import signature
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related
from padp.dsl.source import Span


def assign(run: Run, a: s.Assign, scope: Scope, out: list[t.Step], place: Place, loops: tuple[s.For, ...]) -> None:
    """``targets ← value``."""
    if len(a.targets) > 1:
        _assign_several(run, a, scope, out, place)
        return
    target = next(iter(a.targets))
    match target:
        case s.Group(inner=inner):
            assign(run, replace(a, targets=(inner,)), scope, out, place, loops)
        case s.Name(text=text, span=span):
            _assign_name(run, text, span, a, scope, out, place, loops)
        case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Transposed(),)):
            _let(run, (text + "ᵀ",), _right_side(run, a, text + "ᵀ", scope, place), span, a, scope, out)
        case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Transposed(), *rest)) if _indexed(rest):
            _write(run, text + "ᵀ", _items(rest), a, scope, out, place)
        case s.Chain(head=s.Name(text=text), trailers=rest) if _indexed(rest):
            _write(run, text, _items(rest), a, scope, out, place)
        case s.Chain(head=s.Name(text=text), trailers=(s.Args(),)) if text in run.definitions and not loops:
            pass  # a function: see collect_functions
        case s.Chain(head=s.Name(text=text, span=span), trailers=(s.Args(),)):
            found = scope.find(text)
            if found is not None and found.kind != "tensor":
                run.report("E202", f"`{text}` has a meaning already and cannot name a function", span,
                           suggestion="another name")
            elif found is not None:
                run.report("E106", f"`{text}` is a tensor and cannot be defined as a function", span,
                           suggestion=f"`{text}_{{…}} ← …` writes into a tensor")
            elif loops:
                run.report("E106", "functions are defined outside of loops", span)
        case _:
            run.report("E106", "this cannot be assigned to", a.span, suggestion="a name, `R ← …`, or some of its "
                       "entries, `R_{i,:} ← …`")
            run.reader.expr(a.value, scope, place)


def _assign_several(run: Run, a: s.Assign, scope: Scope, out: list[t.Step], place: Place) -> None:
    """``U, Σ, Vᵀ ← svd(W)``."""
    names: list[str] = []
    for target in a.targets:
        match target:
            case s.Name(text=text):
                names.append(text)
            case s.Chain(head=s.Name(text=text), trailers=(s.Transposed(),)):
                names.append(text + "ᵀ")
            case _:
                run.report("E106", "several values are given to plain names", a.span,
                           suggestion="U, Σ, Vᵀ ← svd(W)")
                names.append("_")
    if len({key(n) for n in names}) != len(names):
        run.report("E205", "one name is there twice", a.span)
    if a.op != "←":
        run.report("E106", f"{a.op} changes one name", a.span)
    value = run.reader.expr(a.value, scope, place)
    match value:
        case t.Call(function="svd"):
            wanted = 3
        case t.Call(function="qr"):
            wanted = 2
        case _:
            wanted = 0
            run.report("E209", f"{len(names)} names take a value in parts: only svd and qr give one", a.span,
                       suggestion="one assignment for each name, separated by `;`")
    if wanted and wanted != len(names):
        parts = "U, Σ, Vᵀ ← svd(M)" if wanted == 3 else "Q, R ← qr(M)"
        run.report("E209", f"{wanted} values for {len(names)} names", a.span, suggestion=parts)
    elif wanted == 3 and _is_transposed_later(run, names[2]):
        run.report("E209", f"the third value of svd is the transpose already: `{names[2]}` is bound to Vᵀ, and "
                           f"the program reads `{names[2]}ᵀ`", a.span, suggestion="U, Σ, Vᵀ ← svd(M)")
    _let(run, tuple(names), value, a.span, a, scope, out)


def _is_transposed_later(run: Run, name: str) -> bool:
    """Whether ``Vᵀ`` is read where the name that is bound is ``V``."""
    return any(isinstance(x, s.Chain) and isinstance(x.head, s.Name) and key(x.head.text) == key(name)
               and isinstance(x.trailers[0], s.Transposed) for x in walk(tuple(run.body)))


def _assign_name(run: Run, text: str, span: Span, a: s.Assign, scope: Scope, out: list[t.Step], place: Place,
                 loops: tuple[s.For, ...]) -> None:
    """``R ← e``, or ``s_i ← e``, which defines s entry by entry."""
    if isinstance(a.value, s.Name) and a.value.text in ("learned", "frozen") and scope.find(a.value.text) is None:
        declared_in_place(run, text, span, a.value.text, scope, loops)
        return
    parts = split(text)
    if parts is not None and scope.find(text) is None and run.reader.entry(text, scope, "value") is None:
        base, sub = parts
        found = scope.find(sub)
        index = s.Name(sub, span)
        if found is not None and found.kind == "index":
            if not _is_local(run, text, base, loops):
                _write(run, base, (index,), a, scope, out, place)
                return
        elif found is None and len(sub) == 1 and sub.isalpha() and _mentions(a.value, sub):
            _write(run, base, (index,), a, scope, out, place)
            return
    _let(run, (text,), _right_side(run, a, text, scope, place), span, a, scope, out)


def _is_local(run: Run, text: str, base: str, loops: Sequence[s.For]) -> bool:
    """``Hᵢ ← …`` in a loop over i, with H in no other form anywhere: a name that lives for one iteration."""
    if not loops or base in ("y", "h"):  # what a site reads lives on
        return False

    def mentions(tree: object) -> list[str]:
        names = [n.text for n in walk(tree) if isinstance(n, s.Name)]
        return [n for n in names if n == base or (split(n) or ("",))[0] == base]

    everywhere, here = mentions(tuple(run.body)), mentions(loops[-1].body)
    return len(everywhere) == len(here) and all(key(n) == key(text) for n in here)


def _right_side(run: Run, a: s.Assign, name: str, scope: Scope, place: Place) -> t.Term:
    """The right side of ``name op value`` with ``+=`` and ``-=`` written out."""
    value = run.reader.expr(a.value, scope, place)
    if a.op == "←":
        return value
    if scope.find(name) is None:
        run.reader.undeclared(name, a.span, scope, place)
    return t.Arith("+" if a.op == "+=" else "-", t.Var(name, a.span), value, a.span)


def _let(run: Run, names: tuple[str, ...], value: t.Term, span: Span, a: s.Assign, scope: Scope,
         out: list[t.Step]) -> None:
    """Bind whole names."""
    shapes = _shapes_of(value, len(names), scope)
    for name, (family, item) in zip(names, shapes, strict=True):
        _refuse_fixed(run, name, span, scope)
        found = scope.find(name)
        if found is None or found.kind == "tensor":
            scope.bind(Entry(name, "tensor", span, family, item, None, bool(found and found.learned)))
        run.assigned[name] = run.clock
    out.append(t.Let(names, value, a.span))


def _refuse_fixed(run: Run, name: str, span: Span, scope: Scope) -> None:
    """E202 for assigning to a number, an index or ``I``."""
    found = scope.find(name)
    if found is None or found.kind == "tensor":
        return
    kinds = {"number": "a dimension or hyperparameter", "index": "the index of a loop"}
    what = kinds.get(found.kind, "a fixed name")
    run.report("E202", f"`{name}` is {what} and cannot be assigned to", span, suggestion="another name",
               related=[Related(found.span, "it gets its meaning here")] if found.span != s.NOWHERE else [])


def _shapes_of(value: t.Term, count: int, scope: Scope) -> list[
    tuple[tuple[t.Term, ...] | None, tuple[t.Term, ...] | None]
]:
    """The symbolic axes of what is bound: known for copies and for the parts of an svd or a qr."""
    match value:
        case t.Call(function="svd" | "qr" as function, args=(matrix,), kwargs=kwargs):
            family, item = axes_of(matrix, scope)
            if item is None or len(item) != 2:
                return [(family, None)] * count
            p, q = item
            rank = dict(kwargs).get("rank", t.Call("min", (p, q)))
            made = [(p, rank), (rank,), (rank, q)] if function == "svd" else [(p, rank), (rank, q)]
            return [(family, made[k] if k < len(made) else None) for k in range(count)]
        case _:
            return [axes_of(value, scope)] * count


def _write(run: Run, name: str, items: Sequence[s.Expr], a: s.Assign, scope: Scope, out: list[t.Step],
           place: Place) -> None:
    """``A_{i,:} ← e``; an index that is bound nowhere runs over the range that its uses in e imply."""
    span = a.span
    _refuse_fixed(run, name, span, scope)
    known = scope.find(name)
    free: list[str] = []
    for x in items:
        for n in walk(x) if not isinstance(x, s.Slice) else ():
            if isinstance(n, s.Name) and scope.find(n.text) is None and _mentions(a.value, n.text) \
                    and signature(n.text) is None and n.text not in free:
                free.append(n.text)
    inner = scope.inner()
    ranges: list[tuple[str, t.Term]] = []
    for index in free:
        size = range_of(run.reader, index, a.value, inner, place, span)
        size = size if size is not None else t.Var(f"|{index}|", span)
        inner.bind(Entry(index, "index", span, size=size))
        ranges.append((index, size))
    value = run.reader.expr(a.value, inner, place)
    if known is None and a.op != "←":
        run.reader.undeclared(name, span, scope, place)
    canonical_name = name if known is None else known.name
    step: t.Step = t.Write(canonical_name, run.reader.indices(items, inner), a.op, value, span)
    for index, size in reversed(ranges):
        step = t.Loop((index,), t.Call("range", (size,), (), span), (step,), span)
    out.append(step)
    run.assigned[canonical_name] = run.clock
    if known is None:
        item = (ranges[0][1],) if len(ranges) == 1 == len(items) else None
        scope.bind(Entry(name, "tensor", span, () if item else None, item))
    elif known.kind == "tensor":
        scope.bind(replace(known, span=span))


def _indexed(trailers: Sequence[s.Trailer]) -> bool:
    return bool(trailers) and all(isinstance(x, s.Indexed) for x in trailers)


def _items(trailers: Sequence[s.Trailer]) -> tuple[s.Expr, ...]:
    return tuple(item for x in trailers if isinstance(x, s.Indexed) for item in x.items)


def _mentions(value: s.Expr, letter: str) -> bool:
    """Whether a letter stands in an expression as a name or as the subscript of one."""
    for node in walk(value):
        if isinstance(node, s.Name) and (node.text == letter or (split(node.text) or ("", ""))[1] == letter):
            return True
    return False
