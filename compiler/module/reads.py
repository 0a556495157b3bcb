"""Who reads the weight of a layer without calling the layer: an adapter there would do nothing.

    reading(stand)           said by a stand-in whenever its ``weight`` is read
    with watched() as seen:  the stand-ins that are read meanwhile, in this thread
"""

from __future__ import annotations

import threading

from padp.compiler.kernels.torch_state import compiling


class _Open(threading.local):
    def __init__(self) -> None:
        self.runs: list[set[int]] = []


_OPEN = _Open()


def reading(stand: object) -> None:
    """Note that the weight of a stand-in is read."""
    if not compiling():
        for run in _OPEN.runs:
            run.add(id(stand))


def begin() -> None:
    """From now on reads are noted."""
    _OPEN.runs.append(set())


def end() -> set[int]:
    """What was read since the last ``begin``, by id."""
    return _OPEN.runs.pop() if _OPEN.runs else set()
