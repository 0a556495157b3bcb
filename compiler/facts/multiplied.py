"""Whether a value is 0 once all its products are multiplied out: (A + B) C − A C − B C is.

    Multiplied(rules).zero(node)        True: it is 0;  False: not shown

The normal form takes common factors out, which is what plans want, but then two ways of writing one value may stay
two: (I − Q Qᵀ) W + Q (Qᵀ W + B) is W + Q B only after the brackets are gone. Here a value is a sum of words,

    c · s t … · A B … v        a number, scalars in one order, a chain of factors

and equal words are counted together. Entries of one-hots and cancelling pairs are the normal form's own rules.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import sympy as sp

from padp.compiler.ir import build as b
from padp.compiler.ir.budget import spend
from padp.compiler.ir.nodes import Node, walk
from padp.compiler.normal.normal_form import Simplifier

MOST = 256
"""Words that a value may have; what has more is not shown to be anything."""

_OF_EACH_TERM = frozenset({"t", "blkdiag", "diag", "sumloop", "stack", "spread", "expand", "slice", "lying", "skew",
                           "circulant", "diagonal", "grouped", "assemble", "blocks", "take", "Re", "Im", "trace"})
"""f(a + c b) = f(a) + c f(b)."""


@dataclass(frozen=True)
class Word:
    """``number`` · the scalars · the product of the factors (one factor: any value; none: a scalar)."""

    number: Any
    scalars: tuple[Node, ...] = ()
    factors: tuple[Node, ...] = ()


class _TooMany(Exception):
    """More words than are looked at."""


class Multiplied:
    """Values as sums of words, each once."""

    def __init__(self, rules: Simplifier) -> None:
        self.rules, self.g = rules, rules.g
        self._known: dict[int, list[Word]] = {}

    def zero(self, node: Node) -> bool:
        """Whether a value is 0, all products multiplied out."""
        counted: dict[tuple[Any, ...], Any] = {}
        try:
            for word in self._whole(node):
                key = (tuple(sorted(s.number for s in word.scalars)), tuple(f.number for f in word.factors))
                counted[key] = counted.get(key, 0) + word.number
        except (_TooMany, b.Mismatch):
            return False
        return all(sp.expand(sp.sympify(c)) == 0 for c in counted.values())

    # ------------------------------------------------------------ words

    def _whole(self, root: Node) -> list[Word]:
        """The words of a value, each product rewritten by the rules once more now that its brackets are gone."""
        return [made for word in self._words(root) for made in self._again(word)]

    def _again(self, word: Word) -> Iterable[Word]:
        if len(word.factors) < 2:
            return [word]
        joined = self.rules.prod(word.factors)
        if joined.op == "prod" and joined.args == word.factors:
            return [word]
        if joined.op in ("add", "scale", "full", "prod"):
            return [Word(word.number * w.number, (*word.scalars, *w.scalars), w.factors)
                    for w in self._words(joined)]
        return [Word(word.number, word.scalars, (joined,))]

    def _words(self, root: Node) -> list[Word]:
        for node in walk(root):
            if id(node) not in self._known:
                spend()
                self._known[id(node)] = made = self._made(node)
                if len(made) > MOST:
                    raise _TooMany
        return self._known[id(root)]

    def _made(self, node: Node) -> list[Word]:
        """The words of a node, whose arguments' words are known."""
        known = self._known
        if b.is_zero(node):
            return []
        match node.op:
            case "const":
                return [Word(node.attrs[0])]
            case "full":
                return [Word(node.attrs[0], (), (b.full(self.g, 1, node.type),))]
            case "add" if all(a.type == node.type for a in node.args):
                return [w for a in node.args for w in known[id(a)]]
            case "scale":
                return _times(known[id(node.args[0])], known[id(node.args[1])])
            case "mul" if not node.type.rank:
                return _times(*(known[id(a)] for a in node.args))
            case "prod":
                return _times(*(known[id(a)] for a in node.args))
            case "solve" if node.args[1].type.rank == 2 or not node.type.batch:
                return _times([Word(1, (), (self.rules.inv(node.args[0]),))], known[id(node.args[1])])
            case "mul" if node.type.rank == 1 and not node.type.row and self._reads_x(node):
                scaling, vector = node.args if self._reads_x(node.args[1]) else reversed(node.args)
                if self._reads_x(scaling):
                    return self._pairs(node)
                return _times(self._diagonals(scaling), known[id(vector)])
            case "mul" | "outer" | "dot" | "kron":
                return self._pairs(node)
            case "div":
                return self._quotient(node)
            case op if op in _OF_EACH_TERM:
                return self._of_each(node)
            case _:
                return [self._atom(node)]

    def _atom(self, node: Node) -> Word:
        return Word(1, (), (node,)) if node.type.rank else Word(1, (node,))

    def _value(self, word: Word) -> Node:
        """A word without its number, as one value."""
        value: Node = self.rules.prod(word.factors) if word.factors else self.g.const(1)
        for s in sorted(word.scalars, key=lambda s: s.number):
            value = self.rules.scale(s, value)
        return value

    def _diagonals(self, v: Node) -> list[Word]:
        """diag(a + b) = diag(a) + diag(b)."""
        values = [(w.number, self._value(w)) for w in self._known[id(v)]]
        if any(a.type != v.type for _, a in values):
            values = [(1, v)]
        return [Word(c, (), (self.rules.diag(a),)) for c, a in values]

    def _pairs(self, node: Node) -> list[Word]:
        """f(a + b, c) = f(a, c) + f(b, c), and in the second argument."""
        first, second = node.args
        left, right = self._known[id(first)], self._known[id(second)]
        if len(left) * len(right) < 2:
            return [self._atom(node)]
        if len(left) * len(right) > MOST:
            raise _TooMany
        found: list[Word] = []
        for u in left:
            for v in right:
                values = (self._value(u), self._value(v))
                if values[0].type != first.type or values[1].type != second.type:
                    return [self._atom(node)]
                found.append(self._counted(u.number * v.number, self.rules.make(node, values)))
        return found

    def _of_each(self, node: Node) -> list[Word]:
        words = self._known[id(node.args[0])]
        if len(words) < 2 and all(w.number == 1 for w in words):
            return [self._atom(node)]
        values = [self._value(w) for w in words]
        if any(v.type != node.args[0].type for v in values):
            return [self._atom(node)]
        return [self._counted(w.number, self.rules.make(node, (v, *node.args[1:])))
                for w, v in zip(words, values, strict=True)]

    def _quotient(self, node: Node) -> list[Word]:
        """(a + b) / c = a · 1/c + b · 1/c for a number c."""
        top, below = node.args
        if below.type.rank or (top.op == "const" and top.value == 1):
            return [self._atom(node)]
        return _times([Word(1, (b.div(self.g, self.g.const(1), below, node.attrs),))], self._known[id(top)])

    def _counted(self, number: Any, value: Node) -> Word:
        """A value that is a multiple of another, as that."""
        while value.op == "scale" and value.args[0].op == "const":
            number, value = number * value.args[0].value, value.args[1]
        if value.op == "const":
            return Word(number * value.value)
        made = self._atom(value)
        return Word(number, made.scalars, value.args if value.op == "prod" else made.factors)

    def _reads_x(self, node: Node) -> bool:
        return any(n.op == "input" for n in walk(node))


def _times(*sums: Sequence[Word]) -> list[Word]:
    """The product of sums of words: each word of one with each of the next."""
    found = [Word(1)]
    for words in sums:
        if len(found) * len(words) > MOST:
            raise _TooMany
        found = [Word(u.number * v.number, (*u.scalars, *v.scalars), (*u.factors, *v.factors))
                 for u in found for v in words]
    return found
