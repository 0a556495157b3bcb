"""A plan from the JSON that ``to_data`` wrote: every field is there, and of its kind."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

from padp.compiler.explain.as_json import FORMAT
from padp.compiler.explain.plan import Plan


def from_data(data: Any) -> Plan:
    """The plan that ``to_data`` wrote."""
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise ValueError(f"no plan: its \"format\" is not {FORMAT!r}")
    plan = _read(Plan, {k: v for k, v in data.items() if k != "format"}, "plan")
    assert isinstance(plan, Plan)
    return plan


def _read(kind: Any, value: Any, place: str) -> Any:
    """``value`` as a ``kind``."""
    if is_dataclass(kind) and isinstance(kind, type):
        hints = get_type_hints(kind)
        names = [f.name for f in fields(kind)]
        if not isinstance(value, dict) or sorted(value) != sorted(names):
            raise ValueError(f"{place}: expected the fields {', '.join(names)}")
        return kind(**{n: _read(hints[n], value[n], f"{place}.{n}") for n in names})
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        fitting = [a for a in args if _fits(a, value)]
        if not fitting:
            raise ValueError(f"{place}: {value!r} is none of {kind}")
        return _read(fitting[0], value, place)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(args[0], v, f"{place}[{k}]") for k, v in enumerate(value))
    if origin is dict and isinstance(value, dict):
        return {k: _read(args[1], v, f"{place}[{k}]") for k, v in value.items()}
    if not _fits(kind, value):
        raise ValueError(f"{place}: {value!r} is no {getattr(kind, '__name__', kind)}")
    return float(value) if kind is float else value


def _fits(kind: Any, value: Any) -> bool:
    """Whether a value is of a kind, as far as a union has to know."""
    if is_dataclass(kind):
        return isinstance(value, dict)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return value is None if kind is NoneType else isinstance(kind, type) and isinstance(value, kind)
