"""What is measured: a training step, evaluation (of one token: decoding), bytes kept for backward, attaching, merging.

    measure(contest, place, tokens, how) -> one Measured for every maker and number of tokens

Everybody gets a copy of one base. Times are taken in turn (frozen base, ours, theirs, frozen base, …), so that a
machine that is busy for a while is busy for all, in three rounds; the lowest median of a round is reported, and how far
the rounds lie apart. Bytes are exact: what autograd keeps for backward beside parameters and buffers (x is reported
apart, because the layer before may keep it too), and the most that is alive at once during a step.
"""

from __future__ import annotations

import gc
import math
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from padp.compiler.module.module import AdapterModule
from padp.dsl.diagnostics import PadpError

Call: TypeAlias = Callable[[nn.Module, Tensor], Tensor]

FROZEN = "frozen"
SAMPLE_SECONDS = 2.0e-3
"""A shorter run is repeated within one sample until it takes this long."""
MOST_RUNS = 200
ROUNDS = 3
COMPILING = 4
"""Runs before anything is timed: torch.compile may compile again on the second or third."""
MERGES = 3
PROBE_TOKENS = 32


@dataclass(frozen=True)
class Built:
    """An adapted module and its two ways between adapter and weight. ``attached`` is False where building it is no
    attaching that could be timed (a hand-written form takes its start from ours)."""

    module: nn.Module
    merge: Callable[[], object] | None
    unmerge: Callable[[], object] | None
    attached: bool = True


@dataclass(frozen=True)
class Contest:
    """One method, and how each maker builds it around a base."""

    method: str
    makers: Mapping[str, Callable[[nn.Module], Built]]


@dataclass(frozen=True)
class Place:
    """Where the methods are measured: a fresh frozen base, what is fed to it for a number of tokens, and how."""

    name: str
    base: Callable[[], nn.Module]
    input: Callable[[int], Tensor]
    call: Call


@dataclass(frozen=True)
class How:
    """Repeats in each of the three rounds, device, whether everybody goes through ``torch.compile``, and whether time
    is the wall's or what the processor spent on this process (of use on a machine that others work on too)."""

    repeats: int
    device: torch.device
    compiled: bool = False
    cpu_time: bool = False


@dataclass(frozen=True)
class Measured:
    """One maker of one method at one place and number of tokens. Times in seconds, memory in bytes.

    ``noise`` is how far the highest of the rounds' medians lies above the lowest, the worst of step and evaluation, of
    this maker and of the frozen base. ``saved`` is kept for backward beside x, ``kept_x`` the bytes of x where it is
    kept too; ``peak`` is the most that a step needs beyond what lay there before it. ``attach`` is the first of these
    sizes (planning included), ``attach_again`` the second. ``merge_error`` is the largest change of an output, relative
    to the largest output. What was not measured is nan.
    """

    method: str
    maker: str
    place: str
    tokens: int
    step: float = math.nan
    evaluation: float = math.nan
    frozen_step: float = math.nan
    frozen_evaluation: float = math.nan
    noise: float = math.nan
    saved: int = 0
    kept_x: int = 0
    peak: int = 0
    attach: float = math.nan
    attach_again: float = math.nan
    merge: float = math.nan
    merge_error: float = math.nan
    learned: int = 0
    error: str = ""

    @property
    def step_ratio(self) -> float:
        """Training step, as a multiple of the frozen base's."""
        return self.step / self.frozen_step

    @property
    def evaluation_ratio(self) -> float:
        """Evaluation, as a multiple of the frozen base's."""
        return self.evaluation / self.frozen_evaluation


def linear_place(rows: int, columns: int, device: torch.device, dtype: torch.dtype, bias: bool = True) -> Place:
    """One nn.Linear with W ∈ ℝ^{rows×columns} and standard normal tokens, of which the gradient is wanted."""

    def base() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return nn.Linear(columns, rows, bias=bias).to(device, dtype).requires_grad_(False)

    def input_(tokens: int) -> Tensor:
        x = torch.randn(1, tokens, columns, generator=torch.Generator().manual_seed(1))
        return x.to(device, dtype).requires_grad_()

    return Place(f"{rows}x{columns}", base, input_, lambda module, x: cast(Tensor, module(x)))


# ---------------------------------------------------------------- one method at one place


def measure(contest: Contest, place: Place, tokens: Sequence[int], how: How) -> list[Measured]:
    """All numbers of one method. A maker that fails has its reason in ``error`` and no numbers."""
    found: list[Measured] = []
    built: dict[str, Built] = {}
    about: dict[str, Measured] = {}
    for maker, make in contest.makers.items():
        blank = Measured(contest.method, maker, place.name, 0)
        try:
            built[maker], about[maker] = attached(blank, make, place, how.device)
        except Exception as error:  # theirs is anybody's code, and one failure must not end a long run
            found += [replace(blank, tokens=t, error=reason(error)) for t in tokens]
    base = place.base()
    for t in tokens:
        x = place.input(t)
        modules = {FROZEN: base} | {maker: one.module for maker, one in built.items()}
        outcomes: dict[str, Measured] = {}
        for maker in list(modules)[1:]:
            try:
                saved, kept_x = saved_for_backward(modules[maker].train(), x, place.call)
                step = step_of(modules[maker], x, place.call)
                step()
                peak = peak_of(step, how.device)
                outcomes[maker] = replace(about[maker], tokens=t, saved=saved, kept_x=kept_x, peak=peak)
            except Exception as error:
                del modules[maker]
                found.append(replace(about[maker], tokens=t, error=reason(error)))
        for part in (p for module in modules.values() for p in module.modules() if isinstance(p, AdapterModule)):
            part.expect("one" if t == 1 else "many")  # one token is decoding: padp.decoding(model)
        runs = {name: cast(nn.Module, torch.compile(module)) if how.compiled else module
                for name, module in modules.items()}
        steps = in_turn({name: step_of(run.train(), x, place.call) for name, run in runs.items()}, how)
        evaluations = in_turn({name: evaluation_of(run.eval(), x, place.call) for name, run in runs.items()}, how)
        found += [replace(one, step=steps[maker].seconds, evaluation=evaluations[maker].seconds,
                          frozen_step=steps[FROZEN].seconds, frozen_evaluation=evaluations[FROZEN].seconds,
                          noise=max(times[who].noise for times in (steps, evaluations) for who in (maker, FROZEN)))
                  for maker, one in outcomes.items()]
    return found


def attached(blank: Measured, make: Callable[[nn.Module], Built], place: Place, device: torch.device
             ) -> tuple[Built, Measured]:
    """Attach to a first and a second base of these sizes, move off the start, merge and unmerge."""
    times: list[float] = []
    built: Built | None = None
    for _ in range(2):
        base = place.base()
        synchronise(device)
        start = time.perf_counter()
        built = make(base)
        synchronise(device)
        times.append(time.perf_counter() - start)
        if not built.attached:
            times = [math.nan, math.nan]
            break
    assert built is not None
    scramble(built.module)
    merge, merge_error = merging(built, place.input(PROBE_TOKENS), place.call, device)
    learned = sum(p.numel() for p in built.module.parameters() if p.requires_grad)
    return built, replace(blank, attach=times[0], attach_again=times[1], merge=merge, merge_error=merge_error,
                          learned=learned)


@torch.no_grad()
def merging(built: Built, x: Tensor, call: Call, device: torch.device) -> tuple[float, float]:
    """Median seconds of merging, and the error of a merged output; nan where an adapter refuses to merge."""
    if built.merge is None or built.unmerge is None:
        return math.nan, math.nan
    built.module.eval()
    before = call(built.module, x)
    times: list[float] = []
    merged = before
    for _ in range(MERGES):
        synchronise(device)
        start = time.perf_counter()
        try:
            built.merge()
        except PadpError as error:
            if error.diagnostics[0].code != "E504":
                raise
            return math.nan, math.nan
        synchronise(device)
        times.append(time.perf_counter() - start)
        merged = call(built.module, x) if len(times) == 1 else merged
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that theirs is inaccurate
            built.unmerge()
    largest = before.float().abs().max().item()
    return median(times), (merged.float() - before.float()).abs().max().item() / (largest or 1.0)


def reason(error: Exception) -> str:
    """What an error says, in one line."""
    text = error.diagnostics[0].message if isinstance(error, PadpError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:300]


# ---------------------------------------------------------------- runs


def step_of(module: nn.Module, x: Tensor, call: Call) -> Callable[[], None]:
    """Forward and backward from a given gradient of the output; the gradient of x included, as inside a network."""
    with torch.no_grad():
        gradient = torch.ones_like(call(module, x)) / 64
    leaves = [p for p in (*module.parameters(), x) if p.requires_grad]

    def run() -> None:
        call(module, x).backward(gradient)
        for leaf in leaves:
            leaf.grad = None

    return run


def evaluation_of(module: nn.Module, x: Tensor, call: Call) -> Callable[[], None]:
    """Forward without gradients."""

    def run() -> None:
        with torch.no_grad():
            call(module, x)

    return run


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@dataclass(frozen=True)
class Timed:
    """The lowest of the rounds' medians, and how far above it the highest is, as a share of it."""

    seconds: float
    noise: float


def in_turn(candidates: Mapping[str, Callable[[], Any]], how: How) -> dict[str, Timed]:
    """Each candidate's time, taken in turn after a round that warms up and finds how often to run each.

    Noise on a shared machine only adds time, and for longer than one sample: of three rounds' medians the lowest is
    nearest to the truth. Before a sample of several short runs one is not counted: it fetches code and tensors back
    into the caches, which the candidate before has filled with its own. In a model, layer after layer runs one maker's
    code.
    """
    clock = time.process_time if how.cpu_time else time.perf_counter

    def timed(run: Callable[[], Any], times: int) -> float:
        synchronise(how.device)
        start = clock()
        for _ in range(times):
            run()
        synchronise(how.device)
        return (clock() - start) / times

    gc.collect()
    for run in candidates.values():
        for _ in range(COMPILING if how.compiled else 1):
            run()
    often = {name: min(MOST_RUNS, math.ceil(SAMPLE_SECONDS / max(timed(run, 1), 1.0e-9)))
             for name, run in candidates.items()}
    medians: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(ROUNDS):
        samples: dict[str, list[float]] = {name: [] for name in candidates}
        for _ in range(how.repeats):
            for name, run in candidates.items():
                if often[name] > 1:
                    run()
                samples[name].append(timed(run, often[name]))
        for name, values in samples.items():
            medians[name].append(median(values))
    return {name: Timed(min(values), max(values) / min(values) - 1) for name, values in medians.items()}


# ---------------------------------------------------------------- memory


def storages(tensors: Iterable[Tensor]) -> set[int]:
    return {t.untyped_storage().data_ptr() for t in tensors}


def saved_for_backward(module: nn.Module, x: Tensor, call: Call) -> tuple[int, int]:
    """(bytes kept for backward beside parameters, buffers and x; bytes of x where it is kept).

    Storages are counted once, whole, however many views of them are kept.
    """
    own = storages([*module.parameters(), *module.buffers()])
    given = x.untyped_storage().data_ptr()
    found: dict[int, int] = {}
    alive: list[Tensor] = []  # so that no storage is freed and its address given to another

    def pack(t: Tensor) -> Tensor:
        storage = t.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes()
            alive.append(t)
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = call(module, x)
    del y
    kept_x = found.get(given, 0)
    return sum(found.values()) - kept_x, kept_x


class _Alive(TorchDispatchMode):
    """Bytes of the tensors made under it that are alive, looked at after every operation.

    What an operation allocates and frees inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._bytes: dict[StorageWeakRef, int] = {}
        self._before: set[StorageWeakRef] = set()  # weak, and no other storage gets its address while it is held
        self.most: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for given in tree_iter((args, kwargs or {})):
            if isinstance(given, Tensor):
                ref = StorageWeakRef(given.untyped_storage())
                if ref not in self._bytes:
                    self._before.add(ref)
        out = func(*args, **(kwargs or {}))
        for gone in [ref for ref in self._bytes if ref.expired()]:
            del self._bytes[gone]
        for made in tree_iter(out):
            if isinstance(made, Tensor):
                storage = made.untyped_storage()
                ref = StorageWeakRef(storage)
                if ref not in self._before:
                    self._bytes[ref] = storage.nbytes()
        self.most = max(self.most, sum(self._bytes.values()))
        return out


def peak_of(run: Callable[[], None], device: torch.device) -> int:
    """The most memory that a run needs beyond what is there before it: by CUDA's allocator, else by what is alive."""
    if device.type != "cuda":
        alive = _Alive()
        with alive:
            run()
        return alive.most
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def scramble(module: nn.Module) -> None:
    """Move every trained tensor off its start, so that nobody gains from zeros."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in module.parameters():
            if p.requires_grad:
                p.add_(0.01 * torch.randn(p.shape, generator=generator).to(p))
