"""Functions that a program defines, and the prelude's: ``g(w) ← e``.

No function reaches itself, and none grows beyond a limit when all calls in it are written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files

from padp.compiler.names import terms as t
from padp.compiler.names.gathered import Run
from padp.compiler.names.scope import Entry, Scope, nowhere, walk
from padp.compiler.names.signatures import AFTER_BACKWARD_ONLY, signature
from padp.compiler.names.spaces import parameter_entry
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Related
from padp.dsl.parse import parse
from padp.dsl.source import Source

LONGEST_EXPANSION = 20_000  # terms of a function after all functions in it are written out


@lru_cache(maxsize=1)
def load_prelude() -> s.Program:
    """The functions that are written in the language itself."""
    text = files("padp.stdlib").joinpath("prelude.padp").read_text(encoding="utf-8")
    return parse(Source.of(text, "prelude.padp"))


def collect_functions(run: Run, scope: Scope) -> None:
    """Definitions ``g(w) ← e``, the program's before the prelude's."""
    for statement in run.body:
        if not isinstance(statement, s.Assign) or len(statement.targets) != 1:
            continue
        match statement.targets[0]:
            case s.Chain(head=s.Name(text=name, span=span), trailers=(s.Args(args=args, kwargs=()),)) if (
                scope.find(name) is None
            ):
                names = tuple(a.text for a in args if isinstance(a, s.Name))
                if signature(name) is not None:
                    run.report("E205", f"`{name}` is a function of the language", span, suggestion="another name")
                elif name in run.definitions:
                    run.report("E205", f"the function {name} is defined twice", span,
                               related=[Related(run.definitions[name][2], "first here")])
                elif len(names) != len(args) or len(set(names)) != len(names) or not names:
                    run.report("E106", f"the parameters of {name} are different names", span,
                               suggestion=f"{name}(u, v) ← …")
                elif statement.op != "←":
                    run.report("E106", f"a function is defined with ←, not {statement.op}", span)
                else:
                    run.definitions[name] = (names, statement.value, span, False)
            case _:
                pass
    for statement in run.prelude.body:
        match statement:
            case s.Assign(targets=(s.Chain(head=s.Name(text=name), trailers=(s.Args(args=args),)),), value=value):
                names = tuple(a.text for a in args if isinstance(a, s.Name))
                run.definitions.setdefault(name, (names, value, s.NOWHERE, True))
            case _:
                pass
    run.reader.functions = {name: len(d[0]) for name, d in run.definitions.items()}
    _refuse_recursion(run)
    run.reader.training = _training_functions(run)


def _callees(run: Run, name: str) -> list[str]:
    """The functions that a function calls."""
    parameters, body, _, _ = run.definitions[name]
    return [n.text for n in walk(body) if isinstance(n, s.Name)
            and n.text in run.definitions and n.text not in parameters]


def _refuse_recursion(run: Run) -> None:
    """No function reaches itself, and none grows beyond a limit when all calls in it are written out."""
    size: dict[str, int] = {}
    open_: list[str] = []
    circles: set[str] = set()

    def visit(name: str) -> int:
        if name in open_:
            run.report("E106", f"the function {name} calls itself ({' → '.join([*open_, name])})",
                       run.definitions[name][2], once=name, suggestion="write a loop")
            circles.add(name)
            return 0
        if name not in size:
            open_.append(name)
            total = sum(1 for _ in walk(run.definitions[name][1]))
            for callee in _callees(run, name):
                total = min(total + visit(callee), LONGEST_EXPANSION + 1)
            open_.pop()
            size.setdefault(name, total)
        return size[name]

    for name in list(run.definitions):
        if visit(name) > LONGEST_EXPANSION:
            run.report("E105", f"the function {name} is too large when the functions in it are written out",
                       run.definitions[name][2], once=name)
    for name in circles:  # broken here, so that nobody goes around for ever
        names, _, span, from_prelude = run.definitions[name]
        run.definitions[name] = (names, s.Name(names[0], span), span, from_prelude)


def _training_functions(run: Run) -> set[str]:
    """Functions that read a gradient or keep a state, directly or through another."""
    found = {
        name
        for name, (_, body, _, _) in run.definitions.items()
        if any((isinstance(n, s.Unary) and n.op == "∇") or (isinstance(n, s.Name) and n.text in AFTER_BACKWARD_ONLY)
               for n in walk(body))
    }
    while True:
        more = {n for n in run.definitions if n not in found and found & set(_callees(run, n))}
        if not more:
            return found
        found |= more


def used_functions(run: Run, scope: Scope, steps: Sequence[t.Step]) -> tuple[t.Function, ...]:
    """The functions that are used, those they use included, each after what it calls."""
    made: dict[str, t.Function] = {}
    for p in run.parameters:
        if not p.name.endswith("(the tensor)"):
            scope.bind(parameter_entry(p))
    for name, (names, body, span, from_prelude) in run.definitions.items():
        inner = scope.inner() if not from_prelude else Scope()
        if from_prelude:
            for constant in ("I", "π"):
                inner.bind(Entry(constant, "constant", s.NOWHERE))
        for parameter in names:
            inner.bind(Entry(parameter, "tensor", span, learned=True))
        term = run.reader.expr(body, inner, "function")
        made[name] = t.Function(name, names, nowhere(term) if from_prelude else term, span)
    wanted: dict[str, t.Function] = {}
    seen: set[str] = set()

    def use(tree: object) -> None:
        for node in walk(tree):
            if isinstance(node, t.Call) and node.function in made and node.function not in seen:
                seen.add(node.function)
                use(made[node.function].body)
                wanted[node.function] = made[node.function]

    use((tuple(steps), tuple(run.minimise), tuple(run.updates), tuple(run.parameters)))
    return tuple(wanted.values())


def only_functions(run: Run) -> bool:
    """A file without header that defines functions and nothing else, such as the prelude: it has no output."""
    said = [x for x in run.body if not isinstance(x, s.Remark)]
    own = {name for name, (_, _, _, from_prelude) in run.definitions.items() if not from_prelude}
    return run.program.header is None and bool(said) and all(
        isinstance(x, s.Assign) and any(n in own for n in _defined(x)) for x in said)


def _defined(a: s.Assign) -> list[str]:
    """The name that ``g(w) ← e`` defines."""
    match a.targets:
        case (s.Chain(head=s.Name(text=name), trailers=(s.Args(),)),):
            return [name]
        case _:
            return []
