"""What happens after backward, read literally: ``∇w``, ``ema``, ``keep`` and ``cubic``.

    update(modules, step)                  changes the tensors and the states of the modules
    outcomes(sites, step) -> outcomes      what they would become

All sites of an adapter are updated together, because ``keep(…, over = model)`` ranks over all of them. States of
moving averages are buffers of the module, made when it is (``prepare``), so that they are saved and loaded with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Protocol

import torch
from torch import Tensor

from padp.compiler.literal import values as d
from padp.compiler.literal.evaluation import Evaluation, Meaning
from padp.compiler.literal.reference import Reference, binds
from padp.compiler.literal.values import Value
from padp.compiler.names import terms as t
from padp.compiler.names.scope import walk
from padp.dsl.diagnostics import refuse
from padp.dsl.source import Span

LARGEST_TERM = 20_000


@dataclass(frozen=True)
class Site:
    """One site: its reference (with the current tensors), the gradients of its learned tensors, and its states."""

    reference: Reference
    gradients: Mapping[str, Tensor]
    state: Mapping[str, Tensor]


@dataclass(frozen=True)
class Outcome:
    """New values of learned tensors by name, and new states."""

    values: Mapping[str, Tensor]
    state: Mapping[str, Tensor]


class _Undecided(Exception):
    """A ``keep`` whose entries are not chosen yet."""

    def __init__(self, score: Tensor, budget: float, over_model: bool) -> None:
        super().__init__()
        self.score, self.budget, self.over_model = score, budget, over_model


class Module(Protocol):
    """What an adapter's module offers here."""

    def meaning(self) -> Reference:
        """The literal reading with the module's present tensors."""
        ...

    def stored(self, name: str) -> Tensor:
        """A declared tensor as it is stored."""
        ...

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...


def prepare(module: Module) -> None:
    """Give a module the states of its moving averages, all 0; those that it has stay as they are."""
    here = {name for name, _ in module.named_buffers()}
    for name, state in initial_state(module.meaning()).items():
        if name not in here:
            module.register_buffer(name, state)


def initial_state(reference: Reference) -> dict[str, Tensor]:
    """The states that the program's updates keep at a site, as zeros."""
    gradients = {p.name: torch.zeros_like(reference.tensors[p.name]) for p in reference.method.parameters
                 if p.role == "learned"}
    (outcome,) = outcomes([Site(reference, gradients, {})], 0)
    return {name: torch.zeros_like(state) for name, state in outcome.state.items()}


def update(modules: Sequence[Module], step: int) -> None:
    """Run ``after backward`` at all sites of an adapter, in place: between ``backward`` and the optimiser's step.

    Raises PadpError E210 when a learned tensor that is asked for its gradient has none; then nothing has changed.
    """
    sites: list[Site] = []
    for module in modules:
        reference = module.meaning()
        learned = [p.name for p in reference.method.parameters if p.role == "learned"]
        gradients = {n: g.to(reference.tensors[n].dtype) for n in learned if (g := module.stored(n).grad) is not None}
        prepare(module)
        sites.append(Site(reference, gradients, dict(module.named_buffers())))
    with torch.no_grad():
        for module, site, outcome in zip(modules, sites, outcomes(sites, step), strict=True):
            for name, value in outcome.values.items():
                module.stored(name).copy_(value)
            for name, state in outcome.state.items():
                site.state[name].copy_(state)


def outcomes(sites: Sequence[Site], step: int) -> list[Outcome]:
    """Run ``after backward`` at every site, for training step ``step`` (from 0).

    Sites run until each stands at its next ``keep``; the entries to keep are chosen over all of them, and they run
    again from the start with that choice: a run changes nothing, so it can be repeated.
    """
    masks: list[list[Tensor]] = [[] for _ in sites]
    with torch.no_grad():
        while True:
            waiting: dict[int, _Undecided] = {}
            made: list[Outcome] = []
            for number, site in enumerate(sites):
                try:
                    made.append(_run(site, step, masks[number]))
                except _Undecided as stop:
                    waiting[number] = stop
            if not waiting:
                return made
            for number, mask in _chosen(waiting, sites).items():
                masks[number].append(mask)


def _run(site: Site, step: int, masks: Sequence[Tensor]) -> Outcome:
    method = site.reference.method
    written = [expanded(s, site.reference.functions) for s in method.updates]
    evaluation = _Update(site, site.reference.before(sorted(site.reference.reads(tuple(written)))), step, masks)
    for position, statement in enumerate(written):
        evaluation.position = position
        evaluation.steps([statement])
    learned = {p.name for p in method.parameters if p.role == "learned"}
    changed = {name for s in method.updates for name in binds(s)} & learned
    values: dict[str, Tensor] = {}
    for name in changed:
        value = evaluation.look_up(name, method.span)
        old = site.reference.tensors[name]
        if not isinstance(value, Value) or value.tensor.shape != old.shape:
            span = next(s.span for s in reversed(method.updates) if name in binds(s))
            raise refuse("E301", f"the new `{name}` is {value}, it was {'×'.join(map(str, old.shape))}", span,
                         source=method.source)
        values[name] = value.tensor
    return Outcome(values, evaluation.new_state)


def _chosen(waiting: Mapping[int, _Undecided], sites: Sequence[Site]) -> dict[int, Tensor]:
    """1 for the entries to keep: the best Σ budget over all sites of one program, or the best of each site alone.

    Of equal scores the earlier site's, then the lower index.
    """
    groups: dict[object, list[int]] = {}
    for number, stop in waiting.items():
        method = sites[number].reference.method
        alone = () if stop.over_model else (number,)
        groups.setdefault((method.source.text, method.variant, alone), []).append(number)
    masks: dict[int, Tensor] = {}
    for members in groups.values():
        scores = torch.cat([waiting[n].score.reshape(-1) for n in members])
        count = max(0, min(int(sum(waiting[n].budget for n in members)), len(scores)))
        best = torch.sort(scores, descending=True, stable=True).indices[:count]
        kept = torch.zeros_like(scores).scatter(0, best, 1.0)
        for n, mask in zip(members, kept.split([waiting[n].score.numel() for n in members]), strict=True):
            masks[n] = mask.reshape(waiting[n].score.shape)
    return masks


class _Update(Evaluation):
    """Evaluation with gradients, states and choices."""

    def __init__(self, site: Site, environment: Mapping[str, Any], step: int, masks: Sequence[Tensor]) -> None:
        super().__init__(site.reference, environment)
        self.here, self.now, self.masks = site, step, masks
        self.position, self.kept, self.chosen = 0, 0, 0
        self.new_state: dict[str, Tensor] = {}
        self.averages: dict[tuple[int, t.Term], tuple[str, Value]] = {}

    def read(self, term: t.Term) -> Meaning:
        if isinstance(term, t.Gradient):
            gradient = self.here.gradients.get(term.name)
            if gradient is None:
                raise refuse("E210", f"`{term.name}` has no gradient: none was computed, or it was cleared", term.span,
                             suggestion="loss.backward(); optimiser.step(); padp.update(model); optimiser.zero_grad()")
            value = self.look_up(term.name, term.span)
            assert isinstance(value, Value)
            return replace(value, tensor=gradient)
        return super().read(term)

    def call(self, term: t.Call) -> Meaning:
        match term:
            case t.Call(function="cubic", args=(start, target, steps, *rest)):
                warmup, final = (*(self.number(a) for a in rest), 0, 0)[:2]
                return cubic(self.number(start), self.number(target), self.number(steps), self.now, warmup, final)
            case t.Call(function="ema", args=(value, beta)):
                return self.average(term, value, float(self.number(beta)))
            case t.Call(function="keep", args=(value, score, budget), kwargs=kwargs):
                return self.keep(self.tensor(value), self.tensor(score), self.number(budget), bool(kwargs))
            case _:
                return super().call(term)

    def average(self, term: t.Call, value: t.Term, beta: float) -> Value:
        """s ← β s + (1 − β) e, from 0. Equal calls in one statement are one average."""
        known = self.averages.get((self.position, term))
        if known is not None:
            return known[1]
        now = self.tensor(value)
        name = f"ema_{self.position}_{sum(1 for at, _ in self.averages if at == self.position)}"
        before = self.here.state.get(name)
        old = torch.zeros_like(now.tensor) if before is None else before.to(now.tensor)
        made = replace(now, tensor=beta * old + (1.0 - beta) * now.tensor)
        self.averages[(self.position, term)] = (name, made)
        self.new_state[name] = made.tensor
        return made

    def keep(self, value: Value, score: Value, budget: float, over_model: bool) -> Value:
        """value, and 0 where it is not among the best. A budget that rests keeps those that it kept last."""
        if value.tensor.shape != score.tensor.shape:
            raise refuse("E301", f"keep: a score for each entry is needed, {score} does not fit {value}")
        name = f"keep_{self.kept}"
        before = self.here.state.get(name)
        if isinstance(budget, Budget) and budget.rests and before is not None and bool(before.any()):
            mask = before.to(score.tensor)
        elif self.chosen == len(self.masks):
            raise _Undecided(score.tensor, float(budget), over_model)
        else:
            mask = self.masks[self.chosen]
            self.chosen += 1
        self.kept += 1
        if isinstance(budget, Budget):
            self.new_state[name] = mask
        return d.entrywise(value, replace(score, tensor=mask))


class Budget(float):
    """How many entries are kept, of a schedule; when it ``rests``, they stay the same entries."""

    rests: bool = False


def cubic(start: float, target: float, steps: float, now: int, warmup: float = 0, final: float = 0) -> Budget:
    """``start`` in the first ``warmup`` steps, ``target`` in the last ``final`` and after; between them
    target + (start − target)(1 − (now − warmup)/(steps − warmup − final))³. It rests in the last ``final``."""
    if now >= steps - final:
        budget = Budget(target)
        budget.rests = final > 0 and now > steps - final
        return budget
    if now <= warmup:
        return Budget(start)
    return Budget(target + (start - target) * (1.0 - (now - warmup) / (steps - warmup - final)) ** 3)


# ---------------------------------------------------------------- functions written out


def expanded(tree: Any, functions: Mapping[str, t.Function]) -> Any:
    """A term or step with every call of a function of the language replaced by its body."""
    made = _substituted(tree, functions, {})
    if sum(1 for _ in walk(made)) > LARGEST_TERM:
        raise refuse("E105", "this is too large when the functions in it are written out", getattr(tree, "span", None))
    return made


def _substituted(tree: Any, functions: Mapping[str, t.Function], bound: Mapping[str, t.Term]) -> Any:
    match tree:
        case tuple():
            return tuple(_substituted(part, functions, bound) for part in tree)
        case t.Var(name=name) if name in bound:
            return bound[name]
        case t.Gradient(name=name, span=span) if name in bound:
            target = bound[name]
            if not isinstance(target, t.Var):
                raise refuse("E210", "∇ needs the name of a learned tensor", span, suggestion="f(Λ), not f(2 · Λ)")
            return t.Gradient(target.name, span)
        case t.Call(function=function, args=args) if function in functions:
            given = [_substituted(a, functions, bound) for a in args]
            parameters = dict(zip(functions[function].parameters, given, strict=True))
            return _substituted(functions[function].body, functions, parameters)
        case t.SumOver(indices=indices, domain=domain, body=body) if any(
            isinstance(node, t.Var) and node.name in indices for value in bound.values() for node in walk(value)
        ):  # an index of the function's own must not catch one of the argument's
            fresh = {i: f"{i}'" for i in indices}
            renamed = {**bound, **{i: t.Var(new) for i, new in fresh.items()}}
            return replace(tree, indices=tuple(fresh.values()), domain=_substituted(domain, functions, bound),
                           body=_substituted(body, functions, renamed))
        case _ if is_dataclass(tree) and not isinstance(tree, (type, Span)):
            parts = {f.name: _substituted(getattr(tree, f.name), functions, bound) for f in fields(tree)}
            return replace(tree, **parts)
        case _:
            return tree
