"""Frozen random tensors that exist once a model: made at the largest size attached, used by each site from index 0.

    reserve(key, shape) for every site, then take(key, shape, make): the one tensor, of the largest shape reserved
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor, nn

from padp.dsl.diagnostics import refuse

Shape = tuple[int, ...]


class SharedStore:
    """The shared tensors of a model by key. A key says what the tensor is made from: program, name, seed, start."""

    def __init__(self, tensors: dict[str, nn.Parameter] | None = None) -> None:
        self.tensors: dict[str, nn.Parameter] = dict(tensors or {})
        self.shapes: dict[str, Shape] = {}

    def reserve(self, key: str, shape: Shape, where: str = "a site") -> None:
        """Ask for room for a site; E506 when the tensor exists and is smaller."""
        made = self.tensors.get(key)
        if made is not None and not _within(shape, tuple(made.shape)):
            raise refuse("E506", f"{where} needs the shared tensor {key} as {_show(shape)}, and it was made as "
                         f"{_show(tuple(made.shape))} for the sites attached before",
                         suggestion="attach all sites in one call, or leave this one out")
        known = self.shapes.get(key, shape)
        self.shapes[key] = tuple(max(a, b) for a, b in zip(known, shape, strict=True))

    def take(self, key: str, shape: Shape, make: Callable[[Shape], Tensor]) -> nn.Parameter:
        """The tensor of that key, at least of this shape; ``make(largest shape)`` when it does not exist yet."""
        self.reserve(key, shape)
        if key not in self.tensors:
            self.tensors[key] = nn.Parameter(make(self.shapes[key]), requires_grad=False)
        return self.tensors[key]

    def fork(self) -> SharedStore:
        """A store with the same tensors, so that what an attachment adds can be dropped when it fails."""
        return SharedStore(self.tensors)

    def kept(self, used: Iterable[Tensor]) -> SharedStore:
        """A store of the tensors that are still used."""
        ids = {id(tensor) for tensor in used}
        return SharedStore({key: tensor for key, tensor in self.tensors.items() if id(tensor) in ids})


def _within(shape: Shape, room: Shape) -> bool:
    return len(shape) == len(room) and all(a <= b for a, b in zip(shape, room, strict=True))


def _show(shape: Shape) -> str:
    return "×".join(map(str, shape))
