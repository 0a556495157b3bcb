"""Syntax tree → resolved program: every name gets its meaning, one variant is chosen.

    resolve(program, source, variant) -> Method             raises PadpError with all findings
    resolve_leniently(program, source, variant) -> (Method, findings)

Both read in the same way. A name that is declared nowhere is reported and stays a ``Var``; when a comment of the
program gives its shape it becomes a parameter by hypothesis, so that shapes can be checked all the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from padp.compiler.names import terms as t
from padp.compiler.names.assignments import assign
from padp.compiler.names.declarations import declare, report_assumed, two_meanings
from padp.compiler.names.functions import collect_functions, load_prelude, only_functions, used_functions
from padp.compiler.names.gathered import Run
from padp.compiler.names.given import GIVEN, OUTPUT
from padp.compiler.names.header import (
    bind_sizes,
    provided,
    read_bindings,
    read_hyperparameters,
    read_options,
    read_relations,
)
from padp.compiler.names.reading import Place
from padp.compiler.names.scope import Entry, Scope, key, plain, split, walk
from padp.dsl import syntax as s
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source


def resolve(program: s.Program, source: Source, variant: str | None = None,
            prelude: s.Program | None = None) -> t.Method:
    """The method that a program describes; ``PadpError`` holds everything that is wrong with its names."""
    method, findings = resolve_leniently(program, source, variant, prelude)
    if any(d.severity == "error" for d in findings):
        raise PadpError(findings)
    return method


def resolve_leniently(program: s.Program, source: Source, variant: str | None = None,
                      prelude: s.Program | None = None) -> tuple[t.Method, list[Diagnostic]]:
    """The method as far as it can be read, and what is wrong with its names. Never raises on a program."""
    run = Run(program, source, variant, load_prelude() if prelude is None else prelude)
    try:
        return _method(run), run.reader.findings
    except RecursionError:
        too_deep = Diagnostic("E105", "this program is nested too deeply", program.span, source)
        header = program.header
        empty = t.Method("block" if header is None else header.name, "", "linear", None, (), (), (), (), (), (), (), (),
                         (), "y", source, program.span)
        return empty, [*run.reader.findings, too_deep]


def title_of(source: Source) -> str:
    """The first comment that stands on a line of its own, up to a run of spaces (what follows is a reference)."""
    for line in source.text.splitlines():
        if line.lstrip().startswith("#"):
            words = line.strip().lstrip("#").strip(" ─-=")
            return words.split("   ")[0].strip()
    return ""


def _method(run: Run) -> t.Method:
    """Header, sizes, declarations and statements, functions, output: in this order."""
    header = run.program.header
    scope = Scope()
    for constant in ("I", "π"):
        scope.bind(Entry(constant, "constant", s.NOWHERE))
    hyper = read_hyperparameters(run.reader, header, scope)
    bindings = read_bindings(run.reader, header)
    bind_sizes(header, bindings, run.body, scope)
    bound = provided(run.reader, bindings, scope)
    relations = read_relations(run.reader, header, scope)
    options = read_options(run.reader, header, scope)
    collect_functions(run, scope)
    two_meanings(run, scope)
    site_scope = scope.inner()
    steps: list[t.Step] = []
    _block(run, run.body, scope, steps, "value", ())
    output = _output(run, steps, scope)
    run.parameters.extend(p for p, _, _ in run.reader.assumed.values())
    functions = used_functions(run, site_scope, steps)
    _changed_after_use(run)
    report_assumed(run)
    return t.Method(
        name="block" if header is None else header.name,
        title=title_of(run.source),
        site=run.reader.site,
        variant=run.variant,
        hyper=hyper,
        bound=bound,
        relations=relations,
        options=options,
        parameters=tuple(run.parameters),
        functions=functions,
        body=tuple(steps),
        minimise=tuple(run.minimise),
        updates=tuple(run.updates),
        output=output,
        source=run.source,
        span=run.program.span,
    )


def _block(run: Run, body: Sequence[s.Statement], scope: Scope, out: list[t.Step], place: Place,
           loops: tuple[s.For, ...]) -> None:
    """Statements in order; ``loops`` are the loops around them, outermost first."""
    for statement in body:
        run.clock += 1
        match statement:
            case s.Remark():
                pass
            case s.Declare():
                if loops or place == "update":
                    run.report("E106", "tensors are declared outside of loops and updates", statement.span,
                               suggestion="declare a family, `v ∈ (ℝ^n)^r: learned`, and use `v_i` here")
                declare(run, statement, scope)
            case s.Assign():
                assign(run, statement, scope, out, place, loops)
            case s.For():
                _loop(run, statement, scope, out, place, loops)
            case s.Minimise(value=value, span=span):
                if loops or place == "update":
                    run.report("E106", "minimise stands outside of loops and updates", span)
                term = run.reader.expr(value, scope, "value")
                run.minimise.append(term)
                run.readers.append(("minimise", term, run.clock))
            case s.AfterBackward(body=inner, span=span):
                if loops or place == "update":
                    run.report("E106", "after backward stands at the outer level", span)
                _block(run, inner, scope.inner(), run.updates, "update", ())
            case s.Variant(span=span) | s.Common(span=span):
                run.report("E106", "variants stand at the outer level", span)
                _block(run, statement.body, scope, out, place, loops)


def _loop(run: Run, f: s.For, scope: Scope, out: list[t.Step], place: Place, loops: tuple[s.For, ...]) -> None:
    """``for i in range(n):``; names first bound inside are local, unless they are written by index."""
    domain = run.reader.domain(f.iterable, scope, place)
    size = domain.args[0] if isinstance(domain, t.Call) and domain.function == "range" and len(domain.args) == 1 \
        else None
    inner = scope.inner()
    variables: list[str] = []
    for variable in f.variables:
        name = plain(variable.text) if split(variable.text) is None else variable.text
        if name in variables:
            run.report("E205", f"`{name}` is there twice", variable.span)
        run.reader.refuse_taken(name, variable.span, scope)
        inner.bind(Entry(name, "index", variable.span, size=size if len(f.variables) == 1 else None))
        variables.append(name)
    if isinstance(domain, t.Call) and domain.function == "range" and len(variables) != 1:
        run.report("E209", f"range gives one number at a time, not {len(variables)}", f.span,
                   suggestion="for i in range(n):")
    steps: list[t.Step] = []
    _block(run, f.body, inner, steps, place, (*loops, f))
    out.append(t.Loop(tuple(variables), domain, tuple(steps), f.span))
    written = {x.name for x in walk(tuple(steps)) if isinstance(x, t.Write)}
    for entry in inner:
        before = scope.find(entry.name)
        if before is None and entry.name in written:
            scope.bind(replace(entry, family=None, item=None))
        elif before is None and entry.kind == "tensor" and entry.name not in run.reader.assumed:
            run.reader.local_names.setdefault(key(entry.name), entry.span)
        elif before is None and entry.kind in ("number", "tensor"):
            scope.bind(entry)  # declared by a comment, or a size in its shape
        elif before is not None and before != entry and before.kind == "tensor" == entry.kind:
            scope.bind(replace(entry, item=None if entry.item != before.item else entry.item))


def _of_the_token(steps: Sequence[t.Step], name: str) -> bool:
    """Whether a value is made from x, by way of others too."""
    known = {"x"}
    for x in walk(tuple(steps)):
        if isinstance(x, t.Let) and any(isinstance(v, t.Var) and v.name in known for v in walk(x.value)):
            known |= set(x.names)
    return name in known


def _output(run: Run, steps: Sequence[t.Step], scope: Scope) -> str:
    """The name that the program defines for its site: y, or h."""
    site = run.reader.site
    wanted = OUTPUT[site]
    if wanted not in run.assigned and run.program.header is None and "h" in run.assigned:
        wanted = "h"
    if only_functions(run):
        return wanted
    bound = [x for x in walk(tuple(steps)) if isinstance(x, t.Let) and wanted in x.names]
    if wanted not in run.assigned:
        span = run.program.span if run.program.header is None else run.program.header.span
        last = steps[-1] if steps else None
        guess = last.names[-1] if isinstance(last, t.Let) else None
        usual = {"linear": f"y ← {guess}" if guess and _of_the_token(steps, guess) else f"y ← {guess or 'W'} @ x",
                 "attention": "y ← attn(q = …)", "hidden": "h ← h + …"}
        given: set[str] = set() if run.program.header is None else {x.name for x in run.program.header.bindings}
        if given & set(run.assigned) - set(GIVEN[site]):
            return guess or wanted  # the header calls it so, which has been refused
        other = next((name for name in OUTPUT.values() if name != wanted and name in run.assigned), None)
        if not run.program.header and all(isinstance(x, s.Remark) for x in run.program.body):
            run.report("E207", "there is no program here: no header and no statement", span,
                       suggestion="a header first, adapter NAME(r = 4) on linear(W ∈ ℝ^{m×n}), then y ← … last")
            return wanted
        run.report("E207", f"the program never says what `{wanted}` is", span, suggestion=usual[site] if other is None
                   else f"write `{wanted} ← …` for `{other} ← …`: what a program on {site} gives is `{wanted}`")
        return guess or wanted
    if key(wanted) in run.reader.local_names and scope.find(wanted) is None:
        run.report("E207", f"`{wanted}` is bound inside a loop only, where it lives for one iteration",
                   run.reader.local_names[key(wanted)],
                   suggestion=f"bind `{wanted}` before the loop, or write it by index, `{wanted}_i ← …`")
    answers = [x.value for x in bound if x.names == ("y",)]
    for call in (x for x in walk((tuple(steps), tuple(run.minimise))) if isinstance(x, t.Call)):
        if call.function == "attn" and site == "attention" and not any(call is v for v in answers):
            run.report("E210", "attn is the whole of y", call.span, suggestion="y ← attn(q = …, k = …)")
    if site == "attention" and not all(isinstance(v, t.Call) and v.function == "attn" for v in answers):
        run.report("E210", "at an attention, y is a call of attn", bound[-1].span if bound else steps[-1].span,
                   suggestion="y ← attn(q = …, k = …)")
    return wanted


def _changed_after_use(run: Run) -> None:
    """A term that is read later must not depend on names that change in between."""
    for what, term, time in run.readers:
        for node in walk(term):
            if isinstance(node, t.Var) and run.assigned.get(node.name, 0) > time:
                run.report("E210", f"{what} uses `{node.name}`, which changes after this line", node.span,
                           suggestion=f"give the later `{node.name}` another name")
                break
