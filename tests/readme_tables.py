"""The tables of README.md that follow from the code.

    python -m tests.readme_tables          writes them into README.md

A table stands between ``<!-- NAME -->`` and ``<!-- end NAME -->``; a test compares.
"""

from __future__ import annotations

import re
from pathlib import Path

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.ir.dims import show
from padp.compiler.library import library
from padp.compiler.operators.table import OPERATORS

README = Path(__file__).parent.parent / "README.md"


def library_table() -> str:
    """The adapters of the library: what each learns and can do, by its default variant where none is named."""
    rows = ["| name | paper | site | variants | learned scalars a site | starts as the base | merges | reads W |",
            "|---|---|---|---|---|---|---|---|"]
    for name in library():
        adapter: Adapter = padp.compile(name)
        arxiv = re.search(r"arXiv:(\d{4}\.\d{4,5})", adapter.source.text)
        assert arxiv is not None, f"{name}.padp names no paper"
        can = adapter.capabilities
        rows.append("| " + " | ".join([
            f"`{name}`", f"[{arxiv[1]}](https://arxiv.org/abs/{arxiv[1]})", adapter.site,
            ", ".join(adapter.variants) or "–", _formulas(adapter), _yes(bool(can["identity"])),
            _yes(bool(can["mergeable"])), _when(can["needs_weight"].reason) if can["needs_weight"] else "no",
        ]) + " |")
    return "\n".join(rows)


def _formulas(adapter: Adapter) -> str:
    """The formula of the default, and of the variants that learn another number."""
    first = adapter.count_of(None)
    other = {variant: formula for variant in adapter.variants[1:] if (formula := adapter.count_of(variant)) != first}
    return "; ".join([show(first), *(f"{variant}: {show(formula)}" for variant, formula in other.items())])


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _when(reason: str) -> str:
    """When the entries of W are read, as the reason of the capability begins."""
    return "every step" if reason.startswith("at every step") else "once"


def functions_table() -> str:
    """Every function of the language in the operator table's own words; those of one meaning stand together."""
    groups: dict[str, list[str]] = {}
    for name, operator in OPERATORS.items():
        base = re.sub("_(row|col)$", "", name)
        doc = f"{base} of all entries, of each row, of each column" if f"{base}_row" in OPERATORS else operator.doc
        groups.setdefault(doc, []).append(operator.signature)
    rows = ["| function | what it gives |", "|---|---|"]
    rows += [f"| {', '.join(f'`{_cell(form)}`' for form in forms)} | {_cell(doc)} |" for doc, forms in groups.items()]
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


TABLES = {"library": library_table, "functions": functions_table}


def written(text: str) -> str:
    """README's text with every table as the code has it now."""
    for name, table in TABLES.items():
        pattern = re.compile(rf"(<!-- {name} -->\n).*?(<!-- end {name} -->)", re.DOTALL)
        assert pattern.search(text), f"README.md has no place for the table {name}"
        made = table()
        text = pattern.sub(lambda found, made=made: f"{found[1]}{made}\n{found[2]}", text)  # type: ignore[misc]
    return text


if __name__ == "__main__":
    README.write_text(written(README.read_text(encoding="utf-8")), encoding="utf-8")
