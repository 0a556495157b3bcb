"""Settings as they are kept and stored: Python's own numbers and texts.

A number of numpy or torch, and a member of an enumeration that is a number or a text, act like one until somebody
writes them down. They are made plain when they are given; anything else is refused then, by name.
"""

from __future__ import annotations

from numbers import Integral, Real
from typing import Any, cast

from padp.dsl.diagnostics import refuse

_BITS = 63


def plain(value: object) -> object:
    """A scalar as ``int``, ``float``, ``bool`` or ``str``; what is none of these as it is."""
    if getattr(value, "shape", None) == () and hasattr(value, "item"):  # of numpy, torch and their like
        value = cast(Any, value).item()
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        return str.__str__(value)
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value)
    return value


def whole(name: str, value: object) -> int:
    """A whole number; E507."""
    made = plain(value)
    if type(made) is not int or not -(2**_BITS) <= made < 2**_BITS:
        raise refuse("E507", f"{name} is a whole number of {_BITS + 1} bits, not {_shown(value)}")
    return made


def number(name: str, value: object) -> float:
    """A finite number; E507."""
    made = plain(value)
    if type(made) not in (int, float):
        raise refuse("E507", f"{name} is a number, not {_shown(value)}")
    try:
        result = float(cast(float, made))
    except OverflowError:
        result = float("inf")
    if not abs(result) < float("inf"):
        raise refuse("E507", f"{name} is a finite number, not {_shown(value)}")
    return result


def writable(what: str, text: str) -> str:
    """A text that a file can hold; E507 when it has half of a surrogate pair in it."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise refuse("E507", f"{what} {text!a} is no text that can be written to a file: it has half a character",
                     suggestion="another name") from None
    return text


def _shown(value: object) -> str:
    shown = ascii(value) if not isinstance(value, int) or abs(value) < 2**64 else "a larger one"
    return shown if len(shown) <= 60 else shown[:57] + "…"
