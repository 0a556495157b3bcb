"""The typed IR: equal nodes are one node, and what is printed says all of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import padp
from padp.compiler.elaborate.elaborate import elaborate
from padp.compiler.ir.nodes import Graph, Type, depends, show_graph, walk


def printed(name: str, variant: str | None = None) -> str:
    typed = elaborate(padp.compile(name).method(variant))
    return show_graph(typed.output)


@pytest.mark.parametrize("name", ["lora", "oft", "hra", "fourierft"])
def test_printed_form(name: str, golden: Callable[[str, str], None]) -> None:
    golden(f"compiler/ir/{name}.txt", printed(name) + "\n")


def test_printed_form_is_the_same_each_time() -> None:
    assert printed("goft") == printed("goft")


def test_equal_nodes_are_one_node() -> None:
    g = Graph()
    a, c = (g.node("param", (), (name, "learned"), Type((3, 3))) for name in "ac")
    assert g.node("prod", (a, c), (), Type((3, 3))) is g.node("prod", (a, c), (), Type((3, 3)))
    assert g.node("prod", (a, c), (), Type((3, 3))) is not g.node("prod", (c, a), (), Type((3, 3)))
    assert g.const(1) is g.const(1)


def test_walk_goes_arguments_first_and_to_each_node_once() -> None:
    g = Graph()
    a = g.node("param", (), ("a", "learned"), Type((3,)))
    two = g.node("mul", (a, a), (), Type((3,)))
    four = g.node("mul", (two, two), (), Type((3,)))
    assert list(walk(four, two)) == [a, two, four]
    assert depends(four, lambda n: n is a) and not depends(a, lambda n: n is four)
