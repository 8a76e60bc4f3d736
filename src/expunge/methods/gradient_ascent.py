"""Gradient ascent on the forgotten rows: cheap, and easily too little or too much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.method import Card
from expunge.methods.gradient import GradientMethod
from expunge.phase import Term


@dataclass(frozen=True, kw_only=True)
class GradientAscent(GradientMethod):
    """Ascend the loss of the forget rows.

    Args:
        epochs: passes over forget. Default 5, as in the SalUn protocol.
        lr: default 1e-3, the top of the published range 1e-5 to 1e-3; below it nothing happens on small networks.
        clip_norm: gradients are scaled down to this norm, or none. Default 1: the loss has no upper bound, and its
            gradient grows with it.
        ceiling: stop when a batch's loss passes this (nats), or none. Default 10: past it a forgotten example
            stands out more than one that was never seen.

    Cost: `epochs` passes over forget; retain is not read.
    Source: Thudi et al. 2022; settings from the SalUn protocol (Fan et al. 2024).
    """

    epochs: int = 5
    lr: float = 1e-3
    clip_norm: float | None = 1.0
    ceiling: float | None = 10.0

    name: ClassVar[str] = "gradient_ascent"
    card: ClassVar[Card] = Card(
        title="Ascend the loss of the forget rows; no retain rows needed",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"forget"}),
        cost="epochs × forget",
        paper="Thudi et al. 2022, arXiv:2109.13398",
        dial="lr",
    )

    def terms(self) -> tuple[Term, ...]:
        """Forget, upwards."""
        return (Term("forget", weight=-1.0),)
