"""Task: what a family of model computes, so that every method is written once.

Shapes: B batch, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from expunge.data.rows import Rows


class Task(ABC):
    """What a family of model computes: losses, scores, and stand-ins for data that must not be used."""

    family: ClassVar[str]
    saliency_clip: ClassVar[float | None] = None  # the norm that the mean gradient of a batch counts up to in saliency

    @property
    def key(self) -> str | None:
        """What it computes, for artifacts that are kept; none for a task that is not built in: its code may change."""
        told = f"{type(self).__module__}.{self!r}"
        return told if told.startswith("expunge.") and " at 0x" not in told else None

    @abstractmethod
    def loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """The loss of each example, (B,), with gradient."""

    def saliency_loss(self, model: nn.Module, x_B: Tensor, y_B: Tensor) -> Tensor:
        """The loss whose gradient says which weights hold what is learnt of these rows, (B,); default: `loss`."""
        return self.loss(model, x_B, y_B)

    @abstractmethod
    def scores(self, model: nn.Module, x_B: Tensor) -> Tensor:
        """One score for each example and class, (B, C); the largest is the prediction."""

    @abstractmethod
    def another_label(self, y_B: Tensor, generator: torch.Generator) -> Tensor:
        """A label for each example, (B,), drawn evenly from all admissible ones but its own, as `loss` takes it."""

    @abstractmethod
    def noise_like(self, x_B: Tensor, generator: torch.Generator) -> Tensor:
        """Standard normal noise of the shape of the inputs."""

    @property
    @abstractmethod
    def guessing(self) -> float:
        """The mean loss of a model that guesses."""

    @abstractmethod
    def problems(self, model: nn.Module, rows: Rows) -> list[str]:
        """What keeps this model from working on these rows, a sentence each; empty when it works."""

    def notes(self, rows: Rows) -> list[str]:
        """What people should know of these rows that keeps nothing from working, a sentence each; default: nothing."""
        return []

    def cells(self, model: nn.Module) -> dict[str, nn.Module]:
        """The linear and convolutional modules, by name: where methods hook in."""
        kinds = (nn.Linear, nn.modules.conv._ConvNd)
        return {name: module for name, module in model.named_modules() if isinstance(module, kinds)}
