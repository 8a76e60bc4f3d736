"""What weights must be like for a method to move them, and whether it did."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from expunge.errors import ExpungeError

NARROW = (torch.float16, torch.bfloat16)


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model, which shares nothing with it.

    Raises:
        ExpungeError: something that it holds cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the attributes of a user's module raise
        raise ExpungeError(
            f"{type(model).__name__} cannot be copied ({type(error).__name__}: {error}), and what is done is done to a "
            "copy. Take out what cannot (a lock, a generator, an open file, a tensor of a graph), or give its class a "
            "__deepcopy__."
        ) from error


def anchored(
    model: nn.Module, moves: Mapping[str, Tensor | bool] | None
) -> Iterator[tuple[str, nn.Parameter, Tensor | None, Tensor]]:
    """The parameters that may move, wholly or in part: name, parameter, mask (none for all of it), a copy as it is now.

    Args:
        model: the model.
        moves: for each parameter's name whether it moves, or a mask, as `Region.resolve` has it; none: all do.
    """
    for name, parameter in model.named_parameters():
        mask = True if moves is None else moves[name]
        if mask is not False and parameter.requires_grad and parameter.numel():
            inside = mask.to(parameter.device) if isinstance(mask, Tensor) else None
            yield name, parameter, inside, parameter.detach().clone()


def dense_problems(model: nn.Module) -> list[str]:
    """Weights that are stored as sparse tensors, a sentence each."""
    sparse = [(name, p.layout) for name, p in model.named_parameters() if p.layout != torch.strided]
    return [f"{name} is no dense tensor ({kind}); make it dense first." for name, kind in sparse]


def step_problems(model: nn.Module) -> list[str]:
    """Weights on which no optimiser can take small steps, a sentence for each kind."""
    trained = [(name, p) for name, p in model.named_parameters() if p.requires_grad]
    narrow = [name for name, p in trained if p.dtype in NARROW]
    found = scripted_problems(model)
    if narrow:
        found.append(
            f"{len(narrow)} trained weights are of 16 bits, e.g. {narrow[0]}, so that small steps round away. Take the "
            "model in float32, model.float(), and convert what comes out; precision: bf16 makes it as fast."
        )
    return found + sparse_problems(model)


def sparse_problems(model: nn.Module) -> list[str]:
    """Modules whose gradients are sparse, a sentence at most."""
    sparse = [
        name
        for name, module in model.named_modules()
        if getattr(module, "sparse", False) is True and any(p.requires_grad for p in module.parameters(recurse=False))
    ]
    return [f"{', '.join(sparse)} gives sparse gradients, which are not served; set its sparse to False."] * bool(
        sparse
    )


def scripted_problems(model: nn.Module) -> list[str]:
    """Weights whose copies cannot be trained, as PyTorch copies them with their history; a sentence at most."""
    for name, module in model.named_modules():
        if isinstance(module, torch.jit.ScriptModule) and any(p.requires_grad for p in module.parameters()):
            return [
                f"{name or 'The model'} is compiled by torch.jit, and copies of it cannot be trained; give the "
                "module that it was made of, with its weights: module.load_state_dict(compiled.state_dict())."
            ]
    return []


def differ(before: nn.Module, after: nn.Module) -> bool:
    """Whether any parameter or buffer differs; a method that did nothing has removed nothing."""
    old, new = before.state_dict(), after.state_dict()
    if old.keys() != new.keys():
        return True
    return any(v.shape != old[name].shape or not torch.equal(v.cpu(), old[name].cpu()) for name, v in new.items())


def moved_share(before: nn.Module, after: nn.Module) -> float:
    """The share of parameter entries whose values differ, from 0 to 1; 1 for another architecture."""
    old = dict(before.named_parameters())
    changed = total = 0
    for name, p in after.named_parameters():
        total += p.numel()
        if name in old and old[name].shape == p.shape:
            changed += int(torch.count_nonzero(p.detach().cpu() != old[name].detach().cpu()))
        else:
            changed += p.numel()
    return changed / max(total, 1)
