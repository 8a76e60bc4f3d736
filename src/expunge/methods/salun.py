"""SalUn: random labelling of which only the most salient weights take part."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from expunge.method import Card
from expunge.methods.random_label import RandomLabel
from expunge.region import Region
from expunge.salient import SHARE, Aggregation, Scope, salient_problems


@dataclass(frozen=True, kw_only=True)
class Salun(RandomLabel):
    """Descend on forget under other labels, and on retain, inside the weights of the largest saliency for forget.

    Args:
        keep: ρ, the share of weights that may move, above 0 and up to 1; the others stay bit-identical. 1 is plain
            random labelling. Default 0.5, as published (grid 0.1 to 0.9).
        epochs: passes over both. Default 3; published 10 at a constant rate.
        lr: default 0.02; published 0.013 for 10 % of CIFAR-10, grid 5e-4 to 0.05.
        aggregation: of the rows' gradients, see `expunge.salient.Salient`. Default `"abs_of_sum"`, as published.
        scope: `"global"` (default, as published) ranks all weights together, `"per_layer"` each tensor's.
        region: which weights the share is of. Default: all.

    Cost: one pass over forget for the saliency, unless it is kept, and `epochs` passes over forget and retain.
    Source: Fan et al. 2024, arXiv:2310.12508. There a label may be the true one by chance: here it never is.
    """

    keep: float = SHARE
    aggregation: Aggregation = "abs_of_sum"
    scope: Scope = "global"

    name: ClassVar[str] = "salun"
    card: ClassVar[Card] = Card(
        title="Teach other labels for the forget rows, beside the retain rows, in the most salient weights only",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"retain", "forget"}),
        cost="forget, then epochs × all rows",
        paper="Fan et al. 2024, arXiv:2310.12508",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """As for random labelling, and the share with its settings."""
        found = super().field_problems() + salient_problems("keep", self.keep, self.aggregation, self.scope)
        if self.region is not None and self.region.saliency is not None:
            found.append("keep, aggregation and scope say which weights are salient; leave saliency out of the region.")
        return found

    def where(self) -> Region:
        """The most salient weights of the region."""
        return Region.salient(self.keep, self.aggregation, self.scope, within=self.region)
