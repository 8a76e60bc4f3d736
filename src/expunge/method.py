"""Method: a function (model, request) → model, with what it needs written on a card."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from expunge.artifact.ledger import Ledger, Settings
from expunge.artifact.saliency import measured
from expunge.data.rows import Rows
from expunge.descend import Checkpoint, Log, descend
from expunge.errors import Diverged, ExpungeError, raise_if
from expunge.fields import Typed
from expunge.gone import remember
from expunge.outputs import finite_problems
from expunge.phase import Phase
from expunge.pool import Pool
from expunge.region import Region
from expunge.request import Request
from expunge.run import Run
from expunge.source import describe_function
from expunge.task.base import Task
from expunge.weights import copied, dense_problems, differ, moved_share


@dataclass(frozen=True)
class Card:
    """What there is to know about a method before using it.

    Args:
        title: what it does, in one line.
        scope: the requests it can serve: `"class"`, `"samples"`.
        families: the families of model: `"classifier"`, `"diffusion"`.
        needs: what it uses: `"retain"` rows, `"forget"` rows, a `"recipe"`, a `"ledger"`.
        cost: what it costs, in passes over which data.
        paper: where it comes from.
        version: rises when the same settings give other numbers.
        removes: whether rows count as gone afterwards; not when nothing is done.
        dial: the field, a number, that makes forgetting stronger or weaker; none where there is no such field.
        dial_rises: whether a larger value of it forgets more.
    """

    title: str
    scope: frozenset[str]
    families: frozenset[str]
    needs: frozenset[str]
    cost: str
    paper: str
    version: int = 1
    removes: bool = True
    dial: str | None = None
    dial_rises: bool = True


# what must be given beside model and request, and how
NEEDED = {
    "recipe": "needs to know how the model was trained: give recipe=expunge.Recipe(...) (on the command line: expunge "
    "run, with recipe: in its file).",
    "ledger": "needs the updates of the training: give ledger=expunge.Ledger(folder), made while the model was trained "
    "(ledger.watch, or recipe: {ledger: {keep: 0.1}}). expunge run records the originals that it trains; "
    "from weights that exist, expunge unlearn --ledger FOLDER subtracts.",
    "unseen": "needs rows that the model was never trained on: give unseen=rows, and judge by others "
    "(in YAML data: {validation: 0.3}).",
}


@dataclass(frozen=True)
class Job:
    """One request to one method: everything that a method may use.

    Args:
        request: what must go.
        task: what the model computes.
        run: seed, device, precision, progress.
        pool: trains the recipe, where there is one.
        ledger: the updates of the model's training, where they were recorded.
        unseen: rows that the model was never trained on, for methods that choose by them.
        log: what was done so far; descents are added to it.
        scores: the saliency, measured once for a request, on the model as it first was.
        made: what the method made that serves other requests too, by name; it goes into the result.
    """

    request: Request
    task: Task
    run: Run
    pool: Pool | None = None
    ledger: Ledger | None = None
    unseen: Rows | None = None
    log: Log = field(default_factory=Log)
    scores: dict[str, dict[str, Tensor]] = field(default_factory=dict)
    made: dict[str, Any] = field(default_factory=dict)

    def descend(
        self,
        model: nn.Module,
        phases: Sequence[Phase],
        region: Region | None = None,
        parts: Mapping[str, Tensor] | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> None:
        """Run the one loop on the request's parts, `retain` and `forget`, and on parts of the method's own.

        Args:
            model: changed in place.
            phases: one after the other.
            region: which weights may move. Default: all.
            parts: positions by name, beside or in place of the request's: a sample of `retain`, or positions in the
                rows of a term's own.
            checkpoint: is shown the model after every epoch. Default: none.
        """
        region = self.settled(model, region)
        whole = {"retain": self.request.keep, "forget": self.request.forget, **(parts or {})}
        self.log.add(descend(model, self.request.rows, whole, self.task, phases, self.run, region, checkpoint))

    def settled(self, model: nn.Module, region: Region | None) -> Region | None:
        """The region with the share by saliency that it may ask for, measured on the model as it is, as masks."""
        if region is None:
            return None
        return measured(region, model, self.request, self.task, self.run, self.scores, self.log)


@dataclass(frozen=True, kw_only=True)
class Method(Typed):
    """A way to unlearn, as an immutable description; its fields are the hyper-parameters."""

    name: ClassVar[str]
    card: ClassVar[Card]

    @property
    def within(self) -> tuple[Method, ...]:
        """This method, and every one that it applies in its turn."""
        steps: tuple[Method, ...] = getattr(self, "steps", ())
        return (self, *(inner for step in steps for inner in step.within))

    @abstractmethod
    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """The unlearned model. `model` is a private copy, and may be changed and returned."""

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """Why this method cannot serve this request, a sentence each, told before any compute.

        Args:
            model: the original.
            request: what must go.
            task: what the model computes.
            given: what there is of `"recipe"`, `"ledger"` and `"unseen"` rows, by these names; a ledger that is still
                to be made is given by its settings.
        """
        found = []
        if request.scope not in self.card.scope:
            n = len(request.forget)
            what = f"names {n:,} samples" if request.scope == "samples" else "names whole classes"
            found.append(f"{self.name} forgets {' or '.join(sorted(self.card.scope))}; this request {what}.")
        if task.family not in self.card.families:
            found.append(f"{self.name} works on {', '.join(sorted(self.card.families))}; this is a {task.family}.")
        found += [f"{self.name} {what}" for need, what in NEEDED.items() if need in self.card.needs - set(given)]
        return found + dense_problems(model)

    def ledger_problems(self, settings: Settings) -> list[str]:
        """Why a ledger with these settings does not serve this method, a sentence each."""
        return []

    def forgetting(self, made: Mapping[str, Any], request: Request) -> nn.Module:
        """The model after another request, from what was made for the first; see `Result.forgetting`."""
        raise ExpungeError(f"{self.name} answers one request at a time; call expunge.unlearn on the original again.")

    def then(self, *others: Method) -> Method:
        """This method, and others after it on what it returns."""
        from expunge.methods.chain import Chain  # chains are methods themselves

        return Chain(steps=(self, *others))

    def to_config(self) -> dict[str, Any]:
        """The method as plain data: its name and every field."""
        return {"name": self.name, **{f.name: _plain(getattr(self, f.name)) for f in fields(self)}}

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Result:
    """What unlearning returned.

    Args:
        model: the unlearned model, of the same class as the original, in the same mode.
        method: what was applied.
        request: what was asked, with the rows that had gone before.
        seed: of the run.
        log: steps, examples, losses.
        seconds: wall-clock time of the method alone.
        moved: the share of weights whose bits differ from the original's, from 0 to 1.
        made: what the method made that serves other requests too, by name, e.g. `"gates"`.

    What a method measured on its way, such as the control of a ledger's subtraction, is in `log.facts`; what it has to
    say about it, in `log.notes`.
    """

    model: nn.Module = field(repr=False)
    method: Method
    request: Request
    seed: int
    log: Log
    seconds: float
    moved: float
    made: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def forgetting(self, classes: Sequence[int | str]) -> nn.Module:
        """The original without these classes instead, from what the method learned of all classes in one round.

        Args:
            classes: labels or names; rows that had gone before stay gone.

        Raises:
            ExpungeError: the method learned of one request only, or classes that no request could name.
        """
        old = self.request
        request = Request(old.rows, classes=classes, gone=old.rows.ids[old.gone.numpy()])
        out = self.method.forgetting(self.made, request)
        remember(out, out, request)
        return out

    @property
    def summary(self) -> str:
        """What was done, in one line."""
        stopped = f"; stopped early at {self.log.stopped}" if self.log.stopped else ""
        return (
            f"{self.method}: {self.log.steps:,} steps on {self.log.examples:,} examples in {self.seconds:.1f} s, "
            f"{100 * self.moved:.1f} % of the weights moved{stopped}"
        )


def check(
    model: nn.Module, request: Request, method: Method, task: Task, given: Mapping[str, Any], suitable: str = ""
) -> None:
    """Refuse what cannot work, all reasons at once, before compute.

    Raises:
        ExpungeError: the method does not fit the request or the task, or the model does not fit the data.
    """
    problems = method.problems(model, request, task, given)
    if problems and suitable:
        problems.append(suitable)
    glance = request.rows.take(request.keep[:2])  # not at rows that must go: a method may promise never to read them
    raise_if(problems + task.problems(model, glance))


def perform(model: nn.Module, method: Method, job: Job) -> Result:
    """Apply a method to a copy of the model; see `expunge.unlearn` for the checked, public way.

    The input model, the global random state, grad mode and `requires_grad` are as before afterwards.
    """
    with torch.inference_mode(False):  # weights that are copied in that mode could not be trained
        work = copied(model)
    modes = {name: module.training for name, module in work.named_modules()}
    began = time.perf_counter()
    try:
        with torch.inference_mode(False):
            out = method.apply(work, job)
    except Diverged:
        raise_if(_at_fault(model, method, job))
        raise
    seconds = time.perf_counter() - began
    if not isinstance(out, nn.Module):
        raise ExpungeError(f"{method.name}.apply must return a module; it returned {type(out).__name__}.")
    for name, module in out.named_modules():
        module.training = modes.get(name, model.training)
    out.zero_grad(set_to_none=True)
    moved = moved_share(model, out)
    if method.card.removes and (moved or differ(model, out)):
        remember(out, model, job.request)
    return Result(out, method, job.request, job.run.seed, job.log, seconds, moved, job.made)


def _at_fault(model: nn.Module, method: Method, job: Job) -> list[str]:
    """What is wrong with the model as it was on the rows that a method read, where its loss was not finite."""
    parts = {"retain": job.request.keep, "forget": job.request.forget}
    read = [index for part, index in parts.items() if part in method.card.needs]
    if job.task.family != "classifier" or not read:
        return []
    return finite_problems(model, job.task, job.request.rows, torch.cat(read))


def _plain(value: Any) -> Any:
    if isinstance(value, Region):
        return value.to_config()
    if isinstance(value, Method):
        return value.to_config()
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if callable(value):
        return describe_function(value)
    return value
