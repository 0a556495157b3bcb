"""The cheapest plan: among all ways that the planner found, the set of choices with the smallest cost in all.

    settle(table, picks, roots, regime) -> (roots without choices, the decisions with what each rejected way would cost)

A plan is a graph with choices in it; what two ways share is one value and is paid once. So a choice cannot be judged
alone: starting from the choices that look best each on their own, one after the other is changed while the whole gets
cheaper.
The cost of a regime is time (FLOPs, traffic, calls; backward too in training) plus a price for every byte that is kept:
for backward, beside W, or from step to step. Deterministic: ties go to the way that was found first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from padp.compiler.ir.budget import spend
from padp.compiler.plan.costs import Cost, cost, saved, speed, storage
from padp.compiler.plan.steps import LEAVES, VIEWS, Low, Table, constant, copies, live, source


@dataclass(frozen=True, slots=True)
class Machine:
    """What a plan is made for; only the ratios decide. Products, other FLOPs and bytes a second; seconds a call."""

    name: str
    products: float
    others: float
    bytes: float
    call: float


CPU = Machine("cpu", products=8.0e10, others=4.0e9, bytes=1.0e10, call=3.0e-6)
CUDA = Machine("cuda", products=2.0e14, others=1.0e13, bytes=2.0e12, call=5.0e-6)
MACHINES = {m.name: m for m in (CPU, CUDA)}

TRAFFIC_FOR_A_BYTE = 16.0
"""What it is worth not to keep a byte (for backward, or beside W): as much time as moving this many bytes."""
CHEAPLY_STORED = 1.0 / 8
"""The share of ``large`` (half of W) up to which what is stored beside W counts no more than moving it once."""
ATTACH_SHARE = 1.0e-6
"""What the work of the attach stage counts: it is done once."""
STEP_SHARE = 1.0 / 32
"""What the step stage counts in eval, where its results are kept from call to call."""
STEP_SHARE_OF_ONE = 1.0 / 1024
"""The same in decoding, with its many calls."""
MAX_SWEEPS = 6
MOST_PAIRS = 40
STEPS_A_VALUE = 1
"""What it counts to look at one value of a plan once more."""
NEVER = ("base", "base_without_bias", "dropout", "choice")
"""Not made again in backward: the base layer is called once; dropout draws numbers."""


@dataclass(frozen=True, slots=True)
class Regime:
    """What a plan is used for. ``tokens``: of a call; in training the step stage runs each time, else it is kept.

    Values of ``large`` numbers (half of W) are as good as banned from being stored.
    """

    name: str
    tokens: int
    train: bool
    machine: Machine = CPU
    width: int = 4
    large: float = 0.0


@dataclass(frozen=True, slots=True)
class Way:
    """One of the ways that a decision had: what it is, and the cost of the whole plan with it.

    ``seconds`` as the cost model has it; ``stored``: numbers in tensors as large as half of W that it would keep beside
    W.
    """

    label: str
    seconds: float
    stored: float


@dataclass(frozen=True, slots=True)
class Decision:
    """A choice that was made: the question, the ways, which one was taken, and the line it came from."""

    question: str
    ways: tuple[Way, ...]
    taken: int
    low: Low


@dataclass(slots=True)
class Facts:
    """What an operation counts in every plan that it is in: looked up, because plans are compared by the thousand.

    ``seconds``: of its own. ``size``: its numbers. ``meeting``: seconds to add up two gradients of it. ``held``: whose
    memory its backward reads. ``stores``: which of its inputs are stored because of it. ``holding``: seconds that it
    counts to have it for backward, once asked. ``low`` is kept so that its id stays its own.
    """

    low: Low
    seconds: float
    size: float
    meeting: float
    held: tuple[Low, ...]
    stores: dict[int, Low | None]
    holding: float | None = None


@dataclass
class Estimate:
    """Costs of whole plans in one regime. ``picks`` says which way each choice takes."""

    regime: Regime
    picks: dict[int, int]
    _facts: dict[int, Facts] = field(default_factory=dict)

    def resolve(self, low: Low) -> Low:
        """The way that a choice takes now."""
        while low.prim == "choice":
            low = low.args[0][self.picks.get(id(low), 0)]
        return low

    def inputs(self, low: Low) -> list[Low]:
        return [x if x.prim != "choice" else self.resolve(x) for x in low.ins]

    def reached(self, *roots: Low, above: Low | None = None) -> list[Low]:
        """All that the choices of now need, arguments first; ``above``: without what that value is made from."""
        seen: set[int] = set() if above is None else {id(above), id(self.resolve(above))}
        out: list[Low] = []
        stack = [(self.resolve(r), False) for r in roots]
        while stack:
            low, ready = stack.pop()
            if ready:
                out.append(low)
            elif id(low) not in seen:
                seen.add(id(low))
                stack.append((low, True))
                stack.extend((x, False) for x in self.inputs(low))
        return out

    def facts(self, low: Low) -> Facts:
        """What is known of one operation."""
        found = self._facts.get(id(low))
        if found is None:
            r = self.regime
            size = numbers(low, r.tokens)
            found = self._facts[id(low)] = Facts(
                low, self._seconds(low), size, 3 * r.width * size / r.machine.bytes,
                tuple(saved(low)) if r.train else (), {})
        return found

    def own(self, low: Low) -> float:
        """Seconds of one operation, backward included in training."""
        return self.facts(low).seconds

    def _seconds(self, low: Low) -> float:
        r = self.regime
        if low.prim in LEAVES:
            return 0.0
        anew = r.train or low.stage == 2 or self.made_anew(low)
        share = ATTACH_SHARE if low.stage == 0 and not live(low) else 1.0 if anew or low.stage == 0 else \
            STEP_SHARE if r.tokens > 1 else STEP_SHARE_OF_ONE
        if (low.prim in VIEWS and not copies(low)) or low.prim in ("detach", "getitem"):
            return share * 0.3 * r.machine.call
        return share * seconds_of(cost(low, r.tokens), low, r)

    def total(self, *roots: Low, above: Low | None = None) -> tuple[float, float]:
        """(numbers in large tensors stored beside W, seconds with the price of what is kept) of a whole plan."""
        r = self.regime
        time = 0.0
        kept: dict[int, Low] = {}
        held: dict[int, Low] = {}
        readers: set[int] = set()
        lows = self.reached(*roots, above=above)
        spend(STEPS_A_VALUE * len(lows))
        for low in lows:
            found = self.facts(low)
            time += found.seconds
            back = r.train and low.grad
            for x in self.inputs(low):
                if back and x.grad:
                    if id(x) in readers:  # two gradients meet and are added up
                        time += self.facts(x).meeting
                    readers.add(id(x))
                stored = found.stores.get(id(x), low)
                if stored is low:
                    stored = found.stores[id(x)] = source(x) if self.stored_for(low, x) else None
                    self.facts(x)
                if stored is not None:
                    kept[id(stored)] = stored
            for x in found.held:
                home = x if x.prim != "choice" else storage(self.resolve(x))
                while home.prim == "choice":
                    home = storage(self.resolve(home))
                held[id(home)] = home
        size = sum(self.facts(x).size for x in kept.values())
        few = min(size, r.large * CHEAPLY_STORED)
        price = r.width * (few + (size - few) * TRAFFIC_FOR_A_BYTE) / r.machine.bytes
        price += sum(self.holding(x) for x in held.values())
        large = sum(self.facts(x).size for x in kept.values() if self.is_large(x))
        return large, float(f"{time + price:.10g}")  # the order of adding up decides nothing

    def time(self, *roots: Low) -> float:
        """The seconds of a plan, without any price of what is kept."""
        return sum(self.own(low) for low in self.reached(*roots))

    def is_large(self, low: Low) -> bool:
        """Whether a value without tokens is as large as half of W: not to be stored beside it."""
        return bool(self.regime.large) and low.stage < 2 and numbers(low, self.regime.tokens) >= self.regime.large

    def made_anew(self, low: Low) -> bool:
        """Whether a value is made in every call because it is too large to be stored; not a part of a decomposition."""
        return low.stage == 1 and low.prim != "getitem" and self.is_large(low)

    def stored_for(self, reader: Low, x: Low) -> bool:
        """Whether ``x`` is stored beside W because of this reader: made at attach, or in eval once for many calls."""
        if live(x) or constant(source(x)):
            return False
        if x.stage == 0:
            return reader.stage > 0
        anew = reader.stage == 2 or self.made_anew(reader)
        return not self.regime.train and x.stage == 1 and anew and not self.made_anew(x)

    def holding(self, low: Low) -> float:
        """Seconds that it counts to have a value for backward: held, or made again where that is cheaper."""
        found = self.facts(low)
        if found.holding is None:
            found.holding = self._holding(low)
        return found.holding

    def _holding(self, low: Low) -> float:
        price = self.held_bytes(low) * TRAFFIC_FOR_A_BYTE / self.regime.machine.bytes
        if not price or low.prim in LEAVES or low.prim in NEVER:
            return price
        return min(price, seconds_of(cost(low, self.regime.tokens), low, once(self.regime)))

    def held_bytes(self, low: Low) -> float:
        """What it counts that autograd holds a value: leaves and kept values lie there anyway, x half of the time."""
        stored = low.stage == 0 and not live(low) and low.prim not in ("full", "eye")
        if low.prim in ("param", "weight", "bias", "knob") or stored:
            return 0.0
        share = 0.5 if low.prim == "input" else 1.0
        return share * self.regime.width * numbers(low, self.regime.tokens)

    def choices(self, *roots: Low) -> list[Low]:
        """The choices that the plan of now goes through, the outermost first."""
        found: dict[int, Low] = {}
        for low in (*roots, *(x for o in self.reached(*roots) for x in o.inputs())):
            while low.prim == "choice":
                found[id(low)] = low
                low = low.args[0][self.picks.get(id(low), 0)]
        return sorted(found.values(), key=lambda c: -c.number)


def once(regime: Regime) -> Regime:
    """The same without backward."""
    return replace(regime, train=False)


def numbers(low: Low, tokens: int) -> float:
    total: Any = 1
    for d in low.dims:
        total *= tokens if d == "T" else d
    return float(total)


def seconds_of(c: Cost, low: Low, r: Regime) -> float:
    """Time of one operation."""
    fast = r.machine.products * speed(low)
    time = c.product / fast + c.other / r.machine.others + r.width * c.moved / r.machine.bytes \
        + r.machine.call
    if r.train and low.grad:
        time += c.product_back / fast + c.other_back / r.machine.others \
            + r.width * c.moved_back / r.machine.bytes + 2 * r.machine.call
    return float(time)


def settle(table: Table, picks: Mapping[int, int], roots: Sequence[Low], regime: Regime
           ) -> tuple[tuple[Low, ...], tuple[Decision, ...]]:
    """The roots with every choice made, and how it was made."""
    e = Estimate(regime, dict(picks))
    best = e.total(*roots)
    judged: dict[int, tuple[Low, dict[int, tuple[float, float]]]] = {}
    for _ in range(MAX_SWEEPS):
        changed = False
        for c in e.choices(*roots):
            before = e.picks.get(id(c), 0)
            costs = {before: best}
            for k in range(len(c.args[0])):
                if k != before:
                    e.picks[id(c)] = k
                    costs[k] = e.total(*roots)
            taken = min(costs, key=lambda k: (*costs[k], k != before, k))
            e.picks[id(c)] = taken
            judged[id(c)] = (c, costs)
            if taken != before:
                best, changed = costs[taken], True
        if not changed:
            better = _together(e, roots, best)
            if better is None:
                break
            best = better
    final = {id(c) for c in e.choices(*roots)}
    decisions = tuple(
        Decision(c.args[2], tuple(Way(label, costs[k][1], costs[k][0]) for k, label in enumerate(c.args[1])),
                 e.picks.get(id(c), 0), c)
        for c, costs in sorted(judged.values(), key=lambda j: j[0].number) if id(c) in final)
    return tuple(rebuilt(table, e, r, {}) for r in roots), decisions


def _together(e: Estimate, roots: Sequence[Low], best: tuple[float, float]) -> tuple[float, float] | None:
    """Two choices changed at once, where the other ways of both share work that the plan of now does not have.

    Each alone would pay for the shared part in full. The new cost, with the picks changed, or None.
    """
    now = {id(low) for low in e.reached(*roots)}
    ways: list[tuple[Low, int, frozenset[int]]] = []
    for c in e.choices(*roots):
        for k, way in enumerate(c.args[0]):
            if k != e.picks.get(id(c), 0):
                new = frozenset(id(x) for x in e.reached(way) if x.prim not in LEAVES) - now
                ways.append((c, k, new))
    tried = 0
    for i, (c, k, new) in enumerate(ways):
        for d, j, other in ways[i + 1:]:
            if c is d or not new & other or tried == MOST_PAIRS:
                continue
            tried += 1
            before = e.picks.get(id(c), 0), e.picks.get(id(d), 0)
            e.picks[id(c)], e.picks[id(d)] = k, j
            cost_now = e.total(*roots)
            if cost_now < best:
                return cost_now
            e.picks[id(c)], e.picks[id(d)] = before
    return None


def rebuilt(table: Table, e: Estimate, root: Low, done: dict[int, Low]) -> Low:
    """``root`` with each choice replaced by the way it takes."""
    top = e.resolve(root)
    for low in e.reached(top):
        if id(low) in done:
            continue

        def new(a: Any) -> Any:
            if isinstance(a, Low):
                return done[id(e.resolve(a))]
            if isinstance(a, tuple):
                return tuple(new(x) for x in a)
            return a

        args = tuple(new(a) for a in low.args)
        same = all(_same(a, b) for a, b in zip(args, low.args, strict=True))
        if same:
            done[id(low)] = low
            continue
        table.span = low.span
        stage = low.stage if low.prim in ("dropout",) or low.prim.startswith("i:") else None
        done[id(low)] = table.make(low.prim, args, low.type, low.lead, stage=stage)
    return done[id(top)]


def _same(a: Any, b: Any) -> bool:
    if isinstance(a, Low) or isinstance(b, Low):
        return a is b
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(_same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)
