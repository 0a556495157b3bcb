"""The plan part of ``padp show``: as text, as JSON, as a picture. Imports torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.console import Console

from padp.compiler.adapter import Settings
from padp.compiler.names.terms import Method
from padp.compiler.phases import Variant

if TYPE_CHECKING:
    from padp.compiler.explain.plan import Plan
    from padp.compiler.graph.compile import Compiled


@dataclass(frozen=True, slots=True)
class Planned:
    """A program planned for a size; ``given`` is what was asked for, as in ``m = 64, r = 8``."""

    compiled: Compiled
    plan: Plan
    given: str


def without_knobs(method: Method, hyper: Mapping[str, Any]) -> dict[str, Any]:
    """The hyperparameters that are compiled in."""
    knobs = {each.name for each in method.hyper if each.knob}
    return {name: value for name, value in hyper.items() if name not in knobs}


def planned_for(variant: Variant, settings: Settings, sizes: Mapping[str, int], tokens: int) -> Planned:
    """The plan of a program on a layer without a bias."""
    from padp.compiler.explain.plan import plan_of

    compiled = variant.at(sizes, without_knobs(variant.method, settings.hyper)).compiled(False, tokens=tokens)
    given = ", ".join(f"{k} = {v}" for k, v in {**sizes, **settings.hyper}.items())
    return Planned(compiled, plan_of(compiled.usual), given)


def as_json(planned: Planned) -> str:
    from padp.compiler.explain.as_json import to_data

    return json.dumps(to_data(planned.plan), ensure_ascii=False, indent=2) + "\n"


def as_svg(planned: Planned, regime: str) -> str:
    from padp.compiler.explain.picture import picture

    return picture(planned.plan, regime)


def show_plan(out: Console, planned: Planned) -> None:
    """The plan and the code of a training step."""
    from padp.compiler.explain.text import lines
    from padp.compiler.graph.stages import printed

    out.print()
    _, *rest = lines(planned.plan)  # its first line does not know the hyperparameters
    out.print(f"plan for {planned.given}, {planned.plan.tokens:,} tokens", style="bold")
    out.print("\n".join(rest).strip("\n"), soft_wrap=True)
    out.print()
    out.print("code of a training step", style="bold")
    out.print(printed(planned.compiled.usual.train), soft_wrap=True)
