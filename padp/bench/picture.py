"""What was measured as a picture: each maker's ratio to PEFT, which is 1, on a logarithmic axis.

    ratio(maker, method) = number(maker, method) / number(PEFT, method)

Left of 1 is faster or smaller. A method that PEFT does not have is set against its hand-written form, one without
either against the frozen layer; its points are hollow. All panels of a picture have the methods in one order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from padp.bench.measure import Measured
from padp.bench.methods import HAND, OURS, PEFT
from padp.bench.report import LEAST_BYTES, tokens_said

PLOTS = (".png", ".svg", ".pdf")
COLOURS = {OURS: "#2a6fbb", PEFT: "#d98236", HAND: "#5a9a55"}
MARKS = {OURS: "o", PEFT: "|", HAND: "D"}

Number = Callable[[Measured], float]
PANELS: tuple[tuple[str, Number, Number], ...] = (
    ("training step", lambda row: row.step, lambda row: row.frozen_step),
    ("evaluation", lambda row: row.evaluation, lambda row: row.frozen_evaluation),
    ("kept for backward beside x", lambda row: max(row.saved, LEAST_BYTES), lambda row: LEAST_BYTES))
"""A title, the number, and the frozen layer's."""


def why_no_plot(path: Path) -> str | None:
    """What stands in the way of a plot, before anything is measured."""
    if path.suffix not in PLOTS:
        return f"{path.name}: a plot is one of {', '.join(PLOTS)}"
    if find_spec("matplotlib") is None:
        return "a plot needs matplotlib: pip install matplotlib"
    return None


def plot(rows: Sequence[Measured], path: Path) -> None:
    """A row of panels for each place and number of tokens; the legend stands below them all."""
    from matplotlib.figure import Figure

    good = [row for row in rows if not row.error]
    places = list(dict.fromkeys((row.place, row.tokens) for row in good))
    methods = list(dict.fromkeys(row.method for row in good))
    height = max(1, len(places)) * (1.1 + 0.27 * len(methods)) + 0.7
    figure = Figure(figsize=(13, height), layout="constrained")
    panels = figure.subplots(max(1, len(places)), len(PANELS), squeeze=False, sharey=True)
    for (place, tokens), line in zip(places, panels, strict=False):
        here = [row for row in good if (row.place, row.tokens) == (place, tokens)]
        for panel, (title, number, frozen) in zip(line, PANELS, strict=True):
            panel.set_title(f"{title}\n{place}, {tokens_said(tokens)}", fontsize=9)
            _draw(panel, here, methods, number, frozen)
    _legend(figure, good)
    figure.savefig(path, dpi=130)


def ratios(rows: Sequence[Measured], number: Number, frozen: Number) -> dict[str, tuple[str, dict[str, float]]]:
    """For each method what it is set against (PEFT, the hand-written form or ""), and every maker's ratio to that."""
    found: dict[str, tuple[str, dict[str, float]]] = {}
    for method in dict.fromkeys(row.method for row in rows):
        by: Mapping[str, Measured] = {row.maker: row for row in rows if row.method == method}
        against = next((maker for maker in (PEFT, HAND) if maker in by), "")
        one = number(by[against]) if against else frozen(next(iter(by.values())))
        found[method] = against, {maker: number(row) / one for maker, row in by.items()}
    return found


def _draw(panel: Any, rows: Sequence[Measured], methods: Sequence[str], number: Number, frozen: Number) -> None:
    panel.axvline(1.0, color="#444444", linewidth=0.9, zorder=1)
    for method, (against, by) in ratios(rows, number, frozen).items():
        y = methods.index(method)
        panel.plot([min(*by.values(), 1), max(*by.values(), 1)], [y, y], color="#cfd4da", linewidth=2, zorder=2)
        for maker, ratio in reversed(by.items()):  # ours lies on top
            colour = COLOURS.get(maker, "#777777")
            size, edge = (9, 2.2) if maker == PEFT else (5.5, 1.2)
            panel.plot([ratio], [y], MARKS.get(maker, "s"), color=colour, markersize=size, markeredgewidth=edge,
                       markerfacecolor=colour if against == PEFT else "white", zorder=3)
    panel.set_xscale("log")
    _mark(panel)
    panel.set_yticks(range(len(methods)), methods)
    panel.set_ylim(len(methods) - 0.5, -0.5)
    panel.grid(axis="x", color="#e7eaee", zorder=0)


def _mark(panel: Any) -> None:
    """Numbers on the axis: few where it is long."""
    low, high = panel.get_xlim()
    low, high = min(low, 0.8), max(high, 1.25)
    panel.set_xlim(low, high)
    near, far = (0.2, 0.5, 0.8, 1.25, 2, 5), (0.001, 0.01, 0.1, 1, 10, 100, 1000)
    shown = sorted(t for t in (*far, *(near if high / low < 40 else ())) if low <= t <= high)
    panel.set_xticks(shown, [f"{t:g}" for t in shown])
    panel.minorticks_off()


def _legend(figure: Any, rows: Sequence[Measured]) -> None:
    from matplotlib.lines import Line2D

    makers = list(dict.fromkeys(row.maker for row in rows))
    handles = [Line2D([], [], linestyle="", marker=MARKS.get(maker, "s"), color=COLOURS.get(maker, "#777777"),
                      label=maker) for maker in makers]
    if PEFT in makers:
        one = "PEFT = 1, left of it is faster or smaller; hollow: not in PEFT, the hand-written form = 1"
    else:
        one = "hand-written form = 1" if HAND in makers else "frozen layer = 1"
    handles.append(Line2D([], [], color="#444444", linewidth=0.9, label=one))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), fontsize=9, frameon=False)
