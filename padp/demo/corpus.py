"""The demo's text: functions of packages that are on every machine with the demo's requirements.

A pair is the first sentence of a function's docstring and the function's code without name and docstring. Files are
parsed, never imported. Training and held-out pairs come from different packages, and no name, sentence or code of the
held-out packages occurs among the training pairs.
"""

from __future__ import annotations

import ast
import random
import re
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

TRAINING = ("stdlib", "numpy")
HELD_OUT = ("networkx", "sklearn")

_ELSEWHERE = {"site-packages", "dist-packages", "idlelib", "lib2to3", "encodings", "_vendor", "externals"}
_LONGEST_CODE = 300  # letters; the encoder reads fewer tokens than that
_LONGEST_SENTENCE = 160


@dataclass(frozen=True)
class Pair:
    """A function: what its docstring says first, and its code without name and docstring, on one line."""

    package: str
    name: str
    sentence: str
    code: str


@dataclass(frozen=True)
class Corpus:
    """Pairs to train on and pairs of other packages, each in a shuffled order that depends on nothing but the files."""

    training: tuple[Pair, ...]
    held_out: tuple[Pair, ...]


def files(package: str) -> list[Path]:
    """The Python files of an installed package, or of the standard library ("stdlib"), without tests."""
    if package == "stdlib":
        root = Path(sysconfig.get_paths()["stdlib"])
    else:
        spec = find_spec(package)
        if spec is None or spec.origin is None:
            return []
        root = Path(spec.origin).parent
    found = (path.relative_to(root) for path in root.rglob("*.py"))
    return [root / path for path in sorted(found)
            if not (set(path.parts) & _ELSEWHERE or any("test" in part for part in path.parts))]


def pairs(package: str, text: str) -> Iterator[Pair]:
    """The pairs in the text of a file: public functions whose docstring begins with a sentence in English letters."""
    try:
        tree = ast.parse(text)
    except (SyntaxError, ValueError):
        return
    lines = text.splitlines()
    for node in ast.walk(tree):
        if not isinstance(node, ast.FunctionDef) or node.name.startswith("_") or len(node.body) < 2:
            continue
        sentence = first_sentence(ast.get_docstring(node) or "")
        code = " ".join(" ".join(lines[node.body[1].lineno - 1 : node.end_lineno]).split())
        if 4 <= len(sentence.split()) and len(sentence) <= _LONGEST_SENTENCE and sentence.isascii() and len(code) >= 30:
            yield Pair(package, node.name, sentence, code[:_LONGEST_CODE])


def first_sentence(docstring: str) -> str:
    """The first sentence of the first paragraph, on one line; "" when that is an example or markup."""
    paragraph = " ".join(re.split(r"\n\s*\n", docstring.strip())[0].split())
    if paragraph.startswith((">>>", "..")):
        return ""
    return re.split(r"(?<=[.!?])\s+(?=[A-Z])", paragraph)[0]


def read(training: Sequence[str] = TRAINING, held_out: Sequence[str] = HELD_OUT,
         watch: Callable[[list[Path]], Iterable[Path]] = iter) -> Corpus:
    """The corpus of these packages. ``watch`` goes through the files of a package, for a progress bar."""

    def package_pairs(packages: Sequence[str]) -> Iterator[Pair]:
        for package in packages:
            for path in watch(files(package)):
                try:
                    text = path.read_text(encoding="utf-8")
                except (OSError, UnicodeDecodeError):
                    continue
                yield from pairs(package, text)

    kept = distinct(package_pairs(held_out), taken=set())
    taken = {key for pair in kept for key in keys(pair)}
    return Corpus(_shuffled(distinct(package_pairs(training), taken)), _shuffled(kept))


def keys(pair: Pair) -> tuple[str, str, str]:
    """What two pairs must not have in common: name, words of the sentence, words of the code."""
    name = pair.name.lower().replace("_", "")
    return f"name {name}", f"sentence {_words(pair.sentence)}", f"code {_words(pair.code)}"


def distinct(found: Iterable[Pair], taken: set[str]) -> list[Pair]:
    """The pairs that share nothing with an earlier one or with ``taken``."""
    taken = set(taken)
    kept: list[Pair] = []
    for pair in found:
        own = keys(pair)
        if taken.isdisjoint(own):
            kept.append(pair)
            taken.update(own)
    return kept


def _words(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def _shuffled(kept: list[Pair]) -> tuple[Pair, ...]:
    random.Random(0).shuffle(kept)
    return tuple(kept)
