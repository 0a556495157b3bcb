"""Nodes as people write them: nothing that only the compiler calls so."""

from __future__ import annotations

import re

import pytest

import padp
from padp.compiler.elaborate.cases import cases
from padp.compiler.ir.nodes import walk
from padp.compiler.library import library
from padp.compiler.normal.normal_form import Simplifier
from padp.compiler.operators.formulas import formula
from padp.compiler.operators.table import OPERATORS
from tests.graph.test_random_programs import FOUND
from tests.support.random_programs import HEAD

PROGRAMS = {**{name: name for name in library()}, **{name: f"{HEAD}\n{text}" for name, text in FOUND.items()}}
WORDS = {*OPERATORS, "svd", "qr", "sum", "mean", "max", "min", "sqrt", "sum_row", "sum_col", "mean_row", "mean_col",
         "max_row", "max_col", "min_row", "min_col", "ones", "cos", "sin", "tanh", "abs", "exp", "log", "relu", "attn"}


@pytest.mark.parametrize("name", PROGRAMS)
def test_formulas_are_in_the_words_of_the_language(name: str) -> None:
    adapter = padp.compile(PROGRAMS[name])
    for variant in adapter.variants or (None,):
        for case in cases(adapter.method(variant), {}):
            typed = case.typed
            for node in walk(typed.output, Simplifier(typed.graph)(typed.output)):
                text = formula(node)
                assert set(re.findall(r"([A-Za-z_]\w+)\(", text)) <= WORDS, text
                assert not re.search("[?□<>]", text), text
