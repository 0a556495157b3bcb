"""The programs people wrote parse as they stand, and both spellings of each give the same tree."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from padp.dsl.parse import parse
from padp.dsl.printer import to_text
from padp.dsl.source import Source

ROOT = Path(__file__).parents[2]
SEED = ROOT.parent / "shared" / "seed" / "adapters_pseudocode.md"


def programs(path: Path) -> list[str]:
    """The fenced blocks of a Markdown file."""
    return re.findall(r"^```\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)


def check(text: str) -> None:
    tree = parse(Source.of(text))
    assert tree.body
    for ascii in (False, True):
        printed = to_text(tree, ascii)
        assert parse(Source.of(printed)) == tree
        assert to_text(parse(Source.of(printed)), ascii) == printed


@pytest.mark.parametrize("text", programs(Path(__file__).with_name("samples.md")), ids=lambda t: t.split("(")[0][-12:])
def test_sample(text: str) -> None:
    check(text)


@pytest.mark.parametrize("path", sorted((ROOT / "stdlib").glob("*.padp")), ids=lambda p: p.stem)
def test_stdlib(path: Path) -> None:
    check(path.read_text(encoding="utf-8"))


def test_source_document() -> None:
    if not SEED.is_file():
        pytest.skip(f"the source document is not at {SEED}")
    blocks = programs(SEED)
    assert len(blocks) == 20
    for block in blocks:
        check(block)
