"""Text to tree: ``parse(source) -> Program``.

Three steps, each on its own: ``lines.py`` cuts the text into logical lines, grammar.lark reads each of them, and the
blocks are put together here from indentation. A line that cannot be read does not spoil the next, so one run reports
every line's error.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import cast

import lark
from lark.exceptions import UnexpectedInput

from padp.dsl.build import AfterHead, CommonHead, ForHead, Head, LineTree, VariantHead
from padp.dsl.complaints import explain, habit_on
from padp.dsl.diagnostics import Diagnostic, PadpError, Related
from padp.dsl.grammar import parser
from padp.dsl.limits import MAX_ERRORS, MAX_HEIGHT, MAX_NESTING, MAX_STATEMENTS, MAX_TEXT, MAX_WORDS
from padp.dsl.lines import Comment, Line, logical_lines
from padp.dsl.source import Source, Span
from padp.dsl.spellings import plain
from padp.dsl.syntax import (
    AfterBackward,
    Assign,
    Common,
    Declare,
    For,
    Header,
    Minimise,
    Program,
    Remark,
    Statement,
    Variant,
)

_WORD = re.compile(r"\w+|[^\w\s]")


def parse(source: Source) -> Program:
    """The program in ``source``. Raises PadpError with every syntax error found (E101–E106), in the order of the text.

    A comment after a statement is the statement's; a comment on a line of its own, or between the lines of one
    statement, is a Remark. Empty text is an empty program.
    """
    if len(source.text) > MAX_TEXT:
        message = f"the program has more than {MAX_TEXT} characters"
        raise PadpError(Diagnostic("E105", message, Span(0, 0), source))
    text = plain(source.text)
    lines, found = logical_lines(source, text)
    program = _Blocks(source, text, found).program(lines)
    if found:
        found.sort(key=lambda d: (d.span or Span(0, 0)).start)
        if len(found) > MAX_ERRORS:
            more = f"{len(found) - MAX_ERRORS} more errors are not shown"
            found[MAX_ERRORS - 1] = replace(found[MAX_ERRORS - 1], notes=(*found[MAX_ERRORS - 1].notes, more))
        raise PadpError([d.at(source) for d in found[:MAX_ERRORS]])
    return program


# ---------------------------------------------------------------- lines to blocks


@dataclass
class _Frame:
    """A block that is still open."""

    indent: str
    head: Head | None
    comment: str | None = None
    body: list[Statement] = field(default_factory=list[Statement])


class _Blocks:
    """Reads logical lines one after the other and nests them by indentation; complaints go to ``found``."""

    def __init__(self, source: Source, text: str, found: list[Diagnostic]) -> None:
        self.source = source
        self.text = text
        self.found = found
        self.header: Header | None = None
        self.frames: list[_Frame] = []
        self.awaited: tuple[Head, str, str | None] | None = None  # a head whose block comes next: head, indent, comment
        self.after_unread = False  # the line before could not be read: it may have been a head

    def program(self, lines: list[Line | Comment]) -> Program:
        pending: list[Comment] = []
        count = words = 0
        for line in lines:
            count += 1
            if count > MAX_STATEMENTS:
                self.complain("E105", f"the program has more than {MAX_STATEMENTS} lines", line.span)
                break
            if isinstance(line, Comment):
                pending.append(line)
                continue
            words += sum(1 for _ in _WORD.finditer(self.text, line.span.start, line.span.end))
            if words > MAX_WORDS:
                self.complain("E105", f"up to here the program has more than {MAX_WORDS} names, numbers and signs",
                              line.span, "what repeats is written as a loop, a family or a function")
                self.awaited = None
                break
            self.settle(line, pending)
            pending = []
            self.frames[-1].body.extend(Remark(c.text, c.span) for c in line.inner)
            self.read(line)
        if self.awaited is not None:
            self.empty_block(self.awaited[0])
        if not self.frames:
            self.frames.append(_Frame("", None))
        self.place(pending, 0)
        return Program(self.header, tuple(self.frames[0].body), Span(0, len(self.source.text)))

    def complain(self, code: str, message: str, span: Span, suggestion: str | None = None, *related: Related) -> None:
        self.found.append(Diagnostic(code, message, span, self.source, related, (), suggestion))

    def settle(self, line: Line, pending: list[Comment]) -> None:
        """Open or close blocks until the innermost open one is the block of ``line``."""
        indent = line.indent
        start = line.span.start
        here = Span(start - len(indent), start) if indent else Span(start, start + 1)
        if not self.frames:
            self.frames.append(_Frame(indent, None))
            self.place(pending, 0)
            return
        awaited, self.awaited = self.awaited, None
        after_unread, self.after_unread = self.after_unread, False
        current = self.frames[-1].indent
        deeper = indent != current and indent.startswith(current)
        if awaited is not None:
            head, _, comment = awaited
            if deeper:
                if len(self.frames) > MAX_NESTING:
                    self.complain("E105", f"blocks are nested more than {MAX_NESTING} deep", here)
                self.frames.append(_Frame(indent, head, comment))
                self.place(pending, len(self.frames) - 1)
                return
            self.empty_block(head)
        if deeper:
            if not after_unread:
                self.complain("E104", "this line is indented, but the line before opens no block", here,
                              "indent it like the line before; a line that continues another one needs an open bracket")
            self.frames.append(_Frame(indent, None, None, self.frames[-1].body))
        depth = next((i for i, f in reversed(list(enumerate(self.frames))) if f.indent == indent), None)
        if depth is None:
            depth = next((i for i, f in reversed(list(enumerate(self.frames))) if len(f.indent) <= len(indent)), 0)
            if indent.startswith(current) or current.startswith(indent):
                self.complain("E104", "this indentation fits no block that is open", here,
                              "indent the lines of a block alike")
            else:
                self.complain("E104", "this indentation mixes tabs and spaces with that of other lines", here,
                              "indent with spaces")
        self.place(pending, depth)

    def place(self, pending: list[Comment], depth: int) -> None:
        """Close blocks down to ``depth``; own-line comments go into the one that their column says."""
        for comment in pending:
            while len(self.frames) > depth + 1 and comment.column < len(self.frames[-1].indent):
                self.close()
            self.frames[-1].body.append(Remark(comment.text, comment.span))
        while len(self.frames) > depth + 1:
            self.close()

    def empty_block(self, head: Head) -> None:
        self.complain("E104", "a block is missing after this line", head.span,
                      "put its statements on the next lines, indented by four spaces")

    def close(self) -> None:
        frame = self.frames.pop()
        if frame.head is not None:
            self.frames[-1].body.append(_block(frame.head, tuple(frame.body), frame.comment))

    def read(self, line: Line) -> None:
        """Parse one logical line into the innermost open block."""
        if not line.sound:
            self.after_unread = True
            return
        try:
            tree = self.tree(line)
        except PadpError as error:
            self.found.extend(error.diagnostics)
            self.after_unread = True
            return
        comment = line.comment.text or None if line.comment is not None else None
        body = self.frames[-1].body
        if tree.header is not None:
            if self.header is not None:
                self.complain("E106", "a file holds one adapter; a second header stands here", tree.header.span,
                              "move it to a file of its own", Related(self.header.span, "the first header"))
            elif len(self.frames) > 1 or any(not isinstance(s, Remark) for s in body):
                self.complain("E106", "the header comes before all statements", tree.header.span, "move this line up")
            self.header = self.header or replace(tree.header, comment=comment)
            return
        statements = tree.statements
        if tree.head is not None:
            self.check_place(tree.head)
            if not statements:
                self.awaited = (tree.head, line.indent, comment)
                return
        if comment is not None:
            last = cast("Declare | Assign | Minimise", statements[-1])  # nothing else stands on one line
            statements = (*statements[:-1], replace(last, comment=comment))
        body.extend(statements if tree.head is None else [_block(tree.head, statements, None)])

    def check_place(self, head: Head) -> None:
        inside = [frame.head for frame in self.frames if frame.head is not None]
        if isinstance(head, (VariantHead, CommonHead)) and inside:
            what = "`variant`" if isinstance(head, VariantHead) else "`common`"
            self.complain("E106", f"{what} cannot stand inside another block", head.span, "do not indent it",
                          Related(inside[-1].span, "inside this block"))
        elif isinstance(head, AfterHead) and any(isinstance(h, (ForHead, AfterHead)) for h in inside):
            self.complain("E106", "`after backward` cannot stand inside this block", head.span, "do not indent it",
                          Related(inside[-1].span, "inside this block"))

    def tree(self, line: Line) -> LineTree:
        """What the grammar makes of the line's code."""
        start, end = line.span.start, line.span.end
        try:
            tree = cast(LineTree, parser().parse(lark.TextSlice(self.text, start, end)))
        except (UnexpectedInput, PadpError) as error:
            habit = habit_on(self.source, self.text, line.span)
            if habit is not None:
                raise PadpError(habit) from None
            if isinstance(error, PadpError):
                raise
            raise PadpError(explain(error, self.source, self.text, line.span)) from None
        if end - start > MAX_HEIGHT:
            _check_height(tree, line.span)
        return tree


def _block(head: Head, body: tuple[Statement, ...], comment: str | None) -> Statement:
    last = body[-1].span.end if body else head.span.end
    span = Span(head.span.start, max(last, head.span.end))
    match head:
        case ForHead(variables, iterable):
            return For(variables, iterable, body, comment, span)
        case VariantHead(name):
            return Variant(name, body, comment, span)
        case CommonHead():
            return Common(body, comment, span)
        case AfterHead():
            return AfterBackward(body, comment, span)


def _check_height(tree: LineTree, line: Span) -> None:
    """Refuse a tree that recursive functions could not walk. A line of n characters is less than n high."""
    stack: list[tuple[object, int]] = [(tree, 0)]
    while stack:
        node, height = stack.pop()
        if height > MAX_HEIGHT:
            message = f"this statement is nested, or goes on, more than {MAX_HEIGHT} steps deep"
            raise PadpError(Diagnostic("E105", message, line, suggestion="give parts of it names of their own"))
        if isinstance(node, tuple):
            stack.extend((child, height) for child in cast("tuple[object, ...]", node))
        elif is_dataclass(node) and not isinstance(node, Span):
            stack.extend((getattr(node, part.name), height + 1) for part in fields(node))
