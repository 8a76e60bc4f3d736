"""Writer: order, what it holds in memory, when it commits, and how it fails."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import weakref

import pytest

from expunge import ExpungeError
from expunge.artifact.ledger.journal import Entry, Journal
from expunge.artifact.ledger.writer import Writer


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path)
    yield journal
    journal.close()


def entry(step):
    return Entry(step, [step], bytes([step % 256]) * 50)


def safe(journal):
    return Journal(journal.folder, read_only=True).last


def until(true, seconds=10.0):
    end = time.monotonic() + seconds
    while not true() and time.monotonic() < end:
        time.sleep(0.005)
    return true()


def test_entries_are_made_in_the_thread_in_order_and_are_there_after_sync(journal):
    where = []
    writer = Writer(journal, commit_every=1000)
    for step in range(1, 101):
        writer.put(lambda step=step: (where.append((step, threading.get_ident())), entry(step))[1])
        if step == 40:
            writer.sync()
            assert safe(journal) == 40
            writer.sync()  # with nothing to do
    assert safe(journal) == 40
    writer.close()
    assert safe(journal) == 100
    assert [s for s, _ in where] == list(range(1, 101))
    assert {t for _, t in where} == {where[0][1]} != {threading.get_ident()}
    assert journal.verify() == []
    writer.close()
    with pytest.raises(ExpungeError, match="closed"):
        writer.put(lambda: entry(101))


def test_it_commits_by_itself_after_the_time_and_not_before(journal):
    writer = Writer(journal, commit_every=0.4)
    began = time.monotonic()
    writer.put(lambda: entry(1))
    assert until(lambda: safe(journal) == 1)
    assert time.monotonic() - began > 0.39
    writer.put(lambda: entry(2))  # and again, with a clock of its own
    assert until(lambda: safe(journal) == 2)
    writer.close()


@pytest.mark.parametrize("most", [1, 3])
def test_put_waits_and_no_more_than_that_many_are_held(journal, most):
    """The memory of the queue: what the makers hold is let go before the next is taken."""

    class Update:
        pass

    go, alive, largest = threading.Semaphore(0), weakref.WeakSet(), []
    writer = Writer(journal, most=most)

    def make(step, update):
        go.acquire()
        largest.append(len(alive))
        return entry(step)

    def train():
        for step in range(1, 21):
            update = Update()
            alive.add(update)
            writer.put(lambda step=step, update=update: make(step, update))
            given.append(step)
            del update

    given = []
    thread = threading.Thread(target=train)
    thread.start()
    assert until(lambda: len(given) == most)
    time.sleep(0.05)
    assert len(given) == most  # held up
    go.release(3)
    assert until(lambda: len(given) == most + 3)
    go.release(100)
    thread.join()
    writer.close()
    assert safe(journal) == 20  # and none dropped
    assert len(largest) == 20
    assert max(largest) <= most + 1  # those taken, and the one that waits to be
    assert not alive


def broken():
    raise RuntimeError("no room for the update")


def test_a_failure_is_raised_at_the_next_call_and_what_came_before_is_safe(journal):
    writer = Writer(journal, commit_every=1000)
    for step in (1, 2):
        writer.put(lambda step=step: entry(step))
    writer.put(broken)
    with pytest.raises(ExpungeError, match="ends at step 2: RuntimeError: no room for the update"):
        writer.sync()
    with pytest.raises(ExpungeError, match="ends at step 2"):
        writer.put(lambda: entry(3))
    assert writer.ended == (2, "RuntimeError: no room for the update")
    assert safe(journal) == 2
    assert journal.get("ended") == [2, "RuntimeError: no room for the update"]
    writer.close()  # it has been said

    writer = Writer(journal)
    writer.put(lambda: entry(9))
    with pytest.raises(ExpungeError, match=r"Step 9 was given .* step 3 is next"):
        writer.close()  # it had not


def test_a_failure_wakes_those_who_wait(journal):
    go = threading.Event()
    writer = Writer(journal, most=1)
    writer.put(lambda: (go.wait(), broken()))
    raised = []

    def wait(call):
        with pytest.raises(ExpungeError, match="no room"):
            call()
        raised.append(call)

    threads = [threading.Thread(target=wait, args=(c,)) for c in (writer.sync, lambda: writer.put(lambda: entry(1)))]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert not raised
    go.set()
    for thread in threads:
        thread.join(10)
    assert len(raised) == 2


def test_going_on_warns_once_and_passes_later_entries_over(journal, monkeypatch):
    writer = Writer(journal, on_error="go_on")
    writer.put(lambda: entry(1))
    writer.sync()
    real = os.fsync

    def refuse(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", refuse)
    writer.put(lambda: entry(2))
    with pytest.warns(UserWarning, match=r"ends at step 1: .*No space left on device.* Training goes on without it"):
        writer.sync()
    for step in (3, 4):
        writer.put(lambda step=step: entry(step))
    writer.sync()
    monkeypatch.setattr(os, "fsync", real)
    writer.close()
    assert writer.ended is not None
    assert writer.ended[0] == 1
    journal.close()
    again = Journal(journal.folder)
    assert again.last == 1
    assert again.verify() == []
    again.close()


@pytest.mark.parametrize(
    "wrong", [{"most": 0}, {"commit_every": -1.0}, {"commit_every": float("nan")}, {"on_error": "x"}]
)
def test_settings_out_of_range_are_refused(journal, wrong):
    with pytest.raises(ExpungeError, match="A writer needs"):
        Writer(journal, **wrong)


def test_a_program_that_ends_without_close_writes_what_it_has_and_does_not_hang(tmp_path):
    """The first writer can finish; the second waits for something that never comes."""
    program = f"""
import threading
from pathlib import Path
from expunge.artifact.ledger import writer as module
from expunge.artifact.ledger.journal import Entry, Journal
module._AT_EXIT = 3
one = module.Writer(Journal(Path({str(tmp_path / "a")!r})), commit_every=1000)
two = module.Writer(Journal(Path({str(tmp_path / "b")!r})), commit_every=1000)
for step in range(1, 6):
    one.put(lambda step=step: Entry(step, [step], b"x"))
two.put(lambda: threading.Event().wait())
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert Journal(tmp_path / "a", read_only=True).last == 5
    assert Journal(tmp_path / "b", read_only=True).last == 0
    assert f"{tmp_path / 'b'} was not closed" in done.stderr
    assert str(tmp_path / "a") not in done.stderr
