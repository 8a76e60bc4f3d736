"""unlearn: the one call."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from expunge.artifact import Store
from expunge.artifact.ledger import Ledger
from expunge.errors import ExpungeError, raise_if
from expunge.method import Job, Method, Result, check, history, perform
from expunge.pool import Pool
from expunge.recipe import Recipe, as_recipe
from expunge.registry import make, suitable
from expunge.request import Request
from expunge.run import Run
from expunge.task.base import Task
from expunge.task.classification import Classification


def default_task(request: Request) -> Classification:
    """Classification over the data's classes; classes that are gone or must go are no label for anything."""
    left = set(request.rows.y[request.keep].tolist())
    without = tuple(c for c in range(request.rows.num_classes) if c not in left)
    return Classification(classes=request.rows.num_classes, without=without)


def unlearn(
    model: nn.Module,
    request: Request,
    method: str | Method,
    *,
    task: Task | None = None,
    recipe: Any = None,
    ledger: Ledger | str | Path | None = None,
    seed: int | None = None,
    run: Run | None = None,
    **fields: Any,
) -> Result:
    """A changed copy of `model` from which the requested rows have been removed, as well as the method can.

    Args:
        model: any module that returns logits, or an object with `.logits`; it is not touched.
        request: what must go. Rows that this model forgot by earlier requests count as gone.
        method: a method's name, see `expunge methods`, or a method.
        task: what the model computes. Default: classification over the data's classes.
        recipe: how the model was trained, for methods that need it; methods that descend then also augment as it does.
        ledger: the updates of the model's training, or their folder, for methods that take them back. Default: where
            the recipe that trained this model object in this process recorded them, if it did.
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
    if not isinstance(model, nn.Module):
        raise ExpungeError(f"The model must be a torch.nn.Module; got {type(model).__name__}.")
    if not isinstance(request, Request):
        raise ExpungeError(f"The request must be an expunge.Request; got {type(request).__name__}.")
    if isinstance(method, str):
        method = make(method, fields)
    elif fields:
        raise ExpungeError(f"{', '.join(fields)}: set fields on the method itself, {type(method).__name__}(...).")
    request = request.after(history(model, request))
    task = task or default_task(request)
    known = as_recipe(recipe) if recipe is not None else None
    ledger = ledger if ledger is not None else getattr(model, "_expunge_ledger", None)
    opened = Ledger(ledger) if isinstance(ledger, (str, Path)) else ledger
    if opened is not None and opened.about is None:
        raise ExpungeError(f"There is no ledger in {opened.path}; it is made while a model is trained.")
    given = {name for name, one in (("recipe", known), ("ledger", opened)) if one is not None}
    others = ", ".join(suitable(request.scope, task.family, given))
    check(model, request, method, task, given, f"Methods for this request: {others}.")
    raise_if(method.ledger_problems(opened.settings) if opened is not None else [])
    run = run or Run()
    run = replace(run, seed=run.seed if seed is None else seed, device=run.device_of(model))
    if isinstance(known, Recipe):
        run = known.circumstances(run)
    pool = Pool(known, request.rows, Store(), like=model) if known is not None else None
    return perform(model, method, Job(request, task, run, pool, opened))
