"""One training loop for everybody, and what is measured on held-out text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import padp
from padp.demo.encoder import Batch, Side

SCALE = 20.0  # of the cosines, before the softmax
WARM_UP = 4  # steps until the learning rate is whole; from there it falls to zero

Forward = Callable[[nn.Module, Side], Tensor]


@dataclass(frozen=True)
class Trained:
    """Median seconds of a step, and the loss of every step."""

    seconds: float
    losses: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Found:
    """For every held-out sentence, the rank of its own code among the code of all held-out functions; 1 is best."""

    ranks: Tensor
    similar: Tensor

    @property
    def reciprocal(self) -> Tensor:
        return 1.0 / self.ranks

    @property
    def mrr(self) -> float:
        """The mean of 1/rank."""
        return float(self.reciprocal.mean())

    def within(self, k: int) -> float:
        """The share of sentences whose code is among the k nearest."""
        return float((self.ranks <= k).float().mean())

    def gain(self, before: Found) -> tuple[float, float]:
        """What the mean of 1/rank gained over ``before``, and the standard error of that, over the sentences."""
        change = self.reciprocal - before.reciprocal
        return float(change.mean()), float(change.std()) / len(change) ** 0.5


def train(model: nn.Module, forward: Forward, batches: Iterable[Batch], steps: int, rate: float) -> Trained:
    """AdamW on what the attached adapter trains. The loss wants each sentence nearest to its own code and each code
    nearest to its own sentence, among those of the batch."""
    optimiser = torch.optim.AdamW(list(padp.trainable(model)), lr=rate, weight_decay=0.0)
    model.train()
    seconds: list[float] = []
    losses: list[float] = []
    for step, batch in enumerate(batches):
        started = time.perf_counter()
        for group in optimiser.param_groups:
            group["lr"] = rate * min(1.0, (step + 1) / WARM_UP) * (1.0 - step / steps)
        loss = contrastive(forward(model, batch.sentences), forward(model, batch.code))
        (loss + padp.penalty(model)).backward()
        optimiser.step()
        padp.update(model)
        optimiser.zero_grad()
        seconds.append(time.perf_counter() - started)
        losses.append(float(loss.detach()))
    model.eval()
    return Trained(median(seconds), tuple(losses))


def contrastive(sentences: Tensor, code: Tensor) -> Tensor:
    """Cross-entropy of SCALE · S Cᵀ against the diagonal, over rows and over columns."""
    logits = SCALE * sentences @ code.T
    own = torch.arange(len(logits))
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


@torch.no_grad()
def search(model: nn.Module, forward: Forward, batches: Iterable[Batch]) -> Found:
    """Search all held-out code with every held-out sentence."""
    model.eval()
    pairs = [(forward(model, batch.sentences), forward(model, batch.code)) for batch in batches]
    similar = torch.cat([sentences for sentences, _ in pairs]) @ torch.cat([code for _, code in pairs]).T
    ranks = (similar > similar.diag()[:, None]).sum(1) + 1
    if not torch.isfinite(similar).all():
        raise FloatingPointError("the encoder puts out numbers that are not finite: the learning rate is too high")
    return Found(ranks, similar)
