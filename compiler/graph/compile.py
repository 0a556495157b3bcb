"""One compiled program for one set of sizes: what all layers of that shape share.

    compile_method(method, sizes, hyper, has_bias) -> Compiled
        train        x, base → y                 step and token stages in one graph
        many, one    step → values kept in eval;  token  x, base, those → y      for many tokens, and for one (decoding)
        step_of_one  x, base → y                 a training step of one token, planned when the first one comes
        delta    x → y − base(x)                 when the program only adds to the base's output
        merged   → W', bias'                     when y is affine in x
        penalty  → the ``minimise`` terms
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from typing import Any, TypeAlias

from padp.compiler.elaborate.cases import cases
from padp.compiler.elaborate.elaborate import elaborate
from padp.compiler.elaborate.state import Elaborated, Learned
from padp.compiler.facts.abilities import capabilities
from padp.compiler.graph.roots import Roots, roots
from padp.compiler.graph.stages import Stage, emit, step_values
from padp.compiler.ir import build as b
from padp.compiler.ir.budget import budget
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.names.terms import Let, Method, Var
from padp.compiler.normal.affine import affine, beside_base, matrix_of
from padp.compiler.normal.decompositions import around_base, by_parts
from padp.compiler.normal.head_maps import attention_maps
from padp.compiler.plan import planners, room
from padp.compiler.plan.costs import cost, count
from padp.compiler.plan.fusing import fused
from padp.compiler.plan.planner import Planner
from padp.compiler.plan.recompute import Recipe, recipes
from padp.compiler.plan.search import CPU, MACHINES, Decision, Estimate, Regime
from padp.compiler.plan.steps import Low, kept_values, order
from padp.dsl.diagnostics import PadpError, refuse
from padp.dsl.limits import MAX_PLAN_STEPS
from padp.dsl.spellings import python_name

WORTH_PLANNING = 1 << 16
"""Numbers in W from which on other plans for plain base layers are looked for."""
WORTH_REPLACING = 0.5
"""The share of the base layer's own work that a program must do beside it, for such plans to be looked for."""
CLEARLY = 0.95
"""A plan is another one's rival when it takes less than this share of its time."""
SMALL = 8192
"""Tensors of fewer numbers may always be stored, however small W is."""
TOKENS = 1024
"""The number of tokens that a plan is made for when nobody says another."""


Planned: TypeAlias = "tuple[tuple[Low, ...], tuple[Decision, ...]]"
"""The roots of a plan and how it was chosen."""


@dataclass(frozen=True)
class Lean:
    """A training plan that keeps less for backward.

    ``stage`` notes values; ``again[k]`` makes the k-th dropped one anew, from the noted values in slots ``givens[k]``.
    """

    stage: Stage
    again: tuple[Stage, ...]
    givens: tuple[tuple[int, ...], ...]
    recipes: tuple[Recipe, ...]
    reads_x: bool


@dataclass(frozen=True)
class Evaluation:
    """Without gradients: ``step`` makes what is kept from call to call, ``token`` the output from x and that.

    ``whole`` is both in one graph, for torch.compile and export, which keep nothing.
    """

    regime: Regime
    step: Stage | None
    token: Stage
    whole: Stage
    outputs: tuple[Low, ...]
    decisions: tuple[Decision, ...] = ()


@dataclass(frozen=True)
class Compiled:
    """The graphs of one program at one shape. ``kept`` are the attach-stage values that become buffers."""

    method: Method
    typed: Elaborated
    parameters: Mapping[str, Learned]
    names: Mapping[str, str]
    kept: tuple[Low, ...]
    regime: Regime
    train: Stage
    lean: Lean | None
    many: Evaluation
    one: Evaluation
    delta: Stage | None
    merging: Callable[[], Stage | None]
    stepping: Callable[[], Stage | None]
    penalty: Stage | None
    planner: Planner
    outputs: tuple[Low, ...]
    decisions: tuple[Decision, ...]
    why_not_mergeable: str | None
    needs_weight: bool
    has_bias: bool
    roles: tuple[tuple[str, bool], ...] = ()
    joint: bool = False
    trained: Callable[[], Compiled] | None = None
    on_plain: Compiled | None = None
    """The same with other plans, for a base layer that is nothing but a product; None where they would not be faster.
    """

    @property
    def usual(self) -> Compiled:
        """What runs on an ordinary base layer."""
        return self.on_plain or self

    @property
    def additive(self) -> bool:
        return self.delta is not None

    @cached_property
    def reads(self) -> frozenset[str]:
        """"weight" and "bias", where they are read beside the base layer's own call: for a start, once, or in steps."""
        stages = [self.train, self.many.token, self.many.step, self.one.token, self.one.step, self.delta, self.penalty]
        lows = [*self.kept, *(low for stage in stages if stage is not None for low in stage.outputs)]
        nodes = [p.start.node for p in self.parameters.values() if p.start.node is not None]
        wanted = ("weight", "bias")
        return frozenset([x.prim for low in lows for x in order(low) if x.prim in wanted]
                         + [x.op for node in nodes for x in walk(node) if x.op in wanted])

    @cached_property
    def merged(self) -> Stage | None:
        """W' and bias' as a graph, planned when it is first wanted; None where there is only the way by applying it."""
        return self.merging()

    @cached_property
    def step_of_one(self) -> Stage:
        """A training step of one token, planned when the first one comes."""
        return self.stepping() or self.one.whole

    @cached_property
    def base_moves(self) -> Compiled:
        """The same for a base that is trained too: nothing is kept that was computed from it. Planned when wanted."""
        assert self.trained is not None
        made = self.trained()
        made.train.ready()
        made.one.whole.ready()
        return made

    @cached_property
    def roots(self) -> Roots:
        """What is read beside x and learned tensors."""
        starts = (p.start.node for p in self.parameters.values() if p.start.node is not None)
        penalty = () if self.penalty is None else self.penalty.outputs
        return roots(self.kept, starts, (*self.outputs, *penalty), self.typed.output)

    def ready(self) -> None:
        """Build what torch.compile may enter first, and find what it may ask."""
        assert self.roots is not None
        for each in (self, self.usual):
            each.train.ready()
            each.many.whole.ready()

    def evaluation(self, tokens: str) -> Evaluation:
        """The plan for a token class: "many" or "one"."""
        return self.one if tokens == "one" else self.many


def python_names(method: Method) -> dict[str, str]:
    """Symbol → stable Python name, for parameters, hyperparameters and what the site provides."""
    taken: dict[str, str] = {}
    for name in [p.name for p in method.parameters] + [h.name for h in method.hyper] + [x.name for x in method.bound]:
        taken[name] = python_name(name)
    return taken


def compile_method(method: Method, sizes: Mapping[str, int], hyper: Mapping[str, Any], has_bias: bool | frozenset[str],
                   tokens: int = TOKENS, device: str = "cpu", width: int = 4,
                   adds: Callable[[], bool] | None = None) -> Compiled:
    """The compiled form of a resolved program at these sizes. Equal arguments give the same object.

    ``tokens`` is the number of tokens of a call that plans are made for, ``device`` and ``width`` (bytes of a number)
    what for; they decide which plan is the cheapest, never what it means. ``adds``: whether the program only adds to
    the base's output where the sizes are not known; asked where these sizes hide it.
    """
    rows, columns = (float(sizes.get(d, 0)) for d in _dims_of_weight(method))
    train = Regime("train", tokens, True, MACHINES.get(device, CPU), width, large=max(rows * columns / 2, SMALL))
    key = (id(method), tuple(sorted(sizes.items())), tuple(sorted(hyper.items(), key=lambda i: i[0])), has_bias, train)
    return _compile(_Key(key, method, dict(sizes), dict(hyper), has_bias, train, adds))


def _dims_of_weight(method: Method) -> tuple[str, str]:
    """The names of W's rows and columns; ("", "") where there is no W."""
    dims = next((x.space.dims for x in method.bound if x.name == "W"), ())
    names = [d.name for d in dims if isinstance(d, Var)]
    return (names[0], names[1]) if len(names) == 2 else ("", "")


class _Key:
    """A hashable bundle of arguments; the method is kept alive with it."""

    def __init__(self, key: Any, method: Method, sizes: dict[str, int], hyper: dict[str, Any],
                 has_bias: bool | frozenset[str], train: Regime, adds: Callable[[], bool] | None,
                 base_moves: bool = False) -> None:
        self.key, self.method, self.sizes, self.hyper = (key, base_moves), method, sizes, hyper
        self.has_bias, self.train, self.base_moves, self.adds = has_bias, train, base_moves, adds

    def where_the_base_moves(self) -> _Key:
        """The same for a base that is trained too."""
        return _Key(self.key[0], self.method, self.sizes, self.hyper, self.has_bias, self.train, self.adds, True)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key


@lru_cache(maxsize=512)
def _compile(k: _Key) -> Compiled:
    try:
        with budget(k.method.source, MAX_PLAN_STEPS, "plan"):
            return _planned(k)
    except RecursionError:
        raise refuse("E105", "too large: the values of this program depend on each other in too long a chain",
                     k.method.span, source=k.method.source, suggestion="fewer statements or steps of a loop") from None


def _planned(k: _Key) -> Compiled:
    method = k.method
    typed = elaborate(method, k.sizes, k.hyper, k.has_bias)
    errors = [d for d in typed.diagnostics if d.severity == "error"]
    if errors:
        raise PadpError(errors)
    if typed.output.type.kind == "unknown":
        raise refuse("E309", f"the shape of {method.output} cannot be found", method.span, source=method.source)
    room.declared(typed)
    names = python_names(method)
    if method.site == "attention":
        return _compile_attention(k, typed, names)
    weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
    has_bias = bool(k.has_bias)
    planner = planners.planner(typed.graph, weight, k.train, has_bias=has_bias, base_moves=k.base_moves)
    total = typed.output
    if method.site == "linear" and has_bias and not typed.mentions_bias:
        total = b.add(typed.graph, total, typed.graph.node("bias", (), ("bias",), total.type))
    literal = simple = planner.rules(total)
    if weight is not None:
        simple = around_base(planner.rules, literal, weight)
    try:
        output = planner.per_token(planner.value(simple))
        delta = _delta(planner, simple)
        if delta is None and any(node.op == "svd" for node in walk(total)) and _adds(k):
            parts = planner.in_parts()  # of a rank that is W's own at these sizes: the product of its parts is W
            delta = _delta(parts, parts.rules(total))
        penalty = planner.value(planner.rules(typed.penalty)) if typed.penalty is not None else None
    except b.Mismatch as m:
        raise refuse(m.code, m.message, method.span, suggestion=m.suggestion, source=method.source) from None
    many = replace(k.train, name="eval", train=False)
    one = replace(many, name="decode", tokens=1)
    trained, decisions = _settled(planner, k.train, output)
    settled = {r: _settled(planner, r, output) for r in (many, one)}
    room.planned(typed, [*trained, *(low for outputs, _ in settled.values() for low in outputs)])
    inside = {} if weight is None else _inside(planner, literal, weight, {
        k.train: trained, **{r: outputs for r, (outputs, _) in settled.items()}})
    plain_delta = None if delta is None else _settled(planner, k.train, delta)[0]
    plain_penalty = None if penalty is None else _settled(planner, k.train, penalty)[0]
    others = [r for found in (plain_delta, plain_penalty) if found is not None for r in found]
    kept = tuple(kept_values(*trained, *(r for outputs, _ in (*settled.values(), *inside.values()) for r in outputs),
                             *others))
    shared = frozenset(p.name for p in method.parameters if p.shared)
    labels = {s.value.span: python_name(s.names[0]) for s in method.body if isinstance(s, Let) and len(s.names) == 1}

    def stage(roots: Sequence[Low], given: Sequence[Low] = (), remembered: Sequence[Low] = (), *,
              as_made: bool = False) -> Stage:
        return emit(roots, method.source, names, kept, given, shared, labels, remembered, as_made=as_made)

    why = _why_not_mergeable(method, simple)
    train = stage(trained)

    def merging() -> Stage | None:
        roots = None if why is not None else _merged(planner, simple, has_bias)
        return stage(roots) if roots is not None and _from_kept(roots, kept) else None

    def stepping(plain: bool) -> Stage | None:
        regime = replace(k.train, tokens=1)
        roots = _settled(planner, regime, output)[0]
        if plain and weight is not None:
            roots = _inside(planner, literal, weight, {regime: roots}).get(regime, (roots, ()))[0]
        return stage(roots) if {id(v) for v in kept_values(*roots)} <= {id(v) for v in kept} else None

    made = Compiled(
        method=method, typed=typed, parameters=typed.parameters, names=names, kept=kept, regime=k.train,
        train=train, lean=_lean(recipes(trained, k.train), trained, stage),
        many=_evaluation(many, *settled[many], stage, train), one=_evaluation(one, *settled[one], stage, train),
        delta=None if plain_delta is None else stage(plain_delta), merging=merging,
        stepping=lambda: stepping(False),
        penalty=None if plain_penalty is None else stage(plain_penalty), planner=planner, outputs=trained,
        decisions=decisions, why_not_mergeable=why, needs_weight=_reads_weight(trained[0]), has_bias=has_bias,
        trained=lambda: _compile(k.where_the_base_moves()))
    if not inside:
        return made
    return replace(made, on_plain=replace(_on_plain(made, inside, stage), stepping=lambda: stepping(True)))


def _on_plain(made: Compiled, inside: Mapping[Regime, Planned], stage: Callable[..., Stage]) -> Compiled:
    """The same with the plans of ``inside``, and the old ones for the other regimes."""
    trained, decisions = inside.get(made.regime, (made.outputs, made.decisions))
    train = made.train if trained is made.outputs else stage(trained)
    many, one = (_evaluation(e.regime, *inside[e.regime], stage, train) if e.regime in inside else e
                 for e in (made.many, made.one))
    return replace(made, train=train, lean=_lean(recipes(trained, made.regime), trained, stage), many=many, one=one,
                   outputs=trained, decisions=decisions)


def _inside(planner: Planner, literal: Node, weight: Node, around: Mapping[Regime, tuple[Low, ...]]
            ) -> dict[Regime, Planned]:
    """Plans in which W is a matrix like any other, for the regimes in which they are clearly cheaper than ``around``.

    Only where the program has products as large as the base layer's own is there anything to win.
    """
    ((first, outputs), *_) = around.items()
    size = float(count(weight.type.item))
    own = sum(float(cost(low, first.tokens).product) for low in order(*outputs)
              if low.stage == 2 and low.prim not in ("base", "base_without_bias"))
    if own < 2 * first.tokens * size * WORTH_REPLACING or size < WORTH_PLANNING:
        return {}
    output = without_base(planner, literal, weight)[0]
    found: dict[Regime, Planned] = {}
    for regime, old in around.items():
        e = Estimate(regime, {})
        planned = _settled(planner, regime, output)
        stored, seconds = e.total(*planned[0])
        stored_before, seconds_before = e.total(*old)
        time = e.time(*old)  # the rest is the price of what is kept, which both keep
        if stored <= stored_before and seconds - (seconds_before - time) < CLEARLY * time:
            found[regime] = planned
    return found


def without_base(planner: Planner, literal: Node, weight: Node) -> tuple[Low, Low | None, Node | None]:
    """y with W as a matrix like any other; the way by the parts of W's decomposition, and what it computes, if any."""
    free = planner.without_base()
    itself = free.per_token(free.value(literal))
    parts = by_parts(planner.rules, literal, weight)
    if parts is None:
        return itself, None, None
    by = free.per_token(free.value(parts))
    ways = [("with W itself", itself), ("with the parts of its decomposition", by)]
    return free.either("a base layer that is nothing but a product", ways), by, parts


def _settled(planner: Planner, regime: Regime, *roots: Low) -> tuple[tuple[Low, ...], tuple[Decision, ...]]:
    """The roots with every choice made for a regime, and neighbouring operations fused."""
    plain, decisions = planner.settle(*roots, regime=regime)
    return fused(planner.table, plain, Estimate(regime, {})), decisions


def _lean(found: Sequence[Recipe], roots: Sequence[Low], stage: Callable[..., Stage]) -> Lean | None:
    """The training stage that drops what ``found`` makes again."""
    if not found:
        return None
    noted = list({id(v): v for v in [r.value for r in found] + [g for r in found for g in r.given]}.values())
    slots = {id(v): k for k, v in enumerate(noted)}
    again = tuple(stage([r.value], r.given, as_made=True) for r in found)
    reads_x = any(low.prim == "input" for r in found for low in order(r.value, given={id(g) for g in r.given}))
    return Lean(stage(roots, (), noted), again, tuple(tuple(slots[id(g)] for g in r.given) for r in found),
                tuple(found), reads_x)


def _evaluation(regime: Regime, outputs: tuple[Low, ...], decisions: tuple[Decision, ...],
                stage: Callable[..., Stage], train: Stage) -> Evaluation:
    whole = train if outputs == train.outputs else stage(outputs)
    steps = step_values(Estimate(regime, {}), *outputs)
    return Evaluation(regime, stage(steps) if steps else None, stage(outputs, steps), whole, outputs, decisions)


def _compile_attention(k: _Key, typed: Elaborated, names: Mapping[str, str]) -> Compiled:
    """The maps of every head as one graph; it has no tokens, so all of it is the step stage."""
    method = k.method
    planner = planners.planner(typed.graph, None, k.train, has_bias=False, base_moves=k.base_moves)
    maps, joint = attention_maps(typed, planner.rules)
    wanted = [planner.value(n) for m in maps.values() for n in (m.matrix, m.offset) if n is not None]
    roots, decisions = _settled(planner, k.train, *wanted)
    penalty = None if typed.penalty is None else \
        _settled(planner, k.train, planner.value(planner.rules(typed.penalty)))[0]
    kept = tuple(kept_values(*roots, *(penalty or ())))
    stage = emit(roots, method.source, names, kept)
    evaluation = Evaluation(replace(k.train, name="eval", train=False), stage, stage, stage, roots)
    return Compiled(
        method=method, typed=typed, parameters=typed.parameters, names=names, kept=kept, regime=k.train, train=stage,
        lean=None, many=evaluation, one=evaluation, delta=None, merging=lambda: None, stepping=lambda: None,
        penalty=None if penalty is None else emit(penalty, method.source, names, kept), planner=planner, outputs=roots,
        decisions=decisions, why_not_mergeable="an attention is merged into its projections, head by head",
        needs_weight=True, has_bias=bool(k.has_bias),
        roles=tuple((role, m.offset is not None) for role, m in maps.items()), joint=joint,
        trained=lambda: _compile(k.where_the_base_moves()))


def _reads_weight(output: Low) -> bool:
    """Whether the plan reads W itself, beside the base layer's own product."""
    return any(low.prim == "weight" for low in order(output))


def _delta(planner: Planner, simple: Node) -> Low | None:
    """y − base(x), when y is W x + bias + terms that do not use the base layer; 0 where there are none."""
    terms = list(simple.args) if simple.op == "add" else [simple]
    bias = [t for t in terms if t.op == "bias"]
    if planner.has_bias and len(bias) != 1:
        return None
    for k, term in enumerate(terms):
        others = beside_base(planner.rules, term, planner.weight)
        if others is None:
            continue
        rest = [*others, *(t for j, t in enumerate(terms) if j != k and t.op != "bias")]
        node = planner.rules.add(rest, simple.type)
        low = planner.value(node)
        return None if any(x.prim in ("base", "base_without_bias") for x in order(low)) else low
    return None


def _adds(k: _Key) -> bool:
    """Whether y = base(x) + delta(x) where the sizes are not known."""
    if k.adds is not None:
        return k.adds()
    return any(c.name == "additive" and c.holds for c in capabilities(k.method, cases(k.method)))


def _why_not_mergeable(method: Method, simple: Node) -> str | None:
    """The reason why there is no W', or None."""
    if method.site != "linear":
        return f"a {method.site} site has no weight of its own to merge into"
    good, culprit = affine(simple)
    if good:
        return None
    assert culprit is not None
    line, _ = method.source.position(culprit.span.start)
    return f"y is not affine in x: line {line} of {method.source.name} ({method.source.line(line).strip()})"


def _merged(planner: Planner, simple: Node, has_bias: bool) -> tuple[Low, ...] | None:
    """W' and bias', or None where an operator on the way has no matrix form."""
    found = matrix_of(planner.rules, simple)
    if found is None:
        return None
    with_bias = has_bias or not b.is_zero(found[1])
    try:
        roots = [planner.value(found[0])] + ([planner.value(found[1])] if with_bias else [])
    except b.Mismatch:
        return None
    return planner.settle(*roots, regime=replace(planner.regime, name="merge", tokens=1))[0]


def _from_kept(roots: Sequence[Low], kept: Sequence[Low]) -> bool:
    """Whether these can be computed from parameters, W and the kept values without decomposing anew."""
    return not any(x.prim in ("k:svd", "svd_of_product", "k:qr") for x in order(*roots, given={id(x) for x in kept}))
