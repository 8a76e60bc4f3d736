"""View: what is committed in a ledger's folder: steps, the rows they used, and what they did to the weights."""

from __future__ import annotations

import json
import operator
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from expunge.artifact.ledger.ids import Id, plain, unpack
from expunge.artifact.ledger.index import Index
from expunge.artifact.ledger.row import Row
from expunge.artifact.ledger.shards import Place, Shards
from expunge.errors import ExpungeError


class View:
    """The part of a journal that changes nothing; any thread may call it."""

    folder: Path
    read_only: bool
    _index: Index
    _shards: Shards

    def __init__(self) -> None:
        self._turn = threading.RLock()
        self._process = os.getpid()
        self._closed = False
        self._last = 0
        self._state: dict[str, str] = {}  # put, and not yet committed
        self._lock: sqlite3.Connection | None = None

    @property
    def last(self) -> int:
        """The last committed step; 0 when there is none."""
        return self._last

    def get(self, key: str, default: Any = None) -> Any:
        """The plain data under a key."""
        with self._reading():
            text = self._state.get(key)
            text = self._index.get(key) if text is None else text
            return default if text is None else json.loads(text)

    def steps(self, ids: Iterable[Any] | None = None) -> npt.NDArray[np.int64]:
        """The steps, in order, that used any of these ids (those never seen used none), or all; purged ones as well.

        Cost: one pass over the index.
        """
        with self._reading():
            if ids is None:
                return self._index.steps()
            numbers = np.fromiter(self._index.numbers(plain(ids)).values(), np.int64)
            return np.array([row.step for row in self._index.users(numbers)], np.int64)

    def unknown(self, ids: Iterable[Any]) -> list[Id]:
        """Those of these ids that no step ever used, in the order given."""
        with self._reading():
            asked = plain(ids)
            known = self._index.numbers(asked)
            return [i for i in asked if i not in known]

    def ids_of(self, steps: Iterable[int]) -> list[Id]:
        """The distinct ids used in these steps, in the order of their first use in the ledger."""
        with self._reading():
            numbers, _ = unpack([row.ids for row in self._rows(steps)])
            return self._index.ids(np.unique(numbers).tolist())

    def stored(self) -> npt.NDArray[np.int64]:
        """The steps, in order, whose payload is there: neither skipped, nor left out, nor purged."""
        with self._reading():
            rows = self._rows(range(1, self._last + 1))
            return np.array([row.step for row in rows if row.length and not row.purged], np.int64)

    def about(self, step: int) -> dict[str, Any]:
        """What the entry of a step said about it."""
        return self.abouts([step])[0]

    def abouts(self, steps: Iterable[int]) -> list[dict[str, Any]]:
        """What the entries of these steps said about them, in the order of the steps."""
        with self._reading():
            return [json.loads(row.about) for row in self._rows(steps)]

    def bytes_of(self, steps: Iterable[int]) -> int:
        """Bytes of payload of these steps on the disk; none for purged ones."""
        with self._reading():
            return sum(row.length for row in self._rows(steps))

    def read(self, steps: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        """Each of these steps with its payload, in the order of the files, which is that of the steps.

        Raises:
            ExpungeError: at once, for steps that are not in the ledger or purged; on the way, for a record that is
                damaged or missing, with its shard, offset and step.

        Cost: each record is read once; memory of one record.
        """
        with self._reading():
            rows = self._rows(steps)
            if purged := [row.step for row in rows if row.purged]:
                raise ExpungeError(
                    f"The payload of {_named(purged)} was purged from {self.folder}; it cannot be read. What such "
                    "steps taught can not be taken back any more: begin with the model that ledger.purge was given, or "
                    "with one unlearned from it, or retrain."
                )
            return self._shards.read([row.place for row in rows])

    def verify(self) -> list[str]:
        """Read everything; a sentence for each record that is damaged or missing, lost shard and leftover bytes.

        Cost: one pass over all files.
        """
        with self._reading():
            found = self._index.problems()
            places: list[Place] = []
            with suppress(sqlite3.Error, UnicodeDecodeError):  # told already
                places = [r.place for r, whole in self._index.examined() if whole and not r.purged]
            return found + self._shards.problems(places)

    def close(self) -> None:
        """Let go of the files; a second time does nothing."""
        self._closed = True
        for held in (self._shards, self._index, self._lock):
            if held is not None:
                held.close()

    def _rows(self, steps: Iterable[int]) -> list[Row]:
        """The rows of these steps, in order, all of which must be there."""
        asked = np.unique(np.fromiter(map(operator.index, steps), np.int64)).tolist()
        if missing := [step for step in asked if not 1 <= step <= self._last]:
            raise ExpungeError(f"{self.folder} holds the steps 1 to {self._last}, and not {_named(missing)}.")
        rows = list(self._index.rows(None if len(asked) == self._last else asked))
        if len(rows) != len(asked):
            lost = sorted(set(asked) - {row.step for row in rows})
            raise ExpungeError(f"The index of {self.folder} is damaged: it lacks {_named(lost)}.")
        return rows

    @contextmanager
    def _reading(self, failure: str = "could not be read") -> Iterator[None]:
        if self._closed:
            raise ExpungeError(f"The journal of {self.folder} is closed; open it again.")
        if self._process != os.getpid() and not self.read_only:
            raise ExpungeError(f"{self.folder} was opened for writing by another process; open it anew in this one.")
        with self._turn, self._telling(failure):
            yield

    @contextmanager
    def _telling(self, failure: str) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error, UnicodeDecodeError) as error:  # the last: a damaged file, quoted by SQLite
            end = f" It ends at step {self._last}." if self._last else ""
            raise ExpungeError(f"{self.folder} {failure}: {error}.{end}") from error


def _named(steps: Sequence[int]) -> str:
    listed = ", ".join(map(str, steps[:5])) + (", …" if len(steps) > 5 else "")
    return f"step {listed}" if len(steps) == 1 else f"{len(steps)} steps ({listed})"
