"""Program text and places in it.

Text is normalised to NFC once, here; every span counts code points of that text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True, slots=True)
class Span:
    """Half-open range of offsets into ``Source.text``."""

    start: int
    end: int


@dataclass(frozen=True)
class Source:
    """A program's text with its name (a path, or ``<text>``)."""

    name: str
    text: str

    @staticmethod
    def of(text: str, name: str = "<text>") -> Source:
        """The source of ``text``, normalised to NFC with ``\\n`` line ends."""
        return Source(name, unicodedata.normalize("NFC", text).replace("\r\n", "\n").replace("\r", "\n"))

    @cached_property
    def _starts(self) -> tuple[int, ...]:
        return (0, *(i + 1 for i, c in enumerate(self.text) if c == "\n"))

    def position(self, offset: int) -> tuple[int, int]:
        """Line and column of an offset, both from 1; the column counts code points."""
        from bisect import bisect_right

        line = bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1

    def line(self, number: int) -> str:
        """The text of a line (from 1), without its end."""
        start = self._starts[number - 1]
        end = self.text.find("\n", start)
        return self.text[start:] if end < 0 else self.text[start:end]

    def slice(self, span: Span) -> str:
        return self.text[span.start : span.end]
