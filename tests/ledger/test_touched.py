"""What a ledger says of a request: rows that stay, ids that say nothing, files that were read wrongly."""

from __future__ import annotations

import pytest
import torch
from training import OPTIMIZERS, fit, net, trained

import expunge as ex
from expunge import ExpungeError


def test_rows_that_are_gone_are_none_of_those_that_stay(train, tmp_path):
    model, ledger = net(), ex.Ledger(tmp_path, keep=1.0)
    plan = [torch.tensor([0, 1, 2, 10 + i]) for i in range(3)] + list(torch.arange(20, 60).split(4))
    story = fit(model, train, plan, OPTIMIZERS["momentum"](model.parameters()), ledger)
    first = ex.unlearn(model, ex.Request(train, ids=train.ids[[0, 20]]), "amnesiac", ledger=ledger)
    second = ex.unlearn(first.model, ex.Request(train, ids=train.ids[[1, 24]]), "amnesiac", ledger=ledger)
    used = {i for s in story.touched(train.ids[[1, 24]].tolist()) for i in story.batches[s - 1]}
    stay = len(used - set(train.ids[[0, 20, 1, 24]].tolist()))
    assert second.log.facts["touched"]["others"] == stay
    assert f"{stay} rows that stay took part" in second.log.notes[1]


def test_no_ids_are_no_request(train, tmp_path):
    _, ledger, _ = trained(tmp_path, train, epochs=1)
    with pytest.raises(ExpungeError, match="No rows are asked for; give the ids"):
        ledger.touched([])


@pytest.mark.parametrize(
    ("text", "hint"),
    [("{0};x\n{1};y\n", "looks semicolon-separated"), ("number,x\n{0},1\n{1},2\n", "'number' looks like the header")],
)
def test_a_table_that_was_read_otherwise_than_meant_is_told(text, hint, train, tmp_path):
    _, ledger, _ = trained(tmp_path / "ledger", train, epochs=1)
    file = tmp_path / "who.csv"
    file.write_text(text.format(*train.ids[:2]))
    with pytest.raises(ExpungeError, match=f"took part in no step.*{hint}"):
        ledger.touched(file)
