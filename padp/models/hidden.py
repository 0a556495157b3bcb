"""Sites of hidden states: a block stays where it is, and a hook edits its output at chosen tokens of each prompt."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from padp.compiler.acting import acting
from padp.compiler.site import Site
from padp.dsl.diagnostics import refuse
from padp.models.prompt import Edited, Positions, PromptReader, edited, read_positions, remove_hooks

if TYPE_CHECKING:
    from padp.compiler.module import AdapterModule

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
        given = next((a for a in (*args, *kwargs.values()) if isinstance(a, Tensor)), None)
        prompt = self.reader.prompt(block, given)
        if prompt.cached or (prompt.mask is not None and h.dim() == 3 and h.shape[1] < prompt.mask.shape[1]):
            return None  # generated tokens
        if prompt.unreadable:
            raise refuse("E511", "each example's prompt is read from a 2-D attention mask, and the model was called "
                         "with another one",
                         suggestion="pass attention_mask of shape (batch, length), ones at the prompt")
        new = self.edit(module, h, prompt.mask)
        return new if rest is None else (new, *rest)

    def edit(self, module: AdapterModule, h: Tensor, mask: Tensor | None) -> Tensor:
        """h with the chosen tokens replaced by what the adapter makes of them; nothing is changed in place."""
        positions = positions_of(module)
        if mask is None and positions.everything:
            return run(module, h)
        if h.dim() != 3:
            raise refuse("E511", f"{self.label} puts out a tensor of {h.dim()} axes; positions are those of "
                         "(batch, length, d)", suggestion='positions="all"')
        batch, length, _ = h.shape
        if mask is None:
            prompt = torch.ones(batch, length, dtype=torch.bool, device=h.device)
        elif mask.shape == (batch, length):
            prompt = mask.to(h.device)
        else:
            raise refuse("E511", f"{self.label}: the attention mask is {tuple(mask.shape)}, the hidden state has "
                         f"{batch} examples of {length} tokens", suggestion="one mask entry for each token")
        if positions.everything:
            return torch.where(prompt[..., None], run(module, h), h)
        where = edited(positions, prompt)
        return put_back(h, run(module, take_out(h, where)), where)


def positions_of(module: AdapterModule) -> Positions:
    """The positions that an adapter edits: its hyperparameter ``positions``, all tokens when it has none."""
    return read_positions(module.hyper.get("positions", "all"))


def run(module: AdapterModule, h: Tensor) -> Tensor:
    """The adapter on hidden vectors of any leading shape."""
    return cast(Tensor, module(h, None)).to(h.dtype)


def take_out(h: Tensor, where: Edited) -> Tensor:
    """(B, T, d) → (B, K, d): the tokens at ``where.index``."""
    return h.gather(1, where.index[..., None].expand(-1, -1, h.shape[-1]))


def put_back(h: Tensor, new: Tensor, where: Edited) -> Tensor:
    """Each edited token looks up its new value; a gather, so no token is written twice."""
    spread = new.gather(1, where.slot[..., None].expand(-1, -1, h.shape[-1]))
    return torch.where(where.mask[..., None], spread, h)
