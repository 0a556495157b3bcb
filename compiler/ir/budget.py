"""How much work a program may ask for: steps that are counted, so that the answer is the same on every machine.

    with budget(source): …      everything in it together takes at most so many steps
    spend(steps)                some work, counted before it is done; E105 where no steps are left
    working_on(span)            what is being worked on: the place of that E105
    measured(work)              what some work gives, and the steps that it took

A step is about what looking at a few nodes takes; making one of the IR takes ten. Without a budget nothing is counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TypeVar

from padp.dsl.diagnostics import Diagnostic, PadpError
from padp.dsl.limits import MAX_STEPS
from padp.dsl.source import Source, Span

T = TypeVar("T")


class TooMuch(PadpError):
    """E105: the work that a program asks for is more than any adapter needs."""


class TooLarge(TooMuch):
    """E105: one value is too large, whatever the rest of the program does."""


class Steps:
    """How many steps are left, and what is being worked on."""

    __slots__ = ("doing", "left", "limit", "source", "where")

    def __init__(self, source: Source | None, limit: int, doing: str) -> None:
        self.left = self.limit = limit
        self.source = source
        self.doing = doing
        self.where: Span | None = None


_CURRENT: ContextVar[Steps | None] = ContextVar("padp_steps", default=None)


@contextmanager
def budget(source: Source | None, limit: int = MAX_STEPS, doing: str = "check") -> Generator[Steps, None, None]:
    """Work on one program. A budget inside of another is its own: what is kept from call to call costs what it cost."""
    steps = Steps(source, limit, doing)
    token = _CURRENT.set(steps)
    try:
        yield steps
    finally:
        _CURRENT.reset(token)


def measured(work: Callable[[], T]) -> tuple[T, int]:
    """What ``work`` gives, and how many steps it took."""
    steps = _CURRENT.get()
    if steps is None:
        with budget(None, sys.maxsize) as own:
            made = work()
        return made, own.limit - own.left
    before = steps.left
    made = work()
    return made, before - steps.left


def working_on(span: Span) -> None:
    """The statement or comment that is being worked on."""
    steps = _CURRENT.get()
    if steps is not None and span.end:
        steps.where = span


def spend(steps: int = 10) -> None:
    """Count some work. Raises TooMuch where the budget has no more of it, also at every later call."""
    current = _CURRENT.get()
    if current is not None:
        current.left -= steps
        if current.left < 0:
            raise TooMuch(Diagnostic(
                "E105", f"too large: up to here this program takes more than {current.limit} steps to "
                f"{current.doing}", current.where, current.source,
                suggestion="fewer statements, variants, claims or functions that call functions; what repeats is "
                "written as a loop or a family"))
