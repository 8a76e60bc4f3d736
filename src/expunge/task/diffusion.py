"""Diffusion: a network that predicts noise under one condition out of C, or under none.

What takes the place of a label here is a *condition*. "Another admissible label" for a row of class c is another
condition c' **for c**: the model is taught to predict under c what it predicts itself under c' for the same noised
input. (To show the row under c' would teach c' to draw what must go.) One whole number says both, see `redirected`.

Shapes: B batch, C conditions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import fields as dataclass_fields
from functools import cached_property
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows, Scale
from expunge.errors import ExpungeError, UnknownName, collected, raise_if
from expunge.fields import Typed
from expunge.task import denoiser
from expunge.task.base import Task
from expunge.task.classification import Classification
from expunge.task.noising import antithetic, make_scheduler, mixed

UNTRAINED = ("guidance", "stand_in")  # fields on which no bit of a training depends


@dataclass(frozen=True)
class Diffusion(Typed, Task):
    """A class-conditional denoiser: `model(x_t, t, class_labels=c)`, as diffusers' `UNet2DModel`.

    Its conditions are the classes 0..C-1 and, last, C: none, for classifier-free guidance.

    Args:
        classes: the number of classes, C, at least 2.
        without: classes that may never stand in for another (those that are gone), each from 0 to C - 1.
        scale: how the rows' inputs were scaled; they are brought into [-1, 1], which is what diffusers' models are
            trained on. Default: `unlearn`, `saliency` and `audit` ask the rows; otherwise they are there already.
        condition_dropout: the share of rows shown without their condition while the model is trained, from 0 to below
            1. Default 0.1, as in the SalUn protocol.
        guidance: w of guided predictions, (1 + w) ε(x, c) - w ε(x, none), 0 or more. Default 2, as in the SalUn
            protocol; diffusers' `guidance_scale` is 1 + w.
        stand_in: which condition another one is: `"any"` (default), drawn evenly, or `"next"`, (c + 1) mod C as in the
            reference code.
        scheduler: how noise is added and what is predicted of it: a scheduler of diffusers or its settings, of which a
            `DDPMScheduler` is made. Default: 1000 steps, β from 1e-4 to 0.02, the noise is predicted.

    Raises:
        ExpungeError: fields of another kind or out of range, a scheduler or its settings that cannot be used.

    Losses draw times and noise from torch's global generator, which the loop and the audit seed and put back. Times of
    a batch are antithetic: those of the second half are T - 1 - t of the first.
    """

    classes: int
    without: tuple[int, ...] = ()
    scale: Scale | None = None
    condition_dropout: float = 0.1
    guidance: float = 2.0
    stand_in: Literal["any", "next"] = "any"
    scheduler: Any = None

    name: ClassVar[str] = "diffusion"  # what errors call its fields
    family: ClassVar[str] = "diffusion"
    saliency_clip: ClassVar[float | None] = 1.0  # as in the reference code of SalUn
    clips: ClassVar[bool] = True  # whether what is clean lies in [-1, 1]

    def __post_init__(self) -> None:
        scheduler, found = make_scheduler(self.scheduler)
        object.__setattr__(self, "scheduler", scheduler)
        if self.classes < 2:
            found.append(f"Diffusion needs at least 2 classes; got {self.classes}.")
        elif missing := [c for c in self.without if not 0 <= c < self.classes]:
            there = f"there are {self.classes}, from 0 to {self.classes - 1}"
            found.append(f"diffusion: without names the classes that are gone; {there}, and got {missing}.")
        if not 0 <= self.condition_dropout < 1:
            found.append(f"diffusion: condition_dropout must be from 0 to below 1; got {self.condition_dropout!r}.")
        if not 0 <= self.guidance < float("inf"):
            found.append(f"diffusion: guidance must be 0 or more; got {self.guidance!r}.")
        raise_if(found)

    # -- conditions ----------------------------------------------------------------------------------------------

    @property
    def none(self) -> int:
        """The condition that is none."""
        return self.classes

    def redirected(self, own_B: Tensor, other_B: Tensor) -> Tensor:
        """One number for each row, (B,), that says: predict under `own` what the model predicts under `other`."""
        return own_B + (self.classes + 1) * (1 + other_B)

    def conditions(self, y_B: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's own condition and the one it is redirected to, -1 for the true noise; both (B,)."""
        return y_B % (self.classes + 1), y_B // (self.classes + 1) - 1

    def another_label(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """Each row redirected to a condition that is not its own, nor `without`."""
        if self.stand_in == "next":
            left = [c for c in range(self.classes) if c not in self.without]
            table = [next((k for k in _after(c, self.classes) if k in left), -1) for c in range(self.classes)]
            other_B = torch.tensor(table)[y_B.cpu()]
            if bool((other_B < 0).any()):
                raise ExpungeError("Some rows have no other admissible condition: all other classes are gone.")
        else:
            other_B = Classification(self.classes, without=self.without).another_label(y_B.cpu(), generator)
        return self.redirected(y_B, other_B.to(y_B.device))

    # -- losses --------------------------------------------------------------------------------------------------

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """The mean squared error of each row's prediction, (B,): a mean over elements, not a sum.

        The target is what the scheduler says (the noise), or for a redirected row the model's own prediction under the
        other condition, without gradient. While the model is in training mode, conditions are dropped, independently
        for prediction and target.
        """
        own_B, other_B = self.conditions(y_B)
        noised_B, t_B, target_B = self.noised(model, x_B)
        predicted_B = self.predict(model, noised_B, t_B, self._dropped(own_B, model.training))
        turned = (other_B >= 0).nonzero().flatten()
        if len(turned):
            with torch.no_grad():
                condition = self._dropped(other_B[turned], model.training)
                target_B[turned] = self.predict(model, noised_B[turned], t_B[turned], condition)
        return (predicted_B - target_B).square().flatten(1).mean(1)

    def saliency_loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """The mean squared error of each row's guided prediction, (B,), whose gradient is SalUn's saliency."""
        own_B, _ = self.conditions(y_B)
        noised_B, t_B, target_B = self.noised(model, x_B)
        return (self.guided(model, noised_B, t_B, own_B) - target_B).square().flatten(1).mean(1)

    def scores(self, model: nn.Module, x_B: Tensor, draws: int = 8) -> Tensor:
        """Minus the summed squared error under each condition, (B, C): the model as a classifier of images.

        All rows and conditions share the same few times, spread evenly, and the same noise.

        Cost: `draws` x C forward passes.
        Source: Li et al. 2023, arXiv:2303.16203.
        """
        clean_B = self.clean(model, x_B)
        generator = torch.Generator().manual_seed(0)
        found_BC = torch.zeros(len(x_B), self.classes, device=x_B.device)
        for k in range(draws):
            t_B = torch.full((len(x_B),), int((k + 0.5) * self.steps / draws), device=x_B.device)
            noise_B = torch.randn(clean_B.shape[1:], generator=generator).to(clean_B).expand_as(clean_B)
            noised_B, target_B = mixed(self.scheduler, clean_B, noise_B, t_B)
            for c in range(self.classes):
                error_B = self.predict(model, noised_B, t_B, torch.full_like(t_B, c)) - target_B
                found_BC[:, c] -= error_B.square().flatten(1).sum(1) / draws
        return found_BC

    def predict(self, model: nn.Module, noised_B: Tensor, t_B: Tensor, condition_B: Tensor) -> Tensor:
        """What the model predicts of noised inputs under conditions, in float32."""
        out = model(noised_B, t_B, class_labels=condition_B)
        predicted: Tensor = out if isinstance(out, Tensor) else out.sample
        return predicted.float()

    def guided(
        self, model: nn.Module, noised_B: Tensor, t_B: Tensor, condition_B: Tensor, guidance: float | None = None
    ) -> Tensor:
        """(1 + w) times the prediction under the condition minus w times the one under none."""
        w = self.guidance if guidance is None else guidance
        if w == 0:
            return self.predict(model, noised_B, t_B, condition_B)
        both = torch.cat([condition_B, torch.full_like(condition_B, self.none)])
        with_B, without_B = self.predict(model, noised_B.repeat(2, 1, 1, 1), t_B.repeat(2), both).chunk(2)
        return (1 + w) * with_B - w * without_B

    # -- noise ---------------------------------------------------------------------------------------------------

    @cached_property
    def steps(self) -> int:
        """T, the number of noise levels."""
        return int(self.scheduler.config.num_train_timesteps)

    def clean(self, model: nn.Module, x_B: Tensor) -> Tensor:
        """The rows' inputs as the model is trained on them, in [-1, 1]."""
        return self.unscaled(x_B)

    def unscaled(self, x_B: Tensor) -> Tensor:
        """The rows' inputs brought into [-1, 1]."""
        if self.scale is None:
            return x_B
        mean, std = (torch.tensor(v, device=x_B.device).view(-1, 1, 1) for v in (self.scale.mean, self.scale.std))
        return 2 * (x_B * std + mean) - 1

    def inputs(self, clean_B: Tensor) -> Tensor:
        """Back from [-1, 1] to inputs as the rows have them, rounded to the 256 levels of stored images."""
        if self.scale is None:
            return clean_B
        return self.scale(((clean_B.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8))

    def drawn_shape(self, shape: Sequence[int]) -> tuple[int, ...]:
        """The shape of what is denoised to draw one input of this shape."""
        return tuple(shape)

    def noised(self, model: nn.Module, x_B: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Inputs at random times, (B, ...), the times, (B,), and what is to be predicted, (B, ...)."""
        clean_B = self.clean(model, x_B)
        t_B = antithetic(len(x_B), self.steps, x_B.device)
        noised_B, target_B = mixed(self.scheduler, clean_B, torch.randn_like(clean_B), t_B)
        return noised_B, t_B, target_B

    def _dropped(self, condition_B: Tensor, training: bool) -> Tensor:
        if not (training and self.condition_dropout):
            return condition_B
        gone_B = torch.rand(len(condition_B), device=condition_B.device) < self.condition_dropout
        return torch.where(gone_B, self.none, condition_B)

    def noise_like(self, x_B: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise in the space of the scaled inputs."""
        return torch.randn(x_B.shape, generator=generator).to(x_B)

    @property
    def guessing(self) -> float:
        """1: the mean squared error of a model that always predicts nothing."""
        return 1.0

    # -- what does not fit ---------------------------------------------------------------------------------------

    def problems(self, model: nn.Module, rows: Rows) -> list[str]:
        """What keeps this model from working on these rows; runs it once, on two rows, in eval mode."""
        found = self.model_problems(model)
        if rows.num_classes > self.classes:
            found.append(f"{rows.name} has {rows.num_classes} classes, and the task {self.classes}.")
        if len(rows.shape) != 3:
            found.append(f"A denoiser takes images (channels, height, width); {rows.name} has shape {rows.shape}.")
        return found or denoiser.trial_problems(self, model, rows)

    def notes(self, rows: Rows) -> list[str]:
        """That inputs look as if they were meant to be brought into [-1, 1] and are not."""
        return denoiser.range_notes(self, rows)

    def model_problems(self, model: nn.Module) -> list[str]:
        """What is wrong with the settings of a model of diffusers; nothing is known of others."""
        config = getattr(model, "config", None)
        if config is None or "num_class_embeds" not in config:
            return []
        have, need = config["num_class_embeds"], self.classes + 1
        if have != need:
            what = "no class conditions" if have is None else f"{have} class conditions"
            return [
                f"The denoiser has {what}; {self.classes} classes need {need}, the last for no condition: "
                f"UNet2DModel(num_class_embeds={need})."
            ]
        return []


def diffusion_problems(fields: Any) -> list[str]:
    """What is wrong with fields that somebody gave by name, before there are data; a sentence each."""
    if not isinstance(fields, Mapping | None):
        return [f"diffusion must be settings such as {{guidance: 2.0}}; got {fields!r}."]
    known = [f.name for f in dataclass_fields(Diffusion) if f.name not in ("classes", "without", "scale")]
    found = [str(UnknownName("field of diffusion", name, known)) for name in fields or {} if name not in known]
    if fields and not found:
        with collected(found):
            Diffusion(classes=2, **fields)
    return found


def _after(c: int, classes: int) -> list[int]:
    """The other classes in the order from c + 1 on."""
    return [(c + k) % classes for k in range(1, classes)]
