"""Steps of a chain ``R ← stepᵢ @ R`` that have a closed form.

    I + c · u wᵀ                     a reflection or any rank-one change: the chain is a compact WY form
    I with four entries at i, j set  a plane rotation (or any 2×2 block): the chain is rounds of disjoint rotations
"""

from __future__ import annotations

from dataclasses import dataclass

from padp.compiler.ir.nodes import Node

APART = ("tree", "pairs", "halves", "neighbours")
"""Index sets whose first two columns are different numbers in every row: two coordinates of a plane."""


def apart(i: Node, j: Node) -> bool:
    """Whether two indices never agree: the two coordinates in the rows of one such set."""
    return i.op == j.op == "column" and i.args[0] is j.args[0] and i.args[0].op in APART \
        and {i.attrs[1], j.attrs[1]} == {0, 1}


@dataclass(frozen=True, slots=True)
class RankOne:
    """stepᵢ = I + cᵢ · uᵢ wᵢᵀ (c None: 1)."""

    c: tuple[Node, ...]
    u: Node
    w: Node


@dataclass(frozen=True, slots=True)
class Plane:
    """stepᵢ = I, except [[a, b], [c, d]] in the rows and columns (i, j). None: the identity's own entry."""

    i: Node
    j: Node
    a: Node | None
    b: Node | None
    c: Node | None
    d: Node | None


def rank_one_update(step: Node) -> RankOne | None:
    """``I + c u wᵀ`` in any of its spellings, or None."""
    if step.op != "add" or len(step.args) != 2:
        return None
    eyes = [a for a in step.args if a.op == "eye"]
    rest = [a for a in step.args if a.op != "eye"]
    if len(eyes) != 1 or len(rest) != 1:
        return None
    scalars: list[Node] = []
    node = rest[0]
    while node.op == "scale":
        scalars.append(node.args[0])
        node = node.args[1]
    if node.op == "outer" and not node.args[0].type.family:
        return RankOne(tuple(scalars), node.args[0], node.args[1])
    return None


def plane_rotation(step: Node) -> Plane | None:
    """``G ← I; G[i,i] ← a; G[i,j] ← b; G[j,i] ← c; G[j,j] ← d``, or None."""
    entries: dict[tuple[int, int], Node] = {}
    indices: dict[int, Node] = {}
    node = step
    while node.op == "put" and len(node.args) == 4:
        base, value, row, col = node.args
        indices.setdefault(id(row), row)
        indices.setdefault(id(col), col)
        entries.setdefault((id(row), id(col)), value)  # the outermost write is the last one
        node = base
    if node.op != "eye" or len(indices) != 2 or not apart(*indices.values()):
        return None
    first, second = sorted(indices.values(), key=lambda n: n.attrs[1])
    i, j = id(first), id(second)
    return Plane(first, second, entries.get((i, i)), entries.get((i, j)), entries.get((j, i)), entries.get((j, j)))
