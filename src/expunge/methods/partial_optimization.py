"""Optimisation-based unlearning in layer-wise partial updates: un-learn the true label, a few entries at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.loss import unlikelihood
from expunge.method import Card
from expunge.methods.partial_update import PartialUpdateMethod
from expunge.phase import Term


@dataclass(frozen=True, kw_only=True)
class PartialOptimization(PartialUpdateMethod):
    """Make the true labels of forget unlikely; each step changes a share of each layer.

    Args:
        keep: the share of each layer's entries that one step may change. Default 0.01, the best on validation rows of
            1 to 0.01 in benchmarks/partial_updates.py; 1 is the dense form.
        loss: `"bounded"` (default) descends on −log(1 − p_y) of forget, which fades as p_y falls; `"ascent"` ascends
            the cross-entropy of forget; `"joint"` descends on that of retain and ascends on `forget_weight` × that of
            forget.
        forget_weight: of forget in `"joint"`, above 0. Default 0.1, as 1 − `alpha` of `neggrad_plus`.
        cap: with `"ascent"` and `"joint"`, a forgotten row is left alone once its loss passes this many times the loss
            of guessing; none is the plain form, which has no bound. Default 1.
        ceiling: with `"ascent"` and `"joint"`, end when a batch's loss to be raised passes this (nats), or none.
            Default 10, as in `gradient_ascent`.
        epochs: passes over forget at most (over retain with `"joint"`). Default 10; the goal mostly comes first.
        lr: default 0.003, with which MNIST's LeNet takes 35 to 85 steps.
        batch_size: default 64.
        momentum: default 0, the paper's plain update as read here.
        weight_decay: default 0, likewise.

    Cost: `epochs` passes over forget at most, and after each step a forward pass over up to 256 rows of it.
    Source: Algorithm 3 of Gogineni & Nadimi 2024, arXiv:2403.07611, as far as its title and abstract tell; its
    objective could not be read.
    """

    keep: float = 0.01
    loss: Literal["bounded", "ascent", "joint"] = "bounded"
    forget_weight: float = 0.1
    cap: float | None = 1.0
    ceiling: float | None = 10.0
    epochs: int = 10
    lr: float = 0.003
    batch_size: int = 64
    momentum: float = 0.0
    weight_decay: float = 0.0

    name: ClassVar[str] = "partial_optimization"
    card: ClassVar[Card] = Card(
        title="Make the labels of the forget rows unlikely, changing a share of each layer in each step",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"forget"}),
        cost="epochs × forget at most, and a look at 256 rows after each step",
        paper="Gogineni & Nadimi 2024, arXiv:2403.07611",
        dial="goal",
        dial_rises=False,
    )

    def field_problems(self) -> list[str]:
        """As above, and the weight."""
        found = super().field_problems()
        if not self.forget_weight > 0:
            found.append(f"forget_weight must be above 0; got {self.forget_weight!r}.")
        return found

    def terms(self) -> tuple[Term, ...]:
        """What each loss descends on."""
        if self.loss == "bounded":
            return (Term("forget", loss=unlikelihood),)
        if self.loss == "ascent":
            return (Term("forget", weight=-1.0, cap=self.cap),)
        return (Term("retain"), Term("forget", weight=-self.forget_weight, cap=self.cap))
