"""Values that backward makes again: the gradients are the same, less is kept, and misuse is an error."""

from __future__ import annotations

import copy
import gc
import io
import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import padp
from padp.compiler.plan import recompute

PROGRAMS: dict[str, tuple[str, dict[str, Any]]] = {
    "vera": ("vera", {"r": 24}), "randlora": ("randlora", {"r": 8}), "hra": ("hra", {"r": 6}),
    "scaled": ("""adapter Scaled(r = 3) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = kaiming
s ∈ ℝ^n: learned, init = 1
y ← (W + B @ tanh(A)) @ (s ⊙ tanh(x))
""", {}),
}


@pytest.fixture(autouse=True)
def every_byte_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the small sizes of these tests dropping would not pay for the watching."""
    monkeypatch.setattr(recompute, "PASS_SECONDS", 0.0)
    monkeypatch.setattr(recompute, "SMALLEST", 4096)


def layer_of(name: str, size: int = 256, dtype: torch.dtype = torch.double) -> Any:
    program, hyper = PROGRAMS[name]
    layer = padp.compile(program)(nn.Linear(size, size).to(dtype), dtype=dtype, **hyper)
    with torch.no_grad():
        for p in layer.parameters():
            if p.requires_grad:
                p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)).to(p))
    assert layer.adapters["default"].compiled.usual.lean is not None, "this program is meant to drop something"
    return layer


def plainly(layer: Any, x: Tensor) -> Tensor:
    module = layer.adapters["default"]
    stage = module.plans_on(layer.base).train
    return stage.graph(x, layer.base, True, *module.arguments(stage, layer.base))  # type: ignore[no-any-return]


def learned(layer: Any) -> list[Tensor]:
    return [p for p in layer.parameters() if p.requires_grad]


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_those_of_the_plain_plan(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(5, 7, 256, dtype=torch.double, requires_grad=True)
    weights = torch.randn(5, 7, 256, dtype=torch.double)
    y, plain = layer(x), plainly(layer, x)
    assert torch.equal(y, plain)
    lean = torch.autograd.grad((y * weights).sum(), [x, *learned(layer)])
    full = torch.autograd.grad((plain * weights).sum(), [x, *learned(layer)])
    for a, b in zip(lean, full, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_of_gradients(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    second = []
    for y in (layer(x), plainly(layer, x)):
        first = torch.autograd.grad(y.square().sum(), [x, *learned(layer)], create_graph=True)
        squares = torch.stack([g.square().sum() for g in first])
        second.append(torch.autograd.grad(squares.sum(), [x, *learned(layer)]))
    for a, b in zip(*second, strict=True):
        assert torch.allclose(a, b, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", PROGRAMS)
def test_backward_twice(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    y = layer(x).square().sum()
    once = torch.autograd.grad(y, [x, *learned(layer)], retain_graph=True)
    again = torch.autograd.grad(y, [x, *learned(layer)])
    assert all(torch.equal(a, b) for a, b in zip(once, again, strict=True))


def held_bytes(call: Any, layer: Any, x: Tensor) -> int:
    own = {t.untyped_storage().data_ptr() for t in (*layer.parameters(), *layer.buffers(), x)}
    found: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(t: Tensor) -> Tensor:
        if t.untyped_storage().data_ptr() not in own:
            found[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        call(layer, x)
    return sum(found.values())


@pytest.mark.parametrize("name", PROGRAMS)
def test_less_is_kept(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(512, 256, dtype=torch.double, requires_grad=True)
    assert held_bytes(lambda layer, x: layer(x), layer, x) < 0.8 * held_bytes(plainly, layer, x)


def test_nothing_stays_when_the_graph_is_gone() -> None:
    layer = layer_of("randlora")
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    gc.collect()
    gc.disable()
    try:
        y = layer(x)
        before = sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall")
        assert before >= 1
        del y
        assert sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall") == before - 1
    finally:
        gc.enable()


def test_a_parameter_changed_before_backward_is_an_error() -> None:
    layer = layer_of("vera")
    y = layer(torch.randn(3, 256, dtype=torch.double, requires_grad=True))
    with torch.no_grad():
        for p in learned(layer):
            p.mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.sum().backward()


def test_x_changed_before_backward_is_an_error() -> None:
    layer = layer_of("scaled")
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True) * 1
    y = layer(x)
    x.mul_(2)
    with pytest.raises(RuntimeError, match=r"in.?place"):
        y.sum().backward()


@pytest.mark.parametrize("name", PROGRAMS)
def test_inside_a_checkpoint(name: str) -> None:
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    plain = torch.autograd.grad(layer(x).square().sum(), [x, *learned(layer)])
    inside = torch.autograd.grad(checkpoint(layer, x, use_reentrant=False).square().sum(), [x, *learned(layer)])
    assert all(torch.equal(a, b) for a, b in zip(plain, inside, strict=True))


def test_under_autocast() -> None:
    layer = layer_of("vera", dtype=torch.float32)
    x = torch.randn(64, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        lean, plain = layer(x), plainly(layer, x)
    assert torch.equal(lean, plain)
    for a, b in zip(torch.autograd.grad(lean.float().sum(), [x, *learned(layer)]),
                    torch.autograd.grad(plain.float().sum(), [x, *learned(layer)]), strict=True):
        assert torch.equal(a, b)


def test_func_grad_takes_the_plain_plan() -> None:
    layer = layer_of("randlora")
    x = torch.randn(3, 256, dtype=torch.double)
    functional = torch.func.grad(lambda x: layer(x).square().sum())(x)
    x.requires_grad_(True)
    assert torch.equal(functional, torch.autograd.grad(layer(x).square().sum(), x)[0])


def same(one: Sequence[Tensor], other: Sequence[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", PROGRAMS)
def test_half_precision_of_the_model_is_not_that_of_what_is_made_again(name: str) -> None:
    """x is bfloat16, the adapter float32: what is made again is float32 too, to the last bit."""
    program, hyper = PROGRAMS[name]
    layer = padp.compile(program)(nn.Linear(256, 256).bfloat16(), **hyper)
    with torch.no_grad():
        for p in learned(layer):
            p.add_(0.1 * torch.randn_like(p))
    x = torch.randn(64, 256, dtype=torch.bfloat16, requires_grad=True)
    lean = torch.autograd.grad(layer(x).float().square().sum(), [x, *learned(layer)])
    assert same(lean, torch.autograd.grad(plainly(layer, x).float().square().sum(), [x, *learned(layer)]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_tensors_that_are_only_lent_for_the_forward_pass(name: str) -> None:
    """``functional_call`` puts tensors in place and takes them away again before backward."""
    layer = layer_of(name)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    lent = {k: (p.detach() * 1.3).requires_grad_() for k, p in layer.named_parameters() if p.requires_grad}
    y = torch.func.functional_call(layer, lent, (x,))
    found = torch.autograd.grad(y.square().sum(), [x, *lent.values()])
    with torch.no_grad():
        for k, p in layer.named_parameters():
            if k in lent:
                p.copy_(lent[k])
    own = [p for k, p in layer.named_parameters() if k in lent]
    assert same(found, torch.autograd.grad(plainly(layer, x).square().sum(), [x, *own]))


@pytest.mark.parametrize("name", PROGRAMS)
def test_x_changed_between_two_backward_passes(name: str) -> None:
    """The second is an error, or it does not read x."""
    layer = layer_of(name)
    leaf = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    x = leaf * 1
    y = layer(x).square().sum()
    before = torch.autograd.grad(y, [leaf, *learned(layer)], retain_graph=True)
    with torch.no_grad():
        x.mul_(2)
    try:
        after = torch.autograd.grad(y, [leaf, *learned(layer)])
    except RuntimeError as error:
        assert "version" in str(error)
    else:
        assert same(before, after)


@pytest.mark.parametrize("name", PROGRAMS)
def test_x_that_comes_back_laid_out_anew(name: str) -> None:
    """Hooks that move what is kept to the CPU and back give contiguous copies."""
    layer = layer_of(name)
    x = torch.randn(256, 7, dtype=torch.double).t().requires_grad_()
    weights = torch.randn(7, 256, dtype=torch.double)
    with torch.autograd.graph.save_on_cpu():
        y = layer(x)
    lean = torch.autograd.grad((y * weights).sum(), [x, *learned(layer)])
    assert same(lean, torch.autograd.grad((plainly(layer, x) * weights).sum(), [x, *learned(layer)]))


def test_what_is_kept_does_not_keep_itself_alive() -> None:
    """tanh keeps its result: with the history of that result it could never go."""
    layer = layer_of("scaled")
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    gc.collect()
    before = sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall")
    for _ in range(3):
        layer(x)
    gc.collect()
    assert sum(1 for o in gc.get_objects() if type(o).__name__ == "Recall") == before


def test_threads_have_passes_of_their_own() -> None:
    """Two forward passes at once, each waiting for the other in its base layer."""
    layers = [layer_of("scaled") for _ in range(2)]
    xs = [torch.randn(5, 256, dtype=torch.double, requires_grad=True) for _ in layers]
    met = threading.Barrier(2, timeout=30)

    def meet(*_: Any) -> None:
        met.wait()

    handles = [layer.base.register_forward_hook(meet) for layer in layers]
    found: list[Any] = [None, None]

    def work(k: int) -> None:
        found[k] = torch.autograd.grad(layers[k](xs[k]).square().sum(), [xs[k], *learned(layers[k])])

    threads = [threading.Thread(target=work, args=(k,)) for k in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for handle in handles:
        handle.remove()
    for k, layer in enumerate(layers):
        assert same(found[k], torch.autograd.grad(plainly(layer, xs[k]).square().sum(), [xs[k], *learned(layer)]))


def test_an_error_in_the_base_layer_leaves_nothing_behind() -> None:
    layer = layer_of("scaled")

    def fail(*_: Any) -> None:
        raise ValueError("no")

    handle = layer.base.register_forward_hook(fail)
    with pytest.raises(ValueError, match="no"):
        layer(torch.randn(3, 256, dtype=torch.double))
    handle.remove()
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    assert same(torch.autograd.grad(layer(x).sum(), [x]), torch.autograd.grad(plainly(layer, x).sum(), [x]))


def test_a_knob_turned_before_backward() -> None:
    """The gradient of what was computed, never that of the new value."""
    layer = padp.compile("""adapter Knobbed(r = 3, knob α = 1) on linear(W ∈ ℝ^{m×n})
A ∈ ℝ^{r×n}: learned, init = kaiming
B ∈ ℝ^{m×r}: learned, init = kaiming
s ∈ ℝ^n: learned, init = 1
y ← (W + B @ A) @ (s ⊙ tanh(α · x))
""")(nn.Linear(256, 256).double(), dtype=torch.double)
    assert layer.adapters["default"].compiled.usual.lean is not None
    x = torch.randn(64, 256, dtype=torch.double, requires_grad=True)
    y = layer(x).sum()
    (wanted,) = torch.autograd.grad(y, x, retain_graph=True)
    layer.adapters["default"].set_knobs({"α": 3.0})
    assert torch.equal(torch.autograd.grad(y, x)[0], wanted)


def test_backward_inside_autocast_spoils_no_later_forward_pass() -> None:
    """Autocast remembers its copies of parameters; one that was made without history would lose the gradient."""
    layer = layer_of("scaled", dtype=torch.float32)
    x = torch.randn(64, 256, requires_grad=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y.float().sum().backward()
        for p in learned(layer):
            p.grad = None
        layer(x).float().square().sum().backward()
    assert all(p.grad is not None for p in learned(layer))


def _inference(layer: Any) -> None:
    with torch.inference_mode():
        x = torch.randn(3, 256, dtype=torch.double)
    layer(x + 1).sum().backward()


def _hooks_forbidden(layer: Any) -> None:
    with torch.autograd.graph.disable_saved_tensors_hooks("not here"):
        layer(torch.randn(3, 256, dtype=torch.double)).sum().backward()


def _meta(layer: Any) -> None:
    far = copy.deepcopy(layer).to("meta")
    far(torch.randn(5, 256, dtype=torch.double, device="meta", requires_grad=True)).square().sum().backward()


def _reentrant(layer: Any) -> None:
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    checkpoint(layer, x, use_reentrant=True).square().sum().backward()
    found = [p.grad for p in learned(layer)]
    assert all(g is not None for g in found)
    plain = torch.autograd.grad(plainly(layer, x).square().sum(), learned(layer))
    assert all(torch.equal(a, b) for a, b in zip(found, plain, strict=True) if a is not None)


def _stored(layer: Any) -> None:
    file = io.BytesIO()
    torch.save(layer, file)
    file.seek(0)
    back = torch.load(file, weights_only=False)
    x = torch.randn(3, 256, dtype=torch.double, requires_grad=True)
    assert same(torch.autograd.grad(back(x).sum(), [x]), torch.autograd.grad(layer(x).sum(), [x]))


@pytest.mark.parametrize("use", [_inference, _hooks_forbidden, _meta, _reentrant, _stored])
@pytest.mark.parametrize("name", PROGRAMS)
def test_unusual_places(name: str, use: Callable[[Any], None]) -> None:
    use(layer_of(name))
