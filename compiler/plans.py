"""A chosen plan as data: its operations with their source lines, stages and costs, and the naive reading's cost."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

from padp.compiler.compiled import Compiled
from padp.compiler.costs import cost
from padp.compiler.ir import walk
from padp.compiler.low import LEAVES, STAGES, VIEWS, order


@dataclass(frozen=True)
class PlanStep:
    """One operation: what it makes, in which stage, at which cost (FLOPs for all tokens), and the line it came from."""

    operation: str
    shape: tuple[Any, ...]
    stage: str
    flops: float
    line: int
    text: str


@dataclass(frozen=True)
class Plan:
    """A plan for ``tokens`` tokens. ``naive`` is the FLOPs of building every matrix that the program names."""

    adapter: str
    tokens: int
    steps: tuple[PlanStep, ...]
    naive: float
    kept_bytes: int

    @property
    def flops(self) -> float:
        """FLOPs of the step and token stages, the base layer's own included."""
        return sum(s.flops for s in self.steps if s.stage != "attach")

    def __str__(self) -> str:
        lines = [f"plan of {self.adapter} for {self.tokens} tokens: {self.flops:.3g} FLOPs, "
                 f"built densely {self.naive:.3g}; {self.kept_bytes} bytes kept beside W"]
        for s in self.steps:
            shape = "×".join(map(str, s.shape)) or "scalar"
            lines.append(f"  {s.stage:6} {s.operation:18} {shape:16} {s.flops:10.3g}  line {s.line}: {s.text}")
        return "\n".join(lines)


def plan_of(compiled: Compiled) -> Plan:
    """The training plan of a compiled program."""
    source = compiled.method.source
    steps: list[PlanStep] = []
    for low in order(*compiled.outputs):
        if low.prim in LEAVES or low.prim in VIEWS:
            continue
        line, _ = source.position(low.span.start)
        flops = cost(low, compiled.regime.tokens).flops
        steps.append(PlanStep(low.prim.split(":")[-1], low.dims, STAGES[low.stage], flops, line,
                              source.line(line).strip()))
    tokens = compiled.regime.tokens
    kept = sum(4 * int(prod(int(d) for d in low.dims)) for low in compiled.kept)
    return Plan(compiled.method.name, tokens, tuple(steps), _naive(compiled), kept)


def _naive(compiled: Compiled) -> float:
    """FLOPs of the dense reading: every matrix product at its full size, x included once."""
    total = 0.0
    tokens = compiled.regime.tokens
    for node in walk(compiled.typed.output):
        batch = prod(int(d) for d in node.type.batch) if node.type.batch else 1
        if node.op == "prod":
            for left, right in zip(node.args, node.args[1:], strict=False):
                columns = int(right.type.item[1]) if right.type.rank == 2 else tokens
                total += 2.0 * batch * int(node.args[0].type.item[0]) * int(left.type.item[1]) * columns
        elif node.op == "inv":
            total += 2.0 * batch * int(node.type.item[0]) ** 3
        elif node.op == "fold":
            size, steps = int(node.type.item[0]), int(node.attrs[0].size)
            total += 2.0 * steps * size ** 3
    return total
