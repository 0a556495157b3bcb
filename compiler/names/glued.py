"""Words that are several known names without a sign between them: ``BAx`` is B, A and x, ``mn`` is m and n.

    apart("BAx", known)                 ("B", "A", "x"), or None
    product("BAx", scope)               "B @ A @ x": what the writer of a paper means by it
    spelled_out("2rn + mr", known)      "2r·n + m·r", or None where it is not sure what is meant
"""

from __future__ import annotations

import re
from collections.abc import Callable

from padp.compiler.ir.budget import spend
from padp.compiler.names.scope import Entry, Scope

_LONGEST = 16
WORD = re.compile(r"[^\W\d_⁰¹²³⁴-⁹]+")
_BINDS_TIGHTER = ("/", "⊙", ".*", "⊗", "(x)", "^", "√", "sqrt")


def apart(word: str, known: Callable[[str], bool]) -> tuple[str, ...] | None:
    """The fewest known names that stand end to end in a word, at least two; None where it is not made of them."""
    if not 2 <= len(word) <= _LONGEST:
        return None
    spend(len(word) ** 2)
    best: dict[int, tuple[str, ...]] = {0: ()}
    for end in range(1, len(word) + 1):
        ways = [(*best[start], word[start:end]) for start in range(end)
                if start in best and end - start < len(word) and known(word[start:end])]
        if ways:
            best[end] = min(ways, key=len)
    return best.get(len(word))


def product(word: str, scope: Scope) -> str | None:
    """The product that a word of several bound names stands for, with its signs."""
    found = apart(word, lambda name: _bound(name, scope) is not None)
    if found is None:
        return None
    entries = [(name, _bound(name, scope)) for name in found]
    text, left = entries[0][0], _rank(entries[0][1])
    for name, entry in entries[1:]:
        right = _rank(entry)
        if 0 in (left, right):
            sign, rank = "·", right if left == 0 else left
        elif left == 1 and right in (1, 2):
            sign, rank = "⊙", right
        else:
            sign, rank = "@", right
        text, left = f"{text} {sign} {name}", rank
    return text


def standing(text: str, before: str) -> str:
    """A product in the place of a word, in parentheses where what stands before would take its first factor only."""
    return f"({text})" if before.rstrip().endswith(_BINDS_TIGHTER) else text


def spelled_out(text: str, known: Callable[[str], bool]) -> str | None:
    """An expression over sizes with ``·`` between letters that stand side by side; None where nothing is to be done.

    ``1/mn`` is left: it could be 1/(m·n) or n/m.
    """
    changed = False

    def spaced(found: re.Match[str]) -> str:
        nonlocal changed
        word = found[0]
        letters = None if known(word) or text[found.end():found.end() + 1] == "_" else apart(word, known)
        if letters is None or text[:found.start()].rstrip().endswith(_BINDS_TIGHTER):
            return word
        changed = True
        return "·".join(letters)

    made = WORD.sub(spaced, text)
    return made if changed else None


def _bound(name: str, scope: Scope) -> Entry | None:
    return scope.find(name) or scope.find(name + "ᵀ")


def _rank(entry: Entry | None) -> int | None:
    """0 for a number, 1 for a vector, 2 for a matrix; None where the scope does not say."""
    assert entry is not None
    if entry.kind in ("number", "index"):
        return 0
    return None if entry.item is None else len(entry.item)
