"""Programs that people wrote, and what comes out when their words are changed: the same in every run.

    programs() -> the library, the examples, the pages of codes and every program inside the tests
    mutated(text, pool, seed) -> text with one to three changes; ``pool`` has programs that words are taken from

A change takes a word (a name, a number, a sign) or a line and leaves it out, doubles it, moves it, or puts another in
its place. Words come from the same program most of the time: what results is often still a program, and a wrong one.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from zlib import crc32

ROOT = Path(__file__).parents[1]
WORD = re.compile(r"[^\W\d_]\w*|\d+(?:\.\d+)?|[^\w\s]|_")
SIGNS = "( ) [ ] { } _ ^ , : + - · @ ⊙ ⊗ / | ‖ ² ᵀ ⁻¹ √ ← = ∈ ≤ ; # 0 1 2 3 -1 0.5 1e30 I x W n m r π i".split()


@cache
def programs() -> tuple[str, ...]:
    """Every program of the project, each once, in the order of the files."""
    texts = [path.read_text(encoding="utf-8") for path in sorted([*ROOT.glob("stdlib/*.padp"),
                                                                  *ROOT.glob("examples/*.padp")])]
    for path in sorted([*ROOT.glob("dsl/codes.md"), *ROOT.glob("README.md"), *ROOT.glob("tests/dsl/samples.md")]):
        texts += re.findall(r"^```(?:padp)?\n(.*?)^```$", path.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    for path in sorted(ROOT.glob("tests/**/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n" in node.value:
                texts.append(node.value)
    return tuple(dict.fromkeys(text for text in texts if "←" in text or "<-" in text))


def some(every: int, part: int = 0) -> list[str]:
    """One program of ``every``; a program that is added changes nothing for the others."""
    return [text for text in programs() if crc32(text.encode()) % every == part]


def mutated(text: str, seed: int, pool: Sequence[str] = ()) -> str:
    """``text`` with one to three changes; the same text and seed, the same changes."""
    random = Random(crc32(text.encode()) * 1000003 + seed)
    for _ in range(random.randint(1, 3)):
        text = _lines(text, random) if random.random() < 0.25 else _words(text, random, pool)
    return text


def _lines(text: str, random: Random) -> str:
    """A line left out, moved, doubled, or put deeper or less deep."""
    lines = text.splitlines(keepends=True) or ["\n"]
    at = random.randrange(len(lines))
    line = lines[at]
    match random.randrange(5):
        case 0:
            del lines[at]
        case 1:
            lines.insert(random.randrange(len(lines)), lines.pop(at))
        case 2:
            lines.insert(random.randrange(len(lines)), line)
        case 3:
            lines[at] = "    " + line
        case _:
            lines[at] = line.removeprefix("    ")
    return "".join(lines)


def _words(text: str, random: Random, pool: Sequence[str]) -> str:
    """A word left out, doubled, or changed for one of the same kind, of any kind, of another program, or a sign."""
    spans = [m.span() for m in WORD.finditer(text.split("\n#")[0] if random.random() < 0.5 else text)]
    if not spans:
        return text
    start, end = random.choice(spans)
    word = text[start:end]
    others = [text[s:e] for s, e in spans]
    alike = [w for w in others if w[0].isalpha() == word[0].isalpha() and w[0].isdigit() == word[0].isdigit()]
    match random.randrange(6):
        case 0:
            piece = ""
        case 1:
            piece = f"{word} {word}" if random.random() < 0.5 else word + word
        case 2 | 3:
            piece = random.choice(alike)
        case 4 if pool:
            piece = random.choice(WORD.findall(random.choice(pool)) or SIGNS)
        case _:
            piece = random.choice(SIGNS if random.random() < 0.6 else others)
    return text[:start] + piece + text[end:]
