"""Journal: the steps of a training on the disk, so that what is committed survives a kill at any moment."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from expunge.artifact.ledger.connection import locked
from expunge.artifact.ledger.ids import Id, pack, plain
from expunge.artifact.ledger.index import Index
from expunge.artifact.ledger.row import Row
from expunge.artifact.ledger.shards import Place, Shards
from expunge.artifact.ledger.view import View
from expunge.errors import ExpungeError


@dataclass(frozen=True)
class Entry:
    """One optimiser step.

    Args:
        step: its number: 1, 2, 3, … without gaps.
        ids: the rows that took part: whole numbers of 64 bits or strings (1 and "1" are two rows); a row named twice
            counts once. A list, array or tensor.
        payload: what the step did, as bytes; empty where it was skipped.
        about: small plain data: rates, whether it was skipped, rounding error.
    """

    step: int
    ids: Sequence[Any]
    payload: bytes
    about: Mapping[str, Any] = field(default_factory=dict)


class Journal(View):
    """Steps in append-only shards, and an SQLite index of where they lie and which rows they used.

    A step counts from `commit` on: the shard is on the disk before the index names it. Opening for writing removes
    what a killed process left behind: half-written records, and the remains of a rewind or purge.

    Args:
        folder: made if it is not there.
        shard_bytes: size at which a new shard begins, 1 or more. Default 64 MiB: `purge` writes whole shards anew.
        read_only: see what is committed at this moment, without changing a file; any number of processes may, also
            while one writes. Default: write, and be the only one.

    Raises:
        ExpungeError: another process writes here, the folder cannot be written, the index is missing or damaged.

    Cost: about 100 bytes of memory for each distinct id while writing; one pass over the index (not the shards) on
    opening for writing, or a copy of it in memory with `read_only`.
    """

    def __init__(self, folder: Path, *, shard_bytes: int = 64 << 20, read_only: bool = False) -> None:
        if isinstance(shard_bytes, bool) or not isinstance(shard_bytes, int) or shard_bytes < 1:
            raise ExpungeError(f"shard_bytes must be a whole number of bytes, 1 or more; got {shard_bytes!r}.")
        super().__init__()
        self.folder, self.read_only = Path(folder), read_only
        self._pending: list[tuple[Place, list[Id], str]] = []
        self._numbers: dict[Id, int] | None = None  # of all ids, once steps are committed
        self._following = 0  # the number of the next new id
        self._stopped = ""  # why nothing can be appended any more
        self._shards = Shards(self.folder, shard_bytes)
        with self._telling("could not be opened"), ExitStack() as opened:
            if not read_only:
                self.folder.mkdir(parents=True, exist_ok=True)
                self._lock = locked(self.folder / "writer.lock")
                opened.callback(self._lock.close)
            self._index = Index(self.folder, read_only)
            opened.callback(self._index.close)
            self._last = self._index.last()
            if not read_only:
                self._shards.trim(self._index.ends())
                self._index.scrub()
            opened.pop_all()  # it stays open

    def append(self, entry: Entry) -> None:
        """Write a step to the shard. It counts, and is seen, after `commit`.

        Raises:
            ExpungeError: not the next step; ids or `about` that cannot be kept; the disk failed, and then the message
                says where the ledger ends. What came before the step is committed then, if that is still possible.
        """
        with self._writing("could not be written to"):
            if self._stopped:
                raise ExpungeError(self._stopped)
            due = self._last + len(self._pending) + 1
            if entry.step != due:
                raise ExpungeError(
                    f"Step {entry.step} was given to {self.folder}, but step {due} is next; call rewind."
                )
            ids, about = plain(entry.ids), _json(entry.about, f"about of step {due}")
            try:
                place = self._shards.append(entry.step, entry.payload)
            except OSError as error:
                with suppress(ExpungeError):
                    self.commit()
                self._stop(f"step {due} could not be written to {self.folder}: {error}", error)
            self._pending.append((place, ids, about))

    def commit(self) -> None:
        """Bring all that was appended and put to the disk; it is there when this returns.

        Raises:
            ExpungeError: the disk failed; the message says where the ledger ends.
        """
        with self._writing("could not be committed to"):
            if not self._pending and not self._state:
                return
            try:
                self._shards.flush()
                try:
                    self._commit()
                except sqlite3.Error:  # the disk may be full
                    self._index.make_room()
                    self._commit()
            except (OSError, sqlite3.Error) as error:
                count = len(self._pending)
                self._pending.clear()
                if not count:
                    raise
                span = f"steps {self._last + 1} to {self._last + count}"
                self._stop(f"{span} could not be committed to {self.folder}: {error}", error)
            self._last += len(self._pending)
            self._pending.clear()

    def _commit(self) -> None:
        with self._change():
            self._add_pending()

    def _add_pending(self) -> None:
        if self._numbers is None:
            self._numbers = self._index.numbers()
            self._following = max(self._numbers.values(), default=-1) + 1
        numbers = self._numbers
        fresh: list[tuple[Id, int]] = []
        rows = []
        for place, ids, about in self._pending:
            for i in ids:
                if i not in numbers:
                    numbers[i] = self._following
                    fresh.append((i, self._following))
                    self._following += 1
            rows.append(Row(*place, pack([numbers[i] for i in ids]), about))
        self._index.add_ids(fresh)
        self._index.write(rows)

    def rewind(self, step: int) -> None:
        """Drop every step after this one; a kill in between leaves the ledger as before, or as after.

        Raises:
            ExpungeError: the ledger ends before this step.
        """
        with self._writing("could not be rewound"):
            if self._last < step <= self._last + len(self._pending):
                self.commit()
            if not 0 <= step <= self._last:
                raise ExpungeError(f"{self.folder} holds {self._last} steps and cannot be rewound to step {step}.")
            self._pending.clear()
            self._numbers = None
            with self._change():
                self._index.drop_after(step)
            self._last, self._stopped = step, ""
            self._shards.trim(self._index.ends())

    def purge(self, steps: Iterable[int], ids: Iterable[Any] = ()) -> int:
        """Remove the payload of these steps, and these ids, from every file of the folder for good.

        The steps stay in the index, `about` says `"purged": true` of them and keeps only numbers, truth values and
        text: a list there might be about rows. Steps purged before and ids never seen are passed over. A kill in
        between leaves the ledger as before, or as after once it is opened for writing again. Copies elsewhere
        (backups, file system snapshots, blocks the file system has not reused) are not reached.

        Returns:
            How many bytes of shards were freed.

        Raises:
            ExpungeError: a step that is not in the ledger; the disk failed.

        Cost: the shards that hold such steps, and the index, are written anew.
        """
        with self._writing("could not be purged"):
            if self._pending:
                self.commit()
            gone = {row.step: row for row in self._rows(steps)}
            touched = {row.shard for row in gone.values() if not row.purged}
            kept = [row for row in self._index.rows() if row.shard in touched and row.step not in gone]
            before = sum(self._shards.sizes().values())
            try:
                moved = self._shards.copy([row.place for row in kept])
                self._numbers = None
                with self._change():
                    self._index.write(r._replace(shard=p.shard, offset=p.offset) for r, p in zip(kept, moved))
                    self._index.write(row.without_record() for row in gone.values())
                    self._index.remove_ids(plain(ids))
                    self._index.must_scrub()
            finally:
                self._shards.trim(self._index.ends())
            self._index.scrub()
            return before - sum(self._shards.sizes().values())

    def put(self, key: str, value: Any) -> None:
        """Keep plain data under a key; it is seen at once, and kept with the next commit, rewind or purge.

        Raises:
            ExpungeError: it is not plain data.
        """
        with self._writing("could not be written to"):
            self._state[key] = _json(value, repr(key))

    def close(self) -> None:
        """Commit, and let go of the files; a second time does nothing."""
        if self._closed or self._process != os.getpid():
            return
        try:
            if not self.read_only:
                self.commit()
        finally:
            super().close()

    def _stop(self, why: str, error: Exception) -> NoReturn:
        self._stopped = (
            f"{why[0].upper()}{why[1:]}. The ledger ends at step {self._last}, and is intact up to there; "
            "to train on, load the last checkpoint and rewind the ledger to its step, or to 0."
        )
        raise ExpungeError(self._stopped) from error

    @contextmanager
    def _change(self) -> Iterator[None]:
        try:
            with self._index.change():
                yield
                self._index.put(self._state)
        except BaseException:
            self._numbers = None  # it may name ids that are not in the index now
            raise
        self._state.clear()

    @contextmanager
    def _writing(self, failure: str) -> Iterator[None]:
        if self.read_only:
            raise ExpungeError(f"{self.folder} was opened read-only; open it without read_only to change it.")
        with self._reading(failure):
            yield


def _json(data: Any, what: str) -> str:
    try:
        return json.dumps(data)
    except (TypeError, ValueError) as error:
        raise ExpungeError(f"{what} must be plain data (numbers, text, lists, mappings): {error}") from error
