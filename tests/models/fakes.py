"""Adapters written by hand, in the shape that the compiler gives them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from padp.compiler.shared import SharedStore
from padp.compiler.site import HeadMap, bias_of, weight_of
from padp.dsl.diagnostics import refuse
from padp.dsl.source import Source


@dataclass(frozen=True)
class Settings:
    variant: str | None
    hyper: dict[str, Any]


class Module(nn.Module):
    additive = True
    joint = False
    has_updates = False
    knob_names: tuple[str, ...] = ()
    shared_names: tuple[str, ...] = ()

    def __init__(self, adapter: Adapter, sizes: dict[str, int], settings: Settings, weight: Any, dtype: torch.dtype,
                 device: torch.device, dropout: float, generator: torch.Generator, shared: SharedStore) -> None:
        super().__init__()
        self.adapter, self.sizes, self.variant, self.hyper = adapter, sizes, settings.variant, dict(settings.hyper)
        self.knobs = {k: self.hyper[k] for k in self.knob_names}
        self.dropout = dropout
        self.shared: dict[str, str] = {}
        self.factory: dict[str, Any] = {"dtype": dtype, "device": device}
        self.generator = generator
        self.store = shared
        self.start(weight)
        del self.generator, self.store

    def start(self, weight: Any) -> None: ...

    def random(self, *shape: int, std: float = 0.05) -> Tensor:
        return (torch.randn(*shape, generator=self.generator) * std).to(**self.factory)

    @property
    def tensors(self) -> dict[str, Tensor]:
        return {**dict(self.named_parameters()), **dict(self.named_buffers())}

    def drop_cache(self) -> None: ...

    def penalty(self) -> Tensor | None:
        return None

    def set_knob(self, name: str, value: float) -> None:
        self.knobs[name] = value

    def drop(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(x, self.dropout, self.training) if self.dropout else x

    def forward(self, x: Tensor, base: nn.Module | None = None) -> Tensor:
        assert base is not None
        return base(x) + self.delta(x)

    def delta(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def change(self, W: Tensor) -> Tensor:
        raise NotImplementedError

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight + self.change(weight), bias


class Lora(Module):
    knob_names = ("α",)

    def start(self, weight: Any) -> None:
        m, n, r = self.sizes["m"], self.sizes["n"], self.hyper["r"]
        self.A = nn.Parameter(self.random(r, n))
        self.B = nn.Parameter(self.random(m, r) * self.hyper["b"])

    def delta(self, x: Tensor) -> Tensor:
        z = self.drop(x.to(self.A.dtype)) @ self.A.T @ self.B.T
        return (z * (self.knobs["α"] / self.hyper["r"])).to(x.dtype)

    def change(self, W: Tensor) -> Tensor:
        return (self.B @ self.A) * (self.knobs["α"] / self.hyper["r"])

    def penalty(self) -> Tensor | None:
        return (self.A**2).sum()


class Rotation(Module):
    """y = W Rᵀ x + bias, R orthogonal, of blocks of k."""

    additive = False

    def start(self, weight: Any) -> None:
        k, n = self.hyper["k"], self.sizes["n"]
        if n % k:
            raise refuse("E501", f"n = {n} is not a multiple of k = {k}")
        self.Q = nn.Parameter(self.random(n // k, k, k) * self.hyper["b"])

    def R(self) -> Tensor:
        S = self.Q.triu(1) - self.Q.triu(1).mT
        I = torch.eye(S.shape[-1], dtype=S.dtype, device=S.device)
        return torch.linalg.solve(I - S, I + S)

    def forward(self, x: Tensor, base: nn.Module | None = None) -> Tensor:
        assert base is not None
        R = self.R()
        split = x.to(R.dtype).unflatten(-1, R.shape[:2])
        return base(torch.einsum("bij,...bj->...bi", R, split).flatten(-2).to(x.dtype))

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight @ torch.block_diag(*self.R()).to(weight.dtype), bias


class Pissa(Module):
    """Additive, with a frozen part from the SVD of W."""

    def start(self, weight: Any) -> None:
        U, S, Vt = torch.linalg.svd(weight.detach().to(self.factory["dtype"]), full_matrices=False)
        r = self.hyper["r"]
        self.register_buffer("U", U[:, :r].contiguous())
        self.register_buffer("V", Vt[:r].contiguous())
        self.s = nn.Parameter(S[:r] * self.hyper["b"])

    def delta(self, x: Tensor) -> Tensor:
        return (((x.to(self.s.dtype) @ self.V.T) * self.s) @ self.U.T).to(x.dtype)

    def change(self, W: Tensor) -> Tensor:
        return self.U * self.s @ self.V


class Vera(Module):
    """Shared A (r×n) and B (m×r) of the largest site."""

    @staticmethod
    def shapes(sizes: Mapping[str, int], hyper: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
        return {"vera.A": (hyper["r"], sizes["n"]), "vera.B": (sizes["m"], hyper["r"])}

    def start(self, weight: Any) -> None:
        for key, shape in self.shapes(self.sizes, self.hyper).items():
            made = self.store.take(key, shape, lambda full: torch.randn(
                full, generator=torch.Generator().manual_seed(7)).to(**self.factory))
            setattr(self, key[-1], made)
            self.shared[key[-1]] = key
        self.d = nn.Parameter(torch.full((self.hyper["r"],), 0.1, **self.factory))
        self.c = nn.Parameter(torch.full((self.sizes["m"],), self.hyper["b"], **self.factory))

    def change(self, W: Tensor) -> Tensor:
        r, (m, n) = self.hyper["r"], (self.sizes["m"], self.sizes["n"])
        return self.c[:, None] * (self.B[:m, :r] * self.d @ self.A[:r, :n])

    def delta(self, x: Tensor) -> Tensor:
        return (x.to(self.c.dtype) @ self.change(x).T).to(x.dtype)


class Bias(Module):
    """y = W x + bias + c, on bases without a bias too."""

    def start(self, weight: Any) -> None:
        self.c = nn.Parameter(self.random(self.sizes["m"]))

    def delta(self, x: Tensor) -> Tensor:
        return self.c.to(x.dtype)

    def merged(self, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, Tensor | None]:
        return weight, self.c.to(weight.dtype) if bias is None else bias + self.c


class Reft(Module):
    additive = False

    def start(self, weight: Any) -> None:
        d, r = self.sizes["d"], self.hyper["r"]
        self.R = nn.Parameter(self.random(r, d))
        self.b = nn.Parameter(self.random(r, std=1.0))

    def forward(self, h: Tensor, base: nn.Module | None = None) -> Tensor:
        return h + ((self.b - h.to(self.R.dtype) @ self.R.T) @ self.R).to(h.dtype)


class Heads(Module):
    additive = False

    @property
    def joint(self) -> bool:  # type: ignore[override]
        return self.variant == "joint"

    def start(self, weight: Any) -> None:
        H, G, e = (self.sizes[k] for k in "HGe")
        assert weight["W_Q"].shape == (H, e, self.sizes["d"]) and weight["W_O"].shape == (H, self.sizes["d"], e)
        assert weight["W_K"].shape == weight["W_V"].shape == (G, e, self.sizes["d"])
        self.T = nn.Parameter(torch.eye(e, **self.factory) + self.random(H, e, e))
        self.c = nn.Parameter(self.random(H, e))
        self.K = nn.Parameter(torch.eye(e, **self.factory) + self.random(G, e, e))
        self.M = nn.Parameter(torch.eye(e, **self.factory) + self.random(H, e, e))

    def head_maps(self) -> dict[str, HeadMap]:
        return {"q": HeadMap(self.T, self.c), "k": HeadMap(self.K), "o": HeadMap(self.M, self.c)}


@dataclass(frozen=True, eq=False)
class Adapter:
    name: str
    make: type[Module]
    defaults: Mapping[str, Any]
    site: str = "linear"
    variants: tuple[str, ...] = ()
    title: str = "by hand"
    count: str = "r(m + n)"
    built: list[torch.device] = field(default_factory=list)

    @property
    def source(self) -> Source:
        return Source.of(f"adapter {self.name}\n", self.name)

    @property
    def hash(self) -> str:
        return hashlib.sha256(self.source.text.encode()).hexdigest()

    def settings(self, variant: str | None = None, **hyper: Any) -> Settings:
        unknown = set(hyper) - set(self.defaults)
        if unknown:
            raise refuse("E507", f"{self.name} has no hyperparameter {', '.join(unknown)}")
        if variant is not None and variant not in self.variants:
            raise refuse("E208", f"{self.name} has no variant {variant}")
        return Settings(variant or next(iter(self.variants), None), {**self.defaults, **hyper})

    def shared_shapes(self, sizes: dict[str, int], variant: str | None, hyper: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        shapes: Callable[..., dict[str, tuple[int, ...]]] | None = getattr(self.make, "shapes", None)
        return shapes(sizes, hyper) if shapes else {}

    def build(self, sizes: dict[str, int], *, variant: str | None, hyper: dict[str, Any], weight: Any, bias: Tensor | None,
              dtype: torch.dtype, device: torch.device, dropout: float, seed: int, shared: SharedStore) -> Module:
        self.built.append(device)
        generator = torch.Generator().manual_seed(seed)
        return self.make(self, sizes, Settings(variant, hyper), weight, dtype, device, dropout, generator, shared)


LORA = Adapter("Lora", Lora, {"r": 2, "α": 4.0, "b": 1.0})
ROTATION = Adapter("Rotation", Rotation, {"k": 4, "b": 1.0})
PISSA = Adapter("Pissa", Pissa, {"r": 2, "b": 0.5})
VERA = Adapter("Vera", Vera, {"r": 4, "b": 0.01})
BIAS = Adapter("Bias", Bias, {})
REFT = Adapter("Reft", Reft, {"r": 2, "positions": "f2+l2"}, "hidden")
HEADS = Adapter("Heads", Heads, {}, "attention", ("head", "joint"))
ALL = {a.source.text: a for a in (LORA, ROTATION, PISSA, VERA, BIAS, REFT, HEADS)}
assert bias_of is not None and weight_of is not None
