"""Sampling: images that a denoiser makes under conditions.

Shapes: N images, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError, raise_if
from expunge.modes import eval_mode
from expunge.run import Run
from expunge.task.diffusion import Diffusion


class NoImage(ExpungeError):
    """What a denoiser draws is NaN or infinite: its weights are damaged."""


def sample(
    model: nn.Module,
    task: Diffusion,
    conditions: Tensor | Sequence[int],
    shape: Sequence[int],
    *,
    steps: int = 30,
    guidance: float | None = None,
    eta: float = 0.0,
    seed: int = 0,
    batch_size: int = 250,
) -> Tensor:
    """Images under these conditions, (N, C, H, W) on the CPU, scaled as the rows' inputs are.

    The noise that image n begins with depends on seed and n alone, so two models asked the same can be compared image
    by image.

    Args:
        model: the denoiser; left as it was, modes included.
        task: what it computes.
        conditions: (N,), whole numbers; `task.none` for images under no condition.
        shape: of one image, (C, H, W).
        steps: DDIM steps, 1..T. Default 30; the SalUn protocol takes all 1000.
        guidance: w of guided predictions. Default: the task's, 2.
        eta: 0 (default) is deterministic DDIM, 1 draws as much new noise as DDPM (the SalUn protocol).
        seed: of all noise.
        batch_size: images at a time.

    Raises:
        ExpungeError: more steps than the model was trained on, or conditions that it does not have.
        NoImage: weights so damaged that what comes out is no number.

    Cost: `steps` forward passes, two each with guidance.
    Source: Song et al. 2021, arXiv:2010.02502 (DDIM); Ho & Salimans 2022, arXiv:2207.12598 (guidance).
    """
    raise_if(step_problems(task, steps))
    condition_N = _conditions(task, conditions)
    device = Run().device_of(model)
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((len(condition_N), *task.drawn_shape(shape)), generator=generator)
    with eval_mode(model), torch.inference_mode():
        made = [
            _denoised(model, task, c.to(device), x.to(device), steps, guidance, eta, generator)
            for c, x in zip(condition_N.split(batch_size), start.split(batch_size))
        ]
    return torch.cat(made) if made else start


def step_problems(task: Diffusion, steps: int) -> list[str]:
    """Why no image can be drawn in so many steps, a sentence."""
    if isinstance(steps, int) and 1 <= steps <= task.steps:
        return []
    return [f"steps must be from 1 to {task.steps}, the model's noise levels; got {steps!r}."]


def _conditions(task: Diffusion, given: Any) -> Tensor:
    try:
        condition_N = torch.as_tensor(given)
    except (TypeError, ValueError, RuntimeError):
        condition_N = torch.empty(0, 0)
    whole = not condition_N.is_floating_point() and condition_N.dtype != torch.bool
    if condition_N.ndim != 1 or not (whole or not len(condition_N)):
        raise ExpungeError(f"Conditions must be whole numbers, one for each image, such as [3, 3]; got {given!r}.")
    if not set(condition_N.tolist()) <= set(range(task.none + 1)):
        raise ExpungeError(f"Conditions are 0..{task.none}, the last for none; got {condition_N.unique().tolist()}.")
    return condition_N.long()


def _denoised(
    model: nn.Module,
    task: Diffusion,
    condition_N: Tensor,
    x_N: Tensor,
    steps: int,
    guidance: float | None,
    eta: float,
    generator: torch.Generator,
) -> Tensor:
    from diffusers import DDIMScheduler

    # from the last level, where inputs are all noise, down to none; what is clean never leaves [-1, 1]
    settings = {"clip_sample": task.clips, "clip_sample_range": 1.0, "timestep_spacing": "trailing"}
    kind: Any = DDIMScheduler  # diffusers says nothing of its types
    scheduler = kind.from_config({**task.scheduler.config, **settings})
    scheduler.set_timesteps(steps, device=x_N.device)
    for t in scheduler.timesteps:
        t_N = torch.full((len(x_N),), int(t), device=x_N.device)
        predicted_N = task.guided(model, x_N, t_N, condition_N, guidance)
        noise_N = torch.randn(x_N.shape, generator=generator).to(x_N) if eta else None
        # the noise is what the clipped image leaves; otherwise guided images decay, the more the more steps there are
        step = scheduler.step(predicted_N, t, x_N, eta=eta, use_clipped_model_output=task.clips, variance_noise=noise_N)
        x_N = step.prev_sample
    if not torch.isfinite(x_N).all():
        raise NoImage("The images hold NaN or infinity; the model's weights are damaged.")
    return task.inputs(x_N).float().cpu()
