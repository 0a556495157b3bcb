"""Tensor operations → torch.fx.

    emit(roots, inputs) -> GraphModule with placeholders for the leaves and what earlier stages computed

The graphs hold no state: base layer, parameters and buffers come in as arguments, so all layers of one shape share
them. Every node carries the source line it came from (``meta["stack_trace"]``). ``run`` executes the same operations
one by one; the attach stage and initial values use it.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx, nn

from padp.compiler.graph.few_tokens import direct
from padp.compiler.graph.remade import remember
from padp.compiler.kernels.table import ALIASES, MAKE_COMPLEX, NEEDS_LIKE, PRIMS, from_compute, to_compute
from padp.compiler.plan.search import Estimate
from padp.compiler.plan.steps import LEAVES, Low, order, source
from padp.dsl.source import Source, Span

Leaf = tuple[str, str]
"""(kind, name): ("param", "A"), ("weight", "W"), ("bias", "bias"), ("knob", "α"), ("kept", "3")."""


class Stage:
    """One compiled function: ``graph(x, base, training, *leaves)`` → outputs, built when it is first used."""

    def __init__(self, outputs: Sequence[Low], build: Callable[[], tuple[fx.GraphModule, tuple[Leaf, ...]]]) -> None:
        self.outputs = tuple(outputs)
        self._build = build
        self._built: tuple[fx.GraphModule, tuple[Leaf, ...]] | None = None
        self._direct: Callable[..., Tensor] | None = None

    def ready(self) -> tuple[fx.GraphModule, tuple[Leaf, ...]]:
        """Build the graph if nobody has: torch.compile must find it built."""
        if self._built is None:
            self._built = self._build()
        return self._built

    @property
    def graph(self) -> fx.GraphModule:
        return (self._built or self.ready())[0]

    @property
    def direct(self) -> Callable[..., Tensor]:
        """The graph as a function of a few tokens that nobody looks into (``graph/few_tokens.py``)."""
        if self._direct is None:
            self._direct = direct(self.graph.graph)
        return self._direct

    @property
    def leaves(self) -> tuple[Leaf, ...]:
        """What the graph reads, in the order of its arguments."""
        return (self._built or self.ready())[1]

    @cached_property
    def reads_base(self) -> bool:
        """Whether the base's weight or bias is among them."""
        return any(kind in ("weight", "bias") for kind, _ in self.leaves)


def leaf_key(low: Low) -> Leaf:
    return low.prim, str(low.args[0])


def run(roots: Sequence[Low], leaves: Mapping[Leaf, Tensor], like: Tensor, base: nn.Module | None = None,
        x: Tensor | None = None, known: dict[int, Any] | None = None) -> list[Any]:
    """The values of ``roots``, computed now, operation by operation. ``known`` carries them on to a later run."""
    values: dict[int, Any] = {} if known is None else known

    def resolve(a: Any) -> Any:
        if isinstance(a, Low):
            return values[id(a)]
        if isinstance(a, tuple) and any(isinstance(i, Low) for i in a):
            return tuple(resolve(i) for i in a)
        return a

    for low in order(*roots):
        if id(low) in values:
            continue
        if low.prim == "input":
            assert x is not None
            values[id(low)] = x
        elif low.prim in LEAVES:
            values[id(low)] = narrowed(leaves[leaf_key(low)], low)
        elif low.prim in ALIASES:
            values[id(low)] = resolve(low.args[0])
        elif low.prim in ("base", "base_without_bias"):
            assert base is not None and x is not None
            values[id(low)] = PRIMS[low.prim](base, resolve(low.args[0]), x)
        else:
            args = [resolve(a) for a in low.args]
            if low.prim == "dropout":
                args.append(False)
            if low.prim in NEEDS_LIKE:
                args.append(like)
            made = PRIMS[low.prim](*args)
            if low.prim.startswith("i:") or low.prim == "k:perm":
                made = made.to(like.device) if low.prim.startswith("i:") else made.to(like.dtype)
            values[id(low)] = made
    return [values[id(r)] for r in roots]


def narrowed(t: Tensor, low: Low) -> Tensor:
    """A shared tensor that is larger than this site needs is read from index 0."""
    want = tuple(int(d) for d in low.type.shape)
    if tuple(t.shape) == want or low.prim != "param" or t.dim() != len(want):
        return t
    for axis, size in enumerate(want):
        t = t.narrow(axis, 0, size)
    return t


def emit(roots: Sequence[Low], source: Source, names: Mapping[str, str], kept: Sequence[Low],
         given: Sequence[Low] = (), shared: frozenset[str] = frozenset(),
         labels: Mapping[Span, str] | None = None, remembered: Sequence[Low] = (), *, as_made: bool = False) -> Stage:
    """A graph that computes ``roots``; values in ``kept`` (buffers) and ``given`` (a step's) come in as arguments.

    ``names`` has the Python names of what the program names; ``shared`` parameters may be larger than this site needs.
    ``labels`` names what a statement assigns, by the place of its right side. Outputs are cast to the precision of the
    base's output (or of x) when they are per token, unless wanted ``as_made``. ``remembered`` values are noted as they
    are made (``graph/remade.py``).
    """
    return Stage(roots, lambda: _graph(roots, source, names, kept, given, shared, labels, remembered, as_made))


def _graph(roots: Sequence[Low], source: Source, names: Mapping[str, str], kept: Sequence[Low], given: Sequence[Low],
           shared: frozenset[str], labels: Mapping[Span, str] | None, remembered: Sequence[Low], as_made: bool
           ) -> tuple[fx.GraphModule, tuple[Leaf, ...]]:
    """The graph and what it reads."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    base = graph.placeholder("base")
    training = graph.placeholder("training")
    leaves: list[Leaf] = []
    nodes: dict[int, fx.Node] = {}
    stored = {id(v): k for k, v in enumerate(kept)}
    outside = {id(v): k for k, v in enumerate(given)}
    slots = {id(v): k for k, v in enumerate(remembered)}
    used: set[str] = {"x", "base", "training", "self"}

    def place(key: Leaf, name: str) -> fx.Node:
        while name in used:
            name += "_"
        used.add(name)
        leaves.append(key)
        made = graph.create_node("placeholder", name, name=name)
        made.target = made.name  # fx gives names of Python and of its own globals another ending; the argument takes it
        return made

    needed = order(*roots, given={*stored, *outside})
    like: fx.Node | None = None
    for low in needed:  # placeholders first: fx wants them before anything else
        if id(low) in outside:
            nodes[id(low)] = place(("step", str(outside[id(low)])), f"step_{outside[id(low)]}")
        elif id(low) in stored:
            nodes[id(low)] = place(("kept", str(stored[id(low)])), f"kept_{stored[id(low)]}")
        elif low.prim in LEAVES and low.prim != "input":
            nodes[id(low)] = place(leaf_key(low), names.get(str(low.args[0]), str(low.args[0])))
    like_key = place(("like", ""), "like")
    like = like_key
    compute = graph.call_function(to_compute, (x, like)) if any(n.prim == "input" for n in needed) else x
    last_base: fx.Node | None = None

    def resolve(a: Any) -> Any:
        if isinstance(a, Low):
            return nodes[id(a)]
        if isinstance(a, tuple) and any(isinstance(i, Low) for i in a):
            return tuple(resolve(i) for i in a)
        return a

    for low in needed:
        if id(low) in nodes:
            if low.prim == "param" and low.args[0] in shared and id(low) not in outside and id(low) not in stored:
                narrow = graph.call_function(read, (nodes[id(low)], tuple(int(d) for d in low.type.shape)))
                narrow.meta["stack_trace"] = trace(source, low)
                nodes[id(low)] = narrow
            continue
        if low.prim == "input":
            nodes[id(low)] = compute
            continue
        if low.prim in ALIASES:
            nodes[id(low)] = resolve(low.args[0])
            continue
        args = tuple(resolve(a) for a in low.args)
        if low.prim in ("base", "base_without_bias"):
            node = graph.call_function(PRIMS[low.prim], (base, *args, x))
            last_base = node
        else:
            if low.prim == "dropout":
                args = (*args, training)
            if low.prim in NEEDS_LIKE:
                args = (*args, like)
            target = operator.getitem if low.prim == "getitem" else PRIMS[low.prim]
            label = (labels or {}).get(low.span)
            node = graph.create_node("call_function", target, args, name=label)
        node.meta.update(stack_trace=trace(source, low), low=low)
        if id(low) in slots:
            node = graph.call_function(remember, (node, slots[id(low)]))
        nodes[id(low)] = node
    outputs: list[Any] = []
    if any(low.prim in MAKE_COMPLEX or low.type.kind == "complex" for low in needed):
        last_base = None  # the base may have been called for complex numbers
    for root in roots:
        node = nodes[id(root)]
        if "T" in root.lead and not as_made:
            node = graph.call_function(from_compute, (node, last_base if last_base is not None else x))
        outputs.append(node)
    graph.output(tuple(outputs) if len(outputs) != 1 else outputs[0])
    graph.lint()
    return fx.GraphModule(nn.Module(), graph), tuple(leaves)


def read(t: Tensor, shape: Sequence[int]) -> Tensor:
    """A parameter as this site sees it: a shared one that is larger is read from index 0."""
    if tuple(t.shape) != tuple(shape):
        for axis, size in enumerate(shape):
            t = t.narrow(axis, 0, size)
    return t


def trace(source: Source, low: Low) -> str:
    """A stack frame that names the source line."""
    line, _ = source.position(low.span.start)
    return f'File "{source.name}", line {line}, in program\n    {source.line(line).strip()}\n'


def step_values(e: Estimate, *roots: Low) -> list[Low]:
    """Step-stage values that the token stage reads: kept in eval. What is as large as W is made anew instead."""
    found: dict[int, Low] = {}
    for low in order(*roots):
        for x in low.inputs():
            if x.stage == 1 and x.prim not in LEAVES and e.stored_for(low, x):
                found[id(source(x))] = source(x)
    return list(found.values())


def printed(stage: Stage) -> str:
    """The graph as readable torch code, the source line above each statement that starts a new one."""
    lines: list[str] = []
    last = ""
    names = [n.name for n in stage.graph.graph.nodes if n.op == "placeholder"]
    lines.append(f"def forward({', '.join(n for n in names if n not in ('training',))}):")
    for node in stage.graph.graph.nodes:
        if node.op == "placeholder":
            continue
        if node.op == "output":
            lines.append(f"    return {_text(node.args[0])}")
            continue
        where = str(node.meta.get("stack_trace", "")).strip().splitlines()
        if where and where[-1].strip() != last:
            last = where[-1].strip()
            lines.append(f"    # {last}")
        lines.append(f"    {node.name} = {_call(node)}")
    return "\n".join(lines)


_NAMES = {id(f): n for n, f in PRIMS.items()}
_INFIX = {"add": "+", "sub": "-", "mul": "*", "div": "/", "pow": "**", "matmul": "@", "mv": "@"}


def _call(node: fx.Node) -> str:
    target: Any = node.target
    name = _NAMES.get(id(target), getattr(target, "__name__", str(target)))
    args = [_text(a) for a in node.args]
    bare = name.split(":")[-1]
    if name in _INFIX and len(args) == 2:
        return f"{args[0]} {_INFIX[name]} {args[1]}"
    match name:
        case "base":
            return f"base({args[1]})"
        case "base_without_bias":
            return f"base({args[1]}) - base.bias"
        case "neg":
            return f"-{args[0]}"
        case "mT":
            return f"{args[0]}.mT"
        case "linear":
            return f"F.linear({', '.join(args)})"
        case "to_compute" | "from_compute":
            return f"{args[0]}.to({args[1]}.dtype)"
        case "read":
            return args[0]
        case "getitem":
            return f"{args[0]}[{args[1]}]"
        case _:
            home = "torch." if getattr(torch, bare, None) is target else "prims."
            return f"{home}{bare}({', '.join(args)})"


def _text(value: Any) -> str:
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (tuple, list)):
        return "(" + ", ".join(_text(v) for v in value) + ("," if len(value) == 1 else "") + ")"
    return repr(value)
