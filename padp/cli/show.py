"""``padp show FILE``: the program, what was derived from it, and with sizes the plan with its costs and the code.

The plan is also written as JSON and as a picture.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from rich.console import Console

from padp.cli.options import Usage, adapter_of, hyperparameters, sizes_of, writable
from padp.cli.output import console, table
from padp.compiler.adapter import Adapter
from padp.compiler.elaborate.cases import Case
from padp.compiler.ir.dims import show
from padp.compiler.library import tree
from padp.compiler.names.terms import Method
from padp.compiler.phases import Variant
from padp.compiler.sizes.solve import text
from padp.dsl.printer import to_text


def run(arguments: Namespace) -> int:
    if arguments.tokens < 1:
        raise Usage(f"--tokens {arguments.tokens}: a whole number from 1")
    json_path, svg_path = writable(arguments.json, "--json"), writable(arguments.svg, "--svg")
    bare = [option for option in ("json", "svg") if getattr(arguments, option) == "-"]
    if len(bare) == 2:
        raise Usage("--json - --svg -: only one of them fits on standard output")
    if not arguments.size and (arguments.json or arguments.svg):
        raise Usage("--json and --svg are of a plan, which is for given sizes: --size m=1024,n=1024 for example")
    adapter = adapter_of(arguments.file)
    method = adapter.method(arguments.variant)
    sizes = sizes_of(method, arguments.size) if arguments.size else None
    given = hyperparameters(arguments.set)
    settings = adapter.settings(arguments.variant, **given) if sizes is not None or given else None
    out = console()
    if arguments.ir is not None:
        _phase(out, adapter, arguments, None if settings is None else settings.hyper, sizes)
        return 0
    if sizes is None or settings is None:
        _program(out, adapter, method, arguments)
        return 0
    from padp.cli.plan import as_json, as_svg, planned_for, show_plan

    with out.status("planning"):
        planned = planned_for(adapter.of(arguments.variant), settings, sizes, arguments.tokens)
    if json_path is not None:
        json_path.write_text(as_json(planned), encoding="utf-8")
    if svg_path is not None:
        svg_path.write_text(as_svg(planned, arguments.regime), encoding="utf-8")
    if bare:
        sys.stdout.write(as_json(planned) if bare == ["json"] else as_svg(planned, arguments.regime))
        return 0
    _program(out, adapter, method, arguments)
    show_plan(out, planned)
    return 0


def _program(out: Console, adapter: Adapter, method: Method, arguments: Namespace) -> None:
    """What holds for every size."""
    program = to_text(tree(adapter.source), ascii=True) if arguments.ascii else adapter.source.text
    out.print(program.strip(), soft_wrap=True)
    if method.variant is not None:
        heading(out, f"variant {method.variant} of {', '.join(adapter.variants)}")
    _parameters(out, adapter.of(arguments.variant))
    _shapes(out, adapter.of(arguments.variant))
    _capabilities(out, adapter, arguments.variant)


def _phase(out: Console, adapter: Adapter, arguments: Namespace, hyper: Mapping[str, Any] | None,
           sizes: Mapping[str, int] | None) -> None:
    """The value of one phase."""
    from padp.cli.plan import without_knobs
    from padp.compiler.explain.dumps import AT_ONE_SIZE, printed

    variant, compiled = adapter.of(arguments.variant), None
    if arguments.ir in AT_ONE_SIZE:
        if sizes is None or hyper is None:
            raise Usage(f"--ir {arguments.ir} is of one size: --size m=1024,n=1024 for example")
        compiled = variant.at(sizes, without_knobs(variant.method, hyper)).compiled(False, tokens=arguments.tokens)
    out.print(printed(arguments.ir, variant, compiled), soft_wrap=True, markup=False, highlight=False)


def heading(out: Console, title: str) -> None:
    out.print()
    out.print(title, style="bold")


def _parameters(out: Console, known: Variant) -> None:
    """Every declared tensor with its space, role and count."""
    counts = known.counts
    heading(out, f"parameters: {show(counts.total)} learned scalars a site")
    rows = table("name", "space, role", ">learned")
    for name, space in counts.spaces.items():
        rows.add_row(name, space, show(counts.by_name[name]) if name in counts.by_name else "")
    out.print(rows)


def _shapes(out: Console, known: Variant) -> None:
    """What every statement binds, with its shape; for each case of a conditional on dimensions."""
    every, source = known.cases, known.program.source
    for case in every:
        heading(out, "shapes" + (f" where {_condition(case)}" if len(every) > 1 else ""))
        rows = table("name", "shape", ">line", "statement")
        for name, node, span in case.typed.history:
            line, _ = source.position(span.start)
            rows.add_row(name, str(node.type), str(line), source.line(line).split("#")[0].strip())
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
