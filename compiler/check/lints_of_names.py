"""Lints on statements: values and tensors that nothing reads (W301, W302), names that hide others (W306).

    flow_lints(method)                  one variant
    function_lints(body, method)        functions that nothing calls
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from padp.compiler.names.glued import apart
from padp.compiler.names.header import OPTIONS
from padp.compiler.names.scope import nearest
from padp.compiler.names.scope import walk as walk_terms
from padp.compiler.names.signatures import builtin_names
from padp.compiler.names.terms import Call, Let, Loop, Method, Step, Var, Write
from padp.dsl import syntax
from padp.dsl.diagnostics import Diagnostic, Related
from padp.dsl.source import Span

# ---------------------------------------------------------------- W301: values and functions


@dataclass
class _Binding:
    names: tuple[str, ...]
    span: Span
    used: bool = False


def flow_lints(method: Method, sound: bool = True) -> list[Diagnostic]:
    """W301, W302 and W306 of one variant. ``sound``: only then is every read of a name known."""
    return [*_unused_values(method), *([*_unused_parameters(method), *_unused_numbers(method)] if sound else []),
            *_shadowed(method)]


def reads(method: Method, tree: object) -> set[str]:
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
            found |= reads(method, functions[node.function].body)
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
        flow.read(reads(method, term))
    flow.read(reads(method, method.options))
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
    if method.output not in reads(method, method.body) | _bound(method.body):
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
        self.given = {h.name for h in method.hyper} | {x.name for x in method.bound}
        self.given |= {p.name for p in method.parameters}

    def read(self, names: set[str]) -> None:
        for whole in names:
            inside = () if self.bound(whole) else apart(whole, self.bound) or ()
            for name in (whole, *inside):  # ``ΔWx``, which has been refused, reads ΔW
                for b in self.live.get(name, ()):
                    b.used = True

    def bound(self, name: str) -> bool:
        """Whether this is a name of the program here."""
        return name in self.live or name in self.given

    def block(self, steps: Sequence[Step]) -> None:
        for step in steps:
            match step:
                case Let(names=names, value=value, span=span):
                    self.read(reads(self.method, value))
                    binding = _Binding(names, span)
                    self.bindings.append(binding)
                    for name in names:
                        self.live[name] = [binding]
                case Write(name=name, items=items, value=value, span=span):
                    self.read(reads(self.method, (items, value)))
                    binding = _Binding((name,), span)
                    self.bindings.append(binding)
                    self.live[name] = [*self.live.get(name, ()), binding]  # the rest of the old value lives on
                case Loop(domain=domain, body=body):
                    self.read(reads(self.method, domain))
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
                    self.read(reads(self.method, value) - bound)
                    bound.update(names)
                case Write(items=items, value=value):
                    self.read(reads(self.method, (items, value)) - bound)
                case Loop(domain=domain, body=inner):
                    self.read(reads(self.method, domain) - bound)
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
    entry = _entry_of(method, binding)
    if entry is not None:
        base, index = entry
        return Diagnostic("W301", f"`{names}` is never used: it is a name of its own, not an entry of `{base}`",
                          binding.span, method.source, suggestion=f"{base}[{index}] ← …, which writes an entry")
    return Diagnostic("W301", f"`{names}` {verb} never used", binding.span, method.source,
                      suggestion=f"use {'it' if verb == 'is' else 'them'}, or leave the line out")


def _entry_of(method: Method, binding: _Binding) -> tuple[str, str] | None:
    """(e, 0) for a name ``e_0`` where ``e`` is a value above it: as a paper would write an entry."""
    made = re.fullmatch("(.+?)([₀-₉]+)", binding.names[0]) if len(binding.names) == 1 else None
    above = {name for s in method.body if isinstance(s, Let) and s.value.span.start < binding.span.start
             for name in s.names}
    return (made[1], str(int(made[2].translate(_DIGITS)))) if made is not None and made[1] in above else None


_DIGITS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
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


# ---------------------------------------------------------------- W302: tensors and hyperparameters


def _unused_parameters(method: Method) -> list[Diagnostic]:
    """W302: a declared tensor that occurs nowhere."""
    read = reads(method, (method.body, method.minimise, method.updates, method.options))
    written = {x.name for x in walk_terms((method.body, method.updates)) if isinstance(x, Write)}
    inits = {name for p in method.parameters for name in reads(method, (p.init, p.space)) if name != p.name}
    found: list[Diagnostic] = []
    for p in method.parameters:
        if p.name not in read | inits | written and method.source.slice(p.span):
            found.append(Diagnostic("W302", f"`{p.name}` is declared and never used", p.span, method.source,
                                    suggestion=f"use it, or leave its declaration out{_near(p.name, read)}"))
    return found


def _unused_numbers(method: Method) -> list[Diagnostic]:
    """W302: a hyperparameter that occurs nowhere; those that the site reads by their names are its own."""
    read = reads(method, (method.body, method.minimise, method.updates, method.options, method.relations,
                          method.parameters, tuple(h.default for h in method.hyper)))
    return [Diagnostic("W302", f"`{h.name}` is a hyperparameter and never used", h.span, method.source,
                       suggestion=f"use it, or leave it out{_near(h.name, read)}")
            for h in method.hyper if h.name not in read | set(OPTIONS[method.site])]


def nothing_learned(method: Method) -> list[Diagnostic]:
    """W310: a program without a learned tensor."""
    if any(p.role == "learned" for p in method.parameters):
        return []
    return [Diagnostic("W310", "nothing is learned: no tensor is declared `learned`, so training changes nothing",
                       method.span, method.source, suggestion="λ ∈ ℝ^m: learned, init = …")]


def _near(name: str, read: set[str]) -> str:
    close = nearest(name, read)
    return f" (there is {close[0]})" if close else ""


# ---------------------------------------------------------------- W306: names that hide others


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
