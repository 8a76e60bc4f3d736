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
    """A `DDPMScheduler` with the settings of any scheduler of diffusers, or with these; by default its own.

    Schedulers for drawing add noise in ways of their own (`EulerDiscreteScheduler` does not scale the image), and are
    made from the settings of the training; so are we.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        raise MissingExtra("diffusers", "diffusion", "A diffusion task") from None
    kind: Any = DDPMScheduler  # diffusers says nothing of its types
    settings = given if given is None or isinstance(given, Mapping) else given.config
    return given if type(given) is kind else kind.from_config(dict(settings or {}))


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
