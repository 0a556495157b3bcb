"""Matrices that have no inverse, and decompositions that do not come to an end: refused by name wherever they are met.

    solved(torch.linalg.solve, A, B)        A⁻¹ B, or E511 where A is singular

torch raises an error of its own, which knows neither the adapter nor the program. All calls into torch.linalg that may
fail go through here: in plans, in the literal reading, when something is computed from W, when a weight is merged.
Whose they are is looked up only when one has failed, so that a call costs nothing.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch
from torch import Tensor
from torch.linalg import LinAlgError  # type: ignore[attr-defined]  # pyright: ignore[reportPrivateImportUsage]

from padp.compiler.ir.nodes import NOWHERE, Node, walk
from padp.compiler.names.terms import Method
from padp.dsl.diagnostics import PadpError, refuse

Made = TypeVar("Made")


@runtime_checkable
class Running(Protocol):
    """What runs a program, for messages: its name, and the lines in which something is inverted or decomposed."""

    def running_program(self) -> tuple[str, Sequence[str]]: ...


def solved(function: Callable[..., Made], *given: Any, **named: Any) -> Made:
    """``function(*given)``; E511 where torch.linalg finds that it has no value."""
    try:
        return function(*given, **named)
    except LinAlgError as error:
        raise no_value(error) from None


def finite(tensor: Tensor) -> bool:
    """Whether no entry is inf or nan. The sum tells it in one pass; where that overflows, each entry is looked at."""
    return bool(torch.isfinite(tensor.detach().sum())) or bool(torch.isfinite(tensor.detach()).all())


def no_value(error: LinAlgError) -> PadpError:
    """E511 for what torch.linalg could not compute, in the name of the program that runs."""
    name, lines = _program()
    said, whose = str(error), f"{name}: " if name else ""
    notes = (*lines, f"torch says: {said}")
    if "singular" in said:
        return refuse("E511", f"{whose}a matrix that is inverted is singular, it has no inverse", notes=notes,
                      suggestion="a start that is not singular, or a matrix that never is: M @ Mᵀ + ε · I")
    return refuse("E511", f"{whose}a decomposition cannot be computed", notes=notes,
                  suggestion="look for nan or inf in the weight and in the adapter's tensors")


def inverting_lines(method: Method, *roots: Node) -> list[str]:
    """The statements below ``roots`` in which torch.linalg is asked for something that need not exist."""
    found: dict[int, str] = {}
    for node in walk(*roots):
        if node.op in _NEED_NOT_EXIST and node.span != NOWHERE:
            line, _ = method.source.position(node.span.start)
            found[line] = f"line {line}: {method.source.line(line).split('#')[0].strip()}"
    return [found[line] for line in sorted(found)]


def _program() -> tuple[str, Sequence[str]]:
    """The program that is being run, of the innermost caller that runs one."""
    frame: FrameType | None = sys._getframe()  # pyright: ignore[reportPrivateUsage]
    while frame is not None:
        owner = frame.f_locals.get("self")
        if owner is not None and isinstance(owner, Running):
            return owner.running_program()
        frame = frame.f_back
    return "", ()


_NEED_NOT_EXIST = frozenset({"inv", "solve", "svd", "qr"})
