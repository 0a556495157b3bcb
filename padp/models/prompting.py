"""Saying what a call of the model does not say itself: which of its tokens are the prompt's."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, contextmanager

from torch import Tensor, nn

from padp.dsl.diagnostics import refuse
from padp.models.hidden import HiddenSite
from padp.models.reading import telling
from padp.models.record import holder
from padp.models.told import given
from padp.models.walk import sites


@contextmanager
def prompt(model: nn.Module, *, length: int | Sequence[int] | Tensor | None = None,
           mask: Tensor | None = None) -> Generator[None, None, None]:
    """Within this context, and in this thread, calls of the model are of texts with this prompt: adapters of hidden
    states edit its tokens and no others.

    ``length``: how many tokens it has, padding not counted, one number or one for each example; or ``mask`` (batch,
    length), not 0 at its tokens. For calls that do not say it themselves: training steps without labels of −100, and
    several calls of one text, as of a prompt in pieces behind a cache. ``model.generate`` needs no such help.

    Raises ``PadpError``: E510 where nothing is attached, E511 where no adapter edits hidden states, and for lengths and
    masks that are none.
    """
    told = given(length, mask)
    readers = {site.reader for site in sites(holder(model)) if isinstance(site, HiddenSite)}
    if not readers:
        raise refuse("E511", "no adapter of this model edits hidden states, so no call needs to know its prompt")
    with ExitStack() as stack:
        for reader in readers:
            stack.enter_context(telling(reader, told))
        yield
