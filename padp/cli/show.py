"""``padp show FILE``: the program, what was derived from it, and with sizes the plan with its costs and the code."""

from __future__ import annotations

from argparse import Namespace

from rich.console import Console

from padp.cli.options import Usage, adapter_of, hyperparameters, sizes_of
from padp.cli.output import console, number, table
from padp.compiler.adapter import Adapter, Settings
from padp.compiler.cases import Case, cases
from padp.compiler.counting import counted
from padp.compiler.dims import show
from padp.compiler.program import tree
from padp.compiler.sizes import solve, text
from padp.compiler.terms import Method
from padp.dsl.printer import to_text


def run(arguments: Namespace) -> int:
    if arguments.tokens < 1:
        raise Usage(f"--tokens {arguments.tokens}: a whole number from 1")
    adapter = adapter_of(arguments.file)
    method = adapter.method(arguments.variant)
    sizes = sizes_of(method, arguments.size) if arguments.size else None
    given = hyperparameters(arguments.set)
    settings = adapter.settings(arguments.variant, **given) if sizes is not None or given else None
    out = console()
    program = to_text(tree(adapter.source), ascii=True) if arguments.ascii else adapter.source.text
    out.print(program.strip(), soft_wrap=True)
    if method.variant is not None:
        heading(out, f"variant {method.variant} of {', '.join(adapter.variants)}")
    _parameters(out, method)
    _shapes(out, method)
    _capabilities(out, adapter, arguments.variant)
    if sizes is not None and settings is not None:
        _plan(out, method, settings, sizes, arguments.tokens)
    return 0


def heading(out: Console, title: str) -> None:
    out.print()
    out.print(title, style="bold")


def _parameters(out: Console, method: Method) -> None:
    """Every declared tensor with its space, role and count."""
    counts = counted(method)
    heading(out, f"parameters: {show(counts.total)} learned scalars a site")
    rows = table("name", "space, role", ">learned")
    for name, space in counts.spaces.items():
        rows.add_row(name, space, show(counts.by_name[name]) if name in counts.by_name else "")
    out.print(rows)


def _shapes(out: Console, method: Method) -> None:
    """What every statement binds, with its shape; for each case of a conditional on dimensions."""
    every = cases(method)
    for case in every:
        heading(out, "shapes" + (f" where {_condition(case)}" if len(every) > 1 else ""))
        rows = table("name", "shape", ">line", "statement")
        for name, node, span in case.typed.history:
            line, _ = method.source.position(span.start)
            rows.add_row(name, str(node.type), str(line), method.source.line(line).split("#")[0].strip())
        out.print(rows)


def _capabilities(out: Console, adapter: Adapter, variant: str | None) -> None:
    """What the adapter can do, each with the reason."""
    heading(out, "capabilities")
    rows = table("name", "", "reason")
    for name, capability in adapter.capabilities_of(variant).items():
        rows.add_row(name, "yes" if capability else "no", capability.reason)
    out.print(rows)


def _condition(case: Case) -> str:
    """What a case assumes of the dimensions, as in ``not (m ≥ n)``."""
    said: list[str] = []
    for test, holds in case.assume:
        written = f"{text(test.left)} {test.op} {text(test.right)}".strip()
        said.append(written if holds else f"not ({written})")
    return ", ".join(said)


def _plan(out: Console, method: Method, settings: Settings, sizes: dict[str, int], tokens: int) -> None:
    """The chosen operations with their costs, and the code of a training step. Imports torch."""
    from padp.compiler.compiled import compile_method
    from padp.compiler.emit import printed
    from padp.compiler.plans import plan_of

    solved = solve(method, sizes, settings.hyper)
    knobs = {hyper.name for hyper in method.hyper if hyper.knob}
    values = {name: value for name, value in settings.hyper.items() if name not in knobs}
    with out.status("planning"):
        compiled = compile_method(method, solved, values, has_bias=False, tokens=tokens)
        plan = plan_of(compiled)
    given = ", ".join(f"{k} = {v}" for k, v in {**sizes, **settings.hyper}.items())
    heading(out, f"plan for {given}, {number(tokens)} tokens")
    rows = table("stage", "operation", "makes", ">FLOPs", ">line", "statement")
    for step in plan.steps:
        made = "×".join(map(str, step.shape)) or "scalar"
        rows.add_row(step.stage, step.operation, made, f"{step.flops:.3g}", str(step.line), step.text.split("#")[0])
    out.print(rows)
    out.print(
        f"{plan.flops:.3g} FLOPs; as written, every matrix built, {plan.naive:.3g}. "
        f"{number(plan.kept_bytes)} bytes kept beside W."
    )
    heading(out, "code of a training step")
    out.print(printed(compiled.train), soft_wrap=True)
