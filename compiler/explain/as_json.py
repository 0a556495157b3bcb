"""A plan as JSON.

    to_data(plan) -> dict        what ``json.dumps`` takes

Fields are those of ``explain/record.py``; units: FLOPs, bytes, seconds of the cost model.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from padp.compiler.explain.record import Record

FORMAT = "padp plan 1"


def to_data(plan: Record) -> dict[str, Any]:
    """Plain lists, dicts, numbers and strings."""
    return {"format": FORMAT, **_plain(asdict(plan))}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
