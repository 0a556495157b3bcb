"""What a fresh adapter does: every parameter is replaced by what it starts as.

    Starts(typed).value(node)       the normal form of a value then
    Starts(typed).identity()        whether y starts as W @ x + bias
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.facts.defined import undefined
from padp.compiler.facts.facts import Facts
from padp.compiler.facts.fresh_rules import AtStart
from padp.compiler.facts.generic import generic
from padp.compiler.facts.multiplied import Multiplied
from padp.compiler.ir import build as b
from padp.compiler.ir.build import Mismatch
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.names.terms import Number
from padp.compiler.normal.normal_form import READS_FAMILY, Simplifier
from padp.compiler.operators.formulas import formula


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a fresh adapter is the identity (None: neither proved nor refuted), and what the output is then; or what
    part of it has no value then."""

    holds: bool | None
    text: str
    undefined: str = ""

    def start(self, name: str) -> str:
        """How it starts, in words, where it is not the identity."""
        return f"it starts with {self.undefined}, which has no value" if self.undefined else \
            f"it starts as {name} = {self.text}"


class Starts:
    """A typed program with every parameter replaced by what it starts as."""

    def __init__(self, typed: Elaborated, rules: Simplifier | None = None) -> None:
        self.typed, self.g = typed, typed.graph
        self.rules = AtStart(typed.graph)
        self._done: dict[int, Node] = {}
        self._kept: list[Node] = []

    def value(self, node: Node) -> Node:
        """The normal form of a value for fresh parameters; the node itself where there is none."""
        try:
            return self.rules(self.put_in(node))
        except Mismatch:
            return node

    def put_in(self, root: Node) -> Node:
        """The value with starts in the place of parameters; ``detach`` and ``drop`` do nothing to values."""
        for node in walk(root):
            if id(node) in self._done:
                continue
            args = tuple(self._done[id(a)] for a in node.args)
            if node.op in READS_FAMILY:  # a family may start as one item, as I
                args = tuple(self.rules.for_each(a, was.type.family) for a, was in zip(args, node.args, strict=True))
            if node.op == "param":
                made = self._start(node)
            elif node.op == "knob":
                made = self._default(node)
            elif node.op in ("detach", "drop"):
                made = args[0]
            else:
                made = node if args == node.args else self.g.node(node.op, args, node.attrs, node.type)
            self._done[id(node)] = made
            self._kept.append(node)
        return self._done[id(root)]

    def _start(self, leaf: Node) -> Node:
        p = self.typed.parameters.get(str(leaf.attrs[0]))
        if p is None:
            return leaf
        start = p.start
        if start.node is not None:
            self._done[id(leaf)] = leaf  # a start that mentions the tensor itself ends here
            return self.put_in(start.node)
        constant = {"zeros": 0, "ones": 1, "constant": start.numbers[0] if start.numbers else 0}
        if start.kind in constant and "unit_std" not in start.wrappers:
            return b.full(self.g, constant[start.kind], leaf.type)
        if "pairs" in start.wrappers:
            return self.g.node("paired", (leaf,), (), leaf.type)
        return leaf

    def _default(self, knob: Node) -> Node:
        """A knob as it stands before anyone turns it."""
        default = next((h.default for h in self.typed.method.hyper if h.name == knob.attrs[0]), None)
        return self.g.const(default.value) if isinstance(default, Number) else knob

    def fails(self, what: str, node: Node, facts: Facts) -> bool:
        """Whether a property is refuted by what the value starts as."""
        start = self.value(node)
        return start.type.rank == 2 and facts.refuted(what, start)

    def reasons(self, node: Node) -> list[str]:
        """A note on why a property does not hold, where there is something to show."""
        start = self.value(node)
        return [f"it starts as {formula(start)}"] if start is not node and start.op in ("eye", "full", "scale") else []

    # ------------------------------------------------------------ the identity

    def identity(self) -> Verdict:
        """Whether the output of a fresh adapter is that of the base alone."""
        output = self.typed.output
        if output.type.kind == "unknown":
            return Verdict(None, "")
        try:
            missing = undefined(self.rules, self.put_in(output))
            if missing is not None:
                return Verdict(False, "", formula(missing))
            if output.op == "attn":
                return self._attention(output)
            return self._compared(output, self._base())
        except Mismatch:
            return Verdict(None, "")

    def _base(self) -> Node | None:
        typed, g = self.typed, self.g
        inputs = [x for x in walk(typed.output) if x.op == "input"]
        if typed.method.site == "hidden":
            return inputs[0] if inputs else None
        weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
        weight = weight or next((x for x in walk(typed.output) if x.op == "weight"), None)
        if weight is None or not inputs:
            return None
        base = b.prod(g, weight, inputs[0])
        if not typed.mentions_bias:
            return base
        places = (typed.names.get("bias"), *walk(typed.output))
        bias = next((x for x in places if x is not None and x.op == "bias"), None)
        return base if bias is None else b.add(g, base, bias)

    def _compared(self, output: Node, base: Node | None) -> Verdict:
        start = self.value(output)
        text = formula(start, {id(n): name for name, n in self.typed.names.items() if n.op in ("out", "skew", "inv")})
        if base is None:
            return Verdict(False, text)
        minus = self.rules.scale(self.g.const(-1), self.rules(base))
        rest = self.rules.add([start, minus], start.type)
        if b.is_zero(rest):
            return Verdict(True, text)
        if generic(rest):
            return Verdict(False, text)
        return Verdict(True if Multiplied(self.rules).zero(rest) else None, text)

    def _attention(self, output: Node) -> Verdict:
        """q and k enter through qᵀ k, v and o through o v: each pair, or each alone, must be the base's."""
        given = dict(zip(output.attrs, (self.value(a) for a in output.args), strict=True))
        x = next((n for n in walk(output) if n.op == "input"), None)
        leaves = {str(n.attrs[0]): n for n in self.typed.names.values() if n.op in ("weight", "bias")}
        if x is None:
            return Verdict(None, "")
        one = b.cat(self.g, [x, b.full(self.g, 1, x.type.with_item((1,)))], 1)
        for first, second in (("q", "k"), ("v", "o")):
            parts = [r for r in (first, second) if r in given]
            if all(self._is_base(r, given[r], leaves, one) for r in parts):
                continue
            pair = self._pair_of(first, second, given, leaves, one)
            if pair is None or not self._vanish(*pair):
                return Verdict(None, "")
        return Verdict(True, "")

    def _extended(self, role: str, leaves: dict[str, Node]) -> Node:
        """[W, b] of q, k or v."""
        weight, bias = leaves[f"W_{role.upper()}"], leaves[f"b_{role.upper()}"]
        column = self.g.node("column_of", (bias,), (), b.typed((bias.type.item[0], 1), bias))
        return b.cat(self.g, [weight, column], 1)

    def _is_base(self, role: str, value: Node, leaves: dict[str, Node], one: Node) -> bool:
        base = leaves["W_O"] if role == "o" else b.prod(self.g, self._extended(role, leaves), one)
        return b.fits(value.type.shape, base.type.shape) and self._vanish(value, base)

    def _pair_of(self, first: str, second: str, given: dict[str, Node], leaves: dict[str, Node],
                 one: Node) -> tuple[Node, Node] | None:
        if first not in given or second not in given:
            return None
        one = self.rules(one)
        matrices = {}
        for role in (first, second):
            value = given[role]
            if role == "o":
                matrices[role] = value
            elif value.op == "prod" and value.args[-1] is one:
                matrices[role] = self.rules.prod(value.args[:-1])
            else:
                return None
        heads = leaves["W_Q"].type.family
        if first == "q":
            other = self._grouped(self._extended("k", leaves), heads)
            return (b.prod(self.g, b.t(self.g, matrices["q"]), matrices["k"]),
                    b.prod(self.g, b.t(self.g, self._extended("q", leaves)), other))
        return (b.prod(self.g, matrices["o"], matrices["v"]),
                b.prod(self.g, leaves["W_O"], self._grouped(self._extended("v", leaves), heads)))

    def _grouped(self, value: Node, heads: Sequence[Any]) -> Node:
        type_ = type(value.type)(value.type.item, tuple(heads), value.type.loops, value.type.row)
        return self.g.node("grouped", (value,), (heads[-1], value.type.rank), type_)

    def _vanish(self, a: Node, c: Node) -> bool:
        minus = self.rules.scale(self.g.const(-1), self.rules(c))
        rest = self.rules.add([self.rules(a), minus], a.type)
        return b.is_zero(rest) or Multiplied(self.rules).zero(rest)

