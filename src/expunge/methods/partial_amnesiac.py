"""Partial amnesiac unlearning: subtract only the largest entries of each layer's recorded updates."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.method import Card
from expunge.methods.amnesiac import Amnesiac


@dataclass(frozen=True, kw_only=True)
class PartialAmnesiac(Amnesiac):
    """Amnesiac unlearning with updates that are pruned, layer by layer and step by step, to their largest entries.

    Args:
        keep: the share of each layer's entries that is taken back, above 0 and up to 1, at most what the ledger
            recorded. Default 0.05: the smallest that forgot on every seed on MNIST and Fashion-MNIST; 1 is amnesiac.

    The other fields are those of `amnesiac`.

    Raises:
        ExpungeError: as amnesiac; a share larger than recorded.

    Cost: as amnesiac.
    Source: Gogineni & Nadimi 2025, arXiv:2403.07611, Algorithm 1.
    """

    keep: float = 0.05

    name: ClassVar[str] = "partial_amnesiac"
    card: ClassVar[Card] = Card(
        title="Subtract the largest entries of each layer's recorded updates, without a repair",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"ledger"}),
        cost="reads the touched records; its control, 3 forward passes over forget and 5,000 retain rows",
        paper="Gogineni & Nadimi 2025, arXiv:2403.07611",
        dial="keep",
    )

    def field_problems(self) -> list[str]:
        """Keep is a share."""
        return [] if 0 < self.keep <= 1 else [f"keep must be above 0 and at most 1; got {self.keep!r}."]

    @property
    def share_kept(self) -> float | None:
        """The share of each layer that is taken back."""
        return self.keep
