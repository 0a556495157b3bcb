"""What each site gives a program by name, and what to say of a name that only other sites give."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

GIVEN: Mapping[str, tuple[str, ...]] = MappingProxyType({
    "linear": ("W", "x", "bias"),
    "hidden": ("h",),
    "attention": ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V", "b_O", "x"),
})

OUTPUT: Mapping[str, str] = MappingProxyType({"linear": "y", "hidden": "h", "attention": "y"})

_HEADERS = {
    "linear": "linear(W ∈ ℝ^{m×n})", "hidden": "hidden(h ∈ ℝ^d)",
    "attention": "attention(W_Q ∈ (ℝ^{e×d})^H, …)",
}
# What a name of papers is called at a site, and what it is.
_CALLED = {
    "linear": {"b": ("bias", "the layer's own"), "h": ("x", "the token that goes in"),
               "X": ("x", "one token; a program speaks of one at a time")},
    "hidden": {"x": ("h", "the state that the block gives"), "y": ("h", "the state that the block gives"),
               "H": ("h", "one state; a program speaks of one at a time")},
    "attention": {"h": ("x", "the token that goes in"), "X": ("x", "one token; a program speaks of one at a time"),
                  "W": ("W_Q", "or W_K, W_V, W_O"), "b": ("b_Q", "or b_K, b_V, b_O"),
                  "bias": ("b_Q", "or b_K, b_V, b_O")},
}


def listed(site: str) -> str:
    """``W, x and bias``."""
    *first, last = GIVEN[site]
    return f"{', '.join(first)} and {last}" if first else last


def of_another_site(site: str, name: str) -> tuple[str, str] | None:
    """What to write for a name that this site does not give but papers or other sites have, and a note; or None."""
    gives = f"a{'n' if site == 'attention' else ''} {site} site gives {listed(site)}"
    if name in GIVEN[site]:
        return None
    owners = [s for s, names in GIVEN.items() if name in names and s != site]
    if owners:
        gives += f"; `{name}` is of a{'n' if owners[0] == 'attention' else ''} {owners[0]} site"
    if name in _CALLED[site]:
        instead, what = _CALLED[site][name]
        return f"write `{instead}`, {what}", gives
    if owners:
        return f"declare it, `{name} ∈ ℝ^{{…}}: learned, init = 0`, or begin with `adapter NAME on " \
               f"{_HEADERS[owners[0]]}`", gives
    return None
