"""``padp check --numerics``: numbers decide what no rule decides, and test what rules say.

    settle(source, variant, found) -> found without the N401 of claims that hold, and with
        E405  a claim that is false: the sizes, and the number by which it fails
        W305  a fresh adapter that is not the identity
        E406  a mistake of padp: the compiled program is not its literal reading, or a rule proved what is false
        N403  nothing could be tested, and why

Everything is read literally in float64, at a few small random sizes that satisfy the program's relations.
"""

from __future__ import annotations

import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from padp.compiler.adapter import Adapter
from padp.compiler.check.claim_grammar import Claim
from padp.compiler.check.claims import open_properties
from padp.compiler.facts.fresh import Starts
from padp.compiler.library import tree
from padp.compiler.literal.evaluation import Evaluation
from padp.compiler.literal.values import Value
from padp.compiler.names.scope import key, split
from padp.compiler.names.terms import Method
from padp.compiler.numerics.agreement import VALUES, difference, differences
from padp.compiler.numerics.trials import Made, Trial, trials
from padp.compiler.sizes.solve import symbolic
from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.source import Source, Span

RANK = 1e-9
"""Singular values below this share of the largest count as 0."""


@dataclass
class _Outcome:
    """What the trials of every variant said of one statement: how often it was tested, and the first failure."""

    tested: int = 0
    failure: str | None = None

    def say(self, failure: str | None, trial: Trial) -> None:
        """One more test: None, or by how much the statement fails."""
        self.tested += 1
        if failure is not None and self.failure is None:
            self.failure = f"{failure} at {trial.shown}"


@dataclass
class _Record:
    """Claims by the place of their comment; whether a fresh adapter is the identity, by the place of y; the places of y
    at which a comment claims it."""

    claims: dict[Span, tuple[Claim, _Outcome]] = field(default_factory=dict[Span, tuple[Claim, _Outcome]])
    starts: dict[Span, _Outcome] = field(default_factory=dict[Span, _Outcome])
    claimed: dict[Span, Span] = field(default_factory=dict[Span, Span])
    found: list[Diagnostic] = field(default_factory=list[Diagnostic])


def settle(source: Source, variant: str | None, found: Sequence[Diagnostic]) -> list[Diagnostic]:
    """The findings on a program without errors, after its claims and what is compiled from it were tested."""
    adapter = Adapter(source)
    record = _Record()
    for one in (variant,) if variant is not None else adapter.variants or (None,):
        _try_variant(adapter, one, record)
    open_ = {d.span for d in found if d.code == "N401"}
    open_ |= {record.claimed.get(span) for span in open_ if span is not None}  # of `# identity` behind y, N401 is at y
    settled = [answer for d in found if (answer := _answer(d, record)) is not None]
    for span, (claim, outcome) in record.claims.items():
        if outcome.failure is not None:
            settled.append(_false_claim(source, claim, outcome.failure, proved=span not in open_))
    return [*dict.fromkeys((*settled, *(d.at(source) for d in record.found)))]


def _answer(d: Diagnostic, record: _Record) -> Diagnostic | None:
    """What is left of a finding: of an N401 nothing once it is tested, or that a fresh adapter is not the identity."""
    if d.code != "N401" or d.span is None:
        return d
    if d.span in record.claims:
        return None if record.claims[d.span][1].tested else d
    outcome = record.starts.get(d.span)
    if outcome is None or not outcome.tested:
        return d
    if outcome.failure is None or d.span in record.claimed:
        return None
    return Diagnostic("W305", f"a fresh adapter is not the identity: {outcome.failure}", d.span, d.source,
                      suggestion="other starts, or a comment that says it: # not the identity at init: …")


def _false_claim(source: Source, claim: Claim, failure: str, proved: bool) -> Diagnostic:
    said = source.slice(claim.span)
    if proved:
        return _mistake(f"a rule proves `{said}`, and numbers refute it: {failure}", claim.span).at(source)
    return Diagnostic("E405", f"`{said}` is false: {failure}", claim.span, source,
                      notes=("tested in float64 with random tensors",), suggestion="correct the comment or the line")


# ---------------------------------------------------------------- one variant


def _try_variant(adapter: Adapter, variant: str | None, record: _Record) -> None:
    """Every trial of one variant: the compiled program against the reading, and each claim against the numbers."""
    method = adapter.method(variant)
    typed = adapter.of(variant).cases[0].typed
    claims = open_properties(tree(adapter.source), method, typed)
    output = next((span for name, _, span in reversed(typed.history) if name == method.output), method.span)
    proved = Starts(typed).identity().holds is True
    named = f" of variant {variant}" if variant is not None else ""
    try:
        made = trials(adapter, variant)
        for trial in made.found:
            _try(trial, method, claims, output, record)
        unequal = next((d for trial in made.found if (d := _unequal(trial, output, named)) is not None), None)
        record.found += [] if unequal is None else [unequal]
    except PadpError:
        raise
    except Exception as error:  # torch has many kinds; each of them means that what was compiled cannot run
        frame = traceback.extract_tb(error.__traceback__)[-1]
        record.found.append(_mistake(f"what is compiled{named} fails with {type(error).__name__}", output,
                                     (str(error), f"in {frame.name}, {Path(frame.filename).name}:{frame.lineno}")))
        return
    if not made.found:
        record.found.append(Diagnostic("N403", f"nothing{named} was tested: no small sizes were found that fit", output,
                                       notes=made.refused[:3]))
    start = record.starts.get(output)
    if proved and start is not None and start.failure is not None:
        record.found.append(_mistake(f"a rule proves that a fresh adapter is the identity: {start.failure}", output))


def _mistake(message: str, span: Span, notes: tuple[str, ...] = ()) -> Diagnostic:
    return Diagnostic("E406", f"{message}. This is a mistake of padp", span, notes=notes,
                      suggestion="report it together with this program")


def _unequal(trial: Trial, span: Span, named: str) -> Diagnostic | None:
    """Where compiled and literal reading differ, at tensors moved off their start."""
    made = trial.made()
    made.move()
    found = differences(made)
    if not found:
        return None
    return _mistake(f"compiled and read literally, {found[0]} at {trial.shown}{named}", span,
                    tuple(str(d) for d in found[1:6]))


def _try(trial: Trial, method: Method, claims: Sequence[Claim], output: Span, record: _Record) -> None:
    """The start of a fresh adapter, and every claim at random tensors."""
    fresh, made = trial.made(), trial.made()
    made.move()
    with torch.no_grad():
        start = difference("the output", fresh.literal(fresh.x), fresh.untouched(fresh.x), VALUES)
        changed = None if start is None else f"it changes the output by {start.error:.3g}"
        record.starts.setdefault(output, _Outcome()).say(changed, trial)
        for claim in claims:
            _, outcome = record.claims.setdefault(claim.span, (claim, _Outcome()))
            if claim.kind == "identity" and claim.name is not None and key(claim.name) == key(method.output):
                record.claimed[output] = claim.span
                outcome.say(changed, trial)
                continue
            value = value_of(made, method, claim)
            if value is not None:
                outcome.say(_fails(claim, value, trial), trial)


# ---------------------------------------------------------------- claims in numbers


def value_of(made: Made, method: Method, claim: Claim) -> Tensor | None:
    """The matrix (or family of matrices) that a claim speaks of, after its statement; None where there is none.

    Inside a loop it is the value after the last turn.
    """
    if claim.name is None:
        return None
    reference = made.reference()
    environment = reference.base()
    environment["h" if method.site == "hidden" else "x"] = Value(made.x.reshape(-1, made.x.shape[-1])[0], 1)
    evaluation = Evaluation(reference, environment)
    last = claim.statement.start if claim.statement is not None else claim.span.start
    evaluation.steps([step for step in method.body if step.span.start <= last])
    parts = split(claim.name)
    for wanted in (key(claim.name), *(() if parts is None else (key(parts[0]),))):
        for name in evaluation.environment:
            if key(name) == wanted:
                value = evaluation.look_up(name, claim.span)
                if not isinstance(value, Value) or value.rank != 2 or value.rest is not None:
                    return None
                return value.tensor if value.tensor.is_floating_point() else None
    return None


def _fails(claim: Claim, value: Tensor, trial: Trial) -> str | None:
    """By how much a claim fails for this value; None when it holds to rounding."""
    scale = 1.0 + float(value.abs().max()) if value.numel() else 1.0
    unit = torch.eye(value.shape[-2], dtype=value.dtype)

    def off(what: str, error: Tensor, size: float) -> str | None:
        worst = float(error.abs().max()) if error.numel() else 0.0
        return f"the entries of {what} are up to {worst:.3g}" if worst > VALUES * size else None

    name = claim.name
    match claim.kind:
        case "rank":
            assert claim.size is not None
            numbers = {k: v for k, v in trial.hyper.items() if not isinstance(v, str)}
            bound = symbolic(claim.size, {**trial.sizes, **numbers})
            reached = int(torch.linalg.matrix_rank(value, rtol=RANK).max()) if value.numel() else 0
            return f"the rank of {name} is {reached}, not at most {bound}" if reached > bound else None
        case "antisymmetric":
            return off(f"{name} + {name}ᵀ", value + value.mT, scale)
        case "identity":
            return off(f"{name} - I", value - unit, scale)
        case _:
            return off(f"{name} @ {name}ᵀ - I", value @ value.mT - unit, scale**2)
