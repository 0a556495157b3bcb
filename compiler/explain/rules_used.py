"""Which rule did what: the normal form once more, noting each rule that changed something; the plan is not made again.

    trail(compiled) -> RuleUse, …     the normal form's rules first, then the operators' rules on vectors

Of the rules on vectors, which the planner remembers, those are told whose result is part of a plan.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from padp.compiler.graph.compile import Compiled, without_base
from padp.compiler.ir import build as b
from padp.compiler.ir.nodes import Node
from padp.compiler.normal.decompositions import around_base, by_parts
from padp.compiler.normal.head_maps import attention_maps
from padp.compiler.normal.normal_form import RULES, Simplifier
from padp.compiler.operators.formulas import formula
from padp.compiler.plan.applied import APPLIED
from padp.compiler.plan.search import Estimate
from padp.compiler.plan.steps import order
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
    planner = compiled.planner  # which knows what it made of these nodes
    output = planner.per_token(planner.value(simple))
    plans = ((compiled.regime, compiled.outputs, compiled.decisions),
             (compiled.many.regime, compiled.many.outputs, compiled.many.decisions),
             (compiled.one.regime, compiled.one.outputs, compiled.one.decisions))
    for regime, outputs, decisions in plans:
        root, by, parts = output, None, None
        if weight is not None and not any(low.prim in ("base", "base_without_bias") for low in order(*outputs)):
            root, by, parts = without_base(planner, literal, weight)
        e = Estimate(regime, {**planner.estimate.picks, **{id(d.low): d.taken for d in decisions}})
        there = {id(low) for low in e.reached(root)}
        if by is not None and parts is not None and e.resolve(root) is e.resolve(by):
            before = len(rules.notes)
            rules.note(*_named(by_parts, "by_parts", object), literal, rules.formula(literal), rules.formula(parts))
            notes += rules.notes[before:]
        notes += [note for m, low, span in planner.uses if id(e.resolve(low)) in there
                  for note in _on_vectors(rules, m, span)]
    return notes


def _on_vectors(rules: Recorder, m: Node, span: Span) -> list[_Note]:
    """What is told of an operator's rule on vectors."""
    name, equation = _named(APPLIED[m.op], m.op, object)
    return [_Note(f"{name} on vectors", equation, span, rules.formula(m), "")] if equation and m.op != "eye" else []
