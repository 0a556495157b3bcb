"""Sites of hidden states: a block stays where it is, and a hook edits its output at chosen tokens of each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from padp.compiler.kernels.torch_state import compiling
from padp.compiler.module.acting import acting
from padp.compiler.module.moments import in_one_state
from padp.compiler.module.site import Site
from padp.dsl.diagnostics import refuse
from padp.models.calls import Call
from padp.models.positions import Edited, Positions, read_positions
from padp.models.reading import PromptReader, remove_hooks

if TYPE_CHECKING:
    from padp.compiler.module.module import AdapterModule

CHILD = "padp_hidden"  # the block's child that holds the adapters


class HiddenSite(Site):
    """The adapters of a block's hidden state: h ← adapter(h) at the chosen tokens, the rest as it is.

    It is a child of its block, so that the optimiser, ``state_dict`` and ``deepcopy`` see it; the block's hook is a
    bound method of it, which ``deepcopy`` binds to the copy.
    """

    kind = "hidden"

    def __init__(self, width: int, reader: PromptReader, path: str = "") -> None:
        super().__init__(path)
        self.width = width
        self.reader = reader

    def refuse_together(self, modules: Mapping[str, AdapterModule]) -> None:
        if len(modules) > 1:
            raise refuse("E508", f"{self.label}: {' and '.join(modules)} cannot edit one hidden state together",
                         suggestion=f'padp.activate(model, "{next(iter(modules))}")')

    def forward(self, h: Any) -> Any:
        """What comes: a block that calls all its children, as nn.Sequential does, is edited by its hook, not here."""
        return h

    def hang_on(self, block: nn.Module) -> None:
        """Become a child of the block and listen to its output."""
        block.add_module(CHILD, self)
        block.register_forward_hook(self.edit_output, with_kwargs=True)

    def take_off(self, block: nn.Module) -> None:
        """Leave the block as it was."""
        remove_hooks(block, self)
        delattr(block, CHILD)

    def edit_output(self, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any) -> Any:
        """The hook: edit the hidden state in a block's output, a tensor or the first entry of a tuple."""
        own = block._modules.get(CHILD)
        if own is not self and isinstance(own, HiddenSite):  # a replica of the block, with tensors of its own
            return own.edit_output(block, args, kwargs, output)
        names = acting(self)
        if not names:
            return None
        module = self.module(names[0])
        rest: tuple[Any, ...] | None = None
        h = output
        if isinstance(output, tuple) and output:
            h, rest = output[0], output[1:]
        if not isinstance(h, Tensor):
            raise refuse("E502", f"{self.label} puts out {type(output).__name__}, not a tensor or a tuple that begins "
                         "with one")
        if h.shape[-1] != self.width:
            raise refuse("E502", f"{self.label} puts out {h.shape[-1]} numbers a token; the adapter was made for "
                         f"{self.width}")
        new = self.edit(module, h, self.reader.call_of(block))
        return None if new is h else new if rest is None else (new, *rest)

    def edit(self, module: AdapterModule, h: Tensor, call: Call) -> Tensor:
        """h with the chosen tokens replaced by what the adapter makes of them; nothing is changed in place."""
        positions = positions_of(module)
        if h.dim() != 3:
            if positions.everything and call.says_nothing:
                return run(module, h)
            raise refuse("E511", f"{self.label} puts out a tensor of {h.dim()} axes; positions are those of "
                         "(batch, length, d)", suggestion='positions="all"')
        chosen = call.chosen(positions, h.shape[0], h.shape[1], h.device, self.label)
        if isinstance(chosen, Edited):
            return put_back(h, run(module, take_out(h, chosen)), chosen)
        if isinstance(chosen, Tensor):
            return torch.where(chosen[..., None], run(module, h), h)
        return run(module, h) if chosen == "all" else h


def positions_of(module: AdapterModule) -> Positions:
    """The positions that an adapter edits: its hyperparameter ``positions``, all tokens when it has none."""
    return read_positions(module.hyper.get("positions", "all"))


def run(module: AdapterModule, h: Tensor) -> Tensor:
    """The adapter on hidden vectors of any leading shape."""
    if compiling():
        return cast(Tensor, module(h, None)).to(h.dtype)
    return cast(Tensor, in_one_state(module.moments, module, h, None)).to(h.dtype)


def take_out(h: Tensor, where: Edited) -> Tensor:
    """(B, T, d) → (B, K, d): the tokens at ``where.index``."""
    return h.gather(1, where.index[..., None].expand(-1, -1, h.shape[-1]))


def put_back(h: Tensor, new: Tensor, where: Edited) -> Tensor:
    """Each edited token looks up its new value; a gather, so no token is written twice."""
    spread = new.gather(1, where.slot[..., None].expand(-1, -1, h.shape[-1]))
    return torch.where(where.mask[..., None], spread, h)
