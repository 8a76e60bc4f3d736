"""unlearn: the one call; and saliency, the homework of some methods that can be had by itself."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from expunge.artifact import Store
from expunge.artifact.ledger import Ledger
from expunge.artifact.saliency import BATCH, kept, measure
from expunge.data.adapt import rows_like
from expunge.errors import ExpungeError, raise_if
from expunge.gone import history, record
from expunge.loss import Loss
from expunge.method import Job, Method, Result, check, perform
from expunge.pool import Pool
from expunge.recipe import Recipe, as_recipe
from expunge.registry import make, suitable
from expunge.request import Request
from expunge.run import Run
from expunge.salient import Aggregation
from expunge.task import Classification, Diffusion, Task, task_of


def default_task(request: Request, model: nn.Module | None = None, recipe: Any = None) -> Task:
    """What a model of the data computes; classes that are gone or must go are no label for anything.

    Args:
        request: what must go.
        model: says by its kind what it computes, see `task_of`. Default: a classifier.
        recipe: how it was trained, which for denoisers says how noise is added.
    """
    return task_of(model, request.rows, _left_out(request), recipe.diffusion if isinstance(recipe, Recipe) else None)


def _part_of(model: Any) -> str:
    """Where the module is in a pipeline."""
    return " Give its .unet, with task=expunge.task.TextToImage.of(pipeline, rows)." if hasattr(model, "unet") else ""


def _check_kinds(model: Any, request: Any) -> None:
    if not isinstance(model, nn.Module):
        raise ExpungeError(f"The model must be a torch.nn.Module; got {type(model).__name__}.{_part_of(model)}")
    if not isinstance(request, Request):
        raise ExpungeError(f"The request must be an expunge.Request; got {type(request).__name__}.")


def _left_out(request: Request) -> tuple[int, ...]:
    """The classes of which no row stays."""
    left = set(request.rows.y[request.keep].tolist())
    return tuple(c for c in range(request.rows.num_classes) if c not in left)


def asked_for(task: Task | None, request: Request, model: nn.Module | None, recipe: Any = None) -> Task:
    """The task that is given, or the default one; without the classes that are gone or must go, and with the scale of
    the rows where a diffusion task names none."""
    if task is None:
        return default_task(request, model, recipe)
    if not isinstance(task, (Classification, Diffusion)):
        return task
    task = replace(task, without=tuple(sorted({*task.without, *_left_out(request)})))
    if isinstance(task, Diffusion) and task.scale is None:
        return replace(task, scale=request.rows.scale)
    return task


def unlearn(
    model: nn.Module,
    request: Request,
    method: str | Method,
    *,
    task: Task | None = None,
    recipe: Any = None,
    ledger: Ledger | str | Path | None = None,
    unseen: Any = None,
    seed: int | None = None,
    run: Run | None = None,
    **fields: Any,
) -> Result:
    """A changed copy of `model` from which the requested rows have been removed, as well as the method can.

    Args:
        model: any module that returns logits, or an object with `.logits`, or a class-conditional `UNet2DModel` of
            diffusers; it is not touched.
        request: what must go. Rows that this model forgot by earlier requests count as gone.
        method: a method's name, see `expunge methods`, or a method.
        task: what the model computes; classes that must go are left out of its labels. Default: classification over the
            data's classes; for a `UNet2DModel`, diffusion.
        recipe: how the model was trained, for methods that need it; methods that descend then also augment as it does.
        ledger: the updates of the model's training, or their folder, for methods that take them back. Default: where
            the recipe that trained this model object in this process recorded them, if it did.
        unseen: rows that the model was never trained on, for methods that choose by them; not those that an audit is to
            judge by. `Rows`, a dataset, or a pair (x, y). Default: none.
        seed: of every random draw. Default: the run's, which is 0; on a CPU the same seed gives the same bits.
        run: device, precision, progress, processes. Default: where the model is, one process.
        fields: hyper-parameters of a method given by name.

    Raises:
        ExpungeError: whatever cannot work, all reasons at once, before compute.
        Diverged: a loss that is not finite.

    Cost: the method's, see its card.

    Example:
        >>> result = unlearn(model, request, "finetune", epochs=3)  # doctest: +SKIP
    """
    _check_kinds(model, request)
    run = run or Run()
    run = run if seed is None else replace(run, seed=seed)
    if isinstance(method, str):
        method = make(method, fields)
    elif not isinstance(other := cast(object, method), Method):
        got = f"the class {other.__name__}: make one of it" if isinstance(other, type) else repr(other)
        raise ExpungeError(f"The method is a name, such as 'finetune', or an instance, FineTune(epochs=3); got {got}.")
    elif fields:
        raise ExpungeError(f"{', '.join(fields)}: set fields on the method itself, {type(method).__name__}(...).")
    request = request.after(history(record(model), request))
    known = as_recipe(recipe) if recipe is not None else None
    task = asked_for(task, request, model, known)
    ledger = ledger if ledger is not None else getattr(model, "_expunge_ledger", None)
    opened = ledger if ledger is None or isinstance(ledger, Ledger) else Ledger(ledger)
    if opened is not None and opened.about is None:
        raise ExpungeError(f"There is no ledger in {opened.path}; it is made while a model is trained.")
    held = rows_like(unseen, request.rows) if unseen is not None else None
    has = {"recipe": known, "ledger": opened, "unseen": held}
    given = {name: one for name, one in has.items() if one is not None}
    others = [name for name in suitable(request.scope, task.family, given) if name != method.name]
    hint = f"Methods for this request: {', '.join(others)}." if others else ""
    check(model, request, method, task, given, hint)
    raise_if(method.ledger_problems(opened.settings) if opened is not None else [])
    run = replace(run, device=run.device_of(model))
    if isinstance(known, Recipe):
        run = known.circumstances(run)
    pool = Pool(known, request.rows, Store(), like=model) if known is not None else None
    result = perform(model, method, Job(request, task, run, pool, opened, held))
    result.log.notes.extend(task.notes(request.rows.take(request.keep[:16])))
    return result


def saliency(
    model: nn.Module,
    request: Request,
    task: Task | None = None,
    *,
    aggregation: Aggregation = "abs_of_sum",
    loss: Loss | None = None,
    batch_size: int = BATCH,
    run: Run | None = None,
    cache: bool = True,
) -> dict[str, Tensor]:
    """How much each weight matters to the forget rows: the size of their loss's gradient, by the name of its parameter.

    Give it to `Region.top(scores, share)`. Methods with `region="saliency"`, and `salun`, measure it by themselves.

    Args:
        model: is not changed, nor are its gradients, modes and statistics. What is frozen is not scored.
        request: what must go.
        task: what the model computes. Default: what its kind computes, on the data's classes.
        aggregation: what is made of the rows' gradients g_i: `"abs_of_sum"` (default, as in the SalUn paper's code),
            `"sum_of_abs"` or `"sum_of_squares"`.
        loss: a function (task, model, x, y) to one number for each row, in place of the task's loss under true labels.
        batch_size: rows in a pass; the scores do not depend on it, but for rounding. Default 256.
        run: device and seed. Default: where the model is, and 0.
        cache: keep the scores, under a digest of model, rows and settings, in `$EXPUNGE_CACHE` or the user's cache
            folder, where methods find them too. Those of a loss of your own are never kept. Default yes.

    Raises:
        ExpungeError: a model that does not fit the data, a loss that is not one number for each row, gradients that
            are NaN, infinite or zero everywhere, weights that are all frozen, or stored sparsely.

    Cost: one forward and backward pass over the forget rows, one row at a time but for `"abs_of_sum"`.
    """
    _check_kinds(model, request)
    request = request.after(history(record(model), request))
    task = asked_for(task, request, model)
    raise_if(task.problems(model, request.rows.take(request.keep[:2])))
    run = replace(run or Run(), device=(run or Run()).device_of(model))
    if any(p.device.type != run.device_of(model).type or p.is_inference() for p in model.parameters()):
        with torch.inference_mode(False):  # weights made in that mode have no gradient
            model = copy.deepcopy(model)  # and the caller's stays where it is
    rows, index = request.rows, request.forget
    if loss is not None:
        return measure(model, rows, index, task, run, aggregation, loss, batch_size)
    return kept(model, rows, index, task, run, aggregation, Store() if cache else None, batch_size)[0]
