"""A symbolic program, split where a conditional on dimensions is open: one typed program for each case."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from padp.compiler.elaborate.elaborate import elaborate
from padp.compiler.elaborate.state import Elaborated, NeedCases
from padp.compiler.names.terms import Method, SpaceTerm, Test

MAX_CASES = 16
"""Conditionals split a program into at most this many cases."""


@dataclass(frozen=True)
class Case:
    """What was assumed, and the program typed under it."""

    assume: tuple[tuple[Test, bool], ...]
    typed: Elaborated


def cases(method: Method, hypotheses: Mapping[int, Mapping[str, SpaceTerm]] | None = None,
          assume: tuple[tuple[Test, bool], ...] = ()) -> list[Case]:
    """Every case of ``method``; one when no conditional is open."""
    try:
        return [Case(assume, elaborate(method, assume=assume, hypotheses=hypotheses))]
    except NeedCases as need:
        if 2 ** len(assume) >= MAX_CASES:
            raise
        return [*cases(method, hypotheses, (*assume, (need.test, True))),
                *cases(method, hypotheses, (*assume, (need.test, False)))]
