"""Search: how strongly another method must act, found by bisection on its dial."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

from torch import nn

from expunge.artifact.ledger import Settings
from expunge.errors import Diverged, ExpungeError, collected, raise_if
from expunge.method import NEEDED, Card, Job, Method
from expunge.methods.dial import Answer, Dial
from expunge.methods.stand_in import Judge, Judged, unseen_problems
from expunge.request import Request
from expunge.task.base import Task
from expunge.watch import Log

Select = Literal["validation", "oracle_gap"]


@dataclass(frozen=True, kw_only=True)
class Search(Method):
    """Apply a method several times, each time to the original, and return the result that the rule likes best.

    The rule `"validation"` knows what a retrained model would do without training one: answer retain and unseen rows as
    the original does, and forgotten rows as it answers unseen ones (a forgotten class: not at all). Where the forgotten
    rows still stand out, the dial is turned up, and otherwise down; once it is known from both sides, by halves. A
    value that the method refuses bounds the dial on that side.

    Args:
        of: the method that is applied; in YAML given like any method, `{name: finetune}`.
        tries: how often at most, 1 or more; values that are refused cost nothing and do not count. Default 6.
        dial: the field that is turned, a number above 0; of a chain, the number of a step from 0, a dot and a field of
            it, `"0.lr"`. Default: the one on the method's card.
        factor: what it is multiplied with until it is known from both sides, above 1. Default 3: a factor of three in
            the rate turned "no effect" into "model damaged" on Fashion-MNIST.
        enough: a result this near, in points, ends the search. Default 0.5, the distance of two retrainings.
        sample: at most so many rows of retain, forget and unseen each are asked about. Default 2000.
        select: `"validation"` (default), or `"oracle_gap"`: the distance to a retrained model, as papers tune; it needs
            a recipe, costs a retraining, and is for reproducing tables.

    Raises:
        ExpungeError: a method without a dial, or a dial that is no number above 0; a request by samples without
            `unseen` rows of classes that stay; unseen rows that the model does not take.

    Cost: `tries` times the method's, and as many forward passes over the samples.
    """

    of: Method | None = None
    tries: int = 6
    dial: str | None = None
    factor: float = 3.0
    enough: float = 0.5
    sample: int = 2000
    select: Select = "validation"

    name: ClassVar[str] = "search"
    card: ClassVar[Card] = Card(
        title="Another method, with its strength found by a validation rule",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier"}),
        needs=frozenset({"retain", "forget"}),
        cost="tries × the method",
        paper="–",
    )

    def __post_init__(self) -> None:
        if self.of is None:
            raise ExpungeError("search needs a method, e.g. of: {name: finetune}.")
        found: list[str] = []
        with collected(found):
            Dial(self.of, self.dial or "")
        if self.tries < 1:
            found.append(f"tries must be 1 or more; got {self.tries!r}.")
        if not 1 < self.factor < math.inf:
            found.append(f"factor must be above 1; got {self.factor!r}.")
        if not self.enough >= 0:
            found.append(f"enough must be 0 or more; got {self.enough!r}.")
        if self.sample < 1:
            found.append(f"sample must be 1 or more; got {self.sample!r}.")
        raise_if([f"search: {problem}" for problem in found])

    @property
    def steps(self) -> tuple[Method, ...]:
        """The method that is applied."""
        return (self._method,)

    def problems(self, model: nn.Module, request: Request, task: Task, given: Mapping[str, Any]) -> list[str]:
        """The method's own, and what the rule lacks."""
        found = super().problems(model, request, task, given) + self._method.problems(model, request, task, given)
        if request.scope == "samples" and "unseen" not in given:
            found.append(f"search among samples {NEEDED['unseen']}")
        if self.select == "oracle_gap" and "recipe" not in given:
            found.append(f"search by oracle_gap {NEEDED['recipe']}")
        if not found and "unseen" in given:
            found += [f"search: {problem}" for problem in unseen_problems(model, request, task, given["unseen"])]
        return found

    def ledger_problems(self, settings: Settings) -> list[str]:
        """The method's own."""
        return self._method.ledger_problems(settings)

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """The best of the results."""
        oracle = None
        if self.select == "oracle_gap" and job.pool is not None:
            oracle = job.pool.train(job.request.keep, job.run).model
        judge = Judge(model, job, self.sample, oracle)
        best: tuple[nn.Module, Judged, float, Job] | None = None
        tried: list[dict[str, Any]] = []
        applied, turning = 0, self._dial.values(self.factor)
        value = next(turning)
        while applied < self.tries:
            answer: Answer = "refused"
            try:
                method = self._at(value, model, job)
            except ExpungeError as error:
                if not tried:
                    raise
                tried.append({"value": value, "failed": f"refused: {error}"})
            else:
                applied += 1
                own = replace(job, log=Log(), made={})  # what other tries found is not true of the best
                try:
                    out = method.apply(copy.deepcopy(model), own)
                    judged = judge(out)
                    tried.append({"value": value, **judged.facts})
                    answer = "weak" if judged.weak else "strong"
                    if best is None or judged.distance < best[1].distance:
                        best = out, judged, value, own
                except Diverged as error:
                    tried.append({"value": value, "failed": f"diverged: {error}"})
                    answer = "strong"
                job.log.count(own.log)
            if best is not None and best[1].distance <= self.enough:
                break
            try:
                value = turning.send(answer)
            except StopIteration:
                break
        if best is None:
            way = "lower" if self._dial.rises else "raise"
            raise Diverged(f"search: {self._method} diverged at every value of {self._dial.name}; {way} it.")
        out, judged, value, own = best
        job.log.add(Log(stopped=own.log.stopped, notes=own.log.notes, facts=own.log.facts))
        job.made.update(own.made)
        self._tell(job, tried, applied, judged, value)
        return out

    # -- inside --------------------------------------------------------------------------------------------------------

    @property
    def _method(self) -> Method:
        if self.of is None:  # cannot be: refused when it was made
            raise ExpungeError("search needs a method.")
        return self.of

    @property
    def _dial(self) -> Dial:
        return Dial(self._method, self.dial or "")

    def _at(self, value: float, model: nn.Module, job: Job) -> Method:
        """The method with its dial at a value.

        Raises:
            ExpungeError: it refuses the value, or this model and request with it.
        """
        method = self._dial.at(value)
        has = {"recipe": job.pool, "ledger": job.ledger, "unseen": job.unseen}
        given = {name: one for name, one in has.items() if one is not None}
        found = method.problems(model, job.request, job.task, given)
        raise_if(found + (method.ledger_problems(job.ledger.settings) if job.ledger is not None else []))
        return method

    def _tell(self, job: Job, tried: list[dict[str, Any]], applied: int, judged: Judged, value: float) -> None:
        oracle = self.select == "oracle_gap"
        rule = "the distance to a retrained model (the oracle)" if oracle else "the validation rule"
        job.log.facts["search"] = {"dial": self._dial.name, "select": self.select, "value": value, "tried": tried}
        job.log.notes.append(
            f"{self._dial.name} of {self._method} is {value:.3g}, the best of {applied} by {rule}: "
            f"{judged.distance:.1f} points away. Seconds and examples count all of them."
        )
        if judged.weak and judged.distance > self.enough:
            job.log.notes.append("It is still too weak: more tries, a larger factor, or another method or dial.")

    def to_config(self) -> dict[str, Any]:
        """The method inside as plain data too."""
        own: Mapping[str, Any] = super().to_config()
        return {**own, "of": self._method.to_config()}

    def __str__(self) -> str:
        return f"{self.of} ({'tuned on retraining' if self.select == 'oracle_gap' else 'searched'})"
