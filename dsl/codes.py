"""The pages of ``codes.md``: one section for each diagnostic code, with examples that are run as tests."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files

_HEADING = re.compile(r"^## ([EWN]\d{3}) · (.+)$", re.MULTILINE)
_FENCE = re.compile(r"^```(\w+) (bad|good)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Example:
    """A fenced example: ``language`` is padp or python, ``kind`` bad or good."""

    language: str
    kind: str
    text: str


@dataclass(frozen=True, slots=True)
class Page:
    """What ``padp explain`` prints for a code."""

    code: str
    title: str
    text: str

    @property
    def examples(self) -> tuple[Example, ...]:
        return tuple(Example(*match.groups()) for match in _FENCE.finditer(self.text))


@lru_cache(maxsize=1)
def pages() -> dict[str, Page]:
    """All pages by code, in the order of the file."""
    text = (files("padp.dsl") / "codes.md").read_text(encoding="utf-8")
    headings = list(_HEADING.finditer(text))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    return {
        heading[1]: Page(heading[1], heading[2], text[heading.start() : end].strip())
        for heading, end in zip(headings, ends, strict=True)
    }
