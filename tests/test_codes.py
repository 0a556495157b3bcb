"""Every code has a page; its bad examples give the code, its good ones do not."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import padp
from padp.dsl.codes import Example, pages

ROOT = Path(__file__).parent.parent
CASES = [
    pytest.param(page.code, example, id=f"{page.code}-{example.kind}-{number}")
    for page in pages().values()
    for number, example in enumerate(page.examples)
]


def codes_in_the_code() -> set[str]:
    """Every code that occurs as a string in our Python files."""
    files = [path for folder in ("dsl", "compiler", "padp") for path in (ROOT / folder).rglob("*.py")]
    return {code for path in files for code in re.findall(r'"([EWN]\d{3})"', path.read_text(encoding="utf-8"))}


def test_every_code_has_a_page_and_every_page_a_code() -> None:
    assert codes_in_the_code() == set(pages())


def test_pages_are_in_order_and_say_something() -> None:
    assert list(pages()) == sorted(pages(), key=lambda code: ("EWN".index(code[0]), code))
    for page in pages().values():
        assert {example.kind for example in page.examples} == {"bad", "good"}, page.code
        assert page.text.count("```") == 2 * len(page.examples), page.code
        assert len(page.text.split("```")[0].splitlines()) >= 3, page.code


@pytest.mark.parametrize(("code", "example"), CASES)
def test_example(code: str, example: Example) -> None:
    found = findings(example)
    if example.kind == "bad":
        assert code in found
    else:
        assert code not in found
        assert not [other for other in found if other[0] == "E"], "a good example has no errors at all"


def findings(example: Example) -> list[str]:
    """The codes that an example gives: by the checker for a program, by what is raised for Python."""
    if example.language == "padp":
        return [diagnostic.code for diagnostic in padp.check(example.text)]
    import torch
    from torch import nn

    try:
        exec(example.text, {"torch": torch, "nn": nn, "padp": padp})
    except padp.PadpError as error:
        return [diagnostic.code for diagnostic in error.diagnostics]
    return []
