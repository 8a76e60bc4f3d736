"""The control of a subtraction: what it says, when it is no comparison, and which rows it asks about."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import Dataset
from training import OPTIMIZERS, fit, net

import expunge as ex
from expunge import ExpungeError
from kit import bits


def in_turn(folder, rows, steps: int = 8, **settings):
    """A training in which each step has five rows that no other step has."""
    model, ledger = net(), ex.Ledger(folder, keep=1.0, **settings)
    fit(model, rows, list(torch.arange(5 * steps).split(5)), OPTIMIZERS["momentum"](model.parameters()), ledger)
    return model, ledger


@pytest.mark.parametrize("record", ["update", "sample"])
def test_fewer_others_than_were_taken_back_are_no_comparison(record, train, tmp_path):
    settings = {"record": record} | ({"sensitive": train.ids[:40].tolist()} if record == "sample" else {})
    model, ledger = in_turn(tmp_path, train, **settings)
    asked = list(range(35)) if record == "sample" else [0, 5, 10, 15, 20]
    unit = "rows" if record == "sample" else "steps"
    left = 5 if record == "sample" else 3
    result = ex.unlearn(model, ex.Request(train, ids=train.ids[asked]), "amnesiac", ledger=ledger)
    assert result.log.facts["control"][unit] == left
    assert result.log.facts["control"]["of"] == len(asked)
    assert f"; {len(asked)} {unit} taken back. Control, " in result.log.notes[-1]
    assert result.log.notes[-1].endswith(
        f"Only {left} of {len(asked)} were left to draw, so this is no equal comparison."
    )
    few = ex.unlearn(model, ex.Request(train, ids=train.ids[:1]), "amnesiac", ledger=ledger)
    assert few.log.facts["control"]["of"] == few.log.facts["control"][unit] == 1
    assert "no equal comparison" not in few.log.notes[-1]


class Deleted(Dataset):
    """Images of which some are no longer there."""

    def __init__(self, rows, gone, error):
        self.rows, self.gone, self.error = rows, gone, error

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        if i in self.gone:
            raise self.error
        return self.rows[i]


@pytest.mark.parametrize("error", [FileNotFoundError("3.png"), IndexError("3")])
def test_rows_that_are_deleted_already_are_taken_back_without_a_control(error, train, tmp_path):
    source = Deleted(train, set(), error)
    rows = ex.Rows(source, train.y, hash_inputs=False)
    model, ledger = in_turn(tmp_path, rows)
    source.gone = {3}
    result = ex.unlearn(model, ex.Request(rows, ids=[3]), "amnesiac", ledger=ledger)
    assert "There is no control: it asks about rows that cannot be read." in result.log.notes[-1]
    assert "control" not in result.log.facts
    assert len(ledger.deletions) == 1
    assert bits(ex.unlearn(model, ex.Request(rows, ids=[3]), "amnesiac", ledger=ledger, control=False).model) == bits(
        result.model
    )


def test_a_deletion_is_noted_before_it_is_compared(train, tmp_path, monkeypatch):
    model, ledger = in_turn(tmp_path, train)

    def killed(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.methods.control.percent_right", killed)
    with pytest.raises(KeyboardInterrupt):
        ex.unlearn(model, ex.Request(train, ids=train.ids[:1]), "amnesiac", ledger=ledger)
    assert len(ledger.deletions) == 1


# -- what is refused before anything is computed -------------------------------------------------------------------


def test_a_model_that_lost_its_history_is_not_repaired_on_what_it_has_forgotten(train, tmp_path):
    model, ledger = in_turn(tmp_path, train)
    first = ex.unlearn(model, ex.Request(train, ids=train.ids[:1]), "amnesiac", ledger=ledger, control=False)
    blank = net()
    blank.load_state_dict(first.model.state_dict())
    request = ex.Request(train, ids=train.ids[5:6])
    with pytest.raises(ExpungeError, match=r"does not say which rows.*gone=ids.*A repair would train them back in"):
        ex.unlearn(blank, request, "amnesiac", ledger=ledger, repair_epochs=1)
    told = ex.unlearn(blank, request, "amnesiac", ledger=ledger, control=False)
    assert any("These rows count as rows that stay" in note for note in told.log.notes)
    named = ex.Request(train, ids=train.ids[5:6], gone=train.ids[:1])
    for start, asked in ((blank, named), (first.model, request)):
        after = ex.unlearn(start, asked, "amnesiac", ledger=ledger, repair_epochs=1, control=False)
        assert not any("does not say which rows" in note for note in after.log.notes)


def test_a_ledger_that_cannot_be_written_is_told_before_anything_is_computed(train, tmp_path, monkeypatch):
    model, ledger = in_turn(tmp_path, train)
    request = ex.Request(train, ids=train.ids[:1])

    def nothing(*args):
        raise AssertionError("updates were read")

    monkeypatch.setattr("expunge.artifact.ledger.reading.Reader.total", nothing)
    with ex.Ledger(tmp_path)._write(), pytest.raises(ExpungeError, match="is being written by another process"):
        ex.unlearn(model, request, "amnesiac", ledger=ledger)
    lock = tmp_path / "writer.lock"
    lock.unlink()
    lock.mkdir()  # also the root user cannot open it
    with pytest.raises(ExpungeError, match=r"cannot be written \(unable to open.*may write to the folder"):
        ex.unlearn(model, request, "amnesiac", ledger=ledger)
