"""Which rule did what: planning once more, and noting each rule that changed something.

    trail(compiled) -> RuleUse, …     the normal form's rules first, then the operators' rules on vectors

Planning itself notes nothing, so it pays nothing; equal programs are planned in the same way each time. Of the rules on
vectors, those are told whose result is part of a plan.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from padp.compiler.graph.compile import Compiled, without_base
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node
from padp.compiler.normal.decompositions import around_base, by_parts
from padp.compiler.normal.head_maps import attention_maps
from padp.compiler.normal.normal_form import RULES, Simplifier
from padp.compiler.operators.formulas import formula
from padp.compiler.plan import blocks
from padp.compiler.plan.applied import APPLIED
from padp.compiler.plan.planner import Application, Planner
from padp.compiler.plan.search import Estimate
from padp.compiler.plan.steps import Low, order
from padp.compiler.plan.values import VALUES
from padp.dsl.source import Span


@dataclass(frozen=True, slots=True)
class RuleUse:
    """One use of a rule: its name, its equation, the line, and what it made of what."""

    rule: str
    equation: str
    line: int
    text: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class _Note:
    rule: str
    equation: str
    span: Span
    before: str
    after: str


class Recorder(Simplifier):
    """A simplifier that notes what it changes."""

    def __init__(self, compiled: Compiled) -> None:
        super().__init__(compiled.typed.graph)
        self.names = {id(n): name for name, n in compiled.typed.names.items()}
        self.notes: list[_Note] = []

    def make(self, node: Node, args: tuple[Node, ...]) -> Node:
        made = super().make(node, args)
        if node.op in RULES and (made.op, made.args, made.attrs) != (node.op, args, node.attrs):
            before = self.g.node(node.op, args, node.attrs, node.type)
            self.note(*_named(RULES[node.op], node.op, Simplifier), before, self.formula(before), self.formula(made))
        return made

    def note(self, rule: str, equation: str, node: Node, before: str, after: str) -> None:
        if before.replace("−", "-") != after.replace("−", "-"):
            self.notes.append(_Note(rule, equation, node.span, before, after))

    def formula(self, node: Node) -> str:
        return formula(node, {k: v for k, v in self.names.items() if k != id(node)})


def _named(function: Callable[..., Any], op: str, owner: type) -> tuple[str, str]:
    """A rule's name and its equation: the first line of its docstring, or of the method of that name."""
    doc = function.__doc__ or getattr(getattr(owner, op, None), "__doc__", None) or ""
    return op, doc.strip().splitlines()[0].strip() if doc.strip() else ""


def trail(compiled: Compiled) -> tuple[RuleUse, ...]:
    """What the rules did to this program."""
    rules = Recorder(compiled)
    notes = _attention(compiled, rules) if compiled.method.site == "attention" else _linear(compiled, rules)
    source = compiled.method.source
    used: dict[RuleUse, None] = {}
    for n in notes:
        line, _ = source.position(n.span.start)
        used[RuleUse(n.rule, n.equation, line, source.line(line).split("#")[0].strip(), n.before, n.after)] = None
    return tuple(used)


def _attention(compiled: Compiled, rules: Recorder) -> list[_Note]:
    attention_maps(compiled.typed, rules)
    return rules.notes


def _linear(compiled: Compiled, rules: Recorder) -> list[_Note]:
    typed, method = compiled.typed, compiled.method
    weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
    total = typed.output
    if method.site == "linear" and compiled.has_bias and not typed.mentions_bias:
        total = b.add(typed.graph, total, typed.graph.node("bias", (), ("bias",), total.type))
    literal = simple = rules(total)
    if weight is not None:
        around = around_base(rules, simple, weight)
        if around is not simple:
            named = _named(around_base, "around_base", object)
            rules.note(*named, simple, rules.formula(simple), rules.formula(around))
        simple = around
    notes = list(rules.notes)
    seen: list[tuple[_Note, Low]] = []
    planner = Planner(typed.graph, weight, VALUES, _watched(rules, seen), blocks, compiled.regime,
                      has_bias=compiled.has_bias)
    output = planner.per_token(planner.value(simple))
    plans = ((compiled.regime, compiled.outputs), (compiled.many.regime, compiled.many.outputs),
             (compiled.one.regime, compiled.one.outputs))
    for regime, outputs in plans:
        root, by, parts = output, None, None
        if weight is not None and not any(low.prim in ("base", "base_without_bias") for low in order(*outputs)):
            root, by, parts = without_base(planner, literal, weight)
        _, decisions = planner.settle(root, regime=regime)
        e = Estimate(regime, {**planner.estimate.picks, **{id(d.low): d.taken for d in decisions}})
        there = {id(low) for low in e.reached(root)}
        if by is not None and parts is not None and e.resolve(root) is e.resolve(by):
            before = len(rules.notes)
            rules.note(*_named(by_parts, "by_parts", object), literal, rules.formula(literal), rules.formula(parts))
            notes += rules.notes[before:]
        notes += [note for note, low in seen if id(e.resolve(low)) in there]
    return notes


def _watched(rules: Recorder, seen: list[tuple[_Note, Low]]) -> Mapping[str, Application]:
    """The operators' rules on vectors, each noting what it makes."""

    def watch(op: str, rule: Application) -> Application:
        name, equation = _named(rule, op, object)

        def apply(p: Planner, m: Node, v: Low) -> Low | None:
            made = rule(p, m, v)
            if made is not None and equation and op != "eye":
                seen.append((_Note(f"{name} on vectors", equation, p.table.span, rules.formula(m), ""), made))
            return made

        return apply

    return {op: watch(op, rule) for op, rule in APPLIED.items()}
