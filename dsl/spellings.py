"""Glyphs and their ASCII spellings, for names and for operators.

A name is a base, then subscripts, each with its marks and primes:

    name = part (("_" | subscript glyph) part)*
    part = "Δ"* (Latin word | Greek letter digits* | digits) mark* "'"*

One name has one canonical form, in glyphs: ``lambda_b`` is ``λ_b``, ``V_hat`` is ``V̂``, ``Delta_W`` is ``ΔW``,
``beta_1`` is ``β₁``, ``a_i`` is ``aᵢ``. Subscripts made of digits and the index letters i, j, t are written as
subscript glyphs, all others after an underscore (Unicode has no subscript b, c, d, f, g, q, w, y, z).

    glyph_name("Delta_W") == "ΔW"      ascii_name("ΔW") == "Delta_W"      python_name("λ") == "lambda_"
"""

from __future__ import annotations

import keyword
import re
import unicodedata
from dataclasses import dataclass, replace
from functools import lru_cache

GREEK: dict[str, str] = {
    "alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "epsilon": "ε", "zeta": "ζ", "eta": "η", "theta": "θ",
    "iota": "ι", "kappa": "κ", "lambda": "λ", "mu": "μ", "nu": "ν", "xi": "ξ", "pi": "π", "rho": "ρ", "sigma": "σ",
    "tau": "τ", "upsilon": "υ", "phi": "φ", "chi": "χ", "psi": "ψ", "omega": "ω", "Gamma": "Γ", "Delta": "Δ",
    "Theta": "Θ", "Lambda": "Λ", "Xi": "Ξ", "Pi": "Π", "Sigma": "Σ", "Phi": "Φ", "Psi": "Ψ", "Omega": "Ω", "ell": "ℓ",
}
"""ASCII word of every letter that has one. Capitals that look like Latin letters (Alpha, Beta …) are those letters."""

MARKS: dict[str, str] = {
    "hat": "\u0302", "tilde": "\u0303", "bar": "\u0304", "dot": "\u0307", "ddot": "\u0308", "check": "\u030c",
    "breve": "\u0306", "ring": "\u030a", "acute": "\u0301", "grave": "\u0300",
}
"""ASCII word of every mark. A mark stands on a single letter: ``x_hat`` is ``x̂``, but ``mask_hat`` is a plain name."""

OPERATORS: dict[str, str] = {
    "←": "<-", "∈": "in", "ℝ": "R", "ℂ": "C", "ℕ": "N", "×": "x", "·": "*", "⊙": ".*", "⊗": "(x)", "√": "sqrt",
    "∇": "grad", "Σ": "sum", "‖": "||", "ᵀ": ".T", "⁻¹": "^-1", "≠": "!=", "≤": "<=", "≥": ">=", "…": "...",
}
"""ASCII spelling of every operator that is not ASCII itself."""

CONFUSABLES: dict[str, str] = {
    "ϵ": "ε", "µ": "μ", "∆": "Δ", "ϑ": "θ", "ϕ": "φ", "ϱ": "ρ", "ϖ": "π", "ς": "σ", "ο": "o",  # noqa: RUF001
    "Α": "A", "Β": "B", "Ε": "E", "Ζ": "Z", "Η": "H", "Ι": "I", "Κ": "K", "Μ": "M", "Ν": "N", "Ο": "O", "Ρ": "P",
    "Τ": "T", "Υ": "Y", "Χ": "X", "−": "-", "–": "-", "‐": "-", "‑": "-", "∙": "·", "•": "·", "⋅": "·", "‧": "·",  # noqa: RUF001
    "∗": "*", "′": "'", "’": "'", "‘": "'", "ʹ": "'", "“": '"', "”": '"', "∥": "‖", "∣": "|", "ǀ": "|", "⟵": "←",  # noqa: RUF001
    "⇐": "←", "∊": "∈", "⨂": "⊗", "⨀": "⊙", "\u0305": "\u0304", "\u00a0": " ", "\u2009": " ",
    "\u202f": " ", "\u2003": " ", "\u2002": " ",
}
"""Characters that are read as another one, each one code point for one, so that offsets do not move."""

KEYWORDS = frozenset({
    "adapter", "on", "where", "variant", "common", "for", "in", "if", "else", "minimise", "minimize", "knob", "even",
    "odd", "sqrt", "grad",
})
"""Words that cannot be names. (The words of roles, ``learned``, ``init`` …, can.)"""

_LETTER_OF_SUB = dict(zip("ₐₑₕᵢⱼₖₗₘₙₒₚᵣₛₜᵤᵥₓᵦᵧᵨᵩᵪ₀₁₂₃₄₅₆₇₈₉", "aehijklmnoprstuvxβγρφχ0123456789", strict=True))
_SUB_OF_LETTER = {letter: sub for sub, letter in _LETTER_OF_SUB.items() if letter in "ijt0123456789"}
_GREEK_WORD = {glyph: word for word, glyph in GREEK.items()}
_MARK_WORD = {mark: word for word, mark in MARKS.items()}
_CONFUSABLE_TABLE = str.maketrans(CONFUSABLES)

SUBSCRIPTS = {letter: sub for sub, letter in _LETTER_OF_SUB.items() if letter in "aehijklmnoprstuvx"}
"""Subscript glyph of every Latin letter that has one."""


def plain(text: str) -> str:
    """``text`` with look-alike characters replaced, except in comments and quoted text. One for one: offsets stay."""
    code = text.translate(_CONFUSABLE_TABLE)

    def as_written(found: re.Match[str]) -> str:
        start, end = found.span()
        return text[start:end] if code[start] == "#" else f'"{text[start + 1 : end - 1]}"'

    return re.sub(r'"[^"\n]*"|#[^\n]*', as_written, code) if code != text else text


def look_alikes(text: str) -> list[tuple[int, str, str]]:
    """Offset, letter and the letter it is read as, for every letter of the code that ``plain`` replaces."""
    pairs = enumerate(zip(text, plain(text), strict=True))
    return [(at, seen, meant) for at, (seen, meant) in pairs if seen != meant and meant.isalpha()]


def glyph_name(name: str) -> str:
    """The canonical form of a name, in glyphs; idempotent. A Python spelling (``lambda_``) is understood too.

    Raises ValueError, with a sentence for people, where ``name`` is no name.
    """
    return _glyphs(_parts(name))


def ascii_name(name: str) -> str:
    """The ASCII spelling of a name in program text: ``glyph_name(ascii_name(n)) == glyph_name(n)``."""
    stem = name.rstrip("ᵀ")
    return _ascii(_parts(stem), prime="'", escape="") + ".T" * (len(name) - len(stem))


def python_name(name: str) -> str:
    """A Python identifier for a name: ``λ`` → ``lambda_``, ``Vᵀ`` → ``V_T``, ``S_qk'`` → ``S_qk_prime``.

    Distinct canonical names have distinct identifiers (the name ``V_T`` gives way to ``Vᵀ`` and becomes ``V__T``).
    """
    stem = name.rstrip("ᵀ")
    word = _ascii(_parts(stem), prime="_prime", escape="_") + "_T" * (len(name) - len(stem))
    return word + "_" if keyword.iskeyword(word) else word


def same_name(spelled: object, name: str) -> bool:
    """Whether a spelling, glyphs or ASCII, is that of a name; no name is spelled by what is none."""
    try:
        return isinstance(spelled, str) and python_name(spelled) == python_name(name)
    except ValueError:
        return False


# ---------------------------------------------------------------- the parts of a name


@dataclass(frozen=True, slots=True)
class _Part:
    word: str  # Latin word, digits, or Greek letter with digits
    deltas: int = 0  # how many Δ are glued in front
    marks: str = ""
    primes: int = 0
    spelled: bool = False  # the word Delta: what follows after one "_" is glued to it

    @property
    def takes_mark(self) -> bool:
        return len(self.word) == 1 and not self.word.isdigit() and not self.primes

    @property
    def is_bare_delta(self) -> bool:
        return self.word == "Δ" and not self.marks and not self.primes


_PIECE = re.compile(
    r"(?P<sep>_{0,2})"
    r"(?:(?P<sub>[₀-₉]+|[" + "".join(_LETTER_OF_SUB) + r"])"
    r"|(?P<greek>[" + "".join(_GREEK_WORD) + r"][0-9]*)"
    r"|(?P<latin>[A-Za-z0-9]+))"
    r"(?P<marks>[" + "".join(_MARK_WORD) + r"]*)"
    r"(?P<primes>'*)"
)


@lru_cache(maxsize=4096)
def _parts(name: str) -> tuple[_Part, ...]:
    text = unicodedata.normalize("NFD", plain(name))
    end = len(text) - 1 if text.endswith("_") else len(text)  # ``lambda_``: Python's spelling of a word that is taken
    parts: list[_Part] = []
    at = 0
    while at < end:
        piece = _PIECE.match(text, at, end)
        if piece is None:
            raise ValueError(f"`{text[at]}` cannot stand in a name")
        sep, latin = piece["sep"], piece["latin"]
        if piece["sub"]:
            word = "".join(_LETTER_OF_SUB[c] for c in piece["sub"])
        else:
            word = piece["greek"] or _word(latin)
        part = _Part(word, 0, piece["marks"], len(piece["primes"]), latin == "Delta")
        if part.marks and not replace(part, primes=0).takes_mark:
            spelled = "".join("_" + _MARK_WORD[mark] for mark in part.marks)
            raise ValueError(f"a mark stands on a single letter; after `{word}` write `{spelled}`")
        if not parts:
            if sep or piece["sub"] or word[0].isdigit():
                raise ValueError("a name begins with a letter")
            parts.append(part)
        else:
            parts[-1:] = _joined(parts[-1], sep, part, is_sub=bool(piece["sub"]), is_latin=latin is not None)
        at = piece.end()
    if not parts:
        raise ValueError("a name needs a letter")
    return tuple(parts)


def _joined(before: _Part, sep: str, part: _Part, is_sub: bool, is_latin: bool) -> list[_Part]:
    """A part after another one: a mark or a prime in letters, a word glued to its Δ, or a subscript."""
    if is_latin and (sep or before.is_bare_delta):
        if part.word in MARKS and before.takes_mark:
            return [replace(before, marks=before.marks + MARKS[part.word], primes=part.primes)]
        if part.word == "prime" and not part.marks:
            return [replace(before, primes=before.primes + 1 + part.primes)]
    if before.is_bare_delta and not is_sub and not part.word.isdigit() and sep == ("_" if before.spelled else ""):
        return [replace(part, deltas=before.deltas + 1)]
    if not sep and not is_sub:
        raise ValueError(f"`{part.word}` cannot follow `{before.word}` without `_`")
    return [before, part]


def _word(latin: str) -> str:
    stem = latin.rstrip("0123456789")
    return GREEK[stem] + latin[len(stem) :] if stem in GREEK else latin


def _glyphs(parts: tuple[_Part, ...]) -> str:
    out = ""
    for i, part in enumerate(parts):
        text = "Δ" * part.deltas + part.word + part.marks
        if i:
            as_sub = part.word.isdigit() or (part.word in _SUB_OF_LETTER and not part.marks)
            if as_sub and not part.deltas and not (part.word.isdigit() and out[-1] in "₀₁₂₃₄₅₆₇₈₉"):
                text = "".join(_SUB_OF_LETTER[c] for c in part.word)
            else:
                text = "_" + text
        out += text + "'" * part.primes
    return unicodedata.normalize("NFC", out)


def _ascii(parts: tuple[_Part, ...], prime: str, escape: str) -> str:
    out = ""
    for i, part in enumerate(parts):
        letter = part.word.rstrip("0123456789")
        word = _GREEK_WORD[letter] + part.word[len(letter) :] if letter in _GREEK_WORD else part.word
        before = parts[i - 1] if i else None
        if before is not None:
            out += "_"
            if before.is_bare_delta and not part.word.isdigit():
                out += "_"  # Delta_W is ΔW, Delta__W is Δ_W
        out += "Delta_" * part.deltas
        if word == "T" and out:
            out += escape
        out += word + "".join("_" + _MARK_WORD[m] for m in part.marks) + prime * part.primes
    return out
