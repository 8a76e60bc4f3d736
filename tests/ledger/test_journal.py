"""Journal: what goes in comes out, by step and by id; rewinding, purging, and refusals."""

from __future__ import annotations

import os
import random
import sqlite3

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge import ExpungeError
from expunge.artifact.ledger import ids as id_sets
from expunge.artifact.ledger.journal import Entry, Journal


def payload(step, size=300):
    """Bytes that are found nowhere else."""
    return b"" if step % 5 == 0 else random.Random(step).randbytes(size + step)


def entry(step, ids=None):
    return Entry(step, [step % 7, f"row {step % 3}", step] if ids is None else ids, payload(step), {"lr": step / 8})


def filled(folder, count, **options):
    journal = Journal(folder, **options)
    for step in range(journal.last + 1, count + 1):
        journal.append(entry(step))
    journal.commit()
    return journal


def content(journal):
    """All that can be asked of a journal."""
    steps = journal.steps().tolist()
    there = [s for s in steps if not journal.about(s).get("purged")]
    return {
        "records": list(journal.read(there)),
        "abouts": journal.abouts(steps),
        "ids": [journal.ids_of([s]) for s in steps],
        "bytes": [journal.bytes_of([s]) for s in steps],
    }


def raw(folder):
    """The bytes of every file of the folder, whatever it is called."""
    return b"\n".join(path.read_bytes() for path in sorted(folder.iterdir()))


def tables(folder):
    sql = sqlite3.connect(folder / "index.sqlite")
    found = [sql.execute(f"SELECT * FROM {name} ORDER BY 1").fetchall() for name in ("steps", "ids", "state")]
    sql.close()
    return found


def shards(folder):
    return {path.name: path.read_bytes() for path in folder.glob("shard-*")}


# -- in and out ------------------------------------------------------------------------------------------------


def test_what_goes_in_comes_out_also_of_another_journal(tmp_path):
    journal = filled(tmp_path, 12, shard_bytes=1000)
    assert len(shards(tmp_path)) > 2
    for _ in range(2):
        assert journal.last == 12
        assert journal.steps().tolist() == list(range(1, 13))
        assert list(journal.read(journal.steps())) == [(s, payload(s)) for s in range(1, 13)]
        assert list(journal.read([9, 2, 9])) == [(2, payload(2)), (9, payload(9))]
        assert journal.abouts([3, 1]) == [{"lr": 1 / 8}, {"lr": 3 / 8}]
        assert journal.about(5) == {"lr": 5 / 8}
        assert journal.bytes_of(range(1, 13)) == sum(len(payload(s)) for s in range(1, 13))
        assert journal.bytes_of([5]) == 0
        assert journal.verify() == []
        journal.close()
        journal = Journal(tmp_path, read_only=True)


def test_a_step_counts_from_its_commit(tmp_path):
    journal = filled(tmp_path, 3)
    journal.append(entry(4))
    assert journal.last == 3
    assert journal.steps().tolist() == [1, 2, 3]
    assert Journal(tmp_path, read_only=True).last == 3
    journal.commit()
    assert Journal(tmp_path, read_only=True).last == journal.last == 4


def test_a_commit_brings_the_shard_to_the_disk_before_the_index_names_it(tmp_path, monkeypatch):
    """Told by the system call: whenever the disk is asked, the index names nothing that was not there before."""
    synced, real = {}, os.fsync

    def watched(handle):
        check()
        real(handle)
        name = os.path.basename(os.readlink(f"/proc/self/fd/{handle}"))
        synced[name] = max(synced.get(name, 0), os.fstat(handle).st_size)

    def check():
        if (tmp_path / "index.sqlite").exists():
            sql = sqlite3.connect(tmp_path / "index.sqlite")
            query = "SELECT shard, MAX(offset + 24 + length) FROM steps WHERE shard >= 0 GROUP BY 1"
            for shard, end in sql.execute(query):
                assert end <= synced[f"shard-{shard:08d}.led"]
            sql.close()

    journal = filled(tmp_path, 1)
    synced.update({path.name: path.stat().st_size for path in tmp_path.glob("shard-*")})
    monkeypatch.setattr(os, "fsync", watched)
    journal.close()
    journal = Journal(tmp_path, shard_bytes=900)
    for step in range(2, 12):
        journal.append(entry(step))
        if step % 3 == 0:
            journal.commit()
            check()
    journal.purge([2, 3])
    check()
    assert len(synced) > 3


def test_state_is_seen_at_once_and_kept_with_the_next_commit(tmp_path):
    journal = filled(tmp_path, 2)
    journal.put("marks", {"2": [1, "a"]})
    assert journal.get("marks") == {"2": [1, "a"]}
    assert Journal(tmp_path, read_only=True).get("marks", "none") == "none"
    journal.commit()
    assert Journal(tmp_path, read_only=True).get("marks") == {"2": [1, "a"]}
    journal.put("marks", None)
    journal.rewind(1)
    assert Journal(tmp_path, read_only=True).get("marks", "none") is None
    journal.put("more", 1)
    journal.close()
    assert Journal(tmp_path, read_only=True).get("more") == 1


# -- ids -------------------------------------------------------------------------------------------------------


def test_integers_and_strings_stay_apart_and_arrays_are_integers(tmp_path):
    journal = Journal(tmp_path)
    journal.append(Entry(1, np.array([7, 8]), b"a"))
    journal.append(Entry(2, ["7", np.str_("nine")], b"b"))
    journal.append(Entry(3, torch.tensor([7, -5, 7]), b"c"))
    journal.append(Entry(4, [np.int32(8), np.uint8(7), torch.tensor(3), (1 << 63) - 1, -(1 << 63)], b"d"))
    journal.append(Entry(5, [], b"e"))
    journal.close()
    journal = Journal(tmp_path, read_only=True)
    assert journal.steps([7]).tolist() == [1, 3, 4]
    assert journal.steps(["7"]).tolist() == [2]
    assert journal.steps(np.array([8, -5])).tolist() == [1, 3, 4]
    assert journal.unknown([7, "8", "7", 9, "nine", 7]) == ["8", 9]
    assert journal.ids_of([2, 3]) == [7, "7", "nine", -5]
    assert all(type(i) in (int, str) for i in journal.ids_of(journal.steps()))
    assert journal.ids_of([4])[-2:] == [(1 << 63) - 1, -(1 << 63)]
    assert journal.ids_of([5]) == []


@pytest.mark.parametrize("bad", [[True], [1.0], [None], [1 << 63], ["\ud800"], [np.bool_(True)], "abc", [(1, 2)]])
def test_other_things_are_not_ids(tmp_path, bad):
    journal = filled(tmp_path, 1)
    with pytest.raises(ExpungeError, match=r"[Ii]ds"):
        journal.append(Entry(2, bad, b"x"))
    with pytest.raises(ExpungeError, match=r"[Ii]ds"):
        journal.steps(bad)
    journal.append(entry(2))
    journal.close()
    assert Journal(tmp_path, read_only=True).verify() == []


def test_steps_of_ids_are_those_of_a_search_through_all(tmp_path):
    rng = np.random.default_rng(0)
    journal = Journal(tmp_path)
    used = []
    for step in range(1, 400):
        size = int(rng.integers(0, 40))
        spread = int(rng.choice([20, 3000, 10**9]))  # gaps of one byte and of several numbers of bytes
        numbers = rng.integers(0, spread, size).tolist()
        used.append([n if n % 2 else f"id {n}" for n in numbers])
        journal.append(Entry(step, used[-1], b""))
    journal.commit()
    everyone = list(dict.fromkeys(i for some in used for i in some))
    for count in (0, 1, 3, 50, 2000, len(everyone)):
        asked = [everyone[i] for i in rng.permutation(len(everyone))[:count]]
        expected = [s for s, some in enumerate(used, start=1) if set(some) & set(asked)]
        assert journal.steps(asked).tolist() == expected
        assert journal.steps([*asked, "never seen", -1]).tolist() == expected
        union = set().union(*(used[s - 1] for s in expected))
        assert journal.ids_of(expected) == [i for i in everyone if i in union]  # in the order of first use
    assert journal.unknown(["never seen", everyone[0], -1]) == ["never seen", -1]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sets(st.integers(0, 1 << 40) | st.integers(0, 300)), max_size=8))
def test_packed_sets_are_unpacked(sets):
    numbers, owners = id_sets.unpack([id_sets.pack(list(s) * 2) for s in sets])
    for i, expected in enumerate(sets):
        assert numbers[owners == i].tolist() == sorted(expected)
    assert len(numbers) == sum(map(len, sets))


def test_a_batch_of_fifty_thousand_takes_two_bytes_a_row():
    rng = np.random.default_rng(0)
    assert len(id_sets.pack(rng.permutation(50_000)[:128])) == 257


# -- rewind ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [0, 1, 4, 7, 9])
def test_rewound_and_written_again_is_as_if_the_steps_had_never_been(tmp_path, step):
    options = {"shard_bytes": 1000}
    journal = filled(tmp_path / "a", step, **options)
    for other in range(step + 1, 10):
        journal.append(Entry(other, [f"lost {other}", other], b"lost" * 90, {"lr": 9}))
    journal.commit()
    journal.append(Entry(10, ["pending"], b"pending", {}))
    journal.rewind(step)
    assert journal.last == step
    assert journal.unknown(["lost 9", "pending"]) == ["lost 9", "pending"]
    assert b"lost" not in b"".join(shards(tmp_path / "a").values())
    for again in range(step + 1, 12):
        journal.append(entry(again))
    journal.close()
    filled(tmp_path / "b", 11, **options).close()
    assert tables(tmp_path / "a") == tables(tmp_path / "b")
    assert shards(tmp_path / "a") == shards(tmp_path / "b")


def test_rewinding_to_a_step_that_is_not_committed_yet_commits_it(tmp_path):
    journal = filled(tmp_path, 2)
    for step in (3, 4):
        journal.append(entry(step))
    journal.rewind(3)
    assert Journal(tmp_path, read_only=True).last == 3
    for wrong in (-1, 4):
        with pytest.raises(ExpungeError, match=rf"holds 3 steps and cannot be rewound to step {wrong}"):
            journal.rewind(wrong)


# -- purge -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gone", [[1], [4], [12], [2, 3, 7], [1, 2, 3, 4], list(range(1, 13))])
def test_purged_bytes_and_ids_are_in_no_file_and_the_rest_is_as_before(tmp_path, gone):
    journal = filled(tmp_path, 12, shard_bytes=1000)
    people = [f"row {i}" for i in (0, 2)]
    before = content(journal)
    sizes = sum(map(len, shards(tmp_path).values()))
    assert all(payload(s) in raw(tmp_path) for s in gone)
    assert all(person.encode() in raw(tmp_path) for person in people)
    freed = journal.purge(gone, [*people, "never seen"])
    for view in (journal, Journal(tmp_path, read_only=True)):
        assert view.steps().tolist() == list(range(1, 13))
        assert view.verify() == []
        after = content(view)
        assert after["records"] == [(s, p) for s, p in before["records"] if s not in gone]
        for step in range(1, 13):
            about = {"lr": step / 8, "purged": True} if step in gone else {"lr": step / 8}
            assert after["abouts"][step - 1] == about
            assert after["bytes"][step - 1] == (0 if step in gone else before["bytes"][step - 1])
            assert after["ids"][step - 1] == [i for i in before["ids"][step - 1] if i not in people]
        assert view.unknown([*people, "row 1"]) == people
        assert not view.steps(people).size
    found = raw(tmp_path)  # with the journal open: its write-ahead log as well
    assert not [s for s in gone if payload(s) and payload(s)[20:60] in found]
    assert not [p for p in people if p.encode() in found]
    assert b"row 1" in found
    assert freed == sizes - sum(map(len, shards(tmp_path).values())) == sum(24 + len(payload(s)) for s in gone)


def test_after_a_purge_it_goes_on_and_purging_again_does_nothing(tmp_path):
    journal = filled(tmp_path, 9, shard_bytes=1000)
    journal.purge([2, 9], ["row 2"])
    before = content(journal)
    assert journal.purge([2, 9], ["row 2"]) == 0
    assert content(journal) == before
    for step in (10, 11):
        journal.append(Entry(step, [f"new {step}", "row 2"], payload(step)))
    journal.close()
    journal = Journal(tmp_path)
    assert journal.verify() == []
    assert list(journal.read([1, 10, 11])) == [(s, payload(s)) for s in (1, 10, 11)]
    assert journal.steps(["row 2"]).tolist() == [10, 11]
    with pytest.raises(ExpungeError, match=r"payload of 2 steps \(2, 9\) was purged"):
        journal.read([1, 2, 9, 10])
    journal.rewind(1)
    assert journal.unknown(["new 10", "row 2", 1]) == ["new 10", "row 2"]


def test_lists_said_of_a_purged_step_go_with_it(tmp_path):
    journal = Journal(tmp_path)
    journal.append(Entry(1, ["anna"], b"a", {"lr": 1.0, "rows": ["anna"], "skipped": False}))
    journal.purge([1], ["anna"])
    assert journal.about(1) == {"lr": 1.0, "skipped": False, "purged": True}
    assert b"anna" not in raw(tmp_path)


def test_a_damaged_neighbour_does_not_keep_a_step_from_being_purged(tmp_path):
    filled(tmp_path, 3).close()
    (path,) = tmp_path.glob("shard-*")
    path.write_bytes(path.read_bytes()[:-10])
    journal = Journal(tmp_path)
    journal.purge([1])
    assert payload(1)[:40] not in raw(tmp_path)
    assert list(journal.read([2])) == [(2, payload(2))]
    (problem,) = journal.verify()
    assert "step 3 " in problem


# -- refusals --------------------------------------------------------------------------------------------------


def test_steps_come_without_gaps(tmp_path):
    journal = filled(tmp_path, 2)
    for wrong in (2, 4, 0):
        with pytest.raises(ExpungeError, match=f"Step {wrong} was given .* step 3 is next"):
            journal.append(entry(wrong))


def test_steps_that_are_not_there_are_named(tmp_path):
    journal = filled(tmp_path, 4)
    for ask in (journal.read, journal.bytes_of, journal.abouts, journal.ids_of, journal.purge):
        with pytest.raises(ExpungeError, match=r"holds the steps 1 to 4, and not 2 steps \(0, 5\)"):
            ask([0, 3, 5])


def test_what_is_not_plain_data_is_refused(tmp_path):
    journal = filled(tmp_path, 1)
    with pytest.raises(ExpungeError, match="about of step 2 must be plain data"):
        journal.append(Entry(2, [1], b"", {"lr": torch.tensor(1.0)}))
    with pytest.raises(ExpungeError, match="'key' must be plain data"):
        journal.put("key", {1, 2})
    with pytest.raises(ExpungeError, match="shard_bytes"):
        Journal(tmp_path / "b", shard_bytes=0)
    with pytest.raises(ExpungeError, match="no ledger"):
        Journal(tmp_path / "c", read_only=True)
    assert not (tmp_path / "c").exists()
    with pytest.raises(ExpungeError, match="could not be opened"):
        Journal(next(tmp_path.glob("shard-*")))


def test_read_only_refuses_to_write_and_closed_refuses_all(tmp_path):
    filled(tmp_path, 2).close()
    journal = Journal(tmp_path, read_only=True)
    for change in (
        lambda: journal.append(entry(3)),
        journal.commit,
        lambda: journal.rewind(1),
        lambda: journal.purge([1]),
    ):
        with pytest.raises(ExpungeError, match="read-only"):
            change()
    journal.close()
    journal.close()
    with pytest.raises(ExpungeError, match="closed"):
        journal.steps()


def test_an_index_of_another_format_or_none_beside_shards_is_refused(tmp_path):
    filled(tmp_path / "a", 2).close()
    sql = sqlite3.connect(tmp_path / "a" / "index.sqlite")
    sql.execute("PRAGMA user_version = 9")
    sql.close()
    filled(tmp_path / "b", 2).close()
    (tmp_path / "b" / "index.sqlite").unlink()
    for folder, match in (("a", "format 1 but 9"), ("b", "holds shards")):
        before = shards(tmp_path / folder)
        with pytest.raises(ExpungeError, match=match):
            Journal(tmp_path / folder)
        assert shards(tmp_path / folder) == before
