"""SalUn-soft: random labelling that draws weights back to where they were, so that training chooses which may move."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from torch import nn

from expunge.method import Card, Job
from expunge.methods.random_label import RandomLabel
from expunge.proximal import Proximal, proximal_problems
from expunge.proximal import Schedule as Shrink
from expunge.region import Region


@dataclass(frozen=True, kw_only=True)
class SalunSoft(RandomLabel):
    """Descend on forget under other labels, and on retain; after each step, a soft threshold on θ - θ_o.

    Args:
        shrink: how the threshold is set, see `expunge.proximal.Proximal`: `"rank"` (default, as in the paper's code) by
            the share of weights that are put back, `"beta"` (as in the paper's text) by a penalty.
        rho: ρ, with `"rank"`: the share of weights that is put back at first, from 0 to 1; it falls to 0. Default 0.5.
        beta: β, with `"beta"`: the penalty on ‖θ - θ_o‖₁ at first, 0 or more; it falls to 0. Default 1e-3, ours.
        epochs: passes over both. Default 3; published 10 at a constant rate.
        lr: default 0.02; published grid 5e-4 to 0.05.

    Cost: `epochs` passes over forget and retain, and a pass over the weights after each step.
    Source: Fan et al. 2024, arXiv:2310.12508.
    """

    shrink: Shrink = "rank"
    rho: float = 0.5
    beta: float = 1e-3

    name: ClassVar[str] = "salun_soft"
    card: ClassVar[Card] = Card(
        title="Teach other labels for the forget rows, beside the retain rows, and draw weights back after each step",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain", "forget"}),
        cost="epochs × all rows",
        paper="Fan et al. 2024, arXiv:2310.12508",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """As for random labelling, and the threshold; one region lets steps through in one way."""
        found = super().field_problems() + proximal_problems(self.shrink, self.rho, self.beta)
        if self.region is not None and self.region.updates is not None:
            found.append("shrink says what is left of a step; leave partial out of the region.")
        return found

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Descend once, under a threshold that is 0 after the last step."""
        phase, parts = self.phase(), {"retain": job.request.keep, "forget": job.request.forget}
        strength = self.rho if self.shrink == "rank" else self.beta
        threshold = Proximal(self.shrink, strength, max(1, phase.steps_per_epoch(parts) * phase.epochs))
        job.descend(model, [phase], replace(self.region or Region.all(), updates=threshold))
        return model
