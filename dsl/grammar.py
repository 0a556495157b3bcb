"""The parser of one logical line: grammar.lark as an LALR(1) table, made once and kept in the user's cache."""

from __future__ import annotations

import hashlib
import os
import stat
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any

import lark
from lark import Lark

from padp.dsl.build import Build

GRAMMAR = Path(__file__).with_name("grammar.lark")
OPTIONS: dict[str, Any] = {"parser": "lalr", "keep_all_tokens": True, "maybe_placeholders": False}


@lru_cache(maxsize=1)
def parser() -> Lark:
    """The LALR(1) parser of one logical line. Its table comes from the cache directory where there is one."""
    grammar = GRAMMAR.read_text(encoding="utf-8")
    return Lark(grammar, cache=_cache_file(grammar) or False, transformer=Build(), **OPTIONS)


def _cache_file(grammar: str) -> str | None:
    """A file only this user can write, named after everything the table depends on; None where there is no such place.

    Lark unpickles the file, so a directory that others can write to will not do.
    """
    base = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or os.path.expanduser("~/.cache")
    directory = Path(base) / "padp"
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        about = directory.stat()
    except OSError:
        return None
    if not os.access(directory, os.W_OK) and not os.access(directory, os.R_OK):
        return None
    if hasattr(os, "getuid") and (about.st_uid != os.getuid() or about.st_mode & (stat.S_IWGRP | stat.S_IWOTH)):
        return None
    key = hashlib.sha256(f"{grammar}\0{lark.__version__}\0{sys.version_info[:3]}".encode()).hexdigest()[:16]
    return str(directory / f"grammar-{key}.lark")
