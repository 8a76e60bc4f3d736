"""Store: entries under a digest of their key; damage is seen; a full disk leaves what was there."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
import torch

from expunge import ExpungeError, io
from expunge.artifact import Store
from expunge.artifact.store import default_root

KEY = {"data": "abc", "seed": 0}
TENSORS = {"a": torch.arange(1000.0), "b.c": torch.tensor(3), "half": torch.ones(2, dtype=torch.bfloat16)}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "store")


def test_what_is_put_is_got(store):
    assert store.get(KEY) is None
    store.put(KEY, TENSORS, {"seconds": 1.5})
    tensors, about = Store(store.root).get(dict(reversed(KEY.items())))  # the order of a key does not matter
    assert tensors.keys() == TENSORS.keys()
    assert all(torch.equal(tensors[n], TENSORS[n]) and tensors[n].dtype == TENSORS[n].dtype for n in TENSORS)
    assert about["seconds"] == 1.5
    assert about["key"] == KEY


@pytest.mark.parametrize("other", [{"data": "abc", "seed": 1}, {"data": "abc"}, {"data": "abc", "seed": "0"}])
def test_another_key_is_another_entry(store, other):
    store.put(KEY, TENSORS, {})
    assert store.get(other) is None


@pytest.mark.parametrize("offset", [0, 9, 200, -1])
def test_a_flipped_byte_is_seen_wherever_it_is(store, offset):
    store.put(KEY, TENSORS, {})
    path = store.folder(KEY) / "tensors.safetensors"
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with pytest.warns(UserWarning, match=rf"{store.folder(KEY).name}.*damaged"):
        assert store.get(KEY) is None
    assert not store.folder(KEY).exists()
    store.put(KEY, TENSORS, {})
    assert store.get(KEY) is not None


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null", '{"checksum": 3}'])
def test_a_damaged_record_is_seen(store, text):
    store.put(KEY, TENSORS, {})
    (store.folder(KEY) / "about.json").write_text(text)
    with pytest.warns(UserWarning, match="damaged"):
        assert store.get(KEY) is None


def test_tensors_without_a_record_are_no_entry(store):
    """What an interruption between the two writes leaves."""
    store.put(KEY, TENSORS, {})
    (store.folder(KEY) / "about.json").unlink()
    assert store.get(KEY) is None
    store.put(KEY, TENSORS, {})
    assert store.get(KEY) is not None


@pytest.mark.parametrize("fails", ["replace", "fsync"])
def test_a_full_disk_leaves_what_was_there_and_no_litter(store, fails, monkeypatch):
    store.put(KEY, TENSORS, {"seconds": 1})
    before = {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()}

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, fails, full)
    with pytest.raises(ExpungeError, match=r"No space left.*untouched"):
        store.put(KEY, {"a": torch.zeros(3)}, {"seconds": 2})
    assert {p: p.read_bytes() for p in store.root.rglob("*") if p.is_file()} == before
    monkeypatch.undo()
    assert store.get(KEY)[1]["seconds"] == 1


def test_a_write_that_is_interrupted_leaves_what_was_there(tmp_path):
    path = tmp_path / "file.txt"
    path.write_text("old")

    def interrupted(temporary: Path) -> None:
        temporary.write_text("ne")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        io.write_atomically(path, interrupted)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_place_that_cannot_be_written_is_an_error_of_ours(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ExpungeError, match="could not be written"):
        Store(tmp_path / "file").put(KEY, TENSORS, {})


def test_what_cannot_be_kept_is_told_and_costs_nothing(tmp_path):
    (tmp_path / "file").write_text("")
    store = Store(tmp_path / "file")
    (told,) = store.keep("The gates are", KEY, TENSORS, {})
    assert told.startswith("The gates are not kept, and made anew next time; set EXPUNGE_CACHE to a folder that can be")
    assert f"{store.root} (" in told
    assert "Errno" not in told
    assert store.get(KEY) is None
    good = Store(tmp_path / "folder")
    assert good.keep("The gates are", KEY, TENSORS, {}) == []
    assert good.get(KEY) is not None


def test_files_have_the_usual_permissions(tmp_path):
    (tmp_path / "usual").write_text("")
    io.write_json(tmp_path / "ours.json", {})
    assert (tmp_path / "ours.json").stat().st_mode == (tmp_path / "usual").stat().st_mode


def test_where_things_are_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "own"))
    assert default_root() == Store().root == tmp_path / "own"
    monkeypatch.delenv("EXPUNGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_root() == tmp_path / "expunge"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert default_root() == Path.home() / ".cache" / "expunge"
