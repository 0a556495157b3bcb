"""``layer.code``: Python that a person can read, with the line of the program above what it became."""

from __future__ import annotations

import ast
import keyword

import pytest

from tests.library import test_laws
from tests.support.common import Case, fresh, only

CASES = {(c.name, c.variant): c for c in test_laws.CASES}


@pytest.mark.parametrize("case", CASES.values(), ids=str)
def test_it_is_python_with_the_programs_lines(case: Case) -> None:
    layer = fresh(case)
    code = layer.code
    (function,) = ast.parse(code).body
    assert isinstance(function, ast.FunctionDef) and function.name == "forward"
    assert code.isascii() or all(line.lstrip().startswith("#") for line in code.splitlines() if not line.isascii())
    program = {line.strip() for line in case.adapter.source.text.splitlines()}
    comments = [line.strip()[2:] for line in code.splitlines() if line.strip().startswith("# ")]
    assert comments and set(comments) <= program and not any(c.startswith("#") for c in comments)
    statements = code.splitlines()[1:-1]  # without the head and the return
    assert statements[0].strip() == "to_compute = x.to(like.dtype)" and statements[1].strip().startswith("# ")
    names = {a.arg for a in function.args.args}
    assert {"x", "base"} <= names and not any(keyword.iskeyword(name) for name in names)
    assert {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)} <= \
        names | {n.id for n in ast.walk(function) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)} | \
        {"torch", "prims", "F"}  # fmt: skip
    used = {only(layer).compiled.names[name] for name, p in only(layer).compiled.parameters.items()
            if p.declaration.role == "learned"}  # fmt: skip
    assert used <= names
