"""The model as it is: the row that every table begins with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import nn

from expunge.method import Card, Job, Method


@dataclass(frozen=True, kw_only=True)
class Original(Method):
    """Do nothing.

    Cost: none.
    """

    name: ClassVar[str] = "original"
    card: ClassVar[Card] = Card(
        title="The model as it is; what doing nothing amounts to",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset(),
        cost="nothing",
        paper="–",
        removes=False,
    )

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """The model, unchanged."""
        return model
