"""Classification: one label out of C, for images and for text.

Shapes: B batch, C classes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.logits import logits_of
from expunge.modes import eval_mode
from expunge.run import Run
from expunge.task.base import Task


@dataclass(frozen=True)
class Classification(Task):
    """A model that returns logits (B, C), or an object with `.logits`.

    Args:
        classes: the number of classes, C, at least 2.
        label_smoothing: the share of the target spread evenly over all classes, from 0 (default) to below 1; it
            concerns training only, audits use their own task without it.
        without: labels that may never be given as another label (classes that are gone).
    """

    classes: int
    label_smoothing: float = 0.0
    without: tuple[int, ...] = ()

    family: ClassVar[str] = "classifier"

    def __post_init__(self) -> None:
        if self.classes < 2:
            raise ExpungeError(f"Classification needs at least 2 classes; got {self.classes}.")
        if not 0 <= self.label_smoothing < 1:
            raise ExpungeError(f"label_smoothing must be from 0 to below 1; got {self.label_smoothing}.")

    def logits(self, model: nn.Module, x_B: Tensor) -> Tensor:
        """The model's logits, (B, C), whether it returns a tensor or an object that has them."""
        return logits_of(model(x_B), when="in training mode" if model.training else "")

    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """Cross-entropy of each example, (B,), in nats."""
        return F.cross_entropy(self.logits(model, x_B), y_B, reduction="none", label_smoothing=self.label_smoothing)

    def scores(self, model: nn.Module, x_B: Tensor) -> Tensor:
        """Logits, (B, C)."""
        return self.logits(model, x_B)

    def another_label(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """A label for each example, evenly from all classes but its own and those in `without`."""
        allowed = torch.ones(self.classes, self.classes)
        allowed.fill_diagonal_(0)
        if self.without:
            allowed[:, list(self.without)] = 0
        allowed_BC = allowed[y_B.cpu()]
        if not allowed_BC.any(1).all():
            raise ExpungeError("Some rows have no other admissible label: all other classes are gone.")
        return torch.multinomial(allowed_BC, 1, generator=generator).flatten().to(y_B.device)

    @property
    def guessing(self) -> float:
        """The logarithm of the number of classes, in nats."""
        return math.log(self.classes)

    def noise_like(self, x_B: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise in the space of the scaled inputs."""
        if not x_B.is_floating_point():
            raise ExpungeError("Noise shaped like tokens has no meaning; give noise in the space of embeddings.")
        return torch.randn(x_B.shape, generator=generator).to(x_B)

    def problems(self, model: nn.Module, rows: Rows) -> list[str]:
        """What keeps this model from working on these rows; runs it once, on two rows, in eval mode."""
        device = Run().device_of(model)
        try:
            with eval_mode(model), Run().isolated(), torch.no_grad():
                out = model(rows.x(torch.arange(min(2, len(rows)))).to(device))
        except Exception as error:  # a user's module may raise anything; whatever it says belongs in our message
            shown = f"{rows.shape} ({rows.name})"
            return [f"The model does not accept inputs of shape {shown}: {error}{_other_kind(model)}"]
        try:
            logits = logits_of(out)
        except ExpungeError as error:
            return [str(error)]
        if logits.shape[1] != self.classes:
            return [f"The model has {logits.shape[1]} outputs, but {rows.name} has {self.classes} classes."]
        if not torch.isfinite(logits).all():
            return ["The model returns NaN or infinity on the first rows; its weights are damaged."]
        return []


def _other_kind(model: nn.Module) -> str:
    """What to do where weights are of another kind than inputs, which are float32 or become so in an embedding."""
    kinds = {str(p.dtype).removeprefix("torch.") for p in model.parameters() if p.is_floating_point()} - {"float32"}
    return f". Its weights are {', '.join(sorted(kinds))} and inputs float32: give model.float()." if kinds else ""
