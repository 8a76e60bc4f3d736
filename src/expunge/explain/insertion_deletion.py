"""Insertion and deletion: does the class's probability rise, or fall, with the pixels that a map calls important?

Shapes: B images, C channels, H height, W width, P = H * W pixels, S = steps + 1 points of a curve.
"""

from __future__ import annotations

from math import ceil
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from expunge.errors import ExpungeError, raise_if
from expunge.explain.gradients import starting_point
from expunge.explain.look import batches, check, finite_logits, of_classes, undisturbed
from expunge.run import Run

Baseline = Literal["blur", "mean"] | Tensor


class Curves(NamedTuple):
    """What insertion or deletion measured.

    Args:
        shares: (S,), the share of pixels changed, from 0 to 1.
        curves: (B, S), the probability of the class at each share.
        auc: (B,), the area under each curve, 0 to 1.
    """

    shares: Tensor
    curves: Tensor
    auc: Tensor


def insertion(
    model: nn.Module,
    x_BCHW: Tensor,
    classes_B: Tensor,
    maps_BHW: Tensor,
    *,
    baseline: Baseline = "blur",
    steps: int = 32,
    seed: int = 0,
    batch_size: int = 256,
) -> Curves:
    """The probability of the class while pixels return to a baseline image, the most important ones first.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class whose probability is followed.
        maps_BHW: the importance of each pixel; only its order counts.
        baseline: ``"blur"`` (default; the paper), ``"mean"`` (each channel's mean over the image), or a tensor of the
            shape of the images or of one of them.
        steps: points besides the first, 1 to P; default 32.
        seed: of the order of pixels of equal importance; default 0.
        batch_size: images at a time; default 256.

    Returns:
        On the CPU. Higher area is better.

    Raises:
        Problems: images, classes, maps, baseline or steps that do not fit.

    Cost: `steps` + 1 forward passes.

    Source: Petsiuk et al., RISE, BMVC 2018, section 4.1.
    """
    check(x_BCHW, classes_B, batch_size)
    start = _baseline(x_BCHW, baseline)
    return _curves(model, start, x_BCHW, classes_B, maps_BHW, steps, seed, batch_size)


def deletion(
    model: nn.Module,
    x_BCHW: Tensor,
    classes_B: Tensor,
    maps_BHW: Tensor,
    *,
    baseline: Baseline = "mean",
    steps: int = 32,
    seed: int = 0,
    batch_size: int = 256,
) -> Curves:
    """The probability of the class while pixels are taken away, the most important ones first: lower is better.

    Args:
        model: as for `insertion`; so are the others.
        x_BCHW: see `insertion`.
        classes_B: see `insertion`.
        maps_BHW: see `insertion`.
        baseline: what takes a pixel's place; default ``"mean"`` (the paper: one colour).
        steps: see `insertion`.
        seed: see `insertion`.
        batch_size: see `insertion`.

    Raises:
        Problems: as `insertion`.
    """
    check(x_BCHW, classes_B, batch_size)
    end = _baseline(x_BCHW, baseline)
    return _curves(model, x_BCHW, end, classes_B, maps_BHW, steps, seed, batch_size)


def _curves(
    model: nn.Module,
    start_BCHW: Tensor,
    end_BCHW: Tensor,
    classes_B: Tensor,
    maps_BHW: Tensor,
    steps: int,
    seed: int,
    batch_size: int,
) -> Curves:
    B, _, H, W = start_BCHW.shape
    raise_if(_problems(maps_BHW, (B, H, W), steps))
    counts_S = torch.linspace(0, H * W, steps + 1).round().long()
    ranks_BHW = ranks(maps_BHW, seed).view(B, H, W)
    start, end, wanted = start_BCHW.cpu(), end_BCHW.cpu(), classes_B.cpu()
    with undisturbed(model), torch.no_grad():
        found = torch.empty(B, steps + 1)
        # Images and steps in one row, so that batches are full however few images there are.
        for pairs in torch.arange(B * (steps + 1)).split(batch_size):
            i, s = pairs // (steps + 1), pairs % (steps + 1)
            changed = ranks_BHW[i] < counts_S[s, None, None]
            mixed = torch.where(changed[:, None], end[i], start[i])
            for _, x, classes in batches(model, mixed, wanted[i], len(i)):
                found[i, s] = of_classes(finite_logits(model, x).softmax(1), classes).cpu()
    shares = counts_S / (H * W)
    return Curves(shares, found, torch.trapezoid(found, shares, dim=1))


def _problems(maps_BHW: Tensor, shape: tuple[int, int, int], steps: int) -> list[str]:
    problems = []
    if tuple(maps_BHW.shape) != shape:
        problems.append(f"Maps of shape {shape} are needed, one for each image; got {tuple(maps_BHW.shape)}.")
    elif not torch.isfinite(maps_BHW).all():
        problems.append("The maps hold NaN or infinity, which gives pixels no order.")
    if not 1 <= steps <= shape[1] * shape[2]:
        problems.append(f"steps must be from 1 to the number of pixels, {shape[1] * shape[2]}; got {steps}.")
    return problems


def ranks(maps_BHW: Tensor, seed: int = 0) -> Tensor:
    """The place of each pixel in the order of importance, (B, P), 0 for the most important.

    Equal pixels (Grad-CAM has many zeros) are ordered at random, in all maps alike: the order of reading would favour
    maps that are right at the top left.

    Args:
        maps_BHW: the importance of each pixel.
        seed: of the random order.
    """
    flat = maps_BHW.flatten(1).cpu()
    shuffled = torch.randperm(flat.shape[1], generator=Run(seed=seed).generator("equal pixels"))
    order = shuffled[flat[:, shuffled].argsort(dim=1, descending=True, stable=True)]
    return order.argsort(dim=1)


def _baseline(x_BCHW: Tensor, baseline: Baseline) -> Tensor:
    if isinstance(baseline, Tensor):
        return starting_point(x_BCHW, baseline)
    if baseline == "blur":
        return blur(x_BCHW)
    if baseline == "mean":
        return x_BCHW.mean((2, 3), keepdim=True).expand_as(x_BCHW)
    raise ExpungeError(f"The baseline is 'blur', 'mean' or a tensor; got {baseline!r}.")


def blur(x_BCHW: Tensor, sigma: float | None = None) -> Tensor:
    """Images under a Gaussian filter, the border repeated outwards.

    Args:
        x_BCHW: the images.
        sigma: in pixels, above 0. Default: an eighth of the longer side (ours), at which a digit is a spot.
    """
    B, C, H, W = x_BCHW.shape
    sigma = max(H, W) / 8 if sigma is None else sigma
    reach = ceil(3 * sigma)
    places = torch.arange(-reach, reach + 1, dtype=x_BCHW.dtype, device=x_BCHW.device)
    kernel = torch.exp(-(places**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    padded = F.pad(x_BCHW, (reach, reach, reach, reach), mode="replicate").reshape(B * C, 1, H + 2 * reach, -1)
    return F.conv2d(F.conv2d(padded, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1)).reshape(B, C, H, W)
