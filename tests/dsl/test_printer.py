"""Printing and parsing are inverse, in glyphs and in ASCII."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings

from padp.dsl.parse import parse
from padp.dsl.printer import show, to_text
from padp.dsl.source import Source
from padp.dsl.syntax import Assign, Program
from tests.dsl.trees import programs


@given(programs)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_parse_of_print_is_the_tree(program: Program) -> None:
    for ascii in (False, True):
        text = to_text(program, ascii)
        assert parse(Source.of(text)) == program, text
