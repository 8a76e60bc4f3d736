"""Connections to SQLite files: to write, to see what is committed, and to be the only one that writes."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from expunge.errors import ExpungeError


def connect(name: str, uri: bool = False) -> sqlite3.Connection:
    """A connection whose transactions begin where the code says so, and which any thread may use in its turn."""
    return sqlite3.connect(name, timeout=30, isolation_level=None, check_same_thread=False, uri=uri)


def snapshot(path: Path) -> sqlite3.Connection:
    """What is committed, in memory. No file is changed, and a process that writes is not held up."""
    if not path.is_file():
        raise ExpungeError(f"There is no ledger in {path.parent}: {path.name} is missing.")
    while True:
        # SQLite makes a journal to read a file of this kind, unless told that nobody writes
        quiet = not path.with_name(f"{path.name}-wal").exists()
        before = path.stat().st_mtime_ns
        copy = connect(":memory:")
        with closing(connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * quiet}", uri=True)) as source:
            source.backup(copy)
        if not quiet or path.stat().st_mtime_ns == before:
            return copy
        copy.close()  # somebody began to write meanwhile


def locked(path: Path) -> sqlite3.Connection:
    """A lock on a file that ends with the process, however it ends, and that a forked process does not share."""
    lock = None
    try:
        lock = connect(str(path))
        lock.execute("PRAGMA busy_timeout = 0")
        lock.execute("BEGIN EXCLUSIVE")
    except sqlite3.OperationalError as error:
        if lock is not None:
            lock.close()
        if "locked" not in str(error):
            raise ExpungeError(
                f"{path.parent} cannot be written ({error}). Trainings, deletions and purges are noted there: see that "
                "this user may write to the folder and its files, or take a copy of it."
            ) from error
        raise ExpungeError(
            f"{path.parent} is being written by another process, or is open twice in this one; one may write at "
            "a time. Wait until it ends, or close the other."
        ) from error
    return lock
