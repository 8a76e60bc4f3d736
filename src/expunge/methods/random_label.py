"""Random labelling: teach another label for every forgotten row."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from expunge.method import Card
from expunge.methods.gradient import GradientMethod
from expunge.phase import Mix, Schedule, Term
from expunge.surrogate.base import Draw
from expunge.surrogate.relabel import Relabel


@dataclass(frozen=True, kw_only=True)
class RandomLabel(GradientMethod):
    """Descend on forget under other labels, and on retain.

    Args:
        epochs: passes over both. Default 3; published 10 at a constant rate.
        lr: default 0.02; the published grid is 0.001 to 0.1.
        draw: labels are drawn anew every `"epoch"` (default, as in the SalUn protocol) or `"once"`.
        mix: `"shuffled"` (default: one pool, CIFAR-100 in the reference code), `"in_turn"` (forget before retain,
            CIFAR-10 there) or `"together"`.
        alpha: what a retain row counts beside a forget row, 0 or more; with `mix="together"`, the mean over retain
            beside the mean over forget. Default 1.
        schedule: default `"one_cycle"`; published: `"constant"`.

    Cost: `epochs` passes over forget and retain.
    Source: Golatkar et al. 2020; protocol of Fan et al. 2024, in which a label may be the true one by chance: here it
    never is.
    """

    epochs: int = 3
    lr: float = 0.02
    draw: Draw = "epoch"
    mix: Mix = "shuffled"
    alpha: float = 1.0
    schedule: Schedule = "one_cycle"

    name: ClassVar[str] = "random_label"
    card: ClassVar[Card] = Card(
        title="Teach other labels for the forget rows, beside the retain rows",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain", "forget"}),
        cost="epochs × all rows",
        paper="Golatkar et al. 2020, arXiv:1911.04933",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """Alpha is 0 or more."""
        return [] if 0 <= self.alpha < math.inf else [f"alpha must be 0 or more; got {self.alpha!r}."]

    def terms(self) -> tuple[Term, ...]:
        """Forget under other labels, then retain; a term of weight 0 is left out."""
        both = (Term("forget", surrogate=Relabel(draw=self.draw)), Term("retain", weight=self.alpha))
        return tuple(term for term in both if term.weight)
