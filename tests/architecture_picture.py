"""The picture of docs/architecture.md: the folders of ``compiler/`` in the order of the data.

    python -m tests.architecture_picture          writes docs/architecture.svg

The order is that of ``LAYERS``, the sentence of a folder is the first of its ``__init__``, and the numbers are counted.
A test compares.
"""

from __future__ import annotations

import ast
from html import escape
from pathlib import Path

from tests.test_house import LAYERS

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs/architecture.svg"
WIDTH, STEP, LEFT = 860, 34, 20
FIRST = "kernels"  # from here on with torch


def said(layer: str) -> tuple[str, int]:
    """The first sentence of a layer, and how many files it has."""
    folder, file = ROOT / "compiler" / layer, ROOT / f"compiler/{layer}.py"
    home = folder / "__init__.py" if folder.is_dir() else file
    text = ast.get_docstring(ast.parse(home.read_text(encoding="utf-8"))) or ""
    return text.split("\n\n")[0].replace("\n", " ").replace("``", ""), \
        len(list(folder.glob("*.py"))) - 1 if folder.is_dir() else 1


def picture() -> str:
    """The SVG."""
    height = STEP * (len(LAYERS) + 2) + 20
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
             f'viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">',
             f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
             f'<text x="{LEFT}" y="24" fill="#555555">dsl/: text → tree. Each line below may import only what stands '
             'above it.</text>']
    y = 40
    for layer in LAYERS:
        if layer == FIRST:
            parts.append(f'<text x="{LEFT}" y="{y + 20}" fill="#b3541e">torch begins here</text>')
            parts.append(f'<line x1="{LEFT + 120}" y1="{y + 15}" x2="{WIDTH - LEFT}" y2="{y + 15}" stroke="#b3541e" '
                         'stroke-dasharray="4 3"/>')
            y += STEP
        sentence, files = said(layer)
        words = sentence if len(sentence) < 92 else sentence[:90].rsplit(" ", 1)[0] + " …"
        parts.append(f'<rect x="{LEFT}" y="{y}" width="110" height="{STEP - 8}" rx="4" fill="#e8eef7" '
                     'stroke="#6c8ebf"/>')
        parts.append(f'<text x="{LEFT + 10}" y="{y + 18}" font-weight="bold">{layer}</text>')
        parts.append(f'<text x="{LEFT + 104}" y="{y + 18}" text-anchor="end" fill="#6c8ebf">{files}</text>')
        parts.append(f'<text x="{LEFT + 124}" y="{y + 18}">{escape(words)}</text>')
        y += STEP
    return "\n".join([*parts, "</svg>", ""])


if __name__ == "__main__":
    PICTURE.write_text(picture(), encoding="utf-8")
