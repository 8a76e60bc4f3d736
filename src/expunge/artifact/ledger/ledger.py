"""Ledger: what every step of a training did to the weights, and which rows took part, so that it can be taken back."""

from __future__ import annotations

import warnings
from collections.abc import Hashable, Iterable
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from expunge import io
from expunge.artifact.ledger import manifest
from expunge.artifact.ledger.ahead import watch_problems
from expunge.artifact.ledger.capture import Capture, Step, averages
from expunge.artifact.ledger.entries import Entries
from expunge.artifact.ledger.folder import LedgerFolder
from expunge.artifact.ledger.guard import Guard
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.wrapped import plain_model
from expunge.artifact.ledger.writer import Writer
from expunge.errors import ExpungeError, raise_if

# steps that may wait to be written: small ones up to a number, so that a commit does not hold the training up; large
# ones up to 64 MB, or four
FEWEST, MOST, WAITING = 4, 64, 64 << 20


class Ledger(LedgerFolder):
    """A training's updates, step by step, in a folder; forgetting subtracts those that the forgotten rows took part in.

    In a loop of one's own:

        ledger = ex.Ledger("runs/a/ledger", keep=0.1)
        ledger.watch(model, optimizer)
        for ids, x, y in loader:
            ledger.uses(ids)
            ...  # zero_grad, backward, optimizer.step() as always
        ledger.close()

    Args:
        path: the folder. One that holds a ledger is opened, and its settings hold; others that are given must agree.
        data: the digest of the data (`Rows.hash`), so that the ledger is refused for other data. Default: not said.
        recipe: what describes the training, likewise.
        settings: see `Settings`: keep, values, carry, layers, record, sensitive, buffers, decay, on_error.

    Raises:
        ExpungeError: impossible settings, or others than those of the ledger in the folder.

    Cost: one copy of the recorded weights, and in memory until the thread behind has written them at most 64 MB of
    updates, or four steps'; on the disk about `keep × weights × (width of a value + 1 byte)` for each step.
    Source: Graves et al. 2021 (amnesiac unlearning); Gogineni & Nadimi, arXiv:2403.07611 (pruned layer by layer).
    """

    def __init__(self, path: str | Path, *, data: str | None = None, recipe: Any = None, **settings: Any) -> None:
        super().__init__(path, data=data, recipe=recipe, **settings)
        self._writer: Writer | None = None
        self._capture: Capture | None = None
        self._entries: Entries | None = None
        self._guard: Guard | None = None

    # -- while training ----------------------------------------------------------------------------------------

    def watch(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        accumulate: int = 1,
        scaler: Any = None,
        together: bool = False,
    ) -> Ledger:
        """Record every step of this optimiser from now on; weights, gradients and random state stay untouched.

        Args:
            model: the model that is trained; wrapped for several processes or not.
            optimizer: any PyTorch optimiser, wrapped by accelerate or not.
            accumulate: how many batches, each announced by `uses`, may go into one step. Default 1.
            scaler: the `GradScaler`, where there is one: steps that it skips are then recorded as skipped.
            together: in several processes, whether each tells `uses` the rows of all of them. Default no: each tells
                its own, and they are gathered.

        Raises:
            ExpungeError: the ledger's steps end at other weights, or it was made for another model; what is given is
                not what is asked for; weights would be trained unseen by the ledger; or another ledger watches other
                weights of the model. At the first call of the model: inputs of 16 or 64 bits, as its weights are.
        """
        if self._capture is not None:
            raise ExpungeError("This ledger watches a training already; close it first.")
        raise_if(watch_problems(model, optimizer, accumulate, scaler))
        model, optimizer = plain_model(model), getattr(optimizer, "optimizer", optimizer)
        if self.settings.record == "sample" and processes() > 1:
            raise ExpungeError("record: sample works in one process only; record updates or gradients in several.")
        gather = processes() > 1 and not together
        before = [] if self.about is None else [name for name, _, _ in self.about["layers"]]
        capture = Capture(model, optimizer, self.settings, self._put, accumulate, scaler, gather, before)
        with ExitStack() as undo:  # if anything is refused
            undo.callback(self._release)
            undo.callback(capture.detach)
            guard = Guard(self.path, capture)
            undo.callback(guard.end)
            if is_first():
                capture.step = self._begin(capture)
            undo.pop_all()
        self._capture, self._guard = capture, guard
        return self

    def _begin(self, capture: Capture) -> int:
        """Make the folder, or see that this model is where the ledger ends; returns the steps there are."""
        layers = capture.layers
        if self.about is None:
            about = manifest.make(
                self.settings, layers, averages(capture.model), capture.optimizer, self.data, self.recipe
            )
            manifest.write(self.path, about)
            self.about = about
        manifest.check_layers(self.path, self.about, layers, others=False)
        journal = self._open(writing=True)
        if journal.last == 0:
            io.save_tensors(self.path / manifest.START, {n: p.detach() for n, p in layers.items()}, {})
            journal.put("start", io.file_digest(self.path / manifest.START))
        else:
            self._go_on(journal, capture.model)
        size = 4 * sum(p.numel() for p in layers.values())
        most = FEWEST if self.settings.record == "sample" else max(FEWEST, min(MOST, WAITING // max(size, 1)))
        self._entries = Entries(self.settings, len(layers))
        self._writer = Writer(journal, most=most, on_error=self.settings.on_error)
        return journal.last

    def _go_on(self, journal: Journal, model: nn.Module) -> None:
        """See that this model is where the ledger ends, and that it can be gone on with."""
        if self.purged:
            raise ExpungeError(
                f"Updates that led to this model were purged from the ledger {self.path}, so it could not be unlearned "
                "with it. Train on the model that ledger.purge was given, in another folder; or begin again with "
                "ledger.rewind(0)."
            )
        if not self.resumable:
            raise ExpungeError(
                f"The ledger {self.path} leaves weight decay out of its updates, and what momentum remembers of it was "
                "lost when the training ended; begin again with ledger.rewind(0), or give another folder."
            )
        if not self.stands_at(journal.last, model):
            raise ExpungeError(
                f"The ledger {self.path} holds {journal.last:,} steps, and this model is not where they end. To go on "
                "from a checkpoint, load it and call ledger.rewind(step) with the step that ledger.mark() gave when it "
                "was saved; to begin again, ledger.rewind(0); or give another folder."
            )
        journal.put("ended", None)  # a training that goes on from here has not ended

    def _put(self, step: Step) -> None:
        """Hand a step to the thread that writes; the first process does."""
        writer, entries = self._writer, self._entries
        if writer is not None and entries is not None:
            writer.put(lambda: entries.make(step))

    @property
    def resumable(self) -> bool:
        """Whether a training can go on in this ledger after it was interrupted."""
        return self.settings.decay and not self.purged

    def uses(self, ids: Iterable[Hashable], losses: Tensor | None = None) -> None:
        """Say which rows the next step learns from; before `optimizer.step()`, for every batch.

        Args:
            ids: of the batch's rows: whole numbers or strings, a list, array or tensor. In several processes each
                gives its own.
            losses: for `record="sample"`: what each row adds to the loss, (B,), before `backward`.

        Raises:
            ExpungeError: called more often than batches go into a step, without ids, or before `watch`.
        """
        if self._capture is None:
            raise ExpungeError("ledger.uses was called before ledger.watch(model, optimizer).")
        self._capture.uses(ids, losses)

    def mark(self, name: str = "") -> int:
        """Bring everything to the disk, and return the step to keep with a checkpoint; cheap enough for every epoch.

        Args:
            name: to find the step by later, with `named`.
        """
        if self._capture is None:
            raise ExpungeError("ledger.mark was called before ledger.watch(model, optimizer).")
        if not self._capture.gather:  # which several processes do together, and only one of them may be here
            self._capture.settle()
        if self._writer is None:
            return self._capture.step
        self._writer.sync()
        if self._entries is not None:
            self._entries.forget_lost()
        journal = self._open(writing=True)
        if journal.last == self._capture.step and not self._capture.drift.at_end(journal.last, self.path):
            journal.put("marks", {**journal.get("marks", {}), str(journal.last): self.digest(self._capture.model)})
            if name:
                journal.put("names", {**journal.get("names", {}), name: journal.last})
            with self._writer.going_on():
                journal.commit()
        return self._capture.step

    def named(self, name: str) -> int | None:
        """The step that was marked under a name; none when there is no such mark."""
        found: int | None = None if self.about is None else self._open().get("names", {}).get(name)
        return found

    def rewind(self, step: int) -> None:
        """Drop every step after this one, so that the ledger matches a checkpoint; deletions are dropped as well."""
        if is_first():
            with self._write() as journal:
                self._rewind(journal, step)

    def _rewind(self, journal: Journal, step: int) -> None:
        if not 0 <= step <= journal.last:
            raise ExpungeError(
                f"The ledger {self.path} holds {journal.last:,} steps and cannot be rewound to step {step}. A "
                "checkpoint newer than its ledger was not saved after ledger.mark()."
            )
        marked = journal.get("marks", {})
        if step and str(step) not in marked:
            raise ExpungeError(
                f"Step {step} was never marked, so it belongs to no checkpoint; marked are "
                f"{', '.join(marked) or 'none'}. Call ledger.mark() when a checkpoint is saved."
            )
        marks = {s: d for s, d in marked.items() if int(s) <= step}
        names = {n: s for n, s in journal.get("names", {}).items() if s <= step}
        for key, value in (("marks", marks), ("names", names), ("deletions", []), ("ended", None)):
            journal.put(key, value)
        journal.rewind(step)

    def close(self) -> None:
        """Bring everything to the disk and let go of the optimiser; the ledger then knows the weights it ends at.

        Where each of several processes tells its own rows, each closes.
        """
        try:
            if self._capture is not None:
                self._capture.settle()
                self._capture.detach()
                self.mark()
        except BaseException:
            with suppress(ExpungeError):  # the first failure is the one to tell
                self._let_go()
            raise
        self._let_go()

    def _let_go(self) -> None:
        """End the thread behind, and close the files."""
        if self._capture is not None and self._writer is not None:
            self._warn_of_nothing()
        if self._guard is not None:
            self._guard.end()
        writer, self._capture, self._guard, self._writer, self._entries = self._writer, None, None, None, None
        with nullcontext() if writer is None else writer.going_on():
            try:
                if writer is not None:
                    writer.close()
            finally:
                self._release()

    def _warn_of_nothing(self) -> None:
        """Say so when nothing was stored, because no sensitive row took part in any step."""
        with suppress(ExpungeError):  # a failure of the disk is told otherwise
            if self.settings.sensitive is not None and self.steps and not len(self.stored):
                warnings.warn(
                    f"Nothing is stored of the {self.steps:,} steps in {self.path}: none of the sensitive rows took "
                    "part. Are their ids those that ledger.uses is told?",
                    stacklevel=4,
                )

    def __enter__(self) -> Ledger:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if kind is None:
            self.close()
            return
        if self._capture is not None:  # what is committed stays; the model is not where a training should end
            self._capture.detach()
            self._capture = None
        self.close()


def processes() -> int:
    """How many processes train together."""
    several = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if several else 1


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return processes() == 1 or torch.distributed.get_rank() == 0


__all__ = ["Ledger"]
