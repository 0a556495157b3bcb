"""What is allowed and yet probably not meant: W301 to W309, and the identity at the start.

    flow_lints(method)       on the statements: values and parameters that nothing reads, names that hide others
    function_lints(body)     functions that nothing calls
    value_lints(typed)       on the typed program: gradients, redundant parameters, cancelling terms, axes
    start_lints(typed)       whether a fresh adapter changes nothing
    letter_lints(source)     on the text

Every lint is a general rule; none knows an adapter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice, pairwise
from typing import Any

from padp.compiler.algebra import norm_axis
from padp.compiler.build import is_zero
from padp.compiler.calls import builtin_names
from padp.compiler.dims import same, show
from padp.compiler.formulas import formula
from padp.compiler.ir import Node, walk
from padp.compiler.names import OPTIONS
from padp.compiler.properties import Facts
from padp.compiler.scope import walk as walk_terms
from padp.compiler.starts import Starts
from padp.compiler.state import Elaborated
from padp.compiler.stuck import stuck
from padp.compiler.terms import Call, Let, Loop, Method, Step, Var, Write
from padp.dsl import syntax
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.limits import MAX_TERMS
from padp.dsl.source import Source, Span
from padp.dsl.spellings import look_alikes

# ---------------------------------------------------------------- W309: letters


def letter_lints(source: Source) -> list[Diagnostic]:
    """W309: letters that were read as another one, each once."""
    found: dict[str, Diagnostic] = {}
    for at, glyph, usual in look_alikes(source.text):
        found.setdefault(glyph, Diagnostic(
            "W309", f"`{glyph}` (U+{ord(glyph):04X}) is read as `{usual}` (U+{ord(usual):04X})", Span(at, at + 1),
            source, suggestion=f"`{usual}`"))
    return list(found.values())


# ---------------------------------------------------------------- W301, W302, W306: names


@dataclass
class _Binding:
    names: tuple[str, ...]
    span: Span
    used: bool = False
    group: list[_Binding] = field(default_factory=list["_Binding"])


def flow_lints(method: Method, sound: bool = True) -> list[Diagnostic]:
    """W301, W302 and W306 of one variant. ``sound``: only then is every read of a name known."""
    return [*_unused_values(method), *([*_unused_parameters(method), *_unused_numbers(method)] if sound else []),
            *_shadowed(method)]


def _reads(method: Method, tree: object) -> set[str]:
    """Keys of the names that a term or a step reads, those in functions and in declared spaces included."""
    functions = {f.name: f for f in method.functions}
    over = {p.name: p.space.index for p in method.parameters if p.space.index}
    found: set[str] = set()
    for node in walk_terms(tree):
        if isinstance(node, Var):
            found.add(node.name)
            if node.name in over:
                found.add(over[node.name])
        elif isinstance(node, Call) and node.function in functions:
            found |= _reads(method, functions[node.function].body)
    return found


def _unused_values(method: Method) -> list[Diagnostic]:
    """W301: a value that no later statement reads."""
    flow = _Flow(method)
    flow.block(method.body)
    last = flow.live.get(method.output)
    if last is not None:
        for b in last:
            b.used = True
    for term in (*method.minimise, *(p.init for p in method.parameters), *(p.space for p in method.parameters)):
        flow.read(_reads(method, term))
    flow.read(_reads(method, method.options))
    learned = {p.name for p in method.parameters}
    flow.block(method.updates)
    for name in learned & set(flow.live):  # an update of a parameter is its own purpose
        for b in flow.live[name]:
            b.used = True
    found: list[Diagnostic] = []
    for binding in flow.bindings:
        if not binding.used:
            found.append(_unused(method, binding))
    return found


def function_lints(body: Sequence[syntax.Statement], method: Method) -> list[Diagnostic]:
    """W301: a function that nothing calls. A file that has no output is there to be called from."""
    if method.output not in _reads(method, method.body) | _bound(method.body):
        return []
    used = {f.name for f in method.functions}
    found: list[Diagnostic] = []
    for statement in body:
        match statement:
            case syntax.Assign(targets=(syntax.Chain(head=syntax.Name(text=name), trailers=(syntax.Args(),)),)) if (
                name not in used
            ):
                found.append(Diagnostic("W301", f"the function `{name}` is never used", statement.span, method.source,
                                        suggestion="use it, or leave the line out"))
            case _:
                pass
    return found


def _bound(steps: Sequence[Step]) -> set[str]:
    return {name for x in walk_terms(tuple(steps)) for name in getattr(x, "names", ())}


class _Flow:
    """Reads and bindings in order. ``live``: for every name the bindings that its next read may see."""

    def __init__(self, method: Method) -> None:
        self.method = method
        self.bindings: list[_Binding] = []
        self.live: dict[str, list[_Binding]] = {}

    def read(self, names: set[str]) -> None:
        for name in names:
            for b in self.live.get(name, ()):
                b.used = True

    def block(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Let(names=names, value=value, span=span):
                    self.read(_reads(self.method, value))
                    binding = _Binding(names, span)
                    self.bindings.append(binding)
                    for name in names:
                        self.live[name] = [binding]
                case Write(name=name, items=items, value=value, span=span):
                    self.read(_reads(self.method, (items, value)))
                    binding = _Binding((name,), span)
                    self.bindings.append(binding)
                    self.live[name] = [*self.live.get(name, ()), binding]  # the rest of the old value lives on
                case Loop(domain=domain, body=body):
                    self.read(_reads(self.method, domain))
                    before = {n: list(b) for n, b in self.live.items()}
                    self.block(body)
                    self.again(body, set())
                    for name, b in before.items():  # a loop may also run no step
                        self.live[name] = list({id(x): x for x in (*b, *self.live.get(name, ()))}.values())

    def again(self, body: Sequence[Step], bound: set[str]) -> None:
        """What the next turn of a loop reads before binding it."""
        for step in body:
            match step:
                case Let(names=names, value=value):
                    self.read(_reads(self.method, value) - bound)
                    bound.update(names)
                case Write(items=items, value=value):
                    self.read(_reads(self.method, (items, value)) - bound)
                case Loop(domain=domain, body=inner):
                    self.read(_reads(self.method, domain) - bound)
                    self.again(inner, bound)


def _unused(method: Method, binding: _Binding) -> Diagnostic:
    names = ", ".join(binding.names)
    verb = "is" if len(binding.names) == 1 else "are"
    if binding.names == (method.output,):
        return Diagnostic("W301", f"this value of `{names}` is never used: it is assigned again", binding.span,
                          method.source, suggestion="variants, where both are meant")
    if len(binding.names) == 1:
        for name in _unprimed(binding.names[0]):
            use = _use_of(method, name, binding.span)
            if use is not None:
                return Diagnostic("W301", f"`{names}` is never used; `{name}` is used instead", binding.span,
                                  method.source, (Related(use, f"`{name}` is read here"),), (),
                                  f"`{names}` in the place of `{name}`")
    return Diagnostic("W301", f"`{names}` {verb} never used", binding.span, method.source,
                      suggestion=f"use {'it' if verb == 'is' else 'them'}, or leave the line out")


_MARK = re.compile("[\u0300-\u036f]")


def _unprimed(name: str) -> Iterator[str]:
    """The names that a changed one comes from: S' from S, V̂ from V, V̂ᵀ from Vᵀ."""
    import unicodedata

    stem = name.rstrip("'")
    if stem != name:
        yield stem
    plain = unicodedata.normalize("NFC", _MARK.sub("", unicodedata.normalize("NFD", name)))
    if plain not in (name, stem):
        yield plain


def _use_of(method: Method, name: str, around: Span) -> Span | None:
    """Where a name is read, outside of one statement."""
    spans = [n.span for n in walk_terms((method.body, method.minimise)) if isinstance(n, Var) and n.name == name
             and not around.start <= n.span.start < around.end]
    return min(spans, key=lambda x: x.start) if spans else None


def _unused_parameters(method: Method) -> list[Diagnostic]:
    """W302: a declared tensor that occurs nowhere."""
    read = _reads(method, (method.body, method.minimise, method.updates, method.options))
    written = {x.name for x in walk_terms((method.body, method.updates)) if isinstance(x, Write)}
    inits = {name for p in method.parameters for name in _reads(method, (p.init, p.space)) if name != p.name}
    found: list[Diagnostic] = []
    for p in method.parameters:
        if p.name not in read | inits | written and method.source.slice(p.span):
            found.append(Diagnostic("W302", f"`{p.name}` is declared and never used", p.span, method.source,
                                    suggestion=f"use it, or leave its declaration out{_near(p.name, read)}"))
    return found


def _unused_numbers(method: Method) -> list[Diagnostic]:
    """W302: a hyperparameter that occurs nowhere; those that the site reads by their names are its own."""
    read = _reads(method, (method.body, method.minimise, method.updates, method.options, method.relations,
                           method.parameters, tuple(h.default for h in method.hyper)))
    return [Diagnostic("W302", f"`{h.name}` is a hyperparameter and never used", h.span, method.source,
                       suggestion=f"use it, or leave it out{_near(h.name, read)}")
            for h in method.hyper if h.name not in read | set(OPTIONS[method.site])]


def _near(name: str, read: set[str]) -> str:
    from padp.compiler.scope import nearest

    close = nearest(name, read)
    return f" (there is {close[0]})" if close else ""


def _shadowed(method: Method) -> list[Diagnostic]:
    """W306: a statement, an index or a function's parameter that takes a name with a meaning."""
    functions = set(builtin_names())
    site = {x.name: x.span for x in method.bound}
    declared = {p.name: p.span for p in method.parameters}
    found: list[Diagnostic] = []

    def check(name: str, span: Span, what: str, allowed: bool = False) -> None:
        meaning = "a function of the language" if name in functions else "given by the site" if name in site else \
            "a declared tensor" if name in declared else None
        if meaning is None or allowed:
            return
        where = site.get(name) or declared.get(name)
        related = (Related(where, "its other meaning"),) if where is not None and where.end and where != span else ()
        found.append(Diagnostic("W306", f"{what} takes the name `{name}`, which is {meaning}", span, method.source,
                                related, (), f"another name, `{name}'`"))

    def visit(steps: Sequence[Step], updates: bool) -> None:
        for step in steps:
            match step:
                case Let(names=names, span=span):
                    for name in names:
                        check(name, span, "this statement", name == method.output or (updates and name in declared))
                case Write(name=name, span=span):
                    check(name, span, "this statement", name == method.output or (updates and name in declared))
                case Loop(variables=variables, body=body, span=span):
                    for name in variables:  # a name of the site or of a tensor is E202
                        check(name, span, "this loop", name not in functions)
                    visit(body, updates)

    visit(method.body, False)
    visit(method.updates, True)
    for p in method.parameters:
        if p.name in functions:
            check(p.name, p.span, "this declaration")
    for f in method.functions:
        for name in f.parameters:
            if method.source.slice(f.span):
                check(name, f.span, f"the parameter of {f.name}")
    return found


# ---------------------------------------------------------------- W303, W304, W307, W308: values


_WITHOUT_DERIVATIVE = frozenset({"detach", "topk", "argtop", "largest"})


def value_lints(typed: Elaborated, sound: bool) -> list[Diagnostic]:
    """W303 (where the program is ``sound``), W304, W307 and W308 of one typed program."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    roots += [] if sound else [node for _, node, _ in typed.history]
    return [*(_without_gradient(typed) if sound else []), *_redundant(typed), *_cancelling(typed, roots),
            *_other_axis(typed, roots)]


def _without_gradient(typed: Elaborated) -> list[Diagnostic]:
    """W303: a learned tensor that reaches the output only where no gradient passes."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    present = {str(n.attrs[0]) for n in walk(*roots) if n.op == "param"}
    seen: set[int] = set()
    moved: set[str] = set()
    stack = list(roots)
    while stack:
        node = stack.pop()
        if id(node) in seen or node.op in _WITHOUT_DERIVATIVE or (node.op == "point" and node.attrs[:1] == ("sign",)):
            continue
        if node.op == "scale" and is_zero(node.args[0]):
            continue
        seen.add(id(node))
        if node.op == "param":
            moved.add(str(node.attrs[0]))
        stack.extend(node.args)
    read = _reads(typed.method, (typed.method.body, typed.method.minimise, typed.method.updates,
                                 tuple(q.init for q in typed.method.parameters)))
    found: list[Diagnostic] = []
    for name, p in typed.parameters.items():
        if p.declaration.role == "learned" and name not in moved and name in read:
            why = "it reaches the output only through detach, a factor 0 or what has no derivative" if name in present \
                else "it does not reach the output"
            found.append(Diagnostic("W303", f"`{name}` gets no gradient: {why}", p.declaration.span,
                                    typed.method.source, suggestion="frozen, if that is meant"))
    said = {d.message.split("`")[1] for d in found}
    still = [name for name in stuck(typed) if name not in said]
    for name in still:
        other = ", ".join(f"`{n}`" for n in still if n != name)
        why = f"where it stands it is multiplied by {other}, which is 0 as well" if other \
            else "there the derivative of what it is part of is 0"
        found.append(Diagnostic("W303", f"`{name}` gets no gradient: it starts at 0, and {why}",
                                typed.parameters[name].declaration.span, typed.method.source,
                                suggestion="let one of them start elsewhere, init = kaiming or init = 1"))
    return found


def _factors(node: Node) -> list[tuple[str, Node]]:
    """A product as what acts one after the other: ('number', s), ('diagonal', v) or ('matrix', M)."""
    if node.type.kind == "unknown":
        return [("matrix", node)]
    match node.op:
        case "prod":
            return [f for a in node.args for f in _factors(a)]
        case "scale":
            return [("number", node.args[0]), *_factors(node.args[1])]
        case "mul" if node.type.rank == 0:
            return [f for a in node.args for f in _factors(a)]
        case "mul" if node.type.rank == 1:
            first, second = node.args
            if _moves(first) and not _moves(second):
                first, second = second, first
            return [*(_factors(first) if first.op == "mul" else [("diagonal", first)]), *_factors(second)]
        case "diag":
            return [("diagonal", x) for x in _entries(node.args[0])]
        case "param" if node.type.rank < 2:
            return [("number" if node.type.rank == 0 else "diagonal", node)]
        case _:
            return [("matrix", node)]


def _entries(v: Node) -> list[Node]:
    """A vector as a product entry by entry."""
    return [x for a in v.args for x in _entries(a)] if v.op == "mul" and v.type.rank == 1 else [v]


def _moves(node: Node) -> bool:
    return any(n.op == "input" for n in walk(node))


def _redundant(typed: Elaborated) -> list[Diagnostic]:
    """W304: two learned diagonals or numbers that stand together in one product and nowhere else, or two learned
    tensors of one shape that do in one sum."""
    roots = [typed.output] + ([typed.penalty] if typed.penalty is not None else [])
    parents: dict[int, set[int]] = {}
    nodes = list(walk(*roots))
    for node in nodes:
        for a in node.args:
            parents.setdefault(id(a), set()).add(id(node))
    learned = {id(p.node): (name, p) for name, p in typed.parameters.items() if p.declaration.role == "learned"}
    found: list[Diagnostic] = []
    told: set[tuple[str, str]] = set()
    for node in nodes:
        for a, c, what, remedy in _together(node, learned):
            one, other = learned.get(id(a)), learned.get(id(c))
            if one is None or other is None or one[0] == other[0] or (one[0], other[0]) in told:
                continue
            if a.type.family != c.type.family or any(_used_twice(x, parents) for x in (a, c)):
                continue
            told |= {(one[0], other[0]), (other[0], one[0])}
            found.append(Diagnostic(
                "W304", f"`{one[0]}` and `{other[0]}` are redundant: they act as one, {what}", node.span,
                typed.method.source, (Related(one[1].declaration.span, f"`{one[0]}`"),
                                      Related(other[1].declaration.span, f"`{other[0]}`")), (), remedy))
    return found


def _together(node: Node, learned: Collection[int]) -> Iterator[tuple[Node, Node, str, str]]:
    """Pairs that a sum or a product holds as one: what they act as, and a remedy. Of sums, ``learned`` terms only."""
    if node.op == "add":
        terms = [t for _, t in _sum_terms(node) if id(t) in learned]
        yield from ((a, c, "their sum", "leave one out, or let it stand elsewhere") for a, c in pairwise(terms))
    elif node.op in ("prod", "scale", "mul"):
        factors = _factors(node)
        numbers = [f for kind, f in factors if kind == "number"]
        rest = [(kind, f) for kind, f in factors if kind != "number"]
        for a, c in pairwise(numbers):
            yield a, c, "their product (numbers)", "leave one out"
        for (kind, a), (other, c) in pairwise(rest):
            if kind == other == "diagonal" and same(a.type.item[0], c.type.item[0]):
                yield (a, c, f"their product (vectors of {show(a.type.item[0])} entries, on the same index)",
                       "leave one out, or let it scale another axis")
        for a in numbers:
            yield from ((a, c, "their product (a number and a vector that it scales)", "leave the number out")
                        for kind, c in rest if kind == "diagonal")


def _used_twice(leaf: Node, parents: Mapping[int, set[int]]) -> bool:
    """Whether a tensor is used at more than one place."""
    return len(parents.get(id(leaf), ())) > 1


def _names_before(typed: Elaborated, span: Span) -> dict[int, str]:
    """Nodes by the names that they have before a statement."""
    names: dict[int, str] = {}
    for name in {x.name for x in typed.method.bound} | set(typed.parameters):
        if name in typed.names:
            names.setdefault(id(typed.names[name]), name)
    for name, node, where in typed.history:
        if where.start < span.start and node.op not in ("const", "full", "eye"):
            names[id(node)] = name
    return names


def _sum_terms(node: Node) -> list[tuple[Any, Node]]:
    """A sum as numbers times terms, through sums of unknown shape too; [] for one of too many terms."""
    terms = list(islice(_terms(node), MAX_TERMS + 1))
    return terms if len(terms) <= MAX_TERMS else []


def _terms(node: Node, factor: Any = 1) -> Iterator[tuple[Any, Node]]:
    if node.op == "assumed" and node.args[0].op == "add":
        yield from _terms(node.args[0], factor)
    elif node.op == "add":
        for a in node.args:
            yield from _terms(a, factor)
    elif node.op == "scale" and node.args[0].op == "const":
        yield from _terms(node.args[1], factor * node.args[0].attrs[0])
    else:
        yield factor, node


def _cancelling(typed: Elaborated, roots: Sequence[Node]) -> list[Diagnostic]:
    """W307: a sum that holds a term and its negative."""
    found: list[Diagnostic] = []
    inner: set[int] = set()  # sums inside sums speak once, as the outer one
    told: set[int] = set()
    facts = Facts(typed.graph)
    for node in reversed(list(walk(*roots))):
        if node.op != "add" or id(node) in inner:
            continue
        _mark_inner(node, inner)
        gone = _opposite(node, lambda term: (1, term)) or _opposite(node, lambda term: _numbered(facts, term))
        if not gone or any(id(t[-1]) in told for t in gone):
            continue
        told |= {id(t) for group in gone for t in group}
        found.append(_cancelled(typed, node, [t[-1] for t in gone], {id(t) for group in gone for t in group}))
    return found


def _opposite(node: Node, read: Callable[[Node], tuple[Any, Node]]) -> list[list[Node]]:
    """Groups of equal terms of a sum whose numbers add up to 0; ``read`` takes a term as a number times its core."""
    weights: dict[int, Any] = {}
    terms: dict[int, list[Node]] = {}
    for factor, term in _sum_terms(node):
        number, core = read(term)
        weights[id(core)] = weights.get(id(core), 0) + factor * number
        terms.setdefault(id(core), []).append(term)
    return [group for k, group in terms.items()
            if weights[k] == 0 and len(group) > 1 and group[0].op not in ("const", "full")]


def _numbered(facts: Facts, term: Node) -> tuple[Any, Node]:
    """A term as a number times what is one node for equal terms: (2 B) A and B A are 2 and 1 times B A."""
    normal = term if term.type.kind == "unknown" else facts.normal(term)
    if normal.op == "scale" and normal.args[0].op == "const":
        return normal.args[0].attrs[0], normal.args[1]
    return 1, normal


def _mark_inner(node: Node, inner: set[int]) -> None:
    for a in node.args:
        while a.op in ("assumed", "scale") and a.args:
            if a.op == "scale" and a.args[0].op != "const":
                break
            a = a.args[-1]
        if a.op == "add" and id(a) not in inner:
            inner.add(id(a))
            _mark_inner(a, inner)


def _cancelled(typed: Elaborated, node: Node, gone: Sequence[Node], dead: set[int]) -> Diagnostic:
    """The finding, with what is left of the statement in which the terms meet."""
    span, name, whole = node.span, None, node
    for n, value, where in typed.history:
        if where.start <= node.span.start and node.span.end <= where.end:
            span, name, whole = where, n, value
            break
    names = _names_before(typed, span)
    names = {k: v for k, v in names.items() if not _holds(k, node)}
    left = _rest(typed, whole, node, dead)
    what = ", ".join(f"`{formula(t, {k: v for k, v in names.items() if k not in dead})}`" for t in gone)
    text = formula(left, names)
    said = f"; what is left is {name} = {text}" if name is not None else f"; what is left is {text}"
    return Diagnostic("W307", f"{what} cancel{'s' if len(gone) == 1 else ''} in this sum{said}", node.span,
                      typed.method.source,
                      suggestion="another tensor in one of the two places, if the difference is meant")


def _holds(number: int, node: Node) -> bool:
    """Whether the named value is a part of the sum that is to be written out."""
    parts: set[int] = set()

    def visit(n: Node) -> None:
        parts.add(id(n))
        if n.op in ("add", "assumed") or (n.op == "scale" and n.args[0].op == "const"):
            for a in n.args:
                if a.op in ("add", "assumed", "scale"):
                    visit(a)

    visit(node)
    return number in parts


def _rest(typed: Elaborated, whole: Node, node: Node, dead: set[int]) -> Node:
    """``whole`` with the sum ``node`` written without the terms that cancel."""
    g = typed.graph
    made: dict[int, Node] = {}
    for n in walk(whole):
        if n is node:
            kept = [t if f == 1 else g.node("scale", (g.const(f), t), (), t.type)
                    for f, t in _sum_terms(n) if id(t) not in dead]
            made[id(n)] = kept[0] if len(kept) == 1 else g.node("add", tuple(kept), (), n.type) if kept else \
                g.node("full", (), (0,), n.type)
        else:
            args = tuple(made[id(a)] for a in n.args)
            made[id(n)] = n if args == n.args else g.node(n.op, args, n.attrs, n.type)
    return made[id(whole)]


def _other_axis(typed: Elaborated, roots: Sequence[Node]) -> list[Diagnostic]:
    """W308: M / ‖M‖ along one axis, and a scale along the other."""
    found: list[Diagnostic] = []
    told: set[int] = set()
    for node in reversed(list(walk(*roots))):
        if node.op not in ("prod", "mul"):
            continue
        factors = _factors(node)
        for k, (kind, m) in enumerate(factors):
            if kind != "matrix":
                continue
            left = _diagonals(factors[:k][::-1])
            right = _diagonals(factors[k + 1:])
            for axis, own, across in (("row", left, right), ("col", right, left)):
                norm = next((v for v in own if _divides_by(v) == axis), None)
                if norm is None or id(m) in told:
                    continue
                along = [v for v in own if _divides_by(v) is None]
                scales = [v for v in across if _divides_by(v) is None and not _moves(v)]
                if scales and not along:
                    told.add(id(m))
                    found.append(_wrong_axis(typed, node, m, scales[0], axis))
    return found


def _diagonals(factors: Sequence[tuple[str, Node]]) -> list[Node]:
    """The diagonals that come first."""
    out: list[Node] = []
    for kind, f in factors:
        if kind == "diagonal":
            out.append(f)
        elif kind != "number":
            break
    return out


def _divides_by(v: Node) -> str | None:
    """'row' or 'col' when v is one over the norms of that axis."""
    while v.op in ("detach", "lying"):
        v = v.args[0]
    return norm_axis(v.args[1]) if v.op == "div" and v.args[0].op == "const" else None


def _wrong_axis(typed: Elaborated, node: Node, m: Node, scale: Node, axis: str) -> Diagnostic:
    names = _names_before(typed, node.span)
    name, by = formula(m, names), formula(scale, names).removesuffix(" (the tensor)")
    one, other, sub = ("column", "row", "_row") if axis == "col" else ("row", "column", "_col")
    return Diagnostic(
        "W308", f"`{name}` is divided by the norms of its {one}s and then `{by}` scales its {other}s: `{by}` is not "
        "the magnitude that was taken out", node.span, typed.method.source, (), (),
        f"‖{name}‖{sub}, if `{by}` is to be the magnitude of each {other}")


# ---------------------------------------------------------------- W305: the start


_NOT_IDENTITY = re.compile(r"\bnot\s+(?:be\s+)?the\s+identity\b", re.IGNORECASE)


def start_lints(typed: Elaborated, comments: str) -> list[Diagnostic]:
    """W305 where a fresh adapter provably changes the layer, N401 where it is not proved that it does not.

    ``comments``: those of the program; one that says "not the identity" settles it.
    """
    if _NOT_IDENTITY.search(comments) or typed.output.op == "missing":
        return []
    verdict = Starts(typed).identity()
    if verdict.holds is True:
        return []
    name = typed.method.output
    span = next((where for n, _, where in reversed(typed.history) if n == name), typed.method.span)
    if verdict.holds is False:
        return [Diagnostic("W305", f"a fresh adapter is not the identity: it starts as {name} = {verdict.text}", span,
                           typed.method.source,
                           suggestion="other starts, or a comment that says it: # not the identity at init: …")]
    return [Diagnostic("N401", "no rule proves that a fresh adapter is the identity", span, typed.method.source,
                       suggestion="padp check --numerics tests it")]

