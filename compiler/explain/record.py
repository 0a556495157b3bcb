"""What is said of a compiled program's plans, as data; ``plan.py`` makes it of the plans.

Text (``text.py``), JSON (``as_json.py``) and a picture (``picture.py``) are renderers of this one record. FLOPs of
products are counted as torch counts them; seconds are the cost model's of ``plan/search.py``, good for comparing ways,
no measurement. Bytes are those of the regime's numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from padp.compiler.explain.as_written import Naive
from padp.compiler.explain.rules_used import RuleUse

EACH_CALL, ON_CHANGE, ONCE = "each call", "on change", "once"


@dataclass(frozen=True, slots=True)
class PlanStep:
    """One operation: what it makes of what, in which stage, from which line, and its cost for all tokens when it runs.

    ``runs``: in each call, on change of a parameter (the step stage in eval, kept until then), or once. ``inputs``:
    names of leaves, and ``#3`` for step 3. ``*_back``: backward's share. ``held``: bytes of the result that are kept
    for backward; ``again``: backward makes the result anew instead. ``stored``: bytes that lie beside W.
    """

    number: int
    operation: str
    inputs: tuple[str, ...]
    shape: tuple[int | str, ...]
    stage: str
    runs: str
    line: int
    text: str
    products: float
    others: float
    products_back: float
    others_back: float
    moved: float
    moved_back: float
    seconds: float
    held: float
    again: bool
    stored: float

    @property
    def flops(self) -> float:
        return self.products + self.others

    @property
    def flops_back(self) -> float:
        return self.products_back + self.others_back


@dataclass(frozen=True, slots=True)
class Kept:
    """A value that backward needs: its step (or ``x``), its bytes; ``again``: made anew, which takes ``seconds``."""

    value: str
    shape: tuple[int | str, ...]
    bytes: float
    again: bool
    seconds: float


@dataclass(frozen=True, slots=True)
class PlanWay:
    """A way to a value: seconds of the whole plan with it, the price of kept bytes included, before neighbours are
    fused; ``stored``: bytes of tensors as large as half of W that it keeps beside W."""

    label: str
    seconds: float
    stored: float


@dataclass(frozen=True, slots=True)
class Choice:
    """A decision: the way that was taken, with the cost of the whole plan, and the others."""

    question: str
    line: int
    text: str
    taken: PlanWay
    rejected: tuple[PlanWay, ...]


@dataclass(frozen=True, slots=True)
class RegimePlan:
    """The plan for one use. ``tokens`` of a call; ``kept`` is what backward needs, ``choices`` what was decided."""

    name: str
    tokens: int
    steps: tuple[PlanStep, ...]
    kept: tuple[Kept, ...]
    choices: tuple[Choice, ...]

    @property
    def each_call(self) -> tuple[PlanStep, ...]:
        """The steps that a call pays for."""
        return tuple(s for s in self.steps if s.runs == EACH_CALL)

    @property
    def seconds(self) -> float:
        """Of a call, backward included in training."""
        return sum(s.seconds for s in self.each_call)

    @property
    def flops(self) -> float:
        """Forward FLOPs of a call, the base layer's own included."""
        return sum(s.flops for s in self.each_call)

    @property
    def flops_back(self) -> float:
        return sum(s.flops_back for s in self.each_call)

    @property
    def moved(self) -> float:
        return sum(s.moved for s in self.each_call)

    @property
    def moved_back(self) -> float:
        return sum(s.moved_back for s in self.each_call)

    @property
    def held_bytes(self) -> float:
        """What is kept for backward."""
        return sum(k.bytes for k in self.kept if not k.again)

    @property
    def dropped_bytes(self) -> float:
        """What is made again in backward instead of being kept."""
        return sum(k.bytes for k in self.kept if k.again)


@dataclass(frozen=True, slots=True)
class Merging:
    """What ``layer.merge()`` would save in eval: the bare base product's seconds; ``why_not`` where it cannot.

    ``bare_many`` and ``bare_one`` are for the tokens of the eval plan and for one; None where there is no base layer.
    """

    why_not: str | None
    bare_many: float | None
    bare_one: float | None


@dataclass(frozen=True)
class Record:
    """The plans of a program at one size, beside what its literal reading costs.

    Of an attention these are the plans of its maps, one a head; the heads themselves are the model's own, and ``naive``
    is None.
    """

    adapter: str
    variant: str | None
    sizes: dict[str, int]
    machine: str
    width: int
    naive: Naive | None
    train: RegimePlan
    eval: RegimePlan
    decode: RegimePlan
    rules: tuple[RuleUse, ...]
    merging: Merging
    kept_bytes: float

    @property
    def regimes(self) -> tuple[RegimePlan, RegimePlan, RegimePlan]:
        return self.train, self.eval, self.decode

    @property
    def tokens(self) -> int:
        return self.train.tokens

    @property
    def steps(self) -> tuple[PlanStep, ...]:
        """Of a training step."""
        return self.train.steps

    @property
    def flops(self) -> float:
        """Forward FLOPs of a training step."""
        return self.train.flops
