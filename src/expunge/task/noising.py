"""Noising: how a diffusion task adds noise to inputs, and what is to be predicted of it, as diffusers' schedulers say.

Shapes: B batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from expunge.errors import MissingExtra

PREDICTIONS = ("epsilon", "sample", "v_prediction")
STATED = "Give scheduler= a DDPMScheduler or DDIMScheduler with one of them, as the model was trained."


def make_scheduler(given: Any) -> Any:
    """A scheduler of diffusers: itself, from its settings, or `DDPMScheduler()`.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    if given is not None and not isinstance(given, Mapping):
        return given
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        raise MissingExtra("diffusers", "diffusion", "A diffusion task") from None
    kind: Any = DDPMScheduler  # diffusers says nothing of its types
    return kind.from_config(dict(given or {}))


def scheduler_problems(scheduler: Any) -> list[str]:
    """Why noise cannot be added as this scheduler says, a sentence each."""
    config, name = getattr(scheduler, "config", None), type(scheduler).__name__
    if config is None or not hasattr(scheduler, "add_noise") or not hasattr(scheduler, "alphas_cumprod"):
        return [
            f"{name} does not say how noise is added step by step (flow matching does not); what is predicted must be "
            f"{', '.join(PREDICTIONS)}. {STATED}"
        ]
    kind = config.get("prediction_type", "epsilon")
    if kind not in PREDICTIONS:
        return [f"{name} predicts {kind!r}; what can be trained on is {', '.join(PREDICTIONS)}. {STATED}"]
    if kind == "v_prediction" and not hasattr(scheduler, "get_velocity"):
        return [f"{name} cannot say what v_prediction is to predict. {STATED}"]
    return []


def antithetic(n: int, steps: int, device: torch.device) -> Tensor:
    """Times of a batch, (n,): those of the second half are `steps` - 1 - t of the first; global random state."""
    half = torch.randint(steps, ((n + 1) // 2,), device=device)
    return torch.cat([half, steps - 1 - half])[:n]


def mixed(scheduler: Any, clean_B: Tensor, noise_B: Tensor, t_B: Tensor) -> tuple[Tensor, Tensor]:
    """Inputs with noise at these times, and what is to be predicted of them, both (B, ...)."""
    noised_B = scheduler.add_noise(clean_B, noise_B, t_B)
    kind = scheduler.config.get("prediction_type", "epsilon")
    if kind == "v_prediction":
        return noised_B, scheduler.get_velocity(clean_B, noise_B, t_B)
    return noised_B, (clean_B if kind == "sample" else noise_B).clone()
