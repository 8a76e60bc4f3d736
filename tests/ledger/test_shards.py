"""Shards: the format byte by byte, damage, and what is removed."""

from __future__ import annotations

import struct
import zlib

import pytest

from expunge import ExpungeError
from expunge.artifact.ledger.shards import HEADER, Shards

PAYLOADS = [b"first", b"", bytes(range(40)), b"x" * 100]


def filled(folder, most=1 << 20):
    shards = Shards(folder, most)
    shards.trim({})
    places = [shards.append(step, payload) for step, payload in enumerate(PAYLOADS, start=1)]
    shards.flush()
    shards.close()
    return places


def ends(places):
    return {p.shard: p.end for p in places}


def test_the_file_is_the_documented_one(tmp_path):
    filled(tmp_path)
    expected = b""
    for step, payload in enumerate(PAYLOADS, start=1):
        head = b"EXL1" + struct.pack("<QQ", step, len(payload))
        expected += head + struct.pack("<I", zlib.crc32(head + payload)) + payload
    assert (tmp_path / "shard-00000000.led").read_bytes() == expected


def test_what_was_written_is_read_in_order_and_any_part_of_it(tmp_path):
    places = filled(tmp_path, most=120)
    assert len({p.shard for p in places}) > 1
    shards = Shards(tmp_path, 120)
    assert list(shards.read(places)) == list(enumerate(PAYLOADS, start=1))
    assert list(shards.read([places[1], places[3]])) == [(2, PAYLOADS[1]), (4, PAYLOADS[3])]


@pytest.mark.parametrize("most", [1, 60, 70, 10**6])
def test_a_shard_is_no_larger_than_asked_unless_one_record_is(tmp_path, most):
    places = filled(tmp_path, most)
    for shard, size in Shards(tmp_path, most).sizes().items():
        held = [p for p in places if p.shard == shard]
        assert size == sum(HEADER + p.length for p in held)
        assert size <= most or len(held) == 1


def test_every_flipped_byte_is_found_and_named(tmp_path):
    places = filled(tmp_path)
    path = tmp_path / "shard-00000000.led"
    whole = path.read_bytes()
    shards = Shards(tmp_path, 1)
    for at in range(len(whole)):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
        (hit,) = [p for p in places if p.offset <= at < p.end]
        (problem,) = shards.problems(places)
        assert f"step {hit.step} ({path}, byte {hit.offset}) is damaged" in problem
        with pytest.raises(ExpungeError, match=rf"step {hit.step} .*shard-00000000.led, byte {hit.offset}\)"):
            list(shards.read(places))
    path.write_bytes(whole)
    assert shards.problems(places) == []


def test_a_record_in_the_place_of_another_is_found(tmp_path):
    """Each is whole in itself, so only the index can tell."""
    shards = Shards(tmp_path, 1 << 20)
    shards.trim({})
    one, two = shards.append(1, b"abcd"), shards.append(2, b"efgh")
    path = shards.path(0)
    data = path.read_bytes()
    path.write_bytes(data[two.offset :] + data[: two.offset])
    assert len(shards.problems([one, two])) == 2


@pytest.mark.parametrize("lost", [1, 30, 124, 125, 200])
def test_a_truncated_shard_names_the_steps_that_are_lost(tmp_path, lost):
    places = filled(tmp_path)
    path = tmp_path / "shard-00000000.led"
    data = path.read_bytes()
    path.write_bytes(data[:-lost])
    hit = [p.step for p in places if p.end > len(data) - lost]
    problems = Shards(tmp_path, 1).problems(places)
    assert [int(p.split("step ")[1].split()[0]) for p in problems] == hit
    assert all("the file ends" in p for p in problems)
    with pytest.raises(ExpungeError, match=f"step {hit[0]} "):
        list(Shards(tmp_path, 1).read(places))


def test_a_missing_shard_is_named_with_its_steps(tmp_path):
    places = filled(tmp_path, most=70)
    lost = places[0].shard
    steps = [p.step for p in places if p.shard == lost]
    path = tmp_path / f"shard-{lost:08d}.led"
    path.unlink()
    (problem,) = Shards(tmp_path, 1).problems(places)
    assert f"{path} is missing" in problem
    assert f"steps {steps[0]} to {steps[-1]}" in problem
    with pytest.raises(ExpungeError, match=r"step 1 .*cannot be read"):
        list(Shards(tmp_path, 1).read(places))


def test_trimming_removes_what_no_step_has_and_goes_on_from_there(tmp_path):
    places = filled(tmp_path)
    path = tmp_path / "shard-00000000.led"
    whole = path.read_bytes()
    path.write_bytes(whole + b"torn")
    (tmp_path / "shard-00000007.led").write_bytes(b"left over")
    shards = Shards(tmp_path, 1 << 20)
    assert len(shards.problems(places)) == 2
    assert shards.trim(ends(places)) == 4 + 9
    assert path.read_bytes() == whole
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    place = shards.append(5, b"next")
    assert (place.shard, place.offset) == (0, len(whole))
    assert shards.problems([*places, place]) == []


def test_after_a_shard_that_lost_bytes_a_new_one_begins(tmp_path):
    places = filled(tmp_path)
    path = tmp_path / "shard-00000000.led"
    path.write_bytes(path.read_bytes()[:-1])
    shards = Shards(tmp_path, 1 << 20)
    shards.trim(ends(places))
    assert shards.append(5, b"next").shard == 1
    assert len(path.read_bytes()) == places[-1].end - 1


def test_a_copy_is_the_same_records_elsewhere_and_damage_stays_damage(tmp_path):
    places = filled(tmp_path, most=70)
    path = tmp_path / f"shard-{places[2].shard:08d}.led"
    data = bytearray(path.read_bytes())
    data[places[2].offset + HEADER] ^= 1
    path.write_bytes(data)
    shards = Shards(tmp_path, 70)
    shards.trim(ends(places))
    moved = shards.copy([places[0], places[2], places[3]])
    assert not {p.shard for p in moved} & {p.shard for p in places}
    shards.trim(ends(moved))
    assert list(shards.read([moved[0], moved[2]])) == [(1, PAYLOADS[0]), (4, PAYLOADS[3])]
    (problem,) = shards.problems(moved)
    assert "step 3" in problem
