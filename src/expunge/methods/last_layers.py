"""The last layers only: begun again (EU-k) or tuned on (CF-k)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from expunge.errors import ExpungeError
from expunge.layer_choice import last_layers, shared_with_others
from expunge.method import Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.phase import Schedule, Term
from expunge.region import Region
from expunge.request import Request
from expunge.task.base import Task
from expunge.untrained import resetting


@dataclass(frozen=True, kw_only=True)
class LastLayers(GradientMethod):
    """Train the last k layers on retain; everything before them stays bit-identical.

    Args:
        k: how many layers, 1 or more. Default 1. A layer is a linear, convolutional or embedding module with the
            norms that follow it.
        start: `"fresh"` (default) re-initialises them first (EU-k: exact unlearning of k layers); `"tuned"` goes on
            from their weights (CF-k: catastrophic forgetting in k layers).
        epochs: passes over retain. Default 3.
        lr: default 0.05.
        schedule: default `"one_cycle"`.

    Cost: `epochs` passes over retain; backward through the last k layers only.
    Source: Goel et al. 2022, arXiv:2201.06640.
    """

    epochs: int = 3
    lr: float = 0.05
    k: int = 1
    start: str = "fresh"
    schedule: Schedule = "one_cycle"

    name: ClassVar[str] = "last_layers"
    card: ClassVar[Card] = Card(
        title="Begin the last k layers again (EU-k) or tune them on (CF-k), on retain",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain"}),
        cost="epochs × retain, backward through k layers",
        paper="Goel et al. 2022, arXiv:2201.06640",
        dial="k",
    )

    def field_problems(self) -> list[str]:
        """k, start, and no region of its own."""
        found = []
        if self.k < 1:
            found.append(f"k must be 1 or more; got {self.k!r}.")
        if self.start not in ("fresh", "tuned"):
            found.append(f"start must be fresh (EU-k) or tuned (CF-k); got {self.start!r}.")
        if self.region is not None:
            found.append("the region is the last k layers; use finetune with a region for another one.")
        return found

    def terms(self) -> tuple[Term, ...]:
        """Retain, as it is."""
        return (Term("retain"),)

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and layers that are too few or cannot be begun again."""
        found = super().problems(model, request, task, given)
        try:
            layers = last_layers(model, self.k)
        except ExpungeError as error:
            return [*found, str(error)]
        if self.start == "fresh":
            stuck = [type(m).__name__ for m in layers if resetting(m) is None]
            if stuck:
                found.append(
                    f"{', '.join(stuck)} cannot be re-initialised (no reset_parameters); "
                    "use start='tuned', or another k."
                )
            elif shared_with_others(model, layers):
                found.append(
                    "The last layers share weights with others, which would begin again as well; use start='tuned', "
                    "which leaves the shared ones as they are."
                )
        return found

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Begin the layers again if asked, and descend inside them."""
        if self.start == "fresh":
            with job.run.isolated():
                for module in last_layers(model, self.k):
                    if reset := resetting(module):
                        reset()
        job.descend(model, [self.phase()], Region.last(self.k))
        return model
