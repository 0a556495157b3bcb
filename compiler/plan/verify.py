"""What holds of every plan, looked at when ``PADP_VERIFY`` is set; the tests set it.

    verify(*roots)      raises Unsound, which is a mistake of ours and none of the program's

    no choice is left;  a stage is never below that of what it reads;  every operation states its cost;
    sizes are whole numbers ≥ 0, or T, the number of tokens
"""

from __future__ import annotations

from padp.compiler.ir.verify import Unsound
from padp.compiler.plan.costs import FREE, entry
from padp.compiler.plan.steps import LEAVES, STAGES, VIEWS, Low, order


def verify(*roots: Low) -> None:
    """Every operation below the roots of a settled plan."""
    for low in order(*roots):
        if low.prim == "choice":
            raise Unsound(f"{low}: a choice is left")
        later = max((x.stage for x in low.inputs()), default=0)
        if low.stage < later:
            raise Unsound(f"{low}: made once in stage {STAGES[low.stage]}, it reads what stage {STAGES[later]} makes")
        if low.prim not in (*LEAVES, *VIEWS, *FREE):
            try:
                entry(low.prim)
            except KeyError as error:
                raise Unsound(f"{low}: {error.args[0]}") from None
        if any(not (isinstance(d, int) and d >= 0) and d != "T" for d in low.dims):
            raise Unsound(f"{low}: a size is no number")
