"""Patterns that choose modules by their path, and values that differ by pattern.

    suffix   "q_proj", "self_attn.q_proj"       the path, or its end after a dot
    regex    ".*layers\\.[0-3]\\..*q_proj"       the whole path (re.fullmatch)
    by site  {"q_proj": 16, "*": 8}             first pattern that fits, "*" for the rest
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from padp.dsl.diagnostics import Diagnostic, PadpError, refuse

EVERYTHING = "*"


def is_suffix(pattern: str, path: str) -> bool:
    """Whether a path is the pattern, or ends in it after a dot."""
    return path == pattern or path.endswith("." + pattern)


def compiled(pattern: str) -> re.Pattern[str]:
    """The regular expression, or E503 when it is none."""
    try:
        return re.compile(pattern)
    except re.error as error:
        raise refuse("E503", f"{pattern!r} is not a regular expression: {error}",
                     suggestion=f"for the end of a path give a list: [{pattern!r}]") from None


def fits(pattern: str, path: str) -> bool:
    """Whether a pattern of a by-site value fits a path: as a suffix, or as a regex for the whole path."""
    if pattern == EVERYTHING or is_suffix(pattern, path):
        return True
    try:
        return re.fullmatch(pattern, path) is not None
    except re.error:
        return False


def chosen(patterns: str | Sequence[str], paths: Iterable[str]) -> dict[str, list[str]]:
    """Each pattern with the paths that it fits: a string is one regex, a list holds suffixes."""
    paths = list(paths)
    if isinstance(patterns, str):
        regex = compiled(patterns)
        return {patterns: [path for path in paths if regex.fullmatch(path)]}
    for pattern in cast("Sequence[object]", patterns):
        if not isinstance(pattern, str):
            raise refuse("E503", f"{pattern!r} is not the end of a path: names of modules are text",
                         suggestion=repr(str(pattern)))
    return {pattern: [path for path in paths if is_suffix(pattern, path)] for pattern in patterns}


def by_site(value: object, path: str) -> tuple[bool, object]:
    """Whether a value is given for this site, and the value: a mapping is looked up, anything else holds everywhere."""
    if not isinstance(value, Mapping):
        return True, value
    for pattern, own in value.items():
        if pattern != EVERYTHING and fits(str(pattern), path):
            return True, own
    return (True, value[EVERYTHING]) if EVERYTHING in value else (False, None)


@dataclass
class Misses:
    """Patterns that matched nothing, gathered over all arguments so that one error names them all."""

    paths: Sequence[str]
    found: list[Diagnostic] = field(default_factory=list)

    def check(self, argument: str, pattern: str, matched: bool) -> None:
        """Note a pattern of an argument if it matched nothing."""
        if matched:
            return
        near = nearest(pattern, self.paths)
        whole = argument in ("targets", "exclude", "modules_to_save") and any(is_suffix(pattern, p) for p in self.paths)
        suggestion = f"nearest: {', '.join(near)}" if near else None
        if whole:
            suggestion = f"a string is a regular expression for the whole path; for its end give [{pattern!r}]"
        self.found.append(Diagnostic("E503", f"{argument}: {pattern!r} matches nothing in this model",
                                     suggestion=suggestion))

    def check_mapping(self, argument: str, value: object, paths: Iterable[str]) -> None:
        """Note the patterns of a by-site value that fit none of the sites."""
        if isinstance(value, Mapping):
            paths = list(paths)
            for pattern in value:
                self.check(argument, str(pattern), pattern == EVERYTHING or any(fits(str(pattern), p) for p in paths))

    def raise_any(self) -> None:
        """E503 with one finding for each pattern that was noted."""
        if self.found:
            raise PadpError(self.found)


def nearest(pattern: str, paths: Iterable[str]) -> list[str]:
    """At most three names or ends of paths that look like the pattern."""
    depth = pattern.count(".") + 1
    ends = {".".join(path.split(".")[-depth:]): None for path in paths if path}
    close = difflib.get_close_matches(pattern, list(ends), n=3, cutoff=0.5)
    if close:
        return close
    lowered = pattern.lower()
    return [end for end in ends if lowered in end.lower() or end.lower() in lowered][:3]
