"""README.md says nothing that is not so: its tables follow from the code, its blocks run."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import padp
from padp.cli import main
from padp.compiler.library import library
from padp.compiler.names.declarations import ROLES
from padp.compiler.names.header import SITES
from padp.compiler.names.signatures import INITIALISERS, LANGUAGE
from padp.dsl.parse import parse
from padp.dsl.source import Source
from tests.readme_tables import README, written
from tests.support.families import make_llama

TEXT = README.read_text(encoding="utf-8")
ROOT = README.parent


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_tables_are_what_the_code_says() -> None:
    assert written(TEXT) == TEXT, "python -m tests.readme_tables writes them anew"


def test_every_word_of_the_language_is_there() -> None:
    for word in (*INITIALISERS, *LANGUAGE, *ROLES, *SITES):
        assert re.search(rf"`[^`]*\b{word}\b[^`]*`", TEXT), word
    for name in library():
        assert f"| `{name}` |" in TEXT
    for name in padp.__all__:
        assert name in TEXT, name


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (ROOT / target).exists(), target
    headings = {line.lstrip("# ").lower().replace(" ", "-") for line in TEXT.splitlines() if line.startswith("#")}
    for target in re.findall(r"\]\(#([^)]+)\)", TEXT.replace("\n", " ")):
        assert target in headings, target


@pytest.mark.parametrize("program", blocks("padp"), ids=lambda text: re.search(r"adapter (\w+)", text)[1])  # type: ignore[index]
def test_a_program_is_clean_and_means_what_it_compiles_to(program: str) -> None:
    assert not [(d.code, d.message) for d in padp.check(program) if d.severity != "note"]
    adapter = padp.compile(program)
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(24, 32)) if adapter.site == "linear" else make_llama()
    given = torch.randn(5, 24) if adapter.site == "linear" else torch.arange(12).reshape(2, 6) + 1
    for variant in adapter.variants or (None,):
        padp.attach(model, adapter, variant=variant)
        with torch.no_grad():
            for p in padp.trainable(model):
                p.add_(0.1 * torch.randn_like(p))
        model.eval()
        if adapter.site == "linear":
            torch.testing.assert_close(model(given), model[0].reference(given))
        else:
            with padp.disabled(model):
                before = model(given).logits
            assert not torch.allclose(model(given).logits, before)
        padp.detach(model)


def test_both_spellings_of_the_first_program_are_one() -> None:
    glyphs, ascii_ = (text for text in blocks("padp") if "LowRank(" in text)
    assert padp.compile(glyphs).count == padp.compile(ascii_).count
    assert bare(glyphs) == bare(ascii_)


def bare(text: str) -> object:
    """The tree of a program without its comments."""
    lines = (line.split("#")[0].rstrip() for line in text.splitlines())
    return parse(Source.of("\n".join(line for line in lines if line) + "\n"))


def rows_of_operators() -> list[tuple[str, str]]:
    """Every expression of the table of operators in both spellings."""
    table = TEXT.split("| glyphs | ASCII | meaning |")[1].split("\n\n")[0]
    found: list[tuple[str, str]] = []
    for row in table.splitlines()[2:]:
        glyphs, ascii_ = ([part.replace("\\|", "|") for part in re.findall(r"`(.*?)`", cell)]
                          for cell in re.split(r"(?<!\\)\|", row)[1:3])
        assert len(glyphs) == len(ascii_) > 0, row
        found += zip(glyphs, ascii_, strict=True)
    return found


PREAMBLE = """adapter Operators(b = 2) on linear(W ∈ ℝ^{m×n})
u, v ∈ ℝ^n: learned, init = 1
w ∈ ℝ^b: learned, init = 1
c ∈ ℝ: learned, init = 1
M ∈ ℝ^{m×n}: learned, init = normal(1)
S, T ∈ ℝ^{n×n}: learned, init = orthogonal
F ∈ (ℝ^{n×n})^b: learned, init = kaiming
"""


@pytest.mark.parametrize(("glyphs", "ascii_"), rows_of_operators())
def test_an_operator_in_both_spellings(glyphs: str, ascii_: str) -> None:
    index = re.search(r"(?<![Σ{])_?\{?\b([ij])\b|[a-zA-Z]_([ij])\b", glyphs) if "Σ" not in glyphs else None
    loop = f"for {index[1] or index[2]} in range(2):\n    " if index else ""
    trees = [bare(f"{PREAMBLE}{loop}z ← {e}\ny ← W @ x\n") for e in (glyphs, ascii_)]
    assert same(trees[0]) == same(trees[1])
    program = f"{PREAMBLE}{loop}z ← {glyphs}\ny ← W @ x\n"
    assert not [(d.code, d.message) for d in padp.check(program) if d.severity == "error"]


def same(tree: object) -> str:
    """A tree without its places."""
    return re.sub(r"Span\(start=\d+, end=\d+\)", "", repr(tree))


def test_the_api_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    names: dict[str, Any] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert "E301" in [d.code for d in padp.check(names["wrong"])]


def test_the_command_line_runs_as_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                          capsys: pytest.CaptureFixture[str]) -> None:
    make_llama().save_pretrained(tmp_path)
    monkeypatch.chdir(ROOT)
    (block,) = blocks("sh")
    ran: list[str] = []
    for line in block.splitlines():
        there = line.replace("path/to/model", str(tmp_path)).replace("dora.svg", str(tmp_path / "dora.svg"))
        program, *words = shlex.split(there, comments=True)
        assert program == "padp"
        if words == ["demo"]:
            continue  # minutes: its parts have tests of their own
        status = main(words)
        said = capsys.readouterr()
        assert status == 0, f"{line}: {said.out}{said.err}"
        assert said.out
        ran.append(words[0])
    assert set(ran) == {"check", "count", "show", "targets", "explain", "bench"}
    assert (tmp_path / "dora.svg").is_file()
