"""Index: which steps there are, where their records lie and which rows they used; one SQLite file.

Each row of a step carries a checksum of itself, since a flipped byte in a list of ids would otherwise make a deletion
miss a step without a word. Methods raise sqlite3.Error and OSError where the disk fails; the journal tells it.
"""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from expunge.artifact.ledger.connection import connect, snapshot
from expunge.artifact.ledger.ids import Id, Integers, pack, unpack
from expunge.artifact.ledger.row import Row
from expunge.errors import ExpungeError

FORMAT = 1
NAME = "index.sqlite"
_MANY = 500  # values in one statement; SQLite takes 999 at least
_SCRUB = ".scrub"  # kept while remains of purged rows may still be in the file
_TABLES = (
    "CREATE TABLE steps (step INTEGER PRIMARY KEY, shard INTEGER NOT NULL, offset INTEGER NOT NULL,"
    " length INTEGER NOT NULL, crc INTEGER NOT NULL, ids BLOB NOT NULL, about TEXT NOT NULL, own INTEGER NOT NULL)",
    # a column without a type keeps 1 and '1' apart
    "CREATE TABLE ids (number INTEGER PRIMARY KEY, id UNIQUE NOT NULL, own INTEGER NOT NULL)",
    "CREATE TABLE state (key TEXT PRIMARY KEY, value TEXT NOT NULL, own INTEGER NOT NULL)",
    f"PRAGMA user_version = {FORMAT}",
)


class Index:
    """The tables of a ledger.

    Args:
        folder: of the ledger.
        read_only: take a copy of what is committed into memory, and let go of the file.

    Raises:
        ExpungeError: no index, or one of another format.
    """

    def __init__(self, folder: Path, read_only: bool) -> None:
        self.path = folder / NAME
        self._sql = snapshot(self.path) if read_only else connect(str(self.path))
        try:
            if not read_only:
                for pragma in ("secure_delete = ON", "journal_mode = WAL", "synchronous = FULL", "temp_store = MEMORY"):
                    self._sql.execute(f"PRAGMA {pragma}").fetchall()
            version = int(self._one("PRAGMA user_version"))
            if not read_only and version == 0:
                if any(folder.glob("shard-*.led")):
                    raise ExpungeError(f"{self.path} is missing or empty, but {folder} holds shards; bring it back.")
                with self.change():
                    for table in _TABLES:
                        self._sql.execute(table)
            elif version != FORMAT:
                raise ExpungeError(f"{self.path} is not an index of format {FORMAT} but {version}; nothing is read.")
        except BaseException:
            self._sql.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._sql.close()

    @contextmanager
    def change(self) -> Iterator[None]:
        """Everything written inside is committed, and on the disk, at the end; or nothing is."""
        self._sql.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._sql.execute("COMMIT")
        except BaseException:
            if self._sql.in_transaction:
                self._sql.execute("ROLLBACK")
            raise

    def make_room(self) -> None:
        """Give back the room of the write-ahead log, whose changes go to their place; commits wrote to both so far."""
        self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    # -- steps -------------------------------------------------------------------------------------------------

    def last(self) -> int:
        """The last step; 0 when there is none."""
        return int(self._one("SELECT COALESCE(MAX(step), 0) FROM steps"))

    def steps(self) -> Integers:
        """All steps, in order."""
        return np.fromiter((s for (s,) in self._sql.execute("SELECT step FROM steps ORDER BY step")), np.int64)

    def ends(self) -> dict[int, int]:
        """The shards in use, in the order of their steps, and where the last record in each ends."""
        ends: dict[int, int] = {}
        for row in self.rows():
            if not row.purged:
                ends[row.shard] = row.place.end
        return ends

    def rows(self, steps: Sequence[int] | None = None) -> Iterator[Row]:
        """The rows of these steps, which must be sorted and there, or of all; in order.

        Raises:
            ExpungeError: a row that is damaged.
        """
        for row, whole in self.examined(steps):
            if not whole:
                raise ExpungeError(self._damaged(row))
            yield row

    def examined(self, steps: Sequence[int] | None = None) -> Iterator[tuple[Row, bool]]:
        """The same, each with whether its checksum holds."""
        query = "SELECT step, shard, offset, length, crc, ids, about, own FROM steps"
        order = " ORDER BY step"
        for statement, values in (
            [(query + order, ())] if steps is None else _chunks(f"{query} WHERE step IN", steps, order)
        ):
            cursor = self._sql.execute(statement, values)
            while found := cursor.fetchmany(4096):
                for columns in found:
                    row = Row._make(columns[:-1])
                    yield row, row.own == columns[-1]

    def write(self, rows: Iterable[Row]) -> None:
        """Insert or replace rows."""
        self._sql.executemany("REPLACE INTO steps VALUES (?, ?, ?, ?, ?, ?, ?, ?)", ((*row, row.own) for row in rows))

    def users(self, numbers: Integers) -> list[Row]:
        """The rows of the steps that used any of these row numbers."""
        found: list[Row] = []
        for rows in _batches(self.rows()):
            used, owners = unpack([row.ids for row in rows])
            found += [rows[i] for i in np.unique(owners[np.isin(used, numbers)])]
        return found

    def drop_after(self, step: int) -> None:
        """Remove the steps after this one, and the ids that only they used."""
        self._sql.execute("DELETE FROM steps WHERE step > ?", (step,))
        largest = -1  # numbers are given in the order of first use
        for rows in _batches(self.rows()):
            largest = max(largest, int(unpack([row.ids for row in rows])[0].max(initial=-1)))
        self._sql.execute("DELETE FROM ids WHERE number > ?", (largest,))

    # -- ids ---------------------------------------------------------------------------------------------------

    def numbers(self, ids: Sequence[Id] | None = None) -> dict[Id, int]:
        """The numbers of these ids, as far as they are known, or of all."""
        query = "SELECT id, number, own FROM ids"
        return dict(self._ids([(query, ())] if ids is None else _chunks(f"{query} WHERE id IN", ids)))

    def ids(self, numbers: Sequence[int]) -> list[Id]:
        """The ids behind numbers, which must be sorted."""
        found = list(self._ids(_chunks("SELECT id, number, own FROM ids WHERE number IN", numbers, " ORDER BY number")))
        if len(found) != len(numbers):
            raise ExpungeError(f"{self.path} is damaged: it lacks {len(numbers) - len(found)} ids that its steps used.")
        return [i for i, _ in found]

    def _ids(self, queries: Iterable[tuple[str, Sequence[Any]]]) -> Iterator[tuple[Id, int]]:
        for query, values in queries:
            for i, number, own in self._sql.execute(query, values):
                if own != _own_of_id(i, number):
                    raise ExpungeError(f"The row of id {i!r} in {self.path} is damaged: its checksum does not match.")
                yield i, number

    def add_ids(self, pairs: Iterable[tuple[Id, int]]) -> None:
        """Add ids with their numbers."""
        self._sql.executemany("INSERT INTO ids VALUES (?, ?, ?)", ((n, i, _own_of_id(i, n)) for i, n in pairs))

    def remove_ids(self, ids: Sequence[Id]) -> None:
        """Take ids out of every step's set and out of the table; those that are not there are passed over."""
        numbers = np.fromiter(self.numbers(ids).values(), np.int64)
        if not len(numbers):
            return

        def without(row: Row) -> Row:
            return row._replace(ids=pack(np.setdiff1d(unpack([row.ids])[0], numbers)))

        self.write(map(without, self.users(numbers)))
        self._sql.executemany("DELETE FROM ids WHERE number = ?", ((n,) for n in numbers.tolist()))

    # -- state -------------------------------------------------------------------------------------------------

    def get(self, key: str) -> str | None:
        """The text kept under a key, if there is one."""
        found = self._sql.execute("SELECT value, own FROM state WHERE key = ?", (key,)).fetchone()
        if found is not None and _own_of_text(key, found[0]) != found[1]:
            raise ExpungeError(f"What {self.path} keeps under {key!r} is damaged: its checksum does not match.")
        return None if found is None else found[0]

    def put(self, texts: Mapping[str, str]) -> None:
        """Keep texts under keys."""
        rows = ((key, text, _own_of_text(key, text)) for key, text in texts.items())
        self._sql.executemany("REPLACE INTO state VALUES (?, ?, ?)", rows)

    # -- care --------------------------------------------------------------------------------------------------

    def must_scrub(self) -> None:
        """Note, in the change under way, that `scrub` is due; if it is killed the next one to open does it."""
        self.put({_SCRUB: "true"})

    def scrub(self) -> None:
        """If it is due, rewrite the file, so that nothing of rows removed earlier is left in it or its journal."""
        if self.get(_SCRUB) is None:
            return
        self._sql.execute("VACUUM")
        if self._sql.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]:
            raise ExpungeError(
                f"{self.path} is being read, so what was purged may still be in its journal; "
                "the next opening for writing removes it."
            )
        self._sql.execute("DELETE FROM state WHERE key = ?", (_SCRUB,))

    def problems(self) -> list[str]:
        """A sentence for each thing that is wrong inside the file; structural damage ends the search."""
        found: list[str] = []
        expected = 1
        try:
            found += [f"{self.path}: {t}." for (t,) in self._sql.execute("PRAGMA integrity_check") if t != "ok"]
            for row, whole in self.examined():
                if not whole:
                    found.append(self._damaged(row))
                if row.step != expected:
                    found.append(f"{self.path} lacks the steps {expected} to {row.step - 1}.")
                expected = row.step + 1
            self.numbers()
            for (key,) in self._sql.execute("SELECT key FROM state").fetchall():
                self.get(key)
        except (sqlite3.Error, UnicodeDecodeError, ExpungeError) as error:
            found.append(str(error) if isinstance(error, ExpungeError) else f"{self.path} is damaged: {error}.")
        return found

    def _damaged(self, row: Row) -> str:
        return f"The row of step {row.step} in {self.path} is damaged: its checksum does not match."

    def _one(self, query: str) -> Any:
        return self._sql.execute(query).fetchone()[0]


def _own_of_id(i: Id, number: int) -> int:
    return zlib.crc32(repr((i, number)).encode())


def _own_of_text(key: Any, text: Any) -> int:
    """The checksum of a text under a key; a flipped byte may turn either into something else."""
    return zlib.crc32((key + text).encode()) if isinstance(key, str) and isinstance(text, str) else -1


def _chunks(query: str, values: Sequence[Any], end: str = "") -> Iterator[tuple[str, Sequence[Any]]]:
    """A query over many values as several that SQLite can take."""
    for i in range(0, len(values), _MANY):
        some = values[i : i + _MANY]
        yield f"{query} ({','.join('?' * len(some))}){end}", some


def _batches(rows: Iterable[Row]) -> Iterator[list[Row]]:
    """Rows by the thousand: few enough for the memory, many enough for arrays."""
    rows = iter(rows)
    while some := list(islice(rows, 4096)):
        yield some
