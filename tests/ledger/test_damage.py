"""What the files beside the records say of themselves: a flipped byte in any of them is found and named."""

from __future__ import annotations

import json
import random
import shutil
import sqlite3

import pytest
import torch
from training import OPTIMIZERS, fit, net, trained

import expunge as ex
from expunge import ExpungeError, io
from expunge.artifact.ledger.journal import Journal


@pytest.fixture(scope="module")
def folder(train, tmp_path_factory):
    """A ledger as a recipe makes it."""
    path = tmp_path_factory.mktemp("ledger") / "ledger"
    recipe = ex.Recipe(
        model={"name": "mlp", "hidden": [8]}, epochs=1, batch_size=256, ledger={"keep": 0.5, "sensitive": [0, 1]}
    )
    recipe(train, ids=train.ids[:300], ledger=path)
    return path


@pytest.fixture
def copied(folder, tmp_path):
    """One that may be damaged."""
    return shutil.copytree(folder, tmp_path / "ledger")


def said(folder) -> str:
    """What opening or verifying says; anything but an ExpungeError fails the test."""
    try:
        return " ".join(ex.Ledger(folder).verify())
    except ExpungeError as error:
        return str(error)


def test_an_intact_ledger_has_nothing_to_say(copied):
    assert said(copied) == ""


@pytest.mark.parametrize("name", ["ledger.json", "rows.json", "start.safetensors"])
def test_every_flipped_byte_of_a_file_is_named(name, copied):
    path, rng = copied / name, random.Random(0)
    data = path.read_bytes()
    positions = range(len(data)) if len(data) < 200 else sorted(rng.sample(range(len(data)), 60))
    for at in positions:
        path.write_bytes(data[:at] + bytes([data[at] ^ (1 << rng.randrange(7))]) + data[at + 1 :])
        if name != "start.safetensors" and _means_the_same(path, data):
            continue
        assert name in said(copied), (at, data[at])


def _means_the_same(path, data) -> bool:
    """Whether white space has become other white space, or only the digest's name was hit."""
    try:
        now, before = json.loads(path.read_bytes()), json.loads(data)
    except ValueError:
        return False
    return now == before or {k: v for k, v in before.items() if k != "digest"}.items() <= now.items()


@pytest.mark.parametrize("name", ["ledger.json", "start.safetensors"])
def test_a_cut_off_file_is_named(name, copied):
    path = copied / name
    path.write_bytes(path.read_bytes()[:-9])
    assert name in said(copied)


def test_first_weights_that_are_missing_are_named(copied):
    (copied / "start.safetensors").unlink()
    assert "start.safetensors, the first weights of the training, is missing" in said(copied)


@pytest.mark.parametrize("key", ["settings", "layers", "buffers", "data", "optimizer", "recipe"])
def test_a_manifest_without_a_digest_that_lacks_something_is_named(key, copied):
    about = io.read_json(copied / "ledger.json")
    del about["digest"], about[key]
    io.write_json(copied / "ledger.json", about)
    assert f"ledger.json is damaged: it lacks {key}" in said(copied)


def test_a_ledger_from_before_there_were_digests_opens_as_it_did(copied):
    for name in ("ledger.json", "rows.json"):
        data = io.read_json(copied / name)
        del data["digest"]
        io.write_json(copied / name, data)
    journal = Journal(copied)
    assert journal.get("start")
    journal.put("start", None)
    journal.close()
    ledger = ex.Ledger(copied)
    assert ledger.verify() == []
    assert ledger.settings.keep == 0.5
    assert len(ledger.of_classes([3])) > 5
    path = copied / "start.safetensors"
    path.write_bytes(path.read_bytes()[:-9])  # torn: seen without a digest as well
    assert "start.safetensors" in said(copied)


def test_what_is_kept_under_a_key_may_turn_into_anything(copied):
    sql = sqlite3.connect(copied / "index.sqlite")
    sql.execute("UPDATE state SET value = X'00ff' WHERE key = 'marks'")
    sql.commit()
    sql.close()
    assert "keeps under 'marks' is damaged" in said(copied)


def test_a_purge_writes_digests_anew(train, tmp_path):
    ids = train.ids[[3, 40]].tolist()
    model, ledger, _ = trained(tmp_path, train, keep=1.0, sensitive=ids, epochs=1)
    after = ex.unlearn(model, ex.Request(train, ids=ids[:1]), "amnesiac", ledger=ledger, control=False).model
    ledger.purge(after)
    assert ex.Ledger(tmp_path).settings.sensitive == (ids[1],)
    assert said(tmp_path) == ""


def test_a_ledger_that_begins_again_has_first_weights_of_its_own(train, tmp_path):
    trained(tmp_path, train, keep=1.0, epochs=1)
    again = ex.Ledger(tmp_path)
    again.rewind(0)
    model = net(seed=5)
    fit(model, train, [torch.arange(8)], OPTIMIZERS["sgd"](model.parameters()), again)
    assert said(tmp_path) == ""
