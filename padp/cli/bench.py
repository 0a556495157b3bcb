"""``padp bench [FILE…]``: time and memory of compiled adapters beside the frozen layer and beside PEFT's layers."""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from padp.cli.options import Usage, adapter_of, hyperparameters, writable
from padp.cli.output import console, plural, progress, table

if TYPE_CHECKING:
    from padp.bench.measure import Contest, Measured


def run(arguments: Namespace) -> int:
    sizes, tokens = sizes_of(arguments.sizes), tokens_of(arguments.tokens)
    json_path = writable(arguments.json, "--json")
    plot_path = writable(arguments.plot, "--plot")
    _sensible(arguments)
    import torch

    from padp.bench.measure import How, linear_place, measure
    from padp.bench.methods import NoModel, linear_paths, load, model_place
    from padp.bench.picture import plot, why_no_plot
    from padp.bench.report import data, draw

    if plot_path is not None and (why := why_no_plot(plot_path)):
        raise Usage(f"--plot: {why}")
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise Usage("--device cuda: this torch sees no CUDA device")
    device, dtype = torch.device(arguments.device), getattr(torch, arguments.dtype)
    how = How(arguments.repeats, device, arguments.compile, arguments.clock == "cpu")
    if arguments.model is None:
        contests = contests_of(arguments, None)
        places = [linear_place(m, n, device, dtype, not arguments.no_bias) for m, n in sizes]
    else:
        try:
            model = load(arguments.model)
            places = [model_place(arguments.model, model, device, dtype)]
        except NoModel as error:
            raise Usage(f"--model: {error}") from None
        contests = contests_of(arguments, linear_paths(model))
    rows: list[Measured] = []
    threads = torch.get_num_threads()
    torch.set_num_threads(arguments.threads)
    try:
        without = torch.backends.mkldnn.flags(enabled=False) if arguments.no_onednn else nullcontext()
        with progress() as bar, without:
            for place, contest in bar.track([(p, c) for p in places for c in contests], description="measuring"):
                rows += measure(contest, place, tokens, how)
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
            where = f"{row.method} by {row.maker}, {row.place}, {plural(row.tokens, 'token')}"
            out.print(f"{where}: {row.error}", style="red")
    if json_path is not None:
        json_path.write_text(text + "\n", encoding="utf-8")
    if plot_path is not None:
        plot(rows, plot_path)
    return 1 if any(row.error for row in rows) else 0


def contests_of(arguments: Namespace, paths: Sequence[str] | None) -> list[Contest]:
    """What is measured: methods that a rival has too beside it, everything else alone. ``paths``: in a whole model."""
    from padp.bench.measure import Contest
    from padp.bench.methods import OURS, contest, known, maker

    files: Sequence[str] = arguments.files
    hyper: Mapping[str, Any] = hyperparameters(arguments.set)
    against: Sequence[str] = arguments.against
    if not against and not files:
        raise Usage("name programs to measure, or --against peft (or hand) for every method that it has too")
    if against and (hyper or arguments.variant):
        raise Usage("--set and --variant are for padp alone; with --against all sides have settings that agree")
    shared = known(against)
    found: list[Contest] = []
    for file in files or shared:
        if file in shared:
            found.append(contest(file, against, paths))
            continue
        adapter = adapter_of(file)
        if adapter.site != "linear" and paths is None:
            raise Usage(f"{file}: {adapter.name} works on {adapter.site} sites, not on a linear layer: give a --model")
        chosen = adapter.settings(arguments.variant, **hyper)
        name = adapter.name + (f" {chosen.variant}" if arguments.variant else "")
        found.append(Contest(name, {OURS: maker(adapter, chosen.variant, hyper, paths)}))
    return found


def _heading(arguments: Namespace) -> str:
    import torch

    where = torch.cuda.get_device_name() if arguments.device == "cuda" else plural(arguments.threads, "CPU thread")
    clock = "CPU seconds, " if arguments.clock == "cpu" else ""
    compiled = ", without oneDNN" if arguments.no_onednn else ""
    compiled += ", torch.compile" if arguments.compile else ""
    return (f"{arguments.dtype}, {where}, {clock}lowest of 3 medians of {plural(arguments.repeats, 'repeat')} taken in "
            f"turn{compiled}. ×frozen: as a multiple of the frozen base's own.")


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
    if arguments.clock == "cpu" and arguments.device == "cuda":
        raise Usage("--clock cpu: the processor's seconds say nothing about work on a GPU")
    if "peft" in arguments.against and find_spec("peft") is None:
        raise Usage("--against peft needs PEFT: pip install peft")
