"""A plan as a picture: SVG text, nothing needed to make it.

    picture(plan, "train") -> str

Stages are bands, from attach at the top to token. A box is a step: what it makes, its cost, its line. The warmer a box,
the larger its share of the time; the wider an arrow, the more bytes it carries. Dashed: backward makes the value again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from xml.sax.saxutils import escape

from padp.compiler.explain.drawing import Layout, Place, layout
from padp.compiler.explain.record import EACH_CALL, PlanStep, Record, RegimePlan
from padp.compiler.explain.text import count, shape, size, time, title

BOX, LEAF = (268, 64), (64, 26)
GAP = 48
"""Between rows: where arrows bend."""
MARGIN = 24
LINE = {17: (26, 10.6), 12: (20, 7.2), 11: (18, 6.7)}
"""By size of the letters: the height of a line and, for the widest font that may be taken, the width of a letter."""
BANDS = {"attach": "#eef2f7", "step": "#f3f0f8", "token": "#eef6f0"}
MEANING = {"attach": "attach: once", "step": "step: when a parameter changes", "token": "token: for each token"}


def picture(plan: Record, regime: str = "train") -> str:
    """The plan of one regime, ``train``, ``eval`` or ``decode``, as SVG."""
    chosen = {r.name: r for r in plan.regimes}[regime]
    steps = {f"#{s.number}": s for s in chosen.steps}
    placed = layout([(f"#{s.number}", s.stage, s.inputs) for s in chosen.steps], BOX[0] + 28, LEAF[0] + 20)
    width = max(placed.width + 2 * MARGIN, 640)
    head, below = _head(plan, chosen, width - 2 * MARGIN)
    middles, ends = _rows(placed, below)
    height = ends[-1] + MARGIN
    shift = (width - placed.width) / 2
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" '
        f'height="{height:.0f}" font-family="DejaVu Sans, Segoe UI, Helvetica, Arial, sans-serif" font-size="12">',
        f"<title>{escape(f'plan of {plan.adapter}, {title(chosen)}')}</title>",
        '<rect width="100%" height="100%" fill="#ffffff"/>',
        *_bands(placed, ends, width),
        *head,
        *_arrows(placed, steps, middles, chosen.tokens, plan.width, shift),
        *(_leaf(p, middles[p.row], shift) for p in placed.places if p.leaf),
        *(line for p in placed.places if not p.leaf
          for line in _box(steps[p.name], p.x + shift, middles[p.row], chosen)),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _rows(placed: Layout, top: float) -> tuple[list[float], list[float]]:
    """Below ``top``: the middle of each row, and the upper end of each with the lower end of the last. Rows of leaves
    are lower."""
    tall = {p.row for p in placed.places if not p.leaf}
    starts = {first for _, first, _ in placed.bands}
    middles: list[float] = []
    ends = [top]
    for row in range(placed.rows):
        filled = row in {p.row for p in placed.places}
        height = (BOX[1] if row in tall else LEAF[1] if filled else 0) + (20 if row in starts else 0)
        middles.append(ends[-1] + GAP / 2 + height - (BOX[1] if row in tall else LEAF[1] if filled else 0) / 2)
        ends.append(ends[-1] + height + GAP)
    return middles, ends


def _head(plan: Record, r: RegimePlan, room: float) -> tuple[list[str], float]:
    """What stands above the bands, in lines that fit, and where it ends."""
    sizes = ", ".join(f"{k} = {v}" for k, v in plan.sizes.items())
    named = f"{plan.adapter}, {plan.variant}" if plan.variant else plan.adapter
    back = f" + {count(r.flops_back)} backward" if r.name == "train" else ""
    told = [f"{count(r.flops)} FLOPs{back}", f"{time(r.seconds)} by the cost model"]
    if r.name == "train":
        told.append(f"{size(r.held_bytes)} kept for backward")
    if r.dropped_bytes:
        told.append(f"{size(r.dropped_bytes)} made again")
    legend = ["warmer: a larger share of the time", "wider arrow: more bytes", "dashed: made again in backward",
              "● kept for backward", "■ stored"]
    y, out = 6.0, list[str]()
    for pieces, between, letters, style in (
            ([f"{named}: {title(r)}", sizes], ", ", 17, "font-size='17' font-weight='bold'"),
            (told, " · ", 12, "fill='#444'"), (legend, " · ", 11, "fill='#777' font-size='11'")):
        high, wide = LINE[letters]
        for line in _fitting(pieces, between, room / wide):
            y += high
            out.append(_text(MARGIN, y, line, style))
    return out, y + 16


def _fitting(pieces: Sequence[str], between: str, most: float) -> list[str]:
    """Pieces put together to lines of at most so many letters; a longer piece has a line for itself."""
    lines: list[str] = []
    for piece in pieces:
        if lines and len(lines[-1]) + len(between) + len(piece) <= most:
            lines[-1] += between + piece
        else:
            lines.append(piece)
    return lines


def _bands(placed: Layout, ends: Sequence[float], width: float) -> Iterator[str]:
    for stage, first, rows in placed.bands:
        yield f'<rect x="8" y="{ends[first] + 2:.0f}" width="{width - 16:.0f}" rx="8" ' \
            f'height="{ends[first + rows] - ends[first] - 4:.0f}" fill="{BANDS[stage]}"/>'
        yield _text(18, ends[first] + 20, MEANING[stage], "fill='#8a8f98' font-size='11'")


def _box(s: PlanStep, x: float, y: float, r: RegimePlan) -> Iterator[str]:
    """A step around (x, y)."""
    w, h = BOX
    x, y = x - w / 2, y - h / 2
    share = s.seconds / r.seconds if r.seconds and s.runs == EACH_CALL else 0.0
    dash = ' stroke-dasharray="6 4"' if s.again else ""
    flops = f"{count(s.flops)}{f' + {count(s.flops_back)}' if s.flops_back else ''} FLOPs"
    marks = ("● " if s.held else "") + ("■ " if s.stored else "")
    yield f'<g id="step{s.number}">'
    yield f"<title>{escape(f'line {s.line}: {s.text}')}</title>"
    yield f'<rect x="{x:.1f}" y="{y:.1f}" width="{w}" height="{h}" rx="6" fill="{_warm(share)}" ' \
        f'stroke="#5b6470" stroke-width="1.2"{dash}/>'
    yield _text(x + 10, y + 19, f"{marks}#{s.number} {s.operation}", "font-weight='bold'")
    yield _text(x + w - 10, y + 19, shape(s.shape), "text-anchor='end'")
    told = f"{flops} · {size(s.moved + s.moved_back)} · {time(s.seconds)}"
    yield _text(x + 10, y + 37, told, "font-size='11' fill='#333'")
    yield _text(x + 10, y + 54, _short(f"{s.line}: {s.text}", 40), "font-size='10' fill='#666'")
    yield "</g>"


def _leaf(p: Place, y: float, shift: float) -> str:
    w, h = LEAF
    x = p.x + shift
    return f'<rect x="{x - w / 2:.1f}" y="{y - h / 2:.1f}" width="{w}" height="{h}" rx="13" fill="#ffffff" ' \
        'stroke="#8a8f98"/>' + _text(x, y + 4, _short(p.name, 8), "text-anchor='middle'")


def _arrows(placed: Layout, steps: dict[str, PlanStep], middles: Sequence[float], tokens: int, each: int, shift: float
            ) -> Iterator[str]:
    """From the lower edge of what is read to the upper edge of its reader; upright where it passes a row."""
    yield '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto" ' \
        'markerUnits="userSpaceOnUse"><path d="M0 0 L8 4 L0 8 z" fill="#6b7480"/></marker></defs>'
    half = BOX[1] / 2
    for first, *lanes, last in placed.paths:
        start = steps.get(first.name)
        wide = 1.2 if start is None else _thick(start, tokens, each)
        dash = ' stroke-dasharray="6 4"' if start is not None and start.again else ""
        points = [(first.x + shift, middles[first.row] + (LEAF[1] / 2 if start is None else half))]
        for p in lanes:
            points += [(p.x + shift, middles[p.row] - half), (p.x + shift, middles[p.row] + half)]
        points.append((last.x + shift + last.entry * BOX[0] * 0.7, middles[last.row] - half - 2))
        yield f'<path d="{_curve(points)}" fill="none" stroke="#6b7480" stroke-opacity="0.75" ' \
            f'stroke-width="{wide:.1f}"{dash} marker-end="url(#tip)"/>'


def _curve(points: Sequence[tuple[float, float]]) -> str:
    """Through all points, upright at each."""
    text = f"M{points[0][0]:.1f} {points[0][1]:.1f}"
    for (x, y), (u, v) in pairwise(points):
        middle = (y + v) / 2
        text += f" C{x:.1f} {middle:.1f} {u:.1f} {middle:.1f} {u:.1f} {v:.1f}"
    return text


def _thick(s: PlanStep, tokens: int, each: int) -> float:
    """From 1 for a kilobyte to 6 for a gigabyte."""
    made = each * math.prod(tokens if d == "T" else int(d) for d in s.shape)
    return min(6.0, max(1.0, 1 + 5 * (math.log10(max(made, 1)) - 3) / 6))


def _warm(share: float) -> str:
    """White for nothing, orange for everything."""
    at = math.sqrt(min(max(share, 0.0), 1.0))
    return "#" + "".join(f"{round(255 + (c - 255) * at):02x}" for c in (247, 148, 72))


def _text(x: float, y: float, words: str, style: str = "") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'


def _short(words: str, most: int) -> str:
    return words if len(words) <= most else words[:most - 1] + "…"
