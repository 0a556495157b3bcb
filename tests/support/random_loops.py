"""Random programs around one loop that carries several vectors, each step made of any of them: what depends on what is
seen only through the steps.

    loops(seed) -> text       on linear(W ∈ ℝ^{n×n}), r steps
"""

from __future__ import annotations

import random

HEAD = "adapter Loop(r = 3) on linear(W ∈ ℝ^{n×n})\nu, v ∈ ℝ^n: learned, init = normal(0.4)\n" \
    "M ∈ ℝ^{r×n×n}: learned, init = normal(0.4)\nA ∈ ℝ^{r×n}: learned, init = normal(0.4)\n"
NAMES = ("a", "q", "z")
STARTS = ("x", "W @ x", "u", "zeros(n)", "ones(n)", "0.5 · x", "tanh(x)", "v ⊙ x")
STEPS = ("{0} + {1}", "{0} ⊙ v + {1} ⊙ u", "tanh({0}) + {1}", "{0} ⊙ {1}", "0.5 · {1}", "M_i @ {0}", "{0} + M_i @ {1}",
         "{0} + A_i", "{0} - 0.5 · x", "{0} + W @ {1}", "{0} / 2", "{0} + A_i · (A_iᵀ @ {1})")
OUTPUTS = ("W @ {0}", "W @ x + {0}", "{0} + {1}", "W @ (x + {0})", "W @ x + u ⊙ {0}", "W @ x + {0} - {1}",
           "W @ u + {0}")


def loops(seed: int) -> str:
    """The program of this seed."""
    drawn = random.Random(seed)
    names = NAMES[:drawn.choice((1, 2, 2, 3))]
    lines = [f"{name} ← {drawn.choice(STARTS)}" for name in names]
    lines.append("for i in range(r):")
    for name in drawn.sample(names, len(names)):
        first = name if drawn.random() < 0.7 else drawn.choice(names)
        lines.append(f"    {name} ← {drawn.choice(STEPS).format(first, drawn.choice(names))}")
    lines.append(f"y ← {drawn.choice(OUTPUTS).format(drawn.choice(names), drawn.choice(names))}")
    return HEAD + "\n".join(lines) + "\n"
