"""CLOVER and ReFT beside their hand-written forms: the two that work on no linear layer.

    python -m tests.support.two_others          a table: seconds of a training step and of an evaluation, ours / by hand

CLOVER: the maps of 32 heads of width 64 on 1024 queries and on what goes into the output projection. ReFT: 1024 hidden
states of 2048 numbers. What surrounds them in a model is left out on both sides.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, nn

import padp
from padp.bench.hand.places import CLOVER, ReFT
from padp.bench.measure import How, in_turn, scramble
from padp.compiler.adapter import Adapter
from padp.models.attention import by_head

TOKENS, HEADS, WIDTH = 1024, 32, 64
CPU = torch.device("cpu")


def clover() -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    """What both do to queries and to mixed values."""
    made = torch.Generator().manual_seed(0)
    d = HEADS * WIDTH
    weights = {f"W_{role}": torch.randn(HEADS, WIDTH, d, generator=made) / d**0.5 for role in "QKV"}
    weights["W_O"] = torch.randn(HEADS, d, WIDTH, generator=made) / d**0.5
    sizes = {"H": HEADS, "G": HEADS, "e": WIDTH, "d": d}
    module = built("clover", "joint", sizes, weights)
    hand = CLOVER(weights, module.tensors["T_qk"], module.tensors["T_vo"])

    def ours(x: Tensor) -> Tensor:
        maps = module.head_maps(weights)
        return by_head(maps["q"], x) + by_head(maps["o"], x)

    def theirs(x: Tensor) -> Tensor:
        rows = x.unflatten(-1, (HEADS, WIDTH))
        return (hand.queries(rows) + hand.mixed(rows)).flatten(-2)

    return {"padp": (module, ours), "hand": (hand, theirs)}


def reft() -> dict[str, tuple[nn.Module, Callable[[Tensor], Tensor]]]:
    module = built("reft", "LoReFT", {"d": HEADS * WIDTH}, None)
    hand = ReFT(*(module.tensors[name] for name in "RMb"))
    return {"padp": (module, lambda x: cast(Tensor, module(x, None))), "hand": (hand, hand)}


def built(name: str, variant: str, sizes: dict[str, int], weight: Any) -> Any:
    adapter = cast(Adapter, padp.compile(name))
    module = adapter.build(sizes, variant=variant, hyper=adapter.settings(variant).hyper, weight=weight, bias=None,
                           dtype=torch.float32, device=CPU)
    scramble(module)
    return module


def step_of(module: nn.Module, run: Callable[[Tensor], Tensor], x: Tensor, dy: Tensor) -> Callable[[], None]:
    def step() -> None:
        run(x).backward(dy)
        x.grad = None
        for p in module.parameters():
            p.grad = None

    return step


def evaluation_of(run: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[], None]:
    def evaluation() -> None:
        with torch.no_grad():
            run(x)

    return evaluation


def main() -> None:
    torch.set_num_threads(2)
    how = How(5, CPU)
    for name, make in (("CLOVER", clover), ("ReFT", reft)):
        forms = make()
        x = torch.randn(TOKENS, HEADS * WIDTH, requires_grad=True)
        dy = torch.randn(TOKENS, HEADS * WIDTH)
        with torch.no_grad():
            a, b = (run(x) for _, run in forms.values())
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-3), float((a - b).abs().max())
        steps = in_turn({who: step_of(m.train(), run, x, dy) for who, (m, run) in forms.items()}, how)
        for m, _ in forms.values():
            m.eval()
        evaluations = in_turn({who: evaluation_of(run, x) for who, (_, run) in forms.items()}, how)
        for what, times in (("step", steps), ("evaluation", evaluations)):
            print(f"{name:8} {what:10} padp {times['padp'].seconds * 1e3:8.2f} ms   by hand "
                  f"{times['hand'].seconds * 1e3:8.2f} ms   {times['padp'].seconds / times['hand'].seconds:.2f}")


if __name__ == "__main__":
    main()
