"""SCRUB: be unlike the original on forget, and like it on retain, in turn; with rewinding, SCRUB+R."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from torch import nn

from expunge.loss import Distillation, frozen
from expunge.method import NEEDED, Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.methods.rewind import Rewind, rewind_problems
from expunge.phase import Term
from expunge.request import Request
from expunge.task.base import Task


@dataclass(frozen=True, kw_only=True)
class Scrub(GradientMethod):
    """In each epoch ascend on KL(original ‖ model) over forget, then descend on it and the labels over retain.

    Args:
        epochs: passes over retain. Default 3, as published for large networks; for small ones 5 to 10.
        max_epochs: in so many of them at most, the first ones, forget is passed before retain; so the last pass is
            always over retain. Default 2, as published for large networks; for small ones 3.
        lr: default 0.02; published 5e-4.
        labels: γ, what the cross-entropy on retain counts, 0 or more. Default 1; published 0.99 or 1.
        likeness: α, what the divergence on retain counts, 0 or more. Default 0.5; published 0.5 or 0.001.
        forget_weight: what the divergence on forget counts, 0 or more. Default 1, as published.
        cap: a forget row is left alone once its divergence, with the T², passes this many times the loss of guessing;
            none is the published form, which has no bound. Default 4: without a bound a class of Fashion-MNIST ended in
            NaN, and at 1 it was forgotten less.
        clip_norm: gradients are scaled down to this norm, or none (published). Default 1.
        temperature: T of all softmaxes, above 0; divergences are multiplied by T². Default 4; published 2 or 4.
        rewind: of the models after each epoch, return the one whose error on forget is nearest to the last one's error
            on `unseen` rows of the same classes (SCRUB+R, for requests by samples). Default no.
        batch_size: of both passes. Default 64; published 128 of retain and 32 of forget.

    Cost: `epochs` passes over retain and `max_epochs` over forget, each with a forward pass of the original; with
    `rewind` a forward pass over forget after each epoch, and as many copies of the weights.
    Source: Kurmanji et al. 2023, arXiv:2302.09880.
    """

    epochs: int = 3
    max_epochs: int = 2
    lr: float = 0.02
    labels: float = 1.0
    likeness: float = 0.5
    forget_weight: float = 1.0
    cap: float | None = 4.0
    clip_norm: float | None = 1.0
    temperature: float = 4.0
    rewind: bool = False
    batch_size: int = 64

    name: ClassVar[str] = "scrub"
    card: ClassVar[Card] = Card(
        title="Be unlike the original on forget and like it on retain, in turn; may rewind",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="epochs × retain + max_epochs × forget, and as many forward passes of the original",
        paper="Kurmanji et al. 2023, arXiv:2302.09880",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """Weights and the number of passes in their ranges."""
        found = []
        if self.max_epochs < 0:
            found.append(f"max_epochs must be a whole number, 0 or more; got {self.max_epochs!r}.")
        for name in ("labels", "likeness", "forget_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                found.append(f"{name} must be 0 or more; got {getattr(self, name)!r}.")
        if not self.labels and not self.likeness:
            found.append("labels and likeness are both 0, so nothing would be learnt on retain; set one above 0.")
        if not 0 < self.temperature < float("inf"):
            found.append(f"temperature must be above 0; got {self.temperature!r}.")
        return found

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and no rows to rewind by, or too few."""
        found = super().problems(model, request, task, given)
        if self.rewind and "unseen" not in given:
            found.append(f"{self.name} with rewind {NEEDED['unseen']}")
        elif self.rewind:
            found += rewind_problems(request, given["unseen"])
        return found

    def terms(self) -> tuple[Term, ...]:
        """Forget, from which the model is to move away, and retain."""
        return (Term("forget", weight=-self.forget_weight, cap=self.cap), Term("retain"))

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Both parts in turn, then retain alone; then rewind, if asked for."""
        teacher = frozen(model, job.run.device_of(model))
        forget, retain = self.terms()
        forget = replace(forget, loss=Distillation(teacher, self.temperature))
        retain = replace(retain, loss=Distillation(teacher, self.temperature, self.likeness, self.labels))
        phase = replace(self.phase(), mix="in_turn")
        together = min(self.max_epochs, self.epochs)
        both = replace(phase, terms=(forget, retain), epochs=together)
        alone = replace(phase, terms=(retain,), epochs=self.epochs - together)
        rewind = Rewind(job) if self.rewind else None
        job.descend(model, [both, alone], self.region, checkpoint=rewind)
        if rewind is not None:
            rewind.choose(model)
        return model
