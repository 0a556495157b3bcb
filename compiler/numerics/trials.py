"""Small random sizes at which a program can be run, and the program there: compiled, read literally, and not at all.

    trials(adapter, variant) -> Trials             sizes and hyperparameters that satisfy every relation
    trial.made() -> Made                           tensors in float64; fast(x), literal(x), untouched(x)

Everything is drawn from a fixed seed: the same program gets the same trials.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from padp.compiler.adapter import REQUIRED, Adapter
from padp.compiler.ir.nodes import walk
from padp.compiler.literal.reference import Reference
from padp.compiler.module.attention_maps import HeadMap
from padp.compiler.module.module import AdapterModule
from padp.compiler.names.terms import Method, SpaceTerm, Var
from padp.compiler.phases import Variant
from padp.compiler.sizes.solve import solve, symbolic
from padp.dsl.diagnostics import PadpError

SIDES = (4, 5, 6, 8, 8, 9, 10, 12, 12, 16)
"""What the sizes of a site are drawn from: some with many divisors, some odd."""

COUNTS = (1, 2, 2, 3, 3, 4, 4, 5)
"""What hyperparameters that stand in sizes are drawn from, beside a default that is as small."""

LARGER = (4, 8, 16)
"""What the last quarter of the draws is multiplied by, for programs that need room."""

ATTEMPTS = 120
"""Draws before a program is said to have no small sizes."""

LARGEST = 256
"""The greatest size of a site that is tried."""

_UNFIT = frozenset({"E305", "E501"})
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Trial:
    """One set of sizes. ``site`` is what a layer would give, ``sizes`` every dimension, ``hyper`` every number set."""

    adapter: Adapter
    variant: str | None
    site: Mapping[str, int]
    sizes: Mapping[str, int]
    hyper: Mapping[str, Any]
    knobs: Mapping[str, float]
    bias: bool
    seed: int

    @property
    def shown(self) -> str:
        """The sizes, as in ``m = 6, n = 8, r = 2``."""
        counts = counts_of(self.adapter.of(self.variant))
        numbers = {k: v for k, v in self.hyper.items() if not isinstance(v, str) and k in counts}
        return ", ".join(f"{k} = {v}" for k, v in {**self.site, **numbers, **self.knobs}.items())

    def made(self) -> Made:
        """The adapter with fresh tensors at a site with random weights."""
        method = self.adapter.method(self.variant)
        generator = torch.Generator().manual_seed(self.seed)

        def drawn(*shape: int) -> Tensor:
            return torch.randn(shape, generator=generator, dtype=torch.double)

        weights = {b.name: 0.6 * drawn(*_shape(b.space, self.sizes)) for b in method.bound
                   if b.name not in ("x", "h", "bias") and (self.bias or not b.name.startswith("b_"))}
        bias = 0.3 * drawn(len(weights["W"])) if self.bias and "W" in weights else None
        width = next(_shape(b.space, self.sizes)[0] for b in method.bound if b.name in ("x", "h"))
        x = drawn(*((5, width) if method.site == "attention" else (2, 3, width)))
        given = weights if method.site == "attention" else weights.get("W")
        module = self.adapter.build(self.site, variant=self.variant, hyper=self.hyper, weight=given, bias=bias,
                                    dtype=torch.double, device=torch.device("cpu"), seed=self.seed)
        for name, value in self.knobs.items():
            module.set_knobs({name: value})
        return Made(module.eval(), method.site, weights, bias, x, generator)


@dataclass(frozen=True, eq=False)
class Made:
    """An adapter at a site, with an input. In eval mode: ``drop`` is random in training alone."""

    module: AdapterModule
    site: str
    weights: Weights
    bias: Tensor | None
    x: Tensor
    generator: torch.Generator

    @property
    def learned(self) -> dict[str, nn.Parameter]:
        """What is trained, by name."""
        return {k: p for k, p in self.module.named_parameters() if p.requires_grad}

    def move(self, by: float = 0.3) -> None:
        """Every learned tensor moved off its start, at random."""
        with torch.no_grad():
            for p in self.learned.values():
                p.add_(torch.randn(p.shape, generator=self.generator, dtype=p.dtype), alpha=by)
        self.module.drop_cache()

    @property
    def base(self) -> nn.Linear:
        """The layer of a linear site."""
        W = self.weights["W"]
        layer = nn.Linear(W.shape[1], W.shape[0], bias=self.bias is not None, dtype=W.dtype)
        layer.weight = nn.Parameter(W, requires_grad=False)
        if self.bias is not None:
            layer.bias = nn.Parameter(self.bias, requires_grad=False)
        return layer

    def fast(self, x: Tensor) -> Tensor:
        """What is compiled."""
        match self.site:
            case "attention":
                return attention(self.weights, self.module.head_maps(self.weights), x)
            case "hidden":
                return self.module(x, nn.Identity())  # type: ignore[no-any-return]
            case _:
                return self.module(x, self.base)  # type: ignore[no-any-return]

    def literal(self, x: Tensor) -> Tensor:
        """What the program says."""
        reference = self.reference()
        return reference.attention(x) if self.site == "attention" else reference.forward(x)

    def untouched(self, x: Tensor) -> Tensor:
        """What the model does without the adapter."""
        match self.site:
            case "attention":
                return attention(self.weights, {}, x)
            case "hidden":
                return x
            case _:
                return nn.functional.linear(x, self.weights["W"], self.bias)

    def reference(self) -> Reference:
        """The program with the tensors of now."""
        module = self.module
        tensors = {**self.weights, **({} if self.bias is None else {"bias": self.bias}),
                   **{name: module.stored(name) for name in module.tensors}}
        return Reference(module.compiled.method, module.sizes, {**module.hyper, **module.knobs}, tensors)


def attention(weights: Weights, maps: Mapping[str, HeadMap], x: Tensor) -> Tensor:
    """Softmax attention of tokens x (T, d), with the map of every head on what its projection puts out (o: takes)."""
    heads, size = weights["W_Q"].shape[:2]

    def mapped(role: str, z: Tensor) -> Tensor:
        if role not in maps:
            return z
        z = torch.einsum("hij,htj->hti", maps[role].matrix, z)
        offset = maps[role].offset
        return z if offset is None else z + offset[:, None, :]

    streams: dict[str, Tensor] = {}
    for role in "qkv":
        z = torch.einsum("hed,td->hte", weights[f"W_{role.upper()}"], x)
        bias = weights.get(f"b_{role.upper()}")
        z = mapped(role, z if bias is None else z + bias[:, None, :])
        streams[role] = z.repeat_interleave(heads // z.shape[0], 0)
    p = torch.softmax(streams["q"] @ streams["k"].mT / math.sqrt(size), -1)
    y = torch.einsum("hde,hte->td", weights["W_O"], mapped("o", p @ streams["v"]))
    bias = weights.get("b_O")
    return y if bias is None else y + bias


# ---------------------------------------------------------------- finding sizes


@dataclass(frozen=True)
class Trials:
    """Different trials of one variant, and why sizes that were drawn did not fit: each reason once."""

    found: tuple[Trial, ...]
    refused: tuple[str, ...]


def trials(adapter: Adapter, variant: str | None, count: int = 3) -> Trials:
    """Up to ``count`` trials: one with a wide W, one with a tall W, then any; none when no small sizes fit.

    Raises PadpError for what is wrong with a program at sizes that do fit.
    """
    drawn = random.Random(0)
    found: list[Trial] = []
    refused: dict[str, None] = {}
    for number in range(count):
        for attempt in range(ATTEMPTS):
            trial = _draw(adapter, variant, drawn, number)
            if attempt >= ATTEMPTS // 2:
                trial = replace(trial, site=_derived(trial, drawn, attempt >= 3 * ATTEMPTS // 4))
            if number < 2 and attempt < ATTEMPTS // 2 and not _slanted(trial.site, wide=number == 0):
                continue
            if any(t.site == trial.site and trial.hyper.items() <= t.hyper.items() for t in found):
                continue
            fitted = _fitted(trial)
            if isinstance(fitted, Trial):
                found.append(fitted)
                break
            refused |= dict.fromkeys(d.message for d in fitted.diagnostics)
        else:
            break
    return Trials(tuple(found), tuple(refused))


def _draw(adapter: Adapter, variant: str | None, drawn: random.Random, number: int) -> Trial:
    method = adapter.method(variant)
    names = sorted({d.name for b in method.bound for d in (*b.space.dims, *b.space.family) if isinstance(d, Var)})
    site = {name: drawn.choice(SIDES if len(names) < 3 else COUNTS) for name in names}
    for heads, groups in _head_counts(method):  # each group serves as many heads, said or not
        site[heads] = site[groups] * drawn.choice((1, 2, 3))
    hyper: dict[str, Any] = {}
    counts = counts_of(adapter.of(variant))
    for h in method.hyper:
        default = adapter.hyper[h.name]
        small = isinstance(default, int) and 0 <= default <= 8
        if default is REQUIRED or (h.name in counts and isinstance(default, int)):
            hyper[h.name] = drawn.choice((*COUNTS, default) if small else COUNTS)
    knobs = {h.name: drawn.choice((1.0, -0.5, 2.0)) for h in method.hyper if h.knob}
    return Trial(adapter, variant, site, {}, hyper, knobs, number % 2 == 0, 10 + number)


def _derived(trial: Trial, drawn: random.Random, larger: bool) -> dict[str, int]:
    """The sizes of a site as the relations give them: of n = b·k, b is drawn and n follows."""
    method = trial.adapter.method(trial.variant)
    factor = drawn.choice(LARGER) if larger else 1
    site = {name: size * factor for name, size in trial.site.items()}
    known: dict[str, Any] = {k: v for k, v in {**trial.adapter.hyper, **trial.hyper}.items() if isinstance(v, int)}
    for test in method.relations:
        for side, other in ((test.left, test.right), (test.right, test.left)):
            if test.op != "=" or other is None or not isinstance(side, Var) or side.name not in site:
                continue
            free = {str(x) for x in symbolic(other, known).free_symbols}
            if free & site.keys():
                continue
            known |= {name: drawn.choice(COUNTS) * factor for name in sorted(free)}
            value = symbolic(other, known)
            if value.is_Integer and 0 < value <= LARGEST:
                site[side.name] = known[side.name] = int(value)
    return site


def _head_counts(method: Method) -> list[tuple[str, str]]:
    """The names of the numbers of heads and of groups at an attention, where they are two."""
    families = {x.name: [d.name for d in x.space.family if isinstance(d, Var)] for x in method.bound}
    pairs = {(*families.get("W_Q", ()), *families.get(name, ())) for name in ("W_K", "W_V")}
    return sorted((pair[0], pair[1]) for pair in pairs if len(pair) == 2 and pair[0] != pair[1])


def _slanted(site: Mapping[str, int], wide: bool) -> bool:
    sides = list(site.values())
    return len(sides) != 2 or ((sides[0] < sides[1]) == wide and sides[0] != sides[1])


def _fitted(trial: Trial) -> Trial | PadpError:
    """The trial with every size known, or why its sizes do not fit: by the literal reading first, which is cheap."""
    try:
        settings = trial.adapter.settings(trial.variant, **trial.hyper)
        method = trial.adapter.method(settings.variant)
        sizes = solve(method, trial.site, settings.hyper)
        broken = trial.adapter.of(settings.variant).unmet({**settings.hyper, **sizes})
        if broken:
            return PadpError(broken)
        found = replace(trial, variant=settings.variant, sizes=sizes, hyper=settings.hyper)
        _read(method, found)
        return replace(found, sizes=found.made().module.sizes)
    except PadpError as error:
        if all(d.code in _UNFIT for d in error.diagnostics):
            return error
        raise


def _read(method: Method, trial: Trial) -> None:
    """Read the program once at these sizes; index sets are made with numbers, and refuse some."""
    generator = torch.Generator().manual_seed(trial.seed)

    def drawn(shape: tuple[int, ...]) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.double)

    shapes = {b.name: _shape(b.space, trial.sizes) for b in method.bound}
    numbers = {**trial.hyper, **trial.knobs}
    x = drawn((1, *next(shape for name, shape in shapes.items() if name in ("x", "h"))))
    given = {name: drawn(shape) for name, shape in shapes.items() if name not in ("x", "h")}
    declared = Reference(method, trial.sizes, numbers, given)
    tensors = {p.name: drawn(declared.shape(p)) for p in method.parameters}
    reference = Reference(method, trial.sizes, numbers, {**given, **tensors})
    if method.site == "attention":
        reference.attention(x)
    else:
        reference.forward(x)


def counts_of(known: Variant) -> frozenset[str]:
    """Hyperparameters that stand in a size: of a tensor, a slice, a loop or an index set."""
    method, typed = known.method, known.declared
    names = {h.name for h in method.hyper if not h.knob}
    seen: set[str] = set()
    roots = [typed.output, *(node for _, node, _ in typed.history), *(p.node for p in typed.parameters.values())]
    for node in walk(*roots):
        sizes = [*node.type.shape, *(node.attrs if node.op not in ("const", "full") else ())]
        seen |= {str(x) for size in sizes for x in getattr(getattr(size, "size", size), "free_symbols", ())}
    for test in method.relations:
        for side in (test.left, test.right):
            seen |= set() if side is None else {str(x) for x in symbolic(side, {}).free_symbols}
    return frozenset(names & seen)


def _shape(space: SpaceTerm, sizes: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(int(symbolic(d, sizes)) for d in (*space.family, *space.dims))
