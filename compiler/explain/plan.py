"""A compiled program's plans as data: what is computed when, what it costs, what was chosen and what was not.

    plan_of(compiled) -> Plan        three regimes: training, eval with many tokens, decoding one token
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from padp.compiler.explain.as_written import naive
from padp.compiler.explain.record import (
    EACH_CALL,
    ON_CHANGE,
    ONCE,
    Choice,
    Kept,
    Merging,
    PlanStep,
    PlanWay,
    Record,
    RegimePlan,
)
from padp.compiler.explain.rules_used import trail
from padp.compiler.explain.text import text
from padp.compiler.graph.compile import Compiled, Evaluation
from padp.compiler.ir.nodes import Node, Type, walk
from padp.compiler.plan.costs import Cost, cost
from padp.compiler.plan.recompute import held
from padp.compiler.plan.search import Decision, Estimate, Regime, numbers, seconds_of
from padp.compiler.plan.steps import LEAVES, STAGES, VIEWS, Low, Table, constant, copies, kept_values, live, order
from padp.dsl.source import Source


class Plan(Record):
    """The plans of one program at one size. ``print(plan)`` says them in words."""

    def __str__(self) -> str:
        return text(self)


def plan_of(compiled: Compiled) -> Plan:
    """The plans of a compiled program."""
    source, regime = compiled.method.source, compiled.regime
    dropped = {id(r.value): r.seconds for r in compiled.lean.recipes} if compiled.lean is not None else {}
    reads_x = compiled.lean is not None and compiled.lean.reads_x
    train = _Regime(source, regime, compiled.outputs, dropped, reads_x).plan(compiled.decisions)
    width = regime.width
    return Plan(
        adapter=compiled.method.name, variant=compiled.method.variant,
        sizes={name: int(size) for name, size in compiled.typed.sizes.items() if isinstance(size, int)},
        machine=regime.machine.name, width=width,
        naive=None if compiled.method.site == "attention" else
        naive(compiled.typed, regime.tokens, regime.machine, width),
        train=train, eval=_evaluation(source, compiled.many, "eval"),
        decode=_evaluation(source, compiled.one, "decode"),
        rules=trail(compiled), merging=_merging(compiled),
        kept_bytes=sum(bytes_of(low, regime) for low in compiled.kept))


def _evaluation(source: Source, e: Evaluation, name: str) -> RegimePlan:
    step = e.step.outputs if e.step is not None else ()
    return _Regime(source, replace(e.regime, name=name), e.outputs, {}, False, step).plan(e.decisions)


def bytes_of(low: Low, regime: Regime) -> float:
    """The memory of a value: indices are of eight bytes, complex numbers of two real ones."""
    each = {"index": 8, "complex": 2 * regime.width}.get(low.type.kind, regime.width)
    return each * numbers(low, regime.tokens)


@dataclass(frozen=True)
class _Regime:
    """Makes one regime's record. ``dropped``: seconds to make a value again, for which ``reads_x`` or not.

    ``step``: what is kept from call to call.
    """

    source: Source
    regime: Regime
    outputs: tuple[Low, ...]
    dropped: dict[int, float]
    reads_x: bool
    step: Sequence[Low] = ()

    @cached_property
    def held(self) -> dict[int, Low]:
        """What backward needs, as far as it does not lie in memory anyway."""
        if not self.regime.train:
            return {}
        found = {k: v for k, v in held(self.outputs).items() if v.prim == "input" or not (
            v.prim in LEAVES or live(v) or constant(v) or v.stage == 0)}
        if self.reads_x:
            found |= {id(x): x for x in order(*self.outputs) if x.prim == "input" and x.type.item}
        return found

    @cached_property
    def stored(self) -> set[int]:
        """What lies beside W."""
        return {id(v) for v in (*kept_values(*self.outputs), *self.step)}

    @cached_property
    def numbers(self) -> dict[int, int]:
        """Which operation is which step; a view is none, unless it is laid out anew or is all that is stored."""
        steps = [x for x in order(*self.outputs) if id(x) in self.stored or (
            x.prim not in LEAVES and x.prim != "detach" and (x.prim not in VIEWS or copies(x)))]
        return {id(low): k for k, low in enumerate(steps, 1)}

    def name(self, low: Low) -> str:
        """``#3``, or the name of a leaf."""
        while id(low) not in self.numbers and low.prim not in LEAVES:
            low = low.args[0]
        return f"#{self.numbers[id(low)]}" if id(low) in self.numbers else str(low.args[0])

    def place(self, low: Low) -> tuple[int, str]:
        line, _ = self.source.position(low.span.start)
        return line, self.source.line(line).split("#")[0].strip()

    def plan(self, decisions: Sequence[Decision]) -> RegimePlan:
        r = self.regime
        e = Estimate(r, {})
        steps = tuple(self._step(low, e) for low in order(*self.outputs) if id(low) in self.numbers)
        kept = tuple(Kept(self.name(v), _shape(v), bytes_of(v, r), id(v) in self.dropped, self.dropped.get(id(v), 0.0))
                     for v in sorted(self.held.values(), key=lambda v: (-bytes_of(v, r), v.number)))
        return RegimePlan(r.name, r.tokens, steps, kept, tuple(dict.fromkeys(self._choice(d) for d in decisions)))

    def _step(self, low: Low, e: Estimate) -> PlanStep:
        r, size = self.regime, bytes_of(low, self.regime)
        c = cost(low, r.tokens)
        if copies(low):  # a view that has to be laid out anew
            c = Cost(moved=2 * numbers(low, r.tokens), moved_back=2 * numbers(low, r.tokens))
        seconds = seconds_of(c, low, r) if c != Cost() else 0.0
        calls = r.train or low.stage == 2 or e.made_anew(low)
        runs = ONCE if low.stage == 0 else EACH_CALL if calls else ON_CHANGE
        if not (r.train and low.grad):
            c = replace(c, product_back=0, other_back=0, moved_back=0)
        names = tuple(dict.fromkeys(self.name(x) for x in low.inputs()))
        line, words = self.place(low)
        again = id(low) in self.dropped
        return PlanStep(
            number=self.numbers[id(low)], operation="copy" if copies(low) else low.prim.split(":")[-1],
            inputs=(*names, "W") if low.prim in ("base", "base_without_bias") else names, shape=_shape(low),
            stage=STAGES[low.stage], runs=runs, line=line, text=words, products=float(c.product), others=float(c.other),
            products_back=float(c.product_back), others_back=float(c.other_back), moved=r.width * float(c.moved),
            moved_back=r.width * float(c.moved_back), seconds=seconds,
            held=size if id(low) in self.held and not again else 0.0, again=again,
            stored=size if id(low) in self.stored else 0.0)

    def _choice(self, d: Decision) -> Choice:
        ways = [PlanWay(w.label, w.seconds, w.stored * self.regime.width) for w in d.ways]
        others = tuple(w for k, w in enumerate(ways) if k != d.taken)
        return Choice(d.question, *self.place(d.low), ways[d.taken], others)


def _shape(low: Low) -> tuple[int | str, ...]:
    return tuple("T" if d == "T" else int(d) for d in low.dims)


def _merging(compiled: Compiled) -> Merging:
    """The eval plans beside the base layer's own product."""
    weight = next((n for n in walk(compiled.typed.output) if n.op == "weight"), None)
    if compiled.method.site != "linear" or weight is None:
        return Merging(compiled.why_not_mergeable, None, None)
    many, one = (bare(weight, r) for r in (compiled.many.regime, compiled.one.regime))
    return Merging(compiled.why_not_mergeable, many, one)


def bare(weight: Node, regime: Regime) -> float:
    """Seconds of W x alone."""
    rows, columns = weight.type.item
    table = Table()
    x = table.make("input", ("x",), Type((columns,)), ("T",), stage=2, grad=False)
    product = table.make("base", (x,), Type((rows,)), ("T",))
    return seconds_of(cost(product, regime.tokens), product, replace(regime, train=False))
