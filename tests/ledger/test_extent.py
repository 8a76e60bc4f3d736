"""Requests that take back the same steps or rows to another extent: a smaller share or scale, and then more."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pytest
import torch
from training import OPTIMIZERS, fit, net, subtracted, trained

import expunge as ex
from expunge import ExpungeError
from expunge.artifact.ledger.deletions import Extent, left
from expunge.artifact.ledger.journal import Journal
from kit import bits


def shared(folder, rows, **settings):
    """A training in which rows 0 and 1 share their only step."""
    model, ledger = net(), ex.Ledger(folder, keep=1.0, **settings)
    plan = list(torch.arange(40).split(5))
    fit(model, rows, plan, OPTIMIZERS["momentum"](model.parameters()), ledger)
    return model, ledger, rows.ids[0].item(), rows.ids[1].item()


def undone(model, rows, ledger, ids, method="amnesiac", **fields):
    request = ex.Request(rows, ids=ids)
    return ex.unlearn(copy.deepcopy(model), request, method, ledger=ledger, control=False, **fields)


def near(a, b) -> bool:
    return all(torch.allclose(p, q, rtol=0, atol=1e-7) for p, q in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("record", ["update", "gradient"])
@pytest.mark.parametrize(("method", "fields"), [("partial_amnesiac", {"keep": 0.05}), ("amnesiac", {"scale": 0.1})])
def test_the_rest_of_a_step_is_taken_back_when_more_is_asked(method, fields, record, train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train, record=record)
    part = undone(model, train, ledger, [i], method, **fields)
    then = undone(part.model, train, ledger, [j])
    assert near(then.model, undone(model, train, ledger, [i, j]).model)
    assert bits(part.model) != bits(then.model)
    assert any("Of 1 steps earlier requests had taken back less" in note for note in then.log.notes)
    again = undone(then.model, train, ledger, [train.ids[2].item()])  # of the same step: nothing is left
    assert bits(again.model) == bits(then.model)


def test_less_than_was_taken_back_is_nothing_more(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    whole = undone(model, train, ledger, [i])
    then = undone(whole.model, train, ledger, [j], "partial_amnesiac", keep=0.05)
    assert bits(then.model) == bits(whole.model)
    assert not any("taken back less" in note for note in then.log.notes)


def test_a_wider_share_at_a_smaller_scale_adds_what_the_first_did_not_reach(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    part = undone(model, train, ledger, [i], "partial_amnesiac", keep=0.05)
    then = undone(part.model, train, ledger, [j], scale=0.5)
    few, every = ledger.reader().total([1], keep=0.05), ledger.reader().total([1])
    for name, p in model.named_parameters():
        expected = p.double() - torch.where(few[name] != 0, every[name], 0.5 * every[name])
        assert torch.allclose(dict(then.model.named_parameters())[name].double(), expected, rtol=0, atol=1e-7)


def test_the_rest_of_a_rows_own_share_is_taken_back_as_well(train, tmp_path):
    ids = train.ids[[4, 9]].tolist()
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0, record="sample", sensitive=ids)
    plan = [torch.tensor([4, 9, 20 + i, 30 + i]) for i in range(4)]
    fit(model, train, plan, OPTIMIZERS["momentum"](model.parameters()), ledger)
    part = undone(model, train, ledger, ids[:1], scale=0.1)
    assert ledger.deletions[-1]["rows"] == 1
    # the same row once more: of a model that does not remember what it has forgotten
    blank = net()
    blank.load_state_dict(part.model.state_dict())
    then = undone(blank, train, ledger, ids)
    assert near(then.model, undone(model, train, ledger, ids).model)
    assert any("Of 1 rows earlier requests had taken back less" in note for note in then.log.notes)


def test_a_control_takes_back_as_much_of_other_steps(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    part = undone(model, train, ledger, [i], scale=0.5)
    result = ex.unlearn(part.model, ex.Request(train, ids=[j]), "amnesiac", ledger=ledger)
    assert result.log.facts["control"]["steps"] == 1
    assert result.log.facts["touched"]["subtracted"] == 1


def test_what_was_purged_after_a_part_cannot_be_completed_and_it_says_so(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    part = undone(model, train, ledger, [i], "partial_amnesiac", keep=0.05).model
    ledger.purge(part)
    assert "Of 1 steps only a part had been taken back" in ledger.purges[0]
    with pytest.raises(ExpungeError, match=r"Of 1 steps an earlier request took back a part.*purged since"):
        undone(part, train, ledger, [j])
    same = undone(part, train, ledger, [j], "partial_amnesiac", keep=0.05)  # no more than then
    assert bits(same.model) == bits(part)


def test_a_purge_of_what_is_wholly_taken_back_speaks_of_no_part(train, tmp_path):
    model, ledger, i, _ = shared(tmp_path, train)
    ledger.purge(undone(model, train, ledger, [i]).model)
    assert "part" not in ledger.purges[0]


def test_deletions_of_old_ledgers_count_as_their_method_says(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    part = undone(model, train, ledger, [i], "partial_amnesiac", keep=0.05)
    journal = Journal(ledger.path)
    old = [{k: v for k, v in d.items() if k != "extents"} for d in journal.get("deletions")]
    journal.put("deletions", old)
    journal.close()
    assert "extents" not in json.dumps(old)
    then = undone(part.model, train, ledger, [j])
    assert near(then.model, undone(model, train, ledger, [i, j]).model)


def test_extents_against_every_entry_by_itself():
    """An entry of rank r (0 the largest, below 1) is taken back by the largest scale whose share reaches it."""
    ranks = np.array([0.01, 0.03, 0.07, 0.2, 0.6, 0.999])
    choices = list(itertools.product((0.02, 0.05, 0.1, 0.5, 1.0), (0.1, 0.5, 1.0, 2.0)))
    rng = np.random.default_rng(0)
    for _ in range(50):
        done, model = Extent(), np.zeros(len(ranks))
        for k in rng.integers(len(choices), size=4):
            keep, scale = choices[k]
            for share, times in Extent.of(keep, scale).beyond(done).items():
                model += times * (ranks < share)
            done = done | Extent.of(keep, scale)
            model_by_max = np.maximum.reduce([s * (ranks < w) for w, s in done.pairs])
            assert np.allclose(model, model_by_max)
            assert Extent.of(keep, scale).beyond(done) == {}
    assert [lot.items for lot in left([1, 2, 3], Extent.of(1, 1), {2: Extent.of(1, 1)})] == [[1, 3]]


def test_ids_that_are_not_taken_back_are_not_purged(train, tmp_path):
    model, ledger, i, j = shared(tmp_path, train)
    other = train.ids[30].item()
    after = undone(model, train, ledger, [i]).model
    for ids in ([other], [i, other]):
        with pytest.raises(ExpungeError, match=rf"Of 1 of these {len(ids)} rows, e.g. {other}, not everything"):
            ledger.purge(after, ids=ids)
    assert ledger.touched([other]).steps.tolist() == [7]
    assert ledger.purge(after, ids=[i, j]) > 0  # whose only step is taken back
    assert ledger.touched([other]).steps.tolist() == [7]


def test_rows_whose_own_shares_are_there_are_not_purged(train, tmp_path):
    ids = train.ids[:3].tolist()
    model, ledger, _ = trained(tmp_path, train, keep=1.0, record="sample", sensitive=ids)
    after = subtracted(model, ledger, ids[:1], train)
    with pytest.raises(ExpungeError, match=rf"e.g. {ids[1]}, not everything"):
        ledger.purge(after, ids=ids[1:2], others=True)


def test_once_every_sensitive_row_is_purged_none_can_be_asked_for(train, tmp_path):
    ids = train.ids[[3, 40]].tolist()
    model, ledger, _ = trained(tmp_path, train, keep=1.0, sensitive=ids[:1], epochs=1)
    after = ex.unlearn(model, ex.Request(train, ids=ids[:1]), "amnesiac", ledger=ledger, control=False).model
    ledger.purge(after)
    for opened in (ledger, ex.Ledger(tmp_path)):
        assert opened.settings.sensitive == ()
        assert not opened.whole
        with pytest.raises(ExpungeError, match="records sensitive rows only, and 1 of 1 ids are not among them"):
            undone(after, train, opened, ids[1:])
