"""The whole life of an adapter on small models, step by step; what is not done is refused by name.

    crashes(text, sizes, dtype) -> [Crash]      compile, attach, train, decode, read, save, load, merge, detach

A step may raise PadpError. Everything else that it raises is a crash. What is refused stays undone: later steps are
taken on what is there. Beside that, what a step gives must be as the next step wants it: y has the shape of the base's.
"""

from __future__ import annotations

import tempfile
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn

import padp
from padp import Adapter, PadpError
from padp.compiler.adapter import REQUIRED
from padp.models.walk import sites


@dataclass(frozen=True)
class Crash:
    """What a step raised that was no PadpError."""

    step: str
    error: BaseException

    def __str__(self) -> str:
        lines = traceback.format_exception(self.error)
        return f"{self.step}: {''.join(lines[-6:])}"


class Blocks(nn.Module):
    """Two blocks of width d, one after the other: what hidden sites are found in."""

    def __init__(self, d: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Sequential(nn.Linear(d, d, dtype=dtype), nn.Tanh()) for _ in range(2))

    def forward(self, h: Tensor) -> Tensor:
        for layer in self.layers:
            h = layer(h)
        return h


class Steps:
    """Takes steps, and keeps what they raise that they may not."""

    def __init__(self) -> None:
        self.crashes: list[Crash] = []

    def __call__(self, what: str, step: Callable[[], Any]) -> Any:
        """What the step gives; None where it was refused or crashed."""
        try:
            return step()
        except PadpError as error:
            assert error.diagnostics and all(d.code and d.message for d in error.diagnostics)
        except Exception as error:  # what may come out is the question
            self.crashes.append(Crash(what, error))
        return None

    def did(self, what: str, step: Callable[[], object]) -> bool:
        """Whether the step was taken to its end."""
        return self(what, lambda: (step(), True)) is not None


def crashes(text: str, sizes: tuple[int, int] = (6, 4), dtype: torch.dtype = torch.float32) -> list[Crash]:
    """Everything that a program raises in its life beside PadpError, in all its variants."""
    take = Steps()
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adapter: Adapter | None = take("compile", lambda: padp.compile(text))
        if adapter is not None:
            for what in ("name", "title", "site", "hyper", "parameters", "count", "capabilities"):
                take(what, lambda what=what: getattr(adapter, what))  # type: ignore[misc]
            for variant in take("variants", lambda: adapter.variants) or (None,):
                _variant(take, adapter, variant, sizes, dtype)
    return take.crashes


def _variant(take: Steps, adapter: Adapter, variant: str | None, sizes: tuple[int, int], dtype: torch.dtype) -> None:
    """One variant on a model of its site."""
    site = take("site", lambda: adapter.site)
    hyper = take("hyper", lambda: adapter.hyper)
    if site is None or hyper is None:
        return
    given: dict[str, Any] = {name: 2 for name, default in hyper.items() if default is REQUIRED}
    model, x = _model(site, sizes, dtype)
    take("attach", lambda: padp.attach(model, adapter, variant=variant, **given))
    if not sites(model):
        return
    _train(take, model, x)
    _read(take, model, x)
    _store(take, model, x)
    _merge(take, model, x)


def _model(site: str, sizes: tuple[int, int], dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """A frozen model with that site, and what it is called with."""
    m, n = sizes
    if site == "linear":
        return nn.Sequential(nn.Linear(n, m, dtype=dtype), nn.Tanh(), nn.Linear(m, n, bias=False, dtype=dtype)), \
            torch.randn(2, 3, n, dtype=dtype)
    if site == "hidden":
        return Blocks(n, dtype), torch.randn(2, 3, n, dtype=dtype)
    from tests.support.families import make_opt

    opt = make_opt(num_hidden_layers=1, hidden_size=8, ffn_dim=8, num_attention_heads=2, word_embed_proj_dim=8,
                   vocab_size=8, max_position_embeddings=8, pad_token_id=0)
    return opt.to(dtype), torch.randint(3, 8, (2, 3))


def _run(model: nn.Module, x: Tensor) -> Tensor:
    out = model(x)
    made: Tensor = out.logits if hasattr(out, "logits") else out
    wanted = (*x.shape, made.shape[-1]) if not x.is_floating_point() else x.shape
    assert made.shape == wanted, f"{tuple(made.shape)} where {tuple(wanted)} goes in"
    return made


def _train(take: Steps, model: nn.Module, x: Tensor) -> None:
    """A step of training: forward, the loss terms, backward, the rules after it."""
    model.train()

    def step() -> None:
        loss = _run(model, x).float().square().mean() + padp.penalty(model)
        if loss.requires_grad:
            loss.backward()
        with torch.no_grad():
            for p in padp.trainable(model):
                if p.grad is not None:
                    p.sub_(0.01 * p.grad.nan_to_num().clamp(-1, 1))

    take("train", step)
    take("update", lambda: padp.update(model))
    take("penalty", lambda: padp.penalty(model))
    take("train again", step)


def _read(take: Steps, model: nn.Module, x: Tensor) -> None:
    """Outputs in all the ways there are, with no tokens and with one."""
    model.eval()
    with torch.no_grad():
        for what, tokens in (("eval", x), ("one token", x[:1, :1]), ("no tokens", x[:0]),
                             ("no tokens of two", x[:, :0])):
            if tokens.is_floating_point() or tokens.numel():
                take(what, lambda tokens=tokens: _run(model, tokens))  # type: ignore[misc]
        with padp.decoding(model):
            take("decoding", lambda: _run(model, x[:1, :1]))
    take("summary", lambda: str(padp.summary(model)))
    if not x.is_floating_point():
        return
    for site in sites(model):
        for module in site.adapters.values():
            _meaning(take, module, getattr(site, "base", None), x)


def _meaning(take: Steps, module: Any, base: nn.Module | None, x: Tensor) -> None:
    """What one adapter means, and what is to be seen of it."""
    take("plan", lambda: (str(module.plan), str(module.code)))
    if base is None:
        take("reference", lambda: module.meaning().forward(x))
        take("reference of no tokens", lambda: module.meaning().forward(x[:0]))
        return
    tokens = torch.randn(2, cast(Tensor, base.weight).shape[-1], dtype=x.dtype)
    take("reference", lambda: module.reference(tokens, base))
    take("reference of no tokens", lambda: module.reference(tokens[:0], base))
    take("delta", lambda: module.delta(tokens, base))
    take("delta of no tokens", lambda: module.delta(tokens[:0], base))


def _store(take: Steps, model: nn.Module, x: Tensor) -> None:
    """Saved, taken off and loaded: the same outputs."""
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        before = take("eval before saving", lambda: _run(model, x))
        if not take.did("save", lambda: padp.save(model, folder + "/a")):
            return
        take("detach", lambda: padp.detach(model))
        if not take.did("load", lambda: padp.load(model, folder + "/a")):
            return
        after = take("eval after loading", lambda: _run(model, x))
        if before is not None and after is not None:
            take("loaded", lambda: _same(before, after))


def _same(a: Tensor, b: Tensor) -> None:
    assert torch.equal(a.nan_to_num(), b.nan_to_num()), "a loaded adapter gives other outputs"


def _merge(take: Steps, model: nn.Module, x: Tensor) -> None:
    """Merged and back."""
    if take.did("merge", lambda: padp.merge(model)):
        with torch.no_grad():
            take("eval merged", lambda: _run(model, x))
        take("unmerge", lambda: padp.unmerge(model))
    take("detach", lambda: padp.detach(model))
