"""What has to hold for every adapter of the library, as functions of a case; and PEFT's layers with numbers of ours.

    case = Case("oft", "peft", 12, 8, {"k": 4})      one variant at one size
    for law in LAWS: law(case)                       raises AssertionError

A test module lists its cases and runs all laws on each:

    @pytest.mark.parametrize("law", LAWS, ids=law_name)
    @pytest.mark.parametrize("case", CASES, ids=str)
    def test_law(case: Case, law: Law) -> None:
        law(case)

Everything is float64 unless a law is about precision. Learned tensors are randomised before anything is compared: at
their start most adapters do nothing.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias, cast

import sympy as sp
import torch
from torch import Tensor, nn

import padp
from padp.compiler.adapter import Adapter
from padp.compiler.module.module import AdapterModule
from padp.compiler.module.site import LinearSite

Law: TypeAlias = "Callable[[Case], None]"


@dataclass(frozen=True)
class Case:
    """A variant of a library adapter on ``nn.Linear(n, m)``.

    ``start`` is the largest difference from the base that a fresh adapter may show, relative to the output's scale:
    0 is exactly the identity, None is a method that starts elsewhere on purpose. ``spread`` is the size of the random
    numbers added to the learned tensors. ``detached`` says that the program stops gradients, so finite differences
    (gradcheck) measure something else than autograd must give. ``half`` is the relative error allowed in bfloat16.
    """

    name: str
    variant: str | None = None
    n: int = 12
    m: int = 8
    hyper: Mapping[str, Any] = field(default_factory=dict)
    start: float | None = 0.0
    spread: float = 0.3
    detached: bool = False
    half: float = 0.04

    def __str__(self) -> str:
        hyper = "".join(f"-{k}={v}" for k, v in self.hyper.items())
        return f"{self.name}{f'-{self.variant}' if self.variant else ''}-{self.n}to{self.m}{hyper}"

    def __hash__(self) -> int:
        return hash(str(self))

    @property
    def adapter(self) -> Adapter:
        return cast(Adapter, padp.compile(self.name))


def base_layer(case: Case, *, bias: bool = True, dtype: torch.dtype = torch.float64, seed: int = 0) -> nn.Linear:
    """A linear layer of the case's size: the same numbers for the same seed."""
    torch.manual_seed(seed)
    return nn.Linear(case.n, case.m, bias=bias, dtype=torch.float64).to(dtype)


def fresh(case: Case, *, bias: bool = True, dtype: torch.dtype = torch.float64, own: torch.dtype | None = None
          ) -> LinearSite:
    """The layer with the adapter as it starts; ``own`` is the dtype of the adapter's tensors."""
    base = base_layer(case, bias=bias, dtype=dtype)
    return cast(LinearSite, case.adapter(base, variant=case.variant, dtype=own or dtype, **case.hyper))


def learned(layer: nn.Module) -> dict[str, nn.Parameter]:
    """What is trained, by its name in the module."""
    return {name: p for name, p in layer.named_parameters() if p.requires_grad}


@torch.no_grad()
def randomise(layer: LinearSite, spread: float, seed: int = 1) -> LinearSite:
    """Add random numbers to every learned tensor."""
    generator = torch.Generator().manual_seed(seed)
    for p in learned(layer).values():
        p.add_(spread * torch.randn(p.shape, generator=generator, dtype=torch.float64).to(p.dtype))
    layer.drop_cache()
    return layer


def trained(case: Case, *, bias: bool = True, dtype: torch.dtype = torch.float64, own: torch.dtype | None = None
            ) -> LinearSite:
    """The layer with its learned tensors moved away from their start."""
    return randomise(fresh(case, bias=bias, dtype=dtype, own=own), case.spread)


def inputs(case: Case, *leading: int, dtype: torch.dtype = torch.float64, seed: int = 2) -> Tensor:
    """Random x of the given leading shape."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*leading, case.n, generator=generator, dtype=torch.float64).to(dtype)


def only(layer: LinearSite) -> AdapterModule:
    """The one adapter of a layer."""
    return cast(AdapterModule, layer.adapters["default"])


def close(got: Tensor, wanted: Tensor, tolerance: float = 1e-10) -> None:
    """|got − wanted| ≤ tolerance · max|wanted|, entry by entry; same shape and dtype."""
    assert got.shape == wanted.shape, f"{tuple(got.shape)} is not {tuple(wanted.shape)}"
    assert got.dtype == wanted.dtype, f"{got.dtype} is not {wanted.dtype}"
    scale = max(wanted.detach().abs().max().item(), 1e-12)
    error = (got.detach() - wanted.detach()).abs().max().item() / scale
    assert error <= tolerance, f"relative difference {error:.2e} > {tolerance:.0e}"


# ---------------------------------------------------------------- the laws


def equals_its_reference(case: Case) -> None:
    """Output and gradients are those of the program read literally; with and without a bias of the base."""
    for bias in (True, False):
        layer = trained(case, bias=bias)
        x = inputs(case, 2, 3).requires_grad_()
        leaves = [x, *learned(layer).values()]
        fast, slow = layer(x), layer.reference(x)
        close(fast, slow)
        weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(3), dtype=fast.dtype)
        one, other = _gradients(fast, weights, leaves), _gradients(slow, weights, leaves)
        for name, a, b in zip(["x", *learned(layer)], one, other, strict=True):
            assert (a - b).abs().max() <= 1e-9 * max(1.0, b.abs().max().item()), f"gradient of {name}"


def _gradients(y: Tensor, weights: Tensor, leaves: Sequence[Tensor]) -> Sequence[Tensor]:
    return torch.autograd.grad((y * weights).sum(), leaves, allow_unused=True, materialize_grads=True)


def has_right_gradients(case: Case) -> None:
    """torch.autograd.gradcheck on x and on every learned tensor."""
    if case.detached:
        return
    layer = trained(case)
    names = list(learned(layer))

    def forward(x: Tensor, *values: Tensor) -> Tensor:
        return cast(Tensor, torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,)))

    values = [p.detach().clone().requires_grad_() for p in learned(layer).values()]
    assert torch.autograd.gradcheck(forward, (inputs(case, 2).requires_grad_(), *values), fast_mode=True)


def reaches_every_parameter(case: Case) -> None:
    """No learned tensor is without a gradient, away from the start."""
    layer = trained(case)
    (layer(inputs(case, 5)).square().sum() + (only(layer).penalty() or 0.0)).backward()
    for name, p in learned(layer).items():
        assert p.grad is not None and p.grad.abs().max() > 0, f"{name} gets no gradient"


def merges(case: Case) -> None:
    """The merged weight and bias give the unmerged output, and unmerging is bitwise."""
    for bias in (True, False):
        layer = trained(case, bias=bias)
        x = inputs(case, 5)
        with torch.no_grad():
            before = layer(x)
            weight, offset = only(layer).merged(layer.weight, layer.bias)
            close(nn.functional.linear(x, weight, offset), before)
            held = layer.weight.clone(), None if layer.bias is None else layer.bias.clone()
            layer.merge()
            assert not torch.equal(layer.weight, held[0])
            close(layer(x), before)
            layer.unmerge()
            assert torch.equal(layer.weight, held[0])
            assert layer.bias is held[1] is None or torch.equal(cast(Tensor, layer.bias), cast(Tensor, held[1]))
            close(layer(x), before)


def starts_as_said(case: Case) -> None:
    """A fresh adapter changes nothing, or not more than the case says; None: it does change something."""
    for dtype, rounding in ((torch.float64, 0.0), (torch.float32, 1e-6)):
        layer, base = fresh(case, dtype=dtype), base_layer(case, dtype=dtype)
        x = inputs(case, 7, dtype=dtype)
        difference = (layer(x) - base(x)).abs().max().item() / base(x).abs().max().item()
        if case.start is None:
            assert difference > 1e-4
        elif case.start == 0:
            assert difference == 0, f"{difference:.1e} off the identity"
        else:
            assert difference <= max(case.start, rounding), f"{difference:.1e} off the identity"


def learns_from_its_start(case: Case) -> None:
    """The first gradients are finite, and those of the literal reading: norms that are 0 included."""
    layer = fresh(case)
    x = inputs(case, 4)
    leaves = list(learned(layer).values())
    fast, slow = layer(x), layer.reference(x)
    weights = torch.randn(fast.shape, generator=torch.Generator().manual_seed(3), dtype=fast.dtype)
    pairs = zip(learned(layer), _gradients(fast, weights, leaves), _gradients(slow, weights, leaves), strict=True)
    for name, one, other in pairs:
        assert torch.isfinite(one).all(), f"first gradient of {name}"
        assert (one - other).abs().max() <= 1e-9 * max(1.0, other.abs().max().item()), f"first gradient of {name}"


def counts_its_parameters(case: Case) -> None:
    """The formula, with the sizes put in, is the number of learned scalars."""
    layer = trained(case)
    numbers = {**{k: v for k, v in only(layer).hyper.items() if isinstance(v, (int, float))}, **only(layer).sizes}
    formula = case.adapter.count_of(case.variant)
    value = formula.subs({s: numbers[str(s)] for s in formula.free_symbols})
    assert sp.simplify(value) == sum(p.numel() for p in learned(layer).values())


def keeps_its_cache_honest(case: Case) -> None:
    """In eval without gradients what is kept gives the training path's output, also after the parameters changed."""
    layer = trained(case)
    x = inputs(case, 5)
    for seed in (4, 5):
        wanted = layer.train()(x).detach()
        layer.eval()
        with torch.no_grad():
            close(layer(x), wanted, 1e-12)
            close(layer(x), wanted, 1e-12)
        close(layer(x), wanted, 1e-12)  # eval with gradients on
        randomise(layer.train(), 0.1, seed)


def works_in_half_precision(case: Case) -> None:
    """bfloat16 base and input, float32 parameters: a bfloat16 output near that of float32 with the same numbers."""
    layer = trained(case, dtype=torch.bfloat16, own=torch.float32)
    wide = fresh(case, dtype=torch.float32)
    x = inputs(case, 6, dtype=torch.bfloat16)
    with torch.no_grad():
        wide.load_state_dict({k: v.float() if v.is_floating_point() else v for k, v in layer.state_dict().items()})
    assert all(p.dtype == torch.float32 for p in learned(layer).values())
    y = layer(x)
    assert y.dtype == torch.bfloat16
    close(y.float(), wide(x.float()), case.half)
    y.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in learned(layer).values())
    layer.eval()
    with torch.no_grad():
        assert layer(x).dtype == torch.bfloat16
        close(layer(x).float(), wide(x.float()), case.half)


def takes_any_leading_shape(case: Case) -> None:
    """One vector, a batch, several leading axes, an empty batch: the same map of the last axis."""
    layer = trained(case)
    x = inputs(case, 2, 3)
    for mode in (layer.train, layer.eval):
        mode()
        with torch.set_grad_enabled(layer.training):
            y = layer(x)
            assert y.shape == (2, 3, case.m)
            close(layer(x[0, 0]), y[0, 0])
            close(layer(x[1]), y[1])
            close(layer(x[None]), y[None])
            assert layer(x[:0]).shape == (0, 3, case.m)


LAWS: tuple[Law, ...] = (
    equals_its_reference, has_right_gradients, reaches_every_parameter, merges, starts_as_said, learns_from_its_start,
    counts_its_parameters, keeps_its_cache_honest, works_in_half_precision, takes_any_leading_shape,
)


def law_name(law: Law) -> str:
    """For ``ids=`` of a parametrised test."""
    return law.__name__


# ---------------------------------------------------------------- PEFT beside it


@dataclass(frozen=True, eq=False)
class Peft:
    """PEFT's layer on ``nn.Linear(n, m)`` in float32, what it trains random; its tensors and buffers by short name,
    and those that it trains."""

    model: Any
    tensors: Mapping[str, Tensor]
    trained: Mapping[str, nn.Parameter]

    @property
    def layer(self) -> Any:
        """The layer inside PEFT's wrapping."""
        return self.model.base_model.model[0]

    @torch.no_grad()
    def __call__(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.model(x))

    @torch.no_grad()
    def merged(self) -> tuple[Tensor, Tensor]:
        """PEFT's own merged weight and bias."""
        self.layer.merge(safe_merge=True)
        return self.layer.get_base_layer().weight.detach(), self.layer.get_base_layer().bias.detach()


def peft_layer(case: Case, config: Any, spread: float = 0.3) -> Peft:
    """PEFT's model of one layer, around the same base as ``base_layer(case)``, in eval mode.

    ``config`` is a PEFT config with ``target_modules=["0"]``. Names are PEFT's, without the adapter's and ``.weight``.
    """
    import peft

    base = base_layer(case, dtype=torch.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model: Any = peft.get_peft_model(cast(Any, nn.Sequential(base)), config).eval()
    generator = torch.Generator().manual_seed(6)
    found: dict[str, Tensor] = {}
    trains: dict[str, nn.Parameter] = {}
    for name, p in model.named_parameters():
        if p.requires_grad and "ranknum" not in name:  # AdaLoRA's divisor, not a parameter
            with torch.no_grad():
                p.add_(spread * torch.randn(p.shape, generator=generator))
            found[_short(name)], trains[_short(name)] = p.detach(), p
    for name, b in model.named_buffers():
        found.setdefault(_short(name), b.detach())
    return Peft(model, found, trains)


def _short(name: str) -> str:
    return [part for part in name.split(".") if part not in ("default", "weight")][-1]


def equals_peft(case: Case, config: Any, mapping: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], *,
                spread: float = 0.3, tolerance: float = 1e-5, merge: bool = True) -> None:
    """Output, gradients and merged weight are PEFT's, when PEFT's tensors are copied over by ``mapping``.

    ``mapping`` takes PEFT's tensors by short name to ours by symbol; it must name every learned tensor of ours.
    """
    agrees(case, peft_layer(case, config, spread), mapping, tolerance=tolerance, merge=merge)


def agrees(case: Case, theirs: Peft, mapping: Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]], *,
           tolerance: float = 1e-5, merge: bool = True) -> None:
    """``equals_peft`` for a layer that is made already.

    ours = mapping(theirs), so by the chain rule the gradient of theirs is that of ours through ``mapping``.
    """
    ours = fresh(case, dtype=torch.float32)
    copy_into(ours, mapping(theirs.tensors))
    x = inputs(case, 5, dtype=torch.float32).requires_grad_()
    weights = torch.randn(5, case.m, generator=torch.Generator().manual_seed(8))
    own = _gradients(ours(x), weights, [x, *learned(only(ours)).values()])
    other = _gradients(theirs.model(x), weights, [x, *theirs.trained.values()])
    close(own[0], other[0], tolerance)
    leaves = {name: p.detach().clone().requires_grad_() for name, p in theirs.trained.items()}
    values = mapping({**theirs.tensors, **leaves})
    symbols = {only(ours).names[name]: name for name in ours.tensors}
    mapped = [values[symbols[name]] for name in learned(only(ours))]
    pulled = torch.autograd.grad(mapped, list(leaves.values()), own[1:])
    for mine, wanted in zip(pulled, other[1:], strict=True):
        close(mine, wanted, tolerance)
    with torch.no_grad():
        close(ours(x), theirs(x), tolerance)
        if merge:
            weight, bias = only(ours).merged(ours.weight, ours.bias)
            their_weight, their_bias = theirs.merged()
            close(weight, their_weight, tolerance)
            close(cast(Tensor, bias), their_bias, tolerance)


@torch.no_grad()
def copy_into(layer: LinearSite, values: Mapping[str, Tensor]) -> None:
    """Copy tensors by symbol; every learned tensor must be given, with its own shape."""
    tensors = layer.tensors
    missing = {name for name, t in tensors.items() if t.requires_grad} - set(values)
    assert not missing, f"not copied: {missing}"
    for name, value in values.items():
        assert tensors[name].shape == value.shape, f"{name}: {tuple(value.shape)} into {tuple(tensors[name].shape)}"
        tensors[name].copy_(value)
    layer.drop_cache()
