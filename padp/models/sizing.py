"""The dimensions of a program at a place: what its header calls the rows of W is the number of rows there are."""

from __future__ import annotations

from collections.abc import Mapping

from padp.compiler.names.terms import Method, Var
from padp.compiler.sizes.solve import symbolic
from padp.dsl.diagnostics import refuse
from padp.models.places import Place


def shapes_of(place: Place) -> dict[str, tuple[int, ...]]:
    """The shape of everything that a place may bind, by name: family axes first, as in ``W_Q ∈ (ℝ^{e×d})^H``."""
    s = place.sizes
    match place.kind:
        case "linear":
            return {"W": (s["m"], s["n"]), "x": (s["n"],), "bias": (s["m"],)}
        case "hidden":
            return {"h": (s["d"],)}
        case "attention":
            query, key, value = (s["H"], s["e"], s["d"]), (s["G"], s["e"], s["d"]), (s["G"], s["e"], s["d"])
            return {"W_Q": query, "W_K": key, "W_V": value, "W_O": (s["H"], s["d"], s["e"]), "x": (s["d"],),
                    "b_Q": query[:2], "b_K": key[:2], "b_V": value[:2], "b_O": (s["d"],)}


def sizes_at(method: Method, place: Place) -> dict[str, int]:
    """The program's own names of the place's dimensions: ``linear(W ∈ ℝ^{p×q})`` gives p and q.

    E501 when one name would have to be two numbers, or a number written in the header is another one here.
    """
    shapes, found = shapes_of(place), dict[str, int]()
    for bound in method.bound:
        shape = shapes[bound.name]
        dims = (*bound.space.family, *bound.space.dims)
        if len(dims) != len(shape):
            raise refuse("E501", f"{place.path}: {bound.name} has {len(shape)} axes, and {len(dims)} in {method.name}",
                         bound.span, source=method.source)
        for dim, size in zip(dims, shape, strict=True):
            if isinstance(dim, Var) and dim.name not in found:
                found[dim.name] = size
                continue
            wanted = symbolic(dim, found)
            if not wanted.free_symbols and wanted != size:
                raise refuse("E501", f"{place.path}: {bound.name} is {_show(shape)}, and {method.name}'s header asks "
                             f"for {wanted} where there are {size}", bound.span, source=method.source)
    return found


def same_sizes(sizes: Mapping[str, int], stored: Mapping[str, int]) -> bool:
    """Whether all of these sizes are among the stored ones."""
    return all(stored.get(name) == size for name, size in sizes.items())


def _show(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
