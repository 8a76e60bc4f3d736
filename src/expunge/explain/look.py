"""Looking into a model without leaving a trace, and the one shape that all explainers share.

Shapes: B batch, C channels, H height, W width, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError, raise_if
from expunge.logits import logits_of
from expunge.modes import eval_mode
from expunge.run import Run

# (model, x_BCHW, classes_B) to maps_BHW on the device of x; larger where the score of the class hangs on the pixel
Explainer = Callable[[nn.Module, Tensor, Tensor], Tensor]


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Inside: eval mode, gradients possible but none for weights. After: modes, flags and random state as before."""
    flags = [(p, p.requires_grad) for p in model.parameters()]
    try:
        with torch.inference_mode(False), Run().isolated(), eval_mode(model):
            for weights, _ in flags:
                weights.requires_grad_(False)
            yield
    finally:
        for weights, flag in flags:
            weights.requires_grad_(flag)


def batches(
    model: nn.Module, x_BCHW: Tensor, classes_B: Tensor, batch_size: int
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Where each batch lies, its images and its classes, on the model's device.

    Raises:
        Problems: inputs that are not finite float images with a class each.
    """
    check(x_BCHW, classes_B, batch_size)
    device = Run().device_of(model)
    for start in range(0, len(x_BCHW), batch_size):
        where = slice(start, start + batch_size)
        # cloned, since what a caller made in inference mode cannot have gradients
        yield where, x_BCHW[where].detach().clone().to(device), classes_B[where].clone().to(device)


def check(x_BCHW: Tensor, classes_B: Tensor, batch_size: int = 1) -> None:
    """Nothing, if these are finite float images with a class each.

    Raises:
        Problems: all that is wrong.
    """
    problems = []
    inputs: dict[str, object] = {"Images (B, C, H, W)": x_BCHW, "Classes (B,)": classes_B}
    for what, given in inputs.items():
        if not isinstance(given, Tensor):
            problems.append(f"{what} must be a tensor; got {type(given).__name__}.")
    raise_if(problems)
    if x_BCHW.ndim != 4 or not x_BCHW.is_floating_point() or not len(x_BCHW):
        got = f"{str(x_BCHW.dtype).removeprefix('torch.')} of shape {tuple(x_BCHW.shape)}"
        problems.append(f"Explanations need float images of shape (B, C, H, W), at least one; got {got}.")
    elif not torch.isfinite(x_BCHW).all():
        bad = (~torch.isfinite(x_BCHW)).flatten(1).any(1).nonzero().flatten().tolist()
        problems.append(f"The images hold NaN or infinity (positions {bad[:5]}); repair or leave out these rows.")
    if classes_B.ndim != 1 or classes_B.is_floating_point() or len(classes_B) != len(x_BCHW):
        got = f"{str(classes_B.dtype).removeprefix('torch.')} of shape {tuple(classes_B.shape)}"
        problems.append(f"Each of the {len(x_BCHW)} images needs one whole number, the class to explain; got {got}.")
    if batch_size < 1:
        problems.append(f"batch_size must be at least 1; got {batch_size}.")
    raise_if(problems)


def finite_logits(model: nn.Module, x_BCHW: Tensor) -> Tensor:
    """The logits (B, K) of images.

    Raises:
        ExpungeError: no logits for each image, or some that are not finite.
    """
    logits = logits_of(model(x_BCHW))
    if len(logits) != len(x_BCHW):
        raise ExpungeError(f"The model must return logits for each of {len(x_BCHW)} images; got {len(logits)} rows.")
    if not torch.isfinite(logits).all():
        raise ExpungeError("The model returns NaN or infinity on these images; its weights are damaged.")
    return logits


def of_classes(values_BK: Tensor, classes_B: Tensor) -> Tensor:
    """The value of each example's class, (B,).

    Raises:
        ExpungeError: a class that the model does not have.
    """
    top = values_BK.shape[1] - 1
    wrong = classes_B[(classes_B < 0) | (classes_B > top)].unique().tolist()
    if wrong:
        raise ExpungeError(f"The model has classes 0 to {top}; asked to explain {', '.join(map(str, wrong))}.")
    return values_BK.gather(1, classes_B.long()[:, None])[:, 0]


def class_scores(model: nn.Module, x_BCHW: Tensor, classes_B: Tensor) -> Tensor:
    """The logit of each image's class, (B,): what the explainers explain, since softmax mixes in other classes."""
    return of_classes(finite_logits(model, x_BCHW), classes_B)
