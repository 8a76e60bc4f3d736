"""Which task a model is for, where nobody said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from expunge.data.rows import Rows
from expunge.errors import ExpungeError
from expunge.task.base import Task
from expunge.task.classification import Classification
from expunge.task.diffusion import Diffusion


def is_denoiser(model: nn.Module | None) -> bool:
    """Whether this is diffusers' class-conditional `UNet2DModel`, or derived from it; diffusers is not imported."""
    kinds = type(model).__mro__
    return any(k.__name__ == "UNet2DModel" and k.__module__.startswith("diffusers.") for k in kinds)


def task_of(
    model: nn.Module | None, rows: Rows, without: tuple[int, ...] = (), diffusion: Mapping[str, Any] | None = None
) -> Task:
    """Diffusion for a denoiser of diffusers, classification for everything else.

    Args:
        model: what is to be trained, changed or judged.
        rows: its data, for the number of classes and how inputs are scaled.
        without: classes that may not stand in for another.
        diffusion: fields of `Diffusion`, such as `guidance`.

    Raises:
        ExpungeError: the UNet of a text-to-image pipeline, which does not tell its prompts.
    """
    if is_denoiser(model):
        return Diffusion(**{"classes": rows.num_classes, "without": without, "scale": rows.scale, **(diffusion or {})})
    if type(model).__name__ == "UNet2DConditionModel":
        raise ExpungeError(
            "A UNet2DConditionModel is a part of a pipeline. Say how it gets its conditions: "
            "task=expunge.task.TextToImage.of(pipeline, rows), and pipeline.unet as the model."
        )
    return Classification(classes=rows.num_classes, without=without)
