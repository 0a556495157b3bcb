"""What several commands read: programs, models, sizes, hyperparameters."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from io import TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING

from padp.compiler.names.terms import Method, Var
from padp.dsl.source import MAX_BYTES, Source, read, read_all
from padp.weights import StoredModel, read_model

if TYPE_CHECKING:
    from padp.compiler.adapter import Adapter


class Usage(Exception):
    """The command line asks for something that makes no sense. Exit status 2."""


def read_program(file: str) -> Source:
    """The program in FILE: a path, a name of the library, or ``-`` for standard input."""
    from padp.compiler.library import library, load

    if file == "-":
        return _text(file, "<stdin>")
    path = Path(file)
    if path.exists() and not path.is_dir():  # also what a shell gives for <(…)
        return _text(file, file)
    if file in library():
        return load(file)
    if path.is_dir():
        raise Usage(f"{file} is a directory")
    raise Usage(f"no file {file}, and no adapter of the library has that name (it has {', '.join(library())})")


def _text(file: str, name: str) -> Source:
    """The source in a file, or in standard input for ``-``."""
    try:
        return Source.of(_standard_input() if file == "-" else read(file), name)
    except UnicodeDecodeError as error:
        raise Usage(f"{name} is not UTF-8 text (byte {error.start})") from None
    except OSError as error:
        raise Usage(f"{name} cannot be read: {error.strerror}") from None


def _standard_input() -> str:
    """All of it, up to the limit of a program."""
    return read_all(sys.stdin.buffer) if isinstance(sys.stdin, TextIOWrapper) else sys.stdin.read(MAX_BYTES + 1)


def adapter_of(file: str) -> Adapter:
    """The compiled program in FILE. Raises PadpError with every finding when it has errors."""
    from padp.compiler.adapter import Adapter
    from padp.compiler.phases import require

    source = read_program(file)
    require(source)
    return Adapter(source)


def open_model(path: str) -> StoredModel:
    """The model at a path that the user gave."""
    if not Path(path).exists():
        raise Usage(f"{path} does not exist")
    return read_model(path)


def site_sizes(method: Method, given: Mapping[str, int]) -> dict[str, int]:
    """The sizes of a place in a model under the program's own names: ``linear(W ∈ ℝ^{p×q})`` calls m p and n q."""
    spaces = {bound.name: bound.space for bound in method.bound}
    match method.site:
        case "linear":
            written = dict(zip("mn", spaces["W"].dims, strict=True))
        case "hidden":
            written = {"d": spaces["h"].dims[0]}
        case _:
            query, key = spaces["W_Q"], spaces["W_K"]
            written = {"e": query.dims[0], "d": query.dims[1], "H": query.family[0], "G": key.family[0]}
    return {term.name: given[name] for name, term in written.items() if isinstance(term, Var)}


def sizes_of(method: Method, text: str) -> dict[str, int]:
    """The sizes of one site as the user gave them: all that the site of this program has, and no others."""
    from padp.dsl.spellings import glyph_name

    wanted = set(site_sizes(method, dict.fromkeys(("m", "n", "d", "e", "H", "G"), 1)))
    given = {name if name in wanted else glyph_name(name): size for name, size in sizes(text).items()}
    if set(given) != wanted:
        raise Usage(f"--size: {method.name} works on sites with {', '.join(sorted(wanted))}; given: {', '.join(given)}")
    return given


def sizes(text: str) -> dict[str, int]:
    """``m=4096,n=4096`` as a table of whole numbers ≥ 1."""
    found: dict[str, int] = {}
    for name, value in _pairs([text], "--size"):
        if not re.fullmatch(r"[1-9]\d{0,9}", value):
            raise Usage(f"--size {name}={value}: a size is a whole number from 1")
        found[name] = int(value)
    return found


def hyperparameters(texts: Sequence[str]) -> dict[str, object]:
    """``r=8``, ``alpha=0.5,seed=1``, ``positions=f7+l7`` as a table: whole numbers, numbers, else words."""
    return {name: _value(value) for name, value in _pairs(texts, "--set")}


def _pairs(texts: Sequence[str], option: str) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for item in (item for text in texts for item in text.split(",")):
        name, equals, value = item.partition("=")
        name, value = name.strip(), value.strip()
        if not (name and equals and value):
            raise Usage(f"{option} takes NAME=VALUE, not {item!r}")
        if name in dict(pairs):
            raise Usage(f"{option} gives {name} twice")
        pairs.append((name, value))
    return pairs


def _value(text: str) -> object:
    if re.fullmatch(r"[+-]?\d{1,18}", text):
        return int(text)
    try:
        return float(text)
    except ValueError:
        return text.strip("\"'")


def writable(path: str | None, option: str) -> Path | None:
    """A file to write at the end of a run, None for standard output: refused now rather than then."""
    if path is None or path == "-":
        return None
    file = Path(path)
    if file.is_dir() or not file.absolute().parent.is_dir():
        raise Usage(f"{option} {path}: not a file in a directory that exists")
    return file
