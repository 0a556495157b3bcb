"""What was measured, for people and for programs: means, tables, JSON."""

from __future__ import annotations

import math
import platform
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from padp.bench.measure import Measured
from padp.bench.methods import OURS, PEFT, RIVALS

HEAVY = ("BOFT", "HRA")
"""The two methods whose published form is so slow that they alone would make a good mean."""
LEAST_BYTES = 1 << 16
"""What is kept for backward counts as at least this much in a ratio: keeping nothing is not infinitely better."""
MIB = 1024 * 1024


@dataclass(frozen=True)
class Means:
    """Geometric means of theirs/ours over the methods that both managed: above 1, ours is faster or smaller."""

    rival: str
    place: str
    tokens: int
    methods: tuple[str, ...]
    step: float
    evaluation: float
    saved: float
    saved_with_x: float


Row = tuple[Measured, Measured]
"""(ours, theirs)."""


def pairs(rows: Iterable[Measured], rival: str) -> dict[tuple[str, int], dict[str, Row]]:
    """(ours, theirs) by place and tokens and method, where both were measured."""
    by: dict[tuple[str, int], dict[str, dict[str, Measured]]] = {}
    for row in rows:
        if not row.error:
            by.setdefault((row.place, row.tokens), {}).setdefault(row.method, {})[row.maker] = row
    found = {where: {method: (makers[OURS], makers[rival]) for method, makers in methods.items()
                     if OURS in makers and rival in makers}
             for where, methods in by.items()}
    return {where: methods for where, methods in found.items() if methods}


def means(rows: Sequence[Measured]) -> list[Means]:
    """For each rival, place and number of tokens: the means of all methods; beside PEFT also without the heavy ones."""
    found: list[Means] = []
    for rival in RIVALS:
        for (place, tokens), methods in pairs(rows, rival).items():
            lighter = {method: pair for method, pair in methods.items() if method not in HEAVY}
            for some in (methods, lighter) if rival == PEFT and 0 < len(lighter) < len(methods) else (methods,):
                found.append(Means(rival, place, tokens, tuple(some), *(
                    geometric(gain(pair) for pair in some.values())
                    for gain in (step_gain, evaluation_gain, saved_gain, saved_with_x_gain))))
    return found


def geometric(numbers: Iterable[float]) -> float:
    """(a₁ a₂ … a_k)^{1/k}."""
    logarithms = [math.log(number) for number in numbers]
    return math.exp(sum(logarithms) / len(logarithms))


def step_gain(pair: Row) -> float:
    return pair[1].step / pair[0].step


def evaluation_gain(pair: Row) -> float:
    return pair[1].evaluation / pair[0].evaluation


def saved_gain(pair: Row) -> float:
    return max(pair[1].saved, LEAST_BYTES) / max(pair[0].saved, LEAST_BYTES)


def saved_with_x_gain(pair: Row) -> float:
    mine, yours = (max(one.saved + one.kept_x, LEAST_BYTES) for one in pair)
    return yours / mine


# ---------------------------------------------------------------- text


def draw(out: Console, rows: Sequence[Measured], table: Callable[..., Table]) -> None:
    """The tables: times and bytes for each place and number of tokens, then attaching and merging for each place."""
    for place, tokens in dict.fromkeys((row.place, row.tokens) for row in rows):
        here = [row for row in rows if (row.place, row.tokens) == (place, tokens)]
        out.print(_times(place, tokens, here, table))
        noise = [row.noise for row in here if not row.error]
        if noise:
            out.print(f"noise: the medians of the rounds differ by {median(noise):.0%} (half of the rows) to "
                      f"{max(noise):.0%}")
        out.print()
    for place in dict.fromkeys(row.place for row in rows):
        first: dict[tuple[str, str], Measured] = {}
        for row in rows:
            if row.place == place and not row.error:
                first.setdefault((row.method, row.maker), row)
        if first:
            out.print(_once(place, first.values(), table))
            out.print()
    for one in means(rows):
        every = pairs(rows, one.rival)[one.place, one.tokens]
        left = [name for name in HEAVY if name not in one.methods and name in every]
        of = "1 method" if len(one.methods) == 1 else f"{len(one.methods)} methods"
        out.print(f"{one.place}, {tokens_said(one.tokens)}, geometric mean of {one.rival}/{OURS} over {of}"
                  f"{' without ' + ' and '.join(left) if left else ''}: step {one.step:.2f}, evaluation "
                  f"{one.evaluation:.2f}, kept for backward {one.saved:.2f} (with x {one.saved_with_x:.2f})")


def _times(place: str, tokens: int, rows: Sequence[Measured], table: Callable[..., Table]) -> Table:
    evaluation = "decode" if tokens == 1 else "evaluation"
    rivals = any(row.maker != OURS for row in rows)
    drawn = table("method", "by", ">step", ">×frozen", f">{evaluation}", ">×frozen", ">kept for backward", ">peak",
                  *(f">{what}/{OURS}" for what in ("step", evaluation, "kept") if rivals))
    mine = {row.method: row for row in rows if row.maker == OURS and not row.error}
    drawn.title = f"{place}, {tokens_said(tokens)}"
    drawn.title_justify = "left"
    for row in rows:
        if row.error:
            drawn.add_row(row.method, row.maker, "failed")
            continue
        pair = (mine[row.method], row) if row.maker != OURS and row.method in mine else None
        versus = [f"{gain(pair):.2f}" for gain in (step_gain, evaluation_gain, saved_gain)] if pair else []
        kept = f"{row.saved / MIB:.2f} MiB{' + x' if row.kept_x else ''}"
        drawn.add_row(row.method, row.maker, milliseconds(row.step), f"{row.step_ratio:.2f}",
                      milliseconds(row.evaluation), f"{row.evaluation_ratio:.2f}", kept, f"{row.peak / MIB:.1f} MiB",
                      *versus)
    return drawn


def _once(place: str, rows: Iterable[Measured], table: Callable[..., Table]) -> Table:
    drawn = table("method", "by", ">trained scalars", ">attach, first", ">attach, again", ">merge", ">merge error")
    drawn.title = place
    drawn.title_justify = "left"
    for row in rows:
        error = "" if math.isnan(row.merge_error) else f"{row.merge_error:.1e}"
        drawn.add_row(row.method, row.maker, f"{row.learned:,}", milliseconds(row.attach),
                      milliseconds(row.attach_again), milliseconds(row.merge), error)
    return drawn


def tokens_said(count: int) -> str:
    return "1 token" if count == 1 else f"{count} tokens"


def milliseconds(seconds: float) -> str:
    """``12.3 ms``, nothing for what was not measured."""
    return "" if math.isnan(seconds) else f"{1000 * seconds:.3g} ms" if seconds < 1 else f"{1000 * seconds:.0f} ms"


# ---------------------------------------------------------------- JSON


def data(rows: Sequence[Measured], settings: Mapping[str, Any]) -> dict[str, Any]:
    """All of it as plain data: where it was measured, how, every row, the means."""
    return {
        "machine": machine(),
        "settings": dict(settings),
        "rows": [{**_plain(asdict(row)), "step_ratio": _number(row.step_ratio),
                  "evaluation_ratio": _number(row.evaluation_ratio)} for row in rows],
        "means": [_plain(asdict(one)) for one in means(rows)],
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the programs."""
    import torch

    def known(package: str) -> str | None:
        try:
            return version(package)
        except PackageNotFoundError:
            return None

    return {"system": platform.platform(), "processor": platform.processor() or platform.machine(),
            "python": platform.python_version(), "torch": torch.__version__, "peft": known("peft"),
            "threads": torch.get_num_threads(),
            "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None}


def _plain(record: dict[str, Any]) -> dict[str, Any]:
    return {key: _number(value) for key, value in record.items()}


def _number(value: Any) -> Any:
    """JSON has no nan: what was not measured is null."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
