"""LedgerFolder: a ledger that is there: what it says of a request, what it adds up to, what was taken back with it."""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from expunge import io
from expunge.artifact.ledger import announced, deletions, manifest
from expunge.artifact.ledger.capture import watched
from expunge.artifact.ledger.deletions import Extent, Undone
from expunge.artifact.ledger.ids import Id
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.reading import Reader
from expunge.artifact.ledger.settings import Settings
from expunge.artifact.ledger.touched import Touched, touched
from expunge.artifact.ledger.wrapped import refuse_wrapped
from expunge.data.ids import listed, read_ids
from expunge.errors import ExpungeError, collected
from expunge.gone import record
from expunge.request import Request


class LedgerFolder:
    """What can be asked of a ledger's folder; see `Ledger`."""

    def __init__(self, path: str | Path, *, data: str | None = None, recipe: Any = None, **settings: Any) -> None:
        if not isinstance(path, (str, Path)):
            raise ExpungeError(f"A ledger is a folder; give its path, got {path!r}.")
        self.path = Path(path).absolute()  # which a change of the current folder does not lead astray
        self.about = manifest.read(self.path)
        if self.about is None:
            self.settings = Settings.of(settings) or Settings()
        else:
            self.settings = Settings.recorded(self.about["settings"])
            manifest.check_same(self.path, self.about, settings, data, recipe)
        self.data, self.recipe = data, recipe
        self._journal: Journal | None = None
        self._writing = False

    # -- before you pay ----------------------------------------------------------------------------------------

    @property
    def steps(self) -> int:
        """How many steps there are."""
        return self._open().last

    @property
    def ended(self) -> str:
        """Why the ledger ends before the training did; empty when it does not."""
        found = self._open().get("ended")
        return "" if not found else f"it ends at step {found[0]:,}: {found[1].rstrip('.')}"

    @property
    def stored(self) -> np.ndarray:
        """The steps whose updates are there: neither skipped, nor left out, nor purged."""
        return self._open().stored()

    @property
    def whole(self) -> bool:
        """Whether the updates add up to the training: all layers, all entries, all steps that moved anything."""
        s = self.settings
        whole = s.keep == 1 and s.record == "update" and s.decay and not s.layers and s.sensitive is None
        return whole and not self.purged

    @property
    def purged(self) -> bool:
        """Whether the updates of any step were removed."""
        if self.about is None:
            return False
        return any(about.get("purged") for about in self._open().abouts(range(1, self.steps + 1)))

    def touched(self, request: Request | Iterable[Hashable] | str | Path) -> Touched:
        """How much of the training a request touches: steps, share, rows, bytes; print it to see what it means.

        Args:
            request: a `Request`, ids, or a file of ids.

        Raises:
            ExpungeError: no ids, or some that no step has ever used.

        Cost: reads the index, no update.
        """
        gone = request.rows.ids[request.gone.numpy()].tolist() if isinstance(request, Request) else []
        file = request if isinstance(request, (str, Path)) else None
        rows = manifest.count_rows(self.path)
        return touched(self._open(), self.settings, _ids(request), rows, gone=gone, file=file)

    def of_classes(self, classes: Iterable[int | str]) -> list[Hashable]:
        """The ids of all rows of some classes, by label or name, where a recipe made the ledger."""
        return manifest.of_classes(self.path, classes)

    @property
    def size(self) -> int:
        """Bytes of all recorded updates."""
        return self._open().bytes_of(self._open().steps())

    @property
    def error(self) -> float:
        """The largest rounding error of a value in any step, 0 where values are stored as they were; of `values`."""
        return max((about.get("error", 0.0) for about in self._open().abouts(range(1, self.steps + 1))), default=0.0)

    def recorded_share(self, model: nn.Module) -> float:
        """The share of a model's weights that is recorded, from 0 to 1."""
        about = self.about or manifest.missing(self.path)
        there = sum(p.numel() for p in model.parameters() if p.is_floating_point())
        recorded: int = sum(math.prod(shape) for _, shape, _ in about["layers"])
        return recorded / max(there, 1)

    def verify(self) -> list[str]:
        """Read everything; a sentence for each thing that is damaged or missing, and one for steps short of batches.

        Cost: one pass over the files.
        """
        found = self._open().verify()
        with collected(found):
            manifest.read(self.path)
        with collected(found):
            manifest.count_rows(self.path)
        with suppress(ExpungeError):  # a damaged index is told already
            if short := announced.count(self._open().abouts(range(1, self.steps + 1))):
                found.append(announced.sentence(short, self.steps))
            if self.steps:
                found += manifest.start_problems(self.path, self._open().get("start"))
        return found

    def digest(self, model: nn.Module) -> str:
        """A digest of all weights of a model, recorded or not; buffers do not count."""
        return io.model_digest({n: p.detach() for n, p in model.named_parameters()})

    def reader(self) -> Reader:
        """Reads recorded updates; see `Reader`.

        Raises:
            ExpungeError: nothing was recorded yet.
        """
        if self.about is None:
            raise ExpungeError(f"There is no ledger in {self.path}; it is made while a model is trained.")
        return Reader(self._open(), self.settings, self.about)

    # -- after a deletion --------------------------------------------------------------------------------------

    def check(self, model: nn.Module, data: str | None = None) -> None:
        """Refuse a model or data that this ledger is not about.

        Raises:
            ExpungeError: other layers, other data, damage at the end of the training, or weights unknown to it.
        """
        about = self.about or manifest.missing(self.path)
        manifest.check_same(self.path, about, {}, data, None)
        refuse_wrapped(model, [name for name, _, _ in about["layers"]])
        manifest.check_layers(self.path, about, watched(model, self.settings.layers))
        self.undone(model)

    def check_writable(self) -> None:
        """Refuse a folder in which a deletion cannot be noted, before it is computed.

        Raises:
            ExpungeError: the folder cannot be written, or is being written by another.
        """
        with self._write():
            pass

    def undone(self, model: nn.Module) -> Undone:
        """What is already taken back in this model; nothing in the one the training ended with.

        Raises:
            ExpungeError: weights at which neither the training nor a deletion ended.
        """
        if not self._writing:
            self._release()  # another process, or another object here, may have taken something back since
        if self.ended:
            raise ExpungeError(f"The ledger {self.path} does not hold the whole training; {self.ended}.")
        if self.ends_at(model):
            return Undone()
        return deletions.undone(self._open(), self.digest(model))

    def others(self, rows: Iterable[Id]) -> list[Id]:
        """The rows but these whose own shares are recorded, and not purged."""
        return deletions.other_rows(self._open(), self.stored.tolist(), Undone(rows=dict.fromkeys(rows, Extent())))

    def note(self, before: str, after: nn.Module, done: Undone, about: Mapping[str, Any]) -> None:
        """Write down what is taken back in a model by now, so that no later request takes it back twice."""
        with self._write() as journal:
            deletions.note(journal, before, self.digest(after), done, about)

    @property
    def deletions(self) -> list[dict[str, Any]]:
        """What was taken back with this ledger: from which weights to which, how, and how many steps."""
        return [] if self.about is None else deletions.listed(self._open())

    @property
    def purges(self) -> list[str]:
        """What was purged from this ledger and what is left, a sentence each."""
        found: list[str] = [] if self.about is None else self._open().get("purges", [])
        return found

    def purge(self, model: nn.Module, ids: Iterable[Hashable] | None = None, *, others: bool = False) -> int:
        """Remove the payload of all steps taken back in this model for good, and the forgotten rows' ids.

        Recorded updates are data about the people behind the rows. Models that still contain these steps can not be
        unlearned with this ledger afterwards.

        Args:
            model: one that a deletion with this ledger returned.
            ids: the rows to take out of the lists of ids. Default: those that the model says it has forgotten.
            others: where single rows' shares are recorded, whether those of rows that are not taken back may go as
                well, which lie in the same records. Default no: then such a purge is refused.

        Returns:
            How many bytes were freed; `purges` says what is left.

        Raises:
            ExpungeError: nothing is taken back in this model, it does not say which rows it has forgotten, some of
                them are not taken back in it, or other rows' shares would be lost.

        Cost: the files that hold such steps are written anew.
        """
        done = self.undone(model)
        if not done:
            raise ExpungeError("No step is taken back in this model, so there is nothing to purge.")
        forgotten = [i for some in record(model).values() for i in some]
        gone = forgotten if ids is None else listed(ids)
        if not gone:
            raise ExpungeError("Say which rows to take out of the lists, purge(model, ids): this model does not know.")
        steps, named = deletions.purgeable(self._open(), gone, done, self.settings.record == "sample", others)
        with self._write() as journal:
            manifest.drop_rows(self.path, named)
            self.about = manifest.without_ids(self.path, named) or self.about
            self.settings = Settings.recorded(self.about["settings"]) if self.about else self.settings
            return deletions.purge(journal, steps, named, done)  # last: a purge that was killed can find the ids again

    def stands_at(self, step: int, model: nn.Module) -> bool:
        """Whether a model has the weights that the training had after this step, which must have been marked."""
        marked: str | None = self._open().get("marks", {}).get(str(step))
        return marked is not None and marked == self.digest(model)

    def ends_at(self, model: nn.Module) -> bool:
        """Whether the whole training is there, and a model has the weights that it ended with."""
        return self.about is not None and not self.ended and self.stands_at(self.steps, model)

    @contextmanager
    def _write(self) -> Iterator[Journal]:
        """The journal for writing, held no longer than the block unless a training is being recorded."""
        held = self._writing
        try:
            yield self._open(writing=True)
        finally:
            if not held:
                self._release()

    def _release(self) -> None:
        journal, self._journal, self._writing = self._journal, None, False
        if journal is not None:
            journal.close()

    def _open(self, writing: bool = False) -> Journal:
        if writing and not self._writing:
            self._release()
        if self._journal is None:
            if not writing and self.about is None:
                manifest.missing(self.path)
            self._journal = Journal(self.path, read_only=not writing)
            self._writing = writing
        return self._journal

    def __repr__(self) -> str:
        return f"Ledger({str(self.path)!r}, keep={self.settings.keep:g}, values={self.settings.values!r})"


def _ids(request: Request | Iterable[Hashable] | str | Path) -> list[Hashable]:
    if isinstance(request, (str, Path)):
        return list(read_ids(request))
    if isinstance(request, Request):
        found: list[Hashable] = request.rows.ids[request.forget.numpy()].tolist()
        return found
    return listed(request)
