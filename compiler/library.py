"""From a path, a name of the library or program text to a source, its tree and its variants."""

from __future__ import annotations

from functools import lru_cache
from importlib.resources import files
from os import PathLike, fspath
from os.path import exists, isdir
from pathlib import Path

from padp.dsl import syntax
from padp.dsl.diagnostics import refuse
from padp.dsl.parse import parse
from padp.dsl.source import Source, read


def library() -> tuple[str, ...]:
    """The names of the standard library's adapters."""
    names = (f.name for f in files("padp.stdlib").iterdir())
    return tuple(sorted(n[:-5] for n in names if n.endswith(".padp") and n != "prelude.padp"))


def load(program: str | PathLike[str]) -> Source:
    """The source of a path, of a name of the library ("oft"), or of program text (anything with a line break or ``←``).

    Raises PadpError E510 when it is none of these, naming near names.
    """
    if not isinstance(program, str):
        return _read(Path(fspath(program)))
    if "\n" in program or "←" in program or "<-" in program:
        return Source.of(program)
    if program in library():
        entry = files("padp.stdlib") / f"{program}.padp"
        return Source.of(entry.read_text(encoding="utf-8"), f"{program}.padp")
    if exists(program) and not isdir(program):
        return _read(Path(program))
    if not program.strip():
        raise refuse("E510", "the text is empty, and no program",
                     suggestion="a program begins with its header: adapter NAME(r = 4) on linear(W ∈ ℝ^{m×n})")
    from difflib import get_close_matches

    near = get_close_matches(program.lower().removesuffix(".padp"), library(), 3)
    raise refuse("E510", f"{program!r} is no file, no adapter of the library and no program text",
                 suggestion=" or ".join(near) if near else f"one of {', '.join(library())}")


def _read(path: Path) -> Source:
    try:
        return Source.of(read(path), str(path))
    except UnicodeDecodeError as error:
        raise refuse("E102", f"{path} is not UTF-8 text (byte {error.start})",
                     suggestion="save the file as UTF-8") from None
    except OSError as error:
        raise refuse("E510", f"{path} cannot be read: {error.strerror}") from None


@lru_cache(maxsize=256)
def tree(source: Source) -> syntax.Program:
    """The syntax tree of a source."""
    return parse(source)
