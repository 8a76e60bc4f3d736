"""Label flipping in layer-wise partial updates: teach other labels, a few entries of each layer at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from expunge.method import Card
from expunge.methods.partial_update import PartialUpdateMethod
from expunge.phase import Mix, Term
from expunge.surrogate.relabel import Relabel


@dataclass(frozen=True, kw_only=True)
class PartialLabelFlip(PartialUpdateMethod):
    """Descend on forget under other labels, drawn once; each step changes a share of each layer.

    Args:
        keep: the share of each layer's entries that one step may change. Default 0.01, the best on validation rows of
            1 to 0.01 in benchmarks/partial_updates.py; 1 is plain label flipping.
        epochs: passes over forget at most (over both with `data: both`). Default 10; the goal mostly comes first.
        lr: default 0.01, with which MNIST's LeNet takes 20 to 45 steps.
        batch_size: default 64, as in Graves et al.
        momentum: default 0, the paper's plain update as read here.
        weight_decay: default 0, likewise.
        data: `"forget"` (default) or `"both"`: forget under other labels and retain under its own, as in Graves et al.
        mix: of the two with `data: both`. Default `"shuffled"`, one pool.

    Cost: `epochs` passes over forget at most, and after each step a forward pass over up to 256 rows of it.
    Source: Algorithm 2 of Gogineni & Nadimi 2024, arXiv:2403.07611, as far as its title and abstract tell; label
    flipping after Graves et al. 2021, arXiv:2010.10981.
    """

    keep: float = 0.01
    epochs: int = 10
    lr: float = 0.01
    batch_size: int = 64
    momentum: float = 0.0
    weight_decay: float = 0.0
    data: Literal["forget", "both"] = "forget"
    mix: Mix = "shuffled"

    name: ClassVar[str] = "partial_label_flip"
    card: ClassVar[Card] = Card(
        title="Teach other labels for the forget rows, changing a share of each layer in each step",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"forget"}),
        cost="epochs × forget at most, and a look at 256 rows after each step",
        paper="Gogineni & Nadimi 2024, arXiv:2403.07611",
        dial="goal",
        dial_rises=False,
    )

    def terms(self) -> tuple[Term, ...]:
        """Forget under other labels, and retain if asked for."""
        flipped = Term("forget", surrogate=Relabel(draw="once"))
        return (flipped, Term("retain")) if self.data == "both" else (flipped,)
