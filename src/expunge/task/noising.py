"""Noising: how a diffusion task adds noise to inputs, and what is to be predicted of it, as diffusers' schedulers say.

Shapes: B batch, T noise levels.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from expunge.errors import MissingExtra, UnknownName

PREDICTIONS = ("epsilon", "sample", "v_prediction")
STATED = "Give scheduler= a DDPMScheduler or DDIMScheduler with one of them, as the model was trained."
_UNSTATED = (
    "how noise is added step by step (flow matching does not); what is predicted must be "
    f"{', '.join(PREDICTIONS)}. {STATED}"
)


def make_scheduler(given: Any) -> tuple[Any, list[str]]:
    """A `DDPMScheduler` with the settings of any scheduler of diffusers, or with these; by default its own.

    Schedulers for drawing add noise in ways of their own (`EulerDiscreteScheduler` does not scale the image), and are
    made from the settings of the training; so are we. Settings that diffusers wrote down (it adds names that begin with
    an underscore) may hold those of another scheduler alone; in others every name must be one of `DDPMScheduler`.

    Returns the scheduler and what is wrong, a sentence each; in place of a scheduler that cannot be, what was given.

    Raises:
        MissingExtra: diffusers is not installed.
    """
    try:
        from diffusers import DDPMScheduler
    except ImportError:
        raise MissingExtra("diffusers", "diffusion", "A diffusion task") from None
    kind: Any = DDPMScheduler  # diffusers says nothing of its types
    known = set(inspect.signature(kind.__init__).parameters) - {"self"}
    if given is None or isinstance(given, Mapping):
        settings = dict(given or {})
        found = _setting_problems(settings, known)
    else:
        found = scheduler_problems(given)
        if found or type(given) is kind:
            return given, found
        settings = dict(given.config)
    if found:
        return given, found
    try:
        made = kind.from_config(settings)
    except Exception as error:  # whatever diffusers says of a value belongs in our message
        told = {name: value for name, value in settings.items() if name in known}
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        return given, [f"No DDPMScheduler can be made with the settings {told}: {said}"]
    return made, scheduler_problems(made)


def _setting_problems(settings: Mapping[str, Any], known: Collection[str]) -> list[str]:
    if not any(str(name).startswith("_") for name in settings):
        return [str(UnknownName("setting of the scheduler", n, known)) for n in settings if n not in known]
    if "beta_schedule" in settings:
        return []
    return [f"The scheduler's settings do not say {_UNSTATED}"]


def scheduler_problems(scheduler: Any) -> list[str]:
    """Why noise cannot be added as this scheduler says, a sentence each."""
    config, name = getattr(scheduler, "config", None), type(scheduler).__name__
    if config is None or not hasattr(scheduler, "add_noise") or not hasattr(scheduler, "alphas_cumprod"):
        return [f"{name} does not say {_UNSTATED}"]
    beta_T = torch.as_tensor(getattr(scheduler, "betas", 1 - scheduler.alphas_cumprod))
    if not len(beta_T) or not bool(((beta_T >= 0) & (beta_T <= 1)).all()):
        return [f"{name} has {len(beta_T)} noise levels; there must be one at least, and every β from 0 to 1. {STATED}"]
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
