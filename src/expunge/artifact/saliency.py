"""Saliency: how much each weight matters to the forget rows, by the gradient of their loss under true labels.

Shapes: N rows, B batch.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from expunge.artifact.store import Store
from expunge.data.rows import Rows
from expunge.errors import ExpungeError, UnknownName, raise_if
from expunge.io import index_digest, model_digest
from expunge.loss import Loss, per_row, with_gradient
from expunge.modes import eval_mode
from expunge.region import Region
from expunge.request import Request
from expunge.run import Run
from expunge.salient import AGGREGATIONS, Aggregation, Salient
from expunge.structure import structure_digest
from expunge.task.base import Task
from expunge.watch import Log
from expunge.weights import dense_problems

VERSION = 1  # rises when the same rows give other scores
BATCH = 256


def measure(
    model: nn.Module,
    rows: Rows,
    index: Tensor,
    task: Task,
    run: Run,
    aggregation: Aggregation = "abs_of_sum",
    loss: Loss | None = None,
    batch_size: int = BATCH,
) -> dict[str, Tensor]:
    """A score for each weight, 0 or more, by the name of its parameter, of its shape and on its device.

    The model computes in eval mode, on rows as they are: without augmentation, without autocast. It is afterwards as it
    was, gradients too. Left out are frozen parameters, integer ones, and those on which the loss does not depend; tied
    weights are there once, under the first of their names.

    Args:
        model: in any mode.
        rows: the data.
        index: positions of the rows, one at least.
        task: gives the loss.
        run: device, and the seed of a loss that draws.
        aggregation: see `expunge.salient.Salient`. Each is a mean over rows, and does not depend on the batch size.
        loss: in place of the task's `saliency_loss`, as in `expunge.Term`.
        batch_size: rows in a pass of `"abs_of_sum"`; the others take one row at a time. Default 256.

    Raises:
        ExpungeError: no rows, nothing that is scored, a loss that is not one number for each row, gradients that are
            NaN, infinite or all zero, sparse weights.

    Cost: one forward and backward pass over the rows, and a copy of the weights.
    Source: Fan et al. 2024, arXiv:2310.12508.
    """
    if aggregation not in AGGREGATIONS:
        raise UnknownName("aggregation", aggregation, AGGREGATIONS)
    if loss is not None and not callable(loss):
        raise ExpungeError(f"loss must be a function (task, model, x, y) to one number for each row; got {loss!r}.")
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise ExpungeError(f"batch_size must be a whole number, 1 or more; got {batch_size!r}.")
    if not len(index):
        raise ExpungeError("Saliency needs one forget row at least; the set of rows is empty.")
    raise_if(dense_problems(model))
    named = {name: p for name, p in model.named_parameters() if p.requires_grad}
    if not named:
        raise ExpungeError("Every weight is frozen, so none has a saliency; call model.requires_grad_(True) first.")
    parameters, sums = list(named.values()), dict[str, Tensor]()
    device = run.device_of(model)
    with eval_mode(model.to(device)), run.isolated():
        for part in index.split(batch_size if aggregation == "abs_of_sum" else 1):
            x_B, y_B = rows.x(part).to(device), rows.y[part.to(rows.y.device)].to(device)
            loss_B = task.saliency_loss(model, x_B, y_B) if loss is None else loss(task, model, x_B, y_B)
            total = with_gradient(per_row(loss_B, len(part)).sum())
            found = torch.autograd.grad(total, parameters, allow_unused=True)
            if task.saliency_clip is not None:
                found = _clipped(found, task.saliency_clip * len(part))
            for name, gradient in zip(named, found):
                if gradient is not None:
                    _add(sums, name, gradient, aggregation)
    scores = {name: sums[name].abs() / len(index) for name in named if name in sums}
    _check(scores)
    return scores


def kept(
    model: nn.Module,
    rows: Rows,
    index: Tensor,
    task: Task,
    run: Run,
    aggregation: Aggregation = "abs_of_sum",
    store: Store | None = None,
    batch_size: int = BATCH,
    notes: list[str] | None = None,
) -> tuple[dict[str, Tensor], bool]:
    """As `measure`, with the task's loss; kept in the store, and whether they were there already.

    The key is a digest of the model, the rows, the task and the settings. Scores of a task that is not built in are not
    kept. Where they cannot be, a sentence goes into `notes`, or a warning is given; the scores are there all the same.
    """
    raise_if(dense_problems(model))  # before a digest is made of weights that have none
    told = task.key if store is not None else None
    if store is None or told is None:
        return measure(model, rows, index, task, run, aggregation, batch_size=batch_size), False
    key = {
        "kind": "saliency",
        "version": VERSION,
        "model": model_digest(model),
        "structure": structure_digest(model),
        "trained": [name for name, p in model.named_parameters() if p.requires_grad],
        "rows": rows.hash,
        "part": index_digest(index),
        "task": told,
        "aggregation": aggregation,
        "batch": batch_size,
        "seed": run.seed,
        "device": run.device_of(model).type,
    }
    if (there := store.get(key)) is not None:
        device, found = run.device_of(model), there[0]  # in the order of the model: it decides among equals
        return {name: found[name].to(device) for name, _ in model.named_parameters() if name in found}, True
    began = time.perf_counter()
    scores = measure(model, rows, index, task, run, aggregation, batch_size=batch_size)
    about = {"examples": len(index), "seconds": time.perf_counter() - began}
    for told in store.keep("The saliency is", key, scores, about):
        if notes is None:
            warnings.warn(told, stacklevel=3)
        else:
            notes.append(told)
    return scores, False


def measured(
    region: Region,
    model: nn.Module,
    request: Request,
    task: Task,
    run: Run,
    known: dict[str, dict[str, Tensor]],
    log: Log,
) -> Region:
    """The region; its share by saliency, where it asks for one, as a mask.

    Args:
        region: any.
        model: as it is before it moves.
        request: names the forget rows.
        task: gives their loss.
        run: device and seed.
        known: scores measured before, by what they depend on; new ones are added. So a method that descends more than
            once keeps one region.
        log: the rows shown are added to it.
    """
    if (asked := region.saliency) is None or asked.share == 1:
        return replace(region, saliency=None)
    key = f"{asked.aggregation} of {request.hash}"
    if key not in known:
        forget, how = request.forget, asked.aggregation
        known[key], there = kept(model, request.rows, forget, task, run, how, Store(), notes=log.notes)
        log.examples += 0 if there else len(request.forget)
    return settled(region, asked, model, known[key])


def settled(region: Region, asked: Salient, model: nn.Module, scores: Mapping[str, Tensor]) -> Region:
    """The region with the share of the largest scores that is asked for as a mask; see `Region.salient`.

    Raises:
        ExpungeError: a region in which nothing is scored, or in which all scores are zero.
    """
    moves = region.resolve(model)
    inside = {}
    for name, score in scores.items():
        where = moves.get(name, False)
        if where is not False:
            inside[name] = score if where is True else score[where.to(score.device)]
    if not any(bool(score.any()) for score in inside.values()):
        raise ExpungeError(
            "No weight in this region has a gradient on the forget rows, so none is more salient than another; "
            "take a wider region, or the region without saliency."
        )
    chosen = Region.top(inside, asked.share, scope=asked.scope).masks or {}
    masks = {}
    for name, mask in chosen.items():
        where = moves[name]
        masks[name] = mask if where is True else torch.zeros_like(scores[name], dtype=torch.bool)
        if isinstance(where, Tensor):
            masks[name][where.to(mask.device)] = mask
    return replace(region, saliency=None, patterns=None, last_k=None, masks=masks)


def _add(sums: dict[str, Tensor], name: str, gradient: Tensor, aggregation: Aggregation) -> None:
    g = gradient.to_dense() if _sparse(gradient) else gradient
    g = g.float() if g.dtype in (torch.float16, torch.bfloat16) else g
    if aggregation == "sum_of_abs":
        g = g.abs()
    elif aggregation == "sum_of_squares":
        g = g.abs().square()
    sums[name] = sums[name].add_(g) if name in sums else g.clone()


def _clipped(gradients: Sequence[Any], norm: float) -> tuple[Any, ...]:
    """Gradients scaled down together to this norm, where theirs is larger."""
    total = torch.linalg.vector_norm(torch.stack([g.norm() for g in gradients if g is not None]))
    factor = (norm / total).clamp(max=1) if total > 0 else 1.0
    return tuple(None if g is None else g * factor for g in gradients)


def _sparse(x: Tensor) -> bool:
    return x.layout != torch.strided


def _check(scores: Mapping[str, Any]) -> None:
    broken = [name for name, score in scores.items() if not torch.isfinite(score).all()]
    if broken:
        raise ExpungeError(
            f"The gradient of the forget rows is NaN or infinite in {', '.join(broken[:5])}; look at the weights there."
        )
    if not any(bool(score.any()) for score in scores.values()):
        raise ExpungeError(
            "The gradient of the forget rows is zero in every weight, so none is more salient than another. The model "
            "may be so sure of them that their loss rounds to 0. Leave saliency out: a region of layers, or all."
        )
