"""What holds for every plan of the library: what is built and kept, how often the base layer is called, how the code
reads, that each pass keeps types and meaning, and that planning is the same in every process.
"""

from __future__ import annotations

import ast
import inspect
import keyword
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from math import prod
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, fx

import padp
from padp.compiler.explain.plan import plan_of
from padp.compiler.graph.compile import Compiled
from padp.compiler.graph.remade import remember
from padp.compiler.graph.stages import printed, read, run
from padp.compiler.ir.nodes import Node, show_graph, walk
from padp.compiler.kernels.table import PRIMS, from_compute, to_compute
from padp.compiler.normal.decompositions import around_base
from padp.compiler.plan.steps import LEAVES, VIEWS, Low, order
from tests.support.agreement import built
from tests.support.literal import literal
from tests.support.unseen import PROGRAMS

ROOT = Path(__file__).parents[2]
HYPER: Mapping[str, Mapping[str, Any]] = {
    "lora": {"r": 4}, "oft": {"k": 4}, "vera": {"r": 5}, "dora": {"r": 4}, "delora": {"r": 4}, "pissa": {"r": 4},
    "ssvd": {"k": 3}, "antipasto": {"k": 3}, "adalora": {"r": 4, "steps": 9}, "boft": {"k": 2, "F": 2}, "hra": {"r": 4},
    "randlora": {"r": 4}, "fourierft": {"k": 10}, "psoft": {"r": 3}, "road": {"g": 4}, "svft": {"count": 40},
    "goft": {}, "ia3": {},
}  # fmt: skip
LINEAR = [(name, variant) for name in HYPER for variant in (padp.compile(name).variants or (None,))]
BUILDS = {
    "svft": "U M Vᵀ with M as large as W is the method",
    "randlora": "D = Σ Bⱼ Λⱼ A Γⱼ has full rank: its factors hold as much as W",
    "fourierft": "the spectrum is as large as W",
}
"""Methods whose change to W is itself a matrix as large as W, with the reason."""


def hyper_of(name: str, variant: str | None) -> dict[str, Any]:
    known = {h.name for h in padp.compile(name).method(variant).hyper}
    return {k: v for k, v in HYPER[name].items() if k in known}


@cache
def plan(name: str, variant: str | None, m: int, n: int) -> Compiled:
    adapter = padp.compile(name)
    chosen = adapter.settings(variant, **hyper_of(name, variant))
    compiled: Compiled = adapter.compiled({"m": m, "n": n}, chosen.variant, chosen.hyper, True)[0]
    return compiled


def size(low: Low) -> int:
    return prod(int(d) for d in low.type.shape) * prod(int(d) for d in low.lead if d != "T")


def steps(compiled: Compiled) -> list[Low]:
    return order(*compiled.outputs)


each = pytest.mark.parametrize(("name", "variant"), LINEAR)


# ---------------------------------------------------------------- what a plan does


@each
@pytest.mark.parametrize(("m", "n"), [(192, 288), (288, 192), (256, 256)])
def test_nothing_as_large_as_W_is_built_or_kept(name: str, variant: str | None, m: int, n: int) -> None:
    compiled = plan(name, variant, m, n)
    made = [low for low in steps(compiled) if low.stage == 1 and low.prim not in LEAVES and size(low) >= m * n]
    assert name in BUILDS or not made
    kept = [low for low in compiled.kept if size(low) >= m * n]
    assert name == "svft" or not kept


@pytest.mark.parametrize("name", BUILDS)
def test_what_may_build_does(name: str) -> None:
    """An entry of BUILDS that no longer builds has to go."""
    found = [low for _, variant in LINEAR if _ == name for low in steps(plan(name, variant, 192, 288))
             if low.stage < 2 and low.prim not in LEAVES and size(low) >= 192 * 288]
    assert found


@each
def test_the_base_layer_is_called_once(name: str, variant: str | None) -> None:
    calls = [low for low in steps(plan(name, variant, 192, 288)) if low.prim in ("base", "base_without_bias")]
    assert len(calls) == 1 and calls[0].lead == ("T",)


@each
def test_steps_do_not_grow_with_the_sizes(name: str, variant: str | None) -> None:
    """Loops over rows, pairs and blocks are one operation each.

    GOFT's tree has one round more for twice the size, of nine operations with its views; other sizes may take another
    way of a few operations more or less.
    """
    counts = [len(steps(plan(name, variant, m, n))) for m, n in ((192, 288), (384, 576), (768, 1152))]
    assert max(counts) - min(counts) <= (18 if name == "goft" else 4)
    assert max(counts) < (140 if name == "goft" else 90)


# ---------------------------------------------------------------- generated code


def calls(graph: fx.Graph) -> list[fx.Node]:
    return [n for n in graph.nodes if n.op == "call_function"]


@each
def test_the_graph_is_functional_and_points_back(name: str, variant: str | None) -> None:
    compiled = plan(name, variant, 192, 288)
    source, known = compiled.method.source, {id(f) for f in PRIMS.values()}
    lines = [line.strip() for line in source.text.splitlines()]
    lean = [] if compiled.lean is None else [compiled.lean.stage, *compiled.lean.again]
    for stage in (compiled.train, *lean, compiled.many.step, compiled.many.token, compiled.one.step, compiled.one.token,
                  compiled.delta, compiled.merged, compiled.penalty):
        if stage is None:
            continue
        for node in stage.graph.graph.nodes:
            assert node.op in ("placeholder", "call_function", "output")
            assert node.name.isidentifier() and node.name.isascii() and not keyword.iskeyword(node.name)
        for node in calls(stage.graph.graph):
            if node.target in (to_compute, from_compute, read, remember):
                continue
            target: Any = node.target
            assert id(target) in known or target.__name__ == "getitem"
            assert not target.__name__.endswith("_"), f"{target} changes a tensor in place"
            first, last = str(node.meta["stack_trace"]).strip().splitlines()
            assert first.startswith(f'File "{source.name}", line ')
            assert last.strip() in lines


@each
def test_the_code_reads(name: str, variant: str | None) -> None:
    """Python, and above every statement, or the first of several, the line of the program that it comes from."""
    compiled = plan(name, variant, 192, 288)
    code = printed(compiled.train)
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef) and isinstance(function.body[-1], ast.Return)
    lines = [line.strip() for line in compiled.method.source.text.splitlines()]
    said = [line.strip().removeprefix("# ") for line in code.splitlines() if line.strip().startswith("# ")]
    assert said and all(line in lines for line in said)
    body = code.splitlines()[1:-1]
    first = next(k for k, line in enumerate(body) if line.strip().startswith("#"))
    assert all(".to(" in line for line in body[:first]), "only the cast of x stands before the first source line"


def test_in_place_operations_are_not_among_the_prims() -> None:
    for name, f in PRIMS.items():
        assert not getattr(f, "__name__", "").rstrip("0123456789").endswith("_"), name
        if inspect.isfunction(f):
            assert "index_put_" not in inspect.getsource(f) and ".copy_(" not in inspect.getsource(f), name


# ---------------------------------------------------------------- every pass keeps types and meaning


def verify(root: Node) -> None:
    """The rules of the IR: loops in order and once, sizes positive, elementwise arguments of one item."""
    for node in walk(root):
        uids = [a.uid for a in node.type.loops]
        assert uids == sorted(set(uids)), node
        if node.type.kind in ("text", "unknown"):
            continue
        assert all(int(d) >= 0 for d in node.type.shape), node
        if node.op in ("add", "mul"):
            assert all(a.type.item == node.type.item for a in node.args), node
        if node.op == "prod":
            for left, right in zip(node.args, node.args[1:], strict=False):
                assert left.type.item[1] == right.type.item[0], node
        for a in node.args:  # an axis of a loop disappears only where the loop is closed
            gone = {x.uid for x in a.type.loops} - set(uids)
            assert not gone or (node.op in ("sumloop", "stack", "fold") and gone == {node.attrs[0].uid}), node


def everything() -> list[tuple[str, dict[str, Any], str | None]]:
    library = [(name, hyper_of(name, variant), variant) for name, variant in LINEAR]
    return library + [(text, dict(hyper), None) for text, hyper in PROGRAMS.values()]


@pytest.mark.parametrize(("program", "hyper", "variant"), everything(),
                         ids=[f"{n}-{v}" if v else n for n, v in LINEAR] + list(PROGRAMS))
def test_each_pass_keeps_types_and_meaning(program: str, hyper: dict[str, Any], variant: str | None) -> None:
    """Elaborated, in normal form, around the base layer: each valid, and each the same number.

    The plan's operations have the shapes that they say.
    """
    m, n = 16, 24
    layer = built(program, m, n, hyper, variant=variant, by=0.2)
    module = layer.adapters["default"]
    compiled: Compiled = module.compiled
    x = torch.randn(n, generator=torch.Generator().manual_seed(3), dtype=torch.double)
    values: dict[str, Tensor] = {"W": layer.base.weight, "bias": layer.base.bias, "x": x}
    values |= {name: module.tensors[name] for name in compiled.parameters}
    values |= {name: torch.tensor(v, dtype=torch.double) for name, v in module.knobs.items()}
    rules, raw = compiled.planner.rules, compiled.typed.output
    simple = rules(raw)
    around = around_base(rules, simple, compiled.typed.names["W"])
    with torch.no_grad():
        meanings = []
        for node in (raw, simple, around):
            verify(node)
            meanings.append(literal(node, values))
    for one in meanings[1:]:
        torch.testing.assert_close(one, meanings[0], rtol=1e-9, atol=1e-9)
    leaves = {(kind, name): t for name, t in values.items() for kind in ("param", "weight", "bias", "knob")}
    known: dict[int, Any] = {}
    with torch.no_grad():
        run(compiled.outputs, leaves, x, layer.base, x.expand(5, n), known)
    for low in steps(compiled):
        made = known[id(low)]
        if isinstance(made, Tensor) and low.prim not in VIEWS and low.prim not in LEAVES:
            want = tuple(5 if d == "T" else int(d) for d in low.dims)
            assert torch.broadcast_shapes(made.shape, want) == want, f"{low}: {tuple(made.shape)}"


# ---------------------------------------------------------------- determinism


def shown() -> str:
    """Every library program in normal form, its generated code and its plan."""
    parts: list[str] = []
    for name, variant in LINEAR:
        compiled = plan(name, variant, 192, 288)
        parts += [show_graph(compiled.planner.rules(compiled.typed.output)), printed(compiled.train),
                  str(plan_of(compiled))]
    return "\n".join(parts)


def test_planning_is_the_same_in_every_process() -> None:
    """Here and in a process with another order of sets and dictionaries by hash."""
    other = "1" if os.environ.get("PYTHONHASHSEED") != "1" else "2"
    ran = subprocess.run([sys.executable, "-c", "from tests.plan.test_planner import shown; print(shown())"],
                         capture_output=True, text=True, env={**os.environ, "PYTHONHASHSEED": other}, cwd=ROOT,
                         timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr[-2000:]
    assert ran.stdout.count("def forward") == len(LINEAR)
    assert ran.stdout == shown() + "\n"
