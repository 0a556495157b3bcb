"""A drawing of a graph in layers: where each box stands, and which way its arrows go.

    layout([(name, band, inputs), …], box, leaf) -> Layout

Bands follow each other from the top; in a band a box stands below what it reads, one row above its first reader.
Leaves stand one row above their readers, once a row. An arrow over several rows gets a lane of its own in each. In
each row, things stand near the middle of what they are joined to (a few sweeps down and up), and never overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

LANE = 28.0
"""The width of an arrow that passes by."""
SWEEPS = 8


@dataclass(frozen=True, slots=True)
class Place:
    """Where something stands: the middle, and the row. ``entry``: of an arrow's end, where on the box, −½ … ½."""

    name: str
    x: float
    row: int
    leaf: bool = False
    entry: float = 0.0


@dataclass(frozen=True, slots=True)
class Layout:
    """All places, the arrows as the places they pass, and the bands as (name, first row, rows)."""

    places: tuple[Place, ...]
    paths: tuple[tuple[Place, ...], ...]
    bands: tuple[tuple[str, int, int], ...]
    width: float
    rows: int


def layout(steps: Sequence[tuple[str, str, Sequence[str]]], box: float, leaf: float) -> Layout:
    """Places for steps, each with its band and what it reads; what is no step is a leaf."""
    rows, bands = _rows(steps)
    lines: list[list[str]] = [[] for _ in range(max(rows.values()) + 1)]
    widths: dict[str, float] = {}
    chains: list[list[str]] = []
    named: dict[str, str] = {}
    at = dict(rows)

    def put(key: str, row: int, width: float) -> None:
        if key not in widths:
            widths[key], at[key] = width, row
            lines[row].append(key)

    for name, _, inputs in steps:
        for given in inputs:
            if given in rows:
                chain = [given]
                for row in range(rows[given] + 1, rows[name]):  # arrows from one box share their lanes
                    lane = f"{given}|{row}"
                    put(lane, row, LANE)
                    chain.append(lane)
            else:
                key = f"{given}@{rows[name] - 1}"
                put(key, rows[name] - 1, leaf)
                named[key] = given
                chain = [key]
            chains.append([*chain, name])
        put(name, rows[name], box)
    x = _positions(lines, widths, chains)
    left = min(x[k] - widths[k] / 2 for k in x)
    places = {k: Place(named.get(k, k), x[k] - left, at[k], k in named) for k in x}
    paths: list[tuple[Place, ...]] = []
    for name, _, _ in steps:
        ends = sorted((c for c in chains if c[-1] == name), key=lambda c: x[c[-2]])
        for k, chain in enumerate(ends):
            entry = (k + 1) / (len(ends) + 1) - 0.5
            paths.append((*(places[c] for c in chain[:-1]), replace(places[name], entry=entry)))
    width = max(x[k] + widths[k] / 2 for k in x) - left
    return Layout(tuple(p for k, p in places.items() if "|" not in k), tuple(paths), bands, width, len(lines))


def _rows(steps: Sequence[tuple[str, str, Sequence[str]]]) -> tuple[dict[str, int], tuple[tuple[str, int, int], ...]]:
    """The row of each step, and the bands; a band starts with a row for leaves."""
    band = {name: b for name, b, _ in steps}
    depth: dict[str, int] = {}
    for name, own, inputs in steps:
        depth[name] = 1 + max((depth[i] for i in inputs if band.get(i) == own), default=0)
    first_reader: dict[str, int] = {}
    for name, own, inputs in reversed(steps):  # down to the first reader: arrows are short, rows are narrow
        depth[name] = first_reader.get(name, depth[name] + 1) - 1
        for i in inputs:
            if band.get(i) == own:
                first_reader[i] = min(first_reader.get(i, depth[name]), depth[name])
    rows: dict[str, int] = {}
    found: list[tuple[str, int, int]] = []
    first = 0
    for own in ("attach", "step", "token"):
        inside = [n for n in depth if band[n] == own]
        if inside:
            tall = 1 + max(depth[n] for n in inside)
            found.append((own, first, tall))
            rows |= {n: first + depth[n] for n in inside}
            first += tall
    return rows, tuple(found)


def _positions(lines: Sequence[list[str]], widths: Mapping[str, float], chains: Sequence[Sequence[str]]
               ) -> dict[str, float]:
    """The middle of everything."""
    above: dict[str, list[str]] = {k: [] for k in widths}
    below: dict[str, list[str]] = {k: [] for k in widths}
    for chain in chains:
        for a, c in pairwise(chain):
            if a not in above[c]:
                above[c].append(a)
                below[a].append(c)
    x: dict[str, float] = {}
    for line in lines:
        _spread(line, widths, x, dict.fromkeys(line, 0.0))
    for sweep in range(SWEEPS):
        joined, order = (above, lines) if sweep % 2 == 0 else (below, lines[::-1])
        for line in order:
            both = sweep >= SWEEPS // 2
            wanted = {}
            for k in line:
                near = [x[o] for o in (*joined[k], *((below if joined is above else above)[k] if both else ()))]
                wanted[k] = sum(near) / len(near) if near else x[k]
            _spread(line, widths, x, wanted)
    return x


def _spread(line: list[str], widths: Mapping[str, float], x: dict[str, float], wanted: Mapping[str, float]) -> None:
    """Each as near to where it wants to be as its neighbours let it: groups that touch stand around their mean."""
    line.sort(key=lambda k: wanted[k])
    groups: list[tuple[list[str], float]] = []  # members, and the left edge of the group
    for k in line:
        group, start = [k], wanted[k] - widths[k] / 2
        while groups and groups[-1][1] + sum(widths[m] for m in groups[-1][0]) > start:
            group = groups.pop()[0] + group
            offset, ideal = 0.0, 0.0
            for m in group:
                ideal += wanted[m] - widths[m] / 2 - offset
                offset += widths[m]
            start = ideal / len(group)
        groups.append((group, start))
    for group, start in groups:
        for m in group:
            x[m] = start + widths[m] / 2
            start += widths[m]
