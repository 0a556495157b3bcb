"""What the demo ends with: a table of all runs, a plot, and the same numbers as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from padp.cli.output import number, table

COLOURS = {"linear": "#2a6fbb", "hidden": "#d98236", "attention": "#3a8f4d"}
SITES = {"linear": "linear layers", "hidden": "hidden states", "attention": "attentions"}


@dataclass(frozen=True)
class Run:
    """An adapter that was trained and measured. ``error`` is the standard error of ``gain``, over the sentences."""

    name: str
    title: str
    site: str
    settings: str
    rate: float
    scalars: int
    attach_seconds: float
    step_seconds: float
    mrr: float
    top10: float
    gain: float
    error: float


def runs_table(runs: Sequence[Run], frozen_mrr: float, frozen_top10: float) -> Table:
    """One row a run, the best on top; the frozen encoder on its place among them."""
    made = table("adapter", "settings", ">rate", ">scalars", ">attach", ">step", ">MRR", ">gain", ">first 10")
    rows = [(run.mrr, [run.title, run.settings, f"{run.rate:g}", number(run.scalars), f"{run.attach_seconds:.1f} s",
                       f"{1000 * run.step_seconds:.0f} ms", f"{run.mrr:.3f}", f"{run.gain:+.3f} ± {run.error:.3f}",
                       f"{100 * run.top10:.0f} %"]) for run in runs]
    frozen = ["(frozen)", "", "", "0", "", "", f"{frozen_mrr:.3f}", "", f"{100 * frozen_top10:.0f} %"]
    for _, row in sorted([*rows, (frozen_mrr, frozen)], key=lambda each: -each[0]):
        made.add_row(*row, style="bold" if row is frozen else None)
    return made


def write_json(path: Path, runs: Sequence[Run], frozen_mrr: float, settings: Mapping[str, Any]) -> None:
    """All numbers, for whoever wants to draw them otherwise."""
    data = {"settings": dict(settings), "frozen_mrr": frozen_mrr, "runs": [asdict(run) for run in runs]}
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def plot(runs: Sequence[Run], frozen_mrr: float, path: Path) -> None:
    """Held-out quality, trained scalars and time per step, one line an adapter, the best on top."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    ranked = sorted(runs, key=lambda run: run.mrr)
    places = range(len(ranked))
    colours = [COLOURS[run.site] for run in ranked]
    figure = Figure(figsize=(13, 1.8 + 0.3 * len(ranked)), layout="constrained")
    quality, scalars, step = figure.subplots(1, 3, sharey=True, width_ratios=(1.5, 1, 1))

    for place, run, colour in zip(places, ranked, colours, strict=True):
        quality.errorbar(run.mrr, place, xerr=run.error, fmt="o", color=colour, markersize=6, capsize=3)
    line = quality.axvline(frozen_mrr, color="#444444", linewidth=1, linestyle="--")
    quality.legend([line], [f"frozen encoder: {frozen_mrr:.3f}"], loc="lower right", fontsize=8)
    quality.set_yticks(places, [run.title for run in ranked])
    quality.set_title("held-out search quality: mean of 1/rank\n(± standard error of the gain over frozen)",
                      fontsize=10)

    scalars.plot([run.scalars for run in ranked], places, linestyle="")
    scalars.hlines(places, 1, [run.scalars for run in ranked], color=colours, linewidth=1.2)
    scalars.scatter([run.scalars for run in ranked], places, color=colours, s=30)
    scalars.set_xscale("log")
    scalars.set_xlim(min(run.scalars for run in ranked) / 3, max(run.scalars for run in ranked) * 12)
    for place, run in zip(places, ranked, strict=True):
        scalars.annotate(number(run.scalars), (run.scalars, place), xytext=(6, 0), textcoords="offset points",
                         va="center", fontsize=8)
    scalars.set_title("trained scalars", fontsize=10)

    times = [1000 * run.step_seconds for run in ranked]
    step.barh(places, times, 0.6, color=colours)
    for place, time in zip(places, times, strict=True):
        step.annotate(f"{time:.0f}", (time, place), xytext=(3, 0), textcoords="offset points", va="center", fontsize=8)
    step.margins(x=0.12)
    step.set_title("time of a training step, ms", fontsize=10)

    for panel in (quality, scalars, step):
        panel.grid(axis="x", color="#dddddd", linewidth=0.6)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
    here = [site for site in COLOURS if any(run.site == site for run in runs)]
    figure.legend(handles=[Patch(color=COLOURS[site], label=f"adapts {SITES[site]}") for site in here],
                  loc="outside lower center", ncols=len(here), frameon=False, fontsize=9)
    figure.savefig(path, dpi=130)
