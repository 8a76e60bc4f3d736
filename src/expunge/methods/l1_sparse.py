"""l1-sparse: fine-tuning under a penalty on the weights that fades out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.method import Card
from expunge.methods.gradient import GradientMethod
from expunge.phase import Phase, Schedule, Term


@dataclass(frozen=True, kw_only=True)
class L1Sparse(GradientMethod):
    """Minimise loss(retain) + gamma_t × ‖θ‖₁, with gamma_t falling linearly to 0.

    Args:
        epochs: passes over retain. Default 3; published 10 at a constant rate.
        lr: default 0.05; the published grid is 0.001 to 0.1.
        gamma: the penalty at the start, 0 or more; 0 is fine-tuning. Default 1e-4, the top of the published
            range 1e-6 to 1e-4.
        schedule: default `"one_cycle"`; published: `"constant"`.

    Cost: `epochs` passes over retain.
    Source: Jia et al. 2023, arXiv:2304.04934 (eq. of the l1-sparse method); the penalty falls step by step here, epoch
    by epoch there.
    """

    epochs: int = 3
    lr: float = 0.05
    gamma: float = 1e-4
    schedule: Schedule = "one_cycle"

    name: ClassVar[str] = "l1_sparse"
    card: ClassVar[Card] = Card(
        title="Fine-tune on retain under an l1 penalty that fades out",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain"}),
        cost="epochs × retain",
        paper="Jia et al. 2023, arXiv:2304.04934",
        dial="gamma",
    )

    def field_problems(self) -> list[str]:
        """Gamma is 0 or more."""
        return [] if self.gamma >= 0 else [f"gamma must be 0 or more; got {self.gamma!r}."]

    def terms(self) -> tuple[Term, ...]:
        """Retain, as it is."""
        return (Term("retain"),)

    def phase(self) -> Phase:
        """One phase under the penalty."""
        return Phase.of(self, terms=self.terms(), penalty=self._penalty if self.gamma else None)

    def _penalty(self, model: nn.Module, progress: float) -> Tensor:
        norms = [p.abs().sum() for p in model.parameters() if p.requires_grad]
        return self.gamma * (1 - progress) * torch.stack(norms).sum()
