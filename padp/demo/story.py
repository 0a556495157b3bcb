"""The demo in order: one adapter from its program to a new process, then all twenty on the same task."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from safetensors.torch import save_file
from torch import nn

import padp
from padp.cli.options import Usage
from padp.cli.output import console, number, table
from padp.compiler.ir.dims import show
from padp.demo.corpus import HELD_OUT as HELD_OUT_PACKAGES
from padp.demo.corpus import TRAINING, Corpus, Pair, read
from padp.demo.encoder import LOWER, Batch, Upper, batches, load, lowered, upper, whole
from padp.demo.recipes import BATCH, HELD_OUT, RECIPES, STEPS, Recipe
from padp.demo.reload import compare_in_new_process
from padp.demo.report import Run, plot, runs_table, write_json
from padp.demo.training import Found, search, train

FIRST_BATCH, FIRST_RATE = 32, 1e-3  # of the first run, which trains the whole encoder's LoRA
EXAMPLES = 3
UNMERGED, MERGED = 1e-6, 1e-4  # largest differences allowed in the new process, of entries of unit vectors


def demo(output: Path) -> int:
    """Run everything and leave a checkpoint, a table and a plot in ``output``. 1 when the loaded adapter does not put
    out what the trained one did."""
    started = time.perf_counter()
    out = console()
    output.mkdir(parents=True, exist_ok=True)
    with _progress(out) as progress:
        corpus = _read(out, progress)
        out.print("Loading the pretrained encoder from its installed package …")
        model, tokenizer = load()
        training = batches(tokenizer, corpus.training[: STEPS * FIRST_BATCH], FIRST_BATCH)
        held_out = batches(tokenizer, corpus.held_out[:HELD_OUT], 50)
        status = _one(out, progress, model, training, held_out, corpus.held_out[:HELD_OUT], output)
        if status:
            return status
        small = batches(tokenizer, corpus.training[: STEPS * BATCH], BATCH)
        _all(out, progress, model, small, held_out, output)
    out.print(f"\nDone in {time.perf_counter() - started:.0f} s. Written to {output}/: lora/ (the checkpoint), "
              "adapters.png, adapters.json")
    return 0


def _progress(out: Console) -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn()
    return Progress(*columns, console=out, transient=True, disable=not out.is_terminal)


def _read(out: Console, progress: Progress) -> Corpus:
    """The corpus; ``Usage`` when there is too little of it."""

    def watch(paths: Sequence[Path]) -> Iterable[Path]:
        return progress.track(paths, description="reading docstrings")

    corpus = read(watch=watch)
    wanted = STEPS * FIRST_BATCH, HELD_OUT
    if len(corpus.training) < wanted[0] or len(corpus.held_out) < wanted[1]:
        raise Usage(f"too few docstrings: {len(corpus.training)} to train on of {' and '.join(TRAINING)} (needed: "
                    f"{wanted[0]}) and {len(corpus.held_out)} of {' and '.join(HELD_OUT_PACKAGES)} (needed: "
                    f"{wanted[1]}): pip install 'padp[demo]'")
    out.rule("Find a function's code by what its docstring says")
    out.print(f"Docstrings of installed packages: {number(len(corpus.training))} functions of {' and '.join(TRAINING)} "
              f"to train on, {number(len(corpus.held_out))} of {' and '.join(HELD_OUT_PACKAGES)} held out.\n"
              "No name, sentence or code of one side occurs on the other.")
    return corpus


# ---------------------------------------------------------------- one adapter, in full


def _one(out: Console, progress: Progress, model: nn.Module, training: Sequence[Batch], held_out: Sequence[Batch],
         pairs: Sequence[Pair], output: Path) -> int:
    """Compile, attach, train, show, merge, save, load in a new process, compare; then take the adapter off."""
    out.rule("One adapter, from its program")
    lora = padp.compile("lora")
    out.print(lora.source.text.strip())
    out.print(f"\nLearned scalars per layer: {show(lora.count)}")
    before = search(model, whole, progress.track(held_out, description="held-out search, before"))
    torch.manual_seed(0)
    padp.attach(model, lora, exclude="pooler.dense")  # which mean pooling does not use
    out.print(padp.summary(model))
    trained = train(model, whole, progress.track(training, description="training LoRA"), len(training), FIRST_RATE)
    after = search(model, whole, progress.track(held_out, description="held-out search, after"))
    out.print(f"{len(training)} steps of {FIRST_BATCH} pairs, {1000 * trained.seconds:.0f} ms a step; "
              f"loss {_mean(trained.losses[:5]):.2f} → {_mean(trained.losses[-5:]):.2f}\n")
    out.print(_before_after(before, after, len(pairs)))
    _examples(out, before, after, pairs)
    return _saved_and_loaded(out, progress, model, held_out, output)


def _before_after(before: Found, after: Found, count: int) -> Any:
    made = table(f"search of {count} held-out functions", ">frozen", ">with LoRA")
    made.add_row("mean of 1/rank (MRR)", f"{before.mrr:.3f}", f"{after.mrr:.3f}")
    for k in (1, 10):
        shares = [f"{100 * found.within(k):.0f} %" for found in (before, after)]
        made.add_row(f"own code among the first {k}", *shares)
    gain, error = after.gain(before)
    made.add_row("gain in MRR, ± standard error", "", f"{gain:+.3f} ± {error:.3f}")
    better, worse = int((after.ranks < before.ranks).sum()), int((after.ranks > before.ranks).sum())
    made.add_row("sentences that rank their code better, worse", "", f"{better}, {worse}")
    return made


def _examples(out: Console, before: Found, after: Found, pairs: Sequence[Pair]) -> None:
    """Where it helped most and where it hurt most, by 1/rank."""
    change = after.reciprocal - before.reciprocal
    order = change.argsort(descending=True).tolist()
    chosen = [*order[:EXAMPLES], order[-1]]
    out.print("\nWhere it helped most" + (", and where it hurt most:" if change[order[-1]] < 0 else ":"))
    for i in chosen:
        pair = pairs[i]
        out.print(f"\n  “{pair.sentence}”")
        for label, found in (("before", before), ("after", after)):
            nearest = pairs[int(found.similar[i].argmax())]
            own = "" if nearest is not pair else ", which is the right one"
            out.print(f"    {label}: its code is number {int(found.ranks[i])}; nearest is {nearest.package}'s "
                      f"{nearest.name}{own}")
        out.print(f"    its code, {pair.name}: {pair.code[:90]} …")


def _saved_and_loaded(out: Console, progress: Progress, model: nn.Module, held_out: Sequence[Batch],
                      output: Path) -> int:
    """Merge and unmerge, save, load in a new process; 1 when outputs differ."""
    side = held_out[0].code
    with torch.no_grad():
        outputs = whole(model, side)
        padp.merge(model)
        merged = float((whole(model, side) - outputs).abs().max())
        padp.unmerge(model)
    checkpoint, tokens = output / "lora", output / "lora-outputs.safetensors"
    padp.save(model, checkpoint)
    save_file({"inputs": side.inputs, "attention_mask": side.attention_mask, "outputs": outputs}, tokens)
    waiting = progress.add_task("loading the adapter in a new process", total=1)
    loaded = compare_in_new_process(checkpoint, tokens)
    progress.remove_task(waiting)
    padp.detach(model)
    size = sum(path.stat().st_size for path in checkpoint.iterdir())
    out.print(f"\nMerged into the weights: outputs differ by at most {merged:.1e}. Saved: {number(size)} bytes.")
    out.print(f"Loaded in a new process: outputs differ by at most {loaded['unmerged']:.1e}, "
              f"merged there by {loaded['merged']:.1e}.")
    if not (merged <= MERGED and loaded["unmerged"] <= UNMERGED and loaded["merged"] <= MERGED):
        out.print(f"That is too much: {UNMERGED:.0e} is allowed, {MERGED:.0e} where merged.", style="bold red")
        return 1
    return 0


# ---------------------------------------------------------------- all twenty


def _all(out: Console, progress: Progress, model: nn.Module, training: Sequence[Batch], held_out: Sequence[Batch],
         output: Path) -> None:
    """Every recipe on its own copy of the upper half, on the same batches in the same order."""
    out.rule(f"All {len(RECIPES)} adapters on the same task")
    out.print(f"Each adapts the encoder's blocks from number {LOWER} on; the lower ones stay frozen and run once, for "
              f"everybody.\nThe same {len(training)} batches of {BATCH} pairs for each. Steps are timed over the "
              "adapted blocks.\nLearning rates are set by hand: nine of them on other functions of the training "
              "packages, the rest are\nfirst guesses. So this shows that all twenty train, not which is best. MRR is "
              "the mean of 1/rank; its gain\nover the frozen encoder comes with its standard error.")
    training = [lowered(model, batch) for batch in progress.track(training, description="the lower half, once")]
    held_out = [lowered(model, batch) for batch in progress.track(held_out, description="the lower half, once")]
    base = Upper(model).eval()
    before = search(base, upper, held_out)
    runs: list[Run] = []
    whole_task = progress.add_task("all adapters", total=len(RECIPES))
    for recipe in RECIPES:
        progress.update(whole_task, description=f"all adapters: {recipe.name}")
        runs.append(run_recipe(recipe, base, training, held_out, before))
        progress.advance(whole_task)
    progress.remove_task(whole_task)
    out.print(runs_table(runs, before.mrr, before.within(10)))
    worse = [run.title for run in runs if run.gain < 0]
    if worse:
        out.print(f"\nWorse than the frozen encoder: {', '.join(worse)}.")
    plot(runs, before.mrr, output / "adapters.png")
    settings = {"steps": STEPS, "batch": BATCH, "held_out": HELD_OUT, "threads": torch.get_num_threads()}
    write_json(output / "adapters.json", runs, before.mrr, settings)


def run_recipe(recipe: Recipe, base: nn.Module, training: Sequence[Batch], held_out: Sequence[Batch],
               before: Found) -> Run:
    """Attach, train and measure one adapter on a copy of the upper half."""
    adapter = padp.compile(recipe.name)
    model = copy.deepcopy(base)
    torch.manual_seed(0)
    started = time.perf_counter()
    padp.attach(model, adapter, **recipe.hyper)
    attached = time.perf_counter() - started
    trained = train(model, upper, training, len(training), recipe.rate)
    if not all(map(math.isfinite, trained.losses)):
        raise FloatingPointError(f"{adapter.name}: the loss is not finite with learning rate {recipe.rate:g}")
    found = search(model, upper, held_out)
    gain, error = found.gain(before)
    return Run(recipe.name, adapter.name, adapter.site, _settings(adapter, recipe), recipe.rate,
               padp.summary(model).learned, attached, trained.seconds, found.mrr, found.within(10), gain, error)


def _settings(adapter: padp.Adapter, recipe: Recipe) -> str:
    """The variant, and the size of the adapter or what the recipe says: the rest is the default of the file."""
    hyper = adapter.settings(None, **recipe.hyper).hyper
    shown = [name for name in hyper if name in ("r", "k", *recipe.hyper)]
    return ", ".join([*adapter.variants[:1], *(f"{name}={hyper[name]}" for name in shown)])


def _mean(values: Sequence[float]) -> float:
    return sum(values) / max(1, len(values))
