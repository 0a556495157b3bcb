"""What a phase of the compiler gives, as text: ``padp show FILE --ir tree|names|typed|normal|plan|graph``.

    printed(phase, variant, compiled)      ``compiled`` for plan and graph, which are of one size
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

from padp.compiler.explain.plan import plan_of
from padp.compiler.explain.text import lines
from padp.compiler.graph.compile import Compiled
from padp.compiler.graph.stages import printed as printed_stage
from padp.compiler.ir.nodes import Node, show_graph
from padp.compiler.phases import Variant

FOR_ALL_SIZES = ("tree", "names", "typed", "normal")
AT_ONE_SIZE = ("plan", "graph")
PHASES = (*FOR_ALL_SIZES, *AT_ONE_SIZE)
_LEFT_OUT = ("span", "source")


def printed(phase: str, variant: Variant, compiled: Compiled | None = None) -> str:
    """The value of a phase."""
    match phase:
        case "tree":
            return "\n".join(_outline(variant.program.tree))
        case "names":
            return "\n".join(_outline(variant.method))
        case "typed":
            return _graphs(variant, [case.typed.output for case in variant.cases])
        case "normal":
            return _graphs(variant, variant.normal)
        case "plan":
            assert compiled is not None
            return "\n".join(lines(plan_of(compiled.usual))).strip("\n")
        case _:
            assert compiled is not None
            usual = compiled.usual
            stages = (("a training step", usual.train), ("eval, kept from call to call", usual.many.step),
                      ("eval, each call", usual.many.token))
            return "\n\n".join(f"# {name}\n{printed_stage(stage)}" for name, stage in stages if stage is not None)


def _graphs(variant: Variant, outputs: Sequence[Node]) -> str:
    """The graph of each case, with what it assumes."""
    source = variant.program.source
    said: list[str] = []
    for case, output in zip(variant.cases, outputs, strict=True):
        assumed = ", ".join(("" if holds else "not ") + source.slice(test.span) for test, holds in case.assume)
        said.append((f"# where {assumed}\n" if assumed else "") + show_graph(output))
    return "\n\n".join(said)


def _outline(value: Any, label: str = "", depth: int = 0) -> Iterator[str]:
    """A tree of dataclasses, one a line, places in the text left out."""
    own = [(f.name, getattr(value, f.name)) for f in fields(value) if f.name not in _LEFT_OUT]
    short = [f" {name}={_short(part)}" for name, part in own if part is not None and not _parts(part)
             and not (isinstance(part, tuple) and not part)]
    yield f"{'  ' * depth}{f'{label}: ' if label else ''}{type(value).__name__}{''.join(short)}"
    for name, part in own:
        for one in _parts(part):
            yield from _outline(one, name, depth + 1)


def _parts(value: Any) -> list[Any]:
    """The dataclasses in a field: itself, or those of a tuple, nested ones too."""
    if is_dataclass(value):
        return [value]
    return [part for one in value for part in _parts(one)] if isinstance(value, tuple) else []


def _short(value: Any) -> str:
    return repr(value) if isinstance(value, (str, tuple)) else str(value)
