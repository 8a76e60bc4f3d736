"""Writer: the thread behind a training that encodes, appends and commits, while the training goes on."""

from __future__ import annotations

import atexit
import threading
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from expunge.artifact.ledger.journal import Entry, Journal
from expunge.errors import ExpungeError

_AT_EXIT = 10.0  # seconds a program that was not closed waits for its last steps


class Writer:
    """A thread that makes entries in the order they are given, and brings them to the disk.

    What cannot be written yet holds the training up; nothing is dropped. In memory there are at most `most` entries
    that were taken, and the one that waits to be.

    Args:
        journal: where they go; opened for writing. It stays open.
        most: entries taken and not yet written, 1 or more. Default 8.
        commit_every: seconds after which what was written is committed, 0 or more; a kill loses no more than that,
            and the resumed training repeats it from its checkpoint. Default 1: a commit waits for the disk.
        on_error: `"stop"` (default): a failure is raised at the next call; `"go_on"`: the ledger ends there, `ended`
            says so, a warning is given once, and later entries are passed over.

    Raises:
        ExpungeError: settings out of range.
    """

    def __init__(self, journal: Journal, *, most: int = 8, commit_every: float = 1.0, on_error: str = "stop") -> None:
        if most < 1 or not commit_every >= 0 or on_error not in ("stop", "go_on"):
            raise ExpungeError(
                f"A writer needs most of 1 or more, commit_every of 0 or more and on_error stop or go_on; "
                f"got {most!r}, {commit_every!r} and {on_error!r}."
            )
        self.journal, self.most, self.commit_every, self.on_error = journal, most, commit_every, on_error
        self.ended: tuple[int, str] | None = None  # the step at which the ledger ends, and why, after a failure
        self._change = threading.Condition()
        self._queue: deque[Callable[[], Entry]] = deque()
        self._taken = self._written = self._safe = 0  # entries so far: given, appended, committed
        self._hurry = 0  # how many someone waits for
        self._closing = self._told = False
        # a program that ends without close is not held up for ever
        self._thread = threading.Thread(target=self._work, name="ledger", daemon=True)
        threads, self._alone = torch.get_num_threads(), threading.Event()
        self._thread.start()
        self._alone.wait()
        torch.set_num_threads(threads)  # what the thread asked for itself was partly for all
        atexit.register(self._at_exit)

    def put(self, make: Callable[[], Entry]) -> None:
        """Hand over what makes the next entry, called in the thread; waits while `most` are not yet written.

        Raises:
            ExpungeError: an earlier entry could not be made or written; or the writer is closed.
        """
        with self._change:
            if self._closing:
                raise ExpungeError("The ledger's writer is closed; nothing more can be recorded.")
            self._change.wait_for(lambda: self._taken - self._written < self.most or self._over())
            if self._over():
                self._tell()
                return
            self._queue.append(make)
            self._taken += 1
            self._change.notify_all()

    def sync(self) -> None:
        """Return when all that was put is on the disk.

        Raises:
            ExpungeError: it could not be brought there.
        """
        with self._change:
            wanted = self._hurry = self._taken
            self._change.notify_all()
            self._change.wait_for(lambda: self._safe >= wanted or self._over())
            if self._safe < wanted or self.ended:
                self._tell()

    def close(self) -> None:
        """Bring everything to the disk and end the thread; a second time does nothing.

        Raises:
            ExpungeError: it could not be brought there, and no other call has said so yet.
        """
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        atexit.unregister(self._at_exit)
        with self._change:
            if not self._told and (self.ended or self._safe < self._taken):
                self._tell()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Whatever else the disk refuses is told as `on_error` says: raised, or warned of once."""
        try:
            yield
        except ExpungeError as error:
            if self.on_error == "stop":
                raise
            self._warn(str(error))

    def _over(self) -> bool:
        """Whether nothing is written any more; in a forked process the thread is not there."""
        return self.ended is not None or not self._thread.is_alive()

    def _tell(self) -> None:
        step, why = self.ended or (self.journal.last, "its thread is not running in this process.")
        message = f"The ledger {self.journal.folder} ends at step {step}: {why}"
        if self.on_error == "stop":
            self._told = True
            raise ExpungeError(message)
        self._warn(message)

    def _warn(self, message: str) -> None:
        told, self._told = self._told, True
        if not told:
            warnings.warn(f"{message} Training goes on without it.", stacklevel=4)

    # -- in the thread -----------------------------------------------------------------------------------------

    def _work(self) -> None:
        # PyTorch's helpers sleep between operations once they are more than the cores, and the training would have to
        # wake them each time: this thread must have none.
        torch.get_num_threads()  # sets the thread up, which would happen later and undo the next line
        torch.set_num_threads(1)
        self._alone.set()
        try:
            self._write_all()
        except BaseException as error:  # also an interrupt: who waits must hear of it
            self._end(error)

    def _write_all(self) -> None:
        due = time.monotonic() + self.commit_every
        while True:
            with self._change:
                waiting = self._written > self._safe
                self._change.wait_for(self._called, max(due - time.monotonic(), 0) if waiting else None)
                make = self._queue.popleft() if self._queue else None
                last = self._closing and make is None
            if make is not None:
                self.journal.append(make())
                del make  # with the weights it holds, before the next is taken
                if self._written == self._safe:
                    due = time.monotonic() + self.commit_every
                self._count(written=self._written + 1)
            if self._written > self._safe and (time.monotonic() >= due or self._asked() or last):
                self.journal.commit()
                self._count(safe=self._written)
            if last:
                return

    def _called(self) -> bool:
        return bool(self._queue) or self._closing or self._asked()

    def _asked(self) -> bool:
        return self._written >= self._hurry > self._safe

    def _count(self, written: int | None = None, safe: int | None = None) -> None:
        with self._change:
            self._written = self._written if written is None else written
            self._safe = self._safe if safe is None else safe
            self._change.notify_all()

    def _end(self, error: BaseException) -> None:
        with suppress(ExpungeError):
            self.journal.commit()  # what came before the failure
        why = str(error) if isinstance(error, ExpungeError) else f"{type(error).__name__}: {error}"
        with suppress(ExpungeError):
            self.journal.put("ended", [self.journal.last, why])
            self.journal.commit()
        with self._change:
            self.ended = (self.journal.last, why)
            self._queue.clear()
            self._change.notify_all()

    def _at_exit(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join(_AT_EXIT)
        if self._safe < self._taken and not self._told:
            warnings.warn(f"The ledger {self.journal.folder} was not closed, and lacks its last steps.", stacklevel=1)
