"""LedgerFolder: a ledger that is there: what it says of a request, what it adds up to, what was taken back with it."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import nn

from expunge import io
from expunge.artifact.ledger import deletions, manifest
from expunge.artifact.ledger.capture import watched
from expunge.artifact.ledger.journal import Journal
from expunge.artifact.ledger.reading import Reader
from expunge.artifact.ledger.settings import Settings
from expunge.artifact.ledger.touched import Touched, touched
from expunge.errors import ExpungeError
from expunge.request import Request, read_ids


class LedgerFolder:
    """What can be asked of a ledger's folder; see `Ledger`."""

    def __init__(self, path: str | Path, *, data: str | None = None, recipe: Any = None, **settings: Any) -> None:
        self.path = Path(path)
        self.about = manifest.read(self.path)
        if self.about is None:
            self.settings = Settings.of(settings) or Settings()
        else:
            self.settings = Settings.of(self.about["settings"]) or Settings()
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

    def touched(self, request: Request | Iterable[Hashable] | str | Path) -> Touched:
        """How much of the training a request touches: steps, share, rows, bytes; print it to see what it means.

        Args:
            request: a `Request`, ids, or a file of ids.

        Raises:
            ExpungeError: ids that no step has ever used.

        Cost: reads the index, no update.
        """
        return touched(self._open(), self.settings, _ids(request), manifest.count_rows(self.path))

    def of_classes(self, classes: Iterable[int | str]) -> list[Hashable]:
        """The ids of all rows of some classes, by label or name, where a recipe made the ledger."""
        return manifest.of_classes(self.path, classes)

    @property
    def size(self) -> int:
        """Bytes of all recorded updates."""
        return self._open().bytes_of(self._open().steps())

    def verify(self) -> list[str]:
        """Read everything; a sentence for each record that is damaged or missing. Cost: one pass over the files."""
        return self._open().verify()

    def digest(self, model: nn.Module) -> str:
        """A digest of the recorded weights of a model."""
        return io.model_digest({n: p.detach() for n, p in watched(model, self.settings.layers).items()})

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
        manifest.check_layers(self.path, about, watched(model, self.settings.layers))
        self.undone(model)

    def undone(self, model: nn.Module) -> frozenset[int]:
        """The steps that are already taken back in this model; none in the one the training ended with.

        Raises:
            ExpungeError: weights at which neither the training nor a deletion ended.
        """
        if self.ended:
            raise ExpungeError(f"The ledger {self.path} does not hold the whole training; {self.ended}.")
        if self.ends_at(model):
            return frozenset()
        found = deletions.undone(self._open(), self.digest(model))
        if found is None:
            raise ExpungeError(
                f"This model is neither the one that the training in {self.path} ended with, nor one that an earlier "
                "deletion with this ledger returned, so its updates cannot be taken back from it. Give that model, "
                "without further training in between; a training that was never closed has no end."
            )
        return found

    def note(self, before: str, after: nn.Module, steps: Iterable[int], about: Mapping[str, Any]) -> None:
        """Write down that these steps are taken back in a model, so that no later request takes them back twice."""
        with self._write() as journal:
            deletions.note(journal, before, self.digest(after), steps, about)

    @property
    def deletions(self) -> list[dict[str, Any]]:
        """What was taken back with this ledger: from which weights to which, how, and how many steps."""
        return deletions.listed(self._open())

    def purge(self, model: nn.Module, ids: Iterable[Hashable] | None = None) -> int:
        """Remove the payload of all steps taken back in this model for good, and the forgotten rows' ids.

        Recorded updates are data about the people behind the rows. Models that still contain these steps can not be
        unlearned with this ledger afterwards.

        Args:
            model: one that a deletion with this ledger returned.
            ids: the rows to take out of the lists of ids. Default: those that the model says it has forgotten.

        Returns:
            How many bytes were freed.

        Cost: the files that hold such steps are written anew.
        """
        steps = self.undone(model)
        if not steps:
            raise ExpungeError("No step is taken back in this model, so there is nothing to purge.")
        gone = ids if ids is not None else [i for some in getattr(model, "_expunge_gone", {}).values() for i in some]
        listed = list(gone)
        with self._write() as journal:
            unknown = set(journal.unknown(listed))
            freed = journal.purge(sorted(steps), [i for i in listed if i not in unknown])
        manifest.drop_rows(self.path, listed)
        return freed

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
    return request.tolist() if hasattr(request, "tolist") else list(request)
