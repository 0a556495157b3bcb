"""``padp bench [FILE…]``: time and memory of compiled adapters beside the frozen layer and beside PEFT's layers."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from padp.cli.options import Usage, adapter_of, hyperparameters
from padp.cli.output import console, plural, progress, table

if TYPE_CHECKING:
    from padp.bench.measure import Contest, Measured


def run(arguments: Namespace) -> int:
    sizes, tokens = sizes_of(arguments.sizes), tokens_of(arguments.tokens)
    json_path = _writable(arguments.json, "--json")
    plot_path = _writable(arguments.plot, "--plot")
    _sensible(arguments)
    if arguments.against == "peft" and find_spec("peft") is None:
        raise Usage("--against peft needs PEFT: pip install peft")
    import torch

    from padp.bench.measure import How, linear_place, measure
    from padp.bench.report import data, draw, plot, why_no_plot

    if plot_path is not None and (why := why_no_plot(plot_path)):
        raise Usage(f"--plot: {why}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise Usage("--device cuda: this torch sees no CUDA device")
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    how = How(arguments.repeats, device, arguments.compile)
    contests = contests_of(arguments)
    rows: list[Measured] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    try:
        with progress() as bar:
            for (m, n), contest in bar.track([(s, c) for s in sizes for c in contests], description="measuring"):
                rows += measure(contest, linear_place(m, n, device, dtype, not arguments.no_bias), tokens, how)
        settings = {key: value for key, value in vars(arguments).items() if key not in ("command", "json", "plot")}
        text = json.dumps(data(rows, settings), ensure_ascii=False, indent=2)
    finally:
        torch.set_num_threads(threads)
    if arguments.json == "-":
        print(text)
    else:
        out = console()
        out.print(_heading(arguments), style="bold")
        out.print()
        draw(out, rows, table)
        for row in (row for row in rows if row.error):
            out.print(f"{row.method} by {row.maker}, {row.place}, {plural(row.tokens, 'token')}: {row.error}",
                      style="red")
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")
    if plot_path is not None:
        plot(rows, plot_path)
    return 1 if any(row.error for row in rows) else 0


def contests_of(arguments: Namespace) -> list[Contest]:
    """What is measured: methods that both have beside each other, everything else alone."""
    from padp.bench.measure import Contest
    from padp.bench.peft import OURS, PAIRS, ours, shared_methods

    files: Sequence[str] = arguments.files
    hyper: Mapping[str, Any] = hyperparameters(arguments.set)
    if arguments.against is None and not files:
        raise Usage("name programs to measure, or --against peft for every method that PEFT has too")
    if arguments.against is not None and (hyper or arguments.variant):
        raise Usage("--set and --variant are for padp alone; with --against both sides have settings that agree")
    both = {pair.adapter for pair in PAIRS} if arguments.against is not None else set[str]()
    if not files:
        return shared_methods([])
    found: list[Contest] = []
    for file in files:
        if file in both:
            found += shared_methods([file])
            continue
        adapter = adapter_of(file)
        if adapter.site != "linear":
            raise Usage(f"{file}: {adapter.name} works on {adapter.site} sites; bench measures linear layers")
        chosen = adapter.settings(arguments.variant, **hyper)
        name = adapter.name + (f" {chosen.variant}" if arguments.variant else "")
        found.append(Contest(name, {OURS: partial(ours, adapter, chosen.variant, hyper)}))
    return found


def _heading(arguments: Namespace) -> str:
    import torch

    where = torch.cuda.get_device_name() if arguments.device == "cuda" else plural(arguments.threads, "CPU thread")
    return (f"{arguments.dtype}, {where}, medians of {plural(arguments.repeats, 'repeat')} taken in turn"
            f"{', torch.compile' if arguments.compile else ''}. ×frozen: as a multiple of the frozen layer's own.")


def sizes_of(text: str) -> list[tuple[int, int]]:
    """``1024x1024,4096x1024`` → rows × columns of W."""
    found: list[tuple[int, int]] = []
    for part in text.split(","):
        match = re.fullmatch(r"\s*([1-9]\d{0,6})[x×]([1-9]\d{0,6})\s*", part)
        if match is None:
            raise Usage(f"--sizes takes ROWSxCOLUMNS,… as in 1024x1024,4096x1024, not {part.strip()!r}")
        found.append((int(match[1]), int(match[2])))
    return list(dict.fromkeys(found))


def tokens_of(text: str) -> list[int]:
    """``1024,1`` → numbers of tokens."""
    parts = [part.strip() for part in text.split(",")]
    for part in parts:
        if not re.fullmatch(r"[1-9]\d{0,7}", part):
            raise Usage(f"--tokens takes whole numbers from 1, as in 1024,1, not {part!r}")
    return list(dict.fromkeys(map(int, parts)))


def _sensible(arguments: Namespace) -> None:
    for option in ("repeats", "threads"):
        if getattr(arguments, option) < 1:
            raise Usage(f"--{option} {getattr(arguments, option)}: a whole number from 1")


def _writable(path: str | None, option: str) -> Path | None:
    """A file to write at the end of a long run: refused now rather than then."""
    if path is None or path == "-":
        return None
    file = Path(path)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise Usage(f"{option} {path}: not a file in a directory that exists")
    return file
