"""A compiled program's plans as data: what is computed when, what it costs, what was chosen and what was not.

    plan_of(compiled) -> Plan        three regimes: training, eval with many tokens, decoding one token

Text (``plan_text``), JSON (``plan_json``) and a picture (``plan_picture``) are renderers of this one record. FLOPs of
products are counted as torch counts them; seconds are the cost model's of ``plan/search.py``, good for comparing ways,
no measurement. Bytes are those of the regime's numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from padp.compiler.explain.as_written import Naive, naive
from padp.compiler.explain.rules_used import RuleUse, trail
from padp.compiler.graph.compile import Compiled, Evaluation
from padp.compiler.ir.nodes import Node, Type, walk
from padp.compiler.plan.costs import Cost, cost
from padp.compiler.plan.recompute import held
from padp.compiler.plan.search import Decision, Estimate, Regime, numbers, seconds_of
from padp.compiler.plan.steps import LEAVES, STAGES, VIEWS, Low, Table, constant, copies, kept_values, live, order
from padp.dsl.source import Source

EACH_CALL, ON_CHANGE, ONCE = "each call", "on change", "once"


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One operation: what it makes of what, in which stage, from which line, and its cost for all tokens when it runs.

    ``runs``: in each call, on change of a parameter (the step stage in eval, kept until then), or once. ``inputs``:
    names of leaves, and ``#3`` for step 3. ``*_back``: backward's share. ``held``: bytes of the result that are kept
    for backward; ``again``: backward makes the result anew instead. ``stored``: bytes that lie beside W.
    """

    number: int
    operation: str
    inputs: tuple[str, ...]
    shape: tuple[int | str, ...]
    stage: str
    runs: str
    line: int
    text: str
    products: float
    others: float
    products_back: float
    others_back: float
    moved: float
    moved_back: float
    seconds: float
    held: float
    again: bool
    stored: float

    @property
    def flops(self) -> float:
        return self.products + self.others

    @property
    def flops_back(self) -> float:
        return self.products_back + self.others_back


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that backward needs: its step (or ``x``), its bytes; ``again``: made anew, which takes ``seconds``."""

    value: str
    shape: tuple[int | str, ...]
    bytes: float
    again: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class PlanWay:
    """A way to a value: seconds of the whole plan with it, the price of kept bytes included, before neighbours are
    fused; ``stored``: bytes of tensors as large as half of W that it keeps beside W."""

    label: str
    seconds: float
    stored: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision: the way that was taken, with the cost of the whole plan, and the others."""

    question: str
    line: int
    text: str
    taken: PlanWay
    rejected: tuple[PlanWay, ...]


@dataclass(frozen=True, slots=True)
class RegimePlan:
    """The plan for one use. ``tokens`` of a call; ``kept`` is what backward needs, ``choices`` what was decided."""

    name: str
    tokens: int
    steps: tuple[PlanStep, ...]
    kept: tuple[Kept, ...]
    choices: tuple[Choice, ...]

    @property
    def each_call(self) -> tuple[PlanStep, ...]:
        """The steps that a call pays for."""
        return tuple(s for s in self.steps if s.runs == EACH_CALL)

    @property
    def seconds(self) -> float:
        """Of a call, backward included in training."""
        return sum(s.seconds for s in self.each_call)

    @property
    def flops(self) -> float:
        """Forward FLOPs of a call, the base layer's own included."""
        return sum(s.flops for s in self.each_call)

    @property
    def flops_back(self) -> float:
        return sum(s.flops_back for s in self.each_call)

    @property
    def moved(self) -> float:
        return sum(s.moved for s in self.each_call)

    @property
    def moved_back(self) -> float:
        return sum(s.moved_back for s in self.each_call)

    @property
    def held_bytes(self) -> float:
        """What is kept for backward."""
        return sum(k.bytes for k in self.kept if not k.again)

    @property
    def dropped_bytes(self) -> float:
        """What is made again in backward instead of being kept."""
        return sum(k.bytes for k in self.kept if k.again)


@dataclass(frozen=True, slots=True)
class Merging:
    """What ``layer.merge()`` would save in eval: the bare base product's seconds; ``why_not`` where it cannot.

    ``bare_many`` and ``bare_one`` are for the tokens of the eval plan and for one; None where there is no base layer.
    """

    why_not: str | None
    bare_many: float | None
    bare_one: float | None


@dataclass(frozen=True)
class Plan:
    """The plans of a program at one size, beside what its literal reading costs.

    Of an attention these are the plans of its maps, one a head; the heads themselves are the model's own, and ``naive``
    is None.
    """

    adapter: str
    variant: str | None
    sizes: dict[str, int]
    machine: str
    width: int
    naive: Naive | None
    train: RegimePlan
    eval: RegimePlan
    decode: RegimePlan
    rules: tuple[RuleUse, ...]
    merging: Merging
    kept_bytes: float

    @property
    def regimes(self) -> tuple[RegimePlan, RegimePlan, RegimePlan]:
        return self.train, self.eval, self.decode

    @property
    def tokens(self) -> int:
        return self.train.tokens

    @property
    def steps(self) -> tuple[PlanStep, ...]:
        """Of a training step."""
        return self.train.steps

    @property
    def flops(self) -> float:
        """Forward FLOPs of a training step."""
        return self.train.flops

    def __str__(self) -> str:
        from padp.compiler.explain.text import text

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
