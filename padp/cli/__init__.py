"""The command line: ``padp check | count | show | bench | targets | explain | demo``.

Exit status: 0 clean, 1 findings or a refusal, 2 usage, 3 a bug in padp. No traceback reaches the user; with
``PADP_TRACEBACK=1`` a bug shows where it is.
"""

from __future__ import annotations

import argparse
import codecs
import os
import sys
from collections.abc import Sequence
from importlib import import_module
from io import TextIOWrapper

from padp.cli.options import Usage
from padp.dsl.diagnostics import PadpError

CLEAN, FINDINGS, USAGE, BUG = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="padp.spelled")
    arguments = _parser().parse_args(argv)
    try:
        command = import_module(f"padp.cli.{arguments.command}")
        return int(command.run(arguments))
    except PadpError as error:
        from padp.cli.output import show_diagnostics

        show_diagnostics(error.diagnostics, sys.stderr)
        return FINDINGS
    except Usage as error:
        print(f"padp {arguments.command}: {error}", file=sys.stderr)
        return USAGE
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output left, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return CLEAN
    except Exception as error:
        if os.environ.get("PADP_TRACEBACK"):
            raise
        print(f"padp: this is a bug in padp: {type(error).__name__}: {error}", file=sys.stderr)
        print("PADP_TRACEBACK=1 shows where it is; please report it with the program.", file=sys.stderr)
        return BUG


def _spelled(error: UnicodeError) -> tuple[str, int]:
    """What an encoding other than UTF-8 cannot say, as in JSON: \\u03b1."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start:error.end].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[k]:02x}{units[k + 1]:02x}" for k in range(0, len(units), 2)), error.end


codecs.register_error("padp.spelled", _spelled)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="padp",
        description="Compiles the pseudocode of adapter papers to PyTorch.",
        epilog="FILE is a .padp file, a name of the library such as lora, or - for standard input.",
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    check = commands.add_parser("check", help="prove the shapes and claims of programs, without torch")
    check.add_argument("files", nargs="+", metavar="FILE")
    check.add_argument("--format", choices=("text", "json", "github"), default="text", help="default: text")
    check.add_argument("--numerics", action="store_true", help="test in float64 what no rule proves (imports torch)")
    check.add_argument("--variant", help="check this variant only; default: all")

    count = commands.add_parser("count", help="learned scalars, as a formula and for given sizes, without torch")
    count.add_argument("file", metavar="FILE")
    where = count.add_mutually_exclusive_group()
    where.add_argument("--size", metavar="m=4096,n=4096", help="sizes of one site")
    where.add_argument("--model", metavar="DIR|FILE", help="a model's directory or .safetensors file")
    count.add_argument("--set", action="append", default=[], metavar="r=8", help="hyperparameters")
    _targets_options(count)
    count.add_argument("--variant")

    show = commands.add_parser("show", help="program, shapes, parameters, plan with costs, code")
    show.add_argument("file", metavar="FILE")
    show.add_argument("--size", metavar="m=4096,n=4096", help="plan and code are for these sizes")
    show.add_argument("--set", action="append", default=[], metavar="r=8", help="hyperparameters")
    show.add_argument("--tokens", type=int, default=1024, metavar="N", help="costs are for N tokens; default: 1024")
    show.add_argument("--json", metavar="OUT", help="write the plan as JSON; - for standard output, without the text")
    show.add_argument("--svg", metavar="OUT", help="write the plan as a picture; - for standard output")
    show.add_argument("--regime", choices=("train", "eval", "decode"), default="train",
                      help="which plan the picture is of: training, many tokens, one token; default: train")
    show.add_argument("--ir", choices=("tree", "names", "typed", "normal", "plan", "graph"),
                      help="only what a phase of the compiler makes of it; plan and graph with --size")
    show.add_argument("--ascii", action="store_true", help="print the program in its ASCII spelling")
    show.add_argument("--variant")

    _bench_options(commands.add_parser("bench", help="time and memory beside the frozen layer and beside PEFT"))

    targets = commands.add_parser("targets", help="the linear layers of a model on disk, grouped")
    targets.add_argument("model", metavar="MODEL", help="a model's directory or .safetensors file")
    _targets_options(targets)

    explain = commands.add_parser("explain", help="what a diagnostic's code means, with examples")
    explain.add_argument("code", nargs="?", metavar="CODE", help="E301 for example; none lists all")

    demo = commands.add_parser("demo", help="adapt and train a pretrained sentence encoder, and show what it did")
    demo.add_argument("--output", default="demo-output", metavar="DIR", help="where its files go; default: demo-output")
    return parser


def _bench_options(bench: argparse.ArgumentParser) -> None:
    bench.add_argument("files", nargs="*", metavar="FILE", help="none: with --against, every method that both have")
    bench.add_argument("--against", choices=("peft", "hand"), action="append", default=[],
                       help="the same methods as PEFT has them, or best written by hand; may be given twice")
    where = bench.add_mutually_exclusive_group()
    where.add_argument("--sizes", default="1024x1024,2048x2048", metavar="1024x1024,…", help="rows × columns of W")
    where.add_argument("--model", metavar="DIR|minilm", help="a whole model, all its linear layers adapted")
    bench.add_argument("--tokens", default="1024,1", metavar="1024,1", help="tokens a batch; 1 is decoding")
    bench.add_argument("--repeats", type=int, default=5, metavar="N",
                       help="a time is the lowest of three medians of this many; default: 5")
    bench.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads; default: 2")
    bench.add_argument("--clock", choices=("wall", "cpu"), default="wall",
                       help="cpu: seconds that the processor spent on us, for a machine that others use too")
    bench.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    bench.add_argument("--dtype", choices=("float32", "bfloat16", "float16", "float64"), default="float32",
                       help="of the base and of x")
    bench.add_argument("--no-bias", action="store_true", help="a base without a bias")
    bench.add_argument("--no-onednn", action="store_true",
                       help="padp's products as torch computes them, where padp would ask oneDNN (CPU)")
    bench.add_argument("--compile", action="store_true", help="everybody through torch.compile")
    bench.add_argument("--set", action="append", default=[], metavar="r=8", help="hyperparameters of the FILEs")
    bench.add_argument("--variant", help="of the FILEs")
    bench.add_argument("--json", metavar="OUT", help="write all numbers; - for standard output, without the tables")
    bench.add_argument("--plot", metavar="OUT", help="write a plot: .png, .svg or .pdf (needs matplotlib)")


def _targets_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--targets",
        default="all-linear",
        help="all-linear, suffixes (q_proj,v_proj) or a regular expression for the whole name; default: all-linear",
    )
    parser.add_argument("--exclude", help="what to leave out of them: suffixes or a regular expression")


def _version() -> str:
    from padp import __version__

    return f"padp {__version__}"
