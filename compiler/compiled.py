"""One compiled program for one set of sizes: what all layers of that shape share.

    compile_method(method, sizes, hyper, has_bias) -> Compiled
        train    x, base → y                     step and token stages in one graph
        step     → values cached in eval;  token  x, base, those → y
        delta    x → y − base(x)                 when the program only adds to the base's output
        merged   → W', bias'                     when y is affine in x
        penalty  → the ``minimise`` terms
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from padp.compiler import build as b
from padp.compiler import lower
from padp.compiler.attention import attention_maps
from padp.compiler.elaborate import elaborate
from padp.compiler.emit import Stage, emit, step_values
from padp.compiler.ir import Node
from padp.compiler.linear import affine, base_product, matrix_of
from padp.compiler.low import Low, kept_values, order
from padp.compiler.planner import Planner
from padp.compiler.rules import around_base
from padp.compiler.state import Elaborated, Learned
from padp.compiler.terms import Let, Method
from padp.dsl.diagnostics import PadpError, refuse
from padp.dsl.spellings import python_name

TOKENS = 1024
"""The number of tokens that a plan is made for when nobody says another."""


@dataclass(frozen=True)
class Compiled:
    """The graphs of one program at one shape. ``kept`` are the attach-stage values that become buffers."""

    method: Method
    typed: Elaborated
    parameters: Mapping[str, Learned]
    names: Mapping[str, str]
    kept: tuple[Low, ...]
    train: Stage
    step: Stage | None
    token: Stage
    delta: Stage | None
    merged: Stage | None
    penalty: Stage | None
    planner: Planner
    outputs: tuple[Low, ...]
    why_not_mergeable: str | None
    needs_weight: bool
    has_bias: bool
    roles: tuple[tuple[str, bool], ...] = ()
    joint: bool = False

    @property
    def additive(self) -> bool:
        return self.delta is not None


def python_names(method: Method) -> dict[str, str]:
    """Symbol → stable Python name, for parameters, hyperparameters and what the site provides."""
    taken: dict[str, str] = {}
    for name in [p.name for p in method.parameters] + [h.name for h in method.hyper] + [x.name for x in method.bound]:
        taken[name] = python_name(name)
    return taken


def compile_method(method: Method, sizes: Mapping[str, int], hyper: Mapping[str, Any], has_bias: bool | frozenset[str],
                   tokens: int = TOKENS) -> Compiled:
    """The compiled form of a resolved program at these sizes. Equal arguments give the same object."""
    key = (id(method), tuple(sorted(sizes.items())), tuple(sorted(hyper.items(), key=lambda i: i[0])), has_bias, tokens)
    return _compile(_Key(key, method, dict(sizes), dict(hyper), has_bias, tokens))


class _Key:
    """A hashable bundle of arguments; the method is kept alive with it."""

    def __init__(self, key: Any, method: Method, sizes: dict[str, int], hyper: dict[str, Any],
                 has_bias: bool | frozenset[str], tokens: int) -> None:
        self.key, self.method, self.sizes, self.hyper = key, method, sizes, hyper
        self.has_bias, self.tokens = has_bias, tokens

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self.key == other.key


@lru_cache(maxsize=512)
def _compile(k: _Key) -> Compiled:
    method = k.method
    typed = elaborate(method, k.sizes, k.hyper, k.has_bias)
    errors = [d for d in typed.diagnostics if d.severity == "error"]
    if errors:
        raise PadpError(errors)
    if typed.output.type.kind == "unknown":
        raise refuse("E309", f"the shape of {method.output} cannot be found", method.span, source=method.source)
    names = python_names(method)
    if method.site == "attention":
        return _compile_attention(k, typed, names)
    weight = next((n for n in [typed.names.get("W")] if n is not None and n.op == "weight"), None)
    has_bias = bool(k.has_bias)
    planner = lower.planner(typed.graph, weight, k.tokens, has_bias=has_bias)
    total = typed.output
    if method.site == "linear" and has_bias and not typed.mentions_bias:
        total = b.add(typed.graph, total, typed.graph.node("bias", (), ("bias",), total.type))
    simple = planner.rules(total)
    if weight is not None:
        simple = around_base(planner.rules, simple, weight)
    try:
        output = planner.per_token(planner.value(simple))
        delta = _delta(planner, simple)
        penalty = planner.value(planner.rules(typed.penalty)) if typed.penalty is not None else None
    except b.Mismatch as m:
        raise refuse(m.code, m.message, method.span, suggestion=m.suggestion, source=method.source) from None
    roots = [r for r in (output, delta, penalty) if r is not None]
    kept = tuple(kept_values(*roots))
    steps = step_values(output)
    merged, why = _merged(planner, method, simple, kept, names, has_bias)
    shared = frozenset(p.name for p in method.parameters if p.shared)

    labels = {s.value.span: python_name(s.names[0]) for s in method.body if isinstance(s, Let) and len(s.names) == 1}

    def stage(roots: Sequence[Low], given: Sequence[Low] = ()) -> Stage:
        return emit(roots, method.source, names, kept, given, shared, labels)

    return Compiled(
        method, typed, typed.parameters, names, kept, stage([output]), stage(steps) if steps else None,
        stage([output], steps), stage([delta]) if delta is not None else None, merged,
        stage([penalty]) if penalty is not None else None, planner, (output,), why,
        _reads_weight(output),
        has_bias)


def _compile_attention(k: _Key, typed: Elaborated, names: Mapping[str, str]) -> Compiled:
    """The maps of every head as one graph; it has no tokens, so all of it is the step stage."""
    method = k.method
    planner = lower.planner(typed.graph, None, k.tokens, has_bias=False)
    maps, joint = attention_maps(typed, planner.rules)
    roots = [planner.value(n) for m in maps.values() for n in (m.matrix, m.offset) if n is not None]
    penalty = planner.value(planner.rules(typed.penalty)) if typed.penalty is not None else None
    kept = tuple(kept_values(*roots, *([penalty] if penalty is not None else [])))
    stage = emit(roots, method.source, names, kept)
    return Compiled(
        method, typed, typed.parameters, names, kept, stage, stage, stage, None, None,
        emit([penalty], method.source, names, kept) if penalty is not None else None, planner, tuple(roots),
        "an attention is merged into its projections, head by head", True, bool(k.has_bias),
        tuple((role, m.offset is not None) for role, m in maps.items()), joint)


def _reads_weight(output: Low) -> bool:
    """Whether the plan reads W itself, beside the base layer's own product."""
    return any(low.prim == "weight" for low in order(output))


def _delta(planner: Planner, simple: Node) -> Low | None:
    """y − base(x), when y is W x + bias + terms that do not use the base layer."""
    terms = list(simple.args) if simple.op == "add" else [simple]
    bias = [t for t in terms if t.op == "bias"]
    if planner.has_bias and len(bias) != 1:
        return None
    for k, term in enumerate(terms):
        found = base_product(planner.rules, term, planner.weight)
        if found is None or found[0].op != "input":
            continue
        rest = [*found[1], *(t for j, t in enumerate(terms) if j != k and t.op != "bias")]
        if not rest:
            return None
        node = planner.rules.add(rest, simple.type)
        low = planner.value(node)
        return None if any(x.prim in ("base", "base_without_bias") for x in order(low)) else low
    return None


def _merged(planner: Planner, method: Method, simple: Node, kept: Sequence[Low], names: Mapping[str, str],
            has_bias: bool) -> tuple[Stage | None, str | None]:
    """The graph of W' and bias', or the reason why there is none. (None, None): affine, but only by applying it."""
    if method.site != "linear":
        return None, f"a {method.site} site has no weight of its own to merge into"
    good, culprit = affine(simple)
    if not good:
        assert culprit is not None
        line, _ = method.source.position(culprit.span.start)
        return None, f"y is not affine in x: line {line} of {method.source.name} ({method.source.line(line).strip()})"
    found = matrix_of(planner.rules, simple)
    if found is None:
        return None, None
    try:
        roots = [planner.value(found[0])] + ([planner.value(found[1])] if has_bias or not b.is_zero(found[1]) else [])
    except b.Mismatch:
        return None, None
    stored = {id(x) for x in kept}
    if any(x.prim in ("k:svd", "k:qr") and id(x) not in stored for x in order(*roots, given=stored)):
        return None, None
    shared = frozenset(p.name for p in method.parameters if p.shared)
    return emit(roots, method.source, names, kept, (), shared), None
