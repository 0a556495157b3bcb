"""What the literal reading of a program costs: every matrix that it names is built, x comes last.

    naive(typed, tokens, machine, width) -> Naive

Products are taken from left to right, as ``A @ B @ x`` is in Python; a chain of matrices is multiplied out step by
step; everything else is one pass over its result. Backward is a product for each factor that passes a gradient. What
depends on frozen tensors alone is made once and is not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from padp.compiler.elaborate.state import Elaborated
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.plan.search import Machine

FREE = ("param", "weight", "bias", "input", "knob", "const", "full", "eye", "iota", "column", "t", "detach", "view",
        "reshape", "out", "column_of", "entry", "lying", "spread", "expand", "carry")
"""Nothing is computed here."""
BY_VALUE = ("mul", "scale", "outer", "dot", "kron", "div")
"""What autograd keeps of these is what went in; of others, what came out."""


@dataclass(frozen=True, slots=True)
class Naive:
    """FLOPs and bytes moved, forward and backward; bytes held for backward; built matrices as large as W."""

    flops: float
    flops_back: float
    moved: float
    moved_back: float
    held: float
    matrices: int
    seconds: float
    seconds_back: float


def naive(typed: Elaborated, tokens: int, machine: Machine, width: int) -> Naive:
    """The cost of the output as it is written."""
    weight = next((n for n in walk(typed.output) if n.op == "weight"), None)
    reading = _Reading(tokens, machine, width, float("inf") if weight is None else _numbers(weight))
    for node in walk(typed.output):
        reading.add(node)
    held = sum(reading.size(n) for n in reading.held.values()) * width
    return Naive(reading.flops, reading.flops_back, reading.moved * width, reading.moved_back * width, held,
                 reading.matrices, reading.seconds, reading.seconds_back)


def _numbers(node: Node) -> float:
    return float(prod(int(d) for d in node.type.shape))


class _Reading:
    """Adds up, node by node, arguments first."""

    def __init__(self, tokens: int, machine: Machine, width: int, large: float) -> None:
        self.tokens, self.machine, self.width, self.large = tokens, machine, width, large
        self.matrices = 0
        self.flops = self.flops_back = self.moved = self.moved_back = self.seconds = self.seconds_back = 0.0
        self.moves: dict[int, bool] = {}
        self.grad: dict[int, bool] = {}
        self.held: dict[int, Node] = {}

    def size(self, node: Node) -> float:
        """Numbers in a value; one for each token if it depends on x."""
        return _numbers(node) * (self.tokens if self.moves[id(node)] else 1)

    def add(self, node: Node) -> None:
        self.moves[id(node)] = node.op == "input" or any(self.moves[id(a)] for a in node.args)
        self.grad[id(node)] = node.op in ("input", "knob") or (node.op == "param" and node.attrs[-1] == "learned") or \
            (node.op != "detach" and any(self.grad[id(a)] for a in node.args))
        if node.op in FREE or not (self.grad[id(node)] or self.moves[id(node)]):
            return
        made, read = self.size(node), sum(self.size(a) for a in node.args)
        if node.op != "prod":
            self._built(node.type.rank == 2 and not self.moves[id(node)], made)
        match node.op:
            case "prod":
                self._product(node)
            case "inv" | "svd" | "qr" | "orthonormal" | "expm":
                n = float(min(int(d) for d in node.args[0].type.item))
                self._count(2 * made * n, 0 if not self.grad[id(node)] else 4 * made * n, made + read, product=True)
            case "fold":
                n, steps = int(node.type.item[0]), int(node.attrs[0].size)
                self._count(2.0 * steps * n ** 3, 4.0 * steps * n ** 3, 3.0 * steps * n * n, product=True)
            case _:
                self._count(made, made if self.grad[id(node)] else 0, made + read)
        self._hold(node)

    def _product(self, node: Node) -> None:
        """((F₁ F₂) F₃) …: each the size of what it makes times what it sums over."""
        first = node.args[0]
        batch = float(prod(int(d) for d in node.type.batch)) if node.type.batch else 1.0
        rows, left = int(first.type.item[0]), self.size(first)
        grad, moves = self.grad[id(first)], self.moves[id(first)]
        for before, factor in zip(node.args, node.args[1:], strict=False):
            moves = moves or self.moves[id(factor)]
            columns = int(factor.type.item[1]) if factor.type.rank == 2 else 1
            made = batch * rows * columns * (self.tokens if moves else 1)
            work = 2 * made * int(before.type.item[-1])
            read = left + self.size(factor)
            self._count(work, work * (grad + self.grad[id(factor)]), made + read, product=True)
            self._built(first.type.rank == 2 and factor.type.rank == 2 and not moves, made)
            left, grad = made, grad or self.grad[id(factor)]

    def _built(self, matrix: bool, numbers: float) -> None:
        self.matrices += matrix and numbers >= self.large

    def _count(self, flops: float, back: float, moved: float, *, product: bool = False) -> None:
        speed = self.machine.products if product else self.machine.others
        moved_back = moved * back / flops if flops else 0.0
        self.flops, self.flops_back = self.flops + flops, self.flops_back + back
        self.moved, self.moved_back = self.moved + moved, self.moved_back + moved_back
        self.seconds += flops / speed + self.width * moved / self.machine.bytes + self.machine.call
        if back:
            self.seconds_back += back / speed + self.width * moved_back / self.machine.bytes + 2 * self.machine.call

    def _hold(self, node: Node) -> None:
        """What backward needs: of a product each factor whose partner learns, but not what lies there anyway."""
        if not self.grad[id(node)] or node.op == "add":
            return
        learns = [self.grad[id(a)] for a in node.args]
        inputs = [a for a, own in zip(node.args, learns, strict=True) if sum(learns) > own]
        for a in inputs if node.op in ("prod", *BY_VALUE) else [node]:
            if a.op not in FREE or a.op == "input":
                self.held[id(a)] = a
