"""The grammar has no conflict, and its table is cached where nobody else can write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from lark import Lark

from padp.dsl.build import Build, LineTree
from padp.dsl.grammar import GRAMMAR, OPTIONS, parser
from padp.dsl.parse import parse
from padp.dsl.source import Source
from padp.dsl.spellings import KEYWORDS


def test_strictly_without_conflicts() -> None:
    """``strict=True`` refuses shift/reduce conflicts and terminals of equal priority that match the same text."""
    Lark(GRAMMAR.read_text(encoding="utf-8"), strict=True, **OPTIONS)


def test_every_rule_has_its_method() -> None:
    """A rule without a method in build.py would leave a lark Tree in the syntax tree."""
    kept = {rule.alias or rule.origin.name for rule in parser().rules if not rule.options.expand1 or rule.alias}
    named = {str(name) for name in kept if not str(name).startswith("_")}
    assert {name for name in named if not hasattr(Build, name)} == set()


def test_keywords_are_the_words_of_the_grammar() -> None:
    words = {str(t.pattern.value) for t in parser().terminals if str(t.pattern.value).isalpha()}
    words -= {"R", "C", "N", "O", "SO", "St", "x"}  # words in spaces, names elsewhere
    assert {word for word in words if word.isascii()} == KEYWORDS


@pytest.fixture
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A cache directory of its own; ``parser.__wrapped__`` builds anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "padp"


def reads(built: Lark) -> bool:
    tree: object = built.parse("y ← W @ x")
    return isinstance(tree, LineTree) and len(tree.statements) == 1


def test_table_is_written_once_and_read_again(fresh: Path) -> None:
    assert reads(parser.__wrapped__())
    (table,) = fresh.iterdir()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o700
    before = table.stat().st_mtime_ns
    assert reads(parser.__wrapped__())
    assert table.stat().st_mtime_ns == before


def test_broken_table_is_built_anew(fresh: Path) -> None:
    assert reads(parser.__wrapped__())
    (table,) = fresh.iterdir()
    table.write_bytes(table.read_bytes()[:1000])
    assert reads(parser.__wrapped__())
    assert table.stat().st_size > 1000


def test_directory_that_others_can_write_is_not_used(fresh: Path) -> None:
    fresh.mkdir()
    fresh.chmod(0o777)
    assert reads(parser.__wrapped__())
    assert list(fresh.iterdir()) == []


def test_no_directory_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert reads(parser.__wrapped__())


@pytest.mark.skipif(not hasattr(os, "getuid") or os.getuid() == 0, reason="root can write everywhere")
def test_directory_that_cannot_be_written(fresh: Path) -> None:
    fresh.mkdir()
    fresh.chmod(0o500)
    assert reads(parser.__wrapped__())


def test_reading_is_safe_in_threads() -> None:
    from concurrent.futures import ThreadPoolExecutor

    texts = [f"y ← a_{i} @ x + {i}\n" * 50 for i in range(8)]
    alone = [parse(Source.of(text)) for text in texts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda text: parse(Source.of(text)), texts)) == alone


def test_tokens_are_not_left_in_trees() -> None:
    tree = parse(Source.of("adapter X(r = 8) on linear(W ∈ ℝ^{m×n})\nA ∈ ℝ^n: learned\ny ← f(a, b = 2)_{i}"))
    assert "Token(" not in repr(tree)
