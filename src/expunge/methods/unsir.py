"""UNSIR: unlearn classes by noise that is learned under their labels, without a look at their images.

Shapes: N images of noise; `...` is the shape of one input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.descend import descend
from expunge.method import Card, Job
from expunge.methods.gradient import GradientMethod
from expunge.optimizers import Make
from expunge.outputs import outputs
from expunge.phase import Phase, Term, descent_problems
from expunge.request import Request
from expunge.surrogate.noise import Noise, gaussian_like
from expunge.task.base import Task

NOTEBOOK_BATCHES = 20  # how often the public notebook shows the noise of a class
LOOKED_AT = 500  # retain rows on which the place of the forgotten classes is measured
ENOUGH = 0.3  # sum of Adam's rates over all steps, below which the class was mostly left on digits and MNIST
MIDDLE = 0.5  # a class that comes to stand above it is likely to be recognised still


@dataclass(frozen=True, kw_only=True)
class Unsir(GradientMethod):
    """Learn noise that the model is most wrong about under the forgotten labels; train on it (impair), then repair.

    Args:
        epochs: passes of the impair phase over noise and retain sample. Default 1, as published.
        lr: of the impair phase. Default 0.004; published 0.02, which costs points of retained accuracy.
        repair_epochs: passes of the repair phase over the sample. Default 1, as published.
        repair_lr: of the repair phase. Default 0.002; published 0.01.
        retain_per_class: retain rows of each class in the sample, drawn by the seed; none for all. Default 1000, as
            published.
        images: images of noise for each class, 1 or more. Default 64; published 256.
        noise_steps: steps of Adam on the pixels, 0 or more. Default 40, as published.
        noise_lr: of these steps. Default 0.1, as published.
        penalty: λ, what the mean squared norm of the noise counts against its loss, 0 or more. Default 0.1, as
            published.
        share: of the rows of the impair phase that are noise, above 0 and below 1, however many classes go. Default
            0.36, which are the published 20 batches of 256 beside 9,000 retain rows.
        noise: `"learned"` (default), or a control: `"gaussian"` noise of the same labels and norms, or `"none"`.
        batch_size: of both phases. Default 64; published 256, which on small data leaves too few steps.
        optimizer: of both phases, fresh for each. Default `"adam"`, as published.
        weight_decay: default 0, as published.
        compat: `"paper"` (default), or `"notebook"` for what the public notebook does, see the documentation.

    Cost: `noise_steps` passes over the noise, `epochs` over noise and sample, `repair_epochs` over the sample.
    Source: Tarun et al. 2023, arXiv:2111.08947.
    """

    epochs: int = 1
    lr: float = 0.004
    repair_epochs: int = 1
    repair_lr: float = 0.002
    retain_per_class: int | None = 1000
    images: int = 64
    noise_steps: int = 40
    noise_lr: float = 0.1
    penalty: float = 0.1
    share: float = 0.36
    noise: Literal["learned", "gaussian", "none"] = "learned"
    batch_size: int = 64
    optimizer: str | Make = "adam"
    weight_decay: float = 0.0
    compat: Literal["paper", "notebook"] = "paper"

    name: ClassVar[str] = "unsir"
    card: ClassVar[Card] = Card(
        title="Train on learned noise under the forgotten labels, then repair; never reads a forget row",
        scope=frozenset({"class"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain"}),
        cost="2.6 × a retain sample + noise_steps × images",
        paper="Tarun et al. 2023, arXiv:2111.08947",
        dial="lr",
    )

    def field_problems(self) -> list[str]:
        """Counts, rates and shares in their ranges."""
        repair = {"epochs": self.repair_epochs, "lr": self.repair_lr}
        found = [f"repair_{problem}" for problem in descent_problems(repair)]
        learning = {"epochs": self.noise_steps, "lr": self.noise_lr}
        found += [f"noise_{problem}".replace("epochs", "steps") for problem in descent_problems(learning)]
        for name, value in (("images", self.images), ("retain_per_class", self.retain_per_class)):
            if value is not None and value < 1:
                found.append(f"{name} must be 1 or more; got {value!r}.")
        if not self.penalty >= 0:
            found.append(f"penalty must be 0 or more; got {self.penalty!r}.")
        if not 0 < self.share < 1:
            found.append(f"share must be above 0 and below 1; got {self.share!r}. For no noise, set noise to none.")
        if self.region is not None and self.region.saliency is not None:
            found.append("saliency is measured on the forget rows, which this method never reads; take another region.")
        return found

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """As for every method, and inputs that cannot be noise, and retain rows of a class that must go."""
        found = super().problems(model, request, task, given)
        x_1 = request.rows.x(request.keep[:1])
        if not x_1.is_floating_point():
            found.append(
                f"{self.name} learns noise among the inputs, and those of {request.rows.name} are tokens "
                f"({x_1.dtype}), which have no gradient."
            )
        inside = torch.isin(request.rows.y[request.keep], torch.tensor(request.classes, dtype=torch.long))
        if inside.any():
            found.append(
                f"{int(inside.sum()):,} of the {len(inside):,} retain rows are of a class that must go; they would be "
                "trained back in. Name the classes in the request: Request(rows, classes=[...])."
            )
        return found

    def terms(self) -> tuple[Term, ...]:
        """The retain sample; in the impair phase the noise is added."""
        return (Term("retain"),)

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Learn the noise, impair, repair."""
        impair, parts = self.phase(), {"retain": self._sample(job)}
        some = parts["retain"][:: -(-len(parts["retain"]) // LOOKED_AT)]  # of every class
        before = self._place(model, some, job)
        repair = replace(impair, epochs=self.repair_epochs, lr=self.repair_lr)
        if self.noise != "none":
            noise = self._noise(model, job)
            impair = replace(impair, terms=(Term("noise", rows=noise), Term("retain")), mix="shuffled")
            parts["noise"] = self._shown(noise, len(parts["retain"]))
        job.log.facts["unsir"] = {"rows": {name: len(index) for name, index in parts.items()}}
        job.descend(model, [impair, repair], self.region, parts)
        after = self._place(model, some, job)
        job.log.facts["unsir"]["place"] = {"before": before, "after": after}
        job.log.notes += self._doubts(before, after, [impair, repair], parts)
        return model

    def _doubts(
        self, before: dict[str, float], after: dict[str, float], phases: Sequence[Phase], parts: Mapping[str, Tensor]
    ) -> list[str]:
        """What can be said against the result without a look at the rows of the class."""
        found, steps = [], [phase.epochs * phase.steps_per_epoch(parts) for phase in phases]
        reach = sum(phase.lr * n for phase, n in zip(phases, steps))
        if self.optimizer in ("adam", "adamw") and reach < ENOUGH:
            found.append(
                f"So few steps at such rates ({steps[0]:,} at {phases[0].lr:g}, then {steps[1]:,} at {phases[1].lr:g}) "
                f"that Adam moves no weight by more than about {reach:.2g}; where it was below {ENOUGH:g}, much of the "
                "class was often left. Measure it. On small data take more epochs, a smaller batch_size, or a higher "
                "lr and repair_lr."
            )
        rose = [name for name in before if after[name] > max(before[name], MIDDLE)]
        if rose:
            told = ", ".join(f"{name} ({before[name]:.2f}, then {after[name]:.2f})" for name in rose)
            found.append(
                "On retain rows the score of the class that must go has a better place after the repair than before (0 "
                f"last, 1 first): {told}. So the repair did not undo what training on noise under that label did, and "
                "much of the class may still be recognised: measure it. Take more repair_epochs, or higher lr and "
                "repair_lr."
            )
        return found

    def _place(self, model: nn.Module, index: Tensor, job: Job) -> dict[str, float]:
        """For each class that must go, by name, the mean share of the other classes whose score is below its own.

        No row of the class is read. Of a model that never saw it, the class is near the end on rows of others.
        """
        scores_NC = outputs(model, job.task, job.request.rows, index)
        job.log.examples += len(index)
        below = [(scores_NC < scores_NC[:, c : c + 1]).sum() / (scores_NC.shape[1] - 1) for c in job.request.classes]
        names = [job.request.rows.classes[c] for c in job.request.classes]
        return {name: round(float(b) / len(index), 4) for name, b in zip(names, below)}

    # -- the rows --------------------------------------------------------------------------------------------------

    def _sample(self, job: Job) -> Tensor:
        """Positions of the retain rows that are used, class by class."""
        index = job.request.keep
        if self.compat == "paper":  # the notebook takes the first ones
            index = index[torch.randperm(len(index), generator=job.run.generator("sample"))]
        y = job.request.rows.y[index]
        return torch.cat([index[y == c][: self.retain_per_class] for c in y.unique()])

    def _shown(self, noise: Rows, sample: int) -> Tensor:
        """Positions in the noise that one impair epoch shows: every image as often as another."""
        if self.compat == "notebook":
            return torch.arange(len(noise)).repeat(NOTEBOOK_BATCHES)
        return torch.arange(max(1, round(sample * self.share / (1 - self.share)))) % len(noise)

    def _noise(self, model: nn.Module, job: Job) -> Rows:
        """The noise with the labels under which it is shown."""
        classes = job.request.classes
        if self.compat == "notebook":
            noise = self._by_notebook(model, job)
        else:  # at once, as in eval mode no image of noise feels another
            noise = self._learned(model, classes, job).rows(job.request.rows.classes)
        if self.noise == "gaussian":
            return gaussian_like(noise, job.run.generator("gaussian"))
        return noise

    def _by_notebook(self, model: nn.Module, job: Job) -> Rows:
        """By the statistics of each batch, which move the model's own; few images, all under one label."""
        parts = []
        for c in job.request.classes:
            one = self._learned(model, (c,), job)
            if self.region is None or self.region.batchnorm == "update":
                model.load_state_dict(one.frozen.state_dict())  # only statistics differ
            parts.append(one.x.detach().cpu()[: one.x.shape[1]])  # its loop runs over channels, not images
        x_N = torch.cat(parts)
        return Rows(x_N, torch.full((len(x_N),), job.request.classes[0]), classes=job.request.rows.classes)

    def _learned(self, model: nn.Module, classes: tuple[int, ...], job: Job) -> Noise:
        """Noise for these classes that a copy of the model is as wrong about as the penalty lets it be."""
        y_N = torch.tensor(classes).repeat_interleave(self.images)
        x_1 = job.request.rows.x(job.request.keep[:1]).to(job.run.device_of(model))
        x_N = job.task.noise_like(x_1.expand(len(y_N), *x_1.shape[1:]), job.run.generator("noise", classes))
        noise = Noise(model, x_N, y_N, batch_statistics=self.compat == "notebook")
        phase = Phase(
            terms=(Term("noise", weight=-1.0),),
            epochs=self.noise_steps,
            lr=self.noise_lr,
            batch_size=len(y_N),  # the same whole tensor in every step
            optimizer="adam",
            weight_decay=0.0,
            penalty=lambda module, _: self.penalty * noise.energy(),
        )
        places = noise.places()
        run = replace(job.run, augment=None)
        job.log.add(descend(noise, places, {"noise": torch.arange(len(places))}, job.task, [phase], run))
        return noise
