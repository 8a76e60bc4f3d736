"""Killed, torn, full and flipped: what is committed stays, and what is lost is named."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys
import time
from contextlib import suppress

import pytest

from expunge import ExpungeError
from expunge.artifact.ledger.journal import Entry, Journal
from expunge.artifact.ledger.writer import Writer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="processes are forked and killed")

CALLS = {"execute", "executemany", "fsync", "write", "truncate", "unlink", "open"}


def payload(step):
    return b"" if step % 11 == 0 else random.Random(step).randbytes(200 + 37 * (step % 50))


def ids(step):
    return [step % 13, f"row {step % 4}"]


def entry(step):
    return Entry(step, ids(step), payload(step), {"lr": step})


def filled(folder, count):
    journal = Journal(folder, shard_bytes=900)
    for step in range(journal.last + 1, count + 1):
        journal.append(entry(step))
    journal.commit()
    return journal


def whole(folder):
    """The number of steps, after seeing that each of them is there as it was given."""
    journal = Journal(folder, read_only=True)
    last = journal.last
    assert journal.verify() == []
    assert journal.steps().tolist() == list(range(1, last + 1))
    assert list(journal.read(journal.steps())) == [(s, payload(s)) for s in range(1, last + 1)]
    assert all(set(journal.ids_of([s])) == set(ids(s)) for s in range(1, last + 1))
    assert [a["lr"] for a in journal.abouts(journal.steps())] == list(range(1, last + 1))
    return last


def forked(work):
    """Run in a process of its own, which never comes back here; the process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    except BaseException as error:
        os.write(2, f"{type(error).__name__}: {error}\n".encode())
    finally:
        os._exit(code)


def ended(child):
    """The signal that ended a process, or minus its exit code."""
    _, status = os.waitpid(child, 0)
    return os.WTERMSIG(status) if os.WIFSIGNALED(status) else -os.WEXITSTATUS(status)


def die_at(count):
    """Kill this process before its count-th call into the system or SQLite, which is after the one before it."""
    left = [count]

    def watch(frame, event, called):
        if event == "c_call" and called.__name__ in CALLS:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(watch)


# -- killed ----------------------------------------------------------------------------------------------------


def write_on(folder, pipe, rng, behind):
    """Append for ever, saying after each commit which step is safe."""
    journal = Journal(folder, shard_bytes=4000)
    writer = Writer(journal, commit_every=0.003) if behind else None
    step = journal.last
    while True:
        step += 1
        if writer:
            writer.put(lambda step=step: entry(step))
        else:
            journal.append(entry(step))
        if rng.random() < 0.2:
            (writer.sync if writer else journal.commit)()
            os.write(pipe, step.to_bytes(4, "little"))
        if rng.random() < 0.2:
            time.sleep(rng.random() * 0.004)


@pytest.mark.parametrize("behind", [False, True], ids=["journal", "writer"])
def test_killed_at_any_moment_no_committed_step_is_lost(tmp_path, behind):
    rng = random.Random(behind)
    safe, torn, kill = 0, 0, 0
    while kill < 15 or (kill < 100 and not (safe > 10 and torn > 1)):  # a slow disk commits little before each kill
        kill += 1
        reading, writing = os.pipe()
        child = forked(lambda w=writing, seed=kill: write_on(tmp_path, w, random.Random(seed), behind))
        time.sleep(0.03 + 0.06 * rng.random())
        os.kill(child, signal.SIGKILL)
        assert ended(child) == signal.SIGKILL
        os.close(writing)
        with open(reading, "rb") as pipe:
            said = pipe.read()
        safe = max([safe, *(int.from_bytes(said[i : i + 4], "little") for i in range(0, len(said), 4))])
        if (tmp_path / "index.sqlite").exists():
            with suppress(ExpungeError):  # killed before the first table was there
                problems = Journal(tmp_path, read_only=True).verify()
                assert all("belong to no committed step" in p for p in problems)
                torn += bool(problems)
        Journal(tmp_path).close()  # no lock is left, and torn bytes go
        safe = max(safe, kept := whole(tmp_path))
        assert kept >= safe
    assert safe > 10
    assert torn > 1


@pytest.mark.parametrize("work", ["append", "rewind", "purge"])
def test_killed_between_any_two_calls_it_is_as_before_or_as_after(tmp_path, work):
    """Every call into the system or SQLite is one moment to die at."""
    gone = [2, 3, 7]
    seen = set()
    filled(tmp_path / "start", 9).close()
    for count in range(1, 1000):
        folder = tmp_path / str(count)
        shutil.copytree(tmp_path / "start", folder)

        def change(folder=folder, count=count):
            journal = Journal(folder, shard_bytes=900)
            die_at(count)
            if work == "append":
                journal.append(entry(10))
                journal.append(entry(11))
                journal.commit()
            elif work == "rewind":
                journal.rewind(4)
            else:
                journal.purge(gone, ["row 2"])
            sys.setprofile(None)

        how = ended(forked(change))
        again = Journal(folder)
        found = b"\n".join(path.read_bytes() for path in folder.iterdir())  # with the write-ahead log
        again.close()
        journal = Journal(folder, read_only=True)
        assert journal.verify() == []
        if work != "purge":
            seen.add(whole(folder))
        else:
            purged = [s for s in range(1, 10) if journal.about(s).get("purged")]
            there = [s for s in range(1, 10) if s not in purged]
            assert list(journal.read(there)) == [(s, payload(s)) for s in there]
            assert journal.last == 9
            assert purged in ([], gone)
            assert journal.unknown(["row 2", "row 1"]) == (["row 2"] if purged else [])
            if purged:
                assert not [s for s in gone if payload(s)[:40] in found]
                assert b"row 2" not in found
            seen.add(len(purged))
        if how == 0:
            break
        assert how == signal.SIGKILL
    assert how == 0
    assert count > 12
    assert seen == {"append": {9, 11}, "rewind": {9, 4}, "purge": {0, 3}}[work]


def test_one_writes_at_a_time_and_a_killed_one_leaves_no_lock(tmp_path):
    reading, writing = os.pipe()

    def hold():
        journal = filled(tmp_path, 3)
        forked(lambda: time.sleep(3))  # as a loader's worker, which may outlive the training
        os.write(writing, b"x")
        time.sleep(60)
        journal.close()

    child = forked(hold)
    os.read(reading, 1)
    with pytest.raises(ExpungeError, match="being written by another process"):
        Journal(tmp_path)
    assert whole(tmp_path) == 3
    os.kill(child, signal.SIGKILL)
    ended(child)
    journal = Journal(tmp_path)
    with pytest.raises(ExpungeError, match="open twice in this one"):
        Journal(tmp_path)

    def use():
        with pytest.raises(ExpungeError, match="by another process"):
            journal.append(entry(4))
        with pytest.raises(ExpungeError, match="by another process"):
            journal.steps()
        journal.close()  # of no effect there

    assert ended(forked(use)) == 0
    journal.append(entry(4))
    journal.close()
    assert whole(tmp_path) == 4


@pytest.mark.parametrize("state", ["closed", "open", "killed"])
def test_read_only_changes_no_file(tmp_path, state):
    journal = None
    if state == "killed":
        child = forked(lambda: (filled(tmp_path, 8), os.kill(os.getpid(), signal.SIGKILL)))
        assert ended(child) == signal.SIGKILL
        (path,) = [p for p in tmp_path.glob("shard-*") if p == max(tmp_path.glob("shard-*"))]
        path.write_bytes(path.read_bytes() + b"torn")
    else:
        journal = filled(tmp_path, 8)
        if state == "closed":
            journal.close()

    def files():  # what SQLite shares between processes is no file of ours
        found = [p for p in tmp_path.iterdir() if not p.name.endswith("-shm")]
        return {p.name: (p.stat().st_mtime_ns, p.stat().st_size) for p in found}

    before = files()
    other = Journal(tmp_path, read_only=True)
    assert other.last == 8
    assert len(list(other.read(other.steps()))) == 8
    assert len(other.verify()) == (state == "killed")
    other.close()
    assert files() == before
    if state == "open":
        journal.append(entry(9))
        journal.close()
        assert whole(tmp_path) == 9


# -- full ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "shard"), [(50_000, 64 << 20), (10, 200)], ids=["shard", "index"])
def test_a_full_disk_ends_the_ledger_at_the_step_it_names(tmp_path, size, shard):
    """The system refuses to let files grow: that of the shard, or the journal of the index."""
    reading, writing = os.pipe()

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
        journal = Journal(tmp_path, shard_bytes=shard)
        step = 0
        error = ""
        while not error and step < 10_000:
            step += 1
            try:
                journal.append(Entry(step, [step], bytes(size), {}))
                if step % 2 == 0:
                    journal.commit()
            except ExpungeError as caught:
                error = str(caught)
        assert f"ends at step {journal.last}," in error
        assert step - 2 <= journal.last < step
        with pytest.raises(ExpungeError, match="could not be"):
            journal.append(Entry(journal.last + 1, [1], b"", {}))
        assert len(list(journal.read(journal.steps()))) == journal.last
        os.write(writing, str(journal.last).encode())

    assert ended(forked(fill)) == 0
    last = int(os.read(reading, 20))
    assert last > 3
    journal = Journal(tmp_path)
    assert journal.last == last
    assert journal.verify() == []
    journal.append(Entry(last + 1, [1], bytes(size), {}))
    journal.commit()
    assert list(journal.read([last, last + 1])) == [(last, bytes(size)), (last + 1, bytes(size))]


def test_after_a_failure_it_can_be_rewound_and_go_on(tmp_path, monkeypatch):
    """The disk refuses once: the system's own call says so."""
    journal = filled(tmp_path, 3)
    journal.append(entry(4))

    def refuse(handle):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(ExpungeError, match=r"Steps 4 to 4 could not be committed .*No space left.* ends at step 3"):
            journal.commit()
    assert journal.last == 3
    journal.put("ended", 3)
    journal.commit()
    with pytest.raises(ExpungeError, match="ends at step 3"):
        journal.append(entry(4))
    journal.rewind(3)
    journal.append(entry(4))
    journal.close()
    assert whole(tmp_path) == 4


# -- flipped ---------------------------------------------------------------------------------------------------


def test_a_flipped_byte_of_the_index_is_found_or_changes_nothing(tmp_path):
    journal = filled(tmp_path, 9)
    journal.put("key", {"value": [1, 2]})
    journal.close()

    def content():
        journal = Journal(tmp_path, read_only=True)
        steps = journal.steps().tolist()
        found = [steps, journal.abouts(steps), [journal.ids_of([s]) for s in steps], journal.get("key")]
        found += [list(journal.read(steps)), [journal.steps([i]).tolist() for s in range(1, 14) for i in ids(s)]]
        return found, journal.unknown([*range(1, 10), "row 0", "row 3"]), journal.verify()

    before = content()
    assert before[1:] == ([], [])
    path = tmp_path / "index.sqlite"
    data = path.read_bytes()
    rng = random.Random(0)
    used = [i for i, byte in enumerate(data) if byte]  # an empty page is mostly zeros
    found = 0
    for at in [*rng.sample(used, 150), *rng.sample(range(len(data)), 50)]:
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(8))]) + data[at + 1 :])
        try:
            after = content()
        except ExpungeError:
            found += 1
            continue
        found += bool(after[2])
        assert after == before or after[2] or after[1]
    assert found > 80


def test_a_torn_tail_is_named_and_removed(tmp_path):
    filled(tmp_path, 9).close()
    path = max(tmp_path.glob("shard-*"))
    size = path.stat().st_size
    with open(path, "ab") as file:
        file.write(b"EXL1 and half a record")
    (problem,) = Journal(tmp_path, read_only=True).verify()
    assert problem.startswith(f"{path} has 22 bytes that belong to no committed step")
    Journal(tmp_path).close()
    assert path.stat().st_size == size
    assert whole(tmp_path) == 9


def test_a_lost_step_in_the_index_is_named(tmp_path):
    import sqlite3

    filled(tmp_path, 9).close()
    sql = sqlite3.connect(tmp_path / "index.sqlite", isolation_level=None)
    sql.execute("DELETE FROM steps WHERE step IN (4, 5)")
    sql.close()
    journal = Journal(tmp_path, read_only=True)
    assert any("lacks the steps 4 to 5" in p for p in journal.verify())
    with pytest.raises(ExpungeError, match="lacks step 4"):
        journal.read([3, 4])
