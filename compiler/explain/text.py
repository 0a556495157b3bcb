"""A plan as text, 100 columns wide.

    text(plan) -> str        what it costs, step by step, what was chosen, which rule did what
"""

from __future__ import annotations

from collections.abc import Iterator

from padp.compiler.explain.record import EACH_CALL, ONCE, Choice, PlanStep, Record, RegimePlan
from padp.compiler.explain.rules_used import RuleUse
from padp.compiler.plan.search import MACHINES

WIDTH = 100
TITLES = {"train": "training", "eval": "eval", "decode": "decoding"}
MOST_WAYS = 4
"""Of a question with more ways, the cheapest are told."""


def text(plan: Record) -> str:
    """The whole plan."""
    return "\n".join(lines(plan))


def lines(plan: Record) -> Iterator[str]:
    yield from _summary(plan)
    for regime in plan.regimes:
        yield ""
        if regime is plan.decode and regime.steps == plan.eval.steps:
            yield f"{TITLES[regime.name]}: as in eval"
        else:
            yield from _regime(regime)
    if plan.rules:
        yield ""
        yield from _rules(plan.rules)
    yield ""
    yield from _merging(plan)


def _summary(plan: Record) -> Iterator[str]:
    sizes = ", ".join(f"{name} = {size}" for name, size in plan.sizes.items())
    named = f"{plan.adapter}, variant {plan.variant}" if plan.variant else plan.adapter
    yield f"plan of {named} for {sizes}; {plan.tokens:,} tokens a call"
    yield ""
    yield f"{'':24}{'FLOPs':>18}{'moved':>20}{'kept for':>13}{'stored':>12}{'time':>11}"
    yield f"{'':24}{'forward':>9}{'back':>9}{'forward':>11}{'back':>9}{'backward':>13}{'':12}{'a call':>11}"
    n = plan.naive
    if n is not None:
        yield _row("as written, training", n.flops, n.flops_back, n.moved, n.moved_back, n.held, None,
                   n.seconds + n.seconds_back)
    for r in plan.regimes:
        stored = sum(s.stored for s in r.steps)
        yield _row(title(r), r.flops, r.flops_back, r.moved, r.moved_back, r.held_bytes, stored, r.seconds)
    if n is None:
        yield "These are the maps of all heads; the attention itself, and its cost, is the model's own."
    elif plan.merging.bare_many is not None:
        built = f"{n.matrices} matrices as large as W" if n.matrices != 1 else "1 matrix as large as W"
        yield f"As written, every matrix that the program names is built: {built}."
    m = MACHINES[plan.machine]
    yield (f"Numbers of {plan.width} bytes. Time is the cost model's, for comparing ways, and no measurement: "
           f"{plan.machine},")
    yield f"{m.products / 1e9:g} GFLOP/s in products, {m.bytes / 1e9:g} GB/s, {m.call * 1e6:g} µs an operation."


def _row(name: str, flops: float, back: float, moved: float, moved_back: float, kept: float, stored: float | None,
         seconds: float) -> str:
    return (f"{name:24}{count(flops):>9}{count(back):>9}{size(moved):>11}{size(moved_back):>9}{size(kept):>13}"
            f"{'' if stored is None else size(stored):>12}{time(seconds):>11}")


def title(r: RegimePlan) -> str:
    tokens = "1 token" if r.tokens == 1 else f"{r.tokens:,} tokens"
    return f"{TITLES[r.name]}, {tokens}"


def _regime(r: RegimePlan) -> Iterator[str]:
    yield title(r)
    train = r.name == "train"
    yield (f"{'#':>4} {'stage':7}{'operation':13}{'makes':12}{'of':12}{'FLOPs':>8}{'back' if train else '':>8}"
           f"{'moved':>8}{'time':>8}  notes")
    last = ""
    for s in r.steps:
        here = f"  line {s.line}: {s.text}" if s.text else ""
        if here and here != last:
            yield cut(here)
            last = here
        yield _step(s, train)
    yield from _kept(r)
    if r.choices:
        yield "  choices, by time of the whole plan with a price for kept bytes and a share of what runs seldom"
    for c in r.choices:
        yield from _choice(c)


def _step(s: PlanStep, train: bool) -> str:
    notes = [] if s.runs == EACH_CALL else [s.runs]
    if s.held:
        notes.append("held")
    if s.again:
        notes.append("again")
    if s.stored:
        notes.append("stored")
    back = count(s.flops_back) if train else ""
    return (f"{s.number:>4} {s.stage:7}{cut(s.operation, 12):13}{cut(shape(s.shape), 11):12}"
            f"{cut(' '.join(s.inputs), 11):12}{count(s.flops):>8}{back:>8}{size(s.moved + s.moved_back):>8}"
            f"{time(s.seconds):>8}  {', '.join(notes)}").rstrip()


def _kept(r: RegimePlan) -> Iterator[str]:
    """What backward needs, and what it makes again."""
    kept = [f"{_called(k.value)} ({shape(k.shape)}, {size(k.bytes)})" for k in r.kept if not k.again]
    again = [f"{_called(k.value)} ({shape(k.shape)}, {size(k.bytes)}, in {time(k.seconds)})" for k in r.kept if k.again]
    if kept:
        yield from wrapped(f"held for backward, {size(r.held_bytes)}: {', '.join(kept)}")
    if again:
        yield from wrapped(f"again in backward, so that {size(r.dropped_bytes)} are not kept: {', '.join(again)}")
    stored = [f"{_called(f'#{s.number}')} ({shape(s.shape)}, {size(s.stored)}, "
              f"{'always' if s.runs == ONCE else 'until a parameter changes'})" for s in r.steps if s.stored]
    if stored:
        yield from wrapped(f"stored: {', '.join(stored)}")


def _called(value: str) -> str:
    return f"step {value[1:]}" if value.startswith("#") else value


def _choice(c: Choice) -> Iterator[str]:
    """A decision with what the other ways would cost in all."""
    yield cut(f"  line {c.line}: {c.question}")
    yield cut(f"    taken     {time(c.taken.seconds):>9}{'':11}{c.taken.label}{_storing(c.taken.stored)}")
    ways = sorted(c.rejected, key=lambda w: (w.stored, w.seconds))
    for w in ways[:MOST_WAYS]:
        more = w.seconds / c.taken.seconds - 1 if c.taken.seconds else 0.0
        why = f"{more:+.1%}" if abs(more) >= 0.0005 else "the same"
        yield cut(f"    rejected  {time(w.seconds):>9} {why:>9} {w.label}{_storing(w.stored)}")
    if len(ways) > MOST_WAYS:
        yield f"    and {len(ways) - MOST_WAYS} more that cost more"


def _storing(stored: float) -> str:
    return f"; stores {size(stored)} beside W" if stored else ""


def _rules(rules: tuple[RuleUse, ...]) -> Iterator[str]:
    """By line; what a rule of the normal form made of what, and the equation of a rule on vectors."""
    yield "which rule did what"
    by_line: dict[tuple[int, str], list[RuleUse]] = {}
    for r in rules:
        by_line.setdefault((r.line, r.text), []).append(r)
    for (line, words), uses in by_line.items():
        yield cut(f"  line {line}: {words}" if words else f"  line {line}")
        for r in uses:
            first, second = (r.before, f"= {r.after}") if r.after else (r.equation, f"for {r.before}")
            told, *more = wrapped(first, 19)
            yield f"    {r.rule.replace('vectors', 'v'):14} {told.strip()}"
            yield from more
            yield from wrapped(second, 19)


def _merging(plan: Record) -> Iterator[str]:
    """Whether a merged form would be cheaper."""
    m = plan.merging
    if m.bare_many is None or m.bare_one is None:
        yield from wrapped(f"merging: not offered: {m.why_not or 'there is no base layer'}", 0)
        return
    rows: list[str] = []
    for r, bare in ((plan.eval, m.bare_many), (plan.decode, m.bare_one)):
        saving = (r.seconds - bare) / r.seconds
        rows.append(f"{title(r)}: {time(r.seconds)} a call, W x alone {time(bare)}; "
                    f"{saving:.1%} less, {time((r.seconds - bare) / r.tokens)} a token")
    head = "merging: layer.merge() would save" if m.why_not is None else \
        f"merging: not offered: {m.why_not}. It would save"
    if all(r.seconds <= bare for r, bare in ((plan.eval, m.bare_many), (plan.decode, m.bare_one))):
        yield "merging: saves nothing, the plan costs no more than W x"
        return
    yield from wrapped(head, 0)
    for row in rows:
        yield cut(f"  {row}")


# ---------------------------------------------------------------- numbers and lines


def count(flops: float) -> str:
    """``2.15 G``."""
    return _short(flops, "")


def size(number: float) -> str:
    """``8.39 MB``, in powers of ten."""
    return _short(number, "B") if number else "0"


def _short(value: float, unit: str) -> str:
    for prefix, scale in (("T", 1e12), ("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if value >= scale:
            return f"{value / scale:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def time(seconds: float) -> str:
    for unit, scale in (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6)):
        if seconds >= scale:
            return f"{seconds / scale:.3g} {unit}"
    return f"{seconds / 1e-9:.3g} ns" if seconds > 0 else "0"


def shape(dims: tuple[int | str, ...]) -> str:
    return "×".join(map(str, dims)) or "scalar"


def cut(line: str, width: int = WIDTH) -> str:
    return line if len(line) <= width else line[:width - 1] + "…"


def wrapped(words: str, indent: int = 2) -> Iterator[str]:
    """Lines of at most ``WIDTH`` columns, the later ones indented more."""
    line = " " * indent
    for word in words.split(" "):
        if len(line) + len(word) > WIDTH and line.strip():
            yield line.rstrip()
            line = " " * (indent + 2)
        line += word + " "
    yield line.rstrip()
