"""Fine-tuning: train on, without the forgotten rows, and hope that they fade."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.method import Card
from expunge.methods.gradient import GradientMethod
from expunge.phase import Schedule, Term


@dataclass(frozen=True, kw_only=True)
class FineTune(GradientMethod):
    """Descend on the retain rows.

    Args:
        epochs: passes over retain. Default 3; the published protocol takes 10 at a constant rate, which costs half a
            retraining of 20 epochs.
        lr: default 0.05; the published grid is 0.001 to 0.1.
        schedule: default `"one_cycle"`: the rate must rise for anything to fade; published: `"constant"`.

    Cost: `epochs` passes over retain.
    Source: a baseline of Warnecke et al. 2021 and Golatkar et al. 2020.
    """

    epochs: int = 3
    lr: float = 0.05
    schedule: Schedule = "one_cycle"

    name: ClassVar[str] = "finetune"
    card: ClassVar[Card] = Card(
        title="Train on with the retain rows only, and hope that the others fade",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain"}),
        cost="epochs × retain",
        paper="Golatkar et al. 2020, arXiv:1911.04933",
        dial="lr",
    )

    def terms(self) -> tuple[Term, ...]:
        """Retain, as it is."""
        return (Term("retain"),)
