"""Program text and places in it.

Text is normalised to NFC once, here; every span counts code points of that text.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from functools import cached_property
from os import PathLike
from typing import BinaryIO

from padp.dsl.limits import MAX_TEXT

MAX_BYTES = 4 * MAX_TEXT
"""No more is read of a file: a program in UTF-8 is never longer."""


def read(path: str | PathLike[str]) -> str:
    """The text of a file, or of what a shell gives for one; of one too long as much as shows that it is.

    Raises OSError, and UnicodeDecodeError where it is not UTF-8.
    """
    with open(path, "rb") as file:
        return read_all(file)


def read_all(file: BinaryIO) -> str:
    """The text of an open file, as ``read`` reads it."""
    data = file.read(MAX_BYTES + 1)
    return data.decode("utf-8", "replace" if len(data) > MAX_BYTES else "strict")


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
