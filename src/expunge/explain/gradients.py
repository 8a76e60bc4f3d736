"""Maps from the gradient with respect to the pixels: saliency and integrated gradients.

Shapes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError
from expunge.explain.look import batches, class_scores, undisturbed


def saliency(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, *, batch_size: int = 128) -> Tensor:
    """Maps (B, H, W), not negative: the size of the score's gradient at each pixel, the largest over channels.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class to explain for each image.
        batch_size: images at a time; default 128.

    Raises:
        ExpungeError: images or classes that do not fit.

    Cost: one forward and one backward pass.

    Source: Simonyan et al., Deep inside convolutional networks, arXiv:1312.6034, section 3.1.
    """
    maps = []
    with undisturbed(model):
        for _, x, classes in batches(model, x_BCHW, classes_B, batch_size):
            maps.append(_gradient(model, x, classes).abs().amax(1).float().to(x_BCHW.device))
    return torch.cat(maps)


def integrated_gradients(
    model: nn.Module,
    x_BCHW: Tensor,
    classes_B: Tensor,
    *,
    baseline: Tensor | None = None,
    steps: int = 32,
    batch_size: int = 128,
) -> Tensor:
    """Maps (B, H, W) of either sign that sum to the score of the image less that of the baseline.

    The gradient is averaged on the way from baseline to image by Gauss-Legendre quadrature: exact for a linear model
    in one step, and far closer than equal steps where the model is smooth; kinks (ReLU) ask for more steps.

    Args:
        model: returns logits; it is not changed.
        x_BCHW: images as the model takes them.
        classes_B: the class to explain for each image.
        baseline: where the way begins, of the shape of the images or of one of them. Default: zeros (the paper's
            black image; with scaled images, zero is the mean of the training data).
        steps: points on the way, at least 1; default 32 (the paper: 20 to 300).
        batch_size: images at a time; default 128.

    Raises:
        ExpungeError: images, classes, baseline or steps that do not fit.

    Cost: `steps` forward and backward passes.

    Source: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017, equations 1 and 3.
    """
    if steps < 1:
        raise ExpungeError(f"integrated_gradients: steps must be at least 1; got {steps}.")
    start_BCHW = starting_point(x_BCHW, baseline)
    points, weights = np.polynomial.legendre.leggauss(steps)
    maps = []
    with undisturbed(model):
        for where, x, classes in batches(model, x_BCHW, classes_B, batch_size):
            start = start_BCHW[where].detach().clone().to(x)
            mean = torch.zeros_like(x)
            for point, weight in zip(points.tolist(), weights.tolist()):
                mean += weight / 2 * _gradient(model, start + (point + 1) / 2 * (x - start), classes)
            maps.append(((x - start) * mean).sum(1).float().to(x_BCHW.device))
    return torch.cat(maps)


def starting_point(x_BCHW: Tensor, baseline: Tensor | None) -> Tensor:
    """The baseline in the shape of the images; zeros for None.

    Raises:
        ExpungeError: another shape, or numbers that are not finite.
    """
    if baseline is None:
        return torch.zeros_like(x_BCHW)
    if baseline.shape not in (x_BCHW.shape, x_BCHW.shape[1:]) or not torch.isfinite(baseline).all():
        raise ExpungeError(
            f"The baseline must hold finite numbers in shape {tuple(x_BCHW.shape)} or {tuple(x_BCHW.shape[1:])}; got "
            f"shape {tuple(baseline.shape)}{'' if torch.isfinite(baseline).all() else ' with NaN or infinity'}."
        )
    return baseline.expand_as(x_BCHW)


def _gradient(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    x_BCHW.requires_grad_()
    scores_B = class_scores(model, x_BCHW, classes_B)
    found = None
    if scores_B.requires_grad:
        (found,) = torch.autograd.grad(scores_B.sum(), x_BCHW, allow_unused=True)
    x_BCHW.requires_grad_(False)
    return torch.zeros_like(x_BCHW) if found is None else found
