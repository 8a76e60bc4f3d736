"""Gradients of single rows, many at once, of a model in the mode of use.

Shapes: B rows, d weights that are trained, all of them in one line.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from expunge.errors import ExpungeError
from expunge.modes import eval_mode
from expunge.run import Run

Objective = Callable[[nn.Module, Tensor, Tensor], Tensor]  # (model, x_B, y_B) to one number for each row, (B,)

ENTRIES = 2**24  # of gradients made at once, 64 MiB of float32
ROWS = 128  # at once, at most


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are not frozen, by name; one that several modules share is there once."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def problems(model: nn.Module) -> list[str]:
    """Why rows of this model have no gradient of their own, a sentence each."""
    found = []
    if not trainable(model):
        found.append("Every weight is frozen (requires_grad is False); call model.requires_grad_(True) first.")
    kinds = nn.modules.batchnorm._BatchNorm
    batch = [name for name, m in model.named_modules() if isinstance(m, kinds) and m.running_mean is None]
    if batch:
        found.append(
            f"{batch[0]} keeps no running statistics, so that a row's gradient depends on the batch it is in; "
            "use track_running_stats=True and train, or another norm."
        )
    return found


@contextmanager
def in_use(model: nn.Module, run: Run) -> Iterator[torch.device]:
    """The model on its device and in eval mode inside the block, with grad mode on and random draws of its own."""
    device = run.device_of(model)
    with eval_mode(model.to(device)), run.isolated():
        yield device


def at_once(d: int) -> int:
    """How many rows' gradients of d weights are made at once."""
    return max(1, min(ROWS, ENTRIES // max(d, 1)))


def per_sample(
    model: nn.Module, objective: Objective, x_B: Tensor, y_B: Tensor, names: Collection[str] | None = None
) -> Tensor:
    """The gradient of each row, (B, d), with respect to the weights that are trained.

    Args:
        model: in eval mode, on the device of the rows; grad mode is on.
        objective: what is differentiated.
        x_B: inputs.
        y_B: labels.
        names: of the parameters that are meant, in any order; the gradient's is that of the model. Default: all.

    Cost: one forward and one backward pass, B × d entries; where a module cannot be batched by `torch.func.vmap`
    (recurrent ones, and those that look at values), as many passes as rows.
    """
    weights = {n: p for n, p in trainable(model).items() if names is None or n in names}
    try:
        return _together(model, objective, weights, x_B, y_B)
    except (RuntimeError, NotImplementedError, ValueError):  # the same numbers, row by row
        ones = torch.ones(1, device=x_B.device)
        rows = [total(model, objective, x_B[i : i + 1], y_B[i : i + 1], ones, weights) for i in range(len(x_B))]
        return torch.stack(rows)


def _together(
    model: nn.Module, objective: Objective, weights: dict[str, nn.Parameter], x_B: Tensor, y_B: Tensor
) -> Tensor:
    def one(chosen: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        with _in_place(model, weights, chosen):
            return objective(model, x[None], y[None]).sum()

    plain = {name: p.detach() for name, p in weights.items()}
    # no second graph, for the weights that are not meant; and the one kind of attention that can be batched
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        found = vmap(grad(one), in_dims=(None, 0, 0))(plain, x_B, y_B)
    return torch.cat([found[name].reshape(len(x_B), -1) for name in plain], 1)  # also of a single number


@contextmanager
def _in_place(model: nn.Module, weights: Mapping[str, nn.Parameter], others: Mapping[str, Tensor]) -> Iterator[None]:
    """Other tensors in place of weights, wherever a module holds them.

    `torch.func.functional_call` leaves its tensors behind in a module that is registered under two names.
    """
    others_of = {id(p): others[name] for name, p in weights.items()}
    places = [(m, attribute, p) for m in model.modules() for attribute, p in m._parameters.items()]
    places = [(m, attribute, p) for m, attribute, p in places if id(p) in others_of]
    try:
        for module, attribute, p in places:
            module._parameters[attribute] = others_of[id(p)]  # type: ignore[assignment]
        yield
    finally:
        for module, attribute, p in places:
            module._parameters[attribute] = p


def total(
    model: nn.Module,
    objective: Objective,
    x_B: Tensor,
    y_B: Tensor,
    weight_B: Tensor,
    weights: dict[str, nn.Parameter] | None = None,
) -> Tensor:
    """The gradient of the weighted sum over rows, (d,), by one ordinary backward pass; see `per_sample`."""
    chosen = list((trainable(model) if weights is None else weights).values())
    value_B = objective(model, x_B, y_B)
    found = torch.autograd.grad((weight_B.to(value_B) * value_B).sum(), chosen, allow_unused=True)
    return torch.cat([_dense(p, g).flatten() for p, g in zip(chosen, found)])


def _dense(p: nn.Parameter, gradient: Tensor | None) -> Tensor:
    if gradient is None:
        return torch.zeros_like(p)
    return gradient.to_dense() if gradient.is_sparse else gradient  # embeddings may have sparse ones


def check_finite(model: nn.Module, value_d: Tensor, what: str) -> None:
    """Raise an `ExpungeError` that names the layers, where a number for each trained weight is NaN or infinite."""
    sizes = [p.numel() for p in trainable(model).values()]
    parts = zip(trainable(model), value_d.split(sizes))
    damaged = [name for name, part in parts if not torch.isfinite(part).all()]
    if damaged:
        raise ExpungeError(
            f"{what} are NaN or infinite in {', '.join(damaged[:5])}, so nothing was changed. Look for rows on which "
            "the model's outputs overflow, and for damaged weights there."
        )


def weights_of(model: nn.Module) -> Tensor:
    """The trained weights, (d,), a copy."""
    return torch.cat([p.detach().flatten() for p in trainable(model).values()])


def put(model: nn.Module, weight_d: Tensor) -> None:
    """Replace the trained weights, in place; frozen ones and buffers stay."""
    with torch.no_grad():
        for p, part in zip(trainable(model).values(), weight_d.split([p.numel() for p in trainable(model).values()])):
            p.copy_(part.view(p.shape))
