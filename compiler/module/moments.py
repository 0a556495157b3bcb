"""A call sees one state of a layer, the old or the new one, whatever other threads change while it runs.

    call        now ← the moment;  y ← f(x);  the moment is another one: once more
    changing    the moment ← None;  …;  the moment ← a new one

Merging, unmerging, a knob: each changes several things that a call reads one after the other. Calls take no lock: they
look at the moment before and after, which costs a tenth of a microsecond. A call that meets changes again and again
makes them wait. What a change takes out of a layer are whole tensors, so a call that still reads one keeps it alive.

This holds for each layer, each projection of an attention and each edit of a hidden state. A call of a whole model that
meets a change may have some layers before and some after it. Merged or not, a layer's output is the same to rounding.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, TypeVar

Result = TypeVar("Result")

_CHANGES = threading.RLock()
"""Held by whoever changes something."""
TRIES = 8
"""How often a call is made again before changes have to wait for it."""


class Moment:
    """A state that lasts until the next change. Only which one it is counts."""


class Moments:
    """The states of one layer, one after the other; ``now`` is None in between."""

    __slots__ = ("now",)

    def __init__(self) -> None:
        self.now: Moment | None = Moment()

    @contextmanager
    def changing(self) -> Generator[None, None, None]:
        """What is done inside is one change."""
        with _CHANGES:
            outermost = self.now is not None
            self.now = None
            try:
                yield
            finally:
                if outermost:
                    self.now = Moment()


def in_one_state(moments: Moments, call: Callable[..., Result], *args: Any) -> Result:
    """``call(*args)`` with nothing changed while it runs. What it raises because of a change is not raised."""
    for _ in range(TRIES):
        now = moments.now
        if now is not None:
            try:
                made = call(*args)
            except Exception:
                if moments.now is now:
                    raise
            else:
                if moments.now is now:
                    return made
        with _CHANGES:
            pass  # until the change is over
    with _CHANGES:
        return call(*args)
