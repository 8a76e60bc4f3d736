"""What a purge leaves, says and allows afterwards."""

from __future__ import annotations

import pytest
import torch
from training import OPTIMIZERS, batches, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError
from expunge.artifact.ledger import manifest
from expunge.artifact.ledger.index import Index
from expunge.artifact.ledger.journal import Journal


def test_a_training_does_not_go_on_where_steps_were_purged(train, tmp_path):
    model, ledger, _ = trained(tmp_path / "one", train, keep=1.0, epochs=1)
    after = subtracted(model, ledger, train.ids[:1].tolist(), train)
    ledger.purge(after)
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with pytest.raises(ExpungeError, match=r"were purged from the ledger .*one.*another folder.*rewind\(0\)"):
        ex.Ledger(tmp_path / "one").watch(model, optimizer)
    plan = batches(train, 1)
    fit(after, train, plan, OPTIMIZERS["sgd"](after.parameters()), ex.Ledger(tmp_path / "two", keep=1.0))
    again = ex.Ledger(tmp_path / "one")
    again.rewind(0)
    story = fit(fresh := net(), train, plan, OPTIMIZERS["sgd"](fresh.parameters()), again)
    assert again.touched(train.ids[:1]).steps.tolist() == story.touched(train.ids[:1].tolist())


def row_by_row(folder, rows, **settings):
    """A training in which steps 1 to 8 have five rows of their own each; ids that can be found in a file."""
    named = ex.Rows(rows.x(torch.arange(40)), rows.y[:40], ids=[f"patient {i:02d}." for i in range(40)])
    model, ledger = net(), ex.Ledger(folder, keep=1.0, **settings)
    fit(model, named, list(torch.arange(40).split(5)), OPTIMIZERS["momentum"](model.parameters()), ledger)
    return model, ledger, named


def without(model, ledger, rows, ids, **fields):
    request = ex.Request(rows, ids=ids)
    return ex.unlearn(model, request, "amnesiac", ledger=ledger, control=False, **fields).model


def test_each_purge_counts_its_own_steps(train, tmp_path):
    model, ledger, rows = row_by_row(tmp_path, train)
    for asked in ([0], [5, 10], [15]):
        model = without(model, ledger, rows, rows.ids[asked], scale=0.5)
        ledger.purge(model)
    for told, count in zip(ledger.purges, (1, 2, 1), strict=True):
        assert f" bytes of {count} steps and the ids of {count} rows were removed" in told
        assert f"Of {count} steps only a part had been taken back" in told
    shares = ex.Ledger(tmp_path / "shares", keep=1.0, record="sample")
    model = net()
    fit(model, rows, list(torch.arange(40).split(5)), OPTIMIZERS["momentum"](model.parameters()), shares)
    for asked in ([0, 1, 2, 3, 4], [5, 6, 7, 8, 9]):
        model = without(model, shares, rows, rows.ids[asked], scale=0.5)
        shares.purge(model, ids=rows.ids[asked[:3]])
    assert ["bytes of 1 steps" in told and "Of 5 rows only a part" in told for told in shares.purges] == [True, True]


def test_what_was_purged_before_is_told_from_what_a_model_does_not_know(train, tmp_path):
    model, ledger, rows = row_by_row(tmp_path, train)
    first = without(model, ledger, rows, rows.ids[[0]])
    second = without(first, ledger, rows, rows.ids[[5]])
    ledger.purge(second)
    before = "None of these 1 rows, e.g. 'patient 00.', is in the ledger: they were purged before"
    for model, ids in ((first, None), (first, rows.ids[[0]]), (second, ["patient 00."])):
        with pytest.raises(ExpungeError, match=before):
            ledger.purge(model, ids)
    second._expunge_gone = {}
    with pytest.raises(ExpungeError, match="Say which rows"):
        ledger.purge(second)


@pytest.mark.parametrize("work", [manifest.drop_rows, manifest.without_ids, Journal.purge])
def test_a_purge_that_was_interrupted_can_be_done_again(work, train, tmp_path, monkeypatch):
    model, ledger, rows = row_by_row(tmp_path, train, sensitive=[f"patient {i:02d}." for i in range(9)])
    manifest.write_rows(tmp_path, rows.ids.tolist(), rows.y.tolist(), rows.classes)
    after = without(model, ledger, rows, rows.ids[[0, 7]])

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Journal if work is Journal.purge else manifest, work.__name__, interrupted)
        with pytest.raises(KeyboardInterrupt):
            ledger.purge(after)
    assert ex.Ledger(tmp_path).purge(after) > 0
    found = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert b"patient 08." in found
    assert b"patient 00." not in found
    assert b"patient 07." not in found


def test_rows_that_are_not_taken_back_are_found_in_one_pass(train, tmp_path, monkeypatch):
    model, ledger, rows = row_by_row(tmp_path, train)
    after = without(model, ledger, rows, rows.ids[[0]])
    passes = []
    monkeypatch.setattr(Index, "rows", lambda *args, own=Index.rows: passes.append(1) or own(*args))
    with pytest.raises(ExpungeError, match=r"Of 35 of these 40 rows, e.g. 'patient 05.', not everything"):
        ledger.purge(after, rows.ids)
    assert len(passes) < 5
