"""Amnesiac unlearning: subtract the recorded updates of every step that a forgotten row took part in."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from expunge.artifact.ledger import Ledger, Settings
from expunge.artifact.ledger.deletions import Extent, Lot, Undone, left
from expunge.artifact.ledger.touched import Touched
from expunge.errors import ExpungeError, UnknownName, raise_if
from expunge.method import Card, Job, Method
from expunge.methods.control import Drawn, answers, other_rows, other_steps
from expunge.norms import recalibrate
from expunge.phase import Phase, Term, descent_problems

BATCHNORM = ("recalibrate", "keep", "subtract")


@dataclass(frozen=True, kw_only=True)
class Amnesiac(Method):
    """Take back, at once, what the steps with forgotten rows did to the weights; data is read by the control alone.

    Args:
        scale: what the recorded updates are multiplied with, above 0. Default 1, as published.
        spill: so many steps after each touched one are taken back as well, 0 or more: momentum carries a gradient on.
            Default 0, as published.
        batchnorm: what happens to BatchNorm's running statistics, `"recalibrate"` (on the retain rows), `"keep"` or
            `"subtract"` (when the ledger recorded them). Default: as the ledger says.
        repair_epochs: passes over retain afterwards. Default 0.
        repair_lr: their rate, constant. Default 0.01.
        repair_batch_size: default 128.
        control: also subtract an equal number of other steps from another copy, or the shares of as many other rows
            where rows' own shares are recorded, and say how it fared: an effect that the control has too is damage,
            not forgetting. Default yes; it reads the ledger once more, and is left out, with a note, where rows that
            it asks about cannot be read.
        allow_full: serve a request after which no step is left, together with what spill adds and earlier requests
            took back; that gives the untrained model back. Default no.

    What an earlier request took back in part only, with a smaller share or scale, is taken back up to what this one
    asks; nothing is taken back twice.

    Raises:
        ExpungeError: a ledger that is pruned, damaged, of another model, or in a folder that cannot be written; a
            request after which no step is left; a repair that would train rows of earlier requests back in.

    Cost: each touched record is read once; with BatchNorm one forward pass over retain. The control reads as many
    records again, and asks three models about the forget rows and up to 5,000 retain rows.
    Source: Graves, Nagisetty & Ganesh 2021, arXiv:2010.10981.
    """

    scale: float = 1.0
    spill: int = 0
    batchnorm: str | None = None
    repair_epochs: int = 0
    repair_lr: float = 0.01
    repair_batch_size: int = 128
    control: bool = True
    allow_full: bool = False

    name: ClassVar[str] = "amnesiac"
    card: ClassVar[Card] = Card(
        title="Subtract the recorded updates of every step that a forgotten row took part in",
        scope=frozenset({"class", "samples"}),
        families=frozenset({"classifier", "diffusion"}),
        needs=frozenset({"ledger"}),
        cost="reads the touched records; its control, 3 forward passes over forget and 5,000 retain rows",
        paper="Graves et al. 2021, arXiv:2010.10981",
        dial="scale",
    )

    def __post_init__(self) -> None:
        problems = []
        if not self.scale > 0:
            problems.append(f"scale must be above 0; got {self.scale!r}.")
        if self.batchnorm is not None and self.batchnorm not in BATCHNORM:
            problems.append(str(UnknownName("batchnorm policy", self.batchnorm, BATCHNORM)))
        if self.spill < 0:
            problems.append(f"spill must be 0 or more; got {self.spill!r}.")
        repair = {"epochs": self.repair_epochs, "lr": self.repair_lr, "batch_size": self.repair_batch_size}
        problems += [f"repair_{problem}" for problem in descent_problems(repair)]
        raise_if([f"{self.name}: {p}" for p in problems + self.field_problems()])

    def field_problems(self) -> list[str]:
        """What is wrong with the fields that a variant adds, a sentence each."""
        return []

    @property
    def share_kept(self) -> float | None:
        """The share of each layer that is taken back; none for all that the ledger recorded."""
        return None

    def ledger_problems(self, settings: Settings) -> list[str]:
        """A pruned ledger does not hold what is taken back here; nor may statistics be subtracted that it left out."""
        found = []
        if self.share_kept is None and settings.keep < 1:
            found.append(
                f"amnesiac takes back whole updates, and the ledger holds a share of {settings.keep:g} of each layer. "
                "Use partial_amnesiac, or record with keep: 1."
            )
        if self.share_kept is not None and self.share_kept > settings.keep:
            found.append(
                f"keep is {self.share_kept:g}, and the ledger holds a share of {settings.keep:g} of each layer only; "
                "set keep to that or less."
            )
        if self.batchnorm == "subtract" and settings.buffers != "subtract":
            found.append(
                "batchnorm: subtract needs a ledger that recorded the running statistics (buffers: subtract); this one "
                f"says {settings.buffers}."
            )
        return found

    def apply(self, model: nn.Module, job: Job) -> nn.Module:
        """Subtract, see to BatchNorm, repair; and note in the ledger which steps are taken back."""
        ledger = job.ledger
        if ledger is None:
            raise ExpungeError(f"{self.name} needs a ledger.")
        raise_if(self.ledger_problems(ledger.settings))
        ledger.check(model, job.request.rows.hash)
        ledger.check_writable()
        policy = self.batchnorm or ledger.settings.buffers
        touched = ledger.touched(job.request)
        own = ledger.settings.record == "sample"  # each row's own shares, which other rows do not depend on
        done, before = ledger.undone(model), ledger.digest(model)
        self._see_history(job, done)
        asked = frozenset(job.request.rows.ids[job.request.forget.numpy()].tolist())
        steps = touched.taken if own else self._steps(ledger, touched)
        lots = left(asked, self.extent, done.rows) if own else left(steps, self.extent, done.steps)
        chosen = frozenset(item for lot in lots for item in lot.items)
        if not own:
            touched = replace(touched, taken=steps | frozenset(done.steps))
            if chosen and touched.whole and not self.allow_full:
                raise ExpungeError(" ".join([*str(touched).splitlines(), "To do it all the same, set allow_full."]))
        original = copy.deepcopy(model) if self.control else None
        self._subtract(model, job, ledger.reader().rest(lots, steps if own else None), policy)
        if self.repair_epochs and chosen:
            job.descend(model, [self._repair()])
        self._tell(job, touched, lots, done, ledger.recorded_share(model))
        by_now = done.and_of(chosen, self.extent, own)
        ledger.note(before, model, by_now, {"request": job.request.hash, "method": self.to_config()})
        if original is not None and chosen:
            draw = other_rows if own else other_steps
            self._compare(job, original, model, draw(ledger, chosen, done, job.run), lots, policy)
        return model

    def _see_history(self, job: Job, done: Undone) -> None:
        """Say so where a model is known to have forgotten rows, and nobody says which; and do not repair it with them.

        Raises:
            ExpungeError: a repair on rows that the model may have forgotten.
        """
        if not done or len(job.request.gone):
            return
        told = (
            "Earlier requests took something back in this model, and it does not say which rows they were for, as when "
            "its weights were saved without expunge. These rows count as rows that stay: name them, "
            "Request(..., gone=ids), or read weights that ex.io.save_weights wrote with ex.io.load_weights."
        )
        if self.repair_epochs:
            raise ExpungeError(f"{told} A repair would train them back in.")
        job.log.notes.append(told)

    @property
    def extent(self) -> Extent:
        """How much of each step, or row's share, is taken back."""
        return Extent.of(1.0 if self.share_kept is None else self.share_kept, self.scale)

    def _steps(self, ledger: Ledger, touched: Touched) -> frozenset[int]:
        near = (touched.steps[:, None] + np.arange(self.spill + 1)).ravel()
        return frozenset(near[near <= ledger.steps].tolist())

    def _subtract(self, model: nn.Module, job: Job, moved: dict[str, Tensor], policy: str) -> None:
        """Take what was moved off the weights, in float64, where it is not zero."""
        places = {**dict(model.named_parameters()), **dict(model.named_buffers())}
        with torch.no_grad():
            for name, total in moved.items():
                buffer = name not in dict(model.named_parameters())
                if not total.any() or (buffer and policy != "subtract"):
                    continue
                there = places[name]
                changed = there.double().cpu() - total
                if name.endswith("running_var"):
                    changed.clamp_(min=1e-6)  # changes of an average do not add up exactly; no variance is below 0
                there.copy_(changed.to(there))
        if policy == "recalibrate" and any(bool(total.any()) for total in moved.values()):
            recalibrate(model, job.request.rows, job.request.keep, job.run)

    def _repair(self) -> Phase:
        return Phase(
            terms=(Term("retain"),),
            epochs=self.repair_epochs,
            lr=self.repair_lr,
            batch_size=self.repair_batch_size,
        )

    def _tell(self, job: Job, touched: Touched, lots: Sequence[Lot], done: Undone, share: float) -> None:
        job.log.notes += str(touched).splitlines()
        if share < 1:
            job.log.notes.append(
                f"The ledger records {100 * share:.1f} % of the model's weights; what the others learned is not taken "
                "back."
            )
        if done.steps:
            job.log.notes.append(f"{len(done.steps):,} steps had been taken back by earlier requests; none is twice.")
        if again := sum(len(lot.items) for lot in lots if lot.again):
            job.log.notes.append(
                f"Of {again:,} {'rows' if done.rows else 'steps'} earlier requests had taken back less, with a smaller "
                "share or scale; the rest of what this one asks is taken back now."
            )
        own = touched.record == "sample"
        job.log.notes.append("Drop the state of the optimiser that trained this model: it remembers the rows.")
        job.log.facts |= {
            "touched": {
                "steps": len(touched.steps),
                "total": touched.total,
                "share": touched.share,
                "others": touched.others,
                "bytes": touched.bytes,
                "subtracted": len(touched.steps) if own else sum(len(lot.items) for lot in lots),
                "lacking": len(touched.taken),
                "recorded": share,
            }
        }

    def _compare(
        self, job: Job, original: nn.Module, after: nn.Module, others: Drawn, lots: Sequence[Lot], policy: str
    ) -> None:
        """Subtract the others from another copy, and say how original, result and control answer."""
        if job.ledger is None or not others.steps:
            what = "other steps" if others.rows is None else "shares of other rows"
            job.log.notes.append(f"There is no control: the ledger holds no {what}.")
            return
        retain = job.request.keep[torch.randperm(len(job.request.keep), generator=job.run.generator("sample"))[:5000]]
        try:
            b, a = answers(original, job, retain), answers(after, job, retain)
        except (ExpungeError, IndexError) as error:  # the rows may be deleted already
            job.log.notes.append(f"There is no control: it asks about rows that cannot be read. {error}")
            return
        moved = job.ledger.reader().rest(others.alike(lots), None if others.rows is None else others.steps)
        self._subtract(original, job, moved, policy)
        c = answers(original, job, retain)
        count, asked = len(others), sum(len(lot.items) for lot in lots)
        unit = "steps" if others.rows is None else "rows"
        job.log.facts["control"] = {unit: count, "of": asked, "before": b, "after": a, "control": c}
        few = (
            f" Only {count:,} of {asked:,} were left to draw, so this is no equal comparison." if count < asked else ""
        )
        job.log.notes.append(
            f"Forgotten rows answered right: {b['forget']:.1f} % before, {a['forget']:.1f} % after; retained ones "
            f"{b['retain']:.1f} % before, {a['retain']:.1f} % after; {asked:,} {unit} taken back. Control, {others} "
            f"subtracted: {c['forget']:.1f} % and {c['retain']:.1f} %.{few}"
        )
