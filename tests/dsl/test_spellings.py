"""Names and operators in glyphs, in ASCII and in Python."""

from __future__ import annotations

import keyword
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from padp.dsl import spellings
from padp.dsl.spellings import ascii_name, glyph_name, look_alikes, plain, python_name
from tests.support.trees import identifiers

NAMES = [  # as typed, canonical, ASCII, Python
    ("λ", "λ", "lambda", "lambda_"),
    ("lambda_", "λ", "lambda", "lambda_"),
    ("lambda_b", "λ_b", "lambda_b", "lambda_b"),
    ("ΔW", "ΔW", "Delta_W", "Delta_W"),
    ("Delta_W", "ΔW", "Delta_W", "Delta_W"),
    ("Δ_W", "Δ_W", "Delta__W", "Delta__W"),
    ("Delta_Sigma", "ΔΣ", "Delta_Sigma", "Delta_Sigma"),
    ("ΔS_qk", "ΔS_qk", "Delta_S_qk", "Delta_S_qk"),
    ("Δᵢ", "Δᵢ", "Delta__i", "Delta__i"),
    ("V_hat", "V̂", "V_hat", "V_hat"),
    ("mask_hat", "mask_hat", "mask_hat", "mask_hat"),
    ("x_tilde", "x̃", "x_tilde", "x_tilde"),
    ("b̂ⱼ", "b̂ⱼ", "b_hat_j", "b_hat_j"),
    ("a_hat_i", "âᵢ", "a_hat_i", "a_hat_i"),
    ("a_i", "aᵢ", "a_i", "a_i"),
    ("vₖ", "v_k", "v_k", "v_k"),
    ("c_i_j", "cᵢⱼ", "c_i_j", "c_i_j"),
    ("beta_1", "β₁", "beta_1", "beta_1"),
    ("β1", "β1", "beta1", "beta1"),
    ("R_12", "R₁₂", "R_12", "R_12"),
    ("x_1_2", "x₁_2", "x_1_2", "x_1_2"),
    ("R_b", "R_b", "R_b", "R_b"),
    ("S_qk'", "S_qk'", "S_qk'", "S_qk_prime"),
    ("W_prime", "W'", "W'", "W_prime"),
    ("W′", "W'", "W'", "W_prime"),
    ("class", "class", "class", "class_"),
    ("V_T", "V_T", "V_T", "V__T"),
    ("iFFT2", "iFFT2", "iFFT2", "iFFT2"),
    ("µ", "μ", "mu", "mu"),
    ("∆W", "ΔW", "Delta_W", "Delta_W"),
    ("ϵ", "ε", "epsilon", "epsilon"),
]


@pytest.mark.parametrize(("typed", "glyphs", "ascii", "python"), NAMES, ids=[row[0] for row in NAMES])
def test_name(typed: str, glyphs: str, ascii: str, python: str) -> None:
    assert glyph_name(typed) == unicodedata.normalize("NFC", glyphs)
    assert ascii_name(glyph_name(typed)) == ascii
    assert python_name(glyph_name(typed)) == python


def test_transposed_names() -> None:
    """``Vᵀ`` is a name where it is assigned to."""
    assert (ascii_name("Vᵀ"), python_name("Vᵀ"), python_name("V̂ᵀ")) == ("V.T", "V_T", "V_hat_T")


@given(identifiers)
@settings(max_examples=300, deadline=None)
def test_round_trips(name: str) -> None:
    assert glyph_name(name) == name == unicodedata.normalize("NFC", name)
    assert ascii_name(name).isascii()
    assert glyph_name(ascii_name(name)) == name
    python = python_name(name)
    assert python.isascii() and python.isidentifier() and not keyword.iskeyword(python)


@given(st.lists(identifiers, min_size=2, max_size=30, unique=True))
@settings(max_examples=100, deadline=None)
def test_distinct_names_stay_distinct_in_python(names: list[str]) -> None:
    names = [*names, *(name + "ᵀ" for name in names)]
    assert len({python_name(name) for name in names}) == len(names)
    assert len({ascii_name(name) for name in names}) == len(names)


@pytest.mark.parametrize("word", ["", "_", "_a", "1a", "a b", "ᵢ", "naïve", "mask̂", "a-b", "Wᵀx", "λx", "'", "ß", "ж"])
def test_no_name(word: str) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        glyph_name(word)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_name_or_is_refused(text: str) -> None:
    try:
        name = glyph_name(text)
    except ValueError as error:
        assert str(error)
    else:
        assert glyph_name(name) == name


def test_look_alikes_keep_offsets() -> None:
    assert all(len(a) == len(b) == 1 for a, b in spellings.CONFUSABLES.items())
    assert plain("W ∙ x − ϵ") == "W · x - ε"
    assert plain('ϵ "ϵ" # ϵ\n“ϵ”') == 'ε "ϵ" # ϵ\n"ϵ"'
    assert look_alikes("W − Α # Α") == [(4, "Α", "A")]
    assert not set(spellings.CONFUSABLES) & set(spellings.CONFUSABLES.values())


def test_tables_are_one_to_one() -> None:
    for table in (spellings.GREEK, spellings.MARKS, spellings.OPERATORS, spellings.SUBSCRIPTS):
        assert len(set(table.values())) == len(table)
    assert all(ascii.isascii() for ascii in spellings.OPERATORS.values())
