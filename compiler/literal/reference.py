"""The literal dense reading of a program: small, slow, and the specification of everything else.

    Reference(method, sizes, hyper, tensors).forward(x)

Loops run in Python, in order; matrices are dense; nothing is rearranged. A program is read for one vector and lifted
over tokens with ``torch.vmap``, so gradients flow. What every plan computes is compared with this.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from padp.compiler.kernels import dense as K
from padp.compiler.kernels.orthonormal import SPACES, first_rows, in_space
from padp.compiler.literal import values as d
from padp.compiler.literal.evaluation import Environment, Evaluation, Parts, plain_number
from padp.compiler.literal.values import Value
from padp.compiler.names import terms as t
from padp.compiler.names.scope import walk
from padp.compiler.names.signatures import INITIALISERS
from padp.dsl.diagnostics import refuse
from padp.dsl.source import Span

_MAKE_COMPLEX = ("fft", "ifft", "fft2", "ifft2")


class Reference:
    """A method at one site, with sizes and tensors.

    ``sizes`` may leave out what the tensors' shapes or the relations settle. ``tensors`` holds the site's tensors (W,
    bias, W_Q, …) and the declared ones, by the names as written; a tensor in O(k), SO(k) or St(r, d) is given as it is
    stored. The dtype is the widest of theirs, and x is brought to it; at least float32 where there are complex numbers.
    """

    def __init__(self, method: t.Method, sizes: Mapping[str, int], hyper: Mapping[str, float | int | str],
                 tensors: Mapping[str, Tensor]) -> None:
        self.method = method
        self.functions = {f.name: f for f in method.functions}
        real = [v for v in tensors.values() if v.is_floating_point()]
        given = reduce(torch.promote_types, (v.dtype for v in real)) if real else torch.get_default_dtype()
        self.dtype = torch.promote_types(given, torch.float32) if self._complex() else given
        self.device = real[0].device if real else torch.device("cpu")
        self.tensors = {k: v.to(self.dtype) if v.is_floating_point() else v for k, v in tensors.items()}
        self.numbers: dict[str, int | float | str] = {}
        self._bind_hyper(hyper)
        self._bind_sizes(sizes)

    def running_program(self) -> tuple[str, list[str]]:
        """For messages about what it computes: its name."""
        return self.method.name, []

    # ------------------------------------------------------------ numbers

    def _complex(self) -> bool:
        """Whether complex numbers may come up. Of half precision there are none: then all is read in float32."""
        trees: list[object] = [self.method.body, self.method.minimise, self.method.functions]
        trees += [p.init for p in self.method.parameters]
        return any(isinstance(node, t.Call) and node.function in _MAKE_COMPLEX for tree in trees for node in walk(tree))

    def _bind_hyper(self, hyper: Mapping[str, float | int | str]) -> None:
        for h in self.method.hyper:
            if h.name in hyper:
                self.numbers[h.name] = hyper[h.name]
            elif isinstance(h.default, t.Text):
                self.numbers[h.name] = h.default.value
            elif h.default is not None:
                value = Evaluation(self, dict(self.numbers)).term(h.default)
                if isinstance(value, (int, float)):
                    self.numbers[h.name] = value
            else:
                raise refuse("E507", f"the hyperparameter {h.name} has no value", h.span, source=self.method.source,
                             suggestion=f"{h.name} = …")

    def _bind_sizes(self, sizes: Mapping[str, int]) -> None:
        """Dimensions: given, read off the tensors, or settled by relations; all relations are checked."""
        for name, value in sizes.items():
            self.numbers.setdefault(name, value)
        spaces = [*((b.name, b.space) for b in self.method.bound), *((p.name, p.space) for p in self.method.parameters)]
        for name, space in spaces:
            if name in self.tensors and space.index is None:
                self._read_shape(name, space, self.tensors[name])
        for _ in self.method.relations:
            for test in self.method.relations:
                self._settle(test)
        for test in self.method.relations:
            if self.known(test.left) and (test.right is None or self.known(test.right)) and not self.holds(test):
                left = self.number(test.left)
                right = "" if test.right is None else f" {test.op} {self.number(test.right)}"
                raise refuse("E501", f"the relation `{self.method.source.slice(test.span)}` does not hold: "
                                     f"{left}{right or ' is not ' + test.op}", test.span, source=self.method.source)

    def _read_shape(self, name: str, space: t.SpaceTerm, tensor: Tensor) -> None:
        axes = shape_terms(space)
        if len(axes) != tensor.dim():
            raise refuse("E301", f"`{name}` has {len(axes)} axes, the tensor given has {tensor.dim()}", space.span,
                         source=self.method.source)
        for axis, length in zip(axes, tensor.shape, strict=True):
            if isinstance(axis, t.Var):
                known = self.numbers.setdefault(axis.name, length)
                if known != length:
                    raise refuse("E501", f"`{name}` has {length} where {axis.name} = {known}", space.span,
                                 source=self.method.source)

    def _settle(self, test: t.Test) -> None:
        """``N = e`` or ``n = b·k`` with one unknown."""
        if test.op != "=" or test.right is None:
            return
        for side, other in ((test.left, test.right), (test.right, test.left)):
            if not self.known(other):
                continue
            factors = list(_factors(side))
            unknown = [f for f in factors if not self.known(f)]
            if len(unknown) == 1 and isinstance(unknown[0], t.Var):
                rest = math.prod(self.number(f) for f in factors if f is not unknown[0])
                total = self.number(other)
                if not rest or total % rest:
                    raise refuse("E501", f"no whole {unknown[0].name} gives `{self.method.source.slice(test.span)}`: "
                                         f"{total} is no multiple of {rest}", test.span, source=self.method.source)
                self.numbers[unknown[0].name] = int(total // rest)

    def known(self, term: t.Term) -> bool:
        """Whether all names of a size are known."""
        return all(not isinstance(x, t.Var) or x.name in self.numbers for x in walk(term))

    def number(self, term: t.Term) -> int | float:
        """A size, or a hyperparameter."""
        value = Evaluation(self, dict(self.numbers)).term(term)
        if not isinstance(value, (int, float)):
            raise refuse("E309", "this is not a number", term.span, source=self.method.source)
        return value

    def holds(self, test: t.Test) -> bool:
        """Whether a relation is kept."""
        return Evaluation(self, dict(self.numbers)).holds(test)

    # ------------------------------------------------------------ tensors

    def shape(self, p: t.Parameter, environment: Environment | None = None) -> tuple[int, ...]:
        """The shape in which a declared tensor is stored."""
        if p.space.index is not None:
            environment = self.before([p.space.index], p.span) if environment is None else environment
            index = environment.get(p.space.index)
            if not isinstance(index, Value) or not index.is_index:
                raise refuse("E301", f"`{p.space.index}` is not an index set", p.space.span, source=self.method.source)
            return (index.tensor.shape[0],)
        lengths = [self.number(term) for term in shape_terms(p.space)]
        for length in lengths:
            if not isinstance(length, int) or length < 0:
                raise refuse("E501", f"`{p.name}` would have an axis of length {length}", p.span,
                             source=self.method.source)
        if p.space.kind == "St" and lengths[-2] > lengths[-1]:
            raise refuse("E501", f"`{p.name}` would have {lengths[-2]} orthonormal rows of {lengths[-1]} numbers",
                         p.span, source=self.method.source)
        return tuple(int(length) for length in lengths)

    def base(self) -> Environment:
        """Numbers, the site's tensors and the declared ones."""
        environment: Environment = dict(self.numbers)
        for bound in self.method.bound:
            if bound.name in self.tensors:
                environment[bound.name] = Value(self.tensors[bound.name], len(shape_item(bound.space)))
            elif bound.name == "bias" or bound.name.startswith("b_"):
                lengths = [int(self.number(term)) for term in shape_terms(bound.space)]
                zeros = torch.zeros(lengths, dtype=self.dtype, device=self.device)
                environment[bound.name] = Value(zeros, len(shape_item(bound.space)))
        for p in self.method.parameters:
            if p.name in self.tensors:
                environment[p.name] = Value(self.mapped(p, self.tensors[p.name]), len(shape_item(p.space)))
        return environment

    @staticmethod
    def mapped(p: t.Parameter, stored: Tensor) -> Tensor:
        """The tensor that a stored one stands for: one in O, SO or St is made orthonormal."""
        return in_space(p.space.kind, stored) if p.space.kind in SPACES else stored

    def before(self, names: Sequence[str], span: Span | None = None) -> Environment:
        """The environment with those statements run that ``names`` depend on, up to ``span``."""
        steps = [s for s in self.method.body if span is None or span.end == 0 or s.span.start < span.start]
        needed = set(names)
        kept: list[t.Step] = []
        for step in reversed(steps):
            if needed & binds(step):
                kept.insert(0, step)
                needed |= self.reads(step)
        evaluation = Evaluation(self, self.base())
        evaluation.steps(kept)
        return evaluation.environment

    def last(self, name: str) -> Span:
        """Where a name is bound last."""
        return next((s.span for s in reversed(self.method.body) if name in binds(s)), self.method.span)

    def reads(self, tree: object) -> set[str]:
        """Names that a term or a step reads, those in functions included."""
        found: set[str] = set()
        for node in walk(tree):
            if isinstance(node, t.Var):
                found.add(node.name)
                found |= {p.space.index for p in self.method.parameters if p.name == node.name and p.space.index}
            elif isinstance(node, t.Write):
                found.add(node.name)
            elif isinstance(node, t.Call) and node.function in self.functions:
                found |= self.reads(self.functions[node.function].body)
        return found

    # ------------------------------------------------------------ what it computes

    def frozen(self) -> dict[str, Tensor]:
        """The values of names that depend neither on x nor on what is learned."""
        moving = {"x", "h", *(p.name for p in self.method.parameters if p.role == "learned")}
        moving |= {h.name for h in self.method.hyper if h.knob}
        evaluation = Evaluation(self, self.base())
        still: set[str] = set()
        for step in self.method.body:
            if moving & self.reads(step):
                moving |= binds(step)
                still -= binds(step)
            else:
                evaluation.steps([step])
                moving -= binds(step)
                still |= binds(step)
        found: dict[str, Tensor] = {}
        for name in still:
            value = evaluation.look_up(name, Span(0, 0)) if name in evaluation.environment else None
            if isinstance(value, Value) and value.rest is None:
                found[name] = value.tensor
        return found

    def forward(self, x: Tensor) -> Tensor:
        """y of a linear site, or the new h of a hidden one, for x of any leading shape."""
        if self.method.site == "attention":
            raise refuse("E511", "the reference of an attention is `attention(x)`")
        source = "h" if self.method.site == "hidden" else "x"
        mentions_bias = "bias" in set().union(*(self.reads(step) for step in self.method.body), set())

        def one(vector: Tensor) -> Tensor:
            environment = self.base()
            environment[source] = Value(vector, 1)
            evaluation = Evaluation(self, environment)
            evaluation.steps(self.method.body)
            y = evaluation.look_up(self.method.output, self.method.span)
            if not isinstance(y, Value) or y.rank != 1 or y.family:
                raise refuse("E301", f"`{self.method.output}` is {y}, not a vector", self.last(self.method.output),
                             source=self.method.source)
            if y.tensor.is_complex():
                raise refuse("E306", f"`{self.method.output}` is complex", self.last(self.method.output),
                             source=self.method.source, suggestion="Re(…)")
            bias = self.tensors.get("bias")
            return y.tensor if mentions_bias or bias is None or source == "h" else y.tensor + bias

        flat = x.to(self.dtype).reshape(-1, x.shape[-1])
        if not len(flat):
            return flat.new_empty((*x.shape[:-1], len(one(flat.new_zeros(x.shape[-1])))))
        return torch.vmap(one, randomness="same")(flat).reshape(*x.shape[:-1], -1)

    def merged(self) -> tuple[Tensor, Tensor]:
        """(W', b') of a linear site: what the columns of the identity and zero are mapped to."""
        n = self.tensors["W"].shape[1]
        zero = self.forward(torch.zeros(n, dtype=self.dtype, device=self.device))
        columns = self.forward(torch.eye(n, dtype=self.dtype, device=self.device))
        return (columns - zero).mT, zero

    def attention(self, x: Tensor, causal: bool = False) -> Tensor:
        """Softmax attention over tokens x (T, d), head by head, with the q, k, v, o that the program names.

        A bias that the program never says is added unchanged.
        """
        said = {node.name for node in walk(self.method.body) if isinstance(node, t.Var)}
        weights = {name: self.tensors[f"W_{name.upper()}"] for name in "qkvo"}
        biases = {name: self.tensors.get(f"b_{name.upper()}") for name in "qkvo"}
        heads, e = weights["q"].shape[0], weights["q"].shape[1]

        def one(vector: Tensor) -> dict[str, Tensor]:
            environment = self.base()
            environment["x"] = Value(vector, 1)
            evaluation = Evaluation(self, environment)
            evaluation.steps(self.method.body)
            parts = evaluation.look_up(self.method.output, self.method.span)
            if not isinstance(parts, Parts):
                raise refuse("E210", "at an attention, y is a call of attn", self.last(self.method.output),
                             source=self.method.source)
            return {name: value.tensor for name, value in parts.tensors.items()}

        x = x.to(self.dtype)
        named = torch.vmap(one, randomness="same")(x)
        o = named["o"][0] if "o" in named else weights["o"]
        out = x.new_zeros(len(x), o.shape[-2])
        streams: dict[str, Tensor] = {}
        for name in "qkv":
            if name in named:
                stream = named[name].transpose(0, 1)
            else:
                stream = torch.einsum("hed,td->hte", weights[name], x)
            bias = biases[name]
            if bias is not None and (name not in named or f"b_{name.upper()}" not in said):  # left alone
                stream = stream + bias.repeat_interleave(stream.shape[0] // bias.shape[0], 0)[:, None, :]
            streams[name] = stream.repeat_interleave(heads // stream.shape[0], 0)
        for h in range(heads):
            scores = streams["q"][h] @ streams["k"][h].mT / math.sqrt(e)
            if causal:
                later = torch.ones_like(scores, dtype=torch.bool).triu(1)
                scores = scores.masked_fill(later, float("-inf"))
            out = out + torch.softmax(scores, -1) @ streams["v"][h] @ o[h].mT
        return out if biases["o"] is None else out + biases["o"]

    def minimise(self) -> Tensor:
        """The sum of the ``minimise`` terms, 0 when there are none."""
        total = torch.zeros((), dtype=self.dtype, device=self.device)
        for term in self.method.minimise:
            evaluation = Evaluation(self, self.before(sorted(self.reads(term))))
            value = evaluation.term(term)
            if isinstance(value, Value) and (value.rank or value.family):
                raise refuse("E301", f"minimise takes a scalar, this is {value}", term.span, source=self.method.source)
            total = total + (value.tensor if isinstance(value, Value) else float(plain_number(value)))
        return total

    # ------------------------------------------------------------ initial values

    def init(self, name: str, generator: torch.Generator) -> Tensor:
        """A fresh value of a declared tensor. Without ``init`` a learned one is 0 and a frozen one kaiming."""
        p = next((p for p in self.method.parameters if p.name == name), None)
        if p is None:
            raise refuse("E201", f"`{name}` is not declared", source=self.method.source)
        environment = self.before(sorted(self.reads(p.init) | ({p.space.index} if p.space.index else set())), p.span)
        shape = self.shape(p, environment)
        if p.init is None:
            if p.space.kind in SPACES:
                return first_rows(shape, self.dtype, self.device) if p.role == "learned" else \
                    K.initialise("orthogonal", (), shape, generator, self.dtype).to(self.device)
            if p.role == "frozen":
                return K.initialise("kaiming", (), shape, generator, self.dtype).to(self.device)
            return torch.zeros(shape, dtype=self.dtype, device=self.device)
        return self._start(p.init, shape, generator, environment).detach().clone()

    def _start(self, init: t.Term, shape: tuple[int, ...], generator: torch.Generator,
               environment: Environment) -> Tensor:
        match init:
            case t.Call(function="pairs", args=(inner,)):
                return K.equal_pairs(self._start(inner, shape, generator, environment))
            case t.Call(function="unit_std", args=(inner,)):
                return K.unit_std(self._start(inner, shape, generator, environment))
            case t.Call(function=kind, args=args) if kind in INITIALISERS:
                numbers = [float(self.number(a)) for a in args]
                return K.initialise(kind, numbers, shape, generator, self.dtype).to(self.device)
            case _:
                pass
        value = Evaluation(self, dict(environment)).term(init)
        if not isinstance(value, Value):
            return torch.full(shape, float(plain_number(value)), dtype=self.dtype, device=self.device)
        if value.rest is not None and shape:
            value = d.cut(value, shape[-1])
        if value.rank == 0 and not value.family:
            return value.tensor.expand(shape)
        if value.tensor.dim() < len(shape) and value.tensor.shape == shape[len(shape) - value.tensor.dim() :]:
            return value.tensor.expand(shape)  # the same start for each member of a family
        if tuple(value.tensor.shape) != shape:
            raise refuse("E301", f"the initial value is {value}, the tensor has shape {'×'.join(map(str, shape))}",
                         init.span, source=self.method.source)
        return value.tensor


def shape_item(space: t.SpaceTerm) -> tuple[t.Term, ...]:
    """The item axes of a declared space."""
    if space.kind in ("O", "SO"):
        return (space.dims[0], space.dims[0])
    return space.dims


def shape_terms(space: t.SpaceTerm) -> tuple[t.Term, ...]:
    """All axes of a declared space, family first."""
    return (*space.family, *shape_item(space))


def binds(step: t.Step) -> set[str]:
    """Names that a step binds or writes."""
    match step:
        case t.Let(names=names):
            return set(names)
        case t.Write(name=name):
            return {name}
        case t.Loop(body=body):
            return set().union(*(binds(inner) for inner in body), set())


def _factors(term: t.Term) -> Iterator[t.Term]:
    match term:
        case t.Arith(op="·" | "*", left=left, right=right):
            yield from _factors(left)
            yield from _factors(right)
        case _:
            yield term
