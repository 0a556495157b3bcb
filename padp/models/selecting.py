"""Which places an adapter goes to: targets, exclusion and layers → paths, with an error for what matched nothing."""

from __future__ import annotations

import re
from collections.abc import Sequence

from torch import nn

from padp.dsl.diagnostics import PadpError, refuse
from padp.models.patterns import Misses, chosen
from padp.models.places import (
    HEADS,
    Kind,
    all_linear,
    attentions,
    blocks,
    chosen_layers,
    fused_attentions,
    is_place_for_linear,
)
from padp.models.walk import walk

ALL = "all-linear"


def select(model: nn.Module, kind: Kind, targets: str | Sequence[str], exclude: str | Sequence[str] | None,
           layers: str | Sequence[int] | None, misses: Misses) -> list[str]:
    """The paths of the sites for an adapter of this kind, in the model's order.

    ``targets``: "all-linear" (every linear layer outside the output head; for the other kinds: every block, every
    attention), a list of suffixes, or one regex for whole paths. ``layers`` is for hidden sites. Patterns that match
    nothing are noted in ``misses``; what such an adapter cannot take is refused when the places are read.
    """
    if layers is not None and (kind != "hidden" or targets != ALL):
        why = "targets= names them already" if kind == "hidden" else f"this adapter sits on {kind} sites"
        raise refuse("E511", f"layers= chooses blocks for adapters of hidden states, and {why}",
                     suggestion="leave layers out" if kind == "hidden" else _in_blocks(model, layers))
    if not isinstance(targets, str) and not targets:
        raise refuse("E503", "targets is empty", suggestion='targets="all-linear" takes every linear layer')
    paths = _everything(model, kind, layers) if targets == ALL else _named(model, kind, targets, misses)
    if exclude is not None:
        excluded = chosen(exclude, paths)
        for pattern, found in excluded.items():
            misses.check("exclude", pattern, bool(found))
        out = {path for found in excluded.values() for path in found}
        paths = [path for path in paths if path not in out]
        if not paths and not misses.found:
            raise refuse("E503", "exclude leaves no site: everything that targets chose is excluded")
    return paths


def _in_blocks(model: nn.Module, layers: str | Sequence[int]) -> str:
    """What to write for the linear layers or attentions of these blocks."""
    try:
        wanted = chosen_layers(layers, blocks(model)[1])
    except PadpError:
        return "name them: targets=…"
    if isinstance(layers, str):
        return "leave layers out: all of them are taken"
    path = re.escape(wanted[0].rpartition(".")[0])
    return f'targets=r".*{path}\\.({"|".join(each.rpartition(".")[2] for each in wanted)})\\..*"'


def _everything(model: nn.Module, kind: Kind, layers: str | Sequence[int] | None) -> list[str]:
    """What "all-linear" means for a kind of site."""
    if kind == "hidden":
        return chosen_layers("all" if layers is None else layers, blocks(model)[1])
    found = all_linear(model) if kind == "linear" else attentions(model)
    if kind == "linear" and found == [""]:
        raise refuse("E511", "the model itself is the linear layer: nothing holds it that could be changed in place",
                     suggestion="call the adapter on it: layer = adapter(linear)")
    if not found:
        fused = fused_attentions(model) if kind == "attention" else []
        reason = (f"all of them make Q, K and V in one layer ({fused[0]}, …)" if fused else
                  "it has none" if kind == "attention" else f"outside its output head ({', '.join(HEADS)}) it has none")
        raise refuse("E502" if fused else "E503", f"no {kind} site in this {type(model).__name__}: {reason}")
    return found


def _named(model: nn.Module, kind: Kind, targets: str | Sequence[str], misses: Misses) -> list[str]:
    """The paths that the patterns choose.

    Among the places of this kind; where a pattern names only other modules, these, so that the error can say what they
    are. For hidden sites any module may be named.
    """
    every = dict(walk(model))
    del every[""]
    match kind:
        case "linear":
            fit = [path for path, module in every.items() if is_place_for_linear(module)]
        case "attention":
            fit = attentions(model)
        case "hidden":
            fit = list(every)
    among = chosen(targets, fit)
    beyond = chosen(targets, every)
    wanted: set[str] = set()
    for pattern, found in among.items():
        wanted.update(found or beyond[pattern])
        misses.check("targets", pattern, bool(beyond[pattern]))
    return [path for path in every if path in wanted]
